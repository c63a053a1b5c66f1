"""How looks at targets become verdicts. What a look is stands in test_looks.py."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from random import Random

import pytest

from portico.agent.checks import Checks
from portico.agent.looks import Finding
from portico.config.balance import HealthCheck, Target
from portico.errors import ConfigError
from portico.upstream.feed import Verdict
from tests.harness.loop import run_jumping, turns

WELL = Finding(True, "status 200")
REFUSED = Finding(False, "connection refused")


def targets(*addresses: str) -> list[Target]:
    return [Target.model_validate({"address": each}) for each in addresses]


class World:
    """Targets, what looks at them find, and what the checks make of it."""

    def __init__(self, tasks: asyncio.TaskGroup, at_once: int = 64, **check: object) -> None:
        self.loop = asyncio.get_running_loop()
        self.found: dict[str, Finding | Exception] = {}
        self.looks: list[tuple[str, float]] = []
        self.over: Counter[str] = Counter()
        self.looked = asyncio.Event()
        self.changed: list[str] = []
        self.began = self.loop.time()
        self.under_way = self.most_under_way = 0
        self.checks = Checks(
            "orders",
            HealthCheck.model_validate({"path": "/health", "interval": 10, "rise": 2, "fall": 3, **check}),
            self.look,
            tasks,
            asyncio.Semaphore(at_once),
            self.changed.append,
            Random(7),
            lambda: 1000.0 + len(self.looks),
        )

    async def look(self, target: Target) -> Finding:
        self.looks.append((str(target), self.loop.time() - self.began))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0.1)
        self.under_way -= 1
        self.over[str(target)] += 1
        self.looked.set()
        found = self.found.get(str(target), WELL)
        if isinstance(found, Exception):
            raise found
        return found

    async def after(self, count: int, address: str = "a:1") -> Verdict | None:
        """Return what is known once a target was looked at so often."""
        while self.over[address] < count:
            self.looked.clear()
            await self.looked.wait()
        await turns()
        return self.checks.verdicts.get(address)


def play(main: Callable[[World], Awaitable[None]], at_once: int = 64, **check: object) -> None:
    async def played() -> None:
        async with asyncio.TaskGroup() as tasks:
            world = World(tasks, at_once, **check)
            try:
                await main(world)
            finally:
                world.checks.close()

    run_jumping(played)


@pytest.mark.parametrize("finding", [WELL, REFUSED])
def test_the_first_look_decides(finding: Finding, caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        world.found["a:1"] = finding
        world.checks.follow(targets("a:1"))
        assert not world.checks.complete
        assert await world.after(1) == Verdict(finding.well, 1001.0, finding.why)
        assert world.checks.complete
        assert world.changed == ["a:1"]

    play(main)
    assert caplog.messages == ([] if finding.well else ["service orders: target a:1 is not well: connection refused"])


def test_that_no_target_is_well_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        world.found |= {"a:1": REFUSED, "b:1": REFUSED}
        world.checks.follow(targets("a:1", "b:1", "c:1"))
        await world.after(1, "c:1")
        assert "none of its" not in caplog.text
        world.checks.follow(targets("a:1", "b:1"))
        await world.after(9)
        world.found["a:1"] = WELL
        await world.after(12)
        world.found["a:1"] = REFUSED
        await world.after(16)

    play(main)
    assert [line for line in caplog.messages if "none of its" in line] == [
        "service orders: none of its 2 targets is well"
    ] * 2


def test_later_ones_have_to_agree(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def main(world: World) -> None:
        world.checks.follow(targets("a:1"))
        first = await world.after(1)
        world.found["a:1"] = REFUSED
        assert await world.after(3) == first
        world.found["a:1"] = WELL  # which begins the row anew
        await world.after(4)
        world.found["a:1"] = REFUSED
        assert await world.after(6) == first
        assert await world.after(7) == Verdict(False, 1007.0, "connection refused")
        world.found["a:1"] = Finding(False, "status 503")
        assert await world.after(8) == Verdict(False, 1007.0, "status 503")
        world.found["a:1"] = WELL
        assert await world.after(9) == Verdict(False, 1007.0, "status 503")
        assert await world.after(10) == Verdict(True, 1010.0, "status 200")
        assert world.changed == ["a:1"] * 4

    play(main)
    assert caplog.messages == [
        "service orders: target a:1 is not well any more: connection refused (3 looks in a row)",
        "service orders: target a:1 is well again (2 looks in a row)",
    ]


def test_looks_are_an_interval_apart_more_or_less() -> None:
    async def main(world: World) -> None:
        world.checks.follow(targets("a:1"))
        await world.after(30)
        times = [when for _, when in world.looks]
        pauses = [after - before - 0.1 for before, after in pairwise(times)]
        assert min(pauses) < 9.5 < 10.5 < max(pauses)
        assert all(8.9 < pause < 11.1 for pause in pauses)

    play(main)


def test_many_targets_are_looked_at_one_after_the_other() -> None:
    async def main(world: World) -> None:
        many = [f"a:{port}" for port in range(1, 201)]
        world.checks.follow(targets(*many))
        await world.after(1, "a:200")
        firsts = [when for _, when in world.looks[:200]]
        assert {address for address, _ in world.looks[:200]} == set(many)
        assert 3.9 < firsts[-1] < 6.0
        assert world.most_under_way == 4
        assert world.checks.complete

    play(main, at_once=4, interval=10)


def test_a_target_that_goes_is_not_looked_at_any_more() -> None:
    async def main(world: World) -> None:
        world.checks.follow(targets("a:1", "b:1"))
        await world.after(1, "b:1")
        world.checks.follow(targets("b:1", "c:1"))
        await world.after(3, "c:1")
        assert set(world.checks.verdicts) == {"b:1", "c:1"}
        assert len([each for each, _ in world.looks if each == "a:1"]) == 1
        assert len([each for each, _ in world.looks if each == "b:1"]) >= 3

    play(main)


def test_a_target_that_speaks_tls_now_is_another() -> None:
    async def main(world: World) -> None:
        world.checks.follow(targets("a:1"))
        await world.after(1)
        world.checks.follow(targets("https://a:1"))
        assert world.checks.verdicts == {}
        assert await world.after(2) is not None
        assert world.loop.time() - world.began < 5

    play(main)


def test_certificates_that_cannot_be_used_are_not_the_targets_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        world.found["a:1"] = ConfigError("ca.pem: there is nothing")
        world.checks.follow(targets("a:1"))
        assert await world.after(3) is None
        world.found["a:1"] = WELL
        assert await world.after(4) is not None

    play(main)
    assert caplog.messages == ["service orders: its targets cannot be looked at: ca.pem: there is nothing"]


def test_a_mistake_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        world.found["a:1"] = KeyError("x")
        world.checks.follow(targets("a:1"))
        await world.after(1)
        world.found["a:1"] = WELL
        assert await world.after(2) is not None

    play(main)
    assert caplog.messages == ["service orders: target a:1 could not be looked at"]


def test_checks_that_take_over_go_on_from_what_is_known() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            first, second = World(tasks), World(tasks)
            first.checks.follow(targets("a:1", "b:1"))
            await first.after(1)
            await first.after(1, "b:1")
            second.found["a:1"] = REFUSED
            second.checks.follow(targets("a:1", "https://b:1"))
            second.checks.succeed(first.checks)
            first.checks.close()
            assert set(second.checks.verdicts) == {"a:1"}
            assert second.checks.complete
            verdict = await second.after(2)
            assert verdict is not None
            assert verdict.well
            verdict = await second.after(3)
            assert verdict is not None
            assert not verdict.well
            second.checks.close()

    run_jumping(main)
