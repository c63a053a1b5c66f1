"""Let each caller make so many requests in a day, a week or a month.

```yaml
consumers:
  ada: {keys: "${ADA_KEY:-ada-has-a-long-key}", metadata: {plan: gold}}
policies:
  - key-auth
  - rate-limit: {limits: 60/1m, plans: {gold: 1000/1m}}
  - quota: {requests: 10000, per: month, plans: {gold: 1000000, internal: none}}
routes:
  - {path: /orders/**, service: orders}
  - path: /reports/**
    service: reports
    policies:
      - quota: 100/day
        name: reports
      - quota: {requests: 20, per: week, offset: 1d8h, timezone: Europe/Zurich, key: "user.claims['org']"}
        name: of-organizations
```

A quota begins anew with each period of the calendar: a day at midnight, a week on Monday, a month on its first day, in
UTC or in a `timezone`, and later by `offset`: `1d8h` of a week is Tuesday at eight. Beyond it requests are answered 429
with `Retry-After`, which says when the next period begins.

What has been used is kept where it lasts: on the disk of the machine, where `state` has a `path`, or in a Redis, which
should be one that writes what it has to a disk. It is kept for two months after the last request. All credentials of a
[consumer](../configuration.md#consumers) count together; so do all routes around which the policy stands.

To write each request to a disk would have each wait for it, for some milliseconds. So each worker takes requests ahead,
for callers that come often: as many as such a caller makes in a second or two, and no more than a hundredth of what is
left. Nobody may ever make more than the quota. What a worker has taken and does not give out it gives back after half a
minute; of one that ends meanwhile, or is given other settings of the quota, a caller loses that. With `exact` each
request is written by itself, and waits for it. In a Redis, that takes no longer than a rate limit does. Give a route
that has a quota a `name`, by which its counts are found again.

Whose plan is one of `plans` may what it says, whoever else what `requests` says. `plan` is an expression, as in
[rate-limit](rate-limit.md): with the same in both, a plan ties consumers to limits and quotas. What has been used in a
period stays used when somebody changes to another plan.

`cost`, `headers`, `dry_run` and `status` are as in [rate-limit](rate-limit.md), too; requests are counted by
`portico_quota_requests_total`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, Final, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from portico.plugin import (
    BadValue,
    Budget,
    Budgets,
    CallerKey,
    Check,
    Counted,
    Duration,
    Env,
    Gate,
    Handler,
    LimitingConfig,
    Limits,
    Nothing,
    Periods,
    PeriodUnit,
    Policy,
    Request,
    Response,
    Stage,
    TakenAhead,
    Terms,
    Told,
    Total,
    checks_of,
    prefix_of,
)

MOST: Final = 10**12
"""The most requests of a quota."""
_LIVES: Final = 62 * 86400.0
"""Seconds that a count lives after the last request: longer than any period, so that it is there until its end."""
_SECONDS: Final = {"day": 86400, "week": 7 * 86400, "month": 0}
"""What clients are told of a period; a month is not always as long."""
_TEXT: Final = r"(\d{1,13}) ?/ ?(day|week|month)"

Amount: TypeAlias = Annotated[int, Field(ge=1, le=MOST), Nothing(0)]
"""How many; `none`, which is 0, is as many as they like."""


class Quota(LimitingConfig):
    """How many, and in which period."""

    requests: Annotated[
        Amount,
        WithJsonSchema(
            {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^({_TEXT}|none|off)$"}]}
        ),
    ]
    """How many requests each caller may make; `none` is as many as they like. `10000/month` says the period, too."""
    per: PeriodUnit
    """The period."""
    offset: Duration = 0.0
    """How much later than a day of the calendar it begins."""
    timezone: str = "UTC"
    """By whose clocks, such as `Europe/Zurich`."""
    plans: Mapping[str, Amount] = Field(default_factory=dict)
    """How many those with a plan may make instead, by its name."""
    exact: bool = False
    """Whether each request is written by itself before it passes, and nothing is taken ahead."""

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, given: Any) -> Any:
        text = given.get("requests") if isinstance(given, dict) else None
        if not isinstance(text, str) or text in ("none", "off"):
            return given
        match = re.fullmatch(_TEXT, text, re.ASCII)
        if match is None or "per" in given:
            hint = "write 10000/month, or {requests: 10000, per: month}"
            raise BadValue(f"{text!r} is not a quota", hint)
        return {**given, "requests": int(match[1]), "per": match[2]}

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (LookupError, ValueError, OSError):
            raise BadValue(f"there is no time zone {name!r}", "write one such as Europe/Zurich, or UTC") from None
        return name

    @model_validator(mode="after")
    def _can_be_kept_to(self) -> Quota:
        amounts = [amount for amount in (self.requests, *self.plans.values()) if amount]
        if not amounts:
            raise BadValue("this limits nothing", "write one such as 10000/month")
        if isinstance(self.cost.before, int) and self.cost.before > min(amounts):
            raise BadValue(f"a request that costs {self.cost.before} never fits into {min(amounts)}", "raise the quota")
        if self.offset >= Periods.shortest(self.per):
            raise BadValue(f"by this offset a {self.per} would begin in the next one", "write a shorter one")
        return self


class QuotaPolicy(Policy[Quota], name="quota", stages=(Stage.LIMIT,)):
    """Counts requests over a long time."""

    of_callers = True

    def setup(self, env: Env) -> None:
        """Have the counts at hand; all routes around which the policy stands share them."""
        config = self.config
        key = CallerKey(config.key)
        key.check_captures(env)
        space = env.store.durable
        check = checks_of(env, space, config.on_store_failure)
        self._shared = env.share((self.name, env.place, space, config.text), lambda: _Shared(config, env, key, check))
        self._gate = self._shared.gate
        self._spawn = env.spawn
        for each in self._shared.ahead:
            each.join(self._spawn)

    def close(self) -> None:
        """Have the other routes go on without this one."""
        for each in self._shared.ahead:
            each.leave(self._spawn)

    def handle(self, request: Request, next: Handler) -> Coroutine[Any, Any, Response]:  # noqa: A002 - the field's word
        """Let a request pass, or not."""
        return self._gate.handle(request, next)


class _Shared:
    """What all routes around which the policy stands have together."""

    def __init__(self, config: Quota, env: Env, key: CallerKey, check_of: Callable[[Limits], Check]) -> None:
        self.ahead: list[TakenAhead] = []
        prefix = prefix_of(env.place)  # one for all plans, which share what was used
        space = env.store.durable

        def budget(amount: int) -> Budget | None:
            if not amount:
                return None
            limits = Limits([Total(amount, _LIVES)])
            check = check_of(limits)
            if not config.exact:
                check = TakenAhead(space, limits, check, env.clock)
                self.ahead.append(check)
            return Budget(prefix, check, Terms([Told(f"{amount}/{config.per}", amount, _SECONDS[config.per])]))

        budgets = Budgets(
            budget(config.requests), config.plan, {name: budget(amount) for name, amount in config.plans.items()}
        )
        periods = Periods(config.per, ZoneInfo(config.timezone), config.offset)
        budget_for, period_at, caller, wall = budgets.of, periods.at, key.of, env.wall

        def count(request: Request) -> Counted | None:
            found = budget_for(request)
            if found is None:
                return None
            now = wall()
            period = period_at(now)
            return Counted(found, found.key(caller(request), period.name), period.end - now)

        self.gate = Gate(config, env, "portico_quota_requests_total", count, _refusal)

    def close(self) -> None:
        """Let go; what is still in hand is lost."""


def _refusal(beyond: list[str]) -> Response:
    extension = {"violated-policies": beyond}  # the member is the draft's
    return Response.problem(
        429, "quota-exceeded", "Quota exceeded", "There were more requests than the quota of this period.", **extension
    )
