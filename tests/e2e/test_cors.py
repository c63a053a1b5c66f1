"""CORS as curl sees it, and as a real browser does: pages of two origins, and a gateway of a third."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.gateway import (
    DEADLINE,
    Answer,
    Call,
    Gateway,
    Service,
    curl,
    echo,
    portico_here,
    problem_of,
    refusing_port,
    wait_for,
)
from tests.harness.tools import program

TOKENS = '''
"""A plugin."""
from portico.plugin import *


class Tokens(PolicyConfig):
    token: str
    """Who has it may."""


class TokensPolicy(Policy[Tokens], name="tokens", stages=(Stage.AUTHENTICATE,)):
    def request(self, request):
        if request.headers.text(b"x-token") != self.config.token:
            return Response.problem(401, "token-needed")
        return None
'''

CONFIG = """
plugins: [tokens.py]
services:
  api: {{url: http://127.0.0.1:{api}}}
  site: {{url: http://127.0.0.1:{api}}}
  down: {{url: http://127.0.0.1:{down}, timeout: 2s}}
policies: [correlation-id]
routes:
  - {{path: /**, service: site}}
  - path: /api/**
    methods: [GET, POST, PUT]
    service: api
    policies:
      - cors: &cors
          origins: ["{allowed}"]
          headers: [X-Custom, X-Token, Content-Type]
          expose_headers: [X-Service]
          credentials: true
      - tokens: let-me-in
  - {{path: /down, methods: [GET, PUT], service: down, policies: [cors: *cors]}}
  - {{path: /cookie/**, methods: [GET, PUT], service: api, policies: [cors: *cors]}}
  - {{path: /star, methods: [GET, PUT], service: api, policies: [cors: {{origins: "*", headers: "*"}}]}}
  - {{path: /refuse, service: api, policies: [cors: {{origins: "{allowed}", refuse: true}}]}}
  - {{path: /plain, methods: [GET, PUT], service: api}}
  - path: /versions
    methods: [PUT]
    headers: {{Accept-Version: v2}}
    service: api
    policies: [cors: {{origins: "{allowed}", headers: Accept-Version}}]
"""

CURL_ORIGIN = "https://page.example"


def api(call: Call) -> None:
    """Answer with what came, and with a word on CORS that is not the service's to say."""
    if call.path == "/cookie/login":
        call.note()
        call.answer(200, b"in", Set_Cookie="session=s1; Path=/")
    elif call.path.startswith("/cookie"):
        seen = call.note(b"".join(call.read_body()))
        call.answer(200, json.dumps(seen.values("Cookie")).encode(), Access_Control_Allow_Origin="*", X_Service="api")
    else:
        echo(call)


@contextmanager
def running(folder: Path, allowed: str) -> Iterator[tuple[Gateway, Service]]:
    (folder / "tokens.py").write_text(TOKENS)
    with (
        Service(api, "api") as service,
        refusing_port() as down,
        Gateway(folder, CONFIG.format(api=service.port, down=down, allowed=allowed)) as gateway,
    ):
        yield gateway, service


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Service]]:
    with running(tmp_path_factory.mktemp("cors"), CURL_ORIGIN) as both:
        yield both


def preflight(url: str, method: str, *asked: str, origin: str = CURL_ORIGIN) -> Answer:
    lines = [part for name in asked for part in ("-H", f"Access-Control-Request-Headers: {name}")]
    options = ["-X", "OPTIONS", "-H", f"Origin: {origin}", "-H", f"Access-Control-Request-Method: {method}"]
    return curl(*options, *lines, url)


def said(answer: Answer) -> set[str]:
    return {name.lower() for name, _ in answer.headers if name.lower().startswith("access-control-")}


def test_a_preflight_is_answered_before_anyone_is_asked_who_they_are(both: tuple[Gateway, Service]) -> None:
    gateway, service = both
    before = len(service.seen)
    answer = preflight(f"{gateway.url}/api/1", "PUT", "x-token,x-custom")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.value("Access-Control-Allow-Origin") == CURL_ORIGIN
    assert answer.value("Access-Control-Allow-Credentials") == "true"
    assert answer.value("Access-Control-Allow-Methods") == "GET, POST, PUT"
    assert answer.value("Access-Control-Allow-Headers") == "x-token, x-custom"
    assert answer.values("X-Correlation-ID")
    assert not answer.values("Content-Length")
    assert said(preflight(f"{gateway.url}/api/1", "PUT", origin="https://other.example")) == set()
    assert len(service.seen) == before


def test_an_error_within_the_chain_can_be_read(both: tuple[Gateway, Service]) -> None:
    gateway, _ = both
    for path, status, kind in (("/api/1", 401, "token-needed"), ("/down", 502, "service-unreachable")):
        answer = curl("-H", f"Origin: {CURL_ORIGIN}", gateway.url + path)
        assert answer.json["type"] == f"urn:portico:problem:{kind}"
        assert answer.status == status
        assert answer.value("Access-Control-Allow-Origin") == CURL_ORIGIN
        assert "Origin" in answer.values("Vary")


def test_the_service_has_no_say(both: tuple[Gateway, Service]) -> None:
    gateway, service = both
    for origin, expected in ((CURL_ORIGIN, [CURL_ORIGIN]), ("https://other.example", [])):
        answer = curl("-H", f"Origin: {origin}", f"{gateway.url}/cookie")
        assert answer.values("Access-Control-Allow-Origin") == expected
        assert service.last.values("Origin") == [origin]
    assert curl(f"{gateway.url}/cookie").values("Vary") == ["Origin"]


def test_a_method_that_no_route_takes(both: tuple[Gateway, Service]) -> None:
    gateway, service = both
    answer = curl("-X", "DELETE", f"{gateway.url}/plain")
    assert answer.status == 200  # the site takes everything
    assert preflight(f"{gateway.url}/plain", "PUT").status == 200
    assert service.last.method == "OPTIONS"  # who has no policy for it is asked


def test_a_route_with_conditions(both: tuple[Gateway, Service]) -> None:
    gateway, service = both
    assert preflight(f"{gateway.url}/versions", "PUT", "accept-version").status == 204
    answer = curl("-X", "PUT", "-H", f"Origin: {CURL_ORIGIN}", "-H", "Accept-Version: v2", f"{gateway.url}/versions")
    assert answer.value("Access-Control-Allow-Origin") == CURL_ORIGIN
    assert service.last.target == "/versions"


def test_who_is_refused(both: tuple[Gateway, Service]) -> None:
    gateway, service = both
    before = len(service.seen)
    for method in ("GET", "POST"):
        problem_of(
            curl("-X", method, "-H", "Origin: https://other.example", f"{gateway.url}/refuse"),
            403,
            "origin-not-allowed",
        )
    assert len(service.seen) == before
    assert curl("-X", "POST", "-H", f"Origin: {gateway.url}", f"{gateway.url}/refuse").status == 200


def test_allow_stays_what_it_was(tmp_path: Path) -> None:
    config = """
policies: [cors: {origins: "https://page.example"}]
routes:
  - {path: /a, methods: [GET, PUT], respond: a}
  - {path: /off, methods: [GET, PUT], respond: off, policies: [cors: off]}
"""
    with Gateway(tmp_path, config) as gateway:
        for options in (["-X", "OPTIONS"], ["-X", "DELETE"], ["-X", "DELETE", "-H", f"Origin: {CURL_ORIGIN}"]):
            answer = curl(*options, f"{gateway.url}/a")
            assert answer.status == 405
            assert answer.value("Allow") == "GET, HEAD, PUT"
        assert preflight(f"{gateway.url}/a", "PUT").value("Access-Control-Allow-Methods") == "GET, PUT"
        # The answer to what will be a 405 or a 404 can be read, so that a page knows what is wrong.
        assert preflight(f"{gateway.url}/a", "DELETE").status == 204
        assert preflight(f"{gateway.url}/nothing", "DELETE").status == 204
        assert curl("-H", f"Origin: {CURL_ORIGIN}", f"{gateway.url}/nothing").values("Access-Control-Allow-Origin")
        answer = preflight(f"{gateway.url}/off", "PUT")
        assert answer.status == 405
        assert answer.value("Allow") == "GET, HEAD, PUT"
        assert said(answer) == set()


def test_it_is_explained(both: tuple[Gateway, Service]) -> None:
    gateway, _ = both
    asked = ["-H", f"Origin: {CURL_ORIGIN}", "-H", "Access-Control-Request-Method: PUT"]
    done = portico_here("explain", str(gateway.file), "OPTIONS", "/api/1", *asked)
    assert done.code == 0, done
    assert "won: /api/** takes the PUT that this preflight asks about" in done.out
    assert "cors  [guard]  route:" in done.out
    assert "Answers 204 without a service" in done.out


# A real browser

PAGE = """<!doctype html><title>page</title><script>
const gateway = "%s";
async function attempt(path, options) {
  try {
    const answer = await fetch(gateway + path, options);
    return {status: answer.status, text: await answer.text(), service: answer.headers.get("X-Service"),
            id: answer.headers.get("X-Correlation-ID")};
  } catch (error) { return {error: error.name}; }
}
const put = (headers, credentials) => ({method: "PUT", body: "b", headers, credentials: credentials || "omit"});
const json = {"Content-Type": "application/json"};
(async () => {
  const found = {
    simple: await attempt("/star"),
    refused_simple: await attempt("/plain"),
    star_put: await attempt("/star", put({"X-Anything": "1"})),
    star_credentials: await attempt("/star", {credentials: "include"}),
    no_token: await attempt("/api/1", {credentials: "include"}),
    preflighted: await attempt("/api/1", put({"X-Token": "let-me-in", "X-Custom": "c", ...json}, "include")),
    other_header: await attempt("/api/1", put({"X-Token": "let-me-in", "X-Other": "c"})),
    other_method: await attempt("/api/1", {method: "DELETE", headers: {"X-Token": "let-me-in"}}),
    version: await attempt("/versions", put({"Accept-Version": "v2"})),
    down: await attempt("/down"),
    login: await attempt("/cookie/login", {credentials: "include"}),
    cookie: await attempt("/cookie/put", put({"X-Custom": "c"}, "include")),
    no_cookie: await attempt("/cookie/put", put({"X-Custom": "c"})),
    forbidden: await attempt("/refuse", {method: "POST"}),
  };
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""


class Pages:
    """A server of one page, which tells it what it has found."""

    def __init__(self, host: str) -> None:
        self.gateway = ""
        self.found: dict[str, dict[str, Any]] = {}
        self.service = Service(self._answer, "pages")
        self.origin = f"http://{host}:{self.service.port}"

    def _answer(self, call: Call) -> None:
        body = b"".join(call.read_body())
        if call.path == "/found":
            self.found = json.loads(body)
        call.answer(200, (PAGE % self.gateway).encode(), Content_Type="text/html")


@contextmanager
def browsing(chromium: str, folder: Path, url: str) -> Iterator[None]:
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--disable-background-networking", "--no-proxy-server", f"--user-data-dir={folder}"]
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [chromium, *options, url], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it has children, and nothing to lose
        process.wait(DEADLINE)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the pages of an origin that is allowed, and of one that is not, got from the gateway."""
    chromium = program("chromium")
    with ExitStack() as stack:
        pages = {"allowed": Pages("127.0.0.1"), "stranger": Pages("localhost")}
        for page in pages.values():
            stack.enter_context(page.service)
        gateway, service = stack.enter_context(running(tmp_path_factory.mktemp("browser"), pages["allowed"].origin))
        found: dict[str, Any] = {}
        for name, page in pages.items():
            page.gateway = gateway.url
            before = len(service.seen)
            with browsing(chromium, tmp_path_factory.mktemp("chromium"), f"{page.origin}/"):
                wait_for(lambda page=page: page.found, f"the page of {page.origin}")  # type: ignore[misc]
            found[name] = page.found
            found[f"{name} seen"] = [(seen.method, seen.target) for seen in service.seen[before:]]
    return found


REFUSED = {"error": "TypeError"}


def test_what_a_browser_lets_a_page_of_an_allowed_origin_do(found: dict[str, Any]) -> None:
    got = found["allowed"]
    assert {name for name, each in got.items() if each == REFUSED} == {
        "refused_simple",
        "star_credentials",
        "other_header",
        "other_method",
    }
    assert (got["simple"]["status"], got["star_put"]["status"], got["version"]["status"]) == (200, 200, 200)
    assert got["simple"]["service"] is None  # it is not exposed there
    sent = json.loads(got["preflighted"]["text"])
    assert (sent["method"], sent["body"]) == ("PUT", "b")
    assert got["preflighted"]["service"] == "api"
    assert got["preflighted"]["id"] is None
    assert json.loads(got["no_token"]["text"])["type"] == "urn:portico:problem:token-needed"
    assert json.loads(got["down"]["text"])["status"] == 502
    assert json.loads(got["cookie"]["text"]) == ["session=s1"]
    assert json.loads(got["no_cookie"]["text"]) == []
    assert got["forbidden"]["status"] == 200


def test_what_a_browser_lets_a_page_of_another_origin_do(found: dict[str, Any]) -> None:
    got = found["stranger"]
    allowed = {name for name, each in got.items() if each != REFUSED}
    assert allowed == {"simple", "star_put"}


def test_what_reached_the_service(found: dict[str, Any]) -> None:
    asked = [target for method, target in found["allowed seen"] if method == "OPTIONS"]
    assert asked == ["/api/1"]  # for DELETE, which the site behind it takes, and not the API
    writes = [each for each in found["stranger seen"] if each[0] not in {"GET", "OPTIONS"}]
    assert writes == [("PUT", "/star")]
