"""Tells which policy, endpoint or plugin keeps a worker's loop from turning, while it does so.

A thread looks on: it sleeps until the loop's next sign of life is overdue, which it hardly ever is, and then looks at
what the loop's thread is in the midst of. Code that holds the interpreter's lock, such as a regular expression that
never ends, is looked at as soon as it lets go.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from portico.runtime.blame import running
from portico.runtime.runtime import Route
from portico.runtime.vitals import BEAT

logger = logging.getLogger("portico.worker")

LATE: Final = 0.25
"""Seconds that the loop may be late; more is told."""

TELL_AGAIN: Final = 60.0
"""Seconds for which the same place is not told of again."""

MAX_PLACES: Final = 1000
"""Places that are remembered as told."""

_OVERDUE: Final = int((BEAT + LATE) * 1e9)
"""Nanoseconds since the last sign of life."""


class BlockedWatch:
    """Watches over the loop of the thread that it is made in."""

    def __init__(self, beat: Callable[[], int], routes: Callable[[], Sequence[Route]]) -> None:
        """Begin; `beat` returns when the loop last turned, by the clock of `time.monotonic_ns`."""
        self._beat = beat
        self._routes = routes
        self._watched = threading.get_ident()
        self._closed = threading.Event()
        self._told: dict[tuple[str, int], float] = {}
        self._thread = threading.Thread(target=self._watch, name="blocked", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; after this nothing is told any more."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        told_of = 0
        wait = BEAT + LATE
        while not self._closed.wait(wait):
            beat, now = self._beat(), time.monotonic_ns()
            left = beat + _OVERDUE - now
            # Once it is overdue, and told, the next look is at the earliest when another beat can be overdue.
            wait = left / 1e9 if left > 0 else BEAT + LATE
            if left <= 0 and beat != told_of:
                told_of = beat
                self._tell((now - beat) / 1e9 - BEAT)

    def _tell(self, late: float) -> None:
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - documented, and the only way
        culprit = None if frame is None else running(frame, self._routes())
        del frame
        if culprit is None:
            return  # the machine may be too busy; how late the loop is stands in `portico status`
        now, place = time.monotonic(), (culprit.file, culprit.line)
        if now - self._told.get(place, float("-inf")) < TELL_AGAIN:
            return
        if len(self._told) >= MAX_PLACES:
            self._told.clear()
        self._told[place] = now
        whose = culprit.part or "a plugin"
        route = f", route {culprit.route}" if culprit.route else ""
        logger.warning(
            "the loop is late by %.0f ms and all requests wait: %s (%s in %s%s) does not let go",
            late * 1000,
            whose,
            culprit.place,
            culprit.function,
            route,
        )
