from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.upstream.balance.round_robin import MAX_CYCLE, RoundRobin, cycle
from portico.upstream.target import Target
from tests.harness.targets import GET, a_target, counted, maker, some_targets


def turns(weights: dict[str, int], count: int) -> str:
    balancer = RoundRobin([a_target(name, weight) for name, weight in weights.items()])
    return "".join(balancer.pick(GET).address for _ in range(count))


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
    targets = some_targets(weights)
    balancer = RoundRobin(targets)
    for _ in range(2):
        assert counted(balancer, sum(weights)) == {target: target.weight for target in targets}


@given(st.integers(2, 30))
def test_a_heavy_targets_turns_are_not_bunched(weight: int) -> None:
    order = turns({"h": weight, "l": weight}, 4 * weight)
    assert "hh" not in order
    assert "ll" not in order


def gaps(order: list[Target], target: Target) -> list[int]:
    """Return how many turns lie between one of `target` and its next, the last and the first included."""
    at = [place for place, of in enumerate(order) if of is target]
    return [(after - before) % len(order) or len(order) for before, after in zip(at, [*at[1:], at[0]], strict=True)]


def test_turns_of_many_targets_are_spread_evenly() -> None:
    targets = some_targets([1000, *[100] * 10, *[1] * 100])
    order = cycle(targets)
    assert Counter(order) == {target: target.weight for target in targets}
    assert max(gaps(order, targets[0])) <= 4  # 2.1 on average
    assert max(gaps(order, targets[5])) <= 26  # 21 on average
    light = [place for place, of in enumerate(order) if of.weight == 1]
    assert max(after - before for before, after in pairwise(light)) <= 63  # 21 on average


@pytest.mark.parametrize("count", [2, 20, 200, 1000])
def test_a_long_cycle_is_cut_short_and_keeps_the_proportions(count: int) -> None:
    rng = Random(count)
    targets = some_targets([rng.randint(1, 60_000) for _ in range(count)])
    targets[0].weight, targets[-1].weight = 600_000, 1
    order = cycle(targets)
    assert len(order) <= MAX_CYCLE + count
    counts, weights = Counter(order), sum(target.weight for target in targets)
    assert counts[targets[-1]] == 1
    errors = {of: abs(counts[of] / len(order) * weights / of.weight - 1) for of in targets}
    assert errors[targets[0]] < 0.005
    bigger = sorted(targets, key=lambda target: target.weight)[count // 2 :]
    assert mean(errors[target] for target in bigger) < 0.015


def test_more_targets_than_a_cycle_has_turns_all_have_one() -> None:
    targets = some_targets([1, 2] * MAX_CYCLE)
    assert set(cycle(targets)) == set(targets)


def test_a_target_that_starts_slowly_has_a_part_of_its_turns() -> None:
    slow, *others = targets = [a_target("slow", 2, share=0.1), a_target("b", 2), a_target("c", 2)]
    counts = Counter(cycle(targets))
    assert counts[others[0]] == counts[others[1]]
    assert abs(counts[slow] / counts[others[0]] - 0.1) < 0.002


def test_workers_begin_at_different_turns() -> None:
    targets = some_targets([3, 2, 1])
    firsts = Counter(maker("round-robin", seed)(targets).pick(GET) for seed in range(300))
    assert [firsts[target] / 50 for target in targets] == pytest.approx([3, 2, 1], rel=0.2)
    last = RoundRobin(targets, 0.999)
    assert [last.pick(GET) for _ in range(7)] == [cycle(targets)[-1], *cycle(targets)]


def test_the_other_target_is_one_that_was_not_tried() -> None:
    a, b, c = targets = some_targets([2, 1, 1])
    balancer = RoundRobin(targets)
    assert balancer.other(GET, []) is a
    assert balancer.other(GET, [a]) in (b, c)
    assert balancer.other(GET, [a, c]) is b
    assert balancer.other(GET, targets) is None


def test_the_turns_of_one_that_fails_are_shared_out() -> None:
    failing, *others = targets = some_targets([1] * 4)
    balancer = RoundRobin(targets)
    counts: Counter[Target | None] = Counter()
    for _ in range(300):
        target = balancer.pick(GET)
        counts[balancer.other(GET, [target]) if target is failing else target] += 1
    assert counts == dict.fromkeys(others, 100)


def test_the_targets_are_kept_in_order() -> None:
    targets = some_targets([2, 1])
    assert RoundRobin(targets).targets == tuple(targets)
