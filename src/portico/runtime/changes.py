"""What another configuration would change: the routes, chains, services and settings that differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields

from pydantic import BaseModel

from portico.config.schema import Config, Route
from portico.config.upstream import Service
from portico.policy.chain import Scoped, merge
from portico.policy.registry import Registry
from portico.runtime.chains import chain_of, stage_of


@dataclass(frozen=True)
class Changes:
    """Differences between two configurations, each a line to read."""

    routes_added: list[str]
    routes_removed: list[str]
    routes_changed: list[str]
    chains: list[str]
    """Routes around which other policies would stand, with what comes (`+`), goes (`-`) and changes (`~`); requests
    without a route are told of where no route's chain changes.
    """
    services_added: list[str]
    services_removed: list[str]
    services_changed: list[str]
    """With the targets that they gain and lose."""
    settings: list[str]
    """Keys of the file beside these whose values differ, and the order of the routes."""

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))

    def lines(self) -> Iterator[str]:
        """Yield all of it as text."""
        for name, found in asdict(self).items():
            for line in found:
                yield f"{_WORDS[name]}: {line}"

    def summary(self) -> str:
        """Return it in one line: how many of each."""
        found = ((_WORDS[name], len(lines)) for name, lines in asdict(self).items() if lines)
        return ", ".join(f"{words.replace(' ', 's ', 1)}: {count}" for words, count in found) or "nothing changed"


_WORDS = {
    "routes_added": "route added",
    "routes_removed": "route removed",
    "routes_changed": "route changed",
    "chains": "chain changed",
    "services_added": "service added",
    "services_removed": "service removed",
    "services_changed": "service changed",
    "settings": "setting changed",
}


def changes(before: Config, old: Registry, after: Config, new: Registry) -> Changes:
    """Return what is different in `after`; the registries say where policies stand by themselves."""
    was, will = _by_name(before.routes), _by_name(after.routes)
    both = [name for name in will if name in was]
    found = ((name, _chain_change(_chain(before, was[name], old), _chain(after, will[name], new))) for name in both)
    chains = [f"{name} ({change})" for name, change in found if change]
    if not chains:
        change = _chain_change(_own_chain(before, old), _own_chain(after, new))
        chains = [f"without a route ({change})"] if change else []
    settings = _differences(before, after, "routes", "services", "policies")
    if both != [name for name in was if name in will]:
        settings.append("order of routes")
    return Changes(
        routes_added=[_shown(will[name]) for name in will if name not in was],
        routes_removed=[_shown(was[name]) for name in was if name not in will],
        routes_changed=[
            f"{name} ({', '.join(keys)})" for name in both if (keys := _route_change(was[name], old, will[name], new))
        ],
        chains=chains,
        services_added=[name for name in after.services if name not in before.services],
        services_removed=[name for name in before.services if name not in after.services],
        services_changed=[
            f"{name} ({change})"
            for name in after.services
            if name in before.services and (change := _service_change(before.services[name], after.services[name]))
        ],
        settings=settings,
    )


def _by_name(routes: Iterable[Route]) -> dict[str, Route]:
    return {route.name: route for route in routes}


def _shown(route: Route) -> str:
    return f"{route.name} ({', '.join(route.path)})"


def _plain(value: object) -> object:
    """Return a value without the places where things stand, which change with every line that is added above them."""
    if isinstance(value, BaseModel):
        model = type(value)
        found = {name: _plain(getattr(value, name)) for name in model.model_fields if name != "origin"}
        # The same name and code is the same class, however often it was loaded.
        return model.__module__, model.__qualname__, found
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value


def _differences(before: BaseModel, after: BaseModel, *but: str) -> list[str]:
    """Return the fields in which two models differ."""
    if before == after:
        return []
    names = [name for name in type(after).model_fields if name not in (*but, "origin")]
    return [name for name in names if _plain(getattr(before, name)) != _plain(getattr(after, name))]


def _route_change(before: Route, old: Registry, after: Route, new: Registry) -> list[str]:
    keys = _differences(before, after, "policies")
    kinds = before.endpoint.kind, after.endpoint.kind
    if "endpoint" not in keys and _code(old.endpoints.get(kinds[0])) != _code(new.endpoints.get(kinds[1])):
        keys.append("endpoint")
    return keys


def _code(component: type | None) -> tuple[str, str] | None:
    """Return what tells the code of a policy or an endpoint from another: a plugin's module is named by its content."""
    return None if component is None else (component.__module__, component.__qualname__)


def _chain(config: Config, route: Route, registry: Registry) -> dict[str, object]:
    """Return the route's policies by name, in running order."""
    return _by_use(chain_of(config, route, registry), registry)


def _own_chain(config: Config, registry: Registry) -> dict[str, object]:
    """Return the policies of the file itself, which also stand around answers that no route gives."""
    uses = [(use, stage_of(use, registry)) for use in config.policies]
    return _by_use(merge([("global", uses)]), registry)


def _by_use(chain: Iterable[Scoped], registry: Registry) -> dict[str, object]:
    return {
        each.use.name: (
            each.stage,
            each.use.when,
            _code(registry.policies.get(each.use.kind)),
            _code_called(each.use.config, registry),
            _plain(each.use.config),
        )
        for each in chain
    }


def _code_called(config: object, registry: Registry) -> list[str]:
    """Return what tells the code of a plugin from another, where the policy calls a function of it."""
    reference = getattr(config, "function", None)
    plugins = registry.plugins.get(reference.partition(":")[0], ()) if isinstance(reference, str) else ()
    return [plugin.__name__ for plugin in plugins]


def _chain_change(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    gone = [f"-{name}" for name in before if name not in after]
    come = [f"+{name}" for name in after if name not in before]
    other = [f"~{name}" for name in after if name in before and after[name] != before[name]]
    kept = [name for name in before if name in after]
    moved = ["another order"] if kept != [name for name in after if name in before] else []
    return ", ".join([*gone, *come, *other, *moved])


def _service_change(before: Service, after: Service) -> str:
    keys = _differences(before, after, "targets", "policies", "url")
    was, will = ([str(target.address) for target in each.targets] for each in (before, after))
    if before.base_path != after.base_path:
        keys.append("url")
    lost = [f"loses {address}" for address in was if address not in will]
    gained = [f"gains {address}" for address in will if address not in was]
    if not lost and not gained and _plain(before.targets) != _plain(after.targets):
        keys.append("weights")
    return ", ".join([*lost, *gained, *keys])
