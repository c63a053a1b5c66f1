"""One worker process: takes its sockets and a snapshot of the configuration, serves, and drains when told to.

Started by the supervisor as `python -m portico.runtime.worker`, never imported by it. The descriptors that it
inherits are named on its command line; it writes one byte to the `--ready` descriptor when it takes traffic. Where it
cannot, it logs why and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from portico.consumers.generation import Generation
from portico.errors import PorticoError
from portico.http.message import Request, Response
from portico.http.target import EncodedSlashes
from portico.net.server import Server, ServerLimits
from portico.net.stream import Outbox
from portico.observe.log import ProcessLog
from portico.policy.registry import Registry
from portico.runtime import descriptors
from portico.runtime.access import AccessLogs
from portico.runtime.blocked import BlockedWatch
from portico.runtime.compile import Surroundings
from portico.runtime.garbage import Garbage
from portico.runtime.link import Links
from portico.runtime.metering import Metering
from portico.runtime.pace import Pace
from portico.runtime.recording import Recording
from portico.runtime.scrape import scrape
from portico.runtime.serving import Serving
from portico.runtime.shared import Leases
from portico.runtime.snapshot import read
from portico.runtime.state import WorkersStore
from portico.runtime.title import entitle
from portico.runtime.vitals import Vitals
from portico.state.board import Board, Segment, Vital

logger = logging.getLogger("portico.worker")

START_SLICE = 0.05
"""Seconds of compiling between two beats, while there is nobody to serve yet."""


@dataclass(frozen=True)
class Inherited:
    """What the supervisor has given."""

    doors: Mapping[int, socket.socket]
    """The listening sockets, by the numbers of their doors, in the order of the configuration's listeners."""
    snapshot: int
    revision: int
    board: Board
    segment: Segment
    ready: int
    """Where to report."""
    lifeline: int
    """A pipe that ends with the supervisor."""
    control: socket.socket
    file: str
    """The file of the configuration, by which a gateway is known."""


async def serve(inherited: Inherited, log: ProcessLog) -> None:
    """Serve until SIGTERM, or until the supervisor is gone; then drain.

    A second SIGTERM asks for no more than the first: whoever ends all processes of the gateway, and the supervisor that
    has heard the same, mean one end by it.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_reader(inherited.lifeline, stopping.set)
    async with asyncio.TaskGroup() as tasks:
        outbox = Outbox(loop)
        stores = WorkersStore(inherited.file, inherited.segment, tasks)
        metering = Metering(inherited.segment)
        access = AccessLogs(inherited.segment, tasks, loop)
        loop.add_signal_handler(signal.SIGUSR1, access.reopen)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))  # it may have come while this process started
        recording = Recording(loop)
        surroundings = Surroundings(
            Registry(),
            Leases(),
            tasks,
            outbox,
            loop.time,
            records=inherited.board.record,
            generation=functools.partial(Generation, inherited.board),
            store=stores,
            purges=stores.purges,
            counter=inherited.segment.counter,
            watches=lambda ground: [
                watch
                for watch in (metering.watch(ground.config), access.watch(ground), recording.watch(ground.config))
                if watch is not None
            ],
            scrape=scrape(inherited.board),
        )
        server = Server(_not_yet, ServerLimits(), EncodedSlashes.KEEP, tasks, outbox)
        garbage = Garbage(inherited.segment)
        serving = Serving(surroundings, server, garbage, log.speak)
        publish = _publisher(inherited.segment, server, serving, garbage, metering, access)
        vitals = Vitals(inherited.segment, loop, publish)
        packed = read(inherited.snapshot)
        os.close(inherited.snapshot)
        prepared = await serving.prepare(packed, inherited.revision, Pace(START_SLICE))
        del packed
        await serving.commit(prepared, tuple(inherited.doors), dict(inherited.doors))
        blocked = BlockedWatch(lambda: inherited.segment[Vital.BEAT], serving.routes)
        watching = tasks.create_task(surroundings.certificates.run(), name="certificates")
        links = Links(inherited.control, serving, surroundings.feeds, tasks, publish, recording)
        garbage.search()
        publish()
        os.write(inherited.ready, b"\n")
        os.close(inherited.ready)
        await stopping.wait()
        loop.remove_reader(inherited.lifeline)
        watching.cancel()
        links.close()
        serving.stop_accepting()
        inherited.segment[Vital.DRAINING] = 1
        deadline = loop.time() + serving.shutdown_timeout
        await server.drain(deadline)
        await serving.settle(deadline)
        await access.settle(deadline)
        await serving.close()
        access.finish()
        blocked.close()
        vitals.close()
        garbage.close()


async def _not_yet(request: Request) -> Response:
    """Answer before there is a configuration, which no client can be early enough to see."""
    return Response(503)


def _publisher(
    segment: Segment, server: Server, serving: Serving, garbage: Garbage, metering: Metering, access: AccessLogs
) -> Callable[[], None]:
    """Return what is done at each beat: the board learns how the worker is."""

    def publish() -> None:
        in_flight = len(server.under_way())
        segment[Vital.REVISION] = serving.revision
        segment[Vital.CONNECTIONS] = server.connections
        segment[Vital.IN_FLIGHT] = in_flight
        segment[Vital.REQUESTS] = server.answered
        segment[Vital.RETIRED] = serving.retired
        metering.tell(serving.runtime)
        access.look()
        garbage.look(quiet=not in_flight)

    return publish


def _tell_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Tell of an error that could not be raised, unless it is a server name of TLS that is no ASCII.

    The ssl module has no other way to tell of that one, and any stranger can send it.
    """
    if unraisable.exc_type is not UnicodeDecodeError or not isinstance(unraisable.object, bytes):
        sys.__unraisablehook__(unraisable)


