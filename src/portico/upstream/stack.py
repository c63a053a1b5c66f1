"""A service as a Handler: pick a target, take a connection, send, and where that fails try again or say why.

What a service certainly has not begun to work on is always sent again: to another target where a connection was
refused, over a new connection where a kept one turns out to have been closed. What it may have seen is sent again as
its `retry` says (RetryPolicy). What comes of it all is an answer, or an UpstreamError; Handlers around it may deal with
that (Breaker, Fallback), and `Rescue` makes a Response of it, so that policies see one kind of answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from portico.errors import NoTarget, Overloaded, Source, UpstreamError, UpstreamTimeout
from portico.http.message import Handler, Request, Response
from portico.http.trace_context import tell_try
from portico.net.client import ClientStream, Patience
from portico.net.stream import NEVER
from portico.upstream.balance import Balancer, observe
from portico.upstream.breaker import Breaker
from portico.upstream.bulkhead import Bulkhead
from portico.upstream.fault import is_of_service, ran_out
from portico.upstream.retry import Budget, RetryPolicy
from portico.upstream.roster import Roster
from portico.upstream.target import Target

logger = logging.getLogger("portico.upstream")

TELL_AGAIN: Final = 60.0
"""Seconds for which the log does not tell again that a target's answers go wrong."""

FAILURE_LATENCY: Final = 1.0
"""Seconds that a failure counts for where targets are chosen by how fast they answer: else failing would be fastest."""

WEBSOCKET: Final = frozenset((b"websocket",))


class Times:
    """How long a service may take, in seconds."""

    __slots__ = ("connect", "first_byte", "idle", "tell", "total")

    def __init__(
        self,
        connect: float = 5.0,
        first_byte: float = 30.0,
        idle: float = 60.0,
        total: float = NEVER,
        tell: bytes = b"",
    ) -> None:
        """`tell` is the header in which the service is told how many milliseconds are left; empty for none."""
        self.connect = connect
        self.first_byte = first_byte
        self.idle = idle
        self.total = total
        self.tell = tell


