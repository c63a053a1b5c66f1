"""What the annotations of a model say about a place in the file: which keys are known there, what is secret."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from portico.config.forms import NotInFile, SecretMembers, Shorthand


def file_keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of `model` that a file can give, by key: its own, then those that all of its kind have."""
    own = model.__annotations__
    ordered = sorted(model.model_fields.items(), key=lambda item: item[0] not in own)
    return {
        field.alias or name: field
        for name, field in ordered
        if not any(isinstance(mark, NotInFile) for mark in field.metadata)
    }


def keys_of(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the keys that may stand where `path` leads."""
    return [key for inner in _models_at(model, path) for key in file_keys(inner)]


def field_of(model: type[BaseModel], path: Sequence[str | int], key: str) -> FieldInfo | None:
    """Return the field that is `key` where `path` leads."""
    fields = (file_keys(inner).get(key) for inner in _models_at(model, path))
    return next((field for field in fields if field is not None), None)


def below(annotations: Sequence[Any], step: str | int) -> list[Any]:
    """Return the annotations of what stands under the key, or at the index, `step`."""
    return [inner for annotation in annotations for inner in _below(annotation, step)]


def of_scalar(annotations: Sequence[Any]) -> list[Any]:
    """Return the annotations of a value that is no mapping: where it stands for one field, that field's."""
    return [inner for annotation in annotations for inner in _of_scalar(annotation)]


def holds_secret(annotations: Sequence[Any]) -> bool:
    """Whether a secret may stand in a value with one of these annotations, at whatever depth."""
    waiting = list(annotations)
    seen: list[Any] = []
    while waiting:
        for annotation in _members(waiting.pop()):
            if is_secret(annotation) or _secret_members(annotation) is not None:
                return True
            if annotation not in seen:
                seen.append(annotation)
                waiting += _parts(annotation)
    return False


def is_secret(annotation: Any) -> bool:
    """Whether a value with this annotation is a secret as a whole."""
    return annotation is SecretStr or annotation is SecretBytes


def _models_at(model: type[BaseModel], path: Sequence[str | int]) -> Iterator[type[BaseModel]]:
    annotations: list[Any] = [model]
    for step in path:
        annotations = below(annotations, step)
    return (member for annotation in annotations for member in _members(annotation) if _is_model(member))


def _below(annotation: Any, step: str | int) -> Iterator[Any]:
    for member in _members(annotation):
        secrets = _secret_members(member)
        if secrets is not None:
            yield SecretStr if isinstance(step, int) or step in secrets.names else Any
        elif _is_model(member):
            field = file_keys(member).get(str(step))
            if field is not None:
                marks = [mark for mark in field.metadata if isinstance(mark, Shorthand)]
                yield Annotated[field.annotation, marks[0]] if marks else field.annotation
        elif get_args(member):
            inner = [argument for argument in get_args(member) if argument is not Ellipsis]
            yield from inner if isinstance(step, int) else inner[-1:]


def _of_scalar(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *marks = get_args(annotation)
        short = next((mark for mark in marks if isinstance(mark, Shorthand)), None)
        if _secret_members(annotation) is not None:
            yield annotation
        elif short is not None and _is_model(inner):
            yield inner.model_fields[short.field].annotation
        else:
            yield from _of_scalar(inner)
    elif origin in {Union, UnionType}:
        yield from of_scalar(get_args(annotation))
    else:
        yield annotation


def _parts(annotation: Any) -> list[Any]:
    if _is_model(annotation):
        return [field.annotation for field in annotation.model_fields.values()]
    return list(get_args(annotation))


def _members(annotation: Any) -> Iterator[Any]:
    """Iterate over the members of a union, and strip what only decorates a type."""
    annotation = getattr(annotation, "__value__", annotation)  # a `type` alias
    origin = get_origin(annotation)
    if origin is Annotated and _secret_members(annotation) is None:
        yield from _members(get_args(annotation)[0])
    elif origin in {Union, UnionType}:
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _secret_members(annotation: Any) -> SecretMembers | None:
    marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((mark for mark in marks if isinstance(mark, SecretMembers)), None)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
