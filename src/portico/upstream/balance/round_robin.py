"""Targets take turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from portico.http.message import Request
from portico.upstream.balance.balancer import Balancer
from portico.upstream.target import Target

MAX_CYCLE: Final = 16_384
"""Turns of a cycle beyond which weights are rounded, unless there are more targets than fit."""

TURNS_EACH: Final = 128
"""Turns of an average target in a cycle of rounded weights, where there is room for as many."""

_SMOOTH_WORK: Final = 4096
"""Steps, of turns times targets, up to which a cycle is laid out as nginx does it."""

_GOLDEN: Final = (math.sqrt(5) - 1) / 2


class RoundRobin(Balancer):
    """Smooth weighted round-robin, as nginx does it: a heavy target's turns are spread out, not bunched.

    The whole cycle is laid out when it is made, so that a turn costs one index step.
    """

    __slots__ = ("_at", "_cycle")

    def __init__(self, targets: Sequence[Target], start: float = 0.0) -> None:
        """`start` says where in the cycle, from 0 to 1, the first turn is: workers must not all begin with the same."""
        super().__init__(targets)
        self._cycle = cycle(self.targets)
        self._at = int(start * len(self._cycle))

    def pick(self, request: Request) -> Target:
        """Return the target whose turn it is."""
        at = self._at
        turns = self._cycle
        self._at = at + 1 if at + 1 < len(turns) else 0
        return turns[at]

    def other(self, request: Request, tried: Sequence[Target]) -> Target | None:
        """Return the target whose turn is the next of those not among `tried`, and take that turn.

        Otherwise whoever comes after a target that fails would have the turns of both.
        """
        rest = self.untried(tried)
        if len(rest) < 2:
            return rest[0] if rest else None
        while True:
            target = self.pick(request)
            if target not in tried:
                return target


def cycle(targets: Sequence[Target]) -> list[Target]:
    """Return one full cycle of turns, each target's in proportion to its weight as far as it has it, at least one."""
    turns = [target.turns for target in targets]
    if min(turns) == max(turns):
        return list(targets)
    steps = _steps(turns)
    if sum(steps) * len(steps) <= _SMOOTH_WORK:
        return [targets[position] for position in _smooth(steps)]
    return [targets[position] for position in _spread(steps)]


def _steps(turns: Sequence[float]) -> list[int]:
    """Return how many turns of a cycle each has: exactly in proportion, unless the cycle were too long."""
    total = sum(turns)
    if not any(turn % 1.0 for turn in turns):
        whole = [int(turn) for turn in turns]
        divisor = math.gcd(*whole)
        if total <= MAX_CYCLE * divisor:
            return [turn // divisor for turn in whole]
    scale = max(min(TURNS_EACH * len(turns), MAX_CYCLE), len(turns)) / total
    return [max(1, round(turn * scale)) for turn in turns]


def _smooth(steps: Sequence[int]) -> list[int]:
    """Return the positions of one full cycle in turn, as nginx has them; it takes turns times targets."""
    total = sum(steps)
    current = [0] * len(steps)
    order = []
    for _ in range(total):
        for position, step in enumerate(steps):
            current[position] += step
        best = current.index(max(current))
        current[best] -= total
        order.append(best)
    return order


def _spread(steps: Sequence[int]) -> list[int]:
    """Return the positions of one full cycle, the turns of each at equal distances.

    Each begins at another place of its first distance, or the light ones would all have theirs side by side: multiples
    of the golden ratio are nowhere dense.
    """
    places: list[float] = []
    owners: list[int] = []
    for position, step in enumerate(steps):
        begin = position * _GOLDEN % 1.0
        places += [(begin + turn) / step for turn in range(step)]
        owners += [position] * step
    return [owners[at] for at in sorted(range(len(places)), key=places.__getitem__)]
