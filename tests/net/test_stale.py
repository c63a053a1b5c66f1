"""A kept connection that the target has closed, and of which the event loop has not heard when a request comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from portico.errors import Source, UpstreamClosed
from portico.http.body import Body
from portico.http.message import Request
from portico.net.client import Patience
from portico.net.h1_client import H1Connection
from portico.net.pool import Pool, PoolOptions
from portico.net.stream import Outbox
from portico.net.tls import ClientTls
from portico.observe.exchange import Exchange
from portico.upstream.stack import Times
from portico.upstream.target import Target
from tests.harness.certificates import Authority
from tests.harness.loop import run
from tests.harness.upstream import service_of

PATIENCE = Patience(10.0, 10.0)
TURNS = 100
TCP_CLOSE, TCP_CLOSE_WAIT = 7, 8
WAIT = 10.0


class Closing:
    """A server in a thread of its own. It closes each connection when it is told to, after one request or more."""

    def __init__(self, how: str, tls: ssl.SSLContext | None) -> None:
        self.bodies: list[bytes] = []
        """What it was sent, a body for each request."""
        self._how = how
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT)
        self.port = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(WAIT)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                self._connections.append(connection)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        """Answer one request; those that come later on this connection are never read."""
        with connection.makefile("rb") as file:
            length, chunked = 0, False
            while (line := file.readline().lower()) not in (b"\r\n", b""):
                if line.startswith(b"content-length:"):
                    length = int(line[15:])
                chunked = chunked or line.startswith(b"transfer-encoding: chunked")
            body = file.read(length)
            while chunked and (size := int(file.readline(), 16)):
                body += file.read(size)
                file.readline()
            if chunked:
                file.readline()
        self.bodies.append(body)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def close_last(self) -> None:
        """Close the connection that was made last."""
        connection = self._connections[-1]
        if self._how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif isinstance(connection, ssl.SSLSocket):
            connection.settimeout(0)
            with contextlib.suppress(OSError):
                connection.unwrap()  # a close_notify, and no wait for the other one
        connection.close()

    def end(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        self._thread.join(WAIT)


@contextlib.contextmanager
def closing(how: str, tls: ssl.SSLContext | None = None) -> Iterator[Closing]:
    server = Closing(how, tls)
    try:
        yield server
    finally:
        server.end()


@contextlib.asynccontextmanager
async def pool_to(port: int, tls: ClientTls | None = None) -> AsyncIterator[Pool]:
    async with asyncio.TaskGroup() as tasks:
        loop = asyncio.get_running_loop()
        pool = Pool("127.0.0.1", port, tls, PoolOptions(10, 10, 60.0), tasks, Outbox(loop))
        try:
            yield pool
        finally:
            pool.close()


def kept(pool: Pool) -> H1Connection:
    (connection,) = pool._ready
    assert isinstance(connection, H1Connection)
    return connection


def wait_in_kernel(connection: H1Connection) -> None:
    """Wait until the kernel knows that the other side has closed, while the loop stands still."""
    descriptor = connection.stream.transport.get_extra_info("socket").fileno()
    asked = select.poll()
    asked.register(descriptor, select.POLLRDHUP)
    assert asked.poll(WAIT * 1000)
    with socket.socket(fileno=os.dup(descriptor)) as same:
        assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in (TCP_CLOSE, TCP_CLOSE_WAIT)
    assert not connection.stream.eof


class Pieces:
    """A body that comes in two pieces, once."""

    def __init__(self, body: bytes) -> None:
        self._pieces = [body[:1], body[1:], b""]

    async def read(self) -> bytes:
        return self._pieces.pop(0)

    def trailers(self) -> list[tuple[bytes, bytes]]:
        return []

    def close(self) -> None:
        pass


def request_of(method: str, body: bytes, *, streamed: bool) -> Request:
    content = Body.stream(Pieces(body), None) if streamed else Body(body)
    return Request(method, "/", body=content, exchange=Exchange(0.0))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stale"))


@pytest.fixture
def sides(request: pytest.FixtureRequest, authority: Authority) -> tuple[ssl.SSLContext | None, ClientTls | None]:
    """Return how the server and the pool speak."""
    if request.param == "http":
        return None, None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("a", "a.test", replaces=True))
    return context, ClientTls(authority.path, None, True, ssl.TLSVersion.TLSv1_2, "a.test")


@pytest.mark.parametrize("sides", ["http", "https"], indirect=True)
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(("method", "streamed"), [("POST", False), ("POST", True), ("PUT", True)])
def test_no_request_fails_or_is_sent_twice_where_each_finds_its_connection_closed(
    sides: tuple[ssl.SSLContext | None, ClientTls | None], how: str, method: str, streamed: bool
) -> None:
    async def main() -> None:
        with closing(how, sides[0]) as server:
            async with pool_to(server.port, sides[1]) as pool:
                target = Target("http", "a", b"a", "", pool)
                service = service_of([target], Times(5.0, PATIENCE.first_byte, PATIENCE.idle, 10.0))
                sent = [b"body %d" % number for number in range(TURNS)]
                for body in sent:
                    if pool.connections:
                        server.close_last()
                        wait_in_kernel(kept(pool))
                    answer = await service.handle(request_of(method, body, streamed=streamed))
                    assert answer.status == 200
                assert server.bodies == sent

    run(main)


def test_nobody_else_asks_the_socket() -> None:
    async def main() -> None:
        with closing("close") as server:
            async with pool_to(server.port) as pool:
                stream = await pool.connect(5.0, None)
                assert (await stream.send(Request("GET", "/"), "/", b"a", PATIENCE)).status == 200
                server.close_last()
                wait_in_kernel(kept(pool))
                again = pool.take()
                assert again is not None
                with pytest.raises(UpstreamClosed) as caught:  # it was sent, and may be sent again
                    await again.send(Request("GET", "/"), "/", b"a", PATIENCE)
                assert (caught.value.retryable, caught.value.detail) == (True, "closed before an answer")

    run(main)


def test_what_has_come_unasked_spoils_a_connection_too() -> None:
    async def main() -> None:
        with closing("close") as server:
            async with pool_to(server.port) as pool:
                stream = await pool.connect(5.0, None)
                assert (await stream.send(Request("GET", "/"), "/", b"a", PATIENCE)).status == 200
                server._connections[-1].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
                asked = select.poll()
                asked.register(kept(pool).stream.transport.get_extra_info("socket").fileno(), select.POLLIN)
                assert asked.poll(WAIT * 1000)
                again = pool.take()
                assert again is not None
                with pytest.raises(UpstreamClosed) as caught:
                    await again.send(request_of("POST", b"a", streamed=False), "/", b"a", PATIENCE)
                assert (caught.value.source, caught.value.retryable) == (Source.RESPONSE, True)
                assert pool.connections == 0
                assert server.bodies == [b""]

    run(main)
