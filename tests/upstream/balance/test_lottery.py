from __future__ import annotations

from collections import Counter, deque
from random import Random

import pytest

from portico.upstream.balance import observe
from portico.upstream.balance.ewma import DECAY
from portico.upstream.balance.lottery import TwoChoices
from portico.upstream.target import Target
from tests.harness.targets import (
    GET,
    Clock,
    a_target,
    as_the_weights_say,
    counted,
    maker,
    set_busy,
    some_targets,
)

DRAWN = ["random", "least-request", "peak-ewma"]


@pytest.mark.parametrize("algorithm", DRAWN)
@pytest.mark.parametrize("weights", [[1, 1], [1, 3], [5, 1, 1], range(1, 21), [1000, 1, 1]])
def test_targets_that_are_alike_are_drawn_by_their_weights(algorithm: str, weights: list[int]) -> None:
    targets = some_targets(weights)
    assert as_the_weights_say(counted(maker(algorithm)(targets), 20_000), targets)


def test_a_target_that_starts_slowly_is_drawn_less() -> None:
    targets = [a_target("slow", 4, share=0.25), a_target("b", 4), a_target("c", 2)]
    counts = counted(maker("random")(targets), 20_000)
    assert as_the_weights_say(counts, targets)
    assert counts[targets[0]] == pytest.approx(20_000 / 7, rel=0.05)


def test_another_one_is_drawn_by_the_weights_of_the_rest() -> None:
    first, *rest = targets = some_targets([50, 1, 2, 3])
    balancer = maker("random")(targets)
    counts = Counter(target for _ in range(20_000) if (target := balancer.other(GET, [first])) is not None)
    assert as_the_weights_say(counts, rest)


@pytest.mark.parametrize("algorithm", ["least-request", "peak-ewma"])
@pytest.mark.parametrize("numbers", [[0.0] * 99, [1 - 2**-53] * 99, [0.0, 1 - 2**-53] * 50])
def test_two_different_ones_are_drawn_whatever_the_lots(algorithm: str, numbers: list[float]) -> None:
    for weights in ([1, 1, 1], [3, 7, 11, 13], [1, 10**9, 1], [10**9, 1, 1], [1, 1, 10**9]):
        targets = some_targets(weights)
        for target in targets:
            target.share = 0.7
        drawn: list[tuple[int, int]] = []

        class Noting(TwoChoices):
            def second_is_better(self, first: int, second: int) -> bool:
                drawn.append((first, second))  # noqa: B023
                return False

        lots = iter(numbers)
        balancer = Noting(targets, lambda: next(lots))  # noqa: B023
        for _ in range(20):
            balancer.pick(GET)
        assert all(first != second and min(first, second) >= 0 for first, second in drawn)
        assert max(max(pair) for pair in drawn) < len(weights)


def test_the_second_is_drawn_by_the_weights_of_those_that_are_left() -> None:
    targets = some_targets([1, 2, 3, 4])
    seconds: Counter[Target] = Counter()

    class Noting(TwoChoices):
        def second_is_better(self, first: int, second: int) -> bool:
            if first == 1:
                seconds[targets[second]] += 1
            return False

    counted(Noting(targets, Random(3).random), 40_000)
    assert as_the_weights_say(seconds, [targets[0], *targets[2:]])


def test_fewer_requests_under_way_win() -> None:
    busy, free = targets = some_targets([1, 1])
    balancer = maker("least-request")(targets)
    set_busy(busy, 1)
    assert counted(balancer, 100) == {free: 100}
    set_busy(free, 2)
    assert counted(balancer, 100) == {busy: 100}


def test_requests_under_way_are_weighed() -> None:
    heavy, light = targets = some_targets([3, 1])
    balancer = maker("least-request")(targets)
    set_busy(heavy, 2)
    set_busy(light, 1)
    assert counted(balancer, 100) == {heavy: 100}
    set_busy(heavy, 4)
    assert counted(balancer, 100) == {light: 100}
    light.share = 0.5
    set_busy(heavy, 5)
    assert counted(maker("least-request")(targets), 100) == {heavy: 100}


