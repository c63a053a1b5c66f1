"""What lies between client and service is the same for every protocol: shown by one that has many streams on one
connection, beside HTTP/1, with the real server, pool, service and runtime."""

from __future__ import annotations

import asyncio
import functools

import pytest

from portico.errors import BodyTruncated, Overloaded
from portico.http.body import Body, Trailers
from portico.http.headers import Headers
from portico.http.message import Client, Request, Response
from portico.http.target import EncodedSlashes
from portico.net.client import outbound_fields, outbound_head
from portico.net.server import Server, ServerLimits
from portico.net.server_stream import ServerStream
from portico.net.stream import HIGH_WATER
from portico.observe.exchange import Outcome
from portico.wire import h1
from portico.wire.events import RequestHead
from tests.harness.codec import Codec, CodecServerStream, Outgoing
from tests.harness.loop import run, run_jumping, turns, until
from tests.harness.seam import (
    PIECE,
    PROTOCOLS,
    WINDOW,
    Desk,
    Endless,
    Pieces,
    Source,
    direct,
    world,
)


class Mirror:
    """Content that a service sends back as it comes, with its trailers and one more."""

    def __init__(self, body: Body) -> None:
        self._body = body

    async def read(self) -> bytes:
        return await self._body.chunk()

    def trailers(self) -> Trailers:
        return [*self._body.trailers(), (b"X-Mirror", b"1")]

    def close(self) -> None:
        self._body.close()


async def mirror(request: Request) -> Response:
    """Answer each method in its own way, with what came."""
    seen = b",".join(request.headers.get_all(b"x-a")) + b" " + request.host.encode() + b" " + request.target.encode()
    headers = Headers([(b"X-Seen", seen), (b"Connection", b"x-hop"), (b"Keep-Alive", b"1")])
    if request.method == "POST":
        request.interim(103, Headers([(b"Link", b"</a.css>")]))
    if request.path == "/204":
        return Response(204, headers)
    status = 201 if request.method == "POST" else 200
    if request.body.whole is not None:
        return Response(status, headers, request.body.whole or b"nothing came")
    return Response(status, headers, Body.stream(Mirror(request.body), request.body.length))


Told = tuple[int, bytes | None, bytes | None, bytes, set[tuple[bytes, bytes]]]


async def _told(response: Response) -> Told:
    content = await response.body.read(1 << 22)
    headers = response.headers
    assert headers.get(b"date") is not None
    assert not {b"keep-alive", b"x-hop"} & set(headers.index)
    trailers = set(response.body.trailers())
    return response.status, headers.get(b"x-seen"), headers.get(b"content-length"), content, trailers


BIG = PIECE * 100


def test_a_service_is_told_the_same_in_pairs() -> None:
    headers = Headers([(b"Host", b"public"), (b"X-Real-IP", b"liar"), (b"TE", b"trailers"), (b"A", b"b"), (b"A", b"c")])
    told = Request("PUT", "/a", None, headers, Body(b"abc"), client=Client("10.0.0.1", 5, 8443, "https"))
    lines = outbound_head(told, "/a", b"svc").split(b"\r\n")
    expected = [line for line in lines[1:] if line and not line.startswith(b"Host:")]
    assert [name + b": " + value for name, value in outbound_fields(told)] == expected[:-1]
    assert (len(expected), expected[-2:]) == (9, [b"Content-Length: 3", b"abc"])
    assert outbound_fields(Request("GET", "/")) == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("said", [None, b"7"])
@pytest.mark.parametrize("length", [None, 0, 3])
def test_a_client_is_told_the_same_in_pairs(method: str, status: int, said: bytes | None, length: int | None) -> None:
    fields = [(b"Keep-Alive", b"1"), (b"A", b"b"), *([(b"Content-Length", said)] if said else [])]
    body = Body.stream(Pieces(), None) if length is None else Body(b"x" * length)
    response = Response(status, Headers(fields), body)
    head = RequestHead(method, b"/", 1, Headers(), 0, True, False)

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            server = Server(mirror, ServerLimits(), EncodedSlashes.KEEP, tasks)
            stream = ServerStream(server, Client("10.0.0.1", 5, 80, "http"))
            pairs = stream.answer_fields(head, response)
            http1 = h1.response_head(status, response.headers, server.date(), body.length, method, 1, True)
            lines = [line for line in http1.split(b"\r\n")[1:] if line and not line.startswith(b"Transfer-Encoding")]
            assert [name + b": " + value for name, value in pairs] == lines

    run(main)


