"""From a document to a Config: every part is judged apart, so that one mistake hides no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from portico.config.addresses import is_everyone
from portico.config.build import build, entries_of, is_public, items_of
from portico.config.consumer_database import read_consumer_database
from portico.config.consumers import read_consumers
from portico.config.document import Document, plugin_name
from portico.config.errors import read_errors
from portico.config.findings import Finding, Findings, place_of
from portico.config.nodes import Entry, Fields, Items, Node, Scalar, describe, is_null
from portico.config.policy_lists import PolicyLists, scope_of, with_shorthand
from portico.config.policy_use import Policies
from portico.config.resilience import Split
from portico.config.routes import Routes
from portico.config.schema import Config, Listener
from portico.config.services import References, going_round
from portico.config.upstream import Service
from portico.config.values import BadValue, check_name

Models = Mapping[str, type[BaseModel]]
"""Names of policies or endpoints, and the models of their settings."""


@dataclass(frozen=True)
class Loaded:
    """What became of a document."""

    config: Config | None
    """The configuration, unless there is an error among the findings."""
    findings: list[Finding]
    """Everything that is wrong with it, by place."""


def validate(document: Document, *, policies: Models, endpoints: Models) -> Loaded:
    """Return the Config that `document` describes, or all that is wrong with it.

    `policies` and `endpoints` are those that there are: the file's keys for them, and what may stand below each key.
    """
    findings = Findings(document.findings)
    config = _Validation(document.root, policies, endpoints, findings).config()
    return Loaded(None if findings.failed else config, list(findings.sorted()))


def _placed(split: Split, node: Node) -> Split:
    """Return the split that `node` describes with the places of its conditions."""
    listed = node.entries["to"].node if isinstance(node, Fields) else node
    assert isinstance(listed, Items)
    places = [
        each.entries["when"].node.place if isinstance(each, Fields) and "when" in each.entries else each.place
        for each in listed.nodes
    ]
    parts = zip(split.to, places, strict=True)
    return split.model_copy(update={"to": tuple(part.written_at(str(place)) for part, place in parts)})


def _items(entry: Entry | None) -> list[Node]:
    """Return what stands under a key where one may stand for a list of one."""
    if entry is None:
        return []
    return entry.node.nodes if isinstance(entry.node, Items) else [entry.node]


class _Validation:
    """Validates one document."""

    def __init__(self, root: Fields, policies: Models, endpoints: Models, findings: Findings) -> None:
        # A key with nothing below it, as when every route is commented out, is as good as none.
        self._entries = {key: entry for key, entry in root.entries.items() if not is_null(entry.node)}
        self._root = Fields(root.place, self._entries)
        self._findings = findings
        self._services = entries_of("services", self._entries.get("services"), findings)
        self._references = References(self._services)
        self._policies = PolicyLists(policies, self._references, findings)
        self._endpoints = endpoints

    def config(self) -> Config | None:
        """Return the configuration, as far as there is one."""
        policies = self._policies.read(self._entries.get("policies"), {})
        scopes = {"": scope_of(policies)}
        services = {}
        for name, entry in self._services.items():
            settings = Fields(entry.key, with_shorthand(Service, entry).entries)
            around = self._policies.read(settings.entries.get("policies"), scopes[""])
            scopes[name] = scope_of(around)
            service = self._service(name, settings, around)
            if service is not None:
                services[name] = service
        for name in going_round(services):
            hint = "have one of them lead to targets"
            self._findings.error(place_of(services[name].origin), f"service {name} leads back to itself", hint)
        routes = Routes(self._endpoints, self._references, self._policies, scopes, self._findings)
        given = {
            "policies": policies,
            "routes": routes.read(self._entries.get("routes")),
            "plugins": self._plugins(),
            "errors": read_errors(self._entries.get("errors"), self._findings),
            "services": services | self._references.implicit,
            "consumers": read_consumers(self._entries.get("consumers"), self._findings),
            "consumer_database": read_consumer_database(self._entries.get("consumer_database"), self._findings),
        }
        root = self._root.without(*given)  # but with `listen`: what is wrong among listeners has its place there
        config = build(Config, root, "the configuration", self._findings, given={**given, **self._listeners()})
        if config is not None:
            self._warn(config)
        return config

    def _listeners(self) -> dict[str, object]:
        """Return the listeners by their key, or nothing where none is given."""
        nodes = _items(self._entries.get("listen"))
        listeners = []
        for node in nodes:
            fields = node if isinstance(node, Fields) else Fields(node.place, {"address": Entry(node.place, node)})
            self._no_open_door(fields)
            listeners.append(build(Listener, fields, "listen", self._findings, given={"origin": str(node.place)}))
        if None in listeners:  # the others are well, and what is odd among all cannot be told
            return {"listen": Config().listen}
        return {"listen": tuple(listeners)} if listeners else {}

    def _no_open_door(self, listener: Fields) -> None:
        """Refuse keys of TLS with nothing below them: taken for none they would let everyone in, and in the clear."""
        tls = listener.entries.get("tls")
        below = tls.node.entries.get("client_ca") if tls is not None and isinstance(tls.node, Fields) else None
        for key, entry in (("tls", tls), ("client_ca", below)):
            if entry is not None and is_null(entry.node):
                message = f"{key}: there is nothing here"
                self._findings.error(entry.node.place, message, "give it a value, or leave the key out")

    def _warn(self, config: Config) -> None:
        """Tell what is legal, and probably not meant."""
        nodes = _items(self._entries.get("trusted_proxies"))
        for node, network in zip(nodes, config.trusted_proxies, strict=True):
            if is_everyone(network):
                hint = "name the networks of the proxies in front of the gateway"
                self._findings.warning(node.place, f"with {network} trusted, everyone can say who they are", hint)

    def _service(self, name: str, settings: Fields, policies: Policies) -> Service | None:
        try:
            check_name(name)
        except BadValue as error:
            self._findings.error(settings.place, error.message, error.hint)
        errors = read_errors(settings.entries.get("errors"), self._findings)
        given = {"policies": policies, "errors": errors, "origin": str(settings.place)}
        self._references.begin(settings.place)
        settings = settings.without("policies", "errors")
        service = build(Service, settings, f"service {name}", self._findings, given=given, services=self._references)
        if service is None or service.split is None:
            return service
        return service.model_copy(update={"split": _placed(service.split, settings.entries["split"].node)})

    def _plugins(self) -> tuple[str, ...]:
        entry = self._entries.get("plugins")
        names = []
        for node in items_of("plugins", entry, self._findings):
            if isinstance(node, Scalar) and node.text:
                if is_public(node, "the name of a plugin", self._findings):
                    names.append(plugin_name(node))
            elif not (isinstance(node, Scalar) and node.broken):
                hint = "write plugins: [./my_policies.py, a.module]"
                self._findings.error(node.place, f"a plugin was expected here, not {describe(node)}", hint)
        return tuple(names)
