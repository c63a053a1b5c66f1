from __future__ import annotations

import re

from portico.http.headers import Headers
from portico.http.message import Request
from portico.routing.entry import Absent, Entry, Equals, Matches, Part, Present
from portico.routing.explain import explain
from portico.routing.pattern import parse_host_pattern, parse_path

VERSION_LACKS = (
    "header x-version is 'v2' and 'v3', not 'v1'; query parameter debug is absent, not present; "
    "cookie session is '1', not absent; header x-tenant is absent, not one that matches t[0-9]+"
)


def table() -> list[Entry[str]]:
    host = (parse_host_pattern("*.a.com"), parse_host_pattern("a.com"))
    get = frozenset({"GET"})
    asked = (
        Equals(Part.HEADER, "X-Version", "v1"),
        Present(Part.QUERY, "debug"),
        Absent(Part.COOKIE, "session"),
        Matches(Part.HEADER, "x-tenant", re.compile("t[0-9]+")),
    )
    return [
        Entry("all", 0, (parse_path("/**"),)),
        Entry("low", 1, (parse_path("/orders/**"),), priority=-1),
        Entry("host", 2, (parse_path("/orders/**"),), host),
        Entry("elsewhere", 3, (parse_path("/users/{id}"), parse_path("/users"))),
        Entry("post", 4, (parse_path("/orders/{id}"),), methods=frozenset({"POST", "PUT"})),
        Entry("version", 5, (parse_path("/orders/{id}"),), methods=get, conditions=asked),
        Entry("get", 6, (parse_path("/orders/*"), parse_path("/orders/{id}")), methods=get),
        Entry("late", 7, (parse_path("/orders/{number}"),), methods=get),
        Entry("regex", 8, (parse_path("~/nothing"),)),
        Entry("open", 9, (parse_path("/orders/{id}"),)),
    ]


def reasons(request: Request) -> dict[str, str]:
    return {verdict.entry.payload: verdict.reason for verdict in explain(table(), request).verdicts}


def test_each_route_is_told_why_it_lost() -> None:
    headers = Headers([(b"X-Version", b"v2"), (b"x-version", b"v3"), (b"cookie", b"session=1")])
    explanation = explain(table(), Request("GET", "/orders/7", None, headers, host="b.com"))
    assert [(verdict.entry.payload, verdict.reason) for verdict in explanation.verdicts] == [
        ("host", "host 'b.com' does not match *.a.com, a.com"),
        ("elsewhere", "path /orders/7 does not match /users/{id}, /users"),
        ("regex", "path /orders/7 does not match ~/nothing"),
        ("version", VERSION_LACKS),
        ("post", "method GET is not one of POST, PUT"),
        ("get", "won: /orders/{id} takes the request"),
        ("late", "lost to the same path earlier in the list: /orders/{id}"),
        ("open", "lost to the same path with methods: /orders/{id}"),
        ("all", "lost to a more specific path: /orders/{id}"),
        ("low", "lost to a higher priority: 0"),
    ]
    assert [verdict.won for verdict in explanation.verdicts].index(True) == 5
    assert [verdict.entry.payload for verdict in explanation.verdicts if not verdict.near] == [
        "host",
        "elsewhere",
        "regex",
    ]
    assert explanation.captures == {"id": "7"}
    assert explanation.allowed == ()


def test_a_more_specific_host_and_conditions_are_named() -> None:
    assert reasons(Request("GET", "/orders/7", host="x.a.com"))["get"] == "lost to a more specific host: *.a.com"
    headers = Headers([(b"x-version", b"v1"), (b"x-tenant", b"t1")])
    request = Request("GET", "/orders/7", "debug", headers)
    assert reasons(request)["get"] == "lost to the same path with more header conditions: /orders/{id}"


def test_a_miss_and_a_wrong_method() -> None:
    entries = table()[4:6]
    wrong = explain(entries, Request("PATCH", "/orders/7"))
    assert (wrong.winner, wrong.allowed) == (None, ("POST", "PUT"))
    assert [verdict.won for verdict in wrong.verdicts] == [False, False]
    nothing = explain(entries, Request("PATCH", "/orders"))
    assert (nothing.winner, nothing.allowed) == (None, ())
