"""Consumers of a store, as the requests of a worker find them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from portico.config.consumers import DECOY, Consumer, Consumers, Credential, digest_of
from portico.consumers import lookup
from portico.consumers.lookup import FRESH, MOST_KNOWN, MOST_WAITING, FileFirst, StoredConsumers
from portico.consumers.writer import Writer
from portico.policy.consumers import LookupFailed
from tests.harness.consumers import ADA, BOB, HASH, WatchedStore, consumer, database, key_of


class World:
    """A store, and the look-ups of one worker, with a generation and a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.path = database(
            folder, consumer("ada", ADA, roles=frozenset(("admin",))), consumer("bob", BOB, password=HASH)
        )
        self.store = WatchedStore(self.path)
        self.generation: int | None = 1
        self.now = 1000.0
        self.stored = StoredConsumers(self.store, lambda: self.generation, lambda: self.now)

    def write(self, do: Callable[[Writer], object], told: bool = True) -> None:
        """Change the database; the agent tells of it where `told`."""
        with Writer(self.path) as writer:
            do(writer)
        if told and self.generation is not None:
            self.generation += 1

    async def by_key(self, key: str) -> str:
        found = await settled(self.stored.by_key(key_of(key)))
        return "" if found is None else found.consumer.name

    async def by_name(self, name: str) -> Consumer | None:
        return await settled(self.stored.by_name(name))

    def remembers(self, key: str) -> bool:
        """Return whether it is answered without a look-up that it is a consumer's."""
        found = self.stored.by_key(key_of(key))
        if isinstance(found, Coroutine):
            found.close()
        return type(found) is Credential


async def settled(found: Any) -> Any:
    return await found if isinstance(found, Awaitable) else found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.store.gate.set()
    world.stored.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def test_who_is_found(world: World) -> None:
    async def main() -> None:
        found = await settled(world.stored.by_key(key_of(ADA)))
        assert found.consumer == Consumer("ada", roles=frozenset(("admin",)))
        assert await world.by_key("made-up-key-of-nobody") == ""
        bob = await world.by_name("bob")
        assert bob == Consumer("bob", password=HASH)
        assert await world.by_name("eve") is None
        assert all(name.startswith("consumers") for name in world.store.threads)

    run(main)


def test_what_was_found_is_remembered_and_what_was_not(world: World) -> None:
    async def main() -> None:
        for _ in range(3):
            assert await world.by_key(ADA) == "ada"
            assert await world.by_key("made-up") == ""
            assert await world.by_name("eve") is None
            world.now += 100
        assert len(world.store.asked) == 3

    run(main)


def test_a_deleted_key_is_gone_with_its_generation(world: World) -> None:
    async def main() -> None:
        assert await world.by_key(ADA) == "ada"
        world.now += FRESH
        world.write(lambda writer: writer.remove("ada"), told=False)
        assert await world.by_key(ADA) == "ada"  # nobody has said anything yet
        world.generation = 2
        assert not world.remembers(ADA)
        assert await world.by_key(ADA) == ""
        assert await world.by_key(ADA) == ""
        assert len(world.store.asked) == 2
        world.write(lambda writer: writer.add(consumer("ada", ADA)))
        world.now += FRESH
        assert await world.by_key(ADA) == "ada"

    run(main)


def test_what_was_just_read_is_not_read_again(world: World) -> None:
    async def main() -> None:
        assert await world.by_key(ADA) == "ada"
        for _ in range(5):
            world.write(lambda writer: writer.change(Consumer("bob")))
            assert world.remembers(ADA)
        world.now += FRESH
        assert not world.remembers(ADA)

    run(main)
    assert FRESH + 0.6 < 1


def test_without_an_agent_nothing_is_believed_for_long(world: World) -> None:
    async def main() -> None:
        world.generation = None
        assert await world.by_key(ADA) == "ada"
        assert world.remembers(ADA)
        world.write(lambda writer: writer.remove("ada"))
        world.now += FRESH
        assert await world.by_key(ADA) == ""
        world.generation = 7
        assert await world.by_key("made-up") == ""
        world.generation = None
        world.now += FRESH
        assert await world.by_key("made-up") == ""
        assert len(world.store.asked) == 4

    run(main)


