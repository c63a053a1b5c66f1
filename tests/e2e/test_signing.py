"""Signed requests through a real gateway, from clients that sign by another's code."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.harness.gateway import Gateway, Service, portico, wait_for
from tests.harness.signing import SECRET, Fields, signed, signer_of

CONFIG = """
services: {shop: "http://127.0.0.1:PORT"}
routes:
  - path: /**
    service: shop
    policies:
      - hmac-auth:
          keys:
            machine: {secret: "${SECRET}", roles: [machine]}
            partner: {user: the-partner, roles: machine, jwk: JWK}
          max_body: 100KiB
          body_timeout: 300ms
      - authorize: machine
      - user-headers
"""
BODY = b'{"hello": "world"}'


class Client:
    """One connection, and the requests that are signed for it."""

    def __init__(self, gateway: Gateway) -> None:
        self.origin = gateway.url
        self.connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)

    def sign(self, method: str, target: str, body: bytes | None = None, **said: object) -> Fields:
        defaults = {"created": time.time(), "key_id": "machine"}
        return signed(method, self.origin + target, body=body, **(defaults | said))  # type: ignore[arg-type]

    def send(self, method: str, target: str, headers: Fields, body: bytes | Iterator[bytes] | None = None) -> int:
        chunked = not isinstance(body, bytes | None)
        self.connection.request(method, target, body, dict(headers), encode_chunked=chunked)
        answer = self.connection.getresponse()
        self.content = answer.read()
        self.answer = answer
        return answer.status


@contextmanager
def client_of(gateway: Gateway) -> Iterator[Client]:
    client = Client(gateway)
    with closing(client.connection):
        yield client


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with client_of(gateway) as client:
        yield client


@pytest.fixture(scope="module")
def shop() -> Iterator[Service]:
    with Service() as shop:
        yield shop


@pytest.fixture(scope="module")
def gateway(shop: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    jwk = str(signer_of("ecdsa-p384-sha384")["jwk"]).replace("'", '"')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", SECRET)
        config = CONFIG.replace("PORT", str(shop.port)).replace("JWK", jwk)
        with Gateway(tmp_path_factory.mktemp("signing"), config) as gateway:
            yield gateway


def test_who_signs_comes_in(client: Client, shop: Service) -> None:
    for target in ("/a?b=c", "/a//b/../%7ed?e=%20f&g+h", "/?", "/a?b=c"):
        assert client.send("GET", target, client.sign("GET", target)) == 200
        assert shop.last.values("X-User-ID") == ["machine"]
    headers = client.sign("PUT", "/a", BODY, key_id="partner", algorithm="ecdsa-p384-sha384")
    assert client.send("PUT", "/a", headers, BODY) == 200
    assert shop.last.values("X-User-ID") == ["the-partner"]
    assert shop.last.body == BODY


def test_content_streams_in_and_goes_out_whole(client: Client, shop: Service) -> None:
    large = bytes(range(256)) * 300
    for body in (BODY, large):
        pieces = (body[at : at + 5000] for at in range(0, len(body), 5000))
        assert client.send("POST", "/a", client.sign("POST", "/a", body), pieces) == 200
        assert shop.last.body == body
        assert client.send("POST", "/a", client.sign("POST", "/a", body), body) == 200
        assert shop.last.body == body


def test_what_was_changed_on_its_way_never_comes_to_the_service(client: Client, shop: Service) -> None:
    before = len(shop.seen)
    for method, target, body, status in (
        ("POST", "/b", BODY, 401),
        ("PUT", "/a", BODY, 401),
        ("POST", "/a?b", BODY, 401),
        ("POST", "/a", BODY + b" ", 401),
        ("POST", "/a", b"", 401),
        ("POST", "/a", iter([BODY, b" "]), 401),
        ("POST", "/a", iter([BODY[:-1]]), 401),
    ):
        assert client.send(method, target, client.sign("POST", "/a", BODY), body) == status
        assert client.answer.getheader("WWW-Authenticate") == 'Signature realm="api"'
    assert len(shop.seen) == before


def test_too_much_content(client: Client, shop: Service) -> None:
    before = len(shop.seen)
    large = b"x" * 102_401
    for body in (large, iter([large[:9], large[9:]])):
        assert client.send("POST", "/a", client.sign("POST", "/a", large), body) == 413
    assert len(shop.seen) == before


def test_nobody_is_asked_for_content_who_has_not_signed(gateway: Gateway, client: Client) -> None:
    for headers, first in ((client.sign("POST", "/a", BODY), b"100"), (client.sign("POST", "/b", BODY), b"401")):
        with gateway.connect() as connection:
            head = "".join(f"{name}: {value}\r\n" for name, value in headers)
            host = gateway.url.removeprefix("http://")
            connection.sendall(
                f"POST /a HTTP/1.1\r\nHost: {host}\r\n{head}Content-Length: 18\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            answer = connection.makefile("rb")
            assert answer.readline().split()[1] == first
            if first == b"100":
                assert answer.readline() == b"\r\n"
                connection.sendall(BODY)
                assert answer.readline().split()[1] == b"200"


def test_content_that_does_not_come_is_not_waited_for(client: Client, gateway: Gateway, shop: Service) -> None:
    before = len(shop.seen)
    with gateway.connect() as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in client.sign("POST", "/a", BODY))
        host = gateway.url.removeprefix("http://")
        connection.sendall(f"POST /a HTTP/1.1\r\nHost: {host}\r\n{head}Content-Length: 18\r\n\r\n".encode() + BODY[:9])
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer
    assert len(shop.seen) == before


def test_a_request_is_taken_once_and_not_when_it_is_old(client: Client, shop: Service) -> None:
    headers = client.sign("POST", "/a", BODY, nonce="once")
    assert client.send("POST", "/a", headers, BODY) == 200
    assert client.send("POST", "/a", headers, BODY) == 401
    assert b"signature-replayed" in client.content
    assert client.send("GET", "/a", client.sign("GET", "/a", created=time.time() - 3600)) == 401
    assert b"signature-expired" in client.content


def test_the_log_says_why_and_no_more(gateway: Gateway, client: Client) -> None:
    headers = client.sign("GET", "/a", nonce="a-nonce-of-the-log")
    assert client.send("GET", "/c", headers) == 401
    wait_for(lambda: "refused hmac-auth: it is wrong" in gateway.log(), "the log")
    signature = dict(headers)["Signature"].partition(":")[2]
    for hidden in (SECRET, signature, "a-nonce-of-the-log"):
        assert hidden not in gateway.log()


def test_a_reload_forgets_no_nonce(tmp_path: Path, shop: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    config = CONFIG.replace("PORT", str(shop.port)).replace(
        "            partner: {user: the-partner, roles: machine, jwk: JWK}\n", ""
    )
    with Gateway(tmp_path, config) as gateway:
        with client_of(gateway) as client:
            headers = client.sign("GET", "/a", nonce="once")
            assert client.send("GET", "/a", headers) == 200
        gateway.agent_answers()
        text = gateway.file.read_text()
        gateway.file.write_text(text.replace("max_body: 100KiB", "max_body: 100KiB\n          realm: changed"))
        done = portico("reload", gateway.file)
        assert done.code == 0, done
        with client_of(gateway) as client:
            assert client.send("GET", "/a", headers) == 401
            assert b"signature-replayed" in client.content
            assert client.answer.getheader("WWW-Authenticate") == 'Signature realm="changed"'


def test_workers_together_take_a_request_once(tmp_path: Path, shop: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / "run"))
    jwk = str(signer_of("ed25519")["jwk"]).replace("'", '"')
    config = CONFIG.replace("PORT", str(shop.port)).replace("JWK", jwk)
    config = config.replace("max_body: 100KiB", "nonce: required")
    with Gateway(tmp_path, config, workers=2) as gateway:
        for number in range(3):
            statuses = []
            with client_of(gateway) as client:
                headers = client.sign("GET", "/a", nonce=f"once-{number}")
            for _ in range(12):
                with client_of(gateway) as client:
                    statuses.append(client.send("GET", "/a", headers))
            assert statuses == [200] + [401] * 11
