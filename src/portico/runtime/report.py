"""What a worker knows that is not on the board: the targets of its services, and its certificates."""

from __future__ import annotations

import asyncio

from portico.net.pool import Pool
from portico.runtime.serving import Serving
from portico.upstream.health import health_of
from portico.upstream.stack import Service


def report(serving: Serving) -> dict[str, object]:
    """Return it as plain data, for the status page."""
    runtime = serving.runtime
    if runtime is None:
        return {}
    return {
        "revision": runtime.revision,
        "routes": len(runtime.routes),
        "tasks": len(asyncio.all_tasks()),
        "services": {name: _service(service) for name, service in runtime.services.items()},
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
        "certificates": [
            {"file": expiry.certificate, "expires": expiry.not_after}
            for entrance in runtime.entrances
            if entrance.tls is not None
            for expiry in entrance.tls.expires
        ],
    }


def _service(service: Service) -> list[dict[str, object]]:
    return [
        {
            "address": target.address,
            "reachable": not target.failing,
            "state": health.state,
            "since": health.since,
            "why": health.why,
            "connections": target.pool.connections if isinstance(target.pool, Pool) else 0,
        }
        for target, health in ((target, health_of(target)) for target in service.targets)
    ]
