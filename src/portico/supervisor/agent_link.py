"""The supervisor's side of the conversation with the agent."""

from __future__ import annotations

import logging
import os
import selectors
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from portico.net.channel import BACKLOG_LIMIT, DESCRIPTORS, BadMessage, Codec, Reader, close_all, send_now
from portico.runtime.protocol import (
    KINDS,
    Accept,
    Adopted,
    Bound,
    Declined,
    Meet,
    Plan,
    Reloading,
    ReloadWanted,
    Remember,
    Remembered,
    SlotSockets,
    WantSockets,
    WantWorker,
    Withdraw,
    WorkerGone,
    WorkerReady,
)
from portico.supervisor.child import Child
from portico.supervisor.doors import CannotStart, Door

if TYPE_CHECKING:
    from portico.supervisor.supervisor import Supervisor

logger = logging.getLogger("portico.supervisor")

CODEC = Codec(KINDS)


@dataclass
class _Proposal:
    plan: Plan
    snapshot: int
    doors: list[Door]


class AgentLink:
    """What the agent is told, and what it may ask for. An agent that does not listen is ended, and another started."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._reader = Reader(CODEC)
        self._proposal: _Proposal | None = None
        self._wanted: ReloadWanted | None = None
        """What an agent has been asked for, or is to be, and has not begun."""
        self._reloads = 0
        """Reloads that the agent is busy with."""
        self._sock: socket.socket | None = None
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        """What the agent has not taken yet: it may be busy, and some of it is large."""
        self._waiting_bytes = 0

    @property
    def busy(self) -> bool:
        """Whether there is an agent that carries out a reload, or was asked for one."""
        return self._sock is not None and (self._reloads > 0 or self._wanted is not None)

    def begin(self) -> None:
        """Tell a new agent how things stand."""
        supervisor = self._supervisor
        self._sock = supervisor.agent.control
        assert self._sock is not None
        supervisor.watch(self._sock, self._awake)
        self._send(Remembered(supervisor.remembered))
        self._send(supervisor.plan, [supervisor.snapshot])
        for slot, child in enumerate(supervisor.workers):
            if child.ready:
                self.worker_ready(slot, child)
        if self._wanted is not None:
            self.ask(self._wanted)

    def lost(self) -> None:
        """Forget an agent that has ended, and what it had proposed."""
        self._withdraw()
        if self._reloads:
            self._reloads = 0
            self._ready()
        self._reader.close()
        self._reader = Reader(CODEC)
        for _, copies in self._waiting:
            close_all(copies)
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._sock is not None:
            self._supervisor.forget(self._sock)
            self._sock = None

    def ask(self, wanted: ReloadWanted) -> None:
        """Have the file loaded anew, now or once there is an agent."""
        self._wanted = wanted  # until it begins: the agent may end before it has read this
        self._send(wanted)

    def worker_ready(self, slot: int, child: Child) -> None:
        """Introduce a worker and the agent to each other."""
        if self._sock is None or child.control is None:
            return
        try:
            one, other = socket.socketpair()
        except OSError as error:  # there are no descriptors left: the worker serves, and takes part in no reload
            logger.error("the agent cannot meet %s: %s", child.name, error)  # noqa: TRY400 - a trace says no more
            return
        with one, other:
            try:
                send_now(child.control, CODEC.encode(Meet(), 1), [one.fileno()])
            except OSError:
                return  # it has just ended, or does not listen: either way it will be replaced
            self._send(WorkerReady(slot, child.pid), [other.fileno()])

    def _introduce_again(self, slot: int, pid: int) -> None:
        workers = self._supervisor.workers
        if 0 <= slot < len(workers) and workers[slot].ready and workers[slot].pid == pid:
            self.worker_ready(slot, workers[slot])

    def worker_gone(self, slot: int, pid: int, how: str) -> None:
        """Tell that a worker has ended."""
        self._send(WorkerGone(slot, pid, how))

    def _send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        if self._sock is None:
            return
        try:
            data = CODEC.encode(message, len(descriptors))
        except ValueError as error:
            logger.error("the agent cannot be told: %s", error)  # noqa: TRY400 - a trace says no more
            return
        copies: list[int] = []
        try:
            for each in descriptors:
                copies.append(os.dup(each))  # noqa: PERF401 - those that were made are closed where one cannot be
        except OSError as error:
            close_all(copies)
            self._end(f"the agent cannot be told: {error}")
            return
        self._waiting.append((data, tuple(copies)))
        self._waiting_bytes += len(data)
        self._write()

    def _write(self) -> None:
        """Send what the agent takes for now; it is asked again when it takes more."""
        assert self._sock is not None
        listens = True
        try:
            while self._waiting:
                data, copies = self._waiting[0]
                sent = send_now(self._sock, data, copies)
                close_all(copies)
                self._waiting_bytes -= sent
                if sent < len(data):
                    self._waiting[0] = data[sent:], ()
                else:
                    self._waiting.popleft()
        except BlockingIOError:
            listens = self._waiting_bytes <= BACKLOG_LIMIT
        except OSError:
            listens = False
        if listens:
            events = selectors.EVENT_READ | selectors.EVENT_WRITE if self._waiting else selectors.EVENT_READ
            self._supervisor.selector.modify(self._sock, events, self._awake)
        else:
            self._end("the agent does not listen")

    def _end(self, why: str) -> None:
        """End an agent that is of no use."""
        logger.error("%s; it is ended", why)
        self._supervisor.agent.kill()
        self.lost()

    def _awake(self) -> None:
        if self._waiting:
            self._write()
        if self._sock is not None:
            self._read()

    def _read(self) -> None:
        sock = self._sock
        assert sock is not None
        try:
            received = self._reader.read(sock)
        except BlockingIOError:
            return
        except BadMessage as error:
            self._end(f"the agent makes no sense: {error}")
            return
        except OSError:  # it has ended, and had not read everything
            received = None
        if received is None:
            self._supervisor.agent.kill()
            self.lost()
            return
        for message, descriptors in received:
            if self._sock is not None:
                self._act_on(message, descriptors)
            else:
                close_all(descriptors)

    def _act_on(self, message: Any, descriptors: tuple[int, ...]) -> None:
        match message:
            case Plan() if len(descriptors) == 1:
                self._propose(message, descriptors[0])
                return
            case Accept():
                self._accept(message.revision)
            case Withdraw():
                if self._proposal is not None and self._proposal.plan.revision == message.revision:
                    self._withdraw()
            case WantSockets():
                self._give_sockets(message.slot)
            case WantWorker():
                self._introduce_again(message.slot, message.pid)
            case Remember():
                self._supervisor.remembered = message.text
            case Reloading():
                self._reloading(begun=message.begun)
            case _:
                logger.error("the agent says what the supervisor does not understand: %s", type(message).__name__)
        close_all(descriptors)

    def _propose(self, plan: Plan, snapshot: int) -> None:
        self._withdraw()
        supervisor = self._supervisor
        slots = range(max(plan.workers, supervisor.plan.workers))
        try:
            self._check(plan)
            doors = supervisor.doors.propose(plan.listen, slots)
        except CannotStart as error:
            os.close(snapshot)
            self._send(Declined(plan.revision, str(error)))
            return
        self._proposal = _Proposal(plan, snapshot, doors)
        fresh = [door for door in doors if door not in supervisor.doors.current]
        numbers = [door.number for door in fresh]
        sockets = {slot: [door.sockets[slot].fileno() for door in fresh] for slot in slots if fresh}
        for slot, handed in sockets.items():  # with an agent that has just ended, all of them are closed on the way
            self._send(SlotSockets(slot, numbers), handed)
        self._send(Bound(plan.revision, [door.number for door in doors]))

    def _check(self, plan: Plan) -> None:
        """Raise CannotStart where a plan cannot be run from here."""
        room = self._supervisor.board.workers
        if plan.workers > room:
            raise CannotStart(f"a reload can have {room} workers, not {plan.workers}; start the gateway anew")
        if len(plan.listen) >= DESCRIPTORS:
            raise CannotStart(f"a reload can have less than {DESCRIPTORS} listeners; start the gateway anew")
        if self._supervisor.stopping:
            raise CannotStart("the gateway is about to end")

    def _accept(self, revision: int) -> None:
        proposal, self._proposal = self._proposal, None
        if proposal is None or proposal.plan.revision != revision:
            logger.error("the agent accepts a plan that it has not proposed: revision %d", revision)
            return
        self._supervisor.adopt(proposal.plan, proposal.snapshot, proposal.doors)
        self._send(Adopted(revision))

    def _reloading(self, *, begun: bool) -> None:
        """Tell the service manager of each reload that begins, and when the last of them is over."""
        if begun:
            self._wanted = None
            self._reloads += 1
            if not self._supervisor.stopping:
                self._supervisor.notifier.reloading()
        elif self._reloads:
            self._reloads -= 1
            if not self._reloads:
                self._ready()

    def _ready(self) -> None:
        if not self._supervisor.stopping:
            self._supervisor.notifier.tell("READY=1")

    def _give_sockets(self, slot: int) -> None:
        doors = [door for door in self._supervisor.doors.current if slot in door.sockets]
        sockets = [door.sockets[slot].fileno() for door in doors]
        self._send(SlotSockets(slot, [door.number for door in doors]), sockets)

    def _withdraw(self) -> None:
        proposal, self._proposal = self._proposal, None
        if proposal is not None:
            os.close(proposal.snapshot)
            self._supervisor.doors.withdraw(proposal.doors)
