"""The store of one machine: several processes, one that dies or stops at the worst moment, and a bounded size."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from portico.errors import ConfigError, StoreUnavailable
from portico.state import writer as writer_module
from portico.state.board import Board, Vital
from portico.state.limits import FixedWindow, Limits
from portico.state.lmdb import LmdbStore, Watched, open_durable, open_volatile
from portico.state.places import durable_folder, in_memory, own_folder, volatile_folder
from portico.state.tidy import STEP
from tests.harness.gateway import DEADLINE, wait_for
from tests.harness.loop import run
from tests.state.stores import SIZE, Wall, folders, lmdb_store, take

LIMITS = Limits([FixedWindow(1_000_000, 10**7)])
HOUR = 3600.0

PRELUDE = """
import asyncio, os, signal, sys
from pathlib import Path
from portico.state.limits import FixedWindow, Limits
from portico.state.lmdb import LmdbStore, open_durable, open_volatile
LIMITS = Limits([FixedWindow(1_000_000, 10**7)])
folder = Path(sys.argv[1])
size = int(sys.argv[2])
store = LmdbStore(open_volatile(folder / "volatile", size), open_durable(folder / "durable", size))
print("here", flush=True)
sys.stdin.readline()
"""

COUNT = """
for _ in range(2000):
    assert store.volatile.take(b"a", LIMITS).allowed
async def main():
    await asyncio.gather(*(store.durable.take(b"a", LIMITS) for _ in range(500)))
asyncio.run(main())
store.close()
"""

HOLD = """
holder, count = os.urandom(8), 0
for _ in range(700):
    count += store.volatile.hold(b"a", holder, count, 1, 1000, 600.0).granted
print(count)
store.close()
"""

FOR_EVER = """
async def main():
    number = 0
    while True:
        store.volatile.take(b"a", LIMITS)
        store.volatile.take(b"%d" % number, LIMITS)
        await asyncio.gather(
            store.volatile.put(b"v", b"x" * 50_000, 60), store.durable.put(b"d%d" % (number % 100), b"x" * 100, 60)
        )
        number += 1
        print(number, flush=True)
asyncio.run(main())
"""

STOPS = """
class Stopping(Limits):
    def take(self, state, now, cost=1):
        os.kill(os.getpid(), signal.SIGSTOP)  # it has the lock
        return super().take(state, now, cost)
