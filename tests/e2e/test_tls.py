"""TLS with clients, and with services."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.harness.certificates import Authority
from tests.harness.gateway import (
    DEADLINE,
    Answer,
    Call,
    Gateway,
    Seen,
    Service,
    curl,
    echo,
    portico_here,
    problem_of,
    refusing_port,
    wait_for,
)

PROXY = "127.0.0.2"
HANDSHAKE = 1.5
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])

PLUGIN = '''
"""Says what TLS says of the client."""
from portico.plugin import *

import json


class Shown(PolicyConfig):
    shown: bool
    """Nothing to set."""


class ShownEndpoint(Endpoint[Shown], name="shown"):
    """Answers with what is known."""

    async def handle(self, request):
        tls = request.client.encryption
        subject = None if tls is None or tls.subject is None else dict(pair for (pair,) in tls.subject["subject"])
        known = {"scheme": request.client.scheme, "tls": None if tls is None else tls.version}
        known |= {"name": tls and tls.server_name, "subject": subject and subject["commonName"]}
        return Response(200, Headers([(b"Content-Type", b"application/json")]), json.dumps(known).encode())
'''

CONFIG = """
plugins: [shown.py]
trusted_proxies: [127.0.0.2/32]
limits: {{handshake_timeout: 1500ms}}
services:
  good: {{url: "https://127.0.0.1:{tls}", tls: {{ca: authority.pem}}}}
  by-name: {{url: "https://localhost:{tls}", tls: {{ca: authority.pem}}}}
  unknown-authority: {{url: "https://127.0.0.1:{tls}"}}
  wrong-authority: {{url: "https://127.0.0.1:{tls}", tls: {{ca: strangers.pem}}}}
  wrong-name: {{url: "https://127.0.0.1:{internal}", tls: {{ca: authority.pem}}}}
  named: {{url: "https://127.0.0.1:{internal}", tls: {{ca: authority.pem, server_name: orders.internal}}}}
  misnamed: {{url: "https://127.0.0.1:{tls}", tls: {{ca: authority.pem, server_name: orders.internal}}}}
  expired: {{url: "https://127.0.0.1:{expired}", tls: {{ca: authority.pem}}}}
  unverified: {{url: "https://127.0.0.1:{expired}", tls: {{verify: false}}}}
  mutual: {{url: "https://127.0.0.1:{mutual}", tls: {{ca: authority.pem, certificate: gateway.crt, key: gateway.key}}}}
  unknown-to-it: {{url: "https://127.0.0.1:{mutual}", tls: {{ca: authority.pem}}}}
  stranger-to-it: {{url: "https://127.0.0.1:{mutual}", tls: {{ca: authority.pem, certificate: stranger.pem}}}}
  old: {{url: "https://127.0.0.1:{old}", tls: {{ca: authority.pem, min_version: 1.3}}}}
  plain: {{url: "https://127.0.0.1:{plain}", tls: {{ca: authority.pem}}}}
  silent: {{url: "https://127.0.0.1:{raw}", tls: {{ca: authority.pem}}, timeout: {{connect: 300ms}}}}
  raw: {{url: "https://127.0.0.1:{raw}", tls: {{ca: authority.pem}}}}
  down: {{url: "https://127.0.0.1:{down}", tls: {{ca: authority.pem}}}}
routes:
  - {{path: /said, respond: here}}
  - {{path: /shown, shown: true}}
  - {{path: /big, respond: {{body: "{big}"}}}}
{routes}
"""

LISTEN = """
  - 127.0.0.1:0
  - address: 127.0.0.1:0
    tls: {certificates: [{certificate: one.crt, key: one.key}, {certificate: two.crt, key: two.key}]}
  - {address: 127.0.0.1:0, tls: {certificate: one.crt, key: one.key, client_ca: authority.pem}}
  - address: 127.0.0.1:0
    tls: {certificate: one.crt, key: one.key, client_ca: authority.pem, client_certificates: optional}
  - {address: 127.0.0.1:0, tls: {certificate: one.crt, key: one.key, min_version: 1.3}}
  - {address: 127.0.0.1:0, tls: {certificate: live.crt, key: live.key}}
  - {address: 127.0.0.1:0, redirect_https: 8443}
  - {address: 127.0.0.1:0, redirect_https: 443}
