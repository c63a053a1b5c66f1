"""What the agent makes of looks for targets: what stays, what is logged, when it looks again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from portico.agent.discovering import SHOWN, Discovering
from portico.config.balance import Target
from portico.upstream.discovery import Discovery, DiscoveryFailed, Found
from tests.harness.loop import run_jumping


def target(text: str) -> Target:
    address, _, weight = text.partition("*")
    return Target.model_validate({"address": address, "weight": int(weight or 1)})


class Scripted(Discovery):
    """Finds one thing after the other: targets, a reason why there are none, or a mistake."""

    def __init__(self, *script: Sequence[str] | Exception) -> None:
        self._script = list(script)
        self.looked_at: list[float] = []
        self.over = asyncio.Event()
        self.trouble = ""

    async def look(self) -> Found:
        self.looked_at.append(asyncio.get_running_loop().time())
        if not self._script:
            self.over.set()
            await asyncio.Event().wait()
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        return Found(tuple(map(target, step)), 5.0, self.trouble)

    @property
    def pauses(self) -> list[float]:
        pairs = zip(self.looked_at, self.looked_at[1:], strict=False)
        return [round(after - before, 1) for before, after in pairs]


def played(*script: Sequence[str] | Exception) -> tuple[Discovering, Scripted, list[tuple[list[str], str]]]:
    """Play a script to its end, and return what was known at each change."""
    known: list[tuple[list[str], str]] = []

    async def main() -> tuple[Discovering, Scripted]:
        scripted = Scripted(*script)
        discovering = Discovering(
            "orders", "here", scripted, lambda: known.append(([*map(str, discovering.targets)], discovering.trouble))
        )
        task = asyncio.get_running_loop().create_task(discovering.run())
        await scripted.over.wait()
        task.cancel()
        return discovering, scripted

    return *run_jumping(main), known


def test_changes_are_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    _, scripted, known = played(["a:1", "b:1"], ["a:1", "b:1"], ["b:1*3", "c:1"])
    assert known == [(["a:1", "b:1"], ""), (["b:1", "c:1"], "")]
    assert caplog.messages == [
        "service orders: targets from here: + a:1, + b:1",
        "service orders: targets from here: + c:1, - a:1, ~ b:1 (weight 3)",
    ]
    assert scripted.pauses == [5.0, 5.0, 5.0]


def test_what_was_found_stays_while_nothing_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gone, other = DiscoveryFailed("it is gone"), DiscoveryFailed("it is elsewhere")
    _, _, known = played(["a:1"], gone, gone, other, [], ["a:1"], ["b:1"])
    assert known == [
        (["a:1"], ""),
        (["a:1"], "it is gone"),
        (["a:1"], "it is elsewhere"),
        (["a:1"], "there are none"),
        (["a:1"], ""),
        (["b:1"], ""),
    ]
    assert caplog.messages[1:] == [
        "service orders: targets from here cannot be found out: it is gone; the last 1 stay",
        "service orders: targets from here cannot be found out: it is elsewhere; the last 1 stay",
        "service orders: targets from here cannot be found out: there are none; the last 1 stay",
        "service orders: targets from here are found out again",
        "service orders: targets from here: + b:1, - a:1",
    ]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "WARNING", "WARNING", "WARNING", "INFO", "INFO"]


def test_after_failures_it_looks_less_and_less_often() -> None:
    failed = DiscoveryFailed("no")
    _, scripted, known = played(*[failed] * 7, ["a:1"], failed, DiscoveryFailed("soon", again_in=0.5), failed)
    assert scripted.pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 5.0, 1.0, 0.5, 4.0]
    assert known[0] == ([], "no")


def test_a_mistake_of_a_provider_is_a_failure_like_others(caplog: pytest.LogCaptureFixture) -> None:
    discovering, _, _ = played(["a:1"], KeyError("x"), KeyError("x"))
    assert ([*map(str, discovering.targets)], discovering.trouble) == (["a:1"], "KeyError: 'x'")
    assert [record.exc_info is not None for record in caplog.records] == [True, False]


def test_a_long_change_is_not_logged_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    played([f"a:{port}" for port in range(1, 500)])
    assert caplog.messages[0].count("+") == SHOWN
    assert caplog.messages[0].endswith(", + a:20, and 479 more")


def test_a_look_without_an_end_is_a_failure() -> None:
    async def main() -> None:
        class Hangs(Scripted):
            longest = 30.0

        known: list[str] = []
        discovering = Discovering("orders", "here", Hangs(), lambda: known.append(discovering.trouble))
        task = asyncio.get_running_loop().create_task(discovering.run())
        await asyncio.sleep(31)
        task.cancel()
        assert known == ["the look has taken more than 30 s"]

    run_jumping(main)


def test_what_is_found_in_part_is_taken_and_the_rest_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        scripted = Scripted(["a:1"], ["a:1"], ["a:1"])
        scripted.trouble = "b is not there"
        known: list[str] = []
        discovering = Discovering("orders", "here", scripted, lambda: known.append(discovering.trouble))
        task = asyncio.get_running_loop().create_task(discovering.run())
        await scripted.over.wait()
        task.cancel()
        assert (known, [*map(str, discovering.targets)]) == (["b is not there"], ["a:1"])

    run_jumping(main)
    assert caplog.messages == ["service orders: targets from here: b is not there"]


def test_a_look_that_swallows_its_end_is_the_last() -> None:
    async def main() -> None:
        class Stubborn(Scripted):
            async def look(self) -> Found:
                try:
                    return await super().look()
                except asyncio.CancelledError:
                    return Found((target("a:1"),), 0.0)

        known: list[str] = []
        discovering = Discovering("orders", "here", Stubborn(), lambda: known.append("new"))
        task = asyncio.get_running_loop().create_task(discovering.run())
        await asyncio.sleep(1)
        discovering.close()
        task.cancel()
        await asyncio.wait_for(task, 5)
        assert known == []

    run_jumping(main)
