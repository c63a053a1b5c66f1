"""For how long an answer is fresh (RFC 9111 section 4.2.1), and how old it is (section 4.2.3)."""

from __future__ import annotations

from typing import Final, NamedTuple

from portico.caching import fields
from portico.caching.dates import parse_date
from portico.caching.directives import (
    LONGEST,
    NOTHING_SAID,
    ResponseDirectives,
    delta_seconds,
    response_directives,
    targeted_directives,
)
from portico.caching.rules import CachingRules
from portico.http.headers import Headers

HEURISTIC: Final = frozenset((200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501))
"""Statuses whose answers may be fresh without saying so (RFC 9110 section 15.1); 206 is one more, and never kept."""


class Life(NamedTuple):
    """What was decided of an answer's time when it came: plain numbers, to be kept beside it."""

    lifetime: float
    """Seconds of age up to which it is fresh."""
    no_cache: bool = False
    """It has to be validated each time, fresh or not."""
    strict: bool = False
    """It must not be given when it is stale, whatever a client would take (RFC 9111 section 4.2.4)."""
    immutable: bool = False
    """While it is fresh, there is no use in validating it (RFC 8246)."""
    while_revalidate: float = 0.0
    """Seconds beyond its lifetime for which it may be given while another is fetched."""
    if_error: float = 0.0
    """Seconds beyond its lifetime for which it may be given where no other can be had."""


class Policy(NamedTuple):
    """Which words of an answer count."""

    directives: ResponseDirectives
    expires: bool
    """Whether Expires counts."""


def policy_of(headers: Headers, rules: CachingRules) -> Policy:
    """Return which words of an answer count: those of a targeted field, or those of Cache-Control and Expires."""
    targeted = targeted_directives(headers, rules.targeted)
    if targeted is not None:
        return Policy(targeted, expires=False)
    said = response_directives(headers)
    if b"cache-control" in rules.ignored:
        said = NOTHING_SAID._replace(private=said.private, unkept=said.unkept)
    return Policy(said, b"expires" not in rules.ignored)


def explicit_lifetime(headers: Headers, policy: Policy, date: float) -> float | None:
    """Return the lifetime that an answer gives itself, or None (RFC 9111 section 4.2.1).

    Of several Expires the earliest counts, and one that is no date, such as `0`, is in the past (section 5.3).
    """
    said = policy.directives
    if said.s_maxage is not None:
        return said.s_maxage
    if said.max_age is not None:
        return said.max_age
    if policy.expires and b"expires" in headers.index:
        times = [parse_date(value.strip(b" \t"), date) for value in headers.get_all(b"expires")]
        return max(0.0, min(min(date if time is None else time for time in times) - date, LONGEST))
    return None


def implied_lifetime(status: int, headers: Headers, policy: Policy, date: float, rules: CachingRules) -> float:
    """Return the lifetime of an answer that gives itself none: by its status, or by when it was last changed."""
    if policy.directives.no_cache:
        return 0.0
    if status in rules.ttl:
        return rules.ttl[status]
    if not rules.heuristic or not (status in HEURISTIC or policy.directives.public):
        return 0.0
    modified = headers.get(b"last-modified")
    changed = None if modified is None else parse_date(modified.strip(b" \t"), date)
    return 0.0 if changed is None else max(0.0, min((date - changed) * rules.heuristic, rules.heuristic_most))


def life_of(lifetime: float, said: ResponseDirectives, rules: CachingRules) -> Life:
    """Return what an answer of a certain lifetime may be used for.

    `must-revalidate` and `proxy-revalidate` forbid to give it when stale. `s-maxage` forbids it as well (section
    5.2.2.10), but not to an answer that allows it in the same breath, as section 4 lets extensions do: services write
    `s-maxage=60, stale-while-revalidate=30` to caches that many share.
    """
    forbidden = said.must_revalidate or said.proxy_revalidate
    shared = said.s_maxage is not None
    return Life(
        lifetime,
        said.no_cache,
        forbidden or shared,
        said.immutable,
        _beyond(said.stale_while_revalidate, 0.0 if shared else rules.stale_while_revalidate, forbidden),
        _beyond(said.stale_if_error, 0.0 if shared else rules.stale_if_error, forbidden),
    )


def _beyond(said: int | None, otherwise: float, forbidden: bool) -> float:
    if forbidden:
        return 0.0
    return otherwise if said is None else said


def date_said(headers: Headers, received: float) -> float | None:
    """Return when an answer was made, by its own word; None where it does not say, or nobody can read it.

    Then it was made when it came (RFC 9110 section 6.6.1).
    """
    value = headers.get(b"date")
    return None if value is None else parse_date(value.strip(b" \t"), received)


def initial_age(headers: Headers, date: float | None, asked: float, received: float) -> float:
    """Return how old an answer was when it came, at the least (RFC 9111 section 4.2.3).

    `date` is when it was made, by its own word, `asked` and `received` when it was asked for and when it came, by the
    clock on the wall. Of a list in Age the first member counts, and one that is no number does not (section 5.1).
    nginx looks at neither Age nor Date, and gives what was old when it came for another whole lifetime.
    """
    apparent = 0.0 if date is None else max(0.0, received - date)
    said = fields.members_of(headers, b"age")
    age_value = (delta_seconds(said[0]) or 0) if said else 0
    return max(apparent, age_value + max(0.0, received - asked))
