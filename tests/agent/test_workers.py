"""The workers, as the agent sees them."""

from __future__ import annotations

import os
import socket

from portico.agent.workers import WorkerLink, Workers
from portico.state.board import Board
from tests.harness.loop import run, until


def test_a_worker_whose_channel_is_cut_is_none_any_more_and_is_told_of() -> None:
    async def main() -> None:
        file = Board.create(2)
        board = Board(file)
        cut: list[WorkerLink] = []
        workers = Workers(board, cut.append)
        pairs = [socket.socketpair() for _ in range(3)]
        first = workers.met(0, 70, pairs[0][0])
        pairs[0][1].close()
        await until(lambda: cut)
        assert (cut, len(workers)) == ([first], 0)
        workers.met(0, 70, pairs[1][0])
        last = workers.met(0, 70, pairs[2][0])  # the one before is over, and nobody has cut it
        assert (cut, list(workers)) == ([first], [last])
        workers.close()
        assert cut == [first]
        for _, other in pairs[1:]:
            other.close()
        board.close()
        os.close(file)

    run(main)
