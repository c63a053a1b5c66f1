"""HTTP caching (RFC 9111) as decisions alone, for a cache that many share: what may be kept, for how long, for whom it
may be used, and what must be asked first. No sockets, no store, no clock: whoever calls has them.

A request that `passes_by` says nothing of has a `CacheKey`; `decide` says what is to be done with it, given what is
kept under that key. `answer` makes the client's answer of what is kept. The service is asked by `to_fetch` or
`to_validate`; of what it says, `store` makes what is to be kept, and `freshened` what a 304 changes. Where it fails,
`may_stand_in` says whether what is stale may be given. `updated_by_head` and `invalidated` say what else an answer
changes.
"""

from portico.caching.answering import Answer, answer
from portico.caching.freshness import Life
from portico.caching.invalidation import Place, invalidated
from portico.caching.key import TRACKING, CacheKey
from portico.caching.reuse import ERRORS, Decision, Verdict, decide, may_stand_in, passes_by, select
from portico.caching.rules import CDN, CachingRules, SetCookie
from portico.caching.status import CacheStatus, Forward
from portico.caching.stored import NotStored, Stored
from portico.caching.storing import store
from portico.caching.validation import Change, freshened, to_fetch, to_validate, updated_by_head
from portico.caching.variants import variant_of

__all__ = [
    "CDN",
    "ERRORS",
    "TRACKING",
    "Answer",
    "CacheKey",
    "CacheStatus",
    "CachingRules",
    "Change",
    "Decision",
    "Forward",
    "Life",
    "NotStored",
    "Place",
    "SetCookie",
    "Stored",
    "Verdict",
    "answer",
    "decide",
    "freshened",
    "invalidated",
    "may_stand_in",
    "passes_by",
    "select",
    "store",
    "to_fetch",
    "to_validate",
    "updated_by_head",
    "variant_of",
]
