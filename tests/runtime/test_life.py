from __future__ import annotations

import asyncio

import pytest

from portico.runtime.life import Life
from portico.runtime.web import Web
from tests.harness.loop import run, turns


def no_service(*_: object) -> None:
    raise AssertionError("nobody is asked")


async def wait(begun: list[str], go: asyncio.Event) -> None:
    begun.append("begun")
    await go.wait()
    begun.append("done")


def life_in(tasks: asyncio.TaskGroup) -> Life:
    return Life(tasks, Web(no_service))  # type: ignore[arg-type]


def test_what_is_to_come_to_its_end_is_waited_for_and_other_work_is_not() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            life, go, seen, other = life_in(tasks), asyncio.Event(), list[str](), list[str]()
            await life.settled()
            life.see_through(wait(seen, go), "payment")
            life.spawn(wait(other, asyncio.Event()), "refresh")
            settled = tasks.create_task(life.settled())
            await turns()
            assert not settled.done()
            assert (seen, other) == (["begun"], ["begun"])
            go.set()
            await settled
            assert (seen, other) == (["begun", "done"], ["begun"])
            life.close()

    run(main)


def test_more_of_it_may_begin_meanwhile() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            life, first, second, seen = life_in(tasks), asyncio.Event(), asyncio.Event(), list[str]()
            life.see_through(wait(seen, first), "one")
            settled = tasks.create_task(life.settled())
            await turns()
            life.see_through(wait(seen, second), "other")
            first.set()
            await turns()
            assert not settled.done()
            second.set()
            await settled
            life.close()

    run(main)


def test_it_can_be_ended_all_the_same_and_what_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise ValueError("a mistake")

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            life, seen = life_in(tasks), list[str]()
            life.see_through(fails(), "one")
            life.see_through(wait(seen, asyncio.Event()), "other")
            await turns()
            life.stop()
            await life.settled()
            assert seen == ["begun"]
            life.close()
            life.see_through(wait(seen, asyncio.Event()), "late")
            await life.settled()
            assert seen == ["begun"]

    run(main)
    assert "one: the work has failed" in caplog.text
