"""A collector of traces: a real HTTP server that reads OTLP by OpenTelemetry's own definitions of it."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_IDS = ("traceId", "spanId", "parentSpanId")


class Span(NamedTuple):
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    failed: bool
    flags: int
    events: list[str]
    attributes: dict[str, str | int]


def read(content: bytes) -> tuple[dict[str, str | int], list[Span]]:
    """Return the attributes of the resource, and the spans; what OTLP does not know is an error."""
    message = ParseDict(_with_bytes(json.loads(content)), ExportTraceServiceRequest())
    (resource,) = message.resource_spans
    (scope,) = resource.scope_spans
    return _attributes(resource.resource.attributes), [_span(span) for span in scope.spans]


def _with_bytes(value: Any) -> Any:
    """Return what protobuf's JSON is: OTLP's has its ids in hexadecimal digits, not in base64."""
    if isinstance(value, list):
        return [_with_bytes(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(bytes.fromhex(each)).decode() if key in _IDS else _with_bytes(each)
        for key, each in value.items()
    }


def _span(span: Any) -> Span:
    return Span(
        span.name,
        {1: "internal", 2: "server", 3: "client"}[span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == 2,
        span.flags,
        [event.name for event in span.events],
        _attributes(span.attributes),
    )


def _attributes(pairs: Any) -> dict[str, str | int]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Collector:
    """Takes spans at a port of its own, or with `hangs` lets everyone wait until it is closed."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.resources: list[dict[str, str | int]] = []
        self.spans: list[Span] = []
        self.headers: list[dict[str, str]] = []
        self.errors: list[Exception] = []
        self.asked = 0
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked += 1
                if hangs:
                    outer._over.wait()
                try:
                    assert self.path == "/v1/traces"
                    resource, spans = read(content)
                except Exception as error:  # noqa: BLE001 - whatever it is, the test is to see it
                    outer.errors.append(error)
                else:
                    outer.resources.append(resource)
                    outer.spans += spans
                    outer.headers.append(dict(self.headers))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        assert not self.errors, self.errors
