"""Spans on their way to a collector: together, within bounds, and never again where it has not taken them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import orjson
import pytest

from portico.errors import Source, UpstreamTimeout
from portico.exporters.otlp import LONGEST_PAUSE, Collector
from portico.exporters.spans import Ended, payload
from portico.http.message import Request, Response
from portico.observe.exchange import Exchange, Outcome, Result, ResultKind, Trace
from portico.state.slots import Counter
from tests.harness.collector import Span, read
from tests.harness.loop import run, until

TRACE = "12345678901234567890123456789012"


def ended(**given: Any) -> Ended:
    exchange = Exchange(10.0)
    exchange.method, exchange.status, exchange.route, exchange.trace_id = "GET", 200, "orders", TRACE
    exchange.span_id, exchange.sampled, exchange.trace = "a" * 16, True, Trace("b" * 16, 3, 1)
    outcome = given.pop("outcome", Outcome.COMPLETE)
    for name, value in given.items():
        setattr(exchange, name, value)
    exchange.end(outcome, 10.5)
    return Ended(exchange, "/orders/{id}", "/orders/7", None, "a.example", "https", "192.0.2.7", "10.0.0.1", 443, "me")


class World:
    """A collector that answers as the test has it."""

    def __init__(self, tasks: asyncio.TaskGroup, **settings: Any) -> None:
        self.now = 100.0
        self.answer: Response | Exception | None = None
        """None lets everyone wait."""
        self.requests: list[Request] = []
        self.exported, self.lost = Counter.private(), Counter.private()
        self._tasks = tasks
        self.collector = Collector(
            self._handle, "/v1/traces", [(b"X-Key", b"k")], {"service.name": "portico"},
            **{"batch": 3, "queue": 5, "interval": 0.01, "timeout": 0.05, **settings},
            begin=self._begin, clock=lambda: self.now, wall=lambda: self.now + 1000.0,
            exported=self.exported, lost=self.lost,
        )  # fmt: skip

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.create_task(work, name=name)

    async def _handle(self, request: Request) -> Response:
        self.requests.append(request)
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        assert isinstance(self.answer, Response)
        return Response(self.answer.status)

    @property
    def sent(self) -> list[int]:
        """How many requests' spans each batch has."""
        return [len(spans_of(request)) for request in self.requests]


def spans_of(request: Request) -> list[Span]:
    assert request.body.whole is not None
    return read(request.body.whole)[1]


def test_spans_go_together_and_all_of_them_in_the_end() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            it = World(tasks)
            it.answer = Response(200)
            for _ in range(5):
                it.collector.add(ended())
            await until(lambda: it.exported.value == 5)
            assert it.sent == [3, 2]
            assert it.lost.value == 0
            assert it.requests[0].headers.get(b"x-key") == b"k"
            it.collector.add(ended())
            await until(lambda: it.exported.value == 6)

    run(main)


def test_more_than_there_is_room_for_is_lost_and_counted() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            it = World(tasks)
            it.answer = Response(200)
            for _ in range(9):
                it.collector.add(ended())
            assert it.lost.value == 4
            await until(lambda: it.exported.value == 5)

    run(main)


FAILURE = UpstreamTimeout("", source=Source.CONNECT)


@pytest.mark.parametrize("answer", [None, Response(500), Response(302), Response.problem(503, "x"), FAILURE])
def test_a_collector_that_fails_is_left_alone_for_longer_each_time(answer: Response | Exception | None) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            it = World(tasks)
            it.answer = answer
            pauses = []
            for turn in range(8):
                it.collector.add(ended())
                await until(lambda turn=turn: it.lost.value == turn + 1)
                await until(lambda: not it.collector._sending)
                pauses.append(it.collector._not_before - it.now)
                it.now = it.collector._not_before
            assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE]
            it.now -= 0.1
            it.answer = Response(200)
            it.collector.add(ended())
            assert not it.collector._sending
            it.now += 0.1
            it.collector.add(ended())
            await until(lambda: it.exported.value == 2)

    run(main)


def test_what_waits_at_the_end_is_counted() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            it = World(tasks)
            it.answer = Response(500)
            it.collector.add(ended())
            await until(lambda: it.lost.value == 1)
            it.collector.add(ended())
            it.collector.close()
            assert it.lost.value == 2

    run(main)


def spans(**given: Any) -> list[Span]:
    return read(orjson.dumps(payload([ended(**given)], {}, 1000.0)))[1]


def test_times_are_those_of_the_day() -> None:
    (server,) = spans()
    assert (server.began, server.ended) == (1_010_000_000_000, 1_010_500_000_000)


def test_the_parent_is_of_elsewhere() -> None:
    (server,) = spans()
    assert (server.trace_id, server.span_id, server.parent_id) == (TRACE, "a" * 16, "b" * 16)
    assert server.flags == 0x303
    (root,) = spans(trace=Trace("", 3, 1))
    assert (root.parent_id, root.flags) == ("", 0x103)


@pytest.mark.parametrize(
    ("given", "failed", "kind"),
    [
        ({"status": 200}, False, None),
        ({"status": 404, "error": "no-route"}, False, None),
        ({"status": 500, "error": "internal-error"}, True, "500"),
        ({"status": 504, "try_outcome": "service-timeout"}, True, "service-timeout"),
        ({"status": 499, "outcome": Outcome.CLIENT_LEFT}, True, "client-left"),
        ({"status": 200, "outcome": Outcome.TRUNCATED}, True, "truncated"),
    ],
)
def test_what_failed_says_why(given: dict[str, Any], failed: bool, kind: str | None) -> None:
    (server,) = spans(**given)
    assert (server.failed, server.attributes.get("error.type")) == (failed, kind)


def test_a_method_that_nobody_knows_is_not_a_name() -> None:
    (server,) = spans(method="BREW")
    assert server.name == "HTTP /orders/{id}"
    assert server.attributes["http.request.method"] == "_OTHER"
    assert server.attributes["http.request.method_original"] == "BREW"


def test_what_was_waited_for_is_a_span_and_so_is_each_try() -> None:
    each = ended()
    exchange = each.exchange
    exchange.step("forward-auth", 10.1, 10.2, "asked auth")
    exchange.note("geo.country", "CH")
    exchange.results = (Result(ResultKind.CACHE, "near", "miss"),)
    exchange.service, exchange.target, exchange.connecting, exchange.sent = "svc", "[::1]:80", 10.2, 10.21
    exchange.first_byte, exchange.try_span = 10.25, "c" * 16
    exchange.try_again("status-503", 10.26)
    exchange.target, exchange.sent, exchange.first_byte, exchange.try_span = "10.0.0.2:80", 10.3, 10.4, "d" * 16
    server, step, first, last = read(orjson.dumps(payload([each], {}, 0.0)))[1]
    assert server.attributes["portico.geo.country"] == "CH"
    assert server.attributes["portico.result.near"] == "miss"
    assert (step.name, step.kind, step.parent_id) == ("forward-auth", "internal", server.span_id)
    assert (first.span_id, first.kind, first.failed) == ("c" * 16, "client", True)
    assert first.attributes["error.type"] == "503"
    assert first.attributes["http.response.status_code"] == 503
    assert (first.attributes["server.address"], first.attributes["server.port"]) == ("::1", 80)
    assert (last.span_id, last.failed, last.attributes["http.request.resend_count"]) == ("d" * 16, False, 1)
    assert last.events == ["sent", "first byte"]
