"""When memory is searched for cycles, which makes everyone wait, and how long that took.

What a load has built lives as long as its configuration: it is frozen, so that no collection walks it. A search through
all of it takes a tenth of a second and more where there are many routes, so it is put off until no request is under
way. Without plugins it finds next to nothing: a configuration that is closed has no cycles of its own.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from portico.state.board import Segment, Vital

PATIENCE: Final = 60.0
"""Seconds for which a search that is needed waits for a quiet moment."""


class Garbage:
    """The garbage collector of one worker."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._began = 0
        self._held = 0
        self._expected = False
        self._by = float("inf")
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

    def expect(self, *, certain: bool) -> None:
        """Say that something was closed; `certain` that it has cycles, so that a search cannot wait for ever."""
        self._expected = True
        if certain:
            self._by = min(self._by, time.monotonic() + PATIENCE)

    def look(self, *, quiet: bool) -> None:
        """Search everything, where that is due and nobody waits, or it has to be."""
        if self._expected and not self._held and (quiet or time.monotonic() > self._by):
            self.search()

    def search(self) -> None:
        """Search everything now, and leave it alone from then on."""
        self._expected = False
        self._by = float("inf")
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
