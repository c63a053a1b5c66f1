from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator

import pytest

from portico.runtime import pace as module
from portico.runtime.pace import Pace, at_once
from tests.harness.loop import run, until


class Clock:
    """Time that passes where a step says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def take(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def steps(*actions: Callable[[], object]) -> Generator[None, None, str]:
    for action in actions:
        action()
        yield
    return "done"


def test_work_returns_what_its_steps_return() -> None:
    async def main() -> str:
        return await Pace().run(steps(*[lambda: None] * 100))

    assert run(main) == "done"
    assert at_once(steps(*[lambda: None] * 100)) == "done"


def test_work_without_a_step_is_done_at_once(clock: Clock) -> None:
    async def main() -> str:
        return await Pace().run(steps())

    assert run(main) == "done"
    assert at_once(steps()) == "done"


def test_others_have_a_turn_after_each_slice(clock: Clock) -> None:
    turns = []
    done = []

    async def other() -> None:
        while not done:
            turns.append(clock.now)
            await asyncio.sleep(0)

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(other())
            await Pace(0.003).run(steps(*[lambda: clock.take(0.001)] * 10))
            done.append(True)

    run(main)
    assert [round(turn - 100.0, 3) for turn in turns] == [0.003, 0.006, 0.009]


def test_it_remembers_how_long_others_waited(clock: Clock) -> None:
    async def main() -> Pace:
        pace = Pace(0.002)
        await pace.run(steps(lambda: clock.take(0.001), lambda: clock.take(0.007), lambda: clock.take(0.001)))
        assert pace.longest == pytest.approx(0.008)
        await pace.run(steps(lambda: clock.take(0.003)))
        assert pace.longest == pytest.approx(0.008)
        await pace.run(steps(lambda: clock.take(0.050)))
        return pace

    assert run(main).longest == pytest.approx(0.050)


def test_the_last_slice_counts_as_well(clock: Clock) -> None:
    def work() -> Generator[None, None, None]:
        yield
        clock.take(0.3)

    async def main() -> None:
        pace = Pace(0.002)
        await pace.run(work())
        assert pace.longest == pytest.approx(0.3)

    run(main)


def test_work_that_raises_is_over(clock: Clock) -> None:
    def fails() -> None:
        clock.take(0.3)
        raise LookupError

    async def main() -> None:
        pace = Pace()
        with pytest.raises(LookupError):
            await pace.run(steps(lambda: None, fails))
        assert pace.longest == pytest.approx(0.3)

    run(main)
    with pytest.raises(LookupError):
        at_once(steps(fails))


def test_work_that_is_cancelled_is_closed() -> None:
    begun = []
    closed = []

    def work() -> Generator[None, None, None]:
        try:
            while True:
                begun.append(True)
                yield
        finally:
            closed.append(True)

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(Pace(0.0001).run(work()))
            await until(lambda: begun)
            task.cancel()
        assert task.cancelled()

    run(main)
    assert closed == [True]