def serve(algorithm: str, targets: list[Target], seconds: dict[Target, float], count: int) -> Counter[Target]:
    """Return how many requests each target got, of `count` that come a millisecond apart and take so long."""
    clock = Clock()
    balancer = maker(algorithm, clock=clock)(targets)
    under_way = {target: deque[float]() for target in targets}
    counts: Counter[Target] = Counter()
    for _ in range(count):
        clock.now += 0.001
        for target, ends in under_way.items():
            while ends and ends[0] <= clock.now:
                ends.popleft()
                if balancer.wants_latency:
                    observe(target, seconds[target], clock.now)
            set_busy(target, len(ends))
        target = balancer.pick(GET)
        counts[target] += 1
        under_way[target].append(clock.now + seconds[target])
        set_busy(target, len(under_way[target]))
    return counts


@pytest.mark.parametrize(("algorithm", "at_most"), [("least-request", 0.06), ("peak-ewma", 0.03), ("random", 0.3)])
def test_a_slow_target_gets_less(algorithm: str, at_most: float) -> None:
    slow, *fast = targets = some_targets([1] * 4)
    counts = serve(algorithm, targets, {slow: 1.0, **dict.fromkeys(fast, 0.01)}, 10_000)
    assert 0 < counts[slow] / 10_000 < at_most
    assert max(counts[target] for target in fast) / min(counts[target] for target in fast) < 1.3


@pytest.mark.parametrize("algorithm", ["least-request", "peak-ewma"])
def test_targets_that_are_equally_fast_keep_to_their_weights(algorithm: str) -> None:
    targets = some_targets([1, 2, 3, 6])
    counts = serve(algorithm, targets, dict.fromkeys(targets, 0.05), 10_000)
    assert [counts[target] / 10_000 * 12 for target in targets] == pytest.approx([1, 2, 3, 6], rel=0.25)


def test_a_slower_answer_counts_at_once_and_a_faster_one_by_and_by() -> None:
    target = a_target("a")
    observe(target, 0.1, 50.0)
    assert (target.latency, target.latency_at) == (0.1, 50.0)
    observe(target, 2.1, 51.0)
    assert target.latency == 2.1
    observe(target, 0.1, 51.0)
    assert target.latency == 2.1  # no time has passed
    observe(target, 0.1, 51.0 + DECAY)
    assert target.latency == pytest.approx(0.1 + 2.0 / 2.718281828)
    for tick in range(1, 101):
        observe(target, 0.1, 61.0 + tick)
    assert target.latency == pytest.approx(0.1, rel=0.01)
    observe(target, 0.0, 10_000.0)
    assert target.latency > 0  # it has answered


def test_a_target_that_was_slow_is_tried_again() -> None:
    slow, fast = targets = some_targets([1, 1])
    clock = Clock()
    balancer = maker("peak-ewma", clock=clock)(targets)
    observe(slow, 1.0, clock.now)
    tried_again = 0.0
    while not tried_again:
        clock.now += 0.1
        observe(fast, 0.1, clock.now)
        if balancer.pick(GET) is slow:
            tried_again = clock.now - 100.0
    assert tried_again == pytest.approx(DECAY * 2.3026, rel=0.02)  # a tenth is left: ln 10


def test_a_target_that_has_never_answered_is_tried_first_by_one_request() -> None:
    new, known = targets = some_targets([1, 1])
    clock = Clock()
    balancer = maker("peak-ewma", clock=clock)(targets)
    observe(known, 0.001, clock.now)
    assert counted(balancer, 50) == {new: 50}
    set_busy(new, 1)
    set_busy(known, 1000)
    assert counted(balancer, 50) == {known: 50}
    observe(new, 0.001, clock.now)
    assert counted(balancer, 50) == {new: 50}


def test_only_what_goes_by_latency_wants_it() -> None:
    targets = some_targets([1, 1])
    wanting = {name: maker(name)(targets).wants_latency for name in ["round-robin", *DRAWN]}
    assert wanting == {"round-robin": False, "random": False, "least-request": False, "peak-ewma": True}
    stuck = {"algorithm": "peak-ewma", "sticky": "0123456789abcdef"}
    assert maker(stuck)(targets).wants_latency
