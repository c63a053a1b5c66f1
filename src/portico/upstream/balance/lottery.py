"""Targets are drawn by lot: as they come, or the better one of two."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

from mypy_extensions import mypyc_attr

from portico.http.message import Request
from portico.upstream.balance.balancer import Balancer
from portico.upstream.target import Target

_DRAWS: Final = 2
"""How often another target is drawn of all of them, before one is of those that were not tried."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Lottery(Balancer):
    """Draws a target by lot, each as likely as its weight says."""

    __slots__ = ("_last", "_lots", "_random", "_total", "_turns")

    def __init__(self, targets: Sequence[Target], random: Callable[[], float]) -> None:
        """`random` returns a number from 0 to 1, without 1."""
        super().__init__(targets)
        self._random = random
        self._turns = [target.turns for target in self.targets]
        self._lots = list(accumulate(self._turns))
        """Each has the lots from its predecessor's number up to its own."""
        self._total: float = self._lots[-1]
        self._last = len(self._lots) - 1

    def among(self, targets: Sequence[Target]) -> Lottery:
        """Return the same for other targets."""
        return Lottery(targets, self._random)

    def pick(self, request: Request) -> Target:
        """Return a target."""
        return self.targets[bisect(self._lots, self._random() * self._total, 0, self._last)]

    def other(self, request: Request, tried: Sequence[Target]) -> Target | None:
        """Return one that is not among `tried`, as likely as its weight among those says."""
        for _ in range(_DRAWS):
            target = self.pick(request)
            if target not in tried:
                return target
        rest = self.untried(tried)
        return self.among(rest).pick(request) if rest else None


@mypyc_attr(allow_interpreted_subclasses=True)
class TwoChoices(Lottery):
    """Draws two different targets and takes the better one: so few at a time run after the best that it stays so.

    See Mitzenmacher, The Power of Two Choices in Randomized Load Balancing. A tie goes to the one drawn first, which
    keeps to the weights where nothing tells targets apart.
    """

    __slots__ = ()

    def second_is_better(self, first: int, second: int) -> bool:
        """Return whether the target at the position `second` is better."""
        raise NotImplementedError

    def pick(self, request: Request) -> Target:
        """Return the better one of two."""
        targets = self.targets
        last = self._last
        if not last:
            return targets[0]
        lots = self._lots
        first = bisect(lots, self._random() * self._total, 0, last)
        if last == 1:
            second = 1 - first
        else:
            own = self._turns[first]
            lot = self._random() * (self._total - own)
            if lot >= lots[first] - own:
                lot += own  # over the lots of the first
            second = bisect(lots, lot, 0, last)
            if second == first:  # by rounding
                second = first - 1 if first else 1
        return targets[second if self.second_is_better(first, second) else first]


class LeastRequest(TwoChoices):
    """Takes the one of two that has fewer requests under way for its weight."""

    __slots__ = ()

    def among(self, targets: Sequence[Target]) -> Lottery:
        """Return the same for other targets."""
        return LeastRequest(targets, self._random)

    def second_is_better(self, first: int, second: int) -> bool:
        """Return whether the second has fewer requests under way for its weight."""
        targets, turns = self.targets, self._turns
        return targets[second].pool.busy * turns[first] < targets[first].pool.busy * turns[second]
