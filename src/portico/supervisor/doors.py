"""The addresses that clients connect to: a number for each, and a SO_REUSEPORT socket for each worker.

A worker that takes the place of a dead one inherits the sockets of its slot, so that clients in the queue wait for its
start and none is refused. While a slot waits out a crash loop its sockets are closed, and the kernel gives its clients
to the other slots.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

BACKLOG: Final = 4096
"""Connections that may wait in a slot's queue."""


class CannotStart(Exception):
    """Something cannot be started; the message says why, for the person who tried."""


@dataclass
class Door:
    """One address."""

    number: int
    host: str
    port: int
    """As the configuration has it; 0 for any free one."""
    scheme: str
    bound: int
    """The port that it is."""
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    """By slot."""
    handed: socket.socket | None = None
    """The socket that a service manager has bound; it stays open, and one slot accepts from it."""
    handed_to: int = -1
    """That slot."""

    @property
    def url(self) -> str:
        """How it is shown."""
        return f"{self.scheme}://{shown(self.host)}:{self.bound}"

    def open(self, slot: int) -> None:
        """Have a socket for a slot. Raises CannotStart."""
        if slot not in self.sockets:
            self.sockets[slot] = self._shared() or listening(self.host, self.bound)
            if self.handed is not None and self.handed_to < 0:
                self.handed_to = slot

    def _shared(self) -> socket.socket | None:
        """Return what a slot gets of the service manager's socket, where that is the way to one."""
        if self.handed is None:
            return None
        if self.handed_to >= 0:
            with contextlib.suppress(CannotStart):  # as a port below 1024, which only the service manager may bind
                return listening(self.host, self.bound)
        return self.handed.dup()

    def close(self, slot: int) -> None:
        """Close the socket of a slot."""
        each = self.sockets.pop(slot, None)
        if each is not None:
            each.close()
        if slot == self.handed_to:
            self.handed_to = -1

    def close_all(self) -> None:
        """Close every socket."""
        for slot in tuple(self.sockets):
            self.close(slot)
        if self.handed is not None:
            self.handed.close()


class Doors:
    """All doors, and what is to become of them."""

    def __init__(self, activated: Iterable[socket.socket] = ()) -> None:
        """`activated` are listening sockets that a service manager has bound."""
        self.current: list[Door] = []
        """In the order of the configuration's listeners."""
        self._last = 0
        self._activated = list(activated)

    def adopt(self, door: Door) -> None:
        """Take a door over from a supervisor before this one."""
        self.current.append(door)
        self._last = max(self._last, door.number)

    def propose(self, listen: Sequence[Sequence[str | int]], slots: Iterable[int]) -> list[Door]:
        """Return the doors for these hosts, ports and schemes: known ones where there are, and new ones, bound for
        each slot. Raises CannotStart, and leaves nothing new open.
        """
        left = list(self.current)
        doors: list[Door] = []
        try:
            for host, port, scheme in listen:
                assert isinstance(host, str)
                assert isinstance(port, int)
                known = next((door for door in left if (door.host, door.port) == (host, port)), None)
                if known is not None:
                    left.remove(known)
                    doors.append(known)
                else:
                    doors.append(self._new(host, port, str(scheme)))
                    for slot in slots:
                        doors[-1].open(slot)
        except CannotStart:
            self.withdraw(doors)
            raise
        return doors

    def withdraw(self, doors: Iterable[Door]) -> None:
        """Close those of `doors` that are not in use.

        What the service manager has bound is kept for the next proposal: it stays bound there in any case.
        """
        for door in doors:
            if door not in self.current:
                if door.handed is not None:
                    self._activated.append(door.handed)
                    door.handed = None
                door.close_all()

    def accept(self, doors: list[Door], schemes: Sequence[str]) -> None:
        """Have `doors`, and close the others."""
        before, self.current = self.current, doors
        for door, scheme in zip(doors, schemes, strict=True):
            door.scheme = scheme
        self.withdraw(before)

    def open(self, slot: int) -> None:
        """Have sockets for a slot at every door. Raises CannotStart."""
        for door in self.current:
            door.open(slot)

    def close(self, slot: int) -> None:
        """Close the sockets of a slot."""
        for door in self.current:
            door.close(slot)

    def unused(self) -> list[str]:
        """Return the addresses that a service manager has bound, and that no listener is for."""
        return [address_of(each) for each in self._activated]

    def _new(self, host: str, port: int, scheme: str) -> Door:
        self._last += 1
        for each in self._activated:
            if _is_at(each, host, port):
                self._activated.remove(each)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # others can be bound beside it from now on
                return Door(self._last, host, port, scheme, each.getsockname()[1], handed=each)
        ours = any(door.bound == port for door in self.current)
        # Where we listen on that port already, at another address, a probe would find ourselves.
        return Door(self._last, host, port, scheme, port if port and ours else probe(host, port))


def _is_at(each: socket.socket, host: str, port: int) -> bool:
    if each.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    bound = each.getsockname()
    wildcard = {"", "0.0.0.0", "::"}  # noqa: S104 - it is compared, not bound
    return bool(bound[1] == port and (bound[0] == host or {bound[0], host} <= wildcard))


def address_of(each: socket.socket) -> str:
    """Return the address that a socket is bound to, as text."""
    bound = each.getsockname()
    return f"{shown(bound[0])}:{bound[1]}" if isinstance(bound, tuple) else str(bound)


def family(host: str) -> socket.AddressFamily:
    """Return the family of an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def shown(host: str) -> str:
    """Return an address as URLs have it."""
    return f"[{host}]" if ":" in host else host or "*"


def probe(host: str, port: int) -> int:
    """Return the port once it is certain that nobody listens there; port 0 becomes a free one. Raises CannotStart.

    SO_REUSEPORT would let two gateways share a port, and the traffic, without a word.
    """
    try:
        with socket.socket(family(host), socket.SOCK_STREAM) as each:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((host, port))
            bound: int = each.getsockname()[1]
            return bound
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens beside others of ours. Raises CannotStart."""
    try:
        each = socket.socket(family(host), socket.SOCK_STREAM)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    try:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if each.family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        each.bind((host, port))
        each.listen(BACKLOG)
    except OSError as error:
        each.close()
        raise _cannot_listen(host, port, error) from error
    return each


def _cannot_listen(host: str, port: int, error: OSError) -> CannotStart:
    return CannotStart(f"cannot listen on {shown(host)}:{port}: {error.strerror}")


def inherited(descriptors: Iterable[int]) -> list[socket.socket]:
    """Return the listening sockets among descriptors that a service manager has passed."""
    found = []
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, False)
            each = socket.socket(fileno=descriptor)
            if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(each)
            else:
                each.detach()
    return found
