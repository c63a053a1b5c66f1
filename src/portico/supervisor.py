"""Owns the listening sockets and the worker processes: starts, watches, replaces and ends them.

Standard library only, and no import of what it starts: children are started by module name. It keeps one SO_REUSEPORT
socket for each worker slot and address. A worker that takes the place of a dead one inherits the slot's sockets, so
that clients in the queue wait for its start and none is refused. While a slot waits out a crash loop its sockets are
closed, and the kernel gives its clients to the other slots.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

logger = logging.getLogger("portico.supervisor")

BACKLOG = 4096
"""Connections that may wait in a slot's queue."""

STABLE_AFTER = 10.0
"""Seconds after which a worker's death is no longer taken for part of a crash loop."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds before the next start in a crash loop; each crash doubles the pause."""

KILL_AFTER = 5.0
"""Seconds beyond the drain's deadline until a worker that is still there is killed."""

TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGHUP)
"""What a terminal sends to every process of its group."""


class CannotStart(Exception):
    """The gateway cannot be started; the message says why, for the person who tried."""


@dataclass(frozen=True)
class Plan:
    """What to run: addresses to listen on, how many workers, what they are given, and how long they may drain."""

    addresses: Sequence[tuple[str, int]]
    workers: int
    snapshot: bytes
    drain_timeout: float
    schemes: Sequence[str] = ()
    """What a URL of each address begins with, for the log; `http` unless given."""
    command: Sequence[str] = (sys.executable, "-m", "portico.runtime.worker")


@dataclass
class Slot:
    """The place of one worker."""

    number: int
    sockets: list[socket.socket] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    ready_pipe: int = -1
    ready: bool = False
    started: float = 0.0
    crashes: int = 0
    """How many times in a row its worker died young."""
    start_at: float = 0.0
    """When to start the next worker, where none runs."""