@pytest.mark.parametrize("kinds", PROTOCOLS.values(), ids=PROTOCOLS)
def test_every_protocol_goes_with_every_other(kinds: tuple[bool, bool]) -> None:
    front, back = (Codec() if multiplexed else None for multiplexed in kinds)
    seen = b"b 127.0.0.1 "
    sums = {(b"X-Sum", b"42"), (b"X-Mirror", b"1")}

    async def main() -> None:
        async with world(mirror, front, back) as here:
            ask = here.caller.ask
            assert await _told(await ask("GET", "/?q")) == (200, seen + b"/?q", b"12", b"nothing came", set())
            assert await _told(await ask("HEAD", "/")) == (200, seen + b"/", b"12", b"", set())
            assert await _told(await ask("GET", "/204")) == (204, seen + b"/204", None, b"", set())
            assert here.caller.interims == []
            assert await _told(await ask("PUT", "/", Body(b"small"))) == (200, seen + b"/", b"5", b"small", set())
            big = await ask("PUT", "/", Body(BIG))
            assert (await _told(big))[3] == BIG
            told = await ask("POST", "/up", Body.stream(Pieces(b"one", PIECE, b"three"), None))
            assert await _told(told) == (201, seen + b"/up", None, b"one" + PIECE + b"three", sums)
            assert here.caller.interims == [(103, b"</a.css>")]
            pieces = Pieces(*[PIECE] * 100)
            status, _, length, content, _ = await _told(await ask("POST", "/up", Body.stream(pieces, len(BIG))))
            assert (status, length, content) == (201, b"%d" % len(BIG), BIG)
            # HTTP/1 closes its connection where an answer has begun before the upload's end; streams need not.
            assert [len(codec.served) for codec in (front, back) if codec is not None] == [1] * sum(kinds)
            await until(lambda: here.gateway.exchanges[-1].outcome)
            assert {outcome for _, outcome in here.gateway.outcomes()} == {Outcome.COMPLETE}
            assert [exchange.bytes_out for exchange in here.gateway.exchanges[-1:]] == [len(BIG)]

    run(main)


def test_a_slow_answer_does_not_hold_the_other() -> None:
    desk = Desk()

    async def main() -> None:
        async with world(desk.handle, Codec(), Codec()) as here:
            slow = here.caller.begin("GET", "/slow")
            await desk.has("/slow")
            for _ in range(3):
                quick = await here.caller.ask("GET", "/now")
                assert quick.body.whole == b"now"
            first, second = Source(b"a"), Source(b"b")
            desk.give("/slow", Response(200, None, Body.stream(first, None)))
            other = here.caller.begin("GET", "/other")
            await desk.has("/other")
            desk.give("/other", Response(200, None, Body.stream(second, None)))
            one, two = await slow, await other
            read = [await one.body.chunk(), await two.body.chunk()]
            second.push(b"bb", b"")
            read += [await two.body.chunk(), await two.body.chunk()]
            first.push(b"aa", b"")
            read += [await one.body.chunk(), await one.body.chunk()]
            assert read == [b"a", b"b", b"bb", b"", b"aa", b""]
            assert one.body.trailers() == two.body.trailers() == [(b"X-Sum", b"42")]
            assert here.connections() == (1, 1)

    run(main)


def test_who_finds_no_room_opens_another_connection() -> None:
    desk = Desk()

    async def main() -> None:
        async with world(desk.handle, Codec(room=2), Codec(room=2)) as here:
            under_way = []
            for path in ("/a", "/b", "/c"):
                under_way.append(here.caller.begin("GET", path))
                await desk.has(path)
            assert here.connections() == (2, 2)
            desk.give("/a", Response(200))
            await under_way[0]
            under_way.append(here.caller.begin("GET", "/d"))
            await desk.has("/d")
            assert here.connections() == (2, 2)
            for path in ("/b", "/c", "/d"):
                desk.give(path, Response(200))
            assert [(await answer).status for answer in under_way] == [200] * 4

    run(main)


