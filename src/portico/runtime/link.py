"""A worker's ties to the other processes: the supervisor introduces the agent, and the agent tells what to serve."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from portico.errors import PorticoError
from portico.net.channel import Channel, Codec, close_all
from portico.runtime.compile import CompileError
from portico.runtime.feeds import Feeds
from portico.runtime.pace import Pace
from portico.runtime.protocol import (
    KINDS,
    Abandon,
    Commit,
    Committed,
    Meet,
    Prepare,
    Prepared,
    Purge,
    Refused,
    Report,
    Reported,
    Seek,
    Tail,
    TailOver,
    Upstream,
    UpstreamOver,
)
from portico.runtime.purging import purge
from portico.runtime.recording import Recording
from portico.runtime.report import report
from portico.runtime.serving import Prepared as Ready
from portico.runtime.serving import Serving
from portico.runtime.snapshot import read

logger = logging.getLogger("portico.worker")

CODEC = Codec(KINDS)

UNHEARD = 64
"""How many messages of targets wait to be taken in until the agent has to wait."""


@dataclass
class _Proposal:
    """A configuration that the agent has sent, on its way from a snapshot to being served."""

    order: Prepare
    sockets: dict[int, socket.socket]
    task: asyncio.Task[None] | None = None
    ready: Ready | None = None


class Links:
    """The channels of one worker."""

    def __init__(
        self,
        control: socket.socket,
        serving: Serving,
        feeds: Feeds,
        tasks: asyncio.TaskGroup,
        publish: Callable[[], None],
        recording: Recording,
    ) -> None:
        """Listen on `control`, the channel to the supervisor; `publish` has the board tell what is served."""
        self._recording = recording
        self._serving = serving
        self._feeds = feeds
        self._publish = publish
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._proposal: _Proposal | None = None
        self._of_targets: deque[Upstream | UpstreamOver] = deque()
        """What the agent has said of targets, and was not taken in yet."""
        self._agent: Channel | None = None
        self._supervisor = Channel(control, CODEC, self._from_supervisor, _nothing)

    def close(self) -> None:
        """Hear nobody any more."""
        self._drop()
        self._supervisor.close()
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    def _from_supervisor(self, message: Any, descriptors: tuple[int, ...]) -> None:
        if not isinstance(message, Meet) or len(descriptors) != 1:
            close_all(descriptors)
            return
        if self._agent is not None:
            self._agent.close()
            self._agent_gone()
        self._agent = Channel(socket.socket(fileno=descriptors[0]), CODEC, self._from_agent, self._agent_gone)

    def _agent_gone(self) -> None:
        self._agent = None
        self._of_targets.clear()
        self._feeds.agent_gone()
        self._recording.agent_gone()
        self._drop()  # whoever comes after it begins anew

    def _say_if_room(self, message: Any) -> bool:
        """Say what may as well be lost; return whether it was said."""
        if self._agent is None or not self._agent.has_room:
            return False
        self._agent.send(message)
        return True

    def _say(self, message: Any) -> None:
        if self._agent is not None:
            self._agent.send(message)

    def _from_agent(self, message: Any, descriptors: tuple[int, ...]) -> None:
        match message:
            case Prepare() if len(descriptors) == 1 + len(message.fresh):
                self._begin(message, descriptors)
                return
            case Commit():
                self._commit(message.revision)
            case Abandon():
                if self._proposal is not None and self._proposal.order.revision == message.revision:
                    self._drop()
            case Report():
                self._tasks.create_task(self._report(message.ticket), name="report")
            case Purge():
                self._tasks.create_task(self._purge(message), name="purge")
            case Seek() | Tail() | TailOver():
                self._tell_of_requests(message)
            case Upstream() | UpstreamOver():
                self._of_targets.append(message)
                if len(self._of_targets) == 1:
                    self._loop.call_soon(self._hear_of_targets)
                elif len(self._of_targets) >= UNHEARD and self._agent is not None:
                    self._agent.pause()
            case _:
                logger.error("the agent says what a worker does not understand: %s", type(message).__name__)
        close_all(descriptors)

    async def _report(self, ticket: int) -> None:
        try:
            self._say(Reported(ticket, await report(self._serving)))
        except Exception:  # what cannot be told of a worker must not end it
            logger.exception("what this worker knows cannot be told")

    async def _purge(self, order: Purge) -> None:
        try:
            self._say(await purge(order, self._serving))
        except Exception:  # the agent will ask another worker
            logger.exception("the purge failed")

    def _tell_of_requests(self, order: Seek | Tail | TailOver) -> None:
        try:
            if isinstance(order, Seek):
                self._say(self._recording.seek(order, self._serving))
            elif isinstance(order, Tail):
                self._recording.begin(order, self._say_if_room)
            else:
                self._recording.end(order.tail)
        except Exception:  # what cannot be told of a request must not end the worker
            logger.exception("what this worker remembers cannot be told")

    def _hear_of_targets(self) -> None:
        """Take in one message of targets; the next one after others have had the loop, since there may be many."""
        if not self._of_targets:
            return  # the agent that has said it is gone
        message = self._of_targets.popleft()
        if len(self._of_targets) < UNHEARD // 2 and self._agent is not None:
            self._agent.resume()
        if self._of_targets:
            self._loop.call_soon(self._hear_of_targets)
        if isinstance(message, Upstream):
            self._feeds.hear(message)
        else:
            self._feeds.over(message)

    def _begin(self, order: Prepare, descriptors: tuple[int, ...]) -> None:
        self._drop()
        snapshot, *fresh = descriptors
        sockets = {door: socket.socket(fileno=each) for door, each in zip(order.fresh, fresh, strict=True)}
        proposal = self._proposal = _Proposal(order, sockets)
        proposal.task = self._tasks.create_task(self._prepare(proposal, snapshot), name="prepare")
        proposal.task.add_done_callback(lambda _: os.close(snapshot))  # which comes even if it never begins

    async def _prepare(self, proposal: _Proposal, snapshot: int) -> None:
        revision = proposal.order.revision
        pace = Pace()
        began = time.perf_counter()
        try:
            packed = await asyncio.to_thread(read, snapshot)
            proposal.ready = await self._serving.prepare(packed, revision, pace)
        except CompileError as error:
            self._refuse(proposal, [str(finding) for finding in error.findings])
        except PorticoError as error:
            self._refuse(proposal, [str(error)])
        except Exception as error:
            logger.exception("revision %d cannot be compiled", revision)
            self._refuse(proposal, [f"{type(error).__name__}: {error}"])
        else:
            self._say(Prepared(revision, time.perf_counter() - began, pace.longest))

    def _refuse(self, proposal: _Proposal, reasons: list[str]) -> None:
        self._say(Refused(proposal.order.revision, reasons))
        if self._proposal is proposal:
            self._drop()

    def _commit(self, revision: int) -> None:
        proposal = self._proposal
        if proposal is None or proposal.ready is None or proposal.order.revision != revision:
            self._say(Refused(revision, ["it is not prepared here"]))
            return
        missing = self._serving.without_socket(proposal.order.doors, proposal.sockets)
        if missing:  # it has missed a configuration in between; it is given all sockets when it catches up
            self._refuse(proposal, [f"there is no socket here of door {door}" for door in missing])
            return
        self._proposal = None
        self._tasks.create_task(self._swap(proposal, proposal.ready), name="commit")

    async def _swap(self, proposal: _Proposal, ready: Ready) -> None:
        revision = proposal.order.revision
        try:
            await self._serving.commit(ready, proposal.order.doors, proposal.sockets)
        except Exception as error:  # the worker serves on at the doors that it has
            logger.exception("revision %d is not served at every door", revision)
            self._say(Refused(revision, [f"{type(error).__name__}: {error}"]))
        else:
            self._say(Committed(revision))
        finally:
            self._publish()
            for each in proposal.sockets.values():
                each.close()  # those of doors that were open already

    def _drop(self) -> None:
        """Give up what was being prepared."""
        proposal, self._proposal = self._proposal, None
        if proposal is None:
            return
        for each in proposal.sockets.values():
            each.close()
        if proposal.ready is not None:
            self._serving.abandon(proposal.ready)
        elif proposal.task is not None and proposal.task is not asyncio.current_task():
            proposal.task.cancel()


def _nothing() -> None:
    """Do nothing: that the supervisor is gone is told by the lifeline."""
