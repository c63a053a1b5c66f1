"""How services and their targets are, for those who ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from portico.net.client import Connections
from portico.observe.health import ServiceHealth, TargetHealth
from portico.upstream.target import Target
from portico.upstream.upstream import Upstream

logger = logging.getLogger("portico.upstream")

FRESH_FOR: Final = 2.0
"""Seconds for which an answer is given again: asking more often does not probe more often."""

PROBE_TIMEOUT: Final = 1.0
"""Seconds that a target has to accept a connection."""

PROBES_AT_ONCE: Final = 64

PROBES: Final = 3
"""How many targets of a service a round probes at most: one that accepts is enough."""

ANSWER_IN: Final = 2.0
"""Seconds after which those who ask are told what earlier rounds have found."""


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

    __slots__ = ("_accepting", "_asked_at", "_clock", "_flight", "_rounds", "_services", "_tasks")

    def __init__(self, services: Mapping[str, Upstream], tasks: asyncio.TaskGroup, clock: Callable[[], float]) -> None:
        self._services = services
        self._tasks = tasks
        self._clock = clock
        self._accepting: dict[Target, bool] = {}
        self._rounds = 0
        self._asked_at = float("-inf")
        self._flight: asyncio.Task[None] | None = None

    async def states(self) -> dict[str, ServiceHealth]:
        """Return how each service is; what was probed for it is at most 2 s old, unless that takes longer."""
        if self._clock() - self._asked_at > FRESH_FOR:
            if self._flight is None:
                self._flight = self._tasks.create_task(self._probe_all(), name="probes")
            await asyncio.wait([self._flight], timeout=ANSWER_IN)  # which leaves the flight to others
        return {name: self._state(service) for name, service in self._services.items()}

    def _state(self, service: Upstream) -> ServiceHealth:
        breaker = service.breaker
        state = None if breaker is None else breaker.state
        return ServiceHealth(service.well(self._is_well), lambda: tuple(map(health_of, service.targets)), state)

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
        self._rounds += 1
        accepting: dict[Target, bool] = {}
        async with asyncio.TaskGroup() as group:
            probes = _Probes(group)
            for service in self._services.values():
                targets = [target for target in service.targets if not target.checked]
                if targets:
                    group.create_task(self._probe(targets, probes, accepting))
        self._accepting = accepting
        self._asked_at = self._clock()

    async def _probe(self, targets: Sequence[Target], probes: _Probes, accepting: dict[Target, bool]) -> None:
        """Find out whether one of a service's targets accepts; the others are taken for what those are that were asked.

        The first is one that has accepted before; after it come others, each time.
        """
        before = self._accepting
        first = next((target for target in targets if before.get(target) and not target.failing), None)
        start = self._rounds * PROBES
        turn = [targets[(start + number) % len(targets)] for number in range(min(PROBES, len(targets)))]
        chosen = list(dict.fromkeys(turn if first is None else (first, *turn)))[:PROBES]
        found = {chosen[0]: await probes.of(chosen[0])}
        if not found[chosen[0]]:
            rest = chosen[1:]
            found.update(zip(rest, await asyncio.gather(*map(probes.of, rest)), strict=True))
        if not any(found.values()):
            for target in targets:
                accepting.setdefault(target, False)
        accepting.update(found)


class _Probes:
    """The probes of one round: one for each address, whatever services are there."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._gate = asyncio.Semaphore(PROBES_AT_ONCE)
        self._begun: dict[Connections, asyncio.Task[bool]] = {}

    def of(self, target: Target) -> Awaitable[bool]:
        """Return what tells whether `target` accepts a connection."""
        if target.pool not in self._begun:
            self._begun[target.pool] = self._tasks.create_task(_accepts(target, self._gate), name="probe")
        return asyncio.shield(self._begun[target.pool])


async def _accepts(target: Target, gate: asyncio.Semaphore) -> bool:
    """Tell whether `target` accepts a connection in time."""
    async with gate:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await target.pool.probe()
        except (OSError, TimeoutError):
            return False
        return True
