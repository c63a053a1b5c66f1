"""From a service of the file to a Handler with targets and pools."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from portico.config.findings import Findings, place_of
from portico.config.resilience import Breaker as BreakerConfig
from portico.config.resilience import Concurrency, Retry
from portico.config.resilience import Fallback as FallbackConfig
from portico.config.schema import Config
from portico.config.tls import ServiceTls
from portico.config.upstream import Service as ServiceConfig
from portico.errors import ConfigError
from portico.http.message import Handler, Request, Response
from portico.net.pem import KeyPair
from portico.net.pool import WARMED_AT_ONCE
from portico.net.stream import Outbox
from portico.net.tls import ClientTls
from portico.runtime.certificates import CertificateWatch
from portico.runtime.feeds import Feeds
from portico.runtime.listeners import tls_version
from portico.runtime.shared import Lease, Leases
from portico.runtime.targets import Targets, or_never
from portico.state.records import Record
from portico.upstream.balance import balancing
from portico.upstream.breaker import Breaker
from portico.upstream.bulkhead import Bulkhead, Room
from portico.upstream.fallback import Fallback
from portico.upstream.hedge import Hedge
from portico.upstream.membership import Membership
from portico.upstream.retry import Budget, RetryPolicy
from portico.upstream.roster import Ejecting, Roster
from portico.upstream.stack import Rescue, Service, Times
from portico.upstream.upstream import Upstream


@dataclass(frozen=True)
class ServiceBuilder:
    """Builds services; what they lease they give back when they are closed."""

    config: Config
    leases: Leases
    tasks: asyncio.TaskGroup
    outbox: Outbox
    clock: Callable[[], float]
    watch: CertificateWatch
    feeds: Feeds
    """What the agent knows of the services: `feeds.of(lease, name, source)`."""
    findings: Findings
    rng: random.Random
    records: Callable[[str], Record]
    upstreams: Mapping[str, Upstream]
    """What requests are sent to by name; complete once all services are built."""
    _tls: dict[tuple[object, ...], ClientTls] = field(default_factory=dict)
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(WARMED_AT_ONCE))

    def build(self, name: str, service: ServiceConfig) -> Service:
        """Return the service at work."""
        lease = self.leases.lease()
        try:
            return self._build(name, service, lease)
        except BaseException:
            lease.close()
            raise

    def _build(self, name: str, service: ServiceConfig, lease: Lease) -> Service:
        timeout = service.timeout
        outliers = service.outliers
        balance = service.balance
        made = Targets(
            name, service, self.config.limits, lease, self._tls_of(service), self.tasks, self.outbox, self._gate
        )
        roster = Roster(
            name,
            balancing(balance, name, self.rng, self.clock),
            None
            if outliers is None
            else Ejecting(outliers.failures, outliers.ejection, outliers.max_ejection, outliers.max_ejected),
            balance.slow_start or 0.0,
            balance.panic or 0.0,
        )
        targets = [made.make(target) for target in service.targets]
        roster.change(targets)
        retry = self._retry(service)
        built = Service(
            name,
            roster,
            Times(
                or_never(timeout.connect),
                or_never(timeout.first_byte),
                or_never(timeout.idle),
                or_never(timeout.total),
                b"" if timeout.tell is None else timeout.tell.encode("ascii"),
            ),
            self.clock,
            retry,
            frozenset(protocol.encode("ascii") for protocol in service.upgrades or ()),
        )
        built.on_close(lease.close)
        if service.discover is not None or service.health is not None:
            source = "" if service.discover is None else service.discover.source
            feed = self.feeds.of(lease, name, source)
            members = Membership(
                roster, feed, made.make, made.drop, targets=targets, checked=service.health is not None
            )
            built.known = members.known if service.discover is not None else None
            built.on_close(members.close)
        self._surround(built, service, retry, lease)
        return built

    def _surround(self, built: Service, service: ServiceConfig, retry: RetryPolicy | None, lease: Lease) -> None:
        """Put around a service what the file wants to be there, the innermost first."""
        hedge = service.hedge
        if hedge is not None:
            assert retry is not None
            built.surround(lambda _: Hedge(built, retry, hedge.after, hedge.max).handle)
        concurrency = service.concurrency
        if concurrency is not None:
            self._bound(built, concurrency, lease)
        if service.breaker is not None:
            self._break(built, service.breaker)
        if service.fallback is not None:
            self._fall_back(built, service.fallback, service.origin)
        if built.surrounded:
            built.surround(lambda inner: Rescue(built.name, inner).handle)

    def _bound(self, built: Service, config: Concurrency, lease: Lease) -> None:
        room = lease.share(("room", built.name), Room)

        def around(inner: Handler) -> Handler:
            built.bulkhead = Bulkhead(room, config, inner)
            return built.bulkhead.handle

        built.surround(around)

    def _break(self, built: Service, config: BreakerConfig) -> None:
        record = self.records(f"breaker {built.name}")

        def around(inner: Handler) -> Handler:
            built.breaker = Breaker(built.name, config, record, self.clock, inner)
            return built.breaker.handle

        built.surround(around)

    def _fall_back(self, built: Service, config: FallbackConfig, origin: str) -> None:
        def around(inner: Handler) -> Handler:
            try:
                return Fallback(config, other, self.clock, inner).handle
            except ValueError as error:
                self.findings.error(place_of(origin), f"fallback: {error}")
                return inner

        other = None if config.service is None else self._later(config.service)
        built.surround(around)

    def _later(self, name: str) -> Handler:
        """Return the Handler of a service that may not be made yet."""

        def handle(request: Request) -> Awaitable[Response]:
            return self.upstreams[name].handle(request)

        return handle

    def _retry(self, service: ServiceConfig) -> RetryPolicy | None:
        """Return what says when a request is sent again, or to a second target: that has the same conditions."""
        retry = service.retry
        if retry is None:
            if service.hedge is None:
                return None
            retry = Retry(attempts=1)
        return RetryPolicy(
            Budget(retry.budget, retry.floor, self.clock),
            attempts=retry.attempts,
            per_try=or_never(retry.per_try),
            on=frozenset(each for each in retry.on if isinstance(each, str)),
            statuses=frozenset(each for each in retry.on if isinstance(each, int)),
            methods=frozenset(retry.methods),
            body=retry.body,
            base=retry.backoff.base,
            longest=retry.backoff.max,
            rng=self.rng,
        )

    def _tls_of(self, service: ServiceConfig) -> ClientTls | None:
        """Return how TLS is spoken with a service's targets, those that may yet be found out included; None for none.

        It is made now, while a mistake in its files can still be told.
        """
        may_speak = service.discover is not None or any(target.scheme == "https" for target in service.targets)
        return self._client_tls(service) if may_speak else None

    def _client_tls(self, service: ServiceConfig) -> ClientTls | None:
        """Return how TLS is spoken to a service; what is wrong with its files is added to the findings."""
        tls = service.tls or ServiceTls()
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
