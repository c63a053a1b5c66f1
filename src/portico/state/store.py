"""The store: what outlives requests and is the same for all workers, behind one interface whatever keeps it.

A store has two spaces. What is `volatile` may be lost at any moment and made anew: counters, cached answers. What is
`durable` has to last: quotas, records of requests that must not be carried out twice. The same key in both is not the
same record, nor is that of a value the same as that of limits.

Whatever it is asked, it answers within a bounded time, or raises StoreUnavailable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from typing import Final, NamedTuple, Protocol

from portico.state.holders import Held
from portico.state.limits import Limits, Verdict

LONGEST_KEY: Final = 128
"""The most bytes of a key that are kept as they are; the rest of a longer one is a digest."""

HOLDERS: Final = b"h"
"""What the keys of records of holders begin with, as engines have them; those of values begin with `v`, and those of
limits with their tag, which begins with `l`."""

LARGEST_VALUE: Final = 1024 * 1024
"""The most bytes of a value; for a larger one ValueError is raised."""

WAITING: Final = 4096
"""The most requests to a store that a worker has under way. Beyond it they fail at once."""


class Claim(NamedTuple):
    """What came of a claim to a key: it is ours, or somebody else's, or there is a value."""

    token: int = 0
    """What tells this claim from all others; each one to a key has a larger token than those before it. 0 where the key
    was not to be had."""
    value: bytes | None = None
    """The value that is there already."""

    @property
    def ours(self) -> bool:
        """Whether nobody else had it."""
        return self.token != 0


class Space(Protocol):
    """One half of a store. Keys are any bytes; times to live are seconds."""

    def take(self, key: bytes, limits: Limits, cost: int = 1) -> Verdict | Awaitable[Verdict]:
        """Count `cost` by all limits of a key, or by none of them where one has no room for it; a cost of 0 only looks.

        Where it is known at once, there is nothing to wait for.
        """
        ...

    def hold(self, key: bytes, holder: bytes, count: int, wanted: int, most: int, ttl: float) -> Held | Awaitable[Held]:
        """Say that of the places of a key `holder`, which is of `ID` bytes, has `count`, and would like so many more
        where no more than `most` are taken then; it is given as many of these as there are. Its word holds good for
        `ttl`, which is the same for all holders of the key. A count of 0 gives all back.

        Where it is known at once, there is nothing to wait for.
        """
        ...

    def charge(self, key: bytes, limits: Limits, cost: int) -> Verdict | Awaitable[Verdict]:
        """Count `cost` by all limits of a key, whether they have room for it or not: it has been used already.

        What is beyond a limit comes back as everything does, and nothing is allowed until then. A negative cost gives
        back what was taken and has not been used.
        """
        ...

    async def get(self, key: bytes) -> bytes | None:
        """Return a value, or None where there is none, or a claim."""
        ...

    async def put(self, key: bytes, value: bytes, ttl: float) -> None:
        """Keep a value, whatever was there before."""
        ...

    async def delete(self, key: bytes) -> None:
        """Forget a value, or a claim."""
        ...

    async def claim(self, key: bytes, ttl: float) -> Claim:
        """Claim a key that nobody has, for so long at most; its owner makes a value of it, or gives it back."""
        ...

    async def settle(self, key: bytes, token: int, value: bytes, ttl: float) -> bool:
        """Make a value of a claim; False where it is not the owner's any more, and nothing has changed."""
        ...

    async def release(self, key: bytes, token: int) -> bool:
        """Give a claim back; False where it is not the owner's any more, and nothing has changed."""
        ...


class Filled(NamedTuple):
    """How full a space is."""

    used: int
    """Bytes that are in use."""
    size: int
    """Bytes that may be."""
    evicted: int
    """Records that this process has taken away before they had expired."""


class StoreHealth(NamedTuple):
    """How a store is, as this process sees it."""

    trouble: str = ""
    """Why it cannot be asked; empty where it can."""
    volatile: Filled | None = None
    """How full it is; None where only the store itself knows."""
    durable: Filled | None = None


class Store(Protocol):
    """What `env.store` is."""

    @property
    def local(self) -> bool:
        """Whether only this machine has it."""
        ...

    @property
    def volatile(self) -> Space:
        """What may be made anew."""
        ...

    @property
    def durable(self) -> Space:
        """What has to last."""
        ...

    def health(self) -> StoreHealth:
        """Return how it is, without asking it."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def key_of(kind: bytes, key: bytes) -> bytes:
    """Return the key of a record as engines have it: of bounded length, and told from those of other kinds."""
    if len(key) <= LONGEST_KEY:
        return kind + key
    digest = hashlib.blake2b(key, digest_size=32).digest()
    return kind + key[: LONGEST_KEY - 31] + digest  # longer by one than any that is kept as it is


def checked(value: bytes) -> bytes:
    """Return a value that is not too large."""
    if len(value) > LARGEST_VALUE:
        raise ValueError(f"a value has {LARGEST_VALUE} bytes at most, not {len(value)}")
    return value
