"""A Redis that is a cluster: each key has its server, and may move to another one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from binascii import crc32, crc_hqx
from collections.abc import Iterator, Sequence
from typing import Any, Final

import hiredis

from portico.errors import StoreUnavailable
from portico.state.board import Counter
from portico.state.link import Address, Link, ServerError, ask_once, pack
from portico.state.redis import RedisSpace

logger = logging.getLogger("portico.state")

SLOTS: Final = 16384

MOVES: Final = 3
"""How often one request follows a key that has moved."""

TIMEOUT: Final = 1.0
"""Seconds that one server may take to say who has which keys."""

FRESH: Final = 30.0
"""Seconds after which they are asked again in any case."""

PAUSE: Final = 0.2
"""Seconds between two such questions, at least."""

_TAGS: Final = 1024


def slot_of(key: bytes) -> int:
    """Return the slot of a key that begins with its tag, or has none."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class ClusterLink:
    """The ways to all servers of a cluster."""

    def __init__(
        self, seeds: Sequence[Address], timeout: float, scripts: Sequence[bytes], failures: Counter | None = None
    ) -> None:
        """`seeds` are some of the servers; they know of the others."""
        self._seeds = tuple(seeds)
        self._timeout = timeout
        self._scripts = scripts
        self._failures = failures or Counter.private()
        self._links: dict[tuple[str, int], tuple[Link, asyncio.Task[None]]] = {}
        self._slots: list[Link | None] = [None] * SLOTS
        self._wanted = asyncio.Event()
        """Set while the servers are to be asked who has which keys."""
        self._looked = asyncio.Event()
        """Set once they were asked."""
        self._found = False
        """Whether they have ever said it."""
        self._tasks: asyncio.TaskGroup | None = None
        self._told = False
        self._trouble = "no server was asked yet"

    @property
    def trouble(self) -> str:
        """Why it, or one of its servers, cannot be asked; empty where it can."""
        return self._trouble or next((link.trouble for link, _ in self._links.values() if link.trouble), "")

    async def ask(self, packed: bytes, key: bytes = b"") -> Any:
        """Ask the server that has a key."""
        slot = slot_of(key)
        if not self._found:
            await self._wait_for_servers()
        link = self._slots[slot]
        try:
            for _ in range(MOVES):
                if link is None:
                    break
                try:
                    return await link.ask(packed)
                except ServerError as error:
                    kind, *where = str(error).split()
                    if kind not in ("MOVED", "ASK") or len(where) != 2:
                        raise
                    link = self._link_to(*_split(where[1], self._seeds[0].host))
                    if kind == "MOVED":
                        self._slots[slot] = link
                        self._wanted.set()
                    else:
                        link.ask(pack((b"ASKING",))).add_done_callback(_heard)
        except StoreUnavailable:
            self._wanted.set()  # another server may have its keys by now
            raise
        self._wanted.set()
        self._failures.add()
        raise StoreUnavailable("no server of the cluster has the key")

    async def run(self) -> None:
        """Keep the ways, until this is cancelled."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                while True:
                    self._wanted.clear()
                    await self._look()
                    self._looked.set()
                    await asyncio.sleep(PAUSE)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(FRESH):
                            await self._wanted.wait()
        finally:
            self._tasks = None

    async def _wait_for_servers(self) -> None:
        """Wait until the servers were asked who has which keys; raise StoreUnavailable where none has said it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._looked.wait()
        if not self._found:
            self._failures.add()
            raise StoreUnavailable("no server of the cluster can be reached")

    async def _look(self) -> None:
        """Ask one server after the other who has which keys, until one knows."""
        why: object = ""
        known = [self._seeds[0]._replace(host=host, port=port) for host, port in self._links]
        for address in dict.fromkeys((*known, *self._seeds)):
            try:
                async with asyncio.timeout(TIMEOUT):
                    answer = await ask_once(address, (b"CLUSTER", b"SLOTS"))
                self._take(list(_ranges(answer, address.host)))
            except TimeoutError:
                why = f"{address} does not answer"
            except (OSError, ValueError, TypeError, LookupError, ServerError, hiredis.HiredisError) as error:
                why = f"{address}: {error}"
            else:
                self._told = False
                self._found = True
                self._trouble = ""
                return
        self._wanted.set()
        self._trouble = f"no server of the cluster says who has which keys: {why}"
        if not self._told:
            self._told = True
            logger.error("the store: %s", self._trouble)

    def _take(self, ranges: Sequence[tuple[int, int, str, int]]) -> None:
        slots: list[Link | None] = [None] * SLOTS
        for first, last, host, port in ranges:
            slots[first : last + 1] = [self._link_to(host, port)] * (last + 1 - first)
        if len(slots) != SLOTS:
            raise ValueError("it has other slots than there are")
        self._slots = slots
        wanted = {(host, port) for _, _, host, port in ranges}
        for gone in [place for place in self._links if place not in wanted]:
            self._links.pop(gone)[1].cancel()

    def _link_to(self, host: str, port: int) -> Link:
        known = self._links.get((host, port))
        if known is not None:
            return known[0]
        if self._tasks is None:
            raise StoreUnavailable("the store is closed")
        address = self._seeds[0]._replace(host=host, port=port)
        link = Link(address, self._timeout, self._scripts, self._failures)
        self._links[host, port] = link, self._tasks.create_task(link.run(), name="store")
        return link


def _heard(future: asyncio.Future[Any]) -> None:
    """Look at what came of something that nobody waits for."""
    if not future.cancelled():
        future.exception()


def _ranges(answer: Any, asked: str) -> Iterator[tuple[int, int, str, int]]:
    """Iterate over first and last slot, host and port; a server that does not know its own name is where we asked."""
    for first, last, (host, port, *_), *_ in answer:
        yield int(first), int(last), host.decode() if host else asked, int(port)


def _split(where: str, asked: str) -> tuple[str, int]:
    host, _, port = where.rpartition(":")
    return host.strip("[]") or asked, int(port)


class ClusterSpace(RedisSpace):
    """One half of what is in a cluster: all that is asked at once of a key is with one server, by the tag of both."""

    def prefix_of(self, key: bytes) -> bytes:
        """Return the prefix, with the tag."""
        return b"%b{%d}" % (self._prefix, crc32(key) % _TAGS)
