"""Limit how many requests are under way at once.

```yaml
routes:
  - {path: /orders/**, service: orders, policies: [concurrency-limit: 50]}
  - path: /reports/**
    service: reports
    policies:
      - concurrency-limit: {requests: 10, key: everyone, wait: 2s, queue: 200}
  - path: /search/**
    service: search
    policies:
      - concurrency-limit: {requests: 2, plans: {gold: 100, silver: 20, staff: none}}
  - path: /tenants/{tenant}/**
    service: tenants
    policies:
      - concurrency-limit: {requests: 20, key: "captures['tenant']", status: 503, on_store_failure: local}
```

Of each caller (`key`) there may be so many, over all workers, and over all machines where the state is in a Redis. A
caller is the consumer, else whoever the user is, else the address; `everyone` is all of them together. In IPv6 all of a
network of 64 bits is one address. Whoever has one of the `plans` may have as many as that says, as with `rate-limit`:
a consumer by its `metadata.plan`, somebody with a token by the claim `plan`. Each plan has counts of its own.

A request is under way until its answer has been handed over whole, or has failed, or the client has left; so is one
that is refused further in. A WebSocket is for as long as it is open, unless `upgrades` is `off`. All of them stay
counted however long they take; what was under way in a worker that was killed is counted for 6 seconds more. A request
that no client waits for, as where a policy asks by itself, ends with the content of its answer.

Further requests are answered 429 `too-many-concurrent-requests`, or 503 by `status`, with `Retry-After: 1`, as nobody
knows when others end. With `wait` they wait so long for one that does, first come, first served in each worker, and up
to `queue` of them in a worker; a request with a deadline waits no longer than that. In the stage `guard`, which is
ahead of authentication, users are not known yet, and callers are addresses.

While the store does not answer, all pass (`on_store_failure: allow`), none does (`deny`, with 503
`store-unavailable`), or each worker lets as many pass by itself (`local`). Those are counted once it answers again.

With `dry_run` nothing is refused: what would be is logged, once a minute, and counted by
`portico_concurrency_limit_requests_total{policy="concurrency-limit",result="dry-run"}`, by the name of the policy. The
other results are `allowed`, `limited`, and `unchecked`: those whom the store could not count, and who passed, or were
answered 503, for that reason.

How it differs from the `concurrency` of a service: that one protects the service, whoever asks, and is of each worker
alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Final, Literal

from pydantic import Field

from portico.plugin import (
    BodySource,
    CallerKey,
    Duration,
    Env,
    Exchange,
    Expression,
    Handler,
    KeyParts,
    NoPlace,
    Nothing,
    OnStoreFailure,
    Place,
    Plan,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Result,
    ResultKind,
    SemaphoreRules,
    Semaphores,
    Stage,
    Uncounted,
    prefix_of,
    remarks_on_nobody,
    store_unavailable,
)

LONGEST_WAIT: Final = 60.0
"""Seconds that a request may be made to wait."""
LARGEST: Final = 1_000_000
"""Requests that may be under way, or wait."""
TELL_AGAIN: Final = 60.0
"""Seconds for which the log does not tell again what would be refused."""

_COUNTER: Final = "portico_concurrency_limit_requests_total"


class ConcurrencyLimit(PolicyConfig):
    """How many."""

    requests: Annotated[int, Field(ge=1, le=LARGEST)]
    """How many of each caller may be under way."""
    plans: Mapping[str, Annotated[Annotated[int, Field(ge=1, le=LARGEST)] | None, Nothing(None)]] = Field(
        default_factory=dict
    )
    """How many of those with a plan, by its name; `none` is as many as they like."""
    plan: Plan = "user.claims['plan']"
    """The expression that is the name of the plan. Of a consumer it is `plan` of its metadata unless given."""
    key: KeyParts = ("user",)
    """Who a caller is: `user`, `address`, `everyone`, an expression such as `headers['x-tenant']`, or a list of these.
    Where an expression is empty for a request, its address stands for it."""
    wait: Annotated[Duration, Field(le=LONGEST_WAIT)] = 0.0
    """How long a request waits for others to end, before it is refused."""
    queue: Annotated[int, Field(ge=1, le=LARGEST)] = 100
    """How many may wait in each worker, of all callers; further ones are refused at once."""
    status: Literal[429, 503] = 429
    """What those are answered that are refused."""
    upgrades: bool = True
    """Whether a connection that was upgraded, such as a WebSocket, counts for as long as it is open."""
    on_store_failure: OnStoreFailure = "allow"
    """What becomes of requests while the store does not answer."""
    dry_run: bool = False
    """Whether requests are only counted, and none is refused."""


class ConcurrencyLimitPolicy(Policy[ConcurrencyLimit], name="concurrency-limit", stages=(Stage.LIMIT, Stage.GUARD)):
    """Counts requests that are under way."""

    of_callers = True

    @classmethod
    def remarks(cls, config: ConcurrencyLimit, stage: Stage) -> Iterator[tuple[str, str]]:
        """Return what is odd about the settings."""
        yield from remarks_on_nobody(config, stage, [config.plan] if config.plans else [])

    def setup(self, env: Env) -> None:
        """Have the counts at hand; all routes around which the policy stands share them, before and after a reload."""
        config = self.config
        key = CallerKey(config.key)
        key.check_captures(env)
        self._key = key.of
        self._otherwise = prefix_of(env.place), self._rules(config.requests)
        self._plans = {
            name: None if most is None else (prefix_of(env.place, "plan", name), self._rules(most))
            for name, most in config.plans.items()
        }
        self._plan = Expression(config.plan).read
        self._clock = env.clock
        self._logger = env.logger
        self._tell_after = float("-inf")
        name = env.place.rpartition(":")[2]  # not the route's: a board has no room for each result of each of them
        results = ("allowed", "limited", "dry-run", "unchecked")
        self._allowed, self._limited, self._spared, self._unchecked = (
            env.counter(_COUNTER, policy=name, result=result) for result in results
        )
        self._was_allowed, self._was_limited, self._was_spared, self._was_unchecked = (
            (Result(ResultKind.LIMIT, name, result),) for result in results
        )
        space, clock, logger = env.store.volatile, env.clock, env.logger
        self._semaphores = env.share((self.name, env.place, space), lambda: Semaphores(space, clock, logger))
        self._spawn = env.spawn
        self._semaphores.serve(self._spawn)

    def close(self) -> None:
        """Have the next configuration do what is to be done."""
        self._semaphores.without(self._spawn)

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        """Answer a request where there is room for it."""
        found: tuple[bytes, SemaphoreRules] | None = self._otherwise
        if self._plans:
            found = self._plans.get(self._plan(request), found)
        if found is None:
            return await next(request)
        deadline, by = request.deadline, request.answer_by
        if by is not None and (deadline is None or by < deadline):
            deadline = by
        prefix, rules = found
        entered = self._semaphores.enter(prefix + self._key(request), rules, deadline)
        if type(entered) is not Place and type(entered) is not NoPlace and type(entered) is not Uncounted:
            began = self._clock()
            entered = await entered  # type: ignore[misc] # there is nothing else that it could be
            if request.exchange is not None:
                request.exchange.step(self.called, began, self._clock(), "waited for room")
        counted = type(entered) is not Uncounted
        if type(entered) is Uncounted:
            entered = entered.entered
        if type(entered) is Place:
            (self._allowed if counted else self._unchecked).add()
            over, exchange = _Over(entered), request.exchange
            if exchange is None:
                return await _without_client(request, next, over)
            exchange.results += self._was_allowed if counted else self._was_unchecked
            exchange.on_end(over)
            if exchange.outcome is not None:
                over()
            response = await next(request)
            if response.duplex is not None and not self.config.upgrades:
                over()
            return response
        refused = self._refused(request, rules.most, full=entered is NoPlace.FULL)
        return await next(request) if refused is None else refused

    def _refused(self, request: Request, most: int, *, full: bool) -> Response | None:
        """Return the answer to a request for which there is no place, where it is not `full` as nobody knows; None
        where it may pass all the same."""
        spared = self.config.dry_run
        if not full:
            counter, result = self._unchecked, self._was_unchecked
        elif spared:
            counter, result = self._spared, self._was_spared
        else:
            counter, result = self._limited, self._was_limited
        counter.add()
        if request.exchange is not None:
            request.exchange.results += result
        if not spared:
            return self.stopped(request, self._full() if full else store_unavailable())
        if full:  # else the log knows already of a store that is down
            self._tell(most)
        return None

    def _rules(self, most: int) -> SemaphoreRules:
        config = self.config
        wait = 0.0 if config.dry_run else config.wait
        return SemaphoreRules(most, config.on_store_failure, wait, config.queue)

    def _full(self) -> Response:
        response = Response.problem(
            429,
            "too-many-concurrent-requests",
            "Too many concurrent requests",
            "As many requests are under way as may be at once.",
        )
        problem = response.problem_value
        if problem is not None and self.config.status != problem.status:
            response.status = self.config.status
            response.problem_value = replace(problem, status=self.config.status)
        response.headers.set(b"Retry-After", b"1")
        return response

    def _tell(self, most: int) -> None:
        """Tell the log of what would be refused, but for what it was told of just now."""
        now = self._clock()
        if now >= self._tell_after:
            self._tell_after = now + TELL_AGAIN
            self._logger.warning("dry run: more than %d requests are under way", most)


class _Over:
    """Ends the time in which a request is under way, once."""

    __slots__ = ("_place",)

    def __init__(self, place: Place) -> None:
        self._place: Place | None = place

    def __call__(self, _: Exchange | None = None) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.leave()


async def _without_client(request: Request, next: Handler, over: _Over) -> Response:  # noqa: A002 - the field's word
    """Answer a request that no client waits for: it is over when its answer's content is, or is given up."""
    try:
        response = await next(request)
    except BaseException:
        over()
        raise
    if response.body.whole is not None or response.duplex is not None:
        over()
    else:
        response.body.pass_through(lambda source, _: _Watched(source, over))
    return response


class _Watched:
    """Content at whose end something is over."""

    __slots__ = ("_over", "_source")

    def __init__(self, source: BodySource, over: _Over) -> None:
        self._source = source
        self._over = over

    async def read(self) -> bytes:
        """Return the next piece, or b"" at the end."""
        try:
            piece = await self._source.read()
        except BaseException:
            self._over()
            raise
        if not piece:
            self._over()
        return piece

    def trailers(self) -> list[tuple[bytes, bytes]]:
        """Return the trailer fields."""
        return self._source.trailers()

    def close(self) -> None:
        """Give up the rest."""
        self._over()
        self._source.close()
