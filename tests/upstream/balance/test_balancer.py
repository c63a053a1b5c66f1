"""What is the same whatever the algorithm."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.config.balance import Algorithm
from portico.http.headers import Headers
from portico.http.message import Request
from portico.upstream.balance import group, observe
from tests.harness.targets import GET, a_target, maker, set_busy, some_targets, visited

CONFIGS: list[dict[str, object]] = [
    *({"algorithm": name} for name in Algorithm.__args__ if name != "consistent-hash"),
    {"hash": {"header": "x-user"}},
    {"sticky": "0123456789abcdef"},
    {"algorithm": "peak-ewma", "sticky": "0123456789abcdef"},
]


@given(
    config=st.sampled_from(CONFIGS),
    weights=st.lists(st.integers(1, 1000), min_size=1, max_size=12),
    seed=st.integers(0, 2**32),
    keyed=st.booleans(),
    data=st.data(),
)
def test_another_target_is_never_a_tried_one_and_all_are_visited(
    config: dict[str, object], weights: list[int], seed: int, keyed: bool, data: st.DataObject
) -> None:
    rng = Random(seed)
    targets = some_targets(weights)
    for target in targets:
        target.share = rng.choice((0.1, 0.55, 1.0))
        set_busy(target, rng.randrange(4))
        if rng.random() < 0.5:
            observe(target, rng.random(), 99.0)
    balancer = maker(config, seed)(targets)
    request = Request("GET", "/", headers=Headers([(b"X-User", b"u%d" % seed)])) if keyed else GET
    tried = data.draw(st.lists(st.sampled_from([*targets, a_target("elsewhere")]), unique_by=id))
    order = visited(balancer, request, first=tried)
    assert len(order) == len(set(order))
    assert set(order) - set(tried) == set(targets) - set(tried)
    assert balancer.targets == tuple(targets)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("count", [1, 2, 1000])
def test_all_sizes_of_sets_are_served(config: dict[str, object], count: int) -> None:
    rng = Random(count)
    targets = some_targets(rng.randint(1, 100) for _ in range(count))
    balancer = maker(config)(targets)
    assert {balancer.pick(GET) for _ in range(20 * count)} <= set(targets)
    assert balancer.other(GET, targets[1:]) is targets[0]
    assert balancer.other(GET, targets) is None


def test_the_same_seed_picks_the_same() -> None:
    targets = some_targets([1, 2, 3])
    for config in CONFIGS:
        one, two = maker(config, 5)(targets), maker(config, 5)(targets)
        assert [one.pick(GET) for _ in range(50)] == [two.pick(GET) for _ in range(50)]


def test_the_lowest_group_that_may_be_asked_is_asked() -> None:
    far, near, spare, also = (
        a_target(name, priority=number) for name, number in zip("abcd", (1, 0, 2, 0), strict=True)
    )
    assert group([far, near, spare, also]) == [near, also]
    assert group([far, spare]) == [far]
    assert group([]) == []