def test_a_pool_keeps_to_its_connections() -> None:
    desk = Desk()

    async def main() -> None:
        async with world(desk.handle, Codec(), Codec(room=2), max_connections=1) as here:
            under_way = []
            for path in ("/a", "/b"):
                under_way.append(here.caller.begin("GET", path))
                await desk.has(path)
            refused = await here.caller.ask("GET", "/c")
            assert (refused.status, here.connections()) == (503, (1, 1))
            desk.give("/a", Response(200))
            await under_way[0]
            assert (await here.caller.ask("GET", "/now")).status == 200
            desk.give("/b", Response(200))
            await under_way[1]
        async with direct(desk.handle, Codec(room=1), max_connections=1) as (caller, _):
            one = caller.begin("GET", "/one")
            await desk.has("/one")
            with pytest.raises(Overloaded):
                await caller.ask("GET", "/two")
            desk.give("/one", Response(200))
            await one

    run(main)


def has_sent(outgoing: Outgoing, size: int) -> bool:
    return outgoing.sent == size


def only_stream(codec: Codec) -> CodecServerStream:
    (connection,) = codec.served
    (stream,) = connection.streams.values()
    return stream


def test_an_answer_goes_as_far_as_it_is_read() -> None:
    desk, codec, source = Desk(), Codec(WINDOW), Endless()

    async def main() -> None:
        async with direct(desk.handle, codec) as (caller, _):
            asked = caller.begin("GET", "/endless")
            await desk.has("/endless")
            desk.give("/endless", Response(200, None, Body.stream(source, None)))
            answer = await asked
            outgoing = only_stream(codec).outgoing
            (incoming,) = (stream.incoming for stream in codec.spoken[0].streams.values())
            await until(lambda: incoming.unread == WINDOW)
            await turns()
            assert (outgoing.sent, outgoing.window) == (WINDOW, 0)
            assert source.given == WINDOW + len(PIECE)
            assert (await caller.ask("GET", "/now")).body.whole == b"now"
            assert incoming.credited == 0
            for count in (1, 2, 3):
                assert await answer.body.chunk() == PIECE
                await until(functools.partial(has_sent, outgoing, WINDOW + count * len(PIECE)))
                await turns()
                assert incoming.credited == count * len(PIECE)
                assert source.given == WINDOW + (count + 1) * len(PIECE)
            answer.body.close()
            await until(lambda: source.closed)
            assert caller.pool.connections == 1

    run(main)


def test_an_answer_in_memory_is_complete_once_it_is_out() -> None:
    codec = Codec(WINDOW)

    async def handle(_: Request) -> Response:
        return Response(200, None, BIG)

    async def main() -> None:
        async with direct(handle, codec) as (caller, side):
            answer = await caller.ask()
            outgoing = only_stream(codec).outgoing
            await until(lambda: outgoing.sent == WINDOW)
            await turns()
            assert (side.exchanges[0].status, side.exchanges[0].outcome) == (200, None)
            assert await answer.body.read(1 << 20) == BIG
            await until(lambda: side.exchanges[0].outcome)
            assert side.outcomes() == [(200, Outcome.COMPLETE)]

    run(main)


def test_a_request_goes_as_far_as_it_is_read() -> None:
    codec, upload = Codec(WINDOW), Endless()
    requests: list[Request] = []
    answers: asyncio.Queue[Response] = asyncio.Queue()

    async def handle(request: Request) -> Response:
        if request.path == "/now":
            return Response(200, None, b"now")
        requests.append(request)
        return await answers.get()

    async def main() -> None:
        async with direct(handle, codec) as (caller, side):
            asked = caller.begin("POST", "/up", Body.stream(upload, None))
            await until(lambda: requests)
            stream = only_stream(codec)
            await until(lambda: stream.incoming.unread == WINDOW)
            await turns()
            assert upload.given == WINDOW + len(PIECE)
            assert (await caller.ask("GET", "/now")).body.whole == b"now"
            assert await requests[0].body.chunk() == PIECE
            await until(lambda: upload.given == WINDOW + 2 * len(PIECE))
            assert (stream.incoming.credited, side.exchanges[0].bytes_in) == (len(PIECE), len(PIECE))
            answers.put_nowait(Response(200, None, b"enough"))
            assert (await asked).body.whole == b"enough"
            await until(lambda: not codec.served[0].streams)
            assert (side.outcomes()[0], caller.pool.connections) == ((200, Outcome.COMPLETE), 1)
            assert (await caller.ask("GET", "/now")).status == 200
            with pytest.raises(BodyTruncated):
                await requests[0].body.chunk()

    run(main)


