"""The compiled matcher against the linear evaluation of `explain`, which knows nothing of tries."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from portico.http.headers import Headers
from portico.http.message import Request
from portico.routing.candidate import Candidate
from portico.routing.entry import Absent, Condition, Entry, Equals, Matches, Part, Present
from portico.routing.explain import explain
from portico.routing.matcher import ALLOWED_METHODS, Matcher
from portico.routing.pattern import HostPattern, PathPattern, parse_host_pattern, parse_path
from portico.routing.preflight import UNANSWERED_PREFLIGHT
from portico.routing.shadow import find_shadows
from portico.routing.trie import Trie

SEGMENTS = ["a", "b", "ab", "abb", "{x}", "{y}", "*", "a*", "*b", "a*b", "*a*b"]


def _distinct(segments: list[str]) -> bool:
    names = [segment for segment in segments if segment.startswith("{")]
    return len(set(names)) == len(names)


patterns = st.builds(
    lambda segments, end: "/" + "/".join(segments) + end if segments else end or "/",
    st.lists(st.sampled_from(SEGMENTS), max_size=4).filter(_distinct),
    st.sampled_from(["", "", "/", "/**"]),
) | st.sampled_from(["~/.*", "~.*", "~/a.*", "~/(?P<x>[^/]*)/b", "~/(a|(?P<y>b))+", "~[*]"])
hosts = st.sampled_from(["*", "a.com", "b.a.com", "*.com", "*.a.com", "*.b.a.com"])
parts = st.sampled_from(Part)
keys = st.sampled_from(["p", "q"])
values = st.sampled_from(["1", "2"])
regexes = st.sampled_from([re.compile("1|3"), re.compile(".*")])
conditions: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Present, parts, keys),
    st.builds(Absent, parts, keys),
    st.builds(Equals, parts, keys, values),
    st.builds(Matches, parts, keys, regexes),
)
methods = st.none() | st.frozensets(st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS"]), max_size=3)
preflights = st.sampled_from(
    [
        [],
        [(b"Origin", b"https://a.com")],
        [(b"Access-Control-Request-Method", b"GET")],
        *(
            [(b"Origin", b"null"), (b"Access-Control-Request-Method", method), *asked]
            for method in (b"GET", b"POST", b"PATCH")
            for asked in ([], [(b"Access-Control-Request-Headers", b" P,, r")])
        ),
    ]
)


@st.composite
def tables(draw: st.DrawFn) -> list[Entry[int]]:
    return [
        Entry(
            order,
            order,
            tuple(map(parse_path, draw(st.lists(patterns, max_size=3)))),
            tuple(map(parse_host_pattern, draw(st.lists(hosts, max_size=2)))),
            draw(methods),
            tuple(draw(st.lists(conditions, max_size=2))),
            draw(st.sampled_from([0, 0, 0, 1, -1])),
            draw(st.booleans()),
        )
        for order in range(draw(st.integers(0, 12)))
    ]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    segments = draw(st.lists(st.sampled_from(["a", "b", "ab", "abb", "ba", "%20"]), max_size=5))
    path = "/" + "/".join(segments) + draw(st.sampled_from(["", "/"])) if segments else draw(st.sampled_from("/*"))
    pairs = st.lists(st.tuples(keys, values), max_size=2)
    headers = [(name.encode(), value.encode()) for name, value in draw(pairs)]
    cookies = "; ".join(f"{name}={value}" for name, value in draw(pairs))
    query = "&".join(f"{name}={value}" for name, value in draw(pairs))
    return Request(
        draw(st.sampled_from(["GET", "HEAD", "POST", "OPTIONS"])),
        path,
        query or None,
        Headers([*headers, (b"Cookie", cookies.encode()), *draw(preflights)]),
        host=draw(st.sampled_from(["", "com", "a.com", "b.a.com", "c.b.a.com", "c.a.com", "a.org"])),
    )


@settings(max_examples=300)
@given(tables(), st.lists(requests(), min_size=1, max_size=8))
def test_the_matcher_does_what_linear_evaluation_does(table: list[Entry[int]], batch: list[Request]) -> None:
    matcher = Matcher(table, -404, -405)
    for request in batch:
        expected = explain(table, request)
        payload = matcher.match(request)
        if expected.winner is not None:
            assert payload == expected.winner.payload
            assert request.captures == expected.captures
        elif expected.allowed:
            assert payload == -405
            assert request[ALLOWED_METHODS] == expected.allowed
        else:
            assert payload == -404


@settings(max_examples=300)
@given(tables(), st.lists(requests(), min_size=1, max_size=8))
def test_a_head_that_comes_again_finds_what_it_has_found(table: list[Entry[int]], batch: list[Request]) -> None:
    matcher, apart = Matcher(table, -1, -2), Matcher(table, -1, -2)
    for request in batch:
        wanted = apart.match(request)
        head = object()
        for _ in range(3):
            again = Request(request.method, request.path, request.query, request.headers, host=request.host, known=head)
            assert matcher.match(again) == wanted
            assert again.captures == request.captures
            assert again.get(ALLOWED_METHODS) == request.get(ALLOWED_METHODS)
            assert again.get(UNANSWERED_PREFLIGHT) == request.get(UNANSWERED_PREFLIGHT)


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "{x}", "a*", "*b"]), min_size=1, max_size=3), max_size=20),
    st.lists(st.sampled_from(["", "/", "/**"]), min_size=20, max_size=20),
    st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4),
)
def test_every_way_through_the_trie_is_found(shapes: list[list[str]], ends: list[str], segments: list[str]) -> None:
    texts = ["/" + "/".join(shape).replace("{x}", "*") + end for shape, end in zip(shapes, ends, strict=False)]
    trie: Trie[str] = Trie()
    for text in texts:
        trie.place(parse_path(text)).append(text)
    for path in ("/" + "/".join(segments), "/" + "/".join(segments) + "/"):
        found = [text for each in trie.find(path) for text in each]
        assert sorted(found) == sorted(text for text in texts if parse_path(text).match(path))


@settings(max_examples=300)
@given(tables(), st.lists(requests(), min_size=1, max_size=8))
def test_what_is_shadowed_never_wins(table: list[Entry[int]], batch: list[Request]) -> None:
    shadowed = {_identity(shadow.candidate): shadow.by for shadow in find_shadows(table)}
    for request in batch:
        winner = explain(table, request).winner
        assert winner is None or _identity(winner) not in shadowed


def _identity(candidate: Candidate[int]) -> tuple[int, HostPattern, PathPattern]:
    return candidate.payload, candidate.host, candidate.path
