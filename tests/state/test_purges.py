"""Purges: from when on what was kept is of no use, on each kind of store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from portico.errors import StoreUnavailable
from portico.http.target import EncodedSlashes
from portico.state import purges as module
from portico.state.memory import MemorySpace, MemoryStore
from portico.state.purges import CLOCK_SKEW, HOLDS, LONGEST_TAG, MOST_AT_ONCE, BadPurge, Purges, keys_to_purge
from portico.state.stamps import Stamps
from portico.state.store import Store
from tests.harness.loop import run, until
from tests.harness.valkey import ValkeyServer
from tests.state.stores import ENGINES, Wall, valkey_store

URL = "https://example.com/a/b"
PLACE = URL.encode()


class Clock:
    """A monotonic clock that a test has pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Machine:
    """Workers of one machine, on one store; each has its own memory."""

    def __init__(self, store: Store, folder: Path) -> None:
        folder.mkdir()
        self.wall = Wall()
        self.clock = Clock()
        self.workers = [Purges(store, Stamps.open(folder), self.clock, self.wall) for _ in range(2)]

    async def purge(self, *urls: str, tags: tuple[str, ...] = (), everything: bool = False) -> None:
        await self.workers[0].purge(keys_to_purge(urls, tags, everything=everything))

    async def since(self, *tags: bytes, url: bytes = b"", after: float = 0.0) -> float:
        """Return it as both workers see it."""
        found = [await worker.since(tags, url, after) for worker in self.workers]
        assert found[0] == found[1]
        return found[0]

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


