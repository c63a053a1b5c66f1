"""A request through the gateway: what the service gets of it, and what the client gets back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import aiohttp
import pytest

from tests.harness.gateway import DEADLINE, Call, Gateway, Service, curl, echo

CONFIG = """
services:
  echo: {{url: http://127.0.0.1:{port}}}
  based: {{url: http://127.0.0.1:{port}/base/v2}}
routes:
  - {{path: /echo/**, service: echo}}
  - {{path: /shop/api/**, service: echo, strip_prefix: /shop/api}}
  - {{path: "/u/{{id}}/cart", service: echo, rewrite: "/carts/{{{{ captures.id }}}}"}}
  - {{path: /payments/**, service: echo, rewrite: /v1/pay/**}}
  - {{path: "/t/{{tenant}}/files/**", service: echo, rewrite: "/files/{{{{ captures.tenant }}}}/**"}}
  - {{path: /base/**, service: based, strip_prefix: /base}}
  - {{path: /café/**, service: echo, strip_prefix: /café}}
  - {{path: /named/**, service: echo, preserve_host: true}}
  - {{path: /hop, service: echo}}
  - {{path: /cached, service: echo}}
"""


def answer(call: Call) -> None:
    if call.path == "/cached":
        call.connection.sendall(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 1000\r\n\r\n')
        return None
    if call.path != "/hop":
        return echo(call)
    call.note()
    call.connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Private\r\nKeep-Alive: timeout=7\r\n"
        b"X-Private: secret\r\nProxy-Authenticate: Basic\r\nX-Public: one\r\nX-Public: two\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nTrailer: X-Sum\r\nUpgrade: h2c\r\n\r\nok"
    )
    return None


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(answer) as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("proxying"), CONFIG.format(port=service.port)) as gateway:
        yield gateway


def ask(gateway: Gateway, method: str, path: str, body: bytes | None = None) -> tuple[HTTPResponse, bytes]:
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response, response.read()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_passes_with_its_body(gateway: Gateway, service: Service, method: str) -> None:
    sent = b"\x00body\xff" if method in ("POST", "PUT", "PATCH") else None
    response, content = ask(gateway, method, "/echo/a?b=c&d=%20e", sent)
    assert response.status == 200
    assert (service.last.method, service.last.target) == (method, "/echo/a?b=c&d=%20e")
    assert service.last.body == (sent or b"")
    if method == "HEAD":
        assert content == b""
        assert int(response.headers["Content-Length"]) > 0
    else:
        assert json.loads(content)["method"] == method


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_the_same_with_curl(gateway: Gateway, service: Service, method: str) -> None:
    options = ["-I"] if method == "HEAD" else ["-X", method]
    if method in ("POST", "PUT"):
        options += ["--data-binary", "x=1"]
    reply = curl(*options, f"{gateway.url}/echo/curl")
    assert reply.status == 200
    assert reply.value("X-Service") == "service"
    assert service.last.method == method
    assert service.last.body == (b"x=1" if method in ("POST", "PUT") else b"")


def test_the_same_with_aiohttp(gateway: Gateway) -> None:
    async def all_at_once() -> list[dict[str, Any]]:
        async with aiohttp.ClientSession() as session:

            async def one(number: int) -> dict[str, Any]:
                method = ("GET", "POST", "PUT", "DELETE")[number % 4]
                async with session.request(method, f"{gateway.url}/echo/{number}", data=b"%d" % number) as reply:
                    assert reply.status == 200
                    shown: dict[str, Any] = await reply.json()
                    return shown

            return await asyncio.gather(*(one(number) for number in range(40)))

    for number, shown in enumerate(asyncio.run(all_at_once())):
        assert (shown["target"], shown["body"]) == (f"/echo/{number}", str(number))


def test_both_connections_are_kept(gateway: Gateway, service: Service) -> None:
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        connection.connect()
        own = connection.sock.getsockname()
        numbers = set()
        for number in range(5):
            connection.request("GET", f"/echo/{number}")
            response = connection.getresponse()
            assert json.loads(response.read())["target"] == f"/echo/{number}"
            assert "Connection" not in response.headers
            assert connection.sock.getsockname() == own
            numbers.add(service.last.connection)
    assert len(numbers) == 1


def test_a_client_that_wants_to_close_is_closed(gateway: Gateway) -> None:
    with gateway.connect() as client, client.makefile("rb") as answers:
        client.sendall(b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        text = answers.read()
    assert text.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in text


def test_not_modified_has_no_content(gateway: Gateway) -> None:
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        for _ in range(2):  # nothing is left on the connections
            connection.request("GET", "/cached", headers={"If-None-Match": '"1"'})
            response = connection.getresponse()
            assert (response.status, response.read()) == (304, b"")
            assert (response.headers["ETag"], response.headers["Content-Length"]) == ('"1"', "1000")


def test_http_1_0(gateway: Gateway, service: Service) -> None:
    assert curl("-0", f"{gateway.url}/echo/old").status == 200
    assert service.last.target == "/echo/old"


def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    with gateway.connect() as client, client.makefile("rb") as answers:
        client.sendall(
            b"GET /echo/1 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"POST /echo/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            b"GET /echo/3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        text = answers.read()
    assert [text.find(b"/echo/%d" % number) > 0 for number in (1, 2, 3)] == [True] * 3
    assert text.find(b"/echo/1") < text.find(b"/echo/2") < text.find(b"/echo/3")


def test_host_is_the_targets(gateway: Gateway, service: Service) -> None:
    curl("-H", "Host: shop.example:81", f"{gateway.url}/echo")
    assert service.last.values("Host") == [f"127.0.0.1:{service.port}"]
    assert service.last.values("X-Forwarded-Host") == ["shop.example:81"]


def test_preserve_host(gateway: Gateway, service: Service) -> None:
    curl("-H", "Host: shop.example:81", f"{gateway.url}/named")
    assert service.last.values("Host") == ["shop.example:81"]


def test_what_a_client_says_of_itself_is_replaced(gateway: Gateway, service: Service) -> None:
    lies = {
        "X-Forwarded-For": "6.6.6.6",
        "x-forwarded-proto": "https",
        "X-FORWARDED-HOST": "evil.example",
        "X-Forwarded-Port": "443",
        "Forwarded": "for=6.6.6.6",
        "X-Real-IP": "6.6.6.6",
    }
    curl(*(word for name, value in lies.items() for word in ("-H", f"{name}: {value}")), f"{gateway.url}/echo")
    seen = service.last
    assert seen.values("X-Forwarded-For") == ["127.0.0.1"]
    assert seen.values("X-Forwarded-Proto") == ["http"]
    assert seen.values("X-Forwarded-Host") == [f"127.0.0.1:{gateway.port}"]
    assert seen.values("X-Forwarded-Port") == [str(gateway.port)]
    assert not {"forwarded", "x-real-ip"} & seen.names


def test_hop_by_hop_headers_do_not_reach_the_service(gateway: Gateway, service: Service) -> None:
    with gateway.connect() as client, client.makefile("rb") as answers:
        client.sendall(
            b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close, X-Private\r\nX-Private: 1\r\nTE: trailers\r\n"
            b"Keep-Alive: 5\r\nProxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\n"
            b"Authorization: Bearer x\r\nX-Public: 1\r\nX-Public: 2\r\nCookie: a=b\r\n\r\n"
        )
        assert answers.read().startswith(b"HTTP/1.1 200")
    hop = {"connection", "x-private", "te", "keep-alive", "proxy-authorization", "proxy-connection", "upgrade"}
    assert not hop & service.last.names
    assert service.last.values("X-Public") == ["1", "2"]
    assert service.last.values("Authorization") == ["Bearer x"]
    assert service.last.values("Cookie") == ["a=b"]


def test_hop_by_hop_headers_do_not_reach_the_client(gateway: Gateway) -> None:
    reply = curl(f"{gateway.url}/hop")
    names = {name.lower() for name, _ in reply.headers}
    assert not names & {"connection", "keep-alive", "x-private", "proxy-authenticate", "trailer", "upgrade"}
    assert reply.values("X-Public") == ["one", "two"]
    assert reply.values("Set-Cookie") == ["a=1", "b=2"]
    assert len(reply.values("Date")) == 1
    assert reply.body == b"ok"


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("/shop/api", "/"),
        ("/shop/api/", "/"),
        ("/shop/api/orders/7?x=%2F", "/orders/7?x=%2F"),
        ("/u/a%20b/cart?full", "/carts/a%20b?full"),
        ("/u/%C3%A9/cart", "/carts/%C3%A9"),
        ("/caf%c3%A9/7", "/7"),
        ("/payments", "/v1/pay"),
        ("/payments/", "/v1/pay/"),
        ("/payments/1/refund?y=2", "/v1/pay/1/refund?y=2"),
        ("/t/acme/files/a/b%20c", "/files/acme/a/b%20c"),
        ("/base", "/base/v2/"),
        ("/base/x", "/base/v2/x"),
        ("/echo/./a/../b//c", "/echo/b/c"),
        ("/echo/%7Euser/%41", "/echo/~user/A"),
        ("/echo/a%2Fb", "/echo/a%2Fb"),
    ],
)
def test_the_path_that_the_service_sees(gateway: Gateway, service: Service, asked: str, sent: str) -> None:
    assert curl("--path-as-is", f"{gateway.url}{asked}").status == 200
    assert service.last.target == sent


def test_dots_do_not_lead_out_of_a_route(gateway: Gateway) -> None:
    assert curl("--path-as-is", f"{gateway.url}/shop/api/%2e%2e/echo").status == 404


def test_every_worker_serves(tmp_path_factory: pytest.TempPathFactory, service: Service) -> None:
    with Gateway(tmp_path_factory.mktemp("two"), CONFIG.format(port=service.port), workers=2) as gateway:
        assert len(gateway.worker_pids()) == 2
        for number in range(20):
            response, content = ask(gateway, "GET", f"/echo/{number}")
            assert response.status == 200
            assert json.loads(content)["target"] == f"/echo/{number}"
