"""What a supervisor begins with: a plan and its snapshot, and, where it takes another's place, what that one has left.

It lies in a file of memory, whose descriptor, and those that it names, stay open while one program takes the place of
another in the same process (`exec`). So the process id stays, and with it whatever watches it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from portico.runtime.protocol import Plan
from portico.state.board import shared_file

MODULE: Final = "portico.supervisor"

VERSION: Final = 1
"""Of what is written here: a supervisor does not take over what it does not understand."""


HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""The signals that the supervisor acts on."""


class BadHandover(Exception):
    """What was left makes no sense to this version."""


@dataclass(frozen=True)
class LeftDoor:
    """A door that was open: as in `doors.Door`, with the descriptor of each slot's socket."""

    number: int
    host: str
    port: int
    scheme: str
    bound: int
    sockets: dict[str, int]
    handed: int = -1
    handed_to: int = -1


@dataclass(frozen=True)
class Handover:
    """Everything that passes from one program to the next."""

    plan: Plan
    snapshot: int
    """Its descriptor."""
    doors: list[LeftDoor] = field(default_factory=list)
    elders: list[int] = field(default_factory=list)
    """Workers that serve on until there are new ones."""
    lifelines: list[int] = field(default_factory=list)
    """Descriptors that elders hold on to: were they closed, the elders would think that we are gone."""
    counters: dict[str, int] = field(default_factory=dict)
    """What was counted so far."""
    histograms: dict[str, list[int]] = field(default_factory=dict)
    """The same of histograms."""
    remembered: str = ""
    started: float = 0.0
    """When the gateway was started, in seconds since the epoch."""

    def descriptors(self) -> list[int]:
        """Return what has to stay open."""
        sockets = [each for door in self.doors for each in (*door.sockets.values(), door.handed) if each >= 0]
        return [self.snapshot, *sockets, *self.lifelines]

    def become(self) -> None:
        """Have the supervisor take the place of this program. It does not return, unless by OSError."""
        _become(self.write(), self.descriptors(), {})

    def write(self) -> int:
        """Return the descriptor of a file of memory with it."""
        return shared_file("portico-handover", _encode(asdict(self)))

    def write_to(self, descriptor: int) -> None:
        """Write it to a file of memory that somebody else has made."""
        with os.fdopen(descriptor, "wb") as file:
            file.write(_encode(asdict(self)))

    def become_by(self, trial: int, environment: Mapping[str, str]) -> None:
        """Have the supervisor that wrote `trial`, a handover of its own, take the place of this program with what is
        left here, and `environment` added to its own. It does not return, unless by BadHandover or OSError.
        """
        theirs = _read(trial)
        # Their plan, whatever their version says in it; ours of the rest.
        left = {name: value for name, value in asdict(self).items() if name not in ("plan", "snapshot")}
        _become(
            shared_file("portico-handover", _encode({**theirs, **left})),
            [*(each for each in self.descriptors() if each != self.snapshot), theirs["snapshot"]],
            environment,
        )

    @classmethod
    def read(cls, descriptor: int) -> Handover:
        """Return what was written. Raises BadHandover."""
        values = _read(descriptor)
        try:
            del values["version"]
            plan = Plan(**values.pop("plan"))
            doors = [LeftDoor(**door) for door in values.pop("doors")]
            handover = cls(plan=plan, doors=doors, **values)
            for each in handover.descriptors():
                os.set_inheritable(each, False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadHandover(str(error)) from error
        return handover


def _encode(values: dict[str, Any]) -> bytes:
    return json.dumps({**values, "version": VERSION}).encode()


def _read(descriptor: int) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        version = values["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadHandover(str(error)) from error
    if version != VERSION:
        raise BadHandover("it is of a version of Portico that cannot take this one's place; start the gateway anew")
    return values


def _become(file: int, descriptors: list[int], environment: Mapping[str, str]) -> None:
    for descriptor in (file, *descriptors):
        os.set_inheritable(descriptor, True)
    sys.stdout.flush()
    sys.stderr.flush()
    for handler in logging.root.handlers:
        handler.flush()
    # Until the new program has its handlers, a signal would end it; blocked, it waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        arguments = [sys.executable, "-m", MODULE, f"--handover={file}"]
        os.execve(sys.executable, arguments, {**os.environ, **environment})  # noqa: S606 - our own module
    except OSError:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        raise
