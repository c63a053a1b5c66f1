"""Alerts fire when they should, and not when all is well: by what Prometheus makes of made-up series."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from docs.monitoring.rules import alerts
from docs.source import ROOT
from tests.harness.tools import program

PROMETHEUS = ROOT / "deploy" / "prometheus"
EVAL_ORDER = ["portico-recording", *alerts()]

Input = Mapping[str, str]
"""Series without the labels of scraping, and what they say each minute, in the notation of promtool."""

SCRAPED = 'job="portico",instance="a"'


class Case(NamedTuple):
    """When one alert has to fire."""

    bad: Input
    minutes: int
    """After how many of them it fires, and not one before."""
    labels: Mapping[str, str]
    """Which it has then, beside its name and `severity`."""
    fine: tuple[Input, ...]
    """What is no reason to fire, at any time within an hour."""


def requests(failed: int, well: int, endpoint: str = "/orders") -> Input:
    """Return how many of each are answered in a minute."""
    name = f'http_requests_total{{endpoint="{endpoint}",service="orders",method="GET",status="%s"}}'
    return {name % 503: f"0+{failed}x60", name % 200: f"0+{well}x60"}


def times(quick: int, slow: int) -> Input:
    """Return how many requests in a minute take at most a second, and longer."""
    name = 'http_request_duration_seconds_bucket{endpoint="/orders",service="orders",method="GET",le="%s"}'
    counts = {name % "1": f"0+{quick}x60", name % "2.5": f"0+{quick + slow}x60", name % "+Inf": f"0+{quick + slow}x60"}
    return {**counts, **requests(0, quick + slow)}


def of_orders(**states: str) -> Input:
    return {f'portico_upstream_targets{{service="orders",state="{state}"}}': said for state, said in states.items()}


def certificate(days: float) -> Input:
    at = f"{days * 86400:.0f}"
    return {'portico_tls_certificate_expiry_timestamp_seconds{file="tls/a.pem"}': f"{at}x60"}


def revisions(worker: str) -> Input:
    return {"portico_config_revision": "2x60", 'portico_worker_config_revision{process="worker 1"}': worker}


def alternating(lag: str) -> str:
    """Return what a loop says that is late at every other look."""
    return f"{lag} 0 " * 30


ROUTE = {"job": "portico", "endpoint": "/orders", "service": "orders"}
HERE = {"instance": "a"}
BREAKER = 'portico_breaker_state{service="orders"}'
START = 'portico_process_start_timestamp_seconds{process="%s"}'
AGENT = START % "agent"
LAG = 'portico_loop_lag_seconds{process="worker 0"}'
DEATHS = 'portico_process_restarts_total{role="worker"}'
DIED = {**HERE, "role": "worker"}
LOSSES = {
    "PorticoAccessLogDropped": "portico_access_log_dropped_total",
    "PorticoTracesLost": "portico_traces_lost_total",
    "PorticoSeriesDropped": "portico_metrics_dropped_series_total",
}

CASES = {
    "PorticoAbsent": Case({}, 5, {"job": "portico"}, ({"up": "1x60"}, {"up": "0x60"})),
    "PorticoDown": Case({"up": "1x3 0x60"}, 6, HERE, ({"up": "1x60"}, {"up": "1 0 1 0 0 1x60"})),
    "PorticoErrors": Case(requests(20, 80), 6, {"job": "portico"}, (requests(5, 95), requests(2, 2))),
    "PorticoRouteErrors": Case(requests(8, 92), 11, ROUTE, (requests(4, 96), requests(2, 2), requests(0, 100))),
    "PorticoRouteSlow": Case(times(90, 10), 11, ROUTE, (times(96, 4), times(1, 3))),
    "PorticoServiceDown": Case(
        of_orders(healthy="1x3 0x60", unhealthy="1x3 2x60", ejected="0x60", unchecked="0x60"),
        5,
        {"service": "orders"},
        (
            of_orders(healthy="1x60", unhealthy="1x60", ejected="1x60", unchecked="0x60"),
            of_orders(healthy="0x60", unhealthy="0x60", ejected="0x60", unchecked="2x60"),
            of_orders(healthy="0x60", unhealthy="0x60", ejected="0x60", unchecked="0x60"),
        ),
    ),
    "PorticoTargetUnhealthy": Case(
        of_orders(healthy="1x60", unhealthy="1x60"),
        5,
        {"service": "orders", "state": "unhealthy"},
        (of_orders(healthy="2x60", unhealthy="0x60", ejected="0 1 1 0 0 1 1 1 0x60"),),
    ),
    "PorticoBreakerOpen": Case(
        {BREAKER: "0x3 2 1 2 2 1 2 2 1 2x60"}, 6, {"service": "orders"}, ({BREAKER: "0 2 1 0x60"}, {BREAKER: "1x60"})
    ),
    "PorticoRestarts": Case({DEATHS: "0x5 1x60"}, 6, DIED, ({DEATHS: "0x60"}, {DEATHS: "7x60"})),
    "PorticoCrashLoop": Case({DEATHS: "0x5 3 6 9x60"}, 12, DIED, ({DEATHS: "0x5 1 2 3x60"},)),
    "PorticoGatewayRestarts": Case(
        {AGENT: "100x4 _ 400x4 _ 700x4 _ 1000x60"},
        18,
        HERE,
        (
            {AGENT: "100x60"},
            {AGENT: "100x4 _ 400x4 _ 700x60"},
            {AGENT: "100x4 400x19 1600x19 2800x60"},
            {AGENT: "100x60", START % "worker 0": "100x4 400x4 700x4 1000x60"},
        ),
    ),
    "PorticoLoopLag": Case(
        {LAG: alternating("0.2")},
        10,
        {**HERE, "process": "worker 0"},
        ({LAG: "0.01x60"}, {LAG: "0x10 0.6 0x60"}, {LAG: "0x10 0.3 0.3 0.01 0.3 0x60"}, {LAG: alternating("0.07")}),
    ),
    "PorticoReloadFailed": Case(
        {"portico_last_reload_successful": "1x3 0x60"}, 5, HERE, ({"portico_last_reload_successful": "1x60"}, {})
    ),
    "PorticoOldRevision": Case(
        revisions("1x60"), 5, {**HERE, "process": "worker 1"}, (revisions("1x3 2x60"), revisions("2x60"))
    ),
    "PorticoCertificateExpires": Case(certificate(13), 15, {**HERE, "file": "tls/a.pem"}, (certificate(15),)),
    "PorticoCertificateExpiresSoon": Case(certificate(2), 15, {**HERE, "file": "tls/a.pem"}, (certificate(4),)),
    "PorticoStoreFailures": Case(
        {"portico_store_failures_total": "0 0+5x60"},
        7,
        HERE,
        ({"portico_store_failures_total": "5x60"}, {"portico_store_failures_total": "0x5 1x60"}),
    ),
    **{name: Case({counter: "0x5 3x60"}, 6, HERE, ({counter: "3x60"},)) for name, counter in LOSSES.items()},
}


def with_labels(series: str) -> str:
    """Return a series as it is once it was scraped."""
    name, _, labels = series.partition("{")
    return f"{name}{{{SCRAPED}{',' if labels else ''}{labels.removesuffix('}')}}}"


def expectation(name: str, said: Input, at: Mapping[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what promtool is to try: what of an alert fires, by the minute."""
    firing = f'ALERTS{{alertname="{name}",alertstate="firing"}}'
    return {
        "interval": "1m",
        "input_series": [{"series": with_labels(series), "values": values} for series, values in said.items()],
        "promql_expr_test": [
            {"expr": firing, "eval_time": f"{minute}m", "exp_samples": samples} for minute, samples in at.items()
        ],
    }