"""


class Ports(NamedTuple):
    plain: int
    several: int
    required: int
    optional: int
    newest: int
    live: int
    redirect: int
    redirect_443: int


class Secured(Service):
    """A service that speaks TLS; `shown` has what its clients have shown, and asked for."""

    def __init__(self, context: ssl.SSLContext, answer: Callable[[Call], None] = echo) -> None:
        self.context = context
        self.shown: list[dict[str, Any] | None] = []
        self.asked: list[str | None] = []
        context.sni_callback = lambda _, name, __: self.asked.append(name)
        super().__init__(self._answer)
        self._then = answer
        accept = self._server.get_request

        def get_request() -> tuple[ssl.SSLSocket, Any]:
            connection, address = accept()
            # The handshake comes with the first read, in the connection's own thread.
            return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

        self._server.get_request = get_request  # type: ignore[method-assign, assignment]

    def _answer(self, call: Call) -> None:
        assert isinstance(call.connection, ssl.SSLSocket)
        self.shown.append(call.connection.getpeercert())
        self._then(call)

    def __exit__(self, *exception: object) -> None:
        self.errors[:] = [error for error in self.errors if not isinstance(error, ssl.SSLError)]
        super().__exit__(*exception)


def serving(authority: Authority, pair: tuple[str, str], clients: ssl.VerifyMode = ssl.CERT_NONE) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    context.load_verify_locations(authority.path)
    context.verify_mode = clients
    return context


class World(NamedTuple):
    gateway: Gateway
    ports: Ports
    authority: Authority
    strangers: Authority
    services: dict[str, Secured]
    raw: socket.socket
    raw_context: ssl.SSLContext

    def connect(self, port: int, name: str | None = "one.test", **more: Any) -> ssl.SSLSocket:
        """Shake hands; whoever answers may have any name."""
        context = more.pop("context", None) or self.authority.client()
        context.check_hostname = False
        plain = socket.create_connection(("127.0.0.1", port), DEADLINE)
        try:
            return context.wrap_socket(plain, server_hostname=name, **more)
        except BaseException:
            plain.close()
            raise

    def ask(self, service: str, *options: str) -> Answer:
        return curl(*options, f"{self.gateway.url}/{service}/a")

    def accept(self) -> ssl.SSLSocket:
        connection, _ = self.raw.accept()
        connection.settimeout(DEADLINE)
        return self.raw_context.wrap_socket(connection, server_side=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("tls")
    (folder / "shown.py").write_text(PLUGIN)
    authority, strangers = Authority(folder), Authority(folder, "strangers")
    authority.issue("one", "one.test", "127.0.0.1")
    authority.issue("two", "two.test", "*.wild.test")
    authority.issue("live", "live.test")
    authority.issue("gateway", "gateway.test")
    stranger = strangers.issue("stranger", "stranger.test")
    (folder / "stranger.pem").write_bytes(Path(stranger.key).read_bytes() + Path(stranger.certificate).read_bytes())
    usual = authority.issue("service", "127.0.0.1", "localhost")
    contexts = {
        "tls": serving(authority, usual),
        "internal": serving(authority, authority.issue("internal", "orders.internal")),
        "expired": serving(authority, authority.issue("expired", "127.0.0.1", days=-1)),
        "mutual": serving(authority, usual, ssl.CERT_REQUIRED),
        "old": serving(authority, usual),
    }
    contexts["old"].maximum_version = V12
    with ExitStack() as stack:
        services = {name: stack.enter_context(Secured(context)) for name, context in contexts.items()}
        ports = {name: service.port for name, service in services.items()}
        plain = stack.enter_context(Service())
        raw = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        raw.settimeout(DEADLINE)
        names = re.findall(r"^  ([a-z-]+): \{\{", CONFIG, re.MULTILINE)
        config = CONFIG.format(
            plain=plain.port,
            raw=raw.getsockname()[1],
            down=stack.enter_context(refusing_port()),
            big="x" * 100_000,
            routes="\n".join(f"  - {{path: /{name}/**, service: {name}}}" for name in names),
            **ports,
        )
        gateway = stack.enter_context(Gateway(folder, config, listen=LISTEN))
        yield World(gateway, Ports(*gateway.ports), authority, strangers, services, raw, serving(authority, usual))


def answer_on(connection: socket.socket, request: bytes) -> Answer:
    """Send a request and return its answer."""
    connection.sendall(request)
    response = HTTPResponse(connection)
    response.begin()
    return Answer(response.status, response.getheaders(), response.read())


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: one.test\r\n\r\n".encode()


def names_of(connection: ssl.SSLSocket) -> set[str]:
    certificate = connection.getpeercert()
    assert certificate is not None
    alternatives: Any = certificate["subjectAltName"]
    return {name for _, name in alternatives}


# With clients.


@VERSIONS
@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("one.test", "one.test"),
        ("two.test", "two.test"),
        ("TWO.test", "two.test"),
        ("a.wild.test", "two.test"),
        ("a.b.wild.test", "one.test"),
        ("wild.test", "one.test"),
        ("unknown.test", "one.test"),
        (None, "one.test"),
    ],
)
def test_a_client_is_shown_the_certificate_of_the_name_it_asks_for(
    world: World, version: ssl.TLSVersion, asked: str | None, shown: str
) -> None:
    with world.connect(world.ports.several, asked, context=world.authority.client(only=version)) as client:
        assert shown in names_of(client)
        known = answer_on(client, get("/shown")).json
        assert known == {
            "scheme": "https",
            "tls": {V12: "TLSv1.2", V13: "TLSv1.3"}[version],
            "name": (asked or "").lower(),
            "subject": None,
        }


@pytest.mark.parametrize("options", [(), ("--http2",), ("--tls-max", "1.2"), ("--http1.0",)])
@pytest.mark.parametrize("name", ["one.test", "two.test", "a.wild.test"])
def test_curl_trusts_it(world: World, options: tuple[str, ...], name: str) -> None:
    port = world.ports.several
    at = ("--resolve", f"{name}:{port}:127.0.0.1", "--cacert", world.authority.path)
    answer = curl(*at, *options, f"https://{name}:{port}/good/a", f"https://{name}:{port}/good/b")
    assert answer.status == 200
    seen = world.services["tls"].last
    assert seen.values("X-Forwarded-Proto") == ["https"]
    assert seen.values("X-Forwarded-Port") == [str(port)]
    assert seen.values("X-Forwarded-Host") == [f"{name}:{port}"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
def test_old_versions_are_refused(world: World, version: ssl.TLSVersion) -> None:
    context = world.authority.client(only=version)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        world.connect(world.ports.several, context=context)


def test_a_listener_may_ask_for_the_newest_version(world: World) -> None:
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        world.connect(world.ports.newest, context=world.authority.client(only=V12))
    with world.connect(world.ports.newest) as client:
        assert client.version() == "TLSv1.3"


@VERSIONS
@pytest.mark.parametrize("name", ["one.test", "two.test"])
def test_sessions_are_resumed(world: World, version: ssl.TLSVersion, name: str) -> None:
    context = world.authority.client(only=version)
    with world.connect(world.ports.several, name, context=context) as client:
        assert answer_on(client, get("/said")).body == b"here"  # and the tickets of TLS 1.3 came before that
        assert not client.session_reused
        session = client.session
    with world.connect(world.ports.several, name, context=context, session=session) as client:
        assert client.session_reused
        assert answer_on(client, get("/said")).body == b"here"


@VERSIONS
def test_client_certificates(world: World, version: ssl.TLSVersion, tmp_path: Path) -> None:
    known = world.authority.issue(f"alice{version.value}", "alice.test")
    unknown = world.strangers.issue(f"mallory{version.value}", "mallory.test")
    for port, pair, subject in (
        (world.ports.required, known, f"alice{version.value}"),
        (world.ports.optional, known, f"alice{version.value}"),
        (world.ports.optional, None, None),
        (world.ports.several, known, None),
    ):
        with world.connect(port, context=world.authority.client(pair, version)) as client:
            assert answer_on(client, get("/shown")).json["subject"] == subject
    for port, pair in ((world.ports.required, None), (world.ports.required, unknown), (world.ports.optional, unknown)):
        assert is_refused(world, port, world.authority.client(pair, version))


def is_refused(world: World, port: int, context: ssl.SSLContext) -> bool:
    """Return whether there is no answer; with TLS 1.3 a client learns of that where it reads."""
    try:
        with world.connect(port, context=context) as client:
            answer_on(client, get("/shown"))
    except (ssl.SSLError, ConnectionError):
        return True
    return False


def test_a_session_of_a_listener_does_not_open_another(world: World) -> None:
    """Listeners share no tickets: one that asks for certificates does not resume what began elsewhere."""
    context = world.authority.client(only=V12)
    with world.connect(world.ports.several, context=context) as client:
        session = client.session
    with pytest.raises((ssl.SSLError, ConnectionError)):
        world.connect(world.ports.required, context=context, session=session)


def test_files_that_change_are_used_without_a_dropped_connection(world: World) -> None:
    folder, port = Path(world.authority.path).parent, world.ports.live

    def shown() -> set[str]:
        with world.connect(port, "live.test") as client:
            assert answer_on(client, get("/said")).body == b"here"
            return names_of(client)

    def goes_on(connection: ssl.SSLSocket) -> bool:
        return answer_on(connection, get("/said")).body == b"here"

    assert shown() == {"live.test"}
    with world.connect(port) as first:
        assert goes_on(first)
        world.authority.issue("live", "live.test", "second.test", replaces=True)
        began = time.monotonic()
        wait_for(lambda: shown() == {"live.test", "second.test"}, "the new certificate")
        assert time.monotonic() - began < 8
        assert goes_on(first)
        assert names_of(first) == {"live.test"}
        with world.connect(port) as second:
            (folder / "live.crt").write_text("no certificate")
            wait_for(lambda: "the old ones stay in use" in world.gateway.log(), "a word in the log")
            assert str(folder / "live.crt") in world.gateway.log().partition("the old ones stay in use")[2]
            assert shown() == {"live.test", "second.test"}
            world.authority.issue("live", "live.test", "third.test", replaces=True)
            wait_for(lambda: shown() == {"live.test", "third.test"}, "the third certificate")
            assert goes_on(first)
            assert goes_on(second)


def closed_without_a_word(connection: socket.socket) -> bool:
    """Return whether a connection ends with nothing but TLS's own alert."""
    with suppress(ConnectionResetError):
        said = connection.recv(4096)
        return not said or (said[0] == 0x15 and not connection.recv(4096))
    return True


