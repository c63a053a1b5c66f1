"""Heads that come again, byte for byte, say what they said the first time, and share nothing with one another."""

from __future__ import annotations

import pytest

from portico.http.headers import Headers
from portico.wire import h1
from portico.wire.events import Data, KnownAnswer, KnownRequest, RequestHead, ResponseHead
from portico.wire.fields import MAX_BLOCK, MAX_BLOCKS, FieldTable, request_fields, response_fields
from portico.wire.h1 import RequestReader, ResponseReader

HEAD = b"GET /a HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nConnection: X-B\r\nX-B: no\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 2\r\n\r\n"
OFTEN = 6


SAID = ("expects_continue", "headers", "keep_alive", "length", "method", "minor", "status", "target", "upgrade")


def said(head: RequestHead | ResponseHead) -> dict[str, object]:
    return {name: getattr(head, name) for name in SAID if hasattr(head, name)}


def read_request(table: FieldTable, data: bytes) -> tuple[RequestHead, RequestReader]:
    reader = RequestReader(4096, 20, 1000, table)
    reader.receive(data)
    head = reader.next_head()
    assert head is not None
    return head, reader


def read_answer(table: FieldTable, data: bytes, method: str = "GET") -> tuple[ResponseHead, ResponseReader]:
    reader = ResponseReader(4096, 20, table)
    reader.receive(data)
    head = reader.next_head(method)
    assert head is not None
    return head, reader


def test_a_request_that_comes_again_is_known_and_the_same() -> None:
    table = request_fields(20)
    first, _ = read_request(table, HEAD)
    for _ in range(OFTEN):
        again, reader = read_request(table, HEAD)
        assert said(again) == said(first)
        assert reader.done
        assert reader.idle
    assert again.known is not None
    assert HEAD in table.requests


@pytest.mark.parametrize(
    "struck", [b"Expect: 100-continue", b"Upgrade: websocket", b"X-B: no", b"Accept: a"], ids=lambda line: line.decode()
)
def test_what_connection_strikes_is_struck_each_time(struck: bytes) -> None:
    name = struck.partition(b":")[0]
    head = HEAD.replace(b"X-B: no", struck).replace(b"Connection: X-B", b"Connection: x, " + name)
    table = request_fields(20)
    first, _ = read_request(table, head)
    for _ in range(OFTEN):
        again, _ = read_request(table, head)
        assert said(again) == said(first)


def test_what_is_done_to_one_head_does_not_show_in_the_next() -> None:
    table = request_fields(20)
    for _ in range(OFTEN):
        head, _ = read_request(table, HEAD)
        assert head.headers == Headers([(b"Host", b"a.test"), (b"Accept", b"*/*"), (b"Connection", b"X-B")])
        head.headers.set(b"X-New", b"1")
        head.headers.remove(b"accept")


def test_a_known_head_is_found_in_pieces_behind_others_and_by_a_reader_that_has_read_others() -> None:
    table = request_fields(20)
    for _ in range(OFTEN):
        read_request(table, HEAD)
    reader = RequestReader(4096, 20, 1000, table)
    for data in (HEAD[:20], HEAD[20:] + HEAD + HEAD[:5], HEAD[5:]):
        reader.receive(data)
        while (head := reader.next_head()) is not None:
            assert (head.method, head.target, len(head.headers)) == ("GET", b"/a", 3)
    assert reader.idle
    reader.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + HEAD)
    post = reader.next_head()
    assert post is not None
    assert post.length == 3
    assert reader.take_whole() == b"abc"
    assert reader.next_head() is not None


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(HEAD.replace(b"/a ", b"/a?token=secret "), id="a query may be secret"),
        pytest.param(HEAD.replace(b"X-B: no", b"Cookie: a=secret"), id="a cookie is"),
        pytest.param(HEAD.replace(b"X-B: no", b"Content-Length: 2") + b"ab", id="content"),
        pytest.param(HEAD.replace(b"X-B", b"Upgrade").replace(b"no", b"websocket"), id="an upgrade"),
        pytest.param(HEAD.replace(b"X-B: no", b"Expect: 100-continue"), id="an expectation"),
        pytest.param(HEAD.replace(b"*/*", b"a" * 1024), id="long"),
    ],
)
def test_what_is_secret_or_not_plain_is_not_remembered(head: bytes) -> None:
    table = request_fields(20)
    first, _ = read_request(table, head)
    for _ in range(OFTEN):
        again, _ = read_request(table, head)
        assert said(again) == said(first)
        assert again.known is None
    assert not table.requests


