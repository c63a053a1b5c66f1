"""One address of a service, as a worker sees it."""

from __future__ import annotations

from portico.net.client import Connections


class Target:
    """One address of a service: the Host it is sent, the path it hangs its API under, its connections, how it is."""

    __slots__ = (
        "address",
        "authority",
        "checked",
        "down_since",
        "ejected_at",
        "ejected_for",
        "ejected_since",
        "ejected_until",
        "ejections",
        "failing",
        "failures",
        "latency",
        "latency_at",
        "looked_at",
        "metadata",
        "name",
        "pool",
        "prefix",
        "priority",
        "scheme",
        "share",
        "started",
        "told_at",
        "weight",
        "well_since",
        "why",
    )

    def __init__(
        self,
        scheme: str,
        address: str,
        authority: bytes,
        prefix: str,
        pool: Connections,
        weight: int = 1,
        priority: int = 0,
    ) -> None:
        self.scheme = scheme
        self.address = address
        self.authority = authority
        self.prefix = prefix
        self.pool = pool
        self.weight = weight
        self.priority = priority
        self.name = ""
        """The name that its certificate must have, unless the service says another."""
        self.metadata: dict[str, str] = {}
        self.share = 1.0
        """How much of its weight it has: less than all of it while it starts slowly."""
        self.started = 0.0
        """When it began to start slowly, on the worker's clock."""
        self.latency = 0.0
        """Seconds to the head of its answers of late, for `peak-ewma`; 0 where there was none yet."""
        self.latency_at = 0.0
        """When that was last written, on the worker's clock."""
        self.failing = False
        """True since the last attempt to connect failed; the log tells of each change once."""
        self.told_at = float("-inf")
        """When the log last told of an answer that went wrong."""
        self.failures = 0
        """How many answers in a row were failures."""
        self.ejections = 0
        """How many times in a row it was ejected."""
        self.ejected_at = 0.0
        """When it was ejected last, on the worker's clock."""
        self.ejected_since = 0.0
        """The same in seconds since the epoch."""
        self.ejected_until = 0.0
        """Until when it is not asked, on the worker's clock; 0 where it is."""
        self.checked = False
        """Whether there is a health check for it."""
        self.looked_at = False
        """Whether its health check has found anything yet."""
        self.ejected_for = ""
        """What for."""
        self.down_since = 0.0
        """Since when its health check fails, in seconds since the epoch; 0 where it does not."""
        self.well_since = 0.0
        """Since when it is well, in seconds since the epoch; 0 where it was never looked at."""
        self.why = ""
        """What its health check found last."""

    @property
    def turns(self) -> float:
        """Its weight, as far as it has it."""
        return self.weight * self.share

    def close(self) -> None:
        """Be let go; its connections have an owner of their own."""

    def __repr__(self) -> str:
        return f"<Target {self.address}>"
