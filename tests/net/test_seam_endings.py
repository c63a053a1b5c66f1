"""How one of many streams on a connection ends before its time, and what becomes of the others; see test_seam."""

from __future__ import annotations

import asyncio
import logging

import pytest

from portico.errors import BodyTruncated, UpstreamClosed, UpstreamTimeout
from portico.http.body import Body
from portico.http.duplex import Duplex
from portico.http.message import Request, Response
from portico.net.server import ServerLimits
from portico.observe.exchange import Outcome
from tests.harness.codec import Codec
from tests.harness.loop import run, run_jumping, turns, until
from tests.harness.seam import (
    PIECE,
    PROTOCOLS,
    WINDOW,
    Desk,
    Endless,
    Source,
    direct,
    world,
)


class Closing(Duplex):
    """A connection that no client can be joined to."""

    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("kinds", list(PROTOCOLS.values())[1:], ids=list(PROTOCOLS)[1:])
@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "within the content"])
def test_a_client_takes_one_request_back(kinds: tuple[bool, bool], begun: bool) -> None:
    desk, source = Desk(), Source(PIECE)
    front, back = (Codec() if multiplexed else None for multiplexed in kinds)

    async def main() -> None:
        async with world(desk.handle, front, back) as here:
            gone, stays = here.caller.begin("GET", "/gone"), None
            await desk.has("/gone")
            stays = here.caller.begin("GET", "/stays")
            await desk.has("/stays")
            if begun:
                desk.give("/gone", Response(200, None, Body.stream(source, None)))
                answer = await gone
                assert await answer.body.chunk() == PIECE
                answer.body.close()
                await until(lambda: source.closed)
            else:
                gone.cancel()
                await until(lambda: desk.cancelled == ["/gone"])
            await until(lambda: here.gateway.exchanges[0].outcome and here.service.exchanges[0].outcome)
            status = 200 if begun else 499
            assert here.gateway.outcomes()[0] == here.service.outcomes()[0] == (status, Outcome.CLIENT_LEFT)
            desk.give("/stays", Response(200, None, b"still here"))
            assert await (await stays).body.read(100) == b"still here"
            assert (await here.caller.ask("GET", "/now")).status == 200
            assert here.connections() == (1, 1)
            if front is not None:
                assert (len(front.served), front.served[0].streams) == (1, {})
            if back is not None:
                assert (len(back.served), back.served[0].streams) == (1, {})

    run(main)


@pytest.mark.parametrize("multiplexed", [False, True], ids=["h1", "codec"])
def test_a_service_takes_one_answer_back(multiplexed: bool, caplog: pytest.LogCaptureFixture) -> None:
    desk, back = Desk(), Codec()

    async def main() -> None:
        async with world(desk.handle, Codec() if multiplexed else None, back) as here:
            begun = []
            for path in ("/stays", "/gone", "/cut"):
                begun.append(here.caller.begin("GET", path))
                await desk.has(path)
            stays, gone, cut = begun
            with caplog.at_level(logging.CRITICAL):
                desk.give("/gone", ZeroDivisionError("a bug of the service"))
                assert (await gone).status == 502
            broken = Source(PIECE)
            desk.give("/cut", Response(200, None, Body.stream(broken, None)))
            answer = await cut
            assert await answer.body.chunk() == PIECE
            broken.push(BodyTruncated("it ended early"))
            with pytest.raises(UpstreamClosed):
                await answer.body.chunk()
            desk.give("/stays", Response(200, None, b"still here"))
            assert await (await stays).body.read(100) == b"still here"
            await until(lambda: all(exchange.outcome for exchange in here.gateway.exchanges))
            by_status = sorted(here.gateway.outcomes())
            assert by_status == [
                (200, Outcome.COMPLETE),
                (200, Outcome.TRUNCATED),
                (502, Outcome.COMPLETE),
            ]
            assert (await here.caller.ask("GET", "/now")).status == 200
            assert (here.pool.connections, len(back.spoken), back.spoken[0].streams) == (1, 1, {})

    run(main)


