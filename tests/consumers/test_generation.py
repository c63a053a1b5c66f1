"""What workers and the agent say to each other about changes, by the board."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from portico.consumers.generation import INTERVAL, SILENCE, Generation, announce, nobody_looks
from portico.state.board import AGENT, Board, Word

BEGAN = 5_000_000_000


@pytest.fixture
def board() -> Iterator[Board]:
    descriptor = Board.create(1)
    board = Board(descriptor)
    os.close(descriptor)
    yield board
    board.close()


class Clock:
    now = BEGAN

    def __call__(self) -> int:
        return self.now


def test_there_is_a_generation_while_somebody_looks(board: Board) -> None:
    clock = Clock()
    generation = Generation(board, "/a.db", clock)
    assert generation() is None
    announce(board, "/a.db", BEGAN, changed=False)
    first = generation()
    assert first == board.word(Word.CREDENTIALS) == 1  # whatever was before is not known
    announce(board, "/a.db", BEGAN, changed=False)
    assert generation() == first
    announce(board, "/a.db", BEGAN, changed=True)
    assert generation() == 2
    clock.now = BEGAN + int(SILENCE * 1e9)
    assert generation() == 2
    clock.now += 1
    assert generation() is None
    announce(board, "/a.db", clock.now, changed=False)
    assert generation() == 2
    assert INTERVAL < SILENCE


def test_looks_at_another_store_say_nothing_of_this_one(board: Board) -> None:
    one, other = (Generation(board, path, Clock()) for path in ("/a.db", "/b.db"))
    announce(board, "/a.db", BEGAN, changed=False)
    assert (one(), other()) == (1, None)
    announce(board, "/b.db", BEGAN, changed=False)
    assert (one(), other()) == (None, 2)


def test_another_agent_begins_with_another_generation(board: Board) -> None:
    generation = Generation(board, "/a.db", Clock())
    announce(board, "/a.db", BEGAN, changed=False)
    board.fold(1 + AGENT)
    assert generation() == 1
    board.fold(AGENT)
    assert generation() is None
    announce(board, "/a.db", BEGAN, changed=False)
    assert generation() == 2


def test_without_an_agent_there_is_none() -> None:
    assert nobody_looks() is None  # type: ignore[func-returns-value]
