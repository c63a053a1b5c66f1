"""Content in both directions: piece by piece, in bounded memory, and as it was sent."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import aiohttp
import pytest

from tests.harness.gateway import DEADLINE, Call, Gateway, Service, curl, echo, memory_of, wait_for

LARGE = 64 * 1024 * 1024
PIECE = bytes(range(256)) * 1024
GROWTH = 24 * 1024 * 1024
PLAIN = b"the quick brown fox\n" * 1000
PACKED = gzip.compress(PLAIN, mtime=0)

CONFIG = """
services:
  content: {{url: http://127.0.0.1:{port}}}
routes:
  - {{path: /**, service: content}}
"""


class Content:
    """The service's side of each test."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.begun = threading.Event()
        self.pieces: list[bytes] = []
        self.left = threading.Event()

    def __call__(self, call: Call) -> None:
        getattr(self, f"on_{call.path.strip('/').partition('/')[0]}", echo)(call)

    def on_upload(self, call: Call) -> None:
        digest, size = hashlib.sha256(), 0
        for piece in call.read_body():
            digest.update(piece)
            size += len(piece)
        call.note()
        call.answer(200, f"{size} {digest.hexdigest()}".encode())

    def on_download(self, call: Call) -> None:
        call.send_response(200)
        call.send_header("Content-Length", str(LARGE))
        call.end_headers()
        for _ in range(LARGE // len(PIECE)):
            call.wfile.write(PIECE)

    def on_chunks(self, call: Call) -> None:
        call.send_response(200)
        call.send_header("Transfer-Encoding", "chunked")
        call.send_header("Trailer", "X-Sum")
        call.end_headers()
        for piece in (b"one,", b"two,", b"three" * 10_000):
            call.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        call.wfile.write(b"0\r\nX-Sum: 42\r\nContent-Length: 3\r\n\r\n")

    def on_until_close(self, call: Call) -> None:
        call.connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall there is")
        call.close_connection = True

    def on_events(self, call: Call) -> None:
        call.send_response(200)
        call.send_header("Content-Type", "text/event-stream")
        call.send_header("Transfer-Encoding", "chunked")
        call.end_headers()
        for number in range(3):
            event = f"id: {number}\ndata: event {number}\n\n".encode()
            call.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            assert self.go_on.wait(DEADLINE)
            self.go_on.clear()
        call.wfile.write(b"0\r\n\r\n")

    def on_endless(self, call: Call) -> None:
        call.send_response(200)
        call.send_header("Transfer-Encoding", "chunked")
        call.end_headers()
        try:
            while True:
                call.wfile.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
        except ConnectionError:
            self.left.set()
            raise

    def on_slowly(self, call: Call) -> None:
        try:
            for piece in call.read_body():
                self.pieces.append(piece)
        except ConnectionError:
            self.left.set()
            raise
        call.answer(200, b"".join(self.pieces))

    def on_packed(self, call: Call) -> None:
        call.answer(200, PACKED, Content_Encoding="gzip", ETag='"1"', Vary="Accept-Encoding")

    def on_unread(self, call: Call) -> None:
        call.close_connection = True
        call.answer(403, b"no", Connection="close")

    def on_interim(self, call: Call) -> None:
        call.connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        call.answer(200, b"late")


@pytest.fixture(scope="module")
def content() -> Content:
    return Content()


@pytest.fixture(scope="module")
def service(content: Content) -> Iterator[Service]:
    with Service(content) as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("streaming"), CONFIG.format(port=service.port)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("large") / "file"
    with file.open("wb") as target:
        for _ in range(LARGE // len(PIECE)):
            target.write(PIECE)
    return file


class Watched:
    """Holds a worker to its memory: its peak may not go far beyond what it had."""

    def __init__(self, gateway: Gateway) -> None:
        (self.pid,) = gateway.worker_pids()

    def __enter__(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # the peak begins anew
        self.before = memory_of(self.pid, "VmRSS")

    def __exit__(self, *_: object) -> None:
        grown = memory_of(self.pid, "VmHWM") - self.before
        assert grown < GROWTH, f"{grown} bytes more"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_large_upload_streams(gateway: Gateway, large: Path, *, chunked: bool) -> None:
    options = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    with Watched(gateway):
        reply = curl(*options, "-T", str(large), f"{gateway.url}/upload")
    assert reply.status == 200
    assert reply.body.decode() == f"{LARGE} {hashlib.sha256(large.read_bytes()).hexdigest()}"


def test_a_large_download_streams(gateway: Gateway, large: Path) -> None:
    async def download() -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/download") as reply:
            assert reply.headers["Content-Length"] == str(LARGE)
            async for piece in reply.content.iter_any():
                digest.update(piece)
                size += len(piece)
        return size, digest.hexdigest()

    with Watched(gateway):
        size, digest = asyncio.run(download())
    assert (size, digest) == (LARGE, hashlib.sha256(large.read_bytes()).hexdigest())


def test_a_client_that_does_not_read_stops_the_service(gateway: Gateway, content: Content) -> None:
    """The service's endless answer stands still, in bounded memory, and ends when the client leaves."""
    content.left.clear()
    with Watched(gateway), gateway.connect() as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        received = 0
        while received < 1024 * 1024:
            received += len(client.recv(65536))
        assert not content.left.is_set()
    assert content.left.wait(DEADLINE)


def test_chunks_and_trailers_reach_the_client(gateway: Gateway) -> None:
    reply = curl("--raw", f"{gateway.url}/chunks")
    assert reply.value("Transfer-Encoding") == "chunked"
    assert reply.body.endswith(b"\r\n0\r\nX-Sum: 42\r\n\r\n")  # a Content-Length may not stand in trailers
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        for _ in range(2):  # the connection is as good as before
            connection.request("GET", "/chunks")
            assert connection.getresponse().read() == b"one,two," + b"three" * 10_000


def test_chunks_and_trailers_reach_the_service(gateway: Gateway, service: Service) -> None:
    with gateway.connect() as client, client.makefile("rb") as answers:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        client.sendall(b"3\r\nabc\r\n5;ext=1\r\ndefgh\r\n0\r\nX-Sum: 42\r\nHost: evil\r\n\r\n")
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
        answers.read()
    assert service.last.body == b"abcdefgh"
    assert service.last.values("Transfer-Encoding") == ["chunked"]
    assert service.last.trailers == ["X-Sum: 42"]


def test_an_upload_reaches_the_service_while_it_is_sent(gateway: Gateway, content: Content) -> None:
    content.pieces.clear()

    def pieces() -> Iterator[bytes]:
        for number in range(1, 4):
            yield b"piece %d;" % number
            wait_for(lambda: b"".join(content.pieces).endswith(b"piece %d;" % number), "the piece")  # noqa: B023

    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        connection.request("POST", "/slowly", pieces(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        response = connection.getresponse()
        assert response.read() == b"piece 1;piece 2;piece 3;"


def test_an_answer_until_close_is_whole(gateway: Gateway) -> None:
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        for _ in range(2):
            connection.request("GET", "/until_close")
            response = connection.getresponse()
            assert response.read() == b"all there is"
            assert response.headers["Transfer-Encoding"] == "chunked"
    old = curl("-0", f"{gateway.url}/until_close")
    assert old.body == b"all there is"
    assert not old.values("Transfer-Encoding")


def test_events_arrive_one_by_one(gateway: Gateway, content: Content) -> None:
    content.go_on.clear()

    async def listen() -> list[bytes]:
        events = []
        async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/events") as reply:
            assert reply.content_type == "text/event-stream"
            for _ in range(3):
                events.append(await reply.content.readuntil(b"\n\n"))
                assert not reply.content.at_eof()
                content.go_on.set()  # not before this does the service send the next
            assert await reply.content.read() == b""
        return events

    assert asyncio.run(listen()) == [b"id: %d\ndata: event %d\n\n" % (number, number) for number in range(3)]


def test_a_client_that_leaves_ends_the_stream_at_the_service(gateway: Gateway, content: Content) -> None:
    content.left.clear()
    reply = curl("--max-filesize", "1000000", "-o", "/dev/null", f"{gateway.url}/download", codes=(63,))
    assert reply.body == b""
    with gateway.connect() as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert content.left.wait(DEADLINE)


def test_a_client_that_leaves_within_its_upload(gateway: Gateway, content: Content) -> None:
    content.pieces.clear()
    content.left.clear()
    with gateway.connect() as client:
        client.sendall(b"POST /slowly HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome")
        wait_for(lambda: content.pieces, "the first piece")
        assert not content.left.is_set()
    assert content.left.wait(DEADLINE)
    assert b"".join(content.pieces) == b"some"


def test_gzip_passes_untouched(gateway: Gateway) -> None:
    reply = curl("-H", "Accept-Encoding: gzip", f"{gateway.url}/packed")
    assert reply.body == PACKED
    assert reply.value("Content-Encoding") == "gzip"
    assert reply.value("ETag") == '"1"'
    assert curl("--compressed", f"{gateway.url}/packed").body == PLAIN


def test_an_answer_before_the_upload_has_ended_arrives(gateway: Gateway, large: Path) -> None:
    async def upload() -> tuple[int, bytes]:
        async with aiohttp.ClientSession() as session:
            with large.open("rb") as file:
                async with session.put(f"{gateway.url}/unread", data=file, expect100=True) as reply:
                    return reply.status, await reply.read()

    assert asyncio.run(upload()) == (403, b"no")


def test_interim_answers_pass(gateway: Gateway) -> None:
    with gateway.connect() as client, client.makefile("rb") as answers:
        client.sendall(b"GET /interim HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        text = answers.read()
    assert text.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert text.endswith(b"late")


def test_a_body_that_waits_for_100(gateway: Gateway) -> None:
    reply = curl("-H", "Expect: 100-continue", "-d", "x" * 1000, f"{gateway.url}/upload")
    assert (reply.status, reply.body.split()[0]) == (200, b"1000")
