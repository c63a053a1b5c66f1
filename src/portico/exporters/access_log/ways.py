"""Ways for lines to take: how they are packed, and to whom they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from portico.exporters.access_log.facts import iso_second
from portico.exporters.access_log.files import DescriptorSink
from portico.exporters.access_log.syslogs import SyslogSink
from portico.exporters.access_log.writer import Piece, Writer

LAST_WAIT: Final = 2.0
"""Seconds that the end of a worker waits for what is still to be written."""


class Way(Protocol):
    """A way for lines to take."""

    @property
    def longest(self) -> int:
        """Bytes of the longest line."""
        ...

    def send(self, lines: list[str]) -> int:
        """Take lines; return how many there is no room for."""
        ...

    @property
    def over(self) -> bool:
        """Whether all is written, after `close`."""
        ...

    def reopen(self) -> None:
        """Begin anew with a file of the same name."""
        ...

    def close(self) -> None:
        """Take no more lines; those that were taken are still sent."""
        ...

    def finish(self, seconds: float) -> int:
        """Wait so long for those, after `close`; return how many were not sent."""
        ...


class _ByThread:
    """A way on which a thread may have to wait."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @property
    def over(self) -> bool:
        """Whether all is written, after `close`."""
        return self._writer.over

    def reopen(self) -> None:
        """Begin anew with a file of the same name."""
        self._writer.reopen()

    def close(self) -> None:
        """Take no more lines."""
        self._writer.close()

    def finish(self, seconds: float) -> int:
        """Wait for those that were taken."""
        return self._writer.finish(seconds)


class FileWay(_ByThread):
    """To a file, or standard output: as many lines at once as may be."""

    def __init__(self, sink: DescriptorSink, most: int, lost: Callable[[int, str], None]) -> None:
        super().__init__(Writer(sink, most, lost))
        self._largest = sink.largest
        self.longest = sink.longest

    def send(self, lines: list[str]) -> int:
        """Take lines."""
        whole = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
        if len(whole) <= self._largest:
            return self._writer.submit([Piece(whole, len(lines))])
        pieces: list[Piece] = []
        data, count = bytearray(), 0
        for line in whole.splitlines(keepends=True):
            if data and len(data) + len(line) > self._largest:
                pieces.append(Piece(bytes(data), count))
                data, count = bytearray(), 0
            data += line
            count += 1
        pieces.append(Piece(bytes(data), count))
        return self._writer.submit(pieces)


class SyslogWay(_ByThread):
    """To a syslog: each line as a message."""

    def __init__(
        self, sink: SyslogSink, most: int, lost: Callable[[int, str], None], head: str, wall: Callable[[], float]
    ) -> None:
        """`head` is what messages begin with, with a place for the time."""
        super().__init__(Writer(sink, most, lost))
        self._head = head
        self._wall = wall
        self.longest = sink.longest - len(head) - len("2026-01-01T00:00:00.000Z")

    def send(self, lines: list[str]) -> int:
        """Take lines."""
        second, ms = divmod(int(self._wall() * 1000), 1000)
        head = self._head % f"{iso_second(second)}.{ms:03}Z"
        return self._writer.submit([Piece(f"{head}{line}".encode("utf-8", "backslashreplace"), 1) for line in lines])
