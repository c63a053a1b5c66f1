"""Time that passes only where a test has it pass, or where nothing else is left to happen."""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar, TypeVarTuple, Unpack

Value = TypeVar("Value")
Args = TypeVarTuple("Args")

START: Final = 1000.0
"""What the clock begins at; zero means to an Exchange that something did not happen."""

_RESOLUTION: Final = time.get_clock_info("monotonic").resolution
"""What the loop takes for the resolution of its clock."""


class _Selector(selectors.DefaultSelector):
    """Where the loop would sleep until its next timer, time goes on to that timer at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.threads = 0
        """Calls that threads are busy with. They take time of another kind, and are waited for."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0 or self.threads:
            return super().select(None if self.threads and timeout != 0 else timeout)
        events = super().select(0)
        if not events:
            now = self.now + timeout
            # The loop runs what is due before its time and the clock's resolution, which a late time swallows.
            self.now = now if now + _RESOLUTION > now else math.nextafter(now, math.inf)
        return events


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on which an hour of waiting takes no time."""

    def __init__(self) -> None:
        self._fake = _Selector()
        super().__init__(self._fake)

    def time(self) -> float:
        """Return the fake time."""
        return self._fake.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Args]], Value], *args: *Args
    ) -> asyncio.Future[Value]:
        """Call `func` in a thread; time stands still meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        self._fake.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self._fake.threads -= 1


class Clock:
    """The time of a gateway in a test: `env.clock()`, deadlines, timeouts, and whatever a policy sleeps for.

    It stands still while anything happens. Where all that goes on waits for a time to come, it jumps to that time: a
    timeout of a minute is over at once. `advance` has it pass between requests.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, run: Callable[[float], None]) -> None:
        self._loop = loop
        self._run = run
        self._began = time.time() - loop.time()

    def __call__(self) -> float:
        """Return the seconds that it shows; it began at 1000."""
        return self._loop.time()

    def wall(self) -> float:
        """Return the time of day as the gateway has it: that of the test's start, and what has passed since."""
        return self._began + self._loop.time()

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, with all that was to happen in them."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._run(seconds)
