"""The same key goes to the same target, and few keys move when a target comes or goes (consistent hashing)."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

from portico.http.message import Request
from portico.upstream.balance.balancer import Balancer, Make
from portico.upstream.target import Target

POINTS_EACH: Final = 160
"""Points of an average target on the ring: by as many, the share of one is off by 8 % (1/√160, one sigma)."""

MAX_POINTS: Final = 32_768
"""Points of all targets together, beyond which each has fewer."""

_OWNERS: Final = float(1 << 21)
"""A point is a number of 53 bits, of which the upper 32 are its place, and the lower 21 say whose it is: as many as fit
into a float, which Python sorts fastest; and no two are alike."""

_EACH_DIGEST: Final = struct.Struct(">16I")

ReadKey = Callable[[Request], bytes | str | None]


class ConsistentHash(Balancer):
    """A request goes to the target that owns the first point from its key's place on, around a ring.

    Places are the same in all processes, on all machines. A request without a key takes turns.
    """

    __slots__ = ("_key", "_make", "_owners", "_ring", "_turns")

    def __init__(
        self,
        targets: Sequence[Target],
        key: ReadKey,
        ring: list[float],
        owners: Sequence[Target],
        turns: Make,
    ) -> None:
        """`ring` are the points in order, `owners` whose they may be; `turns` is for those without a key."""
        super().__init__(targets)
        self._key = key
        self._ring = ring
        self._owners = tuple(owners)
        self._make = turns
        self._turns: Balancer | None = None

    def pick(self, request: Request) -> Target:
        """Return the target of the request's key."""
        key = self._key(request)
        if not key:
            return self._keyless().pick(request)
        ring = self._ring
        at = bisect_left(ring, place(key))
        return self._owners[int((ring[at] if at < len(ring) else ring[0]) % _OWNERS)]

    def other(self, request: Request, tried: Sequence[Target]) -> Target | None:
        """Return the target that would be the key's if those `tried` were gone."""
        key = self._key(request)
        if not key:
            return self._keyless().other(request, tried)
        rest = self.untried(tried)
        if len(rest) < 2:
            return rest[0] if rest else None
        ring = self._ring
        at = bisect_left(ring, place(key))
        while True:  # each has a point
            target = self._owners[int(ring[at % len(ring)] % _OWNERS)]
            if target not in tried:
                return target
            at += 1

    def _keyless(self) -> Balancer:
        """Return what requests without a key are balanced by; often there are none, and to make it takes a while."""
        if self._turns is None:
            self._turns = self._make(self.targets)
        return self._turns


def place(key: bytes | str) -> float:
    """Return where a key is on the ring: no point of that place is lower."""
    data = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return int.from_bytes(blake2b(data, digest_size=4).digest(), "big") * _OWNERS


class Rings:
    """Makes the rings of one service; remembers each target's points from one to the next."""

    __slots__ = ("_key", "_known", "_turns")

    def __init__(self, key: ReadKey, turns: Make) -> None:
        self._key = key
        self._turns = turns
        self._known: dict[str, Points] = {}

    def make(self, targets: Sequence[Target]) -> Balancer:
        """Return what picks among `targets`."""
        each = min(POINTS_EACH, MAX_POINTS / len(targets))
        # By the whole weights: a target that starts slowly takes keys, and moves none between the others.
        average = sum([target.weight for target in targets]) / len(targets)
        known: dict[str, Points] = {}
        ring: list[float] = []
        # Where two have a point at the same place, whose it is must not depend on the order in which they are known.
        owners = sorted(targets, key=lambda target: target.address)
        for owner, target in enumerate(owners):
            points = self._known.get(target.address) or Points(target.address)
            known[target.address] = points
            ring += [point + owner for point in points.first(each * target.turns / average)]
        ring.sort()
        self._known = known
        return ConsistentHash(targets, self._key, ring, owners, self._turns)


class Points:
    """The points of one target: always the same, in an order in which it has more or fewer of them."""

    __slots__ = ("_address", "_all", "_first", "_threshold")

    def __init__(self, address: str) -> None:
        self._address = address.encode("utf-8", "surrogatepass")
        self._all: list[float] = []
        self._first: list[float] = []
        self._grow()
        self._threshold = self._all[0] / _OWNERS / (1 << 32)

    def first(self, count: float) -> list[float]:
        """Return about `count` of them, at least one, from the lowest to the highest.

        A part of a point is rounded up by some targets and down by others, so that not all change at once where
        `count` changes a little for each.
        """
        number = max(1, int(count + self._threshold))
        if number != len(self._first):
            while len(self._all) < number:
                self._grow()
            self._first = sorted(self._all[:number])
        return self._first

    def _grow(self) -> None:
        data = b"%s\0%d" % (self._address, len(self._all))
        self._all += [point * _OWNERS for point in _EACH_DIGEST.unpack(blake2b(data).digest())]
