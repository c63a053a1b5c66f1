"""The agent's looks at the database of consumers, and what it tells of them."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from portico.agent import credentials
from portico.agent.credentials import Credentials
from portico.consumers.generation import Generation
from portico.consumers.sqlite import SqliteStore, SqliteWatch
from portico.consumers.writer import Writer
from portico.state.board import AGENT, Board, Vital
from tests.harness.consumers import ADA, consumer, database


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    monkeypatch.setattr(credentials, "INTERVAL", 0.001)
    descriptor = Board.create(1)
    board = Board(descriptor)
    os.close(descriptor)
    yield board
    board.close()


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)
    assert condition(), what


def run(main: Callable[[asyncio.TaskGroup], Coroutine[Any, Any, None]]) -> None:
    async def within() -> None:
        async with asyncio.TaskGroup() as tasks:
            await main(tasks)

    asyncio.run(within())


def test_changes_are_told(board: Board, tmp_path: Path) -> None:
    path = database(tmp_path, consumer("ada", ADA))
    generation = Generation(board, path)

    async def main(tasks: asyncio.TaskGroup) -> None:
        looking = Credentials(board, tasks)
        looking.follow("")
        assert generation() is None
        looking.follow(path)
        await until(generation, "the first look")
        first = generation()
        beat = board.segment(AGENT)[Vital.CREDENTIALS_BEAT]
        await until(lambda: board.segment(AGENT)[Vital.CREDENTIALS_BEAT] > beat, "another look")
        assert generation() == first
        looking.follow(path)
        with Writer(path) as writer:
            writer.remove("ada")
        await until(lambda: generation() != first, "the change")
        assert (generation() or 0) > (first or 0)
        looking.close()

    run(main)


def test_another_database_is_told_as_a_change(board: Board, tmp_path: Path) -> None:
    one, other = database(tmp_path), database(tmp_path, name="other.db")

    async def main(tasks: asyncio.TaskGroup) -> None:
        looking = Credentials(board, tasks)
        looking.follow(one)
        await until(Generation(board, one), "a look at the one")
        looking.follow(other)
        await until(Generation(board, other), "a look at the other")
        assert Generation(board, one)() is None
        assert Generation(board, other)() == 2
        looking.close()
        assert looking.file == ""

    run(main)


def test_one_that_cannot_be_looked_at_is_told_once_and_has_no_beat(
    board: Board, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "portico.agent")
    path = database(tmp_path)

    async def main(tasks: asyncio.TaskGroup) -> None:
        looking = Credentials(board, tasks)
        looking.follow(path)
        await until(Generation(board, path), "a look")
        Path(path).rename(f"{path}.away")
        await until(lambda: looking.trouble, "the trouble")
        beat = board.segment(AGENT)[Vital.CREDENTIALS_BEAT]
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert board.segment(AGENT)[Vital.CREDENTIALS_BEAT] == beat
        Path(f"{path}.away").rename(path)
        await until(lambda: not looking.trouble, "its end")
        looking.close()

    run(main)
    why = f"there is no database {path}; portico consumer init {path} makes one"
    told = f"changes of consumers are not seen, so workers look all of them up: {why}"
    assert caplog.messages == [told, "changes of consumers are seen again"]


def test_a_look_that_hangs_holds_up_nothing_else(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LONGEST", 0.01)
    gate = threading.Event()

    class Hanging(SqliteStore):
        def watch(self) -> SqliteWatch:
            watch = super().watch()
            changed = watch.changed
            if self._path.endswith("slow.db"):
                watch.changed = lambda: gate.wait(30) and changed()  # type: ignore[method-assign]
            return watch

    slow, quick = database(tmp_path, name="slow.db"), database(tmp_path)

    async def main(tasks: asyncio.TaskGroup) -> None:
        looking = Credentials(board, tasks, Hanging)
        looking.follow(slow)
        await until(lambda: "takes more than 0.01 s" in looking.trouble, "the trouble")
        assert Generation(board, slow)() is None
        looking.follow(quick)
        await until(Generation(board, quick), "a look at the other")
        looking.follow(slow)
        gate.set()
        await until(Generation(board, slow), "its end")
        assert looking.trouble == ""
        looking.close()

    run(main)
