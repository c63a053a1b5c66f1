"""Which policies and endpoints there are: a value, built anew at each load."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, TypeVar

from portico.config.nearest import did_you_mean
from portico.errors import ConfigError
from portico.policy.base import Component, Endpoint, Policy, PolicyConfig

C = TypeVar("C", bound=Component[Any])


class Registry:
    """The policies and endpoints that there are, and the plugins by what they are called."""

    __slots__ = ("endpoints", "plugins", "policies")

    def __init__(self) -> None:
        self.policies: dict[str, type[Policy[Any]]] = {}
        self.endpoints: dict[str, type[Endpoint[Any]]] = {}
        self.plugins: dict[str, list[ModuleType]] = {}

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

    def offer(self, name: str, plugin: ModuleType) -> None:
        """Have a plugin's functions found by its name; it may be offered several times."""
        known = self.plugins.setdefault(name, [])
        if plugin not in known:
            known.append(plugin)

    def function(self, reference: str) -> Callable[..., object]:
        """Return the function that `module:name` stands for; raise ConfigError where no plugin has it."""
        plugin, _, name = reference.partition(":")
        modules = self.plugins.get(plugin, [])
        if not modules:
            hint = did_you_mean(plugin, self.plugins) or f"add it to plugins, as in plugins: [{plugin}.py]"
            raise ConfigError(f"there is no plugin {plugin!r} that could have a function; {hint}")
        if len(modules) > 1:
            raise ConfigError(f"there are {len(modules)} plugins {plugin!r}; rename all but one")
        function: Callable[..., object] | None = getattr(modules[0], name, None)
        if function is None or not callable(function):
            hint = did_you_mean(name, [each for each, value in vars(modules[0]).items() if callable(value)])
            raise ConfigError(f"plugin {plugin!r} has no function {name!r}" + (f"; {hint}" if hint else ""))
        return function

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
