"""Lines that were lost: each is counted, and the log says so at most once a minute."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

logger = logging.getLogger("portico.access_log")

PAUSE: Final = 60.0
"""Seconds between two times that the log says it."""


class Count(Protocol):
    """What counts."""

    def add(self, amount: int = 1) -> None:
        """Add to it."""


class Losses:
    """What one worker has lost of its lines, whatever their log. For its loop alone."""

    def __init__(self, counter: Count, clock: Callable[[], float]) -> None:
        self._counter = counter
        self._clock = clock
        self._told_at = -PAUSE
        self._untold = 0
        self._why = ""

    def add(self, lines: int, why: str) -> None:
        """Count lines that were lost."""
        self._counter.add(lines)
        self._untold += lines
        self._why = why
        self.look()

    def look(self) -> None:
        """Tell what was not told yet, where the last time is long enough ago."""
        if self._untold and self._clock() - self._told_at >= PAUSE:
            self.tell()

    def tell(self) -> None:
        """Tell what was not told yet."""
        if self._untold:
            logger.warning("%d line(s) of the access log were lost: %s", self._untold, self._why)
            self._untold = 0
            self._told_at = self._clock()
