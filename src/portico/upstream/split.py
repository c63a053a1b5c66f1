"""A service that divides its requests among others: a canary, or two versions side by side."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from hashlib import blake2b
from itertools import accumulate
from typing import Final, NamedTuple

from portico.http.message import Request, Response
from portico.upstream.breaker import Breaker
from portico.upstream.target import Target
from portico.upstream.upstream import Upstream

_POINTS: Final = 2.0**64


class Part(NamedTuple):
    """One of the services that requests are divided among."""

    to: Upstream
    weight: int
    holds: Callable[[Request], bool] | None = None
    """Whether a request is this part's, whatever the weights."""


class Why(Enum):
    """Why a request goes where it goes."""

    CONDITION = "its condition holds"
    KEY = "that is where its key belongs"
    LOT = "by lot"


class Split:
    """Gives each request to the first part whose condition holds; otherwise to one by its key, or by lot.

    A key stands for a point that never changes, and each part has a stretch as long as its weight: where the weights
    change, only the keys between the old border and the new one move. The same key has the same point in every split,
    so that two services which are divided alike stay together.
    """

    __slots__ = ("_borders", "_chance", "_key", "_total", "_weighed", "_with_condition", "name", "on_choice", "parts")

    def __init__(
        self,
        name: str,
        parts: Sequence[Part],
        key: Callable[[Request], bytes | str | None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`key` reads what keeps requests together; `chance` draws a number from 0 to below 1."""
        self.name = name
        self.parts = tuple(parts)
        self._with_condition = tuple((part.holds, part) for part in parts if part.holds is not None)
        self._weighed = tuple(part for part in parts if part.weight)
        *borders, self._total = accumulate(part.weight for part in self._weighed)
        self._borders = borders
        """Where one part's stretch ends and the next begins, on a line from 0 to the sum of the weights."""
        self._key = key
        self._chance = chance
        self.on_choice: Callable[[Split, Part, Why], None] | None = None
        """Told of every choice; for those who look at what becomes of a request."""

    @property
    def targets(self) -> Sequence[Target]:
        """Where its requests may end: the targets of all parts."""
        return tuple(dict.fromkeys(target for part in self.parts for target in part.to.targets))

    @property
    def breaker(self) -> Breaker | None:
        """None: each part has its own."""
        return None

    def well(self, is_well: Callable[[Target], bool]) -> bool:
        """Return whether it can be asked: where each of its parts can."""
        return all(part.to.well(is_well) for part in self.parts)

    def handle(self, request: Request) -> Awaitable[Response]:
        """Have one of the parts answer `request`."""
        part, why = self._choice(request)
        if self.on_choice is not None:
            self.on_choice(self, part, why)
        return part.to.handle(request)

    def _choice(self, request: Request) -> tuple[Part, Why]:
        for holds, part in self._with_condition:
            if holds(request):
                return part, Why.CONDITION
        key = None if self._key is None else self._key(request)
        if not key:
            return self._at(self._chance()), Why.LOT
        return self._at(_point(key)), Why.KEY

    def _at(self, point: float) -> Part:
        return self._weighed[bisect_right(self._borders, point * self._total)]


def _point(key: bytes | str) -> float:
    """Return where between 0 and 1 a key belongs; the same in every process and for ever."""
    content = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key
    digest = blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest) / _POINTS
