"""The thread that writes lines, so that nobody else waits for whoever reads them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol


class NotWritten(Exception):
    """Some lines could not be written."""

    def __init__(self, lines: int, why: str) -> None:
        super().__init__(why)
        self.lines = lines


class Piece(NamedTuple):
    """What is written at once, and how many lines that is."""

    data: bytes
    lines: int


class Sink(Protocol):
    """Where lines go. Its methods are called by one thread, and may wait."""

    def open(self) -> None:
        """Make ready to write; raise OSError where that cannot be, which `write` will tell."""
        ...

    def write(self, piece: Piece) -> None:
        """Write a piece; raise NotWritten where some of it was not."""
        ...

    def reopen(self) -> None:
        """Begin anew with a file of the same name, where there can be one."""
        ...

    def close(self) -> None:
        """Write nothing more."""
        ...


class Writer:
    """Writes pieces in their order, by a thread of its own."""

    def __init__(self, sink: Sink, most: int, lost: Callable[[int, str], None]) -> None:
        """Let at most `most` bytes wait. `lost` is called with how many lines were lost, and why: by the thread."""
        self._sink = sink
        self._most = most
        self._lost = lost
        self._waiting: deque[Piece] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._reopens = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def submit(self, pieces: list[Piece]) -> int:
        """Have pieces written; return how many lines there is no room for."""
        refused = 0
        with self._changed:
            for piece in pieces:
                if self._bytes + len(piece.data) > self._most or self._closed:
                    refused += piece.lines
                else:
                    self._bytes += len(piece.data)
                    self._waiting.append(piece)
            self._changed.notify()
        return refused

    def reopen(self) -> None:
        """Have a file opened anew, after what is being written."""
        with self._changed:
            self._reopens = True
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, and nothing after it; who wants to see that done calls `finish`."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def finish(self, seconds: float) -> int:
        """Wait so long for what is still to be written, after `close`; return how many lines never will be."""
        self._thread.join(seconds)
        if not self._thread.is_alive():
            return 0
        with self._changed:
            lines = sum(piece.lines for piece in self._waiting)
            self._waiting.clear()
        return lines

    @property
    def over(self) -> bool:
        """Whether its thread has ended."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with contextlib.suppress(OSError):
                self._sink.open()
            while self._step():
                pass
        finally:
            self._sink.close()

    def _step(self) -> bool:
        """Do the next thing, after waiting for it; return False at the end. What is written still counts as waiting."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._reopens or self._closed)
            reopens, self._reopens = self._reopens, False
            piece = self._waiting[0] if self._waiting and not reopens else None
            if piece is None and not reopens:
                return False
        try:
            if piece is None:
                self._sink.reopen()
            else:
                self._sink.write(piece)
        except NotWritten as error:
            self._lost(error.lines, str(error))
        if piece is not None:
            with self._changed:
                self._bytes -= len(piece.data)
                if self._waiting:  # unless nobody waits for it any more
                    self._waiting.popleft()
        return True
