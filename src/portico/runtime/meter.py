"""What is counted of each request, on the board.

It is counted before its answer can be seen, so that whoever has an answer finds it counted. What a route needs for that
is made when it is first asked; the series of all routes together are limited, and beyond that a new one is `other`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from portico.http.message import Observer, Request
from portico.observe.exchange import ANSWERED, Exchange
from portico.observe.metrics import (
    DROPPED_SERIES,
    DURATION,
    METHODS,
    NONE,
    OTHER,
    REQUESTS,
    UPSTREAM_DURATION,
    UPSTREAM_REFUSALS,
    UPSTREAM_RETRIES,
    UPSTREAM_TRIES,
)
from portico.state.board import Segment, counter_name
from portico.state.slots import Counter, Histogram

SERVER_ERROR: Final = "server-error"


class MethodMeter:
    """The series of one route and one method."""

    __slots__ = ("duration", "labels", "statuses")

    def __init__(self, labels: dict[str, str], duration: Histogram) -> None:
        self.labels = labels
        self.duration = duration
        self.statuses: dict[int, Counter] = {}


class ServiceMeter:
    """The series of one service."""

    __slots__ = ("_refusals", "_segment", "_service", "_tries", "answered", "duration", "retries")

    def __init__(self, segment: Segment, service: str, buckets: Sequence[float]) -> None:
        self._segment = segment
        self._service = service
        self.duration = segment.histogram(
            counter_name(UPSTREAM_DURATION.name, {"service": service}), buckets, UPSTREAM_DURATION.scale
        )
        self.retries = segment.counter(counter_name(UPSTREAM_RETRIES.name, {"service": service}))
        self._tries: dict[str, Counter] = {}
        self._refusals: dict[str, Counter] = {}
        self.answered = self.tries(ANSWERED)

    def tries(self, outcome: str) -> Counter:
        """Return what counts the tries that came out so."""
        counter = self._tries.get(outcome)
        if counter is None:
            name = counter_name(UPSTREAM_TRIES.name, {"service": self._service, "outcome": outcome})
            counter = self._tries[outcome] = self._segment.counter(name)
        return counter

    def refusals(self, reason: str) -> Counter:
        """Return what counts the requests that were not sent for this reason."""
        counter = self._refusals.get(reason)
        if counter is None:
            name = counter_name(UPSTREAM_REFUSALS.name, {"service": self._service, "reason": reason})
            counter = self._refusals[reason] = self._segment.counter(name)
        return counter


class Admission:
    """How many series of requests a worker has, over all its configurations."""

    __slots__ = ("_taken", "dropped", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._taken = 0
        self.dropped = segment.counter(DROPPED_SERIES.name)

    def takes(self, name: str, limit: int) -> bool:
        """Return whether there may be a series of that name: where it is there already, or not too many are."""
        if name in self.segment:
            return True
        if self._taken >= limit or self.segment.nearly_full:
            self.dropped.add()
            return False
        self._taken += 1
        return True


class Meters:
    """The meters of one configuration."""

    __slots__ = ("_admission", "_limit", "_routes", "_segment", "_services", "_shown", "buckets", "wall")

    def __init__(self, admission: Admission, buckets: Sequence[float], limit: int, wall: Callable[[], float]) -> None:
        """Let there be at most `limit` series of requests; `buckets` are the bounds of those that tell times."""
        self._admission = admission
        self._segment = admission.segment
        self._limit = limit
        self._services: dict[str, ServiceMeter] = {}
        self._routes: dict[tuple[str, str], RouteMeter] = {}
        self.buckets = list(buckets)
        self.wall = wall

    def of_route(self, path: str, service: str) -> RouteMeter:
        """Return the meter of the routes of a path that end in a service; without a path, of what comes to no route."""
        key = (path or NONE, service)
        meter = self._routes.get(key)
        if meter is None:
            meter = self._routes[key] = RouteMeter(self, *key)
        return meter

    def requests(self, labels: Mapping[str, str]) -> Counter:
        """Return the counter of a series, or where there may be no more of them that of all others."""
        name = counter_name(REQUESTS.name, labels)
        if labels["endpoint"] != OTHER and not self._admission.takes(name, self._limit):
            name = counter_name(REQUESTS.name, {**labels, "endpoint": OTHER, "service": OTHER})
        return self._segment.counter(name)

    def duration(self, labels: Mapping[str, str]) -> Histogram:
        """Return the histogram of a series, or where there may be no more of them that of all others."""
        name = counter_name(DURATION.name, labels)
        if not self._admission.takes(f"{name}\0{','.join(map(repr, self.buckets))}", self._limit):
            name = counter_name(DURATION.name, {**labels, "endpoint": OTHER, "service": OTHER})
        return self._segment.histogram(name, self.buckets, DURATION.scale)

    def service(self, name: str) -> ServiceMeter:
        """Return the meter of a service."""
        meter = self._services.get(name)
        if meter is None:
            meter = self._services[name] = ServiceMeter(self._segment, name, self.buckets)
        return meter


class RouteMeter(Observer):
    """Counts the requests of a route."""

    __slots__ = ("_endpoint", "_meters", "_methods", "_service")

    def __init__(self, meters: Meters, endpoint: str, service: str) -> None:
        self._meters = meters
        self._endpoint = endpoint
        self._service = service
        self._methods: dict[str, MethodMeter] | None = None

    def answering(self, exchange: Exchange, request: Request | None) -> None:
        """Count a request."""
        meter = self._of(exchange.method)
        counter = meter.statuses.get(exchange.status)
        if counter is None:
            counter = self._meters.requests({**meter.labels, "status": str(exchange.status)})
            meter.statuses[exchange.status] = counter
        counter.add()

    def ended(self, exchange: Exchange, request: Request | None) -> None:
        """Count how long it took, and what came of its tries."""
        if exchange.status != 101:  # how long a WebSocket is open says nothing of how quick anybody is
            seconds = exchange.ended - exchange.started
            duration = self._of(exchange.method).duration
            duration.observe(seconds)
            if exchange.sampled:
                duration.show(seconds, exchange.trace_id, exchange.ended, self._meters.wall())
        if exchange.service:
            self._count_tries(exchange, self._meters.service(exchange.service))

    def _of(self, method: str) -> MethodMeter:
        methods = self._methods
        if methods is None:
            methods = self._methods = {}
        meter = methods.get(method)
        if meter is None:
            if method not in METHODS:
                method = OTHER
                meter = methods.get(method)
            if meter is None:
                labels = {"method": method, "endpoint": self._endpoint, "service": self._service}
                meter = methods[method] = MethodMeter(labels, self._meters.duration(labels))
        return meter

    def _count_tries(self, exchange: Exchange, service: ServiceMeter) -> None:
        outcome = exchange.try_outcome
        if exchange.first_byte > 0.0:
            service.duration.observe(exchange.first_byte - exchange.sent)
            if outcome:
                service.tries(outcome).add()
            elif exchange.status >= 500:
                service.tries(SERVER_ERROR).add()
            else:
                service.answered.add()
        elif exchange.sent > 0.0 or exchange.connecting > 0.0:
            service.tries(outcome or "cancelled").add()
        elif outcome:
            service.refusals(outcome).add()
        if exchange.tried is not None:
            self._count_earlier(exchange)

    def _count_earlier(self, exchange: Exchange) -> None:
        tried = exchange.tried or []
        last = exchange.service if exchange.sent > 0.0 or exchange.connecting > 0.0 else ""
        for number, gone in enumerate(tried, 1):
            service = self._meters.service(gone.service)
            if gone.service == (tried[number].service if number < len(tried) else last):
                service.retries.add()
            if gone.first_byte > 0.0:
                service.duration.observe(gone.first_byte - gone.sent)
            outcome = gone.outcome
            service.tries(SERVER_ERROR if outcome.startswith("status-") else outcome).add()
