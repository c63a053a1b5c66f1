"""A gateway's metrics: exact whatever happens to its workers, and as Prometheus reads them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from tests.harness.gateway import (
    Answer,
    Gateway,
    Service,
    curl,
    problem_of,
    refusing_port,
    reserved_port,
    wait_for,
)
from tests.harness.load import Load
from tests.harness.prometheus import findings, prometheus
from tests.harness.tools import program

CONFIG = """
services: {{svc: "http://127.0.0.1:{port}"}}
routes:
  - {{path: "/a/{{id}}", respond: {{body: hi}}}}
  - {{path: /svc, service: svc}}
"""
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"

Samples = dict[tuple[str, ...], float]


def scrape(url: str) -> Samples:
    text = curl(f"{url}/metrics").body.decode()
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in read_prometheus(text)
        for sample in family.samples
    }


def requests(samples: Samples, endpoint: str) -> dict[str, float]:
    """Return how many requests of a path were counted, by status."""
    return {
        key[-1].partition("=")[2]: value
        for key, value in samples.items()
        if key[:2] == ("http_requests_total", f"endpoint={endpoint}")
    }


@contextmanager
def gateway(folder: Path, extra: str = "", workers: int = 1) -> Iterator[tuple[Gateway, Service]]:
    with Service() as service, Gateway(folder, extra + CONFIG.format(port=service.port), workers=workers) as running:
        yield running, service


def test_what_two_workers_have_counted_is_what_clients_have_seen(tmp_path: Path) -> None:
    with gateway(tmp_path, workers=2) as (running, _):
        for number in range(30):
            assert curl(f"{running.url}/a/{number}").status == 200
            assert curl(f"{running.url}/svc", "-d", "x").status == 200
            assert curl(f"{running.url}/nothing").status == 404
        done = ("http_request_duration_seconds_count", "endpoint=/svc", "method=POST", "service=svc")
        found = wait_for(lambda: (now := scrape(running.url)).get(done) == 30 and now, "all to have ended")
        assert requests(found, "/a/{id}") == {"200": 30}
        assert requests(found, "/svc") == {"200": 30}
        assert requests(found, "none") == {"404": 30}
        assert not [key for key in found if "/a/1" in str(key)]
        assert found["portico_upstream_tries_total", "outcome=answered", "service=svc"] == 30
        assert found["portico_upstream_request_duration_seconds_count", "service=svc"] == 30


def test_a_worker_that_is_killed_loses_nothing_that_it_has_counted(tmp_path: Path) -> None:
    with gateway(tmp_path, workers=2) as (running, _):
        with Load(running.port, "/a/1", kept=8, fresh=2) as load:
            load.some_more(300)
            os.kill(running.worker_pids()[0], signal.SIGKILL)
            load.ended(300)
        wait_for(lambda: len(running.worker_pids()) == 2, "the next worker")
        found = scrape(running.url)
        counted = requests(found, "/a/{id}")["200"]
        assert 0 <= counted - len(load.took) <= 10, (counted, len(load.took), load.failures)
        assert found["portico_process_restarts_total", "role=worker"] == 1


def test_what_was_counted_goes_over_to_the_next_version(tmp_path: Path) -> None:
    with gateway(tmp_path) as (running, _):
        for _ in range(5):
            curl(f"{running.url}/a/1")
        running.agent_answers()
        (before,) = running.worker_pids()
        running.popen.send_signal(signal.SIGUSR2)
        wait_for(lambda: (now := running.worker_pids()) and before not in now and len(now) == 1, "the next worker")
        found = wait_for(lambda: scrape(running.url), "an answer")
        assert requests(found, "/a/{id}") == {"200": 5}
        took = ("http_request_duration_seconds_bucket", "endpoint=/a/{id}", "le=+Inf", "method=GET", "service=")
        assert found[took] == 5


def test_it_tells_in_either_format_whom_it_may(tmp_path: Path) -> None:
    holder, port = reserved_port()
    holder.close()
    with gateway(tmp_path, f"status: 127.0.0.1:{port}\n") as (running, _):
        answer = curl(f"{running.url}/metrics", "-H", f"Accept: {OPENMETRICS}")
        assert answer.value("Content-Type") == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert answer.body.endswith(b"# EOF\n")
        assert {family.name for family in read_openmetrics(answer.body.decode())} >= {
            "http_requests",
            "portico_build_info",
        }
        assert curl(f"{running.url}/metrics").value("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
        running.agent_answers()
        assert wait_for(lambda: requests(scrape(f"http://127.0.0.1:{port}"), "/metrics").get("200"), "the agent") == 2
        running.file.write_text(running.file.read_text() + "metrics: {allow: [10.9.8.0/24], buckets: [1s]}\n")
        running.popen.send_signal(signal.SIGHUP)
        refused = wait_for(lambda: (now := asked(running)).status == 403 and now, "the next configuration")
        problem_of(refused, 403, "address-not-allowed")
        last = "portico_last_reload_successful"
        wait_for(lambda: scrape(f"http://127.0.0.1:{port}").get((last,)) == 1, "the reload to be told of")
        running.file.write_text(running.file.read_text().replace("metrics: {", "metrics: off #"))
        running.popen.send_signal(signal.SIGHUP)
        wait_for(lambda: asked(running).status == 404, "the next configuration")


def test_services_are_told_of_with_their_targets(tmp_path: Path) -> None:
    config = """
