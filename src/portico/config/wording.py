"""Pydantic's verdict on a part of the file, told at the place of the mistake and in the words of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from portico.config.annotations import below, field_of, holds_secret, is_secret, keys_of, of_scalar
from portico.config.findings import Findings, Place
from portico.config.nearest import did_you_mean, one_of
from portico.config.nodes import Fields, Items, Node, Scalar, describe, find, is_null, scalars
from portico.config.values import BadValue

Path = tuple[str | int, ...]

LONGEST = 500
"""How long a message may be: it may repeat what a policy's validator repeats."""

_EXPECTED: dict[str, str] = {
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), "a text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "a mapping"),
    **dict.fromkeys(("literal_error", "enum"), "{expected}"),
    "none_required": "nothing",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "string_pattern_mismatch": "a text like {pattern}",
    "string_too_short": "{min_length} or more characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "{min_length} or more items",
    "too_long": "at most {max_length} items",
}
_KEY = "[key]"
_HIDDEN = "***"


def unknown_key(
    key: str, place: Place, what: str, known: Sequence[str], findings: Findings, *, shown: bool = True
) -> None:
    """Note a key that has no meaning where it stands; it is not `shown` where it may be meant for a secret."""
    hint = did_you_mean(key, known) or (f"{what} can have {one_of(known, 'and')}" if 0 < len(known) <= 20 else "")
    findings.error(place, f"unknown key '{key}' in {what}" if shown else f"unknown key in {what}", hint)


class Fault(NamedTuple):
    """One of pydantic's errors, and where in the file it is."""

    type: str
    details: ErrorDetails
    path: Path
    """The steps of its location that the file has; names of union members, for example, are none."""
    node: Node
    key: Place
    """Where the key of the node is."""

    @property
    def last(self) -> str:
        """The last step of pydantic's location: the key that is missing, or not known."""
        return str(self.details["loc"][-1]) if self.details["loc"] else ""

    @property
    def is_rough(self) -> bool:
        """Whether a mistake further inside tells more: here a member of a union gave up, or wrong items were missed."""
        return len(self.path) < len(self.details["loc"]) or self.type == "too_short"

    @property
    def expected(self) -> str | None:
        """What would be right, in a few words; None where only a sentence can say it."""
        if self.type in _EXPECTED:
            return _EXPECTED[self.type].format(
                **{key: _number(value) for key, value in self.details.get("ctx", {}).items()}
            )
        message = self.details["msg"]
        stem = "Input should be "
        return message.removeprefix(stem) if message.startswith(stem) else None


def _number(value: object) -> object:
    """Return a bound as people write it: 0, not 0.0."""
    return f"{value:g}" if isinstance(value, float) else value


def located(details: ErrorDetails, node: Node) -> Fault:
    """Return one of pydantic's errors with its place under `node`."""
    path: Path = ()
    for step in details["loc"]:
        if find(node, (*path, step)).steps > len(path):
            path = (*path, step)
    found = find(node, path)
    return Fault(details["type"], details, path, found.node, found.key)


class Report:
    """Tells the faults of one part of the file."""

    def __init__(self, model: type[BaseModel], node: Fields, what: str, findings: Findings) -> None:
        self._model = model
        self._what = what
        self._findings = findings
        self._secrets = set(_secrets(node, [model]))

    def tell(self, faults: Sequence[Fault]) -> None:
        """Note each fault; those of a union's members at the same node are one."""
        at_node: dict[tuple[Node, bool], list[Fault]] = {}
        around = {fault.path[:length] for fault in faults for length in range(len(fault.path))}
        for fault in faults:
            if fault.type == "extra_forbidden":
                known = keys_of(self._model, fault.path[:-1])
                shown = not self._may_be_secret(fault.path[:-1])
                unknown_key(fault.last, fault.key, self._name(fault.path[:-1]), known, self._findings, shown=shown)
            elif fault.type == "missing":
                self._missing(fault)
            elif not (_is_broken(fault.node) or (fault.is_rough and fault.path in around)):
                at_node.setdefault((fault.node, fault.last == _KEY), []).append(fault)
        for together in at_node.values():
            self._tell_one(together)

    def _may_be_secret(self, path: Path) -> bool:
        """Return whether a secret may stand where a mapping does: then a colon in it makes a key of it."""
        annotations: list[Any] = [self._model]
        for step in path:
            annotations = below(annotations, step)
        return any(map(is_secret, of_scalar(annotations)))

    def _missing(self, fault: Fault) -> None:
        field = field_of(self._model, fault.path, fault.last)
        hint = field.description if field is not None and field.description else ""
        self._error(fault.key, f"{self._name(fault.path)} needs '{fault.last}'", hint.partition("\n\n")[0])

    def _tell_one(self, faults: Sequence[Fault]) -> None:
        fault = faults[0]
        is_key = fault.last == _KEY
        place = fault.key if is_key else fault.node.place
        name = self._name(fault.path[:-1] if is_key else fault.path)
        phrases = list(dict.fromkeys(fault.expected for fault in faults if fault.expected is not None))
        sentences = [fault for fault in faults if fault.expected is None]
        if sentences:
            message, hint = _sentence(sentences[0].details)
            self._error(place, f"{name}: {message}", hint)
        else:
            given = repr(str(fault.path[-1])) if is_key else self._given(fault)
            message = f"{name}: expected {one_of(phrases)}, not {given}"
            self._error(place, message, self._mend(fault, phrases))

    def _given(self, fault: Fault) -> str:
        node = fault.node
        if isinstance(node, Scalar):
            return "this secret" if node.text in self._secrets else describe(node)
        if isinstance(node, Items) and fault.type in {"too_short", "too_long"}:
            return str(len(node.nodes))
        return describe(node)

    def _mend(self, fault: Fault, expected: list[str]) -> str:
        node = fault.node
        if not isinstance(node, Scalar) or is_null(node) or node.text in self._secrets:
            return ""
        if expected == ["a list"] and fault.path:
            return f"write {self._name(fault.path)}: [{node.text}]"
        allowed = re.findall(r"'([^']*)'", " ".join(expected))
        return did_you_mean(node.text, allowed)

    def _name(self, path: Path) -> str:
        """What a message calls the thing that `path` leads to: the last key on the way."""
        return next((step for step in reversed(path) if isinstance(step, str)), self._what)

    def _error(self, place: Place, message: str, hint: str) -> None:
        self._findings.error(place, self._shown(message), self._shown(hint))

    def _shown(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            for form in (secret, repr(secret)[1:-1]):
                text = text.replace(form, _HIDDEN)
        line = text.replace("\n", " ")
        return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def _is_broken(node: Node) -> bool:
    """Whether something in it could not be filled in, which was said: what is wrong now may only follow from that."""
    return any(scalar.broken for scalar in scalars(node))


def _sentence(details: ErrorDetails) -> tuple[str, str]:
    """Return what a validator said, and its hint."""
    error: Any = details.get("ctx", {}).get("error")
    if isinstance(error, BadValue):
        return error.message, error.hint
    message = str(error) if isinstance(error, Exception) else details["msg"]
    return message.removeprefix("Value error, ") or "this value is refused", ""


def _secrets(node: Node, annotations: list[Any]) -> Iterator[str]:
    """Iterate over the texts under `node` that no message may repeat."""
    if isinstance(node, Scalar):
        if node.text and (node.secret or holds_secret(of_scalar(annotations))):
            yield node.text
    elif isinstance(node, Items):
        for index, item in enumerate(node.nodes):
            yield from _secrets(item, below(annotations, index))
    else:
        for key, entry in node.entries.items():
            yield from _secrets(entry.node, below(annotations, key))
