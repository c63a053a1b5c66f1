"""What a worker endures: bodies larger than its memory, and clients that take their time.

PORTICO_SOAK=1 runs the long forms (`make soak`).
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from io import BufferedReader
from pathlib import Path

import pytest

from tests.harness.gateway import DEADLINE, Gateway, memory_of, wait_for
from tests.harness.slow_clients import Slow, run

SOAK = bool(os.environ.get("PORTICO_SOAK"))
MIB = 1024 * 1024
SIZE = 4096 * MIB if SOAK else 1024 * MIB
GROWTH = 16 * MIB
PIECE = bytes(range(256)) * 4096
CHUNK = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
LAST_CHUNK = b"0\r\n\r\n"
BURST = 8 * MIB
KERNEL = sum(int(Path(f"/proc/sys/net/ipv4/tcp_{way}mem").read_text().split()[2]) for way in "rw")
IN_FLIGHT = 2 * KERNEL + 8 * MIB
"""What may be on its way of a body, at most: the kernel's buffers on both sides of the worker, and little more."""

HEAD_LIMIT = 3.0
BODY_LIMIT = 2.0
WRITE_LIMIT = 4.0
IDLE_LIMIT = 2.0
SLACK = 6.0
LORISES = 1000
HARM = 0.025
"""Seconds by which others' slowest answers may be later."""

CONFIG = """
limits:
  body: 8GiB
  head_timeout: 3s
  body_timeout: 2s
  write_timeout: 4s
  keepalive_timeout: 2s
services:
  bulk: {{url: http://127.0.0.1:{port}, timeout: {{first_byte: 300s, idle: 300s}}}}
routes:
  - {{path: /**, service: bulk}}
"""


def _no_pause(_: int) -> None:
    """Go on."""


