"""Connections to one target, kept for reuse."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
from collections.abc import Callable
from typing import Final, NamedTuple

from portico.errors import ConnectFailed, Overloaded, Source, UpstreamError, UpstreamTimeout
from portico.net.client import AnswerLimits, ClientConnection, ClientStream, Connections
from portico.net.h1_client import H1Connection
from portico.net.pem import reason_of_service
from portico.net.stream import NEVER, Outbox, Stream
from portico.net.tls import ClientTls
from portico.net.tls_stream import TlsStream
from portico.wire.fields import response_fields

logger = logging.getLogger("portico.upstream")

_CONNECT_SOURCE: Final = Source.CONNECT

_OURS: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
"""What stands in the way of a connection and is no fault of the target: this machine has no more to give."""

SPREAD: Final = 0.1
"""By how much of its age, at most, a connection is given up early: those that began together do not end together."""

WARM_TIMEOUT: Final = 10.0
"""Seconds that a connection which no request waits for has to be made."""

WARMED_AT_ONCE: Final = 16
"""Connections that are opened at once ahead of requests."""


class PoolOptions(NamedTuple):
    """What a pool keeps to: connections in all and idle, seconds that one may stay idle, what an answer may be; how old
    a connection may become, how many are opened ahead of requests, and seconds for a TLS handshake."""

    max_connections: int
    max_idle: int
    idle_timeout: float
    limits: AnswerLimits = AnswerLimits()
    max_age: float = NEVER
    warm: int = 0
    tls_timeout: float = NEVER


Speak = Callable[["Pool", Stream], ClientConnection]
"""Makes what speaks a protocol on a new connection of a pool."""


def speak_h1(pool: Pool, stream: Stream) -> ClientConnection:
    """Speak HTTP/1."""
    return H1Connection(stream, pool.loop, pool.tasks, pool, pool.limits, pool.fields)


class Pool(Connections):
    """The connections of this worker to one target.

    The most recently used one is taken first, so that those not needed grow old and are closed.
    """

    __slots__ = (
        "_chance",
        "_closed",
        "_cold",
        "_connections",
        "_gate",
        "_handshake",
        "_host",
        "_idle_timeout",
        "_max_age",
        "_max_connections",
        "_max_idle",
        "_outbox",
        "_port",
        "_ready",
        "_server_name",
        "_speak",
        "_tls",
        "_tls_timeout",
        "_warm",
        "_warming",
        "fields",
        "limits",
        "loop",
        "tasks",
    )

    def __init__(
        self,
        host: str,
        port: int,
        tls: ClientTls | None,
        options: PoolOptions,
        tasks: asyncio.TaskGroup,
        outbox: Outbox | None = None,
        speak: Speak = speak_h1,
        gate: asyncio.Semaphore | None = None,
        chance: Callable[[], float] = random.random,
        server_name: str = "",
    ) -> None:
        """Connect to `host`; where TLS is spoken its certificate must have `server_name`, unless `tls` says another.

        `gate` lets only so many be warmed at once, of this pool and of others; `chance` draws a number below 1.
        """
        self._host = host
        self._server_name = server_name or host
        self._port = port
        self._tls = tls
        self._max_connections = options.max_connections
        self._max_idle = options.max_idle
        self._idle_timeout = options.idle_timeout
        self._max_age = options.max_age
        self._warm = min(options.warm, options.max_idle, options.max_connections)
        self._tls_timeout = options.tls_timeout
        self._gate = asyncio.Semaphore(1) if gate is None else gate
        self._chance = chance
        self._outbox = outbox
        self._speak = speak
        self.limits = options.limits
        self.fields = response_fields(options.limits.fields)
        """The header lines that the target has sent before."""
        self.tasks = tasks
        self.loop = asyncio.get_running_loop()
        self._ready: list[ClientConnection] = []
        """Connections with room, the one last used last."""
        self._connections = 0
        self._handshake = 0.0
        self._cold = self._warm > 0
        """True while the connections that are to be there ahead of requests have not been opened."""
        self._warming: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def handshake(self) -> float:
        """Seconds that TLS took of the connection which `connect` has returned just now; 0 where none was spoken."""
        return self._handshake

    @property
    def connections(self) -> int:
        """How many connections are open or being opened."""
        return self._connections

    @property
    def busy(self) -> int:
        """How many connections have no room, or are being opened: for HTTP/1, the requests under way."""
        return self._connections - len(self._ready)

    def take(self) -> ClientStream | None:
        """Return room on an open connection, or None where there is none: then `connect`."""
        ready = self._ready
        while ready:
            connection = ready.pop()
            connection.pooled = False
            stream = None if self._is_too_old(connection) else connection.open()
            if stream is None:
                self._drop(connection)
            else:
                if connection.has_room():
                    self._put(connection)
                return stream
        return None

    async def connect(self, timeout: float, deadline: float | None) -> ClientStream:  # noqa: ASYNC109 - it is the seam
        """Open a connection within `timeout` seconds and before `deadline`; raise an UpstreamError."""
        if self._connections >= self._max_connections:
            raise Overloaded("all connections to the target are in use", source=_CONNECT_SOURCE, retryable=True)
        connection = await self._made(timeout, deadline)
        opened = connection.open()
        if opened is None:
            self._drop(connection)
            raise ConnectFailed("closed at once", source=_CONNECT_SOURCE, retryable=True)
        if connection.has_room():
            self._put(connection)
        if self._cold:  # the target has come back
            self.warm()
        return opened

    async def _made(self, timeout: float, deadline: float | None) -> ClientConnection:  # noqa: ASYNC109 - as above
        """Make a connection, one of those in all; raise an UpstreamError."""
        own = self.loop.time() + timeout
        when = own if deadline is None else min(own, deadline)
        self._connections += 1
        try:
            async with asyncio.timeout_at(when):
                stream = await self._open()
        except UpstreamError:
            self._failed()
            raise
        except TimeoutError:
            self._failed()
            # Another target is worth a try only where this one was slow, and not where the request has no time left.
            raise UpstreamTimeout("no connection in time", source=_CONNECT_SOURCE, retryable=when == own) from None
        except OSError as error:
            if error.errno in _OURS:
                self._connections -= 1
                raise Overloaded(f"no more can be opened here: {error}", source=_CONNECT_SOURCE) from error
            self._failed()
            raise ConnectFailed(reason_of_service(error), source=_CONNECT_SOURCE, retryable=True) from error
        except BaseException:
            self._connections -= 1
            raise
        connection = self._speak(self, stream)
        if self._max_age != NEVER:
            connection.expires = self.loop.time() + self._max_age * (1.0 - SPREAD * self._chance())
        return connection

    def _failed(self) -> None:
        self._connections -= 1
        self._cold = self._warm > 0

    def warm(self) -> None:
        """Begin to open the connections that are to be there ahead of requests, unless that was done since the target
        last could not be reached."""
        if self._cold and not self._closed and self._warming is None:
            self._cold = False
            self._warming = self.tasks.create_task(self._warm_up(), name="warm")

    async def _warm_up(self) -> None:
        """Open them, one after the other; it belongs to the worker's group, so nothing may leave it as an error."""
        try:
            for _ in range(self._warm):  # and no more: it may be that the target closes each at once
                if self._connections >= self._warm:
                    break
                async with self._gate:
                    connection = await self._made(WARM_TIMEOUT, None)
                self._keep(connection, self.loop.time())
        except UpstreamError as error:
            logger.debug("%s:%d: no connection ahead of requests: %s", self._host, self._port, error)
        except Exception:  # a bug here must not end the worker
            logger.exception("%s:%d: connections could not be opened ahead of requests", self._host, self._port)
        finally:
            self._warming = None

    async def probe(self) -> None:
        """Open a connection, TLS included, and close it again; raise OSError where the target does not accept it."""
        try:
            stream = await self._open()
        except UpstreamTimeout as error:
            raise TimeoutError(str(error)) from error
        stream.close()

    async def _open(self) -> Stream:
        """Open a connection, TLS included; raise OSError, or UpstreamTimeout where TLS alone takes too long."""
        tls, outbox = self._tls, self._outbox
        if tls is None:
            return await self._connect(lambda: Stream(self.loop, outbox))
        name = tls.server_name or self._server_name
        try:
            stream = TlsStream(self.loop, outbox, tls.context, NEVER, name)
        except ValueError as error:
            raise OSError(f"TLS cannot ask for {name!r}: {error}") from error
        await self._connect(lambda: stream)
        began = self.loop.time()
        if self._tls_timeout == NEVER:
            await stream.handshake()
            self._handshake = self.loop.time() - began
            return stream
        try:
            async with asyncio.timeout(self._tls_timeout):
                await stream.handshake()
        except TimeoutError:
            raise UpstreamTimeout("no TLS handshake in time", source=_CONNECT_SOURCE, retryable=True) from None
        self._handshake = self.loop.time() - began
        return stream

    async def _connect(self, protocol: Callable[[], Stream]) -> Stream:
        try:
            _, stream = await self.loop.create_connection(protocol, self._host, self._port)
        except UnicodeError as error:
            raise OSError(f"{self._host!r} is no host name") from error
        return stream

    def stream_over(self, connection: ClientConnection) -> None:
        """Take back a connection that goes on, and has no request under way any more."""
        self._take_out(connection)  # where it had room for more it was here all along; now it is the last one used
        self._keep(connection, connection.last_use())

    def _keep(self, connection: ClientConnection, now: float) -> None:
        """Keep a connection with nothing under way for the next request, unless there are enough or it is too old."""
        if self._closed or len(self._ready) >= self._max_idle or self._is_too_old(connection):
            self._drop(connection)
        else:
            until, expires = now + self._idle_timeout, connection.expires
            connection.may_idle_until(until if expires is None else min(until, expires))
            self._put(connection)

    def room_again(self, connection: ClientConnection) -> None:
        """Take back room on a connection that has other requests under way."""
        if self._closed or self._is_too_old(connection):
            self._take_out(connection)
            self._drop(connection)
        elif not connection.pooled:
            self._put(connection)

    def connection_over(self, connection: ClientConnection) -> None:
        """Strike a connection that is closed, or being closed with nothing under way; called once for each."""
        self._connections -= 1
        self._take_out(connection)

    def close(self) -> None:
        """Close each connection as soon as nothing is under way on it."""
        self._closed = True
        if self._warming is not None:
            self._warming.cancel()
        ready, self._ready = self._ready, []
        for connection in ready:
            self._drop(connection)

    def _is_too_old(self, connection: ClientConnection) -> bool:
        expires = connection.expires
        return expires is not None and expires <= self.loop.time()

    def _put(self, connection: ClientConnection) -> None:
        connection.pooled = True
        self._ready.append(connection)

    def _take_out(self, connection: ClientConnection) -> None:
        if connection.pooled:
            connection.pooled = False
            self._ready.remove(connection)

    @staticmethod
    def _drop(connection: ClientConnection) -> None:
        connection.pooled = False
        connection.close()