@pytest.mark.parametrize("late", [False, True], ids=["none comes", "one comes"])
def test_a_drain_waits_for_streams_and_refuses_new_ones(late: bool) -> None:
    desk, front = Desk(), Codec()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with world(desk.handle, front, Codec()) as here:
            under_way = [here.caller.begin("GET", path) for path in ("/a",)]
            await desk.has("/a")
            under_way.append(here.caller.begin("GET", "/b"))
            await desk.has("/b")
            draining = loop.create_task(here.gateway.server.drain(loop.time() + 1000))
            await turns()
            if late:
                with pytest.raises(UpstreamClosed, match="reset") as refused:
                    await here.caller.ask("GET", "/late")
                assert refused.value.retryable
                assert here.caller.pool.take() is None
                assert len(here.gateway.exchanges) == 2
            desk.give("/a", Response(200, None, b"a"))
            assert (await under_way[0]).body.whole == b"a"
            await turns()
            assert (draining.done(), here.caller.pool.connections) == (False, 1)
            desk.give("/b", Response(200, None, b"b"))
            assert (await under_way[1]).body.whole == b"b"
            await draining
            assert here.gateway.outcomes() == [(200, Outcome.COMPLETE)] * 2
            await until(lambda: here.caller.pool.connections == 0)

    run(main)


def test_a_connection_is_counted_until_its_last_handler_is_done() -> None:
    codec, cleaned = Codec(), asyncio.Event()
    begun: list[str] = []

    async def handle(request: Request) -> Response:
        begun.append(request.path)
        try:
            await asyncio.Event().wait()
        finally:
            await cleaned.wait()
        raise AssertionError

    async def main() -> None:
        async with direct(handle, codec) as (caller, side):
            asked = caller.begin("GET", "/")
            await until(lambda: begun)
            codec.spoken[0].stream.abort()
            with pytest.raises(UpstreamClosed):
                await asked
            await turns(20)
            assert (side.server._connections, side.exchanges[0].outcome) == ({*codec.served}, None)
            cleaned.set()
            await until(lambda: not side.server._connections)
            assert side.outcomes() == [(499, Outcome.CLIENT_LEFT)]

    run(main)


def test_a_drain_closes_what_is_idle_and_ends_what_takes_too_long() -> None:
    desk = Desk()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with world(desk.handle, Codec(), Codec()) as here:
            await here.caller.ask("GET", "/now")
            await until(lambda: here.gateway.exchanges[0].outcome)
            await here.gateway.server.drain(loop.time() + 1000)
            await until(lambda: here.caller.pool.connections == 0)
            here.gateway.server.draining = False
            under_way = here.caller.begin("GET", "/slow")
            await desk.has("/slow")
            before = loop.time()
            await here.gateway.server.drain(before + 5)
            assert 4.9 < loop.time() - before < 7
            with pytest.raises(UpstreamClosed):
                await under_way
            await until(lambda: desk.cancelled == ["/slow"])
            await until(lambda: here.service.exchanges[1].outcome)
            assert here.gateway.outcomes()[1] == (0, Outcome.CANCELLED)
            assert here.service.outcomes()[1] == (499, Outcome.CLIENT_LEFT)
            assert here.connections()[1] == 1

    run_jumping(main)


def test_a_lost_client_connection_ends_all_its_streams() -> None:
    desk, front, source = Desk(), Codec(), Source(PIECE)

    async def main() -> None:
        async with world(desk.handle, front, Codec()) as here:
            one = here.caller.begin("GET", "/one")
            await desk.has("/one")
            two, upload = here.caller.begin("GET", "/two"), Source(PIECE)
            three = here.caller.begin("POST", "/three", Body.stream(upload, None))
            await desk.has("/two", "/three")
            desk.give("/two", Response(200, None, Body.stream(source, None)))
            answer = await two
            assert await answer.body.chunk() == PIECE
            front.spoken[0].stream.abort()
            for lost in (one, three):
                with pytest.raises(UpstreamClosed):
                    await lost
            with pytest.raises(UpstreamClosed):
                await answer.body.chunk()
            await until(lambda: source.closed and sorted(desk.cancelled) == ["/one", "/three"])
            await until(lambda: all(exchange.outcome for exchange in here.gateway.exchanges))
            assert {outcome for _, outcome in here.gateway.outcomes()} == {Outcome.CLIENT_LEFT}
            assert sorted(status for status, _ in here.gateway.outcomes()) == [200, 499, 499]
            assert here.connections() == (0, 1)
            assert (await here.caller.ask("GET", "/now")).status == 200

    run(main)


