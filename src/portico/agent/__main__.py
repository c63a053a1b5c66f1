"""`python -m portico.agent`: the process of the agent, started by the supervisor."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

import uvloop

from portico.agent.agent import Agent
from portico.observe.log import ProcessLog
from portico.runtime import descriptors
from portico.runtime.garbage import Garbage
from portico.runtime.title import entitle
from portico.runtime.vitals import Vitals
from portico.state.board import AGENT, Board

logger = logging.getLogger("portico.agent")


async def _serve(board: Board, control: socket.socket, ready: int, lifeline: int, log: ProcessLog) -> None:
    """Do the agent's work until SIGTERM, or until the supervisor is gone."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_reader(lifeline, stopping.set)
    segment = board.segment(AGENT)
    async with asyncio.TaskGroup() as tasks:
        garbage = Garbage(segment)
        agent = Agent(board, control, tasks, stopping.set, log.speak)
        vitals = Vitals(segment, loop)
        try:
            await agent.start()
            working = tasks.create_task(agent.run(), name="agent")
            garbage.search()
            os.write(ready, b"\n")
            os.close(ready)
            await stopping.wait()
            working.cancel()
        finally:
            loop.remove_reader(lifeline)
            loop.add_signal_handler(signal.SIGTERM, os._exit, 143)
            await agent.close()
            vitals.close()
            garbage.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent."""
    parser = argparse.ArgumentParser(prog="portico agent", description="The agent; started by the supervisor.")
    parser.add_argument("--board", required=True, type=int, help="descriptor of the board")
    parser.add_argument("--control", required=True, type=int, help="descriptor of the channel to the supervisor")
    parser.add_argument("--ready", required=True, type=int, help="descriptor to report to")
    parser.add_argument("--lifeline", required=True, type=int, help="descriptor that closes with the supervisor")
    options: Any = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to the whole group; the supervisor decides
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # they are for the supervisor, whoever else gets them
    log = ProcessLog("agent", "%(asctime)s %(levelname)s agent[%(process)d] %(message)s")
    entitle("agent")
    descriptors.take_all()
    board = Board(options.board)
    os.close(options.board)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(board, socket.socket(fileno=options.control), options.ready, options.lifeline, log))
    except Exception:  # the process boundary: the supervisor starts another
        logger.exception("the agent failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
