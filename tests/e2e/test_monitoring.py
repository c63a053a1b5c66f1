"""Dashboards and rules at work: a real Prometheus scrapes a gateway, and answers what they ask."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from docs.monitoring.rules import RECORDINGS, alerts
from tests.harness import deployment
from tests.harness.certificates import Authority
from tests.harness.collector import Collector
from tests.harness.demo import Demo
from tests.harness.gateway import ROOT, Call, Gateway, Service, curl, refusing_port, wait_for
from tests.harness.prometheus import Prometheus, findings, prometheus
from tests.harness.tools import program

CONFIG = """
access_log: {{file: access.log}}
tracing: {{sample: 100%, export: "{collector}"}}
services:
  good: {{url: "http://127.0.0.1:{good}", health: {{path: /health, interval: 1s}}, concurrency: 50}}
  bad: {{targets: ["127.0.0.1:{nobody}", "127.0.0.1:{no_one}"], retry: 2, breaker: {{failures: 2, open_for: 60s}}}}
routes:
  - {{path: /good, service: good}}
  - {{path: /bad, service: bad}}
  - {{path: /kept, service: good, policies: [cache]}}
  - {{path: /known, service: good, policies: [key-auth: {{keys: {{ada: ada-has-a-long-key}}}}]}}
  - {{path: /inside, service: good, policies: [ip-restriction: {{allow: [192.0.2.1]}}]}}
  - {{path: /few, service: good, policies: [rate-limit: 1/1h, quota: 100/day, concurrency-limit: 10]}}
  - {{path: /once, service: good, policies: [idempotency-key]}}
"""
CHOSEN = {"$__rate_interval": "15s", "$job": "portico", "$instance": ".*", "$endpoint": ".*", "$service": ".*"}


class Asked(NamedTuple):
    """What a panel asks for, with everything chosen."""

    panel: str
    text: str
    placed: bool
    """Whether the panel has a place of its own; what those in the row More are about, need not be here."""


def chosen(text: str) -> str:
    for variable, value in CHOSEN.items():
        text = text.replace(variable, value)
    return text


def boards() -> list[dict[str, Any]]:
    return [json.loads(board.read_text("utf-8")) for board in (ROOT / "deploy/grafana/dashboards").glob("*.json")]


def every_query() -> Iterator[Asked]:
    for board in boards():
        row = ""
        for panel in board["panels"]:
            row = panel["title"] if panel["type"] == "row" else row
            for target in panel.get("targets", ()):
                yield Asked(f"{board['title']}, {panel['title']}", chosen(target["expr"]), row != "More")


def every_variable() -> Iterator[tuple[str, str]]:
    """Yield what is asked for the values of each variable: a label, and of which series."""
    for board in boards():
        for variable in board["templating"]["list"][1:]:
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert found is not None
            yield found[2], chosen(found[1])


def answer(call: Call) -> None:
    """Answer with what may be kept for a minute."""
    call.note(b"".join(call.read_body()))
    call.answer(200, b"hello", Cache_Control="max-age=60")


@contextmanager
def gateway(folder: Path) -> Iterator[Gateway]:
    """Run a gateway that has some of everything."""
    pair = Authority(folder).issue("gateway", "localhost")
    listen = f"[127.0.0.1:0, {{address: 127.0.0.1:0, tls: {{certificate: {pair.certificate}, key: {pair.key}}}}}]"
    with refusing_port() as nobody, refusing_port() as no_one, Service(answer) as service, Collector() as collector:
        config = CONFIG.format(good=service.port, nobody=nobody, no_one=no_one, collector=collector.url)
        with Gateway(folder, config, workers=2, listen=listen) as running:
            yield running


def ask_for_everything(url: str) -> None:
    """Send requests that come to every end that dashboards tell of."""
    for path in ("/good", "/bad", "/kept", "/known", "/inside", "/few", "/nothing"):
        for _ in range(3):
            curl(url + path)
    for key in ("one", "two"):
        curl(f"{url}/once", "-H", f'Idempotency-Key: "{key}"', "-d", "hello")


@pytest.mark.timeout(240)
def test_everything_that_dashboards_and_rules_ask_for_is_answered(tmp_path: Path) -> None:
    program("prometheus")
    with gateway(tmp_path) as running, prometheus(tmp_path, f"127.0.0.1:{running.port}") as watching:
        running.agent_answers()
        running.popen.send_signal(signal.SIGHUP)

        def unanswered() -> list[Asked]:
            ask_for_everything(running.url)
            return [asked for asked in every_query() if not numbers(watching, asked.text) and asked.placed]

        end = time.monotonic() + 90
        while left := unanswered():
            assert time.monotonic() < end, left
        for label, series in every_variable():
            assert watching.ask(f"label/{label}/values", **{"match[]": series}), (label, series)
        names = [recording.name for recording in RECORDINGS]
        wait_for(lambda: all(numbers(watching, name) for name in names), "what is computed ahead")
        rules = wait_for(lambda: evaluated(watching), "all rules")
        assert [rule for rule in rules.values() if rule["health"] != "ok" or rule.get("lastError")] == []
        assert len(rules) == len(RECORDINGS) + sum(map(len, alerts().values()))
        wait_for(lambda: evaluated(watching)["PorticoBreakerOpen"]["state"] != "inactive", "an alert")


def pod(address: str, name: str, **other: str) -> dict[str, Any]:
    """Return a port of the gateway's pods as Prometheus finds it in Kubernetes."""
    labels = {
        "label_app": deployment.manifest("Deployment")["spec"]["template"]["metadata"]["labels"]["app"],
        "container_port_number": str(deployment.container()["ports"][0]["containerPort"]),
        "phase": "Running",
        "name": name,
        **other,
    }
    found = {f"__meta_kubernetes_pod_{label}": value for label, value in labels.items()}
    return {"targets": [address], "labels": {"__meta_kubernetes_namespace": "shop", **found}}


