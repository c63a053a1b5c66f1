from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from pydantic import ValidationError

from portico.errors import BodyTooLarge
from portico.http.body import Trailers
from portico.plugin import Body, Handler, Request, Response, Stage
from portico.policies.request_size import RequestSize, RequestSizePolicy
from tests.harness.gateway import DEADLINE, Gateway, Service, curl, problem_of
from tests.harness.policies import Asked, policy_of, request_of


class Pieces:
    """A body that comes piece by piece."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        return self._pieces.pop(0) if self._pieces else b""

    def trailers(self) -> Trailers:
        return []

    def close(self) -> None:
        """Nothing is held."""


def request_with(body: Body) -> Request:
    request = request_of("POST")
    request.body = body
    return request


@pytest.mark.parametrize(
    ("body", "reached"),
    [
        (Body(b""), True),
        (Body(b"x" * 10), True),
        (Body(b"x" * 11), False),
        (Body.stream(Pieces(b"x" * 10), 10), True),
        (Body.stream(Pieces(b"x" * 11), 11), False),
        (Body.stream(Pieces(b"x" * 11), None), True),
    ],
)
def test_what_is_announced_is_looked_at_at_once(body: Body, reached: bool) -> None:
    asked = Asked(policy_of(RequestSizePolicy, max=10), request_with(body))
    assert asked.reached is reached
    if not reached:
        assert asked.problem == (413, "content-too-large")
        assert asked.response.problem_value is not None
        assert asked.response.problem_value.detail == "The limit is 10 bytes."


def test_a_body_that_is_refused_is_not_read() -> None:
    pieces = Pieces(b"x" * 11)
    Asked(policy_of(RequestSizePolicy, max=10), request_with(Body.stream(pieces, 11)))
    assert pieces.reads == 0


async def reads_all(request: Request) -> Response:
    size = 0
    while piece := await request.body.chunk():
        size += len(piece)
    return Response(200, body=b"%d" % size)


def run(request: Request, end: Handler = reads_all, **settings: object) -> Response:
    return asyncio.run(policy_of(RequestSizePolicy, **settings).handle(request, end))


@pytest.mark.parametrize(
    ("pieces", "passes"),
    [([b"x" * 5, b"x" * 5], True), ([b"x" * 5, b"x" * 6], False), ([b"x" * 11], False), ([], True)],
)
def test_what_is_not_announced_is_counted_as_it_streams(pieces: list[bytes], passes: bool) -> None:
    request = request_with(Body.stream(Pieces(*pieces), None))
    if passes:
        assert run(request, max=10).body.whole == b"%d" % sum(map(len, pieces))
    else:
        with pytest.raises(BodyTooLarge):
            run(request, max=10)


def test_what_was_peeked_at_counts() -> None:
    async def peek(body: Body, size: int) -> Body:
        await body.peek(size)
        return body

    pieces = [b"x" * 6] * 3
    over = request_with(asyncio.run(peek(Body.stream(Pieces(*pieces), None), 8)))
    assert run(over, max=10).status == 413
    request = request_with(asyncio.run(peek(Body.stream(Pieces(*pieces), None), 8)))
    with pytest.raises(BodyTooLarge):
        run(request, max=17)
    request = request_with(asyncio.run(peek(Body.stream(Pieces(*pieces), None), 8)))
    assert run(request, max=18).body.whole == b"18"


def test_the_tightest_limit_counts() -> None:
    body = Body.stream(Pieces(b"x" * 8), None)
    assert body.restrict(5)
    with pytest.raises(BodyTooLarge):
        run(request_with(body), max=10)


@pytest.mark.parametrize("settings", [{}, {"max": "1Mib"}, {"max": -1}, {"max": "off"}, {"max": 1, "min": 1}])
def test_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RequestSize.model_validate(settings)


def test_where_it_stands() -> None:
    assert RequestSizePolicy.stages == (Stage.GUARD, Stage.LIMIT)


CONFIG = """
limits: {{body: 1MiB}}
services:
  echo: {{url: http://127.0.0.1:{port}, policies: [{{request-size: 100}}]}}
routes:
  - {{path: /service, service: echo}}
  - {{path: /route, service: echo, policies: [{{request-size: 1KiB}}]}}
  - {{path: /both, service: echo, policies: [{{request-size: 10, name: small}}]}}
  - {{path: /nothing, service: echo, policies: [{{request-size: 0}}]}}
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("sizes"), CONFIG.format(port=service.port)) as gateway:
        yield gateway


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
@pytest.mark.parametrize(("path", "limit"), [("/service", 100), ("/route", 1024), ("/both", 10), ("/nothing", 0)])
def test_the_limit_to_the_byte(gateway: Gateway, service: Service, path: str, limit: int, chunked: bool) -> None:
    options = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    before = len(service.seen)
    assert curl(*options, "-d", "x" * limit, gateway.url + path).status == 200
    assert service.last.body == b"x" * limit
    problem_of(curl(*options, "-d", "x" * (limit + 1), gateway.url + path), 413, "content-too-large")
    assert len(service.seen) == before + 1


def test_a_request_without_a_body_has_none_that_is_too_large(gateway: Gateway) -> None:
    assert curl(f"{gateway.url}/nothing").status == 200


def converse(gateway: Gateway, head: bytes) -> bytes:
    """Send a head, and no body, and return all that comes."""
    with closing(gateway.connect()) as connection:
        connection.settimeout(DEADLINE)
        connection.sendall(head)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def test_who_waits_for_100_is_answered_413_instead(gateway: Gateway, service: Service) -> None:
    before = len(service.seen)
    head = b"POST /route HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1025\r\n\r\n"
    answer = converse(gateway, head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer
    assert b"\r\nconnection: close\r\n" in answer.lower()  # the body may come all the same
    assert len(service.seen) == before


def test_who_waits_for_100_gets_it_where_the_size_is_right(gateway: Gateway, service: Service) -> None:
    head = b"POST /route HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    with closing(gateway.connect()) as connection:
        connection.sendall(head)
        reader = connection.makefile("rb")
        assert reader.readline().startswith(b"HTTP/1.1 100 ")
        assert reader.readline() == b"\r\n"
        connection.sendall(b"abc")
        assert reader.readline().startswith(b"HTTP/1.1 200 ")
    assert service.last.body == b"abc"


def test_who_waits_for_100_and_sends_too_much_without_having_said_so(gateway: Gateway, service: Service) -> None:
    before = len(service.seen)
    head = b"POST /route HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    with closing(gateway.connect()) as connection:
        connection.sendall(head)
        reader = connection.makefile("rb")
        assert reader.readline().startswith(b"HTTP/1.1 100 ")
        assert reader.readline() == b"\r\n"
        connection.sendall(b"401\r\n" + b"x" * 0x401 + b"\r\n")  # and no end
        assert reader.readline().startswith(b"HTTP/1.1 413 ")
    assert len(service.seen) == before
