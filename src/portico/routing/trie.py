"""Path patterns, filed by their segments: finding those that take a path costs as much as the path is deep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from portico.routing.pattern import Glob, PathPattern

T = TypeVar("T")


class _Node(Generic[T]):
    """A place in the trie: what may come next, and what is filed under the patterns that end here.

    `depth` is the number of the segment that leads on from here, from one.
    """

    __slots__ = ("any", "depth", "end", "globs", "static", "tail")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.static: dict[str, _Node[T]] = {}
        self.globs: _Globs[T] | None = None
        self.any: _Node[T] | None = None
        self.end: list[T] | None = None
        self.tail: list[T] | None = None


class _Globs(Generic[T]):
    """The globs that lead on from one place.

    They are filed by what they begin with, and then by what they end with, so that thousands of one make, as in
    `report-17-*.csv`, cost as many lookups as there are lengths of beginnings.
    """

    __slots__ = ("_prefixes",)

    def __init__(self) -> None:
        self._prefixes: dict[int, dict[str, _Suffixes[T]]] = {}

    def place(self, shape: str, depth: int) -> _Node[T]:
        """Return the node behind `shape`, a new one if need be."""
        glob = Glob(shape)
        alike = self._prefixes.setdefault(len(glob.prefix), {}).setdefault(glob.prefix, {})
        filed = alike.setdefault(len(glob.suffix), {}).setdefault(glob.suffix, {})
        if shape not in filed:
            filed[shape] = glob, _Node(depth)
        return filed[shape][1]

    def find(self, segment: str) -> list[_Node[T]]:
        """Return the nodes behind those globs that take `segment`."""
        found: list[_Node[T]] = []
        for length, prefixes in self._prefixes.items():
            suffixes = prefixes.get(segment[:length])
            if suffixes is not None:
                for size, filed in suffixes.items():
                    same = filed.get(segment[len(segment) - size :]) if size <= len(segment) else None
                    if same is not None:
                        found += [node for glob, node in same.values() if glob.takes(segment)]
        return found

    def nodes(self) -> list[_Node[T]]:
        """Return the nodes behind all of them."""
        suffixes = [each for prefixes in self._prefixes.values() for each in prefixes.values()]
        filed = [each for sizes in suffixes for shapes in sizes.values() for each in shapes.values()]
        return [node for shapes in filed for _, node in shapes.values()]


_Suffixes = dict[int, dict[str, dict[str, tuple[Glob, _Node[T]]]]]


class Trie(Generic[T]):
    """Lists of things, each filed under the shape of a path pattern; what captures are called makes no difference.

    There is a bound to what any path costs: each node stands at one depth, so it is visited at most once, and a path is
    not taken apart any deeper than the deepest pattern.
    """

    __slots__ = ("_depth", "_root")

    def __init__(self) -> None:
        self._root: _Node[T] = _Node(1)
        self._depth = 1

    def place(self, pattern: PathPattern) -> list[T]:
        """Return the list that is filed under the shape of `pattern`, which is no regular expression."""
        node = self._root
        for segment in pattern.shape:
            node = _next(node, segment)
        self._depth = max(self._depth, node.depth)
        if pattern.tail:
            if node.tail is None:
                node.tail = []
            return node.tail
        if node.end is None:
            node.end = []
        return node.end

    def dismantle(self) -> Iterator[None]:
        """Let go of everything, a little at each step."""
        nodes, self._root = [self._root], _Node(1)
        while nodes:
            node = nodes.pop()
            nodes += node.static.values()
            if node.any is not None:
                nodes.append(node.any)
            if node.globs is not None:
                nodes += node.globs.nodes()
            yield

    def find(self, path: str) -> list[list[T]]:
        """Return the lists that are filed under the patterns that take `path`, in no order to rely on."""
        segments = path.split("/", self._depth)  # what is too deep for every pattern stays in one piece, the last
        found: list[list[T]] = []
        if segments[0]:
            return found  # the asterisk of OPTIONS
        forks: list[_Node[T]] = []
        node = self._root
        while True:
            for segment in segments[node.depth :]:
                if node.tail is not None:
                    found.append(node.tail)
                if node.globs is not None:
                    forks += node.globs.find(segment)
                child = node.static.get(segment)
                if node.any is not None and segment:
                    if child is None:
                        child = node.any
                    else:
                        forks.append(node.any)
                if child is None:
                    break
                node = child
            else:
                if node.tail is not None:
                    found.append(node.tail)
                if node.end is not None:
                    found.append(node.end)
            if not forks:
                return found
            node = forks.pop()


def _next(node: _Node[T], segment: str) -> _Node[T]:
    """Return the node that one segment of a pattern's shape leads to, a new one if need be."""
    depth = node.depth + 1
    if segment == "*":
        if node.any is None:
            node.any = _Node(depth)
        return node.any
    if "*" in segment:
        if node.globs is None:
            node.globs = _Globs()
        return node.globs.place(segment, depth)
    child = node.static.get(segment)
    if child is None:
        child = node.static[segment] = _Node(depth)
    return child
