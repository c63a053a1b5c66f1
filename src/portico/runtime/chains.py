"""Which policies stand around a route, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from portico.config.policy_use import PolicyUse
from portico.config.schema import Config, Route
from portico.policy.base import Stage
from portico.policy.chain import Scoped, merge
from portico.policy.registry import Registry

BUILT_IN: Final = "built in"
"""The origin of what no file has written."""

_FOR_PROBES: Final = frozenset(("health", "live", "ready", "metrics"))
"""Endpoints of the routes that every configuration has, for those who look after it and have no credentials."""


def scopes_of(config: Config, route: Route) -> list[tuple[str, Sequence[PolicyUse]]]:
    """Return the policies of the file, of the service and of the route itself, widest first."""
    scopes: list[tuple[str, Sequence[PolicyUse]]] = [("global", config.policies)]
    service = config.services.get(getattr(route.endpoint.config, "service", ""))
    if service is not None:
        scopes.append(("service", service.policies))
    scopes.append(("route", route.policies))
    return scopes


def stage_of(use: PolicyUse, registry: Registry) -> Stage:
    """Return the stage that a policy stands in: what the file says, or its own default."""
    policy = registry.policies.get(use.kind)
    if policy is None:
        return Stage.OBSERVE  # only `off` names no policy: it stands nowhere
    return policy.stages[0] if use.stage is None else Stage[use.stage.upper()]


def chain_of(config: Config, route: Route, registry: Registry) -> list[Scoped]:
    """Return the route's chain: the stable merge of the file's, the service's and its own policies.

    The built-in routes for probes ask nobody who is calling: who starts the gateway again where it does not answer has
    no credentials for it. A file that wants that has a route of its own there.
    """
    scopes = scopes_of(config, route)
    chain = merge((scope, [(use, stage_of(use, registry)) for use in uses]) for scope, uses in scopes)
    if is_probed(route):
        return [scoped for scoped in chain if not _is_of_callers(scoped, registry)]
    return chain


def is_probed(route: Route) -> bool:
    """Return whether a route is one that every configuration has, for probes and scrapes."""
    return route.origin == BUILT_IN and route.endpoint.kind in _FOR_PROBES


def _is_of_callers(scoped: Scoped, registry: Registry) -> bool:
    policy = registry.policies.get(scoped.use.kind)
    return policy is not None and policy.of_callers
