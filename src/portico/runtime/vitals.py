"""A worker's, or the agent's, signs of life: written to the board at each beat of its loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

from portico.state.board import Segment, Vital

BEAT: Final = 0.25
"""Seconds between two signs of life."""


class Vitals:
    """Beats while the loop turns; a loop that stands still, or a process that was stopped, does not."""

    def __init__(
        self, segment: Segment, loop: asyncio.AbstractEventLoop, at_beat: Callable[[], None] | None = None
    ) -> None:
        """Begin to beat; `at_beat` is called each time, to write what else there is to tell."""
        self._segment = segment
        self._loop = loop
        self._at_beat = at_beat
        segment.begin(os.getpid(), time.monotonic_ns())
        segment[Vital.BEAT] = time.monotonic_ns()
        self._due = loop.time() + BEAT
        self._timer = loop.call_at(self._due, self._beat)

    def close(self) -> None:
        """Beat no more."""
        self._timer.cancel()

    def _beat(self) -> None:
        now = self._loop.time()
        lag = max(0, int((now - self._due) * 1e9))
        segment = self._segment
        segment[Vital.BEAT] = time.monotonic_ns()
        segment[Vital.LAG] = lag
        segment.raise_to(Vital.LAG_MAX, lag)
        self._due = now + BEAT
        self._timer = self._loop.call_at(self._due, self._beat)
        if self._at_beat is not None:
            self._at_beat()
