"""What becomes of a request that is counted: it passes, waits for its turn, or is refused."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, NamedTuple

from portico.http.message import Handler, Request, Response
from portico.http.user import USER
from portico.limiting.budgets import Budget
from portico.limiting.cost import Costs
from portico.limiting.settings import LimitingConfig
from portico.limiting.told import STANDINGS, Standing, tell
from portico.observe.exchange import Result, ResultKind
from portico.policy.attempts import Recent
from portico.policy.authentication import shown
from portico.policy.base import Env
from portico.state.board import Counter
from portico.state.limits import Verdict

MOST_WAITING: Final = 1000
"""Requests of one policy that wait for their turn in a worker; others are refused."""
MOST_LOGGED: Final = 4096
"""Callers of whom it is known that the log has been told of them."""
LOGGED_FOR: Final = 60.0
"""Seconds for which it is not told again."""


class Counted(NamedTuple):
    """What a request is counted by."""

    budget: Budget
    key: bytes
    ends: float = 0.0
    """The seconds until the budget begins anew, where it does that as a whole."""


Count = Callable[[Request], Counted | None]
"""Says what a request is counted by; None where it may pass uncounted."""
Refuse = Callable[[list[str]], Response]
"""Makes the answer beyond a limit, of the names of the limits that have refused."""


class Gate:
    """Counts requests, and lets them pass or not. It belongs to a line of the file, and not to a route."""

    def __init__(self, config: LimitingConfig, env: Env, counter: str, count: Count, refuse: Refuse) -> None:
        """`counter` is the name of what counts requests on the board."""
        self._count = count
        self._refuse = refuse
        self._costs = Costs(config.cost)
        self._forms = frozenset() if config.dry_run or config.headers is None else config.headers
        self._status = config.status
        self._message = config.message
        self._dry_run = config.dry_run
        self._logger = env.logger
        self._clock = env.clock
        self._logged = Recent(MOST_LOGGED)
        self._waiting = 0
        self._name = env.place.rpartition(":")[2]  # not the route: one for each would be too many
        results = ("allowed", "limited", "dry-run", "unchecked")
        self._allowed, self._limited, self._spared, self._unchecked = (
            env.counter(counter, policy=self._name, result=result) for result in results
        )
        self._was_allowed, self._was_limited, self._was_spared, self._was_unchecked = (
            (Result(ResultKind.LIMIT, self._name, result),) for result in results
        )

    def close(self) -> None:
        """Let go; nothing is held."""

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - as a policy has it
        """Answer a request, by `next` where it may pass."""
        counted = self._count(request)
        if counted is None:
            return await next(request)
        budget, key, ends = counted
        costs = self._costs
        cost = costs.constant if costs.before is None else costs.before(request)
        found = budget.check.take(key, cost)
        verdict = found if type(found) is Verdict else await self._later(request, found)  # type: ignore[arg-type] # it is one or the other
        standing: Standing | None = None
        outermost: list[Standing] | None = None
        if self._forms and verdict.known:
            standing = Standing(budget.terms, verdict, ends, self._forms)
            standings = request.get(STANDINGS)
            if standings is None:
                request[STANDINGS] = outermost = [standing]
            else:
                standings.append(standing)
        refused = None
        exchange = request.exchange
        if verdict.allowed and not budget.delays and verdict.known:  # nearly always
            self._allowed.add()
            if exchange is not None:
                exchange.results += self._was_allowed
        else:
            refused = await self._refused(request, counted, cost, verdict)
        if refused is not None:
            response = refused
            if standing is not None:
                standing.refused = not verdict.allowed
        else:
            response = await next(request)
            if costs.learns:
                beyond = costs.beyond(response.headers, cost)
                if beyond:
                    charged = budget.check.charge(key, beyond)
                    verdict = charged if type(charged) is Verdict else await charged  # type: ignore[misc] # as above
                    if standing is not None and verdict.known:
                        standing.verdict = verdict
        if outermost is not None:
            del request[STANDINGS]
            tell(response.headers, outermost)
        return response

    async def _later(self, request: Request, found: Awaitable[Verdict]) -> Verdict:
        """Return what the store says, and note how long that took."""
        began = self._clock()
        try:
            return await found
        finally:
            if request.exchange is not None:
                request.exchange.step(self._name, began, self._clock(), "asked the store")

    async def _refused(self, request: Request, counted: Counted, cost: int, verdict: Verdict) -> Response | None:
        """Return the answer to who may not pass; None for who may, once it is their turn."""
        if not verdict.known:
            self._came(request, self._unchecked, self._was_unchecked)
            return None if verdict.allowed or self._dry_run else self._stopped(request, store_unavailable())
        budget = counted.budget
        if verdict.allowed:
            if budget.delays and not self._dry_run:
                wait = budget.turn(verdict)
                if wait > 0 and not await self._turn(request, wait):
                    self._came(request, self._limited, self._was_limited)
                    given_back = budget.check.charge(counted.key, -cost)
                    if type(given_back) is not Verdict:
                        await given_back  # type: ignore[misc] # as in `handle`
                    return self._stopped(
                        request, self._answer([budget.terms.limits[at].name for at, _ in budget.delays], wait)
                    )
            self._came(request, self._allowed, self._was_allowed)
            return None
        waits = verdict.waits
        beyond = [told.name for told, wait in zip(budget.terms.limits, waits, strict=True) if wait]
        if self._dry_run:
            self._came(request, self._spared, self._was_spared)
            self._log(request, counted.key, beyond)
            return None
        self._came(request, self._limited, self._was_limited)
        return self._stopped(request, self._answer(beyond, counted.ends or max(waits)))

    def _came(self, request: Request, counter: Counter, result: tuple[Result, ...]) -> None:
        """Count what came of a request, and have its record tell of it."""
        counter.add()
        if request.exchange is not None:
            request.exchange.results += result

    def _stopped(self, request: Request, response: Response) -> Response:
        """Return the answer to who may not pass, and have the record of the request tell of it."""
        if request.exchange is not None:
            request.exchange.stopped_by = self._name
        return response

    async def _turn(self, request: Request, wait: float) -> bool:
        """Wait for a request's turn; tell at once where it cannot wait for it."""
        turn = self._clock() + wait
        late = any(end is not None and turn >= end for end in (request.deadline, request.answer_by))
        if late or self._waiting >= MOST_WAITING:
            return False
        self._waiting += 1
        began = turn - wait
        try:
            await asyncio.sleep(wait)
        finally:
            self._waiting -= 1
            if request.exchange is not None:
                request.exchange.step(self._name, began, self._clock(), "waited for its turn")
        return True

    def _answer(self, beyond: list[str], wait: float) -> Response:
        response = self._refuse(beyond)
        problem = response.problem_value
        if problem is not None and (self._status != problem.status or self._message is not None):
            if self._message is not None:
                problem = replace(problem, title=self._message, detail="")
            response.status = self._status
            response.problem_value = replace(problem, status=self._status)
        if wait != math.inf:
            response.headers.set(b"Retry-After", b"%d" % max(1, math.ceil(wait)))
        return response

    def _log(self, request: Request, key: bytes, beyond: list[str]) -> None:
        """Tell the log who would be refused, once a minute for each key. A key may be a secret, and stays out."""
        now = self._clock()
        if self._logged.was(key, now - LOGGED_FOR):
            return
        self._logged.note(key, now)
        user = request.get(USER)
        who = "" if user is None else f"user {shown(user.name)}, "
        address = "-" if request.client is None else request.client.address or "-"
        self._logger.warning("dry run: beyond %s: %sclient %s", " and ".join(beyond), who, address)


def store_unavailable() -> Response:
    """Return the answer to a request that the store cannot count, where that is refused."""
    response = Response.problem(
        503, "store-unavailable", "Service unavailable", "It cannot be found out now whether this is within the limits."
    )
    response.headers.set(b"Retry-After", b"1")
    return response
