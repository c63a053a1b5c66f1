"""What is counted of each request, and that there are only so many series of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from portico.http.message import Observer, Request
from portico.observe.exchange import Exchange, Outcome
from portico.runtime.meter import Admission, Meters
from portico.runtime.observing import Several, joined
from portico.state.board import Board, Segment
from tests.state.test_board import a_board


class Metered(NamedTuple):
    board: Board
    segment: Segment
    meters: Meters

    def sums(self, name: str) -> dict[str, int]:
        return {key: value for key, value in self.board.counters().items() if key.startswith(name)}


@contextmanager
def metered(limit: int = 100, buckets: tuple[float, ...] = (0.1, 1.0)) -> Iterator[Metered]:
    with a_board() as board:
        segment = board.segment(1)
        yield Metered(board, segment, Meters(Admission(segment), buckets, limit, lambda: 1000.5))


def over(observer: Observer, method: str = "GET", status: int = 200, took: float = 0.5, **given: object) -> Exchange:
    """Have a request come to its end."""
    exchange = Exchange(1.0)
    exchange.method, exchange.status = method, status
    for name, value in given.items():
        setattr(exchange, name, value)
    observer.answering(exchange, None)
    exchange.end(Outcome.COMPLETE, 1.0 + took)
    observer.ended(exchange, None)
    return exchange


def test_requests_are_counted_by_route_method_and_status() -> None:
    with metered() as it:
        route = it.meters.of_route("/orders/{id}", "orders")
        for status in (200, 200, 404):
            over(route, status=status)
        over(it.meters.of_route("/orders/{id}", "orders"), method="POST")  # another route of the same path
        assert it.sums("http_requests_total") == {
            'http_requests_total{endpoint="/orders/{id}",method="GET",service="orders",status="200"}': 2,
            'http_requests_total{endpoint="/orders/{id}",method="GET",service="orders",status="404"}': 1,
            'http_requests_total{endpoint="/orders/{id}",method="POST",service="orders",status="200"}': 1,
        }


def test_times_are_counted_in_buckets() -> None:
    with metered() as it:
        route = it.meters.of_route("/a", "")
        for took in (0.05, 0.125, 0.5, 4.0):
            over(route, took=took)
        assert it.board.histograms() == {
            'http_request_duration_seconds{endpoint="/a",method="GET",service=""}\0' + "0.1,1.0": [
                1,
                2,
                1,
                4_675_000_000,
            ]
        }


def test_upgraded_connections_take_no_time() -> None:
    with metered() as it:
        over(it.meters.of_route("/a", ""), status=101, took=3600.0)
        assert list(it.sums("http_requests_total").values()) == [1]
        assert [sum(counts) for counts in it.board.histograms().values()] == [0]


def test_methods_that_nobody_knows_are_one() -> None:
    with metered() as it:
        route = it.meters.of_route("", "")
        for method in ("BREW", "get", "", "X" * 1000):
            over(route, method=method, status=501)
        assert it.sums("http_requests_total") == {
            'http_requests_total{endpoint="none",method="other",service="",status="501"}': 4
        }


def test_beyond_the_limit_all_endpoints_are_one() -> None:
    with metered(limit=4) as it:
        for number in range(4):
            for _ in range(3):
                over(it.meters.of_route(f"/{number}", "svc"))
        assert it.sums("http_requests_total") == {
            'http_requests_total{endpoint="/0",method="GET",service="svc",status="200"}': 3,
            'http_requests_total{endpoint="/1",method="GET",service="svc",status="200"}': 3,
            'http_requests_total{endpoint="other",method="GET",service="other",status="200"}': 6,
        }
        assert sum(sum(counts[:-1]) for counts in it.board.histograms().values()) == 12
        assert it.sums("portico_metrics") == {"portico_metrics_dropped_series_total": 4}


def test_series_of_earlier_configurations_count_for_the_limit_once() -> None:
    with metered(limit=2) as it:
        over(it.meters.of_route("/a", ""))
        admission = it.meters._admission
        later = Meters(admission, (0.1, 1.0), 2, lambda: 0.0)
        over(later.of_route("/a", ""))
        over(later.of_route("/b", ""))
        assert it.sums("http_requests_total") == {
            'http_requests_total{endpoint="/a",method="GET",service="",status="200"}': 2,
            'http_requests_total{endpoint="other",method="GET",service="other",status="200"}': 1,
        }


def test_sampled_requests_are_shown_with_their_trace() -> None:
    with metered() as it:
        over(it.meters.of_route("/a", ""), trace_id="0" * 15 + "1" + "0" * 15 + "2")
        over(it.meters.of_route("/b", ""), trace_id="0" * 15 + "1" + "0" * 15 + "2", sampled=True)
        shown = {reading.name.partition("\0")[0]: list(reading.own) for reading in it.segment.readings() if reading.own}
        assert shown == {
            'http_request_duration_seconds{endpoint="/a",method="GET",service=""}': [0, 0, 0, 0],
            'http_request_duration_seconds{endpoint="/b",method="GET",service=""}': [1_000_500, 500_000_000, 1, 2],
        }


def test_tries_are_counted_by_service_and_outcome() -> None:
    with metered() as it:
        route = it.meters.of_route("/a", "svc")
        sent = {"service": "svc", "sent": 1.1, "tries": 1}
        over(route, **sent, first_byte=1.2)
        over(route, **sent, first_byte=1.2, status=503)
        over(route, **sent, try_outcome="service-timeout", status=504)
        over(route, **sent, status=499)
        over(route, service="svc", connecting=1.1, try_outcome="service-unreachable", status=502)
        over(route, service="svc", try_outcome="circuit-open", status=503)
        over(route, status=401)
        tries = {
            name.partition('outcome="')[2].partition('"')[0]: count
            for name, count in it.sums("portico_upstream_tries").items()
        }
        assert tries == {
            "answered": 1,
            "server-error": 1,
            "service-timeout": 1,
            "cancelled": 1,
            "service-unreachable": 1,
        }
        assert it.sums("portico_upstream_refusals") == {
            'portico_upstream_refusals_total{reason="circuit-open",service="svc"}': 1
        }
        (times,) = [each for name, each in it.board.histograms().items() if name.startswith("portico_upstream")]
        assert sum(times[:-1]) == 2


def test_tries_before_the_last_one_are_counted_too() -> None:
    with metered() as it:
        exchange = Exchange(1.0)
        exchange.method, exchange.status = "GET", 200
        exchange.service, exchange.target, exchange.sent, exchange.first_byte = "one", "a:80", 1.1, 1.2
        exchange.try_again("status-503", 1.3)
        exchange.target, exchange.sent = "b:80", 1.3
        exchange.try_again("service-timeout", 1.4)  # and then another service, as a fallback has it
        exchange.service, exchange.target, exchange.sent, exchange.first_byte = "two", "b:80", 1.4, 1.6
        route = it.meters.of_route("/a", "one")
        route.answering(exchange, None)
        exchange.end(Outcome.COMPLETE, 1.7)
        route.ended(exchange, None)
        counted = {name: count for name, count in it.sums("portico_upstream").items() if count}
        assert counted == {
            'portico_upstream_retries_total{service="one"}': 1,
            'portico_upstream_tries_total{outcome="server-error",service="one"}': 1,
            'portico_upstream_tries_total{outcome="service-timeout",service="one"}': 1,
            'portico_upstream_tries_total{outcome="answered",service="two"}': 1,
        }


class Log(Observer):
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def answering(self, exchange: Exchange, request: Request | None) -> None:
        self.log.append(f"{self.name} answering")

    def ended(self, exchange: Exchange, request: Request | None) -> None:
        self.log.append(f"{self.name} ended")


def test_one_observer_stands_for_all() -> None:
    log: list[str] = []
    one, two = Log("one", log), Log("two", log)
    assert joined([None, None]) is None
    assert joined([None, one]) is one
    both = joined([one, None, two])
    assert isinstance(both, Several)
    over(both)
    assert log == ["one answering", "two answering", "one ended", "two ended"]
