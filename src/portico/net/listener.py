"""One address that clients connect to: from an accepted socket to a connection that is served."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Final, cast

from portico.errors import MalformedProxyHeader
from portico.http.forwarded import Encryption, Network, Trust
from portico.http.message import Client, Handler, Request
from portico.http.problem import Problem
from portico.net.h1_server import H1ServerConnection, refusal
from portico.net.server import Server, ServerConnection
from portico.net.stream import Stream
from portico.net.tls import ServerTls
from portico.net.tls_stream import TlsStream
from portico.wire.proxy_protocol import ProxyHeader, read_proxy_header

logger = logging.getLogger("portico.listener")

Begin = Callable[[Server, Client, Stream, Handler | None], None]
"""Begins to serve a connection on which a client may speak."""

UNKNOWN: Final = "unknown"
"""The peer of a client of whom a proxy says nothing; no address, so no network that is trusted has it."""

_RETRY: Final = [b"Retry-After: 1"]


def begin_h1(server: Server, client: Client, stream: Stream, handler: Handler | None) -> None:
    """Serve HTTP/1 on a connection."""
    connection = H1ServerConnection(server, client, stream, handler)
    server.remember(connection)
    connection.start()


class Listener:
    """What is the same for all connections to one address; what is set anew counts for those that come later."""

    def __init__(
        self,
        server: Server,
        handler: Handler | None = None,
        tls: ServerTls | None = None,
        proxies: Sequence[Network] | None = None,
        begin: Begin = begin_h1,
    ) -> None:
        """Serve by `handler`, where there is one, and not by the server's; `begin` speaks the protocol.

        With `proxies` each connection has to come from one of these networks, and to begin with a PROXY header.
        """
        self.server = server
        self._begin = begin
        self.change(handler, tls, proxies)

    def change(self, handler: Handler | None, tls: ServerTls | None, proxies: Sequence[Network] | None) -> None:
        """Take those who connect from now on in another way."""
        self.handler = handler
        self.tls = tls
        self._proxies = None if proxies is None else Trust(proxies)

    def protocol(self) -> asyncio.BaseProtocol:
        """Return what the event loop talks to for one accepted connection."""
        if self._proxies is not None:
            return _Relayed(self, self._proxies)
        if self.tls is not None and self.server.full:
            return _Refused()
        return self.stream(None)

    def stream(self, header: ProxyHeader | None, by: float | None = None) -> Stream:
        """Return a stream for one connection, of whose client `header` tells where a proxy relays it.

        A handshake has to be complete at `by`, a time of the loop's clock, where something has taken time before it.
        """
        server = self.server
        if self.tls is None:
            stream = Stream(server.loop, server.outbox)
            stream.on_connected = functools.partial(self._connected, header)
            return stream
        if by is None:
            by = server.loop.time() + server.limits.handshake_timeout
        secure = TlsStream(server.loop, server.outbox, self.tls.context, by)
        handshake = _Handshake(server, secure)
        secure.on_lost = handshake.over
        secure.on_connected = functools.partial(self._shaken_hands, header, handshake)
        return secure

    def _shaken_hands(self, header: ProxyHeader | None, handshake: _Handshake, stream: Stream) -> None:
        stream.on_lost = None
        handshake.over()
        self._connected(header, stream)

    def _connected(self, header: ProxyHeader | None, stream: Stream) -> None:
        client = self._client(stream, header)
        if client is None:
            stream.abort()  # reset before it was accepted; whose requests these are is not known
        elif self.server.full:
            problem = Problem(503, "too-many-connections", detail="Try again later.")
            stream.write(refusal(self.server, problem, _RETRY, Request("GET", "")))
            stream.close()
        else:
            if isinstance(stream, TlsStream) and not (header is not None and header.tls):
                client.encryption = _encryption(stream)
            self._begin(self.server, client, stream, self.handler)

    def _client(self, stream: Stream, header: ProxyHeader | None) -> Client | None:
        """Say who is on the other side of a connection, or None where that is not known any more."""
        style = self.server.trust.style
        scheme = stream.scheme
        if header is not None and not header.local:
            scheme = "https" if header.tls else scheme
            return Client(header.source, header.source_port, header.destination_port, scheme, style)
        peer = stream.transport.get_extra_info("peername")
        local = stream.transport.get_extra_info("sockname")
        if isinstance(local, str):  # a Unix socket
            return Client("", 0, 0, scheme, style)
        if not isinstance(peer, tuple) or not isinstance(local, tuple):
            return None
        made = Client(peer[0].partition("%")[0], peer[1], local[1], scheme, style)
        if header is not None:  # the proxy itself, or one whom it does not know: nothing more is believed of it
            made.peer = UNKNOWN
        return made


def _encryption(stream: TlsStream) -> Encryption:
    name = stream.server_name or ""
    shown = stream.peer_certificate()
    if shown is None:
        return Encryption(stream.version or "", stream.cipher or "", name)
    return Encryption(stream.version or "", stream.cipher or "", name, shown.der, shown.fields)


class _Refused(asyncio.Protocol):
    """A connection too many, on which nothing can be said before a handshake that costs more than all the rest."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


class _Handshake(ServerConnection):
    """A connection that is not one yet: TLS is still being agreed on. It counts, and a drain ends it."""

    def __init__(self, server: Server, stream: Stream) -> None:
        self._server = server
        self._stream = stream
        server.remember(self)

    def over(self) -> None:
        self._server.forget(self)

    def close_if_idle(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        if self._stream.made:  # otherwise it was accepted in this very turn, and is closed after its handshake
            self._stream.abort()


class _Relayed(asyncio.Protocol, ServerConnection):
    """The beginning of a connection through a proxy: the PROXY header, ahead of everything else."""

    transport: asyncio.Transport

    def __init__(self, listener: Listener, proxies: Trust) -> None:
        self._listener = listener
        self._proxies = proxies
        self._received = b""
        self._by = 0.0
        self._address = ""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        server = self._listener.server
        peer = transport.get_extra_info("peername")
        address = peer[0].partition("%")[0] if isinstance(peer, tuple) else ""
        self._address = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unknown"
        if server.full or not self._proxies.includes(address):
            if not server.full:
                logger.info("%s: refused, since it is none of the proxies that may connect", address)
            self.transport.abort()
            return
        server.remember(self)
        self._by = server.loop.time() + server.limits.handshake_timeout
        self._timer = server.loop.call_at(self._by, self.cancel)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            read = read_proxy_header(self._received)
        except MalformedProxyHeader as error:
            logger.info("%s: refused: %s", self._address, error)
            self.transport.abort()
            return
        if read is not None:
            header, size = read
            self._go_on(header, self._received[size:])

    def _go_on(self, header: ProxyHeader, rest: bytes) -> None:
        """Hand the connection over to what serves it, with the bytes that came behind the header."""
        self._over()
        stream = self._listener.stream(header, self._by)
        self.transport.set_protocol(stream)
        stream.connection_made(self.transport)
        if rest and not self.transport.is_closing():
            stream.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over()

    def close_if_idle(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        self.transport.abort()

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._listener.server.forget(self)
