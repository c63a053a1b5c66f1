"""Shorter forms in which something may be written: marks for the annotations of config models.

Each of them widens what is accepted and says so in the JSON Schema; the model itself only knows the full form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticOmit
from pydantic_core.core_schema import ValidatorFunctionWrapHandler
from pydantic_core.core_schema import no_info_before_validator_function as before
from pydantic_core.core_schema import no_info_wrap_validator_function as around

JsonSchema = dict[str, Any]

OFF: JsonSchema = {"enum": ["off", False]}


def is_off(value: object) -> bool:
    """Whether a value says `off`; in YAML 1.2 that is a text, and `false` means the same."""
    return value is False or value == "off"


@dataclass(frozen=True)
class NotInFile:
    """Marks a field that the loader gives, not the file."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        raise PydanticOmit


@dataclass(frozen=True)
class Off:
    """`off`, or `false`, is None: `Annotated[Duration | None, Off()]`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return before(lambda value: None if is_off(value) else value, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        forms = handler(schema)
        return {"anyOf": [*(form for form in forms.get("anyOf", [forms]) if form != {"type": "null"}), OFF]}


@dataclass(frozen=True)
class Yes:
    """`true` is a certain value, which is not validated: `Annotated[tuple[Cidr, ...] | None, Yes(EVERYONE)]`."""

    value: object

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return around(self._meant, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        forms = handler(schema)
        return {"anyOf": [{"const": True}, *forms.get("anyOf", [forms])]}

    def _meant(self, value: object, other: ValidatorFunctionWrapHandler) -> object:
        return self.value if value is True else other(value)


@dataclass(frozen=True)
class Nothing:
    """`none`, or `off`, is a certain value, which is not validated: `Annotated[tuple[Limit, ...], Nothing(())]`."""

    value: object

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return around(self._meant, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        forms = handler(schema)
        return {"anyOf": [*forms.get("anyOf", [forms]), {"enum": ["none", *OFF["enum"]]}]}

    def _meant(self, value: object, other: ValidatorFunctionWrapHandler) -> object:
        return self.value if value == "none" or is_off(value) else other(value)


@dataclass(frozen=True)
class Shorthand:
    """A value that is no mapping is the value of one field: `Annotated[Timeout, Shorthand("total")]`."""

    field: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return before(self._full, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        full = handler(schema)
        return {"anyOf": [handler.resolve_ref_schema(full)["properties"][self.field], full]}

    def _full(self, value: object) -> object:
        return value if isinstance(value, dict | BaseModel) else {self.field: value}


@dataclass(frozen=True)
class SecretMembers:
    """Some members of a mapping are secret, and so is whatever stands in its place: no message repeats them.

    `Annotated[Mapping[str, Any], SecretMembers(frozenset({"d", "k"}))]`.
    """

    names: frozenset[str]


@dataclass(frozen=True)
class OneOrMany:
    """A single value is a list of one: `Annotated[tuple[Method, ...], OneOrMany()]`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return before(lambda value: value if isinstance(value, list | tuple) else (value,), handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        many = handler(schema)
        one = many["items"]
        return {"anyOf": [*one.get("anyOf", [one]), many]}
