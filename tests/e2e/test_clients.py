"""Who a client is: told by itself, by a trusted proxy, or by a balancer that speaks the PROXY protocol."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.harness.certificates import Authority
from tests.harness.gateway import DEADLINE, Answer, Gateway, Seen, Service, curl, wait_for
from tests.harness.tools import program

PROXY = "127.0.0.2"
"""Whom the gateway trusts; everyone else on this machine is a stranger."""
BALANCER = "127.0.0.3"
"""Who may speak the PROXY protocol with the second of its listeners."""
HANDSHAKE = 1.5

PLUGIN = '''
"""Says who the client is."""
from portico.plugin import *

import json


class Who(PolicyConfig):
    who: bool
    """Nothing to set."""


class WhoEndpoint(Endpoint[Who], name="who"):
    """Answers with what the gateway knows of the client."""

    async def handle(self, request):
        client = request.client
        tls = client.encryption
        known = {
            "address": client.address, "port": client.port, "local_port": client.local_port,
            "scheme": client.scheme, "peer": client.peer, "host": request.host,
            "tls": None if tls is None else [tls.version, tls.server_name, tls.certificate is not None],
        }
        return Response(200, Headers([(b"Content-Type", b"application/json")]), json.dumps(known).encode())
'''

CONFIG = """
plugins: [who.py]
services:
  echo: {{url: http://127.0.0.1:{port}}}
trusted_proxies: [127.0.0.2/32, 10.0.0.0/8, "::1/128"]
limits: {{handshake_timeout: 1500ms}}
routes:
  - {{path: /who, who: true}}
  - {{path: /**, service: echo}}
"""

LISTEN = """
  - 127.0.0.1:0
  - "[::1]:0"
  - {address: 127.0.0.1:0, proxy_protocol: true}
  - {address: 127.0.0.1:0, proxy_protocol: 127.0.0.3/32}
  - {address: 127.0.0.1:0, proxy_protocol: true, tls: {certificate: server.crt, key: server.key}}
  - {address: 127.0.0.1:0, tls: {certificate: server.crt, key: server.key}}
  - ":0"
"""


class Ports(NamedTuple):
    plain: int
    v6: int
    relayed: int
    relayed_by_few: int
    relayed_tls: int
    tls: int
    every: int


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "who.py").write_text(PLUGIN)
    return folder


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    authority = Authority(folder)
    authority.issue("server", "gate.test", "127.0.0.1")
    return authority


@pytest.fixture(scope="module")
def gateway(folder: Path, service: Service, authority: Authority) -> Iterator[Gateway]:
    with Gateway(folder, CONFIG.format(port=service.port), listen=LISTEN) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def ports(gateway: Gateway) -> Ports:
    return Ports(*gateway.ports)


def asked(service: Service, port: int, *options: str, peer: str = PROXY, host: str = "127.0.0.1") -> Seen:
    """Send a request from `peer` and return it as the service got it."""
    assert curl("--interface", peer, *options, f"http://{host}:{port}/a").status == 200
    return service.last


def who(port: int, *options: str, peer: str = PROXY) -> dict[str, Any]:
    """Return who the gateway takes the sender of a request from `peer` for."""
    known: dict[str, Any] = curl("--interface", peer, *options, f"http://127.0.0.1:{port}/who").json
    return known


def headers(*lines: str) -> list[str]:
    return [word for line in lines for word in ("-H", line)]


# By headers.


def test_a_trusted_proxy_is_believed_and_added_to(service: Service, ports: Ports) -> None:
    seen = asked(
        service,
        ports.plain,
        *headers(
            "X-Forwarded-For: 203.0.113.7",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: shop.example",
            "X-Forwarded-Port: 443",
        ),
    )
    assert seen.values("X-Forwarded-For") == [f"203.0.113.7, {PROXY}"]
    assert seen.values("X-Forwarded-Proto") == ["https"]
    assert seen.values("X-Forwarded-Host") == ["shop.example"]
    assert seen.values("X-Forwarded-Port") == ["443"]
    assert seen.values("Host") == [f"127.0.0.1:{service.port}"]


def test_a_stranger_is_not_believed(service: Service, ports: Ports) -> None:
    claims = headers(
        "X-Forwarded-For: 10.0.0.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Port: 443",
        "Forwarded: for=10.0.0.9;proto=https",
        "X-Real-IP: 10.0.0.9",
        "X_Forwarded_For: 10.0.0.9",
        "Host: a.example",
    )
    seen = asked(service, ports.plain, *claims, peer="127.0.0.1")
    assert seen.values("X-Forwarded-For") == ["127.0.0.1"]
    assert seen.values("X-Forwarded-Proto") == ["http"]
    assert seen.values("X-Forwarded-Host") == ["a.example"]
    assert seen.values("X-Forwarded-Port") == [str(ports.plain)]
    assert not {"forwarded", "x-real-ip", "x_forwarded_for"} & seen.names
    known = who(ports.plain, *claims, peer="127.0.0.1")
    assert (known["address"], known["peer"], known["scheme"]) == ("127.0.0.1", "127.0.0.1", "http")
    assert known["port"] > 0


def test_a_client_behind_two_proxies(service: Service, ports: Ports) -> None:
    chain = headers("X-Forwarded-For: 6.6.6.6, 203.0.113.7:4711, 10.1.2.3", "X-Forwarded-Proto: https, http, http")
    assert asked(service, ports.plain, *chain).values("X-Forwarded-For") == [f"203.0.113.7, 10.1.2.3, {PROXY}"]
    known = who(ports.plain, *chain)
    assert (known["address"], known["port"], known["peer"]) == ("203.0.113.7", 4711, PROXY)
    assert known["scheme"] == "http"


def test_headers_in_several_lines_are_one_list(service: Service, ports: Ports) -> None:
    lines = headers("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.7", "x-forwarded-for: 10.1.2.3")
    assert asked(service, ports.plain, *lines).values("X-Forwarded-For") == [f"203.0.113.7, 10.1.2.3, {PROXY}"]


def test_a_proxy_that_says_nothing_is_the_client(service: Service, ports: Ports) -> None:
    assert asked(service, ports.plain).values("X-Forwarded-For") == [PROXY]
    assert who(ports.plain)["address"] == PROXY


def test_clients_with_ipv6_addresses(service: Service, ports: Ports) -> None:
    seen = asked(service, ports.v6, *headers("X-Forwarded-For: [2001:DB8::7]:4711"), peer="::1", host="[::1]")
    assert seen.values("X-Forwarded-For") == ["2001:db8::7, ::1"]
    assert seen.values("X-Forwarded-Host") == [f"[::1]:{ports.v6}"]


def test_an_ipv4_client_of_a_listener_for_every_address_has_an_ipv4_address(service: Service, ports: Ports) -> None:
    assert asked(service, ports.every, peer="127.0.0.1").values("X-Forwarded-For") == ["127.0.0.1"]
    assert who(ports.every, peer="127.0.0.1")["address"] == "127.0.0.1"
    seen = asked(service, ports.every, *headers("X-Forwarded-For: 203.0.113.7"))
    assert seen.values("X-Forwarded-For") == [f"203.0.113.7, {PROXY}"]


def test_one_connection_of_a_proxy_carries_many_clients(service: Service, ports: Ports) -> None:
    proxy = HTTPConnection("127.0.0.1", ports.plain, timeout=DEADLINE, source_address=(PROXY, 0))
    said = [("203.0.113.7", "https"), ("203.0.113.8", "http"), (None, None), ("203.0.113.7", "https"), (None, "https")]
    for address, scheme in said:
        fields = {"X-Forwarded-For": address, "X-Forwarded-Proto": scheme}
        proxy.request("GET", "/a", headers={name: value for name, value in fields.items() if value is not None})
        proxy.getresponse().read()
        assert service.last.values("X-Forwarded-For") == [f"{address}, {PROXY}" if address else PROXY]
        assert service.last.values("X-Forwarded-Proto") == [scheme or "http"]
    proxy.close()


def test_pipelined_requests_of_different_clients(service: Service, ports: Ports) -> None:
    with socket.create_connection(("127.0.0.1", ports.plain), DEADLINE, source_address=(PROXY, 0)) as proxy:
        request = "GET /who HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.{}\r\n\r\n"
        proxy.sendall("".join(request.format(number) for number in range(1, 6)).encode())
        assert [answer_on(proxy).json["address"] for _ in range(5)] == [f"203.0.113.{n}" for n in range(1, 6)]


@pytest.mark.parametrize(("version", "via"), [("--http1.1", "1.1 portico"), ("--http1.0", "1.0 portico")])
@pytest.mark.parametrize("peer", ["127.0.0.1", PROXY])
def test_via_says_what_the_request_came_by(service: Service, ports: Ports, version: str, via: str, peer: str) -> None:
    """RFC 9110 section 7.6.3: the protocol that was received."""
    assert asked(service, ports.plain, version, peer=peer).values("Via") == [via]
    lines = headers("Via: 1.1 edge", "X-Forwarded-For: 203.0.113.7")
    assert asked(service, ports.plain, version, *lines, peer=peer).values("Via") == ["1.1 edge", via]


@contextmanager
def told(tmp_path: Path, service: Service, words: str) -> Iterator[int]:
    config = f"""
services: {{echo: {{url: "http://127.0.0.1:{service.port}"}}}}
trusted_proxies: [127.0.0.2/32]
forwarded: {words}
routes: [{{path: /**, service: echo}}]
"""
    with Gateway(tmp_path, config) as gateway:
        yield gateway.port


CLAIMS = headers("X-Forwarded-For: 203.0.113.7", "Forwarded: for=203.0.113.8;proto=https;host=shop.example")


def test_forwarded_alone(tmp_path: Path, service: Service) -> None:
    with told(tmp_path, service, "forwarded") as port:
        seen = asked(service, port, *CLAIMS)
        assert seen.values("Forwarded") == [f'for=203.0.113.8;proto=https;host="shop.example", for={PROXY}']
        assert not [name for name in seen.names if name.startswith("x-forwarded")]
        stranger = asked(service, port, *CLAIMS, peer="127.0.0.1")
        assert stranger.values("Forwarded") == [f'for=127.0.0.1;proto=http;host="127.0.0.1:{port}"']
        assert not [name for name in stranger.names if name.startswith("x-forwarded")]


def test_both_and_another_name(tmp_path: Path, service: Service) -> None:
    with told(tmp_path, service, "{headers: both, via: edge-1}") as port:
        seen = asked(service, port, *CLAIMS)
        assert seen.values("X-Forwarded-For") == [f"203.0.113.7, {PROXY}"]
        assert seen.values("Forwarded") == [f'for=203.0.113.7;proto=http;host="127.0.0.1:{port}", for={PROXY}']
        assert seen.values("Via") == ["1.1 edge-1"]


def test_no_via(tmp_path: Path, service: Service) -> None:
    with told(tmp_path, service, "{via: off}") as port:
        seen = asked(service, port, *CLAIMS, "-H", "Via: 1.1 edge")
        assert seen.values("Via") == ["1.1 edge"]
        assert "via" not in asked(service, port).names


# By the PROXY protocol.


def v1(source: str = "203.0.113.7", port: int = 4711, family: str = "TCP4", to: str = "198.51.100.1") -> bytes:
    return f"PROXY {family} {source} {to} {port} 443\r\n".encode()


def v2(source: str = "203.0.113.7", port: int = 4711, command: int = 1, tls: bool = False) -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    to = "2001:db8::1" if ":" in source else "198.51.100.1"
    body = socket.inet_pton(family, source) + socket.inet_pton(family, to) + struct.pack("!HH", port, 443)
    if tls:
        body += b"\x20\x00\x05\x01\x00\x00\x00\x00"  # PP2_TYPE_SSL: the client came over TLS
    if not command:
        body = b""
    kind = 0x21 if ":" in source else 0x11
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x20 | command, kind if command else 0, len(body)) + body


ASK = b"GET /who HTTP/1.1\r\nHost: gate.test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"


def answer_on(connection: socket.socket | ssl.SSLSocket) -> Answer:
    """Return the next answer on a connection on which nothing comes behind it unasked."""
    response = _Unbuffered(connection)
    response.begin()
    return Answer(response.status, response.getheaders(), response.read())


class _Unbuffered(HTTPResponse):
    """An HTTPResponse that takes no more than its own bytes."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.fp = connection.makefile("rb", buffering=0)


HEADERS = [
    (v1(), {"address": "203.0.113.7", "port": 4711, "local_port": 443, "scheme": "http"}),
    (v1("2001:db8::7", 1, "TCP6", "2001:db8::1"), {"address": "2001:db8::7", "port": 1, "scheme": "http"}),
    (v2(), {"address": "203.0.113.7", "port": 4711, "local_port": 443, "scheme": "http"}),
    (v2("2001:db8::7", 65535), {"address": "2001:db8::7", "port": 65535, "scheme": "http"}),
    (v2(tls=True), {"address": "203.0.113.7", "scheme": "https"}),
    (v2(command=0), {"address": "127.0.0.1", "scheme": "http"}),
    (b"PROXY UNKNOWN\r\n", {"address": "127.0.0.1", "scheme": "http"}),
]
NAMES = ["v1", "v1 over IPv6", "v2", "v2 over IPv6", "v2 of a client with TLS", "v2 LOCAL", "v1 UNKNOWN"]


@pytest.mark.parametrize(("header", "known"), HEADERS, ids=NAMES)
@pytest.mark.parametrize("split", ["at once", "byte by byte", "behind each other"])
def test_a_balancer_says_who_the_client_is(ports: Ports, header: bytes, known: dict[str, Any], split: str) -> None:
    with socket.create_connection(("127.0.0.1", ports.relayed), DEADLINE) as balancer:
        send(balancer, [header, ASK], split)
        found = answer_on(balancer).json
        assert {name: found[name] for name in known} == known
        # Of a client whom the balancer does not know, nothing that it claims of itself is believed.
        assert found["peer"] == (found["address"] if found["address"] != "127.0.0.1" else "unknown")
        balancer.sendall(ASK)  # the header is for the whole connection
        assert answer_on(balancer).json == found


def send(connection: socket.socket, parts: list[bytes], split: str) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    whole = b"".join(parts)
    if split == "at once":
        parts = [whole]
    elif split == "byte by byte":
        parts = [whole[at : at + 1] for at in range(len(whole))]
    for part in parts:
        connection.sendall(part)


def test_curl_speaks_version_1(service: Service, ports: Ports) -> None:
    seen = asked(service, ports.relayed, "--haproxy-protocol", peer="127.0.0.9")
    assert seen.values("X-Forwarded-For") == ["127.0.0.9"]
    assert seen.values("X-Forwarded-Port") == [str(ports.relayed)]


def test_headers_of_who_a_balancer_relays_count_only_where_that_is_a_trusted_proxy(ports: Ports) -> None:
    for source, address in (("203.0.113.7", "203.0.113.7"), (PROXY, "6.6.6.6")):
        with socket.create_connection(("127.0.0.1", ports.relayed), DEADLINE) as balancer:
            balancer.sendall(v1(source) + ASK)
            assert answer_on(balancer).json["address"] == address
    # That the balancer itself may be trusted says nothing of those whom it relays.
    with socket.create_connection(("127.0.0.1", ports.relayed), DEADLINE, source_address=(PROXY, 0)) as balancer:
        balancer.sendall(v1() + ASK)
        assert answer_on(balancer).json["address"] == "203.0.113.7"


def closed_without_a_word(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("header", [v1(), v2(), v2(command=0), b""], ids=["v1", "v2", "LOCAL", "no header"])
def test_only_balancers_may_connect_to_their_listener(gateway: Gateway, ports: Ports, header: bytes) -> None:
    with socket.create_connection(("127.0.0.1", ports.relayed_by_few), DEADLINE) as stranger:
        stranger.sendall(header + ASK)
        assert closed_without_a_word(stranger)
    wait_for(lambda: "127.0.0.1: refused, since it is none of the proxies" in gateway.log(), "a word in the log")
    if header:
        with socket.create_connection(
            ("127.0.0.1", ports.relayed_by_few), DEADLINE, source_address=(BALANCER, 0)
        ) as balancer:
            balancer.sendall(header + ASK)
            assert answer_on(balancer).json["address"] in ("203.0.113.7", BALANCER)


GARBAGE = {
    "no header": b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 200,
    "version 3": b"PROXY3 TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "no line end": b"PROXY TCP4 " + b"1" * 200,
    "an unknown family": b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
    "an address that is none": b"PROXY TCP4 1.2.3.400 1.2.3.4 1 2\r\n",
    "a lone LF": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "a datagram": v2()[:13] + b"\x12" + v2()[14:],
    "a length beyond the limit": v2()[:14] + b"\xff\xff",
    "a header behind a header": v1() + v1() + ASK,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("encrypted", [False, True])
def test_garbage_ends_the_connection(service: Service, ports: Ports, garbage: bytes, encrypted: bool) -> None:
    before = len(service.seen)
    port = ports.relayed_tls if encrypted else ports.relayed
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as balancer:
        balancer.sendall(garbage)
        if garbage.startswith(v1()) and not encrypted:  # the second is the client's own
            assert balancer.recv(4096).startswith(b"HTTP/1.1 400 ")
        else:
            assert closed_without_a_word(balancer)
    assert len(service.seen) == before


def test_a_header_that_comes_too_slowly(ports: Ports) -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        slow = []
        for port in (ports.relayed, ports.relayed_tls):
            for begun in (b"", b"PROXY TCP4 1.2.3.4 ", v2()[:20]):
                balancer = stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE))
                balancer.sendall(begun)
                slow.append(balancer)
        assert all(closed_without_a_word(balancer) for balancer in slow)
        assert HANDSHAKE - 0.5 < time.monotonic() - began < HANDSHAKE + 10


def test_header_and_handshake_share_their_time(ports: Ports) -> None:
    """`handshake_timeout` is for both together: who is slow with the header has less for TLS."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", ports.relayed_tls), DEADLINE) as balancer:
        balancer.settimeout(HANDSHAKE * 0.75)
        with pytest.raises(TimeoutError):
            balancer.recv(1)
        balancer.settimeout(DEADLINE)
        balancer.sendall(v1())
        assert closed_without_a_word(balancer)
        assert time.monotonic() - began < HANDSHAKE * 1.5


class Secure:
    """A TLS client in memory, so that a test says which bytes leave together."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self.connection = connection
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="gate.test")
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.hello = self.outgoing.read()

    def ask(self) -> Any:
        """Shake hands to the end, send a request, and return the JSON of its answer."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._more()
        self.tls.write(ASK)
        self.connection.sendall(self.outgoing.read())
        said = b""
        while not said.endswith(b"}"):
            try:
                said += self.tls.read(65536)
            except ssl.SSLWantReadError:
                self._more()
        return json.loads(said.partition(b"\r\n\r\n")[2])

    def _more(self) -> None:
        if data := self.outgoing.read():
            self.connection.sendall(data)
        data = self.connection.recv(65536)
        assert data
        self.incoming.write(data)


@pytest.mark.parametrize(("header", "known"), HEADERS, ids=NAMES)
@pytest.mark.parametrize("split", ["at once", "byte by byte", "behind each other"])
def test_the_header_comes_before_tls(
    ports: Ports, authority: Authority, header: bytes, known: dict[str, Any], split: str
) -> None:
    with socket.create_connection(("127.0.0.1", ports.relayed_tls), DEADLINE) as balancer:
        secure = Secure(balancer, authority.client())
        send(balancer, [header, secure.hello], split)
        found = secure.ask()
        assert {name: found[name] for name in known} == known | {"scheme": "https"}


def test_who_is_relayed_with_its_tls_is_known_by_that_as_well(ports: Ports, authority: Authority) -> None:
    """A balancer that passes TLS on untouched does not hide what the client has shown of itself."""
    with socket.create_connection(("127.0.0.1", ports.relayed_tls), DEADLINE) as balancer:
        secure = Secure(balancer, authority.client())
        send(balancer, [v2(), secure.hello], "at once")
        assert secure.ask()["tls"] == ["TLSv1.3", "gate.test", False]


def test_a_client_behind_a_proxy_that_speaks_tls_has_no_tls_of_its_own(ports: Ports, authority: Authority) -> None:
    options = ("--cacert", authority.path, "--interface", PROXY, f"https://127.0.0.1:{ports.tls}/who")
    assert curl(*options).json["tls"] == ["TLSv1.3", "", False]
    known = curl("-H", "X-Forwarded-For: 203.0.113.7", *options).json
    assert (known["address"], known["tls"]) == ("203.0.113.7", None)


# A real balancer.

HAPROXY = """
global
    maxconn 64
    nbthread 1
defaults
    mode {mode}
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen front
    bind fd@{front} {bind}
    server gateway 127.0.0.1:{port} {server}
"""


@contextmanager
def haproxy(directory: Path, port: int, server: str, bind: str = "", mode: str = "tcp") -> Iterator[int]:
    """Yield the port of haproxy in front of `port`."""
    command = program("haproxy")
    with ExitStack() as stack:
        # It listens before haproxy runs: a client that is early waits in its queue.
        front = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        file = directory / "haproxy.cfg"
        file.write_text(HAPROXY.format(mode=mode, front=front.fileno(), bind=bind, port=port, server=server))
        process = subprocess.Popen(
            [command, "-db", "-q", "-f", str(file)], pass_fds=[front.fileno()], stdin=subprocess.DEVNULL
        )
        stack.callback(process.wait, DEADLINE)
        stack.callback(process.kill)
        yield front.getsockname()[1]


@pytest.mark.parametrize("server", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_behind_haproxy(tmp_path: Path, service: Service, ports: Ports, server: str) -> None:
    with haproxy(tmp_path, ports.relayed, server) as front:
        seen = asked(service, front, *headers("X-Forwarded-For: 6.6.6.6"), peer="127.0.0.9")
        assert seen.values("X-Forwarded-For") == ["127.0.0.9"]
        assert seen.values("X-Forwarded-Port") == [str(front)]


def test_behind_haproxy_that_speaks_tls(
    tmp_path: Path, service: Service, ports: Ports, authority: Authority, folder: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes((folder / "server.crt").read_bytes() + (folder / "server.key").read_bytes())
    with haproxy(tmp_path, ports.relayed, "send-proxy-v2-ssl", f"ssl crt {both}") as front:
        assert curl("--cacert", authority.path, f"https://127.0.0.1:{front}/a").status == 200
        assert service.last.values("X-Forwarded-Proto") == ["https"]
        assert service.last.values("X-Forwarded-Port") == [str(front)]


def test_behind_haproxy_that_passes_tls_on(
    tmp_path: Path, service: Service, ports: Ports, authority: Authority
) -> None:
    with haproxy(tmp_path, ports.relayed_tls, "send-proxy-v2") as front:
        url = f"https://127.0.0.1:{front}/a"
        assert curl("--cacert", authority.path, "--interface", "127.0.0.9", url).status == 200
        assert service.last.values("X-Forwarded-For") == ["127.0.0.9"]
        assert service.last.values("X-Forwarded-Proto") == ["https"]


def test_behind_haproxy_that_speaks_http(tmp_path: Path, service: Service, ports: Ports) -> None:
    """Its connections to the gateway carry the requests of all its clients."""
    with haproxy(
        tmp_path, ports.plain, f"source {PROXY}", mode="http\n    http-reuse always\n    option forwardfor"
    ) as front:
        for number in range(9, 13):
            seen = asked(service, front, peer=f"127.0.0.{number}")
            assert seen.values("X-Forwarded-For") == [f"127.0.0.{number}, {PROXY}"]
