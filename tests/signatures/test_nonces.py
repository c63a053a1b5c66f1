from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.signatures.nonces import Nonces, NoncesFull


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6), st.integers(0, 3)), max_size=60),
)
def test_it_is_a_dictionary_that_forgets(limit: int, steps: list[tuple[int, int, int]]) -> None:
    nonces, model, now = Nonces(), dict[str, int](), 0
    for number, life, passed in steps:
        now += passed
        model = {known: until for known, until in model.items() if until > now}
        nonce = f"nonce {number}"
        if nonce in model:
            assert not nonces.use(nonce, now + life, now, limit)
        elif len(model) >= limit:
            with pytest.raises(NoncesFull):
                nonces.use(nonce, now + life, now, limit)
        else:
            assert nonces.use(nonce, now + life, now, limit)
            model[nonce] = now + life
        assert len(nonces) == len(model)
    nonces.close()
    assert len(nonces) == 0


def test_many_are_forgotten_little_by_little() -> None:
    nonces = Nonces()
    for number in range(1000):
        assert nonces.use(str(number), 10.0, 0.0, 1000)
    with pytest.raises(NoncesFull):
        nonces.use("one more", 10.0, 9.9, 1000)
    assert nonces.use("999", 20.0, 10.0, 1000)
    assert len(nonces) > 900
    for number in range(40):
        assert not nonces.use("999", 20.0, 10.0, 1000)
        assert nonces.use(f"new {number}", 20.0, 10.0, 1000)
    assert len(nonces) == 41
    assert len(nonces._ends) == 41


def test_long_ones_take_no_more_room() -> None:
    nonces = Nonces()
    assert nonces.use("n" * 10_000, 1.0, 0.0, 9)
    assert nonces.use("n" * 9_999, 1.0, 0.0, 9)
    assert {len(key) for key in nonces._used} == {16}


def test_a_nonce_that_was_given_back_can_be_used() -> None:
    nonces = Nonces()
    assert nonces.use("a", 10.0, 0.0, 2)
    nonces.give_back("a")
    nonces.give_back("never used")
    assert nonces.use("a", 20.0, 0.0, 2)
    assert not nonces.use("a", 20.0, 15.0, 2)  # the end of the first use is not that of the second
    assert nonces.use("a", 40.0, 20.0, 2)


def test_what_is_given_back_over_and_over_takes_no_room() -> None:
    nonces = Nonces()
    for number in range(20):
        assert nonces.use(f"kept {number}", 10.0 + number, 0.0, 99)
    for _ in range(10_000):
        assert nonces.use("a", 100.0, 0.0, 99)
        nonces.give_back("a")
    assert len(nonces._ends) < 200
    assert not nonces.use("kept 9", 100.0, 18.0, 99)
    assert nonces.use("new", 100.0, 50.0, 1)
    assert len(nonces) == 1
