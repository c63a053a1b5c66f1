from __future__ import annotations

import math
from itertools import compress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portico.state.limits import FixedWindow, Limit, Limits, Rate, SlidingWindow, Total, Verdict

T0 = 1_700_000_000_000_000.0  # a moment at which windows of a second, a minute and 100 s begin
SECOND = 1_000_000.0

LIMIT = st.one_of(
    st.builds(Rate, st.integers(1, 50), st.sampled_from([0.5, 1.0, 3.0, 60.0]), st.integers(0, 80)),
    st.builds(SlidingWindow, st.integers(1, 50), st.sampled_from([0.5, 1.0, 3.0, 60.0])),
    st.builds(FixedWindow, st.integers(1, 50), st.sampled_from([0.5, 1.0, 3.0, 60.0])),
    st.builds(Total, st.integers(1, 50), st.sampled_from([60.0, 86400.0])),
)
LIMITS = st.lists(LIMIT, min_size=1, max_size=4)
STEPS = st.lists(st.tuples(st.integers(-10_000, 2_000_000), st.integers(0, 4)), max_size=40)
"""Microseconds that pass, and what is asked then; a clock that goes back does so by less than any period."""


class Counter:
    """One record, as a store has it."""

    def __init__(self, *limits: Limit) -> None:
        self.limits = Limits(limits)
        self.record: bytes | None = None

    def take(self, at: float = 0.0, cost: int = 1) -> Verdict:
        """Ask at so many seconds after T0."""
        now = T0 + round(at * SECOND)
        state = self.limits.state(self.record)
        fits = self.limits.take(state, now, cost)
        if fits:
            self.record = self.limits.record(state)
        return Verdict(self.limits, fits, state, now, cost)

    def charge(self, at: float, cost: int) -> Verdict:
        """Charge at so many seconds after T0."""
        now = T0 + round(at * SECOND)
        state = self.limits.state(self.record)
        fits = self.limits.charge(state, now, cost)
        self.record = self.limits.record(state)
        self.lasts = self.limits.lasts(state)
        return Verdict(self.limits, fits, state, now, cost)

    def passed(self, at: float, times: int) -> int:
        return sum(self.take(at).allowed for _ in range(times))


def test_a_rate_lets_its_burst_pass_at_once_and_then_one_each_interval() -> None:
    counter = Counter(Rate(10, 1.0, 4))
    assert counter.passed(0, 10) == 4
    assert counter.passed(0.099_999, 10) == 0
    assert counter.passed(0.1, 10) == 1
    assert counter.passed(0.35, 10) == 2
    assert counter.passed(0.4, 10) == 1
    assert counter.passed(60, 10) == 4


@pytest.mark.parametrize("count", [3, 7, 60, 999, 30_000, 1_000_000])
def test_no_rate_is_rounded(count: int) -> None:
    counter = Counter(Rate(count, 1.0, 2))
    assert counter.passed(0, 3) == 2
    for number in range(1, 2000):
        micros = math.ceil(number * 1_000_000 / count)
        assert not counter.take((micros - 1) / SECOND).allowed
        assert counter.take(micros / SECOND).allowed


def test_a_window_begins_by_the_clock() -> None:
    counter = Counter(FixedWindow(3, 100.0))
    assert counter.passed(99.9, 5) == 3
    assert counter.passed(99.999_999, 5) == 0
    assert counter.passed(100.0, 5) == 3
    assert counter.passed(350.0, 5) == 3


def test_a_sliding_window_lets_no_double_burst_pass_where_two_windows_meet() -> None:
    counter = Counter(SlidingWindow(10, 100.0))
    assert counter.passed(99.0, 20) == 10
    assert counter.passed(100.0, 20) == 0
    assert counter.passed(110.0, 20) == 1
    assert counter.passed(150.0, 20) == 4
    assert counter.passed(400.0, 20) == 10


def test_where_one_limit_refuses_none_has_counted() -> None:
    counter = Counter(Rate(5, 1.0), FixedWindow(8, 100.0))
    assert counter.passed(0, 9) == 5
    assert counter.take(0).left == (0, 3)
    assert counter.passed(1, 9) == 3
    refused = counter.take(1)
    assert refused.left == (2, 0)
    assert refused.wait == pytest.approx(99.0)