def test_the_memory_is_bounded_and_what_comes_once_takes_no_place() -> None:
    table = request_fields(20)
    for number in range(MAX_BLOCKS * 3):
        read_request(table, HEAD.replace(b"/a ", b"/%d " % number))
    assert not table.requests
    for number in range(MAX_BLOCKS * 3):
        for _ in range(OFTEN):
            read_request(table, HEAD.replace(b"/a ", b"/n%d " % number))
        assert len(table.requests) <= MAX_BLOCKS


def test_an_answer_that_comes_again_is_the_same_whatever_was_asked() -> None:
    table = response_fields(20)
    for _ in range(OFTEN):
        head, reader = read_answer(table, ANSWER + b"ab")
        assert (head.status, head.length, reader.keep_alive) == (200, 2, True)
        head.headers.set(b"Server", b"other")
        event = reader.next_content()
        assert isinstance(event, Data)
        assert (event.data, event.last) == (b"ab", True)
        head, reader = read_answer(table, ANSWER, "HEAD")
        assert (head.status, head.length, head.headers.get(b"server")) == (200, 0, b"s")
        assert reader.done
    assert ANSWER in table.answers


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer: s\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n",
    ],
)
def test_an_answer_without_a_length_of_its_own_is_read_anew(answer: bytes) -> None:
    table = response_fields(20)
    first, first_reader = read_answer(table, answer)
    for _ in range(OFTEN):
        again, reader = read_answer(table, answer)
        assert said(again) == said(first)
        assert (reader.done, reader.keep_alive) == (first_reader.done, first_reader.keep_alive)
    assert not table.answers


def test_a_connection_that_ends_after_a_known_answer_is_not_kept() -> None:
    table = response_fields(20)
    closing = ANSWER.replace(b"Server: s", b"Connection: close")
    for _ in range(OFTEN):
        assert read_answer(table, ANSWER)[1].keep_alive
        assert not read_answer(table, closing)[1].keep_alive


class Requests(dict[bytes, KnownRequest]):
    """Known requests that tell what was looked up among them, which costs a hash of all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def get(self, key: bytes, default: KnownRequest | None = None) -> KnownRequest | None:  # type: ignore[override]
        self.asked.append(len(key))
        return super().get(key, default)


class Answers(dict[bytes, KnownAnswer]):
    """The same for answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def get(self, key: bytes, default: KnownAnswer | None = None) -> KnownAnswer | None:  # type: ignore[override]
        self.asked.append(len(key))
        return super().get(key, default)


interpreted = pytest.mark.skipif(
    not str(h1.__file__).endswith(".py"), reason="compiled code looks into dicts without calling them"
)


@interpreted
def test_a_request_that_comes_with_much_content_is_not_looked_up() -> None:
    table = request_fields(20)
    table.requests = requests = Requests()
    _, reader = read_request(table, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
    assert requests.asked == []
    assert reader.take_whole() == b"x" * 200_000
    for _ in range(OFTEN):
        head, _ = read_request(table, HEAD)
    assert head.known is not None
    assert set(requests.asked) == {len(HEAD)}


@interpreted
def test_a_pipeline_is_not_looked_up_as_a_whole() -> None:
    table = request_fields(20)
    table.requests = requests = Requests()
    reader = RequestReader(4096, 20, 1000, table)
    reader.receive(HEAD * 1000)
    for _ in range(1000):
        assert reader.next_head() is not None
    assert max(requests.asked) <= MAX_BLOCK


@interpreted
def test_an_answer_with_a_long_head_is_not_looked_up() -> None:
    table = response_fields(20)
    table.answers = answers = Answers()
    read_answer(table, ANSWER.replace(b"Server: s", b"Server: " + b"s" * MAX_BLOCK) + b"ab")
    assert answers.asked == []
    read_answer(table, ANSWER + b"ab")
    assert answers.asked == [len(ANSWER)]
