"""From a request to its route: compiled at load, so that a match costs the same among ten routes and ten thousand."""

from __future__ import annotations

import heapq
import re
import sys
from collections.abc import Generator, Iterator, Sequence
from typing import Generic, TypeVar

from portico.http.message import Key, Request
from portico.routing.candidate import Candidate, by_preference, in_order
from portico.routing.entry import Entry, Facts
from portico.routing.pattern import ANY_HOST, HostPattern
from portico.routing.preflight import UNANSWERED_PREFLIGHT, asked_about
from portico.routing.trie import Trie

R = TypeVar("R")

ALLOWED_METHODS: Key[tuple[str, ...]] = Key("allowed-methods")
"""Where no route was found but for the method: the methods that the path has, sorted, for the Allow header."""

_FOUND = 256
"""Heads of which a matcher remembers what it has found for them; a worker knows about half as many at a time."""

_STEP = 32
"""Candidates that are dealt with in one step of compiling."""


class _Table(Generic[R]):
    """The candidates of one host pattern.

    Exact paths are looked up; regular expressions are tried one after the other, which is all here that grows with the
    number of routes; the rest is in the trie. `floor` is the best rank in the table, `_trie_floor` that in its trie.
    """

    __slots__ = ("_exact", "_regexes", "_trie", "_trie_floor", "floor")

    def __init__(self) -> None:
        self._exact: dict[str, list[Candidate[R]]] = {}
        self._regexes: list[tuple[re.Pattern[str], Candidate[R]]] = []
        self._trie: Trie[Candidate[R]] = Trie()
        self._trie_floor = sys.maxsize
        self.floor = sys.maxsize

    def add(self, candidate: Candidate[R]) -> None:
        """File one candidate; they come in order of preference."""
        self.floor = min(self.floor, candidate.rank)
        exact = candidate.path.exact
        if exact is not None:
            self._exact.setdefault(exact, []).append(candidate)
        elif candidate.path.regex is not None:
            self._regexes.append((candidate.path.regex, candidate))
        else:
            self._trie.place(candidate.path).append(candidate)
            self._trie_floor = min(self._trie_floor, candidate.rank)

    def search(self, request: Request, best: Candidate[R] | None) -> Candidate[R] | None:
        """Return the most preferred candidate here that takes `request`, or `best` where that goes before it."""
        path = request.path
        exact = self._exact.get(path)
        if exact is not None:
            best = _prefer(exact, request, best)
        for regex, candidate in self._regexes:
            if best is not None and best.rank < candidate.rank:
                break
            if regex.fullmatch(path) is not None:
                best = _prefer((candidate,), request, best)
        if best is None or self._trie_floor < best.rank:
            found = self._trie.find(path)
            while found:  # from the end: what is deeper is likely to be preferred
                best = _prefer(found.pop(), request, best)
        return best

    def dismantle(self) -> Iterator[None]:
        """Let go of everything, a little at each step."""
        while self._exact:
            self._exact.popitem()
            yield
        while self._regexes:
            self._regexes.pop()
            yield
        yield from self._trie.dismantle()

    def on_path(self, path: str) -> Iterator[Candidate[R]]:
        """Yield every candidate that takes `path`, whatever else it asks for."""
        yield from self._exact.get(path, ())
        for regex, candidate in self._regexes:
            if regex.fullmatch(path) is not None:
                yield candidate
        for candidates in self._trie.find(path):
            yield from candidates


def _prefer(candidates: Sequence[Candidate[R]], request: Request, best: Candidate[R] | None) -> Candidate[R] | None:
    """Return the first of `candidates`, whose path is known to match, that takes `request`; or `best`, if preferred."""
    facts: Facts | None = None
    for candidate in candidates:
        if best is not None and best.rank < candidate.rank:
            break
        if candidate.methods is not None and request.method not in candidate.methods:
            continue
        if candidate.conditions:
            if facts is None:
                facts = Facts(request)
            if not all(condition.holds(facts) for condition in candidate.conditions):
                continue
        return candidate
    return best


def _rank(candidate: Candidate[R]) -> int:
    return candidate.rank


def _search(request: Request, tables: tuple[_Table[R], ...]) -> Candidate[R] | None:
    """Return the most preferred candidate in `tables`, which come from narrow hosts to wide ones, for `request`."""
    best: Candidate[R] | None = None
    for table in tables:
        if best is None or table.floor < best.rank:
            best = table.search(request, best)
    return best


