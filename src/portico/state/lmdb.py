"""The store of one machine: files that all its workers have in their memory (LMDB), exact between them.

What is volatile is in memory that the machine shares. Counting takes its lock on the loop, which others have for
microseconds; that is the one wait that a loop may do. Everything else that is written goes to a thread. What is durable
is written by a thread alone, together with whatever else waits, and is on the disk before anyone hears of it.

A process that dies within a transaction leaves nothing of it, and its lock to the next. One that is stopped keeps the
lock: it has written on the board since when it has it, and the supervisor ends it.

An environment is opened once in a process, after that was started: it does not outlive a fork.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

import lmdb

from portico.errors import ConfigError, StoreUnavailable
from portico.state import holders
from portico.state.board import WAITS, Counter, Mark
from portico.state.holders import Held
from portico.state.limits import Limits, Verdict
from portico.state.store import HOLDERS, Claim, Filled, StoreHealth, checked, key_of
from portico.state.tidy import EXPIRES, META, TRAILER, VALUES, Tidier
from portico.state.writer import Txn, Writer

_TOKEN: Final = META + b"token"
_MOST_PROCESSES: Final = 1024
_DURABLE_MAP: Final = 64 * 1024 * 1024 * 1024
"""The map of what has to last, of which only what is in use takes room. Processes that have it open at once must agree
on its size; they keep to the one that they were told by what they take away."""
_NEW: Final = 64
"""After how many new records of limits it is looked whether there is room for more."""


class Watched(NamedTuple):
    """What the board is told of a space; of one that is durable no loop has the lock."""

    loop: Mark
    thread: Mark
    waited: Mark
    failures: Counter

    @classmethod
    def by_nobody(cls) -> Watched:
        """Return what tells nobody."""
        return cls(Mark.private(), Mark.private(), Mark.private(), Counter.private())


class LmdbSpace:
    """Values in an environment; the one that is durable has limits in it that are taken by its thread."""

    def __init__(
        self, name: str, env: lmdb.Environment, size: int, wall: Callable[[], float], watched: Watched
    ) -> None:
        self._env = env
        self._wall = wall
        self._watched = watched
        self._tidier = Tidier(env, size, wall)
        self._writer = Writer(name, env, watched.thread, watched.failures, self._tidier, size // 16)
        self._writer.start()

    @property
    def evicted(self) -> int:
        """Records that had to go before they had expired."""
        return self._tidier.evicted

    @property
    def filled(self) -> Filled:
        """How full it is."""
        return self._tidier.filled

    def take(self, key: bytes, limits: Limits, cost: int = 1) -> Verdict | Awaitable[Verdict]:
        """Count by all limits of a key, or by none."""
        whole = key_of(limits.tag, key)
        return self._writer.do(lambda txn: _take(txn, whole, limits, cost, self._micros()))

    def hold(self, key: bytes, holder: bytes, count: int, wanted: int, most: int, ttl: float) -> Held | Awaitable[Held]:
        """Say how many places of a key a holder has, and would like."""
        whole = key_of(HOLDERS, key)

        def job(txn: Txn) -> Held:
            held, record = _hold(txn.get(whole), holder, count, wanted, most, self._micros(), ttl)
            if record:
                txn.put(whole, record)
            else:
                txn.delete(whole)
            return held

        return self._writer.do(job)

    def charge(self, key: bytes, limits: Limits, cost: int) -> Verdict | Awaitable[Verdict]:
        """Count by all limits of a key, in any case."""
        whole = key_of(limits.tag, key)
        return self._writer.do(lambda txn: _charge(txn, whole, limits, cost, self._micros()))

    async def get(self, key: bytes) -> bytes | None:
        """Return a value. A look waits for nobody: it sees what was written last."""
        try:
            with self._env.begin() as txn:
                value, token = _read(txn, key_of(VALUES, key), self._micros())
        except lmdb.Error as error:
            raise self._failed(f"the store cannot be read: {error}") from None
        return None if token else value

    async def put(self, key: bytes, value: bytes, ttl: float) -> None:
        """Keep a value."""
        whole, kept = key_of(VALUES, key), checked(value) + self._trailer(0, ttl)
        await self._writer.do(lambda txn: txn.put(whole, kept), len(kept))

    async def delete(self, key: bytes) -> None:
        """Forget a value, or a claim."""
        whole = key_of(VALUES, key)
        await self._writer.do(lambda txn: txn.delete(whole))

    async def claim(self, key: bytes, ttl: float) -> Claim:
        """Claim a key."""
        whole = key_of(VALUES, key)

        def job(txn: Txn) -> Claim:
            value, token = _read(txn, whole, self._micros())
            if value is not None:
                return Claim(0, None if token else value)
            mine = _next_token(txn, int(self._micros()))
            txn.put(whole, self._trailer(mine, ttl))
            return Claim(mine)

        return await self._writer.do(job)

    async def settle(self, key: bytes, token: int, value: bytes, ttl: float) -> bool:
        """Make a value of a claim."""
        whole, kept = key_of(VALUES, key), checked(value) + self._trailer(0, ttl)

        def job(txn: Txn) -> bool:
            return self._owned(txn, whole, token) and txn.put(whole, kept)

        return await self._writer.do(job, len(kept))

    async def release(self, key: bytes, token: int) -> bool:
        """Give a claim back."""
        whole = key_of(VALUES, key)
        return await self._writer.do(lambda txn: self._owned(txn, whole, token) and txn.delete(whole))

    def close(self) -> None:
        """Write what is left, and let go of the files; not of those that the thread still uses."""
        if self._writer.close():
            self._env.close()

    def _owned(self, txn: Txn, whole: bytes, token: int) -> bool:
        value, held = _read(txn, whole, self._micros())
        return value is not None and token != 0 and held == token

    def _failed(self, why: str) -> StoreUnavailable:
        self._watched.failures.add()
        return StoreUnavailable(why)

    def _trailer(self, token: int, ttl: float) -> bytes:
        return TRAILER.pack(token, self._micros() + ttl * 1_000_000)

    def _micros(self) -> float:
        return self._wall() * 1_000_000 // 1


class VolatileSpace(LmdbSpace):
    """Limits are counted at once, on the loop."""

    def __init__(
        self, name: str, env: lmdb.Environment, size: int, wall: Callable[[], float], watched: Watched
    ) -> None:
        super().__init__(name, env, size, wall, watched)
        self._mark = watched.loop
        self._waited = watched.waited
        self._longest = 0
        self._new = 0
        self._crowded = False
        self.uncounted = 0
        """Requests that no limit has counted, as there was no room for their records."""

    def take(self, key: bytes, limits: Limits, cost: int = 1) -> Verdict:
        """Count by all limits of a key, or by none."""
        return self._count(key, limits, cost, charge=False)

    def charge(self, key: bytes, limits: Limits, cost: int) -> Verdict:
        """Count by all limits of a key, in any case."""
        return self._count(key, limits, cost, charge=True)

    def _count(self, key: bytes, limits: Limits, cost: int, *, charge: bool) -> Verdict:
        whole = key_of(limits.tag, key)
        now = self._wall() * 1_000_000 // 1
        txn = self._begin()
        try:
            record = txn.get(whole)
            state = limits.state(record)
            fits = limits.charge(state, now, cost) if charge else limits.take(state, now, cost)
            if cost and (fits or charge):
                lives = limits.lasts(state) if charge else limits.lives
                self._commit(txn, whole, limits.record_until(state, now + lives), record is None)
            else:
                txn.abort()
        except lmdb.Error as error:
            txn.abort()
            raise self._failed(f"the store cannot be written: {error}") from None
        except BaseException:  # a mistake in limits of somebody's own: all others wait for the lock
            txn.abort()
            raise
        finally:
            self._mark.write(0)
        return Verdict(limits, fits, state, now, cost)

    def hold(self, key: bytes, holder: bytes, count: int, wanted: int, most: int, ttl: float) -> Held:
        """Say how many places of a key a holder has, and would like."""
        whole = key_of(HOLDERS, key)
        now = self._micros()
        txn = self._begin()
        try:
            before = txn.get(whole)
            held, record = _hold(before, holder, count, wanted, most, now, ttl)
            if record or before is not None:
                self._commit(txn, whole, record, before is None)
            else:
                txn.abort()
        except lmdb.Error as error:
            txn.abort()
            raise self._failed(f"the store cannot be written: {error}") from None
        except BaseException:  # as in `take`
            txn.abort()
            raise
        finally:
            self._mark.write(0)
        return held

    def _begin(self) -> Txn:
        """Return a transaction once the loop has the lock, with a mark on the board that is for the caller to end."""
        asked = time.monotonic_ns() | WAITS
        self._mark.write(asked)
        try:
            txn = self._env.begin(None, None, True)
        except lmdb.Error as error:
            self._mark.write(0)
            raise self._failed(f"the store cannot be written: {error}") from None
        held = time.monotonic_ns() & ~WAITS
        self._mark.write(held)
        if held - asked > self._longest:
            self._longest = held - asked
            self._waited.write(self._longest)
        return txn

    def _commit(self, txn: Txn, whole: bytes, record: bytes, new: bool) -> None:
        """Write a record, or take it away where it is empty; where there is no room, the request is not counted, but no
        request fails for that."""
        if new:
            self._new += 1
            if self._crowded or self._new % _NEW == 0:
                self._look_for_room()
            if self._crowded:
                txn.abort()
                self.uncounted += 1
                return
        try:
            if record:
                txn.put(whole, record)
            else:
                txn.delete(whole)
            txn.commit()
        except lmdb.MapFullError:
            txn.abort()
            self.uncounted += 1
            self._writer.tidy_soon()

    def _look_for_room(self) -> None:
        """Find out whether there is any for what is new; by far most that is written is not."""
        self._crowded = self._tidier.crowded
        if self._crowded or self._tidier.full:
            self._writer.tidy_soon()


def open_volatile(
    folder: Path, size: int, wall: Callable[[], float] = time.time, watched: Watched | None = None
) -> VolatileSpace:
    """Open what may be made anew. Raises ConfigError where that cannot be done."""
    return VolatileSpace("store", _open(folder, size, lasts=False), size, wall, watched or Watched.by_nobody())


def open_durable(
    folder: Path, size: int, wall: Callable[[], float] = time.time, watched: Watched | None = None
) -> LmdbSpace:
    """Open what has to last. Raises ConfigError where that cannot be done."""
    return LmdbSpace("store, lasting", _open(folder, size, lasts=True), size, wall, watched or Watched.by_nobody())


class LmdbStore(NamedTuple):
    """The store of one machine."""

    volatile: VolatileSpace
    durable: LmdbSpace

    @property
    def local(self) -> bool:
        """Whether only this machine has it."""
        return True

    def health(self) -> StoreHealth:
        """Return how it is."""
        try:
            return StoreHealth("", self.volatile.filled, self.durable.filled)
        except lmdb.Error as error:
            return StoreHealth(f"the store cannot be read: {error}")

    def close(self) -> None:
        """Let go of it."""
        self.volatile.close()
        self.durable.close()


def _open(folder: Path, size: int, *, lasts: bool) -> lmdb.Environment:
    try:
        env = lmdb.open(
            str(folder),
            map_size=_DURABLE_MAP if lasts else size,
            mode=0o600,
            max_readers=_MOST_PROCESSES,
            sync=lasts,
            metasync=lasts,
            writemap=not lasts,
            map_async=not lasts,
            meminit=lasts,  # else what the memory had before, such as a secret, would come to the disk
            readahead=False,
        )
        if not lasts:
            _reserve(folder / "data.mdb", size)
    except (lmdb.Error, OSError) as error:
        raise ConfigError(f"the state in {folder} cannot be opened: {error}") from None
    return env


def _reserve(file: Path, size: int) -> None:
    """Have the whole map there from the beginning: where a page cannot be had later, the process would be killed."""
    if not hasattr(os, "posix_fallocate"):
        return
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def _take(txn: Txn, whole: bytes, limits: Limits, cost: int, now: float) -> Verdict:
    state = limits.state(txn.get(whole))
    fits = limits.take(state, now, cost)
    if fits and cost:
        txn.put(whole, limits.record_until(state, now + limits.lives))
    return Verdict(limits, fits, state, now, cost)


def _hold(
    record: bytes | None, holder: bytes, count: int, wanted: int, most: int, now: float, ttl: float
) -> tuple[Held, bytes]:
    """Return what came of a word to a key, and the record that is to be written; none where nobody holds anything."""
    before = b"" if record is None else record[: -EXPIRES.size]
    after, held, until = holders.hold(before, holder, count, wanted, most, now, ttl)
    return held, after + EXPIRES.pack(until) if after else b""


def _charge(txn: Txn, whole: bytes, limits: Limits, cost: int, now: float) -> Verdict:
    state = limits.state(txn.get(whole))
    fits = limits.charge(state, now, cost)
    if cost:
        txn.put(whole, limits.record_until(state, now + limits.lasts(state)))
    return Verdict(limits, fits, state, now, cost)


def _read(txn: Txn, whole: bytes, now: float) -> tuple[bytes | None, int]:
    """Return a value, and the token of its claim or 0; None where there is none, or it has expired."""
    kept = txn.get(whole)
    if kept is None:
        return None, 0
    token, expires = TRAILER.unpack_from(kept, len(kept) - TRAILER.size)
    if expires <= now:
        return None, 0
    return kept[: -TRAILER.size], token


def _next_token(txn: Txn, first: int) -> int:
    """Return a token that is larger than all before it; `first` is larger than those of a store that was lost."""
    held = txn.get(_TOKEN)
    token = first if held is None else 1 + int.from_bytes(held, "big")
    txn.put(_TOKEN, token.to_bytes(8, "big"))
    return token
