"""Event loops for tests: a real one, and one whose clock jumps to the next timer whenever nothing else happens."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

DEADLINE = 20.0
QUIET = 0.01
"""Seconds of real silence after which a jumping clock jumps: loopback sockets and tasks are quicker than that."""


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(min(timeout, QUIET))
        if not events:
            self.jumped += timeout
        return events


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop on which an hour of waiting takes no time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return super().time() + self._jumping.jumped

    def jump(self, seconds: float) -> None:
        """Have time pass at once."""
        self._jumping.jumped += seconds


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main` on uvloop, as a worker does."""
    return _run(main, uvloop.new_event_loop, DEADLINE)


def run_jumping(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main` on a loop whose clock jumps; what hangs would hang for a day of it."""
    return _run(main, JumpingLoop, 86400.0)


def _run(
    main: Callable[[], Coroutine[Any, Any, T]], factory: Callable[[], asyncio.AbstractEventLoop], limit: float
) -> T:
    async def limited() -> T:
        async with asyncio.timeout(limit):
            result = await main()
        await turns()  # transports close in the turn after the one in which they are told to
        return result

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(limited())


async def until(condition: Callable[[], object], what: str = "a condition") -> None:
    """Let the loop turn until `condition` holds; a jumping clock stands still meanwhile."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        await asyncio.sleep(0)


async def turns(count: int = 5) -> None:
    """Let the loop turn a few times, so that what is going to happen at once has happened."""
    for _ in range(count):
        await asyncio.sleep(0)
