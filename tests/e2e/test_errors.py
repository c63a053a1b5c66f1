"""The shape of errors, whoever makes them: a route, a service that is down, or bytes that are no request."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.gateway import DEADLINE, Gateway, Service, curl, portico_here, problem_of, refusing_port

CONFIG = """
errors: {{shape: simple, "404": {{content_type: text/html, body: "<h1>No {{{{ path }}}}</h1>"}}, "405": off}}
services:
  down: {{url: http://127.0.0.1:{down}, errors: kong}}
  up: {{url: http://127.0.0.1:{up}}}
limits: {{request_head: 1KiB}}
routes:
  - {{path: /simple, methods: [GET], respond: {{status: 200}}, max_body: 10}}
  - {{path: /kong, service: down}}
  - {{path: /aws, service: down, errors: {{shape: aws, html: off}}}}
  - {{path: /problem/**, service: up, max_body: 10, errors: problem}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with refusing_port() as down, Service() as up:
        config = CONFIG.format(down=down, up=up.port)
        with Gateway(tmp_path_factory.mktemp("errors"), config) as gateway:
            yield gateway


def raw(gateway: Gateway, request: bytes) -> tuple[int, str, bytes]:
    """Send bytes, and return status, head and content of the one answer."""
    with socket.create_connection(("127.0.0.1", gateway.port), DEADLINE) as client:
        client.sendall(request)
        answer = b""
        while data := client.recv(65536):
            answer += data
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), content


def test_a_miss_has_the_text_of_the_file(gateway: Gateway) -> None:
    answer = curl(gateway.url + "/<b>nothing")
    assert (answer.status, answer.value("Content-Type")) == (404, "text/html; charset=utf-8")
    assert answer.body == b"<h1>No /%3Cb%3Enothing</h1>"


def test_another_method_is_told_in_the_shape_and_still_has_allow(gateway: Gateway) -> None:
    answer = curl("-X", "DELETE", gateway.url + "/simple")
    assert (answer.status, answer.json) == (405, {"error": "Method Not Allowed"})
    assert answer.value("Allow") == "GET, HEAD"


def test_a_head_request_gets_the_head_alone(gateway: Gateway) -> None:
    got = curl("-X", "DELETE", gateway.url + "/simple")
    missed = curl("-I", gateway.url + "/kong/x")
    assert (missed.status, missed.body) == (404, b"")
    head = curl("-I", gateway.url + "/aws")
    assert (head.status, head.body) == (502, b"")
    assert int(head.value("Content-Length")) == len(curl(gateway.url + "/aws").body)
    assert int(got.value("Content-Length")) == len(got.body)


def test_a_service_and_a_route_have_shapes_of_their_own(gateway: Gateway) -> None:
    kong = curl("-H", "Accept: application/json", gateway.url + "/kong")
    assert (kong.status, kong.json["message"]) == (
        502,
        "An invalid response was received from the upstream server",
    )
    assert kong.value("X-Kong-Request-Id") == kong.json["request_id"]
    plain = curl("-H", "Accept:", gateway.url + "/kong")
    assert plain.value("Content-Type") == "text/plain; charset=utf-8"
    aws = curl("-H", "Accept: text/html", gateway.url + "/aws")
    assert (aws.status, aws.json) == (502, {"message": "Network error communicating with endpoint"})
    assert aws.value("x-amzn-ErrorType") == "InternalServerErrorException"
    assert not aws.values("Vary")
    problem_of(curl("-d", "more than ten bytes", gateway.url + "/problem/x"), 413, "content-too-large")


def test_a_browser_gets_a_page(gateway: Gateway) -> None:
    accept = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    answer = curl("-H", accept, "-d", "more than ten bytes", gateway.url + "/problem/x")
    assert (answer.status, answer.value("Content-Type")) == (413, "text/html; charset=utf-8")
    assert b"<h1>" in answer.body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n" % (b"x" * 2000), 431),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"POST /problem/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_what_never_was_a_request_is_told_in_the_file_s_shape(gateway: Gateway, request_: bytes, status: int) -> None:
    found, head, content = raw(gateway, request_)
    assert found == status
    if b"problem" not in request_:
        assert set(json.loads(content)) == {"error"}
    assert ("Allow: GET" in head) is (status == 405)
    assert f"Content-Length: {len(content)}" in head


def test_a_browser_without_a_host_gets_a_page_too(gateway: Gateway) -> None:
    status, head, content = raw(gateway, b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n")
    assert (status, "Content-Type: text/html; charset=utf-8" in head) == (400, True)
    assert b"<h1>Bad Request</h1>" in content


def test_a_reload_changes_the_shape_of_what_never_was_a_request(tmp_path: Path) -> None:
    with Gateway(tmp_path, "errors: fastapi") as gateway:
        assert set(json.loads(raw(gateway, b"nonsense\r\n\r\n")[2])) == {"detail"}
        text = gateway.file.read_text()
        gateway.file.write_text(text.replace("fastapi", "aws"))
        gateway.agent_answers()
        assert portico_here("reload", str(gateway.file)).code == 0
        assert set(json.loads(raw(gateway, b"nonsense\r\n\r\n")[2])) == {"message"}
