"""One address that clients connect to: from an accepted socket to a connection that is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from portico.http.message import Client, Handler
from portico.http.problem import Problem
from portico.net.h1_server import H1ServerConnection, refusal
from portico.net.server import Server
from portico.net.stream import Stream

Begin = Callable[[Server, Client, Stream, Handler | None], None]
"""Begins to serve a connection on which a client may speak."""

_RETRY: Final = [b"Retry-After: 1"]


def begin_h1(server: Server, client: Client, stream: Stream, handler: Handler | None) -> None:
    """Serve HTTP/1 on a connection."""
    connection = H1ServerConnection(server, client, stream, handler)
    server.remember(connection)
    connection.start()


class Listener:
    """What is the same for all connections to one address."""

    __slots__ = ("_begin", "_handler", "_server")

    def __init__(self, server: Server, handler: Handler | None = None, begin: Begin = begin_h1) -> None:
        """Serve by `handler`, where there is one, and not by the server's; `begin` speaks the protocol."""
        self._server = server
        self._handler = handler
        self._begin = begin

    def protocol(self) -> asyncio.BaseProtocol:
        """Return what the event loop talks to for one accepted connection."""
        stream = Stream(self._server.loop, self._server.outbox)
        stream.on_connected = self._connected
        return stream

    def _connected(self, stream: Stream) -> None:
        client = self._client(stream)
        if client is None:
            stream.abort()  # reset before it was accepted; whose requests these are is not known
        elif self._server.full:
            problem = Problem(503, "too-many-connections", detail="Try again later.")
            stream.write(refusal(self._server, problem, _RETRY))
            stream.close()
        else:
            self._begin(self._server, client, stream, self._handler)

    def _client(self, stream: Stream) -> Client | None:
        """Say who is on the other side of a connection, or None where that is not known any more."""
        transport = stream.transport
        peer = transport.get_extra_info("peername")
        local = transport.get_extra_info("sockname")
        style = self._server.trust.style
        if isinstance(local, str):  # a Unix socket
            return Client("", 0, 0, stream.scheme, style)
        if not isinstance(peer, tuple) or not isinstance(local, tuple):
            return None
        return Client(peer[0].partition("%")[0], peer[1], local[1], stream.scheme, style)
