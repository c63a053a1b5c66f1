from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.http.headers import Headers
from portico.http.message import Request
from portico.idempotency.key import LONGEST, KeyReader, MalformedKey, fingerprint

ROWS: list[tuple[bytes, bytes | None, bool]] = [
    # what came, the key, and whether that has its quotes
    (b'"8e03978e-40d5-43dd-bc93-6894a57f9324"', b"8e03978e-40d5-43dd-bc93-6894a57f9324", True),
    (b"8e03978e-40d5-43dd-bc93-6894a57f9324", b"8e03978e-40d5-43dd-bc93-6894a57f9324", False),
    (b' "a"' + b"\t", b"a", True),
    (b'"a b, c;d"', b"a b, c;d", True),
    (rb'"a\"b\\c"', b'a"b\\c', True),
    (b'"a";b', b"a", True),
    (b'"a"; b=1;*c="x;y";d=:aGk=:;e=?0', b"a", True),
    (b"a.b_c~d/e+f=g@h:i", b"a.b_c~d/e+f=g@h:i", False),
    (b":aGk=:", b":aGk=:", False),
    (b'"' + b"x" * LONGEST + b'"', b"x" * LONGEST, True),
    (b'"' + b'\\"' * LONGEST + b'"', b'"' * LONGEST, True),
    (b"x" * LONGEST, b"x" * LONGEST, False),
    (b'"' + b"x" * (LONGEST + 1) + b'"', None, True),
    (b"x" * (LONGEST + 1), None, False),
    (b"x" * 100_000, None, False),
    (b"", None, False),
    (b'""', None, True),
    (b'"', None, True),
    (b'"a', None, True),
    (b'a"', None, False),
    (b'"a"b', None, True),
    (b'"a";', None, True),
    (b'"a";B', None, True),
    (b'"a", "b"', None, True),
    (rb'"a\b"', None, True),
    (b'"a' + b"\x7f" + b'"', None, True),
    (b'"\xc3\xa9"', None, True),
    (b"\xc3\xa9", None, False),
    (b"a,b", None, False),
    (b"a b", None, False),
    (b"a;b", None, False),
    (rb"a\b", None, False),
]


@pytest.mark.parametrize(("value", "key", "quoted"), ROWS)
def test_keys_as_they_may_come(value: bytes, key: bytes | None, quoted: bool) -> None:
    headers = Headers()
    headers.put_parsed(b"idempotency-KEY", value)
    assert read(headers, unquoted=True) == key
    assert read(headers, unquoted=False) == (key if quoted else None)


def read(headers: Headers, *, unquoted: bool) -> bytes | None:
    try:
        return KeyReader("Idempotency-Key", unquoted=unquoted).read(headers)
    except MalformedKey:
        return None


def test_none_is_none() -> None:
    assert KeyReader("Idempotency-Key", unquoted=True).read(Headers([(b"Idempotency", b"a")])) is None


@pytest.mark.parametrize("second", [b"a", b"b", b""])
def test_two_are_none(second: bytes) -> None:
    headers = Headers([(b"Idempotency-Key", b"a"), (b"X", b"y"), (b"idempotency-key", second)])
    with pytest.raises(MalformedKey, match="more than one"):
        KeyReader("Idempotency-Key", unquoted=True).read(headers)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=LONGEST))
def test_any_text_of_visible_ascii_can_be_a_key(text: str) -> None:
    value = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert read(Headers([(b"Idempotency-Key", value.encode())]), unquoted=False) == text.encode()


@given(st.binary(max_size=40))
def test_whatever_comes_is_a_key_or_is_refused(value: bytes) -> None:
    headers = Headers()
    headers.put_parsed(b"Idempotency-Key", value)
    key = read(headers, unquoted=True)
    assert key is None or (0 < len(key) <= LONGEST and all(0x20 <= byte <= 0x7E for byte in key))


Parts = tuple[str, str, str, str | None, bytes | None, bytes]


def print_of(parts: Parts) -> bytes:
    method, host, path, query, content_type, content = parts
    headers = Headers([] if content_type is None else [(b"Content-Type", content_type)])
    return asyncio.run(fingerprint(Request(method, path, query, headers, host=host), content))


words = st.sampled_from(["", "a", "b", "/", "?", "'", "', '"])
maybe = st.one_of(st.none(), words.map(str.encode))
parts = st.tuples(words, words, words, st.one_of(st.none(), words), maybe, words.map(str.encode))


@given(parts, parts)
def test_a_fingerprint_tells_requests_apart(one: Parts, other: Parts) -> None:
    assert (print_of(one) == print_of(other)) is (one == other)


@pytest.mark.parametrize("size", [0, 1, 128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 300_000])
def test_all_of_the_content_counts(size: int) -> None:
    content = bytes(size)
    whole = print_of(("POST", "", "/", None, None, content))
    assert whole != print_of(("POST", "", "/", None, None, content + b"\0"))
    if size:
        assert whole != print_of(("POST", "", "/", None, None, content[:-1] + b"\1"))