def _inherit(arguments: Sequence[str] | None) -> Inherited:
    parser = argparse.ArgumentParser(prog="portico worker", description="One worker; started by the supervisor.")
    parser.add_argument("--slot", required=True, type=int, help="number of the worker")
    parser.add_argument("--doors", required=True, help="door:descriptor of each listening socket, comma-separated")
    parser.add_argument("--snapshot", required=True, type=int, help="descriptor of the snapshot")
    parser.add_argument("--revision", required=True, type=int, help="revision of the snapshot")
    parser.add_argument("--board", required=True, type=int, help="descriptor of the board")
    parser.add_argument("--control", required=True, type=int, help="descriptor of the channel to the supervisor")
    parser.add_argument("--ready", required=True, type=int, help="descriptor to report to")
    parser.add_argument("--lifeline", required=True, type=int, help="descriptor that closes with the supervisor")
    parser.add_argument("--file", default="", help="file of the configuration, by which the gateway is known")
    options: Any = parser.parse_args(arguments)
    pairs = [pair.split(":") for pair in options.doors.split(",")]
    doors = {int(door): socket.socket(fileno=int(descriptor)) for door, descriptor in pairs}
    board = Board(options.board)
    os.close(options.board)  # now: later it would drop the locks that the worker has on the board
    entitle(f"worker {options.slot}")
    return Inherited(
        doors,
        options.snapshot,
        options.revision,
        board,
        board.segment(1 + options.slot),
        options.ready,
        options.lifeline,
        socket.socket(fileno=options.control),
        options.file,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to the whole group; the supervisor decides
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # until there is something to open anew; the other is the supervisor's
    log = ProcessLog("worker", "%(asctime)s %(levelname)s worker[%(process)d] %(message)s")
    descriptors.take_all()
    sys.unraisablehook = _tell_unraisable
    try:
        inherited = _inherit(arguments)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(inherited, log))
    except Exception as error:  # the process boundary: the supervisor starts another
        leaves = list(_leaves(error))
        if all(isinstance(leaf, PorticoError) for leaf in leaves):
            for leaf in leaves:
                logger.error("%s", leaf)  # noqa: TRY400 - it says what is wrong with the configuration
        else:
            logger.exception("the worker failed")
        return 1
    return 0


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


if __name__ == "__main__":
    sys.exit(main())
