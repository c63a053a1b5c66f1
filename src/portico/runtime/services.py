"""From a service of the file to a Handler with targets and pools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from portico.config.balance import Target as TargetConfig
from portico.config.findings import Findings, place_of
from portico.config.schema import Config
from portico.config.tls import ServiceTls
from portico.config.upstream import Service as ServiceConfig
from portico.errors import ConfigError
from portico.net.client import AnswerLimits, Patience
from portico.net.pem import KeyPair
from portico.net.pool import Pool, PoolOptions
from portico.net.stream import NEVER, Outbox
from portico.net.tls import ClientTls
from portico.runtime.certificates import CertificateWatch
from portico.runtime.listeners import tls_version
from portico.runtime.shared import Lease
from portico.upstream.stack import Service
from portico.upstream.target import Target

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class ServiceBuilder:
    """Builds services; their pools are leased, so that connections outlive a reload."""

    config: Config
    lease: Lease
    tasks: asyncio.TaskGroup
    outbox: Outbox
    clock: Callable[[], float]
    watch: CertificateWatch
    findings: Findings
    _tls: dict[tuple[object, ...], ClientTls] = field(default_factory=dict)

    def build(self, name: str, service: ServiceConfig) -> Service:
        """Return the service at work."""
        timeout = service.timeout
        targets = [(self._target(service, target), target.weight) for target in service.targets]
        patience = Patience(_or_never(timeout.first_byte), _or_never(timeout.idle))
        upgrades = frozenset(protocol.encode("ascii") for protocol in service.upgrades or ())
        return Service(
            name, targets, _or_never(timeout.connect), patience, _or_never(timeout.total), self.clock, upgrades
        )

    def _target(self, service: ServiceConfig, target: TargetConfig) -> Target:
        host = f"[{target.host}]" if ":" in target.host else target.host
        address = f"{host}:{target.port}"
        authority = host if target.port == DEFAULT_PORTS[target.scheme] else address
        limits = self.config.limits
        keepalive = service.keepalive
        options = PoolOptions(
            service.max_connections,
            0 if keepalive is None else keepalive.max_idle,
            0.0 if keepalive is None else keepalive.idle,
            AnswerLimits(limits.response_head, limits.response_header_count, limits.chunk_line, limits.trailers),
        )
        tls = None if target.scheme == "http" else service.tls or ServiceTls()
        said = None if tls is None else (tls.ca, tls.pair, tls.verify, tls.min_version, tls.server_name)
        pool = self.lease.share(
            ("pool", target.host, target.port, said, options),
            lambda: Pool(target.host, target.port, self._client_tls(service, tls), options, self.tasks, self.outbox),
        )
        return Target(
            target.scheme,
            address,
            authority.encode("idna" if not authority.isascii() else "ascii"),
            service.base_path,
            pool,
        )

    def _client_tls(self, service: ServiceConfig, tls: ServiceTls | None) -> ClientTls | None:
        """Return how TLS is spoken to a target; what is wrong with its files is added to the findings."""
        if tls is None:
            return None
        key = (tls.ca, tls.pair, tls.verify, tls.min_version, tls.server_name)
        if key not in self._tls:
            pair = None if tls.pair is None else KeyPair(*tls.pair)
            try:
                made = ClientTls(tls.ca, pair, tls.verify, tls_version(tls.min_version), tls.server_name)
            except ConfigError as error:
                self.findings.error(place_of(service.origin), str(error))
                return None
            self.watch.add(made)
            self._tls[key] = made
        return self._tls[key]


def _or_never(seconds: float | None) -> float:
    return NEVER if seconds is None else seconds
