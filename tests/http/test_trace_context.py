"""The place of a request in a trace, by the vectors of Trace Context's own tests, and those of B3."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.http.headers import Headers
from portico.http.trace_context import (
    B3,
    B3_MULTI,
    MALFORMED,
    RANDOM,
    SAMPLED,
    UNDECIDED,
    W3C,
    Ids,
    flags_of,
    read,
    tell,
    traceparent,
    tracestate,
)
from portico.observe.exchange import Exchange

TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"
GOOD = f"00-{TRACE}-{SPAN}"


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (f"{GOOD}-00", 0),
        (f"{GOOD}-01", SAMPLED),
        (f"{GOOD}-02", RANDOM),
        (f"{GOOD}-03", SAMPLED | RANDOM),
        (f"{GOOD}-ff", SAMPLED | RANDOM),
        (f"{GOOD}-f8", 0),
        (f"{GOOD}-0a", RANDOM),
        (f"{GOOD}-1b", SAMPLED | RANDOM),
        (f"00-{'a' * 32}-{'f' * 16}-01", SAMPLED),
        # later versions
        (f"cc-{TRACE}-{SPAN}-01", SAMPLED),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", SAMPLED),
        (f"01-{TRACE}-{SPAN}-00-", 0),
        (f"cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like", MALFORMED),
        (f"cc-{TRACE}-{SPAN}-012", MALFORMED),
        (f"cc-{TRACE}-{SPAN}", MALFORMED),
        (f"ff-{TRACE}-{SPAN}-01", MALFORMED),
        (f"ff-{TRACE}-{SPAN}-01-x", MALFORMED),
        # version 00 has nothing more
        (f"{GOOD}-01.", MALFORMED),
        (f"{GOOD}-01-", MALFORMED),
        (f"{GOOD}-01-what-the-future-will-be-like", MALFORMED),
        # lengths
        ("", MALFORMED),
        (GOOD, MALFORMED),
        (f"{GOOD}-", MALFORMED),
        (f"{GOOD}-1", MALFORMED),
        (f"{GOOD}-001", MALFORMED),
        (f"000-{TRACE}-{SPAN}-01", MALFORMED),
        (f"0000-{TRACE}-{SPAN}-01", MALFORMED),
        (f"0-{TRACE}-{SPAN}-01", MALFORMED),
        (f"00-{TRACE}3-{SPAN}-01", MALFORMED),
        (f"00-{TRACE[1:]}-{SPAN}-01", MALFORMED),
        (f"00-{TRACE}-{SPAN}7-01", MALFORMED),
        (f"00-{TRACE}-{SPAN[1:]}-01", MALFORMED),
        (f"00-{TRACE[1:]}-{SPAN}7-01", MALFORMED),  # as long as it has to be
        (f"00-{TRACE}3-{SPAN[1:]}-01", MALFORMED),
        # characters
        (f".0-{TRACE}-{SPAN}-01", MALFORMED),
        (f"0.-{TRACE}-{SPAN}-01", MALFORMED),
        (f"00-.{TRACE[1:]}-{SPAN}-01", MALFORMED),
        (f"00-{TRACE[1:]}.-{SPAN}-01", MALFORMED),
        (f"00-{TRACE}-.{SPAN[1:]}-01", MALFORMED),
        (f"00-{TRACE}-{SPAN[1:]}.-01", MALFORMED),
        (f"{GOOD}-.0", MALFORMED),
        (f"{GOOD}-0.", MALFORMED),
        (f"00-{'A' * 32}-{SPAN}-01", MALFORMED),
        (f"00-{TRACE}-{'F' * 16}-01", MALFORMED),
        (f"{GOOD}-0A", MALFORMED),
        (f"CC-{TRACE}-{SPAN}-01", MALFORMED),
        (f"00_{TRACE}_{SPAN}_01", MALFORMED),
        (f"00-{TRACE[:-1]}--{SPAN[1:]}-01", MALFORMED),
        (f"-00-{TRACE[1:]}-{SPAN}-1", MALFORMED),
        # ids of zeros
        (f"00-{'0' * 32}-{SPAN}-01", MALFORMED),
        (f"00-{TRACE}-{'0' * 16}-01", MALFORMED),
    ],
)
def test_a_traceparent_is_read_strictly(value: str, flags: int) -> None:
    assert flags_of(value.encode()) == flags


@given(st.text("0123456789abcdefABCDEF-.", min_size=50, max_size=60))
def test_what_is_taken_has_the_form(text: str) -> None:
    if flags_of(text.encode()) != MALFORMED:
        version, trace, span, flags, *_ = text.split("-")
        assert (len(version), len(trace), len(span), len(flags)) == (2, 32, 16, 2)
        assert not set(version + trace + span + flags) - set("0123456789abcdef")


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 3))
def test_what_is_written_is_read(trace: int, span: int, flags: int) -> None:
    value = traceparent(f"{trace:032x}", f"{span:016x}", flags)
    found = read(Headers([(b"traceparent", value)]), W3C)
    assert found is not None
    assert (found.trace_id, found.parent_id) == (f"{trace:032x}", f"{span:016x}")
    assert (found.flags, found.decision) == (flags, flags & SAMPLED)


def test_of_several_traceparents_none_counts() -> None:
    assert read(Headers([(b"traceparent", f"{GOOD}-01".encode())] * 2), W3C) is None


KEY = string.ascii_lowercase + string.digits + "_-*/@"
VALUE = "".join(map(chr, (*range(0x20, 0x2C), *range(0x2D, 0x3D), *range(0x3E, 0x7F))))


@pytest.mark.parametrize(
    ("values", "state"),
    [
        (["foo=1"], "foo=1"),
        (["foo=1,bar=2"], "foo=1,bar=2"),
        (["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3"),
        (["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
        ([" foo=1"], "foo=1"),
        (["\t foo=1 \t"], "foo=1"),
        (["foo= 1"], "foo= 1"),
        (["foo=1", ""], "foo=1"),
        (["", "foo=1"], "foo=1"),
        (["foo=1,,bar=2"], "foo=1,bar=2"),
        ([f"{KEY}={VALUE}"], f"{KEY}={VALUE}"),
        (["1a=2"], "1a=2"),  # level 2: a digit may come first, and "@" stand anywhere
        (["foo@=1,bar=2"], "foo@=1,bar=2"),
        ([f"{'a' * 256}=1"], f"{'a' * 256}=1"),
        ([f"a={'b' * 256}"], f"a={'b' * 256}"),
        ([",".join(f"a{n}=1" for n in range(32))], ",".join(f"a{n}=1" for n in range(32))),
        ([",".join(f"a{n}=1" for n in range(33))], ""),
        ([f"{'a' * 257}=1"], ""),
        ([f"a={'b' * 257}"], ""),
        ([""], ""),
        ([], ""),
        (["foo=1,foo=1"], ""),
        (["foo=1,foo=2"], ""),
        (["foo=1", "foo=2"], ""),
        (["foo =1"], ""),
        (["FOO=1"], ""),
        (["foo.bar=1"], ""),
        (["@foo=1,bar=2"], ""),
        (["foo"], ""),
        (["foo="], ""),
        (["=1"], ""),
        (["foo=bar=baz"], ""),
        (["foo=\x07"], ""),
        (["foo=1;bar=2,bar"], ""),
        ([",".join(f"a{n}={'b' * 256}" for n in range(32))], ""),  # more than is passed on
    ],
)
def test_a_tracestate_is_taken_whole_or_not_at_all(values: list[str], state: str) -> None:
    assert tracestate([value.encode() for value in values]) == state.encode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90", (TRACE, SPAN, SAMPLED)),
        (f"{TRACE}-{SPAN}-0", (TRACE, SPAN, 0)),
        (f"{TRACE}-{SPAN}-d", (TRACE, SPAN, SAMPLED)),
        (f"{TRACE}-{SPAN}", (TRACE, SPAN, UNDECIDED)),
        (f"{SPAN}-{SPAN}-1", ("0" * 16 + SPAN, SPAN, SAMPLED)),
        ("0", ("", "", 0)),
        ("1", ("", "", SAMPLED)),
        ("d", ("", "", SAMPLED)),
        ("2", None),
        ("", None),
        (f"{TRACE}-{SPAN}-2", None),
        (f"{TRACE}-{SPAN}-1-xyz", None),
        (f"{TRACE[1:]}-{SPAN}-1", None),
        (f"{'A' * 32}-{SPAN}-1", None),
        (f"{'0' * 32}-{SPAN}-1", None),
        (f"{TRACE}-{'0' * 16}-1", None),
    ],
)
def test_b3_in_one_header(value: str, expected: tuple[str, str, int] | None) -> None:
    found = read(Headers([(b"b3", value.encode())]), B3)
    assert (found and (found.trace_id, found.parent_id, found.decision)) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"TraceId": TRACE, "SpanId": SPAN, "Sampled": "1"}, (TRACE, SPAN, SAMPLED)),
        ({"TraceId": TRACE, "SpanId": SPAN, "Sampled": "true"}, (TRACE, SPAN, SAMPLED)),
        ({"TraceId": TRACE, "SpanId": SPAN, "Sampled": "0"}, (TRACE, SPAN, 0)),
        ({"TraceId": TRACE, "SpanId": SPAN, "Flags": "1"}, (TRACE, SPAN, SAMPLED)),
        ({"TraceId": TRACE, "SpanId": SPAN, "Flags": "1", "Sampled": "0"}, (TRACE, SPAN, SAMPLED)),
        ({"TraceId": TRACE, "SpanId": SPAN}, (TRACE, SPAN, UNDECIDED)),
        ({"TraceId": TRACE, "SpanId": SPAN, "Sampled": "?"}, (TRACE, SPAN, UNDECIDED)),
        ({"Sampled": "1"}, ("", "", SAMPLED)),
        ({"Sampled": "0"}, ("", "", 0)),
        ({"TraceId": TRACE, "Sampled": "1"}, None),
        ({"SpanId": SPAN}, None),
        ({"TraceId": "x", "SpanId": SPAN}, None),
        ({}, None),
    ],
)
def test_b3_in_several_headers(fields: dict[str, str], expected: tuple[str, str, int] | None) -> None:
    headers = Headers((f"X-B3-{name}".encode(), value.encode()) for name, value in fields.items())
    found = read(headers, B3_MULTI)
    assert (found and (found.trace_id, found.parent_id, found.decision)) == expected


def told(forms: int, parent: str, flags: int, *before: tuple[bytes, bytes]) -> dict[str, str]:
    exchange = Exchange(0.0)
    exchange.trace_id = TRACE
    headers = Headers(before)
    tell(headers, forms, exchange, SPAN, parent, flags)
    return {name.decode(): value.decode() for name, value in headers}


def test_services_are_told_in_every_form() -> None:
    assert told(W3C | B3 | B3_MULTI, "05e3ac9a4f6e3b90", SAMPLED | RANDOM) == {
        "traceparent": f"00-{TRACE}-{SPAN}-03",
        "b3": f"{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90",
        "x-b3-traceid": TRACE,
        "x-b3-spanid": SPAN,
        "x-b3-sampled": "1",
        "x-b3-parentspanid": "05e3ac9a4f6e3b90",
    }


def test_what_was_said_before_is_not_said_beside_it() -> None:
    before = [(b"A", b"1"), (b"X-B3-Flags", b"1"), (b"X-B3-ParentSpanId", b"a" * 16), (b"X-B3-SpanId", b"b" * 16)]
    assert told(B3_MULTI, "", 0, *before) == {
        "A": "1",
        "X-B3-SpanId": SPAN,
        "x-b3-traceid": TRACE,
        "x-b3-sampled": "0",
    }


def test_ids_are_of_their_length_and_never_the_same() -> None:
    ids = Ids()
    spans = [ids.span() for _ in range(1000)]
    traces = [ids.trace() for _ in range(1000)]
    assert {len(each) for each in spans} == {16}
    assert {len(each) for each in traces} == {32}
    assert len({*spans, *traces}) == 2000
