from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from portico.errors import (
    ConnectFailed,
    MalformedResponse,
    Overloaded,
    RequestTimeout,
    Source,
    UpstreamClosed,
    UpstreamError,
    UpstreamTimeout,
)
from portico.http.body import Body
from portico.http.message import Request, Response
from portico.net.client import Patience
from portico.net.pool import Pool, PoolOptions
from portico.net.stream import NEVER
from portico.observe.exchange import Exchange
from portico.upstream.retry import RetryPolicy
from portico.upstream.roster import Ejecting
from portico.upstream.stack import Service, Times
from portico.upstream.target import Target
from tests.harness.loop import JumpingLoop, run, run_jumping
from tests.harness.peer import service
from tests.harness.upstream import ScriptedPool, Step, service_of

PATIENCE = Patience(3.0, 4.0)


class Scripted:
    """A service with one target for each script."""

    def __init__(
        self,
        *scripts: tuple[Sequence[Step], Sequence[Step]],
        total: float = NEVER,
        retry: Callable[[], RetryPolicy] | None = None,
        ejecting: Ejecting | None = None,
    ) -> None:
        self.log: list[str] = []
        self.runner = asyncio.Runner(loop_factory=JumpingLoop)
        RUNNERS.append(self.runner)
        names = "abc"[: len(scripts)]
        self.pools = [
            ScriptedPool(name, self.log, kept=script[0], connects=script[1])
            for name, script in zip(names, scripts, strict=True)
        ]
        targets = [Target("http", f"{pool.name}:80", pool.name.encode(), f"/{pool.name}", pool) for pool in self.pools]

        async def build() -> Service:
            times = Times(2.0, PATIENCE.first_byte, PATIENCE.idle, total)
            return service_of(targets, times, None if retry is None else retry(), ejecting=ejecting)

        self.service = self.runner.run(build())

    def ask(self, request: Request | None = None) -> Response:
        return self.runner.run(self._ask(request or Request("GET", "/", exchange=Exchange(0.0))))

    async def _ask(self, request: Request) -> Response:
        return await self.service.handle(request)

    def now(self) -> float:
        return self.runner.get_loop().time()


RUNNERS: list[asyncio.Runner] = []


@pytest.fixture(autouse=True)
def _close_loops() -> Iterator[None]:
    yield
    while RUNNERS:
        RUNNERS.pop().close()


def refused() -> ConnectFailed:
    return ConnectFailed("refused", source=Source.CONNECT, retryable=True)


def stale() -> UpstreamClosed:
    return UpstreamClosed("closed", source=Source.RESPONSE, retryable=True)


def fine() -> Response:
    return Response(200)


def test_a_kept_connection_is_used_before_a_new_one() -> None:
    scripted = Scripted(([fine()], []))
    assert scripted.ask().status == 200
    assert scripted.log == ["a again"]


def test_targets_take_turns() -> None:
    scripted = Scripted(([], [fine(), fine()]), ([], [fine(), fine()]))
    for _ in range(4):
        scripted.ask()
    assert scripted.log == ["a new", "b new", "a new", "b new"]


def test_another_target_answers_for_one_that_refuses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "portico.upstream")
    scripted = Scripted(([], [refused(), refused(), fine()]), ([], [fine(), fine(), fine(), fine()]))
    exchange = Exchange(0.0)
    assert scripted.ask(Request("POST", "/", exchange=exchange)).status == 200
    assert scripted.log == ["a fails", "b new"]
    assert (exchange.service, exchange.target, exchange.tries, exchange.error) == ("svc", "b:80", 1, "")
    for _ in range(4):
        scripted.ask()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]  # each change is told once
    assert "a:80 is not reachable" in caplog.messages[0]
    assert "a:80 is reachable again" in caplog.messages[1]


def test_each_target_is_tried_once() -> None:
    scripted = Scripted(([], [refused()]), ([], [refused()]), ([], [refused()]))
    exchange = Exchange(0.0)
    response = scripted.ask(Request("GET", "/", exchange=exchange))
    assert sorted(scripted.log) == ["a fails", "b fails", "c fails"]
    assert response.status == 502
    assert response.problem_value is not None
    assert response.problem_value.type == "service-unreachable"
    assert "refused" in exchange.error
    assert "refused" not in response.problem_value.detail + response.problem_value.title


