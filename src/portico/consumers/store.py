"""The seam between look-ups and whatever keeps consumers: an SQLite file today, a server of PostgreSQL another day.

A store hands out readers, for the threads of a worker that look consumers up, and a watch, by which the agent finds out
that anything has changed. Both may wait, so neither is ever called on a loop; a reader and a watch are each used by one
thread at a time. Whatever keeps a store from answering is a StoreFailed, and the next call tries anew.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from portico.config.consumers import Consumer, Credential
from portico.errors import PorticoError


class StoreFailed(PorticoError):
    """A store cannot be asked, or what it has makes no sense; the message says why, and has no secret."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


class Reader(Protocol):
    """Looks consumers up."""

    @property
    def decoy(self) -> str:
        """The hash of some password in the store; empty where it has none, or was not asked yet."""
        ...

    def by_key(self, digest: bytes) -> Credential | None:
        """Return whose key has this digest, also where it has expired."""
        ...

    def by_name(self, name: str) -> Consumer | None:
        """Return the consumer of a name."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Watch(Protocol):
    """Tells that what is in a store may be other than it was."""

    def changed(self) -> bool:
        """Return whether anything may have changed since the last call that returned; the first one returns True."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Store(Protocol):
    """Where consumers are kept."""

    def reader(self) -> Reader:
        """Return a reader; the store is asked when that is."""
        ...

    def watch(self) -> Watch:
        """Return a watch; the store is asked when that is."""
        ...


def number_of(location: str) -> int:
    """Return the number by which the agent and the workers know that they mean the same store."""
    return int.from_bytes(hashlib.blake2b(location.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")
