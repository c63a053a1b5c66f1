"""Traces through a gateway: one that joins client, gateway and services, as a collector gets it."""

from __future__ import annotations

import time
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics

from tests.harness.collector import Collector, Span
from tests.harness.gateway import Gateway, Service, curl, refusing_port, wait_for

TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"

CONFIG = """
tracing:
  sample: 0%
  export: {{url: "{collector}", interval: 20ms, timeout: {timeout}, queue: 50, headers: {{X-Key: "a key"}}}}
  attributes: {{deployment.environment.name: test}}
metrics: {{allow: [127.0.0.0/8]}}
services:
  svc:
    targets: [{targets}]
    balance: round-robin
routes:
  - {{path: "/svc/{{id}}", service: svc}}
  - {{path: /always, sample: 100%, respond: {{body: hi}}}}
"""


def config(collector: Collector, *targets: int, timeout: str = "5s") -> str:
    addresses = ", ".join(f"127.0.0.1:{port}" for port in targets)
    return CONFIG.format(collector=collector.url, targets=addresses, timeout=timeout)


def only(spans: list[Span], kind: str) -> Span:
    (span,) = [each for each in spans if each.kind == kind]
    return span


def counted(gateway: Gateway, name: str) -> float:
    lines = curl(f"{gateway.url}/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_one_trace_joins_client_gateway_and_service(tmp_path: Path) -> None:
    with (
        Collector() as collector,
        Service() as service,
        Gateway(tmp_path, config(collector, service.port)) as gateway,
    ):
        before = time.time_ns()
        answer = curl(f"{gateway.url}/svc/7?token=secret", "-H", f"traceparent: 00-{TRACE}-{SPAN}-01", "-A", "me")
        assert answer.status == 200
        spans = wait_for(lambda: collector.spans, "the spans")
        after = time.time_ns()
        server, client = only(spans, "server"), only(spans, "client")
        assert (server.trace_id, server.parent_id) == (TRACE, SPAN)
        assert (client.trace_id, client.parent_id) == (TRACE, server.span_id)
        assert service.last.values("traceparent") == [f"00-{TRACE}-{client.span_id}-01"]
        assert before <= server.began <= client.began <= client.ended <= server.ended <= after
        assert client.events == ["connected", "sent", "first byte"]
        assert server.name == "GET /svc/{id}"
        assert server.attributes == {
            "http.request.method": "GET",
            "url.scheme": "http",
            "url.path": "/svc/7",
            "url.query": "token=…",
            "portico.route": server.attributes["portico.route"],
            "http.response.status_code": 200,
            "http.route": "/svc/{id}",
            "server.address": "127.0.0.1",
            "server.port": gateway.port,
            "client.address": "127.0.0.1",
            "network.peer.address": "127.0.0.1",
            "user_agent.original": "me",
            "portico.service": "svc",
        }
        assert client.attributes == {
            "http.request.method": "GET",
            "server.address": "127.0.0.1",
            "server.port": service.port,
            "portico.service": "svc",
            "http.response.status_code": 200,
        }
        assert collector.resources[0]["service.name"] == "portico"
        assert collector.resources[0]["deployment.environment.name"] == "test"
        assert collector.headers[0]["X-Key"] == "a key"
        assert (server.failed, client.failed) == (False, False)


def test_metrics_show_a_trace_that_is_recorded_and_no_other(tmp_path: Path) -> None:
    with Collector() as collector, Gateway(tmp_path, config(collector, 1)) as gateway:
        accept = "Accept: application/openmetrics-text;version=1.0.0"

        def shown() -> list[tuple[str, str, dict[str, str], float]]:
            families = read_openmetrics(curl(f"{gateway.url}/metrics", "-H", accept).body.decode())
            return [
                (sample.name, sample.labels["endpoint"], sample.exemplar.labels, sample.exemplar.value)
                for family in families
                for sample in family.samples
                if sample.exemplar is not None
            ]

        assert curl(f"{gateway.url}/livez", "-H", f"traceparent: 00-{'9' * 32}-{SPAN}-01").status == 200
        assert curl(f"{gateway.url}/svc/7", "-H", f"traceparent: 00-{'8' * 32}-{SPAN}-00").status == 502
        assert curl(f"{gateway.url}/always", "-H", f"traceparent: 00-{TRACE}-{SPAN}-01").status == 200
        ((name, endpoint, labels, seconds),) = wait_for(shown, "an exemplar")
        assert (name, endpoint) == ("http_request_duration_seconds_bucket", "/always")
        assert labels == {"trace_id": TRACE}
        assert 0 <= seconds < 5
        assert wait_for(lambda: collector.spans, "the span")[0].trace_id == TRACE
        assert TRACE not in curl(f"{gateway.url}/metrics").body.decode()


def test_a_dead_target_is_a_try_of_its_own(tmp_path: Path) -> None:
    with (
        Collector() as collector,
        Service() as service,
        refusing_port() as dead,
        Gateway(tmp_path, config(collector, dead, service.port)) as gateway,
    ):
        for _ in range(2):  # one of them meets the dead target first
            assert curl(f"{gateway.url}/svc/7", "-H", f"traceparent: 00-{TRACE}-{SPAN}-01").status == 200
        wait_for(lambda: [span for span in collector.spans if span.failed], "the try that failed")
        (failed,) = [span for span in collector.spans if span.failed]
        assert failed.kind == "client"
        assert failed.attributes["server.port"] == dead
        assert failed.attributes["error.type"] == "service-unreachable"
        (next_try,) = [span for span in collector.spans if "http.request.resend_count" in span.attributes]
        assert next_try.parent_id == failed.parent_id
        assert next_try.attributes["server.port"] == service.port


def test_what_is_not_recorded_goes_on_all_the_same(tmp_path: Path) -> None:
    with (
        Collector() as collector,
        Service() as service,
        Gateway(tmp_path, config(collector, service.port)) as gateway,
    ):
        curl(f"{gateway.url}/svc/7", "-H", f"traceparent: 00-{TRACE}-{SPAN}-00", "-H", "tracestate: a=1")
        (told,) = service.last.values("traceparent")
        assert told.startswith(f"00-{TRACE}-")
        assert told.endswith("-00")
        assert told.split("-")[2] != SPAN
        assert service.last.values("tracestate") == ["a=1"]
        curl(f"{gateway.url}/svc/7")
        assert service.last.values("traceparent")[0].endswith("-02")
        curl(f"{gateway.url}/always")
        wait_for(lambda: collector.spans, "the spans")
        (span,) = collector.spans
        assert span.name == "GET /always"
        assert span.parent_id == ""


def test_a_collector_that_hangs_harms_nobody(tmp_path: Path) -> None:
    with (
        Collector(hangs=True) as collector,
        Service() as service,
        Gateway(tmp_path, config(collector, service.port, timeout="300ms")) as gateway,
    ):
        for _ in range(60):
            assert curl(f"{gateway.url}/always").status == 200
        wait_for(lambda: collector.asked, "the collector to be asked")
        wait_for(lambda: counted(gateway, "portico_traces_lost_total"), "some to be lost")
        assert "are lost: no answer in time" in gateway.log()
        assert counted(gateway, "portico_traces_exported_total") == 0
        began = time.monotonic()
        gateway.terminate()
        assert time.monotonic() - began < 10


def test_what_waits_is_sent_before_the_end(tmp_path: Path) -> None:
    with Collector() as collector, Service() as service:
        text = config(collector, service.port).replace("interval: 20ms", "interval: 1s")
        with Gateway(tmp_path, text) as gateway:
            curl(f"{gateway.url}/always")
        assert [span.name for span in collector.spans] == ["GET /always"]
