"""Policies and endpoints of one's own, from files beside the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.harness.gateway import DEADLINE, Gateway, Service, curl, portico, problem_of, wait_for

PLUGIN = '''
"""A plugin."""
from portico.plugin import *

USER: Key[str] = Key("user")


class Tokens(PolicyConfig):
    users: dict[str, str]
    """Whose token is whose."""


class TokensPolicy(Policy[Tokens], name="tokens", stages=(Stage.AUTHENTICATE,)):
    """Knows people by a header."""

    def request(self, request):
        user = self.config.users.get(request.headers.text(b"x-token") or "")
        if user is None:
            return Response.problem(401, "token-needed", detail="Say who you are.")
        request[USER] = user
        request.headers.set(b"X-User", user.encode())
        return None

    def response(self, request, response):
        response.headers.set(b"X-Known-As", request[USER].encode())
        return response


class Moody(PolicyConfig):
    where: str = "request"
    """Where it raises."""


class MoodyPolicy(Policy[Moody], name="moody", stages=(Stage.TRANSFORM,)):
    """Raises when it is told to."""

    def request(self, request):
        if self.config.where == "request" and request.query == "raise":
            raise RuntimeError("secret of the plugin")
        return None

    def response(self, request, response):
        if self.config.where == "response" and request.query == "raise":
            return 1 // 0
        return response


class Shout(PolicyConfig):
    """Nothing to set."""


class ShoutPolicy(Policy[Shout], name="shout", stages=(Stage.TRANSFORM,)):
    """Buffers and changes both bodies."""

    async def handle(self, request, next):
        content = await request.body.read(1000)
        request.body = Body(content.upper())
        response = await next(request)
        content = await response.body.read(10_000)
        response.body = Body(content + b"!")
        return response


class Both(PolicyConfig):
    services: list[ServiceName]
    """Whom to ask."""


class BothEndpoint(Endpoint[Both], name="both"):
    """Asks several services."""

    def setup(self, env):
        self._services = [env.service(name) for name in self.config.services]

    async def handle(self, request):
        parts = []
        for service in self._services:
            response = await service(Request("GET", "/part", host=request.host))
            parts.append(b"%d" % response.status)
        return Response(200, None, b" ".join(parts))
'''

CONFIG = """
plugins: [policies.py]
services:
  echo: {{url: http://127.0.0.1:{port}}}
policies: [correlation-id]
routes:
  - path: /private/**
    service: echo
    policies: [tokens: {{users: {{t1: ada, t2: bob}}}}]
  - {{path: /moody/in, service: echo, policies: [moody]}}
  - {{path: /moody/out, service: echo, policies: [moody: {{where: response}}]}}
  - {{path: /shout, service: echo, policies: [shout]}}
  - {{path: /both, both: {{services: [echo, "127.0.0.1:{port}"]}}}}
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "policies.py").write_text(PLUGIN)
    with Gateway(folder, CONFIG.format(port=service.port)) as gateway:
        yield gateway


def test_a_policy_refuses(gateway: Gateway, service: Service) -> None:
    before = len(service.seen)
    problem = problem_of(curl(f"{gateway.url}/private/x"), 401, "token-needed")
    assert problem["detail"] == "Say who you are."
    assert len(service.seen) == before


def test_a_policy_lets_pass(gateway: Gateway, service: Service) -> None:
    reply = curl("-H", "X-Token: t2", "-H", "X-User: root", f"{gateway.url}/private/x")
    assert reply.status == 200
    assert reply.value("X-Known-As") == "bob"
    assert service.last.values("X-User") == ["bob"]


@pytest.mark.parametrize(("path", "error"), [("/moody/in", "RuntimeError"), ("/moody/out", "ZeroDivisionError")])
def test_a_policy_that_raises_costs_one_request(gateway: Gateway, path: str, error: str) -> None:
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        for query, status in (("", 200), ("?raise", 500), ("", 200)):  # on one connection
            connection.request("GET", path + query)
            response = connection.getresponse()
            content = response.read()
            assert response.status == status
            if status == 500:
                gateway.expected_traces += 1
                assert b"urn:portico:problem:internal-error" in content
                assert response.headers["Content-Type"] == "application/problem+json"
                for inside in (b"secret", error.encode(), b"policies.py"):
                    assert inside not in content
    log = gateway.log()
    assert f"{error}:" in log
    assert re.search(rf"route \S+ failed in policy moody \(\S+policies\.py:\d+\): GET {path}\n", log)


def test_a_policy_that_raises_over_a_streamed_body(gateway: Gateway) -> None:
    problem_of(curl("-T", "-", f"{gateway.url}/moody/in?raise", stdin=b"x" * 200_000), 500, "internal-error")
    gateway.expected_traces += 1


def test_bodies_that_a_policy_replaces(gateway: Gateway, service: Service) -> None:
    for options in (["-d", "abc"], ["-H", "Transfer-Encoding: chunked", "-d", "abc"]):
        reply = curl(*options, f"{gateway.url}/shout")
        assert service.last.body == b"ABC"
        assert reply.body.endswith(b"}!")
        assert reply.value("Content-Length") == str(len(reply.body))
    problem_of(curl("-d", "x" * 1001, f"{gateway.url}/shout"), 413, "content-too-large")


def test_an_endpoint_of_ones_own(gateway: Gateway) -> None:
    assert curl(f"{gateway.url}/both").body == b"200 200"


def test_the_schema_knows_the_plugins(gateway: Gateway) -> None:
    done = portico("schema", "portico.yaml", cwd=gateway.folder)
    assert done.code == 0
    assert '"tokens"' in done.out
    assert "Whose token is whose." in done.out


BLOCKING = '''
"""Holds the loop."""
import time
from portico.plugin import *


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class HoldsPolicy(Policy[PolicyConfig], name="holds", stages=(Stage.TRANSFORM,)):
    async def handle(self, request, next):
        spin(float(request.query))
        return await next(request)
'''


def test_a_plugin_that_holds_the_loop_is_named(tmp_path: Path) -> None:
    (tmp_path / "holds.py").write_text(BLOCKING)
    config = "plugins: [holds.py]\nroutes:\n  - {path: /held, respond: a, policies: [{holds: {}, name: slow}]}\n"
    with Gateway(tmp_path, config) as gateway:
        assert curl(f"{gateway.url}/held?0.1").status == 200
        for _ in range(2):
            assert curl(f"{gateway.url}/held?0.8").status == 200
        found = wait_for(lambda: re.findall(r"the loop is late by (\d+) ms .*", gateway.log()), "the warning")
        assert found
        assert curl(f"{gateway.url}/held?0.8").status == 200
    lines = [line for line in gateway.log().splitlines() if "does not let go" in line]
    assert 1 <= len(lines) <= 3  # each place of a loop may be told of once
    for line in lines:
        assert re.search(r"late by \d{3} ms and all requests wait: policy slow \(.*holds\.py:[89] in spin, ", line)
        assert "route held) does not let go" in line
