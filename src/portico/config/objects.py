"""Which object of a configuration a place is in, so that what is wrong can be told by whose it is."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from portico.config.findings import Place
from portico.config.nodes import Fields, Items, Node, Scalar

_NAMED: Final = MappingProxyType({"services": "service", "consumers": "consumer"})


class Objects:
    """The objects of a document: its services, consumers and routes, and its other keys."""

    def __init__(self, root: Fields) -> None:
        self._begin: dict[str, list[tuple[int, int, str]]] = {}
        for place, name in _objects(root):
            self._begin.setdefault(place.file, []).append((place.line, place.column, name))
        for begin in self._begin.values():
            begin.sort()

    def at(self, place: Place) -> str:
        """Return what `place` is in, such as `service orders`, `route checkout` or `listen`: what begins last ahead of
        it in its file. Empty where nothing does."""
        begin = self._begin.get(place.file, [])
        number = bisect_right(begin, (place.line, place.column, "\U0010ffff"))
        return begin[number - 1][2] if number else ""


def _objects(root: Fields) -> Iterator[tuple[Place, str]]:
    for key, entry in root.entries.items():
        yield entry.key, key
        node = entry.node
        if key in _NAMED and isinstance(node, Fields):
            yield from ((each.key, f"{_NAMED[key]} {name}") for name, each in node.entries.items())
        elif key == "routes" and isinstance(node, Items):
            yield from ((each.place, _route(each, number)) for number, each in enumerate(node.nodes, 1))


def _route(node: Node, number: int) -> str:
    """Return what a route is called: by its name, or its first path, or its number in the list."""
    entries = node.entries if isinstance(node, Fields) else {}
    for key in ("name", "path"):
        named = entries[key].node if key in entries else None
        if isinstance(named, Items) and named.nodes:
            named = named.nodes[0]
        if isinstance(named, Scalar) and named.text and not named.secret:
            return f"route {named.text}"
    return f"route {number}"
