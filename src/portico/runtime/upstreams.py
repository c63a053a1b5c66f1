"""From the services of a file to what its routes send requests to: splits and mirrors around them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from portico.config.findings import Findings, place_of
from portico.config.resilience import Mirror as MirrorConfig
from portico.config.resilience import Split as SplitConfig
from portico.config.schema import Config
from portico.config.upstream import Service as ServiceConfig
from portico.runtime.conditions import Conditions
from portico.runtime.shared import Lease
from portico.upstream.balance import key_of
from portico.upstream.mirror import Mirror, MirrorLimits
from portico.upstream.split import Part, Split
from portico.upstream.upstream import Upstream


class Upstreams:
    """Puts services together; those that a service leads to come first, wherever the file has them.

    No service leads back to itself: that is refused when the file is read.
    """

    def __init__(
        self,
        config: Config,
        services: Mapping[str, Upstream],
        made: dict[str, Upstream],
        conditions: Conditions,
        lease: Lease,
        tasks: asyncio.TaskGroup,
        findings: Findings,
        rng: random.Random,
    ) -> None:
        """`services` are those that have targets; what is put together is added to `made`.

        Copies for mirrors are sent in `tasks`, and end with the `lease`.
        """
        self._config = config
        self._services = services
        self._made = made
        self._conditions = conditions
        self._lease = lease
        self._tasks = tasks
        self._findings = findings
        self._chance = rng.random
        self.splits: list[Split] = []
        self.mirrors: list[Mirror] = []

    def make(self, name: str) -> Upstream:
        """Return what the service is to those who send it requests."""
        if name not in self._made:
            config = self._config.services[name]
            plain = self._services[name] if config.split is None else self._split(name, config.split, config.origin)
            self._made[name] = plain if config.mirror is None else self._mirror(plain, config.mirror, config)
        return self._made[name]

    def _split(self, name: str, config: SplitConfig, origin: str) -> Split:
        key = None
        if config.by is not None:
            try:
                key = key_of(config.by)
            except ValueError as error:
                self._findings.error(place_of(origin), f"service {name}: {error}")
        parts = [Part(self.make(each.service), each.weight, self._conditions.of_part(each)) for each in config.to]
        split = Split(name, parts, key, self._chance)
        self.splits.append(split)
        return split

    def _mirror(self, within: Upstream, config: MirrorConfig, service: ServiceConfig) -> Mirror:
        limits = MirrorLimits(config.share, config.body, config.concurrency, config.timeout)
        upgrades = frozenset(protocol.encode("ascii") for protocol in service.upgrades or ())
        to = self.make(config.service)
        # The key is of no other runtime's: a lease is what closes it with this one.
        mirror = self._lease.share(
            ("mirror", object()), lambda: Mirror(within, to, limits, upgrades, self._tasks, self._chance)
        )
        self.mirrors.append(mirror)
        return mirror
