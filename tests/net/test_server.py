from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import pytest

from portico.errors import BodyTruncated, RequestTimeout
from portico.http.body import Body, Trailers
from portico.http.headers import Headers
from portico.http.message import Request, Response
from portico.http.target import EncodedSlashes
from portico.net.h1_server import DISCARD_BYTES
from portico.net.listener import Listener
from portico.net.server import Server, ServerLimits
from portico.observe.exchange import Exchange, Outcome
from tests.harness.loop import run, run_jumping, turns, until
from tests.harness.peer import Peer

Handle = Callable[[Request], Awaitable[Response]]


class Serving:
    """A server on a port of this machine, with the exchanges of the requests that its handler was given."""

    def __init__(self, handler: Handle, limits: ServerLimits, tasks: asyncio.TaskGroup) -> None:
        self.exchanges: list[Exchange] = []
        self.port = 0

        async def handle(request: Request) -> Response:
            assert request.exchange is not None
            self.exchanges.append(request.exchange)
            return await handler(request)

        self.server = Server(handle, limits, EncodedSlashes.KEEP, tasks)

    def client(self) -> AbstractAsyncContextManager[Peer]:
        return Peer.connected(self.port)


@asynccontextmanager
async def serving(handler: Handle, limits: ServerLimits | None = None) -> AsyncIterator[Serving]:
    async with asyncio.TaskGroup() as tasks:
        made = Serving(handler, limits or ServerLimits(), tasks)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(Listener(made.server).protocol, "127.0.0.1", 0)
        made.port = listener.sockets[0].getsockname()[1]
        try:
            yield made
        finally:
            listener.close()
            await made.server.drain(loop.time() + 1)


async def echo(request: Request) -> Response:
    body = request.body.whole if request.body.whole is not None else await request.body.read(1 << 20)
    return Response(200, Headers([(b"X-Path", request.target.encode())]), body)


