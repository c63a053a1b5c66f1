"""From a target of the file, or of a discovery, to one with connections."""

from __future__ import annotations

import asyncio

from portico.config.balance import Target as TargetConfig
from portico.config.schema import Limits
from portico.config.tls import ServiceTls
from portico.config.upstream import Service as ServiceConfig
from portico.net.client import AnswerLimits
from portico.net.pool import Pool, PoolOptions
from portico.net.stream import NEVER, Outbox
from portico.net.tls import ClientTls
from portico.runtime.shared import Lease
from portico.upstream.target import Target


class Targets:
    """Makes the targets of one service, and ends them; their pools are leased, so that connections outlive a reload."""

    def __init__(
        self,
        name: str,
        service: ServiceConfig,
        limits: Limits,
        lease: Lease,
        tls: ClientTls | None,
        tasks: asyncio.TaskGroup,
        outbox: Outbox,
        gate: asyncio.Semaphore,
    ) -> None:
        """`tls` is how TLS is spoken with those that are https; `lease` is the service's own; connections that are
        opened ahead of requests pass the `gate`."""
        keepalive = service.keepalive
        self._name = name
        self._service = service
        self._lease = lease
        self._tls = tls
        self._tasks = tasks
        self._outbox = outbox
        self._gate = gate
        self._options = PoolOptions(
            service.max_connections,
            0 if keepalive is None else keepalive.max_idle,
            0.0 if keepalive is None else keepalive.idle,
            AnswerLimits(limits.response_head, limits.response_header_count, limits.chunk_line, limits.trailers),
            NEVER if keepalive is None else or_never(keepalive.max_age),
            0 if keepalive is None else keepalive.warm,
            or_never(service.timeout.tls),
        )
        self._keys: dict[Target, tuple[tuple[object, ...], ...]] = {}

    def make(self, target: TargetConfig) -> Target:
        """Return a target with connections."""
        host = f"[{target.host}]" if ":" in target.host else target.host
        address = f"{host}:{target.port}"
        authority = target.authority
        said = self._service.tls or ServiceTls()
        speaks = target.scheme == "https"
        key = (
            "pool",
            target.host,
            target.port,
            target.server_name,
            (said.ca, said.pair, said.verify, said.min_version, said.server_name) if speaks else None,
            self._options,
        )
        pool = self._lease.share(
            key,
            lambda: Pool(
                target.host,
                target.port,
                self._tls if speaks else None,
                self._options,
                self._tasks,
                self._outbox,
                gate=self._gate,
                server_name=target.server_name,
            ),
        )
        name = ("target", self._name, self._service.base_path, *key)
        made = self._lease.share(  # with what is known of it: whether it is out, how fast it answers
            name,
            lambda: Target(
                target.scheme,
                address,
                authority.encode("idna" if not authority.isascii() else "ascii"),
                self._service.base_path,
                pool,
            ),
        )
        if self._service.health is None:  # what a check has found that is there no more
            made.down_since, made.looked_at, made.checked = 0.0, False, False
        made.name = target.server_name
        made.weight, made.priority, made.metadata = target.weight, target.priority, target.metadata
        self._keys[made] = (key, name)
        return made

    def drop(self, target: Target) -> None:
        """End a target that is none any more; what is under way there goes on."""
        for key in self._keys.pop(target):
            self._lease.give_back(key)


def or_never(seconds: float | None) -> float:
    """Return a time that may be off."""
    return NEVER if seconds is None else seconds
