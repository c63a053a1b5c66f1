"""Whether services can be reached, for those who ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from portico.upstream.stack import Service
from portico.upstream.target import Target

logger = logging.getLogger("portico.upstream")

FRESH_FOR: Final = 2.0
"""Seconds for which an answer is given again: asking more often does not probe more often."""

PROBE_TIMEOUT: Final = 1.0
"""Seconds that a target has to accept a connection."""

PROBES_AT_ONCE: Final = 64


class Reachability:
    """Finds out on demand which services accept connections; nothing is probed while nobody asks.

    However many ask at once, one round of probes runs, in the worker's group: it belongs to no request.
    """

    __slots__ = ("_asked_at", "_clock", "_flight", "_services", "_states", "_tasks")

    def __init__(self, services: Sequence[Service], tasks: asyncio.TaskGroup, clock: Callable[[], float]) -> None:
        self._services = services
        self._tasks = tasks
        self._clock = clock
        self._states: dict[str, bool] = {}
        self._asked_at = float("-inf")
        self._flight: asyncio.Task[None] | None = None

    async def states(self) -> dict[str, bool]:
        """Return for each service whether at least one of its targets accepts connections, at most 2 s old."""
        if self._clock() - self._asked_at > FRESH_FOR:
            if self._flight is None:
                self._flight = self._tasks.create_task(self._probe_all(), name="reachability")
            await asyncio.shield(self._flight)
        return self._states

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
        targets = {target.pool: target for service in self._services for target in service.targets}
        async with asyncio.TaskGroup() as group:
            probes = {pool: group.create_task(_accepts(target, gate)) for pool, target in targets.items()}
        self._states = {
            service.name: any(probes[target.pool].result() for target in service.targets) for service in self._services
        }
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
