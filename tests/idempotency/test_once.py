"""Each request is carried out once for its key, whatever keeps the keys, in whatever order things happen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portico.errors import Source, StoreUnavailable, UpstreamClosed
from portico.http.body import Body
from portico.http.message import Request, Response
from portico.idempotency.once import Once, OnceRules
from portico.idempotency.record import Standing
from portico.observe.exchange import Exchange, Outcome
from portico.state.limits import Limits, Verdict
from portico.state.memory import MemorySpace
from portico.state.store import Claim, Space
from portico.testing.clock import FakeTimeLoop
from tests.harness.loop import run
from tests.state.stores import ENGINES, Wall

RULES = OnceRules(ttl=3600, lock=60, wait=0, largest=1000, retryable=frozenset((503,)), keep_unknown=True)
LOGGER = logging.getLogger("portico.route.test")
MINE = b"m" * 32


class Worker:
    """What one worker has of a policy: the work that it sees through is in a group of the test."""

    def __init__(self, space: Space, group: asyncio.TaskGroup, rules: OnceRules = RULES, place: str = "here") -> None:
        self.work: list[asyncio.Task[None]] = []
        self._group = group
        self.once = Once(space, place, rules, self._see_through, asyncio.get_running_loop().time, LOGGER)

    def _see_through(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.work.append(self._group.create_task(work, name=name))

    async def ask(self, service: Service, key: bytes = b"k", print_: bytes = MINE, caller: bytes = b"") -> Any:
        request = Request("POST", "/", exchange=Exchange(1.0))
        found, again = await self.once.answer(request, service.handle, caller, key, print_)
        if not isinstance(found, Response):
            assert not again
            return found
        assert again is (b"idempotency-replayed" in found.headers)
        return found.body.whole, again


class Service:
    """Notes how often it was asked; it answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def handle(self, request: Request) -> Response:
        assert request.exchange is not None
        request.exchange.tries += 1
        self.asked += 1
        number = self.asked
        self.begun.set()
        await self.go.wait()
        return Response(201, body=b"%d" % number)


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Any:
    return ENGINES[request.param]


