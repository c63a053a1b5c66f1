"""Long work on a loop that others need: done in slices, between which everyone else has a turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Final, TypeVar

T = TypeVar("T")

SLICE: Final = 0.002
"""Seconds that others wait for at a time."""


class Pace:
    """Drives work that is written as a generator of small steps, and remembers how long it kept the loop."""

    __slots__ = ("longest", "slice")

    def __init__(self, slice_seconds: float = SLICE) -> None:
        self.slice = slice_seconds
        self.longest = 0.0
        """The longest that others had to wait so far, in seconds: a slice and what its last step took beyond it."""

    async def run(self, steps: Generator[None, None, T]) -> T:
        """Return what `steps` return; where this is cancelled, they are closed."""
        try:
            while True:
                began = time.perf_counter()
                until = began + self.slice
                try:
                    while time.perf_counter() < until:
                        next(steps)
                except StopIteration as end:
                    result: T = end.value
                    return result
                finally:
                    self.longest = max(self.longest, time.perf_counter() - began)
                await asyncio.sleep(0)
        finally:
            steps.close()


def at_once(steps: Generator[None, None, T]) -> T:
    """Return what `steps` return, where nobody waits."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
