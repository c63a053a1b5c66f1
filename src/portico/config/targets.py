"""A list of targets in a file of its own, as `discover: {file: ...}` has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from portico.config.balance import MAX_TARGETS, Target
from portico.config.build import build
from portico.config.compose import compose
from portico.config.document import read_text
from portico.config.findings import Finding, Findings, Place
from portico.config.forms import Shorthand
from portico.config.nodes import Entry, Fields, Items, Node, describe, is_null
from portico.config.part import Part
from portico.config.source import FileSource
from portico.config.substitute import Unfilled
from portico.config.values import why_unreadable

_HINT = "write a list: [10.0.0.7:8080, 10.0.0.8:8080]"


class _Targets(Part):
    """What stands in the file."""

    targets: tuple[Annotated[Target, Shorthand("address")], ...]
    """Its items."""


def read_targets(path: str) -> tuple[tuple[Target, ...], tuple[Finding, ...]]:
    """Return the targets that a file lists, in YAML or JSON, and what is wrong with it: then they are none."""
    findings = Findings()
    problem = why_unreadable(path)
    if problem:
        findings.error(Place(path), f"cannot read {path}: {problem}")
        return (), findings.sorted()
    source = FileSource(path)
    text = read_text(source, path, Place(path), findings)
    node = None if text is None else compose(path, text, Unfilled(source, {}, findings), findings)
    targets = () if node is None else tuple(_targets(node, findings))
    return () if findings.failed else targets, findings.sorted()


def _targets(node: Node, findings: Findings) -> Iterator[Target]:
    if not isinstance(node, Items):
        what = "there is nothing here" if is_null(node) else f"expected a list of targets, not {describe(node)}"
        findings.error(node.place, what, _HINT)
        return
    if len(node.nodes) > MAX_TARGETS:
        many = f"{len(node.nodes)} targets are more than {MAX_TARGETS}"
        findings.error(node.place, many, "divide them among several services")
        return
    fields = Fields(node.place, {"targets": Entry(node.place, node)})
    built = build(_Targets, fields, "the list of targets", findings)
    if built is None:
        return
    places: dict[str, Place] = {}
    for item, target in zip(node.nodes, built.targets, strict=True):
        if str(target) in places:
            hint = f"keep one, and give it a larger weight; the first is at {places[str(target)]}"
            findings.error(item.place, f"the target {target} stands there twice", hint)
        places[str(target)] = item.place
        yield target
