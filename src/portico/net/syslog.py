"""Messages to a syslog (RFC 5424), by a thread that may wait for it."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from typing import Final

TIMEOUT: Final = 5.0
"""Seconds that a message may take to be sent."""
PAUSE: Final = 1.0
"""Seconds after which another connection is tried, where the last one failed."""
LARGEST_DATAGRAM: Final = 8 * 1024
"""Bytes of the largest message that is sent as a datagram: what rsyslog takes unless it is told otherwise."""

_NOT_IN_NAME: Final = re.compile(r"[^!-~]")


class Syslog:
    """A syslog at `unix:PATH`, `udp://host:port` or `tcp://host:port`.

    A message over TCP begins with its length (RFC 6587 section 3.4.1). A connection that breaks loses what the other
    side has not read: no syslog tells what it has taken.
    """

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self.framed = address.startswith("tcp:")
        """Whether messages go over a stream."""
        self._clock = clock
        self._socket: socket.socket | None = None
        self._not_before = 0.0

    def send(self, message: bytes) -> None:
        """Send a message; raises OSError where that fails, at once if it has just failed."""
        if self._socket is None:
            if self._clock() < self._not_before:
                raise ConnectionError("the last connection has failed")
            self._not_before = self._clock() + PAUSE
            self._socket = self._connected()
        try:
            self._socket.sendall(b"%d %s" % (len(message), message) if self.framed else message)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def _connected(self) -> socket.socket:
        if self.address.startswith("unix:"):
            return _unix(self.address.removeprefix("unix:"))
        host, _, port = self.address.partition("://")[2].rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if self.framed:
            return socket.create_connection((host, int(port)), TIMEOUT)
        family, kind, protocol, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(TIMEOUT)
            sock.connect(where)
        except OSError:
            sock.close()
            raise
        return sock


def _unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.settimeout(TIMEOUT)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def header(priority: int, app_name: str, message_id: str) -> str:
    """Return what a message begins with, with a place for its time: `header(…) % timestamp` (RFC 5424 section 6)."""
    host = _NOT_IN_NAME.sub("", socket.gethostname())[:255] or "-"
    return f"<{priority}>1 %s {host} {app_name} {os.getpid()} {message_id} - "
