"""Malformed and ambiguous requests from raw sockets: the answer, the closed connection, and that no service hears.

Behind the gateway stands a service that keeps every byte. After each refusal a good request goes through: when that
is answered, whatever the bad one had sent to the service would have been recorded before it.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.e2e.malformed import (
    BODIES,
    BODY_LIMIT,
    BROKEN_OFF,
    CHUNK_LINE,
    CHUNKED,
    EMPTY_CHUNKS,
    EVIL,
    HEAD_LIMIT,
    HEADER_COUNT,
    HEADS,
    LENGTH,
    LIMITS,
    MALFORMED,
    PASSED,
    TARGET_LIMIT,
    TRAILERS,
    Passed,
    Refused,
    chunked,
    get,
    post,
    request,
)
from tests.e2e.parsers.recorder import Recorded, Recorder
from tests.harness.gateway import Gateway, wait_for

ROUTES = "services: {{kept: 'http://127.0.0.1:{port}'}}\nroutes: [{{path: /**, service: kept}}]\n"
SENTINEL = request(b"GET /sentinel HTTP/1.1", b"Host: a", b"Connection: close")


@pytest.fixture(scope="module")
def service() -> Iterator[Recorder]:
    with Recorder() as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Recorder) -> Iterator[Gateway]:
    config = LIMITS + ROUTES.format(port=service.port)
    with Gateway(tmp_path_factory.mktemp("malformed"), config) as gateway:
        yield gateway


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes


def answers_in(data: bytes) -> list[Answer]:
    """Return the answers that `data` is made of, each with a Content-Length, without interim ones."""
    found = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        assert end, data
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert len(headers) == len(lines)
        if int(status) < 200:
            data = rest
            continue
        length = int(headers["content-length"])
        assert len(rest) >= length
        found.append(Answer(int(status), headers, rest[:length]))
        data = rest[length:]
    return found


def read_to_end(client: socket.socket) -> bytes:
    """Return what the gateway says until it closes; that it closes by itself is part of every test here."""
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def exchange(gateway: Gateway, *sent: bytes) -> list[Answer]:
    with gateway.connect() as client:
        for piece in sent:
            client.sendall(piece)
        return answers_in(read_to_end(client))


def assert_problem(answer: Answer, status: int, kind: str) -> None:
    """It is a problem of RFC 9457 and the connection's last answer."""
    assert (answer.status, json.loads(answer.content)["type"]) == (status, f"urn:portico:problem:{kind}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert answer.headers.keys() <= {
        "content-type",
        "content-length",
        "connection",
        "date",
        "allow",
        "vary",
        "retry-after",
    }
    problem = json.loads(answer.content)
    assert problem["status"] == status
    assert problem["title"]


class Watch:
    """What reaches the service within a block: `data` by connection, and the whole `requests`."""

    def __init__(self, gateway: Gateway, service: Recorder) -> None:
        self._gateway, self._service = gateway, service

    def __enter__(self) -> Watch:
        self._mark = self._service.mark()
        self._before = len(self._service.requests)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        (answer,) = exchange(self._gateway, SENTINEL)
        assert answer.status == 200
        self.count = len(self._service.requests) - self._before - 1
        """Whole requests, without the sentinel."""
        self.data = self._service.since(self._mark)
        (sentinel,) = (number for number, data in enumerate(self.data) if b"GET /sentinel " in data)
        start = self.data[sentinel].index(b"GET /sentinel ")
        assert self.data[sentinel].endswith(b"\r\n\r\n")
        self.data[sentinel] = self.data[sentinel][:start]
        self.data = [data for data in self.data if data]


@pytest.mark.parametrize("name", HEADS)
def test_a_malformed_head_is_refused_and_reaches_nobody(gateway: Gateway, service: Recorder, name: str) -> None:
    refused = HEADS[name]
    with Watch(gateway, service) as watch:
        (answer,) = exchange(gateway, refused.sent)
    assert_problem(answer, refused.status, refused.kind)
    assert watch.data == []


