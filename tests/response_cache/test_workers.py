"""What several workers keep together, in each of the stores."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from portico.plugin import Body, Client, Headers, Request, Response
from portico.response_cache.memory import Kept, Memory
from portico.state.slots import Counter
from tests.harness.loop import DEADLINE
from tests.harness.policy import Pieces
from tests.response_cache.workers import Fragile, Service, Times, told, workers
from tests.state.stores import ENGINES, lmdb_store


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE):
            await main()

    asyncio.run(bounded())


engines = pytest.mark.parametrize("engine", list(ENGINES))


@engines
def test_what_one_worker_has_fetched_all_have(engine: str, tmp_path: Path) -> None:
    async def main() -> None:
        service = Service()
        async with ENGINES[engine](tmp_path) as made, workers(made.store, service) as (one, other):
            assert await one.content() == b"1"
            await one.quiet()
            answer = await other.ask()
            assert (answer.body.whole, told(answer).partition("=")[0]) == (b"1", "portico; hit; ttl")
            assert await other.content() == b"1"
            assert len(service.asked) == 1

    run(main)


@engines
def test_many_at_once_reach_the_service_once(engine: str, tmp_path: Path) -> None:
    async def main() -> None:
        service = Service()
        service.open.clear()
        async with ENGINES[engine](tmp_path) as made, workers(made.store, service, wait=20) as both:
            asking = [worker.content() for worker in both for _ in range(10)]

            async def release() -> bytes:
                await service.reached(1)
                service.open.set()
                return b"1"

            assert set(await asyncio.gather(*asking, release())) == {b"1"}
            assert len(service.asked) == 1

    run(main)


@engines
def test_what_was_changed_by_one_worker_is_given_by_none(engine: str, tmp_path: Path) -> None:
    async def main() -> None:
        service = Service()
        async with ENGINES[engine](tmp_path) as made, workers(made.store, service) as (one, other):
            assert await one.content() == b"1"
            await one.quiet()
            assert await other.content() == b"1"
            await one.ask(method="PUT")
            assert (await other.content(), await one.content()) != (b"1", b"1")
            assert b"1" not in (await other.content(), await one.content())

    run(main)


@engines
def test_what_is_large_is_kept_in_parts_that_are_all_there_or_none(engine: str, tmp_path: Path) -> None:
    async def main() -> None:
        service = Service(size=2_500_000)
        async with (
            ENGINES[engine](tmp_path) as made,
            workers(made.store, service, max_size=4 * 2**20, memory=0) as (one, other),
        ):
            content = await one.content()
            await one.quiet()
            assert await other.content() == content
            assert len(service.asked) == 1
            shelf = other.policy._cache._shelf
            deleted: list[bytes] = []
            real = made.store.volatile.get

            async def get(key: bytes) -> bytes | None:
                if len(key) > 30 and key.endswith(b"1"):
                    deleted.append(key)
                    return None
                return await real(key)

            shelf._space.get = get  # type: ignore[method-assign]
            again = await other.content()
            assert deleted
            assert again != content
            assert len(service.asked) == 2

    run(main)


@engines
def test_what_is_stale_is_renewed_by_one_worker(engine: str, tmp_path: Path) -> None:
    async def main() -> None:
        service = Service({"Cache-Control": "max-age=10, stale-while-revalidate=100"})
        times = Times()
        async with ENGINES[engine](tmp_path) as made, workers(made.store, service, times=times) as both:
            one, other = both
            assert await one.content() == b"1"
            await one.quiet()
            assert await other.content() == b"1"
            times.ahead = 20.0
            service.open.clear()
            answers = await asyncio.gather(*(worker.content() for worker in both for _ in range(5)))
            assert set(answers) == {b"1"}
            await service.reached(2)
            service.open.set()
            for worker in both:
                await worker.quiet()
            assert await one.content() == b"2"
            answer = await other.content()
            await other.quiet()
            assert answer in (b"1", b"2")
            assert await other.content() == b"2"
            assert len(service.asked) == 2

    run(main)


def test_who_was_stopped_overwrites_nothing_that_is_newer(tmp_path: Path) -> None:
    async def main() -> None:
        quick, slow, times = Service(), Service(), Times()
        slow.open.clear()
        store = lmdb_store(tmp_path, times.wall)
        async with workers(store, quick, times=times, wait=1) as (stopped, other):
            stopped.service = slow

            async def old() -> bytes:
                return (await stopped.content()) + b" of the slow one"

            async def meanwhile() -> bytes:
                await slow.reached(1)
                times.ahead += 5.0  # the lease has run out
                content = await other.content()
                await other.quiet()
                slow.open.set()
                return content + b" of the quick one"

            answers = await asyncio.gather(old(), meanwhile())
            assert answers == [b"1 of the slow one", b"1 of the quick one"]
            await stopped.quiet()
            quick.asked.clear()
            third = await other.ask()
            assert "hit" in told(third)
            assert not quick.asked
            kept = await stopped.policy._cache._shelf.load(other.policy._cache._places.of(quick_request()))
            assert kept is not None
            assert len(kept.entries) == 1
            assert kept.entries[0].asked > times.wall() - 4.0

        store.close()

    run(main)


def test_what_was_asked_for_before_a_change_is_given_to_nobody_after_it(tmp_path: Path) -> None:
    async def main() -> None:
        slow, quick = Service(), Service()
        slow.open.clear()
        store = lmdb_store(tmp_path)
        async with workers(store, quick) as (one, other):
            one.service = slow

            async def change() -> bytes:
                await slow.reached(1)
                await other.ask(method="POST")
                slow.open.set()
                return b""

            content, _ = await asyncio.gather(one.content(), change())
            assert content == b"1"
            await one.quiet()
            one.service = quick
            assert "hit" not in told(await one.ask())
            await one.quiet()
            assert "hit" in told(await other.ask())
        store.close()

    run(main)


def test_a_store_that_fails_costs_a_look_now_and_then() -> None:
    async def main() -> None:
        service, times = Service(), Times()
        store = Fragile(times.wall)
        async with workers(store, service, 1, times=times) as (worker,):
            assert await worker.content() == b"1"
            await worker.quiet()
            store.fails, store.asked = True, 0
            assert await worker.content() == b"1"  # it is at hand
            assert [await worker.content(f"/{n}") for n in range(10)] == [b"%d" % (n + 2) for n in range(10)]
            await worker.quiet()
            assert store.asked == 1
            counters = worker.env.counters
            assert counters["portico_cache_store_failures_total"].value == 1
            times.ahead += 1.5
            await worker.content("/x")
            assert store.asked == 2
            store.fails = False
            times.ahead += 1.5
            await worker.content("/y")
            await worker.quiet()
            assert "hit" in told(await worker.ask("/y"))
            assert await worker.content("/3") == b"5"  # it was at hand all the while

    run(main)


def test_a_store_that_is_full_can_be_read() -> None:
    async def main() -> None:
        service = Service()
        store = Fragile()
        async with workers(store, service, memory=0) as (one, other):
            assert await one.content() == b"1"
            await one.quiet()
            store.is_full = True
            assert await other.content("/new") == b"2"
            await other.quiet()
            assert await other.content() == b"1"
            assert "hit" in told(await other.ask())

    run(main)


def test_what_other_machines_may_have_changed_is_read_again_after_a_second() -> None:
    async def main() -> None:
        service, times = Service(), Times()
        store = Fragile(times.wall)
        type(store).local = property(lambda _: False)  # type: ignore[assignment]
        try:
            async with workers(store, service, 1, times=times) as (worker,):
                await worker.content()
                await worker.quiet()
                await worker.content()
                store.asked = 0
                await worker.content()
                assert store.asked == 0
                times.ahead += 1.5
                await worker.content()
                assert 0 < store.asked < 5
        finally:
            del type(store).local

    run(main)


def test_the_port_that_a_request_came_to_is_told_to_services_and_so_is_part_of_the_key() -> None:
    async def main() -> None:
        service, times = Service(), Times()
        async with workers(Fragile(times.wall), service, times=times) as (one, other):
            other.port = 8080
            assert [await worker.content() for worker in (one, other, one, other)] == [b"1", b"2", b"1", b"2"]

    run(main)


def test_what_was_kept_by_a_clock_that_is_set_back_is_neither_given_nor_in_the_way() -> None:
    async def main() -> None:
        service, times = Service(), Times()
        async with workers(Fragile(), service, times=times) as (one, other):
            times.set_by = 86400.0
            for _ in range(2):
                assert await one.content() == b"1"
                await one.quiet()
            times.set_by = 0.0
            assert await one.content() == b"2"
            await one.quiet()
            assert [await worker.content() for worker in (one, other)] == [b"2", b"2"]

    run(main)


def test_the_memory_is_bounded() -> None:
    async def main() -> None:
        service = Service(size=1000)
        async with workers(Fragile(), service, 1, memory=100_000) as (worker,):
            for number in range(200):
                await worker.content(f"/{number}")
            await worker.quiet()
            memory = worker.policy._cache._memory
            assert memory.size <= 100_000
            assert 10 < len(memory) < 100
            assert memory.buffered == 0
            assert worker.env.counters["portico_cache_evicted_total"].value == 200 - len(memory)

    run(main)


def test_what_is_asked_for_stays_in_the_memory() -> None:
    async def main() -> None:
        service = Service(size=1000)
        async with workers(Fragile(), service, 1, memory=100_000) as (worker,):
            for number in range(200):
                await worker.content(f"/{number}")
                await worker.content("/often")
            await worker.quiet()
            kept = [place.rpartition("/")[2] for place in worker.policy._cache._memory._kept]
            assert "often" in kept
            assert "199" in kept
            assert "0" not in kept

    run(main)


def test_a_newcomer_finds_room_among_those_that_are_asked_for_all_the_time() -> None:
    memory, evicted = Memory(100_000, Counter.private()), 0
    for number in range(160):
        memory.put(str(number), Kept("u" * 10, (), 0, 0, 0.0))
    for number in range(1000):
        for place in list(memory._kept):
            memory.get(place)
        before = len(memory)
        memory.put(f"new {number}", Kept("u" * 10, (), 0, 0, 0.0))
        evicted += before + 1 - len(memory)
        assert memory.get(f"new {number}") is not None
        assert memory.size <= 100_000
    assert evicted > 900


def test_the_fields_by_which_clients_are_known_again_are_counted() -> None:
    async def main() -> None:
        service = Service({"Cache-Control": "max-age=60", "Vary": "Accept-Encoding"})
        async with workers(Fragile(), service, 1, memory=100_000) as (worker,):
            for number in range(60):
                for spaces in range(20):
                    await worker.content(f"/{number}", Accept_Encoding="gzip," + " " * (200 + spaces) + "br")
            await worker.quiet()
            memory = worker.policy._cache._memory
            held = [value or b"" for kept in memory._kept.values() for known in kept.signatures for value in known[2]]
            assert 0 < sum(map(len, held)) < 100_000
            assert len(memory) < 60
            assert memory.size == sum(kept.size for kept in memory._kept.values()) <= 100_000
            assert len(service.asked) == 60

    run(main)


def quick_request() -> Request:
    headers = Headers([(b"Host", b"example.com")])
    return Request("GET", "/a", None, headers, Body(), "example.com", Client("127.0.0.1", 1, 80, "http"))


def test_what_was_changed_while_the_store_could_not_be_asked_is_made_up_for() -> None:
    async def main() -> None:
        service, times = Service(), Times()
        store = Fragile(times.wall)
        async with workers(store, service, times=times) as (one, other):
            assert await one.content() == b"1"
            await one.quiet()
            store.fails = True
            await one.ask(method="PUT")
            times.ahead += 5.0
            assert await other.content() == b"3"  # what it had at hand is good no more, though the store has it
            await other.quiet()
            store.fails = False
            times.ahead += 5.0
            assert await one.content("/other") == b"4"
            assert await one.content() == b"5"

    run(main)


def test_what_was_changed_by_a_client_that_left_is_given_by_no_other_worker() -> None:
    async def main() -> None:
        service, times, reached, go_on = Service(), Times(), asyncio.Event(), asyncio.Event()
        store = Fragile(times.wall)
        delete = store.volatile.delete

        async def slowly(key: bytes) -> None:
            reached.set()
            await go_on.wait()
            await delete(key)

        async with workers(store, service, times=times) as (one, other):
            assert await one.content() == b"1"
            await one.quiet()
            store.volatile.delete = slowly  # type: ignore[method-assign]

            async def put() -> None:
                await one.ask(method="PUT")

            async with asyncio.TaskGroup() as clients:
                leaves = clients.create_task(put())
                await reached.wait()
                leaves.cancel()
            assert await other.content() == b"1"  # the store has it still
            go_on.set()
            await one.quiet()
            assert await other.content() == b"3"

    run(main)


def test_what_was_changed_while_the_store_was_away_is_made_up_for_when_it_is_back() -> None:
    async def main() -> None:
        service, times = Service(), Times()
        store = Fragile(times.wall)
        async with workers(store, service, times=times) as (one, other):
            assert await one.content() == b"1"
            await one.quiet()
            store.fails = True
            await one.ask(method="PUT")
            store.fails = False
            times.ahead += 5.0
            assert await other.content() == b"1"  # nobody has told the store yet
            await one.quiet()
            assert await other.content() == b"3"

    run(main)


def test_a_worker_that_began_and_found_it_is_not_kept_holds_nobody_up() -> None:
    async def main() -> None:
        service = Service({})
        async with workers(Fragile(), service, wait=20) as both:
            loop = asyncio.get_running_loop()
            began = loop.time()
            contents = await asyncio.gather(*(worker.content() for worker in both for _ in range(5)))
            assert len(set(contents)) == 10
            assert loop.time() - began < 5

    run(main)


class Streaming(Service):
    """Answers in pieces of 1000 bytes."""

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        headers = Headers([(b"Cache-Control", b"max-age=60")])
        return Response(200, headers, Body.stream(Pieces([b"x" * 1000] * 10), None))


def test_what_a_slow_client_has_not_read_is_counted() -> None:
    async def main() -> None:
        async with workers(Fragile(), Streaming(), 1) as (worker,):
            memory = worker.policy._cache._memory  # type: ignore[union-attr]
            response = await worker.ask()
            first = await response.body.chunk()
            await worker.quiet()
            assert memory.buffered == 10_000
            rest = b""
            while piece := await response.body.chunk():
                rest += piece
            assert first + rest == b"x" * 10_000
            assert await response.body.chunk() == b""
            assert memory.buffered == 0
            response.body.close()
            assert memory.buffered == 0
            assert "hit" in told(await worker.ask())

    run(main)


def test_where_too_much_is_on_its_way_it_passes() -> None:
    async def main() -> None:
        async with workers(Fragile(), Streaming(), 1) as (worker,):
            memory = worker.policy._cache._memory  # type: ignore[union-attr]
            memory.most_buffered = 15_000
            slow = []
            for number in range(5):
                slow.append(await worker.ask(f"/{number}"))
                await worker.quiet()
            assert memory.buffered <= 15_000 + 4 * 1000
            for response in slow:
                assert await response.body.read(2**20) == b"x" * 10_000
                response.body.close()
            assert memory.buffered == 0
            assert "hit" in told(await worker.ask("/0"))
            assert "hit" not in told(await worker.ask("/4"))

    run(main)


def test_what_a_head_tells_of_a_large_content_leaves_its_parts_as_they_are(tmp_path: Path) -> None:
    async def main() -> None:
        service, times = Service({"Cache-Control": "max-age=10", "ETag": '"1"'}, size=2_000_000), Times()
        store = lmdb_store(tmp_path, times.wall)
        async with workers(store, service, 1, times, max_size=4 * 2**20, memory=0) as (worker,):
            content = await worker.content()
            await worker.quiet()
            times.ahead += 11
            await worker.ask(method="HEAD")
            answer = await worker.ask()
            assert told(answer).startswith("portico; hit")
            assert answer.body.whole == content
        store.close()

    run(main)


def test_what_a_head_tells_brings_nothing_back_that_was_changed(tmp_path: Path) -> None:
    async def main() -> None:
        service, slow = Service({"Cache-Control": "max-age=60", "ETag": '"1"'}), Service()
        slow.headers = service.headers
        store = lmdb_store(tmp_path)
        async with workers(store, service) as (one, other):
            await one.content()
            await one.quiet()
            slow.open.clear()
            one.service = slow

            async def change() -> None:
                await slow.reached(1)
                await other.ask(method="PUT")
                slow.open.set()

            await asyncio.gather(one.ask(method="HEAD", Cache_Control="no-cache"), change())
            one.service = service
            assert "hit" not in told(await one.ask())
        store.close()

    run(main)
