"""What is on each dashboard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from docs.monitoring.panels import Dashboard, Form, Panel, Row, Variable
from docs.monitoring.promql import UP, Not, Query, View, ratio
from portico.observe import metrics as m
from portico.observe.metrics import METRICS, Kind, Metric

ERRORS: Final = "5..|0"
"""Statuses of requests that failed by no fault of the client: 0 is where the worker ended before an answer."""
FAILED: Final = Not("answered|outrun")
"""Outcomes of tries that the service has not answered well."""
ANYWHERE: Final = View({"job": "$job", "instance": "$instance"}, "$__rate_interval")
"""What the variables leave over; metrics are looked at by those labels that they have."""
CHOSEN: Final = View({**ANYWHERE.where, "service": "$service", "endpoint": "$endpoint"}, ANYWHERE.window)

_GATEWAYS: Final = (
    Variable("job", m.BUILD, View({}, ""), anything=False),
    Variable("instance", m.BUILD, View({"job": "$job"}, "")),
)
_SHARES: Final = (0.5, 0.95, 0.99)
_PROCESS: Final = ("instance", "process")
_BREAKER: Final = {0: "closed", 1: "half open", 2: "open"}
_NO_YES: Final = {0: "no", 1: "yes"}


def dashboards(metrics: Mapping[str, Metric] = METRICS) -> list[Dashboard]:
    """Return all; a metric that none of them has a place for yet is in a row at the end of the one that suits it."""
    made = [_requests(), _services(), _policies(), _processes()]
    shown = {
        metric
        for dashboard in made
        for row in dashboard.rows
        for panel in row.panels
        for query in panel.queries
        for metric in query.metrics
    }
    left = [metric for metric in metrics.values() if metric not in shown]
    return [_with_more(dashboard, left) for dashboard in made]


def _requests() -> Dashboard:
    route = ("endpoint", "service")
    everything = tuple(CHOSEN.quantile(share, m.DURATION) for share in _SHARES)
    return Dashboard(
        "portico-requests",
        "Portico: requests",
        "What clients ask for, and what they are answered, by route.",
        (*_GATEWAYS, Variable("endpoint", m.REQUESTS, ANYWHERE), Variable("service", m.REQUESTS, ANYWHERE)),
        (
            Row(
                "Now",
                (
                    Panel("Gateways", (ANYWHERE.value(UP, "instance"),), Form.STAT, 4, means={0: "down", 1: "up"}),
                    Panel("Requests", (CHOSEN.rate(m.REQUESTS),), Form.STAT, 4),
                    Panel("Errors", (_errors(),), Form.STAT, 4),
                    Panel("Latency, p95", (everything[1],), Form.STAT, 4),
                    Panel("In flight", (CHOSEN.value(m.IN_FLIGHT),), Form.STAT, 4),
                    Panel("Connections", (CHOSEN.value(m.CONNECTIONS),), Form.STAT, 4),
                ),
            ),
            Row(
                "All of them",
                (
                    Panel("Requests by status", (CHOSEN.rate(m.REQUESTS, "status"),), stacked=True),
                    Panel("Requests by method", (CHOSEN.rate(m.REQUESTS, "method"),), stacked=True),
                    Panel("Latency", everything),
                    Panel("In flight", (CHOSEN.value(m.IN_FLIGHT, "instance"),), width=12),
                    Panel("Connections", (CHOSEN.value(m.CONNECTIONS, "instance"),), width=12),
                ),
            ),
            Row(
                "By route",
                (
                    Panel("Requests", (CHOSEN.rate(m.REQUESTS, *route),), width=12),
                    Panel("Share of errors", (_errors(*route),), width=12),
                    *(
                        Panel(f"Latency, p{share * 100:g}", (CHOSEN.quantile(share, m.DURATION, *route),))
                        for share in _SHARES
                    ),
                ),
            ),
        ),
    )


def _services() -> Dashboard:
    service = "service"
    tries = CHOSEN.rate(m.UPSTREAM_TRIES, service)
    return Dashboard(
        "portico-services",
        "Portico: services",
        "How services answer, and how their targets and breakers are.",
        (*_GATEWAYS, Variable(service, m.UPSTREAM_TARGETS, ANYWHERE)),
        (
            Row(
                "Tries",
                (
                    Panel("Tries", (tries,)),
                    Panel("Tries by outcome", (CHOSEN.rate(m.UPSTREAM_TRIES, service, "outcome"),)),
                    Panel("Share that failed", (ratio(CHOSEN.rate(m.UPSTREAM_TRIES, service, outcome=FAILED), tries),)),
                    Panel("Retries", (CHOSEN.rate(m.UPSTREAM_RETRIES, service),)),
                    Panel("Share of retries", (ratio(CHOSEN.rate(m.UPSTREAM_RETRIES, service), tries),)),
                    Panel("Not sent, by reason", (CHOSEN.rate(m.UPSTREAM_REFUSALS, service, "reason"),)),
                ),
            ),
            Row(
                "Latency",
                tuple(
                    Panel(title, (query,), width=6)
                    for title, query in (
                        ("Mean", CHOSEN.mean(m.UPSTREAM_DURATION, service)),
                        ("p50", CHOSEN.quantile(0.5, m.UPSTREAM_DURATION, service)),
                        ("p95", CHOSEN.quantile(0.95, m.UPSTREAM_DURATION, service)),
                        ("p99", CHOSEN.quantile(0.99, m.UPSTREAM_DURATION, service)),
                    )
                ),
            ),
            Row(
                "Targets",
                (
                    Panel("Targets by state", (CHOSEN.value(m.UPSTREAM_TARGETS, service, "state"),)),
                    Panel("Breakers", (CHOSEN.value(m.BREAKER_STATE, service),), Form.STATES, means=_BREAKER),
                    Panel(
                        "Targets that are well",
                        (CHOSEN.value(m.TARGET_HEALTHY, service, "target"),),
                        Form.STATES,
                        means=_NO_YES,
                    ),
                ),
            ),
            Row(
                "Room",
                (
                    Panel("Connections", (CHOSEN.value(m.UPSTREAM_CONNECTIONS, service),)),
                    Panel("Connections without room", (CHOSEN.value(m.UPSTREAM_BUSY, service),)),
                    Panel("Requests under way", (CHOSEN.value(m.CONCURRENCY_TAKEN, service),)),
                    Panel("Requests that may be", (CHOSEN.value(m.CONCURRENCY_LIMIT, service),)),
                    Panel("Requests that wait", (CHOSEN.value(m.CONCURRENCY_WAITING, service),)),
                ),
            ),
        ),
    )


def _policies() -> Dashboard:
    by = ("policy", "result")
    asked = CHOSEN.rate(m.CACHE_REQUESTS, "policy")
    hits = ratio(CHOSEN.rate(m.CACHE_REQUESTS, "policy", result="hit|stale"), asked)
    return Dashboard(
        "portico-policies",
        "Portico: policies",
        "Whom policies refuse, and what they save services from.",
        (*_GATEWAYS, Variable("endpoint", m.REQUESTS, ANYWHERE), Variable("service", m.REQUESTS, ANYWHERE)),
        (
            Row(
                "Who is refused",
                tuple(
                    Panel(f"{title} ({status})", (CHOSEN.rate(m.REQUESTS, "endpoint", "service", status=status),))
                    for title, status in (("Not known", "401"), ("Not allowed", "403"), ("Too many", "429"))
                ),
            ),
            Row(
                "Limits",
                (
                    Panel("Rate limits", (CHOSEN.rate(m.RATE_LIMIT_REQUESTS, *by),)),
                    Panel("Quotas", (CHOSEN.rate(m.QUOTA_REQUESTS, *by),)),
                    Panel("Concurrency limits", (CHOSEN.rate(m.CONCURRENCY_REQUESTS, *by),)),
                ),
            ),
            Row(
                "Cache",
                (
                    Panel("Requests", (CHOSEN.rate(m.CACHE_REQUESTS, *by),)),
                    Panel("Share of hits", (hits,)),
                    Panel(
                        "Stored, and evicted from memory",
                        (CHOSEN.rate(m.CACHE_STORED).called("stored"), CHOSEN.rate(m.CACHE_EVICTED).called("evicted")),
                    ),
                ),
            ),
            Row(
                "What they keep",
                (
                    Panel("Idempotency keys", (CHOSEN.rate(m.IDEMPOTENCY_REQUESTS, *by),)),
                    Panel("Store failures", (CHOSEN.rate(m.STORE_FAILURES, "instance"),)),
                    Panel("Store failures of the cache", (CHOSEN.rate(m.CACHE_STORE_FAILURES, "instance"),)),
                ),
            ),
        ),
    )


def _processes() -> Dashboard:
    see = ANYWHERE
    return Dashboard(
        "portico-processes",
        "Portico: processes",
        "How the gateway itself is: its processes, its configuration, and what it could not tell.",
        _GATEWAYS,
        (
            Row(
                "Processes",
                (
                    Panel("CPU, of one core", (see.rate(m.PROCESS_CPU, *_PROCESS),)),
                    Panel("Memory", (see.value(m.PROCESS_MEMORY, *_PROCESS),)),
                    Panel("Uptime", (see.since(m.PROCESS_START, *_PROCESS),)),
                    Panel("Restarts in an hour", (see.increase(m.RESTARTS, "1h", "instance", "role"),)),
                    Panel("Loop lag", (see.value(m.LOOP_LAG, *_PROCESS),)),
                    Panel("Loop lag, longest", (see.value(m.LOOP_LAG_MAX, *_PROCESS),)),
                    Panel("GC: share of the time", (see.rate(m.GC_TIME, *_PROCESS),)),
                    Panel("GC: collections", (see.rate(m.GC_RUNS, *_PROCESS),)),
                    Panel("GC: longest pause", (see.value(m.GC_MAX, *_PROCESS),)),
                    Panel("Store: longest wait for the lock", (see.value(m.STORE_WAIT_MAX, *_PROCESS),)),
                ),
            ),
            Row(
                "Configuration",
                (
                    Panel(
                        "Revisions",
                        (
                            see.value(m.CONFIG_REVISION, "instance").called("to be served"),
                            see.value(m.WORKER_REVISION, *_PROCESS),
                        ),
                    ),
                    Panel("Last reload went well", (see.value(m.RELOAD_OK, "instance"),), Form.STATES, means=_NO_YES),
                    Panel("Time since the last reload", (see.since(m.RELOAD_TIME, "instance"),)),
                    Panel("Time until certificates end", (see.until(m.CERTIFICATE_EXPIRY, "file"),)),
                    Panel("What is running", (see.value(m.BUILD, "instance", *m.BUILD.labels),), Form.TABLE, 16),
                ),
            ),
            Row(
                "What was not told",
                (
                    Panel("Access log: lines lost", (see.rate(m.ACCESS_LOG_DROPPED, "instance"),)),
                    Panel(
                        "Traces",
                        (see.rate(m.TRACES_EXPORTED).called("taken"), see.rate(m.TRACES_LOST).called("lost")),
                    ),
                    Panel("Metrics: series too many, in a day", (see.increase(m.DROPPED_SERIES, "1d", "instance"),)),
                ),
            ),
        ),
    )


def _errors(*by: str) -> Query:
    return ratio(CHOSEN.rate(m.REQUESTS, *by, status=ERRORS), CHOSEN.rate(m.REQUESTS, *by))


def _with_more(dashboard: Dashboard, metrics: Iterable[Metric]) -> Dashboard:
    """Return it with a row of those metrics that suit it, where there are any."""
    panels = tuple(_of(metric) for metric in metrics if _home(metric) == dashboard.uid)
    return dashboard._replace(rows=(*dashboard.rows, Row("More", panels))) if panels else dashboard


def _home(metric: Metric) -> str:
    """Return which dashboard suits a metric, by what tells its series apart."""
    homes = {"endpoint": "portico-requests", "service": "portico-services", "policy": "portico-policies"}
    return next((home for label, home in homes.items() if label in metric.labels), "portico-processes")


def _of(metric: Metric) -> Panel:
    """Return a panel that shows all that a metric says."""
    by = metric.labels if set(metric.labels) & {"service", "policy"} else ("instance", *metric.labels)
    title = metric.name.removeprefix("portico_").removesuffix("_total").replace("_", " ").capitalize()
    if metric.kind is Kind.HISTOGRAM:
        queries = tuple(CHOSEN.quantile(share, metric, *by) for share in _SHARES)
    elif metric.kind is Kind.COUNTER:
        queries = (CHOSEN.rate(metric, *by),)
    elif metric.name.endswith("_timestamp_seconds"):
        queries = (CHOSEN.since(metric, *by),)
    else:
        queries = (CHOSEN.value(metric, *by),)
    return Panel(title, queries)
