"""Which answers are kept (RFC 9111 section 3)."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import urlsplit

from portico.caching.directives import request_directives
from portico.caching.freshness import (
    HEURISTIC,
    Life,
    Policy,
    date_said,
    explicit_lifetime,
    implied_lifetime,
    initial_age,
    life_of,
    policy_of,
)
from portico.caching.rules import CachingRules, SetCookie
from portico.caching.stored import NotStored, Stored, kept_fields
from portico.caching.variants import variant_of, vary_of
from portico.http.headers import Headers
from portico.http.message import Request
from portico.http.user import speaks_for_a_user

_NEVER: Final = frozenset((206, 304, 407, 412, 416, 417, 428, 429, 431, 511))
"""Statuses whose answers speak of parts, of conditions or of a proxy that the next request need not have, or that must
not be kept (RFC 6585 sections 3 to 6)."""
_UNDERSTOOD: Final = (
    frozenset((200, 201, 202, 203, 204, 205, 226))
    | frozenset((300, 301, 302, 303, 305, 307, 308))
    | (frozenset(range(400, 419)) | {421, 422, 426, 451})
    | frozenset(range(500, 506))
) - _NEVER
"""Statuses of which all is known that bears on keeping them; `must-understand` asks (RFC 9111 section 5.2.2.3)."""


class Judged(NamedTuple):
    """An answer as it would be kept, and why it is not, or None where it is."""

    stored: Stored
    refused: NotStored | None


def store(
    request: Request, status: int, headers: Headers, asked: float, received: float, rules: CachingRules
) -> Stored | NotStored:
    """Return an answer as it is to be kept once all its content has come, or why it is not.

    `headers` are those that the service sent, and `asked` and `received` when it was asked and when they came, on the
    clock on the wall. What breaks off is not to be kept (section 3.3).
    """
    if not (request.method == "GET" or (request.method == "POST" and rules.posts)):
        return NotStored.METHOD
    if b"cache-control" in request.headers.index and request_directives(request.headers).no_store:
        return NotStored.ASKED
    if not 200 <= status <= 599 or status in _NEVER:
        return NotStored.STATUS
    policy = policy_of(headers, rules)
    refused = _refused(request, status, headers, policy, rules)
    if refused is not None:
        return refused
    came = _came(headers, asked, received)
    lifetime = _lifetime(request, status, headers, policy, came, rules)
    if lifetime is None:
        return NotStored.SILENT
    life = life_of(lifetime, policy.directives, rules)
    if not _is_of_use(life, headers, came):  # most answers of most services; no more is done for them
        return NotStored.USELESS
    vary = vary_of(headers, rules)
    return NotStored.VARIES if vary is None else _stored(request, status, headers, policy, life, vary, came, rules)


def restore(
    request: Request, status: int, headers: Headers, new: Headers, asked: float, received: float, rules: CachingRules
) -> Judged:
    """Return what an answer with `headers` is that was made anew by one with the headers `new`, and why it goes."""
    policy = policy_of(headers, rules)
    refused = _refused(request, status, headers, policy, rules)
    came = _came(new, asked, received)
    lifetime = _lifetime(request, status, headers, policy, came, rules)
    life = life_of(lifetime or 0.0, policy.directives, rules)
    vary = vary_of(headers, rules)
    if refused is None and lifetime is None:
        refused = NotStored.SILENT
    if refused is None and vary is None:
        refused = NotStored.VARIES
    if refused is None and not _is_of_use(life, headers, came):
        refused = NotStored.USELESS
    return Judged(_stored(request, status, headers, policy, life, vary or (), came, rules), refused)


class _Came(NamedTuple):
    """When an answer came, and how old it was."""

    received: float
    date: float
    """When it was made."""
    dated: float | None
    """The same, where it does not say so itself."""
    age: float


def _came(headers: Headers, asked: float, received: float) -> _Came:
    date = date_said(headers, received)
    age = initial_age(headers, date, asked, received)
    return _Came(received, received, received, age) if date is None else _Came(received, date, None, age)


def _lifetime(
    request: Request, status: int, headers: Headers, policy: Policy, came: _Came, rules: CachingRules
) -> float | None:
    """Return the lifetime of an answer; None where nothing says that it may be kept at all."""
    explicit = explicit_lifetime(headers, policy, came.date)
    if explicit is not None:
        return explicit
    if request.method == "POST":  # RFC 9110 section 9.3.3
        return None
    if policy.directives.public or status in HEURISTIC or status in rules.ttl:
        return implied_lifetime(status, headers, policy, came.date, rules)
    return None


def _stored(
    request: Request,
    status: int,
    headers: Headers,
    policy: Policy,
    life: Life,
    vary: tuple[bytes, ...],
    came: _Came,
    rules: CachingRules,
) -> Stored:
    kept = kept_fields(headers, policy.directives.unkept, rules, came.dated)
    variant = variant_of(vary, request, rules)
    return Stored(status, kept, came.date, came.received, came.age, life, vary, variant)


def _refused(request: Request, status: int, headers: Headers, policy: Policy, rules: CachingRules) -> NotStored | None:
    said = policy.directives
    if said.must_understand and status not in _UNDERSTOOD:
        return NotStored.STATUS
    if said.no_store and not said.must_understand:  # which overrides it (RFC 9111 section 5.2.2.3)
        return NotStored.FORBIDDEN
    if said.private:
        return NotStored.PRIVATE
    if not rules.per_user and not said.shares and speaks_for_a_user(request):
        return NotStored.AUTHORIZED
    if rules.set_cookie is SetCookie.REFUSE and b"set-cookie" in headers.index and b"set-cookie" not in said.unkept:
        return NotStored.COOKIE
    if request.method == "POST" and not _is_of_target(request, headers):
        return NotStored.METHOD
    return None


def _is_of_target(request: Request, headers: Headers) -> bool:
    """Whether Content-Location names what was asked for (RFC 9110 section 9.3.3)."""
    place = headers.text(b"content-location")
    if place is None or not place.startswith(("/", "http://", "https://")):
        return False
    try:
        parts = urlsplit(place)
        host = parts.hostname
    except ValueError:
        return False
    path = f"{parts.path}?{parts.query}" if "?" in place else parts.path
    return path == request.target and host in (None, request.host)


def _is_of_use(life: Life, headers: Headers, came: _Came) -> bool:
    """Whether an answer can ever be given again: section 3 notes that caches need not keep others."""
    if b"etag" in headers.index or b"last-modified" in headers.index:
        return True
    return not life.no_cache and life.lifetime + max(life.while_revalidate, life.if_error) > came.age
