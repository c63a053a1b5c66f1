"""Client certificates as curl shows them, with a real gateway."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.certificates import Authority
from tests.harness.client_certificates import Shown, Signer, dns, email, uri
from tests.harness.gateway import DEADLINE, Answer, Gateway, Service, curl, portico, problem_of, wait_for

PROXY = "127.0.0.2"
TLS_FAILED = (35, 56)
"""How curl ends without a certificate that the handshake needs: with TLS 1.3 it learns of that where it reads."""
CONFIG = """
trusted_proxies: [127.0.0.2/32]
consumers:
  ada: {roles: [admin]}
  bob: {keys: bob-has-a-long-key}
services: {shop: "http://127.0.0.1:PORT"}
policies: [user-headers: {kind: X-User-Kind, groups: X-User-Groups}]
routes:
  - {path: /open/**, service: shop, policies: [anonymous]}
  - {path: /any/**, service: shop, policies: [mtls]}
  - {path: /units/**, service: shop, policies: [mtls: {groups: ou, subjects: "CN=*,OU=dev,O=Acme"}]}
  - {path: /mesh/**, service: shop, policies: [mtls: {identity: uri, uris: "spiffe://x/ns/*/sa/web"}]}
  - {path: /admin/**, service: shop, policies: [mtls: {consumers: on}, authorize: {roles: [admin]}]}
  - {path: /sent/**, service: shop, policies: [mtls: {forward: on}]}
  - {path: /either/**, service: shop, policies: [mtls, key-auth]}
  - {path: /both/**, service: shop, policies: [mtls: {required: on}, key-auth: {required: on}]}
  - {path: /pinned/**, service: shop, policies: [mtls: {fingerprints: "PRINT"}]}
"""
LISTEN = """
  - 127.0.0.1:0
  - address: 127.0.0.1:0
    tls: {certificate: server.crt, key: server.key, client_ca: clients.pem, client_certificates: optional}
  - {address: 127.0.0.1:0, tls: {certificate: server.crt, key: server.key, client_ca: clients.pem}}
  - {address: 127.0.0.1:0, tls: {certificate: server.crt, key: server.key}}
"""


class World(NamedTuple):
    gateway: Gateway
    shop: Service
    folder: Path
    authority: Authority
    signer: Signer
    ada: Shown
    eve: Shown
    stranger: Shown

    @property
    def optional(self) -> str:
        return f"https://127.0.0.1:{self.gateway.ports[1]}"

    @property
    def required(self) -> str:
        return f"https://127.0.0.1:{self.gateway.ports[2]}"

    def ask(self, url: str, *options: str, shows: Shown | None = None, codes: tuple[int, ...] = (0,)) -> Answer:
        certificate = () if shows is None else ("--cert", shows.file)
        return curl("--cacert", self.authority.path, *certificate, *options, url, codes=codes)

    def user(self, url: str, *options: str, shows: Shown | None = None) -> list[str]:
        """Return what the service is told of the user."""
        assert self.ask(url, *options, shows=shows).status == 200
        return [",".join(self.shop.last.values(f"X-User-{each}")) for each in ("ID", "Roles", "Groups", "Kind")]

    def context(self, shows: Shown, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        context = self.authority.client(only=version)
        context.load_cert_chain(shows.file)
        return context

    def connect(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.gateway.ports[1]), DEADLINE)
        return context.wrap_socket(plain, server_hostname="127.0.0.1", session=session)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("mtls")
    authority, signer = Authority(folder), Signer()
    authority.issue("server", "127.0.0.1")
    (folder / "clients.pem").write_bytes(signer.pem)
    ada = (("CN", "ada"), ("OU", "dev"), ("O", "Acme"))
    names = (uri("spiffe://x/ns/shop/sa/web"), dns("ada.example"), email("ada@x.example"))
    with ExitStack() as stack:
        shop = stack.enter_context(Service())
        shown = (
            signer.issue(folder, "ada.pem", ada, *names),
            signer.issue(
                folder, "eve.pem", (("CN", "eve,OU=dev,O=Acme"), ("O", "Evil")), uri("spiffe://x/ns/../sa/web")
            ),
            Signer().issue(folder, "stranger.pem", ada, *names),
        )
        config = CONFIG.replace("PORT", str(shop.port)).replace("PRINT", "0" * 64)
        gateway = stack.enter_context(Gateway(folder, config, listen=LISTEN))
        yield World(gateway, shop, folder, authority, signer, *shown)


def answer_on(connection: socket.socket, path: str, rest: bytes = b"\r\n") -> Answer:
    method = "GET" if rest == b"\r\n" else "POST"
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode() + rest)
    response = HTTPResponse(connection)
    response.begin()
    return Answer(response.status, response.getheaders(), response.read())


def test_who_shows_a_certificate_is_known(world: World) -> None:
    for base in (world.optional, world.required):
        assert world.user(f"{base}/any/a", shows=world.ada) == ["ada", "", "", "mtls"]
        assert world.user(f"{base}/any/a", "--tls-max", "1.2", shows=world.ada) == ["ada", "", "", "mtls"]
        assert world.user(f"{base}/units/a", shows=world.ada) == ["ada", "", "dev", "mtls"]
        assert world.user(f"{base}/mesh/a", shows=world.ada) == ["spiffe://x/ns/shop/sa/web", "", "", "mtls"]
        assert world.user(f"{base}/admin/a", shows=world.ada) == ["ada", "admin", "", "mtls"]
        assert world.user(f"{base}/any/a", shows=world.eve) == ["eve%2COU=dev%2CO=Acme", "", "", "mtls"]


def test_who_shows_none_comes_where_nobody_asks(world: World) -> None:
    assert world.user(f"{world.optional}/open/a") == ["anonymous", "", "", "anonymous"]
    missing = world.ask(f"{world.optional}/any/a")
    assert problem_of(missing, 401, "authentication-required")["title"] == "Missing client certificate"
    assert not missing.values("WWW-Authenticate")
    for shows, port in ((None, world.gateway.ports[3]), (world.ada, world.gateway.ports[3])):
        unasked = world.ask(f"https://127.0.0.1:{port}/any/a", shows=shows)
        assert problem_of(unasked, 401, "authentication-required")["title"] == "Missing client certificate"
    plain = curl(f"{world.gateway.url}/any/a", "-H", "Client-Cert: :AAAA:", "-H", "X-Forwarded-Proto: https")
    assert problem_of(plain, 401, "authentication-required")["title"] == "Missing client certificate"


def test_the_listener_refuses_whom_nobody_knows(world: World) -> None:
    before = len(world.shop.seen)
    assert world.ask(f"{world.required}/open/a", codes=TLS_FAILED).status == 0
    for base in (world.optional, world.required):
        assert world.ask(f"{base}/any/a", shows=world.stranger, codes=TLS_FAILED).status == 0
    assert len(world.shop.seen) == before


def test_who_is_not_meant_is_refused(world: World) -> None:
    for path in ("units", "mesh", "admin", "pinned"):
        refused = world.ask(f"{world.optional}/{path}/a", shows=world.eve)
        said = problem_of(refused, 401, "client-certificate-not-allowed")
        assert said["title"] == "Client certificate not allowed"
        assert "eve" not in refused.body.decode()
    log = wait_for(lambda: world.gateway.log() if "route pinned" in world.gateway.log() else "", "the log")
    subject = r"CN=eve\,OU=dev\,O=Acme,O=Evil"
    assert f"refused mtls: its subject is not allowed: {subject}, client 127.0.0.1, route units" in log
    assert "refused mtls: its uri is not allowed: spiffe://x/ns/../sa/web, client 127.0.0.1, route mesh" in log
    assert "refused mtls: there is no consumer eve,OU=dev,O=Acme, client 127.0.0.1, route admin" in log


def test_beside_keys(world: World) -> None:
    key = ("-H", "X-API-Key: bob-has-a-long-key")
    assert world.user(f"{world.optional}/either/a", shows=world.ada) == ["ada", "", "", "mtls"]
    assert world.user(f"{world.optional}/either/a", *key) == ["bob", "", "", "key-auth"]
    assert world.user(f"{world.optional}/both/a", *key, shows=world.ada) == ["ada", "", "", "mtls"]
    missing = world.ask(f"{world.optional}/either/a")
    assert problem_of(missing, 401, "authentication-required")["title"] == "Missing authentication"
    assert missing.value("WWW-Authenticate") == 'Key realm="api"'
    lacks = world.ask(f"{world.optional}/both/a", *key)
    assert problem_of(lacks, 401, "authentication-required")["title"] == "Missing client certificate"
    problem_of(world.ask(f"{world.optional}/both/a", shows=world.ada), 401, "authentication-required")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_connection_that_is_kept_and_one_that_is_resumed(world: World, version: ssl.TLSVersion) -> None:
    context = world.context(world.ada, version)
    with world.connect(context) as client:
        for path, name in (("/any/a", "ada"), ("/mesh/a", "spiffe://x/ns/shop/sa/web"), ("/any/a", "ada")) * 3:
            assert answer_on(client, path).status == 200
            assert world.shop.last.values("X-User-ID") == [name]
        assert answer_on(client, "/pinned/a").status == 401
        assert answer_on(client, "/any/a").status == 200
        session = client.session
    with world.connect(context, session) as client:
        assert client.session_reused
        assert answer_on(client, "/any/a").status == 200
        assert world.shop.last.values("X-User-ID") == ["ada"]


FORGED = b"Client-Cert: :AAAA:\r\nclient_cert: :AAAA:\r\nClient-Cert-Chain: :AAAA:\r\nClient_Cert-Chain: :AAAA:\r\n"


def test_only_the_gateway_says_what_was_shown(world: World) -> None:
    chunked = FORGED + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n" + FORGED + b"\r\n"
    sent = f":{base64.b64encode(world.ada.der).decode()}:"
    with world.connect(world.context(world.ada)) as client:
        for path, values in (("/any/a", []), ("/sent/a", [sent]), ("/any/a", [])):
            plain = FORGED + b"Connection: keep-alive, client-cert\r\nContent-Length: 1\r\n\r\na"
            for rest in (plain, chunked):
                assert answer_on(client, path, rest).status == 200
                seen = world.shop.last
                assert (seen.body, seen.values("Client-Cert")) == (b"a", values)
                assert not {"client_cert", "client-cert-chain", "client_cert-chain"} & seen.names
                assert seen.trailers == (["X-Sum: 1"] if rest is chunked else [])


def test_a_proxy_s_certificate_is_not_its_client_s(world: World) -> None:
    proxy = ("--interface", PROXY)
    assert world.user(f"{world.optional}/any/a", *proxy, shows=world.ada) == ["ada", "", "", "mtls"]
    behind = world.ask(f"{world.optional}/any/a", *proxy, "-H", "X-Forwarded-For: 203.0.113.7", shows=world.ada)
    assert problem_of(behind, 401, "authentication-required")["title"] == "Missing client certificate"
    claims = ("-H", "X-Forwarded-For: 203.0.113.7")  # whom nobody believes
    assert world.user(f"{world.optional}/any/a", *claims, shows=world.ada) == ["ada", "", "", "mtls"]


def test_a_certificate_that_ends_while_its_connection_lives(world: World) -> None:
    short = world.signer.issue(world.folder, "short.pem", (("CN", "short"),), lives=5)
    with world.connect(world.context(short)) as client:
        assert answer_on(client, "/any/a").status == 200
        ended = wait_for(lambda: [each for each in [answer_on(client, "/any/a")] if each.status != 200], "its end")
        assert problem_of(ended[0], 401, "client-certificate-expired")["title"] == "Client certificate expired"
        assert answer_on(client, "/open/a").status == 200
    wait_for(lambda: "refused mtls: Client certificate expired, client 127.0.0.1" in world.gateway.log(), "the log")


def test_other_lists_judge_connections_that_are_there(world: World) -> None:
    world.gateway.agent_answers()
    with world.connect(world.context(world.ada)) as client:
        assert answer_on(client, "/pinned/a").status == 401
        file = world.gateway.file
        before = file.read_text()
        its = hashlib.sha256(world.ada.der).hexdigest()
        file.write_text(before.replace("0" * 64, its))
        try:
            assert portico("reload", file).code == 0
            assert answer_on(client, "/pinned/a").status == 200
        finally:
            file.write_text(before)
        assert portico("reload", file).code == 0
        assert answer_on(client, "/pinned/a").status == 401
