"""Which route a request gets, and what the gateway answers by itself."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path

import pytest

from portico import __version__
from tests.harness.gateway import DEADLINE, Gateway, Service, curl, portico, problem_of, refusing_port, wait_for

CONFIG = """
services:
  up: {{url: http://127.0.0.1:{up}}}
  down: {{url: http://127.0.0.1:{down}}}
policies: [correlation-id, security-headers]
routes:
  - {{name: deep, path: /a/**, respond: deep}}
  - {{name: shallow, path: /a/b/**, respond: shallow}}
  - {{name: exact, path: /a/b/c, respond: exact}}
  - {{name: captured, path: "/a/b/{{id}}", respond: captured}}
  - {{name: posted, path: /a/b/c, methods: [POST], respond: posted}}
  - {{name: tested, path: /a/b/c, headers: {{X-Beta: "1"}}, respond: tested}}
  - {{name: asked, path: /a/b/c, query: {{debug: true}}, respond: asked}}
  - {{name: cookie, path: /a/b/c, cookies: {{group: ~b.*}}, respond: cookie}}
  - {{name: urgent, path: /a/urgent/**, priority: 10, respond: urgent}}
  - {{name: late, path: /a/urgent/exact, respond: late}}
  - {{name: star, path: /a/*/z, respond: star}}
  - {{name: hosted, path: /a/**, host: "*.example.com", respond: hosted}}
  - {{name: api, path: /a/**, host: api.example.com, respond: api}}
  - {{name: regex, path: "~/r/[0-9]+", respond: regex}}
  - {{path: /items/**, methods: [GET], service: up}}
  - {{path: /items/**, methods: [POST, DELETE], service: up}}
  - {{path: /down, service: down}}
  - {{path: /pong, respond: {{status: 200, body: pong}}}}
  - {{path: "/tea/{{id}}", respond: {{status: 418, json: {{error: "{{{{ captures.id }}}} is a teapot", by: ["{{{{ method }}}}", 1]}},
      headers: {{Cache-Control: no-store}}}}}}
  - {{path: /hello, respond: "Hello {{{{ headers.X-Name }}}} at {{{{ host }}}}{{{{ path }}}}?{{{{ query }}}} from {{{{ client.address }}}}"}}
  - {{path: "/page/{{id}}", respond: {{body: "<b>{{{{ captures.id }}}}</b>", content_type: text/html}}}}
  - {{path: /empty, respond: {{status: 204}}}}
  - {{path: /old, redirect: /pong}}
  - {{path: "/people/{{id}}", redirect: "https://people.example/{{{{ captures.id }}}}", status: 301}}
  - {{path: /search, redirect: {{to: /find, status: 308, keep_query: false}}}}
  - {{path: /loop/1, redirect: /loop/2, status: 307}}
  - {{path: /loop/2, redirect: /pong, status: 303}}
"""  # noqa: E501


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Gateway]:
    with refusing_port() as down:
        config = CONFIG.format(up=service.port, down=down)
        with Gateway(tmp_path_factory.mktemp("routes"), config) as gateway:
            yield gateway


@pytest.mark.parametrize(
    ("route", "arguments"),
    [
        ("deep", ["/a"]),
        ("deep", ["/a/x/y"]),
        ("shallow", ["/a/b"]),
        ("shallow", ["/a/b/c/d"]),
        ("captured", ["/a/b/x"]),
        ("exact", ["/a/b/c"]),
        ("posted", ["/a/b/c", "-d", ""]),
        ("tested", ["/a/b/c", "-H", "X-Beta: 1"]),
        ("exact", ["/a/b/c", "-H", "X-Beta: 2"]),
        ("asked", ["/a/b/c?debug"]),
        ("cookie", ["/a/b/c", "-b", "group=beta"]),
        ("exact", ["/a/b/c", "-b", "group=alpha"]),
        ("urgent", ["/a/urgent/exact"]),
        ("star", ["/a/q/z"]),
        ("hosted", ["/a/b/c", "-H", "Host: www.Example.com:80"]),
        ("api", ["/a/b/c", "-H", "Host: api.example.com"]),
        ("regex", ["/r/42"]),
    ],
)
def test_the_most_specific_route_wins(gateway: Gateway, route: str, arguments: list[str]) -> None:
    path, *options = arguments
    reply = curl(*options, gateway.url + path)
    assert (reply.status, reply.body.decode()) == (200, route)


@pytest.mark.parametrize("path", ["/", "/nothing", "/A/b", "/r/x", "/r/42/x", "/pong/", "/tea", "/tea/a/b"])
def test_no_route_is_404(gateway: Gateway, path: str) -> None:
    problem = problem_of(curl(gateway.url + path), 404, "no-route")
    assert problem["instance"] == path


def test_another_method_is_405(gateway: Gateway) -> None:
    reply = curl("-X", "PATCH", f"{gateway.url}/items/7")
    problem_of(reply, 405, "method-not-allowed")
    assert reply.value("Allow") == "DELETE, GET, HEAD, POST"


def test_head_is_answered_where_get_is(gateway: Gateway, service: Service) -> None:
    reply = curl("-I", f"{gateway.url}/items/7")
    assert reply.status == 200
    assert service.last.method == "HEAD"
    own = curl("-I", f"{gateway.url}/pong")
    assert (own.status, own.value("Content-Length"), own.body) == (200, "4", b"")
    missing = curl("-I", f"{gateway.url}/nothing")
    assert (missing.status, missing.body) == (404, b"")


@pytest.mark.parametrize(("path", "status"), [("/pong", 200), ("/nothing", 404), ("/items/7", 405), ("/down", 502)])
def test_the_global_policies_stand_around_everything(gateway: Gateway, path: str, status: int) -> None:
    reply = curl("-X", "PATCH", "-H", "X-Correlation-ID: mine-1", gateway.url + path)
    assert reply.status == status
    assert reply.value("X-Correlation-ID") == "mine-1"
    assert reply.value("X-Content-Type-Options") == "nosniff"
    assert reply.value("X-Frame-Options") == "DENY"
    assert reply.value("X-XSS-Protection") == "1; mode=block"


def test_correlation_ids(gateway: Gateway, service: Service) -> None:
    reply = curl(f"{gateway.url}/items")
    made = reply.value("X-Correlation-ID")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made)
    assert service.last.values("X-Correlation-ID") == [made]
    other = curl("-H", "X-Correlation-ID: two words", "-H", "x-correlation-id: again", f"{gateway.url}/items")
    assert other.value("X-Correlation-ID") not in ("two words", "again", made)
    assert service.last.values("X-Correlation-ID") == [other.value("X-Correlation-ID")]


def test_a_constant_answer(gateway: Gateway) -> None:
    reply = curl(f"{gateway.url}/pong")
    assert (reply.status, reply.body, reply.value("Content-Type")) == (200, b"pong", "text/plain; charset=utf-8")
    empty = curl(f"{gateway.url}/empty")
    assert (empty.status, empty.body, empty.values("Content-Length")) == (204, b"", [])


def test_an_answer_from_a_template(gateway: Gateway) -> None:
    tea = curl("-X", "BREW", f"{gateway.url}/tea/%22%5Cx%22")
    assert tea.status == 501  # a method that the gateway does not know
    tea = curl("-X", "PUT", f"{gateway.url}/tea/%22%5Cx%22")
    assert tea.status == 418
    assert tea.json == {"error": '"\\x" is a teapot', "by": ["PUT", 1]}
    assert tea.value("Content-Type") == "application/json"
    assert tea.value("Cache-Control") == "no-store"
    hello = curl("-H", "X-Name: Ada", f"{gateway.url}/hello?q=1&r=%20")
    assert hello.body.decode() == "Hello Ada at 127.0.0.1/hello?q=1&r=%20 from 127.0.0.1"
    page = curl(f"{gateway.url}/page/%3Cscript%3E")
    assert page.body == b"<b>&lt;script&gt;</b>"


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/old", 302, "/pong"),
        ("/old?a=b&c", 302, "/pong?a=b&c"),
        ("/people/a%20b%2Fc%3F", 301, "https://people.example/a%20b/c%3F"),
        ("/search?q=1", 308, "/find"),
    ],
)
def test_redirects(gateway: Gateway, path: str, status: int, location: str) -> None:
    reply = curl("--path-as-is", gateway.url + path)
    assert (reply.status, reply.value("Location"), reply.body) == (status, location, b"")


def test_a_client_follows_redirects(gateway: Gateway) -> None:
    reply = curl("-L", "-d", "x=1", f"{gateway.url}/loop/1")
    assert (reply.status, reply.body) == (200, b"pong")


def test_live_and_ready(gateway: Gateway) -> None:
    assert curl(f"{gateway.url}/livez").json == {"status": "alive"}
    ready = curl(f"{gateway.url}/readyz")
    assert ready.json == {"status": "ready"}
    assert ready.value("Cache-Control") == "no-store"


def test_health_is_200_while_a_service_is_down(gateway: Gateway) -> None:
    reply = curl(f"{gateway.url}/health")
    assert (reply.status, reply.value("Content-Type")) == (200, "application/json")
    health = reply.json
    assert list(health) == ["status", "timestamp", "version", "services", "targets"]
    assert health["status"] == "degraded"
    assert health["version"] == __version__
    assert health["services"] == {"up": "healthy", "down": "unhealthy"}
    told = datetime.strptime(health["timestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - told).total_seconds()) < DEADLINE
    assert curl("-I", f"{gateway.url}/health").status == 200
    assert curl("-d", "", f"{gateway.url}/health").status in (200, 405)


def test_health_tells_strangers_no_services(tmp_path_factory: pytest.TempPathFactory, service: Service) -> None:
    config = f"""
health: {{allow: [192.0.2.0/24]}}
services: {{up: {{url: "http://127.0.0.1:{service.port}"}}}}
routes:
  - {{path: /api/**, service: up}}
  - {{path: /readyz, respond: {{status: 503, body: not today}}}}
"""
    with Gateway(tmp_path_factory.mktemp("strangers"), config) as gateway:
        health = curl(f"{gateway.url}/health").json
        assert set(health) == {"status", "timestamp", "version"}
        assert health["status"] == "healthy"
        own = curl(f"{gateway.url}/readyz")  # a route of the file takes the place of a built-in one
        assert (own.status, own.body) == (503, b"not today")
        assert curl(f"{gateway.url}/livez").status == 200


def test_a_built_in_route_has_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("routes: [{path: /health, respond: mine}, {name: livez, path: /b, respond: b}]\n")
    names = {}
    for path in ("/health", "/livez", "/b", "/nothing"):
        told = portico("explain", "a.yaml", "GET", path, "--json", cwd=tmp_path)
        names[path] = json.loads(told.out)["route"]["name"]
    assert names == {"/health": "health", "/livez": "portico:livez", "/b": "livez", "/nothing": "portico:no-route"}


def test_health_sees_a_service_come_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    config = f"services: {{orders: {{url: 'http://127.0.0.1:{port}'}}}}\nroutes: [{{path: /**, service: orders}}]\n"
    with (
        Gateway(tmp_path_factory.mktemp("back"), config) as gateway,
        closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection,
    ):

        def status() -> str:
            connection.request("GET", "/health")
            told: str = json.loads(connection.getresponse().read())["status"]
            return told

        assert status() == "degraded"
        assert curl(f"{gateway.url}/x").status == 502
        with Service(port=port):
            wait_for(lambda: status() == "healthy", "health")
            assert curl(f"{gateway.url}/x").status == 200
        log = gateway.log()
        assert log.count("is not reachable") == 1
        assert log.count("is reachable again") == 1