def test_after_a_stale_connection_comes_a_new_one_to_the_same_target() -> None:
    scripted = Scripted(([stale(), fine()], [fine()]), ([fine()], [fine()]))
    exchange = Exchange(0.0)
    assert scripted.ask(Request("GET", "/", exchange=exchange)).status == 200
    assert scripted.log == ["a again", "a new"]
    assert exchange.tries == 2


def test_a_target_that_died_is_left_for_another() -> None:
    scripted = Scripted(([stale()], [refused()]), ([], [fine()]))
    assert scripted.ask().status == 200
    assert scripted.log == ["a again", "a fails", "b new"]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (UpstreamClosed("x", source=Source.RESPONSE), 502, "service-closed-connection"),
        (MalformedResponse("x", source=Source.RESPONSE), 502, "invalid-service-response"),
        (UpstreamTimeout("x", source=Source.RESPONSE), 504, "service-timeout"),
        (Overloaded("x", source=Source.CONNECT), 503, "service-overloaded"),
    ],
)
def test_what_may_have_been_carried_out_is_not_tried_again(error: UpstreamError, status: int, kind: str) -> None:
    scripted = Scripted(([], [error]), ([], [fine()]))
    response = scripted.ask()
    assert len(scripted.log) == 1
    assert response.status == status
    assert response.problem_value is not None
    assert response.problem_value.type == kind
    assert response.problem_value.detail == ""


def test_a_slow_connect_is_tried_elsewhere_and_then_a_504() -> None:
    def slow() -> UpstreamTimeout:
        return UpstreamTimeout("slow", source=Source.CONNECT, retryable=True)

    assert Scripted(([], [slow()]), ([], [fine()])).ask().status == 200
    assert Scripted(([], [slow()]), ([], [slow()])).ask().status == 504


def test_what_is_the_clients_fault_is_the_routes_to_answer() -> None:
    scripted = Scripted(([], [RequestTimeout("slow client")]))
    with pytest.raises(RequestTimeout):
        scripted.ask()


def test_the_target_has_its_own_prefix_authority_and_patience() -> None:
    scripted = Scripted(([fine(), fine()], []))
    scripted.ask(Request("GET", "/x", "y=z"))
    kept = Request("GET", "/x")
    kept.authority = b"public"
    scripted.ask(kept)
    assert scripted.pools[0].sent == [("/a/x?y=z", b"a"), ("/a/x", b"public")]
    assert {(patience.first_byte, patience.idle) for patience in scripted.pools[0].patiences} == {(3.0, 4.0)}


def test_the_total_counts_from_the_first_attempt() -> None:
    scripted = Scripted(([], [fine()]), ([], [fine()]), total=7.0)
    request = Request("GET", "/")
    began = scripted.now()
    scripted.ask(request)
    assert request.deadline == pytest.approx(began + 7.0, abs=1.0)
    assert scripted.pools[0].asked == [(2.0, request.deadline)]
    request = Request("GET", "/")
    request.deadline = began + 1.0
    scripted.ask(request)
    assert request.deadline == began + 1.0


def test_without_a_total_there_is_no_deadline() -> None:
    scripted = Scripted(([], [fine()]))
    request = Request("GET", "/")
    scripted.ask(request)
    assert request.deadline is None
    assert scripted.pools[0].asked == [(2.0, None)]


# The same over real connections.


@asynccontextmanager
async def over_loopback(ports: Sequence[int], patience: Patience, total: float = NEVER) -> AsyncIterator[Service]:
    async with asyncio.TaskGroup() as tasks:
        pools = [Pool("127.0.0.1", port, None, PoolOptions(10, 10, 60.0), tasks) for port in ports]
        targets = [
            Target("http", f"127.0.0.1:{port}", b"svc", "", pool) for port, pool in zip(ports, pools, strict=True)
        ]
        try:
            yield service_of(targets, Times(5.0, patience.first_byte, patience.idle, total))
        finally:
            for pool in pools:
                pool.close()


