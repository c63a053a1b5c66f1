"""Connections with room for many requests at once, in either role: what their codecs share."""

from __future__ import annotations

import asyncio
import logging

from mypy_extensions import mypyc_attr

from portico.net.client import ClientConnection, ClientStream, Connections
from portico.net.server import Server, ServerConnection
from portico.net.server_stream import ServerStream
from portico.net.stream import NEVER, DeadlineExceeded, Stream
from portico.observe.exchange import Exchange

logger = logging.getLogger("portico.server")


@mypyc_attr(allow_interpreted_subclasses=True)
class SharedServerConnection(ServerConnection):
    """A client's connection with room for many requests at once: one task reads it, and each request has its own.

    A codec says what the bytes mean, and which streams begin by them; a stream that is `over` tells its connection.
    """

    __slots__ = ("_begun", "_ended", "_streams", "_task", "epoch", "server", "stream")

    def __init__(self, server: Server, stream: Stream) -> None:
        self.server = server
        self.epoch = server.epoch_of_new
        self.stream = stream
        self._streams: set[ServerStream] = set()
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._ended = False

    def received(self, data: bytes) -> None:
        """Act on what the client has sent; raise ConnectionError where that makes no sense."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin to serve, in a task that the server's group owns."""
        self.server.remember(self)
        self._task = self.server.tasks.create_task(self._read(), name="connection")

    @property
    def under_way(self) -> int:
        """How many requests are being answered."""
        return len(self._streams)

    def stream_begun(self, stream: ServerStream) -> None:
        """Count a stream, which ends with the connection."""
        self._streams.add(stream)

    def stream_over(self, stream: ServerStream) -> None:
        """Strike a stream; after the last one of a server that drains the connection is closed."""
        self._streams.discard(stream)
        if self._ended:
            self._forget()
        elif not self._streams:
            self._idle()
            if self.epoch != self.server.epoch:
                self.stream.close()

    def close_if_idle(self) -> None:
        """Close the connection where no request is under way, and otherwise once none is."""
        if not self._streams:
            self.stream.close()

    def exchanges(self) -> list[Exchange]:
        """Return the exchanges of the requests that are under way."""
        found: list[Exchange] = []
        for stream in self._streams:
            found += stream.exchanges()
        return found

    def cancel(self) -> None:
        """End the connection, whatever it is doing."""
        if self._task is not None:
            self._task.cancel()
        if not self._begun:  # nor will it: a task that is cancelled before its first step never runs
            self.stream.abort()
            self._forget()

    def _idle(self) -> None:
        self.stream.set_deadline(self.server.loop.time() + self.server.limits.keepalive_timeout)

    async def _read(self) -> None:
        stream = self.stream
        left = True
        self._begun = True
        self._idle()
        try:
            while data := await stream.receive():
                self.received(data)
                if self._streams:
                    stream.set_deadline(NEVER)
        except (ConnectionError, DeadlineExceeded):
            pass  # a client that makes no sense, or that has no more to ask for
        except asyncio.CancelledError:
            left = False
            stream.abort()
            raise
        except Exception:  # the connection boundary: a bug ends one connection, not the worker
            logger.exception("a connection failed")
        finally:
            self._ended = True
            for under_way in tuple(self._streams):
                if left:
                    under_way.client_left()
                else:
                    under_way.give_up()
            stream.close()
            self._forget()

    def _forget(self) -> None:
        if not self._streams:
            self.server.forget(self)


@mypyc_attr(allow_interpreted_subclasses=True)
class SharedClientConnection(ClientConnection):
    """A connection to a target with room for many requests at once, as its pool sees it.

    A codec makes the streams, reads what comes for them, and tells of each that is over.
    """

    __slots__ = (
        "_closing",
        "_last_used",
        "_loop",
        "_over",
        "_owner",
        "expires",
        "pooled",
        "room",
        "stream",
        "under_way",
    )

    def __init__(self, stream: Stream, loop: asyncio.AbstractEventLoop, owner: Connections, room: int) -> None:
        self.stream = stream
        self.room = room
        """How many requests may be under way; the target may change its mind."""
        self.under_way = 0
        self.pooled = False
        self.expires = None
        self._loop = loop
        self._owner = owner
        self._last_used = 0.0
        self._closing = False
        self._over = False

    def new_stream(self) -> ClientStream:
        """Return room for one request."""
        raise NotImplementedError

    def open(self) -> ClientStream | None:
        """Return room for one request; None where the connection takes no more."""
        if self._closing or self.stream.eof:
            return None
        self.stream.set_deadline(NEVER)
        self.under_way += 1
        return self.new_stream()

    def has_room(self) -> bool:
        """Return whether it takes another request beside those under way."""
        return self.under_way < self.room

    def may_idle_until(self, when: float) -> None:
        """Let no wait for bytes last beyond `when`: whoever reads closes it then."""
        self.stream.set_deadline(when)

    def last_use(self) -> float:
        """Return when its last answer came, on the loop's clock."""
        return self._last_used

    def stream_over(self) -> None:
        """Take back the room of one request that has ended, in whatever way."""
        self.under_way -= 1
        self._last_used = self._loop.time()
        if self._closing:
            self.close()
        elif self.under_way:
            self._owner.room_again(self)
        else:
            self._owner.stream_over(self)

    def take_no_more(self) -> None:
        """Open no more streams, as the target wants; those under way go on."""
        self._closing = True

    def close(self) -> None:
        """Close it, once the requests under way on it have come to their end."""
        self._closing = True
        if not (self.under_way or self._over):
            self._over = True
            self.stream.close()
            self._owner.connection_over(self)
