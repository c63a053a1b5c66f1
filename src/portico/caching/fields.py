"""Lists in fields (RFC 9110 section 5.6.1), where a comma within a quoted text does not part them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from portico.http.headers import Headers

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STOP: Final = re.compile(rb'[,"]')
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_SPACE: Final = b" \t\r\n"


def members(values: Sequence[bytes]) -> list[bytes]:
    """Return the members of a list that may be spread over several lines; empty ones are left out.

    A quote that nobody closes is an ordinary character, so that it hides nothing of what follows.
    """
    found: list[bytes] = []
    for value in values:
        parts = _split(value) if b'"' in value else value.split(b",")
        found.extend(part for part in (part.strip(_SPACE) for part in parts) if part)
    return found


def _split(value: bytes) -> list[bytes]:
    parts = []
    begin = at = 0
    while (stop := _STOP.search(value, at)) is not None:
        at = stop.end()
        if stop[0] == b",":
            parts.append(value[begin : stop.start()])
            begin = at
            continue
        quoted = _QUOTED.match(value, stop.start())
        if quoted is None:
            return [*parts, *value[begin:].split(b",")]
        at = quoted.end()
    return [*parts, value[begin:]]


def unquoted(value: bytes) -> bytes:
    """Return what a quoted text says (RFC 9110 section 5.6.4), and anything else as it is."""
    if len(value) < 2 or _QUOTED.fullmatch(value) is None:
        return value
    return _ESCAPE.sub(rb"\1", value[1:-1])


def names(values: Sequence[bytes]) -> frozenset[bytes] | None:
    """Return the names of fields in a list, in lower case; None where one of them is no name."""
    found = frozenset(member.lower() for member in members(values))
    return found if all(TOKEN.fullmatch(name) is not None for name in found) else None


def members_of(headers: Headers, name: bytes) -> list[bytes]:
    """Return the members of the list that a field is."""
    return members(headers.get_all(name))