class Pieces:
    """Content that a test pushes piece by piece."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.queue: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        for piece in pieces:
            self.queue.put_nowait(piece)
        self.given = 0
        self.closed = False

    async def read(self) -> bytes:
        piece = await self.queue.get()
        if isinstance(piece, Exception):
            raise piece
        self.given += len(piece)
        return piece

    def trailers(self) -> Trailers:
        return [(b"X-Sum", b"1")]

    def close(self) -> None:
        self.closed = True


def streamed(*pieces: bytes | Exception, length: int | None = None) -> tuple[Handle, Pieces]:
    source = Pieces(*pieces)

    async def handle(_: Request) -> Response:
        return Response(200, None, Body.stream(source, length))

    return handle, source


async def never(_: Request) -> Response:
    await asyncio.Event().wait()
    raise AssertionError


def test_one_connection_carries_many_requests() -> None:
    async def main() -> None:
        async with serving(echo) as served, served.client() as client:
            for path in ("/1", "/2?x", "/3"):
                answer = await client.get(path)
                assert (answer.status, answer.headers["x-path"]) == (200, path)
                assert "connection" not in answer.headers
                assert "date" in answer.headers
            await until(lambda: served.exchanges[-1].outcome)
            assert [exchange.outcome for exchange in served.exchanges] == [Outcome.COMPLETE] * 3
            assert [exchange.status for exchange in served.exchanges] == [200] * 3

    run(main)


def test_pipelined_requests_are_answered_in_turn() -> None:
    async def main() -> None:
        async with serving(echo) as served, served.client() as client:
            client.send(
                b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"
                b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
                b"POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n"
                b"GET /4 HTTP/1.1\r\nHost: a\r\n\r\nGET /5 HT"
            )
            answers = [await client.answer() for _ in range(4)]
            assert [(answer.headers["x-path"], answer.content) for answer in answers] == [
                ("/1", b"ab"), ("/2", b""), ("/3", b"c"), ("/4", b"")
            ]  # fmt: skip
            client.send(b"TP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.answer()).headers["x-path"] == "/5"

    run(main)


def test_a_body_streams_as_it_comes() -> None:
    seen: list[bytes] = []
    trailers: Trailers = []

    async def handle(request: Request) -> Response:
        assert request.body.length is None
        while piece := await request.body.chunk():
            seen.append(piece)
        trailers.extend(request.body.trailers())
        return Response(204)

    async def main() -> None:
        async with serving(handle) as served, served.client() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in (b"1\r\na\r\n", b"2\r\nbc\r\n"):
                client.send(piece)
                await until(lambda piece=piece: seen and seen[-1] in piece, "the piece")
            client.send(b"0\r\nX-Sum: 1\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, "connection" in answer.headers) == (204, False)
            assert seen == [b"a", b"bc"]
            assert trailers == [(b"X-Sum", b"1")]
            assert served.exchanges[0].bytes_in == 3

    run(main)


def test_a_slow_handler_holds_the_client_back() -> None:
    async def main() -> None:
        async with serving(never) as served, served.client() as client:
            client.writer.transport.set_write_buffer_limits(1 << 16)
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 50_000_000)
            await until(lambda: served.exchanges)
            (connection,) = served.server._connections
            await until(lambda: not connection._stream.transport.is_reading(), "reading to stop")
            await turns(100)
            assert client.writer.transport.get_write_buffer_size() > 20_000_000

    run(main)


def test_an_answer_streams_as_it_comes() -> None:
    handle, source = streamed()

    async def main() -> None:
        async with serving(handle) as served, served.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"\r\nTransfer-Encoding: chunked\r\n" in await client.head()
            source.queue.put_nowait(b"one")
            assert await client.exactly(8) == b"3\r\none\r\n"
            source.queue.put_nowait(b"")
            assert await client.exactly(15) == b"0\r\nX-Sum: 1\r\n\r\n"
            await until(lambda: served.exchanges[0].outcome)
            assert (served.exchanges[0].bytes_out, served.exchanges[0].outcome) == (3, Outcome.COMPLETE)
            assert source.closed

    # asyncio.Queue belongs to the loop that first waits on it: the source is used in one run only
    run(main)


def test_an_answer_of_known_length_streams_without_chunks() -> None:
    handle, _ = streamed(b"ab", b"c", b"", length=3)

    async def main() -> None:
        async with serving(handle) as served, served.client() as client:
            answer = await client.get()
            assert (answer.headers["content-length"], answer.content) == ("3", b"abc")
            assert "transfer-encoding" not in answer.headers

    run(main)


def test_http_1_0_is_streamed_to_until_the_close() -> None:
    handle, _ = streamed(b"ab", b"c", b"")

    async def main() -> None:
        async with serving(handle) as served, served.client() as client:
            answer = await client.get("/", "Connection: keep-alive", version="1.0")
            assert (answer.headers["connection"], answer.content) == ("close", b"abc")
            assert "transfer-encoding" not in answer.headers

    run(main)


def test_http_1_0_may_stay_on_demand() -> None:
    async def main() -> None:
        async with serving(echo) as served, served.client() as client:
            answer = await client.get("/", "Connection: keep-alive", version="1.0")
            assert answer.headers["connection"] == "keep-alive"
            answer = await client.get("/", version="1.0")
            assert answer.headers["connection"] == "close"
            assert await client.rest() == b""

    run(main)


def test_a_host_is_not_asked_of_http_1_0() -> None:
    async def main() -> None:
        async with serving(echo) as served, served.client() as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert (await client.answer()).status == 200

    run(main)


def test_head_and_streams_are_no_trouble() -> None:
    handle, source = streamed(b"unwanted", b"")

    async def main() -> None:
        async with serving(handle) as served, served.client() as client:
            for _ in range(2):
                answer = await client.get(method="HEAD")
                assert (answer.status, answer.content) == (200, b"")
            assert source.closed
            assert source.given == 0

    run(main)


def test_an_answer_before_the_upload_ends_closes_the_connection() -> None:
    async def refuse(_: Request) -> Response:
        return Response(403, None, b"no")

    async def main() -> None:
        async with serving(refuse) as served, served.client() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 1000)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"], answer.content) == (403, "close", b"no")
            client.send(b"x" * 99_000)  # taken and thrown away: a reset could have destroyed the answer
            assert await client.rest() == b""

    run(main)


def test_what_is_thrown_away_has_a_limit() -> None:
    async def refuse(_: Request) -> Response:
        return Response(403)

    async def main() -> None:
        async with serving(refuse) as served, served.client() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            assert (await client.answer()).status == 403
            with suppress(ConnectionError):
                for _ in range(200):
                    client.send(b"x" * (DISCARD_BYTES // 16))
                    await client.writer.drain()
            await until(lambda: not served.server._connections, "the connection to end")

    run(main)


def test_content_that_came_already_may_go_unread() -> None:
    async def refuse(_: Request) -> Response:
        return Response(403)

    async def main() -> None:
        async with serving(refuse) as served, served.client() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
            answer = await client.answer()
            assert "connection" not in answer.headers
            assert (await client.get()).status == 403

    run(main)


@pytest.mark.parametrize("how", ["leave", "reset", "half_close"])
def test_a_client_that_leaves_cancels_its_request(how: str) -> None:
    cancelled: list[bool] = []

    async def handle(request: Request) -> Response:
        try:
            return await never(request)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main() -> None:
        async with serving(handle) as served, served.client() as client:
            ended: list[Outcome | None] = []
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: served.exchanges)
            served.exchanges[0].on_end(lambda exchange: ended.append(exchange.outcome))
            getattr(client, how)()
            await until(lambda: not served.server._connections, "the connection to end")
            assert cancelled == [True]
            assert ended == [Outcome.CLIENT_LEFT]
            assert served.exchanges[0].status == 499

    run(main)


def test_a_client_that_leaves_ends_the_stream_of_its_answer() -> None:
    handle, source = streamed(b"one")

    async def main() -> None:
        async with serving(handle) as served, served.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.head()
            client.reset()
            await until(lambda: served.exchanges[0].outcome)
            assert source.closed
            assert (served.exchanges[0].outcome, served.exchanges[0].status) == (Outcome.CLIENT_LEFT, 200)

    run(main)


def test_100_is_sent_when_the_body_is_first_read() -> None:
    async def main() -> None:
        reading = asyncio.Event()

        async def handle(request: Request) -> Response:
            await reading.wait()
            return await echo(request)

        async with serving(handle) as served, served.client() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            await until(lambda: served.exchanges)
            await turns(20)
            reading.set()
            assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"ab")
            assert (await client.answer()).content == b"ab"
            assert (await client.get()).status == 200

    run(main)


def test_100_is_not_sent_to_who_is_refused() -> None:
    async def refuse(_: Request) -> Response:
        return Response(403)

    async def main() -> None:
        async with serving(refuse) as served, served.client() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (403, "close")

    run(main)


async def _hint(request: Request) -> Response:
    if request.interim is not None:
        request.interim(103, Headers([(b"Link", b"</a>"), (b"Connection", b"x")]))
    return Response(204)


def test_interim_answers_go_ahead_of_the_final_one() -> None:
    async def main() -> None:
        async with serving(_hint) as served, served.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await client.head() == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            assert (await client.answer()).status == 204

    run(main)


def test_http_1_0_knows_no_interim_answers() -> None:
    async def main() -> None:
        async with serving(_hint) as served, served.client() as client:
            assert (await client.get(version="1.0")).status == 204

    run(main)


def test_an_interim_answer_that_comes_too_late_is_none() -> None:
    async def main() -> None:
        source = Pieces(b"a")
        requests: list[Request] = []

        async def handle(request: Request) -> Response:
            requests.append(request)
            return Response(200, None, Body.stream(source, None))

        async with serving(handle) as served, served.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.head()
            assert requests[0].interim is not None
            requests[0].interim(103, Headers())
            source.queue.put_nowait(b"")
            assert await client.chunks() == b"aX-Sum: 1\r\n"

    run(main)


def test_an_answer_that_breaks_off_cuts_the_connection() -> None:
    handle, source = streamed(b"one")

    async def main() -> None:
        async with serving(handle) as served, served.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.head()
            assert await client.exactly(8) == b"3\r\none\r\n"
            source.queue.put_nowait(BodyTruncated("gone"))
            with suppress(ConnectionResetError):
                assert await client.rest() == b""
            await until(lambda: not served.server._connections)
            assert served.exchanges[0].outcome is Outcome.TRUNCATED
            assert "gone" in served.exchanges[0].error
            assert source.closed

    run(main)


def test_a_bug_ends_one_connection_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: Request) -> Response:
        if request.path == "/bug":
            raise LookupError("oops")
        return Response(204)

    async def main() -> None:
        async with serving(broken) as served, served.client() as other, served.client() as client:
            client.send(b"GET /bug HTTP/1.1\r\nHost: a\r\n\r\n")
            with suppress(ConnectionResetError):
                assert await client.rest() == b""
            assert served.exchanges[0].outcome is Outcome.FAILED
            assert (await other.get()).status == 204

    with caplog.at_level(logging.ERROR):
        run(main)
    assert "oops" in caplog.text


REFUSED = {
    b"garbage\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n": 400,
    b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n": 431,
    b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n": 414,
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n": 431,
    b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n": 501,
    b"GET / HTTP/3.0\r\nHost: a\r\n\r\n": 505,
    b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n": 405,
    b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n": 405,
}


@pytest.mark.parametrize(("data", "status"), REFUSED.items(), ids=lambda value: str(value)[:40])
def test_what_never_becomes_a_request_is_answered_and_the_connection_closed(data: bytes, status: int) -> None:
    async def main() -> None:
        async with serving(echo) as served, served.client() as client:
            client.send(data)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            assert answer.headers["content-type"] == "application/problem+json"
            assert json.loads(answer.content)["status"] == status
            assert await client.rest() == b""
            assert served.exchanges == []

    run(main)


def test_a_bad_request_behind_a_good_one_spoils_only_itself() -> None:
    async def main() -> None:
        async with serving(echo) as served, served.client() as client:
            client.send(b"GET /good HTTP/1.1\r\nHost: a\r\n\r\nbad\r\n\r\n")
            assert (await client.answer()).headers["x-path"] == "/good"
            assert (await client.answer()).status == 400
            assert served.exchanges[0].outcome is Outcome.COMPLETE
            assert served.exchanges[0].status == 200

    run(main)


def test_the_absolute_form_overrides_the_host() -> None:
    async def handle(request: Request) -> Response:
        return Response(200, Headers([(b"X-Host", request.host.encode())]))

    async def main() -> None:
        async with serving(handle) as served, served.client() as client:
            assert (await client.get("http://B.example/x")).headers["x-host"] == "b.example"
            assert (await client.get("/x")).headers["x-host"] == "a"
            assert (await client.get("/x")).headers["x-host"] == "a"

    run(main)


def test_an_idle_connection_is_closed_in_silence() -> None:
    async def main() -> None:
        async with serving(echo, ServerLimits(keepalive_timeout=75)) as served, served.client() as client:
            await client.get()
            begin = asyncio.get_running_loop().time()
            assert await client.rest() == b""
            assert 74 < asyncio.get_running_loop().time() - begin < 77

    run_jumping(main)


def test_a_connection_without_a_request_is_closed_in_silence() -> None:
    async def main() -> None:
        async with serving(echo, ServerLimits(head_timeout=30)) as served, served.client() as client:
            begin = asyncio.get_running_loop().time()
            assert await client.rest() == b""
            assert 29 < asyncio.get_running_loop().time() - begin < 32

    run_jumping(main)


@pytest.mark.parametrize("first", [True, False])
def test_a_slow_head_is_answered_408(*, first: bool) -> None:
    async def main() -> None:
        async with serving(echo, ServerLimits(head_timeout=30)) as served, served.client() as client:
            if not first:
                await client.get()
            begin = asyncio.get_running_loop().time()
            for byte in b"GET / HTTP/1.1\r\n":
                client.send(bytes([byte]))
                await asyncio.sleep(2)  # of a clock that jumps
                if client.left_behind:
                    break
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            assert 29 < asyncio.get_running_loop().time() - begin < 36

    run_jumping(main)


def test_a_slow_body_is_the_readers_to_answer() -> None:
    async def handle(request: Request) -> Response:
        with pytest.raises(RequestTimeout):
            await request.body.read(10)
        return Response(408)

    async def main() -> None:
        async with serving(handle, ServerLimits(body_timeout=20)) as served, served.client() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (408, "close")

    run_jumping(main)


def test_a_slow_handler_is_not_a_slow_client() -> None:
    async def handle(_: Request) -> Response:
        await asyncio.sleep(1000)  # of a clock that jumps
        return Response(204)

    async def main() -> None:
        async with serving(handle) as served, served.client() as client:
            assert (await client.get()).status == 204
            assert (await client.get()).status == 204

    run_jumping(main)


@pytest.mark.parametrize("whole", [True, False])
def test_a_client_that_does_not_read_is_cut_off_in_time(*, whole: bool) -> None:
    size = 30_000_000
    body = b"x" * size

    async def handle(_: Request) -> Response:
        return Response(200, None, body if whole else Body.stream(Pieces(body, b""), None))

    async def main() -> None:
        async with serving(handle, ServerLimits(body_timeout=20)) as served:
            async with served.client() as client:
                client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.writer.transport.pause_reading()
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await until(lambda: served.server._connections)
                (connection,) = served.server._connections
                transport = connection._stream.transport
                await asyncio.sleep(60)  # of a clock that jumps
                assert not served.server._connections
                assert connection._stream.closed
                assert transport.is_closing()
            assert served.exchanges[0].outcome is Outcome.CLIENT_LEFT

    run_jumping(main)


def test_a_slow_client_holds_the_source_back() -> None:
    async def main() -> None:
        source = Pieces(*[b"x" * 100_000] * 400)

        async def handle(_: Request) -> Response:
            return Response(200, None, Body.stream(source, None))

        async with serving(handle) as served, served.client() as client:
            client.writer.transport.pause_reading()
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: served.exchanges)
            (connection,) = served.server._connections
            await until(lambda: connection._stream.congested)
            given = source.given
            await turns(100)
            assert source.given <= given + 100_000
            assert source.given < 30_000_000

    run(main)


def test_a_drain_lets_requests_under_way_end_and_closes_the_rest() -> None:
    async def main() -> None:
        answering = asyncio.Event()

        async def handle(request: Request) -> Response:
            if request.path == "/slow":
                await answering.wait()
            return Response(204)

        async with serving(handle) as served, served.client() as idle, served.client() as busy:
            loop = asyncio.get_running_loop()
            await idle.get()
            busy.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: len(served.exchanges) == 2)
            drained = loop.create_task(served.server.drain(loop.time() + 60))
            assert await idle.rest() == b""
            assert not drained.done()
            answering.set()
            answer = await busy.answer()
            assert (answer.status, answer.headers["connection"]) == (204, "close")
            assert await busy.rest() == b""
            await drained
            assert served.exchanges[1].outcome is Outcome.COMPLETE

    run(main)


def test_a_connection_that_begins_during_a_drain_has_one_answer() -> None:
    async def main() -> None:
        async with serving(echo) as served, served.client() as client:
            loop = asyncio.get_running_loop()
            drained = loop.create_task(served.server.drain(loop.time() + 60))
            await until(lambda: drained.done() or served.server.draining)
            async with served.client() as late:  # its handshake was under way, or it came out of the queue
                late.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = await late.answer()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert await late.rest() == b""
            assert await client.rest() == b""
            await drained

    run(main)


def test_a_drain_ends_at_its_deadline(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(never) as served, served.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: served.exchanges)
            begin = asyncio.get_running_loop().time()
            await served.server.drain(begin + 30)
            assert 29 < asyncio.get_running_loop().time() - begin < 32
            with suppress(ConnectionResetError):
                assert await client.rest() == b""
            assert served.exchanges[0].outcome is Outcome.CANCELLED

    run_jumping(main)
    assert "still busy" in caplog.text


def test_too_many_connections_are_refused() -> None:
    async def main() -> None:
        async with serving(echo, ServerLimits(connections=1)) as served:
            async with served.client() as first:
                await first.get()
                async with served.client() as second:
                    answer = await second.answer()
                    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                    assert await second.rest() == b""
                assert (await first.get()).status == 200
            await until(lambda: not served.server._connections)
            async with served.client() as third:
                assert (await third.get()).status == 200

    run(main)


def test_a_connection_carries_so_many_requests_and_no_more() -> None:
    async def main() -> None:
        limits = ServerLimits(requests_per_connection=2)
        async with serving(echo, limits) as served, served.client() as client:
            assert "connection" not in (await client.get()).headers
            assert (await client.get()).headers["connection"] == "close"
            assert await client.rest() == b""

    run(main)


def test_the_handler_is_read_anew_for_each_request() -> None:
    async def other(_: Request) -> Response:
        return Response(202)

    async def main() -> None:
        async with serving(echo) as served, served.client() as client:
            assert (await client.get()).status == 200
            served.server.handler = other
            assert (await client.get()).status == 202

    run(main)


def test_a_refusal_leaves_no_error_to_whoever_runs_next() -> None:
    async def main() -> None:
        async with serving(echo) as server, server.client() as client:
            client.send(b"BAD\r\n\r\n")
            assert b" 400 " in await client.head()
            with pytest.raises(LookupError) as raised:  # while the refused connection waits for its client to end
                raise LookupError
            assert raised.value.__context__ is None

    run(main)
