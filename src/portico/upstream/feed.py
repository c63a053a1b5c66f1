"""What the agent knows of a service's targets, as it reaches a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from portico.config.balance import Target


class Verdict(NamedTuple):
    """What the health check of a target has found."""

    well: bool
    since: float
    """Since when, in seconds since the epoch."""
    why: str
    """What it found last, in words: `status 503`, `connection refused`."""


class Feed:
    """What is known of one service, now and from now on; it outlives a reload that leaves its discovery as it is."""

    __slots__ = ("_on_change", "everything", "service", "source", "targets", "trouble", "verdicts")

    def __init__(self, service: str, source: str) -> None:
        self.service = service
        self.source = source
        """Where the targets are from (`Discover.source`); empty where the file says them."""
        self.targets: Sequence[Target] | None = None
        """The last targets that were found; None before there are any, and where the file says them."""
        self.verdicts: Mapping[str, Verdict] = {}
        """What is known of each target, by its address (`str(target)`)."""
        self.everything = False
        """Whether all that can be known of targets was told at last: where there is no verdict, nothing is known."""
        self.trouble = ""
        """Why the targets could not be found out the last time; empty where they could."""
        self._on_change: list[Callable[[], None]] = []

    def follow(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` after each change, until `leave`."""
        self._on_change.append(on_change)

    def leave(self, on_change: Callable[[], None]) -> None:
        """Call it no more."""
        self._on_change.remove(on_change)

    def take(
        self,
        targets: Sequence[Target] | None,
        verdicts: Mapping[str, Verdict],
        trouble: str,
        *,
        everything: bool = False,
    ) -> None:
        """Note what the agent has said. Where it has said nothing of targets, the last ones stay."""
        if targets is not None:
            self.targets = targets
        self.verdicts = verdicts
        self.everything = everything
        self.trouble = trouble
        for on_change in tuple(self._on_change):
            on_change()