class Bulk:
    """A service that takes and gives large bodies from one buffer, and counts."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listening.getsockname()[1]
        self.requests = 0
        self.sent = 0
        self.taken = 0
        self.pause: Callable[[int], None] = _no_pause
        """Called with the bytes taken so far; may take its time."""
        self.cut = threading.Event()
        """Set when an answer, or a request, has broken off."""
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._open.add(connection)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(ConnectionError), connection.makefile("rb", buffering=MIB) as requests:
            while first := requests.readline():
                with self._lock:
                    self.requests += 1
                headers = {}
                while (line := requests.readline()) != b"\r\n":
                    name, _, value = line.partition(b":")
                    headers[name.lower()] = value.strip()
                try:
                    size = self._take(requests, headers)
                    self._give(connection, first.split(b" ")[1], size)
                except ConnectionError:
                    self.cut.set()
                    raise

    def _take(self, requests: BufferedReader, headers: dict[bytes, bytes]) -> int:
        room = memoryview(bytearray(MIB))
        size = 0
        if headers.get(b"transfer-encoding") == b"chunked":
            while left := int(self._line(requests), 16):
                size += left
                self._skip(requests, left, room)
                self._line(requests)
            self._line(requests)
            return size
        size = int(headers.get(b"content-length", b"0"))
        self._skip(requests, size, room)
        return size

    @staticmethod
    def _line(requests: BufferedReader) -> bytes:
        line = requests.readline()
        if not line:
            raise ConnectionAbortedError("the body breaks off")
        return line

    def _skip(self, requests: BufferedReader, left: int, room: memoryview) -> None:
        while left:
            got = requests.readinto(room[:left])
            if not got:
                raise ConnectionAbortedError("the body breaks off")
            left -= got
            self.taken += got
            self.pause(self.taken)

    def _give(self, connection: socket.socket, path: bytes, taken: int) -> None:
        if path == b"/length":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            for _ in range(SIZE // len(PIECE)):
                connection.sendall(PIECE)
                self.sent += len(PIECE)
        elif path == b"/chunked":
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(SIZE // len(PIECE)):
                connection.sendall(CHUNK)
                self.sent += len(PIECE)
            connection.sendall(LAST_CHUNK)
        else:
            answer = b"%d" % taken
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

    def __enter__(self) -> Bulk:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join(DEADLINE)
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def bulk() -> Iterator[Bulk]:
    with Bulk() as bulk:
        yield bulk


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, bulk: Bulk) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("endurance"), CONFIG.format(port=bulk.port)) as gateway:
        yield gateway


@contextmanager
def watched(gateway: Gateway, what: str) -> Iterator[None]:
    """Hold the worker to its memory, and tell what was measured."""
    (pid,) = gateway.worker_pids()
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
    before, begun = memory_of(pid, "VmRSS"), time.monotonic()
    yield
    grown = memory_of(pid, "VmHWM") - before
    print(f"\n{what}: {SIZE // MIB} MiB in {time.monotonic() - begun:.1f} s, {grown / MIB:.1f} MiB more")
    assert grown < GROWTH, f"{what}: {grown} bytes more"


class Bursts:
    """A reader that takes some, and then nothing until the other side stands still, since all buffers are full."""

    def __init__(self, sent: Callable[[], int]) -> None:
        self._sent = sent
        self._next = BURST
        self.in_flight = 0
        """The most bytes that were sent and not read."""

    def __call__(self, taken: int) -> None:
        if taken >= self._next and taken < SIZE:
            self._next = taken + SIZE // 8
            self._stand_still(taken)

    def _stand_still(self, taken: int) -> None:
        def stands_still() -> bool:
            before = self._sent()
            select.select([], [], [], 0.03)
            return self._sent() == before

        wait_for(stands_still, "the sender to stand still")
        self.in_flight = max(self.in_flight, self._sent() - taken)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", ["length", "chunked"])
def test_a_download_larger_than_memory(gateway: Gateway, bulk: Bulk, form: str) -> None:
    bulk.sent = 0
    pause = Bursts(lambda: bulk.sent)
    room = bytearray(MIB)
    received = 0
    with watched(gateway, f"download, {form}"), closing(connected(gateway)) as connection:
        connection.request("GET", f"/{form}")
        response = connection.getresponse()
        while got := response.readinto(room):
            received += got
            pause(received)
    assert received == SIZE
    wait_for(lambda: bulk.sent == SIZE, "the service to count its last piece")
    assert 0 < pause.in_flight < IN_FLIGHT


@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", ["length", "chunked"])
def test_an_upload_larger_than_memory(gateway: Gateway, bulk: Bulk, form: str) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(SIZE // len(PIECE)):
            yield PIECE
            sent += len(PIECE)

    bulk.taken = 0
    pause = bulk.pause = Bursts(lambda: sent)
    framing = {"Content-Length": str(SIZE)} if form == "length" else {"Transfer-Encoding": "chunked"}
    with watched(gateway, f"upload, {form}"), closing(connected(gateway)) as connection:
        connection.request("POST", "/upload", pieces(), framing, encode_chunked=form == "chunked")
        answer = connection.getresponse().read()
    bulk.pause = _no_pause
    assert int(answer) == bulk.taken == SIZE
    assert 0 < pause.in_flight < IN_FLIGHT


def connected(gateway: Gateway) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)


class Measuring:
    """A client as it should be, on one connection: how long each of its requests takes."""

    def __init__(self, gateway: Gateway) -> None:
        self._connection = connected(gateway)
        self.requests = 0

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def while_(self, condition: Callable[[], bool]) -> float:
        """Send requests while `condition` holds; return the time within which 99 of 100 were answered."""
        times = []
        while condition():
            begun = time.monotonic()
            self._connection.request("GET", "/small")
            response = self._connection.getresponse()
            assert (response.status, response.read()) == (200, b"0")
            times.append(time.monotonic() - begun)
        self.requests += len(times)
        assert len(times) > 200
        return sorted(times)[len(times) * 99 // 100]


def test_slow_heads_harm_nobody_and_end(gateway: Gateway, bulk: Bulk) -> None:
    slow = Slow(b"GET /loris HTTP/1.1\r\nHost: a\r\nX-Slow: ", b"z", 1.0)
    before = bulk.requests
    with Measuring(gateway) as client, ThreadPoolExecutor(1) as others:
        quiet_until = time.monotonic() + 1.5
        without = client.while_(lambda: time.monotonic() < quiet_until)
        attack = others.submit(run, gateway.port, LORISES, slow, 1.0)
        within = client.while_(lambda: not attack.done())
        attack.result()
    assert len(slow.ends) == LORISES
    for end in slow.ends:
        assert end.answer.startswith(b"HTTP/1.1 408 "), end
        assert b"\r\nConnection: close\r\n" in end.answer
        assert HEAD_LIMIT - 0.1 < end.seconds < HEAD_LIMIT + SLACK
    assert bulk.requests == before + client.requests  # none of the slow ones has reached the service
    late = max(end.seconds for end in slow.ends) - HEAD_LIMIT
    print(
        f"p99 {1000 * without:.2f} ms without, {1000 * within:.2f} ms with {LORISES}; ended {late:.2f} s late at most"
    )
    assert within < without + HARM


def ended_by(gateway: Gateway, slow: Slow, limit: float, count: int = 50) -> list[bytes]:
    """Return what slow clients were answered, all of which must have been left in time."""
    run(gateway.port, count, slow)
    assert len(slow.ends) == count
    for end in slow.ends:
        assert limit - 0.1 < end.seconds < limit + SLACK
    return [end.answer for end in slow.ends]


def test_slow_bodies_end(gateway: Gateway, bulk: Bulk) -> None:
    bulk.cut.clear()
    slow = Slow(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome", b"", 1.0)
    for answer in ended_by(gateway, slow, BODY_LIMIT):
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"\r\nConnection: close\r\n" in answer
    assert bulk.cut.wait(DEADLINE)  # and the service is not left waiting for the rest


def test_connections_that_say_nothing_end(gateway: Gateway) -> None:
    assert set(ended_by(gateway, Slow(b"", b"", 1.0), HEAD_LIMIT)) <= {b""}


def test_idle_connections_end(gateway: Gateway) -> None:
    slow = Slow(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n", b"", 1.0)
    for answer in ended_by(gateway, slow, IDLE_LIMIT):
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1") == 1


def test_slow_readers_end(gateway: Gateway, bulk: Bulk) -> None:
    """A client that takes nothing of a large answer does not keep the service, nor the worker, for long."""
    bulk.cut.clear()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(DEADLINE)
        client.connect(("127.0.0.1", gateway.port))
        begun = time.monotonic()
        client.sendall(b"GET /length HTTP/1.1\r\nHost: a\r\n\r\n")
        assert bulk.cut.wait(WRITE_LIMIT + SLACK)
        assert time.monotonic() - begun > WRITE_LIMIT - 0.1
        received = 0
        with suppress(ConnectionResetError):
            while data := client.recv(MIB):
                received += len(data)
    assert received < SIZE


def test_connections_over_the_limit_are_refused(tmp_path: Path, bulk: Bulk) -> None:
    config = CONFIG.replace("keepalive_timeout: 2s", "connections: 5").format(port=bulk.port)
    with Gateway(tmp_path, config) as gateway:
        kept: list[socket.socket] = []
        with ExitStack() as stack:
            for _ in range(5):
                kept.append(wait_for(lambda: served(gateway), "room"))
                stack.enter_context(kept[-1])
            for _ in range(3):
                with gateway.connect() as refused, refused.makefile("rb") as answer:
                    text = answer.read()  # it says so unasked, and closes
                assert text.startswith(b"HTTP/1.1 503 ")
                assert re.search(rb"\r\nRetry-After: [1-9]\d*\r\n", text)
                assert b"\r\nConnection: close\r\n" in text
                assert b"urn:portico:problem:too-many-connections" in text
            kept[0].close()
            stack.enter_context(wait_for(lambda: served(gateway), "room"))


def served(gateway: Gateway) -> socket.socket | None:
    """Return a connection on which a request was answered; None where there is no room for it."""
    connection = gateway.connect()
    with suppress(ConnectionError):
        connection.sendall(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
        if connection.recv(100).startswith(b"HTTP/1.1 200 "):
            return connection
    connection.close()
    return None
