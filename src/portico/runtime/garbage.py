"""When memory is searched for cycles, which makes everyone wait, and how long that took.

What a load has built lives as long as its configuration: it is frozen, so that no collection walks it. A configuration
that is closed has no cycles of its own, and goes without a search. The modules of plugins do have cycles, as every
class has: after one was closed everything is searched, once no request is under way. With ten thousand routes that
takes more than half a second.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from portico.state.board import Segment, Vital

NEVER: Final = float("inf")

SEARCH_EVERY: Final = 50
"""Loads after which everything is searched in any case."""

PATIENCE: Final = 60.0
"""Seconds for which a search that is needed waits for a quiet moment."""


class Garbage:
    """The garbage collector of one worker."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._began = 0
        self._held = 0
        self._frozen = 0
        self._by = NEVER
        gc.callbacks.append(self._timed)

    def close(self) -> None:
        """Time no more collections."""
        gc.callbacks.remove(self._timed)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the collector away while something is built, and then away from what was built."""
        if not self._held:
            gc.collect(1)
            gc.freeze()
            gc.disable()
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                gc.freeze()
                gc.enable()
                self._frozen += 1
                if self._frozen % SEARCH_EVERY == 0:  # what requests left behind meanwhile was frozen along
                    self.expect()

    def expect(self) -> None:
        """Say that something with cycles was closed."""
        self._by = min(self._by, time.monotonic() + PATIENCE)

    def look(self, *, quiet: bool) -> None:
        """Search everything, where that is due and nobody waits, or it has waited long enough."""
        if self._by != NEVER and not self._held and (quiet or time.monotonic() > self._by):
            self.search()

    def search(self) -> None:
        """Search everything now, and leave it alone from then on."""
        self._by = NEVER
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _timed(self, phase: str, _: object) -> None:
        now = time.perf_counter_ns()
        if phase == "start":
            self._began = now
        else:
            took = now - self._began
            segment = self._segment
            segment[Vital.GC_RUNS] += 1
            segment[Vital.GC_TIME] += took
            segment.raise_to(Vital.GC_MAX, took)
