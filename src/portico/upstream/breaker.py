"""A breaker: a service that fails too often is left alone for a while, by all workers of the machine.

What it knows is in a record of the board, so that it is the same for every worker, and outlives reloads and workers.
The record's writers take no lock for what happens at each request; see docs/decisions/013 for why no race does harm.

One slot says what the breaker is and since when, and every change gives it another value. A request keeps the value
that it was let through by, and counts only while that stands. That the time to be open is over is written nowhere: it
is half open from then on, for whoever looks.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Final, Protocol

from portico.config.resilience import Breaker as BreakerConfig
from portico.errors import CircuitOpen, Source, UpstreamError
from portico.http.message import Handler, Request, Response
from portico.observe.health import BreakerState
from portico.state.records import PLACES, SLOTS, Record
from portico.upstream.fault import is_of_service, ran_out

logger = logging.getLogger("portico.upstream")

# The slots of the record.
_STATE: Final = 0
"""Since when, in microseconds of the machine's monotonic clock; eleven bits that count the changes, so that no two
values are the same; and in the lowest bit whether it is open."""
_FAILURES: Final = 1
"""Failures in a row, while closed."""
_SUCCESSES: Final = 2
"""Requests that went well, while half open."""
_TOLD: Final = 3
"""The `_STATE` of which the log has told that it is half open now."""
_BUCKETS: Final = 8
"""The first of the buckets: parts of the window, each its number, its requests and its failures."""

_SINCE: Final = 12
"""Bits of `_STATE` beside the time."""
_CHANGES: Final = (1 << (_SINCE - 1)) - 1

_BUCKET_COUNT: Final = 10
_COUNT_BITS: Final = 20
_FULL: Final = (1 << _COUNT_BITS) - 1
"""The most requests that a bucket counts."""
_ONE: Final = 1 << _COUNT_BITS
"""A request, as a bucket counts it."""
_NUMBER: Final = (1 << (64 - 2 * _COUNT_BITS)) - 1

_CHANGING: Final = PLACES - 1
"""The place of whoever changes what the breaker is; those before are for requests that go through while half open."""

assert _BUCKETS + _BUCKET_COUNT <= SLOTS


_GIVEN_UP: Final = "no answer in the time that its route gives"


class Measure(Protocol):
    """When there are too many failures."""

    def succeeded(self) -> None:
        """Count a request that went well."""
        ...

    def failed(self) -> str:
        """Count a failure, and say in what way there are too many now; "" where there are not."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...


class Streak:
    """Failures in a row."""

    __slots__ = ("_limit", "_slots")

    def __init__(self, slots: memoryview, limit: int) -> None:
        self._slots = slots
        self._limit = limit

    def succeeded(self) -> None:
        """End the row."""
        self._slots[_FAILURES] = 0

    def failed(self) -> str:
        """Add to the row."""
        count = self._slots[_FAILURES] + 1
        self._slots[_FAILURES] = count
        if count < self._limit:
            return ""
        return f"{count} failure{'s' if count > 1 else ''} in a row"

    def reset(self) -> None:
        """Begin a new row."""
        self._slots[_FAILURES] = 0


class Window:
    """The share of failures in the time of late, in ten parts of which the oldest is dropped at a time.

    Only a failure can be what makes them too many: a success that makes the requests enough to say something does not.
    """

    __slots__ = ("_at", "_clock", "_empty", "_full", "_minimum", "_number", "_rate", "_ratio", "_slots", "_window")

    def __init__(
        self, slots: memoryview, ratio: float, window: float, minimum: int, clock: Callable[[], float]
    ) -> None:
        self._slots = slots
        self._ratio = ratio
        self._window = window
        self._rate = _BUCKET_COUNT / window
        self._minimum = minimum
        self._clock = clock
        self._turn(0)

    def succeeded(self) -> None:
        """Count it."""
        self._count(0)

    def failed(self) -> str:
        """Count it, and look at all of the window."""
        now = self._count(1)
        requests = failures = 0
        for at in range(_BUCKETS, _BUCKETS + _BUCKET_COUNT):
            bucket = self._slots[at]
            if (now - (bucket >> 2 * _COUNT_BITS)) & _NUMBER < _BUCKET_COUNT:
                requests += bucket >> _COUNT_BITS & _FULL
                failures += bucket & _FULL
        if requests < self._minimum or failures < self._ratio * requests:
            return ""
        return f"{failures} failures among {requests} requests in {self._window:g} s"

    def reset(self) -> None:
        """Begin with an empty window."""
        for at in range(_BUCKETS, _BUCKETS + _BUCKET_COUNT):
            self._slots[at] = 0

    def _count(self, failures: int) -> int:
        """Count a request in the bucket of this moment; return that bucket's number."""
        number = int(self._clock() * self._rate)
        if number != self._number:
            self._turn(number)
        bucket = self._slots[self._at]
        if self._empty <= bucket < self._full:
            self._slots[self._at] = bucket + _ONE + failures
        elif bucket >> 2 * _COUNT_BITS != number & _NUMBER:  # it is one of long ago
            self._slots[self._at] = self._empty + _ONE + failures
        return number

    def _turn(self, number: int) -> None:
        """Keep at hand what is to be known of one bucket, for all that is counted in it."""
        self._number = number
        self._at = _BUCKETS + number % _BUCKET_COUNT
        self._empty = (number & _NUMBER) << 2 * _COUNT_BITS
        self._full = self._empty + (_FULL << _COUNT_BITS)


