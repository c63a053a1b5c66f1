"""Every metric that there is, but for those of plugins.

`http_*` are those that the platform's dashboards are made for; all others begin with `portico_`. Units are the base
units of Prometheus, and the name ends with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds, as Prometheus' own libraries have them."""

NANO: Final = 10**9


class Kind(StrEnum):
    """What kind of metric it is, in the words of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    """Which the name ends with, ahead of `_total`."""
    scale: int = 1
    """How many of what is on the board are one of the unit."""
    merge: Callable[[Iterable[int]], int] = sum
    """What is made of a gauge that several processes have."""


def _counter(name: str, about: str, *labels: str, unit: str = "", scale: int = 1) -> Metric:
    return Metric(name, Kind.COUNTER, about, labels, unit, scale)


def _gauge(
    name: str,
    about: str,
    *labels: str,
    unit: str = "",
    scale: int = 1,
    merge: Callable[[Iterable[int]], int] = sum,
) -> Metric:
    return Metric(name, Kind.GAUGE, about, labels, unit, scale, merge)


REQUESTS: Final = _counter(
    "http_requests_total",
    "Requests by method, first path of their route, status and the route's service. The status is 499 where the client"
    " left before an answer, and 0 where the worker ended before one.",
    "method",
    "endpoint",
    "status",
    "service",
)
DURATION: Final = Metric(
    "http_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time from the head of a request to the last byte of its answer; upgraded connections are not counted.",
    ("method", "endpoint", "service"),
    "seconds",
    NANO,
)
CONNECTIONS: Final = _gauge("http_active_connections", "Connections that clients have open.")
IN_FLIGHT: Final = _gauge("portico_requests_in_flight", "Requests that are being answered.")

UPSTREAM_DURATION: Final = Metric(
    "portico_upstream_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time from a request's head sent to a service to the head of its answer, of each try that was answered.",
    ("service",),
    "seconds",
    NANO,
)
UPSTREAM_TRIES: Final = _counter(
    "portico_upstream_tries_total",
    "Tries of requests at services, by what came of them: answered, server-error (an answer of 500 or above), the type"
    " of the problem, such as service-timeout, or outrun by another.",
    "service",
    "outcome",
)
UPSTREAM_RETRIES: Final = _counter(
    "portico_upstream_retries_total", "Tries that were not a request's first at its service.", "service"
)
UPSTREAM_REFUSALS: Final = _counter(
    "portico_upstream_refusals_total",
    "Requests that were not sent to the service, by the type of the problem, such as circuit-open.",
    "service",
    "reason",
)
UPSTREAM_TARGETS: Final = _gauge(
    "portico_upstream_targets",
    "Targets of services by state: healthy, unhealthy, ejected, or unchecked. Where workers differ, the most of them.",
    "service",
    "state",
    merge=max,
)
TARGET_HEALTHY: Final = _gauge(
    "portico_upstream_target_healthy",
    "Whether a target of a service is well: 0 where a check has found that it is not, or where any worker has ejected"
    " it; else 1. Of a few thousand targets at most.",
    "service",
    "target",
    merge=min,
)
UPSTREAM_CONNECTIONS: Final = _gauge("portico_upstream_connections", "Connections to services.", "service")
UPSTREAM_BUSY: Final = _gauge(
    "portico_upstream_connections_busy", "Those of them that have no room, or are being opened.", "service"
)
CONCURRENCY_TAKEN: Final = _gauge(
    "portico_upstream_concurrency_taken", "Requests under way at services that have a concurrency.", "service"
)
CONCURRENCY_WAITING: Final = _gauge("portico_upstream_concurrency_waiting", "Requests that wait there.", "service")
CONCURRENCY_LIMIT: Final = _gauge(
    "portico_upstream_concurrency_limit", "How many may be under way there, as of now.", "service"
)
BREAKER_STATE: Final = _gauge(
    "portico_breaker_state", "Breakers of services: 0 closed, 1 half open, 2 open.", "service", merge=max
)

RATE_LIMIT_REQUESTS: Final = _counter(
    "portico_rate_limit_requests_total",
    "Requests at a rate-limit, by what came of them: allowed, limited, dry-run, or unchecked.",
    "policy",
    "result",
)
QUOTA_REQUESTS: Final = _counter("portico_quota_requests_total", "The same at a quota.", "policy", "result")
CONCURRENCY_REQUESTS: Final = _counter(
    "portico_concurrency_limit_requests_total", "The same at a concurrency-limit.", "policy", "result"
)
IDEMPOTENCY_REQUESTS: Final = _counter(
    "portico_idempotency_key_requests_total",
    "Requests at an idempotency-key, by what came of them: first, replayed, or why they were refused.",
    "policy",
    "result",
)
CACHE_REQUESTS: Final = _counter(
    "portico_cache_requests_total",
    "Requests at a cache, by what came of them: hit, stale, miss, or pass.",
    "policy",
    "result",
)
CACHE_STORED: Final = _counter("portico_cache_stored_total", "Answers that a cache has kept.")
CACHE_EVICTED: Final = _counter("portico_cache_evicted_total", "Answers that went from the memory of workers.")
CACHE_STORE_FAILURES: Final = _counter(
    "portico_cache_store_failures_total", "Questions of a cache that the store has not answered."
)
ACCESS_LOG_DROPPED: Final = _counter("portico_access_log_dropped_total", "Lines of the access log that were lost.")
TRACES_EXPORTED: Final = _counter(
    "portico_traces_exported_total", "Requests whose spans the collector of traces has taken."
)
TRACES_LOST: Final = _counter(
    "portico_traces_lost_total",
    "Requests whose spans are lost: the collector has not taken them, or too many have waited for it.",
)
STORE_FAILURES: Final = _counter("portico_store_failures_total", "Questions that the store has not answered.")

CONFIG_REVISION: Final = _gauge("portico_config_revision", "The configuration that all are to serve, by number.")
WORKER_REVISION: Final = _gauge("portico_worker_config_revision", "The one that a worker serves.", "process")
RELOAD_TIME: Final = _gauge(
    "portico_last_reload_timestamp_seconds",
    "When the last reload was over.",
    unit="seconds",
    scale=1000,
    merge=max,
)
RELOAD_OK: Final = _gauge("portico_last_reload_successful", "Whether that went well: 1 or 0.", merge=max)
CERTIFICATE_EXPIRY: Final = _gauge(
    "portico_tls_certificate_expiry_timestamp_seconds",
    "When a certificate of a listener ends.",
    "file",
    unit="seconds",
    merge=min,
)

PROCESS_CPU: Final = _counter(
    "portico_process_cpu_seconds_total", "Processor time of a process.", "process", unit="seconds", scale=NANO
)
PROCESS_MEMORY: Final = _gauge(
    "portico_process_resident_memory_bytes", "Resident memory of a process.", "process", unit="bytes"
)
PROCESS_START: Final = _gauge(
    "portico_process_start_timestamp_seconds", "When a process started.", "process", unit="seconds", scale=1000
)
LOOP_LAG: Final = _gauge(
    "portico_loop_lag_seconds", "How late a process's loop was of late.", "process", unit="seconds", scale=NANO
)
LOOP_LAG_MAX: Final = _gauge(
    "portico_loop_lag_max_seconds", "How late it was at its latest.", "process", unit="seconds", scale=NANO
)
GC_RUNS: Final = _counter("portico_gc_collections_total", "Collections of garbage in a process.", "process")
GC_TIME: Final = _counter(
    "portico_gc_pause_seconds_total", "What they took together.", "process", unit="seconds", scale=NANO
)
GC_MAX: Final = _gauge(
    "portico_gc_pause_max_seconds", "What the longest one took.", "process", unit="seconds", scale=NANO
)
STORE_WAIT_MAX: Final = _gauge(
    "portico_store_wait_max_seconds",
    "The longest that a process has waited for the store's lock.",
    "process",
    unit="seconds",
    scale=NANO,
)
RESTARTS: Final = _counter(
    "portico_process_restarts_total", "Processes that have died, and that others took the place of, by role.", "role"
)
DROPPED_SERIES: Final = _counter(
    "portico_metrics_dropped_series_total",
    "Series that there was no room for: requests are counted as endpoint other instead, and targets are not told of one"
    " by one.",
)
BUILD: Final = _gauge(
    "portico_build_info", "Always 1; the labels say what is running.", "version", "python", "compiled"
)

METRICS: Final = MappingProxyType(
    {metric.name: metric for metric in tuple(globals().values()) if isinstance(metric, Metric)}
)
"""All of them, by name, in the order of this file."""

METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"))
"""The methods that are told apart (RFC 9110 section 9.3, and RFC 5789); every other is `other`."""

OTHER: Final = "other"
NONE: Final = "none"
"""The endpoint of what came to no route; neither can be one's path, as that begins with a slash."""


def metric_of(name: str) -> Metric:
    """Return what is known of a metric; of one of a plugin's, that it is a counter of some kind."""
    known = METRICS.get(name)
    return Metric(name, Kind.COUNTER, "Counted by a policy or an endpoint of a plugin.") if known is None else known
