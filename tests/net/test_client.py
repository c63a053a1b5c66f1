from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from portico.errors import MalformedResponse, RequestTimeout, UpstreamClosed, UpstreamError, UpstreamTimeout
from portico.http.body import Body, Trailers
from portico.http.headers import Headers
from portico.http.message import Client, Request, Response
from portico.http.target import EncodedSlashes
from portico.net.client import MAX_INTERIM, AnswerLimits, Patience, outbound_head
from portico.net.h1_client import H1Connection
from portico.net.listener import Listener
from portico.net.pool import Pool, PoolOptions
from portico.net.server import Server, ServerLimits
from portico.observe.exchange import Exchange, Outcome
from tests.harness.loop import run, run_jumping, turns, until
from tests.harness.peer import Peer, Service, service

OPTIONS = PoolOptions(10, 10, 60.0, AnswerLimits(1000))


class Upstream:
    """A pool, and the service behind it."""

    def __init__(self, pool: Pool, target: Service) -> None:
        self.pool = pool
        self.target = target

    async def begin(self, request: Request, patience: Patience) -> tuple[asyncio.Task[Response], Peer]:
        """Begin to send a request; return what will be its answer, and the service's side of the connection."""
        stream = self.pool.take() or await self.pool.connect(10.0, None)
        sending = asyncio.get_running_loop().create_task(stream.send(request, request.target, b"svc", patience))
        return sending, await self.target.accept()

    def keeps_one(self) -> bool:
        """Tell whether a connection is ready for the next request."""
        stream = self.pool.take()
        if stream is None:
            return False
        assert isinstance(stream, H1Connection)
        self.pool.stream_over(stream)
        return True


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    async with asyncio.TaskGroup() as tasks, service() as target:
        pool = Pool("127.0.0.1", target.port, None, OPTIONS, tasks)
        try:
            yield Upstream(pool, target)
        finally:
            pool.close()


