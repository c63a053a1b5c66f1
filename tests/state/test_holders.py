"""Who has how many places: the record, its arithmetic, and the script beside it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.state.holders import MOST, Held, hold

NOW = 1_700_000_000_000_000.0
SECOND = 1_000_000.0
TTL = 6.0

HOLDERS = [b"%08d" % number for number in range(4)]
WORDS = st.lists(
    st.tuples(
        st.integers(-1_000_000, 4_000_000),  # microseconds that pass
        st.sampled_from(HOLDERS),
        st.integers(0, 5),
        st.integers(0, 4),
        st.integers(0, 8),
    ),
    max_size=30,
)


class Places:
    """One record, as a store has it."""

    def __init__(self) -> None:
        self.record = b""

    def say(self, holder: bytes, count: int, wanted: int, most: int, at: float = 0.0, ttl: float = TTL) -> Held:
        """Say something at so many seconds after NOW."""
        self.record, held, _ = hold(self.record, holder, count, wanted, most, NOW + round(at * SECOND), ttl)
        return held


A, B, C, D = HOLDERS


def test_places_are_given_while_there_are_some() -> None:
    places = Places()
    assert places.say(A, 0, 1, 3) == (1, 1, TTL)
    assert places.say(B, 0, 1, 3)[:2] == (1, 2)
    assert places.say(A, 1, 3, 3)[:2] == (1, 3)
    assert places.say(B, 1, 1, 3)[:2] == (0, 3)
    assert places.say(A, 1, 0, 3)[:2] == (0, 2)
    assert places.say(B, 1, 1, 3)[:2] == (1, 3)


def test_what_is_said_is_true_whatever_was_said_before() -> None:
    places = Places()
    for _ in range(3):
        assert places.say(A, 2, 0, 5)[:2] == (0, 2)
    assert places.say(A, 7, 0, 5)[:2] == (0, 7)  # it was let in while nobody could count
    assert places.say(B, 0, 1, 5)[:2] == (0, 7)
    assert places.say(A, 0, 0, 5) == (0, 0, 0.0)
    assert places.record == b""


def test_who_is_not_heard_of_has_ended() -> None:
    places = Places()
    places.say(A, 0, 2, 3)
    assert places.say(B, 0, 2, 3, at=3).granted == 1
    assert places.say(B, 1, 1, 3, at=5.999_999).granted == 0
    assert places.say(B, 1, 2, 3, at=6)[:2] == (2, 3)
    assert places.say(A, 2, 0, 3, at=6.5)[:2] == (0, 5)  # it was only slow


def test_the_wait_is_for_the_first_who_may_have_ended() -> None:
    places = Places()
    places.say(A, 0, 1, 2)
    places.say(B, 0, 1, 2, at=2)
    assert places.say(C, 0, 1, 2, at=4) == (0, 2, 2.0)
    assert places.say(A, 1, 0, 2, at=4) == (0, 2, 4.0)


def test_a_clock_that_was_wrong_holds_nothing_for_good() -> None:
    places = Places()
    places.say(A, 0, 2, 2, at=3600)
    assert places.say(B, 0, 1, 2).granted == 1
    places = Places()
    places.say(A, 0, 2, 2, at=TTL)
    assert places.say(B, 0, 1, 2).granted == 0  # a clock may go back a little


def test_holders_are_bounded() -> None:
    places = Places()
    for number in range(MOST):
        assert places.say(b"%08d" % number, 0, 1, 10**6).granted == 1
    size = len(places.record)
    assert places.say(b"one-more", 0, 1, 10**6)[:2] == (0, MOST)
    assert places.say(b"one-more", 1, 1, 10**6)[:2] == (0, MOST + 1)
    assert len(places.record) == size
    assert places.say(b"%08d" % 7, 1, 1, 10**6)[:2] == (1, MOST + 1)


@pytest.mark.parametrize("wanted", [0, 1, 50])
def test_no_room_at_all(wanted: int) -> None:
    assert Places().say(A, 0, wanted, 0) == (0, 0, 0.0)


@settings(deadline=None)
@given(WORDS)
def test_nobody_is_given_more_than_there_is_and_nobody_less(words: list[tuple[int, bytes, int, int, int]]) -> None:
    """Against a model that has each holder's number and when it was said."""
    places = Places()
    model: dict[bytes, tuple[int, float]] = {}
    now = 0.0
    for passed, holder, count, wanted, most in words:
        now = max(0.0, now + max(0, passed) / SECOND)
        model = {who: said for who, said in model.items() if said[1] + TTL > now + 1e-9 and who != holder}
        others = sum(number for number, _ in model.values())
        granted = min(wanted, max(0, most - others - count))
        assert places.say(holder, count, wanted, most, at=now)[:2] == (granted, others + count + granted)
        if count + granted:
            model[holder] = count + granted, now
