"""Tell whether the gateway, and the services behind it, are well.

Three routes that every configuration has, unless the file has the same path: `/health` (with the state of each service,
of its targets and of its breaker, and since when, for those whom `health.allow` names), `/livez` (the process is alive)
and `/readyz` (it takes traffic). Point restarts at `/livez`: a service that is down must not have the gateway
restarted. Policies of the whole file that ask who is calling, or whether they may, do not stand around these three,
since probes have no credentials; they do around routes of your own with the same endpoints, as below.

```yaml
routes:
  - {path: /status, health: {}}
  - {path: /alive, live: {}}
```
"""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address
from time import time

import orjson

from portico import __version__
from portico.plugin import LOCAL_NETWORKS, Cidr, Endpoint, Env, Headers, PolicyConfig, Request, Response, TargetHealth


def _json(content: object) -> Response:
    headers = Headers([(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")])
    return Response(200, headers, orjson.dumps(content))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _state(state: str, since: float, why: str) -> dict[str, str]:
    told = {"state": state}
    if since:
        told["since"] = _time(since)
    if why:
        told["why"] = why
    return told


def _target(target: TargetHealth) -> dict[str, str]:
    return {"address": target.address, **_state(target.state, target.since, target.why)}


class Health(PolicyConfig):
    """Who is told the state of the services."""

    allow: tuple[Cidr, ...] = LOCAL_NETWORKS
    """The networks that are told of the services; everyone else is told the summary alone."""


class HealthEndpoint(Endpoint[Health], name="health"):
    """Tells the state of the gateway and of its services; 200 also when a service is down, since the gateway is not."""

    def setup(self, env: Env) -> None:
        """Keep the way to ask for the services' state."""
        self._health = env.health

    async def handle(self, request: Request) -> Response:
        """Return the summary, and to those who may know it the state of each service."""
        services = await self._health()
        content: dict[str, object] = {
            "status": "healthy" if all(service.well for service in services.values()) else "degraded",
            "timestamp": _time(time()),
            "version": __version__,
        }
        if request.client is not None and self._allowed(request.client.address):
            content["services"] = {name: "healthy" if each.well else "unhealthy" for name, each in services.items()}
            content["targets"] = {
                name: [_target(target) for target in targets]
                for name, each in services.items()
                if (targets := each.targets)
            }
            breakers = {name: _state(*each.breaker) for name, each in services.items() if each.breaker is not None}
            if breakers:
                content["breakers"] = breakers
        return _json(content)

    def _allowed(self, address: str) -> bool:
        if not address:
            return True  # a Unix socket: its file's mode has decided
        client = ip_address(address)
        client = getattr(client, "ipv4_mapped", None) or client
        return any(client in network for network in self.config.allow)


class LiveEndpoint(Endpoint[PolicyConfig], name="live"):
    """Answers while the worker's loop turns."""

    async def handle(self, request: Request) -> Response:
        """Return 200."""
        return _json({"status": "alive"})


class ReadyEndpoint(Endpoint[PolicyConfig], name="ready"):
    """Answers while the worker takes traffic: a worker that drains has stopped listening."""

    async def handle(self, request: Request) -> Response:
        """Return 200."""
        return _json({"status": "ready"})
