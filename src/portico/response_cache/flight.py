"""A fetch that several requests share. It belongs to none of them: whoever leaves does not end it for the others.

Who has begun it gets the answer as it comes; the others when it is whole. What turns out not to be kept, or to be too
large for it, is that one's alone, and the others are let go to ask for themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from portico.caching.status import CacheStatus
from portico.errors import BodyTruncated, PorticoError
from portico.http.body import Body, Trailers
from portico.http.message import Response
from portico.observe.exchange import Exchange, Outcome
from portico.response_cache.memory import Memory
from portico.response_cache.record import Entry

ALONE: Final = 30.0
"""Seconds that a fetch which nobody waits for any more has to come to its end."""
MOST_ALONE: Final = 64
"""Fetches that nobody waits for, in one worker; of more, those end that are left last."""


class Came(NamedTuple):
    """What a fetch came to."""

    entry: Entry
    status: CacheStatus
    """What is said of it to the one who has begun."""
    word: bytes
    """The same in a word."""
    shared: bool = True
    """Whether others may have it."""
    stands_in: bool = False
    """Whether it is stale, and the service has failed."""


class Lonely:
    """How many fetches nobody waits for."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Flight:
    """One fetch, and what has come of it so far."""

    __slots__ = (
        "_alone",
        "_held",
        "_lonely",
        "_memory",
        "_pieces",
        "_tail",
        "_task",
        "_waiting",
        "_watchers",
        "begun",
        "broken",
        "came",
        "exchange",
        "given",
        "led",
        "length",
        "over",
        "read",
        "size",
        "stamp",
        "trailing",
    )

    def __init__(self, exchange: Exchange, lonely: Lonely, memory: Memory, stamp: tuple[int, int]) -> None:
        """`stamp` is that of the URI, ahead of asking; who comes after it was changed does not share in this."""
        self.read = False
        """Whether somebody reads the pieces, who may be slow."""
        self._held = 0
        self._memory = memory
        self.stamp = stamp
        self.exchange = exchange
        """Its own record: those of the requests that wait may end before it."""
        self.led = True
        """Whether the one who has begun it is still there."""
        self.begun: Response | None = None
        """The head of an answer that will be kept, while its content comes."""
        self.given: Response | None = None
        """An answer that will not be kept: for the one who has begun it."""
        self.came: Came | None = None
        """What it came to, whole."""
        self.broken: PorticoError | None = None
        """What has broken it off."""
        self.over = False
        self.size = 0
        self.length: int | None = None
        self.trailing: Callable[[], Trailers] = list
        self._pieces: list[bytes] = []
        self._tail: Body | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._watchers = 0
        self._alone: asyncio.Timeout | None = None
        self._task: asyncio.Task[Any] | None = None
        self._lonely = lonely

    # Those who wait for it.

    async def until_begun(self) -> None:
        """Wait until it is known what becomes of it: an answer that is kept, or not, or none."""
        while not self._known():
            await self._change()

    async def until_over(self) -> None:
        """Wait until all of it has come, or nothing more will."""
        while not self.over:
            await self._change()

    def watch(self) -> None:
        """Have one more wait for it."""
        self._watchers += 1

    def leave(self) -> None:
        """Have one less wait for it; where that was the last one, it has to hurry, or has no use at all."""
        self._watchers -= 1
        if not self._watchers and not self.over and self._alone is not None:
            self._be_alone(self._alone)

    def cancel(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()

    async def next_piece(self, at: int) -> bytes:
        """Return a piece of the content by its number, or b"" at the end."""
        while True:
            if at < len(self._pieces):
                piece = self._pieces[at]
                if self._tail is not None:
                    self._pieces[at] = b""  # nobody else will read it
                return piece
            if self._tail is not None:
                return await self._tail.chunk()
            if self.broken is not None:
                raise self.broken
            if self.over:
                return b""
            await self._change()

    def let_go(self, now: float) -> None:
        """Give up what is left of an answer that is not kept: the one who has begun it has it, or wants it no more."""
        self.led = False
        if not self.over:
            return
        if self._tail is not None:
            self._tail.close()
        self.exchange.end(Outcome.COMPLETE, now)

    # The one who fetches.

    def start(self, alone: asyncio.Timeout) -> None:
        """Note who is at it, and what ends it when nobody waits any more."""
        self._alone = alone
        self._task = asyncio.current_task()
        if not self._watchers:
            self._be_alone(alone)

    def begin(self, response: Response) -> None:
        """Note the head of an answer that is to be kept."""
        self.begun = response
        self.length = response.body.length
        self.trailing = response.body.trailers
        self._tell()

    def add(self, piece: bytes) -> None:
        """Note the next piece of it."""
        self._pieces.append(piece)
        self.size += len(piece)
        self._held += len(piece)
        self._memory.buffered += len(piece)
        self._tell()

    def content(self) -> bytes:
        """Return all that has come."""
        return b"".join(self._pieces)

    def give(self, response: Response) -> None:
        """Leave an answer that is not kept to the one who has begun."""
        self.given = response
        if response.body.whole is None:
            self._tail, self.length, self.trailing = response.body, response.body.length, response.body.trailers
        self._end()

    def hand_over(self, rest: Body) -> None:
        """Leave what has not come yet to the one who has begun; it is too much to be kept."""
        self._tail = rest
        self._end()

    def finish(self, came: Came) -> None:
        """Note what it came to."""
        self.came = came
        self._end()

    def break_off(self, error: PorticoError) -> None:
        """Note what has broken it off."""
        self.broken = error
        self._end()

    def end(self, now: float) -> None:
        """Note that nothing more will come; where that was not the end, it has broken off."""
        if not self.over:
            self.break_off(BodyTruncated("the fetch was ended"))
        if not self.led or self._tail is None:
            self.let_go(now)
        if self._alone is not None and self._alone.when() is not None:
            self._lonely.count -= 1
        self._alone = None
        self._task = None
        self.free()

    def free(self) -> None:
        """Count what was held no more, unless somebody still reads it."""
        if self.over and not self.read:
            self._memory.buffered -= self._held
            self._held = 0

    def _be_alone(self, alone: asyncio.Timeout) -> None:
        if self._lonely.count >= MOST_ALONE:
            self.cancel()
        elif alone.when() is None:
            self._lonely.count += 1
            alone.reschedule(asyncio.get_running_loop().time() + ALONE)

    def _known(self) -> bool:
        return self.begun is not None or self.over

    def _end(self) -> None:
        self.over = True
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def _change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future


class FlightContent:
    """The content of an answer that is being kept, for the one who has begun the fetch."""

    __slots__ = ("_at", "_clock", "_closed", "_ended", "_flight")

    def __init__(self, flight: Flight, clock: Callable[[], float]) -> None:
        """It takes the place of a watcher of the flight."""
        self._flight = flight
        self._clock = clock
        self._at = 0
        self._closed = False
        self._ended = False
        flight.read = True

    async def read(self) -> bytes:
        """Return the next piece, or b"" at the end."""
        if self._ended:
            return b""
        if self._closed:
            raise BodyTruncated("the answer was given up")
        try:
            piece = await self._flight.next_piece(self._at)
        except PorticoError:
            self.close()
            raise
        self._at += 1
        if not piece:
            self._ended = True
            self.close()  # whoever reads all of it need not say so
        return piece

    def trailers(self) -> Trailers:
        """Return the trailer fields."""
        return self._flight.trailing()

    def close(self) -> None:
        """Give up the rest."""
        if not self._closed:
            self._closed = True
            self._flight.read = False
            self._flight.leave()
            self._flight.let_go(self._clock())
            self._flight.free()
