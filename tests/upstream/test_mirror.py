from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from portico.errors import BodyTooLarge
from portico.http.body import Body
from portico.http.headers import Headers
from portico.http.message import Client, Key, Request, Response
from portico.net.pool import Pool, PoolOptions
from portico.observe.exchange import Exchange, Outcome
from portico.upstream.mirror import MAX_DISCARDED, Mirror, MirrorLimits
from portico.upstream.stack import Service, Times
from portico.upstream.target import Target
from tests.harness.loop import run, run_jumping, turns, until
from tests.harness.peer import Service as Listening
from tests.harness.peer import service
from tests.harness.upstream import service_of

LIMITS = MirrorLimits(1.0, 10, 2, 5.0)
SLOT: Key[str] = Key("slot")


class To:
    """A service that notes what it is sent, reads it, and answers what it is told to."""

    def __init__(self, name: str, answer: Callable[[], Awaitable[Response]] | None = None) -> None:
        self.name = name
        self.targets: tuple[Target, ...] = ()
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self.answer = answer

    async def handle(self, request: Request) -> Response:
        self.requests.append(request)
        self.bodies.append(await request.body.read(10**9))
        return Response(200, None, b"ok") if self.answer is None else await self.answer()


class Pieces:
    """A body in pieces; an error among them is raised."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = [*pieces, b""]
        self.closed = False

    async def read(self) -> bytes:
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def trailers(self) -> list[tuple[bytes, bytes]]:
        return [(b"a", b"b")]

    def close(self) -> None:
        self.closed = True


@asynccontextmanager
async def mirroring(
    within: To | Service, to: To | Service, limits: MirrorLimits = LIMITS, lot: float = 0.0
) -> AsyncIterator[Mirror]:
    async with asyncio.TaskGroup() as tasks:
        mirror = Mirror(within, to, limits, frozenset((b"websocket",)), tasks, lambda: lot)
        try:
            yield mirror
        finally:
            mirror.close()


def post(body: Body | bytes = b"") -> Request:
    content = Body(body) if isinstance(body, bytes) else body
    client = Client("192.0.2.7", 1, 80, "http")
    return Request("POST", "/a", "b=c", Headers([(b"Host", b"h"), (b"X", b"y")]), content, "h", client, Exchange(0.0))


async def never() -> Response:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def test_a_copy_is_a_request_of_its_own() -> None:
    async def main() -> None:
        one, two = To("one"), To("two")
        async with mirroring(one, two) as mirror:
            assert (mirror.name, mirror.to, mirror.targets) == ("one", "two", ())
            request = post(b"whole")
            request.captures, request.authority, request[SLOT] = {"id": "7"}, b"asked", "known"
            request.deadline = 99.0
            request.upgrade = b"h2c"  # of which nothing comes here
            assert (await mirror.handle(request)).body.whole == b"ok"
            await until(lambda: two.bodies)
            assert one.requests == [request]
            (copy,) = two.requests
            assert (copy.method, copy.target, copy.host, copy.authority) == ("POST", "/a?b=c", "h", b"asked")
            assert (copy.client, copy.captures, copy[SLOT]) == (request.client, {"id": "7"}, "known")
            assert (copy.exchange, copy.deadline, copy.upgrade) == (None, None, b"")
            copy.interim(103, Headers())
            copy.headers.set(b"X", b"z")
            copy[SLOT] = "other"
            assert (request.headers.get(b"x"), request[SLOT]) == (b"y", "known")
            assert (one.bodies, two.bodies) == ([b"whole"], [b"whole"])
            assert (mirror.copied, mirror.dropped, mirror.failed) == (1, 0, 0)

    run(main)


def test_nothing_that_is_sent_to_the_client_comes_of_a_copy() -> None:
    async def main() -> None:
        told: list[int] = []
        two = To("two")
        async with mirroring(To("one"), two) as mirror:
            request = Request("GET", "/", interim=lambda status, _: told.append(status))
            await mirror.handle(request)
            await until(lambda: two.requests)
            two.requests[0].interim(103, Headers())
            assert told == []

    run(main)


@pytest.mark.parametrize(("share", "lot", "copied"), [(0.3, 0.29, 1), (0.3, 0.3, 0), (1.0, 0.999, 1), (0.0, 0.0, 0)])
def test_a_share_of_the_requests_is_copied(share: float, lot: float, copied: int) -> None:
    async def main() -> None:
        async with mirroring(To("one"), To("two"), LIMITS._replace(share=share), lot) as mirror:
            await mirror.handle(post())
            assert mirror.copied == copied

    run(main)


@pytest.mark.parametrize("length", [None, 10])
def test_a_body_that_streams_is_copied_when_it_has_passed(length: int | None) -> None:
    async def main() -> None:
        one, two = To("one"), To("two")
        async with mirroring(one, two) as mirror:
            request = post(Body.stream(Pieces(b"12345", b"678", b"90"), length))
            assert await request.body.peek(3) == b"123"
            await mirror.handle(request)
            assert request.body.trailers() == [(b"a", b"b")]
            await until(lambda: two.bodies)
            assert (one.bodies, two.bodies) == ([b"1234567890"], [b"1234567890"])
            assert two.requests[0].body.length == 10
            assert (mirror.copied, mirror._noting) == (1, 0)

    run(main)


@pytest.mark.parametrize("body", [Body(b"12345678901"), Body.stream(Pieces(b"12345678901"), 11)])
def test_a_body_that_is_too_large_is_not_copied(body: Body) -> None:
    async def main() -> None:
        one = To("one")
        async with mirroring(one, To("two")) as mirror:
            await mirror.handle(post(body))
            assert one.bodies == [b"12345678901"]
            assert (mirror.copied, mirror._noting) == (0, 0)

    run(main)


@pytest.mark.parametrize("peeked", [0, 11])
def test_a_body_that_turns_out_to_be_too_large_is_not_copied(peeked: int) -> None:
    async def main() -> None:
        one = To("one")
        async with mirroring(one, To("two")) as mirror:
            body = Body.stream(Pieces(b"12345", b"678901", b"2"), None)
            await body.peek(peeked)
            await mirror.handle(post(body))
            assert one.bodies == [b"123456789012"]
            assert (mirror.copied, mirror._noting) == (0, 0)

    run(main)


def test_a_body_that_breaks_off_is_not_copied() -> None:
    async def main() -> None:
        async with mirroring(To("one"), To("two")) as mirror:
            request = post(Body.stream(Pieces(b"12345", BodyTooLarge("no more")), None))
            with pytest.raises(BodyTooLarge):
                await mirror.handle(request)
            assert request.exchange is not None
            request.exchange.end(Outcome.COMPLETE, 1.0)
            assert (mirror.copied, mirror._noting) == (0, 0)

    run(main)


def test_a_body_that_nobody_reads_is_not_copied() -> None:
    async def main() -> None:
        class Refusing(To):
            async def handle(self, request: Request) -> Response:
                return Response(403)

        async with mirroring(Refusing("one"), To("two")) as mirror:
            pieces = Pieces(b"12345")
            request = post(Body.stream(pieces, 5))
            await mirror.handle(request)
            assert mirror._noting == 1
            request.body.close()
            assert (pieces.closed, mirror.copied, mirror._noting) == (True, 0, 0)
            unowned = post(Body.stream(pieces, 5))
            unowned.exchange = None
            await mirror.handle(unowned)
            assert mirror._noting == 0

    run(main)


def test_there_are_no_more_copies_than_allowed() -> None:
    async def main() -> None:
        two = To("two", never)
        async with mirroring(To("one"), two) as mirror:
            streamed = post(Body.stream(Pieces(b"1"), 1))
            first = asyncio.Event()

            class Slow(To):
                async def handle(self, request: Request) -> Response:
                    await first.wait()
                    return await super().handle(request)

            mirror._within = Slow("one")
            waiting = asyncio.get_running_loop().create_task(_of(mirror.handle(streamed)))
            await turns()
            mirror._within = To("one")
            for _ in range(5):
                await mirror.handle(post())
            assert (mirror.copied, mirror.dropped) == (1, 4)  # the body that is being noted down counts
            first.set()
            await waiting
            assert (mirror.copied, mirror.dropped) == (2, 4)

    run(main)


async def _of(answer: Awaitable[Response]) -> Response:
    return await answer


def test_a_copy_has_a_time_and_no_more() -> None:
    async def main() -> None:
        async with mirroring(To("one"), To("two", never)) as mirror:
            begin = asyncio.get_running_loop().time()
            await mirror.handle(post())
            await until(lambda: mirror._copies)
            while mirror._copies:
                await asyncio.sleep(1)
            assert 4 < asyncio.get_running_loop().time() - begin < 7
            assert (mirror.copied, mirror.failed) == (1, 1)

    run_jumping(main)


def test_copies_end_with_their_mirror() -> None:
    async def main() -> None:
        async with mirroring(To("one"), To("two", never)) as mirror:
            await mirror.handle(post())
            await turns()
            await mirror.handle(post())  # it has not begun when it ends
            mirror.close()
            await mirror.handle(post())
            assert mirror.copied == 2
        assert mirror.failed == 0  # and the group has waited for them

    run(main)


@pytest.mark.parametrize("bug", [False, True])
def test_what_fails_is_counted_and_told_to_nobody_else(caplog: pytest.LogCaptureFixture, bug: bool) -> None:
    caplog.set_level(logging.DEBUG, "portico.upstream")

    async def answer() -> Response:
        if bug:
            raise KeyError("a bug")
        return Response.problem(502, "service-unreachable")

    async def main() -> None:
        async with mirroring(To("one"), To("two", answer)) as mirror:
            assert (await mirror.handle(post())).status == 200
            await until(lambda: mirror.failed)
        assert [record.levelname for record in caplog.records] == ["ERROR" if bug else "DEBUG"]

    run(main)


def test_a_change_to_another_protocol_is_not_copied() -> None:
    async def main() -> None:
        async with mirroring(To("one"), To("two")) as mirror:
            request = post()
            request.upgrade = b"websocket"
            await mirror.handle(request)
            assert mirror.copied == 0

    run(main)


def test_who_only_looks_makes_no_copies() -> None:
    async def main() -> None:
        async with mirroring(To("one"), To("two"), LIMITS._replace(share=0.0)) as mirror:
            seen: list[Mirror] = []
            mirror.instead = seen.append
            await mirror.handle(post())
            assert (seen, mirror.copied) == ([mirror], 0)

    run(main)


@asynccontextmanager
async def real(name: str, target: Listening) -> AsyncIterator[tuple[Service, Pool]]:
    """Have a service with a real connection to `target`."""
    async with asyncio.TaskGroup() as tasks:
        pool = Pool("127.0.0.1", target.port, None, PoolOptions(10, 10, 60.0), tasks)
        made = Target("http", name, name.encode(), "", pool)
        try:
            yield service_of([made], Times(5.0, 5.0, 5.0, 5.0), name=name), pool
        finally:
            pool.close()


@pytest.mark.parametrize(("size", "kept"), [(10, 1), (100_000, 1), (MAX_DISCARDED * 2, 0)])
def test_an_answer_is_thrown_away_up_to_a_bound(size: int, kept: int) -> None:
    async def main() -> None:
        async with service() as target, real("two", target) as (two, pool), mirroring(To("one"), two) as mirror:
            await mirror.handle(post(b"body"))
            peer = await target.accept()
            head = await peer.head()
            assert head.startswith(b"POST /a?b=c HTTP/1.1\r\nHost: two\r\nX: y\r\n")
            assert b"X-Forwarded-For: 192.0.2.7\r\n" in head
            assert await peer.exactly(4) == b"body"
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
            await until(lambda: not mirror._copies)
            await until(lambda: pool.connections == kept)
            assert mirror.failed == 0

    run(main)


def test_a_service_that_hangs_keeps_nobody_waiting() -> None:
    async def main() -> None:
        limits = LIMITS._replace(concurrency=5)
        async with service() as target, real("two", target) as (two, pool), mirroring(To("one"), two, limits) as mirror:
            for _ in range(100):  # each of which would otherwise take a copy's whole time
                assert (await mirror.handle(post(b"body"))).status == 200
                await asyncio.sleep(0)
            assert (mirror.copied, mirror.dropped, pool.connections) == (5, 95, 5)
            mirror.close()
            await until(lambda: pool.connections == 0)

    run(main)
