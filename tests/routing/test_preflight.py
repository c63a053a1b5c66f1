from __future__ import annotations

import re

import pytest

from portico.http.headers import Headers
from portico.http.message import Request
from portico.routing.entry import Absent, Condition, Entry, Equals, Matches, Part, Present
from portico.routing.explain import explain
from portico.routing.matcher import ALLOWED_METHODS, Matcher
from portico.routing.pattern import parse_path
from portico.routing.preflight import UNANSWERED_PREFLIGHT, asked_about


def preflight(path: str, method: str, *asked: str, query: str | None = None) -> Request:
    headers = Headers([(b"Origin", b"https://a.example"), (b"Access-Control-Request-Method", method.encode())])
    for names in asked:
        headers.add(b"Access-Control-Request-Headers", names.encode())
    return Request("OPTIONS", path, query, headers)


def entry(order: int, path: str, *methods: str, cors: bool, conditions: tuple[Condition, ...] = ()) -> Entry[str]:
    name = f"{path} {','.join(methods)}".strip()
    return Entry(name, order, (parse_path(path),), (), frozenset(methods) or None, conditions, preflights=cors)


def matched(table: list[Entry[str]], request: Request) -> str:
    explanation = explain(table, request)
    payload = Matcher(table, "404", "405").match(request)
    if explanation.winner is not None:
        assert payload == explanation.winner.payload
        assert request.captures == explanation.captures
    return payload


TABLE = [
    entry(0, "/**", cors=True),
    entry(1, "/api/{id}", "GET", "POST", cors=True),
    entry(2, "/api/{id}", "DELETE", cors=False),
    entry(3, "/own/{id}", "PUT", cors=False),
    entry(4, "/own/{id}", "OPTIONS", cors=False),
]


@pytest.mark.parametrize(
    ("path", "method", "route", "unanswered"),
    [
        ("/api/1", "POST", "/api/{id} GET,POST", False),
        ("/api/1", "HEAD", "/api/{id} GET,POST", False),
        ("/api/1", "PUT", "/**", False),
        ("/api/1", "DELETE", "/**", True),  # it is not for /** to answer
        ("/own/1", "PUT", "/own/{id} OPTIONS", True),
        ("/own/1", "OPTIONS", "/own/{id} OPTIONS", True),
        ("/x", "GET", "/**", False),
    ],
)
def test_a_preflight_goes_where_its_request_will_go(path: str, method: str, route: str, unanswered: bool) -> None:
    request = preflight(path, method)
    assert matched(TABLE, request) == route
    assert (request.get(UNANSWERED_PREFLIGHT) is True) is unanswered
    if "{id}" in route:
        assert request.captures == {"id": "1"}


def test_without_a_route_that_takes_more_it_is_a_miss() -> None:
    request = preflight("/api/1", "DELETE")
    assert matched(TABLE[1:], request) == "405"
    assert request[ALLOWED_METHODS] == ("DELETE", "GET", "HEAD", "POST")
    assert matched(TABLE[1:], preflight("/nothing", "GET")) == "404"
    assert matched(TABLE[1:], preflight("/api/1", "")) == "405"


def test_other_requests_are_matched_as_ever() -> None:
    assert matched(TABLE, Request("OPTIONS", "/api/1")) == "/**"
    for name in (b"Origin", b"Access-Control-Request-Method"):
        request = preflight("/api/1", "POST")
        request.headers.remove(name.lower())
        assert asked_about(request) is None
        assert matched(TABLE, request) == "/**"
    request = preflight("/api/1", "POST")
    request.method = "DELETE"
    assert matched(TABLE, request) == "/api/{id} DELETE"


def test_headers_that_are_announced_are_taken_to_be_there() -> None:
    header = Part.HEADER
    table = [
        entry(0, "/v", "GET", cors=False),
        entry(1, "/v", "GET", cors=True, conditions=(Equals(header, "X-Version", "v2"),)),
        entry(2, "/m", "GET", cors=True, conditions=(Matches(header, "X-Version", re.compile("v.")),)),
        entry(3, "/p", "GET", cors=True, conditions=(Present(header, "X-Version"),)),
        entry(4, "/a", "GET", cors=True, conditions=(Absent(header, "X-Version"),)),
        entry(5, "/c", "GET", cors=True, conditions=(Present(Part.COOKIE, "x-version"),)),
        entry(6, "/q", "GET", cors=True, conditions=(Equals(Part.QUERY, "x", "1"),)),
        entry(7, "/o", "GET", cors=True, conditions=(Equals(header, "Origin", "https://a.example"),)),
    ]
    for path, plain, announced in (
        ("/v", "405", "/v GET"),
        ("/m", "404", "/m GET"),
        ("/p", "404", "/p GET"),
        ("/a", "/a GET", "405"),
        ("/c", "404", "404"),
        ("/q", "404", "404"),
        ("/o", "/o GET", "/o GET"),
    ):
        assert matched(table, preflight(path, "GET")) == plain
        assert matched(table, preflight(path, "GET", " a,", "b , X-VERSION\t")) == announced
    assert matched(table, preflight("/q", "GET", query="x=1")) == "/q GET"


def test_it_is_explained() -> None:
    explanation = explain(TABLE, preflight("/api/1", "POST"))
    (won,) = (verdict for verdict in explanation.verdicts if verdict.won)
    assert won.reason == "won: /api/{id} takes the POST that this preflight asks about"
    reasons = {verdict.entry.payload: verdict.reason for verdict in explanation.verdicts}
    assert reasons["/api/{id} DELETE"] == "method POST is not one of DELETE"
    assert reasons["/**"] == "lost to a more specific path: /api/{id}"
