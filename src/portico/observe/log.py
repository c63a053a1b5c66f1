"""The log of a process, which holds up nobody: neither a reader that has stopped nor a stranger who causes lines."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

MOST_WAITING: Final = 2**20
"""Bytes that may wait for a reader; what would be more is lost, and the log says how much when it goes on."""
AT_ONCE: Final = select.PIPE_BUF
"""A line of so many bytes is written whole or not at all, where it must not wait."""
LAST_WAIT: Final = 1.0
"""Seconds that the end of a process waits for what is still to be written."""
A_SECOND: Final = 100
"""Lines a second that strangers can cause, of one logger; the next line says how many were left out."""

SPOKEN: Final = "PORTICO_LOG"
"""The variable of the environment by which a process tells those that it starts how to log: format and level."""

LEVELS: Final = ("debug", "info", "warning", "error")
"""The least that is logged."""

_OWN: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))
"""What every record has."""


class LogHandler(logging.Handler):
    """Writes lines to a descriptor.

    A line is written at once where that has to wait for nobody. Otherwise a thread writes it, and those that come after
    it, as fast as they are read. Whoever logs never waits.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._journal = (
            socket.socket(fileno=os.dup(descriptor)) if stat.S_ISSOCK(os.fstat(descriptor).st_mode) else None
        )
        self._write = _writing_to(descriptor) if self._journal is None else _sending_to(self._journal)
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        self._changed = threading.Condition()  # which its own thread may take again: garbage that is freed may log
        self._writer: threading.Thread | None = None
        self._closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or have it written."""
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        except Exception:  # noqa: BLE001 - as every handler: whoever logs is not to fail by it
            self.handleError(record)
            return
        with self._changed:
            if not self._waiting:
                line = line[self._write(line) :]
            if line:
                self._keep(line)

    def flush(self) -> None:
        """Wait for what is still to be written, but not for long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, LAST_WAIT)

    def close(self) -> None:
        """Write what can be written."""
        self.flush()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._journal is not None:
            self._journal.close()
        super().close()

    def _keep(self, line: bytes) -> None:
        if self._bytes + len(line) > MOST_WAITING:
            self._lost += 1
            return
        self._waiting.append(line)
        self._bytes += len(line)
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_on, name="log", daemon=True)
            self._writer.start()
        self._changed.notify_all()

    def _write_on(self) -> None:
        """Write what waits, until this is closed; the line that is being written stands in the queue meanwhile."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                line = self._waiting[0]
            try:
                line = line[os.write(self._descriptor, line) :]
            except OSError:
                line = b""
            with self._changed:
                self._bytes -= len(self._waiting[0]) - len(line)
                if line:
                    self._waiting[0] = line
                    continue
                self._waiting.popleft()
                if not self._waiting and self._lost:
                    lost, self._lost = self._lost, 0
                    self._keep(b"%d lines of the log were lost: nobody has read them in time\n" % lost)
                self._changed.notify_all()


def _writing_to(descriptor: int) -> Callable[[bytes], int]:
    """Return what writes to a descriptor as much of a line as needs no waiting, and returns how much that was."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return lambda line: _tried(lambda: os.write(descriptor, line), len(line))
    ready = select.poll()
    ready.register(descriptor, select.POLLOUT)
    no_wait = getattr(os, "RWF_NOWAIT", None) if stat.S_ISFIFO(mode) and hasattr(os, "pwritev") else None

    def write(line: bytes) -> int:
        if len(line) > AT_ONCE or not ready.poll(0):
            return 0
        if no_wait is not None:  # others write to the same pipe, and may have filled it this very moment
            with contextlib.suppress(OSError):
                return os.pwritev(descriptor, [line], -1, no_wait)
        return os.write(descriptor, line) if ready.poll(0) else 0

    return lambda line: _tried(lambda: write(line), len(line))


def _sending_to(journal: socket.socket) -> Callable[[bytes], int]:
    """Return the same for a socket, which is what systemd gives."""
    return lambda line: _tried(lambda: journal.send(line, socket.MSG_DONTWAIT), len(line))


def _tried(write: Callable[[], int], whole: int) -> int:
    """Return how much was written; all of it counts as written where there is nowhere to write it."""
    try:
        return write()
    except BlockingIOError:
        return 0
    except OSError:
        return whole


class Sparing(logging.Filter):
    """Leaves lines out where there are too many a second; the next one that is written says how many."""

    def __init__(self, most: int = A_SECOND, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._clock = clock
        self._since = clock()
        self._written = 0
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be written."""
        now = self._clock()
        if now - self._since >= 1.0:
            self._since, self._written = now, 0
        if self._written >= self._most:
            self._left_out += 1
            return False
        self._written += 1
        if self._left_out:
            record.msg = f"{record.getMessage()} ({self._left_out} more before it were left out)"
            record.args = None
            self._left_out = 0
        return True


class JsonFormatter(logging.Formatter):
    """An object in each line, all of it ASCII: nothing that is told can make a line of its own."""

    def __init__(self, process: str) -> None:
        """`process` is the role of this one."""
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; what was given to it as `extra` has fields of its own."""
        second, ms = divmod(int(record.created * 1000), 1000)
        told: dict[str, object] = {
            "timestamp": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{ms:03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info is not None and record.exc_info[0] is not None:
            told["exception"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            if name not in _OWN and name not in told:
                told[name] = value if isinstance(value, str | int | float | bool | None) else repr(value)
        return json.dumps(told)


class ProcessLog:
    """The log of this process, on its standard error."""

    def __init__(self, process: str, text: str) -> None:
        """Begin it as whoever has started this process says; `text` is the form of a line that is not JSON."""
        self._process = process
        self._text = text
        self._handler = LogHandler(sys.stderr.fileno())
        logging.getLogger().addHandler(self._handler)
        for name in ("portico.security", "portico.consumers"):
            logging.getLogger(name).addFilter(Sparing())
        form, _, level = os.environ.get(SPOKEN, "").partition(":")
        self.speak("json" if form == "json" else "text", level if level in LEVELS else "info")

    def speak(self, form: str, level: str) -> None:
        """Log in this format from now on, and from this level on."""
        self._handler.setFormatter(JsonFormatter(self._process) if form == "json" else logging.Formatter(self._text))
        logging.getLogger().setLevel(level.upper())

    def speak_and_pass_on(self, form: str, level: str) -> None:
        """Do the same, and have all processes that are started from now on do it."""
        self.speak(form, level)
        os.environ[SPOKEN] = f"{form}:{level}"
