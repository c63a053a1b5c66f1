"""The routes of a file.

What a route ends in is named by a key: `service: orders`, or `respond: {status: 200}`. The endpoint's other settings
may stand beside it, at the route's own level: `{path: /a/**, service: orders, strip_prefix: /a}`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel

from portico.config.annotations import file_keys
from portico.config.build import build, is_public, items_of
from portico.config.errors import read_errors
from portico.config.findings import Findings
from portico.config.nearest import nearest, one_of
from portico.config.nodes import Entry, Fields, Items, Node, Scalar, describe
from portico.config.part import Part
from portico.config.policy_lists import PolicyLists, Scope, with_shorthand
from portico.config.schema import EndpointUse, Route
from portico.config.services import References
from portico.config.versions import Expansion
from portico.config.wording import unknown_key

_OWN = file_keys(Route)
_READ_APART = ("policies", "errors")
# Stands in for an endpoint that is wrong, so that the rest of its route is judged too.
_NO_ENDPOINT = EndpointUse(kind="", config=Part())
_SYNONYMS = {"host": "hosts"}
_VERSIONS = "versions"


class Routes:
    """Reads routes."""

    def __init__(
        self,
        kinds: Mapping[str, type[BaseModel]],
        references: References,
        policies: PolicyLists,
        scopes: Mapping[str, Scope],
        findings: Findings,
    ) -> None:
        """Take the endpoints that there are, and the policies around each service; those of the file are under ""."""
        self._kinds = kinds
        self._settings = {kind: file_keys(model) for kind, model in kinds.items()}
        self._references = references
        self._policies = policies
        self._scopes = scopes
        self._findings = findings
        settings = {kind: set(fields) for kind, fields in self._settings.items()}
        self._expansion = Expansion({*_OWN, *_SYNONYMS}, settings, findings)

    def read(self, entry: Entry | None) -> tuple[Route, ...]:
        """Return the routes of a list, without those that are wrong."""
        routes = []
        for node in items_of("routes", entry, self._findings):
            if not isinstance(node, Fields):
                self._no_route(node)
                continue
            written = self._without_synonyms(node)
            for each, version in self._expansion.routes(written):
                route = self._route(each)
                if route is not None:
                    routes.append(_versioned(route, version, node))
        return self._named(routes)

    def _no_route(self, node: Node) -> None:
        if not (isinstance(node, Scalar) and node.broken):
            hint = "write {path: /orders/**, service: orders}"
            self._findings.error(node.place, f"a route was expected here, not {describe(node)}", hint)

    def _route(self, node: Fields) -> Route | None:
        name = node.entries.get("name")
        if name is not None and isinstance(name.node, Scalar):
            is_public(name.node, "the name of a route", self._findings)
        kind = self._kind(node)
        self._references.begin(node.place)
        endpoint = self._endpoint(kind, node) if kind is not None else None
        wider = dict(self._scopes[""])
        for service in self._references.used if endpoint is not None else self._scopes:  # or any might have been meant
            wider |= self._scopes.get(service, {})
        policies = self._policies.read(node.entries.get("policies"), wider)
        own = {key: node.entries[key] for key in node.entries if key in _OWN and key not in _READ_APART}
        given = {
            "policies": policies,
            "errors": read_errors(node.entries.get("errors"), self._findings),
            "endpoint": endpoint or _NO_ENDPOINT,
            "origin": str(node.place),
        }
        return build(Route, Fields(node.place, own), "route", self._findings, given=given)

    def _without_synonyms(self, node: Fields) -> Fields:
        entries = dict(node.entries)
        for synonym, key in _SYNONYMS.items():
            if synonym in entries and key in entries:
                self._findings.error(entries[synonym].key, f"'{synonym}' and '{key}' mean the same", "keep one of them")
            elif synonym in entries:
                entries[key] = entries.pop(synonym)
        return Fields(node.place, entries)

    def _kind(self, node: Fields) -> str | None:
        """Return the key that names the endpoint."""
        kinds = [key for key in node.entries if key in self._kinds]
        if len(kinds) == 1:
            return kinds[0]
        if kinds:
            hint = "keep one of them, and make a route of its own for the other"
            self._findings.error(
                node.entries[kinds[1]].key, f"a route has one end, and this has {one_of(kinds, 'and')}", hint
            )
            return None
        settings = {key for keys in self._settings.values() for key in keys}
        strangers = [key for key in node.entries if key not in _OWN and key not in settings]
        for key in strangers:
            unknown_key(key, node.entries[key].key, "route", [*_OWN, _VERSIONS, *self._kinds], self._findings)
        if not any(nearest(key, self._kinds) for key in strangers):  # else it was said how to mend it
            hint = f"add {one_of([f'{kind}:' for kind in self._kinds])}"
            self._findings.error(node.place, "nothing says what becomes of the requests of this route", hint)
        return None

    def _endpoint(self, kind: str, node: Fields) -> EndpointUse | None:
        entry = node.entries[kind]
        model = self._kinds[kind]
        fields = self._settings[kind]
        settings = with_shorthand(model, entry)
        entries = dict(settings.entries)
        for key, beside in node.entries.items():
            if key == kind or key in _OWN:
                continue
            if key not in fields:
                self._stranger(key, beside, kind)
            elif key in entries:
                self._findings.error(beside.key, f"'{key}' is given twice", f"the first is at {entries[key].key}")
            else:
                entries[key] = beside
        config = build(
            model, Fields(settings.place, entries), f"endpoint {kind}", self._findings, services=self._references
        )
        return EndpointUse(kind=kind, config=config, origin=str(entry.key)) if config is not None else None

    def _stranger(self, key: str, entry: Entry, kind: str) -> None:
        owners = [other for other, keys in self._settings.items() if key in keys]
        if owners:
            hint = f"it is a setting of {one_of(owners)}; this route ends in {kind}"
            self._findings.error(entry.key, f"unknown key '{key}' in route", hint)
        else:
            unknown_key(key, entry.key, "route", [*_OWN, _VERSIONS, kind, *self._settings[kind]], self._findings)

    def _named(self, routes: list[_Stem]) -> tuple[Route, ...]:
        """Give each route a name of its own: the one in the file, or one made from its path."""
        owners: dict[str, Route] = {}
        for route, node, _ in routes:
            if route.name in owners:
                hint = f"the first is at {owners[route.name].origin}"
                self._findings.error(node.place, f"there are two routes of the name '{route.name}'", hint)
            elif route.name:
                owners[route.name] = route
        made = Counter[str]()
        taken = set(owners)
        return tuple(
            route if route.name else route.model_copy(update={"name": _fresh(stem, taken, made)})
            for route, _, stem in routes
        )


class _Stem(NamedTuple):
    """A route, and what its name is made from where the file gives it none."""

    route: Route
    node: Node
    stem: str


def _versioned(route: Route, version: str, node: Fields) -> _Stem:
    """Return a route with the version that it is for, if any, at the end of its name."""
    if not version:
        return _Stem(route, node, _name_from(route.path[0]))
    if route.name:
        route = route.model_copy(update={"name": f"{route.name}-{version}"})
    entry = node.entries.get("path")
    nodes = [] if entry is None else entry.node.nodes if isinstance(entry.node, Items) else [entry.node]
    path = next((each.text for each in nodes if isinstance(each, Scalar)), "/**")
    return _Stem(route, node, f"{_name_from(path.replace('{version}', ''))}-{version}")


def _fresh(stem: str, taken: set[str], made: Counter[str]) -> str:
    """Return `stem`, with a number where that is taken."""
    while True:
        made[stem] += 1
        name = stem if made[stem] == 1 else f"{stem}-{made[stem]}"
        if name not in taken:
            taken.add(name)
            return name


def _name_from(path: str) -> str:
    """Return what logs call a route with this path: `/api/v1/orders/**` is `api-v1-orders`."""
    name = re.sub(r"[^A-Za-z0-9._]+", "-", path).strip("-._")[:100]
    return name or {"/": "root", "/*": "all", "/**": "all"}.get(path, "route")
