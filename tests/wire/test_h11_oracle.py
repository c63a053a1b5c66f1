"""h11 and we read the same bytes, in both roles: they agree, or `fuzz/differences.py` names the difference and why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.checks import check_oracle
from fuzz.differences import DIFFERENCES, Difference, explanations
from fuzz.oracle import Meaning, agree, disagreements, ours, theirs
from tests.wire.rows import REQUESTS, RESPONSES, Row

METHODS = ("GET", "HEAD", "POST")

EXAMPLES = [
    pytest.param(difference, method, data, id=f"{difference.name}, {number}")
    for difference in DIFFERENCES
    for number, (method, data) in enumerate(difference.examples)
]


@pytest.mark.parametrize(("difference", "method", "data"), EXAMPLES)
def test_each_difference_has_a_witness(difference: Difference, method: str | None, data: bytes) -> None:
    (case,) = disagreements(data, method)
    assert explanations(case) == [difference.name]


def test_each_difference_has_a_name_and_a_reason() -> None:
    names = [difference.name for difference in DIFFERENCES]
    assert len(set(names)) == len(names)
    for difference in DIFFERENCES:
        assert difference.why.startswith("RFC ")
        assert difference.examples


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.method}: {row.name}") for row in (*REQUESTS, *RESPONSES)])
def test_the_rows(row: Row) -> None:
    check_oracle(row.data, row.method)


# Messages that are right.

TOKEN = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=8).map(str.encode)
TEXT = st.binary(max_size=12).map(lambda raw: bytes(c for c in raw if c == 9 or 32 <= c < 127 or c > 159).strip())
SPACE = st.sampled_from([b"", b" ", b"\t", b" \t "])
OWN = (b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect")
LINE = st.tuples(TOKEN.filter(lambda name: name.lower() not in OWN), SPACE, TEXT, SPACE).map(
    lambda parts: parts[0] + b":" + b"".join(parts[1:]) + b"\r\n"
)
CONNECTION = st.sampled_from(
    [
        b"",
        b"",
        b"Connection: close\r\n",
        b"connection: keep-alive\r\n",
        b"Connection: a, Close\r\n",
        b"Connection: Foo\r\n",
    ]
)
EXTENSION = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b c"', b";;"])
SIZE = st.sampled_from(["%x", "%X", "0%x", "000%X"])


@st.composite
def framed(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return header lines that say where content ends, and the content."""
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    if kind == "none":
        return b"", b""
    if kind == "length":
        content = draw(st.binary(max_size=30))
        return b"Content-Length: %d\r\n" % len(content), content
    wire = b""
    for piece in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=3)):
        wire += (draw(SIZE) % len(piece)).encode() + draw(EXTENSION) + b"\r\n" + piece + b"\r\n"
    wire += b"0" * draw(st.integers(1, 3)) + draw(EXTENSION) + b"\r\n" + b"".join(draw(st.lists(LINE, max_size=3)))
    return b"Transfer-Encoding: chunked\r\n", wire + b"\r\n"


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PROPFIND", b"M-SEARCH"]))
    target = draw(st.sampled_from([b"/", b"/a?b=c", b"*", b"http://a/b", b"/%20;x"]))
    lines, content = draw(framed())
    version = b"HTTP/1.1" if b"chunked" in lines else draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]))
    fields = draw(st.permutations([b"Host: a\r\n", lines, draw(CONNECTION), *draw(st.lists(LINE, max_size=4))]))
    return method + b" " + target + b" " + version + b"\r\n" + b"".join(fields) + b"\r\n" + content


@st.composite
def responses(draw: st.DrawFn, method: str) -> bytes:
    status = draw(st.sampled_from([b"200 OK", b"204 No Content", b"304 Not Modified", b"404 X", b"500 ", b"599 \xe4"]))
    interim = draw(
        st.sampled_from([b"", b"", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", b"HTTP/1.1 100 \r\n\r\n"])
    )
    lines, content = draw(framed())
    version = b"HTTP/1.1 " if b"chunked" in lines else draw(st.sampled_from([b"HTTP/1.1 ", b"HTTP/1.1 ", b"HTTP/1.0 "]))
    if method == "HEAD" or status[:3] in (b"204", b"304"):
        content = b""
    elif not lines:
        content = draw(st.binary(max_size=30))
    fields = draw(st.permutations([lines, draw(CONNECTION), *draw(st.lists(LINE, max_size=4))]))
    return interim + version + status + b"\r\n" + b"".join(fields) + b"\r\n" + content


@settings(max_examples=300, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=3).map(b"".join))
def test_requests_that_are_right(data: bytes) -> None:
    assert isinstance(ours(data, None), Meaning)
    check_oracle(data, None)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(METHODS).flatmap(lambda method: st.tuples(st.just(method), responses(method))),
    st.binary(max_size=9),
)
def test_responses_that_are_right(answer: tuple[str, bytes], behind: bytes) -> None:
    method, data = answer
    assert isinstance(ours(data, method), Meaning)
    check_oracle(data + behind, method)


# Messages that are wrong in one place or two.

PIECE = st.one_of(
    st.sampled_from(
        [
            b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"\0", b"\x7f", b"\x0b", b"\xff", b":", b",", b";",
            b"0", b"1", b"+", b"-",
            b" c\r\n", b"A : b\r\n", b"Host: b\r\n", b"Content-Length: 1\r\n", b"Content-Length: 0\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: gzip\r\n", b"chunked", b", chunked", b"Connection: close\r\n",
            b"Connection: content-length\r\n",
            b"Upgrade: x\r\nConnection: upgrade\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.0", b"HTTP/1.1",
            b"0\r\n\r\n", b"1\r\na\r\n",
        ]
    ),
    st.binary(max_size=3),
)  # fmt: skip
CHANGE = st.tuples(st.integers(0, 400), st.integers(0, 12), PIECE)


def changed(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, piece in changes:
        start = at % (len(data) + 1)
        data = data[:start] + piece + data[start + length :]
    return data


CHANGES = st.lists(CHANGE, min_size=1, max_size=3)


@settings(max_examples=800, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=2).map(b"".join), CHANGES)
def test_requests_that_are_wrong(data: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    check_oracle(changed(data, changes), None)


@settings(max_examples=800, deadline=None)
@given(st.sampled_from(METHODS).flatmap(lambda method: st.tuples(st.just(method), responses(method))), CHANGES)
def test_responses_that_are_wrong(answer: tuple[str, bytes], changes: list[tuple[int, int, bytes]]) -> None:
    method, data = answer
    check_oracle(changed(data, changes), method)


@pytest.mark.parametrize(
    ("method", "data"),
    [(None, b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"), ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\narest")],
)
def test_the_oracle_can_fail(method: str | None, data: bytes) -> None:
    mine, other = ours(data, method), theirs(data, method)
    assert isinstance(mine, Meaning)
    assert isinstance(other, Meaning)
    assert agree(mine, other)
    changes: tuple[dict[str, Any], ...] = (
        {"rest": b"res"},
        {"content": b"x"},
        {"fields": []},
        {"trailers": [(b"A", b"b")]},
        {"keep_alive": False},
    )
    for change in changes:
        assert not agree(mine, other._replace(**change))
    assert not agree(mine, "refused")
    assert not agree(None, other)