class Matcher(Generic[R]):
    """The routes of a runtime, compiled."""

    __slots__ = ("_anywhere", "_found", "_hosts", "_no_route", "_preflights", "_wildcards", "_wrong_method")

    def __init__(self, entries: Sequence[Entry[R]], no_route: R, wrong_method: R) -> None:
        self._no_route = no_route
        self._wrong_method = wrong_method
        self._anywhere: tuple[_Table[R], ...] = ()
        self._hosts: dict[str, tuple[_Table[R], ...]] = {}
        self._wildcards: dict[str, tuple[_Table[R], ...]] = {}
        self._preflights = False
        self._found: dict[object, Candidate[R]] = {}
        for _ in self._compile(entries):
            pass

    @classmethod
    def gradually(cls, entries: Sequence[Entry[R]], no_route: R, wrong_method: R) -> Generator[None, None, Matcher[R]]:
        """Return a matcher, made in steps of about a millisecond, between which the caller may let others run."""
        self = cls((), no_route, wrong_method)
        yield from self._compile(entries)
        return self

    def _compile(self, entries: Sequence[Entry[R]]) -> Iterator[None]:
        runs: list[list[Candidate[R]]] = []
        for start in range(0, len(entries), _STEP):
            runs.append(in_order(entries[start : start + _STEP]))
            yield
        hosts: dict[HostPattern, _Table[R]] = {}
        for rank, candidate in enumerate(heapq.merge(*runs, key=by_preference)):
            candidate.rank = rank
            self._preflights = self._preflights or candidate.preflights
            if candidate.host not in hosts:
                hosts[candidate.host] = _Table()
            hosts[candidate.host].add(candidate)
            if rank % _STEP == 0:
                yield
        for number, host in enumerate(hosts):
            self._add_host(host, tuple(hosts[wider] for wider in host.wider() if wider in hosts))
            if number % _STEP == 0:
                yield

    def _add_host(self, host: HostPattern, tables: tuple[_Table[R], ...]) -> None:
        if host == ANY_HOST:
            self._anywhere = tables
        elif host.text.startswith("*"):
            self._wildcards[host.text.removeprefix("*")] = tables
        else:
            self._hosts[host.text] = tables

    def dismantle(self) -> Iterator[None]:
        """Let go of everything, a little at each step: to free ten thousand routes at once takes its time."""
        every = [*self._hosts.values(), *self._wildcards.values(), self._anywhere]
        tables = list({id(table): table for tables in every for table in tables}.values())
        self._hosts, self._wildcards, self._anywhere, self._found = {}, {}, (), {}
        for table in tables:
            yield from table.dismantle()

    def match(self, request: Request) -> R:
        """Return the payload of the route that takes `request`, and set its captures if the route has any.

        Where there is none, return the payload for a wrong method, with ALLOWED_METHODS set on the request, if another
        method would have found a route; and otherwise the one for no route. A CORS preflight goes to the route of the
        request that it asks about, if that answers preflights.
        """
        known = request.known
        if known is not None:  # all that is looked at is of the head, so what was found for it once is found again
            found = self._found.get(known)
            if found is not None:
                if found.captures:
                    request.captures = found.path.captures(request.path)
                return found.payload
        tables = self._anywhere
        if self._hosts or self._wildcards:
            tables = self._tables(request.host)
        best: Candidate[R] | None = None
        if request.method == "OPTIONS" and self._preflights:
            best = self._preflighted(request, tables)
        if best is None:
            best = _search(request, tables)
        if best is None:
            return self._miss(request, tables)
        if known is not None and request.method != "OPTIONS":
            if len(self._found) >= _FOUND:
                self._found.clear()
            self._found[known] = best
        if best.captures:
            request.captures = best.path.captures(request.path)
        return best.payload

    def on_path(self, host: str, path: str) -> Iterator[Candidate[R]]:
        """Yield every candidate that takes the path at a host, whatever else it asks for, the most preferred first."""
        found = [candidate for table in self._tables(host) for candidate in table.on_path(path)]
        return iter(sorted(found, key=_rank))

    def _preflighted(self, request: Request, tables: tuple[_Table[R], ...]) -> Candidate[R] | None:
        """Return what answers `request` for the one that it asks about; None where it is to be taken as any other."""
        asked = asked_about(request)
        best = None if asked is None else _search(asked, tables)
        if best is None or best.preflights:
            return best
        request[UNANSWERED_PREFLIGHT] = True
        return None

    def _tables(self, host: str) -> tuple[_Table[R], ...]:
        """Return the tables of all host patterns that take `host`, from narrow to wide."""
        tables = self._hosts.get(host)
        if tables is not None:
            return tables
        if self._wildcards:
            dot = host.find(".", 1)
            while dot > 0:  # few times: `parse_host` lets no host pass that is longer than DNS has them
                tables = self._wildcards.get(host[dot:])
                if tables is not None:
                    return tables
                dot = host.find(".", dot + 1)
        return self._anywhere

    def _miss(self, request: Request, tables: tuple[_Table[R], ...]) -> R:
        """Tell a path that no route has from one that only lacks the method."""
        facts = Facts(request)
        allowed: set[str] = set()
        for table in tables:
            for candidate in table.on_path(request.path):
                if candidate.methods and all(condition.holds(facts) for condition in candidate.conditions):
                    allowed |= candidate.methods
        if not allowed:
            return self._no_route
        request[ALLOWED_METHODS] = tuple(sorted(allowed))
        return self._wrong_method
