from __future__ import annotations

import re

import pytest

from portico.http.headers import Headers
from portico.http.message import Request
from portico.routing.entry import Absent, Condition, Entry, Equals, Matches, Part, Present
from portico.routing.matcher import ALLOWED_METHODS, Matcher
from portico.routing.pattern import parse_host_pattern, parse_path

HEADER, QUERY, COOKIE = Part.HEADER, Part.QUERY, Part.COOKIE
NO_ROUTE, WRONG_METHOD = "no-route", "wrong-method"


def entry(
    name: str,
    *paths: str,
    hosts: str = "",
    methods: str | None = None,
    conditions: tuple[Condition, ...] = (),
    priority: int = 0,
) -> Entry[str]:
    return Entry(
        name,
        0,
        tuple(map(parse_path, paths)),
        tuple(map(parse_host_pattern, hosts.split())),
        None if methods is None else frozenset(methods.split()),
        conditions,
        priority,
    )


def matcher(*entries: Entry[str]) -> Matcher[str]:
    listed = [
        Entry(each.payload, order, each.paths, each.hosts, each.methods, each.conditions, each.priority)
        for order, each in enumerate(entries)
    ]
    return Matcher(listed, NO_ROUTE, WRONG_METHOD)


def get(path: str, query: str | None = None, host: str = "", method: str = "GET", **headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(method, path, query, Headers(pairs), host=host)


def names(*paths: str) -> list[Entry[str]]:
    return [entry(path, path) for path in paths]


@pytest.mark.parametrize(
    ("path", "winner"),
    [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/**"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/**"),
        ("/a/c", "/a/{id}"),
        ("/a/x.png", "/a/*.png"),
        ("/a/img-x.png", "/a/img-*.png"),
        ("/a/r7", "~/a/r[0-9]"),
        ("/a/c/d", "/a/*/d"),
        ("/a/b/d", "/a/b/**"),
        ("/a/c/e", "/a/**"),
        ("/a/b/c/d/e", "/a/b/**"),
        ("/z/z/d", "/{x}/**"),
        ("/%20", "/{x}"),
    ],
)
def test_the_most_specific_path_wins_in_any_order(path: str, winner: str) -> None:
    table = names("/", "/a", "/a/**", "/a/b", "/a/b/**", "/a/{id}", "/a/*.png", "/a/img-*.png", "~/a/r[0-9]")
    table += names("/a/*/d", "/{x}/**", "/{x}", "/**")
    for entries in (table, table[::-1]):
        assert matcher(*entries).match(get(path)) == winner


@pytest.mark.parametrize(
    ("first", "second", "request_"),
    [
        (entry("", "/**", priority=1), entry("", "/a"), get("/a")),
        (entry("", "/**", hosts="a.com"), entry("", "/a", hosts="*.com"), get("/a", host="a.com")),
        (entry("", "/**", hosts="*.a.com"), entry("", "/a", hosts="*.com"), get("/a", host="x.a.com")),
        (entry("", "/**", hosts="*.com"), entry("", "/a"), get("/a", host="a.com")),
        (entry("", "/a"), entry("", "~/a"), get("/a")),
        (entry("", "~/.*"), entry("", "/{x}"), get("/a")),
        (entry("", "/{x}"), entry("", "/{x}/**"), get("/a")),
        (entry("", "/a/**"), entry("", "/{x}/b/c/d"), get("/a/b/c/d")),
        (entry("", "/a", methods="GET"), entry("", "/a", conditions=(Present(HEADER, "x"),)), get("/a", x="1")),
        (
            entry("", "/a", conditions=(Present(HEADER, "x"),)),
            entry("", "/a", conditions=(Present(QUERY, "x"), Present(QUERY, "y"))),
            get("/a", "x&y", x="1"),
        ),
        (entry("", "/a", conditions=(Present(COOKIE, "x"),)), entry("", "/a"), get("/a", cookie="x=1")),
    ],
)
def test_what_goes_before_what(first: Entry[str], second: Entry[str], request_: Request) -> None:
    one = Entry("first", 0, first.paths, first.hosts, first.methods, first.conditions, first.priority)
    two = Entry("second", 0, second.paths, second.hosts, second.methods, second.conditions, second.priority)
    assert matcher(one, two).match(request_) == "first"
    assert matcher(two, one).match(request_) == "first"
    assert matcher(two).match(request_) == "second"


@pytest.mark.parametrize("path", ["/a", "/{x}", "/a*", "/a/**", "~/.*"])
def test_the_order_of_the_list_breaks_ties(path: str) -> None:
    entries = [entry("1", path), entry("2", path)]
    assert matcher(*entries).match(get("/a")) == "1"
    assert matcher(*entries[::-1]).match(get("/a")) == "2"


def test_regular_expressions_are_tried_in_the_order_of_the_list() -> None:
    entries = [entry("1", "~/a.*"), entry("2", "~/abc", methods="GET"), entry("3", "~/a.c", priority=1)]
    assert matcher(*entries[:2]).match(get("/abc")) == "1"
    assert matcher(*entries).match(get("/abc")) == "3"


def test_globs_of_one_length_tie() -> None:
    entries = [entry("1", "/a*"), entry("2", "/*b"), entry("3", "/*", methods="GET")]
    assert matcher(*entries).match(get("/ab")) == "1"
    assert matcher(*entries[1::-1]).match(get("/ab")) == "2"


def test_a_route_that_does_not_want_the_request_leaves_it_to_the_next() -> None:
    routes = matcher(
        entry("exact", "/a/b", hosts="x.a.com", methods="PUT"),
        entry("capture", "/a/{id}", hosts="x.a.com", conditions=(Equals(HEADER, "x", "1"),)),
        entry("tail", "/a/**", hosts="*.a.com", conditions=(Equals(QUERY, "x", "1"),)),
        entry("wide", "/**", conditions=(Absent(COOKIE, "x"),)),
    )
    host = "x.a.com"
    assert routes.match(get("/a/b", host=host, method="PUT")) == "exact"
    assert routes.match(get("/a/b", host=host, x="1")) == "capture"
    assert routes.match(get("/a/b", "x=1", host=host)) == "tail"
    assert routes.match(get("/a/b", host=host)) == "wide"
    assert routes.match(get("/a/b", host="x.b.com")) == "wide"
    assert routes.match(get("/a/c", host=host, cookie="x=1")) == NO_ROUTE


@pytest.mark.parametrize(
    ("host", "winner"),
    [
        ("a.example.com", "exact"),
        ("b.example.com", "narrow"),
        ("c.b.example.com", "narrower"),
        ("d.c.b.example.com", "narrower"),
        ("example.com", "wide"),
        ("a.org", "any"),
        ("", "any"),
        ("[::1]", "six"),
        ("[::2]", "any"),
        ("com", "any"),
        ("." * 300, "any"),
    ],
)
def test_hosts(host: str, winner: str) -> None:
    routes = matcher(
        entry("any", "/**"),
        entry("wide", "/**", hosts="*.com"),
        entry("narrow", "/**", hosts="*.example.com"),
        entry("narrower", "/**", hosts="*.b.example.com"),
        entry("exact", "/**", hosts="other.org a.example.com"),
        entry("six", "/**", hosts="[::1]"),
    )
    assert routes.match(get("/a", host=host)) == winner


def test_an_entry_without_paths_or_hosts_takes_any() -> None:
    assert matcher(entry("all")).match(get("/a/b", host="a.com")) == "all"
    assert matcher(entry("all", hosts="*")).match(get("/a/b", host="a.com")) == "all"
    assert matcher().match(get("/")) == NO_ROUTE


def test_one_entry_may_have_several_paths() -> None:
    routes = matcher(entry("both", "/a/{x}", "/b/{y}/{x}", "/a/**", "/a/q"), entry("other", "/a/p"))
    request = get("/b/1/2")
    assert routes.match(request) == "both"
    assert request.captures == {"y": "1", "x": "2"}
    request = get("/a/q")
    assert routes.match(request) == "both"
    assert request.captures == {}
    assert routes.match(get("/a/p")) == "other"


def test_captures_are_those_of_the_winner() -> None:
    routes = matcher(
        entry("1", "/a/{one}", methods="PUT"),
        entry("2", "/a/{two}", methods="GET"),
        entry("3", "~/b/(?P<three>.*)"),
    )
    request = get("/a/%C3%A9%2F")
    assert routes.match(request) == "2"
    assert request.captures == {"two": "é/"}
    request = get("/b/x%20y")
    assert routes.match(request) == "3"
    assert request.captures == {"three": "x y"}


def test_captures_are_left_alone_where_the_route_has_none() -> None:
    request = get("/a")
    before = request.captures
    assert matcher(entry("a", "/a")).match(request) == "a"
    assert request.captures is before


def test_head_comes_with_get_but_nothing_else_does() -> None:
    routes = matcher(entry("get", "/a", methods="GET"), entry("post", "/a", methods="POST"))
    assert routes.match(get("/a", method="HEAD")) == "get"
    assert routes.match(get("/a", method="get")) == WRONG_METHOD


def test_a_path_that_exists_under_another_method() -> None:
    routes = matcher(
        entry("1", "/a/{id}", methods="GET POST"),
        entry("2", "/a/**", methods="PUT", hosts="*.a.com"),
        entry("3", "~/a/.*", methods="PATCH"),
        entry("4", "/a/x", methods="DELETE"),
        entry("5", "/a/x", methods="PURGE", conditions=(Present(HEADER, "x"),)),
    )
    request = get("/a/x", method="TRACE", host="x.a.com")
    assert routes.match(request) == WRONG_METHOD
    assert request[ALLOWED_METHODS] == ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
    request = get("/a/y", method="TRACE", host="b.com")
    assert routes.match(request) == WRONG_METHOD
    assert request[ALLOWED_METHODS] == ("GET", "HEAD", "PATCH", "POST")
    request = get("/b", method="TRACE")
    assert routes.match(request) == NO_ROUTE
    assert request.get(ALLOWED_METHODS) is None


def test_a_method_that_would_not_help_is_not_allowed() -> None:
    routes = matcher(
        entry("1", "/a", methods="POST", conditions=(Equals(HEADER, "x", "1"),)),
        entry("2", "/a", methods="GET", conditions=(Equals(HEADER, "x", "2"),)),
    )
    assert routes.match(get("/a", x="3", method="PUT")) == NO_ROUTE
    request = get("/a", x="1")
    assert routes.match(request) == WRONG_METHOD
    assert request[ALLOWED_METHODS] == ("POST",)


def test_the_asterisk_of_options_is_no_path() -> None:
    assert matcher(*names("/**", "/{x}", "/")).match(get("*", method="OPTIONS")) == NO_ROUTE
    assert matcher(*names("/**", "~[*]")).match(get("*", method="OPTIONS")) == "~[*]"


@pytest.mark.parametrize(
    ("condition", "request_", "holds"),
    [
        (Equals(HEADER, "X-Version", "v1"), get("/", x_version="v1"), True),
        (Equals(HEADER, "X-Version", "v1"), get("/", x_version="v12"), False),
        (Equals(HEADER, "X-Version", "v1"), get("/", X_VERSION="V1"), False),
        (Equals(HEADER, "X-Version", "v1"), get("/"), False),
        (Equals(HEADER, "x", "é"), get("/", x="é"), True),
        (Equals(HEADER, "x", "\udcff"), Request("GET", "/", None, Headers([(b"x", b"\xff")])), True),
        (Equals(HEADER, "x", "2"), Request("GET", "/", None, Headers([(b"x", b"1"), (b"X", b"2")])), True),
        (Present(HEADER, "x"), get("/", x=""), True),
        (Present(HEADER, "x"), get("/"), False),
        (Absent(HEADER, "x"), get("/"), True),
        (Absent(HEADER, "x"), get("/", x=""), False),
        (Matches(HEADER, "x", re.compile("v[0-9]+")), get("/", x="v12"), True),
        (Matches(HEADER, "x", re.compile("v[0-9]+")), get("/", x="v12x"), False),
        (Matches(HEADER, "x", re.compile(".*")), get("/"), False),
        (Matches(HEADER, "x", re.compile("2")), Request("GET", "/", None, Headers([(b"x", b"1"), (b"X", b"2")])), True),
        (Equals(QUERY, "a", "1"), get("/", "a=1"), True),
        (Equals(QUERY, "a", "1"), get("/", "b=1&a=2&a=1"), True),
        (Equals(QUERY, "a", "x y/é"), get("/", "%61=x+y%2F%C3%A9"), True),
        (Equals(QUERY, "a", ""), get("/", "a"), True),
        (Equals(QUERY, "a", ""), get("/", ""), False),
        (Equals(QUERY, "A", "1"), get("/", "a=1"), False),
        (Present(QUERY, "a"), get("/", "a="), True),
        (Present(QUERY, "a"), get("/", "aa=1"), False),
        (Absent(QUERY, "a"), get("/"), True),
        (Absent(QUERY, "a"), get("/", "a"), False),
        (Matches(QUERY, "a", re.compile("[0-9]")), get("/", "a=x&a=7"), True),
        (Equals(COOKIE, "a", "1"), get("/", cookie="b=2; a=1"), True),
        (Equals(COOKIE, "a", "1=2"), get("/", cookie="a=1=2;"), True),
        (Equals(COOKIE, "a", '"1"'), get("/", cookie='a="1"'), True),
        (
            Equals(COOKIE, "a", "2"),
            Request("GET", "/", None, Headers([(b"Cookie", b"a=1"), (b"cookie", b"a=2")])),
            True,
        ),
        (Present(COOKIE, "a"), get("/", cookie="a; b=1; =2"), False),
        (Absent(COOKIE, "a"), get("/", cookie="b=a=1"), True),
        (Matches(COOKIE, "a", re.compile("x.")), get("/", cookie="a=xy"), True),
    ],
)
def test_conditions(condition: Condition, request_: Request, holds: bool) -> None:
    routes = matcher(entry("yes", "/", conditions=(condition,)))
    assert routes.match(request_) == ("yes" if holds else NO_ROUTE)


def test_all_conditions_must_hold() -> None:
    routes = matcher(entry("yes", "/", conditions=(Present(HEADER, "x"), Present(QUERY, "y"), Absent(COOKIE, "z"))))
    assert routes.match(get("/", "y", x="1")) == "yes"
    assert routes.match(get("/", "y")) == NO_ROUTE
    assert routes.match(get("/", x="1")) == NO_ROUTE
    assert routes.match(get("/", "y", x="1", cookie="z=1")) == NO_ROUTE


def test_a_condition_needs_a_name_that_a_header_can_have() -> None:
    with pytest.raises(ValueError, match="header name"):
        Present(HEADER, "x y")


def test_compiling_in_steps_comes_to_the_same() -> None:
    entries = [Entry(str(number), number, (parse_path(f"/a{number % 100}/{{x}}"),)) for number in range(500)]
    steps = Matcher.gradually(entries, NO_ROUTE, WRONG_METHOD)
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            routes = stop.value
            break
        count += 1
    assert count > 10
    assert [routes.match(get(f"/a{number}/b")) for number in range(100)] == [str(number) for number in range(100)]


def test_of_heads_that_come_again_only_so_many_are_remembered() -> None:
    matching = matcher(entry("a", "/a"))
    for _ in range(1000):
        assert matching.match(Request("GET", "/a", known=object())) == "a"
    assert len(matching._found) <= 256
