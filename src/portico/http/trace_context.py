"""The place of a request in a trace, as headers say it: Trace Context (W3C, level 2), and B3 in both of its forms.

What is malformed is as if it were not there: then a trace of one's own begins (Trace Context section 3.2.2.3).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

from portico.http.headers import Headers
from portico.observe.exchange import Exchange, Trace

W3C: Final = 1
B3: Final = 2
B3_MULTI: Final = 4
"""Forms of headers, to be added up."""

SAMPLED: Final = 1
RANDOM: Final = 2
"""What the flags of a trace say (Trace Context section 3.2.2.5): that it is recorded, and that the right-hand 56 bits
of its id are random. All others have no meaning yet, and are not passed on."""

MALFORMED: Final = -1
UNDECIDED: Final = -1

MAX_MEMBERS: Final = 32
"""Members of a tracestate (section 3.3.1.1)."""
MAX_STATE: Final = 8 * 1024
"""Bytes of a tracestate; 512 are to be passed on at least (section 3.3.1.5)."""

FIELDS: Final = (
    b"traceparent",
    b"tracestate",
    b"baggage",
    b"b3",
    b"x-b3-traceid",
    b"x-b3-spanid",
    b"x-b3-parentspanid",
    b"x-b3-sampled",
    b"x-b3-flags",
)
"""All that says something of a trace."""

_HEX: Final = b"0123456789abcdef"
_DASHES: Final = b"---"
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_WHOLE: Final = 55
"""Characters of a traceparent of version 00; later ones have as many at least."""
_DASH: Final = 0x2D
_FLAGS: Final = ("00", "01", "02", "03")
_AFTER_DIGITS: Final = 0x3A

_MEMBER: Final = re.compile(
    rb"([a-z0-9][a-z0-9_\-*/@]{0,255})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_B3: Final = re.compile(rb"([0-9a-f]{32}|[0-9a-f]{16})-([0-9a-f]{16})(?:-([01d]))?(?:-[0-9a-f]{16})?")
_TRACE: Final = re.compile(rb"[0-9a-f]{32}|[0-9a-f]{16}")
_SPAN: Final = re.compile(rb"[0-9a-f]{16}")
_DECISIONS: Final = {b"0": 0, b"1": SAMPLED, b"d": SAMPLED, b"true": SAMPLED, b"false": 0}

_IDS_AT_ONCE: Final = 4096
"""Hexadecimal digits that are drawn at once: asking the system for a few costs as much as for many."""


class Ids:
    """Makes ids that nobody can guess."""

    __slots__ = ("_at", "_digits")

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def span(self) -> str:
        """Return an id for a span: 16 hexadecimal digits."""
        return self._take(16)

    def trace(self) -> str:
        """Return an id for a trace: 32 hexadecimal digits."""
        return self._take(32)

    def both(self) -> str:
        """Return an id for a trace and one for a span: 32 hexadecimal digits, and 16 more."""
        return self._take(48)

    def _take(self, count: int) -> str:
        at = self._at
        end = at + count
        if end > len(self._digits):
            self._digits = os.urandom(_IDS_AT_ONCE // 2).hex()
            at, end = 0, count
        self._at = end
        return self._digits[at:end]


class Given:
    """What a request says of the trace that it belongs to."""

    __slots__ = ("decision", "flags", "parent_id", "trace_id")

    def __init__(self, trace_id: str, parent_id: str, flags: int, decision: int) -> None:
        """`trace_id` is empty where it says no more than whether to record it."""
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.flags = flags
        self.decision = decision
        """Whether it is recorded: SAMPLED, 0, or UNDECIDED."""


def flags_of(value: bytes) -> int:
    """Return what is known of the flags of a traceparent: SAMPLED and RANDOM; or MALFORMED (sections 3.2.2, 4.3)."""
    length = len(value)
    if length != _WHOLE:
        if length < _WHOLE or value[_WHOLE] != _DASH or value[:2] == b"00":
            return MALFORMED
        value = value[:_WHOLE]
    # What is no digit must be the three dashes: deleting tells more quickly than a regular expression.
    if value.translate(None, _HEX) != _DASHES or value[2] != _DASH or value[35] != _DASH or value[52] != _DASH:
        return MALFORMED
    if value[:2] == b"ff" or value[3:35] == _NO_TRACE or value[36:52] == _NO_SPAN:
        return MALFORMED
    digit = value[54]
    return (digit if digit < _AFTER_DIGITS else digit + 9) & 3


def traceparent(trace_id: str, span_id: str, flags: int) -> bytes:
    """Return the header's value; of the flags SAMPLED and RANDOM are told."""
    return f"00-{trace_id}-{span_id}-{_FLAGS[flags & 3]}".encode("ascii")


