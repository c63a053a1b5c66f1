"""The store of many machines: a Redis, or a Valkey, that all of them ask.

What is counted is counted inside of it, by a script, and by its clock. How long what is durable lasts is for the server
to say: one that appends to a file keeps it.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Sequence
from struct import Struct
from typing import Any, Final, Protocol

from portico.errors import StoreUnavailable
from portico.state import holders
from portico.state.holders import Held
from portico.state.limits import SCRIPT, Limits, Verdict
from portico.state.link import ServerError, pack
from portico.state.store import HOLDERS, Claim, StoreHealth, checked, key_of

_HEAD: Final = Struct("<dd")
_VALUE: Final = b"v"
_CLAIM: Final = b"c"
_MOST_TAILS: Final = 10_000

_CLAIMED: Final = b"""
local held = redis.call('GET', KEYS[1])
if held then return held end
local token = redis.call('INCR', KEYS[2])
if token == 1 then
  local time = redis.call('TIME')
  token = time[1] * 1000000 + time[2]
  redis.call('SET', KEYS[2], string.format('%.0f', token))
end
redis.call('SET', KEYS[1], 'c' .. string.format('%.0f', token), 'PX', ARGV[1])
return token
"""
"""Claims a key; the first token is the time, so that those of a server that has lost everything are larger, too."""

_SETTLED: Final = b"""
if redis.call('GET', KEYS[1]) ~= 'c' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], 'v' .. ARGV[2], 'PX', ARGV[3])
return 1
"""

_RELEASED: Final = b"""
if redis.call('GET', KEYS[1]) ~= 'c' .. ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""

SCRIPTS: Final = (SCRIPT, holders.SCRIPT, _CLAIMED, _SETTLED, _RELEASED)


def _digest(script: bytes) -> bytes:
    return hashlib.sha1(script, usedforsecurity=False).hexdigest().encode("ascii")


class Way(Protocol):
    """How a Redis is asked."""

    def ask(self, packed: bytes, key: bytes = b"") -> Awaitable[Any]:
        """Ask something of a key."""
        ...

    async def run(self) -> None:
        """Keep the way, until this is cancelled."""
        ...

    @property
    def trouble(self) -> str:
        """Why it cannot be asked; empty where it can."""
        ...


