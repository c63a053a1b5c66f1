"""The supervisor with workers that do as the tests need: what it gives them, and what it does when they fail."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from portico.runtime.protocol import Plan
from portico.state.board import WAITS, Board, Vital, shared_file
from portico.supervisor.child import Child
from portico.supervisor.handover import Handover
from portico.supervisor.supervisor import TIMING, Commands, Supervisor
from portico.supervisor.systemd import Notifier
from tests.harness.gateway import DEADLINE, children_of, is_alive, wait_for

STARTER = """
import logging, sys
from portico.runtime.protocol import Plan
from portico.state.board import shared_file
from portico.supervisor.child import Timing
from portico.supervisor.handover import Handover
from portico.supervisor.supervisor import Commands, Supervisor
from portico.supervisor.systemd import Notifier
script, mode, workers, first, longest, stable, watchdog = sys.argv[1:]
logging.basicConfig(level=logging.INFO, format="%(message)s")
timing = Timing(
    first_pause=float(first), longest_pause=float(longest), stable_after=float(stable), kill_after=0.1, tick=0.05,
    standstill=30.0, start_timeout=1.0, store_lock=0.5,
)
plan = Plan(
    file="a.yaml", revision=1, origin="start", loaded_at=0.0, listen=[["127.0.0.1", 0, "http"]], workers=int(workers),
    drain_timeout=0.1 if mode == "stubborn" else 20.0, watchdog=float(watchdog),
)
commands = Commands(worker=(sys.executable, script, mode), agent=())
handover = Handover(plan, shared_file("snapshot", b"the snapshot"))
sys.exit(Supervisor(handover, Notifier({}), commands=commands, timing=timing).run())
"""

WORKER = """
import os, select, signal, socket, sys, time
from portico.state.board import WAITS, Board, Vital
mode, *options = sys.argv[1:]
given = {name: value for name, value in (option[2:].split("=") for option in options)}
ready, lifeline = int(given["ready"]), int(given["lifeline"])
if mode == "fails":
    sys.exit("worker: no luck")
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
sockets = [socket.socket(fileno=int(pair.split(":")[1])) for pair in given["doors"].split(",")]
assert os.pread(int(given["snapshot"]), 100, 0) == b"the snapshot"
segment = Board(int(given["board"])).segment(1 + int(given["slot"]))
segment.begin(os.getpid(), time.monotonic_ns())
segment.counter("served").add(1)
if mode == "never":
    signal.pause()
os.write(ready, b"\\n")
os.close(ready)
if mode == "crashes":
    os._exit(7)
while True:
    readable, _, _ = select.select([*sockets, lifeline], [], [], 0.02)
    segment[Vital.BEAT] = time.monotonic_ns()
    if lifeline in readable:
        os._exit(0)
    if not readable:
        continue
    connection, _ = sockets[0].accept()
    command = connection.recv(100)
    if command == b"die":
        os._exit(9)
    connection.sendall(b"%d" % os.getpid())
    connection.close()
    if command in (b"hold", b"wait"):
        segment[Vital.STORE_HELD] = time.monotonic_ns() & ~WAITS | (WAITS if command == b"wait" else 0)
        os.kill(os.getpid(), signal.SIGSTOP)
    if command == b"loop":
        while True:
            pass