def test_what_was_read_without_an_agent_is_not_of_its_next_generation(world: World) -> None:
    async def main() -> None:
        world.generation = None
        assert await world.by_key(ADA) == "ada"
        world.write(lambda writer: writer.remove("ada"))
        world.now += FRESH
        world.generation = 2
        assert await world.by_key(ADA) == ""

    run(main)


def test_made_up_keys_push_out_no_good_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MOST_REMEMBERED", 20)

    async def main() -> None:
        assert await world.by_key(ADA) == "ada"
        for number in range(100):
            assert await world.by_key(f"made-up-{number}") == ""
            assert world.remembers(ADA)
        assert len(world.stored._keys._misses) == 20
        assert len(world.stored._keys._hits) == 1
        asked = len(world.store.asked)
        assert await world.by_key("made-up-99") == ""
        assert len(world.store.asked) == asked
        assert await world.by_key("made-up-0") == ""
        assert len(world.store.asked) == asked + 1

    run(main)


def test_those_who_were_not_seen_for_longest_are_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MOST_REMEMBERED", 2)
    world.write(lambda writer: writer.add(consumer("carol", "carol-has-a-long-key")))

    async def main() -> None:
        for key in (ADA, BOB, ADA, "carol-has-a-long-key"):
            assert await world.by_key(key)
        assert world.remembers(ADA)
        assert not world.remembers(BOB)

    run(main)


def test_the_same_at_once_is_one_look_up(world: World) -> None:
    async def main() -> None:
        assert await asyncio.gather(*(world.by_key(ADA) for _ in range(200))) == ["ada"] * 200
        assert len(world.store.asked) == 1

    run(main)


def test_whoever_leaves_ends_it_for_nobody_else(world: World) -> None:
    async def main() -> None:
        world.store.gate.clear()
        async with asyncio.TaskGroup() as tasks:
            leaving, staying = (tasks.create_task(world.by_key(ADA)) for _ in range(2))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.sleep(0)
            assert leaving.cancelled()
            world.store.gate.set()
        assert await staying == "ada"
        assert world.remembers(ADA)

    run(main)


def test_strangers_leave_room_for_those_who_were_known(world: World) -> None:
    async def main() -> None:
        assert await world.by_key(ADA) == "ada"
        assert await world.by_key(BOB) == "bob"
        world.generation = 2
        world.now += FRESH
        world.store.gate.clear()
        async with asyncio.TaskGroup() as tasks:
            strangers = [tasks.create_task(world.by_key(f"made-up-{n}")) for n in range(MOST_WAITING)]
            await asyncio.sleep(0)
            for key in ("one-more-made-up", "carol-whom-nobody-has-seen"):
                with pytest.raises(LookupFailed, match="too many"):
                    await world.by_key(key)
            known = [tasks.create_task(world.by_key(key)) for key in (ADA, BOB)]
            await asyncio.sleep(0)
            world.store.gate.set()
        assert [await task for task in known] == ["ada", "bob"]
        assert {await task for task in strangers} == {""}
        assert await world.by_key("one-more-made-up") == ""

    run(main)


def test_there_is_an_end_to_the_room_of_those_who_were_known(world: World) -> None:
    names = [f"u{number}" for number in range(MOST_KNOWN + 1)]
    world.write(lambda writer: [writer.add(consumer(name, f"a-long-key-of-{name}")) for name in names])

    async def main() -> None:
        for name in names:
            assert await world.by_key(f"a-long-key-of-{name}") == name
        world.generation = None
        world.now += FRESH
        world.store.gate.clear()
        asking = [asyncio.ensure_future(world.by_key(f"a-long-key-of-{name}")) for name in names]  # noqa: TID251
        done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        assert isinstance(done.pop().exception(), LookupFailed)
        world.store.gate.set()
        assert set(await asyncio.gather(*waiting)) == set(names[:-1])

    run(main)


