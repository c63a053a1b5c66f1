"""Keeps an environment of LMDB within its size: what has expired goes, and where that is not enough, what soon will."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final

import lmdb

from portico.state.store import Filled

EXPIRES: Final = Struct("<d")
"""The end of each record: when it can be forgotten, in microseconds since 1970."""

TRAILER: Final = Struct("<Qd")
"""The end of the record of a value: the token of a claim or 0, and when it expires."""

VALUES: Final = b"v"
"""What the keys of records of values begin with."""

META: Final = b"\0"
"""What the keys of records begin with that are the store's own, and never expire."""

_HAND: Final = META + b"hand"

STEP: Final = 128
"""Records that are looked at in one step; its transaction holds the lock for some ten microseconds."""

PAUSE: Final = 1.0
"""Seconds between two steps, of all processes together, where there is no haste."""

FULL: Final = 0.75
"""The part of the map that may be in use. The rest is for transactions, which change nothing in place, and for pages
that somebody still reads."""

CROWDED: Final = 0.85
"""The part of the map beyond which nothing new is written before there is room: what deletes changes nothing in place
either, and would find no page in a map without any."""


class Tidier:
    """Goes round the records, a few at each step, as the hand of a clock does. Where the hand is stands in the store:
    the processes go on from where another one has left off.
    """

    def __init__(self, env: lmdb.Environment, size: int, wall: Callable[[], float] = time.time) -> None:
        self._env = env
        self._size = size
        self._most = int(size * FULL)
        self._wall = wall
        self._hasty = False
        """Whether there was so much to take away that the next step does not wait."""
        self.evicted = 0
        """Records that had to go before they had expired."""

    @property
    def full(self) -> bool:
        """Whether more of the map is in use than may be."""
        return self._used > self._most

    @property
    def crowded(self) -> bool:
        """Whether so much of the map is in use that nothing new may come."""
        return self._used > self._size * CROWDED

    @property
    def filled(self) -> Filled:
        """How full it is."""
        return Filled(self._used, self._size, self.evicted)

    @property
    def _used(self) -> int:
        stat = self._env.stat()
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * stat["psize"]

    def step(self) -> bool:
        """Look at the next records, and tell whether to go on at once."""
        full = self.full
        if not full and not self._hasty and self._seen_lately():
            return False
        old, evicted = self._take_away(evict=full)
        self._hasty = (full and old + evicted > 0) or old > STEP // 4
        self._env.reader_check()  # of those who were killed while they read
        return self._hasty

    def make_room(self) -> None:
        """Have some of the next records go in any case: there is no room in one piece, or somebody still reads it."""
        for _ in range(4):
            self._take_away(evict=True)

    def _seen_lately(self) -> bool:
        with self._env.begin() as txn:
            _, begun = _hand(txn)
        return 0 <= self._wall() * 1_000_000 - begun < PAUSE * 900_000

    def _take_away(self, *, evict: bool) -> tuple[int, int]:
        """Delete what has expired of the next records, and the half of the others that does so next if it has to be;
        return how many that were of each.

        Claims would be the first of these, and nobody could make them anew: they go where there is nothing else.
        """
        now = self._wall() * 1_000_000
        with self._env.begin() as txn:
            at, _ = _hand(txn)
            seen = list(_from(txn, at))
        old = [key for key, expires, _ in seen if expires <= now]
        alive = [each for each in seen if each[1] > now] if evict else []
        if len(seen) < STEP or not all(claimed for *_, claimed in alive):
            alive = [each for each in alive if not each[2]]
        alive.sort(key=lambda each: each[1])
        evicted = [key for key, *_ in alive[: (len(alive) + 1) // 2]]
        with self._env.begin(write=True) as txn:
            for key in old + evicted:
                txn.delete(key)
            txn.put(_HAND, EXPIRES.pack(now) + (seen[-1][0] if len(seen) == STEP else b""))
        self.evicted += len(evicted)
        return len(old), len(evicted)


def _hand(txn: lmdb.Transaction[bytes]) -> tuple[bytes, float]:
    """Return the key at which the last step has ended, and when it was."""
    held = txn.get(_HAND)
    if held is None:
        return b"", 0.0
    (begun,) = EXPIRES.unpack_from(held)
    return held[EXPIRES.size :], begun


def _from(txn: lmdb.Transaction[bytes], at: bytes) -> Iterator[tuple[bytes, float, bool]]:
    """Iterate over the next records behind a key, when they expire, and whether they are claims."""
    with txn.cursor() as cursor:
        found = cursor.set_range(at + b"\0") if at else cursor.first()
        count = 0
        while found and count < STEP:
            key = cursor.key()
            if not key.startswith(META):
                value = cursor.value()
                (expires,) = EXPIRES.unpack_from(value, len(value) - EXPIRES.size)
                yield (
                    key,
                    expires,
                    key.startswith(VALUES) and TRAILER.unpack_from(value, len(value) - TRAILER.size)[0] > 0,
                )
                count += 1
            found = cursor.next()


def _token(value: bytes) -> int:
    """Return the token of a claim; 0 of what is a value already."""
    token: int = TRAILER.unpack_from(value, len(value) - TRAILER.size)[0]
    return token
