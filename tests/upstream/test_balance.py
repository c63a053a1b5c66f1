from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.upstream.balance import RoundRobin


def turns(weights: dict[str, int], count: int) -> str:
    balancer = RoundRobin(list(weights.items()))
    return "".join(balancer.next() for _ in range(count))


@pytest.mark.parametrize(
    ("weights", "order"),
    [
        ({"a": 1}, "aaa"),
        ({"a": 1, "b": 1, "c": 1}, "abcabc"),
        ({"a": 5, "b": 1, "c": 1}, "aabacaa" * 2),
        ({"a": 10, "b": 20}, "babbab"),
        ({"a": 3, "b": 3}, "abab"),
    ],
)
def test_turns_are_spread_as_nginx_spreads_them(weights: dict[str, int], order: str) -> None:
    assert turns(weights, len(order)) == order


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_each_cycle_gives_each_target_its_weight(weights: list[int]) -> None:
    balancer = RoundRobin(list(enumerate(weights)))
    total = sum(weights)
    for _ in range(2):
        assert Counter(balancer.next() for _ in range(total)) == Counter(dict(enumerate(weights)))


@given(st.integers(2, 30))
def test_a_heavy_targets_turns_are_not_bunched(weight: int) -> None:
    order = turns({"heavy": weight, "light": weight}, 4 * weight).replace("heavy", "h").replace("light", "l")
    assert "hh" not in order
    assert "ll" not in order


def test_the_other_target_is_one_that_was_not_tried() -> None:
    balancer = RoundRobin([("a", 2), ("b", 1), ("c", 1)])
    assert balancer.other([]) == "a"
    assert balancer.other(["a"]) in ("b", "c")
    assert balancer.other(["a", "c"]) == "b"
    assert balancer.other(["a", "b", "c"]) is None
    assert balancer.next() == "a"  # to ask takes nobody's turn


def test_the_targets_are_kept_in_order() -> None:
    assert RoundRobin([("b", 2), ("a", 1)]).targets == ("b", "a")
