"""What gauges say of targets one by one: where one has gone, its place on the board is for another."""

from __future__ import annotations

import logging
from itertools import islice
from typing import Final

from portico.observe.metrics import DROPPED_SERIES, TARGET_HEALTHY
from portico.state.board import Segment, counter_name
from portico.state.slots import ABSENT, Mark

logger = logging.getLogger("portico.worker")

MOST_TARGETS: Final = 4096
"""Targets that a worker tells of one by one, those that went a moment ago among them."""

_ROOM: Final = 64
"""Bytes of which the room for a name has a whole number: then most names fit where others were."""
_LOOKED_AT: Final = 32
"""Names that are tried, where one is to take the place of another."""


class TargetGauges:
    """The gauges of one worker that are of a target each. They are written in rounds."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._dropped = segment.counter(DROPPED_SERIES.name)
        self._told: dict[tuple[str, str], tuple[str, Mark]] = {}
        """By service and address: the gauge of a target and its name."""
        self._fresh: set[tuple[str, str]] = set()
        """Those that this round has told of."""
        self._gone: dict[str, Mark] = {}
        """By name: those of targets that went, which say nothing; who has been so for longest first."""
        self._left_out: set[tuple[str, str]] = set()
        """Those that this round had no room for."""
        self._left_out_before: set[tuple[str, str]] = set()
        self._counted: set[tuple[str, str]] = set()
        self._made = 0
        self._warned = False

    def begin_round(self) -> None:
        """Begin to tell of all of them anew."""
        self._fresh = set()
        self._left_out = set()

    def write(self, service: str, address: str, is_well: bool) -> None:
        """Tell of one target, unless there are too many."""
        target = service, address
        told = self._told.get(target)
        if told is None:
            self._begin(target)
            return  # its first value comes with the next round
        told[1].write(is_well)
        self._fresh.add(target)

    def end_round(self) -> None:
        """Have those say nothing any more that this round has not told of."""
        for target in [target for target in self._told if target not in self._fresh]:
            name, mark = self._told.pop(target)
            mark.write(ABSENT)
            self._gone[name] = mark
        still = self._left_out & self._left_out_before  # in one round alone there may be others that go at its end
        new, self._counted, self._left_out_before = len(still - self._counted), still, self._left_out
        if new:
            self._dropped.add(new)
            if not self._warned:
                self._warned = True
                logger.warning("metrics: there is no room for each target: %s leaves some out", TARGET_HEALTHY.name)

    def _begin(self, target: tuple[str, str]) -> None:
        """Have a gauge for a target that had none, where there is room."""
        service, address = target
        name = counter_name(TARGET_HEALTHY.name, {"service": service, "target": address})
        mark = self._gone.pop(name, None) or self._in_place_of_another(name)
        if mark is None:
            if self._made >= MOST_TARGETS or self._segment.nearly_full:
                self._left_out.add(target)
                return
            self._made += 1
            mark = self._segment.gauge(name, -(-len(name.encode()) // _ROOM) * _ROOM)
        self._told[target] = name, mark
        self._fresh.add(target)

    def _in_place_of_another(self, name: str) -> Mark | None:
        """Return a gauge that was of a target which has gone; None where none of the oldest has room for the name."""
        for old in islice(self._gone, _LOOKED_AT):
            mark = self._segment.rename(old, name)
            if mark is not None:
                del self._gone[old]
                return mark
        return None
