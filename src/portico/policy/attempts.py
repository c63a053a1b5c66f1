"""What policies that authenticate keep in mind of those who try, in as little memory as they are given."""

from __future__ import annotations

import math
from functools import lru_cache
from ipaddress import IPv4Address, ip_address
from typing import Final

from portico.http.message import Client

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
            self._last_end = max(self._last_end, end)
            while len(self._counts) >= self._most:
                del self._counts[next(iter(self._counts))]
        self._counts[key] = count + 1, end

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


def origin_of(client: Client | None) -> bytes:
    """Return what an address counts as: in IPv6 the network of 64 bits, of which everybody has at least one for their
    own. It is empty where there is none, as for a Unix socket."""
    return b"" if client is None or not client.address else _network_of(client.address)


@lru_cache(_REMEMBERED)
def _network_of(text: str) -> bytes:
    address = ip_address(text)
    address = getattr(address, "ipv4_mapped", None) or address
    return address.packed if isinstance(address, IPv4Address) else address.packed[:8]