def test_a_slow_reader_stops_the_service_through_the_gateway() -> None:
    desk, front, back, source = Desk(), Codec(WINDOW), Codec(WINDOW), Endless()

    async def main() -> None:
        async with world(desk.handle, front, back) as here:
            asked = here.caller.begin("GET", "/endless")
            await desk.has("/endless")
            desk.give("/endless", Response(200, None, Body.stream(source, None)))
            answer = await asked
            outgoing = only_stream(back).outgoing
            held = 2 * WINDOW + len(PIECE)  # two windows, and the piece that the gateway cannot send
            await until(lambda: outgoing.sent == held)
            await turns()
            assert (outgoing.sent, source.given) == (held, held + len(PIECE))
            assert (await here.caller.ask("GET", "/now")).status == 200
            await answer.body.chunk()
            await until(lambda: outgoing.sent == held + len(PIECE))
            answer.body.close()

    run(main)


def test_a_pool_lets_go_of_connections_only_when_nothing_is_under_way() -> None:
    desk, codec = Desk(), Codec(room=2)

    async def main() -> None:
        async with direct(desk.handle, codec, max_idle=0) as (caller, _):
            one = caller.begin("GET", "/one")
            await desk.has("/one")
            two = caller.begin("GET", "/two")
            await desk.has("/two")
            desk.give("/one", Response(200, None, b"1"))
            assert (await one).body.whole == b"1"
            assert caller.pool.connections == 1
            three = caller.begin("GET", "/three")
            await desk.has("/three")
            assert caller.pool.connections == 1
            caller.pool.close()
            for path, asked in (("/two", two), ("/three", three)):
                assert not codec.spoken[0]._over
                desk.give(path, Response(200, None, b"done"))
                assert (await asked).body.whole == b"done"
                assert caller.pool.take() is None
            assert codec.spoken[0]._over
            assert caller.pool.connections == 0

    run(main)


@pytest.mark.parametrize(("by_pool", "by_server"), [(3.0, 60.0), (60.0, 3.0)], ids=["by the pool", "by the server"])
def test_an_idle_connection_is_closed_in_time(by_pool: float, by_server: float) -> None:
    desk, codec = Desk(), Codec(room=2)

    async def main() -> None:
        limits = ServerLimits(keepalive_timeout=by_server)
        async with direct(desk.handle, codec, limits, idle_timeout=by_pool) as (caller, side):
            for path in ("/one", "/two"):
                asked = caller.begin("GET", path)
                await desk.has(path)
                await asyncio.sleep(8)
                desk.give(path, Response(200))
                await asked
            await asyncio.sleep(2)
            assert (caller.pool.connections, len(codec.served), side.server._connections) == (1, 1, {*codec.served})
            await asyncio.sleep(2)
            assert (caller.pool.connections, side.server._connections) == (0, set())

    run_jumping(main)


def test_many_streams_wait_for_one_socket() -> None:
    """Windows larger than the socket's buffers: then the socket is what all streams wait for."""
    count, size = 8, 64
    front, back = Codec(HIGH_WATER * 64), Codec(HIGH_WATER * 64)

    async def handle(_: Request) -> Response:
        return Response(200, None, Body.stream(Pieces(*[BIG] * size), None))

    async def main() -> None:
        async with world(handle, front, back) as here:
            await _told(await here.caller.ask("HEAD", "/"))
            answers = [await here.caller.ask("GET", f"/{number}") for number in range(count)]
            assert here.connections() == (1, 1)

            async def size_of(answer: Response) -> int:
                read = 0
                while data := await answer.body.chunk():
                    read += len(data)
                return read

            sizes = await asyncio.gather(*map(size_of, answers))
            assert sizes == [len(BIG) * size] * count

    run(main)
