"""One place for a process: the agent's, or a worker's. Who runs there, how it is, and when the next one may start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from portico.state.board import WAITS, Segment, Vital

TERMINAL_SIGNALS: Final = (signal.SIGINT, signal.SIGHUP)
"""What a terminal sends to every process of its group."""

_STORE_LOCKS: Final = (Vital.STORE_HELD, Vital.STORE_WRITING, Vital.STORE_LASTING)

STRIDE: Final = 1.0
"""The most seconds that count between two looks: a machine that was stopped as a whole had no sign of life either."""


@dataclass(frozen=True)
class Timing:
    """How long the supervisor waits for what, in seconds."""

    first_pause: float = 0.5
    longest_pause: float = 30.0
    """Before the next start in a crash loop; each crash doubles the pause."""
    stable_after: float = 10.0
    """The age from which the death of a process is no longer taken for part of a crash loop."""
    start_timeout: float = 120.0
    """Until a process has to be ready."""
    tick: float = 0.5
    """Between two looks at the signs of life."""
    standstill: float = 2.0
    """Without a sign of life until it is told."""
    store_lock: float = 1.0
    """With a lock of the store, and without a sign of life, until a worker is ended; all others wait for the lock."""
    agent_timeout: float = 15.0
    """Without a sign of life until the agent is replaced; of workers the file says it."""
    kill_after: float = 5.0
    """Beyond the drain's deadline until a worker that is still there is killed."""


class Child:
    """A place for a process."""

    def __init__(self, name: str, segment: Segment, timing: Timing) -> None:
        self.name = name
        self._timing = timing
        self.segment = segment
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        """Our end of the channel to it."""
        self.ready_pipe = -1
        self.ready = False
        self.has_served = False
        """Whether a process before this one was ready."""
        self.started = 0.0
        self.crashes = 0
        """How many times in a row it died young."""
        self.start_at = 0.0
        """When to start the next one, where none runs."""
        self.leaving = False
        """Whether it was told to end, and no other is to take its place."""
        self.standstill = 0.0
        """Seconds for which it has given no sign of life."""
        self.told = False
        self._beat = 0
        self._looked = 0.0

    @property
    def ended(self) -> bool:
        """Whether there was a process that has ended, and was not reaped yet."""
        return self.process is not None and self.process.poll() is not None

    @property
    def pid(self) -> int:
        """Its process's id; 0 where none runs."""
        return 0 if self.process is None else self.process.pid

    def start(self, command: Sequence[str], passed: Sequence[int], now: float) -> None:
        """Start a process, with `passed` descriptors and two more that are its own. Raises OSError."""
        ours, its = socket.socketpair()
        try:
            reader, writer = os.pipe()
        except OSError:
            ours.close()
            its.close()
            raise
        # A child inherits what is blocked: what a terminal sends is for the supervisor to act on, also while the child
        # is starting; and a child that cannot open its logs anew yet is not to be ended by being told to.
        blocked = (*TERMINAL_SIGNALS, signal.SIGUSR1)
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*command, f"--control={its.fileno()}", f"--ready={writer}"],
                stdin=subprocess.DEVNULL,
                pass_fds=(*passed, its.fileno(), writer),
            )
        except OSError:
            os.close(reader)
            ours.close()
            raise
        finally:
            os.close(writer)
            its.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        ours.setblocking(False)
        os.set_blocking(reader, False)
        self.control = ours
        self.ready_pipe = reader
        self.ready = False
        self.started = self._looked = now
        self.standstill = 0.0
        self.told = False
        self._beat = 0

    def hear(self) -> bool:
        """Read what it says when it is ready; False where its end of the pipe was closed without a word."""
        said = b""
        with contextlib.suppress(BlockingIOError):  # it has ended, and something that it has started holds the pipe
            said = os.read(self.ready_pipe, 1)
        os.close(self.ready_pipe)
        self.ready_pipe = -1
        self.ready = bool(said)
        return self.ready

    def reap(self, now: float) -> str:
        """Return how its process has ended, and make the place free; "" while it runs, or where none does."""
        process = self.process
        if process is None or (code := process.poll()) is None:
            return ""
        self.let_go()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.crashes = self.crashes + 1 if now - self.started < self._timing.stable_after else 0
        self.start_at = now + self.pause()
        return how

    def let_go(self) -> None:
        """Close what leads to its process, which has ended."""
        self.process = None
        self.has_served |= self.ready
        self.ready = False
        if self.control is not None:
            self.control.close()
            self.control = None
        if self.ready_pipe >= 0:
            os.close(self.ready_pipe)
            self.ready_pipe = -1

    def pause(self) -> float:
        """Return the seconds to wait before the next start, after so many crashes in a row."""
        timing = self._timing
        return 0.0 if self.crashes < 2 else min(timing.longest_pause, timing.first_pause * 2 ** (self.crashes - 2))

    def look(self, now: float) -> float:
        """Return for how many seconds it has given no sign of life."""
        beat = self.segment[Vital.BEAT]
        if beat != self._beat:
            self._beat = beat
            self.standstill = 0.0
        else:
            self.standstill += min(STRIDE, now - self._looked)
        self._looked = now
        return self.standstill

    def holds_store(self, now_ns: int) -> float:
        """Return for how many seconds it has had a lock of the store that others wait for; 0 where it has none.

        One that gives signs of life is at work, such as on a disk that is slow, and has none that is to be taken away.
        """
        if self.standstill < self._timing.store_lock:
            return 0.0
        since = [value for vital in _STORE_LOCKS if (value := self.segment[vital])]
        if since and not self.is_stopped:
            since = [value for value in since if not value & WAITS]
        return (now_ns - min(since)) / 1e9 if since else 0.0

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped, as by SIGSTOP; false where the system does not say."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return False
        return state in ("T", "t")

    def reopen_logs(self) -> None:
        """Have it open its logs anew; one that is starting will, once it can."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGUSR1)

    def terminate(self) -> None:
        """Tell it to end."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()

    def kill(self) -> None:
        """End it by force."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
