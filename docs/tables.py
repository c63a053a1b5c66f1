"""Config models as Markdown: a table of the keys of each, with those of the models within it below."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Annotated, Any, Final, get_origin

from pydantic import BaseModel, TypeAdapter

from docs.source import value_docs
from portico.config import addresses, values
from portico.config.annotations import file_keys

Schema = Mapping[str, Any]

_PLAIN: Final = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
_ABOUT: Final = frozenset(("title", "description", "default"))
_SECONDS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_BYTES: Final = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def row(*cells: str) -> str:
    """Return one line of a table."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    return "\n".join([row(*heads), row(*("---" for _ in heads)), *(row(*cells) for cells in rows)])


class Models:
    """Writes the tables of a model and of those within it; `names` says what some are called."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = names or {}

    def keys(self, model: type[BaseModel], only: tuple[str, ...] = ()) -> str:
        """Return the table of the keys of one model; or of `only` some, for what may stand beside another key."""
        schema = model.model_json_schema()
        required = () if only else schema.get("required", ())
        rows = []
        for key, field in file_keys(model).items():
            if only and key not in only:
                continue
            kind = self._kind(schema["properties"][key])
            default = "required" if key in required else _default(schema["properties"][key].get("default"), kind)
            rows.append((f"`{key}`", kind, default, field.description or ""))
        return table(("key", "type", "default", "meaning"), rows) if rows else "It has no settings."

    def within(self, model: type[BaseModel]) -> Iterator[type[BaseModel]]:
        """Iterate over the models within one, each before those within it, in the order of the keys."""
        seen = {BaseModel, model}

        def below(outer: type[BaseModel]) -> Iterator[type[BaseModel]]:
            for field in file_keys(outer).values():
                for inner in _models(field.annotation):
                    if inner not in seen:
                        seen.add(inner)
                        yield inner
                        yield from below(inner)

        return below(model)

    def called(self, name: str) -> str:
        """Return what a model is called, which is its heading."""
        return self._names.get(name, name)

    def _kind(self, schema: Schema) -> str:
        """Return what a value is, in words."""
        known = _known().get(_print(schema))
        if known is not None:
            return known
        if "$ref" in schema:
            name = self.called(schema["$ref"].rpartition("/")[2])
            return f"[{name}](#{name.lower()})"
        if "anyOf" in schema:
            return self._one_of(schema["anyOf"])
        if "enum" in schema:
            values = dict.fromkeys(str(value) for value in schema["enum"] if value is not False)
            return " or ".join(f"`{value}`" for value in values)
        if "const" in schema:
            return f"`{_word(schema['const'])}`"
        if schema.get("type") == "array":
            return f"list of {self._kind(schema['items'])}"
        if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), Mapping):
            return f"mapping of names to {self._kind(schema['additionalProperties'])}"
        kind = _PLAIN.get(schema.get("type", ""), "anything")
        return f"{kind} ({schema['format']})" if "format" in schema else kind

    def _one_of(self, forms: list[Schema]) -> str:
        kinds = list(dict.fromkeys(self._kind(form) for form in forms if form.get("type") != "null"))
        single = " or ".join(kinds[:-1])
        return f"{single}, or a list" if kinds[-1] == f"list of {single}" else " or ".join(kinds)


def value_kinds() -> list[tuple[str, str, str]]:
    """Return every kind of value that has a form of its own: what it is called, what it is, and examples."""
    return [(kind, doc, _examples(schema)) for kind, doc, schema in _values()]


def duration(seconds: float) -> str:
    """Return seconds as a file would have them."""
    size, unit = next(((size, unit) for size, unit in _SECONDS if seconds >= size and seconds % size == 0), (1, "s"))
    return f"{seconds / size:g}{unit}"


def size(count: int) -> str:
    """Return bytes as a file would have them."""
    unit, name = next(((unit, name) for unit, name in _BYTES if count >= unit and count % unit == 0), (1, ""))
    return f"{count // unit}{name}"


def _default(value: object, kind: str) -> str:
    if isinstance(value, Mapping):
        return "as there" if value else ""
    if isinstance(value, list):
        texts = [next(iter(item.values())) if isinstance(item, Mapping) else item for item in value]
        return ", ".join(f"`{text}`" for text in texts)
    if value is None:
        return "`off`" if "`off`" in kind and "`on`" not in kind else ""
    if isinstance(value, bool):
        return f"`{_word(value)}`"
    if isinstance(value, int | float) and "duration" in kind:
        return f"`{duration(value)}`"
    if isinstance(value, int) and "size" in kind:
        return f"`{size(value)}`"
    return f"`{value}`" if value != "" else ""


@cache
def _known() -> dict[str, str]:
    kinds: dict[str, str] = {}
    for kind, _, schema in _values():
        kinds.setdefault(_print(schema), kind)  # a narrower kind has the same forms, and comes later
    return kinds


def _values() -> Iterator[tuple[str, str, Schema]]:
    for module, path in ((values, "config/values.py"), (addresses, "config/addresses.py")):
        for name, doc in value_docs(path).items():
            schema = _schema(module, name)
            if schema is not None and len(set(schema) - _ABOUT) > 1 and "anyOf" not in schema:
                yield re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower(), doc, schema


def _schema(module: ModuleType, name: str) -> Schema | None:
    value: Any = getattr(module, name, None)
    return TypeAdapter(value).json_schema() if get_origin(value) is Annotated else None


def _print(schema: Schema) -> str:
    """Return what makes two schemas the same kind of value."""
    return repr(sorted((key, value) for key, value in schema.items() if key not in _ABOUT))


def _examples(schema: Schema) -> str:
    return ", ".join(f"`{_word(example)}`" for example in schema.get("examples", ()))


def _word(value: object) -> object:
    """Return a value as a file would have it."""
    return str(value).lower() if isinstance(value, bool) else value


def _models(*annotations: Any) -> Iterator[type[BaseModel]]:
    for annotation in annotations:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        yield from _models(*getattr(annotation, "__args__", ()))
