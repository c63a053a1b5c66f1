"""The other side of a connection, led step by step by a test: what it is sent, what it says, and how it leaves."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, Self


class Answer(NamedTuple):
    """A response as a client saw it."""

    status: int
    headers: dict[str, str]
    content: bytes


class Peer:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, port: int) -> AsyncIterator[Self]:
        """Connect to a port of this machine for as long as the block lasts."""
        peer = cls(*await asyncio.open_connection("127.0.0.1", port))
        try:
            yield peer
        finally:
            peer.writer.transport.abort()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        """Return the next head, its empty line included."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, size: int) -> bytes:
        return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """Return everything up to the end of the other side's direction; a reset is a ConnectionResetError."""
        return await self.reader.read()

    async def answer(self, method: str = "GET") -> Answer:
        """Return the next response."""
        start, *lines = (await self.head())[:-4].decode("latin-1").split("\r\n")
        status = int(start.split(" ")[1])
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if method == "HEAD" or status < 200 or status in (204, 304):
            return Answer(status, headers, b"")
        if "content-length" in headers:
            return Answer(status, headers, await self.exactly(int(headers["content-length"])))
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, await self.chunks())
        return Answer(status, headers, await self.rest())

    async def chunks(self) -> bytes:
        """Return the content of a chunked message, and its trailer section where it has one."""
        content = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            content += await self.exactly(size)
            assert await self.exactly(2) == b"\r\n"
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            content += line
        return content

    async def get(self, path: str = "/", *fields: str, version: str = "1.1", method: str = "GET") -> Answer:
        """Send a request without content and return its answer."""
        self.send("\r\n".join([f"{method} {path} HTTP/{version}", "Host: a", *fields, "", ""]).encode("latin-1"))
        return await self.answer(method)

    def leave(self) -> None:
        """Close the connection in an orderly way."""
        self.writer.close()

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """Close the connection with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    @property
    def left_behind(self) -> bool:
        """Whether the other side has ended its direction."""
        return self.reader.at_eof()


class Service:
    """A listening socket whose connections a test serves by hand."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.accepted = 0
        self._waiting: asyncio.Queue[Peer] = asyncio.Queue()
        self.peers: list[Peer] = []

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._waiting.put_nowait(peer)

    async def accept(self) -> Peer:
        return await self._waiting.get()


@asynccontextmanager
async def service() -> AsyncIterator[Service]:
    """Listen on a port of this machine for as long as the block lasts."""
    made = Service(0)
    listener = await asyncio.start_server(made.connected, "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listener.close()
        for peer in made.peers:
            peer.writer.transport.abort()
