"""What a request is answered with: something that is kept, or what the service says now (RFC 9111 section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from portico.caching.directives import NOTHING_ASKED, RequestDirectives, request_directives
from portico.caching.rules import CachingRules
from portico.caching.status import CacheStatus, Forward
from portico.caching.stored import Stored
from portico.caching.variants import variant_of
from portico.http.message import Request

ERRORS: Final = frozenset((500, 502, 503, 504))
"""Statuses of a service in whose place a stale answer may stand (RFC 5861 section 4)."""
_NOT_HEEDED: Final = (NOTHING_ASKED, NOTHING_ASKED._replace(no_store=True))
"""What counts of a request where clients are not heeded."""


class Verdict(Enum):
    """What is to be done."""

    GIVE = "give"
    """Give what is kept."""
    GIVE_AND_RENEW = "give-and-renew"
    """Give what is kept, though it is stale, and have it validated meanwhile (RFC 5861 section 3)."""
    VALIDATE = "validate"
    """Ask the service whether what is kept is still good."""
    FETCH = "fetch"
    """Have the service answer, and keep that."""
    PASS = "pass"  # noqa: S105 - no password
    """Leave it to the service, as it is; nothing of it will be kept."""
    REFUSE = "refuse"
    """Answer 504: the client wants nothing but what is kept, and that does not do (RFC 9111 section 5.2.1.7)."""


class Decision(NamedTuple):
    """What is to be done with a request, and why."""

    verdict: Verdict
    stored: Stored | None = None
    """What is given or validated."""
    why: Forward | None = None
    """Why the service is asked, or would be."""
    ttl: float | None = None
    """What is left of the lifetime of what is given."""

    @property
    def gives(self) -> bool:
        """Whether the client is answered at once with what is kept."""
        return self.verdict in (Verdict.GIVE, Verdict.GIVE_AND_RENEW)

    @property
    def status(self) -> CacheStatus:
        """What Cache-Status says of it at this point."""
        if self.gives:
            return CacheStatus(hit=True, ttl=self.ttl)
        if self.verdict is Verdict.REFUSE:
            return CacheStatus(detail="only-if-cached")
        return CacheStatus(forward=self.why)


def passes_by(request: Request) -> Forward | None:
    """Return why a request is none of a cache's business, or None where it is; to be asked before anything is sought.

    A GET with content is one of these: the key says nothing of content, and so neither may the answer depend on it.
    """
    if request.method not in ("GET", "HEAD"):
        return Forward.METHOD
    if request.upgrade or request.body.length != 0:
        return Forward.BYPASS
    index = request.headers.index
    if b"if-match" in index or b"if-unmodified-since" in index:  # no cache may decide on these (section 4.3.2)
        return Forward.BYPASS
    return None


def decide(request: Request, kept: Sequence[Stored], now: float, rules: CachingRules) -> Decision:
    """Return what is to be done with a request, for whose URI `kept` are the answers that are kept.

    What a client asks is heeded by RFC 9111 section 5.2.1, unless the rules say otherwise.
    """
    why = passes_by(request)
    if why is Forward.METHOD:
        return Decision(Verdict.PASS, None, why)
    asked = _asked(request, rules)
    if why is not None:
        return _unless_refused(Decision(Verdict.PASS, None, why), asked)
    stored = select(request, kept, now, rules)
    if stored is None:
        return _unless_refused(_miss(request, kept, asked), asked)
    if asked.no_cache:
        return _unless_refused(Decision(Verdict.VALIDATE, stored, Forward.REQUEST), asked)
    if stored.invalid or stored.life.no_cache:
        return _unless_refused(Decision(Verdict.VALIDATE, stored, Forward.STALE), asked)
    return _by_age(stored, asked, now)


def select(request: Request, kept: Sequence[Stored], now: float, rules: CachingRules) -> Stored | None:
    """Return which of the answers that are kept for its URI is for a request, or None (RFC 9111 section 4.1).

    Of several it is the one that was made last. While one of them is fresh and says by what it varies, those that do
    not are for nobody: services forget to say it here and there, as that section warns. Once none is, they have
    probably changed their mind.
    """
    variants: dict[tuple[bytes, ...], bytes] = {}
    best: Stored | None = None
    varied = len(kept) > 1 and any(stored.vary and stored.ttl(now) > 0 for stored in kept)
    for stored in kept:
        if varied and not stored.vary:
            continue
        if stored.vary not in variants:
            variants[stored.vary] = variant_of(stored.vary, request, rules)
        matches = stored.variant == variants[stored.vary]
        if matches and (best is None or (stored.date, stored.received) > (best.date, best.received)):
            best = stored
    return best


def may_stand_in(stored: Stored, request: Request, now: float, rules: CachingRules) -> bool:
    """Whether an answer that was to be validated may be given, where the service cannot be reached, or fails (ERRORS).

    A client's stale-if-error counts as well as the answer's (RFC 5861 section 4), unless the answer must not be stale.
    """
    if stored.invalid or stored.life.no_cache:
        return False
    asked = _asked(request, rules)
    if asked.no_cache:
        return False
    life = stored.life
    allowed = life.if_error if life.strict else max(life.if_error, asked.stale_if_error or 0)
    return -stored.ttl(now) < allowed


def _asked(request: Request, rules: CachingRules) -> RequestDirectives:
    asked = request_directives(request.headers)
    return asked if rules.heed_clients else _NOT_HEEDED[asked.no_store]


def _miss(request: Request, kept: Sequence[Stored], asked: RequestDirectives) -> Decision:
    """Return what is to be done where nothing is kept for a request: the answer to some will not be kept either."""
    passes = request.method == "HEAD" or asked.no_store
    return Decision(Verdict.PASS if passes else Verdict.FETCH, None, Forward.VARY_MISS if kept else Forward.URI_MISS)


def _by_age(stored: Stored, asked: RequestDirectives, now: float) -> Decision:
    age = stored.age(now)
    ttl = stored.life.lifetime - age
    young = asked.max_age is None or age <= asked.max_age
    if ttl > 0:
        # An immutable answer is none that reloading a page could better (RFC 8246 section 2).
        if (young or stored.life.immutable) and (asked.min_fresh is None or ttl >= asked.min_fresh):
            return Decision(Verdict.GIVE, stored, None, ttl)
        return _unless_refused(Decision(Verdict.VALIDATE, stored, Forward.REQUEST), asked)
    if young and asked.min_fresh is None:
        if not stored.life.strict and asked.max_stale is not None and -ttl <= asked.max_stale:
            return Decision(Verdict.GIVE, stored, None, ttl)
        # Who gives a max-age wants nothing stale, unless max-stale says so (RFC 9111 section 5.2.1.1).
        if asked.max_age is None and -ttl < stored.life.while_revalidate:
            return Decision(Verdict.GIVE_AND_RENEW, stored, None, ttl)
    return _unless_refused(Decision(Verdict.VALIDATE, stored, Forward.STALE), asked)


def _unless_refused(decision: Decision, asked: RequestDirectives) -> Decision:
    return decision._replace(verdict=Verdict.REFUSE) if asked.only_if_cached else decision
