"""Which policies and endpoints there are: a value, built anew at each load."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any, TypeVar

from portico.errors import ConfigError
from portico.policy.base import Component, Endpoint, Policy, PolicyConfig

C = TypeVar("C", bound=Component[Any])


class Registry:
    """The policies and endpoints that there are."""

    __slots__ = ("endpoints", "policies")

    def __init__(self) -> None:
        self.policies: dict[str, type[Policy[Any]]] = {}
        self.endpoints: dict[str, type[Endpoint[Any]]] = {}

    @classmethod
    def of(cls, modules: Iterable[ModuleType]) -> Registry:
        """Collect the named policies and endpoints that `modules` define; raise ConfigError for a name given twice."""
        self = cls()
        for module in modules:
            for item in vars(module).values():
                if not isinstance(item, type) or item.__module__ != module.__name__:
                    continue  # what a module has imported is not its own
                if issubclass(item, Policy | Endpoint) and "name" in vars(item):
                    self.add(item)
        return self

    def add(self, item: type[Component[Any]]) -> None:
        """Add a policy or an endpoint; raise ConfigError where its name is taken."""
        if issubclass(item, Policy):
            _check_stages(item)
            _put(self.policies, item)
        elif issubclass(item, Endpoint):
            _put(self.endpoints, item)

    @property
    def policy_kinds(self) -> dict[str, type[PolicyConfig]]:
        """The config class of each policy, which is all that reading a file needs."""
        return {name: policy.config_class for name, policy in self.policies.items()}

    @property
    def endpoint_kinds(self) -> dict[str, type[PolicyConfig]]:
        """The config class of each endpoint that a file may name."""
        return {name: endpoint.config_class for name, endpoint in self.endpoints.items() if endpoint.in_file}


def _put(known: dict[str, type[C]], item: type[C]) -> None:
    other = known.get(item.name)
    if other is not None and other is not item:
        raise ConfigError(f"{item.__module__} and {other.__module__} both define {item.name!r}; rename one")
    known[item.name] = item


def _check_stages(policy: type[Policy[Any]]) -> None:
    if not policy.stages:
        raise ConfigError(
            f"policy {policy.name!r} names no stage; write class {policy.__name__}(..., stages=(Stage.TRANSFORM,))"
        )
