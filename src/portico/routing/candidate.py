"""The ways to reach routes, and the order in which they are preferred."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from portico.routing.entry import Entry, Part
from portico.routing.pattern import ANY_HOST, ANY_PATH, HostPattern, PathPattern, Specificity

R = TypeVar("R")


class Preference(NamedTuple):
    """What routes that take the same request are ordered by, the smallest first (as Kubernetes' HTTPRoute has it).

    The first field in which two differ is why one of them goes first.
    """

    priority: int
    host: tuple[int, int]
    path: Specificity
    turn: int
    methods: bool
    headers: int
    values: int
    order: tuple[int, int, int]


class Candidate(Generic[R]):
    """One way to reach a route: one of its paths under one of its hosts.

    `rank` is its place among all candidates in order of preference, from zero; the matcher sets it.
    """

    __slots__ = (
        "captures",
        "conditions",
        "entry",
        "host",
        "methods",
        "path",
        "payload",
        "preference",
        "preflights",
        "rank",
    )

    def __init__(self, entry: Entry[R], host: HostPattern, path: PathPattern, preference: Preference) -> None:
        self.entry = entry
        self.host = host
        self.path = path
        self.preference = preference
        self.rank = 0
        self.payload = entry.payload
        self.methods = entry.allowed
        self.conditions = entry.conditions
        self.preflights = entry.preflights
        self.captures = bool(path.names) or (path.regex is not None and bool(path.regex.groupindex))


def candidates_of(entry: Entry[R]) -> list[Candidate[R]]:
    """Return each way to reach `entry`, not ordered and not ranked yet."""
    headers = sum(condition.part is Part.HEADER for condition in entry.conditions)
    others = len(entry.conditions) - headers
    candidates = []
    for host_index, host in enumerate(entry.hosts or (ANY_HOST,)):
        for path_index, path in enumerate(entry.paths or (ANY_PATH,)):
            # Regular expressions are tried in the order of the list, whatever else their routes ask for.
            turn = 0 if path.regex is None else entry.order
            preference = Preference(
                -entry.priority,
                host.specificity,
                path.specificity,
                turn,
                entry.methods is None,
                -headers,
                -others,
                (entry.order, host_index, path_index),
            )
            candidates.append(Candidate(entry, host, path, preference))
    return candidates


def by_preference(candidate: Candidate[R]) -> Preference:
    """Return what candidates are sorted by."""
    return candidate.preference


def in_order(entries: Iterable[Entry[R]]) -> list[Candidate[R]]:
    """Return the candidates of all `entries` in order of preference."""
    candidates = [candidate for entry in entries for candidate in candidates_of(entry)]
    candidates.sort(key=by_preference)
    return candidates
