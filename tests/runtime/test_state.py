"""The store of a worker: opened once for all that ask, kept over reloads, and told apart by all that is said of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from portico.config.state import State
from portico.errors import ConfigError
from portico.plugin import (
    Env,
    FixedWindow,
    Handler,
    Limits,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Stage,
    Verdict,
)
from portico.runtime.shared import Leases
from portico.runtime.state import FAILURES, WorkersStore
from portico.state.board import Board
from portico.state.places import in_memory
from portico.state.purges import keys_to_purge
from portico.state.stamps import Stamps
from portico.testing import Gateway
from tests.harness.loop import run
from tests.harness.valkey import ValkeyServer
from tests.runtime import counting

LIMITS = Limits([FixedWindow(100, 10**7)])


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / "run"))


@asynccontextmanager
async def worker(file: Path) -> AsyncIterator[tuple[WorkersStore, Leases, Board]]:
    descriptor = Board.create(1)
    board = Board(descriptor)
    async with asyncio.TaskGroup() as tasks:
        yield WorkersStore(str(file), board.segment(1), tasks), Leases(), board
    board.close()
    os.close(descriptor)


def left(verdict: object) -> int:
    assert isinstance(verdict, Verdict)
    return verdict.left[0]


def test_all_of_a_file_have_one_store_over_reloads(tmp_path: Path) -> None:
    async def main() -> None:
        async with worker(tmp_path / "a.yaml") as (stores, leases, _):
            before = leases.lease()
            first = stores(State(), before)
            assert left(first.volatile.take(b"a", LIMITS)) == 99
            assert stores(State(), before).volatile is first.volatile
            after = leases.lease()
            second = stores(State(), after)
            before.close()
            assert left(second.volatile.take(b"a", LIMITS)) == 98
            other = leases.lease()
            assert (
                left(
                    WorkersStore(str(tmp_path / "b.yaml"), stores._segment, stores._tasks)(
                        State(), other
                    ).volatile.take(b"a", LIMITS)
                )
                == 99
            )
            other.close()
            after.close()
            assert len(leases) == 0
            again = leases.lease()
            assert left(stores(State(), again).volatile.take(b"a", LIMITS)) == 97
            again.close()

    run(main)


def test_another_size_is_another_map_and_keeps_what_has_to_last(tmp_path: Path) -> None:
    async def main() -> None:
        async with worker(tmp_path / "a.yaml") as (stores, leases, _):
            before = leases.lease()
            await stores(State(path=str(tmp_path / "lib")), before).durable.put(b"a", b"x", 60.0)
            after = leases.lease()
            store = stores(State(path=str(tmp_path / "lib"), size=64 * 1024 * 1024), after)
            assert await store.durable.get(b"a") == b"x"
            before.close()
            assert await store.durable.get(b"a") == b"x"
            assert left(store.volatile.take(b"a", LIMITS)) == 99
            after.close()

    run(main)


def test_a_redis_is_known_by_all_that_is_said_of_it_and_no_key_has_its_password(tmp_path: Path) -> None:
    async def main() -> None:
        with ValkeyServer("--requirepass", "sesame") as server:
            url = f"redis://127.0.0.1:{server.port}"
            async with worker(tmp_path / "a.yaml") as (stores, leases, board):
                lease = leases.lease()
                good = State.model_validate({"store": url, "password": "sesame", "timeout": "10s"})
                same = State.model_validate({"store": url, "password": "sesame", "timeout": "10s"})
                bad = State.model_validate({"store": url, "password": "wrong", "timeout": "10s"})
                store = stores(good, lease)
                assert stores(same, lease) is store
                assert stores(bad, lease) is not store
                await store.volatile.put(b"a", b"x", 60.0)
                assert await store.volatile.get(b"a") == b"x"
                assert server.say("AUTH", "sesame") == "OK"
                with pytest.raises(Exception, match="cannot be reached"):
                    await stores(bad, lease).volatile.get(b"a")
                assert board.counters()[FAILURES] >= 1
                assert "sesame" not in repr(lease._values) + repr(leases._held)
                lease.close()

    run(main)


def test_what_cannot_be_opened_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "lib" / "durable-v1").mkdir(parents=True, mode=0o700)
    (tmp_path / "lib" / "durable-v1").chmod(0o700)
    (tmp_path / "lib").chmod(0o700)
    (tmp_path / "lib" / "durable-v1" / "data.mdb").write_bytes(b"something else" * 1000)

    async def main() -> None:
        async with worker(tmp_path / "a.yaml") as (stores, leases, _):
            lease = leases.lease()
            with pytest.raises(ConfigError, match="cannot be opened"):
                stores(State(path=str(tmp_path / "lib")), lease)
            lease.close()
            assert len(leases) == 0

    run(main)


def test_a_gateway_in_a_test_has_a_store_in_its_own_time() -> None:
    with Gateway(policies=[counting.CountPolicy(counting.Count())]) as gateway:
        assert [gateway.get("/").status for _ in range(4)] == [200, 200, 429, 429]
        gateway.clock.advance(3600)
        assert gateway.get("/").status == 200


def test_a_file_that_is_a_link_goes_by_its_own_name_wherever_that_leads(tmp_path: Path) -> None:
    link = tmp_path / "a.yaml"

    async def main() -> None:
        for number, target in enumerate(("one", "two")):
            (tmp_path / target).write_text("")
            link.unlink(missing_ok=True)
            link.symlink_to(tmp_path / target)
            async with worker(link) as (stores, leases, _):
                lease = leases.lease()
                assert left(stores(State(), lease).volatile.take(b"a", LIMITS)) == 99 - number
                lease.close()

    run(main)


def test_purges_are_those_of_the_store_and_kept_over_reloads(tmp_path: Path) -> None:
    keys = keys_to_purge(["http://a/b"], [], everything=False)

    async def main() -> None:
        async with worker(tmp_path / "a.yaml") as (stores, leases, _):
            before, after = leases.lease(), leases.lease()
            purges = stores.purges(State(), before)
            assert stores.purges(State(), before) is purges
            assert stores.purges(State(), after) is purges
            elsewhere = stores.purges(State(path=str(tmp_path / "lib")), after)
            before.close()
            stamps = purges.stamp(b"x"), elsewhere.stamp(b"x")
            assert await purges.since(url=b"http://a/b") == 0.0
            await purges.purge(keys)
            assert await purges.since(url=b"http://a/b") > 0.0
            assert purges.stamp(b"x") != stamps[0]
            assert await elsewhere.since(url=b"http://a/b") == 0.0
            assert elsewhere.stamp(b"x") == stamps[1]
            others = Stamps.open(in_memory(str(tmp_path / "a.yaml")))  # as another gateway of the file has them
            others.change(others.slot(b"y"))
            assert purges.stamp(b"y") == others[others.slot(b"y")]
            others.close()
            after.close()
            assert len(leases) == 0

    run(main)


class Remembering(PolicyConfig):
    """Keeps answers."""


class RememberingPolicy(Policy[Remembering], name="remember", stages=(Stage.CACHE,)):
    """Keeps what was answered for each URL until it is purged."""

    def setup(self, env: Env) -> None:
        self.env = env
        self.kept: dict[bytes, tuple[float, Response]] = {}

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002
        url = f"http://{request.host}{request.target}".encode()
        asked, kept = self.kept.get(url, (0.0, None))
        if kept is None or await self.env.purges.since([b"all"], url, asked) > asked:
            asked, kept = self.env.wall(), await next(request)
            await kept.body.read(1000)
            self.kept[url] = asked, kept
        return kept


def test_a_gateway_in_a_test_can_be_purged() -> None:
    with Gateway(policies=[RememberingPolicy(Remembering())]) as gateway:
        service = gateway.services["service"]
        for _ in range(2):
            assert (gateway.get("/a").status, gateway.get("/b").status) == (200, 200)
        assert len(service.requests) == 2
        gateway.clock.advance(10)
        gateway.purge(["http://localhost/a"])
        assert (gateway.get("/a").status, gateway.get("/b").status) == (200, 200)
        assert len(service.requests) == 3
        gateway.clock.advance(10)
        gateway.purge(tags=["all"])
        assert (gateway.get("/a").status, gateway.get("/b").status) == (200, 200)
        assert len(service.requests) == 5
        with pytest.raises(ValueError, match="is no URL to purge"):
            gateway.purge(["/a"])
    with (
        Gateway(policies=[counting.CountPolicy(counting.Count())]) as gateway,
        pytest.raises(RuntimeError, match="nothing in this configuration keeps answers"),
    ):
        gateway.purge(everything=True)
