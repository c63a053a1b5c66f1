"""Routes that can never match, since another one that goes before them takes every request that they would take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from portico.routing.candidate import Candidate, in_order
from portico.routing.entry import Condition, Entry
from portico.routing.pattern import HostPattern
from portico.routing.trie import Trie

R = TypeVar("R")

_EVERY_PATH = ("~/.*", "~.*")
"""Regular expressions that are known to take every path; what others take is not looked into."""


@dataclass(frozen=True, slots=True)
class Shadow(Generic[R]):
    """A path of a route under one of its hosts that no request ever takes, and what is always taken instead."""

    candidate: Candidate[R]
    by: Candidate[R]


class _Bucket(Generic[R]):
    """The candidates of one shape of path, filed by host and by one of their conditions, or None for those without."""

    __slots__ = ("_filed",)

    def __init__(self) -> None:
        self._filed: dict[tuple[HostPattern, Condition | None], list[Candidate[R]]] = {}

    def add(self, candidate: Candidate[R], condition: Condition | None) -> None:
        """File a candidate under one of its conditions."""
        self._filed.setdefault((candidate.host, condition), []).append(candidate)

    def over(self, candidate: Candidate[R], implied: Iterable[Condition]) -> Candidate[R] | None:
        """Return one that takes all that `candidate` takes, which takes no request but where those `implied` hold."""
        conditions = {None, *implied}
        for host in candidate.host.wider():
            for condition in conditions:
                for other in self._filed.get((host, condition), ()):
                    if _covers(other, candidate) and conditions.issuperset(other.conditions):
                        return other
        return None


def _covers(wide: Candidate[R], narrow: Candidate[R]) -> bool:
    """Return whether `wide`, found in a bucket for `narrow`, has its methods and path indeed and is another route's."""
    if wide.entry is narrow.entry or (narrow.path.tail and not wide.path.tail and wide.path.regex is None):
        return False
    return wide.methods is None or (narrow.methods is not None and narrow.methods <= wide.methods)


class _Preferred(Generic[R]):
    """The candidates that go before the one that is looked at.

    The trie finds the patterns that are wider than a given one just as it finds those that take a path: for a shape is
    a path in which an asterisk stands for itself, and only an asterisk of a wider shape can take it.
    """

    def __init__(self) -> None:
        self._trie: Trie[_Bucket[R]] = Trie()
        self._regexes: dict[str, _Bucket[R]] = {}

    def buckets(self, candidate: Candidate[R]) -> Iterator[_Bucket[R]]:
        """Yield the buckets in which there may be one that is wider."""
        path = candidate.path
        # The asterisk of OPTIONS is taken by regular expressions only, and by `/.*` not even then.
        texts = _EVERY_PATH if path.regex is None else (path.text, "~.*")
        for text in texts:
            if text in self._regexes:
                yield self._regexes[text]
        if path.regex is None:
            for buckets in self._trie.find("/" + "/".join(path.shape)):
                yield from buckets

    def add(self, candidate: Candidate[R], condition: Condition | None) -> None:
        """File a candidate; they come in order of preference."""
        path = candidate.path
        if path.regex is not None:
            self._regexes.setdefault(path.text, _Bucket()).add(candidate, condition)
            return
        buckets = self._trie.place(path)
        if not buckets:
            buckets.append(_Bucket())
        buckets[0].add(candidate, condition)


def find_shadows(entries: Iterable[Entry[R]]) -> list[Shadow[R]]:
    """Return what can never match, in order of preference.

    Each one found is certain; not found are those that only several routes together take everything from, and those
    where one regular expression would have to be compared with another, or with a pattern. The time is near to linear:
    routes that share a path are filed by host and by the rarest of their conditions.
    """
    candidates = in_order(entries)
    frequency = Counter(condition for candidate in candidates for condition in candidate.conditions)
    preferred: _Preferred[R] = _Preferred()
    shadows = []
    for candidate in candidates:
        implied = {wider for condition in candidate.conditions for wider in condition.wider()}
        found = (bucket.over(candidate, implied) for bucket in preferred.buckets(candidate))
        by = next((other for other in found if other is not None), None)
        if by is None:
            rarest = min(candidate.conditions, key=frequency.__getitem__, default=None)
            preferred.add(candidate, rarest)
        else:
            # What this one shadows, `by` shadows as well.
            shadows.append(Shadow(candidate, by))
    return shadows
