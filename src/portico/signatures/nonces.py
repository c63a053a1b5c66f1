"""The nonces of requests that were taken, so that none of them is taken again."""

from __future__ import annotations

import hashlib
import heapq
import hmac
from typing import Final

from portico.state.store import Space

_FORGOTTEN_AT_ONCE: Final = 64
"""Nonces that one request has forgotten at most, so that no one request has to wait until many are."""


class NoncesFull(Exception):
    """As many nonces are remembered as may be, and none of them can be forgotten yet."""


class Nonces:
    """What one key has used up, each for as long as its signature would be good.

    Only who has the key gets anything in here, so that nobody can fill it for others.
    """

    __slots__ = ("_ends", "_used")

    def __init__(self) -> None:
        self._used: dict[bytes, float] = {}
        self._ends: list[tuple[float, bytes]] = []

    def use(self, nonce: str, until: float, now: float, limit: int) -> bool:
        """Use a nonce up, until then; return False where it was before. Raises NoncesFull at `limit` of them."""
        self._forget(now)
        key = _key_of(nonce)
        if self._used.get(key, now) > now:
            return False
        if len(self._used) >= limit:
            raise NoncesFull
        self._used[key] = until
        heapq.heappush(self._ends, (until, key))
        return True

    def give_back(self, nonce: str) -> None:
        """Take a nonce for unused again."""
        self._used.pop(_key_of(nonce), None)
        if len(self._ends) > 2 * len(self._used) + _FORGOTTEN_AT_ONCE:  # else the same one, given back over and over
            self._ends = [(until, key) for key, until in self._used.items()]
            heapq.heapify(self._ends)

    def _forget(self, now: float) -> None:
        for _ in range(_FORGOTTEN_AT_ONCE):
            if not self._ends or self._ends[0][0] > now:
                return
            until, key = heapq.heappop(self._ends)
            if self._used.get(key) == until:  # it may have been used again since
                del self._used[key]

    def __len__(self) -> int:
        return len(self._used)

    def close(self) -> None:
        """Forget all of them."""
        self._used.clear()
        self._ends.clear()


def _key_of(nonce: str) -> bytes:
    return hashlib.blake2b(nonce.encode(), digest_size=16).digest()  # so that all take as little room


class SharedNonces:
    """What all workers together have used up of one key, in a space of the store.

    Whoever can read the store can guess neither the key nor the nonces.
    """

    def __init__(self, space: Space, key_id: str, material: bytes) -> None:
        """`material` is what the key is made of, and the same for all who share the nonces."""
        self._space = space
        self._key = hmac.digest(material, b"portico nonces " + key_id.encode(), "sha256")

    async def use(self, nonce: str, ttl: float) -> bool:
        """Use a nonce up, for so many seconds; return False where it was before. Raises StoreUnavailable."""
        key = b"nonce " + hashlib.blake2b(nonce.encode(), key=self._key, digest_size=20).digest()
        return (await self._space.claim(key, ttl)).ours
