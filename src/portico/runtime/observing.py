"""Who watches: what one configuration wants to be told of each request, compiled for each of its routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from portico.config.schema import Config
from portico.http.message import Observer, Request
from portico.observe.exchange import Exchange
from portico.runtime.web import Web


class Stand(NamedTuple):
    """A policy where it stands around a route."""

    name: str
    kind: str
    scope: str
    """`global`, `service` or `route`."""
    origin: str
    """Where the file has it: `file:line:column`."""
    when: str
    """Its condition; empty where it has none."""


class Watched(NamedTuple):
    """A route, as those who watch know it."""

    name: str
    path: str
    """Its first path, as the file has it; empty where it is of all that comes to no route."""
    service: str
    """The service of the file that it ends in; empty where it ends in none."""
    origin: str = ""
    """Where the file has it: `file:line:column`."""
    end: str = ""
    """What it ends in: `service orders`, `respond`."""
    policies: tuple[Stand, ...] = ()
    """What stands around it, the outermost first."""
    probed: bool = False
    """Whether it is one that every configuration has, for probes and scrapes."""


class Ground(NamedTuple):
    """What those who watch are given at load."""

    config: Config
    share: Callable[[tuple[object, ...], Callable[[], Any]], Any]
    """Leases a value under a key, which is closed once no configuration has it any more."""
    web: Callable[[], Web]
    """Makes what asks hosts that are no services of the file; whoever has it closes it."""


class Watch(Protocol):
    """Something that watches requests: metrics, a log, traces."""

    def of_route(self, route: Watched) -> Observer | None:
        """Return who sees the exchanges of a route; None where this does not watch it. Called at load."""
        ...

    def of_rest(self) -> Observer | None:
        """Return who sees what comes to no route: malformed requests, and redirects to https."""
        ...


class Several(Observer):
    """Some observers as one, called in their order; of what one of them leaves to Observer, it is not told."""

    __slots__ = ("_of_answers", "_of_ends")

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._of_answers = [each for each in observers if type(each).answering is not Observer.answering]
        self._of_ends = [each for each in observers if type(each).ended is not Observer.ended]

    def answering(self, exchange: Exchange, request: Request | None) -> None:
        """Tell each of them."""
        for observer in self._of_answers:
            observer.answering(exchange, request)

    def ended(self, exchange: Exchange, request: Request | None) -> None:
        """Tell each of them."""
        for observer in self._of_ends:
            observer.ended(exchange, request)


def joined(observers: Iterable[Observer | None]) -> Observer | None:
    """Return some observers as one; None where there are none."""
    there = [observer for observer in observers if observer is not None]
    return Several(there) if len(there) > 1 else there[0] if there else None