def expectations(name: str, severity: str) -> list[dict[str, Any]]:
    case = CASES[name]
    labels = {"alertname": name, "alertstate": "firing", "severity": severity, **case.labels}
    fired = {"labels": "ALERTS{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}", "value": 1}
    quiet: dict[int, list[dict[str, Any]]] = {minute: [] for minute in range(61)}
    return [
        expectation(name, case.bad, {case.minutes - 1: [], case.minutes: [fired]}),
        *(expectation(name, said, quiet) for said in case.fine),
    ]


def promtool(folder: Path, tests: list[dict[str, Any]]) -> str:
    """Return what promtool finds wrong, or nothing."""
    text = {
        "rule_files": [str(PROMETHEUS / "recording.yml"), str(PROMETHEUS / "alerts.yml")],
        "evaluation_interval": "1m",
        "group_eval_order": EVAL_ORDER,
        "tests": tests,
    }
    file = folder / "tests.yml"
    file.write_text(yaml.safe_dump(text), "utf-8")
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode in {0, 1}
    return "" if done.returncode == 0 else done.stdout + done.stderr


ALERTS = {alert.name: alert for group in alerts().values() for alert in group}


def test_there_is_a_case_for_every_alert() -> None:
    assert set(CASES) == set(ALERTS)


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_in_time_and_only_then(name: str, tmp_path: Path) -> None:
    assert promtool(tmp_path, expectations(name, ALERTS[name].severity)) == ""


def test_a_case_can_fail(tmp_path: Path) -> None:
    late, *_ = expectations("PorticoDown", "critical")
    late["input_series"][0]["values"] = "1x4 0x60"
    assert "FAILED" in promtool(tmp_path, [late])
    loud = expectations("PorticoDown", "critical")[1]
    loud["input_series"][0]["values"] = "0x60"
    assert "FAILED" in promtool(tmp_path, [loud])


def test_an_alert_tells_of_what_is_wrong(tmp_path: Path) -> None:
    page = "docs/operations/monitoring.md#porticorouteerrors"
    told = {
        "exp_labels": {"severity": "warning", **ROUTE},
        "exp_annotations": {
            "summary": "8% of the requests for /orders fail",
            "description": "More than one in twenty was answered 500 or above, or not at all, for ten minutes. They go"
            f" to the service orders. What to do: {page}",
            "runbook": page,
        },
    }
    test = expectation("PorticoRouteErrors", requests(8, 92), {})
    test["alert_rule_test"] = [{"alertname": "PorticoRouteErrors", "eval_time": "15m", "exp_alerts": [told]}]
    assert promtool(tmp_path, [test]) == ""


def test_what_is_recorded_is_what_was_asked(tmp_path: Path) -> None:
    labels = 'endpoint="/orders", job="portico", service="orders"'
    wanted = {
        "job:http_requests:rate5m": ('job="portico"', 100 / 60),
        "job:http_requests_errors:ratio_rate5m": ('job="portico"', 0.25),
        "route:http_requests:rate5m": (labels, 100 / 60),
        "route:http_requests_errors:ratio_rate5m": (labels, 0.25),
    }
    test = expectation("", requests(25, 75), {})
    test["promql_expr_test"] = [
        {"expr": name, "eval_time": "10m", "exp_samples": [{"labels": f"{name}{{{labels}}}", "value": value}]}
        for name, (labels, value) in wanted.items()
    ]
    assert promtool(tmp_path, [test]) == ""
