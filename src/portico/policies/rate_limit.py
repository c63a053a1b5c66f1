"""Let each caller make so many requests in a time, and no more.

```yaml
policies: [{rate-limit: 100/1m}]
routes:
  - path: /search/**
    service: search
    policies:
      - rate-limit: [10/1s, 1000/hour]
        name: search
  - path: /reports/**
    service: reports
    policies:
      - rate-limit:
          limits: [{requests: 5, window: 1s, algorithm: gcra, burst: 20, delay: true}]
          key: [user, "headers['x-project']"]
```

All limits of a list have to be kept to. A request beyond one of them is answered 429 with `Retry-After`, and counts for
none; `violated-policies` of the problem has the names of the limits. What is counted is counted by the
[store](../configuration.md#state): exactly, over all workers, and with a Redis over all machines; a reload changes
nothing of it, unless it changes the windows. Routes that have the policy from the file or from a service share its
counts; to give one a count of its own, have the policy on the route. They are found again by the route's name: give it
a `name`, as those without one are numbered where their paths begin alike.

Each caller is counted alone: by default a user (a [consumer](../configuration.md#consumers) under whichever of its
credentials), or, where nobody is known, or `anonymous` has let them in, the address, in IPv6 the network of 64 bits.
Behind a proxy, only with `trusted_proxies` has each client its own. In the stage `guard`, requests are counted before
anyone is asked who they are, so that many wrong passwords are refused as well; addresses are all that can be told apart
there.

How it is counted:

- `sliding`, the default: in any window of that length. What was counted in the window before is taken to have come
  evenly; so a little more or less may pass than if each request were remembered.
- `fixed`: in windows that begin by the clock, such as at each full hour in UTC, as Kong and APISIX have it. Up to twice
  as many may pass where two windows meet.
- `gcra`: a leaky bucket of `burst`, out of which `requests` drain in each `window`, evenly. `burst: 21, delay: true` is
  nginx's `burst=20`, `burst: 21` with `nodelay`, and `delay: 8` its `delay=8`. A request that waits for its turn is
  refused where it would be answered too late, or 1000 others wait already.

Tiers and plans
---------------

```yaml
consumers:
  ada: {keys: "${ADA_KEY:-ada-has-a-long-key}", metadata: {plan: gold}}
policies:
  - key-auth
  - jwt: {issuer: "https://id.example", jwks_url: "https://id.example/keys", audience: orders}
  - anonymous
  - rate-limit:
      limits: 100/1h
      tiers:
        - {when: "path.startsWith('/orders/export')", limits: 5/1h}
        - {when: "user.kind == 'key-auth'", limits: 10000/1h}
        - {when: "user.kind != 'anonymous'", limits: 1000/1h}
      plans: {gold: 1000/1m, unlimited: none}
routes:
  - {path: /orders/**, service: orders}
```

Who has a plan that is one of `plans` may what it says: a consumer by its `metadata.plan`, somebody with a token by the
claim `plan`, or whoever by another expression, `plan`. For all others the first of the `tiers` counts whose condition
holds, and `limits` where none does; `limits: none` is without a limit. Each tier and each plan has counts of its own.

What a request costs
--------------------

```yaml
routes:
  - path: /llm/**
    service: llm
    policies:
      - rate-limit: {limits: 100000/1h, cost: {header: X-Tokens-Used, most: 20000, strip: true}}
  - path: /batch/**
    service: batch
    policies:
      - rate-limit: {limits: 1000/1m, cost: 10}
```

A request counts 1, or `cost`. With `header` the service says in its answer what it has cost in all, and the rest is
counted then, whether there is room for it or not: the next requests have to wait until it has come back. An
expression such as `headers['x-size']` can be the cost as well; a client that writes it can make it 0. A client that
leaves before the answer has begun has paid no more than `before`; so have that be what a request costs at least. What
costs more than a limit ever has is refused without `Retry-After`.

What clients are told
---------------------

Answers have `RateLimit-Policy` with all limits and `RateLimit` with the tightest one, as
[draft 10](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/) of the IETF has them, and
`X-RateLimit-Limit`, `-Remaining` and `-Reset`, in seconds, of the tightest. It is the one with the least left, of
all policies that limit the request; of a refused one, the limit that has refused it. What a service says of its own in
these headers is replaced.

With `dry_run` nothing is refused: what would be is logged, once a minute for each caller, and counted by
`portico_rate_limit_requests_total{policy="rate-limit",result="dry-run"}`, by the name of the policy. The other results
are `allowed`, `limited`, and `unchecked` where the store had no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from pydantic import Field, model_validator

from portico.plugin import (
    BadValue,
    Budget,
    Budgets,
    CallerKey,
    Condition,
    Counted,
    Env,
    Gate,
    Handler,
    LimitCheck,
    LimitingConfig,
    LimitList,
    Limits,
    Policy,
    Request,
    Response,
    Stage,
    Tier,
    budget_of,
    checks_of,
    prefix_of,
    remarks_on_limits,
    remarks_on_nobody,
)


class RateLimit(LimitingConfig):
    """How many."""

    limits: LimitList
    """What each caller may: a limit such as `100/1m` or `1000/hour`, or a list of them; `none` is as much as they
    like."""
    tiers: tuple[Tier, ...] = ()
    """Limits for some requests in place of `limits`; the first counts whose condition holds."""
    plans: Mapping[str, LimitList] = Field(default_factory=dict)
    """Limits for those with a plan, by its name, ahead of all others."""

    @property
    def lists(self) -> list[LimitList]:
        """Every list of limits."""
        return [self.limits, *(tier.limits for tier in self.tiers), *self.plans.values()]

    @model_validator(mode="after")
    def _can_be_kept_to(self) -> RateLimit:
        if not any(self.lists):
            raise BadValue("this limits nothing", "write one such as 100/1m")
        for limit in (each for limits in self.lists for each in limits):
            most = limit.burst or limit.requests
            if isinstance(self.cost.before, int) and self.cost.before > most:
                raise BadValue(
                    f"a request that costs {self.cost.before} never fits into {limit.text}", "raise the limit"
                )
        return self


class RateLimitPolicy(Policy[RateLimit], name="rate-limit", stages=(Stage.LIMIT, Stage.GUARD)):
    """Counts requests."""

    of_callers = True

    @classmethod
    def remarks(cls, config: RateLimit, stage: Stage) -> Iterator[tuple[str, str]]:
        """Return what is odd about the settings."""
        texts = [tier.when for tier in config.tiers] + ([config.plan] if config.plans else [])
        yield from remarks_on_nobody(config, stage, texts)
        for limits in config.lists:
            yield from remarks_on_limits(limits)

    def setup(self, env: Env) -> None:
        """Have the counts at hand; all routes around which the policy stands share them."""
        config = self.config
        key = CallerKey(config.key)
        key.check_captures(env, *(Condition(tier.when) for tier in config.tiers))
        space = env.store.volatile
        check = checks_of(env, space, config.on_store_failure)
        self._gate = env.share((self.name, env.place, space, config.text), lambda: _gate(config, env, key, check))

    def handle(self, request: Request, next: Handler) -> Coroutine[Any, Any, Response]:  # noqa: A002 - the field's word
        """Let a request pass, or not."""
        return self._gate.handle(request, next)


def _gate(config: RateLimit, env: Env, key: CallerKey, check: Callable[[Limits], LimitCheck]) -> Gate:
    def budget(limits: LimitList, *which: str) -> Budget | None:
        return budget_of(prefix_of(env.place, *which), limits, check)

    budgets = Budgets(
        budget(config.limits),
        config.plan,
        {name: budget(limits, "plan", name) for name, limits in config.plans.items()},
        [(tier.when, budget(tier.limits, "tier", tier.when)) for tier in config.tiers],
    )
    budget_for, caller = budgets.of, key.of

    def count(request: Request) -> Counted | None:
        found = budget_for(request)
        return None if found is None else Counted(found, found.key(caller(request)))

    return Gate(config, env, "portico_rate_limit_requests_total", count, _refusal)


def _refusal(beyond: list[str]) -> Response:
    extension = {"violated-policies": beyond}  # the member is the draft's
    return Response.problem(
        429, "rate-limited", "Rate limit exceeded", "There were more requests than the limits allow.", **extension
    )
