"""WebSockets, and other protocols that a client and a service change to, through the gateway."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.harness.certificates import Authority
from tests.harness.gateway import DEADLINE, Answer, Gateway, curl, memory_of, wait_for

LISTEN = """
  - 127.0.0.1:0
  - {address: 127.0.0.1:0, tls: {certificate: server.crt, key: server.key}}
"""

CONFIG = """
services:
  ws: {{url: "http://127.0.0.1:{ws}"}}
  wss: {{url: "https://127.0.0.1:{wss}", tls: {{ca: authority.pem}}}}
  raw: {{url: "http://127.0.0.1:{raw}", keepalive: off}}
  raw-tls: {{url: "https://127.0.0.1:{raw_tls}", keepalive: off, tls: {{ca: authority.pem}}}}
  none: {{url: "http://127.0.0.1:{raw}", keepalive: off, upgrades: off}}
  chat: {{url: "http://127.0.0.1:{raw}", keepalive: off, upgrades: [chat]}}
policies: [correlation-id, security-headers]
routes:
  - {{path: /ws/**, service: ws}}
  - {{path: /wss/**, service: wss}}
  - {{path: /raw/**, service: raw}}
  - {{path: /raw-tls/**, service: raw-tls}}
  - {{path: /none, service: none}}
  - {{path: /chat, service: chat}}
  - {{path: /said, respond: here}}
"""

LARGE = os.urandom(4 * 1024 * 1024)
FRONTS = pytest.mark.parametrize("front", ["http", "https"])
BACKS = pytest.mark.parametrize("back", ["ws", "wss"])


def answer_messages(connection: ServerConnection) -> None:
    """Do what the path of a WebSocket says, for as long as it is open."""
    assert connection.request is not None
    what = connection.request.path.rpartition("/")[2]
    if what == "close":
        connection.close(4001, "had enough")
        return
    if what == "ping":
        assert connection.ping(b"are you there?").wait(DEADLINE)
        connection.send("you are there")
    for message in connection:
        if what == "fragments":
            connection.send(iter([message[:1], message[1:-1], message[-1:]]))
        else:
            connection.send(message)


@contextmanager
def websockets_service(context: ssl.SSLContext | None) -> Iterator[Server]:
    with serve(answer_messages, "127.0.0.1", 0, ssl=context, max_size=None) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(DEADLINE)


class Raw:
    """A listening socket, whose connections a test serves by hand."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.context = context
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(DEADLINE)
        self.port: int = self.socket.getsockname()[1]

    def accept(self) -> socket.socket:
        connection, _ = self.socket.accept()
        connection.settimeout(DEADLINE)
        if self.context is None:
            return connection
        return self.context.wrap_socket(connection, server_side=True)


class World(NamedTuple):
    gateway: Gateway
    authority: Authority
    raw: Raw
    raw_tls: Raw

    def connect(self, front: str = "http") -> socket.socket:
        """Return a connection to the gateway."""
        port = self.gateway.ports[front == "https"]
        plain = socket.create_connection(("127.0.0.1", port), DEADLINE)
        if front == "http":
            return plain
        return self.authority.client().wrap_socket(plain, server_hostname="127.0.0.1")

    def websocket(self, path: str, front: str = "http") -> ClientConnection:
        port = self.gateway.ports[front == "https"]
        scheme, context = ("ws", None) if front == "http" else ("wss", self.authority.client())
        url = f"{scheme}://127.0.0.1:{port}{path}"
        return connect(url, ssl=context, max_size=None, proxy=None, open_timeout=DEADLINE, close_timeout=DEADLINE)

    @contextmanager
    def tunnel(self, front: str = "http", back: str = "raw") -> Iterator[tuple[socket.socket, socket.socket]]:
        """Yield the client's and the service's connection once they have changed protocols."""
        with self.connect(front) as client:
            client.sendall(ask(f"/{back}/a"))
            with (self.raw if back == "raw" else self.raw_tls).accept() as service:
                head = until(service, b"\r\n\r\n")
                assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in head
                service.sendall(SWITCH)
                assert until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
                yield client, service


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("upgrade")
    authority = Authority(folder)
    pair = authority.issue("server", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    raw, raw_tls = Raw(), Raw(context)
    with ExitStack() as stack:
        stack.enter_context(closing(raw.socket))
        stack.enter_context(closing(raw_tls.socket))
        ws = stack.enter_context(websockets_service(None))
        wss = stack.enter_context(websockets_service(context))
        ports = {"ws": ws.socket.getsockname()[1], "wss": wss.socket.getsockname()[1]}
        config = CONFIG.format(raw=raw.port, raw_tls=raw_tls.port, **ports)
        gateway = stack.enter_context(Gateway(folder, config, listen=LISTEN))
        (worker,) = gateway.worker_pids()
        yield World(gateway, authority, raw, raw_tls)
        # Connections that are kept for the next request aside, which there are none of: all were upgraded, or closed.
        wait_for(lambda: sockets_of(worker) == len(gateway.ports), "the sockets of the worker to be closed")


def sockets_of(pid: int) -> int:
    """Return how many TCP sockets a process has."""
    mine = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            mine.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[9] in mine for line in table)


def ask(path: str, *lines: str, version: str = "1.1", upgrade: str = "websocket") -> bytes:
    """Return the head of a request to change protocols, with more header lines."""
    fields = [f"Upgrade: {upgrade}", "Connection: Upgrade"] if upgrade else []
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: a", *fields, *lines, "", ""]).encode()


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def until(connection: socket.socket, end: bytes) -> bytes:
    """Read byte by byte, so that nothing behind `end` is taken."""
    data = b""
    while not data.endswith(end):
        piece = connection.recv(1)
        assert piece, f"it ended behind {data!r}"
        data += piece
    return data


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, f"it ended after {len(data)} bytes"
        data += piece
    return data


def ended(connection: socket.socket) -> bool:
    """Wait for the end of a connection, in good order or not; nothing may come before it."""
    try:
        return connection.recv(1) == b""
    except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return True


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def answer_on(connection: socket.socket) -> Answer:
    response = HTTPResponse(connection)
    response.fp = connection.makefile("rb", buffering=0)
    response.begin()
    return Answer(response.status, response.getheaders(), response.read())


# With a real client and a real service.


@FRONTS
@BACKS
def test_messages_go_both_ways(world: World, front: str, back: str) -> None:
    with world.websocket(f"/{back}/echo", front) as client:
        for message in ("hello", "", b"\0\xff", "ü" * 1000, b"x" * 65536, LARGE):
            client.send(message)
            assert client.recv(DEADLINE) == message
        client.send(iter(["in ", "several ", "", "pieces"]))
        assert client.recv(DEADLINE) == "in several pieces"
        assert client.ping(b"still there?").wait(DEADLINE)
    assert client.close_code == 1000


@FRONTS
@BACKS
def test_a_service_sends_fragments_and_pings(world: World, front: str, back: str) -> None:
    with world.websocket(f"/{back}/fragments", front) as client:
        client.send(LARGE)
        assert b"".join(client.recv_streaming()) == LARGE
    with world.websocket(f"/{back}/ping", front) as client:
        assert client.recv(DEADLINE) == "you are there"


@FRONTS
@BACKS
def test_the_code_of_a_close_passes(world: World, front: str, back: str) -> None:
    with world.websocket(f"/{back}/close", front) as client:
        with pytest.raises(ConnectionClosedError) as closed:
            client.recv(DEADLINE)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "had enough")
    with world.websocket(f"/{back}/echo", front) as client:
        client.close(4002, "me too")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(DEADLINE)
        assert closed.value.rcvd is not None  # the service has said goodbye, too
        assert closed.value.rcvd.code == 4002


def test_many_at_once(world: World) -> None:
    url = f"ws://127.0.0.1:{world.gateway.port}/ws/echo"

    async def use(number: int) -> None:
        async with connect_async(url, proxy=None, open_timeout=DEADLINE) as client:
            for size in (1, 1000, 100_000):
                message = str(number).encode() * size
                await client.send(message)
                assert await client.recv() == message

    async def main() -> None:
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as everyone:
            for number in range(20):
                everyone.create_task(use(number))

    asyncio.run(main())


def test_policies_see_the_switch(world: World) -> None:
    path = "/ws/echo"
    with connect(
        f"ws://127.0.0.1:{world.gateway.port}{path}", additional_headers={"X-Correlation-ID": "mine"}, proxy=None
    ) as client:
        assert client.response is not None
        assert client.response.headers["X-Correlation-ID"] == "mine"
        assert client.response.headers["X-Frame-Options"] == "DENY"
        assert client.response.headers.get_all("Connection") == ["Upgrade"]
        assert client.response.headers.get_all("Upgrade") == ["websocket"]
        assert "Content-Length" not in client.response.headers
        assert "Transfer-Encoding" not in client.response.headers


def test_what_a_service_is_asked(world: World) -> None:
    with world.connect() as client:
        client.sendall(ask("/raw/a?b=c", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Origin: http://a"))
        with world.raw.accept() as service:
            lines = until(service, b"\r\n\r\n").decode().split("\r\n")
            assert lines[0] == "GET /raw/a?b=c HTTP/1.1"
            assert {"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Origin: http://a"} <= set(lines)
            assert {"X-Forwarded-For: 127.0.0.1", "Via: 1.1 portico"} <= set(lines)
            assert [line for line in lines if line.lower().startswith(("connection:", "upgrade:"))] == [
                "Connection: Upgrade",
                "Upgrade: websocket",
            ]


# How it ends.


@pytest.mark.parametrize("first", ["client", "service"])
def test_a_direction_may_end_before_the_other(world: World, first: str) -> None:
    with world.tunnel() as (client, service):
        one, other = (client, service) if first == "client" else (service, client)
        one.sendall(b"that is all")
        one.shutdown(socket.SHUT_WR)
        assert until(other, b"all") == b"that is all"
        assert other.recv(1) == b""
        other.sendall(LARGE)
        assert exactly(one, len(LARGE)) == LARGE
        other.close()
        assert one.recv(1) == b""


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("first", ["client", "service"])
def test_a_reset_of_one_ends_the_other(world: World, first: str, half_closed: bool) -> None:
    with world.tunnel() as (client, service):
        one, other = (client, service) if first == "client" else (service, client)
        if half_closed:
            one.shutdown(socket.SHUT_WR)
            assert other.recv(1) == b""
            reset(one)
            with pytest.raises(ConnectionError):
                speak_until_cut(other)
        else:
            reset(one)
            assert ended(other)


def speak_until_cut(connection: socket.socket) -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        connection.sendall(b"is anybody there?" * 100)


@pytest.mark.parametrize("first", ["client", "service"])
def test_over_tls_an_end_is_the_end_of_both(world: World, first: str) -> None:
    """What was said before it comes through."""
    with world.tunnel("https", "raw-tls") as (client, service):
        one, other = (client, service) if first == "client" else (service, client)
        one.sendall(LARGE[:300_000])
        assert isinstance(one, ssl.SSLSocket)
        one.settimeout(0)
        with suppress(OSError):
            one.unwrap()  # sends a close_notify, and does not wait for the other side's
        assert exactly(other, 300_000) == LARGE[:300_000]
        assert other.recv(1) == b""
        one.settimeout(DEADLINE)
        assert ended(one)


@FRONTS
@pytest.mark.parametrize("first", ["client", "service"])
def test_a_service_without_tls_and_a_client_with_it(world: World, first: str, front: str) -> None:
    with world.tunnel(front) as (client, service):
        one, other = (client, service) if first == "client" else (service, client)
        one.sendall(b"goodbye")
        one.close()
        assert until(other, b"bye") == b"goodbye"
        assert other.recv(1) == b""


# What comes with the heads.


@FRONTS
@pytest.mark.parametrize("back", ["raw", "raw-tls"])
def test_bytes_behind_the_heads_are_not_lost(world: World, front: str, back: str) -> None:
    early = LARGE[:50_000]
    with world.connect(front) as client:
        client.sendall(ask(f"/{back}/a") + early)
        with (world.raw if back == "raw" else world.raw_tls).accept() as service:
            until(service, b"\r\n\r\n")
            service.sendall(SWITCH + early[::-1])
            until(client, b"\r\n\r\n")
            assert exactly(client, len(early)) == early[::-1]
            assert exactly(service, len(early)) == early


def test_interim_answers_come_before_the_switch(world: World) -> None:
    with world.connect() as client:
        client.sendall(ask("/raw/a"))
        with world.raw.accept() as service:
            until(service, b"\r\n\r\n")
            service.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + SWITCH + b"x")
            assert until(client, b"\r\n\r\n") == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            assert until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
            assert until(client, b"x") == b"x"


# What does not become a tunnel.


@FRONTS
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "426 Upgrade Required", "503 Service Unavailable"])
def test_a_refused_switch_is_an_ordinary_answer(world: World, front: str, status: str) -> None:
    with world.connect(front) as client:
        for _ in range(2):
            client.sendall(ask("/raw/a"))
            with world.raw.accept() as service:
                assert b"\r\nUpgrade: websocket\r\n" in until(service, b"\r\n\r\n")
                service.sendall(f"HTTP/1.1 {status}\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nno!".encode())
            answer = answer_on(client)
            assert (answer.status, answer.body) == (int(status[:3]), b"no!")
        client.sendall(ask("/said", upgrade=""))  # and the connection goes on
        assert answer_on(client).body == b"here"


def test_a_websocket_client_is_told_of_a_refusal(world: World) -> None:
    with pytest.raises(InvalidStatus) as refused:
        world.websocket("/said")
    assert (refused.value.response.status_code, refused.value.response.body) == (200, b"here")


def test_curl_asks_in_vain_and_gets_its_answer(world: World) -> None:
    answer = curl("-H", "Connection: Upgrade", "-H", "Upgrade: websocket", f"{world.gateway.url}/said")
    assert (answer.status, answer.body) == (200, b"here")


UNASKED = {
    "h2c": ask("/raw/a", "HTTP2-Settings: AAMAAABkAAQAoAAA", "Connection: HTTP2-Settings", upgrade="h2c"),
    "several protocols": ask("/raw/a", upgrade="websocket, h2c"),
    "several lines": ask("/raw/a", "Upgrade: h2c"),
    "not named in Connection": ask("/raw/a", "Upgrade: websocket", "Connection: keep-alive", upgrade=""),
    "no Connection": ask("/raw/a", "Upgrade: websocket", upgrade=""),
    "HTTP/1.0": ask("/raw/a", version="1.0"),
    "no token": ask("/raw/a", upgrade="web socket"),
    "empty": ask("/raw/a", "Upgrade:", "Connection: Upgrade", upgrade=""),
    "with a version": ask("/raw/a", upgrade="websocket/13"),
    "with content": ask("/raw/a", "Content-Length: 4") + b"body",
    "with chunked content": ask("/raw/a", "Transfer-Encoding: chunked") + b"4\r\nbody\r\n0\r\n\r\n",
    "another protocol where all are off": ask("/none"),
    "one that is not listed": ask("/chat"),
}


@pytest.mark.parametrize("request_", UNASKED.values(), ids=UNASKED)
def test_what_is_not_asked_of_the_service(world: World, request_: bytes) -> None:
    """RFC 9110 section 7.8 lets a server ignore Upgrade: then it is as if it were not there."""
    with world.connect() as client:
        client.sendall(request_)
        with world.raw.accept() as service:
            lines = until(service, b"\r\n\r\n").decode().lower().split("\r\n")
            assert not [line for line in lines if line.startswith(("upgrade:", "connection:", "http2-settings:"))]
            service.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert answer_on(client).body == b"ok"
        if b"HTTP/1.0" not in request_:
            client.sendall(ask("/said", upgrade=""))
            assert answer_on(client).body == b"here"


def test_content_of_a_request_to_switch_reaches_the_service_as_content(world: World) -> None:
    inner = b"GET /said HTTP/1.1\r\nHost: a\r\n\r\n"
    with world.connect() as client:
        client.sendall(ask("/raw/a", f"Content-Length: {len(inner)}") + inner)
        with world.raw.accept() as service:
            until(service, b"\r\n\r\n")
            assert exactly(service, len(inner)) == inner
            service.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert answer_on(client).body == b"ok"


@pytest.mark.parametrize("spelling", ["CHAT", "chat", "Chat"])
def test_a_protocol_of_ones_own(world: World, spelling: str) -> None:
    with world.connect() as client:
        client.sendall(ask("/chat", upgrade=spelling))
        with world.raw.accept() as service:
            assert b"\r\nUpgrade: chat\r\n" in until(service, b"\r\n\r\n")
            service.sendall(SWITCH.replace(b"websocket", b"cHaT"))
            head = until(client, b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"\r\nUpgrade: chat\r\n" in head
            service.sendall(b"hi")
            assert exactly(client, 2) == b"hi"


@pytest.mark.parametrize(
    ("request_", "answer"),
    {
        "nobody asked": (ask("/raw/a", upgrade=""), SWITCH),
        "asked, and not passed on": (ask("/none"), SWITCH),
        "asked with content": (ask("/raw/a", "Content-Length: 0"), SWITCH.replace(b"websocket", b"chat")),
        "another protocol": (ask("/raw/a"), SWITCH.replace(b"websocket", b"h2c")),
        "several protocols": (ask("/raw/a"), SWITCH.replace(b"websocket", b"websocket, h2c")),
        "no protocol": (ask("/raw/a"), SWITCH.replace(b"Upgrade: websocket\r\n", b"")),
    }.values(),
    ids=["nobody asked", "not passed on", "no content", "another protocol", "several protocols", "no protocol"],
)
def test_a_switch_to_what_nobody_asked_for_is_502(world: World, request_: bytes, answer: bytes) -> None:
    with world.connect() as client:
        client.sendall(request_)
        with world.raw.accept() as service:
            until(service, b"\r\n\r\n")
            service.sendall(answer + b"\x81\x02hi")
            assert answer_on(client).status == 502
            assert ended(service)
        client.sendall(ask("/said", upgrade=""))
        assert answer_on(client).body == b"here"


def test_no_request_is_answered_behind_a_switch(world: World) -> None:
    """What a client has pipelined behind its request belongs to the other protocol."""
    behind = ask("/said", upgrade="")
    with world.connect() as client:
        client.sendall(ask("/raw/a") + behind)
        with world.raw.accept() as service:
            until(service, b"\r\n\r\n")
            service.sendall(SWITCH)
            until(client, b"\r\n\r\n")
            assert exactly(service, len(behind)) == behind
            service.close()
            assert client.recv(1) == b""


def test_a_switch_may_come_behind_other_requests(world: World) -> None:
    with world.connect() as client:
        client.sendall(ask("/said", upgrade="") + ask("/said", upgrade="") + ask("/raw/a") + b"early")
        for _ in range(2):
            assert answer_on(client).body == b"here"
        with world.raw.accept() as service:
            until(service, b"\r\n\r\n")
            service.sendall(SWITCH + b"late")
            until(client, b"\r\n\r\n")
            assert exactly(client, 4) == b"late"
            assert exactly(service, 5) == b"early"


# Limits.


@pytest.mark.parametrize("sluggard", ["client", "service"])
def test_a_side_that_does_not_read_stops_the_other(world: World, sluggard: str) -> None:
    (worker,) = world.gateway.worker_pids()
    with world.tunnel() as (client, service):
        slow, other = (client, service) if sluggard == "client" else (service, client)
        before = memory_of(worker, "VmRSS")
        other.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):
            while sent < 256 * 1024 * 1024:
                sent += other.send(LARGE)
        assert sent < 64 * 1024 * 1024
        assert memory_of(worker, "VmRSS") - before < 4 * 1024 * 1024
        other.shutdown(socket.SHUT_WR)
        received = 0
        while data := slow.recv(1 << 20):
            received += len(data)
        assert received == sent


def alone(tmp_path: Path, raw: Raw, more: str) -> Gateway:
    config = f"""
services: {{raw: {{url: "http://127.0.0.1:{raw.port}"}}}}
routes: [{{path: /**, service: raw}}]
{more}
"""
    return Gateway(tmp_path, config)


def test_silence_ends_a_tunnel(tmp_path: Path, world: World) -> None:
    with alone(tmp_path, world.raw, "limits: {tunnel_timeout: 500ms}") as gateway:
        with World(gateway, *world[1:]).tunnel() as (client, service):
            began = time.monotonic()
            assert ended(client)
            assert ended(service)
            assert 0.4 < time.monotonic() - began < 10
        with World(gateway, *world[1:]).tunnel() as (client, service):
            began = time.monotonic()
            while time.monotonic() < began + 1.2:  # pings of one side keep it
                client.sendall(b"\x89\x80mask")
                assert exactly(service, 6) == b"\x89\x80mask"
                client.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    client.recv(1)
            client.settimeout(DEADLINE)
            assert ended(client)


@pytest.mark.parametrize("again", [False, True])
def test_a_gateway_that_stops_ends_tunnels_in_time(tmp_path: Path, world: World, again: bool) -> None:
    with alone(tmp_path, world.raw, f"shutdown_timeout: {60 if again else 1}s") as gateway:
        with World(gateway, *world[1:]).tunnel() as (client, service):
            os.kill(gateway.popen.pid, signal.SIGTERM)
            wait_for(lambda: refuses(gateway.port), "the gateway to stop listening")
            client.sendall(b"still there")
            assert exactly(service, 11) == b"still there"  # until the time is over
            if again:
                os.kill(gateway.popen.pid, signal.SIGTERM)
            began = time.monotonic()
            assert ended(client)
            assert ended(service)
            assert time.monotonic() - began < 10
        if again:
            assert gateway.popen.wait(DEADLINE) is not None
            return
        gateway.finish([])


def refuses(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) != 0
