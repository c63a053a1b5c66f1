"""Processes that the bench starts: pinned, counted with their children, and ended by their ids."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench import BenchError

STOP_SECONDS = 5.0


class Task(NamedTuple):
    """One process; its start keeps it apart from a later one with the same id."""

    pid: int
    started: int


Times = Mapping[Task, int]
"""CPU time in nanoseconds, user and system, of each process of a tree."""


class Process:
    """A program on one core. It leads a session, so that no child of its can get lost."""

    def __init__(self, name: str, command: list[str], core: int, log: Path) -> None:
        self.name = name
        self.core = core
        self.log = log
        # Both wrappers exec: the id stays. Should the bench be killed outright, the kernel ends what it started.
        wrapped = ["setpriv", "--pdeathsig", "TERM", "--", "taskset", "-c", str(core), *command]
        with log.open("wb") as out:
            self._popen = subprocess.Popen(
                wrapped, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def ended(self, seconds: float) -> int | None:
        """Wait so long for its end; its exit status, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(seconds)
        return None

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-12:]
        return "\n".join(f"    {line}" for line in lines)

    def tasks(self) -> list[Task]:
        return tree(self._popen.pid)

    def times(self) -> Times:
        found: dict[Task, int] = {}
        for task in self.tasks():
            with contextlib.suppress(OSError):
                found[task] = cpu_ns(task.pid)
        return found

    def require_sound(self) -> None:
        """Raise unless it still runs, and all of it on its core: orphans of a dead supervisor may go on answering."""
        status = self.ended(0)
        if status is not None:
            raise BenchError(f"{self.name} ended with status {status} during the run:\n{self.tail()}")
        for task in self.tasks():
            with contextlib.suppress(ProcessLookupError):
                if os.sched_getaffinity(task.pid) != {self.core}:
                    raise BenchError(f"process {task.pid} of {self.name} left core {self.core}")

    def stop(self) -> None:
        known = self.tasks()
        self._popen.terminate()
        self.ended(STOP_SECONDS)
        for task in {*known, *self.tasks()}:
            _kill(task)
        self.ended(STOP_SECONDS)


def _kill(task: Task) -> None:
    """End one process if it is still that one, and wait until it is gone: the bench need not be its parent."""
    try:
        handle = os.pidfd_open(task.pid)
    except ProcessLookupError:
        return
    try:
        if task in _all_tasks():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], STOP_SECONDS)
    finally:
        os.close(handle)


def cpu_ns(pid: int) -> int:
    """User and system time of a process, all its threads, those that ended included.

    This is the process's CPU clock as clock_getcpuclockid(3) names it: the scheduler's own count in nanoseconds, the
    running slice included, where utime and stime in /proc are cut to 10 ms and schedstat forgets ended threads.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def used(before: Times, after: Times, name: str) -> int:
    """CPU time between two looks; a process that came in between counts from its birth."""
    gone = [task.pid for task in before if task not in after]
    if gone:
        raise BenchError(f"process {gone[0]} of {name} ended during a round, and its CPU time with it")
    return sum(value - before.get(task, 0) for task, value in after.items())


def tree(root: int) -> list[Task]:
    """A process, its descendants, and whatever else is in its session (orphans of its children)."""
    tasks = _all_tasks()
    members = {task.pid for task, (_, session) in tasks.items() if task.pid == root or session == root}
    grown = True
    while grown:
        children = {task.pid for task, (parent, _) in tasks.items() if parent in members} - members
        members |= children
        grown = bool(children)
    return [task for task in tasks if task.pid in members]


def _all_tasks() -> dict[Task, tuple[int, int]]:
    """Every live process of the machine with its parent and its session."""
    found: dict[Task, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:  # it ended since the directory was read
            continue
        # proc(5): the name stands in parentheses and may hold anything; state, ppid, pgrp and session follow it.
        fields = stat.rpartition(")")[2].split()
        if fields[0] not in "ZX":
            found[Task(int(entry.name), int(fields[19]))] = (int(fields[1]), int(fields[3]))
    return found
