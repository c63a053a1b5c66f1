"""Which claim a path leads to, where more than one could be meant."""

from __future__ import annotations

from typing import Any

import pytest

from portico.jose.rules import claim_at, words_at

BOTH = {
    "a": {"b": "within", "b.c": "dots", "b_": {"c": 1}},
    "a.b": "own",
    "x": {"y": {"z": ["w"]}},
    "n": None,
    "t": "t",
}
CASES: list[tuple[str, object]] = [
    ("a.b", "own"),  # the whole path is a name: that wins
    ("a.b.c", None),  # and is on no way any more
    ("a.b_.c", 1),
    ("x.y.z", ["w"]),
    ("x.y", {"z": ["w"]}),
    ("x.y.q", None),
    ("t.t", None),
    ("n", None),
    ("n.n", None),
    ("", None),
    (".", None),
    ("https://shop.example/roles", None),
]


@pytest.mark.parametrize(("path", "expected"), CASES)
def test_which_claim_is_meant(path: str, expected: object) -> None:
    assert claim_at(BOTH, path) == expected


def test_a_name_that_is_a_url() -> None:
    claims = {"https://shop.example/roles": ["own"], "https://shop": {"example/roles": ["within"]}}
    assert claim_at(claims, "https://shop.example/roles") == ["own"]
    assert claim_at({"https://shop": {"example/roles": ["within"]}}, "https://shop.example/roles") == ["within"]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"r.s": ["own"], "r": {"s": ["within"]}}, {"own"}),
        ({"r": {"s": ["within"]}}, {"within"}),
        ({"r.s": {"no": "words"}, "t": "a  b"}, {"a", "b"}),  # as if it were not there
        ({"r.s": [], "t": "a"}, set()),  # there, and none
        ({"r.s": ["a", 1, "", None, "b c"]}, {"a", "b c"}),
        ({"r.s": 1}, set()),
    ],
)
def test_words(claims: dict[str, Any], expected: set[str]) -> None:
    assert words_at(claims, ("r.s", "t")) == expected
