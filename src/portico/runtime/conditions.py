"""The conditions of a configuration: each is compiled once, whatever the number of routes around which it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from portico.config.findings import Findings, place_of
from portico.config.policy_use import PolicyUse
from portico.config.resilience import SplitPart
from portico.config.schema import Config, Route
from portico.config.upstream import Service
from portico.http.message import Request
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
                    self._known[use.when] = self._compiled(use.when, use.when_origin)
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
                    self._error(use.when_origin, error)
        return condition

    def of_part(self, part: SplitPart) -> Callable[[Request], bool] | None:
        """Return whether a request is a part's, or None where it has no condition, or a wrong one.

        It may speak of captures: a split stands behind many routes, and what a request does not have is empty.
        """
        if part.when is None:
            return None
        condition = self._known.get(part.when)
        if condition is None:
            condition = self._known[part.when] = self._compiled(part.when, part.origin)
        return None if condition is None else condition.holds

    def _compiled(self, text: str, origin: str) -> Condition | None:
        try:
            return Condition(text)
        except ConditionError as error:
            self._error(origin, error)
            return None

    def _error(self, origin: str, error: ConditionError) -> None:
        self._findings.error(place_of(origin), f"when: {error}", error.hint)