class Service:
    """A service of the file. `handle` is its Handler, the only way to reach it."""

    __slots__ = (
        "_clear",
        "_clock",
        "_closing",
        "_connect_timeout",
        "_patience",
        "_per_try",
        "_rescues",
        "_retry",
        "_tell",
        "_tell_key",
        "_total",
        "_upgrades",
        "breaker",
        "budget",
        "bulkhead",
        "handle",
        "known",
        "name",
        "roster",
    )

    def __init__(
        self,
        name: str,
        roster: Roster,
        times: Times,
        clock: Callable[[], float],
        retry: RetryPolicy | None = None,
        upgrades: frozenset[bytes] = WEBSOCKET,
    ) -> None:
        """`upgrades` are the protocols, in lower case, that a client may change to (RFC 9110 section 7.8)."""
        self.name = name
        self.roster = roster
        self.breaker: Breaker | None = None
        """Leaves it alone for a while where it fails too often."""
        self.bulkhead: Bulkhead | None = None
        """How many of its requests are under way, where they are limited."""
        self.budget: Budget | None = None if retry is None else retry.budget
        """How many further tries it may be sent, where there are any."""
        self.known: asyncio.Event | None = None
        """Set once its targets are known, where they are to be found out."""
        self.handle: Handler = self.attempt
        """Answers a request: what the service does, or the problem that stood in its way."""
        self._rescues = True
        self._closing: list[Callable[[], None]] = []
        self._per_try = NEVER if retry is None else retry.per_try
        self._connect_timeout = min(times.connect, self._per_try)
        self._patience = Patience(min(times.first_byte, self._per_try), times.idle)
        self._total = times.total
        self._tell = times.tell
        self._tell_key = times.tell.lower()
        self._clock = clock
        self._retry = retry
        self._clear = 500 if retry is None else min((500, *retry.statuses))
        """Answers with a status below this are neither failures nor reasons to try again."""
        self._upgrades = upgrades

    @property
    def targets(self) -> tuple[Target, ...]:
        """All its targets, well or not."""
        return self.roster.targets

    def well(self, is_well: Callable[[Target], bool]) -> bool:
        """Return whether it can be asked: where one of its targets is well, and its breaker is not open."""
        if self.breaker is not None and self.breaker.state.name == "open":
            return False
        return any(is_well(target) for target in self.targets)

    @property
    def surrounded(self) -> bool:
        """Whether there is a Handler around `attempt`."""
        return not self._rescues

    def on_close(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the service is closed; those that came last are called first."""
        self._closing.append(callback)

    def close(self) -> None:
        """End what was begun for it, and give back what it has."""
        self.roster.close()
        self.handle = _closed
        while self._closing:
            self._closing.pop()()

    def surround(self, make: Callable[[Handler], Handler]) -> None:
        """Put a Handler around what has been there; `attempt` and those around it then raise what went wrong."""
        inner = self.attempt if self._rescues else self.handle
        self._rescues = False
        self.handle = make(inner)

    async def attempt(self, request: Request) -> Response:
        """Send `request` and return the service's answer, or raise the UpstreamError that stood in its way.

        Where nothing is around it, the problem is returned instead, for the sake of the shortest way.
        """
        retry, given = self._retry, request.deadline
        if retry is not None and retry.begins(request):
            await request.body.read(retry.body)
        if request.upgrade:
            self._choose_upgrade(request)
        outcome: Response | UpstreamError
        target: Target | None = None
        try:
            if self._total != NEVER or request.deadline is not None:
                self._give_time(request)
            balancer = self.roster.balancer
            if balancer is None:
                balancer = await self._some_target(request)
            target = balancer.pick(request)
            stream = target.pool.take()
            if stream is None:
                response = await self._send_anew(request, target)
            else:
                response = await self._send(request, target, stream, self._patience)
            if response.status < self._clear:
                target.failures = 0
                return self._answer(request, target, response) if balancer.looks_on else response
            outcome = response
        except UpstreamError as error:
            outcome = error
        except asyncio.CancelledError:
            self._gave_up(request, target)
            raise
        if target is not None:
            target, outcome = await self._further(request, target, outcome, [target])
        if isinstance(outcome, Response):
            assert target is not None
            return self._answer(request, target, outcome)
        request.deadline = given  # whoever is asked instead has time of its own
        if self._rescues:
            return problem(request, outcome, self.name)
        raise outcome

    def now(self) -> float:
        """Return the worker's monotonic time."""
        return self._clock()

    async def begin(self, request: Request) -> None:
        """Do what comes ahead of all tries; then `attempt_beside` makes them."""
        retry = self._retry
        if retry is not None and retry.begins(request):
            await request.body.read(retry.body)
        if request.upgrade:
            self._choose_upgrade(request)
        if self._total != NEVER or request.deadline is not None:
            self._give_time(request)

    async def attempt_beside(self, request: Request, tried: list[Target]) -> Response:
        """Do as `attempt` does, while others may do so with the same request.

        They have gone to the targets `tried`: this one goes to another, where there is one, and adds it.
        """
        began = self._clock()
        balancer = self.roster.balancer or await self._some_target(request)
        target = balancer.other(request, tried) or balancer.pick(request)
        tried.append(target)
        try:
            outcome = await self._once(request, target, anew=False)
        except asyncio.CancelledError:
            self._outrun(target, began)
            raise
        if isinstance(outcome, Response) and outcome.status < self._clear:
            target.failures = 0
        else:
            target, outcome = await self._further(request, target, outcome, tried)
        if isinstance(outcome, Response):
            return self._answer(request, target, outcome)
        raise outcome

    def _choose_upgrade(self, request: Request) -> None:
        """Ask for no protocol that the service is not to change to."""
        if request.upgrade not in self._upgrades:
            request.upgrade = b""

    def _give_time(self, request: Request) -> None:
        """Give a request the time that it has here; what it took the client to send it is not counted.

        Raises UpstreamTimeout where it has none left, which is held against nobody.
        """
        now = self._clock()
        if self._total != NEVER:
            request.deadline = (
                now + self._total if request.deadline is None else min(now + self._total, request.deadline)
            )
        if request.deadline is not None and now >= request.deadline:
            raise UpstreamTimeout("the request had no time left", source=Source.GATEWAY)

    async def _further(
        self, request: Request, target: Target, outcome: Response | UpstreamError, tried: list[Target]
    ) -> tuple[Target, Response | UpstreamError]:
        """Try again where that may be done; return what came of it in the end, and of which target."""
        stale: list[Target] = []
        tries = 1
        while True:
            following = self._free_try(request, target, outcome, tried, stale)
            if following is None:
                following = await self._paid_try(request, outcome, tried, tries)
                if following is None:
                    break
                tries += 1
            if request.exchange is not None:
                request.exchange.try_again(_kind(outcome), self._clock())
            target = following
            tried.append(target)
            outcome = await self._once(request, target, anew=target in stale)
            if isinstance(outcome, Response) and outcome.status < self._clear:
                target.failures = 0
                break
        if isinstance(outcome, UpstreamError):
            if request.exchange is not None:
                request.exchange.try_outcome = outcome.type
            if outcome.source is Source.RESPONSE:
                self._tell_of_answer(target, outcome)
        return target, outcome

    async def _once(self, request: Request, target: Target, *, anew: bool) -> Response | UpstreamError:
        """Send to one target, over a new connection if it has to be; return what comes of it."""
        try:
            stream = None if anew else target.pool.take()
            if stream is None:
                return await self._send_anew(request, target)
            return await self._send(request, target, stream, self._patience)
        except UpstreamError as error:
            return error
        except asyncio.CancelledError:
            self._gave_up(request, target)
            raise

    def _free_try(
        self,
        request: Request,
        target: Target,
        outcome: Response | UpstreamError,
        tried: list[Target],
        stale: list[Target],
    ) -> Target | None:
        """Note how a try came out; return the target of the next one where that costs nothing, otherwise None.

        It does where the service certainly has not begun: once for each target.
        """
        if isinstance(outcome, Response):
            if outcome.status >= 500:
                self._failed(target, f"status {outcome.status}")
            return None
        if outcome.source is Source.CONNECT:
            if outcome.retryable and not isinstance(outcome, Overloaded):
                self._connect_failed(target, outcome)
            balancer = self.roster.balancer
            return balancer.other(request, tried) if outcome.retryable and balancer is not None else None
        if outcome.retryable and target not in stale:  # a kept connection that was closed meanwhile
            stale.append(target)
            return target
        if is_of_service(outcome, request):
            self._failed(target, str(outcome))
        return None

    async def _paid_try(
        self, request: Request, outcome: Response | UpstreamError, tried: list[Target], tries: int
    ) -> Target | None:
        """Return the target of the next try where the service may have begun, once it is time for it; None where there
        is to be none.
        """
        retry, balancer = self._retry, self.roster.balancer
        if retry is None or balancer is None or tries >= retry.attempts or not retry.wants(outcome):
            return None
        unsent = isinstance(outcome, UpstreamError) and outcome.source is Source.CONNECT and outcome.retryable
        if not unsent and not retry.may_repeat(request):
            return None
        following = balancer.other(request, tried)
        wait = retry.wait(tries, outcome, same_target=following is None)
        if wait is None or (request.deadline is not None and self._clock() + wait >= request.deadline):
            return None
        if not retry.budget.spend():
            return None
        if isinstance(outcome, Response):
            outcome.body.close()
        if not unsent and request.exchange is not None:
            request.exchange.passed_over += (outcome.status if isinstance(outcome, Response) else 0,)
        if wait:
            await asyncio.sleep(wait)
            balancer = self.roster.balancer
        if following is None:
            following = tried[-1] if balancer is None else balancer.pick(request)
        return following

    def _answer(self, request: Request, target: Target, response: Response) -> Response:
        """Do what the way of balancing wants done with an answer."""
        balancer = self.roster.balancer
        if balancer is not None and balancer.looks_on:
            exchange = request.exchange
            if balancer.wants_latency and exchange is not None and exchange.first_byte > exchange.sent:
                observe(target, exchange.first_byte - exchange.sent, exchange.first_byte)
            cookie = balancer.mark(request, target)
            if cookie is not None:
                response.headers.add(b"Set-Cookie", cookie)
        return response

    def _send(self, request: Request, target: Target, stream: ClientStream, patience: Patience) -> Awaitable[Response]:
        exchange = request.exchange
        if exchange is not None:
            exchange.service = self.name
            exchange.target = target.address
            exchange.tries += 1
            if exchange.trace is not None:
                tell_try(exchange, exchange.trace, request.headers)
        if self._tell and (request.deadline is not None or self._tell_key in request.headers.index):
            request = self._telling_time(request)
        path = request.path if request.query is None else f"{request.path}?{request.query}"
        authority = target.authority if request.authority is None else request.authority
        return stream.send(request, target.prefix + path, authority, patience)

    def _telling_time(self, request: Request) -> Request:
        """Return the request with what is left of its time; where it has no end, it is not for the client to say so.

        Its headers are a copy: another service may be asked next, of which this says nothing.
        """
        told = request.derive(request.path)
        told.headers = request.headers.copy()
        if request.deadline is None:
            told.headers.remove(self._tell_key)
        else:
            left = max(1, int((request.deadline - self._clock()) * 1000))
            told.headers.set(self._tell, b"%d" % left)
        return told

    async def _send_anew(self, request: Request, target: Target) -> Response:
        """Send over a new connection."""
        began = self._clock()
        exchange = request.exchange
        if exchange is not None:
            exchange.service, exchange.target, exchange.connecting = self.name, target.address, began
        stream = await target.pool.connect(self._connect_timeout, request.deadline)
        if exchange is not None:
            exchange.connected, exchange.tls = self._clock(), target.pool.handshake
        if target.failing:
            target.failing = False
            logger.info("service %s: target %s is reachable again", self.name, target.address)
        patience = self._patience
        if self._per_try != NEVER:  # connecting was a part of the try
            left = began + self._per_try - self._clock()
            patience = Patience(max(0.001, min(patience.first_byte, left)), patience.idle)
        return await self._send(request, target, stream, patience)

    async def _some_target(self, request: Request) -> Balancer:
        """Wait until the targets are known, where they never were so far; raise NoTarget where there is none to ask."""
        if self.known is not None and not self.known.is_set():
            end = self._clock() + self._connect_timeout
            try:
                async with asyncio.timeout_at(end if request.deadline is None else min(end, request.deadline)):
                    await self.known.wait()
            except TimeoutError:
                raise NoTarget("its targets are not known yet", source=Source.GATEWAY) from None
        balancer = self.roster.balancer
        if balancer is None:
            count = len(self.targets)
            raise NoTarget(f"none of its {count} targets is well" if count else "it has none", source=Source.GATEWAY)
        return balancer

    def _tell_of_answer(self, target: Target, error: UpstreamError) -> None:
        """Log what went wrong with an answer, at most once in a while: what is wrong with each is in its record."""
        now = self._clock()
        if now - target.told_at >= TELL_AGAIN:
            target.told_at = now
            logger.warning("service %s: target %s: %s (%s)", self.name, target.address, error, error.type)

    def _failed(self, target: Target, why: str) -> None:
        """Note an answer that was a failure, however quickly it came."""
        balancer = self.roster.balancer
        if balancer is not None and balancer.wants_latency:
            observe(target, FAILURE_LATENCY, self._clock())
        self.roster.failed(target, why)

    def _gave_up(self, request: Request, target: Target | None) -> None:
        """Note that a request was cancelled: where its time was over, the target has let it wait."""
        if target is not None and ran_out(request, self._clock()):
            self._failed(target, "no answer in the time that its route gives")

    def _outrun(self, target: Target, began: float) -> None:
        """Note that another target has answered first, or the client left: this one takes at least so long."""
        balancer, now = self.roster.balancer, self._clock()
        if balancer is not None and balancer.wants_latency and now - began > target.latency:
            observe(target, now - began, now)

    def _connect_failed(self, target: Target, error: UpstreamError) -> None:
        balancer = self.roster.balancer
        if balancer is not None and balancer.wants_latency:
            observe(target, FAILURE_LATENCY, self._clock())
        ejected = self.roster.eject(target, str(error))
        if not target.failing:
            target.failing = True
            if not ejected:  # which was told
                logger.warning("service %s: target %s is not reachable: %s", self.name, target.address, error)


def _kind(outcome: Response | UpstreamError) -> str:
    return f"status-{outcome.status}" if isinstance(outcome, Response) else outcome.type


async def _closed(request: Request) -> Response:
    """Stand in for a service that is closed."""
    raise RuntimeError("a service was asked after its end")


class Rescue:
    """Makes a Response of what went wrong on the way to a service: the outermost of the Handlers around one."""

    __slots__ = ("_inner", "_service")

    def __init__(self, service: str, inner: Handler) -> None:
        self._service = service
        self._inner = inner

    async def handle(self, request: Request) -> Response:
        """Return the answer, or the problem that stood in its way."""
        try:
            return await self._inner(request)
        except UpstreamError as error:
            return problem(request, error, self._service)


def problem(request: Request, error: UpstreamError, service: str) -> Response:
    """Return the answer for a client whose request could not be answered by a service; its record says why."""
    exchange = request.exchange
    if exchange is not None:
        exchange.service = exchange.service or service
        exchange.error = error.record
        exchange.try_outcome = error.type
    response = Response.problem(error.status, error.type, error.title)
    if error.retry_after:
        response.headers.set(b"Retry-After", b"%d" % error.retry_after)
    return response
