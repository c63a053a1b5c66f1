"""Which of several answers for one URI is for a request (RFC 9111 section 4.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final

from portico.caching import fields
from portico.caching.rules import CachingRules
from portico.http.headers import Headers
from portico.http.message import Request
from portico.http.negotiation import CODING_ALIASES
from portico.http.user import identity_of, known_user

MAX_NAMES: Final = 16
"""Fields that one Vary may name; an answer with more is not kept."""
_ALIASES: Final = {alias.encode(): name.encode() for alias, name in CODING_ALIASES.items()}


def vary_of(headers: Headers, rules: CachingRules) -> tuple[bytes, ...] | None:
    """Return the fields by which an answer varies, sorted, in lower case.

    None means that it varies by what no request shows: `*`, what is no name, or more than anyone means.
    """
    if b"vary" not in headers.index:
        return ()
    names = fields.names(headers.get_all(b"vary"))
    if names is None or b"*" in names or len(names) > MAX_NAMES:
        return None
    return tuple(sorted(names - rules.unvaried))


def variant_of(vary: tuple[bytes, ...], request: Request, rules: CachingRules) -> bytes:
    """Return what stands for all that a request has in the fields `vary`, and under `per_user` for whose it is.

    It is a digest: cookies and tokens among these fields are found in no store and no dump.
    """
    if not vary and not rules.per_user:
        return b""
    digest = hashlib.sha256()
    for name in vary:
        _feed(digest.update, name, _selecting(name, request.headers))
    if rules.per_user:
        _feed(digest.update, b"user", _whose(request))
    return digest.digest()


def _whose(request: Request) -> bytes | None:
    user = known_user(request)
    if user is None:
        return request.headers.get(b"authorization")
    return identity_of(user)


def _feed(update: Callable[[bytes], None], name: bytes, value: bytes | None) -> None:
    """Add a field so that no two ways to have fields come to the same bytes; an absent one is not an empty one."""
    update(b"%d:%b=" % (len(name), name))
    update(b"-" if value is None else b"%d:%b" % (len(value), value))


def _selecting(name: bytes, headers: Headers) -> bytes | None:
    """Return the value of a field in the form that all values of the same meaning share; None where it is absent."""
    if name not in headers.index:
        return None
    values = headers.get_all(name)
    normal = _NORMAL.get(name)
    if normal is None:
        return b", ".join(value.strip(b" \t") for value in values)
    return b",".join(normal(fields.members(values)))


def _as_listed(members: Iterable[bytes]) -> Iterable[bytes]:
    return members


def _lower(members: Iterable[bytes]) -> Iterable[bytes]:
    return (_no_space(member) for member in members)


def _unordered(members: Iterable[bytes]) -> Iterable[bytes]:
    return sorted({_no_space(member) for member in members})


def _codings(members: Iterable[bytes]) -> Iterable[bytes]:
    parted = (_no_space(member).partition(b";") for member in members)
    return sorted({_ALIASES.get(name, name) + semicolon + rest for name, semicolon, rest in parted})


def _no_space(member: bytes) -> bytes:
    return member.translate(None, b" \t").lower()


_NORMAL: Final[dict[bytes, Callable[[Iterable[bytes]], Iterable[bytes]]]] = {
    b"accept": _as_listed,  # its parameters may be told apart by case
    b"accept-charset": _unordered,
    b"accept-encoding": _codings,
    b"accept-language": _lower,  # some take the order for a preference (RFC 9110 section 12.5.4)
    b"cache-control": _as_listed,
    b"prefer": _as_listed,
}
"""Lists whose meaning bears more than the joining of their lines."""
