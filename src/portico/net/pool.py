"""Connections to one target, kept for reuse."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple

from portico.errors import ConnectFailed, Overloaded, Source, UpstreamTimeout
from portico.net.client import AnswerLimits, ClientConnection, ClientStream, Connections
from portico.net.h1_client import H1Connection
from portico.net.pem import reason_of_service
from portico.net.stream import NEVER, Outbox, Stream
from portico.net.tls import ClientTls
from portico.net.tls_stream import TlsStream
from portico.wire.fields import response_fields

_CONNECT_SOURCE: Final = Source.CONNECT


class PoolOptions(NamedTuple):
    """What a pool keeps to: connections in all and idle, seconds that one may stay idle, what an answer may be."""

    max_connections: int
    max_idle: int
    idle_timeout: float
    limits: AnswerLimits = AnswerLimits()


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
        "_closed",
        "_connections",
        "_host",
        "_idle_timeout",
        "_max_connections",
        "_max_idle",
        "_outbox",
        "_port",
        "_ready",
        "_speak",
        "_tls",
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
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._max_connections = options.max_connections
        self._max_idle = options.max_idle
        self._idle_timeout = options.idle_timeout
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
        self._closed = False

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
            stream = connection.open()
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
        own = self.loop.time() + timeout
        when = own if deadline is None else min(own, deadline)
        self._connections += 1
        try:
            async with asyncio.timeout_at(when):
                stream = await self._open()
        except TimeoutError:
            self._connections -= 1
            # Another target is worth a try only where this one was slow, and not where the request has no time left.
            raise UpstreamTimeout("no connection in time", source=_CONNECT_SOURCE, retryable=when == own) from None
        except OSError as error:
            self._connections -= 1
            detail = reason_of_service(error) if isinstance(error, ssl.SSLError) else str(error)
            raise ConnectFailed(detail, source=_CONNECT_SOURCE, retryable=True) from error
        except BaseException:
            self._connections -= 1
            raise
        connection = self._speak(self, stream)
        opened = connection.open()
        if opened is None:
            self._drop(connection)
            raise ConnectFailed("closed at once", source=_CONNECT_SOURCE, retryable=True)
        if connection.has_room():
            self._put(connection)
        return opened

    async def probe(self) -> None:
        """Open a connection, TLS included, and close it again; raise OSError where the target does not accept it."""
        (await self._open()).close()

    async def _open(self) -> Stream:
        """Open a connection, TLS included; raise OSError."""
        tls, outbox = self._tls, self._outbox
        if tls is None:
            return await self._connect(lambda: Stream(self.loop, outbox))
        name = tls.server_name or self._host
        try:
            stream = TlsStream(self.loop, outbox, tls.context, NEVER, name)
        except ValueError as error:
            raise OSError(f"TLS cannot ask for {name!r}: {error}") from error
        await self._connect(lambda: stream)
        await stream.handshake()
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
        if self._closed or len(self._ready) >= self._max_idle:
            self._drop(connection)
        else:
            connection.may_idle_until(connection.last_use() + self._idle_timeout)
            self._put(connection)

    def room_again(self, connection: ClientConnection) -> None:
        """Take back room on a connection that has other requests under way."""
        if self._closed:
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
        ready, self._ready = self._ready, []
        for connection in ready:
            self._drop(connection)

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
