from __future__ import annotations

import pytest

from portico.runtime.shared import Leases


class Value:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_value_is_made_once_for_all_who_hold_it() -> None:
    leases = Leases()
    one, other = leases.lease(), leases.lease()
    value = one.share(("pool", 1), Value)
    assert one.share(("pool", 1), Value) is value
    assert other.share(("pool", 1), Value) is value
    assert one.share(("pool", 2), Value) is not value
    assert len(leases) == 2


def test_a_value_outlives_a_reload_that_wants_it_too() -> None:
    leases = Leases()
    old = leases.lease()
    kept, dropped = old.share(("kept",), Value), old.share(("dropped",), Value)
    new = leases.lease()
    assert new.share(("kept",), Value) is kept
    old.close()
    assert (kept.closed, dropped.closed) == (0, 1)
    new.close()
    assert (kept.closed, dropped.closed) == (1, 1)
    assert len(leases) == 0


def test_a_holder_counts_once_however_often_it_asks() -> None:
    leases = Leases()
    lease = leases.lease()
    value = lease.share(("a",), Value)
    lease.share(("a",), Value)
    lease.close()
    assert value.closed == 1
    lease.close()
    assert value.closed == 1


def test_after_its_end_a_key_makes_a_new_value() -> None:
    leases = Leases()
    lease = leases.lease()
    first = lease.share(("a",), Value)
    lease.close()
    second = leases.lease().share(("a",), Value)
    assert second is not first
    assert second.closed == 0


def test_what_could_not_be_made_is_not_held() -> None:
    leases = Leases()
    lease = leases.lease()

    def fails() -> Value:
        raise LookupError

    with pytest.raises(LookupError):
        lease.share(("a",), fails)
    assert len(leases) == 0
    lease.share(("a",), Value)
    lease.close()
    assert len(leases) == 0
