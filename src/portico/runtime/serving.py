"""What a worker serves, one configuration after another: each is compiled beside the one at work, and swapped in.

A request goes by the configuration that it began with. One that was served before is closed when the last request that
began under it is over, and its memory is given back in small steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from portico.config.schema import Config
from portico.http.forwarded import Network
from portico.http.message import Handler
from portico.http.target import EncodedSlashes
from portico.net.listener import Listener
from portico.net.server import Server
from portico.net.tls import ServerTls
from portico.observe.exchange import Exchange
from portico.runtime.compile import Surroundings, compiling
from portico.runtime.garbage import Garbage
from portico.runtime.listeners import Entrance, limits, redirect_to_https, trust
from portico.runtime.pace import Pace
from portico.runtime.plugins import registry_of
from portico.runtime.runtime import Route, Runtime
from portico.runtime.shared import Lease
from portico.runtime.snapshot import unpack

logger = logging.getLogger("portico.worker")

BACKLOG: Final = 4096
"""Connections that may wait to be accepted at each door."""

LAST_WORD: Final = 2.0
"""Seconds that work has which is ended at the deadline of the drain, to have that known; less than until the kill."""


class Prepared(NamedTuple):
    """A configuration that is compiled, and not served yet."""

    config: Config
    runtime: Runtime
    modules: Lease
    """Its plugins."""


class _Door(NamedTuple):
    """An address at which clients are taken in."""

    listener: Listener
    accepting: asyncio.Server


class Serving:
    """The configuration that a worker serves, and those that it has served."""

    def __init__(
        self,
        surroundings: Surroundings,
        server: Server,
        garbage: Garbage,
        speak: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """`speak` has the process log in a format and from a level on."""
        self._speak = speak
        self._surroundings = surroundings
        self._server = server
        self._garbage = garbage
        self._now: Prepared | None = None
        self._doors: dict[int, _Door] = {}
        self._retiring: list[Runtime] = []
        self.retired = 0
        """Configurations that are not served any more, and have requests under way."""

    @property
    def runtime(self) -> Runtime | None:
        """What answers the next request; None before there is any."""
        return None if self._now is None else self._now.runtime

    def routes(self) -> Sequence[Route]:
        """Return the routes that are served."""
        return () if self._now is None else self._now.runtime.routes

    @property
    def revision(self) -> int:
        """The revision of the configuration that is served; 0 before there is any."""
        return 0 if self._now is None else self._now.runtime.revision

    @property
    def slashes(self) -> EncodedSlashes:
        """What becomes of encoded slashes in paths."""
        return EncodedSlashes.KEEP if self._now is None else EncodedSlashes(self._now.config.path.encoded_slashes)

    @property
    def shutdown_timeout(self) -> float:
        """Seconds that requests under way have when the worker is to end."""
        return 0.0 if self._now is None else self._now.config.shutdown_timeout

    async def prepare(self, packed: bytes, revision: int, pace: Pace) -> Prepared:
        """Compile a snapshot, a slice at a time. Raises ConfigError and CompileError; then nothing is left of it."""
        modules = self._surroundings.leases.lease()
        with self._garbage.held():
            try:
                config, plugins = await pace.run(unpack(packed, modules))
                registry = registry_of(plugins)
                await asyncio.sleep(0)
                surroundings = replace(self._surroundings, registry=registry)
                compiled = await pace.run(compiling(config, surroundings, revision))
            except BaseException:
                modules.close()
                raise
            prepared = Prepared(config.model_copy(update={"routes": ()}), compiled.runtime, modules)
            # What the routes were compiled from is of no more use, and there may be many of them.
            waste: list[object] = [*config.routes, *compiled.entries]
            del config, compiled
            try:
                await pace.run(_dropping(waste))
            except BaseException:
                self.abandon(prepared)
                raise
            return prepared

    def abandon(self, prepared: Prepared) -> None:
        """Drop what was prepared."""
        self._surroundings.tasks.create_task(self._close(prepared), name="abandon")

    async def commit(self, prepared: Prepared, doors: Sequence[int], sockets: dict[int, socket.socket]) -> None:
        """Serve what was prepared from the next request on, at these doors; `sockets` loses those that are opened."""
        before, self._now = self._now, prepared
        config, runtime, server = prepared.config, prepared.runtime, self._server
        under_way = [] if before is None else server.under_way()
        slashes = EncodedSlashes(config.path.encoded_slashes)
        runtime.begin()
        self._speak(config.log.format, config.log.level)
        server.change(runtime.handle, limits(config), slashes, trust(config), runtime.write_problem, runtime.observer)
        if before is not None and _listeners(before.config) != _listeners(config):
            server.epoch += 1  # who came in by other rules is to come in again
        if before is not None:
            self._surroundings.tasks.create_task(self._retire(before, under_way), name="retire")
        wanted = dict(zip(doors, runtime.entrances, strict=True))
        for door in [door for door in self._doors if door not in wanted]:
            self._doors.pop(door).accepting.close()
        for door, entrance in wanted.items():
            known = self._doors.get(door)
            if known is not None:
                known.listener.change(*self._at(entrance))
            else:
                await self._open(door, entrance, sockets.pop(door))

    def without_socket(self, doors: Sequence[int], sockets: Mapping[int, socket.socket]) -> list[int]:
        """Return those of `doors` that are not open here, and that `sockets` could not open either."""
        return [door for door in doors if door not in self._doors and door not in sockets]

    def stop_accepting(self) -> None:
        """Take in no more clients."""
        for door in self._doors.values():
            door.accepting.close()
        self._doors.clear()

    async def settle(self, by: float) -> None:
        """Let the work that is to come to its end do so, by a time of the loop at the latest."""
        runtimes = [*self._retiring, *(() if self._now is None else (self._now.runtime,))]
        try:
            async with asyncio.timeout_at(by):
                for runtime in runtimes:
                    await runtime.settled()
        except TimeoutError:
            logger.warning("some work was not done at the deadline of the drain")
            for runtime in runtimes:
                runtime.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD):
                    for runtime in runtimes:
                        await runtime.settled()

    async def close(self) -> None:
        """Close what is served now."""
        if self._now is not None:
            now, self._now = self._now, None
            await self._close(now)

    async def _open(self, door: int, entrance: Entrance, sock: socket.socket) -> None:
        listener = Listener(self._server, *self._at(entrance))
        accepting = await self._server.loop.create_server(listener.protocol, sock=sock, backlog=BACKLOG)
        self._doors[door] = _Door(listener, accepting)

    def _at(self, entrance: Entrance) -> tuple[Handler | None, ServerTls | None, Sequence[Network] | None]:
        redirect, server = entrance.redirect_https, self._server
        handler = None if redirect is None else redirect_to_https(redirect, lambda: server.handler)
        return handler, entrance.tls, entrance.proxies

    async def _retire(self, before: Prepared, under_way: Sequence[Exchange]) -> None:
        """Close a configuration once the requests that began under it are over."""
        self.retired += 1
        self._retiring.append(before.runtime)
        had_plugins = bool(before.modules)
        try:
            await _over(under_way)
            await before.runtime.settled()
            await self._close(before)
        finally:
            self._retiring.remove(before.runtime)
            self.retired -= 1
        if had_plugins:
            self._garbage.expect()

    @staticmethod
    async def _close(prepared: Prepared) -> None:
        await Pace().run(_closing(prepared))


def _listeners(config: Config) -> list[object]:
    """Return what is said of the listeners, wherever that stands."""
    return [listener.model_copy(update={"origin": ""}) for listener in config.listen]


def _dropping(waste: list[object]) -> Generator[None, None, None]:
    """Free what nobody else has, a little at each step."""
    while waste:
        waste.pop()
        yield


def _closing(prepared: Prepared) -> Generator[None, None, None]:
    yield from prepared.runtime.closing()
    prepared.modules.close()


async def _over(under_way: Sequence[Exchange]) -> None:
    """Wait until all these exchanges have ended."""
    under_way = [exchange for exchange in under_way if exchange.outcome is None]  # some have by now
    left = len(under_way)
    ended = asyncio.Event()

    def one_less(_: Exchange) -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    for exchange in under_way:
        exchange.on_end(one_less)
    if left:
        await ended.wait()
