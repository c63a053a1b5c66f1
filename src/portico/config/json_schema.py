"""A JSON Schema of the file, for editors: completion, documentation on hover, and most mistakes while typing.

It is made from the models, whose docstrings become descriptions. Three shapes exist in the file only, and are put
together here: a policy in a list, a route with its endpoint, and `${...}` in the place of any value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from portico.config.annotations import file_keys
from portico.config.errors import STATUS_PATTERN, Errors, ErrorText
from portico.config.forms import OFF, JsonSchema
from portico.config.policy_use import PolicyUse
from portico.config.schema import Config, Route
from portico.config.values import NAME_PATTERN
from portico.config.versions import DEPRECATION_KEYS, VERSION_KEYS, Versions

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_MARKER = r"\$\{"
_MAY_BE_EMPTY = ("services", "consumers", "policies", "routes", "plugins")
"""Keys with a list or a mapping below them, every line of which may be commented out."""
_NULL: JsonSchema = {"type": "null"}
_SUBSTITUTION: JsonSchema = {
    "type": "string",
    "pattern": _MARKER,
    "description": "A value from the environment, `${NAME}` or `${NAME:-default}`, or from a file, `${file:PATH}`.",
}
_INCLUDE: JsonSchema = {
    "description": "More files, relative to this one, with services, consumers, policies, routes and plugins; `*` "
    "matches many.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}


def json_schema(policies: Mapping[str, type[BaseModel]], endpoints: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """Return the schema of a file in which these policies and endpoints can be used."""
    return _Maker([*policies.values(), *endpoints.values()]).file(policies, endpoints)


class _Maker:
    """Puts the schema together."""

    def __init__(self, models: Iterable[type[BaseModel]]) -> None:
        every: dict[type[BaseModel], None] = dict.fromkeys(
            (Config, Route, PolicyUse, Errors, ErrorText, Versions, *models)
        )
        references, document = models_json_schema([(model, "validation") for model in every])
        self._defs: dict[str, JsonSchema] = document["$defs"]
        self._names = {model: references[model, "validation"]["$ref"].rpartition("/")[2] for model in every}

    def file(self, policies: Mapping[str, type[BaseModel]], endpoints: Mapping[str, type[BaseModel]]) -> JsonSchema:
        """Return the schema of the whole file."""
        routes = [self._route(kind, model) for kind, model in endpoints.items()]
        self._replace(Route, {"anyOf": [*routes, self._route_with_versions(policies, endpoints)]})
        self._replace(PolicyUse, {"anyOf": list(self._policy_forms(policies))})
        self._texts_of_errors()
        config = self._defs[self._names[Config]]
        properties: dict[str, JsonSchema] = config["properties"]
        for key in _MAY_BE_EMPTY:
            properties[key]["type"] = [properties[key]["type"], "null"]
        properties["services"]["propertyNames"] = {"pattern": f"^{NAME_PATTERN}$"}
        properties["include"] = _INCLUDE
        defs = {name: _fillable(self._defs[name]) for name in self._reachable(config)}
        return {
            "$schema": DIALECT,
            "title": "Portico",
            **_fillable(config),
            "$defs": {**defs, "Substitution": _SUBSTITUTION},
        }

    def _reachable(self, root: JsonSchema) -> list[str]:
        """Return the names of the definitions that `root` refers to, directly or not."""
        found: dict[str, None] = {}
        waiting = [root]
        while waiting:
            names = dict.fromkeys(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(waiting.pop())))
            waiting += [self._defs[name] for name in names if name not in found]
            found |= names
        return sorted(found)

    def _texts_of_errors(self) -> None:
        """Let texts stand beside the keys of `errors`, each under its status."""
        text = {"anyOf": [{"type": "string"}, {"$ref": f"#/$defs/{self._names[ErrorText]}"}, OFF]}
        self._defs[self._names[Errors]]["patternProperties"] = {f"^{STATUS_PATTERN}$": text}

    def _replace(self, model: type[BaseModel], schema: JsonSchema) -> None:
        self._defs[self._names[model]] = {"description": model.__doc__, **schema}

    def _properties(self, model: type[BaseModel]) -> dict[str, JsonSchema]:
        properties: dict[str, JsonSchema] = self._defs[self._names[model]].get("properties", {})
        return properties

    def _route(self, kind: str, model: type[BaseModel]) -> JsonSchema:
        """Return the schema of a route that ends in this endpoint."""
        own = self._properties(Route)
        return {
            "type": "object",
            "required": [kind],
            "properties": {
                **self._properties(model),
                **own,
                "host": own["hosts"],
                kind: self._settings(model, []),
            },
            "additionalProperties": False,
        }

    def _route_with_versions(
        self, policies: Mapping[str, type[BaseModel]], endpoints: Mapping[str, type[BaseModel]]
    ) -> JsonSchema:
        """Return the schema of a route with versions, of which each ends in an endpoint, or all in the route's."""
        own = self._properties(Route)
        ends: dict[str, JsonSchema] = {}
        for model in endpoints.values():
            ends |= self._properties(model)
        ends |= {kind: self._settings(model, []) for kind, model in endpoints.items()}
        said = self._properties(policies["deprecation"]) if "deprecation" in policies else {}
        version = {
            **{key: said.get(key, {}) for key in DEPRECATION_KEYS},
            **ends,
            **{key: own[key] for key in VERSION_KEYS},
        }
        versions = {
            **self._defs[self._names[Versions]],
            "minProperties": 2,
            "additionalProperties": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "object", "properties": version, "additionalProperties": False},
                    _NULL,
                ]
            },
        }
        return {
            "type": "object",
            "required": ["versions"],
            "properties": {**ends, **own, "host": own["hosts"], "versions": versions},
            "additionalProperties": False,
        }

    def _policy_forms(self, policies: Mapping[str, type[BaseModel]]) -> Iterable[JsonSchema]:
        """Iterate over the ways to write a policy in a list."""
        beside = {key: self._properties(PolicyUse)[key] for key in ("name", "stage", "when")}
        without_settings = [kind for kind, model in policies.items() if not _required(model)]
        yield {"enum": without_settings, "description": "A policy as it is without settings."}
        for kind, model in policies.items():
            yield {
                "type": "object",
                "required": [kind],
                "properties": {kind: self._settings(model, _required(model)), **beside},
                "additionalProperties": False,
            }
        yield {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": OFF,
            "description": "Switches off a policy that a wider scope has.",
        }

    def _settings(self, model: type[BaseModel], required: list[str]) -> JsonSchema:
        """Return the schema of what stands under the key of a policy or an endpoint."""
        full = {**self._defs[self._names[model]], "required": required}
        about = {"description": full.pop("description")} if "description" in full else {}
        forms = [full]
        first = next(iter(file_keys(model)), None)
        if first is not None:
            forms.insert(0, self._properties(model)[first])
        if not required:
            forms.append(_NULL)
        return {**about, "anyOf": forms}


def _required(model: type[BaseModel]) -> list[str]:
    return [key for key, field in file_keys(model).items() if field.is_required()]


def _fillable(schema: JsonSchema) -> JsonSchema:
    """Return `schema` with a substitution allowed where not any text is, and without the titles that pydantic makes."""
    result: JsonSchema = {}
    for key, value in schema.items():
        if key in {"properties", "patternProperties"}:
            result[key] = {name: _fillable(inner) for name, inner in value.items()}
        elif key in {"anyOf", "allOf", "prefixItems"}:
            result[key] = [_fillable(inner) for inner in value]
        elif key in {"items", "additionalProperties"} and isinstance(value, dict):
            result[key] = _fillable(value)
        elif key != "title":
            result[key] = value
    if "pattern" in result:
        result["pattern"] = f"{result['pattern']}|{_MARKER}"
    elif result.get("type") in ("integer", "number", "boolean"):
        result |= {"type": [result["type"], "string"], "pattern": _MARKER}
    elif "enum" in result or "const" in result:
        values = {key: result.pop(key) for key in ("type", "enum", "const") if key in result}
        result["anyOf"] = [values, {"$ref": "#/$defs/Substitution"}]
    return result
