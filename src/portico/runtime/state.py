"""The store of a worker: opened when something in the file first asks for it, and kept over reloads."""

from __future__ import annotations

import asyncio
import hmac
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from portico.config.state import State
from portico.errors import ConfigError
from portico.observe.metrics import STORE_FAILURES
from portico.runtime.shared import Lease
from portico.state.board import Segment, Vital
from portico.state.cluster import ClusterLink, ClusterSpace
from portico.state.link import Address, Link
from portico.state.lmdb import LmdbStore, Watched, open_durable, open_volatile
from portico.state.memory import MemoryStore
from portico.state.places import durable_folder, in_memory, volatile_folder
from portico.state.purges import Purges
from portico.state.redis import SCRIPTS, RedisStore
from portico.state.sentinel import Sentinels
from portico.state.stamps import Stamps
from portico.state.store import Store

_BY_DIGEST: Final = os.urandom(32)
"""What settings are told apart by where they are shared; nobody can guess a password by its digest."""

FAILURES: Final = STORE_FAILURES.name


def private_store(state: State, lease: Lease) -> Store:
    """Return the store of what is no worker: a check. Raises ConfigError as a worker would, where that can be known."""
    if state.store.tls:
        _context(state.ca)
    return lease.share(("state",), MemoryStore)


class StateOf:
    """The store of one configuration, which is opened when something in it first asks for it."""

    def __init__(
        self,
        state: State,
        lease: Lease,
        store: Callable[[State, Lease], Store],
        purges: Callable[[State, Lease], Purges],
    ) -> None:
        self._state = state
        self._lease = lease
        self._store = store
        self._purges = purges
        self._known: Store | None = None
        self.known_purges: Purges | None = None
        """What was purged; None where nothing has asked for it."""

    def store(self) -> Store:
        """Return the store. Raises ConfigError where it cannot be opened."""
        self._known = self._store(self._state, self._lease)
        return self._known

    def report(self) -> dict[str, object] | None:
        """Return how the store is as plain data, or None where nothing has asked for it."""
        if self._known is None:
            return None
        health, path = self._known.health(), self._state.path
        return {
            "store": str(self._state.store),
            "path": path or "",
            "trouble": health.trouble,
            "volatile": None if health.volatile is None else health.volatile._asdict(),
            "durable": None if health.durable is None else health.durable._asdict(),
        }

    def purges(self) -> Purges:
        """Return what was purged of what it keeps. Raises ConfigError, too."""
        self.store()
        self.known_purges = self._purges(self._state, self._lease)
        return self.known_purges


def private_purges(state: State, lease: Lease) -> Purges:
    """Return what was purged where there is no worker: nothing."""
    store = private_store(state, lease)
    return lease.share(("purges",), lambda: Purges(store, Stamps.private(), time.monotonic, time.time))


class WorkersStore:
    """Opens the store that a file names, for a worker."""

    def __init__(
        self, file: str, segment: Segment, tasks: asyncio.TaskGroup, wall: Callable[[], float] = time.time
    ) -> None:
        """`file` is the gateway's: those of the same file share a store that has no other name."""
        path = Path(file)
        # Where a link leads may change, as Kubernetes does it, and so is no part of the name.
        self._file = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - as realpath has it
        self._segment = segment
        self._tasks = tasks
        self._wall = wall

    def __call__(self, state: State, lease: Lease) -> Store:
        """Return the store, leased. Raises ConfigError where it cannot be opened."""
        if state.store.kind == "lmdb":
            return self._of_machine(state, lease)
        return lease.share(("state", _print(state)), lambda: self._redis(state))

    def purges(self, state: State, lease: Lease) -> Purges:
        """Return what was purged of what the store keeps, leased. Raises ConfigError where it cannot be opened."""
        store = self(state, lease)
        name = state.path or self._file
        return lease.share(
            ("purges", name, _print(state)),
            lambda: Purges(store, Stamps.open(in_memory(name)), time.monotonic, self._wall),
        )

    def _of_machine(self, state: State, lease: Lease) -> LmdbStore:
        """Return what the machine has; each part is leased by its folder, which is never opened twice."""
        size, name = state.size, state.path or self._file
        volatile, durable = volatile_folder(name, size), durable_folder(name, state.path)
        return LmdbStore(
            lease.share(
                ("state", volatile),
                lambda: open_volatile(volatile, size, self._wall, self._watched(Vital.STORE_WRITING)),
            ),
            lease.share(
                ("state", durable),
                lambda: open_durable(durable, size, self._wall, self._watched(Vital.STORE_LASTING)),
            ),
        )

    def _watched(self, thread: Vital) -> Watched:
        mark = self._segment.mark
        failures = self._segment.counter(FAILURES)
        return Watched(mark(Vital.STORE_HELD), mark(thread), mark(Vital.STORE_WAIT_MAX), failures)

    def _redis(self, state: State) -> RedisStore:
        url, secret = state.store, _secret(state)
        tls = _context(state.ca) if url.tls else None
        first = url.hosts[0]
        address = Address(first.host, first.port, url.database, url.user, secret, tls)
        failures = self._segment.counter(FAILURES)
        if url.kind == "cluster":
            seeds = [address._replace(host=host.host, port=host.port) for host in url.hosts]
            cluster = ClusterLink(seeds, state.timeout, SCRIPTS, failures)
            return RedisStore(cluster, self._tasks, state.prefix, space=ClusterSpace)
        find = Sentinels(url.hosts, tls, address, url.master).find if url.kind == "sentinel" else address
        link = Link(find, state.timeout, SCRIPTS, failures)
        return RedisStore(link, self._tasks, state.prefix)


def _print(state: State) -> bytes:
    """Return what tells a store from all others."""
    said = repr((state.store, _secret(state), state.ca, state.prefix, state.timeout, state.path, state.size))
    return hmac.digest(_BY_DIGEST, said.encode(), "sha256")


def _secret(state: State) -> str:
    password = state.password or state.store.password
    return "" if password is None else password.get_secret_value()


def _context(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"state: {ca} has no authorities: {error}") from None