@pytest.mark.parametrize("name", HEADS)
def test_behind_a_good_request(gateway: Gateway, service: Recorder, name: str) -> None:
    """The good one is answered, the other refused, and what comes after it is not looked at."""
    refused = HEADS[name]
    good = request(b"POST /good HTTP/1.1", b"Host: a", LENGTH, content=b"hello")
    with Watch(gateway, service) as watch:
        first, second = exchange(gateway, good + refused.sent)
    assert (first.status, first.content) == (200, b"ok")
    assert_problem(second, refused.status, refused.kind)
    (data,) = watch.data
    assert watch.count == 1
    assert data.startswith(b"POST /good HTTP/1.1\r\n")
    assert data.endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("name", [name for name, refused in HEADS.items() if len(refused.sent) < 100][::7])
def test_byte_by_byte(gateway: Gateway, service: Recorder, name: str) -> None:
    refused = HEADS[name]
    with Watch(gateway, service) as watch, gateway.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(refused.sent)):
            if select.select([client], [], [], 0)[0]:
                break  # refused already
            client.send(refused.sent[at : at + 1])
        (answer,) = answers_in(read_to_end(client))
    assert_problem(answer, refused.status, refused.kind)
    assert watch.data == []


def unfinished(service: Recorder) -> list[Recorded]:
    """Return the connections on which the service still waits for the rest of a request."""
    return [connection for connection in service.connections if connection.left_over and not connection.closed]


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("pieces", [1, 2], ids=["at once", "after the head has gone on"])
def test_a_malformed_body_is_refused_and_never_whole(
    gateway: Gateway, service: Recorder, name: str, pieces: int
) -> None:
    """The service may have the head, since bodies stream; it never has a whole request, and its connection is cut."""
    refused = BODIES[name]
    before = len(service.requests)
    wait_for(lambda: not unfinished(service), "what was before to end")
    end = refused.sent.index(b"\r\n\r\n") + 4 if pieces == 2 else 0
    with gateway.connect() as client:
        client.sendall(refused.sent[:end])
        if pieces == 2:
            wait_for(lambda: unfinished(service), "the head to reach the service")
        client.sendall(refused.sent[end:])
        (answer,) = answers_in(read_to_end(client))
    assert_problem(answer, refused.status, refused.kind)
    (sentinel,) = exchange(gateway, SENTINEL)
    assert sentinel.status == 200
    assert len(service.requests) == before + 1
    wait_for(lambda: not unfinished(service), "the way to the service to be cut")


def test_a_malformed_chunk_is_not_read_again(gateway: Gateway, service: Recorder) -> None:
    """What comes behind the fault would be a last chunk and another request, were it read as if all were well."""
    before = len(service.requests)
    with gateway.connect() as client:
        client.sendall(chunked(b"8\r\nhello"))
        wait_for(lambda: [c for c in unfinished(service) if b"hello" in c.left_over], "the beginning of the chunk")
        client.sendall(b"\r\n0;a\r\n\r\n" + EVIL)
        client.shutdown(socket.SHUT_WR)
        (answer,) = answers_in(read_to_end(client))
    assert_problem(answer, 400, MALFORMED)
    assert len(service.requests) == before


