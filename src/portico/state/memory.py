"""A store of one process: for tests, and for a worker that cannot ask the one it should."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from portico.state import holders
from portico.state.holders import Held
from portico.state.limits import Limits, Verdict
from portico.state.store import HOLDERS, Claim, Filled, StoreHealth, checked, key_of

SIZE: Final = 8 * 1024 * 1024
"""The bytes that a space may take, nearly."""

_EACH: Final = 200
"""What a record takes beside its key and its content, nearly."""


class _Record(NamedTuple):
    expires: float
    token: int
    """Of a claim; 0 for a value, or the record of limits."""
    content: bytes


class MemorySpace:
    """Records of this process. Where there are too many, those go that were written longest ago."""

    def __init__(self, wall: Callable[[], float] = time.time, size: int = SIZE) -> None:
        self._wall = wall
        self._size = size
        self._taken = 0
        self._evicted = 0
        self._records: OrderedDict[bytes, _Record] = OrderedDict()
        self._token = 0

    def take(self, key: bytes, limits: Limits, cost: int = 1) -> Verdict:
        """Count by all limits of a key, or by none."""
        whole, now, state = self._state(key, limits)
        micros = now * 1_000_000 // 1
        fits = limits.take(state, micros, cost)
        if fits and cost:
            self._keep(whole, _Record(now + limits.lives / 1_000_000, 0, limits.record(state)))
        return Verdict(limits, fits, state, micros, cost)

    def hold(self, key: bytes, holder: bytes, count: int, wanted: int, most: int, ttl: float) -> Held:
        """Say how many places of a key a holder has, and would like."""
        whole = key_of(HOLDERS, key)
        found = self._records.get(whole)
        micros = self._wall() * 1_000_000 // 1
        before = b"" if found is None else found.content
        record, held, until = holders.hold(before, holder, count, wanted, most, micros, ttl)
        if record:
            self._keep(whole, _Record(until / 1_000_000, 0, record))
        else:
            self._drop(whole)
        return held

    def charge(self, key: bytes, limits: Limits, cost: int) -> Verdict:
        """Count by all limits of a key, in any case."""
        whole, now, state = self._state(key, limits)
        micros = now * 1_000_000 // 1
        fits = limits.charge(state, micros, cost)
        if cost:
            self._keep(whole, _Record(now + limits.lasts(state) / 1_000_000, 0, limits.record(state)))
        return Verdict(limits, fits, state, micros, cost)

    async def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        found = self._found(key)
        return None if found is None or found.token else found.content

    async def put(self, key: bytes, value: bytes, ttl: float) -> None:
        """Keep a value."""
        self._keep(key_of(b"v", key), _Record(self._wall() + ttl, 0, checked(value)))

    async def delete(self, key: bytes) -> None:
        """Forget a value, or a claim."""
        self._drop(key_of(b"v", key))

    async def claim(self, key: bytes, ttl: float) -> Claim:
        """Claim a key."""
        found = self._found(key)
        if found is not None:
            return Claim(0, None if found.token else found.content)
        self._token += 1
        self._keep(key_of(b"v", key), _Record(self._wall() + ttl, self._token, b""))
        return Claim(self._token)

    async def settle(self, key: bytes, token: int, value: bytes, ttl: float) -> bool:
        """Make a value of a claim."""
        checked(value)
        owned = self._owned(key, token)
        if owned:
            await self.put(key, value, ttl)
        return owned

    async def release(self, key: bytes, token: int) -> bool:
        """Give a claim back."""
        owned = self._owned(key, token)
        if owned:
            await self.delete(key)
        return owned

    def close(self) -> None:
        """Let go of it."""
        self._records.clear()
        self._taken = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def filled(self) -> Filled:
        """How full it is."""
        return Filled(self._taken, self._size, self._evicted)

    def _state(self, key: bytes, limits: Limits) -> tuple[bytes, float, list[float]]:
        """Return what a record is found by, the time, and its state."""
        whole = key_of(limits.tag, key)
        found = self._records.get(whole)
        return whole, self._wall(), limits.state(None if found is None else found.content)

    def _found(self, key: bytes) -> _Record | None:
        found = self._records.get(key_of(b"v", key))
        return None if found is None or found.expires <= self._wall() else found

    def _owned(self, key: bytes, token: int) -> bool:
        found = self._found(key)
        return found is not None and token != 0 and found.token == token

    def _keep(self, key: bytes, record: _Record) -> None:
        self._drop(key)
        self._records[key] = record
        self._taken += _EACH + len(key) + len(record.content)
        while self._taken > self._size and len(self._records) > 1:
            self._evicted += 1
            self._drop(next(iter(self._records)))

    def _drop(self, key: bytes) -> None:
        record = self._records.pop(key, None)
        if record is not None:
            self._taken -= _EACH + len(key) + len(record.content)


class MemoryStore:
    """Both spaces in the memory of this process: nothing here lasts."""

    local: Final = True

    def __init__(self, wall: Callable[[], float] = time.time, size: int = SIZE) -> None:
        self.volatile = MemorySpace(wall, size)
        self.durable = MemorySpace(wall, size)

    def health(self) -> StoreHealth:
        """Return how it is."""
        return StoreHealth("", self.volatile.filled, self.durable.filled)

    def close(self) -> None:
        """Let go of it."""
