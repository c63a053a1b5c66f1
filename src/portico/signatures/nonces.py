"""The nonces of requests that were taken, so that none of them is taken again."""

from __future__ import annotations

import hashlib
import heapq


class NoncesFull(Exception):
    """As many nonces are remembered as may be, and none of them can be forgotten yet."""


class Nonces:
    """What one key has used up, each for as long as its signature would be good.

    Only who has the key gets anything in here, so that nobody can fill it for others.
    """

    __slots__ = ("_ends", "_used")

    def __init__(self) -> None:
        self._used: set[bytes] = set()
        self._ends: list[tuple[float, bytes]] = []

    def use(self, nonce: str, until: float, now: float, limit: int) -> bool:
        """Use a nonce up, until then; return False where it was before. Raises NoncesFull at `limit` of them."""
        while self._ends and self._ends[0][0] <= now:
            self._used.discard(heapq.heappop(self._ends)[1])
        key = hashlib.blake2b(nonce.encode(), digest_size=16).digest()  # so that all take as little room
        if key in self._used:
            return False
        if len(self._used) >= limit:
            raise NoncesFull
        self._used.add(key)
        heapq.heappush(self._ends, (until, key))
        return True

    def __len__(self) -> int:
        return len(self._used)

    def close(self) -> None:
        """Forget all of them."""
        self._used.clear()
        self._ends.clear()
