"""Tries that a service may have seen: when there is another, where it goes, and what it is charged to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from portico.errors import ConnectFailed, MalformedResponse, RequestTimeout, Source, UpstreamClosed, UpstreamTimeout
from portico.http.body import Body
from portico.http.headers import Headers
from portico.http.message import Request, Response
from portico.observe.exchange import Exchange
from portico.upstream.retry import Budget, RetryPolicy, retry_after
from portico.upstream.roster import Ejecting
from portico.upstream.stack import Service, Times
from tests.harness.loop import run_jumping
from tests.harness.upstream import ScriptedPool as Pool
from tests.harness.upstream import ScriptedStream, scripted_service

Step = Response | Exception


def refused() -> ConnectFailed:
    return ConnectFailed("refused", source=Source.CONNECT, retryable=True)


def closed() -> UpstreamClosed:
    return UpstreamClosed("closed before an answer", source=Source.RESPONSE)


def stale() -> UpstreamClosed:
    return UpstreamClosed("closed before an answer", source=Source.RESPONSE, retryable=True)


def slow() -> UpstreamTimeout:
    return UpstreamTimeout("no answer in time", source=Source.RESPONSE)


def status(code: int, **headers: str) -> Response:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Response(code, Headers(fields))


def clock() -> float:
    return asyncio.get_running_loop().time()


def policy(**given: object) -> RetryPolicy:
    budget = Budget(float(given.pop("budget", 0.2)), float(given.pop("floor", 100.0)), clock)  # type: ignore[arg-type]
    return RetryPolicy(budget, rng=random.Random(1), **given)  # type: ignore[arg-type]


class Asked:
    """One request to a service whose targets answer as they are told to."""

    def __init__(
        self,
        *scripts: Sequence[Step],
        request: Request | None = None,
        retry: Callable[[], RetryPolicy] | None = policy,
        times: Times | None = None,
        ejecting: Ejecting | None = None,
    ) -> None:
        self.log: list[str] = []
        self.pools = [Pool(name, self.log, connects=script) for name, script in zip("abc", scripts, strict=False)]
        self.request = request or Request("GET", "/", exchange=Exchange(0.0))
        self.seconds = 0.0

        async def main() -> Response:
            service = self.service = scripted_service(
                self.pools, times, None if retry is None else retry(), ejecting=ejecting
            )
            began = clock()
            try:
                return await service.handle(self.request)
            finally:
                self.seconds = clock() - began
                service.close()

        self.response = run_jumping(main)

    @property
    def status(self) -> int:
        return self.response.status


@pytest.mark.parametrize("first", [closed, slow, lambda: status(503), lambda: status(502), lambda: status(504)])
def test_a_request_that_may_be_repeated_goes_to_another_target(first: Callable[[], Step]) -> None:
    asked = Asked([first()], [status(200)])
    assert asked.status == 200
    assert asked.log == ["a new", "b new"]
    assert asked.seconds < 0.01  # nothing is gained by waiting: it is another target


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT"])
@pytest.mark.parametrize("first", [closed, slow, lambda: status(503)])
def test_one_that_may_not_is_answered_as_it_came_out(method: str, first: Callable[[], Step]) -> None:
    outcome = first()
    asked = Asked([outcome], [status(200)], request=Request(method, "/"))
    assert asked.log == ["a new"]
    expected = {UpstreamClosed: 502, UpstreamTimeout: 504, Response: 503}[type(outcome)]
    assert asked.status == expected


def test_methods_can_be_added() -> None:
    assert (
        Asked(
            [closed()], [status(200)], request=Request("POST", "/"), retry=lambda: policy(methods=frozenset(("POST",)))
        ).status
        == 200
    )


def test_without_retry_only_what_was_not_begun_is_repeated() -> None:
    assert Asked([closed()], [status(200)], retry=None).status == 502
    assert Asked([status(503)], [status(200)], retry=None).status == 503
    assert Asked([refused()], [status(200)], retry=None, request=Request("POST", "/")).status == 200


def test_attempts_are_all_tries_together() -> None:
    asked = Asked([closed()], [closed()], [status(200)], retry=lambda: policy(attempts=2))
    assert (asked.status, asked.log) == (502, ["a new", "b new"])


def test_refused_connections_are_no_attempts() -> None:
    asked = Asked([refused()], [closed()], [status(200)], retry=lambda: policy(attempts=2))
    assert (asked.status, asked.log) == (200, ["a fails", "b new", "c new"])


def test_a_target_that_refuses_is_given_another_chance_after_a_while() -> None:
    asked = Asked([refused(), refused(), status(200)], request=Request("POST", "/"))  # no byte of it was sent
    assert (asked.status, asked.log) == (200, ["a fails", "a fails", "a new"])
    assert 0 < asked.seconds < 0.025 + 0.05 + 0.01


def test_waits_double_and_have_a_most() -> None:
    with_waits = Asked([closed()] * 8 + [status(200)], retry=lambda: policy(attempts=9, base=1.0, longest=4.0))
    assert with_waits.status == 200
    assert with_waits.seconds < 1 + 2 + 4 * 6
    assert with_waits.seconds > 3  # drawn by lot: with this seed


def test_the_first_answer_that_is_well_is_it() -> None:
    assert Asked([status(503)], [status(404)], [status(200)]).status == 404


def test_the_last_failure_is_told_where_there_is_no_other_try() -> None:
    asked = Asked([status(503)], [slow()], [status(502)])
    assert (asked.status, asked.log) == (502, ["a new", "b new", "c new"])


def test_statuses_are_a_choice() -> None:
    assert Asked([status(500)], [status(200)]).status == 500
    assert Asked([status(500)], [status(200)], retry=lambda: policy(statuses=frozenset((500,)))).status == 200
    assert Asked([status(429)], [status(200)], retry=lambda: policy(statuses=frozenset((429,)))).status == 200
    assert Asked([status(450)], [status(200)], retry=lambda: policy(statuses=frozenset((429,)))).status == 450
    assert Asked([closed()], [status(200)], retry=lambda: policy(on=frozenset(("timeout",)))).status == 502
    assert Asked([slow()], [status(200)], retry=lambda: policy(on=frozenset(("timeout",)))).status == 200
    assert Asked([slow()], [status(200)], retry=lambda: policy(on=frozenset(("failure",)))).status == 504
    assert Asked([status(503)], [status(200)], retry=lambda: policy(statuses=frozenset())).status == 503
    malformed = MalformedResponse("x", source=Source.RESPONSE)
    assert Asked([malformed], [status(200)], retry=lambda: policy(on=frozenset(("failure",)))).status == 200


def test_an_answer_that_is_not_taken_is_let_go() -> None:
    let_go: list[str] = []

    class Unread:
        async def read(self) -> bytes:
            raise AssertionError

        def trailers(self) -> list[tuple[bytes, bytes]]:
            return []

        def close(self) -> None:
            let_go.append("closed")

    streamed = Response(503, None, Body.stream(Unread(), 1000))
    assert Asked([streamed], [status(200)]).status == 200
    assert let_go == ["closed"]


# Retry-After


def test_an_answer_may_ask_for_some_patience() -> None:
    asked = Asked([status(503, Retry_After="1")], [status(200)])
    assert asked.status == 200
    assert 0.99 < asked.seconds < 1.2


def test_who_asks_for_more_than_the_longest_wait_is_passed_on() -> None:
    asked = Asked([status(503, Retry_After="2")], [status(200)])
    assert (asked.status, asked.log) == (503, ["a new"])


def test_a_date_that_is_none_asks_for_nothing() -> None:
    for value in ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Mon, 01 Jan 2027 00:00:00 +99999999", "Mon"):
        assert retry_after(status(503, Retry_After=value)) == 0.0


@pytest.mark.parametrize(
    ("value", "expected"), [("7", 7.0), ("", 0.0), ("soon", 0.0), ("-1", 0.0), ("1.5", 0.0), ("9" * 30, 0.0)]
)
def test_retry_after_is_seconds(value: str, expected: float) -> None:
    assert retry_after(status(503, Retry_After=value)) == expected


def test_retry_after_may_be_a_date() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)
    assert 28 < retry_after(status(503, Retry_After=format_datetime(soon, usegmt=True))) <= 30
    assert retry_after(status(503, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT")) == 0


# Deadlines


def test_no_try_begins_after_the_time_is_over() -> None:
    asked = Asked([closed(), status(200)], times=Times(total=1.0), retry=lambda: policy(base=1000.0, longest=1000.0))
    assert (asked.status, asked.log) == (502, ["a new"])


def test_the_service_is_told_what_is_left_of_the_time() -> None:
    asked = Asked([status(503, Retry_After="1")], [status(200)], times=Times(total=3.0, tell=b"X-Request-Timeout-Ms"))
    first, second = (int(pool.told[0][b"x-request-timeout-ms"]) for pool in asked.pools)
    assert 2900 < first <= 3000
    assert 1800 < second <= 2000


def test_what_a_service_is_told_is_for_it_alone() -> None:
    request = Request("GET", "/", headers=Headers([(b"x-request-timeout-ms", b"7")]))
    asked = Asked([status(200)], request=request, times=Times(total=3.0, tell=b"X-Request-Timeout-Ms"))
    assert int(asked.pools[0].told[0][b"x-request-timeout-ms"]) > 2900
    assert request.headers.pairs == [(b"x-request-timeout-ms", b"7")]


def test_what_a_client_says_of_the_time_is_not_passed_on() -> None:
    request = Request("GET", "/", headers=Headers([(b"x-request-timeout-MS", b"1")]))
    asked = Asked([status(200)], request=request, times=Times(tell=b"X-Request-Timeout-Ms"))
    assert b"x-request-timeout-ms" not in asked.pools[0].told[0]
    assert b"x-request-timeout-ms" in request.headers  # which is still what the client has said


def test_a_target_is_not_ejected_for_a_request_that_had_no_time_left() -> None:
    late = UpstreamTimeout("no connection in time", source=Source.CONNECT, retryable=False)
    asked = Asked([late], [status(200)], retry=None, ejecting=Ejecting(1, 10.0, 10.0, 0.5))
    assert asked.status == 504
    assert not asked.service.targets[0].ejected_until


def test_what_the_client_takes_to_send_its_request_is_no_time_of_the_service() -> None:
    class Slow(Upload):
        async def read(self) -> bytes:
            await asyncio.sleep(5.0)
            return await super().read()

    put = Request("PUT", "/", body=Body.stream(Slow(b"ab"), 2))
    asked = Asked([status(200)], request=put, times=Times(total=1.0))
    assert asked.status == 200


def test_where_no_time_is_left_nobody_is_asked_or_blamed() -> None:
    request = Request("GET", "/", exchange=Exchange(0.0))
    request.deadline = 0.0
    asked = Asked([status(200)], request=request)
    assert (asked.status, asked.log) == (504, [])


def test_a_service_that_lets_a_route_wait_too_long_has_failed() -> None:
    """The timeout policy cancels what is further in; that is no client that has left."""

    class Hanging(Pool):
        async def connect(self, timeout: float, deadline: float | None) -> ScriptedStream:
            await asyncio.sleep(1000.0)
            raise AssertionError

    async def main() -> list[int]:
        service = scripted_service([Hanging("a", []), Hanging("b", [])])
        failures = []
        for answer_by in (True, False):
            request = Request("GET", "/")
            if answer_by:
                request.answer_by = clock() + 2.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await service.handle(request)
            failures.append(sum(target.failures for target in service.targets))
        return failures

    assert run_jumping(main) == [1, 1]  # who leaves says nothing of the service


def test_where_there_is_no_time_nothing_is_told() -> None:
    asked = Asked([status(200)], times=Times(tell=b"X-Request-Timeout-Ms"))
    assert b"x-request-timeout-ms" not in asked.pools[0].told[0]


def test_connecting_is_a_part_of_the_try() -> None:
    asked = Asked([status(200)], times=Times(first_byte=30.0), retry=lambda: policy(per_try=2.0))
    assert asked.pools[0].asked[0][0] == 2.0
    assert 1.5 < asked.pools[0].patiences[0].first_byte <= 2.0


# Bodies


class Upload:
    def __init__(self, *pieces: bytes) -> None:
        self.left = list(pieces)

    async def read(self) -> bytes:
        return self.left.pop(0) if self.left else b""

    def trailers(self) -> list[tuple[bytes, bytes]]:
        return []

    def close(self) -> None:
        pass


def test_a_small_body_is_kept_for_the_next_try() -> None:
    put = Request("PUT", "/", body=Body.stream(Upload(b"ab", b"cd"), 4))
    assert Asked([closed()], [status(200)], request=put).status == 200
    assert put.body.whole == b"abcd"


@pytest.mark.parametrize(("length", "most"), [(4, 3), (None, 100)])
def test_one_that_is_larger_or_of_unknown_size_is_sent_once(length: int | None, most: int) -> None:
    put = Request("PUT", "/", body=Body.stream(Upload(b"ab", b"cd"), length))
    asked = Asked([closed()], [status(200)], request=put, retry=lambda: policy(body=most))
    assert (asked.status, asked.log) == (502, ["a new"])
    assert put.body.whole is None


def test_a_post_streams_since_it_is_not_sent_again() -> None:
    post = Request("POST", "/", body=Body.stream(Upload(b"ab"), 2))
    assert Asked([status(200)], request=post).status == 200
    assert post.body.whole is None


def test_a_client_that_does_not_send_its_body_is_no_fault_of_the_service() -> None:
    class Silent(Upload):
        async def read(self) -> bytes:
            raise RequestTimeout("slow")

    with pytest.raises(RequestTimeout):
        Asked([status(200)], request=Request("PUT", "/", body=Body.stream(Silent(), 2)))


# Free tries


def test_a_stale_connection_is_free_once_for_each_target() -> None:
    log: list[str] = []
    pools = [
        Pool("a", log, kept=[stale()], connects=[closed()]),
        Pool("b", log, kept=[stale()], connects=[status(200)]),
    ]

    async def main() -> int:
        service = scripted_service(pools, None, policy(attempts=2))
        return (await service.handle(Request("GET", "/"))).status

    assert run_jumping(main) == 200
    assert log == ["a again", "a new", "b again", "b new"]  # two attempts, and two that were free


# Budgets


def test_a_budget_is_a_share_of_requests_and_a_floor() -> None:
    now = 0.0
    budget = Budget(0.2, 3, lambda: now)
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    for _ in range(10):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    now = 1.0
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    now = 1000.0
    assert sum(budget.spend() for _ in range(1000)) == 30 + 200  # what is not used is saved, but not for ever


def test_a_budget_without_a_floor() -> None:
    budget = Budget(0.001, 0, lambda: 0.0)
    assert not budget.spend()
    for _ in range(1000):
        budget.earn()
    assert [budget.spend(), budget.spend()] == [True, False]


def test_a_storm_of_retries_stays_within_the_budget() -> None:
    """With every target failing, tries that were sent are at most 1.2 times the requests, and the floor."""
    log: list[str] = []
    count = 2000

    async def main() -> float:
        pools = [Pool(name, log, connects=[closed() for _ in range(3 * count)]) for name in "abc"]
        service = scripted_service(pools, None, RetryPolicy(Budget(0.2, 3, clock), attempts=5))
        began = clock()
        for _ in range(count):
            assert (await service.handle(Request("GET", "/"))).status == 502
        return clock() - began

    seconds = run_jumping(main)
    assert len(log) <= 1.2 * count + 3 * (seconds + 1)
    assert len(log) >= 1.19 * count


# The log


def test_the_log_tells_the_story(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "portico.upstream")
    log: list[str] = []

    async def main() -> None:
        pools = [
            Pool("a", log, connects=[refused(), status(200), status(200)]),
            Pool("b", log, connects=[status(200)] * 9),
        ]
        service: Service = scripted_service(pools, None, policy(), ejecting=Ejecting(5, 10.0, 300.0, 0.5))
        for pause in (0.0, 0.0, 11.0, 0.0, 0.0):
            assert (await service.handle(Request("GET", "/"))).status == 200
            await asyncio.sleep(pause)
        service.close()

    run_jumping(main)
    assert log == ["a fails", "b new", "b new", "b new", "a new", "b new"]
    assert caplog.messages == [
        "service svc: target a:80 is out for 10 s: refused",
        "service svc: target a:80 is asked again",
        "service svc: target a:80 is reachable again",
    ]
