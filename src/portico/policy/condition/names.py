"""What an expression can speak of: each name with its kind, and how a request is asked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import unquote_plus

from portico.http.headers import check_name
from portico.http.message import Request
from portico.http.user import USER

Read = Callable[[Request], Any]
"""Returns a value of the kind that was found out at load."""


class Kind(Enum):
    """The kinds of values."""

    TEXT = "a text"
    NUMBER = "a number"
    TRUTH = "a truth value"
    TEXTS = "a list of texts"
    NUMBERS = "a list of numbers"
    TRUTHS = "a list of truth values"
    VALUES = "values by name"


ELEMENT: Final = {Kind.TEXTS: Kind.TEXT, Kind.NUMBERS: Kind.NUMBER, Kind.TRUTHS: Kind.TRUTH}
LIST: Final = {element: of for of, element in ELEMENT.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A part of an expression, ready to be read."""

    kind: Kind
    read: Read
    literal: bool = False
    """Whether it is written in the expression, and the same for all requests."""
    address: bool = False
    """Whether it is an IP address."""


@dataclass(frozen=True, slots=True)
class Place:
    """Values by name: `at` returns what reads the one of a name, or None where it has none."""

    at: Callable[[str], Callable[[Request], str | None]]


def _address(request: Request) -> str:
    return request.client.address if request.client is not None else ""


def _scheme(request: Request) -> str:
    return request.client.scheme if request.client is not None else ""


def _route(request: Request) -> str:
    return request.exchange.route if request.exchange is not None else ""


def _user(request: Request) -> str:
    user = request.get(USER)
    return "" if user is None else user.name


_NOBODY: Final[frozenset[str]] = frozenset()


def _roles(request: Request) -> frozenset[str]:
    user = request.get(USER)
    return _NOBODY if user is None else user.roles


def _scopes(request: Request) -> frozenset[str]:
    user = request.get(USER)
    return _NOBODY if user is None else user.scopes


def _permissions(request: Request) -> frozenset[str]:
    user = request.get(USER)
    return _NOBODY if user is None else user.permissions


def _groups(request: Request) -> frozenset[str]:
    user = request.get(USER)
    return _NOBODY if user is None else user.groups


def _kind(request: Request) -> str:
    user = request.get(USER)
    return "" if user is None else user.kind


def _consumer(request: Request) -> str:
    user = request.get(USER)
    return "" if user is None else user.consumer


NAMES: Final[Mapping[str, Value]] = {
    "method": Value(kind=Kind.TEXT, read=lambda request: request.method),
    "path": Value(kind=Kind.TEXT, read=lambda request: request.path),
    "host": Value(kind=Kind.TEXT, read=lambda request: request.host),
    "scheme": Value(kind=Kind.TEXT, read=_scheme),
    "address": Value(kind=Kind.TEXT, read=_address, address=True),
    "route": Value(kind=Kind.TEXT, read=_route),
    "user": Value(kind=Kind.TEXT, read=_user),
    "user.name": Value(kind=Kind.TEXT, read=_user),
    "user.roles": Value(kind=Kind.TEXTS, read=_roles),
    "user.scopes": Value(kind=Kind.TEXTS, read=_scopes),
    "user.permissions": Value(kind=Kind.TEXTS, read=_permissions),
    "user.groups": Value(kind=Kind.TEXTS, read=_groups),
    "user.kind": Value(kind=Kind.TEXT, read=_kind),
    "user.consumer": Value(kind=Kind.TEXT, read=_consumer),
}
"""Single values."""


def _header(name: str) -> Callable[[Request], str | None]:
    key = check_name(name.encode("utf-8")).lower()

    def read(request: Request) -> str | None:
        value = request.headers.get(key)
        return None if value is None else value.decode("utf-8", "surrogateescape")

    return read


def _parameter(name: str) -> Callable[[Request], str | None]:
    """Return what reads the first query parameter of a name, as routes do, without decoding all the others."""

    def read(request: Request) -> str | None:
        for piece in (request.query or "").split("&"):
            key, _, value = piece.partition("=")
            if piece and (unquote_plus(key) if "%" in key or "+" in key else key) == name:
                return unquote_plus(value)
        return None

    return read


def _cookie(name: str) -> Callable[[Request], str | None]:
    """Return what reads the first cookie of a name, in the same way."""

    def read(request: Request) -> str | None:
        for line in request.headers.get_all(b"cookie"):
            for piece in line.decode("utf-8", "surrogateescape").split(";"):
                key, mark, value = piece.partition("=")
                if mark and key.strip() == name:
                    return value.strip()
        return None

    return read


def _claim(name: str) -> Callable[[Request], str | None]:
    def read(request: Request) -> str | None:
        user = request.get(USER)
        return None if user is None or name not in user.claims else _as_text(user.claims[name])

    return read


def _as_text(claim: object) -> str:
    if isinstance(claim, str):
        return claim
    if isinstance(claim, bool):
        return str(claim).lower()
    return str(claim) if isinstance(claim, int | float) else ""


PLACES: Final[Mapping[str, Place]] = {
    "query": Place(_parameter),
    "headers": Place(_header),
    "cookies": Place(_cookie),
    "captures": Place(lambda name: lambda request: request.captures.get(name)),
    "user.claims": Place(_claim),
}
"""Values by name."""