def test_in_kubernetes_each_pod_of_the_gateway_is_scraped_by_itself(tmp_path: Path) -> None:
    program("prometheus")
    with refusing_port() as nobody, Gateway(tmp_path, "routes: []\n") as running:
        here = f"127.0.0.1:{running.port}"
        there = f"127.0.0.1:{nobody}"
        redis = deployment.manifest("StatefulSet", "redis")["spec"]["template"]["metadata"]["labels"]["app"]
        others = (
            pod(here, "api-gateway-1"),
            pod(there, "api-gateway-2"),
            pod(there, "api-gateway-3", phase="Failed"),
            pod(there, "api-gateway-4", container_port_number="15090"),
            pod(there, "redis-0", label_app=redis),
        )
        with prometheus(tmp_path, here, *others, file="kubernetes.yml") as watching:
            wait_for(lambda: len(watching.query("up")) == 2, "both pods")
            wait_for(lambda: watching.query('up{job="portico"} == 1'), "the gateway")
            # What tells of a gateway that is started again and again.
            agent = 'portico_process_start_timestamp_seconds{process="agent"}'
            wait_for(lambda: numbers(watching, agent), "when its agent was started")
            found = {tuple(sorted(target["labels"].items())) for target in watching.ask("targets")["activeTargets"]}
            assert found == {
                (("instance", f"api-gateway-{number}"), ("job", "portico"), ("namespace", "shop")) for number in (1, 2)
            }


def numbers(watching: Prometheus, text: str) -> list[str]:
    """Return what a query has now, of what is a number."""
    return [series["value"][1] for series in watching.query(text) if series["value"][1] != "NaN"]


def evaluated(watching: Prometheus) -> dict[str, dict[str, Any]]:
    """Return the rules by name, or none where not all have been looked at yet."""
    rules = {rule["name"]: rule for group in watching.ask("rules")["groups"] for rule in group["rules"]}
    return {} if any(rule["health"] == "unknown" for rule in rules.values()) else rules


@pytest.mark.timeout(180)
def test_a_real_prometheus_scrapes_the_demo_and_tells_its_rate_of_requests(tmp_path: Path) -> None:
    program("prometheus")
    with Demo(tmp_path, []) as demo:
        demo.read_until("Ctrl-C ends it all.")
        url = f"http://127.0.0.1:{demo.base}"
        with prometheus(tmp_path, f"127.0.0.1:{demo.base}") as watching:
            text = 'sum by (endpoint, service) (rate(http_requests_total{endpoint="/api/v1/products/*"}[15s]))'

            def rate() -> float:
                assert curl(f"{url}/api/v1/products/keyboard").status == 200
                return sum(float(series["value"][1]) for series in watching.query(text))

            assert 0 < wait_for(rate, "the rate of requests") < 1000
            ((series,),) = [[each["metric"] for each in watching.query(text)]]
            assert series == {"endpoint": "/api/v1/products/*", "service": "inventory-service"}
            wait_for(lambda: watching.query("job:http_requests:rate5m > 0"), "the rate that is computed ahead")
            wait_for(lambda: watching.query('portico_upstream_targets{state="healthy"} > 0'), "targets")
        assert findings(curl(f"{url}/metrics").body) == (0, "")
        demo.popen.send_signal(signal.SIGINT)
        assert demo.finish()[0] == 0
