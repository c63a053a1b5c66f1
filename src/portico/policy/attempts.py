"""What policies that authenticate keep in mind of those who try, in as little memory as they are given."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, ip_address
from typing import Final, NamedTuple

from portico.errors import StoreUnavailable
from portico.http.message import Client
from portico.policy.verdicts import Trouble
from portico.state.holders import ID, Held
from portico.state.store import Space

_REMEMBERED: Final = 4096
"""Addresses whose network is kept at hand: most requests come from one that has just been here."""


class Recent:
    """When something was so of late; the oldest is forgotten first."""

    __slots__ = ("_most", "_when")

    def __init__(self, most: int) -> None:
        self._most = most
        self._when: dict[bytes, float] = {}

    def note(self, key: bytes, now: float) -> None:
        """Keep in mind that it is so."""
        self._when.pop(key, None)
        while len(self._when) >= self._most:
            del self._when[next(iter(self._when))]
        self._when[key] = now

    def was(self, key: bytes, since: float) -> bool:
        """Return whether it was so, and that not before `since`."""
        return self._when.get(key, -math.inf) >= since


class Failures:
    """Counts failures by whose they are; each count begins anew some time after its first one."""

    __slots__ = ("_counts", "_last_end", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[bytes, tuple[int, float]] = {}
        self._last_end = -math.inf

    def add(self, key: bytes, now: float, within: float) -> None:
        """Count one more. Where there are too many, the one whose last failure is longest ago is forgotten."""
        count, end = self._counts.pop(key, (0, -math.inf))
        if now >= end:
            count, end = 0, now + within
        self._keep(key, count + 1, end)

    def exhaust(self, key: bytes, most: int, end: float) -> None:
        """Count as many as there may be, until then: that there were so many is known from elsewhere."""
        self._counts.pop(key, None)
        self._keep(key, most, end)

    def _keep(self, key: bytes, count: int, end: float) -> None:
        self._last_end = max(self._last_end, end)
        while len(self._counts) >= self._most:
            del self._counts[next(iter(self._counts))]
        self._counts[key] = count, end

    def take_back(self, key: bytes) -> None:
        """Count one less."""
        count, end = self._counts.get(key, (0, 0.0))
        if count > 1:
            self._counts[key] = count - 1, end
        else:
            self._counts.pop(key, None)

    def left(self, key: bytes, most: int, now: float) -> float:
        """Return for how many seconds there may be no further one."""
        count, end = self._counts.get(key, (0, 0.0))
        return max(0.0, end - now) if count >= most else 0.0

    def none_at(self, now: float) -> bool:
        """Return whether nothing counts any more."""
        return now >= self._last_end

    def __len__(self) -> int:
        return len(self._counts)


class Begun(NamedTuple):
    """What came of an attempt to which all workers have a say."""

    ticket: bytes
    """What it is taken back by."""
    refused: int | None = None
    """Which of its keys has had too many; then none has counted it."""
    wait: float = 0.0
    """The seconds after which there may be another one of that key."""


class SharedFailures:
    """Counts failures of all workers together, in a space of the store: of each key so many in any such time.

    Each attempt counts from its beginning on, and is taken back where it was none: many at once are not one. Where the
    store does not answer, it counts nothing, and the log is told.
    """

    def __init__(self, space: Space, trouble: Trouble) -> None:
        self._space = space
        self._trouble = trouble

    async def begin(self, keys: Sequence[bytes], most: int, within: float) -> Begun:
        """Count an attempt of all keys, or of none where one of them has had as many as there may be."""
        ticket = os.urandom(ID)
        for number, key in enumerate(keys):
            held = await self._hold(key, ticket, 1, most, within)
            if held is not None and not held.granted:
                await self.take_back(keys[:number], ticket, within)
                return Begun(ticket, number, held.wait)
        return Begun(ticket)

    async def take_back(self, keys: Sequence[bytes], ticket: bytes, within: float) -> None:
        """Have an attempt be none."""
        for key in keys:
            await self._hold(key, ticket, 0, 0, within)

    async def note(self, key: bytes, ttl: float) -> None:
        """Keep in mind that something is so."""
        with suppress(StoreUnavailable):
            await self._space.put(_stored(key, 0), b"", ttl)

    async def was(self, key: bytes) -> bool:
        """Return whether it was so."""
        try:
            return await self._space.get(_stored(key, 0)) is not None
        except StoreUnavailable:
            return False

    async def _hold(self, key: bytes, ticket: bytes, wanted: int, most: int, within: float) -> Held | None:
        """Count one or none; each is a holder of its own, which ends by itself."""
        try:
            held = self._space.hold(_stored(key, within), ticket, 0, wanted, most, within)
            return held if isinstance(held, Held) else await held
        except StoreUnavailable as error:
            self._trouble.tell(str(error))
            return None


def _stored(key: bytes, within: float) -> bytes:
    """Return a key as the store has it; counts of another time are others."""
    return b"attempts %d " % (within * 1000) + hashlib.blake2b(key, digest_size=20).digest()


def origin_of(client: Client | None) -> bytes:
    """Return what an address counts as: in IPv6 the network of 64 bits, of which everybody has at least one for their
    own. It is empty where there is none, as for a Unix socket."""
    return b"" if client is None or not client.address else _network_of(client.address)


@lru_cache(_REMEMBERED)
def _network_of(text: str) -> bytes:
    address = ip_address(text)
    address = getattr(address, "ipv4_mapped", None) or address
    return address.packed if isinstance(address, IPv4Address) else address.packed[:8]
