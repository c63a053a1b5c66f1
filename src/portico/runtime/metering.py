"""The metrics of a worker: what it counts of requests, and what it says of its services from time to time."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from portico.config.schema import Config
from portico.http.message import Observer
from portico.net.pool import Pool
from portico.observe.metrics import (
    BREAKER_STATE,
    CERTIFICATE_EXPIRY,
    CONCURRENCY_LIMIT,
    CONCURRENCY_TAKEN,
    CONCURRENCY_WAITING,
    UPSTREAM_BUSY,
    UPSTREAM_CONNECTIONS,
    UPSTREAM_TARGETS,
    Metric,
)
from portico.runtime.meter import Admission, Meters
from portico.runtime.observing import Watch, Watched
from portico.runtime.runtime import Runtime
from portico.runtime.target_gauges import TargetGauges
from portico.state.board import Segment, counter_name
from portico.state.slots import ABSENT, Mark
from portico.upstream.health import health_of
from portico.upstream.stack import Service

AT_ONCE: Final = 200
"""Targets that are looked at, at each beat, for what gauges say."""

STATES: Final = ("healthy", "unhealthy", "ejected", "unchecked")
_WELL: Final = frozenset(("healthy", "unchecked"))
_BREAKER: Final = {"closed": 0, "half-open": 1, "open": 2}


class RouteMetrics:
    """Watches requests for their metrics."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def of_route(self, route: Watched) -> Observer:
        """Return what counts the requests of a route."""
        return self._meters.of_route(route.path, route.service)

    def of_rest(self) -> Observer:
        """Return what counts the others."""
        return self._meters.of_route("", "")


class Metering:
    """The metrics of one worker."""

    def __init__(self, segment: Segment, wall: Callable[[], float] = time.time) -> None:
        self._segment = segment
        self._wall = wall
        self._admission: Admission | None = None
        self._told: dict[tuple[str, tuple[str, ...]], Mark] = {}
        self._targets = TargetGauges(segment)
        self._runtime: Runtime | None = None
        """Of which the round tells."""
        self._round: Iterator[None] = iter(())
        self._fresh: set[Mark] = set()

    def watch(self, config: Config) -> Watch | None:
        """Return what counts the requests of a configuration; None where it wants no metrics."""
        metrics = config.metrics
        if metrics is None:
            return None
        if self._admission is None:
            self._admission = Admission(self._segment)
        return RouteMetrics(Meters(self._admission, metrics.buckets, metrics.limit, self._wall))

    def tell(self, runtime: Runtime | None) -> None:
        """Write some of what gauges say, of few services at a time; in the end it has been all of them. What is served
        no more is told of no further, and let go."""
        if runtime is not self._runtime:
            self._runtime = runtime
            self._round = iter(()) if runtime is None else self._telling(runtime)
        if runtime is None:
            return
        for _ in islice(self._round, AT_ONCE):
            pass
        if next(self._round, self) is self:
            self._round = self._telling(runtime)

    def _telling(self, runtime: Runtime) -> Iterator[None]:
        self._fresh = set()
        self._targets.begin_round()
        for name, service in tuple(runtime.services.items()):
            yield from self._of_service(name, service)
        for entrance in runtime.entrances:
            if entrance.tls is not None:
                for expiry in entrance.tls.expires:
                    self._write(CERTIFICATE_EXPIRY, int(expiry.not_after), expiry.certificate)
        for mark in self._told.values():
            if mark not in self._fresh:
                mark.write(ABSENT)
        self._targets.end_round()

    def _of_service(self, name: str, service: Service) -> Iterator[None]:
        states: Tally[str] = Tally()
        connections = busy = 0
        well: dict[str, bool] = {}
        for target in service.targets:
            state, address = health_of(target).state, target.address
            states[state] += 1
            well[address] = state in _WELL and well.get(address, True)
            if isinstance(target.pool, Pool):
                connections += target.pool.connections
                busy += target.pool.busy
            yield
        for address, is_well in well.items():
            self._targets.write(name, address, is_well)
            yield
        for state in STATES:
            self._write(UPSTREAM_TARGETS, states[state], name, state)
        self._write(UPSTREAM_CONNECTIONS, connections, name)
        self._write(UPSTREAM_BUSY, busy, name)
        if service.bulkhead is not None:
            self._write(CONCURRENCY_TAKEN, service.bulkhead.room.taken, name)
            self._write(CONCURRENCY_WAITING, service.bulkhead.room.waiting, name)
            self._write(CONCURRENCY_LIMIT, service.bulkhead.limit, name)
        if service.breaker is not None:
            self._write(BREAKER_STATE, _BREAKER[service.breaker.state.name], name)
        yield

    def _write(self, metric: Metric, value: int, *labels: str) -> None:
        key = (metric.name, labels)
        mark = self._told.get(key)
        if mark is None:
            name = counter_name(metric.name, dict(zip(metric.labels, labels, strict=True)))
            mark = self._told[key] = self._segment.gauge(name)
        mark.write(value)
        self._fresh.add(mark)
