from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.wire import fields
from portico.wire.fields import FieldTable, MalformedFields, request_fields, response_fields

TABLES = pytest.mark.parametrize("make", [request_fields, response_fields])

lines = st.one_of(
    st.sampled_from(
        [
            b"Host: a",
            b"host: b",
            b"Accept: */*",
            b"Connection: keep-alive",
            b"Connection: upgrade",
            b"Upgrade: websocket",
            b"Content-Length: 3",
            b"Content-Length: 4",
            b"Transfer-Encoding: chunked",
            b"X-Empty:",
            b"X-Space:  a b \t ",
            b" folded",
            b"\tfolded",
            b"No-Colon",
            b"Authorization",
            b"Authorization: a",
            b"Content-Length",
            b"Cookie : a",
            b": no name",
            b"Space : a",
            b"X: a\nY: b",
            b"X: a\rY: b",
            b"X: \x00",
            b"X: \xff",
            b"",
            b"GET / HTTP/1.1",
        ]
    ),
    st.binary(max_size=12),
    st.from_regex(rb"[A-Za-z-]{1,6}: ?[ -~]{0,8}", fullmatch=True),
)


def block(*some: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in some) + b"\r\n"


def read(table: FieldTable, some: list[bytes]) -> object:
    try:
        headers = table.read(block(*some))
    except MalformedFields:
        return MalformedFields
    return headers.pairs, headers.index


@TABLES
@given(warm=st.lists(st.lists(lines, max_size=4), max_size=6), some=st.lists(lines, max_size=6))
def test_what_was_read_before_changes_nothing(make: object, warm: list[list[bytes]], some: list[bytes]) -> None:
    assert callable(make)
    table, cold = make(100), make(100)
    for each in warm:
        read(table, each)
    # Only what looks at several lines at once may differ, and that is framing's to refuse.
    framing = sum(line.lower().startswith((b"content-length", b"transfer-encoding")) for line in some)
    first, second, apart = read(table, some), read(table, some), read(cold, some)
    assert first == second == read(table, some)
    if framing < 2:
        assert first == apart


@TABLES
@given(some=st.lists(lines, max_size=6))
def test_each_field_is_one_line(make: object, some: list[bytes]) -> None:
    assert callable(make)
    table = make(100)
    for _ in range(3):
        outcome = read(table, some)
        if outcome is MalformedFields:
            continue
        assert isinstance(outcome, tuple)
        pairs, index = outcome
        assert len(pairs) == len(some)
        for line, (name, value) in zip(some, pairs, strict=True):
            assert line.startswith(name + b":")
            assert line[len(name) + 1 :].strip(b" \t") == value
            assert b"\r" not in value
            assert b"\n" not in value
        assert set(index) == {name.lower() for name, _ in pairs}
        if len(index) == len(pairs):
            assert list(index) == [name.lower() for name, _ in pairs]


def test_a_field_that_stands_twice_keeps_its_first_value_in_the_index() -> None:
    table = request_fields(100)
    for _ in range(2):
        headers = table.read(block(b"X: 1", b"Y: 2", b"x: 3"))
        assert headers.pairs == [(b"X", b"1"), (b"Y", b"2"), (b"x", b"3")]
        assert headers.index == {b"x": b"1", b"y": b"2"}


def test_headers_of_two_messages_change_apart() -> None:
    table = request_fields(100)
    all_three = [table.read(block(b"X: 1")) for _ in range(3)]
    for headers in all_three:
        assert headers.pairs == [(b"X", b"1")]
        assert headers.index == {b"x": b"1"}
        headers.set(b"X", b"2")
        headers.add(b"Y", b"3")
    assert table.read(block(b"X: 1")).pairs == [(b"X", b"1")]


@pytest.mark.parametrize("name", ["Authorization", "COOKIE", "set-cookie", "X-Api-Key", "Proxy-Authorization"])
def test_secrets_are_not_kept(name: str) -> None:
    table = request_fields(100)
    line = f"{name}: secret".encode()
    assert table.read(block(line)).pairs == [(name.encode(), b"secret")]
    assert line not in table


def test_long_lines_are_not_kept() -> None:
    table = request_fields(100)
    line = b"X: " + b"a" * fields.MAX_LINE
    table.read(block(line))
    assert line not in table


def test_a_table_does_not_grow_without_end() -> None:
    table = request_fields(100)
    for number in range(3 * fields.MAX_LINES):
        table.read(block(b"X: %d" % number))
        assert len(table) <= fields.MAX_LINES
    assert b"X: %d" % (3 * fields.MAX_LINES - 1) in table


def test_blocks_are_bounded_and_never_secret() -> None:
    table = request_fields(100)
    for number in range(2 * fields.MAX_BLOCKS):
        for _ in range(3):
            table.read(block(b"X: %d" % number))
        assert len(table._blocks) <= fields.MAX_BLOCKS
    table = request_fields(100)
    for _ in range(3):
        table.read(block(b"Host: a", b"Cookie: secret"))
    assert not table._blocks


values = st.one_of(
    st.binary(max_size=12),
    st.text('\t !"=;:,\\abcé\x7f\x00\r\n', max_size=10).map(lambda text: text.encode("latin-1")),
)


@TABLES
@pytest.mark.parametrize("line", [b"Authorization", b"Cookie : a", b" Cookie: a", b"Content-Length", b"Cookie\x00: a"])
def test_lines_that_are_none(make: object, line: bytes) -> None:
    assert callable(make)
    assert read(make(100), [line]) is MalformedFields


@TABLES
@given(name=st.sampled_from(sorted(fields._SECRET)), upper=st.booleans(), value=values)
def test_lines_with_a_secret_are_read_as_llhttp_reads_them(
    make: object, name: bytes, upper: bool, value: bytes
) -> None:
    assert callable(make)
    line = (name.upper() if upper else name) + b":" + value.replace(b"\r\n", b"")
    table = make(100)
    try:
        pairs = [(shown, text.strip(b" \t")) for shown, text in table._tokenize([line])]
    except MalformedFields:
        pairs = None
    assert read(table, [line]) == (
        MalformedFields if pairs is None else (pairs, {shown.lower(): text for shown, text in pairs})
    )
    assert len(table) == 0


def test_lines_with_a_secret_need_no_llhttp() -> None:
    asked = []

    def parser(receiver: object) -> object:
        asked.append(receiver)
        return httptools.HttpRequestParser(receiver)

    table = FieldTable(parser, b"GET / HTTP/1.1", 100)
    said = [b"Host: a", b"Cookie:a=b; c=d", b"AUTHORIZATION: \tBearer x \t", b"X-Api-Key: "]
    pairs = [(b"Host", b"a"), (b"Cookie", b"a=b; c=d"), (b"AUTHORIZATION", b"Bearer x"), (b"X-Api-Key", b"")]
    for _ in range(3):
        assert table.read(block(*said)).pairs == pairs
    assert len(asked) == 1  # for Host, once
    assert len(table) == 1