def asking(made: Service, request: Request) -> asyncio.Task[Response]:
    async def ask() -> Response:
        return await made.handle(request)

    return asyncio.get_running_loop().create_task(ask())


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Request("GET", "/"), 204),
        (lambda: Request("DELETE", "/"), 204),
        (lambda: Request("PUT", "/", body=Body(b"ab")), 204),
        (lambda: Request("POST", "/"), 502),
        (lambda: Request("PATCH", "/", body=Body(b"ab")), 502),
    ],
)
def test_a_stale_connection_costs_an_idempotent_request_nothing(make: Callable[[], Request], expected: int) -> None:
    async def main() -> None:
        async with service() as target, over_loopback([target.port], PATIENCE) as made:
            first = asking(made, Request("GET", "/"))
            peer = await target.accept()
            await peer.head()
            peer.send(NO_CONTENT)
            assert (await first).status == 204
            second = asking(made, make())
            await asyncio.sleep(0)  # it is under way over the kept connection
            peer.reset()
            if expected == 204:
                other = await target.accept()
                await other.head()
                other.send(NO_CONTENT)
            assert (await second).status == expected
            assert target.accepted == (2 if expected == 204 else 1)

    run(main)


def test_a_target_that_refuses_is_passed_over() -> None:
    async def main() -> None:
        async with service() as gone:
            pass
        async with service() as target, over_loopback([gone.port, target.port], PATIENCE) as made:
            asked = asking(made, Request("POST", "/", body=Body(b"ab")))
            peer = await target.accept()
            await peer.head()
            peer.send(NO_CONTENT)
            assert (await asked).status == 204

    run(main)


@pytest.mark.parametrize(
    ("patience", "total", "expected"),
    [(Patience(3.0, NEVER), NEVER, 3.0), (Patience(3.0, 9.0), 2.0, 2.0), (Patience(NEVER, NEVER), 4.0, 4.0)],
)
def test_a_service_that_does_not_answer_is_a_504_in_time(patience: Patience, total: float, expected: float) -> None:
    async def main() -> None:
        async with service() as target, over_loopback([target.port], patience, total) as made:
            clock = asyncio.get_running_loop().time
            begin = clock()
            asked = asking(made, Request("GET", "/"))
            peer = await target.accept()
            assert (await asked).status == 504
            assert expected - 0.1 < clock() - begin < expected + 1
            await peer.head()
            with suppress(ConnectionResetError):
                assert await peer.rest() == b""

    run_jumping(main)


@pytest.mark.parametrize(("total", "expected"), [(NEVER, 5.0), (2.0, 2.0)])
def test_an_answer_that_stalls_breaks_off_in_time(total: float, expected: float) -> None:
    async def main() -> None:
        async with service() as target, over_loopback([target.port], Patience(3.0, 5.0), total) as made:
            clock = asyncio.get_running_loop().time
            begin = clock()
            asked = asking(made, Request("GET", "/"))
            peer = await target.accept()
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
            response = await asked
            with pytest.raises(UpstreamTimeout):
                await response.body.read(100)
            assert expected - 0.1 < clock() - begin < expected + 1

    run_jumping(main)


def test_the_log_tells_of_answers_that_go_wrong_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        fault = MalformedResponse("the status line is malformed", source=Source.RESPONSE)
        pool = ScriptedPool("a", [], kept=[fault] * 4)
        made = service_of([Target("http", "a:1", b"", "", pool)], name="orders")
        for pause in (1.0, 57.0, 3.0, 1.0):
            assert (await made.handle(Request("GET", "/"))).status == 502
            await asyncio.sleep(pause)

    run_jumping(main)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["service orders: target a:1: the status line is malformed (invalid-service-response)"] * 2


def recorded(scripted: Scripted, exchange: Exchange) -> list[tuple[str, str]]:
    """Ask; return the target and the outcome of each try that the record has."""
    scripted.ask(Request("GET", "/", exchange=exchange))
    return [(each.target, each.outcome) for each in exchange.all_tries()]


def test_the_record_has_each_try() -> None:
    scripted = Scripted(([], [refused()]), ([], [fine()]))
    exchange = Exchange(0.0)
    assert recorded(scripted, exchange) == [("a:80", "service-unreachable"), ("b:80", "answered")]
    assert (exchange.try_outcome, exchange.error) == ("", "")

    scripted = Scripted(([], [refused()]), ([], [refused()]))
    exchange = Exchange(0.0)
    assert recorded(scripted, exchange) == [("a:80", "service-unreachable"), ("b:80", "service-unreachable")]
    assert exchange.try_outcome == "service-unreachable"


def test_what_was_answered_at_once_keeps_no_tries() -> None:
    scripted = Scripted(([], [fine()]))
    exchange = Exchange(0.0)
    assert recorded(scripted, exchange) == [("a:80", "answered")]
    assert exchange.tried is None
    assert 0.0 < exchange.connecting <= exchange.connected
