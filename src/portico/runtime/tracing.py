"""The traces of one configuration, compiled: who begins them for each route, and who is sent what was recorded."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from portico import __version__
from portico.config.schema import Config
from portico.config.tracing import TraceExport, Tracing
from portico.exporters.otlp import Collector
from portico.exporters.spans import Ended
from portico.http.forwarded import Trust
from portico.http.message import Observer, Request
from portico.observe.exchange import Exchange
from portico.observe.metrics import TRACES_EXPORTED, TRACES_LOST
from portico.runtime.life import Life
from portico.runtime.observing import Watched
from portico.runtime.shared import Lease
from portico.runtime.tracer import FORMS, Force, Rules, Tracer
from portico.state.slots import Counter

_TRACES: Final = "/v1/traces"
"""Where collectors take traces (OTLP specification, OTLP/HTTP request)."""


class Traces:
    """Begins traces, and watches those that are recorded."""

    def __init__(
        self, config: Config, tracing: Tracing, wall: Callable[[], float], collector: Collector | None
    ) -> None:
        force = tracing.force
        forced = None
        if force is not None:
            key, secret = force.header.lower().encode("ascii"), force.secret.get_secret_value().encode()
            forced = Force(key, secret, force.longest, wall)
        trust = Trust(config.trusted_proxies) if tracing.trust == "trusted_proxies" else None
        order = tuple(FORMS[each] for each in dict.fromkeys(tracing.formats))
        self._rules = Rules(order, tracing.parent == "follow", trust, forced)
        self._share = tracing.sample
        self._collector = collector
        self._tracers: dict[float, Tracer] = {}

    def tracer(self, share: float | None) -> Tracer:
        """Return who begins the traces of a route with a share of its own, or without."""
        share = self._share if share is None else share
        if share not in self._tracers:
            self._tracers[share] = Tracer(self._rules, share)
        return self._tracers[share]

    def of_route(self, route: Watched) -> Observer | None:
        """Return who sees to it that what is recorded of a route's requests is sent."""
        return None if self._collector is None else Recorded(self._collector, route.path)

    def of_rest(self) -> Observer | None:
        """Return None: what comes to no route is of no trace."""
        return None


class Recorded(Observer):
    """Has the exchanges of a route sent whose traces are recorded."""

    def __init__(self, collector: Collector, path: str) -> None:
        self._collector = collector
        self._path = path

    def ended(self, exchange: Exchange, request: Request | None) -> None:
        """Have it sent, if it is."""
        if not exchange.sampled or request is None:
            return
        client = request.client
        self._collector.add(
            Ended(
                exchange,
                self._path,
                request.path,
                request.query,
                request.host,
                "http" if client is None else client.scheme,
                "" if client is None else client.address,
                "" if client is None else client.peer,
                0 if client is None else client.local_port,
                request.headers.text(b"user-agent") or "",
            )
        )


def traces_of(
    config: Config,
    life: Life,
    lease: Lease,
    clock: Callable[[], float],
    wall: Callable[[], float],
    counter: Callable[[str], Counter],
) -> Traces | None:
    """Return the traces of a configuration; None where it wants none. Raises ConfigError."""
    tracing = config.tracing
    if tracing is None:
        return None
    collector = None
    if tracing.export is not None:
        collector = _collector(tracing, tracing.export, life, clock, wall, counter)
        lease.share(("traces", collector), lambda: collector)
    return Traces(config, tracing, wall, collector)


def _collector(
    tracing: Tracing,
    export: TraceExport,
    life: Life,
    clock: Callable[[], float],
    wall: Callable[[], float],
    counter: Callable[[str], Counter],
) -> Collector:
    return Collector(
        life.web.handler(export.url, export.ca),
        export.url.path or _TRACES,
        [(name.encode("ascii"), value.get_secret_value().encode("latin-1")) for name, value in export.headers.items()],
        {
            "service.name": tracing.service,
            "service.version": __version__,
            "telemetry.sdk.name": "portico",
            "telemetry.sdk.language": "python",
            "process.pid": str(os.getpid()),
            **tracing.attributes,
        },
        batch=export.batch,
        queue=export.queue,
        interval=export.interval,
        timeout=export.timeout,
        begin=life.see_through,
        clock=clock,
        wall=wall,
        exported=counter(TRACES_EXPORTED.name),
        lost=counter(TRACES_LOST.name),
    )
