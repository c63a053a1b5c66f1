"""What counts on the board: names for a few of its slots, which one process writes and all may read."""

from __future__ import annotations

from typing import Final

_SLOT: Final = 8

EXEMPLAR: Final = 4
"""Slots of an exemplar: when it was taken, in milliseconds since the epoch; its value; the two halves of a trace."""

ABSENT: Final = 2**64 - 1
"""What a gauge says that is of nothing any more."""

_HALF: Final = 2**64 - 1
_EXEMPLAR_EVERY: Final = 1.0
"""Seconds between two exemplars of a histogram."""


def private_slots(count: int) -> memoryview:
    """Return slots that nobody else reads."""
    return memoryview(bytearray(count * _SLOT)).cast("Q")


class Counter:
    """A number that one process adds to. Nobody else writes its slot, so that it is only written, and never read."""

    __slots__ = ("_at", "_slots", "value")

    def __init__(self, slots: memoryview, at: int) -> None:
        self._slots = slots
        self._at = at
        self.value: int = slots[at]
        """What it has come to in this process."""

    @classmethod
    def private(cls) -> Counter:
        """Return one that nobody else reads."""
        return cls(private_slots(1), 0)

    def add(self, amount: int = 1) -> None:
        """Add a whole number that is not negative."""
        value = self.value + amount
        self.value = value
        self._slots[self._at] = value


class Mark:
    """A number that one process writes anew each time: a vital, or a gauge."""

    __slots__ = ("_at", "_slots")

    def __init__(self, slots: memoryview, at: int) -> None:
        self._slots = slots
        self._at = at

    @classmethod
    def private(cls) -> Mark:
        """Return one that nobody else sees."""
        return cls(private_slots(1), 0)

    def write(self, value: int) -> None:
        """Write a value."""
        self._slots[self._at] = value

    @property
    def value(self) -> int:
        """What was written last."""
        value: int = self._slots[self._at]
        return value


class Histogram:
    """How often what was measured came to how much: a slot for each bucket, one for what is beyond, one for the sum."""

    __slots__ = ("_at", "_counts", "_exemplar", "_next", "_scale", "_slots", "_sum", "_sum_at", "bounds")

    def __init__(self, slots: memoryview, at: int, bounds: list[float], scale: int) -> None:
        """`bounds` are the upper ones, which belong to their buckets; the sum has `scale` to the unit."""
        self._slots = slots
        self._at = at
        self._sum_at = at + len(bounds) + 1
        self._exemplar = self._sum_at + 1
        self._counts: list[int] = slots[at : self._sum_at].tolist()
        self._sum: int = slots[self._sum_at]
        self._scale = scale
        self._next = 0.0
        self.bounds = bounds

    @classmethod
    def private(cls, bounds: list[float], scale: int) -> Histogram:
        """Return one that nobody else reads."""
        return cls(private_slots(len(bounds) + 2 + EXEMPLAR), 0, bounds, scale)

    def observe(self, value: float) -> None:
        """Count a value, which is not negative."""
        slots, counts, number = self._slots, self._counts, 0
        for bound in self.bounds:  # most are in one of the first; compiled, it costs less than a call to look it up
            if value <= bound:
                break
            number += 1
        count = counts[number] + 1
        counts[number] = count
        slots[self._at + number] = count
        sum_ = self._sum + int(value * self._scale)
        self._sum = sum_
        slots[self._sum_at] = sum_

    def show(self, value: float, trace_id: str, now: float, wall: float) -> None:
        """Remember a value that was observed with the trace that it is of, unless one of this second is there already.

        `now` is a time of any clock, and `wall` the time of day. Who reads it meanwhile sees that it is being written.
        """
        if now < self._next:
            return
        self._next = now + _EXEMPLAR_EVERY
        slots, at, trace = self._slots, self._exemplar, int(trace_id, 16)
        slots[at] = 0
        slots[at + 1] = int(value * self._scale)
        slots[at + 2] = trace >> 64
        slots[at + 3] = trace & _HALF
        slots[at] = int(wall * 1000)