def test_plain_http_on_a_port_for_tls(world: World) -> None:
    with socket.create_connection(("127.0.0.1", world.ports.several), DEADLINE) as client:
        answer = answer_on(client, get("/said"))
        assert (answer.status, answer.value("Connection")) == (400, "close")
        assert b"https" in answer.body.lower()
        assert closed_without_a_word(client)
    said = "the TLS handshake failed: the client speaks plain HTTP"
    wait_for(lambda: said in world.gateway.log(), "a word in the log")


def test_tls_on_a_port_for_plain_http(world: World) -> None:
    """It is seen at once that this will never be a request, without waiting for `head_timeout`."""
    began = time.monotonic()
    with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):  # an answer in plain HTTP
        world.connect(world.ports.plain)
    assert time.monotonic() - began < 10
    assert curl(f"{world.gateway.url}/said").body == b"here"


def test_a_handshake_that_stalls(world: World) -> None:
    outgoing = ssl.MemoryBIO()
    tls = world.authority.client().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="one.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    began = time.monotonic()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", world.ports.several), DEADLINE))
            for _ in range(4)
        ]
        for client, begun in zip(clients, (0, 1, 5, 100), strict=True):
            client.sendall(hello[:begun])
        assert all(closed_without_a_word(client) for client in clients)
        assert HANDSHAKE - 0.5 < time.monotonic() - began < HANDSHAKE + 10


