"""From a node of the file to a model: what holds for every part of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from portico.config.annotations import file_keys
from portico.config.findings import Findings
from portico.config.nodes import Entry, Fields, Items, Node, Scalar, describe, is_null, plain
from portico.config.part import Part
from portico.config.values import Context, Services
from portico.config.wording import Report, located, unknown_key

M = TypeVar("M", bound=BaseModel)

# The parts are a fixed few; models of policies, which come and go with plugins, must not be kept alive by a cache.
_part_keys = cache(file_keys)


def build(
    model: type[M],
    node: Fields,
    what: str,
    findings: Findings,
    *,
    given: Mapping[str, object] | None = None,
    services: Services | None = None,
) -> M | None:
    """Return the `model` that `node` describes, or None with each mistake in `findings`.

    `what` is what messages call it; `given` are the fields that do not come out of the file; `services` are those that
    it may refer to.
    """
    context = Context(node.place.file, services)
    if issubclass(model, Part):
        node = _without_strangers(model, node, what, findings)
    as_text: set[Node] = set()
    while True:
        values = plain(node, as_text)
        assert isinstance(values, dict)
        try:
            return model.model_validate({**values, **(given or {})}, context=context)
        except ValidationError as error:
            faults = [located(fault, node) for fault in error.errors(include_url=False)]
        # Where a text is wanted, `2` and `1e5` are the texts "2" and "1e5": a password may well look like a number.
        numbers = {fault.node for fault in faults if fault.type == "string_type" and _has_text(fault.node)} - as_text
        if not numbers:
            break
        as_text |= numbers
    Report(model, node, what, findings).tell(faults)
    return None


def items_of(key: str, entry: Entry | None, findings: Findings) -> list[Node]:
    """Return the items of the list under `key`: none where there is none, with a finding for anything else."""
    if entry is None or is_null(entry.node):
        return []
    if isinstance(entry.node, Items):
        return entry.node.nodes
    is_shown = isinstance(entry.node, Scalar) and not entry.node.secret
    hint = f"write {key}: [{describe(entry.node)}]" if is_shown else "start each item with '-'"
    _wrong_kind(key, "a list", entry.node, hint, findings)
    return []


def entries_of(key: str, entry: Entry | None, findings: Findings) -> dict[str, Entry]:
    """Return the entries of the mapping under `key`, in the same way."""
    if entry is None or is_null(entry.node):
        return {}
    if isinstance(entry.node, Fields):
        return entry.node.entries
    _wrong_kind(key, "a mapping", entry.node, "write name: value, each on a line of its own", findings)
    return {}


def is_public(node: Scalar, what: str, findings: Findings) -> bool:
    """Whether `node` may be `what`, which logs and messages show: then it must not come out of a secret's file."""
    if node.secret:
        findings.error(
            node.place, f"{what} cannot come out of a file", "it is shown in logs and messages; write it here"
        )
    return not node.secret


def _wrong_kind(key: str, expected: str, node: Node, hint: str, findings: Findings) -> None:
    if not (isinstance(node, Scalar) and node.broken):
        findings.error(node.place, f"{key}: expected {expected}, not {describe(node)}", hint)


def _without_strangers(model: type[BaseModel], node: Fields, what: str, findings: Findings) -> Fields:
    """Return `node` without the keys that no file can give: pydantic would take `origin`, which is the loader's."""
    known = _part_keys(model)
    strangers = [key for key in node.entries if key not in known]
    for key in strangers:
        unknown_key(key, node.entries[key].key, what, list(known), findings)
    return node.without(*strangers) if strangers else node


def _has_text(node: Node) -> bool:
    return isinstance(node, Scalar) and not isinstance(node.value, str) and node.value is not None
