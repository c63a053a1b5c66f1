"""What must hold of any bytes at all, in both roles; the fuzzers look for the same, for longer."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.checks import check_request, check_response
from fuzz.reading import NARROW, Limits, Reader, check_history, read_requests, read_responses
from fuzz.rewriting import check_rewritten
from portico.errors import PorticoError
from portico.wire.events import Data
from portico.wire.framing import MAX_CHUNK_LINE, MAX_TRAILERS
from portico.wire.h1 import RequestReader, ResponseReader
from tests.wire.rows import REQUESTS, RESPONSES, Row

METHODS = st.sampled_from(["GET", "HEAD", "POST"])
CUTS = st.lists(st.lists(st.integers(0, 400), max_size=10), max_size=4)

HEADS = st.sampled_from(
    [b"", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"]
)  # fmt: skip
ANSWERS = st.sampled_from(
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 101 OK\r\n"]
)
WORDS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b":", b";", b"0", b"5", b"a", b"hello",
                b"GET / HTTP/1.1\r\n",
                b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 X\r\n", b"Host: a\r\n", b"Content-Length: 5\r\n",
                b"Content-Length: 0\r\n",
                b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: A\r\n", b"A: b\r\n",
                b"Upgrade: x\r\n",
                b"0\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n",
            ]
        ),
        st.binary(max_size=4),
    ),
    max_size=30,
).map(b"".join)  # fmt: skip
ANYTHING = st.one_of(st.binary(max_size=200), WORDS)


@settings(max_examples=400, deadline=None)
@given(HEADS, ANYTHING, CUTS)
def test_any_bytes_from_a_client(head: bytes, data: bytes, cuts: list[list[int]]) -> None:
    check_request(head + data, cuts)


@settings(max_examples=400, deadline=None)
@given(ANSWERS, ANYTHING, METHODS, CUTS)
def test_any_bytes_from_a_service(head: bytes, data: bytes, method: str, cuts: list[list[int]]) -> None:
    check_response(head + data, method, cuts)


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.method}: {row.name}") for row in (*REQUESTS, *RESPONSES)])
def test_h11_finds_one_message_in_each_that_leaves(row: Row) -> None:
    wrote = check_rewritten(row.data, row.method, row.limits)
    assert wrote == len([message for message in row.messages if message.complete and message.start[0] != "CONNECT"])


FRAMING_LINES = st.sampled_from(
    [
        b"Content-Length: 5", b"content-length: 6", b"Content-Length: 05", b"Content-Length: a",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Transfer-Encoding: gzip, chunked",
        b"Connection: close", b"Connection: upgrade",
        b"Upgrade: x", b"Host: a", b"A: b", b" folded",
    ]
)  # fmt: skip
STATUSES = st.sampled_from([b"200", b"103", b"204", b"304"])


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMING_LINES, max_size=5), st.sampled_from([None, "GET", "HEAD"]), STATUSES)
def test_what_came_before_on_other_connections_changes_nothing(
    lines: list[bytes], method: str | None, status: bytes
) -> None:
    start = b"POST / HTTP/1.1" if method is None else b"HTTP/1.1 " + status + b" X"
    check_history(b"\r\n".join((start, *lines, b"", b"hello")), method)


ENDLESS = {
    "a head": (None, b"GET / HTTP/1.1\r\nA: "),
    "fields": (None, b"GET / HTTP/1.1\r\nA: b\r\n"),
    "a target": (None, b"GET /"),
    "empty lines": (None, b""),
    "content": (None, b"POST / HTTP/1.1\r\nContent-Length: 999999999999999999\r\n\r\n"),
    "a chunk": (None, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n"),
    "a chunk line": (None, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;"),
    "trailers": (None, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b"),
    "an answer's head": ("GET", b"HTTP/1.1 200 OK\r\nA: "),
    "an answer's content": ("GET", b"HTTP/1.1 200 OK\r\n\r\n"),
    "an answer's trailers": ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"),
}


@pytest.mark.parametrize(
    "piece", [b"a", b"a" * 100, b"\r\n", b"A: b\r\n" * 11, b"1\r\na\r\n" * 9, b"1\r\n" + b"a" * 99]
)
@pytest.mark.parametrize("kind", ENDLESS)
def test_no_more_is_held_than_the_limits_and_one_piece(kind: str, piece: bytes) -> None:
    method, start = ENDLESS[kind]
    bound = max(NARROW.head, MAX_CHUNK_LINE + MAX_TRAILERS + 4) + max(len(piece), len(start))
    reader: Reader
    if method is None:
        reader = requests = RequestReader(*NARROW)
        next_head = requests.next_head
    else:
        reader = responses = ResponseReader(NARROW.head, NARROW.fields)
        next_head = lambda: responses.next_head("GET")  # noqa: E731
    most = taken = 0
    try:
        for feed in (start, *[piece] * (40_000 // len(piece))):
            reader.receive(feed)
            most = max(most, len(reader.pending))
            taken += len(feed)
            while (next_head() if reader.done else reader.next_content()) is not None:
                pass
    except PorticoError:
        assert taken <= bound + len(piece) or kind == "empty lines"
    assert most <= bound


LONG = 7000
RUNS = {
    "spaces": b" " * LONG,
    "tabs and spaces": b"\t " * (LONG // 2),
    "commas": b"," * LONG,
    "words": b"a b " * (LONG // 4),
    "colons": b":" * LONG,
    "semicolons": b";" * LONG,
    "options": b",".join(b"%x" % number for number in range(LONG // 4)),
}
PLACES = {
    "a field": (None, b"GET / HTTP/1.1\r\nA:%b\r\n\r\n"),
    "a target": (None, b"GET /%b HTTP/1.1\r\n\r\n"),
    "a request line": (None, b"%b\r\n\r\n"),
    "Connection": (None, b"GET / HTTP/1.1\r\nConnection:%b\r\n\r\n"),
    "Content-Length": (None, b"POST / HTTP/1.1\r\nContent-Length:%b\r\n\r\n"),
    "Transfer-Encoding": (None, b"POST / HTTP/1.1\r\nTransfer-Encoding:%b\r\n\r\n"),
    "Upgrade": (None, b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade:%b\r\n\r\n"),
    "chunk lines": (None, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1%.200b\r\n"),
    "a trailer": (None, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA:%b\r\n\r\n"),
    "a status line": ("GET", b"HTTP/1.1 200 %b\r\n\r\n"),
}


@pytest.mark.parametrize("end", [b"", b"a", b"\0"])
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("place", PLACES)
def test_no_line_costs_more_than_its_bytes(place: str, run: str, end: bytes) -> None:
    method, frame = PLACES[place]
    data = frame % (RUNS[run] + end)
    wide = Limits(head=8192, fields=100, target=8192)
    before = process_time()
    if method is None:
        read_requests([data], wide)
    else:
        read_responses([data], method, wide)
    assert process_time() - before < 0.05  # it takes a millisecond; a square of the bytes takes a hundred


@given(st.binary(min_size=1, max_size=40), st.integers(0, 39), st.binary(max_size=9))
def test_content_taken_whole_is_content_taken_in_pieces(content: bytes, cut: int, behind: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(content)
    pieces, whole = RequestReader(*Limits()), RequestReader(*Limits())
    for reader in (pieces, whole):
        reader.receive(head + content[:cut])
        assert reader.next_head() is not None
        first = reader.next_content()
        taken = first.data if isinstance(first, Data) else b""
        assert taken == content[:cut]
        reader.receive(content[cut:] + behind)
    if not pieces.done:
        assert whole.take_whole() == content[cut:]
        rest = pieces.next_content()
        assert isinstance(rest, Data)
        assert rest.last
        assert rest.data == content[cut:]
    assert pieces.done
    assert whole.done
    assert pieces.pending == whole.pending == behind


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"POST % HTTP/1.1\r\nHo\nb c\r\n" + b"a: b\r\n" * 40 + b"\r\n", id="a bare LF, then too many"),
        pytest.param(b"BAD LINE\r\nA: " + b"b" * 9000 + b"\r\n\r\n", id="a bad line, then too long"),
        pytest.param(b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nA\nB: c\r\n\r\n", id="a long target, then a bare LF"),
        pytest.param(b"GET / HTTP/1.1\r\nA: " + b"b" * 9000 + b"\n\r\n\r\n", id="too long, then a bare LF"),
    ],
)
def test_the_first_fault_is_told_however_it_comes(data: bytes) -> None:
    check_request(data, [[], [20], list(range(1, len(data), 7))])
