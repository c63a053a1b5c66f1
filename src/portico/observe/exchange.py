"""The record of one request and its answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum

logger = logging.getLogger("portico.exchange")


class Outcome(StrEnum):
    """How an exchange ended."""

    COMPLETE = "complete"
    """The last byte of the answer was handed to the transport."""
    CLIENT_LEFT = "client-left"
    """The client closed its connection before the answer was whole (logged as 499, as nginx does)."""
    REJECTED = "rejected"
    """What came never became a request: malformed, too large, or too slow."""
    TRUNCATED = "truncated"
    """The service's answer broke off after its head had been sent; the connection was cut."""
    CANCELLED = "cancelled"
    """The worker was ended before the answer was whole."""
    FAILED = "failed"
    """A bug: the answer, if one went out, was a 500."""


class Exchange:
    """One request and its answer: times, tries, bytes and outcome, filled in as it happens.

    Times are seconds of the worker's monotonic clock; zero means that it did not happen.
    """

    __slots__ = (
        "_on_end",
        "bytes_in",
        "bytes_out",
        "connected",
        "ended",
        "error",
        "first_byte",
        "outcome",
        "passed_over",
        "reused",
        "route",
        "sent",
        "service",
        "started",
        "status",
        "target",
        "tries",
    )

    def __init__(self, started: float) -> None:
        self.started = started
        self.sent = 0.0
        """When the last try's head was handed to the target's connection."""
        self.first_byte = 0.0
        """When the head of the target's answer had come."""
        self.ended = 0.0
        self.status = 0
        """The status that the client was sent; 499 where it left before one was."""
        self.route = ""
        self.service = ""
        self.target = ""
        self.tries = 0
        self.passed_over: tuple[int, ...] = ()
        """What came of tries of which the target may have begun, and that others have followed: statuses, or 0."""
        self.bytes_in = 0
        """Bytes of the request's body, as sent by the client."""
        self.bytes_out = 0
        """Bytes of the response's body, as sent to the client."""
        self.error = ""
        """The type of the problem that was answered, and its detail for the log; never sent to the client."""
        self.outcome: Outcome | None = None
        self._on_end: list[Callable[[Exchange], None]] | None = None

    def on_end(self, callback: Callable[[Exchange], None]) -> None:
        """Have `callback` run exactly once, when nothing more will happen; it must not wait or raise."""
        if self._on_end is None:
            self._on_end = [callback]
        else:
            self._on_end.append(callback)

    def branch(self) -> Exchange:
        """Return a record for one of several tries at the same time: what they write must not mix."""
        return Exchange(self.started)

    def take(self, branch: Exchange) -> None:
        """Have what a branch has, as that try is the one that counts; whatever waits for its end waits for this one."""
        self.service, self.target, self.error = branch.service, branch.target, branch.error
        self.sent, self.first_byte = branch.sent, branch.first_byte
        callbacks, branch._on_end = branch._on_end, None
        for callback in callbacks or ():
            self.on_end(callback)

    def end(self, outcome: Outcome, now: float) -> None:
        """Close the record; the second and later calls do nothing."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        self.ended = now
        if self._on_end is not None:
            callbacks, self._on_end = self._on_end, None
            for callback in callbacks:
                self._run(callback)

    def _run(self, callback: Callable[[Exchange], None]) -> None:
        try:
            callback(self)
        except Exception:
            logger.exception("an on_end callback failed: %r", callback)
