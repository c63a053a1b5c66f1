"""The conditions of a configuration: each is compiled once, whatever the number of routes around which it stands."""

from __future__ import annotations

from collections.abc import Iterator

from portico.config.findings import Findings, place_of
from portico.config.policy_use import PolicyUse
from portico.config.schema import Config, Route
from portico.config.upstream import Service
from portico.policy.base import RouteInfo
from portico.policy.condition import Condition, ConditionError


class Conditions:
    """Compiles conditions, and tells what is wrong with them."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._known: dict[str, Condition | None] = {}

    def compiling(self, config: Config) -> Iterator[None]:
        """Compile every condition of `config`, also those that stand around no route, in small steps."""
        scopes: list[Config | Service | Route] = [config, *config.services.values(), *config.routes]
        for scope in scopes:
            for use in scope.policies:
                if use.when is not None and self._known.get(use.when) is None:
                    self._known[use.when] = self._compiled(use, use.when)
                    yield

    def of(self, use: PolicyUse, scope: str, route: RouteInfo) -> Condition | None:
        """Return the condition of a policy, or None where it has none, or a wrong one.

        What stands around many routes may speak of captures that some of them do not have; what is a route's own may
        not.
        """
        condition = self._known.get(use.when) if use.when is not None else None
        if condition is not None and scope == "route":
            for path, names in route.captures.items():
                try:
                    condition.check_captures(path, names)
                except ConditionError as error:
                    self._error(use, error)
        return condition

    def _compiled(self, use: PolicyUse, text: str) -> Condition | None:
        try:
            return Condition(text)
        except ConditionError as error:
            self._error(use, error)
            return None

    def _error(self, use: PolicyUse, error: ConditionError) -> None:
        self._findings.error(place_of(use.when_origin), f"when: {error}", error.hint)
