from __future__ import annotations

import re

import pytest

from portico.routing.entry import Absent, Condition, Entry, Equals, Matches, Part, Present
from portico.routing.pattern import parse_host_pattern, parse_path
from portico.routing.shadow import find_shadows

HEADER, QUERY = Part.HEADER, Part.QUERY
VERSION = Equals(HEADER, "x", "1")


def entry(
    order: int,
    *paths: str,
    hosts: str = "",
    methods: str | None = None,
    conditions: tuple[Condition, ...] = (),
    priority: int = 0,
) -> Entry[int]:
    return Entry(
        order,
        order,
        tuple(map(parse_path, paths)),
        tuple(map(parse_host_pattern, hosts.split())),
        None if methods is None else frozenset(methods.split()),
        conditions,
        priority,
    )


def shadows(*entries: Entry[int]) -> list[tuple[int, str, str, int]]:
    found = find_shadows(entries)
    return [
        (each.candidate.payload, each.candidate.host.text, each.candidate.path.text, each.by.payload) for each in found
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (entry(0, "/a"), entry(1, "/a")),
        (entry(0, "/a/{x}"), entry(1, "/a/{y}")),
        (entry(0, "/a/*/b"), entry(1, "/a/{y}/b")),
        (entry(0, "/a/*"), entry(1, "/a/**")),
        (entry(0, "/a*"), entry(1, "/a*")),
        (entry(0, "~/a+"), entry(1, "~/a+")),
        (entry(0, "~/.*"), entry(1, "/a/{x}")),
        (entry(0, "~.*"), entry(1, "~/a")),
        (entry(0, "/a", methods="GET POST"), entry(1, "/a", methods="POST")),
        (entry(0, "/a", methods="GET"), entry(1, "/a", methods="HEAD")),
        (entry(0, "/a", hosts="a.com"), entry(1, "/a", hosts="a.com")),
        (entry(0, "/a", conditions=(VERSION,)), entry(1, "/a", conditions=(VERSION,))),
        (entry(0, "/a", conditions=(Present(HEADER, "X"),)), entry(1, "/a", conditions=(VERSION,))),
        (
            entry(0, "/a", conditions=(Present(QUERY, "x"),)),
            entry(1, "/a", conditions=(Matches(QUERY, "x", re.compile("1")),)),
        ),
        (entry(0, "/**", priority=1), entry(1, "/a")),
        (entry(0, "/**", priority=1), entry(1, "/a", hosts="a.com", methods="GET", conditions=(VERSION,))),
        (entry(0, "/a/*/**", priority=1), entry(1, "/a/b*/c")),
        (entry(0, "/a/**", priority=1), entry(1, "/a")),
        (entry(0, "/a/**", priority=1), entry(1, "/a/b/**")),
        (entry(0, "/*g", priority=1), entry(1, "/*.png", conditions=(VERSION,))),
        (entry(0, "/{x}", priority=1), entry(1, "/*.png")),
        (entry(0, "/a", hosts="*.a.com", priority=1), entry(1, "/a", hosts="b.a.com")),
        (entry(0, "/a", hosts="*.a.com", priority=1), entry(1, "/a", hosts="*.b.a.com")),
    ],
)
def test_what_is_shadowed(first: Entry[int], second: Entry[int]) -> None:
    assert [(who, by) for who, _, _, by in shadows(first, second)] == [(1, 0)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (entry(0, "/a"), entry(1, "/a/")),
        (entry(0, "/**"), entry(1, "/a")),
        (entry(0, "/{x}"), entry(1, "/a*")),
        (entry(0, "/a/{x}", priority=1), entry(1, "/a/**")),
        (entry(0, "/a/{x}/**", priority=1), entry(1, "/a/**")),
        (entry(0, "/a/{x}", priority=1), entry(1, "/a/")),
        (entry(0, "/*.png", priority=1), entry(1, "/*g")),
        (entry(0, "/a*", priority=1), entry(1, "/{x}")),
        (entry(0, "~/a", priority=1), entry(1, "~/b")),
        (entry(0, "~/.*"), entry(1, "/a")),
        (entry(0, "~/.*"), entry(1, "~.*")),
        (entry(0, "/a", methods="GET"), entry(1, "/a", methods="GET PUT")),
        (entry(0, "/a", methods="GET HEAD"), entry(1, "/a")),
        (entry(0, "/a", hosts="a.com"), entry(1, "/a")),
        (entry(0, "/a", hosts="*.a.com", priority=1), entry(1, "/a", hosts="a.com")),
        (entry(0, "/a", conditions=(VERSION,)), entry(1, "/a")),
        (entry(0, "/a", conditions=(VERSION,)), entry(1, "/a", conditions=(Equals(HEADER, "x", "2"),))),
        (entry(0, "/a", conditions=(Present(HEADER, "x"),)), entry(1, "/a", conditions=(Present(QUERY, "x"),))),
        (entry(0, "/a", conditions=(Absent(HEADER, "x"),)), entry(1, "/a", conditions=(VERSION,))),
        (entry(0, "/a", "/a"), entry(1, "/b", "/b")),
    ],
)
def test_what_is_not(first: Entry[int], second: Entry[int]) -> None:
    assert shadows(first, second) == []


def test_each_path_and_host_by_itself() -> None:
    found = shadows(
        entry(0, "/a", hosts="a.com"),
        entry(1, "/b", hosts="b.com"),
        entry(2, "/a", "/b", "/c", hosts="a.com b.com"),
    )
    assert found == [(2, "a.com", "/a", 0), (2, "b.com", "/b", 1)]


def test_one_of_many_shadows_is_named_and_it_is_none_that_is_shadowed_itself() -> None:
    assert shadows(entry(0, "/a"), entry(1, "/a"), entry(2, "/a")) == [(1, "*", "/a", 0), (2, "*", "/a", 0)]


@pytest.mark.parametrize(
    "make",
    [
        lambda number: entry(number, f"/a{number}/{{id}}"),
        lambda number: entry(number, "/**", hosts=f"h{number}.a.com"),
        lambda number: entry(number, "/a", conditions=(Equals(HEADER, "tenant", str(number)), Present(QUERY, "x"))),
        lambda number: entry(number, "/a", methods="GET" if number % 2 else "PUT", priority=number),
        lambda number: entry(number, f"/r{number}-*.csv"),
        lambda number: entry(number, f"~/a{number}"),
    ],
)
def test_ten_thousand_routes(make: object) -> None:
    # Comparing each with each would take longer than the time limit.
    assert callable(make)
    entries = [make(number) for number in range(10_000)]
    found = {shadow.candidate.payload for shadow in find_shadows(entries)}
    assert found == (set(range(9_998)) if entries[0].priority != entries[1].priority else set())