def test_many_answers_to_a_client_that_reads_late(world: World) -> None:
    with world.connect(world.ports.several) as client:
        client.sendall(get("/big") * 50)
        answers = client.makefile("rb")
        for _ in range(50):
            while (line := answers.readline()) != b"\r\n":
                assert line
            assert answers.read(100_000) == b"x" * 100_000


def test_content_goes_through_tls_on_both_sides(world: World, tmp_path: Path) -> None:
    content = os.urandom(3 * 1024 * 1024)
    upload = tmp_path / "upload"
    upload.write_bytes(content)
    answer = curl(
        "--cacert",
        world.authority.path,
        "-H",
        "Expect:",
        "-T",
        str(upload),
        f"https://127.0.0.1:{world.ports.several}/good/a",
    )
    assert answer.status == 200
    seen = world.services["tls"].last
    assert hashlib.sha256(seen.body).digest() == hashlib.sha256(content).digest()
    assert answer.json["body"].encode("latin-1") == content


def test_an_idle_connection_is_closed_in_good_order(tmp_path: Path, world: World) -> None:
    for file in ("one.crt", "one.key"):
        (tmp_path / file).write_bytes((Path(world.authority.path).parent / file).read_bytes())
    listen = "['127.0.0.1:0', {address: '127.0.0.1:0', tls: {certificate: one.crt, key: one.key}}]"
    with Gateway(tmp_path, "routes: [{path: /said, respond: here}]", listen=listen) as gateway:
        context = world.authority.client()
        plain = socket.create_connection(("127.0.0.1", gateway.ports[1]), DEADLINE)
        with context.wrap_socket(plain, server_hostname="one.test", suppress_ragged_eofs=False) as client:
            assert answer_on(client, get("/said")).body == b"here"
            with world.connect(gateway.ports[1]) as begun:
                begun.sendall(b"GET /said HTTP/1.1\r\n")
                gateway.popen.terminate()
                assert client.recv(1) == b""  # a close_notify: an end without one would raise
                begun.sendall(b"Host: a\r\n\r\n")
                assert b"here" in begun.recv(4096)


