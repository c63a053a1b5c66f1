"""What Prometheus computes ahead, and of what it alerts."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from docs.monitoring.dashboards import ERRORS, FAILED
from docs.monitoring.promql import UP, Query, View, above, absent, below, both, equal, ratio
from portico.observe import metrics as m
from portico.observe.metrics import Kind, Metric

JOB: Final = "portico"
"""Under which name gateways are scraped; other programs have metrics of the same names."""
GATEWAYS: Final = View({"job": JOB}, "5m")

_DAY: Final = 86400
_ITS_SERVICE: Final = "{{ with $labels.service }} They go to the service {{ . }}.{{ end }}"
_QUIET: Final = 0.1
"""Requests in a second, below which a share or a quantile says little."""


class Recording(NamedTuple):
    """A query that is computed ahead, under a name of its own."""

    name: str
    query: Query

    @property
    def metric(self) -> Metric:
        """It as a metric that can be asked."""
        return Metric(self.name, Kind.GAUGE, "", self.query.labels)

    @property
    def each(self) -> Query:
        """Return all its series."""
        return GATEWAYS.each(self.metric)._replace(labels=self.query.labels, metrics=self.query.metrics)


_ROUTE: Final = ("job", "endpoint", "service")
_SERVICE: Final = ("job", "service")


def _errors(*by: str) -> Query:
    return ratio(GATEWAYS.rate(m.REQUESTS, *by, status=ERRORS), GATEWAYS.rate(m.REQUESTS, *by))


def _quantile(share: float, *by: str) -> Query:
    return GATEWAYS.quantile(share, m.DURATION, *by)


REQUESTS: Final = Recording("job:http_requests:rate5m", GATEWAYS.rate(m.REQUESTS, "job"))
ERROR_RATIO: Final = Recording("job:http_requests_errors:ratio_rate5m", _errors("job"))
ROUTE_REQUESTS: Final = Recording("route:http_requests:rate5m", GATEWAYS.rate(m.REQUESTS, *_ROUTE))
ROUTE_ERROR_RATIO: Final = Recording("route:http_requests_errors:ratio_rate5m", _errors(*_ROUTE))
ROUTE_P95: Final = Recording("route:http_request_duration_seconds:p95_rate5m", _quantile(0.95, *_ROUTE))
_TRIES: Final = GATEWAYS.rate(m.UPSTREAM_TRIES, *_SERVICE)
_FAILED_TRIES: Final = GATEWAYS.rate(m.UPSTREAM_TRIES, *_SERVICE, outcome=FAILED)

RECORDINGS: Final = (
    REQUESTS,
    ERROR_RATIO,
    *(
        Recording(f"job:http_request_duration_seconds:p{name}_rate5m", _quantile(share, "job"))
        for name, share in (("50", 0.5), ("95", 0.95), ("99", 0.99))
    ),
    ROUTE_REQUESTS,
    ROUTE_ERROR_RATIO,
    Recording("route:http_request_duration_seconds:p50_rate5m", _quantile(0.5, *_ROUTE)),
    ROUTE_P95,
    Recording("route:http_request_duration_seconds:p99_rate5m", _quantile(0.99, *_ROUTE)),
    Recording("service:portico_upstream_tries:rate5m", _TRIES),
    Recording("service:portico_upstream_tries_failed:ratio_rate5m", ratio(_FAILED_TRIES, _TRIES)),
    Recording(
        "service:portico_upstream_request_duration_seconds:p95_rate5m",
        GATEWAYS.quantile(0.95, m.UPSTREAM_DURATION, *_SERVICE),
    ),
)


class Severity(StrEnum):
    """Who is to be told."""

    CRITICAL = "critical"
    """Someone at once: clients are refused, or soon will be."""
    WARNING = "warning"
    """Someone in the hours of work."""


class Alert(NamedTuple):
    """What Prometheus tells of."""

    name: str
    severity: Severity
    query: Query
    """Which has a series for each thing that is wrong."""
    lasting: str
    """How long it has to be so."""
    summary: str
    description: str


def alerts() -> dict[str, tuple[Alert, ...]]:
    """Return all alerts, by the group that they are in."""
    return {
        "portico-requests": tuple(_of_requests()),
        "portico-services": tuple(_of_services()),
        "portico-processes": tuple(_of_processes()),
        "portico-configuration": tuple(_of_configuration()),
        "portico-losses": tuple(_of_losses()),
    }


def _of_requests() -> Iterator[Alert]:
    yield Alert(
        "PorticoAbsent",
        Severity.CRITICAL,
        absent(GATEWAYS.each(UP)),
        "5m",
        "No gateway is scraped",
        f"Prometheus has no target in the job {JOB}, so nothing is known of any gateway, and no other alert can fire.",
    )
    yield Alert(
        "PorticoDown",
        Severity.CRITICAL,
        equal(GATEWAYS.value(UP, "instance"), 0),
        "2m",
        "Gateway {{ $labels.instance }} does not answer",
        "Its metrics could not be scraped for two minutes.",
    )
    yield Alert(
        "PorticoErrors",
        Severity.CRITICAL,
        both(above(ERROR_RATIO.each, 0.1), above(REQUESTS.each, _QUIET)),
        "5m",
        "{{ $value | humanizePercentage }} of all requests fail",
        "More than one request in ten was answered 500 or above, or not at all, for five minutes.",
    )
    yield Alert(
        "PorticoRouteErrors",
        Severity.WARNING,
        both(above(ROUTE_ERROR_RATIO.each, 0.05), above(ROUTE_REQUESTS.each, _QUIET)),
        "10m",
        "{{ $value | humanizePercentage }} of the requests for {{ $labels.endpoint }} fail",
        f"More than one in twenty was answered 500 or above, or not at all, for ten minutes.{_ITS_SERVICE}",
    )
    yield Alert(
        "PorticoRouteSlow",
        Severity.WARNING,
        both(above(ROUTE_P95.each, 1), above(ROUTE_REQUESTS.each, _QUIET)),
        "10m",
        "{{ $labels.endpoint }} is slow: {{ $value | humanizeDuration }}",
        f"One request in twenty took longer than that, for ten minutes, where a second is too long.{_ITS_SERVICE}",
    )


def _of_services() -> Iterator[Alert]:
    bad = GATEWAYS.value(m.UPSTREAM_TARGETS, "service", state="unhealthy|ejected")
    good = GATEWAYS.value(m.UPSTREAM_TARGETS, "service", state="healthy|unchecked")
    yield Alert(
        "PorticoServiceDown",
        Severity.CRITICAL,
        both(equal(good, 0), above(bad, 0)),
        "1m",
        "No target of {{ $labels.service }} is well",
        "All its targets are unhealthy or ejected, for a minute; its clients are answered 503, or by its fallback.",
    )
    yield Alert(
        "PorticoTargetUnhealthy",
        Severity.WARNING,
        above(GATEWAYS.value(m.UPSTREAM_TARGETS, "service", "state", state="unhealthy|ejected"), 0),
        "5m",
        "{{ $value }} of the targets of {{ $labels.service }}: {{ $labels.state }}",
        "They get no requests, or hardly any, and have not come back for five minutes.",
    )
    yield Alert(
        "PorticoBreakerOpen",
        Severity.CRITICAL,
        equal(GATEWAYS.highest(m.BREAKER_STATE, "1m", "service"), 2),
        "2m",
        "The breaker of {{ $labels.service }} is open",
        "The service has failed again and again, and gets no requests but those that try whether it is back.",
    )


def _of_processes() -> Iterator[Alert]:
    yield Alert(
        "PorticoRestarts",
        Severity.WARNING,
        above(GATEWAYS.increase(m.RESTARTS, "15m", "instance", "role"), 0),
        "0m",
        "A process of {{ $labels.instance }} has died: {{ $labels.role }}",
        "It was started again. Requests that were in a worker have failed.",
    )
    yield Alert(
        "PorticoCrashLoop",
        Severity.CRITICAL,
        above(GATEWAYS.increase(m.RESTARTS, "15m", "instance", "role"), 5),
        "5m",
        "Processes of {{ $labels.instance }} die again and again: {{ $labels.role }}",
        "There were about {{ $value | humanize }} deaths within a quarter of an hour.",
    )
    yield Alert(
        "PorticoGatewayRestarts",
        Severity.CRITICAL,
        above(GATEWAYS.changes(m.PROCESS_START, "30m", "instance", process="agent"), 2),
        "0m",
        "{{ $labels.instance }} is started again and again",
        "Its agent has begun anew {{ $value }} times in half an hour, alone or with the whole gateway.",
    )
    yield Alert(
        "PorticoLoopLag",
        Severity.WARNING,
        above(GATEWAYS.average(m.LOOP_LAG, "5m", "instance", "process"), 0.05),
        "10m",
        "{{ $labels.process }} of {{ $labels.instance }} is late by {{ $value | humanizeDuration }}",
        "Its loop was late by more than 50 ms on average, for ten minutes: its requests wait so long.",
    )


def _of_configuration() -> Iterator[Alert]:
    yield Alert(
        "PorticoReloadFailed",
        Severity.WARNING,
        equal(GATEWAYS.value(m.RELOAD_OK, "instance"), 0),
        "1m",
        "{{ $labels.instance }} has refused its configuration",
        "The last reload went wrong, so what stood before is served on.",
    )
    yield Alert(
        "PorticoOldRevision",
        Severity.WARNING,
        below(
            GATEWAYS.value(m.WORKER_REVISION, "instance", "process"),
            GATEWAYS.value(m.CONFIG_REVISION, "instance"),
        ),
        "5m",
        "{{ $labels.process }} of {{ $labels.instance }} serves an old configuration",
        "It serves revision {{ $value }}, and the others a later one.",
    )
    for name, severity, days in (
        ("PorticoCertificateExpires", Severity.WARNING, 14),
        ("PorticoCertificateExpiresSoon", Severity.CRITICAL, 3),
    ):
        yield Alert(
            name,
            severity,
            below(GATEWAYS.until(m.CERTIFICATE_EXPIRY, "instance", "file"), days * _DAY),
            "15m",
            "The certificate {{ $labels.file }} ends in {{ $value | humanizeDuration }}",
            f"That is less than {days} days, on {{{{ $labels.instance }}}}; then no client will take it.",
        )


def _of_losses() -> Iterator[Alert]:
    for name, counter, over, lasting, summary, description in (
        (
            "PorticoStoreFailures",
            m.STORE_FAILURES,
            "5m",
            "5m",
            "The store of {{ $labels.instance }} does not answer",
            "Limits, quotas, keys of idempotency and caches ask it; each does as its on_store_failure says.",
        ),
        (
            "PorticoAccessLogDropped",
            m.ACCESS_LOG_DROPPED,
            "15m",
            "0m",
            "{{ $labels.instance }} loses lines of its access log",
            "Whoever takes the lines was too slow, or took none; about {{ $value | humanize }} are lost.",
        ),
        (
            "PorticoTracesLost",
            m.TRACES_LOST,
            "15m",
            "0m",
            "{{ $labels.instance }} loses traces",
            "The collector was too slow, or took none; about {{ $value | humanize }} requests have no trace.",
        ),
        (
            "PorticoSeriesDropped",
            m.DROPPED_SERIES,
            "1d",
            "0m",
            "{{ $labels.instance }} has too many series",
            "Within a day some requests were counted as endpoint other, or some targets were not told of one by one.",
        ),
    ):
        query = above(GATEWAYS.increase(counter, over, "instance"), 0)
        yield Alert(name, Severity.WARNING, query, lasting, summary, description)