class RedisSpace:
    """One half of what is in a Redis; the other one has keys that begin otherwise."""

    def __init__(self, link: Way, prefix: bytes, wall: Callable[[], float] | None = None) -> None:
        """`wall` is the time of day by which limits are counted, where that is not to be the server's."""
        self._link = link
        self._prefix = prefix
        self._wall = wall
        self._tails: dict[tuple[bytes, ...], tuple[bytes, bytes]] = {}

    def take(self, key: bytes, limits: Limits, cost: int = 1) -> Awaitable[Verdict]:
        """Count by all limits of a key, or by none."""
        return self._count(key, limits, cost, b"0")

    def charge(self, key: bytes, limits: Limits, cost: int) -> Awaitable[Verdict]:
        """Count by all limits of a key, in any case."""
        return self._count(key, limits, cost, b"1")

    def _count(self, key: bytes, limits: Limits, cost: int, charge: bytes) -> Awaitable[Verdict]:
        head, tail = self._tails.get(limits.arguments) or self._around(limits)
        whole = self.prefix_of(key) + key_of(limits.tag, key)
        now = self._now()
        spent = b"%d" % cost
        packed = b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$1\r\n%b\r\n%b" % (
            head, len(whole), whole, len(now), now, len(spent), spent, charge, tail,
        )  # fmt: skip
        return self._verdict(packed, whole, limits, cost)

    async def hold(self, key: bytes, holder: bytes, count: int, wanted: int, most: int, ttl: float) -> Held:
        """Say how many places of a key a holder has, and would like."""
        whole = self.prefix_of(key) + key_of(HOLDERS, key)
        said = holders.arguments(holder, count, wanted, most, ttl)
        granted, total, micros = await self._run(holders.SCRIPT, (whole,), self._now(), *said)
        return Held(granted, total, micros / 1_000_000)

    async def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        kept: bytes | None = await self._ask(key, b"GET")
        return None if kept is None or not kept.startswith(_VALUE) else kept[1:]

    async def put(self, key: bytes, value: bytes, ttl: float) -> None:
        """Keep a value."""
        await self._ask(key, b"SET", _VALUE + checked(value), b"PX", _millis(ttl))

    async def delete(self, key: bytes) -> None:
        """Forget a value, or a claim."""
        await self._ask(key, b"DEL")

    async def claim(self, key: bytes, ttl: float) -> Claim:
        """Claim a key."""
        found = await self._run(_CLAIMED, (self._whole(key), self.prefix_of(key) + b"token"), _millis(ttl))
        if isinstance(found, int):
            return Claim(found)
        return Claim(0, None if found.startswith(_CLAIM) else found[1:])

    async def settle(self, key: bytes, token: int, value: bytes, ttl: float) -> bool:
        """Make a value of a claim."""
        settled = await self._run(_SETTLED, (self._whole(key),), b"%d" % token, checked(value), _millis(ttl))
        return bool(settled)

    async def release(self, key: bytes, token: int) -> bool:
        """Give a claim back."""
        return bool(await self._run(_RELEASED, (self._whole(key),), b"%d" % token))

    def prefix_of(self, key: bytes) -> bytes:
        """Return what the key of a record begins with."""
        return self._prefix

    def _now(self) -> bytes:
        """Return the time that scripts are told; nothing for the server's own."""
        return b"" if self._wall is None else b"%d" % (self._wall() * 1_000_000 // 1)

    def _whole(self, key: bytes) -> bytes:
        return self.prefix_of(key) + key_of(b"v", key)

    def _around(self, limits: Limits) -> tuple[bytes, bytes]:
        """Return what stands in a request around the key, the time and the cost."""
        arguments = limits.arguments
        head = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n1\r\n" % (7 + len(arguments), _digest(SCRIPT))
        tail = b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments)
        if len(self._tails) >= _MOST_TAILS:
            self._tails.clear()
        self._tails[arguments] = head, tail
        return head, tail

    async def _verdict(self, packed: bytes, whole: bytes, limits: Limits, cost: int) -> Verdict:
        try:
            told: bytes = await self._link.ask(packed, whole)
        except ServerError as error:
            told = await self._again(packed, whole, SCRIPT, error)
        fits, now = _HEAD.unpack_from(told)
        return Verdict(limits, fits == 1.0, limits.state(told[_HEAD.size :]), now, cost)

    async def _ask(self, key: bytes, command: bytes, *more: bytes) -> Any:
        whole = self._whole(key)
        try:
            return await self._link.ask(pack((command, whole, *more)), whole)
        except ServerError as error:
            raise StoreUnavailable(f"the store refuses what it was asked: {error}") from None

    async def _run(self, script: bytes, keys: Sequence[bytes], *arguments: bytes) -> Any:
        packed = pack((b"EVALSHA", _digest(script), b"%d" % len(keys), *keys, *arguments))
        try:
            return await self._link.ask(packed, keys[0])
        except ServerError as error:
            return await self._again(packed, keys[0], script, error)

    async def _again(self, packed: bytes, whole: bytes, script: bytes, error: ServerError) -> Any:
        """Ask once more where the server has forgotten the script; nothing was done then."""
        if not str(error).startswith("NOSCRIPT"):
            raise StoreUnavailable(f"the store refuses what it was asked: {error}") from None
        try:
            await self._link.ask(pack((b"SCRIPT", b"LOAD", script)), whole)
            return await self._link.ask(packed, whole)
        except ServerError as another:
            raise StoreUnavailable(f"the store refuses what it was asked: {another}") from None


class RedisStore:
    """Both spaces of a Redis, by one connection."""

    local: Final = False

    def __init__(
        self,
        link: Way,
        tasks: asyncio.TaskGroup,
        prefix: str = "portico",
        wall: Callable[[], float] | None = None,
        space: type[RedisSpace] = RedisSpace,
    ) -> None:
        self.volatile = space(link, prefix.encode() + b":v:", wall)
        self.durable = space(link, prefix.encode() + b":d:", wall)
        self._link = link
        self._task = tasks.create_task(link.run(), name="store")

    def health(self) -> StoreHealth:
        """Return how it is."""
        return StoreHealth(self._link.trouble)

    def close(self) -> None:
        """Let go of the connection."""
        self._task.cancel()


def _millis(ttl: float) -> bytes:
    return b"%d" % max(1, math.ceil(ttl * 1000))
