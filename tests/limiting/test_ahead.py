"""What is taken ahead of a total: never more than there is, and nothing is lost that comes to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.errors import StoreUnavailable
from portico.limiting import ahead
from portico.limiting.ahead import TakenAhead
from portico.state.check import LimitCheck
from portico.state.limits import Limits, Total, Verdict
from portico.state.memory import MemorySpace
from portico.testing.clock import FakeTimeLoop

LOGGER = logging.getLogger("portico.route.test")


class Slow:
    """A space that takes a while, as a disk does, and counts what it is asked."""

    def __init__(self, seconds: float = 0.008) -> None:
        self.inner = MemorySpace()
        self.seconds = seconds
        self.asked: list[int] = []
        self.broken = False

    async def take(self, key: bytes, limits: Limits, cost: int = 1) -> Verdict:
        return await self._count(self.inner.take, key, limits, cost)

    async def charge(self, key: bytes, limits: Limits, cost: int) -> Verdict:
        return await self._count(self.inner.charge, key, limits, cost)

    async def _count(
        self, count: Callable[[bytes, Limits, int], Verdict], key: bytes, limits: Limits, cost: int
    ) -> Verdict:
        self.asked.append(cost)
        if self.broken:
            raise StoreUnavailable("it is broken")
        verdict = count(key, limits, cost)
        await asyncio.sleep(self.seconds)
        return verdict

    def used(self, limits: Limits, key: bytes = b"a") -> int:
        return int(limits.rules[0].capacity) - self.inner.take(key, limits, 0).left[0]


class Worker:
    """A worker, as far as that matters here."""

    def __init__(self, space: Any, amount: int, on_failure: Any = "allow") -> None:
        self.limits = Limits([Total(amount, 86400.0)])
        self.tasks: set[asyncio.Task[None]] = set()
        check = LimitCheck(space, self.limits, on_failure, LOGGER)
        self.ahead = TakenAhead(space, self.limits, check, asyncio.get_running_loop().time)
        self.ahead.join(self.spawn)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def take(self, cost: int = 1, key: bytes = b"a") -> Verdict:
        found = self.ahead.take(key, cost)
        return found if isinstance(found, Verdict) else await found

    async def charge(self, cost: int, key: bytes = b"a") -> Verdict:
        found = self.ahead.charge(key, cost)
        return found if isinstance(found, Verdict) else await found

    async def passed(self, times: int, cost: int = 1) -> int:
        return sum([(await self.take(cost)).allowed for _ in range(times)])

    async def quiet(self) -> None:
        """Let the time pass after which everything is given back."""
        await asyncio.sleep(ahead.HELD + 10 * ahead.PAUSE)
        assert not len(self.ahead)
        assert not self.tasks

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(100_000):
            await main()

    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        runner.run(bounded())


def test_most_requests_do_not_ask_the_store() -> None:
    async def main() -> None:
        space = Slow()
        worker = Worker(space, 10_000)
        assert await worker.passed(1000) == 1000
        assert len(space.asked) < 30
        assert max(space.asked) <= 100
        assert (await worker.take()).left == (10_000 - 1001,)
        await worker.quiet()
        assert space.used(worker.limits) == 1001

    run(main)


def test_toward_the_end_each_is_taken_by_itself_and_all_can_be_had() -> None:
    async def main() -> None:
        space = Slow()
        worker = Worker(space, 250)
        assert await worker.passed(300) == 250
        assert space.asked.count(2) == 26  # while there were 200 or more
        refused = await worker.take()
        assert (refused.allowed, refused.left, refused.known) == (False, (0,), True)

    run(main)


def test_where_nothing_is_left_it_is_not_asked_again_for_a_while() -> None:
    async def main() -> None:
        space = Slow()
        worker = Worker(space, 3)
        assert await worker.passed(50) == 3
        assert len(space.asked) == 4
        await asyncio.sleep(ahead.KNOWN)
        space.inner.charge(b"a", worker.limits, -1)  # another one has given it back
        assert await worker.passed(50) == 1

    run(main)


def test_many_at_once_wait_for_one_and_the_same() -> None:
    async def main() -> None:
        space = Slow()
        worker = Worker(space, 100_000)
        verdicts = await asyncio.gather(*(worker.take() for _ in range(500)))
        assert all(verdict.allowed for verdict in verdicts)
        assert space.used(worker.limits) >= 500
        await worker.quiet()
        assert space.used(worker.limits) == 500
        await asyncio.gather(*(worker.take() for _ in range(2000)))

    run(main)


def test_who_leaves_while_it_is_taken_loses_nothing() -> None:
    async def main() -> None:
        space = Slow()
        worker = Worker(space, 100_000)
        leaving = [asyncio.ensure_future(worker.take()) for _ in range(5)]  # noqa: TID251
        staying = asyncio.ensure_future(worker.take())  # noqa: TID251
        await asyncio.sleep(0.001)
        for each in leaving:
            each.cancel()
        assert (await staying).allowed
        await worker.quiet()
        assert space.used(worker.limits) == 1

    run(main)


def test_what_is_charged_comes_out_of_the_hand_or_of_the_store() -> None:
    async def main() -> None:
        space = Slow()
        worker = Worker(space, 10_000)
        await worker.take()
        asked = len(space.asked)
        assert (await worker.charge(5)).left == (10_000 - 6,)
        assert len(space.asked) == asked
        assert (await worker.charge(500)).left == (10_000 - 506,)
        assert (await worker.charge(20, b"another")).left == (10_000 - 20,)
        await worker.quiet()
        assert space.used(worker.limits) == 506
        assert not (await worker.charge(20_000)).allowed
        assert not (await worker.take()).allowed
        assert not (await worker.take(0)).allowed

    run(main)


@pytest.mark.parametrize(("on_failure", "allowed"), [("allow", 20), ("deny", 0), ("local", 20)])
def test_a_store_without_an_answer(on_failure: str, allowed: int) -> None:
    async def main() -> None:
        space = Slow()
        worker = Worker(space, 10_000, on_failure)
        space.broken = True
        assert await worker.passed(20) == allowed
        assert len(space.asked) == 21  # one that would have been ahead
        space.broken = False
        await asyncio.sleep(ahead.KNOWN)
        assert await worker.passed(50) == 50
        space.broken = True
        await worker.quiet()  # what cannot be given back is lost
        space.broken = False
        assert 50 <= space.used(worker.limits) <= 150

    run(main)


def test_what_is_begun_for_one_configuration_goes_on_in_the_next() -> None:
    async def main() -> None:
        space = Slow()
        worker, spawned = Worker(space, 100_000), 0

        def next_one(work: Coroutine[Any, Any, None], name: str) -> None:
            nonlocal spawned
            spawned += 1
            worker.spawn(work, name)

        waiting = asyncio.ensure_future(worker.take())  # noqa: TID251
        await asyncio.sleep(0.001)
        old = set(worker.tasks)
        worker.ahead.join(next_one)
        for task in old:
            task.cancel()
        worker.ahead.leave(worker.spawn)
        assert (await waiting).allowed
        assert spawned == 2
        await worker.passed(10)
        await worker.quiet()
        assert space.used(worker.limits) == 11 + ahead.FIRST  # what was being taken then is lost

    run(main)


def test_without_anyone_to_do_the_work_each_is_taken_by_itself() -> None:
    async def main() -> None:
        space = Slow()
        worker = Worker(space, 10_000)
        worker.ahead.leave(worker.spawn)
        assert await worker.passed(20) == 20
        assert space.asked == [1] * 20

    run(main)


def test_work_that_is_never_done_holds_nobody_up() -> None:
    async def main() -> None:
        space = Slow()
        worker = Worker(space, 10_000)
        worker.ahead.leave(worker.spawn)
        worker.ahead.join(lambda work, _: work.close())
        began = asyncio.get_running_loop().time()
        assert (await worker.take()).allowed
        assert asyncio.get_running_loop().time() - began < 4 * ahead.PATIENCE

    run(main)


def test_callers_beyond_those_that_are_kept_take_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "HANDS", 2)

    async def main() -> None:
        space = Slow()
        worker = Worker(space, 10_000)
        for number in range(5):
            assert (await worker.take(key=b"%d" % number)).allowed
        assert len(worker.ahead) == 2
        assert space.asked == [16, 16, 1, 1, 1]
        await worker.quiet()
        assert all(space.used(worker.limits, b"%d" % number) == 1 for number in range(5))

    run(main)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3000),
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 3), st.sampled_from([0.0, 0.004, 0.5, 40.0])),
        max_size=40,
    ),
)
def test_workers_never_give_out_more_than_there_is_and_lose_nothing(
    amount: int, steps: list[tuple[int, int, int, float]]
) -> None:
    async def main() -> None:
        space = Slow()
        workers = [Worker(space, amount) for _ in range(3)]
        given_out = 0

        async def ask(worker: Worker, cost: int) -> None:
            nonlocal given_out
            if (await worker.take(cost)).allowed:
                given_out += cost
            assert given_out <= amount

        async with asyncio.TaskGroup() as tasks:
            for which, times, cost, pause in steps:
                for _ in range(times):
                    tasks.create_task(ask(workers[which], cost))
                await asyncio.sleep(pause)
        for worker in workers:
            await worker.quiet()
        assert space.used(workers[0].limits) == given_out
        assert sum([await worker.passed(amount) for worker in workers]) <= amount - given_out

    run(main)