def test_of_many_on_two_workers_one_goes_to_the_service(engine: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with engine(tmp_path) as made, asyncio.TaskGroup() as group:
            workers = [Worker(made.store.durable, group) for _ in range(2)]
            service = Service()
            asked = [group.create_task(workers[number % 2].ask(service)) for number in range(50)]
            await service.begun.wait()
            while sum(each.done() for each in asked) < 49:
                await asyncio.sleep(0.01)
            service.go.set()
            found = [await each for each in asked]
            assert found.count((b"1", False)) == 1
            assert found.count(Standing.UNDER_WAY) == 49
            assert [await worker.ask(service) for worker in workers] == [(b"1", True)] * 2
            assert await workers[0].ask(service, print_=b"o" * 32) is Standing.REUSED
            assert service.asked == 1

    run(main)


def test_those_that_wait_have_the_answer_of_another_worker(engine: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with engine(tmp_path) as made, asyncio.TaskGroup() as group:
            rules = replace(RULES, wait=30)
            workers = [Worker(made.store.durable, group, rules) for _ in range(2)]
            service = Service()
            first = group.create_task(workers[0].ask(service))
            await service.begun.wait()
            others = [group.create_task(workers[number % 2].ask(service)) for number in range(6)]
            service.go.set()
            assert await first == (b"1", False)
            assert [await each for each in others] == [(b"1", True)] * 6

    run(main)


def test_callers_keys_and_places_are_told_apart(engine: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with engine(tmp_path) as made, asyncio.TaskGroup() as group:
            here, there = (Worker(made.store.durable, group, place=place) for place in ("here", "there"))
            service = Service()
            service.go.set()
            asked = [(here, b"", b"ab"), (here, b"a", b"b"), (here, b"ab", b""), (here, b"", b"x"), (there, b"", b"ab")]
            for again in (False, True):
                for number, (worker, caller, key) in enumerate(asked, 1):
                    assert await worker.ask(service, key, MINE, caller) == (b"%d" % number, again)

    run(main)


@pytest.mark.parametrize("keep", [False, True])
def test_where_a_worker_ends_nobody_knows_what_becomes_of_it(engine: Any, tmp_path: Path, keep: bool) -> None:
    async def main() -> None:
        async with engine(tmp_path) as made, asyncio.TaskGroup() as group:
            ending, other = (Worker(made.store.durable, group, replace(RULES, keep_unknown=keep)) for _ in range(2))
            service = Service()
            first = group.create_task(ending.ask(service))
            await service.begun.wait()
            ending.work[0].cancel()
            assert await first is Standing.LATE  # and not NO_STORE, upon which it may be sent again
            service.go.set()
            assert await other.ask(service) == (Standing.UNKNOWN if keep else (b"2", False))

    run(main)


def test_where_a_worker_is_lost_the_key_is_claimed_until_its_end(engine: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with engine(tmp_path) as made, asyncio.TaskGroup() as group:
            rules = replace(RULES, lock=made.ttl if made.ttl > 1 else 2.0)
            space = Failing(made.store.durable)
            lost, other = Worker(space, group, rules), Worker(made.store.durable, group, rules)
            service = Service()
            first = group.create_task(lost.ask(service))
            await service.begun.wait()
            space.down = True
            lost.work[0].cancel()
            assert await first is Standing.LATE
            assert await other.ask(service) is Standing.UNDER_WAY
            service.go.set()
            found = (await other.ask(service),)

            async def gone() -> bool:
                nonlocal found
                found = (await other.ask(service),)
                return found[0] is not Standing.UNDER_WAY

            assert await made.expired(gone)
            assert found[0] == (b"2", False)

    run(main)


# With a store that fails.


class Failing:
    """A space that fails when it is told to: before it has done what it was asked, or after."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.failing: list[str] = []
        """What becomes of the next operations: nothing for one that is well, or `before`, or `after`."""
        self.down = False
        self.slow = 0.0
        """Seconds until it says what has come of a claim."""

    @asynccontextmanager
    async def _around(self) -> AsyncIterator[None]:
        fails = "before" if self.down else self.failing.pop(0) if self.failing else ""
        if fails == "before":
            raise StoreUnavailable("the test has it fail")
        yield
        if fails == "after":
            raise StoreUnavailable("the test has it fail")

    async def claim(self, key: bytes, ttl: float) -> Claim:
        async with self._around():
            claim = await self._space.claim(key, ttl)
            await asyncio.sleep(self.slow)
            return claim

    async def settle(self, key: bytes, token: int, value: bytes, ttl: float) -> bool:
        async with self._around():
            return await self._space.settle(key, token, value, ttl)

    async def release(self, key: bytes, token: int) -> bool:
        async with self._around():
            return await self._space.release(key, token)

    async def get(self, key: bytes) -> bytes | None:
        raise NotImplementedError

    async def put(self, key: bytes, value: bytes, ttl: float) -> None:
        raise NotImplementedError

    async def delete(self, key: bytes) -> None:
        raise NotImplementedError

    def take(self, key: bytes, limits: Limits, cost: int = 1) -> Verdict:
        raise NotImplementedError


def in_fake_time(main: Any) -> Any:
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(main())


def failing_space() -> Failing:
    return Failing(MemorySpace(asyncio.get_running_loop().time))


def test_without_a_store_nothing_is_carried_out(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            space = failing_space()
            worker, service = Worker(space, group), Service()
            space.down = True
            assert [await worker.ask(service) for _ in range(3)] == [Standing.NO_STORE] * 3
            assert service.asked == 0
            space.down = False
            service.go.set()
            assert await worker.ask(service) == (b"1", False)

    in_fake_time(main)
    assert caplog.text.count("the store is missed: the test has it fail") == 1


def test_who_waits_knows_of_the_other_one_also_when_the_store_fails() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            space = failing_space()
            worker, service = Worker(space, group, replace(RULES, wait=30)), Service()
            first = group.create_task(worker.ask(service))
            await service.begun.wait()
            second = group.create_task(worker.ask(service))
            await asyncio.sleep(1)
            space.down = True
            assert await second is Standing.UNDER_WAY  # and not NO_STORE, upon which it may be sent
            space.down = False
            service.go.set()
            assert await first == (b"1", False)

    in_fake_time(main)


def test_those_that_come_in_the_same_moment_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.idempotency.once.MOST_UNDER_WAY", 3)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            worker, service = Worker(failing_space(), group), Service()
            asked = [group.create_task(worker.ask(service, b"%d" % number)) for number in range(5)]
            await asyncio.sleep(1)
            service.go.set()
            found = [await each for each in asked]
            assert found.count(Standing.CROWDED) == 2
            assert service.asked == 3
            assert worker.once.under_way == 0

    in_fake_time(main)


@pytest.mark.parametrize("fails", ["before", "after"])
def test_an_answer_is_given_at_once_and_kept_as_soon_as_that_can_be(
    fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            space = failing_space()
            worker, service = Worker(space, group), Service()
            service.go.set()
            space.failing = ["", fails, "before", "before"]
            began = loop.time()
            assert await worker.ask(service) == (b"1", False)
            assert loop.time() == began
            await asyncio.sleep(10)
            assert await worker.ask(service) == (b"1", True)

    in_fake_time(main)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("fails", ["before", "after"])
def test_a_key_that_is_to_be_free_again_is_so_as_soon_as_that_can_be(
    fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async def refuse(_: Request) -> Response:
            return Response.problem(503, "no-healthy-target")

        async with asyncio.TaskGroup() as group:
            space = failing_space()
            worker, service = Worker(space, group), Service()
            service.go.set()
            space.failing = ["", fails, "before", "before"]
            answer, _ = await worker.once.answer(Request("POST", "/"), refuse, b"", b"k", MINE)
            assert isinstance(answer, Response)
            await asyncio.sleep(5)
            assert await worker.ask(service) == (b"1", False)

    in_fake_time(main)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_one_that_could_never_be_kept_is_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            space = failing_space()
            worker, service = Worker(space, group), Service()
            first = group.create_task(worker.ask(service))
            await service.begun.wait()
            space.down = True
            service.go.set()
            assert await first == (b"1", False)
            await asyncio.sleep(70)
            assert worker.work[0].done()
            assert worker.once.under_way == 0

    in_fake_time(main)
    assert "an answer could not be kept" in caplog.text


@pytest.mark.parametrize("another", [False, True])
def test_one_whose_claim_has_ended_is_kept_unless_another_has_come(
    another: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            wall = Wall()
            space = MemorySpace(wall)
            worker, service, second = Worker(space, group), Service(), Service()
            first = group.create_task(worker.ask(service))
            await service.begun.wait()
            wall.now += 120.0  # somebody has set the time of day, or the store has lost it
            if another:
                asked = group.create_task(worker.ask(second))
                await second.begun.wait()
            service.go.set()
            assert await first == (b"1", False)
            if another:
                second.go.set()
                assert await asked == (b"1", False)
            assert await worker.ask(service) == (b"1", True)
            assert service.asked == 1

    in_fake_time(main)
    assert ("a claim had ended" in caplog.text) == another


def test_a_claim_that_was_heard_of_too_late_is_none() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            space = failing_space()
            space.slow = 61.0  # as where the worker was stopped
            worker, service = Worker(space, group), Service()
            service.go.set()
            assert await worker.ask(service) is Standing.NO_STORE
            assert service.asked == 0
            space.slow = 0.0
            assert await worker.ask(service) == (b"1", False)

    in_fake_time(main)


def test_work_that_never_begins_is_not_waited_for_forever() -> None:
    async def main() -> None:
        once = Once(failing_space(), "", RULES, lambda work, _: work.close(), asyncio.get_running_loop().time, LOGGER)
        assert await once.answer(Request("POST", "/"), Service().handle, b"", b"k", MINE) == (Standing.LATE, False)

    in_fake_time(main)


@pytest.mark.parametrize("size", [10, 2000])
def test_a_request_of_a_policy_s_own_has_its_record_ended(size: int) -> None:
    ended: list[Outcome | None] = []

    async def main() -> None:
        async def handle(request: Request) -> Response:
            assert request.exchange is not None
            request.exchange.on_end(lambda exchange: ended.append(exchange.outcome))
            return Response(200, body=Body.stream(Pieces(bytes(size)), None))

        async with asyncio.TaskGroup() as group:
            worker = Worker(failing_space(), group)
            answer, _ = await worker.once.answer(Request("POST", "/"), handle, b"", b"k", MINE)
            assert isinstance(answer, Response)
            assert await answer.body.read(9999) == bytes(size)
            answer.body.close()

    in_fake_time(main)
    assert ended == [Outcome.COMPLETE]


class Pieces:
    """A body in one piece."""

    def __init__(self, piece: bytes) -> None:
        self._pieces = [piece]

    async def read(self) -> bytes:
        return self._pieces.pop() if self._pieces else b""

    def trailers(self) -> list[tuple[bytes, bytes]]:
        return []

    def close(self) -> None:
        """Nothing is held."""


# Whatever happens.


class Asked(NamedTuple):
    """One request: when it comes, when its client leaves, how long the service takes, and what comes of it."""

    at: int
    leaves: int
    takes: int
    outcome: str


class World:
    """Two workers, and a service that counts what it has carried out."""

    def __init__(self, group: asyncio.TaskGroup, rules: OnceRules, faults: list[str]) -> None:
        self.space = failing_space()
        self.space.failing = list(faults)
        self.workers = [Worker(self.space, group, rules) for _ in range(2)]
        self.carried_out = 0
        self.at_once = 0
        self.given: list[Any] = []

    async def client(self, number: int, asked: Asked) -> None:
        async def handle(request: Request) -> Response:
            return await self._serve(request, asked)

        await asyncio.sleep(asked.at)
        request = Request("POST", "/", exchange=Exchange(1.0))
        try:
            async with asyncio.timeout(asked.leaves):
                found = await self.workers[number % 2].once.answer(request, handle, b"", b"k", MINE)
        except TimeoutError:
            return
        except UpstreamClosed:
            return
        if isinstance(found, Response) and found.problem_value is None and found.status == 201:
            self.given.append(found.body.whole)
            found.body.close()

    async def _serve(self, request: Request, asked: Asked) -> Response:
        self.at_once += 1
        assert self.at_once == 1, "two at once"
        try:
            assert request.exchange is not None
            if asked.outcome == "refused":
                return Response.problem(503, "no-healthy-target")
            request.exchange.tries += 1
            await asyncio.sleep(asked.takes / 2)
            if asked.outcome == "nothing done":
                return Response(503)
            self.carried_out += 1
            await asyncio.sleep(asked.takes / 2)
            if asked.outcome == "cut":
                raise UpstreamClosed("closed", source=Source.RESPONSE)
            if asked.outcome == "problem":
                return Response.problem(504, "service-timeout")
            content = b"%d" % self.carried_out
            if asked.outcome == "pieces":
                return Response(201, body=Body.stream(Pieces(content), None))
            return Response(201, body=content)
        finally:
            self.at_once -= 1


OUTCOMES = ("answer", "answer", "pieces", "refused", "nothing done", "cut", "problem")
requests = st.builds(Asked, st.integers(0, 150), st.integers(1, 200), st.integers(0, 100), st.sampled_from(OUTCOMES))


@settings(max_examples=200)
@given(
    st.lists(requests, min_size=1, max_size=8),
    st.sampled_from([0, 5, 100]),
    st.lists(st.sampled_from(["", "", "before", "after"]), max_size=12),
)
@example([Asked(0, 1, 100, "answer"), Asked(54, 200, 10, "answer"), Asked(61, 200, 10, "answer")], 0, [])
@example([Asked(0, 200, 100, "nothing done"), Asked(1, 200, 10, "answer")], 100, ["", "", "before"])
def test_a_key_is_good_for_one_call(asked: list[Asked], wait: int, faults: list[str]) -> None:
    async def main() -> World:
        async with asyncio.TaskGroup() as group:
            world = World(group, replace(RULES, wait=wait), faults)
            async with asyncio.TaskGroup() as clients:
                for number, each in enumerate(asked):
                    clients.create_task(world.client(number, each))
        return world

    world = in_fake_time(main)
    assert world.carried_out <= 1
    assert set(world.given) <= {b"1"}
    assert [worker.once.under_way for worker in world.workers] == [0, 0]
