"""How services and their targets are, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class TargetHealth(NamedTuple):
    """How one target is."""

    address: str
    """`host:port`."""
    state: str
    """`healthy`; `unhealthy`, its health check fails; `ejected`, it has failed too often of late; or `unchecked`."""
    since: float
    """Since when, in seconds since the epoch; 0 where that is not known."""
    why: str
    """What was found last, in words; empty where nothing was."""

    @property
    def well(self) -> bool:
        """Whether it is asked."""
        return self.state in ("healthy", "unchecked")


class ServiceHealth:
    """How one service is."""

    __slots__ = ("_targets", "well")

    def __init__(self, well: bool, targets: Callable[[], tuple[TargetHealth, ...]] = tuple) -> None:
        """`targets` tells how its targets are, for those who ask: there may be thousands."""
        self.well = well
        """Whether it can be asked: one of its targets is well or, where there is no health check, accepts
        connections."""
        self._targets = targets

    @property
    def targets(self) -> tuple[TargetHealth, ...]:
        """How its targets are, now."""
        return self._targets()