# Redirects.


@pytest.mark.parametrize(
    ("host", "path", "location"),
    [
        ("shop.example", "/a/b?c=d&e=%20", "https://shop.example:8443/a/b?c=d&e=%20"),
        ("shop.example:8080", "/", "https://shop.example:8443/"),
        ("SHOP.example", "/said", "https://shop.example:8443/said"),
        ("127.0.0.1:8080", "/a?", "https://127.0.0.1:8443/a?"),
        ("[::1]:8080", "/a", "https://[::1]:8443/a"),
        ("[::1]", "/a", "https://[::1]:8443/a"),
        ("shop.example", "/a//b/../c", "https://shop.example:8443/a/c"),
        ("shop.example", "http://other.example/x?y", "https://other.example:8443/x?y"),
        ("shop.example", "//evil.example/x", "https://shop.example:8443/evil.example/x"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_plain_requests_are_led_to_https(world: World, method: str, host: str, path: str, location: str) -> None:
    request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", world.ports.redirect), DEADLINE) as client:
        for _ in range(2):
            client.sendall(request)
            response = HTTPResponse(client, method=method)
            response.begin()
            assert (response.status, response.getheader("Location")) == (308, location)
            response.read()


def test_the_usual_port_is_left_out(world: World) -> None:
    answer = curl("-H", "Host: shop.example:8080", f"http://127.0.0.1:{world.ports.redirect_443}/a")
    assert (answer.status, answer.value("Location")) == (308, "https://shop.example/a")


def test_content_of_a_redirected_request_is_passed_over(world: World) -> None:
    with socket.create_connection(("127.0.0.1", world.ports.redirect), DEADLINE) as client:
        for _ in range(2):
            request = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
            assert answer_on(client, request).status == 308


def test_nobody_knows_where_to_without_a_host(world: World) -> None:
    with socket.create_connection(("127.0.0.1", world.ports.redirect), DEADLINE) as client:
        assert answer_on(client, b"GET /a HTTP/1.0\r\n\r\n").status == 400


def test_what_a_trusted_proxy_had_over_https_is_served(world: World) -> None:
    url = f"http://127.0.0.1:{world.ports.redirect}/said"
    https = ("-H", "X-Forwarded-Proto: https")
    assert curl("--interface", PROXY, *https, url).body == b"here"
    assert curl("--interface", PROXY, "-H", "X-Forwarded-Proto: http", url).status == 308
    assert curl("--interface", PROXY, url).status == 308
    assert curl(*https, url).status == 308  # whoever else says so


def test_websockets_are_led_to_https_as_well(world: World) -> None:
    with socket.create_connection(("127.0.0.1", world.ports.redirect), DEADLINE) as client:
        request = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert answer_on(client, request).status == 308
        assert answer_on(client, request).status == 308


# With services.


@pytest.mark.parametrize("service", ["good", "by-name", "named", "unverified", "mutual"])
def test_services_that_are_who_they_should_be(world: World, service: str) -> None:
    for _ in range(2):
        assert world.ask(service).status == 200
    where = {"named": "internal", "unverified": "expired", "mutual": "mutual"}.get(service, "tls")
    first, second = world.services[where].seen[-2:]
    assert first.connection == second.connection  # kept for the next request


def test_a_service_is_asked_for_by_its_name(world: World) -> None:
    assert world.ask("named").status == 200
    assert world.services["internal"].asked[-1] == "orders.internal"
    assert world.services["internal"].last.values("Host") == [f"127.0.0.1:{world.services['internal'].port}"]
    assert world.ask("by-name").status == 200
    assert "localhost" in world.services["tls"].asked


def test_a_service_is_shown_the_certificate_it_asks_for(world: World) -> None:
    assert world.ask("mutual").status == 200
    shown = world.services["mutual"].shown[-1]
    assert shown is not None
    subject: Any = shown["subject"]
    assert (("commonName", "gateway"),) in subject


def seen_by(world: World) -> list[Seen]:
    return [seen for service in world.services.values() for seen in service.seen]


@pytest.mark.parametrize(
    ("service", "why"),
    {
        "unknown-authority": "self-signed certificate in certificate chain",
        "wrong-authority": "self-signed certificate in certificate chain",
        "wrong-name": "IP address mismatch",
        "misnamed": "Hostname mismatch",
        "expired": "certificate has expired",
        "old": "protocol version",
        "plain": "what came is not TLS; is plain HTTP spoken there?",
        "down": "",
    }.items(),
)
def test_a_service_that_cannot_be_trusted_is_502(world: World, service: str, why: str) -> None:
    before = len(seen_by(world))
    problem_of(world.ask(service), 502, "service-unreachable")
    assert len(seen_by(world)) == before
    said = [line for line in world.gateway.log().splitlines() if f"service {service}: target" in line]
    assert len(said) == 1  # and not again with each request
    assert why.lower() in said[0].lower()


@pytest.mark.parametrize("service", ["unknown-to-it", "stranger-to-it"])
def test_a_service_that_refuses_the_gateway_is_502(world: World, service: str) -> None:
    before = len(world.services["mutual"].seen)
    answer = world.ask(service)
    assert answer.status == 502
    assert len(world.services["mutual"].seen) == before


def test_a_service_that_does_not_shake_hands_is_504(world: World) -> None:
    problem_of(world.ask("silent"), 504, "service-timeout")
    world.raw.accept()[0].close()


@contextmanager
def answered(world: World, *options: str) -> Iterator[tuple[ssl.SSLSocket, socket.socket]]:
    """Yield the service's and the client's side of a request that the service has read."""
    with socket.create_connection(("127.0.0.1", world.ports.plain), DEADLINE) as client:
        client.sendall(get("/raw/a"))
        with world.accept() as service:
            while not service.recv(65536).endswith(b"\r\n\r\n"):
                continue
            yield service, client


@pytest.mark.parametrize("orderly", [True, False])
def test_only_a_close_notify_makes_an_answer_whole_that_ends_with_the_connection(world: World, orderly: bool) -> None:
    """Without one somebody on the way may have cut it (RFC 9112 section 9.8)."""
    with answered(world) as (service, client):
        service.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        if orderly:
            service.settimeout(0)
            with suppress(OSError):
                service.unwrap()
        service.close()
        said = b""
        with suppress(ConnectionResetError):
            while data := client.recv(65536):
                said += data
                if said.endswith(b"0\r\n\r\n"):
                    break
        assert b"half of it" in said
        assert said.endswith(b"0\r\n\r\n") is orderly


def test_an_answer_that_is_cut_is_not_passed_off_as_whole(world: World) -> None:
    with answered(world) as (service, client):
        service.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        service.close()
        response = HTTPResponse(client)
        response.begin()
        with pytest.raises((ConnectionResetError, IncompleteRead)):
            response.read()


# What `portico check` says of files.


def check(folder: Path, tls: str, side: str) -> tuple[int, str]:
    """Return how `portico check` ended and what it said; `tls` stands in line 4, from column 10."""
    listener = (
        f"listen:\n  - 127.0.0.1:0\n  - address: 127.0.0.1:0\n    tls: {tls}\nroutes: [{{path: /a, respond: a}}]\n"
    )
    service = f"services:\n  s:\n    url: https://127.0.0.1:1\n    tls: {tls}\nroutes: [{{path: /a, service: s}}]\n"
    file = folder / "portico.yaml"
    file.write_text(listener if side == "listener" else service)
    done = portico_here("check", str(file))
    return done.code, (done.out + done.err).replace(f"{folder}/", "")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    authority = Authority(folder)
    authority.issue("one", "a.test")
    authority.issue("two", "b.test")
    (folder / "words.pem").write_text("hello")
    return folder


@pytest.mark.parametrize("side", ["listener", "service"])
@pytest.mark.parametrize(
    ("tls", "place", "said"),
    [
        ("{certificate: one.crt, key: two.key}", None, "two.key: the key does not belong to the certificate one.crt"),
        ("{certificate: missing.crt, key: one.key}", 24, "cannot read missing.crt: No such file or directory"),
        ("{certificate: one.crt, key: missing.key}", 38, "cannot read missing.key: No such file or directory"),
        ("{certificate: words.pem, key: one.key}", None, "words.pem: there is no certificate in it in PEM form"),
        ("{certificate: one.crt, key: words.pem}", None, "words.pem: there is no private key in it in PEM form"),
        ("{certificate: one.crt}", None, "one.crt: there is no private key in it in PEM form"),
        ("{certificate: one.key, key: one.key}", None, "one.key: there is no certificate in it in PEM form"),
    ],
)
def test_check_names_the_file_that_is_of_no_use(files: Path, side: str, tls: str, place: int | None, said: str) -> None:
    code, text = check(files, tls, side)
    assert code == 1
    (line,) = [line for line in text.splitlines() if said in line]
    at = re.match(r"portico\.yaml:(\d+):(\d+): ", line)
    assert at is not None
    if place is None:  # what is in files is known once they are used, by a whole listener or service
        assert int(at[1]) in (2, 3, 4)
    else:
        assert (int(at[1]), int(at[2])) == (4, place)


def test_check_is_content_with_good_files(files: Path) -> None:
    assert check(files, "{certificate: one.crt, key: one.key, client_ca: authority.pem}", "listener")[0] == 0
    assert check(files, "{ca: authority.pem, certificate: two.crt, key: two.key}", "service")[0] == 0


def test_check_looks_at_the_authorities(files: Path) -> None:
    for side, key in (("listener", "certificate: one.crt, key: one.key, client_ca"), ("service", "ca")):
        code, text = check(files, f"{{{key}: words.pem}}", side)
        assert code == 1
        assert "words.pem: there is no certificate in it in PEM form" in text


def test_a_gateway_does_not_start_with_them(files: Path) -> None:
    file = files / "portico.yaml"
    check(files, "{certificate: one.crt, key: two.key}", "listener")
    done = portico_here("run", str(file))
    assert done.code == 1
    assert "the key does not belong to the certificate" in done.out + done.err
