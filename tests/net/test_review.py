"""What a review found and must not come back: each was seen to fail before it was mended."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from portico.errors import BodyTruncated, UpstreamError
from portico.http.body import Body
from portico.http.headers import Headers
from portico.http.message import Request, Response
from portico.net.client import AnswerLimits, Patience
from portico.net.h1_client import H1Connection
from portico.net.pool import Pool, PoolOptions
from portico.net.stream import Outbox, Stream
from portico.upstream.health import HealthReport
from portico.upstream.target import Target
from tests.harness.loop import run
from tests.harness.peer import service
from tests.harness.upstream import service_of
from tests.net.test_server import serving, streamed


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__()
        self.written = b""
        self.broken = broken
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.broken:
            raise TypeError("not bytes")
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


def made(loop: asyncio.AbstractEventLoop, outbox: Outbox | None = None, *, broken: bool = False) -> Stream:
    stream = Stream(loop, outbox)
    stream.connection_made(Wire(broken=broken))
    return stream


def test_the_end_of_one_wait_is_not_the_next_ones() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        stream, gate = made(loop), made(loop)
        upload = loop.create_task(stream.receive())
        await asyncio.sleep(0)

        async def serve() -> bytes:
            await gate.receive()
            upload.cancel()
            return await stream.receive()

        server = loop.create_task(serve())
        await asyncio.sleep(0)

        def one_poll() -> None:
            gate.data_received(b"an answer")
            stream.data_received(b"the client's bytes")

        loop.call_soon(one_poll)
        assert await server == b"the client's bytes"
        with pytest.raises(asyncio.CancelledError):
            await upload

    run(main)


def test_a_write_that_fails_does_not_keep_the_others_back() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        outbox = Outbox(loop)
        first, second = made(loop, outbox, broken=True), made(loop, outbox)
        first.write(b"a")
        second.write(b"b")
        await asyncio.sleep(0)
        assert isinstance(second.transport, Wire)
        assert isinstance(first.transport, Wire)
        assert second.transport.written == b"b"
        assert first.transport.aborted

    run(main)


def test_a_host_that_is_none_is_a_target_that_cannot_be_reached() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            clock = asyncio.get_running_loop().time
            pool = Pool("a..example", 80, None, PoolOptions(1, 1, 1.0, AnswerLimits(4096)), tasks)
            target = Target("http", "a..example:80", b"a..example", "", pool)
            one = service_of([target], name="one")
            assert not (await HealthReport({"one": one}, tasks, clock).states())["one"].well
            answer = await one.handle(Request("GET", "/"))
            assert answer.status == 502

    run(main)


async def _host(request: Request) -> Response:
    return Response(200, None, f"{request.host} {request.headers.text(b'host')}".encode())


def test_the_absolute_form_replaces_the_host_for_everyone() -> None:
    async def main() -> None:
        async with serving(_host) as server, server.client() as client:
            client.send(b"GET http://Public.example:81/ HTTP/1.1\r\nHost: internal.example\r\n\r\n")
            assert (await client.answer()).content == b"public.example Public.example:81"
            client.send(b"GET http://public.example/ HTTP/1.1\r\n\r\n")
            assert (await client.answer()).status == 400

    run(main)


def test_a_reset_is_not_the_end_of_an_answer() -> None:
    async def main() -> None:
        async with service() as target, asyncio.TaskGroup() as tasks:
            pool = Pool("127.0.0.1", target.port, None, PoolOptions(4, 4, 9.0, AnswerLimits(4096)), tasks)
            stream = await pool.connect(1.0, None)
            assert isinstance(stream, H1Connection)
            asking = asyncio.get_running_loop().create_task(
                stream.send(Request("GET", "/"), "/", b"a", Patience(9.0, 9.0))
            )
            peer = await target.accept()
            await peer.head()
            peer.send(b"HTTP/1.1 200 OK\r\n\r\npart")
            answer = await asking
            assert await answer.body.chunk() == b"part"
            raw = peer.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.writer.transport.abort()
            with pytest.raises(UpstreamError):
                await answer.body.chunk()

    run(main)


def test_the_next_requests_body_is_not_the_last_ones() -> None:
    kept: list[Body] = []

    async def keep(request: Request) -> Response:
        kept.append(request.body)
        return Response(204)

    async def main() -> None:
        async with serving(keep) as server, server.client() as client:
            for _ in range(2):
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
                assert (await client.answer()).status == 204
            for body in kept:
                with pytest.raises(BodyTruncated):
                    await body.chunk()

    run(main)


@pytest.mark.parametrize("pieces", [(b"abc", b""), (b"abcdefgh", b"ijkl", b"")])
def test_an_answer_that_is_not_as_long_as_it_says_is_cut(pieces: tuple[bytes, ...]) -> None:
    handle, _ = streamed(*pieces, length=10)

    async def main() -> None:
        async with serving(handle) as server, server.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.head()
            try:
                content = await client.rest()
            except ConnectionResetError:
                return
            assert len(content) <= 10

    run(main)


def test_a_policys_fields_are_not_the_clients_to_take_away() -> None:
    async def main() -> None:
        async def answer(request: Request) -> Response:
            request.headers.set(b"X-User", b"ada")
            fields = h1_fields(request.headers)
            return Response(200, Headers([(b"X-Fields", fields)]))

        async with serving(answer) as server, server.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-user, keep-alive\r\nX-User: eve\r\n\r\n")
            assert (await client.answer()).headers["x-fields"] == "Host=a Connection=x-user, keep-alive X-User=ada"

    run(main)


def h1_fields(headers: Headers) -> bytes:
    return b" ".join(name + b"=" + value for name, value in headers)
