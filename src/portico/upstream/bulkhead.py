"""A bulkhead: a service has at most so many requests of a worker under way; a few more may wait for their turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from portico.config.resilience import Concurrency
from portico.errors import Overloaded, Source
from portico.http.message import Handler, Request, Response
from portico.observe.exchange import Exchange

_FULL: Final = "too many requests are under way, and too many wait"
_OVER: Final = "too many requests were under way for too long"


class Room:
    """How many requests are under way at a service, and who waits; it may be leased, so that it outlives a reload."""

    __slots__ = ("_waiting", "taken")

    def __init__(self) -> None:
        self.taken = 0
        """Requests under way."""
        self._waiting: OrderedDict[asyncio.Future[bool], None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    async def wait(self, config: Concurrency, deadline: float | None) -> None:
        """Wait for room, at the end of the queue and at most until `deadline`; raise Overloaded."""
        if len(self._waiting) >= config.queue:
            raise Overloaded(_FULL, source=Source.GATEWAY)
        loop = asyncio.get_running_loop()
        until = loop.time() + config.wait
        turn: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_at(until if deadline is None else min(until, deadline), self._give_up, turn)
        self._waiting[turn] = None
        try:
            came = await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave()  # its turn had just come
            else:
                self._waiting.pop(turn, None)
            raise
        finally:
            timer.cancel()
        if not came:
            raise Overloaded(_OVER, source=Source.GATEWAY)

    def leave(self) -> None:
        """Give room back: to the one who waits the longest, if any."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():  # a task that is being cancelled has cancelled it, and not heard of that yet
                turn.set_result(True)
                return
        self.taken -= 1

    def ended(self, _: Exchange) -> None:
        """Give room back at the end of an exchange."""
        self.leave()

    def close(self) -> None:
        """Do nothing: who is under way or waits has it to the end."""

    def _give_up(self, turn: asyncio.Future[bool]) -> None:
        if not turn.done():
            del self._waiting[turn]
            turn.set_result(False)


class Bulkhead:
    """A service's bulkhead. A request is under way until its answer is over.

    That is at once where the answer is in memory, and at the end of the exchange where it still comes, or is a
    connection. Of a request that a policy made by itself nobody says when it is over: its answer's head is the end.
    """

    __slots__ = ("_config", "_inner", "limit", "room")

    def __init__(self, room: Room, config: Concurrency, inner: Handler) -> None:
        self.room = room
        self._config = config
        self.limit = config.limit
        """How many requests may be under way."""
        self._inner = inner

    async def handle(self, request: Request) -> Response:
        """Pass `request` on as soon as there is room; raise Overloaded where there is none in time."""
        room = self.room
        if room.taken < self.limit:
            room.taken += 1
        else:
            await room.wait(self._config, request.deadline)
        try:
            response = await self._inner(request)
        except BaseException:
            room.leave()
            raise
        exchange = request.exchange
        over = response.duplex is None and response.body.whole is not None
        if over or exchange is None or exchange.outcome is not None:
            room.leave()
        else:
            exchange.on_end(room.ended)
        return response