services:
  two: {{targets: [{targets}], balance: round-robin, breaker: {{}}, outliers: {{}},
        concurrency: 9}}
routes: [{{path: /two, service: two}}]
"""
    with (
        Service() as service,
        refusing_port() as dead,
        Gateway(tmp_path, config.format(targets=f"127.0.0.1:{service.port}, 127.0.0.1:{dead}"), workers=2) as running,
    ):

        def well() -> dict[int, float]:
            curl(f"{running.url}/two")
            told = scrape(running.url)
            return {
                port: told.get(("portico_upstream_target_healthy", "service=two", f"target=127.0.0.1:{port}"), -1.0)
                for port in (service.port, dead)
            }

        wait_for(lambda: well() == {service.port: 1, dead: 0}, "the dead one to be told of")

        def pools() -> list[float]:
            names = ("connections", "connections_busy", "concurrency_taken", "concurrency_waiting", "concurrency_limit")
            told = scrape(running.url)
            return [told.get((f"portico_upstream_{name}", "service=two"), -1.0) for name in names]

        wait_for(lambda: (now := pools())[0] > 0 and now[1:] == [0, 0, 0, 2 * 9], "both workers to have told")
        assert scrape(running.url)["portico_breaker_state", "service=two"] == 0
        running.file.write_text(running.file.read_text().replace(f", 127.0.0.1:{dead}", ""))
        running.popen.send_signal(signal.SIGHUP)
        wait_for(lambda: well() == {service.port: 1, dead: -1}, "the one that went to be told of no more")


def asked(running: Gateway) -> Answer:
    return curl(f"{running.url}/metrics")


@pytest.mark.timeout(180)
def test_a_real_prometheus_scrapes_it_and_answers_a_query(tmp_path: Path) -> None:
    program("prometheus")
    with gateway(tmp_path, workers=2) as (running, _):
        for _ in range(7):
            assert curl(f"{running.url}/a/1").status == 200
        with prometheus(tmp_path, f"127.0.0.1:{running.port}") as watching:
            found = wait_for(
                lambda: watching.query('sum by (endpoint) (http_requests_total{endpoint="/a/{id}",status="200"})'),
                "an answer of Prometheus",
            )
            assert [(each["metric"], each["value"][1]) for each in found] == [({"endpoint": "/a/{id}"}, "7")]
            text = 'histogram_quantile(0.5, http_request_duration_seconds_bucket{endpoint="/a/{id}"})'
            ((_, median),) = [each["value"] for each in watching.query(text)]
            assert 0 <= float(median) <= 10


def test_promtool_finds_nothing_wrong(tmp_path: Path) -> None:
    program("promtool")
    with gateway(tmp_path) as (running, _):
        for path in ("/a/1", "/svc", "/nothing"):
            curl(f"{running.url}{path}")
        assert findings(asked(running).body) == (0, "")
