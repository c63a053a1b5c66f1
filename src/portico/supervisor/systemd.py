"""What systemd asks of a service: sd_listen_fds(3), and sd_notify(3) over the socket that it names."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

FIRST_DESCRIPTOR: Final = 3
"""SD_LISTEN_FDS_START."""


def activated(environment: MutableMapping[str, str]) -> range:
    """Return the descriptors that were passed to this process; their variables are taken out of `environment`."""
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    mine = pid == str(os.getpid()) and count.isdecimal()
    return range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)) if mine else range(0)


class Notifier:
    """Tells the service manager how things are, where there is one that asks."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        path = environment.pop("NOTIFY_SOCKET", "")
        pause = environment.pop("WATCHDOG_USEC", "")
        owner = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        self.path = path
        self.watchdog = int(pause) / 1e6 if pause.isdecimal() and owner == str(os.getpid()) else 0.0
        """Seconds within which it wants to hear that we are alive; 0 where it does not."""
        self._next = 0.0

    def tell(self, *lines: str) -> None:
        """Send `NAME=value` lines; what the manager does not take is lost."""
        if not self.path:
            return
        address = "\0" + self.path[1:] if self.path.startswith("@") else self.path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), address)

    def reloading(self) -> None:
        """Say that a reload has begun; `tell("READY=1")` ends it."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def alive(self, now: float) -> None:
        """Say that we are alive, twice as often as it wants to hear it."""
        if self.watchdog and now >= self._next:
            self._next = now + self.watchdog / 2
            self.tell("WATCHDOG=1")

    def environment(self) -> dict[str, str]:
        """Return the variables for the program that takes our place."""
        said = {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": str(int(self.watchdog * 1e6)) if self.watchdog else ""}
        return {name: value for name, value in said.items() if value}
