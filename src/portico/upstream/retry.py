"""When a request may be sent again that a service may have seen before."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from portico.errors import UpstreamError, UpstreamTimeout
from portico.http.message import Request, Response

SAVED_TIME: Final = 10.0
SAVED_REQUESTS: Final = 1000
"""For how many seconds, and requests, a budget saves up what is not used."""

_SECONDS: Final = re.compile(rb"[0-9]{1,9}")


class Budget:
    """How many further tries a service may be sent: a share of its requests, and a few each second in any case.

    What is not used is saved for a while, so that the first second of trouble is not its worst (as Finagle has it).
    """

    __slots__ = ("_at", "_clock", "_floor", "_left", "_most", "_requests", "_share")

    def __init__(self, share: float, floor: float, clock: Callable[[], float]) -> None:
        """Allow `share` of a try for each request, and `floor` tries in each second."""
        self._share = share
        self._floor = floor
        self._clock = clock
        self._at = clock()
        self._left = floor
        self._requests = 0
        self._most = max(1.0, floor * SAVED_TIME + share * SAVED_REQUESTS)

    def earn(self) -> None:
        """Note a request."""
        self._requests += 1

    @property
    def left(self) -> float:
        """How many tries are left."""
        return self._left_at(self._clock())

    def spend(self) -> bool:
        """Take one try, where there is one left."""
        now = self._clock()
        self._left = self._left_at(now)
        self._requests = 0
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def _left_at(self, now: float) -> float:
        earned = self._requests * self._share + (now - self._at) * self._floor
        return min(self._left + earned, self._most)


class RetryPolicy:
    """What the configuration's `retry` says."""

    __slots__ = ("_base", "_longest", "_methods", "_on", "_rng", "attempts", "body", "budget", "per_try", "statuses")

    def __init__(
        self,
        budget: Budget,
        *,
        attempts: int = 3,
        per_try: float = float("inf"),
        on: frozenset[str] = frozenset(("failure", "timeout")),
        statuses: frozenset[int] = frozenset((502, 503, 504)),
        methods: frozenset[str] = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")),
        body: int = 64 * 1024,
        base: float = 0.025,
        longest: float = 1.0,
        rng: random.Random | None = None,
    ) -> None:
        self.budget = budget
        self.attempts = attempts
        self.per_try = per_try
        self.body = body
        self._on = on
        self.statuses = statuses
        self._methods = methods
        self._base = base
        self._longest = longest
        self._rng = rng or random.Random()  # noqa: S311 - it spreads load, and keeps no secret

    def may_repeat(self, request: Request) -> bool:
        """Return whether the request may be sent again, as far as its method and its body tell."""
        return request.method in self._methods and request.body.whole is not None and not request.upgrade

    def begins(self, request: Request) -> bool:
        """Note a request; return whether its body is to be kept for another try ahead of the first one."""
        self.budget.earn()
        return self.worth_keeping(request)

    def worth_keeping(self, request: Request) -> bool:
        """Return whether the request's body is still to come, and to be kept for another try."""
        body = request.body
        return (
            body.whole is None
            and body.length is not None
            and body.length <= self.body
            and request.method in self._methods
        )

    def wants(self, outcome: UpstreamError | Response) -> bool:
        """Return whether a try that came out so is to be followed by another."""
        if isinstance(outcome, Response):
            return outcome.status in self.statuses
        return ("timeout" if isinstance(outcome, UpstreamTimeout) else "failure") in self._on

    def wait(self, tries: int, outcome: UpstreamError | Response, *, same_target: bool) -> float | None:
        """Return for how many seconds to wait before the next try; None where the answer asks for too long a time."""
        drawn = self._rng.uniform(0.0, min(self._base * 2.0 ** (tries - 1), self._longest)) if same_target else 0.0
        if not isinstance(outcome, Response):
            return drawn
        asked = retry_after(outcome)
        return max(drawn, asked) if asked <= self._longest else None


def retry_after(response: Response) -> float:
    """Return the seconds that an answer asks to wait (RFC 9110 section 10.2.3); 0 where it does not say."""
    value = response.headers.get(b"retry-after")
    if value is None:
        return 0.0
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        when = parsedate_to_datetime(value.decode("ascii"))
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return 0.0
