"""What clients are told when something is wrong: with them, with a service, or with the way to it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path

import aiohttp
import pytest

from tests.harness.gateway import (
    BROKEN_OFF,
    DEADLINE,
    Call,
    Gateway,
    Service,
    curl,
    echo,
    problem_of,
    refusing_port,
    wait_for,
)

CONFIG = """
limits: {{body: 64KiB}}
services:
  answers: {{url: http://127.0.0.1:{port}}}
  down: {{url: http://127.0.0.1:{down}}}
  unknown: {{url: http://no-such-host.invalid:80}}
  half: {{targets: [127.0.0.1:{down}, 127.0.0.1:{port}]}}
  impatient: {{url: http://127.0.0.1:{port}, timeout: {{first_byte: 300ms}}}}
  few: {{url: http://127.0.0.1:{port}, max_connections: 1}}
routes:
  - {{path: /**, service: answers}}
  - {{path: /slow/**, service: answers, timeout: 300ms}}
  - {{path: /impatient/**, service: impatient}}
  - {{path: /down, service: down}}
  - {{path: /unknown, service: unknown}}
  - {{path: /half/**, service: half}}
  - {{path: /few/**, service: few}}
  - {{path: /small/**, service: answers, max_body: 1KiB}}
  - {{path: /sized/**, service: answers, policies: [request-size: {{max: 1KiB}}]}}
  - {{path: /roomy/**, service: answers, max_body: 1MiB}}
"""


class Answers:
    """The service's side; `release` lets slow answers end."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.asked = threading.Event()

    def __call__(self, call: Call) -> None:
        kind = call.path.rpartition("/")[2].partition("?")[0]
        getattr(self, f"on_{kind}", echo)(call)

    def on_silence(self, call: Call) -> None:
        call.note()
        self.asked.set()
        self.release.wait(DEADLINE)
        call.close_connection = True

    def on_stall(self, call: Call) -> None:
        call.send_response(200)
        call.send_header("Content-Length", "100")
        call.end_headers()
        call.wfile.write(b"some")
        self.release.wait(DEADLINE)
        call.close_connection = True

    def on_cut(self, call: Call) -> None:
        call.send_response(200)
        call.send_header("Content-Length", "100")
        call.end_headers()
        call.wfile.write(b"some")
        call.close_connection = True

    def on_cut_chunks(self, call: Call) -> None:
        call.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n")
        call.close_connection = True

    def on_nothing(self, call: Call) -> None:
        call.note(b"".join(call.read_body()))
        call.close_connection = True

    def on_garbage(self, call: Call) -> None:
        call.connection.sendall(b"220 mail.example ESMTP\r\n\r\n")
        call.close_connection = True

    def on_long_head(self, call: Call) -> None:
        call.connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000 + b"\r\n\r\n")
        call.close_connection = True

    def on_switch(self, call: Call) -> None:
        call.connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
        call.close_connection = True

    def on_error(self, call: Call) -> None:
        call.answer(503, b'{"mine": true}', Content_Type="application/json", Retry_After="7")

    def on_first_only(self, call: Call) -> None:
        """Answer one request of each connection, and close without a word while the second is on its way."""
        call.note()
        call.answer(200, b"first")
        call.rfile.readline()
        call.close_connection = True


@pytest.fixture(scope="module")
def answers() -> Answers:
    return Answers()


@pytest.fixture(scope="module")
def service(answers: Answers) -> Iterator[Service]:
    with Service(answers) as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Service, answers: Answers) -> Iterator[Gateway]:
    with refusing_port() as down:
        config = CONFIG.format(port=service.port, down=down)
        with Gateway(tmp_path_factory.mktemp("failures"), config) as gateway:
            yield gateway
            answers.release.set()


@pytest.mark.parametrize("path", ["/slow/silence", "/impatient/silence"])
def test_a_service_that_is_too_slow_is_504(gateway: Gateway, path: str) -> None:
    problem = problem_of(curl(gateway.url + path), 504, "service-timeout")
    assert problem["instance"] == path


def test_an_answer_that_stalls_beyond_the_routes_timeout_is_cut(gateway: Gateway) -> None:
    assert curl(f"{gateway.url}/slow/stall", codes=BROKEN_OFF).status == 200


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/down", "service-unreachable"),
        ("/unknown", "service-unreachable"),
        ("/nothing", "service-closed-connection"),
        ("/garbage", "invalid-service-response"),
        ("/long_head", "invalid-service-response"),
        ("/switch", "invalid-service-response"),
    ],
)
def test_a_service_that_does_not_answer_well_is_502(gateway: Gateway, path: str, kind: str) -> None:
    for options in ([], ["-d", "x=1"]):
        problem_of(curl(*options, gateway.url + path), 502, kind)


def test_a_services_own_error_is_passed_on(gateway: Gateway) -> None:
    reply = curl(f"{gateway.url}/error")
    assert (reply.status, reply.body, reply.value("Retry-After")) == (503, b'{"mine": true}', "7")


def test_a_request_that_may_have_been_carried_out_is_not_sent_again(gateway: Gateway, service: Service) -> None:
    before = len(service.seen)
    problem_of(curl("-d", "pay=1", f"{gateway.url}/nothing"), 502, "service-closed-connection")
    assert len(service.seen) == before + 1


def test_another_target_answers_for_one_that_is_down(gateway: Gateway, service: Service) -> None:
    for number in range(6):
        options = ["-H", "Transfer-Encoding: chunked"] if number > 2 else []  # a body that is read only once
        assert curl(*options, "-d", f"n={number}", f"{gateway.url}/half/{number}").status == 200
        assert service.last.body == b"n=%d" % number


def test_a_kept_connection_that_the_service_closes_costs_no_request(gateway: Gateway, service: Service) -> None:
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        for _ in range(4):
            connection.request("GET", "/first_only")
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"first")


def test_too_many_at_once_for_a_service_is_503(gateway: Gateway, answers: Answers) -> None:
    answers.asked.clear()

    async def both() -> tuple[int, str]:
        async with aiohttp.ClientSession() as session:
            first = asyncio.ensure_future(session.get(f"{gateway.url}/few/silence"))  # noqa: TID251
            await asyncio.to_thread(answers.asked.wait, DEADLINE)
            async with session.get(f"{gateway.url}/few/more") as second:
                status, kind = second.status, (await second.json(content_type=None))["type"]
            first.cancel()
            await asyncio.wait([first])
            return status, kind

    assert asyncio.run(both()) == (503, "urn:portico:problem:service-overloaded")
    answers.release.set()
    wait_for(lambda: curl(f"{gateway.url}/few/more").status == 200, "the client that left to be noticed")
    answers.release.clear()


@pytest.mark.parametrize("path", ["/cut", "/cut_chunks"])
def test_an_answer_that_breaks_off_does_not_end_cleanly(gateway: Gateway, path: str) -> None:
    async def with_aiohttp() -> None:
        async with aiohttp.ClientSession() as session, session.get(gateway.url + path) as reply:
            assert reply.status == 200
            await reply.read()

    assert curl(gateway.url + path, codes=BROKEN_OFF).body == b"some"
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        asyncio.run(with_aiohttp())
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        with pytest.raises((IncompleteRead, ConnectionResetError)):
            response.read()


KILLED = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"4\\r\\nsome\\r\\n")
        input()
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def test_a_service_that_is_killed_while_it_answers(tmp_path_factory: pytest.TempPathFactory) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as service:
        try:
            assert service.stdout is not None
            port = int(service.stdout.readline())
            config = f"services: {{s: {{url: 'http://127.0.0.1:{port}'}}}}\nroutes: [{{path: /**, service: s}}]\n"
            with Gateway(tmp_path_factory.mktemp("killed"), config) as gateway:
                with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
                    connection.request("GET", "/")
                    response = connection.getresponse()
                    assert response.read(4) == b"some"
                    service.send_signal(signal.SIGKILL)
                    with pytest.raises((IncompleteRead, ConnectionResetError)):
                        response.read()
                assert curl(f"{gateway.url}/again").status == 502
        finally:
            service.kill()


@pytest.mark.parametrize(
    ("path", "size", "refused"),
    [
        ("/small/x", 1024, False),
        ("/small/x", 1025, True),
        ("/sized/x", 1024, False),
        ("/sized/x", 1025, True),
        ("/any", 64 * 1024, False),
        ("/any", 64 * 1024 + 1, True),
        ("/roomy/x", 1024 * 1024, False),
        ("/roomy/x", 1024 * 1024 + 1, True),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_a_body_over_its_limit_is_413(
    gateway: Gateway, service: Service, tmp_path: Path, path: str, size: int, *, refused: bool, chunked: bool
) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"x" * size)
    before = len(service.seen)
    options = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    reply = curl(*options, "--data-binary", f"@{file}", gateway.url + path)
    if refused:
        problem_of(reply, 413, "content-too-large")
        assert len(service.seen) == before  # it had no whole request
        assert curl(f"{gateway.url}/after").status == 200
    else:
        assert reply.status == 200
        assert len(service.last.body) == size


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed-request"),
        (b"nonsense\r\n\r\n", 400, "malformed-request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "malformed-request"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "http-version-not-supported"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri-too-long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431, "request-header-fields-too-large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 101 + b"\r\n", 431, "request-header-fields-too-large"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
         "malformed-request"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "malformed-request"),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method-not-allowed"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, "method-not-allowed"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused_in_the_same_shape(
    gateway: Gateway, sent: bytes, status: int, kind: str, tmp_path: Path
) -> None:
    with gateway.connect() as client, client.makefile("rb") as answers:
        client.sendall(sent)
        head, _, body = answers.read().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert first.split()[:2] == ["HTTP/1.1", str(status)]
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Content-Length"] == str(len(body))
    assert headers["Connection"] == "close"
    assert f'"type":"urn:portico:problem:{kind}"' in body.decode()
