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


class BreakerState(NamedTuple):
    """What a breaker is, for people."""

    name: str
    """`closed`, `open` or `half-open`."""
    since: float
    """Since when, in seconds since the epoch; 0 where it has always been closed."""
    why: str
    """What it was opened for; empty while closed."""


class ServiceHealth:
    """How one service is."""

    __slots__ = ("_targets", "breaker", "well")

    def __init__(
        self,
        well: bool,
        targets: Callable[[], tuple[TargetHealth, ...]] = tuple,
        breaker: BreakerState | None = None,
    ) -> None:
        """`targets` tells how its targets are, for those who ask: there may be thousands."""
        self.well = well
        """Whether it can be asked: its breaker is not open, and one of its targets is well or, where there is no
        health check, accepts connections."""
        self.breaker = breaker
        """Its breaker; None where it has none."""
        self._targets = targets

    @property
    def targets(self) -> tuple[TargetHealth, ...]:
        """How its targets are, now."""
        return self._targets()