def test_what_it_costs_is_counted_and_a_look_costs_nothing() -> None:
    counter = Counter(FixedWindow(10, 100.0))
    assert counter.take(cost=7).left == (3,)
    assert not counter.take(cost=4).allowed
    assert counter.take(cost=0).left == (3,)
    assert counter.take(cost=3).left == (0,)
    assert counter.take(cost=0).allowed
    assert counter.take(cost=11).wait == math.inf


def test_a_verdict_tells_what_is_left_and_when_it_comes_back() -> None:
    counter = Counter(Rate(10, 1.0, 20), SlidingWindow(100, 100.0), FixedWindow(5, 100.0))
    verdict = counter.take(40, cost=4)
    assert verdict.left == (16, 96, 1)
    assert verdict.resets == pytest.approx((0.4, 160.0, 60.0))
    assert verdict.wait == 0.0
    verdict = counter.take(40, cost=3)
    assert not verdict.allowed
    assert verdict.left == (16, 96, 1)
    assert verdict.wait == pytest.approx(60.0)


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    counter = Counter(Rate(10, 10.0), FixedWindow(20, 10.0), SlidingWindow(20, 10.0))
    assert counter.passed(10, 30) == 10
    for at in (9.5, 8, 1):
        assert counter.passed(at, 30) == 0
    assert counter.passed(11, 30) == 1


@pytest.mark.parametrize("limit", [Rate(10, 10.0), FixedWindow(10, 10.0), SlidingWindow(10, 10.0)])
def test_a_clock_that_was_far_ahead_does_not_shut_anyone_out(limit: Limit) -> None:
    counter = Counter(limit)
    assert counter.passed(10**8, 30) == 10
    assert counter.passed(0, 30) == 10
    assert counter.passed(1, 30) in {0, 1}


def test_other_limits_have_another_tag_and_other_counts_of_windows_have_not() -> None:
    tags = {
        Limits(limits).tag
        for limits in (
            [Rate(10, 1.0)],
            [Rate(10, 60.0)],
            [FixedWindow(10, 60.0)],
            [SlidingWindow(10, 60.0)],
            [FixedWindow(10, 60.0), SlidingWindow(10, 60.0)],
        )
    }
    assert len(tags) == 5
    assert {tag[:1] for tag in tags} == {b"l"}  # else one could be taken for what is the store's own, and be kept
    assert Limits([FixedWindow(10, 60.0)]).tag == Limits([FixedWindow(20, 60.0)]).tag


@pytest.mark.parametrize("limit", [Rate(0, 1.0), FixedWindow(1, 0.0), SlidingWindow(-1, 1.0), Total(1, 0.0)])
def test_what_is_no_limit_is_refused(limit: Limit) -> None:
    with pytest.raises(ValueError, match="one or more"):
        Limits([limit])


@settings(deadline=None)
@given(LIMITS, STEPS)
@example([Rate(1, 0.5, 15), SlidingWindow(17, 3.0)], [(0, 3), (0, 4), (10**6, 3), (500_000, 4), (-71_429, 4)])
def test_after_the_wait_it_is_allowed_and_not_before(limits: list[Limit], steps: list[tuple[int, int]]) -> None:
    counter = Counter(*limits)
    micros = 0
    for step, cost in steps:
        micros = max(0, micros + step)
        verdict = counter.take(micros / SECOND, cost)
        if verdict.allowed or verdict.wait == math.inf:
            continue
        wait = math.ceil(verdict.wait * SECOND)
        record = counter.record
        assert counter.take((micros + wait + 1) / SECOND, cost).allowed
        counter.record = record
        if wait > 2:
            assert not counter.take((micros + wait - 2) / SECOND, cost).allowed
            counter.record = record