def test_a_lost_service_connection_ends_all_its_streams() -> None:
    desk, back, source = Desk(), Codec(), Source(PIECE)

    async def main() -> None:
        async with world(desk.handle, Codec(), back) as here:
            one = here.caller.begin("POST", "/one", Body(b"not to be sent again"))
            await desk.has("/one")
            two = here.caller.begin("GET", "/two")
            await desk.has("/two")
            desk.give("/two", Response(200, None, Body.stream(source, None)))
            answer = await two
            assert await answer.body.chunk() == PIECE
            back.served[0].stream.abort()
            assert (await one).status == 502
            with pytest.raises(UpstreamClosed):
                await answer.body.chunk()
            await until(lambda: all(exchange.outcome for exchange in here.gateway.exchanges))
            assert here.gateway.outcomes() == [(502, Outcome.COMPLETE), (200, Outcome.TRUNCATED)]
            assert here.connections() == (1, 0)
            assert (await here.caller.ask("GET", "/now")).status == 200
            assert here.connections() == (1, 1)

    run(main)


def test_a_bad_request_ends_one_stream(caplog: pytest.LogCaptureFixture) -> None:
    codec, desk = Codec(), Desk()

    async def main() -> None:
        async with direct(desk.handle, codec) as (caller, side):
            refused = await caller.send(caller.request("CONNECT", "/"))
            assert (refused.status, refused.headers.get(b"content-type")) == (405, b"application/problem+json")
            assert refused.headers.get(b"allow") == b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
            assert (await caller.send(caller.request("GET", "/"), b"a b")).status == 400
            assert side.exchanges == []
            with caplog.at_level(logging.ERROR):
                asked = caller.begin("GET", "/bug")
                await desk.has("/bug")
                desk.give("/bug", ZeroDivisionError())
                with pytest.raises(UpstreamClosed):
                    await asked
                asked = caller.begin("GET", "/tunnel")
                await desk.has("/tunnel")
                switched, duplex = Response(101), Closing()
                switched.duplex = duplex
                desk.give("/tunnel", switched)
                with pytest.raises(UpstreamClosed):
                    await asked
            assert duplex.closed
            assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
                ZeroDivisionError,
                ValueError,
            ]
            assert (await caller.ask("GET", "/now")).status == 200
            assert side.outcomes()[:2] == [(0, Outcome.FAILED)] * 2
            assert caller.pool.connections == 1

    run(main)


def test_a_slow_client_loses_one_stream() -> None:
    """What is too slow in coming is a 408; what is too slow in being read is cut."""
    codec, desk, source = Codec(WINDOW), Desk(), Endless()

    async def handle(request: Request) -> Response:
        if request.method == "POST":
            return Response(200, None, await request.body.read(1 << 20))
        return await desk.handle(request)

    async def main() -> None:
        async with direct(handle, codec, ServerLimits(body_timeout=5.0, write_timeout=50.0)) as (caller, side):
            answer = await caller.ask("POST", "/", Body.stream(Source(b"some"), None))
            assert answer.status == 408
            await until(lambda: side.exchanges[0].outcome)
            asked = caller.begin("GET", "/endless")
            await desk.has("/endless")
            desk.give("/endless", Response(200, None, Body.stream(source, None)))
            unread = await asked
            await until(lambda: source.given > WINDOW)
            await asyncio.sleep(10)
            assert (await caller.ask("GET", "/now")).status == 200
            assert side.exchanges[1].outcome is None
            await asyncio.sleep(45)
            with pytest.raises(UpstreamClosed):
                await unread.body.read(1 << 20)
            assert side.outcomes()[:2] == [(408, Outcome.REJECTED), (200, Outcome.CLIENT_LEFT)]
            assert (await caller.ask("GET", "/now")).status == 200
            assert caller.pool.connections == 1

    run_jumping(main)


