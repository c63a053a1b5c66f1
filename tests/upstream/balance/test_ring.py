from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from portico.http.headers import Headers
from portico.http.message import Request
from portico.upstream.balance import Balancer
from portico.upstream.balance.ring import MAX_POINTS, POINTS_EACH, Points, place
from portico.upstream.target import Target
from tests.harness.targets import GET, a_target, counted, maker, some_targets, visited

HASH = {"hash": {"header": "X-User"}}


def of(key: str) -> Request:
    return Request("GET", "/", headers=Headers([(b"X-User", key.encode())]))


KEYS = [of(f"user-{number}") for number in range(4000)]


def owners(targets: Sequence[Target]) -> list[str]:
    balancer = maker(HASH)(targets)
    return [balancer.pick(request).address for request in KEYS]


def moved(before: Sequence[Target], after: Sequence[Target]) -> float:
    """Return the share of the keys that have another target."""
    return sum(old != new for old, new in zip(owners(before), owners(after), strict=True)) / len(KEYS)


def test_a_key_stays_with_its_target() -> None:
    targets = some_targets([1] * 10)
    make = maker(HASH)
    balancer, later = make(targets), make(targets[::-1])
    for request in KEYS[:500]:
        target = balancer.pick(request)
        assert balancer.pick(request) is target
        assert later.pick(request) is target


def test_places_and_points_are_the_same_in_every_process_and_release() -> None:
    assert (place(b"alice"), place("alice"), place("")) == (3863578819952640, 3863578819952640, 648960509214720)
    assert Points("10.0.0.1:80").first(2.7) == [2961198960082944, 5233319459422208, 7129081711689728]
    targets = some_targets([1, 2, 3])
    balancer = maker(HASH)(targets)
    assert "".join(str(targets.index(balancer.pick(request))) for request in KEYS[:20]) == "12211211121212111222"


@pytest.mark.parametrize("count", [3, 10, 50])
def test_few_keys_move_when_a_target_leaves_and_when_it_comes(count: int) -> None:
    targets = some_targets([1] * count)
    for place_of in (0, count // 2, count - 1):
        rest = targets[:place_of] + targets[place_of + 1 :]
        assert 0 < moved(targets, rest) <= 1.5 / count
        assert moved(rest, targets) == moved(targets, rest)


@pytest.mark.parametrize("count", [3, 10, 50])
def test_only_the_keys_of_a_target_that_leaves_move(count: int) -> None:
    targets = some_targets([1] * count)
    for old, new in zip(owners(targets), owners(targets[1:]), strict=True):
        assert old in (new, targets[0].address)


def test_where_points_are_bounded_few_keys_move_as_well() -> None:
    targets = some_targets([1] * 400)
    assert moved(targets, targets[1:]) <= 3 / 400
    assert moved(targets[1:], targets) <= 3 / 400


def test_where_weights_differ_keys_move_in_proportion() -> None:
    targets = some_targets([1, 2, 3, 4, 5, 5])
    assert moved(targets, targets[1:]) <= 0.05 + 0.15
    assert moved(targets, targets[:-1]) <= 0.25 + 0.15


def test_keys_are_shared_out_by_weight() -> None:
    targets = some_targets([1, 2, 3, 4])
    counts = Counter(owners(targets))
    shares = [counts[target.address] / len(KEYS) * 10 for target in targets]
    assert shares == pytest.approx([1, 2, 3, 4], rel=0.3)  # 160 points each on average: one sigma is 8 %
    even = Counter(owners(some_targets([7] * 10)))
    assert all(count / len(KEYS) * 10 == pytest.approx(1, rel=0.3) for count in even.values())


def test_a_target_that_starts_slowly_takes_its_keys_by_and_by_and_moves_no_others() -> None:
    new, *others = targets = some_targets([1] * 5)
    before, had = owners(others), 0
    for share in (0.1, 0.3, 0.6, 1.0):
        new.share = share
        now = owners(targets)
        assert all(address in (old, new.address) for old, address in zip(before, now, strict=True))
        has = now.count(new.address)
        assert has > had
        assert has / len(KEYS) == pytest.approx(share / (4 + share), rel=0.4)
        had = has


def test_the_points_of_all_targets_are_bounded() -> None:
    rng = Random(1)
    for weights in ([1] * 2000, [rng.randint(1, 1000) for _ in range(1000)], [1, 65_535], [10**9, *[1] * 300]):
        targets = some_targets(weights)
        ring = ring_of(maker(HASH)(targets))
        assert len(ring) <= min(MAX_POINTS, POINTS_EACH * len(targets)) + len(targets)
        assert ring == sorted(ring)


def ring_of(balancer: Balancer) -> list[float]:
    ring = balancer._ring  # type: ignore[attr-defined]
    assert isinstance(ring, list)
    return ring


def test_the_next_target_of_a_key_is_the_one_that_it_would_have_without_the_first() -> None:
    targets = some_targets([1] * 4)
    make = maker(HASH)
    balancer = make(targets)
    for request in KEYS[:100]:
        order = visited(balancer, request)
        assert set(order) == set(targets)
        assert order == visited(balancer, request)
        for failed in (1, 2, 3):
            assert make([target for target in targets if target not in order[:failed]]).pick(request) is order[failed]


def test_keys_of_a_target_that_leaves_are_shared_out_among_all_others() -> None:
    gone, *others = targets = some_targets([1] * 5)
    balancer = maker(HASH)(targets)
    nexts = Counter(visited(balancer, request)[1] for request in KEYS if balancer.pick(request) is gone)
    assert set(nexts) == set(others)
    assert max(nexts.values()) / sum(nexts.values()) < 0.4


@pytest.mark.parametrize("request_", [GET, of("")])
def test_requests_without_a_key_take_turns(request_: Request) -> None:
    targets = some_targets([2, 1, 1])
    balancer = maker(HASH)(targets)
    assert counted(balancer, 8, request_) == {target: 2 * target.weight for target in targets}
    assert set(visited(balancer, request_)) == set(targets)


def test_a_target_that_is_there_twice_hides_no_other() -> None:
    targets = [a_target("a"), a_target("a"), a_target("b")]
    balancer = maker(HASH)(targets)
    for request in KEYS[:20]:
        assert set(visited(balancer, request)) == set(targets)
