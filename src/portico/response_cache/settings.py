"""What a cache is told to do, beside what `CachingRules` say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from portico.caching.rules import CachingRules
from portico.http.message import Request
from portico.http.user import speaks_for_a_user
from portico.response_cache.record import Entry


class Users(Enum):
    """What becomes of answers to requests in a user's name: with Authorization, or of somebody whom a policy knows."""

    HEED = "heed"
    """They are kept where they say that others may have them (RFC 9111 section 3.5)."""
    APART = "apart"
    """They are kept for each user alone."""
    ALIKE = "alike"
    """They are kept as if nobody had asked in particular."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What a cache is told."""

    rules: CachingRules
    users: Users
    cookies: bool
    """Whether an answer that does not say for how long it is fresh has to do with the cookies of a request."""
    max_size: int
    """The most bytes of a content that is kept."""
    memory: int
    """The bytes of answers that each worker has at hand, of all its caches that say the same."""
    wait: float
    """Seconds that a request waits for another one's fetch."""
    keep_stale: float
    """Seconds for which an answer that is of no other use is kept to be validated."""
    tags: tuple[bytes, ...]
    """Fields of answers, in lower case, that name by what they are purged."""
    show_tags: bool
    """Whether clients get these."""
    name: str
    """What the cache is called in Cache-Status; empty where it tells none."""
    header: bytes
    """The field that tells what has happened in a word; empty for none."""

    def may_give(self, entry: Entry, request: Request) -> bool:
        """Whether an answer may be given to the one who asks: what is fresh only because the file says so is for nobody
        in particular."""
        if not entry.implied:
            return True
        if self.cookies and b"cookie" in request.headers.index:
            return False
        return entry.for_all or self.users is not Users.HEED or not speaks_for_a_user(request)
