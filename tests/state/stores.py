"""The stores that the contract is tested with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from portico.state.cluster import ClusterLink, ClusterSpace
from portico.state.holders import Held
from portico.state.limits import Limits, Verdict
from portico.state.link import Address, Link
from portico.state.lmdb import LmdbStore, open_durable, open_volatile
from portico.state.memory import MemoryStore
from portico.state.redis import SCRIPTS, RedisStore
from portico.state.store import Space, Store
from tests.harness.loop import DEADLINE
from tests.harness.valkey import Cluster, ValkeyServer

SIZE = 16 * 1024 * 1024


class Wall:
    """A time of day that a test has pass."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def folders(folder: Path) -> tuple[Path, Path]:
    volatile, durable = folder / "volatile", folder / "durable"
    for each in (volatile, durable):
        each.mkdir(exist_ok=True)
    return volatile, durable


def lmdb_store(folder: Path, wall: Callable[[], float] = time.time, size: int = SIZE) -> LmdbStore:
    volatile, durable = folders(folder)
    return LmdbStore(open_volatile(volatile, size, wall), open_durable(durable, size, wall))


async def take(space: Space, key: bytes, limits: Limits, cost: int = 1) -> Verdict:
    """Ask a space at once, or when it knows."""
    verdict = space.take(key, limits, cost)
    return verdict if isinstance(verdict, Verdict) else await verdict


async def hold(space: Space, key: bytes, holder: bytes, count: int, wanted: int, most: int, ttl: float = 60.0) -> Held:
    """Say something to a space, and return what came of it."""
    held = space.hold(key, holder, count, wanted, most, ttl)
    return held if isinstance(held, Held) else await held


async def charge(space: Space, key: bytes, limits: Limits, cost: int) -> Verdict:
    """Charge a key at once, or when it is known."""
    verdict = space.charge(key, limits, cost)
    return verdict if isinstance(verdict, Verdict) else await verdict


class Engine:
    """One of the stores."""

    def __init__(self, store: Store, wall: Wall | None = None) -> None:
        """`wall` is its time of day, where that is the test's."""
        self.store = store
        self._wall = wall
        self.ttl = 60.0 if wall is not None else 0.05
        """So long what is to expire in a test lives."""

    @property
    def spaces(self) -> tuple[Space, Space]:
        return self.store.volatile, self.store.durable

    async def expired(self, gone: Callable[[], Awaitable[bool]]) -> bool:
        """Have the time to live pass, and tell whether something is gone by then."""
        if self._wall is not None:
            assert not await gone()
            self._wall.now += self.ttl
            return await gone()
        end = time.monotonic() + DEADLINE
        while not await gone():
            if time.monotonic() > end:
                return False
        return True


@asynccontextmanager
async def in_memory(folder: Path) -> AsyncIterator[Engine]:
    wall = Wall()
    store = MemoryStore(wall)
    yield Engine(store, wall)
    store.close()


@asynccontextmanager
async def in_lmdb(folder: Path) -> AsyncIterator[Engine]:
    wall = Wall()
    store = lmdb_store(folder, wall)
    try:
        yield Engine(store, wall)
    finally:
        store.close()


@asynccontextmanager
async def in_valkey(folder: Path) -> AsyncIterator[Engine]:
    with ValkeyServer() as server:
        async with asyncio.TaskGroup() as tasks:
            store = valkey_store(server, tasks)
            try:
                yield Engine(store)
            finally:
                store.close()


def valkey_store(
    server: ValkeyServer, tasks: asyncio.TaskGroup, wall: Callable[[], float] | None = None, **more: Any
) -> RedisStore:
    """Return a store that asks a server; a machine may be slow, so it is given time."""
    address = Address("127.0.0.1", server.port, **more.pop("address", {}))
    return RedisStore(Link(address, more.pop("timeout", DEADLINE), SCRIPTS, **more), tasks, wall=wall)


@asynccontextmanager
async def in_cluster(cluster: Cluster, folder: Path) -> AsyncIterator[Engine]:
    cluster.flush()
    async with asyncio.TaskGroup() as tasks:
        store = cluster_store(cluster, tasks)
        try:
            yield Engine(store)
        finally:
            store.close()


def cluster_store(cluster: Cluster, tasks: asyncio.TaskGroup, timeout: float = DEADLINE) -> RedisStore:
    seeds = [Address("127.0.0.1", 1), Address("127.0.0.1", cluster.servers[1].port)]
    return RedisStore(ClusterLink(seeds, timeout, SCRIPTS), tasks, space=ClusterSpace)


ENGINES = {"memory": in_memory, "lmdb": in_lmdb, "valkey": in_valkey}
