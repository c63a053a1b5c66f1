"""Runs a plan: one loop that waits for signals, for its children, and for what the agent asks."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from portico.observe.metrics import RESTARTS
from portico.runtime.protocol import Plan, ReloadWanted
from portico.state.board import AGENT, Board, counter_name
from portico.supervisor.agent_link import AgentLink
from portico.supervisor.child import Child, Timing
from portico.supervisor.doors import CannotStart, Door, Doors
from portico.supervisor.elders import Elders
from portico.supervisor.handover import HANDLED, Handover, LeftDoor
from portico.supervisor.systemd import Notifier
from portico.supervisor.upgrade import Upgrade

logger = logging.getLogger("portico.supervisor")

ROOM: Final = 128
"""Workers that the board has room for, at least: so many a reload can ask for."""


_RESTARTS: Final = {role: counter_name(RESTARTS.name, {"role": role}) for role in ("worker", "agent")}


@dataclass(frozen=True)
class Commands:
    """How processes are started; `agent` is empty where there is to be none."""

    worker: Sequence[str] = (sys.executable, "-m", "portico.runtime.worker")
    agent: Sequence[str] = (sys.executable, "-m", "portico.agent")


COMMANDS: Final = Commands()
TIMING: Final = Timing()


class Supervisor:
    """Owns the sockets, the board and the processes, until it is told to stop."""

    def __init__(
        self,
        handover: Handover,
        notifier: Notifier,
        activated: Sequence[socket.socket] = (),
        commands: Commands = COMMANDS,
        timing: Timing = TIMING,
        speak: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """`speak` has this process, and those that it starts, log in a format and from a level on."""
        self.plan = handover.plan
        self._speak = speak
        speak(*self.plan.log)
        self.snapshot = handover.snapshot
        self.remembered = handover.remembered
        self.notifier = notifier
        self.doors = Doors(activated)
        self.selector = selectors.DefaultSelector()
        self._commands = commands
        self._timing = timing
        self._given = handover
        self._board_file = Board.create(max(ROOM, handover.plan.workers))
        self.board = Board(self._board_file)
        self.board.add_totals(dict.fromkeys(_RESTARTS.values(), 0))
        self.board.add_totals(handover.counters, handover.histograms)
        self.workers = [self._place(number) for number in range(handover.plan.workers)]
        self.agent = Child("the agent", self.board.segment(AGENT), timing)
        self._link = AgentLink(self)
        self._elders = Elders(handover.elders, handover.lifelines)
        self._upgrade = Upgrade(self, self._link)
        self._signals: list[int] = []
        self._stopping = False
        self._kill_at = float("inf")
        self._next_look = 0.0
        self._ever_ready = bool(handover.elders)
        self.announced = False
        """Whether all workers were ready once."""
        self._failed = False
        self._had_terminal = sys.stdin is not None and sys.stdin.isatty()

    def run(self) -> int:
        """Start everything, keep it running, and return the exit code once all has ended. Raises CannotStart."""
        lifeline_out, lifeline_in = os.pipe()
        self._lifeline = lifeline_out
        self._lifeline_in = lifeline_in
        try:
            self._bind()
            self._catch_signals()
            while self._step():
                pass
            return 1 if self._failed else 0
        finally:
            self._kill_all()
            for door in self.doors.current:
                door.close_all()
            for descriptor in (lifeline_out, lifeline_in, self._board_file):
                os.close(descriptor)
            self.selector.close()

    def adopt(self, plan: Plan, snapshot: int, doors: list[Door]) -> None:
        """Run another plan from now on; its snapshot is the supervisor's to close."""
        os.close(self.snapshot)
        self.snapshot = snapshot
        self.plan = plan
        self._speak(*plan.log)
        self.doors.accept(doors, [str(scheme) for _, _, scheme in plan.listen])
        for number in range(len(self.workers), plan.workers):
            self.workers.append(self._place(number))
        for child in self.workers[plan.workers :]:
            child.leaving = True
            self.doors.close(self.workers.index(child))
            child.terminate()
        for child in self.workers[: plan.workers]:
            child.leaving = False
        self.notifier.tell(f"STATUS=revision {plan.revision}, {plan.workers} worker(s)")

    @property
    def asked(self) -> bool:
        """Whether there is a signal that was not acted on yet."""
        return bool(self._signals)

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopping

    def forget(self, descriptor: int | socket.socket) -> None:
        """Undo `watch`."""
        self.selector.unregister(descriptor)

    def watch(self, descriptor: int | socket.socket, heard: Callable[[], None]) -> None:
        """Have `heard` called whenever something can be read."""
        self.selector.register(descriptor, selectors.EVENT_READ, heard)

    def _place(self, number: int) -> Child:
        return Child(f"worker {number}", self.board.segment(1 + number), self._timing)

    def _bind(self) -> None:
        for left in self._given.doors:
            sockets = {int(slot): socket.socket(fileno=each) for slot, each in left.sockets.items()}
            handed = socket.socket(fileno=left.handed) if left.handed >= 0 else None
            self.doors.adopt(
                Door(left.number, left.host, left.port, left.scheme, left.bound, sockets, handed, left.handed_to)
            )
        slots = range(self.plan.workers)
        for slot in {int(slot) for left in self._given.doors for slot in left.sockets}.difference(slots):
            self.doors.close(slot)  # of workers that there were; with nobody to accept from it, clients would wait
        doors = self.doors.propose(self.plan.listen, slots)
        self.doors.accept(doors, [str(scheme) for _, _, scheme in self.plan.listen])
        for slot in slots:
            self.doors.open(slot)
        self.plan = replace(self.plan, doors=[door.number for door in doors])
        for address in self.doors.unused():
            logger.warning("the service manager has bound %s, which no listener of %s is for", address, self.plan.file)

    # Signals

    def _catch_signals(self) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._wakeup = (reader, writer)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in HANDLED:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP, and means it
                signal.signal(number, lambda caught, _: self._signals.append(caught))
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it only has to wake the loop
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        self.watch(reader, self._awake)

    def _awake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wakeup[0].recv(4096)

    def _act_on(self, number: int, now: float) -> None:
        if number == signal.SIGHUP and self._had_terminal and not sys.stdin.isatty():
            self._stop(number, now)  # the terminal is gone, and says so this way
        elif number == signal.SIGHUP:
            if not self._stopping:
                self._link.ask(ReloadWanted("SIGHUP"))
        elif number == signal.SIGUSR1:
            for child in self.workers:
                child.reopen_logs()
            self._elders.reopen_logs()
        elif number == signal.SIGUSR2:
            self._upgrade.begin()
        else:
            self._stop(number, now)

    # The loop

    def _step(self) -> bool:
        """Do what is due, then wait for the next event; tell whether there is more to come."""
        now = time.monotonic()
        while self._signals:
            self._act_on(self._signals.pop(0), now)
        for slot, child in enumerate(self.workers):
            self._tend_worker(slot, child, now)
        while self.workers and self.workers[-1].leaving and self.workers[-1].process is None:
            self.workers.pop()
        self._tend_agent(now)
        self._elders.tend(now)
        self._upgrade.tend(now)
        if self._stopping and not any(self._alive()):
            return False
        if now >= self._kill_at:
            logger.warning("workers are still busy after the deadline; ending them")
            self._kill_all()
        if now >= self._next_look:
            self._next_look = now + self._timing.tick
            self._look(now)
        self.notifier.alive(now)
        starts = [
            child.start_at for child in (*self.workers, self.agent) if child.process is None and child.start_at > now
        ]
        wait = min([self._kill_at, self._next_look, *starts]) - now
        for key, _ in self.selector.select(max(0.0, wait)):
            key.data()
        return True

    def _alive(self) -> list[Child]:
        return [child for child in (*self.workers, self.agent) if child.process is not None]

    def _tend_worker(self, slot: int, child: Child, now: float) -> None:
        """Notice where a worker has ended, and fill its place where that is due."""
        ended = child.ended  # asked once: it may end at any moment, and what was not heard must not be let go
        if ended and child.ready_pipe >= 0:
            self._hear_worker(slot, child)
        was_ready, pid = child.ready, child.pid
        how = child.reap(now) if ended else ""
        if how:
            self.board.fold(1 + slot)
            self._link.worker_gone(slot, pid, how)
            if not (self._stopping or child.leaving):
                self._worker_died(slot, child, was_ready, how)
        if child.process is None and not self._stopping and not child.leaving and now >= child.start_at:
            self._try_to_start(slot, child, now)

    def _worker_died(self, slot: int, child: Child, was_ready: bool, how: str) -> None:
        if not was_ready and not self._ever_ready:
            logger.error("a worker could not start (%s)", how)
            self._failed = True
            self._stop(signal.SIGTERM, time.monotonic())
            return
        self.board.add_totals({_RESTARTS["worker"]: 1})
        pause = child.pause()
        if pause:
            self.doors.close(slot)
        logger.error("%s died (%s); the next starts %s", child.name, how, f"in {pause:g} s" if pause else "now")

    def _try_to_start(self, slot: int, child: Child, now: float) -> None:
        """Start a worker; where the system refuses for now, the others serve on, and it is tried again later."""
        try:
            self.doors.open(slot)
            doors = [(door.number, door.sockets[slot].fileno()) for door in self.doors.current]
            command = [
                *self._commands.worker,
                f"--slot={slot}",
                f"--doors={','.join(f'{number}:{each}' for number, each in doors)}",
                f"--snapshot={self.snapshot}",
                f"--revision={self.plan.revision}",
                f"--board={self._board_file}",
                f"--lifeline={self._lifeline}",
                f"--file={self.plan.file}",
            ]
            passed = [*(each for _, each in doors), self.snapshot, self._board_file, self._lifeline]
            child.start(command, passed, now)
        except (OSError, CannotStart) as error:
            if not self._ever_ready:
                raise CannotStart(f"a worker cannot be started: {error}") from error
            child.crashes += 1
            child.start_at = now + max(child.pause(), self._timing.tick)
            self.doors.close(slot)
            logger.error("%s cannot be started: %s", child.name, error)  # noqa: TRY400 - a trace says no more
        else:
            self.watch(child.ready_pipe, lambda: self._hear_worker(slot, child))

    def _hear_worker(self, slot: int, child: Child) -> None:
        """A worker says that it is ready, or its end of the pipe was closed."""
        self.selector.unregister(child.ready_pipe)
        if not child.hear():
            return
        self._ever_ready = True
        self._link.worker_ready(slot, child)
        if self.announced:
            logger.info("%s serves%s", child.name, " again" if child.has_served else "")
        if all(each.ready for each in self.workers if not each.leaving):
            self._all_ready()

    def _all_ready(self) -> None:
        self._elders.terminate(time.monotonic() + self.plan.drain_timeout + self._timing.kill_after)
        if not self.announced:
            self.announced = True
            urls = ", ".join(door.url for door in self.doors.current)
            logger.info("listening on %s with %d worker(s)", urls, self.plan.workers)
            self.notifier.tell("READY=1", f"STATUS=revision {self.plan.revision}, {self.plan.workers} worker(s)")

    # The agent

    def _tend_agent(self, now: float) -> None:
        agent = self.agent
        if not self._commands.agent:
            return
        ended = agent.ended
        if ended and agent.ready_pipe >= 0:
            self._hear_agent()
        how = agent.reap(now) if ended else ""
        if how:
            self._link.lost()
            self.board.fold(AGENT)
            if not self._stopping:
                self.board.add_totals({_RESTARTS["agent"]: 1})
                pause = agent.pause()
                logger.error("the agent died (%s); the next starts %s", how, f"in {pause:g} s" if pause else "now")
        if (
            agent.process is None
            and (self.announced or self._given.elders)
            and not self._stopping
            and now >= agent.start_at
        ):
            try:
                command = [*self._commands.agent, f"--board={self._board_file}", f"--lifeline={self._lifeline}"]
                agent.start(command, (self._board_file, self._lifeline), now)
            except OSError as error:
                agent.crashes += 1
                agent.start_at = now + max(agent.pause(), self._timing.tick)
                logger.error("the agent cannot be started: %s", error)  # noqa: TRY400 - a trace says no more
            else:
                self._link.begin()
                self.watch(agent.ready_pipe, self._hear_agent)

    def _hear_agent(self) -> None:
        self.selector.unregister(self.agent.ready_pipe)
        self.agent.hear()

    # Signs of life

    def _look(self, now: float) -> None:
        for child in self._alive():
            still = child.look(now)
            limit = (self._timing.agent_timeout if child is self.agent else self.plan.watchdog) or float("inf")
            if not child.ready:
                if now - child.started > self._timing.start_timeout:
                    logger.error(
                        "%s (pid %d) was not ready after %g s; it is ended",
                        child.name,
                        child.pid,
                        self._timing.start_timeout,
                    )
                    child.kill()
            elif (held := child.holds_store(time.monotonic_ns())) >= self._timing.store_lock:
                why = "stands still with the lock of the store, which others wait for"
                logger.error("%s (pid %d) %s, for %.1f s; it is ended", child.name, child.pid, why, held)
                child.kill()
            elif still >= limit:
                logger.error("%s (pid %d) gave no sign of life for %.0f s; it is ended", child.name, child.pid, still)
                child.kill()
            elif still >= self._timing.standstill and not child.told:
                child.told = True
                until = f"at {limit:g} s it is replaced" if limit != float("inf") else "watchdog is off"
                logger.warning("%s (pid %d) gave no sign of life for %.0f s; %s", child.name, child.pid, still, until)
            elif child.told and still < self._timing.standstill:
                child.told = False
                logger.info("%s (pid %d) is alive again", child.name, child.pid)

    # The end

    def _stop(self, number: int, now: float) -> None:
        """Begin to drain; end at once where that was asked for before."""
        if self._stopping:
            if number != signal.SIGHUP:  # it often comes along with another, and asks for no more than that
                logger.warning("second signal: ending at once")
                self._kill_all()
            return
        self._stopping = True
        self._upgrade.give_up()
        self._kill_at = now + self.plan.drain_timeout + self._timing.kill_after
        self.notifier.tell("STOPPING=1")
        if not self._failed:
            logger.info("%s: draining; once more to end at once", signal.Signals(number).name)
        for slot, child in enumerate(self.workers):
            self.doors.close(slot)
            child.terminate()
        self._elders.terminate(self._kill_at)
        self.agent.terminate()

    def _kill_all(self) -> None:
        self._kill_at = float("inf")
        self._elders.kill()
        for child in self._alive():
            child.kill()
            if child.process is not None:
                child.process.wait()

    # Another program in our place

    def left(self, doors: Sequence[Door]) -> Handover:
        """Return what the program that takes our place with `doors` needs to know; the workers serve on until it has
        its own.
        """
        left_doors = [
            LeftDoor(
                door.number,
                door.host,
                door.port,
                door.scheme,
                door.bound,
                {str(slot): each.fileno() for slot, each in door.sockets.items()},
                door.handed.fileno() if door.handed is not None else -1,
                door.handed_to,
            )
            for door in doors
        ]
        return Handover(
            plan=self.plan,
            snapshot=self.snapshot,
            doors=left_doors,
            elders=[*(child.pid for child in self._alive()), *self._elders.pids],
            lifelines=[self._lifeline_in, *self._elders.lifelines],
            counters=self.board.counters(),
            histograms=self.board.histograms(),
            remembered=self.remembered,
            started=self._given.started,
        )
