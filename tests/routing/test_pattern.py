from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.http.target import EncodedSlashes
from portico.routing.pattern import Glob, PatternError, parse_host_pattern, parse_path


@pytest.mark.parametrize(
    ("pattern", "takes", "leaves"),
    [
        ("/", ["/"], ["/a", "*"]),
        ("/a/b", ["/a/b"], ["/a/b/", "/a", "/a/B", "/a/b/c", "/"]),
        ("/a/", ["/a/"], ["/a", "/a/b"]),
        ("/a/{id}", ["/a/1", "/a/%2F"], ["/a", "/a/", "/a/1/", "/a/1/2", "/b/1"]),
        ("/a/{id}/", ["/a/1/"], ["/a/1", "/a/1/2"]),
        ("/{a}/{b}", ["/1/2"], ["/1", "/1/", "/1/2/3"]),
        ("/a/*/b", ["/a/1/b"], ["/a/b", "/a/1/2/b", "/a/1/b/", "/a/1"]),
        (
            "/files/*.png",
            ["/files/a.png", "/files/.png"],
            ["/files/a.PNG", "/files/a/b.png", "/files/a.png/", "/a.png"],
        ),
        ("/a*c*e", ["/ace", "/abcde", "/acce"], ["/ae", "/aec", "/a/c/e", "/ac"]),
        ("/a/*", ["/a", "/a/", "/a/b", "/a/b/c", "/a/b/"], ["/ab", "/", "/b", "/b/a"]),
        ("/a/**", ["/a", "/a/", "/a/b", "/a/b/c", "/a/b/"], ["/ab", "/", "/b"]),
        ("/{x}/**", ["/a", "/a/b/c", "/a/"], ["/"]),
        ("/*/**", ["/a", "/a/b/c", "/a/"], ["/"]),
        ("/*/*", ["/a", "/a/b/c", "/a/"], ["/"]),
        ("/**", ["/", "/a", "/a/b/"], ["*"]),
        ("/*", ["/", "/a", "/a/b/"], ["*"]),
        ("/%7euser/%41", ["/~user/A"], ["/%7Euser/%41"]),
        ("/caf%c3%a9", ["/caf%C3%A9"], []),
        ("/café/*.é", ["/caf%C3%A9/x.%C3%A9"], ["/caf%C3%A9/x.e"]),
        ("/a|b", ["/a%7Cb"], ["/a|b"]),
        ("/a%2fb", ["/a%2Fb"], ["/a/b"]),
        ("~/a/[0-9]+", ["/a/12"], ["/a/", "/a/12/", "/b/a/12", "/a/12\n"]),
        ("~.*", ["/", "*"], []),
    ],
)
def test_what_patterns_take(pattern: str, takes: list[str], leaves: list[str]) -> None:
    parsed = parse_path(pattern)
    assert [path for path in takes if not parsed.match(path)] == []
    assert [path for path in leaves if parsed.match(path)] == []


@pytest.mark.parametrize(
    ("pattern", "path", "captures"),
    [
        ("/a/b", "/a/b", {}),
        ("/a/{id}", "/a/42", {"id": "42"}),
        ("/{a}/x/{b_2}/**", "/1/x/2/3", {"a": "1", "b_2": "2"}),
        ("/*/{id}", "/x/y", {"id": "y"}),
        ("/{id}", "/caf%C3%A9%20%2F%25", {"id": "café /%"}),
        ("/{id}", "/%FF", {"id": "\ufffd"}),
        ("~/(?P<a>[^/]+)/(x|(?P<b>y))", "/%41/x", {"a": "A"}),
        ("~/(?P<a>[^/]+)/(x|(?P<b>y))", "/1/y", {"a": "1", "b": "y"}),
    ],
)
def test_captures(pattern: str, path: str, captures: dict[str, str]) -> None:
    assert parse_path(pattern).captures(path) == captures


