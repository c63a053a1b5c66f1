"""From a service of the file to a Handler with targets and pools."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from portico.config.schema import Config
from portico.config.schema import Service as ServiceConfig
from portico.config.schema import Target as TargetConfig
from portico.net.client import AnswerLimits, Patience
from portico.net.pool import Pool, PoolOptions
from portico.net.stream import NEVER, Outbox
from portico.runtime.shared import Lease
from portico.upstream.stack import Service, Target

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class ServiceBuilder:
    """Builds services; their pools are leased, so that connections outlive a reload."""

    config: Config
    lease: Lease
    tasks: asyncio.TaskGroup
    outbox: Outbox
    clock: Callable[[], float]

    def build(self, name: str, service: ServiceConfig) -> Service:
        """Return the service at work."""
        timeout = service.timeout
        targets = [(self._target(service, target), target.weight) for target in service.targets]
        patience = Patience(_or_never(timeout.first_byte), _or_never(timeout.idle))
        return Service(name, targets, _or_never(timeout.connect), patience, _or_never(timeout.total), self.clock)

    def _target(self, service: ServiceConfig, target: TargetConfig) -> Target:
        host = f"[{target.host}]" if ":" in target.host else target.host
        address = f"{host}:{target.port}"
        authority = host if target.port == DEFAULT_PORTS[target.scheme] else address
        keepalive = service.keepalive
        options = PoolOptions(
            service.max_connections,
            0 if keepalive is None else keepalive.max_idle,
            0.0 if keepalive is None else keepalive.idle,
            AnswerLimits(self.config.limits.response_head),
        )
        pool = self.lease.share(
            ("pool", target.scheme, target.host, target.port, options),
            lambda: Pool(target.host, target.port, _tls(target.scheme), options, self.tasks, self.outbox),
        )
        return Target(
            target.scheme,
            address,
            authority.encode("idna" if not authority.isascii() else "ascii"),
            service.base_path,
            pool,
        )


def _or_never(seconds: float | None) -> float:
    return NEVER if seconds is None else seconds


def _tls(scheme: str) -> ssl.SSLContext | None:
    """Return how TLS is spoken to a target: its certificate and name are verified."""
    return ssl.create_default_context() if scheme == "https" else None
