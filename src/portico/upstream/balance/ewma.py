"""Targets that have answered faster of late are asked more, as Finagle and Linkerd do it (peak EWMA)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from portico.upstream.balance.lottery import Lottery, TwoChoices
from portico.upstream.target import Target

DECAY: Final = 10.0
"""Seconds in which what is known of a target's latency fades to a third (1/e)."""

_UNKNOWN: Final = 1e9
"""The cost, in seconds, of a target that has been asked and has never answered."""

_INSTANT: Final = 1e-9


def observe(target: Target, seconds: float, now: float) -> None:
    """Note that it took `target` so long to answer: a slower answer counts at once and in full, a faster one by and by.

    What counts is the time that has passed, not the number of answers.
    """
    latency = target.latency
    if seconds < latency:
        kept = math.exp((target.latency_at - now) / DECAY)
        seconds += (latency - seconds) * kept
    target.latency = max(seconds, _INSTANT)
    target.latency_at = now


class PeakEwma(TwoChoices):
    """Takes the one of two that costs less: its latency, for each request under way and this one, by its weight.

    A latency fades while no answer comes, so that a target that was slow is tried again. One that has never answered
    is tried before all others, by one request at a time.
    """

    __slots__ = ("_clock",)

    def __init__(self, targets: Sequence[Target], random: Callable[[], float], clock: Callable[[], float]) -> None:
        super().__init__(targets, random)
        self.looks_on = self.wants_latency = True
        self._clock = clock

    def among(self, targets: Sequence[Target]) -> Lottery:
        """Return the same for other targets."""
        return PeakEwma(targets, self._random, self._clock)

    def second_is_better(self, first: int, second: int) -> bool:
        """Return whether the second costs less."""
        now = self._clock()
        return self._cost(second, now) < self._cost(first, now)

    def _cost(self, position: int, now: float) -> float:
        target = self.targets[position]
        busy = target.pool.busy
        if target.latency == 0.0:
            cost = _UNKNOWN * busy
        else:
            cost = target.latency * math.exp((target.latency_at - now) / DECAY) * (busy + 1)
        return cost / self._turns[position]
