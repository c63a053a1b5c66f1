"""Which target is next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class RoundRobin(Generic[T]):
    """Smooth weighted round-robin, as nginx does it: a heavy target's turns are spread out, not bunched.

    The whole cycle is laid out at load, so that a turn costs one index step.
    """

    __slots__ = ("_at", "_cycle", "targets")

    def __init__(self, weighted: Sequence[tuple[T, int]]) -> None:
        self.targets = tuple(target for target, _ in weighted)
        self._cycle = _cycle([weight for _, weight in weighted])
        self._at = 0

    def next(self) -> T:
        """Return the target whose turn it is."""
        at = self._at
        self._at = at + 1 if at + 1 < len(self._cycle) else 0
        return self.targets[self._cycle[at]]

    def other(self, tried: Sequence[T]) -> T | None:
        """Return the next target that is not among `tried`, or None where all were."""
        for step in range(len(self._cycle)):
            target = self.targets[self._cycle[(self._at + step) % len(self._cycle)]]
            if target not in tried:
                return target
        return None


def _cycle(weights: Sequence[int]) -> tuple[int, ...]:
    """Return the positions of one full cycle in turn."""
    divisor = math.gcd(*weights)
    steps = [weight // divisor for weight in weights]
    total = sum(steps)
    current = [0] * len(steps)
    order = []
    for _ in range(total):
        for position, step in enumerate(steps):
            current[position] += step
        best = max(range(len(steps)), key=current.__getitem__)
        current[best] -= total
        order.append(best)
    return tuple(order)