def test_a_slow_service_loses_one_stream() -> None:
    desk, source = Desk(), Source(PIECE)

    async def main() -> None:
        async with direct(desk.handle, Codec()) as (caller, side):
            loop = asyncio.get_running_loop()
            before = loop.time()
            with pytest.raises(UpstreamTimeout, match="no answer in time"):
                await caller.ask("GET", "/never")
            assert 9.9 < loop.time() - before < 12
            late = caller.request("GET", "/late")
            late.deadline = loop.time() + 3
            with pytest.raises(UpstreamTimeout):
                await caller.send(late)
            assert loop.time() - before < 16
            asked = caller.begin("GET", "/stalls")
            await desk.has("/stalls")
            desk.give("/stalls", Response(200, None, Body.stream(source, None)))
            answer = await asked
            assert await answer.body.chunk() == PIECE
            with pytest.raises(UpstreamTimeout, match="stalled"):
                await answer.body.chunk()
            await until(lambda: source.closed and desk.cancelled == ["/never", "/late"])
            assert caller.pool.connections == 1
            await until(lambda: side.exchanges[2].outcome)
            assert {outcome for _, outcome in side.outcomes()} == {Outcome.CLIENT_LEFT}

    run_jumping(main)


def test_an_answer_that_belongs_to_nobody_is_let_go_of() -> None:
    desk, source = Desk(), Source(PIECE)

    async def main() -> None:
        async with direct(desk.handle, Codec()) as (caller, _):
            asked = asyncio.get_running_loop().create_task(
                caller.send(caller.request("GET", "/forgotten", owned=False))
            )
            await desk.has("/forgotten")
            desk.give("/forgotten", Response(200, None, Body.stream(source, None)))
            await asked
            other = caller.begin("GET", "/other")
            await desk.has("/other")
            await until(lambda: source.given)
            before = asyncio.get_running_loop().time()
            with pytest.raises(UpstreamTimeout):
                await other
            await asyncio.sleep(15)
            assert source.closed
            assert 24 < asyncio.get_running_loop().time() - before < 27
            assert caller.pool.connections == 1

    run_jumping(main)


def test_a_failed_upload_resets_one_stream() -> None:
    desk = Desk()

    async def main() -> None:
        async with world(desk.handle, Codec(), Codec()) as here:
            upload = Source(b"abc")
            asked = here.caller.begin("POST", "/short", Body.stream(upload, 5))
            await desk.has("/short")
            upload.push(b"")
            with pytest.raises(BodyTruncated, match="3 bytes, not 5"):
                await asked
            await until(lambda: here.service.exchanges and here.service.exchanges[0].outcome)
            assert here.service.outcomes() == [(499, Outcome.CLIENT_LEFT)]
            assert (await here.caller.ask("GET", "/now")).status == 200
            assert here.connections() == (1, 1)

    run(main)


def test_nobody_reads_a_request_that_is_over() -> None:
    requests: list[Request] = []

    async def handle(request: Request) -> Response:
        requests.append(request)
        await request.body.read(1 << 20)
        raise AssertionError

    async def main() -> None:
        async with direct(handle, Codec()) as (caller, side):
            asked = caller.begin("POST", "/", Body.stream(Source(PIECE), None))
            await until(lambda: requests and side.exchanges[0].bytes_in)
            asked.cancel()
            await until(lambda: side.exchanges[0].outcome)
            with pytest.raises(BodyTruncated, match="over"):
                await requests[0].body.chunk()

    run(main)


def test_a_request_may_be_taken_back_before_anyone_has_seen_it() -> None:
    codec = Codec()

    async def main() -> None:
        async with direct(Desk().handle, codec) as (caller, side):
            stream = await caller.pool.connect(5.0, None)
            stream.send_request(caller.request(), "/", b"a")
            stream.finish(False)  # in the same turn: one write has both the head and the reset
            assert (await caller.ask("GET", "/now")).status == 200
            await until(lambda: not codec.served[0].streams)
            assert (len(side.exchanges), codec.spoken[0].opened, caller.pool.connections) == (1, 2, 1)

    run(main)


def test_a_refused_request_goes_to_another_connection() -> None:
    """A service that drains refuses by a reset; what it certainly did not carry out is tried again."""
    desk, back = Desk(), Codec()

    async def main() -> None:
        async with world(desk.handle, Codec(), back) as here:
            under_way = here.caller.begin("GET", "/slow")
            await desk.has("/slow")
            back.room = 1  # the service's side of it is full now; it refuses, and the next connection is taken
            answer = await here.caller.ask("GET", "/now")
            assert (answer.status, here.gateway.exchanges[1].tries) == (200, 2)
            assert (here.pool.connections, len(back.served)) == (2, 2)
            desk.give("/slow", Response(200))
            assert (await under_way).status == 200
            await until(lambda: here.pool.connections == 1)
            assert back.spoken[0]._over

    run(main)
