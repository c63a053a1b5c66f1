"""Why a request gets the route that it gets: every route, in order of preference, and what decided against it.

This looks at one route after the other and has nothing from the trie: it is also what the matcher is tested against.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from portico.http.message import Request
from portico.routing.candidate import Candidate, Preference, by_preference, candidates_of
from portico.routing.entry import Entry, Facts
from portico.routing.preflight import asked_about

R = TypeVar("R")

_ADVANTAGES = {
    "priority": "a higher priority: {priority}",
    "host": "a more specific host: {host}",
    "path": "a more specific path: {path}",
    "turn": "a regular expression earlier in the list: {path}",
    "methods": "the same path with methods: {path}",
    "headers": "the same path with more header conditions: {path}",
    "values": "the same path with more query and cookie conditions: {path}",
    "order": "the same path earlier in the list: {path}",
}


@dataclass(frozen=True, slots=True)
class Verdict(Generic[R]):
    """What became of one route: whether it won, and a sentence on why, or why not.

    `near` says that it matches the request's host and path.
    """

    entry: Entry[R]
    won: bool
    reason: str
    near: bool


@dataclass(frozen=True, slots=True)
class Explanation(Generic[R]):
    """A verdict on each route, in order of preference, and what the request comes to.

    With no winner, `allowed` has the sorted methods for which there would be one: empty means 404, otherwise 405.
    """

    verdicts: tuple[Verdict[R], ...]
    winner: Candidate[R] | None
    captures: dict[str, str]
    allowed: tuple[str, ...]


class _Trial(Generic[R]):
    """One route before one request.

    `foremost` is the most preferred of its candidates that come as far as any of them; `shortfall` is what it lacks.
    """

    __slots__ = ("allowed", "entry", "foremost", "near", "shortfall")

    def __init__(self, entry: Entry[R], request: Request, facts: Facts) -> None:
        self.entry = entry
        self.allowed: frozenset[str] = frozenset()
        everything = candidates_of(entry)
        on_host = [candidate for candidate in everything if candidate.host.match(request.host)]
        on_path = [candidate for candidate in on_host if candidate.path.match(request.path)]
        self.foremost: Candidate[R] = min(on_path or on_host or everything, key=by_preference)
        self.near = bool(on_path)
        self.shortfall = ""
        if not on_host:
            self.shortfall = f"host {request.host!r} does not match {', '.join(map(str, entry.hosts))}"
        elif not on_path:
            paths = dict.fromkeys(str(candidate.path) for candidate in on_host)
            self.shortfall = f"path {request.path} does not match {', '.join(paths)}"
        else:
            self._look_beyond_path(request, facts)

    def _look_beyond_path(self, request: Request, facts: Facts) -> None:
        methods = self.entry.allowed
        failed = [condition for condition in self.entry.conditions if not condition.holds(facts)]
        if methods is not None and request.method not in methods:
            self.shortfall = f"method {request.method} is not one of {', '.join(sorted(methods))}"
            if not failed:
                self.allowed = methods
        elif failed:
            self.shortfall = "; ".join(condition.shortfall(facts) for condition in failed)


def _by_preference(trial: _Trial[R]) -> Preference:
    return trial.foremost.preference


def explain(entries: Iterable[Entry[R]], request: Request) -> Explanation[R]:
    """Return what becomes of `request` among `entries`, and why; the request is left as it is."""
    entries = tuple(entries)
    asked = asked_about(request)
    if asked is not None:
        explanation = _explain(entries, asked, f"takes the {asked.method} that this preflight asks about")
        if explanation.winner is not None and explanation.winner.preflights:
            return explanation
    return _explain(entries, request, "takes the request")


def _explain(entries: Iterable[Entry[R]], request: Request, takes: str) -> Explanation[R]:
    facts = Facts(request)
    trials = sorted((_Trial(entry, request, facts) for entry in entries), key=_by_preference)
    winner = next((trial for trial in trials if not trial.shortfall), None)
    verdicts = []
    for trial in trials:
        if trial is winner:
            reason = f"won: {trial.foremost.path} {takes}"
        elif winner is None or trial.shortfall:
            reason = trial.shortfall
        else:
            reason = _defeat(trial.foremost, winner.foremost)
        verdicts.append(Verdict(trial.entry, trial is winner, reason, trial.near))
    if winner is None:
        allowed = {method for trial in trials for method in trial.allowed}
        return Explanation(tuple(verdicts), None, {}, tuple(sorted(allowed)))
    return Explanation(tuple(verdicts), winner.foremost, winner.foremost.path.captures(request.path), ())


def _defeat(loser: Candidate[R], winner: Candidate[R]) -> str:
    """Return what the winner has that the loser, which takes the request as well, has not."""
    pairs = zip(Preference._fields, loser.preference, winner.preference, strict=True)
    decisive = next((field for field, mine, other in pairs if mine != other), "order")
    advantage = _ADVANTAGES[decisive].format(priority=winner.entry.priority, host=winner.host, path=winner.path)
    return f"lost to {advantage}"
