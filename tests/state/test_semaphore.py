"""Semaphores of several workers: never more than there is room for, nothing lost, whoever leaves or dies."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from portico.errors import StoreUnavailable
from portico.runtime.life import Life
from portico.state import semaphore
from portico.state.check import OnStoreFailure
from portico.state.holders import Held
from portico.state.memory import MemorySpace
from portico.state.semaphore import LIVES, LOOK, RENEW, NoPlace, Place, SemaphoreRules, Semaphores, Uncounted
from portico.state.store import Space
from tests.harness.loop import DEADLINE, run, run_jumping, turns, until
from tests.harness.valkey import ValkeyServer
from tests.state.stores import hold, valkey_store
from tests.state.test_check import until_well

LOGGER = logging.getLogger("portico.route.test")
FULL = NoPlace.FULL


class AtOnce(MemorySpace):
    """A store by the time of the loop, which may be down."""

    def __init__(self) -> None:
        super().__init__(lambda: 1_700_000_000.0 + asyncio.get_running_loop().time())
        self.down = False
        self.words = 0

    def hold(self, *said: Any) -> Held:
        self.words += 1
        if self.down:
            raise StoreUnavailable("it is down")
        return super().hold(*said)


class Later:
    """The same for those who wait."""

    def __init__(self) -> None:
        self.store = AtOnce()
        self.may = asyncio.Event()
        self.may.set()

    async def hold(self, *said: Any) -> Held:
        await self.may.wait()
        await asyncio.sleep(0)
        return self.store.hold(*said)


class Worker:
    """One worker, which does its work in a task group."""

    def __init__(self, space: Any, tasks: asyncio.TaskGroup) -> None:
        self.unchecked = 0
        """How often the store could not count who came."""
        self.all = Semaphores(space, asyncio.get_running_loop().time, LOGGER)
        self.tasks = tasks
        self.life = self.another_life()

    def another_life(self) -> Life:
        """Have another configuration do the work, beside the one before."""
        self.life = Life(self.tasks, SimpleNamespace(close=lambda: None))  # type: ignore[arg-type]
        self.all.serve(self.life.spawn)
        return self.life

    async def enter(self, rules: SemaphoreRules, key: bytes = b"a", deadline: float | None = None) -> Place | NoPlace:
        found = self.all.enter(key, rules, deadline)
        entered = found if isinstance(found, Place | NoPlace | Uncounted) else await found
        if isinstance(entered, Uncounted):
            self.unchecked += 1
            return entered.entered
        return entered

    def end(self, life: Life | None = None) -> None:
        life = life or self.life
        self.all.without(life.spawn)
        life.close()


@asynccontextmanager
async def workers(space: Any, count: int = 1) -> AsyncIterator[list[Worker]]:
    async with asyncio.TaskGroup() as tasks:
        made = [Worker(space, tasks) for _ in range(count)]
        try:
            yield made
        finally:
            for each in made:
                each.end()


def rules(most: int, on_failure: OnStoreFailure = "allow", **more: Any) -> SemaphoreRules:
    return SemaphoreRules(most, on_failure, **more)


async def taken(space: Any, key: bytes = b"a") -> int:
    """How many places the store takes for taken."""
    return (await hold(space, key, b"somebody", 0, 0, 0)).total


def with_each(test: Callable[[Any], Awaitable[None]]) -> None:
    """Run a test with a store that knows at once, with one that is waited for, and with a real one of these."""
    for make in (AtOnce, Later):
        run_jumping(lambda make=make: test(make()))  # type: ignore[misc]

    async def real() -> None:
        with ValkeyServer() as server:
            async with asyncio.TaskGroup() as tasks:
                store = valkey_store(server, tasks)
                try:
                    await test(store.volatile)
                finally:
                    store.close()

    run(real)


def test_places_are_given_and_given_back() -> None:
    async def test(space: Space) -> None:
        async with workers(space, 2) as (one, other):
            first, second = await one.enter(rules(2)), await other.enter(rules(2))
            assert isinstance(first, Place)
            assert isinstance(second, Place)
            assert await one.enter(rules(2)) is FULL
            assert await other.enter(rules(2)) is FULL
            assert isinstance(await other.enter(rules(2), b"b"), Place)
            first.leave()
            while await taken(space) != 1:  # where the store is waited for, it is told soon
                await asyncio.sleep(0)
            assert isinstance(await other.enter(rules(2)), Place)
            assert await taken(space) == 2
            assert len(one.all) == 0

    with_each(test)


@pytest.mark.parametrize("wait", [0.0, 0.05])
def test_there_are_never_more_than_there_is_room_for_and_all_come_back(wait: float) -> None:
    async def test(space: Space) -> None:
        rng = random.Random(1)
        inside = most = entered = 0
        async with workers(space, 3) as made:

            async def client(number: int) -> None:
                nonlocal inside, most, entered
                await asyncio.sleep(rng.uniform(0, 0.2))
                place = await made[number % 3].enter(rules(7, wait=wait, queue=20))
                if place is FULL:
                    return
                assert isinstance(place, Place)
                inside += 1
                entered += 1
                most = max(most, inside)
                try:
                    await asyncio.sleep(rng.uniform(0, 0.03))
                finally:
                    inside -= 1
                    place.leave()

            async with asyncio.TaskGroup() as clients:
                tasks = [clients.create_task(client(number)) for number in range(400)]
                await asyncio.sleep(0.05)
                for task in tasks[::3]:
                    task.cancel()  # wherever they are
            assert most == 7
            assert entered > 50
            while await taken(space):
                await asyncio.sleep(0.001)
            await turns()
            assert [len(each.all) for each in made] == [0, 0, 0]

    with_each(test)


def test_what_takes_long_stays_counted_and_who_has_died_does_not() -> None:
    async def test(space: Any) -> None:
        async with workers(space, 2) as (one, other):
            assert isinstance(await one.enter(rules(1)), Place)
            for _ in range(30):
                await asyncio.sleep(3.1)
                assert await other.enter(rules(1)) is FULL
            one.end()
            assert await other.enter(rules(1)) is FULL
            await asyncio.sleep(LIVES + 0.1)
            assert isinstance(await other.enter(rules(1)), Place)

    for make in (AtOnce, Later):
        run_jumping(lambda make=make: test(make()))  # type: ignore[misc]


def test_only_what_was_not_said_of_late_is_said_again() -> None:
    async def main() -> None:
        space = AtOnce()
        async with workers(space) as (worker,):
            await worker.enter(rules(1))
            before = space.words
            await asyncio.sleep(60)
            assert 5 < space.words - before <= 60 / RENEW

    run_jumping(main)


@pytest.mark.parametrize("make", [AtOnce, Later])
def test_another_configuration_goes_on_with_it(make: type[AtOnce]) -> None:
    async def main() -> None:
        space = make()
        async with workers(space, 2) as (one, other):
            place = await one.enter(rules(1))
            assert isinstance(place, Place)
            for _ in range(3):
                await turns()
                before = one.life
                abandoned = one.another_life()
                one.end(abandoned)
                one.another_life()
                one.end(before)
                await asyncio.sleep(60)
                assert await other.enter(rules(1)) is FULL
            place.leave()
            await asyncio.sleep(0.001)
            assert isinstance(await other.enter(rules(1)), Place)

    run_jumping(main)


def test_who_waits_is_given_the_place_of_who_leaves_in_their_order() -> None:
    async def test(space: Any) -> None:
        async with workers(space) as (worker,):
            patient = rules(1, wait=5.0, queue=3)
            places = [await worker.enter(patient)]
            waiting = [worker.tasks.create_task(worker.enter(patient)) for _ in range(4)]
            await until(waiting[3].done)
            assert waiting[3].result() is FULL  # only so many may wait
            for each in waiting[:3]:
                assert not each.done()
                place = places[-1]
                assert isinstance(place, Place)
                place.leave()
                places.append(await each)
            assert await taken(space) == 1

    with_each(test)


def test_who_waits_in_vain_is_told_in_time() -> None:
    async def test(space: Any) -> None:
        clock = asyncio.get_running_loop().time
        async with workers(space) as (worker,):
            patient = rules(1, wait=0.2, queue=3)
            await worker.enter(patient)
            began = clock()
            assert await worker.enter(patient) is FULL
            assert 0.19 < clock() - began < 5.0
            began = clock()
            assert await worker.enter(patient, deadline=began + 0.05) is FULL
            assert await worker.enter(patient, deadline=began) is FULL
            assert await worker.enter(rules(1)) is FULL

    with_each(test)


def test_who_waits_finds_places_that_other_workers_give_back() -> None:
    async def test(space: Any) -> None:
        async with workers(space, 2) as (one, other):
            patient = rules(1, wait=5.0, queue=3)
            place = await one.enter(patient)
            assert isinstance(place, Place)
            waiting = other.tasks.create_task(other.enter(patient))
            await asyncio.sleep(LOOK * 3)
            assert not waiting.done()
            place.leave()
            assert isinstance(await waiting, Place)
            assert await taken(space) == 1

    with_each(test)


@pytest.mark.parametrize("make", [AtOnce, Later])
def test_a_busy_worker_does_not_keep_all_places_for_itself(make: type[AtOnce]) -> None:
    async def main() -> None:
        async with workers(make(), 2) as (one, other):
            patient = rules(3, wait=DEADLINE / 2, queue=50)
            stopping = False

            async def client() -> None:
                while not stopping:
                    place = await one.enter(patient)
                    assert isinstance(place, Place)
                    await asyncio.sleep(0.01)
                    place.leave()

            for _ in range(20):
                one.tasks.create_task(client())
            await turns()  # from now on there is always somebody here who waits
            assert isinstance(await other.enter(patient), Place)
            stopping = True

    run(main)


def test_many_at_once_are_a_few_words() -> None:
    async def main() -> None:
        space = Later()
        async with workers(space) as (worker,):
            found = await asyncio.gather(*(worker.enter(rules(150)) for _ in range(200)))
            assert sum(isinstance(each, Place) for each in found) == 150
            assert space.store.words == 2
            for each in found:
                if isinstance(each, Place):
                    each.leave()
            await asyncio.sleep(0.1)
            assert await taken(space) == 0
            assert space.store.words <= 5

    run_jumping(main)


def test_whoever_leaves_while_the_store_is_asked_takes_nothing_with_them() -> None:
    async def main() -> None:
        space = Later()
        async with workers(space) as (worker,):
            for leaves in range(4):
                space.may.clear()
                asking = [worker.tasks.create_task(worker.enter(rules(9))) for _ in range(4)]
                await turns()
                asking[leaves].cancel()
                await turns()
                space.may.set()
                places = [await each for number, each in enumerate(asking) if number != leaves]
                assert asking[leaves].cancelled()
                await asyncio.sleep(0.001)
                assert await taken(space) == 3
                for place in places:
                    assert isinstance(place, Place)
                    place.leave()
                await asyncio.sleep(0.001)
                assert await taken(space) == 0
                assert len(worker.all) == 0

    run_jumping(main)


@pytest.mark.parametrize("make", [AtOnce, Later])
@pytest.mark.parametrize(
    ("on_failure", "then"),
    [("allow", "iii"), ("local", "ii-"), ("deny", "???")],
)
def test_what_a_store_that_is_down_comes_to(
    on_failure: OnStoreFailure, then: str, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)

    async def main() -> None:
        space = make()
        store: AtOnce = space if isinstance(space, AtOnce) else space.store
        async with workers(space, 2) as (one, other):
            how = rules(3, on_failure)
            first = await one.enter(how)
            assert isinstance(first, Place)
            store.down = True
            found = [await one.enter(how) for _ in range(3)]
            assert "".join({NoPlace.FULL: "-", NoPlace.UNKNOWN: "?"}.get(each, "i") for each in found) == then  # type: ignore[arg-type]
            assert one.unchecked == 3
            before = store.words
            await asyncio.sleep(20)
            assert store.words - before <= 20 / RENEW + 1  # it is not asked in vain all the time
            store.down = False
            await asyncio.sleep(2 * RENEW)
            assert await taken(space) == 1 + then.count("i")  # it has heard by now
            store.down = True
            places = [first, *(each for each in found if isinstance(each, Place))]
            for place in places:
                place.leave()
            store.down = False
            await asyncio.sleep(LIVES + 0.1)
            assert await taken(space) == 0
            assert len(one.all) == 0
            assert isinstance(await other.enter(how), Place)

    run_jumping(main)
    said = [record.message for record in caplog.records if record.name == LOGGER.name]
    assert said[0] == f"it is down; until it answers, on_store_failure is {on_failure}"
    assert said[1].startswith("the store answers again; ")


@pytest.mark.parametrize("make", [AtOnce, Later])
@pytest.mark.parametrize("on_failure", ["allow", "deny", "local"])
def test_who_waits_when_the_store_goes_down(on_failure: OnStoreFailure, make: Any) -> None:
    async def main() -> None:
        space = make()
        store: AtOnce = space if isinstance(space, AtOnce) else space.store
        async with workers(space) as (worker,):
            clock = asyncio.get_running_loop().time
            how = rules(1, on_failure, wait=600.0, queue=5)
            place = await worker.enter(how)
            assert isinstance(place, Place)
            waiting = [worker.tasks.create_task(worker.enter(how)) for _ in range(3)]
            waiting[1].cancel()
            await asyncio.sleep(0.05)
            store.down = True
            began = clock()
            if on_failure == "local":
                place.leave()
                place = await waiting[0]
                assert isinstance(place, Place)
                place.leave()
            found = [await each for each in (waiting[0], waiting[2])]
            assert clock() - began < 10.0
            assert all(each is NoPlace.UNKNOWN if on_failure == "deny" else each is place for each in found)
            assert worker.all._waiting == 0

    run_jumping(main)


def test_who_leaves_as_the_store_goes_down_leaves_no_place_behind() -> None:
    async def main() -> None:
        store = AtOnce()
        async with workers(store) as (worker,):
            how = rules(1, "allow", wait=600.0, queue=5)
            place = await worker.enter(how)
            assert isinstance(place, Place)
            waiting = worker.tasks.create_task(worker.enter(how))
            await asyncio.sleep(0)
            store.down = True
            worker.all._look(place, 1)
            assert place.count == 2  # it has been let in, and has not heard of it yet
            waiting.cancel()
            await asyncio.wait([waiting])
            assert place.count == 1

    run_jumping(main)


def test_a_server_that_is_killed_and_comes_back_hears_of_all() -> None:
    async def main() -> None:
        with ValkeyServer() as server:
            async with asyncio.TaskGroup() as tasks:
                store = valkey_store(server, tasks)
                async with workers(store.volatile) as (worker,):
                    places = [await worker.enter(rules(5)) for _ in range(2)]
                    server.kill()
                    places.append(await worker.enter(rules(5)))
                    server.start()
                    await until_well(store.volatile)
                    places.append(await worker.enter(rules(5)))
                    assert await taken(store.volatile) == 4
                    for place in places:
                        assert isinstance(place, Place)
                        place.leave()
                    while await taken(store.volatile):
                        await asyncio.sleep(0.001)
                store.close()

    run(main)


def test_what_is_closed_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semaphore, "WAITING", 2)

    async def main() -> None:
        space = Later()
        async with workers(space) as (worker,):
            place = await worker.enter(rules(1, wait=5.0, queue=5))
            assert isinstance(place, Place)
            waiting = worker.tasks.create_task(worker.enter(rules(1, wait=5.0, queue=5)))
            await asyncio.sleep(0.1)
            worker.all.close()
            assert await waiting is FULL
            place.leave()
            assert len(worker.all) == 0
            space.may.clear()
            asking = [worker.tasks.create_task(worker.enter(rules(9, "deny"), b"b")) for _ in range(5)]
            await turns()
            assert [each.result() for each in asking if each.done()] == [NoPlace.UNKNOWN] * 2  # too many wait for it
            space.may.set()
            assert {type(each) for each in await asyncio.gather(*asking[:3])} == {Place}

    run_jumping(main)
