"""Lines as messages of a syslog."""

from __future__ import annotations

import contextlib
import socket

from portico.exporters.access_log.files import LONGEST_LINE
from portico.exporters.access_log.writer import NotWritten, Piece
from portico.net.syslog import LARGEST_DATAGRAM, Syslog


class SyslogSink:
    """Sends each line as a message."""

    def __init__(self, syslog: Syslog) -> None:
        self._syslog = syslog
        self.longest = LONGEST_LINE if syslog.framed else LARGEST_DATAGRAM
        """Bytes of the longest message."""

    def open(self) -> None:
        """Do nothing: the first message makes the connection."""

    def write(self, piece: Piece) -> None:
        """Send a message; over a connection that the other side has closed meanwhile once more."""
        try:
            try:
                self._syslog.send(piece.data)
            except (BrokenPipeError, ConnectionResetError, ConnectionRefusedError):
                self._syslog.send(piece.data)
        except OSError as error:
            why = "it takes nothing" if isinstance(error, TimeoutError) else error.strerror or error
            raise NotWritten(piece.lines, f"{self._syslog.address}: {why}") from None

    def reopen(self) -> None:
        """Do nothing: there is no file."""

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(socket.error):
            self._syslog.close()
