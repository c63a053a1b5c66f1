"""What a route makes of what a request says of its trace: whom it believes, and what is recorded."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import random

import pytest

from portico.http.forwarded import Client, Trust
from portico.http.headers import Headers
from portico.http.message import Request
from portico.http.trace_context import B3, B3_MULTI, W3C, tell_try
from portico.observe.exchange import Exchange
from portico.runtime.tracer import Force, Rules, Tracer

TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"
SECRET = b"a secret of some length"
NOW = 1_767_225_600


def begin(tracer: Tracer, *fields: tuple[str, str], peer: str = "192.0.2.7") -> Request:
    headers = Headers((name.encode(), value.encode()) for name, value in fields)
    request = Request("GET", "/", None, headers, client=Client(peer, 1, 80, "http"), exchange=Exchange(0.0))
    assert request.exchange is not None
    tracer.begin(request.exchange, request)
    return request


def exchange_of(request: Request) -> Exchange:
    assert request.exchange is not None
    return request.exchange


def said(request: Request) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in request.headers}


def tracer(share: float = 0.0, *, order: tuple[int, ...] = (W3C,), follow: bool = True, **given: object) -> Tracer:
    trust, force = given.get("trust"), given.get("force")
    assert trust is None or isinstance(trust, Trust)
    assert force is None or isinstance(force, Force)
    return Tracer(Rules(order, follow, trust, force), share)


@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
def test_a_trace_goes_on_with_a_span_of_ours(flags: str) -> None:
    request = begin(tracer(), ("Accept", "*/*"), ("TraceParent", f"00-{TRACE}-{SPAN}-{flags}"), ("baggage", "a=1"))
    exchange = exchange_of(request)
    assert exchange.trace_id == TRACE
    assert exchange.span_id != SPAN
    assert len(exchange.span_id) == 16
    assert exchange.sampled is (flags in ("01", "03"))
    assert (exchange.trace and exchange.trace.parent_id) == (SPAN if exchange.sampled else None)
    assert said(request) == {
        "Accept": "*/*",
        "TraceParent": f"00-{TRACE}-{exchange.span_id}-{flags}",
        "baggage": "a=1",
    }


def test_a_later_version_is_answered_in_ours() -> None:
    request = begin(tracer(), ("traceparent", f"cc-{TRACE}-{SPAN}-09-more"))
    assert said(request) == {"traceparent": f"00-{TRACE}-{exchange_of(request).span_id}-01"}


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (("traceparent", f"00-{TRACE}-{SPAN}-0"),),
        (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("traceparent", f"00-{TRACE}-{SPAN}-01")),
    ],
)
def test_without_a_sound_one_a_trace_begins(fields: tuple[tuple[str, str], ...]) -> None:
    request = begin(tracer(1.0), *fields, ("tracestate", "a=1"))
    exchange = exchange_of(request)
    assert exchange.trace_id not in ("", TRACE)
    assert exchange.sampled
    assert exchange.trace is not None
    assert exchange.trace.parent_id == ""
    assert said(request) == {"traceparent": f"00-{exchange.trace_id}-{exchange.span_id}-03"}


@pytest.mark.parametrize(
    ("states", "left"),
    [(["a=1"], ["a=1"]), (["a=1", "b=2"], ["a=1,b=2"]), (["a=1", "a=2"], []), (["A=1"], []), ([" a=1 , "], ["a=1"])],
)
def test_a_tracestate_is_passed_on_where_it_is_sound(states: list[str], left: list[str]) -> None:
    fields = [("traceparent", f"00-{TRACE}-{SPAN}-00"), *(("tracestate", state) for state in states)]
    request = begin(tracer(), *fields)
    assert [value.decode() for value in request.headers.get_all(b"tracestate")] == left
    assert exchange_of(request).trace_id == TRACE


def sampled(tracer: Tracer, trace_id: str, flags: str = "00") -> bool:
    request = begin(tracer, ("traceparent", f"00-{trace_id}-{SPAN}-{flags}"))
    told = said(request)["traceparent"].endswith(("1", "3"))
    assert told is exchange_of(request).sampled
    return told


@pytest.mark.parametrize("share", [0.0, 0.001, 0.25, 0.5, 1.0])
def test_what_is_recorded_is_exactly_the_share(share: float) -> None:
    by_id = tracer(share, follow=False)
    edge = round(share * 2**56)
    for head in ("0" * 18, "f" * 18):
        assert not sampled(by_id, f"{head}{min(edge, 2**56 - 1):014x}") or share == 1.0
        assert edge == 0 or sampled(by_id, f"{head}{edge - 1:014x}"[:32].rjust(32, "1"))
    rng = random.Random(7)
    ids = [f"{rng.getrandbits(128):032x}" for _ in range(4000)]
    assert sum(sampled(by_id, each) for each in ids) == sum(int(each[18:], 16) < edge for each in ids)


def test_two_who_decide_by_the_same_share_decide_the_same() -> None:
    one, other = tracer(0.5, follow=False), tracer(0.5, follow=False)
    rng = random.Random(7)
    for _ in range(200):
        each = f"{rng.getrandbits(128):032x}"
        assert sampled(one, each) is sampled(other, each, "01")


def test_a_parent_is_followed_whatever_the_share() -> None:
    assert sampled(tracer(0.0), TRACE, "01")
    assert not sampled(tracer(1.0), TRACE, "00")


def test_only_trusted_proxies_are_believed() -> None:
    trust = Trust([ipaddress.ip_network("10.0.0.0/8")])
    fields = [
        ("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=1"), ("baggage", "user=1"), ("b3", "1"),
        ("X-B3-Flags", "1"), ("A", "1"),
    ]  # fmt: skip
    careful = tracer(0.0, trust=trust)
    for _ in range(2):  # also where it is remembered who is trusted
        request = begin(careful, *fields)
        exchange = exchange_of(request)
        assert exchange.trace_id != TRACE
        assert not exchange.sampled
        assert said(request) == {"A": "1", "traceparent": f"00-{exchange.trace_id}-{exchange.span_id}-02"}
        request = begin(careful, *fields, peer="10.1.2.3")
        assert exchange_of(request).trace_id == TRACE
        assert exchange_of(request).sampled
        assert said(request)["baggage"] == "user=1"


def test_the_first_form_that_is_there_is_believed_and_all_are_told() -> None:
    both = tracer(0.0, order=(B3, W3C, B3_MULTI))
    other = "f" * 32
    request = begin(both, ("traceparent", f"00-{other}-{SPAN}-00"), ("b3", f"{TRACE}-{SPAN}-1"), ("tracestate", "a=1"))
    span = exchange_of(request).span_id
    assert said(request) == {
        "traceparent": f"00-{TRACE}-{span}-01",
        "b3": f"{TRACE}-{span}-1-{SPAN}",
        "x-b3-traceid": TRACE,
        "x-b3-spanid": span,
        "x-b3-sampled": "1",
        "x-b3-parentspanid": SPAN,
    }
    request = begin(both, ("traceparent", f"00-{other}-{SPAN}-00"), ("tracestate", "a=1"))
    assert exchange_of(request).trace_id == other
    assert said(request)["tracestate"] == "a=1"


def test_a_decision_without_ids_is_kept() -> None:
    for decision in ("0", "1"):
        request = begin(tracer(0.5, order=(B3,)), ("b3", decision))
        exchange = exchange_of(request)
        assert exchange.sampled is (decision == "1")
        assert said(request) == {"b3": f"{exchange.trace_id}-{exchange.span_id}-{decision}"}


def test_what_is_of_no_form_that_is_read_passes() -> None:
    request = begin(tracer(order=(B3,)), ("traceparent", "whatever"), ("tracestate", "a=1"))
    assert said(request)["traceparent"] == "whatever"
    assert said(request)["tracestate"] == "a=1"


def signed(until: int, secret: bytes = SECRET) -> str:
    return f"{until}.{hmac.new(secret, f'trace until {until}'.encode(), hashlib.sha256).hexdigest()}"


@pytest.mark.parametrize(
    ("value", "believed"),
    [
        (signed(NOW + 60), True),
        (signed(NOW), True),
        (signed(NOW + 3600), True),
        (signed(NOW + 3601), False),
        (signed(NOW - 1), False),
        (signed(NOW + 60, b"another secret, as long"), False),
        (signed(NOW + 60).upper(), False),
        (signed(NOW + 60)[:-1], False),
        (f"{NOW + 60}", False),
        (f"{NOW + 60}.", False),
        ("." + signed(NOW + 60), False),
        ("9" * 200 + ".a", False),
        ("", False),
        ("é.é", False),
    ],
)
def test_a_signed_header_has_a_request_recorded(value: str, believed: bool) -> None:
    force = Force(b"x-trace-force", SECRET, 3600.0, lambda: float(NOW))
    for fields in ((), (("traceparent", f"00-{TRACE}-{SPAN}-00"),)):
        request = begin(tracer(0.0, force=force), *fields, ("X-Trace-Force", value))
        assert exchange_of(request).sampled is believed
        assert b"x-trace-force" not in request.headers
        assert said(request)["traceparent"].endswith(("1", "3")) is believed


def test_each_try_of_what_is_recorded_is_a_span_of_its_own() -> None:
    request = begin(tracer(1.0), ("traceparent", f"00-{TRACE}-{SPAN}-03"))
    exchange = exchange_of(request)
    assert exchange.trace is not None
    spans = []
    for _ in range(2):
        tell_try(exchange, exchange.trace, request.headers)
        spans.append(exchange.try_span)
        assert said(request) == {"traceparent": f"00-{TRACE}-{exchange.try_span}-03"}
    assert len({*spans, exchange.span_id, SPAN}) == 4
