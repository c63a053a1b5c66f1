"""What whoever runs a cache may choose, within what HTTP leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

CDN: Final = (b"cdn-cache-control",)
"""The targeted field of caches that work for a service (RFC 9213 section 3)."""
DAY: Final = 86400.0


class SetCookie(Enum):
    """What becomes of an answer that sets a cookie."""

    REFUSE = "refuse"
    """It is not kept, as in nginx, and in Varnish unless it is told otherwise."""
    STRIP = "strip"
    """It is kept without the cookie."""
    KEEP = "keep"
    """It is kept, and everybody is given the same cookie; RFC 9111 section 7.3 allows that."""


@dataclass(frozen=True, slots=True)
class CachingRules:
    """What a cache does where HTTP leaves it the choice; without any, it does what RFC 9111 has as the rule."""

    posts: bool = False
    """Keep answers to POST for later GETs, where they say how long and of what (RFC 9110 section 9.3.3)."""
    targeted: tuple[bytes, ...] = CDN
    """Fields that count instead of Cache-Control and Expires, in lower case; the first that is there (RFC 9213)."""
    ttl: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    """For how long answers of a status are fresh that do not say it themselves; as nginx's `proxy_cache_valid`.

    It overrides no word of the answer, and so neither `no-store` nor `private` nor `max-age=0`; and it makes nothing
    kept that has Set-Cookie or `Vary: *`: all as in nginx. But nginx gives to everybody what was asked for with
    Authorization, or with `no-store`; here the first takes an answer that allows it, or `per_user`, and the second is
    never kept.
    """
    ignored: frozenset[bytes] = frozenset()
    """Fields whose word is not taken: of `cache-control`, `expires`; as nginx's `proxy_ignore_headers`.

    `private` is heeded even so, as nginx does not: it says that the content is somebody's.
    """
    unvaried: frozenset[bytes] = frozenset()
    """Fields that may stand in Vary and make no difference, such as `user-agent`; `*` always makes one."""
    set_cookie: SetCookie = SetCookie.REFUSE
    """What becomes of an answer that sets a cookie."""
    heuristic: float = 0.0
    """Which part of the time since Last-Modified an answer is fresh that does not say it (RFC 9111 section 4.2.2).

    That section names a tenth, 0.1; 0 is for none, as nginx has it.
    """
    heuristic_most: float = DAY
    """The longest time that this comes to."""
    stale_while_revalidate: float = 0.0
    """For how long a stale answer may be given while a new one is fetched, where it does not say (RFC 5861)."""
    stale_if_error: float = 0.0
    """For how long a stale answer may be given where no new one can be had, where it does not say (RFC 5861)."""
    heed_clients: bool = True
    """Take the word of clients for what they may be answered with (RFC 9111 section 5.2.1: a cache may).

    nginx does not: whoever may send `no-cache` may have the service do the work. Their `no-store` always counts.
    """
    per_user: bool = False
    """Tell users apart: what one of them was answered is for no other, and may be kept though it was asked for with
    Authorization."""


STRICT: Final = CachingRules()
"""Nothing but what the answers say."""
