"""From the services of a file to what its routes send requests to: splits and mirrors around them."""

from __future__ import annotations

from collections.abc import Mapping

from portico.config.findings import Findings, place_of
from portico.config.resilience import Split as SplitConfig
from portico.config.schema import Config
from portico.runtime.conditions import Conditions
from portico.upstream.balance import key_of
from portico.upstream.split import Part, Split
from portico.upstream.upstream import Upstream


class Upstreams:
    """Puts services together; those that a service leads to come first, wherever the file has them.

    No service leads back to itself: that is refused when the file is read.
    """

    def __init__(
        self, config: Config, services: Mapping[str, Upstream], conditions: Conditions, findings: Findings
    ) -> None:
        """`services` are those that have targets."""
        self._config = config
        self._services = services
        self._conditions = conditions
        self._findings = findings
        self.made: dict[str, Upstream] = {}
        """What was put together so far, by name."""
        self.splits: list[Split] = []

    def make(self, name: str) -> Upstream:
        """Return what the service is to those who send it requests."""
        if name not in self.made:
            config = self._config.services[name]
            if config.split is None:
                self.made[name] = self._services[name]
            else:
                self.made[name] = self._split(name, config.split, config.origin)
        return self.made[name]

    def _split(self, name: str, config: SplitConfig, origin: str) -> Split:
        key = None
        if config.by is not None:
            try:
                key = key_of(config.by)
            except ValueError as error:
                self._findings.error(place_of(origin), f"service {name}: {error}")
        parts = [Part(self.make(each.service), each.weight, self._conditions.of_part(each)) for each in config.to]
        split = Split(name, parts, key)
        self.splits.append(split)
        return split
