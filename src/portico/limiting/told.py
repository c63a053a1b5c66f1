"""What clients are told of their limits: `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10),
and what was usual before it.

Several policies may limit one request. All limits are in `RateLimit-Policy`; the other headers are about the tightest
one: the one that has refused, or the one with the least left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from portico.http.headers import Headers
from portico.http.message import Key
from portico.state.limits import Verdict

REPLACED: Final = frozenset(
    (
        b"ratelimit",
        b"ratelimit-policy",
        b"ratelimit-limit",
        b"ratelimit-remaining",
        b"ratelimit-reset",
        b"x-ratelimit-limit",
        b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
    )
)
"""What a service behind says of itself, and would be taken for what is said here."""

MOST_TOLD: Final = 2**31
"""The largest number that is told."""


class Told:
    """One limit as clients are told of it."""

    __slots__ = ("name", "policy", "quota", "quota_text", "slides", "standing", "window")

    def __init__(self, name: str, quota: int, window: float, *, slides: bool = False) -> None:
        """`name` has no quotes, backslashes or percent signs; a `window` of 0 s is not told. With `slides`, no longer
        time than `window` is told until it is free again: what it slides past counts for less all the time."""
        self.name = name
        self.quota = quota
        self.quota_text = b"%d" % quota
        self.window = math.ceil(window)
        self.slides = slides
        self.policy = b'"%s";q=%d' % (name.encode("ascii"), quota) + (b";w=%d" % self.window if window else b"")
        """It as an item of `RateLimit-Policy`."""
        self.standing = b'"%s";r=%%d;t=%%d' % name.encode("ascii")
        """It as the item of `RateLimit`, to be filled with what is left, and for how many seconds."""


class Terms:
    """The limits of one budget, as clients are told of them."""

    __slots__ = ("limits", "policy")

    def __init__(self, limits: Iterable[Told]) -> None:
        self.limits = tuple(limits)
        self.policy = b", ".join(each.policy for each in self.limits)
        """They as items of `RateLimit-Policy`."""


class Standing:
    """How one policy's limits stand for a request."""

    __slots__ = ("draft", "ends", "refused", "terms", "usual", "verdict")

    def __init__(self, terms: Terms, verdict: Verdict, ends: float, forms: frozenset[str]) -> None:
        """`ends` are the seconds until all of them begin anew, where they do that together."""
        self.terms = terms
        self.verdict = verdict
        self.ends = ends
        self.draft = "draft" in forms
        self.usual = "x-ratelimit" in forms
        self.refused = False

    def tightest(self) -> tuple[int, int]:
        """Return which limit is the tightest, and what is left of it."""
        verdict = self.verdict
        if len(self.terms.limits) == 1:
            return 0, verdict.left_of(0)
        figures = verdict.waits if self.refused else verdict.left
        at = figures.index(max(figures) if self.refused else min(figures))
        return at, verdict.left_of(at)

    def reset(self, at: int) -> int:
        """Return the whole seconds until a limit is free again; of one that has refused, until it has room."""
        if self.ends:
            return math.ceil(self.ends)
        told = self.terms.limits[at]
        if self.refused:
            seconds = self.verdict.waits[at]
        else:
            seconds = self.verdict.reset_of(at)
            if told.slides and seconds > told.window:
                return told.window
        return told.window if seconds == math.inf else min(math.ceil(seconds), MOST_TOLD)


STANDINGS: Final[Key[list[Standing]]] = Key("limits")
"""What the policies around a request have to tell; the outermost of them does."""


def tell(headers: Headers, standings: Sequence[Standing]) -> None:
    """Write how limits stand, in place of whatever a service has said of its own."""
    if not REPLACED.isdisjoint(headers.index):
        for name in REPLACED:
            headers.remove(name)
    tightest = standings[0]
    at, left = tightest.tightest()
    policy = tightest.terms.policy
    if len(standings) > 1:
        for other in standings[1:]:
            there, less = other.tightest()
            if other.refused or (less < left and not tightest.refused):
                tightest, at, left = other, there, less
        policies = [each.policy for standing in standings if standing.draft for each in standing.terms.limits]
        policy = b", ".join(dict.fromkeys(policies))
    told, reset = tightest.terms.limits[at], tightest.reset(at)
    left = min(left, told.quota)
    put = headers.put_parsed
    if tightest.draft:
        put(b"RateLimit-Policy", policy)
        put(b"RateLimit", told.standing % (left, reset))
    if tightest.usual:
        put(b"X-RateLimit-Limit", told.quota_text)
        put(b"X-RateLimit-Remaining", b"%d" % left)
        put(b"X-RateLimit-Reset", b"%d" % reset)