class Upload:
    """Content that a test pushes piece by piece."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    async def read(self) -> bytes:
        piece = await self.queue.get()
        if isinstance(piece, Exception):
            raise piece
        return piece

    def trailers(self) -> Trailers:
        return [(b"X-Sum", b"1")]

    def close(self) -> None:
        pass


def uploading(length: int | None = None, deadline: float | None = None) -> tuple[Request, Upload]:
    upload = Upload()
    request = Request("POST", "/", body=Body.stream(upload, length))
    request.deadline = deadline
    return request, upload


PATIENCE = Patience(10.0, 20.0)


async def content(response: Response) -> bytes:
    return await response.body.read(1 << 20)


def test_a_service_is_told_who_asks() -> None:
    request = Request(
        "GET",
        "/a",
        headers=Headers([(b"Host", b"public"), (b"X-Forwarded-For", b"liar"), (b"x-real-ip", b"liar"), (b"A", b"b")]),
        client=Client("10.0.0.1", 5, 8443, "https"),
    )
    assert outbound_head(request, "/b", b"svc") == (
        b"GET /b HTTP/1.1\r\nHost: svc\r\nA: b\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Port: 8443\r\nX-Forwarded-Host: public\r\nVia: 1.1 portico\r\n\r\n"
    )
    assert outbound_head(Request("GET", "/"), "/", b"svc") == b"GET / HTTP/1.1\r\nHost: svc\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "wire", "status", "expected", "reusable"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", 200, b"ab", True),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
            200,
            b"ab",
            True,
        ),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, b"", True),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        ("GET", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab", 200, b"ab", False),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", 200, b"ab", False),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_an_answer_however_it_comes(
    method: str, wire: bytes, status: int, expected: bytes, size: int, *, reusable: bool
) -> None:
    async def main() -> None:
        async with upstream() as up:
            sending, peer = await up.begin(Request(method, "/a", "b"), PATIENCE)
            assert (await peer.head()).startswith(f"{method} /a?b HTTP/1.1\r\nHost: svc\r\n".encode())
            for at in range(0, len(wire), size):
                peer.send(wire[at : at + size])
                await turns(2)
            response = await sending
            assert (response.status, await content(response)) == (status, expected)
            assert up.keeps_one() == reusable
            assert up.pool.connections == reusable

    run(main)


def test_an_answer_until_the_close() -> None:
    async def main() -> None:
        async with upstream() as up:
            sending, peer = await up.begin(Request("GET", "/"), PATIENCE)
            await peer.head()
            peer.send(b"HTTP/1.1 200 OK\r\n\r\nab")
            response = await sending
            peer.leave()
            assert response.body.length is None
            assert await content(response) == b"ab"
            assert up.pool.connections == 0

    run(main)


def test_trailers_come_with_the_end() -> None:
    async def main() -> None:
        async with upstream() as up:
            sending, peer = await up.begin(Request("GET", "/"), PATIENCE)
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n")
            response = await sending
            assert response.body.trailers() == []
            assert await content(response) == b""
            assert response.body.trailers() == [(b"X", b"y")]

    run(main)


def test_interim_answers_are_passed_on_but_for_100() -> None:
    seen: list[tuple[int, list[tuple[bytes, bytes]]]] = []
    request = Request("GET", "/", interim=lambda status, headers: seen.append((status, headers.pairs)))

    async def main() -> None:
        async with upstream() as up:
            sending, peer = await up.begin(request, PATIENCE)
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
            await until(lambda: seen)
            peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
            assert (await sending).status == 204

    run(main)
    assert seen == [(103, [(b"Link", b"a")]), (103, [(b"Link", b"b")])]


HINTS = b"HTTP/1.1 103 Early Hints\r\n\r\n"


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"", UpstreamClosed),
        (b"HTTP/1.1 200 OK\r\nContent", UpstreamClosed),
        (HINTS, UpstreamClosed),
        (b"SSH-2.0\r\n\r\n", MalformedResponse),
        (b"HTTP/1.1 600 No\r\n\r\n", MalformedResponse),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", MalformedResponse),
        (HINTS * (MAX_INTERIM + 1), MalformedResponse),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 2000, MalformedResponse),
    ],
)
def test_what_is_no_answer_closes_the_connection(wire: bytes, error: type[UpstreamError]) -> None:
    async def main() -> None:
        async with upstream() as up:
            sending, peer = await up.begin(Request("GET", "/"), PATIENCE)
            await peer.head()
            peer.send(wire)
            peer.half_close()
            with pytest.raises(error) as caught:
                await sending
            assert not caught.value.retryable
            assert up.pool.connections == 0
            with suppress(ConnectionResetError):
                assert await peer.rest() == b""

    run(main)


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", UpstreamClosed),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", UpstreamClosed),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", MalformedResponse),
    ],
)
def test_an_answer_that_breaks_off(wire: bytes, error: type[UpstreamError]) -> None:
    async def main() -> None:
        async with upstream() as up:
            sending, peer = await up.begin(Request("GET", "/"), PATIENCE)
            peer.send(wire)
            response = await sending
            peer.half_close()
            with pytest.raises(error):
                await content(response)
            assert up.pool.connections == 0

    run(main)


def test_the_answer_has_to_begin_in_time() -> None:
    async def main() -> None:
        async with upstream() as up:
            begin = asyncio.get_running_loop().time()
            sending, _ = await up.begin(Request("GET", "/"), PATIENCE)
            with pytest.raises(UpstreamTimeout) as caught:
                await sending
            assert not caught.value.retryable
            assert 9.9 < asyncio.get_running_loop().time() - begin < 11
            assert up.pool.connections == 0

    run_jumping(main)


def test_the_answer_has_to_go_on_in_time() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with upstream() as up:
            sending, peer = await up.begin(Request("GET", "/"), PATIENCE)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
            response = await sending
            for piece in (b"a", b"b"):
                await asyncio.sleep(15)  # of a clock that jumps
                peer.send(piece)
                assert await response.body.chunk() == piece
            begin = clock()
            with pytest.raises(UpstreamTimeout):
                await response.body.chunk()
            assert 19 < clock() - begin < 21
            assert up.pool.connections == 0

    run_jumping(main)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
def test_the_deadline_of_a_request_goes_before(head: bytes) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with upstream() as up:
            begin = clock()
            request = Request("GET", "/")
            request.deadline = begin + 5
            sending, peer = await up.begin(request, PATIENCE)
            peer.send(head)
            with pytest.raises(UpstreamTimeout):
                await content(await sending)
            assert 4.9 < clock() - begin < 6

    run_jumping(main)


def test_content_in_memory_leaves_with_the_head() -> None:
    async def main() -> None:
        async with upstream() as up:
            sending, peer = await up.begin(Request("POST", "/", body=Body(b"ab")), PATIENCE)
            assert (await peer.head()).endswith(b"\r\nContent-Length: 2\r\n\r\n")
            assert await peer.exactly(2) == b"ab"
            peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert (await sending).status == 204

    run(main)


@pytest.mark.parametrize("length", [None, 3])
def test_content_streams_as_it_comes(length: int | None) -> None:
    async def main() -> None:
        request, upload = uploading(length)
        async with upstream() as up:
            sending, peer = await up.begin(request, PATIENCE)
            framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: 3"
            assert (await peer.head()).endswith(framing + b"\r\n\r\n")
            upload.queue.put_nowait(b"ab")
            assert await peer.exactly(7 if length is None else 2) in (b"2\r\nab\r\n", b"ab")
            upload.queue.put_nowait(b"c")
            upload.queue.put_nowait(b"")
            rest = b"1\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n" if length is None else b"c"
            assert await peer.exactly(len(rest)) == rest
            peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert (await sending).status == 204
            assert up.keeps_one() is (length is not None)  # some servers take trailers for the next request's headers

    run(main)


def test_a_slow_upload_is_not_a_slow_service() -> None:
    async def main() -> None:
        request, upload = uploading()
        clock = asyncio.get_running_loop().time
        async with upstream() as up:
            sending, peer = await up.begin(request, PATIENCE)
            for _ in range(5):
                await asyncio.sleep(8)  # of a clock that jumps
                upload.queue.put_nowait(b"a")
            upload.queue.put_nowait(b"")
            await peer.head()
            assert await peer.chunks() == b"aaaaaX-Sum: 1\r\n"
            begin = clock()
            with pytest.raises(UpstreamTimeout):
                await sending
            assert 9 < clock() - begin < 11

    run_jumping(main)


def test_a_service_that_takes_nothing_is_a_slow_one() -> None:
    async def main() -> None:
        request, upload = uploading()
        async with upstream() as up:
            sending, peer = await up.begin(request, PATIENCE)
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(100):
                upload.queue.put_nowait(b"x" * 500_000)
            with pytest.raises(UpstreamTimeout):
                await sending
            assert up.pool.connections == 0
            assert upload.queue.qsize() > 10

    run_jumping(main)


def test_an_answer_before_the_end_of_the_upload_ends_it() -> None:
    async def main() -> None:
        request, upload = uploading()
        async with upstream() as up:
            sending, peer = await up.begin(request, PATIENCE)
            await peer.head()
            upload.queue.put_nowait(b"a")
            peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
            response = await sending
            assert (response.status, await content(response)) == (413, b"no")
            assert (up.pool.take(), up.pool.connections) == (None, 0)

    run(main)


def test_an_upload_that_fails_is_told_to_who_waits_for_the_answer() -> None:
    async def main() -> None:
        request, upload = uploading()
        async with upstream() as up:
            sending, peer = await up.begin(request, PATIENCE)
            await peer.head()
            upload.queue.put_nowait(RequestTimeout("too slow"))
            with pytest.raises(RequestTimeout):
                await sending
            assert up.pool.connections == 0
            with suppress(ConnectionResetError):
                assert await peer.rest() == b""

    run(main)


def test_who_gives_up_waiting_closes_the_connection() -> None:
    async def main() -> None:
        async with upstream() as up:
            sending, peer = await up.begin(Request("GET", "/"), PATIENCE)
            await peer.head()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert up.pool.connections == 0
            with suppress(ConnectionResetError):
                assert await peer.rest() == b""

    run(main)


@pytest.mark.parametrize("how", ["close", "end"])
def test_content_that_nobody_reads_closes_the_connection(how: str) -> None:
    async def main() -> None:
        async with upstream() as up:
            exchange = Exchange(1.0)
            sending, peer = await up.begin(Request("GET", "/", exchange=exchange), PATIENCE)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
            response = await sending
            assert exchange.first_byte >= exchange.sent > 0
            if how == "close":
                response.body.close()
                response.body.close()
            else:
                exchange.end(Outcome.COMPLETE, 2.0)
            assert up.pool.connections == 0
            assert await response.body.chunk() == b""
            with suppress(ConnectionResetError):
                await peer.head()
                assert await peer.rest() == b""

    run(main)


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[Server, int, Upstream]]:
    """Run a server whose handler sends everything on."""
    async with upstream() as up, asyncio.TaskGroup() as tasks:

        async def handle(request: Request) -> Response:
            stream = up.pool.take() or await up.pool.connect(10.0, None)
            return await stream.send(request, request.target, b"svc", PATIENCE)

        loop = asyncio.get_running_loop()
        server = Server(handle, ServerLimits(), EncodedSlashes.KEEP, tasks)
        listener = await loop.create_server(Listener(server).protocol, "127.0.0.1", 0)
        try:
            yield server, listener.sockets[0].getsockname()[1], up
        finally:
            listener.close()
            await server.drain(loop.time() + 1)


Script = Callable[[Peer, Peer, Server, Upstream], Awaitable[None]]


def between(script: Script) -> None:
    """Run `script` with a client's and a service's end of one request through a gateway."""

    async def main() -> None:
        async with proxy() as (server, port, up), Peer.connected(port) as client:
            client.send(b"POST /a HTTP/1.1\r\nHost: public\r\nTransfer-Encoding: chunked\r\n\r\n")
            await script(client, await up.target.accept(), server, up)

    run(main)


def test_end_to_end_both_bodies_stream() -> None:
    async def script(client: Peer, target: Peer, server: Server, up: Upstream) -> None:
        await target.head()
        client.send(b"2\r\nab\r\n")
        assert await target.exactly(7) == b"2\r\nab\r\n"
        client.send(b"0\r\nX: y\r\n\r\n")
        assert await target.exactly(11) == b"0\r\nX: y\r\n\r\n"
        target.send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
        assert await client.head() == b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
        target.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await client.head()
        assert await client.exactly(8) == b"3\r\none\r\n"
        target.send(b"0\r\nZ: w\r\n\r\n")
        assert await client.chunks() == b"Z: w\r\n"
        await until(lambda: not up.pool.connections)  # it had trailers from the client

    between(script)


def test_a_service_that_breaks_off_cuts_the_clients_connection() -> None:
    async def script(client: Peer, target: Peer, server: Server, up: Upstream) -> None:
        client.send(b"0\r\n\r\n")
        await target.head()
        target.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await client.head()
        assert await client.exactly(8) == b"3\r\none\r\n"
        target.leave()
        with suppress(ConnectionResetError):
            assert await client.rest() == b""
        await until(lambda: not up.pool.connections)

    between(script)


@pytest.mark.parametrize("when", ["in the upload", "before the answer", "in the answer"])
def test_a_client_that_leaves_closes_the_connection_to_the_service(when: str) -> None:
    async def script(client: Peer, target: Peer, server: Server, up: Upstream) -> None:
        await target.head()
        if when != "in the upload":
            client.send(b"0\r\n\r\n")
            assert await target.chunks() == b""
        if when == "in the answer":
            target.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
            await client.head()
        client.leave()
        with suppress(ConnectionResetError):
            assert await target.rest() == b""
        await until(lambda: not up.pool.connections)
        await until(lambda: not server._connections)

    between(script)


def test_a_refusal_in_the_upload_reaches_the_client() -> None:
    async def script(client: Peer, target: Peer, server: Server, up: Upstream) -> None:
        client.send(b"2\r\nab\r\n")
        await target.head()
        target.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"], answer.content) == (401, "close", b"no")
        client.send(b"1\r\nc\r\n0\r\n\r\n")
        assert await client.rest() == b""

    between(script)