class Supervisor:
    """Runs a plan until it is told to stop."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._slots = [Slot(number) for number in range(plan.workers)]
        self._addresses: list[tuple[str, int]] = []
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._stopping = False
        self._kill_at = float("inf")
        self._ever_ready = False
        self._announced = False
        self._failed = False

    def run(self) -> int:
        """Start everything, keep it running, and return the exit code once all has ended. Raises CannotStart."""
        snapshot = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as workers are started
        lifeline_out, lifeline_in = os.pipe()
        self._lifeline = lifeline_out
        try:
            snapshot.write(self._plan.snapshot)
            snapshot.flush()
            self._snapshot = snapshot
            self._bind_all()
            self._catch_signals()
            while self._step():
                pass
            return 1 if self._failed else 0
        finally:
            self._kill_all()
            for slot in self._slots:
                self._close_sockets(slot)
            for descriptor in (lifeline_out, lifeline_in):
                os.close(descriptor)
            snapshot.close()
            self._selector.close()

    # Sockets

    def _bind_all(self) -> None:
        for host, port in self._plan.addresses:
            self._addresses.append(_probe(host, port))
        for slot in self._slots:
            self._open_sockets(slot)

    def _open_sockets(self, slot: Slot) -> None:
        for host, port in self._addresses:
            slot.sockets.append(_listening(host, port))

    @staticmethod
    def _close_sockets(slot: Slot) -> None:
        for each in slot.sockets:
            each.close()
        slot.sockets.clear()

    # Signals

    def _catch_signals(self) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._wakeup = (reader, writer)
        signal.set_wakeup_fd(writer.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP, and means it
                signal.signal(number, lambda caught, _: self._signals.append(caught))
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it only has to wake the loop
        self._selector.register(reader, selectors.EVENT_READ)

    # The loop

    def _step(self) -> bool:
        """Do what is due, then wait for the next event; tell whether there is more to come."""
        now = time.monotonic()
        while self._signals:
            self._stop(self._signals.pop(0), now)
        for slot in self._slots:
            self._reap(slot, now)
            if slot.process is None and not self._stopping and now >= slot.start_at:
                self._try_to_start(slot, now)
        if self._stopping and all(slot.process is None for slot in self._slots):
            return False
        if now >= self._kill_at:
            logger.warning("workers are still busy after the deadline; ending them")
            self._kill_all()
        due = [self._kill_at, *(slot.start_at for slot in self._slots if slot.process is None and not self._stopping)]
        wait = min(due) - now
        for key, _ in self._selector.select(None if wait == float("inf") else max(0.0, wait)):
            if key.data is None:
                self._wakeup[0].recv(4096)
            else:
                self._hear(key.data)
        return True

    def _try_to_start(self, slot: Slot, now: float) -> None:
        """Start a worker; where the system refuses for now, the others serve on, and it is tried again later."""
        try:
            self._start(slot, now)
        except (OSError, CannotStart) as error:
            if not self._ever_ready:
                raise CannotStart(f"a worker cannot be started: {error}") from error
            slot.crashes += 1
            slot.start_at = now + _pause(slot.crashes + 1)
            self._close_sockets(slot)
            logger.error("worker %d cannot be started: %s", slot.number, error)  # noqa: TRY400 - a trace says no more

    def _start(self, slot: Slot, now: float) -> None:
        if not slot.sockets:
            self._open_sockets(slot)
        reader, writer = os.pipe()
        sockets = [each.fileno() for each in slot.sockets]
        snapshot = self._snapshot.fileno()
        arguments = [
            *self._plan.command,
            f"--sockets={','.join(map(str, sockets))}",
            f"--snapshot={snapshot}",
            f"--ready={writer}",
            f"--lifeline={self._lifeline}",
        ]
        # A worker inherits what is blocked: what a terminal sends is for the supervisor to act on, also while a worker
        # is starting.
        signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
        try:
            slot.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                arguments, stdin=subprocess.DEVNULL, pass_fds=(*sockets, snapshot, writer, self._lifeline)
            )
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINAL_SIGNALS)
        slot.ready_pipe = reader
        slot.ready = False
        slot.started = now
        self._selector.register(reader, selectors.EVENT_READ, slot)

    def _hear(self, slot: Slot) -> None:
        """A worker says that it is ready, or its end of the pipe was closed."""
        said = os.read(slot.ready_pipe, 1)
        self._selector.unregister(slot.ready_pipe)
        os.close(slot.ready_pipe)
        slot.ready_pipe = -1
        if said:
            slot.ready = True
            self._ever_ready = True
            if self._announced:
                logger.info("worker %d serves again", slot.number)
            elif all(each.ready for each in self._slots):
                self._announced = True
                logger.info("listening on %s with %d worker(s)", ", ".join(self._urls()), len(self._slots))

    def _urls(self) -> list[str]:
        schemes = [*self._plan.schemes, *["http"] * len(self._addresses)]
        return [
            f"{scheme}://{_shown(host)}:{port}" for scheme, (host, port) in zip(schemes, self._addresses, strict=False)
        ]

    def _reap(self, slot: Slot, now: float) -> None:
        """Notice where a worker has ended, and decide when its place is filled again."""
        process = slot.process
        if process is None or (code := process.poll()) is None:
            return
        slot.process = None
        if slot.ready_pipe >= 0:
            self._hear(slot)
        if self._stopping:
            return
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not slot.ready and not self._ever_ready:
            logger.error("a worker could not start (%s)", how)
            self._failed = True
            self._stop(signal.SIGTERM, now)
            return
        slot.crashes = slot.crashes + 1 if now - slot.started < STABLE_AFTER else 0
        pause = _pause(slot.crashes)
        slot.start_at = now + pause
        if pause:
            self._close_sockets(slot)
        logger.error("worker %d died (%s); the next starts %s", slot.number, how, f"in {pause:g} s" if pause else "now")

    def _stop(self, number: int, now: float) -> None:
        """Begin to drain; end at once where that was asked for before."""
        if self._stopping:
            if number == signal.SIGHUP:
                return  # it often comes along with another, and asks for no more than that
            logger.warning("second signal: ending at once")
            self._kill_all()
            return
        self._stopping = True
        self._kill_at = now + self._plan.drain_timeout + KILL_AFTER
        if not self._failed:
            logger.info("%s: draining; once more to end at once", signal.Signals(number).name)
        for slot in self._slots:
            self._close_sockets(slot)
            if slot.process is not None:
                slot.process.terminate()

    def _kill_all(self) -> None:
        self._kill_at = float("inf")
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is None:
                slot.process.kill()
                slot.process.wait()


def _pause(crashes: int) -> float:
    """Return the seconds to wait after so many crashes in a row."""
    return 0.0 if crashes < 2 else min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (crashes - 2))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host or "*"


def _probe(host: str, port: int) -> tuple[str, int]:
    """Return the address once it is certain that nobody listens there; port 0 becomes a free one.

    SO_REUSEPORT would let two gateways share a port, and the traffic, without a word.
    """
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(f"cannot listen on {_shown(host)}:{port}: {error.strerror}") from error
        return host, probe.getsockname()[1]


def _listening(host: str, port: int) -> socket.socket:
    each = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if each.family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        each.bind((host, port))
        each.listen(BACKLOG)
    except OSError as error:
        each.close()
        raise CannotStart(f"cannot listen on {_shown(host)}:{port}: {error.strerror}") from error
    return each