@settings(deadline=None)
@given(LIMITS, STEPS)
def test_what_is_left_can_be_had_and_no_more(limits: list[Limit], steps: list[tuple[int, int]]) -> None:
    counter = Counter(*limits)
    micros = 0
    for step, cost in steps:
        micros = max(0, micros + step)
        verdict = counter.take(micros / SECOND, cost)
        left = min(verdict.left)
        assert left >= 0
        record = counter.record
        assert counter.take(micros / SECOND, left).allowed
        counter.record = record
        assert not counter.take(micros / SECOND, left + 1).allowed
        counter.record = record


@settings(deadline=None)
@given(st.integers(1, 30), st.sampled_from([0.5, 1.0, 3.0]), st.lists(st.integers(0, 400_000), max_size=200))
def test_no_period_has_more_than_it_may(count: int, period: float, steps: list[int]) -> None:
    burst, window = Counter(Rate(count, period)), Counter(SlidingWindow(count, period))
    micros = 0
    passed: dict[Counter, list[int]] = {burst: [], window: []}
    for step in steps:
        micros += step
        for counter, moments in passed.items():
            if counter.take(micros / SECOND).allowed:
                moments.append(micros)
    for moments, most in ((passed[burst], 2 * count), (passed[window], 2 * count)):
        for at in moments:
            assert sum(at <= other < at + period * SECOND for other in moments) <= most


@settings(deadline=None)
@given(LIMITS, STEPS)
def test_a_record_can_be_forgotten_when_its_life_is_over(limits: list[Limit], steps: list[tuple[int, int]]) -> None:
    counter, fresh = Counter(*limits), Counter(*limits)
    micros = 0
    for step, cost in steps:
        micros = max(0, micros + step)
        counter.take(micros / SECOND, cost)
    later = (micros + 500_000 + math.ceil(counter.limits.lives)) / SECOND
    comes_back = [not isinstance(limit, Total) for limit in limits]
    assert list(compress(counter.take(later, 0).left, comes_back)) == list(
        compress(fresh.take(later, 0).left, comes_back)
    )


def test_what_is_beyond_a_limit_comes_back_before_anything_is_allowed() -> None:
    rate = Counter(Rate(10, 10.0))
    assert rate.charge(0, 4).left == (6,)
    charged = rate.charge(0, 21)
    assert (charged.allowed, charged.left, charged.resets) == (False, (0,), (25.0,))
    assert rate.lasts == 25 * SECOND
    assert rate.passed(15.9, 5) == 0
    assert rate.passed(16, 5) == 1
    fixed = Counter(FixedWindow(10, 10.0))
    fixed.charge(0, 25)
    assert fixed.passed(9.9, 5) == 0
    assert fixed.passed(10, 20) == 10
    sliding = Counter(SlidingWindow(10, 10.0))
    sliding.charge(0, 25)
    assert sliding.passed(15.9, 5) == 0
    assert sliding.passed(16.4, 5) == 1


def test_a_charge_counts_where_another_limit_has_no_room() -> None:
    counter = Counter(Rate(5, 1.0), FixedWindow(8, 100.0))
    assert not counter.charge(0, 6).allowed
    assert counter.take(0, 0).left == (0, 2)


def test_of_a_total_nothing_comes_back() -> None:
    counter = Counter(Total(5, 60.0))
    assert counter.passed(0, 9) == 5
    for at in (59, 10**6, -(10**6), 10**8):
        refused = counter.take(at)
        assert (refused.allowed, refused.left, refused.wait, refused.resets) == (False, (0,), math.inf, (math.inf,))
    assert counter.limits.lives == 60 * SECOND


def test_a_backlog_is_what_lets_requests_pass_evenly() -> None:
    counter = Counter(Rate(10, 1.0, 4), FixedWindow(100, 60.0))
    assert [counter.take(0).backlogs for _ in range(3)] == [(0.0, 0.0), (0.1, 0.0), (0.2, 0.0)]
    assert counter.take(0.05).backlogs == (pytest.approx(0.25), 0.0)
    assert not counter.take(0.05).allowed
    assert counter.take(0.05).backlogs == (pytest.approx(0.35), 0.0)
    assert counter.take(2, cost=3).backlogs == (0.0, 0.0)
    assert counter.take(2).backlogs == (pytest.approx(0.3), 0.0)
