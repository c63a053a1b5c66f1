"""Files, pipes, and whatever standard output is."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import stat
from typing import Final

from portico.exporters.access_log.writer import NotWritten, Piece

logger = logging.getLogger("portico.access_log")

LARGEST: Final = 256 * 1024
"""Bytes that are written to a file at once."""
LONGEST_LINE: Final = 64 * 1024
MODE: Final = 0o640
"""Who may read a new file: a line may tell of a person."""
PATIENCE: Final = 1000
"""Milliseconds between two looks at a descriptor that does not wait by itself."""


class DescriptorSink:
    """Adds lines to a file that is opened by its name, or to a descriptor that was given.

    Several processes may add to the same file: a piece is written by one call, which adds it as a whole. To a pipe only
    what is not larger than PIPE_BUF is written so (POSIX, write).
    """

    def __init__(self, path: str | None, given: int = 1) -> None:
        """Without a path the lines go to a descriptor, which stays the caller's."""
        self._path = path
        self._given = given
        self._descriptor = -1
        self._broken = False
        self._why = ""
        in_pieces = _may_be_mixed(path, given)
        self.largest = select.PIPE_BUF if in_pieces else LARGEST
        """Bytes of the largest piece."""
        self.longest = select.PIPE_BUF if in_pieces else LONGEST_LINE
        """Bytes of the longest line, its end included."""

    def open(self) -> None:
        """Open it, where that was not done yet; this may wait for who reads a pipe."""
        if self._descriptor < 0:
            self._descriptor = os.dup(self._given) if self._path is None else _opened(self._path)

    def write(self, piece: Piece) -> None:
        """Write a piece."""
        data = b"\n" + piece.data if self._broken else piece.data  # the line before it has no end
        at = 0
        try:
            self.open()
            while at < len(data):
                at += self._write(data[at:] if at else data)
        except OSError as error:
            lines = piece.lines - data[:at].lstrip(b"\n").count(b"\n")
            raise NotWritten(lines, f"{self._name}: {error.strerror or error}") from None
        finally:
            if at:
                self._broken = not data.endswith(b"\n", 0, at)

    def reopen(self) -> None:
        """Open the file of that name, which is another one where this one was moved away."""
        if self._path is None:
            return
        try:
            fresh = _opened(self._path)
        except OSError as error:
            logger.error("%s cannot be opened anew: %s", self._path, error.strerror or error)  # noqa: TRY400
            return
        self.close()
        self._descriptor = fresh
        self._broken = False

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    @property
    def _name(self) -> str:
        return "standard output" if self._path is None else self._path

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # somebody who has the same descriptor has made it so
            ready = select.poll()
            ready.register(self._descriptor, select.POLLOUT)
            ready.poll(PATIENCE)
            return 0


def _opened(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    return os.open(path, flags, MODE)


def _may_be_mixed(path: str | None, given: int) -> bool:
    """Return whether large pieces of several processes may be mixed where this leads."""
    try:
        mode = os.fstat(given).st_mode if path is None else os.stat(path).st_mode  # noqa: PTH116
    except OSError as error:
        return error.errno != errno.ENOENT
    return not stat.S_ISREG(mode)
