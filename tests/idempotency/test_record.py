from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.http.headers import Headers
from portico.http.message import Response
from portico.idempotency.record import (
    LARGEST_ANSWER,
    LARGEST_HEADERS,
    Standing,
    answer_record,
    recalled,
    unkept_record,
    unknown_record,
)
from portico.state.store import LARGEST_VALUE

MINE = b"m" * 32
OTHER = b"o" * 32

names = st.text("abcXYZ-", min_size=1, max_size=8).map(lambda text: b"x" + text.encode())
values = st.binary(max_size=20).map(lambda value: bytes(byte for byte in value if byte >= 32 and byte != 127))
fields = st.lists(st.tuples(names, values), max_size=5)


@given(st.integers(200, 599), fields, st.binary(max_size=200))
def test_an_answer_comes_back_as_it_was(status: int, pairs: list[tuple[bytes, bytes]], content: bytes) -> None:
    record = answer_record(MINE, Response(status, Headers(pairs)), content)
    assert record is not None
    answer = recalled(record, MINE)
    assert isinstance(answer, Response)
    assert (answer.status, answer.body.whole) == (status, content)
    assert answer.headers.pairs == [*pairs, (b"Idempotency-Replayed", b"true")]


def test_fields_of_one_connection_and_cookies_are_left_out() -> None:
    pairs = [
        (b"Connection", b"keep-alive, X-Hop"),
        (b"X-Hop", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Content-Length", b"3"),
        (b"Set-Cookie", b"a=b"),
        (b"Idempotency-Replayed", b"by the service"),
        (b"X-Kept", b"1"),
    ]
    record = answer_record(MINE, Response(200, Headers(pairs)), b"abc")
    assert record is not None
    answer = recalled(record, MINE)
    assert isinstance(answer, Response)
    assert answer.headers.pairs == [(b"X-Kept", b"1"), (b"Idempotency-Replayed", b"true")]


@pytest.mark.parametrize(("record", "standing"), [(unkept_record, Standing.UNKEPT), (unknown_record, Standing.UNKNOWN)])
def test_what_there_is_instead(record: object, standing: Standing) -> None:
    assert callable(record)
    assert recalled(record(MINE), MINE) is standing
    assert recalled(record(MINE), OTHER) is Standing.REUSED


def test_another_request_s_answer_is_not_shown() -> None:
    record = answer_record(MINE, Response(200), b"mine")
    assert record is not None
    assert recalled(record, OTHER) is Standing.REUSED


@pytest.mark.parametrize("record", [b"", b"a", b"what is this?"])
def test_what_is_no_record_lets_nothing_be_done_twice(record: bytes) -> None:
    assert recalled(record, MINE) is Standing.UNKNOWN


def test_the_largest_answer_has_room_in_a_store() -> None:
    name = b"X" * 100
    most = Response(200, Headers([(name, b"v" * (LARGEST_HEADERS - len(name) - 1))]))
    record = answer_record(MINE, most, bytes(LARGEST_ANSWER))
    assert record is not None
    assert len(record) <= LARGEST_VALUE
    assert answer_record(MINE, Response(200, Headers([(name, b"v" * (LARGEST_HEADERS - len(name)))])), b"") is None
