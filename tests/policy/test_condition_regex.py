"""Regular expressions in conditions: which are taken, and that no client can make one slow."""

from __future__ import annotations

import time

import pytest

from portico.errors import HeadTooLarge
from portico.policy.condition.error import Fault
from portico.policy.condition.regex import LONGEST, SHORTEST, compile_regex

TAKEN = {
    "": LONGEST,
    "orders": LONGEST,
    r"^/v[12]/orders/\d+$": LONGEST,
    "^/a(/[^/]+)*$": LONGEST,
    r"^(?:\.\d+)*$": LONGEST,
    "^foo.*bar": LONGEST,
    "(?i)^(get|put)+$": LONGEST,
    r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$": LONGEST,
    r"^(\d{1,3}\.){3}\d{1,3}$": LONGEST,
    r"\.(png|jpe?g|gif)$": LONGEST,
    "foo.*bar": 1024,
    "[0-9]+$": 1024,
    "^a.*b.*c": 1024,
    "(foo|bar)+": 1024,
    "[a-z]{1,64}": 1024,
    "(a|ab)" * 12: SHORTEST,
}


@pytest.mark.parametrize(("pattern", "longest"), TAKEN.items())
def test_how_long_a_text_may_be(pattern: str, longest: int) -> None:
    matches = compile_regex(pattern, 0)
    matches("x" * longest)
    with pytest.raises(HeadTooLarge, match=f"more than {longest} characters"):
        matches("x" * (longest + 1))


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+", "(a*)*b", "(a|ab)*", "(a|a?)+", "(x+x+)+y", "(?:a|)*", "(/[^/]*[^/]*)*", "(-[a-z-]+)*", "(a++)*"),
        *("((a{0,16}){0,16}){0,16}", "a?" * 30 + "a" * 30, ".*a.*b", "^.*a.*b.*c", "(.*a){9}", "([^/]+/?)*"),
        *("^(a{1,16}){1,16}$", "^" + "a?" * 30 + "a{30}$", "^(a|ab|b){16}$"),
    ],
)
def test_what_could_be_slow_is_refused(pattern: str) -> None:
    with pytest.raises(Fault, match="could take too long"):
        compile_regex(pattern, 0)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?=a)", "cannot have look-around"),
        ("(?<!a)b", "cannot have look-around"),
        (r"(a)\1", "cannot have a back-reference"),
        ("(a)(?(1)b|c)", "cannot have a back-reference"),
        ("(?m)^a", r"only \(\?i\) and \(\?s\)"),
        ("(?x) a", r"only \(\?i\) and \(\?s\)"),
        ("(?m:^a)", r"only \(\?i\) and \(\?s\)"),
        ("(", "is not a regular expression"),
        ("[[a]", "is not a regular expression"),
        ("a{2,1}", "is not a regular expression"),
    ],
)
def test_what_is_refused_for_other_reasons(pattern: str, message: str) -> None:
    with pytest.raises(Fault, match=message):
        compile_regex(pattern, 0)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("b", "abc", True),
        ("^b", "abc", False),
        ("^abc$", "abc", True),
        ("^abc$", "abc\n", False),
        (r"c\$", "abc$", True),
        ("[$]$", "abc$", True),
        ("[]$]", "]", True),
        (r"^\w+$", "Zoë", False),
        (r"\d", "٣", False),
        ("(?i)^ABC", "abc", True),
        ("a.c", "a\nc", False),
        ("(?s)a.c", "a\nc", True),
    ],
)
def test_what_matches(pattern: str, text: str, found: bool) -> None:
    assert compile_regex(pattern, 0)(text) is found


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("foo.*bar", "foo" * 341),
        ("[0-9]+$", "1" * 1023 + "x"),
        ("^.*a.*b", "a" * 1024),
        ("^(/[^/]+)*$", "/a" * 4095 + "//"),
        ("(foo|bar)+x", "foobar" * 170),
        (r"^(\d{1,3}\.){3}\d{1,3}$", "1" * LONGEST),
        ("(a|ab)" * 12, "ab" * 128),
    ],
)
def test_the_worst_text_takes_a_moment(pattern: str, text: str) -> None:
    matches = compile_regex(pattern, 0)
    began = time.process_time()
    matches(text)
    assert time.process_time() - began < 0.5
