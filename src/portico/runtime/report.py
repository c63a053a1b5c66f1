"""What a worker knows that is not on the board: the targets of its services, its store, and its certificates."""

from __future__ import annotations

import asyncio
from itertools import chain, islice
from typing import Final

from portico.net.pool import Pool
from portico.runtime.serving import Serving
from portico.upstream.health import health_of
from portico.upstream.stack import Service
from portico.upstream.target import Target

SHOWN: Final = 100
"""How many targets of a service are told of: those first that are other than usual, which the agent cannot know."""

SHOWN_TOGETHER: Final = 5000
"""How many of all services: a message has a limit, and making it takes time."""


async def report(serving: Serving) -> dict[str, object]:
    """Return it as plain data, for the status page; the loop goes on meanwhile."""
    runtime = serving.runtime
    if runtime is None:
        return {}
    services: dict[str, list[dict[str, object]]] = {}
    left = SHOWN_TOGETHER
    for name, service in runtime.services.items():
        told = services[name] = _service(service, min(SHOWN, left))
        left -= len(told)
        await asyncio.sleep(0)
    return {
        "revision": runtime.revision,
        "routes": len(runtime.routes),
        "tasks": len(asyncio.all_tasks()),
        "services": services,
        "breakers": {
            name: service.breaker.state._asdict()
            for name, service in runtime.services.items()
            if service.breaker is not None
        },
        "concurrency": {
            name: {"taken": each.room.taken, "limit": each.limit, "waiting": each.room.waiting}
            for name, service in runtime.services.items()
            if (each := service.bulkhead) is not None
        },
        "retries": {
            name: int(service.budget.left) for name, service in runtime.services.items() if service.budget is not None
        },
        "state": runtime.report_of_store(),
        "certificates": [
            {"file": expiry.certificate, "expires": expiry.not_after}
            for entrance in runtime.entrances
            if entrance.tls is not None
            for expiry in entrance.tls.expires
        ],
    }


def _service(service: Service, most: int) -> list[dict[str, object]]:
    unusual = islice((target for target in service.targets if _is_unusual(target)), most)
    shown = dict.fromkeys(chain(unusual, service.targets[:most]))
    return [_target(target) for target in islice(shown, most)]


def _is_unusual(target: Target) -> bool:
    return bool(target.failing or target.ejected_until or _connections(target))


def _connections(target: Target) -> int:
    return target.pool.connections if isinstance(target.pool, Pool) else 0


def _target(target: Target) -> dict[str, object]:
    health = health_of(target)
    return {
        "address": target.address,
        "reachable": not target.failing,
        "state": health.state,
        "since": health.since,
        "why": health.why,
        "connections": _connections(target),
    }
