"""Child processes of a command that stays in the foreground: starting them, waiting, and ending them all."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

POLL = 0.05


class Interrupted(Exception):
    """The user wants the command to end: SIGINT, SIGTERM, or the terminal is gone."""


class Signals:
    """While entered, signals no longer interrupt at any line: they are counted, and they end `pause`.

    The end of a child ends `pause` too, by SIGCHLD.
    """

    def __init__(self) -> None:
        self.stops = 0

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._old_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        heard = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            heard.remove(signal.SIGHUP)  # nohup
        self._old = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_descriptor)
        self._reader.close()
        self._writer.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stops += number != signal.SIGCHLD

    def pause(self, seconds: float | None = None) -> None:
        """Wait for a signal, but no longer than `seconds`."""
        select.select([self._reader], [], [], seconds)
        with suppress(BlockingIOError):
            self._reader.recv(4096)

    def check(self) -> None:
        """Raise `Interrupted` if a signal asked for the end."""
        if self.stops:
            raise Interrupted

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds, and return whether it did so in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                return False
            self.pause(POLL)
        return True


class Child:
    """A child process with a name, in a session of its own, so that Ctrl-C reaches it only by way of its parent.

    Its standard input ends when the parent does, however that dies. With a `log`, that has its errors and what
    else it writes is dropped; without one, both go to the terminal.
    """

    def __init__(self, name: str, command: Sequence[str], *, log: Path | None = None) -> None:
        self.name = name
        self._log = log
        with nullcontext() if log is None else log.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - the command is our own
                command,
                stdin=subprocess.PIPE,
                stdout=None if log is None else subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def alive(self) -> bool:
        """Return whether the process runs."""
        return self._process.poll() is None

    def epitaph(self) -> str:
        """Return how the process ended, and what it wrote last."""
        code = self._process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        lines = self._log.read_text(errors="replace").split("\n") if self._log else []
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f"{self.name} (pid {self.pid}) ended {how}" + (f": {last}" if last else "")

    def terminate(self) -> None:
        """Ask the process to end."""
        self._process.terminate()

    def bury(self) -> None:
        """Make sure that nothing is left: of a process that did not end well, its own children neither."""
        if self._process.poll() != 0:
            with suppress(ProcessLookupError, PermissionError):  # macOS forbids to signal a group of the dead
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def end(children: Sequence[Child], signals: Signals, seconds: float) -> None:
    """End all children: ask them first, and insist after `seconds`, or when the user asks once more."""
    deadline = time.monotonic() + seconds
    patience = signals.stops
    for child in children:
        child.terminate()
    while any(child.alive() for child in children) and signals.stops == patience and time.monotonic() < deadline:
        signals.pause(POLL)
    for child in children:
        child.bury()