store.volatile.take(b"a", Stopping(LIMITS.limits))
"""


def process(code: str, folder: Path, size: int = SIZE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(folder), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def begin(*processes: subprocess.Popen[str]) -> None:
    """Wait until all are there, and have them begin at once."""
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "here\n"
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()


def end(*processes: subprocess.Popen[str]) -> None:
    for each in processes:
        each.kill()
        each.communicate()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    store = lmdb_store(tmp_path)
    yield store
    store.close()


def test_processes_count_exactly(tmp_path: Path) -> None:
    folders(tmp_path)
    counting = [process(COUNT, tmp_path) for _ in range(3)]
    begin(*counting)
    for each in counting:
        assert each.wait(DEADLINE) == 0
        each.communicate()
    store = lmdb_store(tmp_path)

    async def main() -> None:
        assert store.volatile.take(b"a", LIMITS, 0).left == (1_000_000 - 6000,)
        assert (await take(store.durable, b"a", LIMITS, 0)).left == (1_000_000 - 1500,)

    run(main)
    store.close()


def test_processes_hold_places_exactly(tmp_path: Path) -> None:
    folders(tmp_path)
    holding = [process(HOLD, tmp_path) for _ in range(3)]
    begin(*holding)
    granted = 0
    for each in holding:
        out, _ = each.communicate(timeout=DEADLINE)
        assert each.returncode == 0
        granted += int(out)
    store = lmdb_store(tmp_path)
    assert granted == 1000
    assert store.volatile.hold(b"a", b"somebody", 0, 0, 0, 600.0).total == 1000
    store.close()


def test_a_process_that_is_killed_within_a_write_leaves_the_store_whole(tmp_path: Path, store: LmdbStore) -> None:
    for _ in range(8):
        writing = process(FOR_EVER, tmp_path)
        begin(writing)
        assert writing.stdout is not None
        writing.stdout.readline()  # it has begun; it is killed wherever it is then
        end(writing)
        began = time.monotonic()
        assert store.volatile.take(b"mine", LIMITS).allowed
        assert time.monotonic() - began < 1.0

    async def main() -> None:
        counted = LIMITS.limits[0].amount - store.volatile.take(b"a", LIMITS, 0).left[0]
        assert counted >= 8
        assert store.volatile.take(b"mine", LIMITS, 0).left == (1_000_000 - 8,)
        assert await store.volatile.get(b"v") == b"x" * 50_000
        assert await store.durable.get(b"d0") == b"x" * 100
        await store.durable.put(b"d0", b"more", HOUR)
        assert await store.durable.get(b"d0") == b"more"

    run(main)


def test_one_that_is_stopped_with_the_lock_gives_it_back_when_it_is_killed(tmp_path: Path, store: LmdbStore) -> None:
    stopping = process(STOPS, tmp_path)
    begin(stopping)
    assert os.waitpid(stopping.pid, os.WUNTRACED)[1] & 0xFF == 0x7F
    waited: list[float] = []

    def wait() -> None:
        began = time.monotonic()
        assert store.volatile.take(b"a", LIMITS).left == (999_999,)  # the other's was never committed
        waited.append(time.monotonic() - began)

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    os.kill(stopping.pid, signal.SIGKILL)
    waiting.join(DEADLINE)
    assert waited
    end(stopping)


def test_the_board_knows_who_has_the_lock_and_since_when(tmp_path: Path) -> None:
    descriptor = Board.create(1)
    board = Board(descriptor)
    segment = board.segment(1)
    failures = segment.counter("failures")
    watched, lasting_too = (
        Watched(segment.mark(Vital.STORE_HELD), segment.mark(thread), segment.mark(Vital.STORE_WAIT_MAX), failures)
        for thread in (Vital.STORE_WRITING, Vital.STORE_LASTING)
    )
    volatile, durable = folders(tmp_path)
    store = LmdbStore(
        open_volatile(volatile, SIZE, watched=watched),
        open_durable(durable, SIZE, watched=lasting_too),
    )
    marks: list[int] = []

    class Looking(Limits):
        def take(self, state: list[float], now: float, cost: int = 1) -> bool:
            marks.append(segment[Vital.STORE_HELD])
            marks.append(segment[Vital.STORE_LASTING])
            return super().take(state, now, cost)

    began = time.monotonic_ns()
    looking = Looking(LIMITS.limits)
    store.volatile.take(b"a", looking)
    held, lasting = marks
    assert began <= held <= time.monotonic_ns()
    assert lasting == 0
    assert segment[Vital.STORE_HELD] == 0
    assert segment[Vital.STORE_WAIT_MAX] > 0

    async def main() -> None:
        await take(store.durable, b"a", looking)

    run(main)
    assert marks[2] == 0
    assert held <= marks[3] <= time.monotonic_ns()
    assert segment[Vital.STORE_LASTING] == 0
    assert failures.value == 0
    store.close()

    async def closed() -> None:
        with pytest.raises(StoreUnavailable):
            store.volatile.take(b"a", LIMITS)
        with pytest.raises(StoreUnavailable):
            await store.durable.get(b"a")
        with pytest.raises(StoreUnavailable):
            await store.durable.put(b"a", b"x", HOUR)

    run(closed)
    assert failures.value == 3
    assert segment[Vital.STORE_HELD] == 0
    board.close()
    os.close(descriptor)


def test_limits_that_fail_leave_the_lock_to_others(store: LmdbStore) -> None:
    class Broken(Limits):
        def take(self, state: list[float], now: float, cost: int = 1) -> bool:
            raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError) as kept:  # its trace has the transaction in it
        store.volatile.take(b"a", Broken(LIMITS.limits))
    assert store.volatile.take(b"a", LIMITS).left == (999_999,)
    assert kept.value.args == ("a mistake",)


def test_what_has_to_last_is_there_for_the_next_process(tmp_path: Path) -> None:
    tokens: list[int] = []
    for number in range(3):
        store = lmdb_store(tmp_path)

        async def main(store: LmdbStore = store, number: int = number) -> None:
            assert await store.durable.get(b"a") == (b"%d" % number if number else None)
            await store.durable.put(b"a", b"%d" % (number + 1), HOUR)
            assert (await take(store.durable, b"q", LIMITS)).left == (1_000_000 - number - 1,)
            tokens.append((await store.durable.claim(b"c%d" % number, HOUR)).token)

        run(main)
        store.close()
    assert tokens == [tokens[0], tokens[0] + 1, tokens[0] + 2]


def test_writes_that_wait_at_once_are_one_transaction(tmp_path: Path, store: LmdbStore) -> None:
    def transactions() -> int:
        number: int = store.durable._env.info()["last_txnid"]
        return number

    async def main() -> None:
        await store.durable.put(b"first", b"x", HOUR)
        before = transactions()
        await asyncio.gather(*(store.durable.put(b"%d" % number, b"x", HOUR) for number in range(512)))
        assert transactions() - before < 64

    run(main)


def test_one_job_that_fails_does_not_fail_those_beside_it(store: LmdbStore) -> None:
    def fails(_: lmdb.Transaction[bytes]) -> None:
        raise RuntimeError("a mistake")

    async def main() -> None:
        writer = store.durable._writer
        good = [writer.do(lambda txn, key=b"%d" % number: txn.put(key, b"x" * 16)) for number in range(5)]
        results = await asyncio.gather(*good, writer.do(fails), return_exceptions=True)
        assert results[:5] == [True] * 5
        assert isinstance(results[5], RuntimeError)

    run(main)


def test_who_waits_too_long_for_a_write_is_told(
    store: LmdbStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "TIMEOUT", 0.05)
    go = threading.Event()

    async def main() -> None:
        entered = threading.Event()

        def block(_: lmdb.Transaction[bytes]) -> None:
            entered.set()
            go.wait(DEADLINE)

        blocked = asyncio.ensure_future(store.durable._writer.do(block))  # noqa: TID251
        while not entered.is_set():
            await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match=r"within 0\.05 s"):
            await store.durable.put(b"a", b"x", HOUR)
        with pytest.raises(StoreUnavailable):
            await blocked
        go.set()

    run(main)


def test_only_so_much_waits_to_be_written(store: LmdbStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "WAITING", 10)
    go = threading.Event()

    async def main() -> None:
        entered = threading.Event()

        def block(_: lmdb.Transaction[bytes]) -> None:
            entered.set()
            go.wait(DEADLINE)

        first = asyncio.ensure_future(store.durable._writer.do(block))  # noqa: TID251
        while not entered.is_set():
            await asyncio.sleep(0)
        waiting = [asyncio.ensure_future(store.durable.put(b"a", b"x", HOUR)) for _ in range(10)]  # noqa: TID251
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="too much waits"):
            await store.durable.put(b"a", b"x", HOUR)
        go.set()
        await asyncio.gather(first, *waiting)

    run(main)


def test_what_has_expired_is_swept_away(tmp_path: Path) -> None:
    wall = Wall()
    store = lmdb_store(tmp_path, wall)
    passing = Limits([FixedWindow(10, 60.0)])
    count = 20 * STEP
    for number in range(count):
        store.volatile.take(b"%d" % number, passing)
    store.volatile.take(b"stays", LIMITS)
    env = store.volatile._env
    assert env.stat()["entries"] > count
    wall.now += 3600

    def swept() -> bool:
        wall.now += 1  # a step a second
        return bool(env.stat()["entries"] < 10)

    wait_for(swept, "expired records to be swept away")
    assert store.volatile.take(b"stays", LIMITS, 0).left == (999_999,)
    assert store.volatile.evicted == 0
    store.close()


def test_a_map_that_is_full_makes_room_and_fails_nobody(tmp_path: Path) -> None:
    size = 1024 * 1024
    store = lmdb_store(tmp_path, size=size)
    for number in range(20_000):
        key = b"a key of some length, number %d" % number
        assert store.volatile.take(key, LIMITS).allowed
        assert store.volatile.hold(key, b"12345678", 0, 1, 1, HOUR).granted == 1
        if number % 3 == 0:
            store.volatile.hold(key, b"12345678", 0, 0, 1, HOUR)

    async def main() -> None:
        for number in range(300):
            await store.volatile.put(b"%d" % number, b"x" * 20_000, HOUR)
            await store.durable.put(b"%d" % number, b"x" * 20_000, HOUR)
        assert await store.durable.get(b"299") == b"x" * 20_000

    run(main)
    assert store.volatile.evicted > 1000
    assert store.durable.evicted > 100
    health = store.health()
    assert health.volatile is not None
    assert (health.volatile.size, health.volatile.evicted > 1000) == (size, True)
    for folder in folders(tmp_path):
        assert (folder / "data.mdb").stat().st_size <= size, folder
    wait_for(lambda: not store.volatile._tidier.full, "room")
    assert store.volatile.take(b"new", LIMITS).allowed
    assert store.volatile.take(b"new", LIMITS, 0).left == (999_999,)
    store.close()


def test_claims_are_not_what_makes_room(tmp_path: Path) -> None:
    store = lmdb_store(tmp_path, size=1024 * 1024)

    async def main() -> None:
        for space in (store.volatile, store.durable):
            claims = {b"%d" % number: await space.claim(b"%d" % number, 60.0) for number in range(0, 2000, 20)}
            for number in range(300):
                await space.put(b"%d, a value" % number, b"x" * 20_000, HOUR)
            assert space.evicted > 100
            for key, claim in claims.items():
                assert await space.settle(key, claim.token, b"", HOUR)

    run(main)
    store.close()


def test_where_there_are_only_claims_they_do(tmp_path: Path) -> None:
    store = lmdb_store(tmp_path, size=1024 * 1024)

    async def main() -> None:
        for number in range(0, 12_000, 50):
            await asyncio.gather(*(store.volatile.claim(b"%0100d" % (number + each), HOUR) for each in range(50)))
        assert store.volatile.evicted > 1000

    run(main)
    store.close()


def test_a_map_that_nobody_tidies_for_a_while_is_never_so_full_that_nobody_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lmdb_store(tmp_path, size=1024 * 1024)
    volatile = store.volatile
    with monkeypatch.context() as patch:
        patch.setattr(volatile._tidier, "step", lambda: False)
        for number in range(20_000):
            assert volatile.take(b"a key of some length, number %d" % number, LIMITS).allowed
        assert volatile.uncounted > 5000
        assert volatile.take(b"a key of some length, number 1", LIMITS, 0).left == (999_999,)
    volatile._writer.tidy_soon()
    wait_for(lambda: not volatile._tidier.full, "room")
    assert volatile.take(b"new", LIMITS).allowed
    assert volatile.take(b"new", LIMITS, 0).left == (999_999,)
    store.close()


def test_processes_that_differ_on_the_size_of_what_has_to_last_share_it(tmp_path: Path) -> None:
    _, durable = folders(tmp_path)
    large = process(FOR_EVER, tmp_path, 4 * SIZE)
    small = open_durable(durable, SIZE)
    begin(large)
    assert large.stdout is not None
    for _ in range(3):
        large.stdout.readline()

    async def main() -> None:
        for number in range(200):
            await small.put(b"mine %d" % number, b"x" * 50_000, HOUR)
            assert await small.get(b"mine %d" % number) == b"x" * 50_000

    run(main)
    assert large.poll() is None
    end(large)
    small.close()


def test_files_are_their_owners_alone_and_the_whole_map_is_reserved(tmp_path: Path, store: LmdbStore) -> None:
    for folder in folders(tmp_path):
        for file in ("data.mdb", "lock.mdb"):
            assert stat.S_IMODE((folder / file).stat().st_mode) == 0o600
    assert (folders(tmp_path)[0] / "data.mdb").stat().st_blocks * 512 >= SIZE


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "volatile").mkdir()
    (tmp_path / "volatile" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_volatile(folders(tmp_path)[0], SIZE)
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_durable(tmp_path / "volatile" / "data.mdb", SIZE)


def test_a_store_that_is_closed_says_so(tmp_path: Path) -> None:
    store = lmdb_store(tmp_path)

    async def main() -> None:
        store.close()
        with pytest.raises(StoreUnavailable):
            store.volatile.take(b"a", LIMITS)
        with pytest.raises(StoreUnavailable):
            store.volatile.hold(b"a", b"12345678", 0, 1, 1, HOUR)
        with pytest.raises(StoreUnavailable):
            await store.volatile.get(b"a")
        with pytest.raises(StoreUnavailable):
            await store.durable.put(b"a", b"x", HOUR)

    run(main)


def test_places_are_ones_own_and_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / "run"))
    assert in_memory("a") == in_memory("a")
    assert in_memory("a") != in_memory("b")
    assert volatile_folder("a", 1) != volatile_folder("a", 2)
    assert durable_folder("a", None).parent == in_memory("a")
    assert durable_folder("a", str(tmp_path / "lib")).parent == tmp_path / "lib"
    for folder in (in_memory("a"), volatile_folder("a", 1), durable_folder("a", str(tmp_path / "lib"))):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_place_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (open_to_all, tmp_path / "file", tmp_path / "link"):
        with pytest.raises(ConfigError, match="mend it so"):
            own_folder(path, "mend it so")
