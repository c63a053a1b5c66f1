"""The tree of a YAML text, every part of which knows its place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from portico.config.findings import Place

SHOWN = 60
"""How much of a value is repeated in a message."""

Value: TypeAlias = str | int | float | bool | None
Plain: TypeAlias = Value | list["Plain"] | dict[str, "Plain"]


@dataclass(slots=True, eq=False)
class Scalar:
    """One value: its text after substitution, and what YAML makes of the text."""

    place: Place
    text: str
    value: Value
    secret: bool = False
    """Whether it came out of a secret's file, so that no message may repeat it."""
    broken: bool = False
    """Whether a substitution in it failed, so that all further complaints about it would be noise."""


@dataclass(slots=True, eq=False)
class Items:
    """A list."""

    place: Place
    nodes: list[Node]


class Entry(NamedTuple):
    """What stands under one key of a mapping, and where the key is."""

    key: Place
    node: Node


@dataclass(slots=True, eq=False)
class Fields:
    """A mapping; a key is its text, whatever YAML would make of it."""

    place: Place
    entries: dict[str, Entry]

    def without(self, *keys: str) -> Fields:
        """Return the same mapping without `keys`."""
        return Fields(self.place, {key: entry for key, entry in self.entries.items() if key not in keys})


Node: TypeAlias = Scalar | Items | Fields


def is_null(node: Node) -> bool:
    """Whether nothing was written: `routes:` with every route commented out."""
    return isinstance(node, Scalar) and node.value is None and not node.broken


def describe(node: Node) -> str:
    """Return what a message calls this node; a secret is not repeated, a long text not to its end."""
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Fields):
        return "a mapping"
    if node.secret:
        return "what the file holds"
    if node.value is None:
        return "nothing"
    text = node.text if len(node.text) <= SHOWN else f"{node.text[:SHOWN]}…"
    return repr(text) if isinstance(node.value, str) else text


def plain(node: Node, as_text: Collection[Node] = ()) -> Plain:
    """Return the values of a tree without their places; scalars in `as_text` give their text."""
    if isinstance(node, Scalar):
        return node.text if node in as_text else node.value
    if isinstance(node, Items):
        return [plain(item, as_text) for item in node.nodes]
    return {key: plain(entry.node, as_text) for key, entry in node.entries.items()}


class Found(NamedTuple):
    """How far a path leads into a tree: the node there, the place of its key, and how many steps were taken."""

    node: Node
    key: Place
    steps: int


def find(node: Node, path: Sequence[str | int]) -> Found:
    """Follow `path` as far as it leads: a step that the text spared its writer leads nowhere."""
    key = node.place
    for steps, step in enumerate(path):
        if isinstance(node, Fields) and str(step) in node.entries:
            key, node = node.entries[str(step)]
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.nodes):
            node = node.nodes[step]
            key = node.place
        else:
            return Found(node, key, steps)
    return Found(node, key, len(path))


def scalars(node: Node) -> Iterator[Scalar]:
    """Iterate over the scalars of a tree."""
    if isinstance(node, Scalar):
        yield node
    elif isinstance(node, Items):
        for item in node.nodes:
            yield from scalars(item)
    else:
        for entry in node.entries.values():
            yield from scalars(entry.node)