@asynccontextmanager
async def on(kind: str, folder: Path) -> AsyncIterator[Machine]:
    async with ENGINES[kind](folder) as engine:
        machine = Machine(engine.store, folder / "run")
        yield machine
        machine.close()


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_what_was_purged_is_known_to_all_workers_at_once(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with on(kind, tmp_path) as machine:
            skew = CLOCK_SKEW if kind == "valkey" else 0.0
            wall = machine.wall
            assert await machine.since(b"x", b"y", url=PLACE) == 0.0
            first = wall.now + skew
            await machine.purge(URL)
            assert await machine.since(url=PLACE) == first
            assert await machine.since(url=PLACE + b"?x=1") == first  # without a query it is all of them
            assert await machine.since(url=PLACE + b"/c") == 0.0
            assert await machine.since(url=b"https://example.org/a/b") == 0.0
            assert await machine.since(b"x", b"y") == 0.0
            wall.now += 10
            second = wall.now + skew
            await machine.purge(tags=("x",))
            assert await machine.since(b"y", b"x", url=PLACE) == second
            assert await machine.since(b"y", url=PLACE) == first
            wall.now += 10
            third = wall.now + skew
            await machine.purge(everything=True)
            assert await machine.since() == third
            assert await machine.since(b"x", url=PLACE) == third

    run(main)


def test_a_query_is_purged_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with on("lmdb", tmp_path) as machine:
            await machine.purge(URL + "?b=1&a=2")
            assert await machine.since(url=PLACE + b"?b=1&a=2") == machine.wall.now
            assert await machine.since(url=PLACE + b"?a=2&b=1") == 0.0
            assert await machine.since(url=PLACE) == 0.0

    run(main)


def test_either_scheme_and_any_port_is_the_same_url(tmp_path: Path) -> None:
    async def main() -> None:
        async with on("lmdb", tmp_path) as machine:
            await machine.purge("HTTP://Example.COM.:8080/x/../a//%62#top")
            assert await machine.since(url=PLACE) == machine.wall.now

    run(main)


def test_purges_before_what_is_kept_are_not_looked_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with on("lmdb", tmp_path) as machine:
            await machine.purge(URL)
            now = machine.wall.now
            assert await machine.since(url=PLACE, after=now) == 0.0
            assert await machine.since(url=PLACE, after=now - 0.001) == now
            assert await machine.since(url=PLACE + b"/c", after=now - 0.001) == 0.0

    run(main)


def test_stamps_change_by_a_purge_and_by_what_is_forgotten_at_the_place(tmp_path: Path) -> None:
    async def main() -> None:
        async with on("lmdb", tmp_path) as machine:
            one, other = machine.workers
            stamps = one.stamp(b"a"), one.stamp(b"b")
            assert (other.stamp(b"a"), other.stamp(b"b")) == stamps
            other.forget(b"a")
            assert one.stamp(b"a") != stamps[0]
            assert one.stamp(b"b") == stamps[1]
            assert one.stamp_at(one.slot(b"a")) == one.stamp(b"a") == other.stamp(b"a")
            stamps = one.stamp(b"a"), one.stamp(b"b")
            await other.purge(keys_to_purge([], ["t"], everything=False))
            assert one.stamp(b"a") != stamps[0]
            assert one.stamp(b"b") != stamps[1]

    run(main)


class Counting(MemorySpace):
    """Counts how often it is asked, and may fail or be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.fails_from = 10**9
        self.puts = 0
        self.held: asyncio.Event | None = None
        """What the next look is held up by, once it has seen what is there."""

    async def get(self, key: bytes) -> bytes | None:
        self.asked += 1
        found = await super().get(key)
        held, self.held = self.held, None
        if held is not None:
            await held.wait()
        return found

    async def put(self, key: bytes, value: bytes, ttl: float) -> None:
        self.puts += 1
        if self.puts >= self.fails_from:
            raise StoreUnavailable("it is down")
        await super().put(key, value, ttl)


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.space = self.durable = Counting()


def counted(tmp_path: Path) -> tuple[Machine, Counting]:
    store = CountingStore()
    return Machine(store, tmp_path / "run"), store.space


def test_what_was_found_is_remembered_until_something_is_purged(tmp_path: Path) -> None:
    async def main() -> None:
        machine, space = counted(tmp_path)
        (one, two), tags = machine.workers, [b"x", b"y"]
        for _ in range(3):
            assert await one.since(tags, PLACE) == 0.0
        assert space.asked == 1  # nothing was ever purged, so there is no more to know
        await two.purge(keys_to_purge([], ["other"], everything=False))
        space.asked = 0
        for _ in range(3):
            assert await one.since(tags, PLACE) == 0.0
        assert space.asked == 5  # the latest, everything, two tags, the path
        machine.clock.now += 1e6
        one.forget(b"something")
        assert await one.since(tags, PLACE) == 0.0
        assert space.asked == 5
        machine.close()

    run(main)


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 10)

    async def main() -> None:
        machine, _ = counted(tmp_path)
        one = machine.workers[0]
        await machine.purge(tags=("t1", "t99"))
        for number in range(100):
            assert await one.since([b"t%d" % number]) == (machine.wall.now if number in (1, 99) else 0.0)
            assert len(one._remembered) <= 10
        machine.close()

    run(main)


def test_what_was_read_ahead_of_a_purge_is_not_believed_after_it(tmp_path: Path) -> None:
    async def main() -> None:
        machine, space = counted(tmp_path)
        one, two = machine.workers
        async with asyncio.TaskGroup() as tasks:
            held = space.held = asyncio.Event()
            tasks.create_task(one.since([b"x"]))
            await until(lambda: space.held is None)
            await two.purge(keys_to_purge([], ["x"], everything=False))
            assert await one.since([b"y"]) == 0.0
            held.set()
        assert await one.since([b"x"]) == machine.wall.now
        machine.close()

    run(main)


def test_a_purge_that_fails_is_none(tmp_path: Path) -> None:
    async def main() -> None:
        for fails_from in (1, 2, 3):
            machine, space = counted(tmp_path / str(fails_from))
            space.fails_from = fails_from
            before = machine.workers[1].stamp(b"a")
            with pytest.raises(StoreUnavailable):
                await machine.purge(URL, tags=("x",))
            assert await machine.since(b"x", url=PLACE) == 0.0
            assert machine.workers[1].stamp(b"a") == before
            machine.close()

    for number in (1, 2, 3):
        (tmp_path / str(number)).mkdir()
    run(main)


def test_a_clock_that_was_set_back_undoes_no_purge(tmp_path: Path) -> None:
    async def main() -> None:
        async with on("lmdb", tmp_path) as machine:
            first = machine.wall.now
            await machine.purge(URL)
            machine.wall.now -= 3600
            await machine.purge(URL)
            assert await machine.since(url=PLACE, after=first - 1) == first

    run(main)


def test_machines_that_share_a_store_know_of_each_others_purges_within_a_second(tmp_path: Path) -> None:
    async def main() -> None:
        with ValkeyServer() as server:
            async with asyncio.TaskGroup() as tasks:
                stores = [valkey_store(server, tasks) for _ in range(2)]
                here, there = (Machine(store, tmp_path / str(at)) for at, store in enumerate(stores))
                assert here.workers[0].holds == HOLDS
                assert await there.since(b"x") == 0.0
                await here.purge(tags=("x",))
                there.clock.now += HOLDS - 0.01
                assert await there.since(b"x") == 0.0
                there.clock.now += 0.01
                assert await there.since(b"x") == here.wall.now + CLOCK_SKEW
                for machine in (here, there):
                    machine.close()
                for store in stores:
                    store.close()

    run(main)


def test_a_store_of_one_machine_is_believed_for_any_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with on("lmdb", tmp_path) as machine:
            assert machine.workers[0].holds is None

    run(main)


def test_as_much_as_may_be_is_purged_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with on("lmdb", tmp_path) as machine:
            tags = tuple(f"t{number}" for number in range(MOST_AT_ONCE))
            await machine.purge(tags=tags)
            for tag in (tags[0], tags[63], tags[64], tags[-1]):
                assert await machine.since(tag.encode()) == machine.wall.now

    run(main)


@pytest.mark.parametrize(
    ("urls", "tags", "everything", "said"),
    [
        ([], [], False, "there is nothing to purge"),
        ([URL], [], True, "say one of them"),
        ([], ["x"], True, "say one of them"),
        ([URL] * 600, ["x"] * 401, False, "at most 1000 URLs and tags can be purged at once, not 1001"),
        (["/a"], [], False, "'/a' is no URL to purge; write all of it, as in https://example.com/orders"),
        (["example.com/a"], [], False, "is no URL to purge"),
        (["ftp://example.com/a"], [], False, "is no URL to purge"),
        (["https://example.com/a b"], [], False, "is no URL to purge"),
        (["https://example.com/a\n"], [], False, "is no URL to purge"),
        (["https://example.com/ä"], [], False, "is no URL to purge"),
        (["https:///a"], [], False, "is no URL to purge: the Host header"),
        (["https://me:secret@example.com/a"], [], False, "is no URL to purge: the Host header"),
        (["https://[::1/a"], [], False, "is no URL to purge"),
        (["https://example.com:x/a"], [], False, "is no URL to purge"),
        (["https://example.com/%zz"], [], False, "is no URL to purge: '%zz' may not stand in a path"),
        (["https://example.com/a/..%2Fb"], [], False, "a dot segment is hidden in the path"),
        (["https://example.com/a/*"], [], False, "what begins alike cannot be purged"),
        (["https://example.com/" + "a" * 9000], [], False, "a URL has at most 8192 characters"),
        ([], [""], False, "'' is no tag"),
        ([], ["a b"], False, "'a b' is no tag"),
        ([], ["a,b"], False, "'a,b' is no tag"),
        ([], ["ä"], False, "is no tag"),
        ([], ["a" * (LONGEST_TAG + 1)], False, "is no tag: 1 to 256 visible ASCII characters, without a comma"),
    ],
)
def test_what_cannot_be_purged(urls: list[str], tags: list[str], everything: bool, said: str) -> None:
    with pytest.raises(BadPurge) as refused:
        keys_to_purge(urls, tags, everything=everything)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_what_is_purged_is_what_requests_have() -> None:
    def keys(*urls: str, slashes: EncodedSlashes = EncodedSlashes.KEEP) -> list[bytes]:
        return keys_to_purge(urls, [], everything=False, slashes=slashes)

    assert keys("http://a", "https://a/", "https://a:443/?", "https://A/./") == keys("http://a/")
    assert keys("http://a/?x") != keys("http://a/")
    assert keys("http://a/b%2fc", slashes=EncodedSlashes.DECODE) == keys("http://a/b/c")
    assert keys("http://a/b%2fc") == keys("http://a/b%2Fc") != keys("http://a/b/c")
    assert keys("http://[::0:1]:80/") == keys("http://[::1]/")
    with pytest.raises(BadPurge, match="an encoded slash"):
        keys("http://a/b%2fc", slashes=EncodedSlashes.REJECT)
    tags = keys_to_purge([], ["a", "A", "a+b", "a-b", "~!"], everything=False)
    assert len(set(tags)) == 5
