"""Connections to one target, kept for reuse."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple

from portico.errors import ConnectFailed, Overloaded, Source, UpstreamTimeout
from portico.net.client import MAX_FIELDS, ClientStream, Connections, H1Connection
from portico.net.stream import Outbox, Stream
from portico.wire.fields import response_fields

_CONNECT_SOURCE: Final = Source.CONNECT


class PoolOptions(NamedTuple):
    """What a pool keeps to: connections in all and idle, seconds that one may stay idle, bytes of an answer's head."""

    max_connections: int
    max_idle: int
    idle_timeout: float
    max_head: int


class Pool(Connections):
    """The connections of this worker to one target.

    The most recently used one is taken first, so that those not needed grow old and are closed.
    """

    __slots__ = (
        "_closed",
        "_connections",
        "_fields",
        "_host",
        "_idle",
        "_idle_timeout",
        "_loop",
        "_max_connections",
        "_max_head",
        "_max_idle",
        "_outbox",
        "_port",
        "_ssl",
        "_tasks",
    )

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        options: PoolOptions,
        tasks: asyncio.TaskGroup,
        outbox: Outbox | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._ssl = tls
        self._max_connections = options.max_connections
        self._max_idle = options.max_idle
        self._idle_timeout = options.idle_timeout
        self._max_head = options.max_head
        self._tasks = tasks
        self._outbox = outbox
        self._fields = response_fields(MAX_FIELDS)
        self._loop = asyncio.get_running_loop()
        self._idle: list[H1Connection] = []
        self._connections = 0
        self._closed = False

    @property
    def connections(self) -> int:
        """How many connections are open or being opened."""
        return self._connections

    def take(self) -> ClientStream | None:
        """Return an idle connection, or None where there is none: then `connect`."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            stream = connection.stream
            if not (stream.eof or stream.unread):
                return connection
            self._drop(connection)
        return None

    async def connect(self, timeout: float, deadline: float | None) -> ClientStream:  # noqa: ASYNC109 - it is the seam
        """Open a connection within `timeout` seconds and before `deadline`; raise an UpstreamError."""
        if self._connections >= self._max_connections:
            raise Overloaded("all connections to the target are in use", source=_CONNECT_SOURCE, retryable=True)
        own = self._loop.time() + timeout
        when = own if deadline is None else min(own, deadline)
        self._connections += 1
        try:
            async with asyncio.timeout_at(when):
                stream = await self._open(lambda: Stream(self._loop, self._outbox), self._ssl)
        except TimeoutError:
            self._connections -= 1
            # Another target is worth a try only where this one was slow, and not where the request has no time left.
            raise UpstreamTimeout("no connection in time", source=_CONNECT_SOURCE, retryable=when == own) from None
        except OSError as error:
            self._connections -= 1
            raise ConnectFailed(str(error), source=_CONNECT_SOURCE, retryable=True) from error
        except BaseException:
            self._connections -= 1
            raise
        connection = H1Connection(stream, self._loop, self._tasks, self._max_head, self, self._fields)
        stream.on_lost = stream.on_expired = functools.partial(self._forget, connection)
        return connection

    async def probe(self) -> None:
        """Open a connection and close it again; raise OSError where the target does not accept it."""
        stream = await self._open(lambda: Stream(self._loop), None)
        stream.close()

    async def _open(self, protocol: Callable[[], Stream], tls: ssl.SSLContext | None) -> Stream:
        try:
            _, stream = await self._loop.create_connection(protocol, self._host, self._port, ssl=tls)
        except UnicodeError as error:
            raise OSError(f"{self._host!r} is no host name") from error
        return stream

    def exchange_over(self, connection: ClientStream, reusable: bool) -> None:
        """Take back a connection; where it is not `reusable` it has been closed."""
        assert isinstance(connection, H1Connection)
        if not reusable:
            self._connections -= 1
        elif self._closed or len(self._idle) >= self._max_idle:
            self._drop(connection)
        else:
            connection.stream.set_deadline(connection.last_used + self._idle_timeout)
            self._idle.append(connection)

    def close(self) -> None:
        """Close what is idle, and what comes back from now on."""
        self._closed = True
        while self._idle:
            self._drop(self._idle.pop())

    def _forget(self, connection: H1Connection) -> None:
        """Close an idle connection that the target has closed, or that nobody needed for long."""
        if connection in self._idle:
            self._idle.remove(connection)
            self._drop(connection)

    def _drop(self, connection: H1Connection) -> None:
        self._connections -= 1
        connection.stream.close()
