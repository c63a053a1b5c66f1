"""Reloads whose supervisor and workers are the test's own; see also tests/supervisor/test_reload.py."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from portico.agent import root as agent_root
from portico.agent.agent import Agent
from portico.agent.plan import plan_of
from portico.agent.reload import Reloads
from portico.agent.root import Supervisor
from portico.agent.workers import CODEC, WorkerLink, Workers
from portico.net.channel import Channel, close_all
from portico.runtime.loading import load
from portico.runtime.protocol import (
    Accept,
    Adopted,
    Bound,
    Commit,
    Committed,
    Plan,
    Prepare,
    Prepared,
    WantSockets,
    Withdraw,
)
from portico.runtime.snapshot import pack
from portico.state.board import Board, Vital, shared_file
from tests.harness.loop import run, run_jumping, turns, until

ROUTES = "listen: 127.0.0.1:0\nroutes: [{{path: {path}, respond: hello}}]\n"


class Root:
    """A supervisor that says yes."""

    def __init__(self, file: Path) -> None:
        loaded = load(file)
        assert loaded.config is not None
        self.plan = plan_of(loaded, str(file), 1, "start")
        self.snapshot = shared_file("snapshot", pack(loaded.config, loaded.plugins))
        self.heard: list[Any] = []

    async def ask(self, message: Any, answers: tuple[type, ...], descriptors: Sequence[int] = ()) -> Any:
        self.heard.append(message)
        return Bound(message.revision, [1]) if isinstance(message, Plan) else Adopted(message.revision)

    def tell(self, message: Any) -> None:
        self.heard.append(message)

    async def sockets_of(self, slot: int) -> dict[int, int]:
        self.heard.append(WantSockets(slot))
        return {}

    def take_sockets(self) -> dict[int, dict[int, int]]:
        return {}

    def adopted(self, plan: Plan, snapshot: int) -> None:
        os.close(self.snapshot)
        self.plan, self.snapshot = plan, snapshot


class World:
    """A gateway's file, and a board."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "portico.yaml"
        self.write("/one")
        self.root = Root(self.file)
        self._board_file = Board.create(1)
        self.board = Board(self._board_file)
        self.workers = Workers(self.board, lambda _: None)
        self.reloads = Reloads(self.root, self.workers)

    def write(self, path: str) -> None:
        self.file.write_text(ROUTES.format(path=path))

    def close(self) -> None:
        self.board.close()
        os.close(self._board_file)
        os.close(self.root.snapshot)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


class Worker:
    """A worker that prepares when it is told to, and commits at once."""

    def __init__(self, world: World) -> None:
        ours, its = socket.socketpair()
        self.heard: list[Any] = []
        self.channel = Channel(ours, CODEC, self._heard, lambda: None)
        self.link: WorkerLink = world.workers.met(0, 1, its)

    def _heard(self, message: Any, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)
        self.heard.append(message)
        if isinstance(message, Commit):
            self.channel.send(Committed(message.revision))

    def of(self, kind: type[Prepare | Commit]) -> list[int]:
        return [message.revision for message in self.heard if isinstance(message, kind)]


def test_without_a_worker_the_loader_decides(world: World) -> None:
    async def main() -> None:
        world.write("/a/**/b")
        result = await world.reloads.reload("test")
        assert (result.ok, result.revision) == (False, 1)
        assert "`**` stands for any depth only as the last segment" in result.errors[0]
        assert [type(message) for message in world.root.heard] == [Plan, Withdraw]
        world.write("/two")
        result = await world.reloads.reload("test")
        assert (result.ok, result.revision, world.root.plan.revision) == (True, 2, 2)
        assert result.changes["routes_added"]
        assert isinstance(world.root.heard[-1], Accept)

    run(main)


def test_a_reload_waits_for_a_worker_that_catches_up(world: World) -> None:
    async def main() -> None:
        worker = Worker(world)
        async with asyncio.TaskGroup() as tasks:
            catching_up = tasks.create_task(world.reloads.catch_up(worker.link))
            await until(lambda: worker.of(Prepare) == [1])
            world.write("/two")
            reload = tasks.create_task(world.reloads.reload("test"))
            await turns()
            worker.channel.send(Prepared(1, 0.0, 0.0))
            await catching_up
            assert worker.of(Commit) == [1]
            await until(lambda: worker.of(Prepare) == [1, 2])
            worker.channel.send(Prepared(2, 0.0, 0.0))
            assert (await reload).revision == 2
            assert worker.of(Commit) == [1, 2]
        world.workers.close()
        worker.channel.close()

    run(main)


@contextmanager
def silent_supervisor() -> Iterator[socket.socket]:
    """Yield the agent's end of a channel on which nobody answers."""
    ours, its = socket.socketpair()
    with ours:
        yield its


def test_a_supervisor_that_does_not_answer_is_lost() -> None:
    async def main() -> None:
        lost: list[int] = []
        with silent_supervisor() as sock:
            supervisor = Supervisor(
                sock,
                on_worker=lambda *_: None,
                on_gone=lambda _: None,
                on_reload=lambda _: None,
                on_lost=lambda: lost.append(1),
            )
            with pytest.raises(TimeoutError):
                await supervisor.ask(Accept(1), (Adopted,))
            assert lost == [1]
            supervisor.close()

    assert agent_root.TIMEOUT < 60
    run_jumping(main)


def test_an_agent_that_is_told_nothing_does_not_wait_for_ever(world: World) -> None:
    async def main() -> None:
        with silent_supervisor() as sock:
            async with asyncio.TaskGroup() as tasks:
                agent = Agent(world.board, sock, tasks, lambda: None)
                with pytest.raises(TimeoutError):
                    await agent.start()
                await agent.close()

    run_jumping(main)


def test_a_worker_that_drains_is_left_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        worker = Worker(world)
        world.board.segment(1)[Vital.REVISION] = 7
        world.board.segment(1)[Vital.DRAINING] = 1
        with silent_supervisor() as sock:
            async with asyncio.TaskGroup() as tasks:
                agent = Agent(world.board, sock, tasks, lambda: None)
                agent.supervisor.plan = world.root.plan
                await agent._check(worker.link)
                await agent.close()
        world.workers.close()
        worker.channel.close()

    run(main)
    assert "serves revision" not in caplog.text
