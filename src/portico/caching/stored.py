"""An answer as it is kept: all but its content."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import Final

from portico.caching import fields
from portico.caching.dates import write_date
from portico.caching.freshness import Life
from portico.caching.rules import CachingRules, SetCookie
from portico.http.headers import HOP_BY_HOP, Headers

_NEVER_KEPT: Final = HOP_BY_HOP | {b"age", b"proxy-authentication-info"}
"""Fields of one connection, or of one proxy (RFC 9111 section 3.1), and the age, which is counted on from here."""


class NotStored(Enum):
    """Why an answer is not kept."""

    METHOD = "its method's answers are not kept"
    ASKED = "the request forbids it"
    STATUS = "answers of its status are not kept"
    FORBIDDEN = "the answer forbids it"
    PRIVATE = "it is for one user"
    AUTHORIZED = "it was asked for in a user's name, and does not say that others may have it"
    VARIES = "it varies by what no request shows"
    COOKIE = "it sets a cookie"
    SILENT = "it does not say that it may be kept"
    USELESS = "it is stale at once, and cannot be validated"


@dataclass(frozen=True, slots=True)
class Stored:
    """One answer that is kept. All of it is plain, and can be written down; times are seconds since 1970."""

    status: int
    headers: Headers
    """What goes out again: end-to-end fields, with a Date, without Age."""
    date: float
    """When it was made, or last validated, by its own word."""
    received: float
    """When it came, or was last validated."""
    initial_age: float
    """How old it was then."""
    life: Life
    vary: tuple[bytes, ...] = ()
    """The fields of a request that it depends on."""
    variant: bytes = b""
    """What stands for those of the request that it was the answer to; see `variant_of`."""
    invalid: bool = False
    """It has to be validated before it is given again, whatever its age."""

    def age(self, now: float) -> float:
        """Return its current age (RFC 9111 section 4.2.3). A clock that was set back makes nothing younger."""
        return self.initial_age + max(0.0, now - self.received)

    def ttl(self, now: float) -> float:
        """Return the seconds that are left of its lifetime; below 0 it has been stale for so long."""
        return self.life.lifetime - self.age(now)

    @property
    def stale_at(self) -> float:
        """When it begins to be stale."""
        return self.received + self.life.lifetime - self.initial_age

    @property
    def etag(self) -> bytes | None:
        """Its entity tag."""
        return self.headers.get(b"etag")

    @property
    def modified(self) -> bytes | None:
        """When it was last changed."""
        return self.headers.get(b"last-modified")

    def completed(self, length: int) -> Stored:
        """Return it with the length of its content, which is known once all of it has come."""
        if self.status == 204 or b"content-length" in self.headers.index:
            return self
        headers = self.headers.copy()
        headers.set(b"Content-Length", b"%d" % length)
        return dataclasses.replace(self, headers=headers)

    def invalidated(self) -> Stored:
        """Return it as one that has to be validated first (RFC 9111 section 4.4)."""
        return dataclasses.replace(self, invalid=True)


def kept_fields(headers: Headers, unkept: frozenset[bytes], rules: CachingRules, dated: float | None) -> Headers:
    """Return what is kept of the fields of an answer (RFC 9111 section 3.1).

    `dated` is the Date that it is given, where it has none that can be read.
    """
    left_out = _NEVER_KEPT | unkept
    if b"connection" in headers.index:
        left_out |= {member.lower() for member in fields.members_of(headers, b"connection")}
    if rules.set_cookie is not SetCookie.KEEP:
        left_out |= {b"set-cookie"}
    kept = Headers()
    for name, value in headers.pairs:
        if name.lower() not in left_out:
            kept.put_parsed(name, value)
    if dated is not None:  # RFC 9110 section 6.6.1
        kept.set(b"Date", write_date(dated))
    return kept