def test_a_connection_is_in_step_after_a_body_beyond_its_limit(gateway: Gateway) -> None:
    """It may go on where all of the body has been read; what is answered next is the next request, and nothing else."""
    body = b"2001\r\n" + EVIL * (8193 // len(EVIL)) + b"x" * (8193 % len(EVIL)) + b"\r\n0\r\n\r\n"
    for sent in (chunked(body), post(b"Content-Length: %d" % len(body), content=body)):
        answers = exchange(gateway, sent + SENTINEL)
        assert [answer.status for answer in answers] in ([413], [413, 200])


@pytest.mark.parametrize("name", BROKEN_OFF)
def test_a_body_that_breaks_off_is_never_whole(gateway: Gateway, service: Recorder, name: str) -> None:
    """The client ends its direction, which is to leave: it gets no answer, and the service a cut connection."""
    before = len(service.requests)
    wait_for(lambda: not unfinished(service), "what was before to end")
    with gateway.connect() as client:
        client.sendall(BROKEN_OFF[name])
        wait_for(lambda: unfinished(service), "the head to reach the service")
        client.shutdown(socket.SHUT_WR)
        try:
            said = read_to_end(client)
        except ConnectionResetError:
            said = b""
    assert said == b""
    wait_for(lambda: not unfinished(service), "the way to the service to be cut")
    assert len(service.requests) == before


@pytest.mark.parametrize("sent", [b"G", b"GET /x", get()[:-4], get()[:-2], get()[:-1]])
def test_a_head_that_breaks_off_is_refused(gateway: Gateway, service: Recorder, sent: bytes) -> None:
    with Watch(gateway, service) as watch, gateway.connect() as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        (answer,) = answers_in(read_to_end(client))
    assert_problem(answer, 400, MALFORMED)
    assert watch.data == []


def test_the_asterisk_is_nobodys_path(gateway: Gateway, service: Recorder) -> None:
    with Watch(gateway, service) as watch:
        first, second = exchange(gateway, request(b"OPTIONS * HTTP/1.1", b"Host: a") + SENTINEL)
    assert (first.status, json.loads(first.content)["type"]) == (404, "urn:portico:problem:no-route")
    assert second.status == 200
    assert watch.count == 1


@pytest.mark.parametrize("name", PASSED)
def test_what_looks_malformed_and_is_lawful_passes_once(gateway: Gateway, service: Recorder, name: str) -> None:
    """It reaches the service as one request in its one plain form; the next one on the connection is the next."""
    passed: Passed = PASSED[name]
    last = b"HTTP/1.0\r\n" in passed.sent
    sent = passed.sent if last else passed.sent + request(b"GET /next HTTP/1.1", b"Host: a", b"Connection: close")
    with Watch(gateway, service) as watch:
        answers = exchange(gateway, sent)
    assert [answer.status for answer in answers] == [200] * (1 if last else 2)
    requests = [
        request for request in service.requests[-3:] if not request.startswith((b"GET /sentinel", b"GET /next"))
    ]
    assert watch.count == len(answers)
    head, _, content = requests[-1].partition(b"\r\n\r\n")
    assert [head.partition(b"\r\n")[0]] == passed.lines
    assert_content(head, content, passed.content)
    for banned in (b"connection", b"upgrade", b"http2-settings"):
        assert b"\r\n" + banned + b":" not in head.lower()


def assert_content(head: bytes, content: bytes, expected: bytes) -> None:
    if b"\r\nTransfer-Encoding: chunked" in head:
        assert b"content-length" not in head.lower()
        size, _, rest = content.partition(b"\r\n")
        assert int(size, 16) == len(expected)
        assert rest.startswith(expected + b"\r\n0\r\n")
    else:
        assert content == expected


def test_absolute_form_replaces_the_host(gateway: Gateway, service: Recorder) -> None:
    for target, host in ((b"http://b.example/x", b"b.example"), (b"http://B:81/x", b"B:81")):
        assert exchange(gateway, get(b"Connection: close", target=target))[0].status == 200
        assert b"\r\nX-Forwarded-Host: " + host + b"\r\n" in service.connections[-1].requests[-1]


class Slow(NamedTuple):
    """What comes at once, what then comes bit by bit, and how many good answers come before the end."""

    at_once: bytes
    drops: bytes = b""
    good: int = 0
    status: int = 408


SLOW: dict[str, Slow] = {
    "nothing after the first byte": Slow(b"G"),
    "a head without an end": Slow(get()[:-2]),
    "a head that drips": Slow(get()[:-2], b"X-Slow: y\r\n" * 100),
    "a head that drips from its first byte": Slow(b"", get(b"X: " + b"y" * 900)),
    "an empty line, and no request": Slow(b"\r\n"),
    "a second head without an end": Slow(get() + get()[:-2], good=1),
    "no body": Slow(post(LENGTH)),
    "a body without its last byte": Slow(post(LENGTH, content=b"hell")),
    "no body after 100": Slow(post(LENGTH, b"Expect: 100-continue")),
    "no chunks": Slow(chunked(b"")),
    "a chunk without its last byte": Slow(chunked(b"5\r\nhell")),
    "chunks without an end": Slow(chunked(b"5\r\nhello\r\n")),
    "the last chunk alone": Slow(chunked(b"5\r\nhello\r\n0\r\n")),
    "a trailer section without an end": Slow(chunked(b"5\r\nhello\r\n0\r\nX: y\r\n")),
    "a chunk shorter than its size": Slow(chunked(b"9\r\nhello\r\n")),
    "a body behind a good request": Slow(get() + post(LENGTH, content=b"hell"), good=1),
    "no request at all": Slow(b"", status=0),
    "no second request": Slow(get(), good=1, status=0),
}
"""Status 0 is the end of a connection that nobody used: there is nothing to answer."""


@pytest.fixture(scope="module")
def slow(gateway: Gateway, service: Recorder) -> dict[str, list[Answer]]:
    """What each of SLOW is answered. They wait for the limits at the same time; a drop falls each 20 ms."""
    before = len(service.requests)
    with ExitStack() as clients:
        said = {clients.enter_context(gateway.connect()): b"" for _ in SLOW}
        names = dict(zip(said, SLOW, strict=True))
        falling = {client: SLOW[name].drops for client, name in names.items() if SLOW[name].drops}
        for client, name in names.items():
            client.sendall(SLOW[name].at_once)
        open_yet = set(said)
        while open_yet:
            for client in select.select(open_yet, [], [], 0.02)[0]:
                data = client.recv(65536)
                said[client] += data
                if not data:
                    open_yet.remove(client)
            for client in open_yet & falling.keys():
                assert falling[client], f"{names[client]} was let drip on to its end"
                client.sendall(falling[client][:1])
                falling[client] = falling[client][1:]
    wait_for(lambda: not unfinished(service), "the connections to be cut")
    assert len(service.requests) == before + sum(slow.good for slow in SLOW.values())
    return {names[client]: answers_in(data) for client, data in said.items()}


@pytest.mark.parametrize("name", SLOW)
def test_what_comes_too_slowly_is_408(slow: dict[str, list[Answer]], name: str) -> None:
    answers, expected = slow[name], SLOW[name]
    assert [answer.status for answer in answers[: expected.good]] == [200] * expected.good
    refusals = answers[expected.good :]
    assert len(refusals) == (expected.status != 0)
    for answer in refusals:
        assert_problem(answer, expected.status, "request-timeout")


def padded(size: int) -> bytes:
    """Return a head of exactly `size` bytes."""
    empty = get(b"X: ")
    return get(b"X: " + b"y" * (size - len(empty)))


def trailers(size: int) -> bytes:
    """Return a chunked request whose trailer section has `size` bytes."""
    return chunked(b"0\r\nX: " + b"y" * (size - 5) + b"\r\n\r\n")


AT_THE_LIMIT: dict[str, tuple[bytes, Refused]] = {
    "head": (padded(HEAD_LIMIT), Refused(padded(HEAD_LIMIT + 1), 431, "request-header-fields-too-large")),
    "target": (
        get(target=b"/" + b"x" * (TARGET_LIMIT - 1)),
        Refused(get(target=b"/" + b"x" * TARGET_LIMIT), 414, "uri-too-long"),
    ),
    "headers": (
        get(*[b"X: y"] * (HEADER_COUNT - 1)),
        Refused(get(*[b"X: y"] * HEADER_COUNT), 431, "request-header-fields-too-large"),
    ),
    "declared body": (
        post(b"Content-Length: %d" % BODY_LIMIT, content=b"x" * BODY_LIMIT),
        Refused(post(b"Content-Length: %d" % (BODY_LIMIT + 1)), 413, "content-too-large"),
    ),
    "chunked body": (
        chunked(b"2000\r\n" + b"x" * BODY_LIMIT + b"\r\n" + EMPTY_CHUNKS),
        BODIES["one chunk beyond the limit"],
    ),
    "chunk-size line": (
        chunked(b"0;" + b"x" * (CHUNK_LINE - 4) + b"\r\n\r\n"),
        Refused(chunked(b"0;" + b"x" * (CHUNK_LINE - 3) + b"\r\n\r\n")),
    ),
    "digits of a chunk size": (chunked(b"0" * 15 + b"\r\n\r\n"), Refused(chunked(b"0" * 16 + b"\r\n\r\n"))),
    "trailer section": (trailers(TRAILERS), Refused(trailers(TRAILERS + 1))),
    "digits of a length": (
        post(b"Content-Length: " + b"5".zfill(18), content=b"hello"),
        Refused(post(b"Content-Length: " + b"5".zfill(19), content=b"hello")),
    ),
    "empty lines": (b"\r\n\r\n" + get(), Refused(b"\r\n\r\n\r\n" + get())),
    "host": (
        get().replace(b"Host: a", b"Host: " + b"a" * 253),
        Refused(get().replace(b"Host: a", b"Host: " + b"a" * 254)),
    ),
    "port": (
        get().replace(b"Host: a", b"Host: a:65535"),
        Refused(get().replace(b"Host: a", b"Host: a:65536")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("limit", AT_THE_LIMIT)
def test_at_each_limit_and_beyond(gateway: Gateway, service: Recorder, limit: str) -> None:
    within, beyond = AT_THE_LIMIT[limit]
    before = len(service.requests)
    first, second = exchange(gateway, within + request(b"GET /next HTTP/1.1", b"Host: a", b"Connection: close"))
    assert (first.status, second.status) == (200, 200)
    assert len(service.requests) == before + 2
    (answer,) = exchange(gateway, beyond.sent)
    assert_problem(answer, beyond.status, beyond.kind)
    wait_for(lambda: not unfinished(service), "the connection to be cut")
    assert len(service.requests) == before + 2


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, service: Recorder) -> Iterator[Gateway]:
    limits = "limits: {connections: 2, requests_per_connection: 3}\n"
    with Gateway(tmp_path_factory.mktemp("narrow"), limits + ROUTES.format(port=service.port)) as gateway:
        yield gateway


def one_answer(client: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\nok"):
        piece = client.recv(65536)
        assert piece, data
        data += piece
    return data


def test_as_many_requests_as_a_connection_may_have(narrow: Gateway, service: Recorder) -> None:
    before = len(service.requests)
    answers = exchange(narrow, get() * 5)
    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.headers.get("connection") for answer in answers] == [None, None, "close"]
    assert len(service.requests) == before + 3


def test_as_many_connections_as_there_may_be(narrow: Gateway, service: Recorder) -> None:
    with narrow.connect() as one, narrow.connect() as two:
        for client in (one, two):
            client.sendall(get())
            one_answer(client)
        before = len(service.requests)
        with narrow.connect() as third:
            (answer,) = answers_in(read_to_end(third))
        assert_problem(answer, 503, "too-many-connections")
        assert int(answer.headers["retry-after"]) >= 1
        two.sendall(get())
        one_answer(two)
        assert len(service.requests) == before + 1

    def admitted() -> bool:
        with narrow.connect() as client:
            client.sendall(get(b"Connection: close"))
            return client.recv(65536).startswith(b"HTTP/1.1 200")

    wait_for(admitted, "room for a connection")


@pytest.mark.parametrize("framing", [CHUNKED, b"Content-Length: %d" % len(EVIL)])
def test_what_follows_a_refusal_is_not_a_request(gateway: Gateway, service: Recorder, framing: bytes) -> None:
    """A refused head may have had content: none of it, whole or not, is taken for another request."""
    with Watch(gateway, service) as watch:
        (answer,) = exchange(gateway, post(framing, b"X : y") + EVIL * 20)
    assert_problem(answer, 400, MALFORMED)
    assert watch.data == []