@pytest.mark.parametrize(
    ("pattern", "offset", "words"),
    [
        ("", 0, "begins with a slash"),
        ("a/b", 0, "begins with a slash"),
        ("*", 0, "begins with a slash"),
        ("/a/**/b", 3, "only as the last segment"),
        ("/a**", 2, "only as the last segment"),
        ("/**.png", 1, "only as the last segment"),
        ("/a/***", 3, "only as the last segment"),
        ("/a/{id", 3, "without its partner"),
        ("/a/id}", 5, "without its partner"),
        ("/a/{i{d}", 3, "whole segment"),
        ("/a/v{id}", 4, "whole segment"),
        ("/a/{id}.json", 3, "whole segment"),
        ("/a/{}", 4, "no name"),
        ("/a/{1}", 4, "no name"),
        ("/a/{a-b}", 4, "no name"),
        ("/a/{id}/{id}", 8, "twice"),
        ("/a?x=1", 2, "query"),
        ("/a#x", 2, "fragment"),
        ("/a b", 2, "white space"),
        ("/a\n", 2, "white space"),
        (" /a", 0, "begins with a slash"),
        ("/a\\b", 2, "backslash"),
        ("/a%zz", 2, "hexadecimal"),
        ("/a%", 2, "hexadecimal"),
        ("/a%00", 2, "no request"),
        ("/a\x07", 2, "no request"),
        ("/a\ud800", 2, "no request"),
        ("/a//b", 2, "one slash"),
        ("/a/../b", 3, "dot segments"),
        ("/a/.", 3, "dot segments"),
        ("/a/%2e%2E/b", 3, "dot segments"),
        ("/a/..;/b", 2, "refused"),
        ("/a%2f../b", 2, "refused"),
        ("~", 1, "missing"),
        ("~/a(b", 3, "not a regular expression"),
        ("~/(?P<a>.)(?P<a>.)", 14, "not a regular expression"),
    ],
)
def test_bad_patterns_say_what_is_wrong_and_where(pattern: str, offset: int, words: str) -> None:
    with pytest.raises(PatternError, match=words) as caught:
        parse_path(pattern)
    assert caught.value.offset == offset
    assert f"at offset {offset}" in str(caught.value)


def test_a_pattern_with_an_encoded_slash_needs_requests_that_keep_it() -> None:
    assert parse_path("/a%5Cb", EncodedSlashes.DECODE).match("/a%5Cb")
    for pattern, slashes in (
        ("/a%2Fb", EncodedSlashes.DECODE),
        ("/a%2fb", EncodedSlashes.REJECT),
        ("/a%5cb", EncodedSlashes.REJECT),
    ):
        with pytest.raises(PatternError, match="can never match"):
            parse_path(pattern, slashes)


@given(st.text("ab*", min_size=1, max_size=8).filter(lambda shape: "*" in shape), st.text("abc", max_size=10))
def test_globs_take_what_regular_expressions_would(shape: str, segment: str) -> None:
    assert Glob(shape).takes(segment) == bool(re.fullmatch(fnmatch.translate(shape), segment))


def test_a_glob_does_not_backtrack() -> None:
    assert not Glob("*a" * 50 + "*b").takes("a" * 100_000)


@pytest.mark.parametrize(
    ("pattern", "takes", "leaves"),
    [
        ("example.com", ["example.com"], ["a.example.com", "example.org", ""]),
        ("EXAMPLE.com.", ["example.com"], []),
        ("*.example.com", ["a.example.com", "a.b.example.com"], ["example.com", ".example.com", "aexample.com"]),
        ("*.com", ["a.com"], ["com"]),
        ("*", ["example.com", ""], []),
        ("[2001:DB8::0]", ["[2001:db8::]"], []),
    ],
)
def test_what_host_patterns_take(pattern: str, takes: list[str], leaves: list[str]) -> None:
    parsed = parse_host_pattern(pattern)
    assert all(parsed.match(host) for host in takes)
    assert not any(parsed.match(host) for host in leaves)
    for host in takes:
        assert not host or parsed in parse_host_pattern(host).wider()


@pytest.mark.parametrize(
    ("pattern", "offset", "words"),
    [
        ("", 0, "not a host"),
        ("*.", 2, "not a host"),
        ("a.*.com", 2, "leftmost"),
        ("*a.com", 0, "leftmost"),
        ("*.*.com", 2, "leftmost"),
        ("**", 0, "leftmost"),
        ("a.com:80", 5, "port"),
        ("[::1]:80", 5, "port"),
        ("bücher.example", 0, "xn--"),
        ("http://a.com", 0, "not a host"),
        ("*.[::1]", 0, "address"),
    ],
)
def test_bad_host_patterns(pattern: str, offset: int, words: str) -> None:
    with pytest.raises(PatternError, match=words) as caught:
        parse_host_pattern(pattern)
    assert caught.value.offset == offset