class Breaker:
    """The breaker of one service, around all that makes a request to it, its retries included.

    `handle` raises CircuitOpen instead of asking the service while it is open.
    """

    __slots__ = (
        "_clock",
        "_counts_all",
        "_inner",
        "_measure",
        "_open_for",
        "_probes",
        "_record",
        "_service",
        "_slots",
        "_statuses",
        "_successes",
        "_wall",
    )

    def __init__(
        self,
        service: str,
        config: BreakerConfig,
        record: Record,
        clock: Callable[[], float],
        inner: Handler,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is the machine's monotonic one, so that workers understand each other; `wall` is for people."""
        self._service = service
        self._record = record
        self._slots = record.slots
        self._clock = clock
        self._wall = wall
        self._inner = inner
        self._open_for = config.open_for
        self._probes = range(config.probes)
        self._successes = config.successes
        self._statuses = frozenset(config.statuses)
        self._measure: Measure = (
            Streak(self._slots, config.failures)
            if config.ratio is None
            else Window(self._slots, config.ratio, config.window, config.minimum, clock)
        )
        self._counts_all = config.ratio is not None  # a row that is of no failures yet has no end to write down

    async def handle(self, request: Request) -> Response:
        """Pass `request` on, and learn from what comes of it; raise CircuitOpen where it is not to be passed on."""
        slots = self._slots
        state: int = slots[_STATE]
        if state & 1:
            return await self._probe(request, state)
        try:
            response = await self._inner(request)
        except UpstreamError as error:
            if is_of_service(error, request):
                self._failed(state, _what(error))
            raise
        except asyncio.CancelledError:
            if ran_out(request, self._clock()):
                self._failed(state, _GIVEN_UP)
            raise
        if response.status in self._statuses:
            self._failed(state, f"status {response.status}")
        elif (slots[_FAILURES] or self._counts_all) and slots[_STATE] == state:
            self._measure.succeeded()
        return response

    @property
    def state(self) -> BreakerState:
        """What it is now."""
        state: int = self._slots[_STATE]
        now = self._clock()
        since = self._wall() - (now - _since(state))
        if not state & 1:
            return BreakerState("closed", since if state else 0.0, "")
        if self._left(state, now) > 0:
            return BreakerState("open", since, self._record.text)
        return BreakerState("half-open", since + self._open_for, self._record.text)

    async def _probe(self, request: Request, state: int) -> Response:
        """Pass `request` on if it is time to see how the service is, and not too many do so already."""
        left = self._left(state, self._clock())
        if left > 0:
            raise self._refusal(left)
        record = self._record
        place = next(filter(record.take, self._probes), None)
        if place is None:
            raise self._refusal(0.0)
        try:
            if self._slots[_STATE] == state:
                return await self._try(request, state)
        finally:
            record.give_back(place)
        return await self.handle(request)  # another worker has changed it just now, and cannot do so all the time

    async def _try(self, request: Request, state: int) -> Response:
        """Pass on one of the requests that decide whether it closes again."""
        self._tell_half_open(state)
        try:
            response = await self._inner(request)
        except UpstreamError as error:
            if is_of_service(error, request):
                self._open(state, f"a probe failed: {_what(error)}")
            raise
        except asyncio.CancelledError:
            if ran_out(request, self._clock()):
                self._open(state, f"a probe failed: {_GIVEN_UP}")
            raise
        if response.status in self._statuses:
            self._open(state, f"a probe failed: status {response.status}")
        elif self._slots[_STATE] == state:
            count = self._slots[_SUCCESSES] + 1
            self._slots[_SUCCESSES] = count
            if count >= self._successes:
                self._close(state)
        return response

    def _left(self, state: int, now: float) -> float:
        return _since(state) + self._open_for - now

    def _refusal(self, left: float) -> CircuitOpen:
        detail = f"the breaker is open: {self._record.text}" if left > 0 else "the breaker is half open"
        error = CircuitOpen(detail, source=Source.GATEWAY)
        error.retry_after = max(1, math.ceil(min(left, self._open_for)))  # a worker's clock may be a turn behind
        return error

    def _failed(self, state: int, what: str) -> None:
        """Count a failure of a request that was passed on while it was closed."""
        if self._slots[_STATE] == state:
            too_many = self._measure.failed()
            if too_many:
                self._open(state, f"{too_many}, the last: {what}")

    # Changes. Whoever finds another process at one lets it be: what it would have done is due at the next request, too.

    def _open(self, state: int, why: str) -> None:
        if self._begin_change(state):
            self._slots[_SUCCESSES] = 0
            self._record.text = why
            self._end_change(state, 1)
            logger.warning("service %s: the breaker is open for %g s: %s", self._service, self._open_for, why)

    def _close(self, state: int) -> None:
        if self._begin_change(state):
            self._measure.reset()
            self._record.text = ""
            self._end_change(state, 0)
            logger.info("service %s: the breaker is closed again", self._service)

    def _tell_half_open(self, state: int) -> None:
        if self._slots[_TOLD] != state and self._begin_change(state):
            told = self._slots[_TOLD] == state
            self._slots[_TOLD] = state
            self._record.give_back(_CHANGING)
            if not told:
                logger.info("service %s: the breaker is half open: trying", self._service)

    def _begin_change(self, state: int) -> bool:
        """Tell whether this is the process to change it from `state`; `_end_change` is then to follow at once."""
        if self._slots[_STATE] != state or not self._record.take(_CHANGING):
            return False
        if self._slots[_STATE] == state:
            return True
        self._record.give_back(_CHANGING)
        return False

    def _end_change(self, state: int, opened: int) -> None:
        changes = (state >> 1) + 1 & _CHANGES
        self._slots[_STATE] = int(self._clock() * 1e6) << _SINCE | changes << 1 | opened
        self._record.give_back(_CHANGING)


def _since(state: int) -> float:
    return (state >> _SINCE) / 1e6


def _what(error: UpstreamError) -> str:
    return f"{error.detail} ({error.type})"
