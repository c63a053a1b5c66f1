"""Who watches is told of each exchange twice: before its answer can be seen, and at its end."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from portico.http.message import Key, Observer, Request, Response
from portico.net.server import ServerLimits
from portico.observe.exchange import Exchange, Outcome
from tests.harness.loop import run, until
from tests.net.test_server import Handle, Serving, echo, never, serving, streamed

MARK: Key[object] = Key("mark")


class Told(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str, int, Outcome | None, bool]] = []
        self.requests: list[weakref.ref[Request]] = []

    def answering(self, exchange: Exchange, request: Request | None) -> None:
        self._note("answering", exchange, request)

    def ended(self, exchange: Exchange, request: Request | None) -> None:
        self._note("ended", exchange, request)

    def _note(self, what: str, exchange: Exchange, request: Request | None) -> None:
        self.log.append((what, exchange.method, exchange.status, exchange.outcome, request is not None))


def watched(handler: Handle) -> Handle:
    """Return what answers as a route does that is watched by somebody of its own."""

    async def handle(request: Request) -> Response:
        request.observer = told_of_route
        return await handler(request)

    return handle


told_of_route = Told()


def with_told(serving_: Serving) -> Told:
    told = serving_.server.observer = Told()
    told_of_route.log.clear()
    return told


def test_a_request_is_told_of_before_its_answer_and_at_its_end() -> None:
    async def main() -> None:
        async with serving(watched(echo)) as served, served.client() as client:
            rest = with_told(served)
            for _ in range(2):
                assert (await client.get("/")).status == 200
            await until(lambda: len(told_of_route.log) == 4)
            whole = [("answering", "GET", 200, None, True), ("ended", "GET", 200, Outcome.COMPLETE, True)]
            assert told_of_route.log == whole * 2
            assert rest.log == []

    run(main)


def test_it_has_been_counted_by_the_time_its_client_has_the_head() -> None:
    async def main() -> None:
        handler, source = streamed(b"a")
        async with serving(watched(handler)) as served, served.client() as client:
            with_told(served)
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.head()
            assert [entry[0] for entry in told_of_route.log] == ["answering"]
            source.queue.put_nowait(b"")
            await until(lambda: len(told_of_route.log) == 2)
            assert told_of_route.log[1][3] is Outcome.COMPLETE

    run(main)


def test_a_client_that_leaves_is_told_of_as_499() -> None:
    async def main() -> None:
        async with serving(watched(never)) as served:
            with_told(served)
            async with served.client() as client:
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await until(lambda: served.exchanges)
            await until(lambda: len(told_of_route.log) == 2)
            assert told_of_route.log == [
                ("answering", "GET", 499, None, True),
                ("ended", "GET", 499, Outcome.CLIENT_LEFT, True),
            ]

    run(main)


@pytest.mark.parametrize(
    ("sent", "method", "status"),
    [
        (b"nonsense\r\n\r\n", "", 400),
        (b"GET / HTTP/1.1\r\n\r\n", "GET", 400),
        (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", "TRACE", 405),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", "", 431),
    ],
)
def test_what_never_became_a_request_is_told_to_the_servers_own(sent: bytes, method: str, status: int) -> None:
    async def main() -> None:
        async with serving(watched(echo)) as served, served.client() as client:
            rest = with_told(served)
            client.send(sent)
            assert (await client.answer()).status == status
            await until(lambda: len(rest.log) == 2)
            assert rest.log == [
                ("answering", method, status, None, False),
                ("ended", method, status, Outcome.REJECTED, False),
            ]
            assert told_of_route.log == []

    run(main)


def test_a_request_line_that_does_not_come_is_told_of_too() -> None:
    async def main() -> None:
        async with serving(echo, ServerLimits(head_timeout=0.05)) as served, served.client() as client:
            rest = with_told(served)
            client.send(b"GET / HT")
            assert (await client.answer()).status == 408
            await until(lambda: len(rest.log) == 2)
            assert [entry[2] for entry in rest.log] == [408, 408]

    run(main)


def test_a_bug_of_who_watches_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Observer):
        def answering(self, exchange: Exchange, request: Request | None) -> None:
            raise ValueError("a bug")

        ended = answering

    async def main() -> None:
        async with serving(echo) as served, served.client() as client:
            served.server.observer = Broken()
            for _ in range(2):
                assert (await client.get("/")).status == 200

    run(main)
    assert "could not be counted" in caplog.text


def test_nothing_keeps_a_request_that_is_over() -> None:
    async def main() -> None:
        kept: list[weakref.ref[object]] = []

        async def handle(request: Request) -> Response:
            class Marked:
                pass

            marked = Marked()
            request[MARK] = marked
            kept.append(weakref.ref(marked))
            return Response(200)

        async with serving(handle) as served, served.client() as client:
            with_told(served)
            gc.disable()
            try:
                assert (await client.get("/")).status == 200
                await asyncio.sleep(0)
                assert (await client.get("/")).status == 200  # the connection's own names are of this one now
                assert kept[0]() is None
            finally:
                gc.enable()

    run(main)
