"""The other side of a TLS connection, led step by step by a test, down to the bytes of its records."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from portico.net.stream import NEVER, Stream
from portico.net.tls_stream import TlsStream
from tests.harness.peer import Peer


class TlsPeer:
    """One end of a connection on which TLS is spoken; `raw` is the socket beneath."""

    def __init__(self, raw: Peer, context: ssl.SSLContext, name: str | None = None) -> None:
        """Be the client of a server with `name`; the server where there is none."""
        self.raw = raw
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=name is None, server_hostname=name)

    def step(self) -> bytes:
        """Take a step of the handshake; return what is to be sent."""
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    async def more(self) -> None:
        """Wait for bytes of the other side; raise EOFError at the end of them."""
        data = await self.raw.reader.read(65536)
        if not data:
            raise EOFError("it ended without a close_notify")
        self.incoming.write(data)

    async def handshake(self) -> bytes:
        """Shake hands, but for this side's last flight if it is the client: that is returned, for the test to send."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.raw.send(self.outgoing.read())
                await self.more()
            else:
                return self.outgoing.read()

    async def connect(self) -> None:
        """Shake hands."""
        self.raw.send(await self.handshake())

    def record(self, data: bytes) -> bytes:
        """Return the bytes that carry `data`."""
        self.tls.write(data)
        return self.outgoing.read()

    def ending(self) -> bytes:
        """Return the bytes of a close_notify."""
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.outgoing.read()

    def send(self, data: bytes) -> None:
        self.raw.send(self.record(data))

    async def read(self) -> bytes:
        """Return the next bytes; b"" for a close_notify. Raises EOFError for an end without one, and SSLError."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self.more()

    async def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = await self.read()
            assert piece, "a close_notify came too early"
            data += piece
        return data


class Accepting:
    """A listening socket whose connections speak TLS."""

    def __init__(self) -> None:
        self.port = 0
        self.made: list[TlsStream] = []
        """All connections, whether they have shaken hands or not."""
        self.streams: list[TlsStream] = []
        """Those that have."""
        self.serve: Callable[[TlsStream], None] = lambda _: None

    async def accepted(self) -> TlsStream:
        """Wait until there is a connection that has shaken hands; return the last."""
        while not self.streams:
            await asyncio.sleep(0.001)
        return self.streams[-1]


@asynccontextmanager
async def accepting(context: Callable[[], ssl.SSLContext], handshake: float = NEVER) -> AsyncIterator[Accepting]:
    """Listen on a port of this machine for as long as the block lasts; a handshake may take so many seconds."""
    loop = asyncio.get_running_loop()
    listener = Accepting()

    def connected(stream: Stream) -> None:
        assert isinstance(stream, TlsStream)
        listener.streams.append(stream)
        listener.serve(stream)

    def protocol() -> TlsStream:
        stream = TlsStream(loop, None, context(), loop.time() + handshake)
        stream.on_connected = connected
        listener.made.append(stream)
        return stream

    server = await loop.create_server(protocol, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()
        for stream in listener.made:
            stream.abort()


@asynccontextmanager
async def meeting(port: int, context: ssl.SSLContext, name: str = "a.test") -> AsyncIterator[TlsPeer]:
    """Connect to a port of this machine and shake hands."""
    async with Peer.connected(port) as raw:
        peer = TlsPeer(raw, context, name)
        await peer.connect()
        yield peer
