"""What a verified token must say (RFC 7519 section 4.1), and the answers to what does not."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from portico.jose.compact import NotTaken
from portico.policy.authenticator import Refusal

EXPIRED: Final = Refusal("token-expired", "Token expired", "the token has expired", "invalid_token", 401)
"""The token was good, and is too old."""
UNAVAILABLE: Final = Refusal(
    "authentication-unavailable", "Authentication not available", "no keys are known yet", "", 503
)
"""No keys that verify tokens could be got yet."""
_MAX_TIME: Final = 10**11
"""Seconds after 1970 that no honest token names; it is in the year 5138."""
_TEXTS: Final = ("iss", "sub", "jti")
_TIMES: Final = ("exp", "nbf", "iat")


def invalid(reason: str) -> Refusal:
    """Return the refusal of a token; `reason` is for the log.

    The token is not well formed, not signed by a key that is trusted, or not for this.
    """
    return Refusal("invalid-token", "Invalid token", reason, "invalid_token", 401)


class Expired(NotTaken):
    """A token was good, and is too old."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say; what is empty may be anything."""

    issuers: frozenset[str] = frozenset()
    audiences: frozenset[str] = frozenset()
    algorithms: frozenset[str] = frozenset()
    required: Collection[str] = ("exp",)
    """Claims that must be there."""
    leeway: float = 60.0
    """Seconds by which clocks may differ."""
    max_age: float | None = None
    """Seconds since it was issued, whatever it says itself."""
    max_size: int = 8192
    """Bytes of a token."""

    def window(self, claims: Mapping[str, object], now: float) -> tuple[float, float]:
        """Return from when and until when a token is good, which is now; raise NotTaken or Expired."""
        for name in _TEXTS:
            if not isinstance(claims.get(name, ""), str):
                raise NotTaken(f"its claim {name} is no text")
        expires, begins, issued = (_time(claims, name) for name in _TIMES)
        for name in self.required:
            if claims.get(name) in (None, "", []):
                raise NotTaken(f"it has no claim {name}")
        if self.issuers and claims.get("iss") not in self.issuers:
            raise NotTaken("it is from another issuer")
        audiences = _texts(claims.get("aud"))
        if self.audiences and self.audiences.isdisjoint(audiences):
            raise NotTaken("it is for another audience")
        until = math.inf if expires is None else expires + self.leeway
        if self.max_age is not None:
            if issued is None:
                raise NotTaken("it does not say when it was issued")
            until = min(until, issued + self.max_age + self.leeway)
        since = max(-math.inf if each is None else each - self.leeway for each in (begins, issued))
        if now >= until:
            raise Expired("the token has expired")
        if now < since:
            raise NotTaken("it is not valid yet")
        return since, until


def claim_at(claims: Mapping[str, object], path: str) -> object:
    """Return the claim that is called `path`, or the one that is within others: `realm_access.roles`; None if none.

    A claim whose own name is `path`, dots and all, wins, whatever is within others. That is so for the whole path
    alone: on the way through others, each name is what stands between two dots.
    """
    if path in claims:
        return claims[path]
    value: object = claims
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value


def words_at(claims: Mapping[str, object], paths: Sequence[str]) -> frozenset[str]:
    """Return the words of the first claim that is there: a list of texts, or one text with spaces between them.

    Where each is looked for: see `claim_at`. One that is neither is as if it were not there.
    """
    for path in paths:
        value = claim_at(claims, path)
        if isinstance(value, str):
            return frozenset(value.split())
        if isinstance(value, list):
            return frozenset(item for item in value if isinstance(item, str) and item)
    return frozenset()


def _time(claims: Mapping[str, object], name: str) -> float | None:
    """Return a NumericDate (RFC 7519 section 2)."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TIME:
        raise NotTaken(f"its claim {name} is no time")
    return float(value)


def _texts(value: object) -> Sequence[str]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise NotTaken("its claim aud is neither a text nor a list of texts")
