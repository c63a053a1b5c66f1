"""Lists of policies: of the file, of a service, of a route.

A policy is written as its name, as `{name: settings}`, or as `{name: off}`; `name:`, `stage:` and `when:` may stand
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from portico.config.annotations import file_keys
from portico.config.build import build, is_public, items_of
from portico.config.findings import Findings
from portico.config.forms import is_off
from portico.config.nearest import did_you_mean, one_of
from portico.config.nodes import Entry, Fields, Node, Scalar, describe, is_null
from portico.config.policy_use import Policies, PolicyUse
from portico.config.services import References
from portico.config.wording import unknown_key

Scope = Mapping[str, str]
"""The policies of the wider scopes: what kind each name is."""

_BESIDE = ("name", "stage", "when")


def with_shorthand(model: type[BaseModel], entry: Entry) -> Fields:
    """Return the settings under a key: a mapping is all of them, anything else the first of the model."""
    if isinstance(entry.node, Fields):
        return entry.node
    if is_null(entry.node):
        return Fields(entry.key, {})
    first = next(iter(file_keys(model)), "settings")
    return Fields(entry.key, {first: entry})


class PolicyLists:
    """Reads lists of policies."""

    def __init__(self, kinds: Mapping[str, type[BaseModel]], references: References, findings: Findings) -> None:
        self._kinds = kinds
        self._references = references
        self._findings = findings

    def read(self, entry: Entry | None, wider: Scope) -> Policies:
        """Return the policies of a list, without those that are wrong."""
        uses: dict[str, PolicyUse] = {}
        for node in items_of("policies", entry, self._findings):
            use = self._use(node, wider)
            if use is None:
                continue
            if use.name in uses:
                hint = f"the first is at {uses[use.name].origin}; to have both, give one a name: of its own"
                self._findings.error(node.place, f"policy '{use.name}' stands twice in this list", hint)
            else:
                uses[use.name] = use
        return tuple(uses.values())

    def _use(self, node: Node, wider: Scope) -> PolicyUse | None:
        if isinstance(node, Scalar) and isinstance(node.value, str):
            if not is_public(node, "the name of a policy", self._findings):
                return None
            settings = Scalar(node.place, "", None)
            return self._named(node.value, Fields(node.place, {node.value: Entry(node.place, settings)}), wider)
        if isinstance(node, Fields):
            kind = self._kind(node)
            return self._named(kind, node, wider) if kind is not None else None
        if not (isinstance(node, Scalar) and node.broken):
            hint = "write its name, or {name: settings}"
            self._findings.error(node.place, f"a policy was expected here, not {describe(node)}", hint)
        return None

    def _kind(self, node: Fields) -> str | None:
        """Return the key that names the policy."""
        keys = [key for key in node.entries if key not in _BESIDE]
        named = [key for key in keys if key in self._kinds] or keys
        if len(named) == 1:
            return named[0]
        message = f"one policy was expected here, not {one_of(named, 'and')}" if named else "this names no policy"
        hint = "start each with its own '-'" if named else "write {rate-limit: ..., name: burst}"
        self._findings.error(node.place, message, hint)
        return None

    def _named(self, kind: str, node: Fields, wider: Scope) -> PolicyUse | None:
        entry = node.entries[kind]
        if isinstance(entry.node, Scalar) and is_off(entry.node.value):
            return self._removal(kind, node, wider)
        config = None
        model = self._kinds.get(kind)
        if model is None:
            self._findings.error(entry.key, f"there is no policy '{kind}'", self._hint(kind, wider))
        else:
            self._references.begin(entry.key)
            settings = self._settings(kind, model, node)
            config = build(model, settings, f"policy {kind}", self._findings, services=self._references)
        beside = Fields(node.place, {key: node.entries[key] for key in _BESIDE if key in node.entries})
        given: dict[str, object] = {"kind": kind, "config": config, "origin": str(entry.key)}
        name = beside.entries.get("name")
        if name is None:
            given["name"] = kind
        elif isinstance(name.node, Scalar) and not is_public(name.node, "the name of a policy", self._findings):
            return None
        when = beside.entries.get("when")
        if when is not None:
            given["when_origin"] = str(when.node.place)
            if not self._is_condition(when):
                return None
        return build(PolicyUse, beside, f"policy {kind}", self._findings, given=given)

    def _is_condition(self, entry: Entry) -> bool:
        """Whether something is written under `when:`, which is checked where the chains are made."""
        node = entry.node
        if is_null(node):
            hint = "write one such as when: method == 'POST', or leave it out"
            self._findings.error(node.place, "when: there is no condition", hint)
            return False
        return not isinstance(node, Scalar) or is_public(node, "a condition", self._findings)

    def _settings(self, kind: str, model: type[BaseModel], node: Fields) -> Fields:
        """Return what is written below the policy's key, with what stands beside it by mistake."""
        settings = with_shorthand(model, node.entries[kind])
        known = file_keys(model)
        entries = {}
        for key, entry in settings.entries.items():
            if key in _BESIDE and key not in known:
                message = f"'{key}' is no setting of {kind}, and stands among them"
                hint = f"put it beside {kind}:, as far to the right as the name of the policy"
                self._findings.error(entry.key, message, hint)
            else:
                entries[key] = entry
        for key, stray in node.entries.items():
            if key in known and key not in _BESIDE and key != kind:
                message = f"'{key}' is a setting of {kind}, and stands beside it"
                self._findings.error(stray.key, message, f"indent it below {kind}:")
                entries.setdefault(key, stray)
            elif key != kind and key not in _BESIDE:
                unknown_key(key, stray.key, f"policy {kind}", _BESIDE, self._findings)
        return Fields(settings.place, entries)

    def _removal(self, name: str, node: Fields, wider: Scope) -> PolicyUse | None:
        for key, entry in node.entries.items():
            if key != name:
                self._findings.error(entry.key, f"'{key}' has no meaning for a policy that is switched off")
        place = node.entries[name].key
        if name in wider:
            return PolicyUse(name=name, kind=wider[name], off=True, origin=str(place))
        hint = did_you_mean(name, wider) or "only what a wider scope has can be switched off; leave it out"
        self._findings.error(place, f"there is no policy '{name}' here to switch off", hint)
        return None

    def _hint(self, kind: str, wider: Scope) -> str:
        if kind in wider:
            return f"it is the name of a {wider[kind]} policy; to replace it write {{{wider[kind]}: ..., name: {kind}}}"
        return did_you_mean(kind, self._kinds) or f"there are {one_of(sorted(self._kinds), 'and')}"


def scope_of(policies: Policies) -> dict[str, str]:
    """Return the names that a list brings to narrower scopes."""
    return {use.name: use.kind for use in policies}
