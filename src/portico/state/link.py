"""A connection to a Redis that all requests of a worker share: what is asked within one turn of the loop is one write.

While there is no connection, requests fail at once, but for the first moment, in which one may yet come. It is made
again and again, after pauses that grow. What was under way when it was lost fails: nobody knows whether it was done.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, cast

import hiredis

from portico.errors import StoreUnavailable
from portico.state.board import Counter
from portico.state.store import WAITING

logger = logging.getLogger("portico.state")

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0
"""Seconds between two tries to connect, by and by; as short as that, as traffic is decided on without a store."""

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for a connection, with TLS and all that is said first."""

HUNG: Final = 4
"""After how many timeouts without an answer a connection is given up."""

WAITING_BYTES: Final = 64 * 1024 * 1024
"""The most bytes that wait to be sent."""

_GONE: Final = ("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "NOAUTH", "MISCONF", "OOM", "BUSY")
"""What a server's errors begin with that are about how it is, and not about what it was asked."""


class Address(NamedTuple):
    """Where a Redis is, and what to say there first."""

    host: str
    port: int
    database: int = 0
    user: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None
    role: bytes = b""
    """What it has to be, such as `master`; anything unless given."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Address {self}>"

    def greeting(self) -> list[tuple[bytes, ...]]:
        """Return the commands that a connection begins with."""
        said: list[tuple[bytes, ...]] = []
        if self.password:
            user = (self.user.encode(),) if self.user else ()
            said.append((b"AUTH", *user, self.password.encode()))
        if self.database:
            said.append((b"SELECT", b"%d" % self.database))
        return said


pack: Callable[[tuple[bytes, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]
"""Returns a command as it is on the wire."""


async def ask_once(address: Address, command: tuple[bytes, ...]) -> Any:
    """Ask a server one thing by a connection of its own. Raises OSError, ServerError and what no Redis says."""
    name = address.host if address.tls is not None else None
    incoming, outgoing = await asyncio.open_connection(
        address.host, address.port, ssl=address.tls, server_hostname=name
    )
    try:
        said = [*address.greeting(), command]
        outgoing.write(b"".join(map(pack, said)))
        reader = hiredis.Reader()
        answer: Any = None
        for _ in said:
            while (answer := reader.gets()) is False:
                data = await incoming.read(65536)
                if not data:
                    raise ConnectionError("it has closed the connection")
                reader.feed(data)
            if isinstance(answer, hiredis.ReplyError):
                raise ServerError(str(answer))
        return answer
    finally:
        outgoing.close()


class ServerError(Exception):
    """What a server has answered is an error about what it was asked."""


class _Asked(NamedTuple):
    future: asyncio.Future[Any]
    due: float


class _Wire(asyncio.Protocol):
    """One connection: replies come in the order of the requests."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = link.loop
        self._reader = hiredis.Reader()
        self._asked: deque[_Asked] = deque()
        self._out: list[bytes] = []
        self._size = 0
        """Of what is to be written at the end of this turn."""
        self._writing = False
        """Whether what is asked is going to be written at the end of this turn."""
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.why = ""
        self.address: Address | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.why = self.why or (str(error) if error is not None else "it was closed")
        self._link.without(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asked, self._asked = self._asked, deque()
        for each in asked:
            self._link.fail(each.future, "the connection to the store was lost")
        if not self.lost.done():
            self.lost.set_result(None)

    def ask(self, packed: bytes, future: asyncio.Future[Any]) -> None:
        self._asked.append(_Asked(future, self._loop.time() + self._link.timeout))
        self._out.append(packed)
        self._size += len(packed)
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._write)
        if self._timer is None:
            self._timer = self._loop.call_later(self._link.timeout, self._look)

    @property
    def name(self) -> str:
        """What the log calls the server."""
        return "the store" if self.address is None else f"the store at {self.address}"

    @property
    def busy(self) -> bool:
        """Whether it has all that it may have under way."""
        return len(self._asked) >= WAITING or self._size > WAITING_BYTES

    def _write(self) -> None:
        self._writing = False
        self._size = 0
        out, self._out = self._out, []
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self.transport.get_write_buffer_size() > WAITING_BYTES:
            self.give_up("it takes nothing any more")

    def data_received(self, data: bytes) -> None:
        reader, asked = self._reader, self._asked
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                if not asked:
                    self.give_up("it has said what it was not asked")
                    return
                future = asked.popleft().future
                if future.done():
                    continue
                if isinstance(reply, hiredis.ReplyError):
                    self._failed(future, str(reply))
                else:
                    future.set_result(reply)
        except hiredis.ProtocolError:
            self.give_up("what it says is not the protocol of Redis")

    def _failed(self, future: asyncio.Future[Any], error: str) -> None:
        kind = error.partition(" ")[0]
        if kind not in _GONE:
            future.set_exception(ServerError(error))
            return
        self._link.fail(future, f"the store says {kind}")
        if kind == "READONLY":
            self.give_up("it is a replica by now")

    def _look(self) -> None:
        """Fail what has waited too long; its answer may still come, and then it is for nobody."""
        now = self._loop.time()
        self._timer = None
        for each in self._asked:
            if each.due > now:
                break
            if not each.future.done():
                self._link.fail(each.future, f"the store has not answered within {self._link.timeout:g} s")
        if self._asked:
            if now - self._asked[0].due > (HUNG - 1) * self._link.timeout:
                self.give_up("it does not answer")
                return
            self._timer = self._loop.call_later(self._link.timeout / 4, self._look)

    def give_up(self, why: str) -> None:
        """End the connection; nobody is to ask by it any more, from this moment on."""
        self.why = why
        self._link.without(self)
        if self.transport is not None:
            self.transport.abort()


class Link:
    """The way to a Redis, whatever becomes of a connection."""

    def __init__(
        self,
        find: Callable[[], Awaitable[Address]] | Address,
        timeout: float,
        scripts: Sequence[bytes],
        failures: Counter | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`find` says for each connection where the server is; `scripts` are what it is told of first."""
        self.loop = asyncio.get_running_loop()
        self.timeout = timeout
        self._find = find
        self._scripts = scripts
        self._failures = failures or Counter.private()
        self._rng = rng or random.Random()  # noqa: S311 - it is for pauses
        self._wire: _Wire | None = None
        self._early: list[tuple[bytes, asyncio.Future[Any]]] | None = []
        """What was asked while a connection may come; None while none is expected."""
        self._early_size = 0
        self._told = False
        self.trouble = "there is no connection yet"
        """Why it cannot be asked; empty where it can."""

    def ask(self, packed: bytes, key: bytes = b"") -> asyncio.Future[Any]:
        """Ask something, as it is on the wire; raise StoreUnavailable where there is nobody to ask.

        Of what key it is does not matter here; it does where there are several servers.
        """
        future: asyncio.Future[Any] = self.loop.create_future()
        wire = self._wire
        if wire is not None:
            if wire.busy:
                self._failures.add()
                raise StoreUnavailable("too much waits for the store")
            wire.ask(packed, future)
        elif self._early is None or len(self._early) >= WAITING or self._early_size > WAITING_BYTES:
            self._failures.add()
            raise StoreUnavailable("the store cannot be reached")
        else:
            if not self._early:
                self._early_size = 0
                self.loop.call_later(self.timeout, self._too_early, self._early)
            self._early.append((packed, future))
            self._early_size += len(packed)
        return future

    async def run(self) -> None:
        """Keep a connection, until this is cancelled."""
        pause = FIRST_PAUSE
        try:
            while True:
                wire = await self._connect()
                if wire is not None:
                    began = self.loop.time()
                    await wire.lost
                    self._tell(f"the connection to {wire.name} was lost: {wire.why}")
                    if self.loop.time() - began > LONGEST_PAUSE:
                        pause = FIRST_PAUSE
                        continue
                else:
                    self._give_up_early("the store cannot be reached")
                await asyncio.sleep(pause * self._rng.uniform(0.5, 1.0))
                pause = min(LONGEST_PAUSE, pause * 2)
        finally:
            if self._wire is not None:
                self._wire.give_up("we have left")
            self._wire = None
            self._give_up_early("the store is closed")

    async def _connect(self) -> _Wire | None:
        """Return a connection at which everything was said that comes first, or None with a line in the log."""
        wire = _Wire(self)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                address = wire.address = self._find if isinstance(self._find, Address) else await self._find()
                await self.loop.create_connection(
                    lambda: wire,
                    address.host,
                    address.port,
                    ssl=address.tls,
                    server_hostname=address.host if address.tls is not None else None,
                )
                await self._greet(wire, address)
        except TimeoutError:
            wire.give_up("")
            self._tell(f"{wire.name} does not answer")
        except (OSError, ValueError) as error:
            self._tell(f"{wire.name} cannot be reached: {getattr(error, 'strerror', '') or error}")
        except (ServerError, StoreUnavailable) as error:
            wire.give_up("")
            self._tell(f"{wire.name} does not let us in: {error}")
        except BaseException:
            wire.give_up("")
            raise
        else:
            self._begin(wire)
            return wire
        return None

    def _begin(self, wire: _Wire) -> None:
        """Ask by a connection from now on, and first what has waited for it."""
        early, self._early = self._early or [], None
        self._wire = wire
        self.trouble = ""
        for packed, future in early:
            if not future.done():
                wire.ask(packed, future)
        if self._told:
            self._told = False
            logger.info("%s answers again", wire.name)

    async def _greet(self, wire: _Wire, address: Address) -> None:
        said = [*address.greeting(), *((b"SCRIPT", b"LOAD", script) for script in self._scripts)]
        if address.role:
            said.append((b"ROLE",))
        waiting = []
        for command in said:
            future: asyncio.Future[Any] = self.loop.create_future()
            wire.ask(pack(command), future)
            waiting.append(future)
        results: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if address.role and results[-1][0] != address.role:
            raise StoreUnavailable(f"it is no {address.role.decode()} any more")
        if wire.lost.done():
            raise StoreUnavailable(wire.why)

    def without(self, wire: _Wire) -> None:
        """Ask nothing more by a connection, and expect another one."""
        if self._wire is wire:
            self._wire, self._early = None, []

    def fail(self, future: asyncio.Future[Any], why: str) -> None:
        """Tell whoever waits that nothing comes."""
        if not future.done():
            self._failures.add()
            future.set_exception(StoreUnavailable(why))

    def _tell(self, what: str) -> None:
        """Tell the log, once until it is well again."""
        self.trouble = what
        if not self._told:
            self._told = True
            logger.error("%s", what)

    def _give_up_early(self, why: str) -> None:
        early, self._early = self._early or [], None
        for _, future in early:
            self.fail(future, why)

    def _too_early(self, early: list[tuple[bytes, asyncio.Future[Any]]]) -> None:
        """Fail what no connection has come for in time."""
        if early is self._early:
            self._give_up_early("the store cannot be reached")