def tracestate(values: Sequence[bytes]) -> bytes:
    """Return what several headers say together; empty where it is not sound, which makes all of it void (section 3.3).

    A key that stands twice is not sound, nor are more than MAX_MEMBERS; empty members are left out.
    """
    if sum(map(len, values)) > MAX_STATE:
        return b""
    members = [member for value in values for each in value.split(b",") if (member := each.strip(b" \t"))]
    if len(members) > MAX_MEMBERS:
        return b""
    keys = set()
    for member in members:
        match = _MEMBER.fullmatch(member)
        if match is None:
            return b""
        keys.add(match[1])
    return b",".join(members) if len(keys) == len(members) else b""


def read(headers: Headers, form: int) -> Given | None:
    """Return what `headers` say in one form; None where they say nothing, or nothing sound."""
    if form == W3C:
        return _read_w3c(headers)
    return _read_b3(headers) if form == B3 else _read_b3_multi(headers)


def _read_w3c(headers: Headers) -> Given | None:
    values = headers.get_all(b"traceparent")
    if len(values) != 1:  # of several none is the right one
        return None
    value = values[0]
    flags = flags_of(value)
    if flags == MALFORMED:
        return None
    return Given(value[3:35].decode("ascii"), value[36:52].decode("ascii"), flags, flags & SAMPLED)


def _read_b3(headers: Headers) -> Given | None:
    values = headers.get_all(b"b3")
    if len(values) != 1:
        return None
    value = values[0]
    if value in (b"0", b"1", b"d"):
        return Given("", "", 0, _DECISIONS[value])
    match = _B3.fullmatch(value)
    if match is None:
        return None
    return _of_b3(match[1], match[2], _DECISIONS.get(match[3], UNDECIDED))


def _read_b3_multi(headers: Headers) -> Given | None:
    index = headers.index
    decision = UNDECIDED
    if index.get(b"x-b3-flags") == b"1":  # debug, which is to be recorded whatever else is said
        decision = SAMPLED
    else:
        decision = _DECISIONS.get(index.get(b"x-b3-sampled", b""), UNDECIDED)
    traces, spans = headers.get_all(b"x-b3-traceid"), headers.get_all(b"x-b3-spanid")
    if not traces and not spans and decision != UNDECIDED:
        return Given("", "", 0, decision)
    if len(traces) != 1 or len(spans) != 1:
        return None
    if _TRACE.fullmatch(traces[0]) is None or _SPAN.fullmatch(spans[0]) is None:
        return None
    return _of_b3(traces[0], spans[0], decision)


def _of_b3(trace: bytes, span: bytes, decision: int) -> Given | None:
    trace_id = trace.rjust(32, b"0")
    if trace_id == _NO_TRACE or span == _NO_SPAN:
        return None
    return Given(trace_id.decode("ascii"), span.decode("ascii"), 0, decision)


def tell(headers: Headers, forms: int, exchange: Exchange, span_id: str, parent_id: str, flags: int) -> None:
    """Have `headers` say, in all of these forms, that a request is sent by a span of the exchange's trace."""
    trace_id = exchange.trace_id
    if forms & W3C:
        headers.put(b"traceparent", traceparent(trace_id, span_id, flags))
    if forms & B3:
        last = f"-{parent_id}" if parent_id else ""
        headers.put(b"b3", f"{trace_id}-{span_id}-{flags & SAMPLED}{last}".encode("ascii"))
    if forms & B3_MULTI:
        headers.put(b"x-b3-traceid", trace_id.encode("ascii"))
        headers.put(b"x-b3-spanid", span_id.encode("ascii"))
        headers.put(b"x-b3-sampled", b"1" if flags & SAMPLED else b"0")
        headers.remove(b"x-b3-flags")
        if parent_id:
            headers.put(b"x-b3-parentspanid", parent_id.encode("ascii"))
        else:
            headers.remove(b"x-b3-parentspanid")


def tell_try(exchange: Exchange, trace: Trace, headers: Headers) -> None:
    """Have `headers` say that a request is sent by the next try of an exchange that is recorded: a span of its own."""
    exchange.try_span = os.urandom(8).hex()
    tell(headers, trace.forms, exchange, exchange.try_span, exchange.span_id, trace.flags)