def test_a_look_up_has_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "DEADLINE", 0.01)

    async def main() -> None:
        world.store.gate.clear()
        with pytest.raises(LookupFailed, match="too long"):
            await world.by_key(ADA)
        monkeypatch.setattr(lookup, "DEADLINE", 30)
        world.store.gate.set()
        assert await world.by_key(ADA) == "ada"

    run(main)


def test_one_that_hangs_is_not_joined_by_those_who_come_after_a_change(world: World) -> None:
    async def main() -> None:
        held = threading.Event()
        world.store.held.append(held)
        async with asyncio.TaskGroup() as tasks:
            before = tasks.create_task(world.by_key(ADA))
            while not world.store.answered:
                await asyncio.sleep(0)
            world.now += FRESH
            world.write(lambda writer: writer.remove("ada"))
            assert await world.by_key(ADA) == ""
            held.set()
        assert await before == "ada"  # as it was when that was asked
        assert await world.by_key(ADA) == ""
        assert world.store.answered == 2

    run(main)


def test_without_the_database_nobody_is_let_in_and_that_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "portico.consumers")

    async def main() -> None:
        assert await world.by_key(ADA) == "ada"
        Path(world.path).rename(f"{world.path}.away")
        assert world.remembers(ADA)  # it was not changed, as far as anybody knows
        world.generation = 2
        world.now += FRESH
        for _ in range(3):
            with pytest.raises(LookupFailed, match="cannot be looked up"):
                await world.by_key(ADA)
        Path(f"{world.path}.away").rename(world.path)
        assert await world.by_key(ADA) == "ada"

    run(main)
    said = [record.getMessage() for record in caplog.records if record.name == "portico.consumers"]
    why = f"there is no database {world.path}; portico consumer init {world.path} makes one"
    told = f"consumers cannot be looked up, so they are answered 503: {why}"
    assert said == [told, "consumers can be looked up again"]


def test_another_database_in_its_place_is_opened(world: World, tmp_path: Path) -> None:
    other = database(tmp_path, consumer("carol", ADA), name="other.db")

    async def main() -> None:
        assert await world.by_key(ADA) == "ada"
        Path(f"{other}.key").replace(f"{world.path}.key")
        Path(other).replace(world.path)
        world.generation = 2
        world.now += FRESH
        assert await world.by_key(ADA) == "carol"
        assert await world.by_key(BOB) == ""

    run(main)


def test_names_that_nobody_has_are_not_looked_up(world: World) -> None:
    for name in ("n" * 129, "a\nb", "\ud800"):
        assert world.stored.by_name(name) is None
    assert world.store.asked == []


def test_the_decoy_is_of_the_kind_that_there_is(world: World) -> None:
    assert world.stored.decoy == DECOY

    async def main() -> None:
        await world.by_name("eve")

    run(main)
    assert world.stored.decoy == HASH


def test_the_readers_are_closed_busy_or_not(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        await world.by_key(BOB)
        world.store.gate.clear()
        asking = asyncio.ensure_future(world.by_key(ADA))  # noqa: TID251
        while len(world.store.asked) < 2:
            await asyncio.sleep(0)
        world.stored.close()
        world.store.gate.set()
        assert await asking == "ada"
        assert world.store.closed == world.store.open_readers

    run(main)


def test_those_of_the_file_come_first_and_hide_the_others(world: World) -> None:
    file: Consumers[Any] = Consumers([consumer("ada", "another-key-of-ada"), consumer("carol", BOB)])
    both = FileFirst(file, world.stored)

    async def main() -> None:
        named = {name: await settled(both.by_name(name)) for name in ("ada", "bob", "eve")}
        assert named == {"ada": file.by_name("ada"), "bob": Consumer("bob", password=HASH), "eve": None}
        for _ in range(2):  # looked up, and remembered
            assert (await settled(both.by_key(key_of("another-key-of-ada")))).consumer.name == "ada"
            assert await settled(both.by_key(key_of(ADA))) is None
            assert (await settled(both.by_key(key_of(BOB)))).consumer.name == "carol"
            assert await settled(both.by_key(digest_of(b"x"))) is None
        assert both.decoy == HASH
        assert FileFirst(Consumers([consumer("eve", password="$2b$x")]), world.stored).decoy == "$2b$x"

    run(main)
