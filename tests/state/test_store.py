"""What every store does, whatever keeps it."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from portico.state.limits import FixedWindow, Limits, Rate, SlidingWindow, Total
from portico.state.store import LARGEST_VALUE, LONGEST_KEY, Claim, Space
from tests.harness.loop import run
from tests.harness.valkey import Cluster
from tests.state.stores import ENGINES, Engine, charge, hold, in_cluster, take

Contract: TypeAlias = Callable[[Callable[[Engine], Awaitable[None]]], None]

HOUR = 3600.0
LONG = 10**7
"""A period that no test gets to the end of."""
KEYS = (b"", b"a", b"\x00", b"127.0.0.1", bytes(range(256)), b"x" * LONGEST_KEY, b"x" * (LONGEST_KEY + 1), b"x" * 99999)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(params=[*sorted(ENGINES), "cluster"])
def contract(request: pytest.FixtureRequest, tmp_path: Path) -> Contract:
    """Run a test with each of the stores."""
    engine = ENGINES.get(request.param)
    if engine is None:
        engine = functools.partial(in_cluster, request.getfixturevalue("cluster"))

    def within(test: Callable[[Engine], Awaitable[None]]) -> None:
        async def main() -> None:
            async with engine(tmp_path) as made:
                await test(made)

        run(main)

    return within


def test_a_value_is_kept_replaced_and_deleted(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            assert await space.get(b"a") is None
            for value in (b"", b"one", bytes(range(256)), b"x" * 100_000):
                await space.put(b"a", value, HOUR)
                assert await space.get(b"a") == value
            await space.delete(b"a")
            await space.delete(b"never there")
            assert await space.get(b"a") is None

    contract(test)


def test_any_bytes_are_a_key_and_none_is_another(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        limits = Limits([FixedWindow(1, LONG)])
        for space in engine.spaces:
            for number, key in enumerate(KEYS):
                await space.put(key, b"%d" % number, HOUR)
                assert (await take(space, key, limits)).allowed
            for number, key in enumerate(KEYS):
                assert await space.get(key) == b"%d" % number
                assert not (await take(space, key, limits)).allowed

    contract(test)


def test_the_spaces_have_nothing_in_common(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        volatile, durable = engine.spaces
        limits = Limits([FixedWindow(1, LONG)])
        await volatile.put(b"a", b"1", HOUR)
        assert await durable.get(b"a") is None
        assert (await take(volatile, b"a", limits)).allowed
        assert (await take(durable, b"a", limits)).allowed
        assert (await durable.claim(b"a", HOUR)).ours

    contract(test)


def test_what_expires_is_gone(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            await space.put(b"stays", b"1", HOUR)
            await space.put(b"goes", b"1", engine.ttl)

            async def gone(at: object = space) -> bool:
                return await at.get(b"goes") is None  # type: ignore[attr-defined, no-any-return]

            assert await engine.expired(gone)
            assert await space.get(b"stays") == b"1"

    contract(test)


def test_a_value_that_is_too_large_is_refused(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            await space.put(b"a", b"x" * LARGEST_VALUE, HOUR)
            assert await space.get(b"a") == b"x" * LARGEST_VALUE
            with pytest.raises(ValueError, match="bytes at most"):
                await space.put(b"a", b"x" * (LARGEST_VALUE + 1), HOUR)
            claim = await space.claim(b"b", HOUR)
            with pytest.raises(ValueError, match="bytes at most"):
                await space.settle(b"b", claim.token, b"x" * (LARGEST_VALUE + 1), HOUR)

    contract(test)


def test_a_claim_is_one_owners_until_there_is_a_value(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            first = await space.claim(b"a", HOUR)
            assert first.ours
            assert first.value is None
            assert await space.claim(b"a", HOUR) == Claim()
            assert await space.get(b"a") is None
            assert not await space.settle(b"a", first.token + 1, b"no", HOUR)
            assert not await space.settle(b"a", 0, b"no", HOUR)
            assert await space.settle(b"a", first.token, b"done", HOUR)
            assert await space.claim(b"a", HOUR) == Claim(0, b"done")
            assert await space.get(b"a") == b"done"
            assert not await space.settle(b"a", first.token, b"twice", HOUR)
            assert not await space.release(b"a", first.token)
            assert await space.get(b"a") == b"done"

    contract(test)


def test_a_claim_that_was_given_back_is_anyones(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            first = await space.claim(b"a", HOUR)
            assert not await space.release(b"a", first.token + 1)
            assert await space.release(b"a", first.token)
            assert not await space.release(b"a", first.token)
            second = await space.claim(b"a", HOUR)
            assert second.token > first.token
            await space.delete(b"a")
            assert (await space.claim(b"a", HOUR)).token > second.token

    contract(test)


def test_the_owner_of_a_claim_that_has_expired_changes_nothing(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            late = await space.claim(b"a", engine.ttl)
            found: list[Claim] = []

            async def had(at: object = space, found: list[Claim] = found) -> bool:
                found.append(await at.claim(b"a", HOUR))  # type: ignore[attr-defined]
                return found[-1].ours

            assert await engine.expired(had)
            assert found[-1].token > late.token
            assert not await space.settle(b"a", late.token, b"late", HOUR)
            assert not await space.release(b"a", late.token)
            assert await space.settle(b"a", found[-1].token, b"in time", HOUR)
            assert await space.get(b"a") == b"in time"

    contract(test)


def test_of_many_who_claim_at_once_one_has_it(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            claims = await asyncio.gather(*(space.claim(b"a", HOUR) for _ in range(100)))
            assert sum(claim.ours for claim in claims) == 1

    contract(test)


def test_limits_count_exactly_whoever_asks_at_once(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            limits = Limits([Rate(50, LONG), FixedWindow(70, LONG), SlidingWindow(90, LONG)])
            verdicts = await asyncio.gather(*(take(space, b"a", limits) for _ in range(100)))
            assert sum(verdict.allowed for verdict in verdicts) == 50
            looked = await take(space, b"a", limits, 0)
            assert looked.allowed
            assert looked.left == (0, 20, 40)
            assert (await take(space, b"b", limits)).left == (49, 69, 89)
            assert (await take(space, b"b", limits, 50)).left == (49, 69, 89)
            assert (await take(space, b"b", limits, 49)).left == (0, 20, 40)

    contract(test)


def test_what_was_used_already_is_charged_whether_there_is_room_or_not(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            limits = Limits([Rate(10, LONG), FixedWindow(20, LONG)])
            assert (await charge(space, b"a", limits, 4)).allowed
            charged = await charge(space, b"a", limits, 7)
            assert not charged.allowed
            assert charged.left == (0, 9)
            assert not (await take(space, b"a", limits)).allowed
            assert (await charge(space, b"a", limits, 100)).left == (0, 0)
            assert (await take(space, b"a", limits, 0)).left == (0, 0)
            assert (await take(space, b"b", limits)).allowed

    contract(test)


def test_what_was_taken_and_not_used_can_be_given_back(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            limits = Limits([FixedWindow(10, LONG), Total(20, HOUR)])
            await take(space, b"a", limits, 10)
            assert (await charge(space, b"a", limits, -4)).left == (4, 14)
            assert (await take(space, b"a", limits, 4)).allowed
            assert not (await take(space, b"a", limits)).allowed
            assert (await charge(space, b"a", limits, -100)).left == (10, 20)
            assert (await take(space, b"a", limits, 0)).left == (10, 20)

    contract(test)


def test_of_a_total_nothing_comes_back(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            limits = Limits([Total(3, HOUR)])
            assert [(await take(space, b"2026-12", limits)).left[0] for _ in range(3)] == [2, 1, 0]
            refused = await take(space, b"2026-12", limits)
            assert (refused.allowed, refused.wait, refused.resets) == (False, math.inf, (math.inf,))
            more = Limits([Total(5, HOUR)])  # the same count, of which there may be more
            assert (await take(space, b"2026-12", more)).left == (1,)
            assert (await charge(space, b"2026-12", more, 2)).left == (0,)
            assert (await take(space, b"2027-01", limits)).allowed

    contract(test)


def test_a_verdict_tells_when_to_come_back(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            limits = Limits([Rate(10, 1000.0)])
            assert (await take(space, b"a", limits, 10)).wait == 0.0
            verdict = await take(space, b"a", limits, 5)
            assert not verdict.allowed
            assert verdict.wait == pytest.approx(500, abs=30)
            assert verdict.resets == (pytest.approx(1000, abs=30),)

    contract(test)


def test_a_look_at_limits_leaves_nothing_behind(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            limits = Limits([FixedWindow(5, LONG)])
            assert (await take(space, b"a", limits, 0)).left == (5,)
            assert (await take(space, b"a", limits, 5)).allowed

    contract(test)


def test_other_limits_of_the_same_key_have_a_record_of_their_own(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            assert (await take(space, b"a", Limits([FixedWindow(5, LONG)]), 5)).allowed
            assert (await take(space, b"a", Limits([FixedWindow(5, LONG), Rate(9, LONG)]), 5)).allowed
            assert (await take(space, b"a", Limits([FixedWindow(7, LONG)]))).left == (1,)

    contract(test)


def test_who_gives_up_waiting_disturbs_nobody(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            tasks = [asyncio.ensure_future(space.put(b"%d" % number, b"x", HOUR)) for number in range(50)]  # noqa: TID251
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(each) for each in done[1::2]] == [type(None)] * 25
            assert await space.get(b"49") == b"x"

    contract(test)


def test_how_it_is_is_told_without_asking_it(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            await space.put(b"a", b"x" * 10_000, HOUR)
        trouble, *spaces = engine.store.health()
        assert trouble == ""
        for filled in spaces:
            assert filled is None or (10_000 < filled.used < filled.size, filled.evicted) == (True, 0)
        assert (spaces[0] is None) == (spaces[1] is None) == (not engine.store.local)


def test_places_are_held_exactly_whoever_asks_at_once(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            held = await asyncio.gather(*(hold(space, b"a", b"%08d" % number, 0, 1, 5) for number in range(20)))
            assert sum(each.granted for each in held) == 5
            assert max(each.total for each in held) == 5
            assert (await hold(space, b"b", b"%08d" % 1, 0, 9, 5))[:2] == (5, 5)
            assert (await hold(space, b"b", b"%08d" % 2, 0, 1, 5))[:2] == (0, 5)
            assert (await hold(space, b"b", b"%08d" % 1, 2, 0, 5))[:2] == (0, 2)
            assert (await hold(space, b"b", b"%08d" % 2, 0, 9, 5))[:2] == (3, 5)
            for number in (1, 2):
                assert (await hold(space, b"b", b"%08d" % number, 0, 0, 5)).granted == 0
            assert await hold(space, b"b", b"%08d" % 3, 0, 0, 5) == (0, 0, 0.0)

    contract(test)


def test_a_holder_that_is_not_heard_of_has_its_places_taken(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        for space in engine.spaces:
            held = await hold(space, b"a", b"killed  ", 0, 1, 1, engine.ttl)
            assert held[:2] == (1, 1)
            assert held.wait == pytest.approx(engine.ttl)
            left: list[int] = []

            async def free(at: Space = space, left: list[int] = left) -> bool:
                found = await hold(at, b"a", b"stranger", 0, 0, 1, engine.ttl)
                left.append(found.total)
                return not found.total

            assert await engine.expired(free)
            assert (await hold(space, b"a", b"stranger", 0, 1, 1, engine.ttl)).granted == 1

    contract(test)


def test_holders_of_any_key_have_nothing_in_common_with_values_and_limits(contract: Contract) -> None:
    async def test(engine: Engine) -> None:
        limits = Limits([FixedWindow(1, LONG)])
        for space in engine.spaces:
            for number, key in enumerate(KEYS):
                assert (await hold(space, key, b"12345678", 0, number + 1, 100)).granted == number + 1
                assert (await take(space, key, limits)).allowed
                await space.put(key, b"%d" % number, HOUR)
            for number, key in enumerate(KEYS):
                assert (await hold(space, key, b"other   ", 0, 0, 100)).total == number + 1
                assert await space.get(key) == b"%d" % number
                await space.delete(key)
                assert (await hold(space, key, b"other   ", 0, 0, 100)).total == number + 1

    contract(test)
