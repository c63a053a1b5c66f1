"""Many clients that take their time, on one loop of their own."""

from __future__ import annotations

import asyncio
import resource
import time
from dataclasses import dataclass, field
from typing import cast

import uvloop

LIMIT = 60.0
"""Seconds in which all of them have to have come to their end."""


@dataclass
class End:
    """How one connection ended."""

    answer: bytes
    seconds: float
    """From its beginning to the end of the other side's direction."""


@dataclass
class Slow:
    """A way of being slow: what is said at once, and then byte by byte."""

    first: bytes
    drip: bytes
    pause: float
    """Seconds between two bytes."""
    ends: list[End] = field(default_factory=list)


class _Client(asyncio.Protocol):
    def __init__(self, slow: Slow, phase: float, over: asyncio.Future[None]) -> None:
        self._slow = slow
        self._phase = phase
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._got = bytearray()
        self._at = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._begun = time.monotonic()
        if self._slow.first:
            self._transport.write(self._slow.first)
        if self._slow.drip:
            self._timer = self._loop.call_later(self._phase * self._slow.pause, self._drip)

    def _drip(self) -> None:
        self._transport.write(self._slow.drip[self._at : self._at + 1])
        self._at = (self._at + 1) % len(self._slow.drip)
        self._timer = self._loop.call_later(self._slow.pause, self._drip)

    def data_received(self, data: bytes) -> None:
        self._got += data

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._over.done():
            self._slow.ends.append(End(bytes(self._got), time.monotonic() - self._begun))
            self._over.set_result(None)


async def _all(port: int, count: int, slow: Slow, spread: float) -> None:
    loop = asyncio.get_running_loop()
    over = [loop.create_future() for _ in range(count)]
    gate = asyncio.Semaphore(64)

    async def begin(number: int) -> None:
        await asyncio.sleep(spread * number / count)
        async with gate:
            await loop.create_connection(lambda: _Client(slow, number / count, over[number]), "127.0.0.1", port)

    async with asyncio.timeout(LIMIT):
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(begin(number))
        await asyncio.gather(*over)


def run(port: int, count: int, slow: Slow, spread: float = 0.0) -> None:
    """Open `count` connections within `spread` seconds, and return when the last one was ended by the other side."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 1000), hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_all(port, count, slow, spread))
