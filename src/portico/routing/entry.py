"""What the matcher is compiled from: routes, and their match conditions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar
from urllib.parse import parse_qsl

from portico.http.headers import check_name
from portico.http.message import Key, Request
from portico.routing.pattern import HostPattern, PathPattern

R = TypeVar("R")

ANNOUNCED: Key[frozenset[str]] = Key("announced-headers")
"""On the request that a CORS preflight asks about: the headers, in lower case, of which only the names are known."""


class Part(StrEnum):
    """The part of a request that a condition looks at."""

    HEADER = "header"
    QUERY = "query parameter"
    COOKIE = "cookie"


class Facts:
    """The values of one request that conditions ask for: each part is taken apart once, and only when asked for."""

    __slots__ = ("_cookies", "_query", "_request", "announced")

    def __init__(self, request: Request) -> None:
        self._request = request
        self.announced = request.get(ANNOUNCED)
        """The headers that are known to be there, while their values are not; None where all is known."""
        self._query: dict[str, list[str]] | None = None
        self._cookies: dict[str, list[str]] | None = None

    def values(self, part: Part, name: str) -> list[str]:
        """Return each value that `name` has in `part`, in order."""
        if part is Part.HEADER:
            return [_text(value) for value in self._request.headers.get_all(name.encode("latin-1"))]
        if part is Part.QUERY:
            if self._query is None:
                self._query = _grouped(parse_qsl(self._request.query or "", keep_blank_values=True))
            return self._query.get(name, [])
        if self._cookies is None:
            lines = self._request.headers.get_all(b"cookie")
            self._cookies = _grouped(pair for line in lines for pair in _cookie_pairs(_text(line)))
        return self._cookies.get(name, [])


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return groups


def _cookie_pairs(line: str) -> list[tuple[str, str]]:
    """Return the names and values of a Cookie header (RFC 6265 section 4.2.1); quotes are part of a value."""
    pairs = [piece.partition("=") for piece in line.split(";")]
    return [(name.strip(), value.strip()) for name, mark, value in pairs if mark]


@dataclass(frozen=True, slots=True)
class Condition:
    """What a route asks of a header, a query parameter or a cookie; where that has several values, one is enough.

    A header's name may be given in any case; it is kept in lower case.
    """

    part: Part
    name: str

    def __post_init__(self) -> None:
        if self.part is Part.HEADER:
            check_name(self.name.encode("utf-8"))
            object.__setattr__(self, "name", self.name.lower())

    def holds(self, facts: Facts) -> bool:
        """Return whether the request that `facts` are of fulfils this, or with an unknown value may fulfil it."""
        if facts.announced and self.part is Part.HEADER and self.name in facts.announced:
            return not self.accepts(())
        return self.accepts(facts.values(self.part, self.name))

    def accepts(self, values: Sequence[str]) -> bool:
        """Return whether these values, none of them if the name is absent, fulfil this."""
        raise NotImplementedError

    def wider(self) -> tuple[Condition, ...]:
        """Return conditions that hold wherever this one does, itself among them."""
        return (self,)

    def shortfall(self, facts: Facts) -> str:
        """Return a sentence on why this does not hold."""
        values = facts.values(self.part, self.name)
        is_what = " and ".join(map(repr, values)) if values else "absent"
        return f"{self.part} {self.name} is {is_what}, not {self.wanted}"

    @property
    def wanted(self) -> str:
        """What is asked for, in words."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Present(Condition):
    """The name is there, with whatever value."""

    def accepts(self, values: Sequence[str]) -> bool:
        """Return whether there is a value."""
        return bool(values)

    @property
    def wanted(self) -> str:
        """What is asked for, in words."""
        return "present"


@dataclass(frozen=True, slots=True)
class Absent(Condition):
    """The name is not there."""

    def accepts(self, values: Sequence[str]) -> bool:
        """Return whether there is no value."""
        return not values

    @property
    def wanted(self) -> str:
        """What is asked for, in words."""
        return "absent"


@dataclass(frozen=True, slots=True)
class Equals(Condition):
    """A value is exactly this one."""

    value: str

    def accepts(self, values: Sequence[str]) -> bool:
        """Return whether the value is among them."""
        return self.value in values

    def wider(self) -> tuple[Condition, ...]:
        """Return this and presence."""
        return self, Present(self.part, self.name)

    @property
    def wanted(self) -> str:
        """What is asked for, in words."""
        return repr(self.value)


@dataclass(frozen=True, slots=True)
class Matches(Condition):
    """A value matches a regular expression as a whole."""

    regex: re.Pattern[str]

    def accepts(self, values: Sequence[str]) -> bool:
        """Return whether one of them matches."""
        return any(self.regex.fullmatch(value) is not None for value in values)

    def wider(self) -> tuple[Condition, ...]:
        """Return this and presence."""
        return self, Present(self.part, self.name)

    @property
    def wanted(self) -> str:
        """What is asked for, in words."""
        return f"one that matches {self.regex.pattern}"


@dataclass(frozen=True, slots=True)
class Entry(Generic[R]):
    """One route as the matcher sees it: what it asks of a request, and the payload that stands for it.

    No hosts, no paths, or None for methods mean any. `order` is the place in the list. GET among the methods implies
    HEAD. A higher priority goes before everything else.
    """

    payload: R
    order: int
    paths: tuple[PathPattern, ...] = ()
    hosts: tuple[HostPattern, ...] = ()
    methods: frozenset[str] | None = None
    conditions: tuple[Condition, ...] = ()
    priority: int = 0
    preflights: bool = False
    """Whether the route answers the CORS preflights of the requests that it takes."""

    @property
    def allowed(self) -> frozenset[str] | None:
        """The methods that are taken, HEAD for GET included, or None for any."""
        if self.methods is None or "GET" not in self.methods:
            return self.methods
        return self.methods | {"HEAD"}