"""


class Run:
    """A supervisor in a process of its own."""

    def __init__(
        self,
        folder: Path,
        mode: str,
        workers: int,
        first: float,
        longest: float,
        stable: float,
        watchdog: float,
    ) -> None:
        script = folder / "worker.py"
        script.write_text(WORKER)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            command = [
                sys.executable,
                "-c",
                STARTER,
                script,
                mode,
                *map(str, (workers, first, longest, stable, watchdog)),
            ]
            self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self) -> str:
        return self._log.read_text()

    def says(self, text: str) -> None:
        wait_for(lambda: text in self.log() or self.popen.poll() is not None, text)
        assert text in self.log()

    def port(self) -> int:
        self.says("listening on")
        found = re.search(r"127\.0\.0\.1:(\d+)", self.log())
        assert found is not None
        return int(found[1])

    def ask(self, command: bytes = b"pid") -> bytes:
        with socket.create_connection(("127.0.0.1", self.port()), timeout=DEADLINE) as client:
            client.sendall(command)
            return client.recv(100)

    def is_refused(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port()), timeout=DEADLINE).close()
        except ConnectionRefusedError:
            return True
        return False

    def ends(self, code: int) -> str:
        assert self.popen.wait(DEADLINE) == code, self.log()
        assert "Traceback" not in self.log()
        return self.log()


@contextmanager
def supervisor(
    folder: Path,
    mode: str,
    *,
    workers: int = 1,
    first: float = 0.05,
    longest: float = 0.2,
    stable: float = 60.0,
    watchdog: float = 0.0,
) -> Iterator[Run]:
    run = Run(folder, mode, workers, first, longest, stable, watchdog)
    try:
        yield run
    finally:
        children = []
        with suppress(FileNotFoundError):
            children = children_of(run.popen.pid)
        run.popen.kill()
        run.popen.wait(DEADLINE)
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_and_ends_its_workers(tmp_path: Path, number: signal.Signals) -> None:
    with supervisor(tmp_path, "works", workers=2) as run:
        port = run.port()
        pids = children_of(run.popen.pid)
        assert len(pids) == 2
        assert int(run.ask()) in pids
        run.popen.send_signal(number)
        assert run.ends(0).splitlines() == [
            f"listening on http://127.0.0.1:{port} with 2 worker(s)",
            f"{number.name}: draining; once more to end at once",
        ]
        assert not any(map(is_alive, pids))


def test_a_worker_that_dies_is_replaced_at_once(tmp_path: Path) -> None:
    with supervisor(tmp_path, "works") as run:
        first = run.ask()
        assert run.ask(b"die") == b""
        assert run.ask() != first  # it waits in the queue of the same socket
        run.says("worker 0 died (exit code 9); the next starts now")
        run.popen.terminate()
        run.ends(0)


def test_a_worker_that_cannot_start_ends_it_all(tmp_path: Path) -> None:
    with supervisor(tmp_path, "fails", workers=2) as run:
        log = run.ends(1)
        assert "worker: no luck" in log
        assert "a worker could not start (exit code 1)" in log
        assert "listening" not in log


def test_a_crash_loop_backs_off(tmp_path: Path) -> None:
    with supervisor(tmp_path, "crashes") as run:
        wait_for(lambda: run.log().count("died") >= 6, "six crashes")
        run.popen.terminate()
        log = run.ends(0)
    pauses = re.findall(r"worker 0 died \(exit code 7\); the next starts (.*)", log)
    assert pauses[:6] == ["now", "in 0.05 s", "in 0.1 s", "in 0.2 s", "in 0.2 s", "in 0.2 s"]


def test_nobody_waits_in_the_queue_of_a_slot_that_backs_off(tmp_path: Path) -> None:
    with supervisor(tmp_path, "crashes", first=600, longest=600) as run:
        run.says("in 600 s")
        assert run.is_refused()
        run.popen.terminate()  # and its end does not wait for the pause
        run.ends(0)


def test_a_worker_that_lived_long_is_no_crash_loop(tmp_path: Path) -> None:
    with supervisor(tmp_path, "works", first=600, longest=600, stable=0.0) as run:
        for _ in range(4):
            assert run.ask(b"die") == b""
        assert run.ask().isdigit()
        assert run.log().count("the next starts now") == 4
        run.popen.terminate()
        run.ends(0)


def test_a_worker_that_does_not_drain_is_killed(tmp_path: Path) -> None:
    with supervisor(tmp_path, "stubborn") as run:
        (pid,) = wait_for(lambda: run.port() and children_of(run.popen.pid), "the worker")
        run.popen.terminate()
        assert "workers are still busy after the deadline; ending them" in run.ends(0)
        assert not is_alive(pid)


def test_the_lifeline_ends_with_the_supervisor(tmp_path: Path) -> None:
    with supervisor(tmp_path, "works", workers=2) as run:
        run.port()
        pids = children_of(run.popen.pid)
        run.popen.kill()
        run.popen.wait(DEADLINE)
        wait_for(lambda: not any(map(is_alive, pids)), "the workers to end")


class Dying:
    """A process that ends just after somebody has looked."""

    pid = 1

    def __init__(self) -> None:
        self.looks = iter([None, 7, 7, 7])

    def poll(self) -> int | None:
        return next(self.looks)


def test_a_worker_that_ends_between_two_looks_is_heard_before_it_is_let_go() -> None:
    plan = Plan("a.yaml", 1, "start", 0.0, [["127.0.0.1", 0, "http"]], 1, 0.1, 0.0)
    made = Supervisor(Handover(plan, shared_file("snapshot", b"")), Notifier({}), commands=Commands(agent=()))
    (child,) = made.workers
    dying: Any = Dying()
    reader, writer = os.pipe()
    try:
        child.process, child.ready_pipe, child.leaving = dying, reader, True
        made.watch(reader, lambda: None)
        os.close(writer)
        made._tend_worker(0, child, 0.0)
        assert child.process is dying
        made._tend_worker(0, child, 0.0)
        assert (child.process, child.ready_pipe) == (None, -1)
        assert not made.selector.get_map()
    finally:
        made.selector.close()
        made.board.close()
        os.close(made._board_file)
        os.close(made.snapshot)


def test_a_start_without_descriptors_to_spare_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    descriptor = Board.create(1)
    board = Board(descriptor)
    before = set(Path("/proc/self/fd").iterdir())
    monkeypatch.setattr(os, "pipe", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        Child("worker 0", board.segment(1), TIMING).start(["true"], (), 0.0)
    assert set(Path("/proc/self/fd").iterdir()) <= before
    board.close()
    os.close(descriptor)


@pytest.mark.parametrize("command", [b"hold", b"wait"])
def test_a_worker_that_stands_still_with_the_lock_of_the_store_is_ended(tmp_path: Path, command: bytes) -> None:
    with supervisor(tmp_path, "works") as run:
        first = run.ask(command)
        run.says("stands still with the lock of the store, which others wait for, for ")
        run.says("worker 0 died (signal 9); the next starts now")
        assert run.ask() != first
        run.popen.terminate()
        run.ends(0)


def test_only_who_stands_still_with_the_lock_of_the_store_is_one_to_end() -> None:
    descriptor = Board.create(1)
    board = Board(descriptor)
    segment = board.segment(1)
    child = Child("worker 0", segment, TIMING)
    second = 1_000_000_000
    segment[Vital.BEAT] = 1
    for vital in (Vital.STORE_HELD, Vital.STORE_WRITING, Vital.STORE_LASTING):
        segment[vital] = 5 * second
        child.look(10.0)
        assert child.holds_store(100 * second) == 0.0  # a slow disk: its loop turns
        for number in range(5):
            child.look(10.0 + number / 2)
        assert child.standstill == 2.0
        assert child.holds_store(8 * second) == 3.0
        segment[vital] = 0
        assert child.holds_store(8 * second) == 0.0
        segment[vital] = 5 * second | WAITS
        assert child.holds_store(8 * second) == 0.0  # it waits, as do all who want the lock
        segment[vital] = 0
        segment[Vital.BEAT] += 1
    board.close()
    os.close(descriptor)
