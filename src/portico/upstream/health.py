"""How services and their targets are, for those who ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from portico.observe.health import ServiceHealth, TargetHealth
from portico.upstream.target import Target
from portico.upstream.upstream import Upstream

logger = logging.getLogger("portico.upstream")

FRESH_FOR: Final = 2.0
"""Seconds for which an answer is given again: asking more often does not probe more often."""

PROBE_TIMEOUT: Final = 1.0
"""Seconds that a target has to accept a connection."""

PROBES_AT_ONCE: Final = 64


def health_of(target: Target) -> TargetHealth:
    """Return what is known of a target."""
    if target.down_since:
        return TargetHealth(target.address, "unhealthy", target.down_since, target.why)
    if target.ejected_until:
        return TargetHealth(target.address, "ejected", target.ejected_since, target.ejected_for)
    if target.looked_at:
        return TargetHealth(target.address, "healthy", target.well_since, target.why)
    return TargetHealth(target.address, "unchecked", 0.0, "")


class HealthReport:
    """Tells how services are. Those without a health check are probed for it, on demand; nothing is probed while nobody
    asks.

    However many ask at once, one round of probes runs, in the worker's group: it belongs to no request.
    """

    __slots__ = ("_accepting", "_asked_at", "_clock", "_flight", "_services", "_tasks")

    def __init__(self, services: Mapping[str, Upstream], tasks: asyncio.TaskGroup, clock: Callable[[], float]) -> None:
        self._services = services
        self._tasks = tasks
        self._clock = clock
        self._accepting: dict[Target, bool] = {}
        self._asked_at = float("-inf")
        self._flight: asyncio.Task[None] | None = None

    async def states(self) -> dict[str, ServiceHealth]:
        """Return how each service is; what was probed for it is at most 2 s old."""
        if self._clock() - self._asked_at > FRESH_FOR:
            if self._flight is None:
                self._flight = self._tasks.create_task(self._probe_all(), name="probes")
            await asyncio.shield(self._flight)
        return {name: self._state(service) for name, service in self._services.items()}

    def _state(self, service: Upstream) -> ServiceHealth:
        breaker = service.breaker
        targets = tuple(map(health_of, service.targets))
        return ServiceHealth(service.well(self._is_well), targets, None if breaker is None else breaker.state)

    def _is_well(self, target: Target) -> bool:
        if target.checked:
            return target.down_since == 0.0
        return self._accepting.get(target, True)

    async def _probe_all(self) -> None:
        """Run one round; it belongs to the worker's group, so nothing may leave it as an error."""
        try:
            await self._probe_targets()
        except Exception:  # a bug here must not end the worker
            logger.exception("the services could not be probed")
        finally:
            self._flight = None

    async def _probe_targets(self) -> None:
        gate = asyncio.Semaphore(PROBES_AT_ONCE)
        targets = dict.fromkeys(target for service in self._services.values() for target in service.targets)
        asked = [target for target in targets if not target.checked]
        by_pool = {target.pool: target for target in asked}
        async with asyncio.TaskGroup() as group:
            probes = {pool: group.create_task(_accepts(target, gate)) for pool, target in by_pool.items()}
        self._accepting = {target: probes[target.pool].result() for target in asked}
        self._asked_at = self._clock()


async def _accepts(target: Target, gate: asyncio.Semaphore) -> bool:
    """Tell whether `target` accepts a connection in time."""
    async with gate:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await target.pool.probe()
        except (OSError, TimeoutError):
            return False
        return True
