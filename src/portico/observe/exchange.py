"""The record of one request and its answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

logger = logging.getLogger("portico.exchange")

MOST_NOTES: Final = 64
"""How many notes, steps and tries a record holds; what would be more is left out."""

MAX_NOTE: Final = 256
"""Characters of a note, or of what is said of a step; what is longer is cut."""

ANSWERED: Final = "answered"
"""The outcome of a try whose answer is the service's own, whatever its status."""

UNANSWERED: Final = "cancelled"
"""The outcome of a try that was given up: the client has left, or the time of its route was over."""


AGAIN: Final = frozenset(("hit", "stale", "replayed"))
"""Results by which a client was given what a service has answered before."""


class ResultKind(StrEnum):
    """What a result is of."""

    CACHE = "cache"
    LIMIT = "limit"
    IDEMPOTENCY = "idempotency"


class Result(NamedTuple):
    """What came of a request at a policy, in the words of the policy's metric. It is made at load."""

    kind: ResultKind
    policy: str
    """The name that the file has for it."""
    result: str


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


class Try:
    """One try of a request at a target. Times are those of the Exchange."""

    __slots__ = (
        "connected",
        "ended",
        "first_byte",
        "outcome",
        "sent",
        "service",
        "span_id",
        "started",
        "target",
        "tls",
    )

    def __init__(
        self,
        service: str,
        target: str,
        outcome: str,
        *,
        started: float,
        connected: float,
        tls: float,
        sent: float,
        first_byte: float,
        ended: float,
        span_id: str = "",
    ) -> None:
        self.service = service
        self.target = target
        self.outcome = outcome
        """`answered`; a problem's type, such as `service-timeout`; the status that had it tried again; or `outrun`."""
        self.started = started
        """When its connection began to be made; 0 where a kept one was used."""
        self.connected = connected
        """When its connection was there, TLS included; 0 where a kept one was used."""
        self.tls = tls
        """Seconds of that which the TLS handshake took."""
        self.sent = sent
        self.first_byte = first_byte
        self.ended = ended
        self.span_id = span_id
        """What the target was told of it, where the trace is recorded."""


class Step:
    """Something that a request waited for, or by which it was answered, beside its tries."""

    __slots__ = ("began", "ended", "name", "what")

    def __init__(self, name: str, began: float, ended: float, what: str) -> None:
        self.name = name
        self.began = began
        self.ended = ended
        self.what = what


class Trace:
    """What is needed beside the ids of a trace that is recorded."""

    __slots__ = ("flags", "forms", "parent_id")

    def __init__(self, parent_id: str, flags: int, forms: int) -> None:
        self.parent_id = parent_id
        """The span of whoever has sent the request; empty where the trace begins here."""
        self.flags = flags
        self.forms = forms
        """In which headers services are told (`portico.http.trace_context`)."""


class Exchange:
    """One request and its answer: times, tries, bytes and outcome, filled in as it happens.

    Times are seconds of the worker's monotonic clock; zero means that it did not happen. What is said of a try is of
    the last one; `tried` has those before it.
    """

    __slots__ = (
        "_on_end",
        "bytes_in",
        "bytes_out",
        "connected",
        "connecting",
        "ended",
        "error",
        "first_byte",
        "method",
        "notes",
        "outcome",
        "passed_over",
        "results",
        "route",
        "sampled",
        "sent",
        "service",
        "span_id",
        "started",
        "status",
        "steps",
        "stopped_by",
        "target",
        "tls",
        "trace",
        "trace_id",
        "tried",
        "tries",
        "try_outcome",
        "try_span",
    )

    def __init__(self, started: float) -> None:
        self.started = started
        self.method = ""
        """The method that the client has sent; empty where none could be read."""
        self.connecting = 0.0
        """When a new connection began to be made for the last try; 0 where a kept one was used."""
        self.connected = 0.0
        """When it was there, TLS included; 0 where a kept one was used."""
        self.tls = 0.0
        """Seconds of that which the TLS handshake took."""
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
        """How often the request was sent to a target; one that could not be connected to is not counted."""
        self.passed_over: tuple[int, ...] = ()
        """What came of tries of which the target may have begun, and that others have followed: statuses, or 0."""
        self.try_outcome = ""
        """How the last try came out: a problem's type, such as `service-timeout` or, where none was made,
        `circuit-open`; empty where the service has answered, or was not asked."""
        self.tried: list[Try] | None = None
        """The tries before the last one, where there were any."""
        self.stopped_by = ""
        """The name of the policy that answered instead of the service; empty where none did."""
        self.trace_id = ""
        """The trace that this is a part of, as 32 hexadecimal digits; empty where it is of none."""
        self.span_id = ""
        """The gateway's own span in that trace, as 16 hexadecimal digits."""
        self.sampled = False
        """Whether the trace is recorded somewhere."""
        self.trace: Trace | None = None
        """More of it, where it is."""
        self.try_span = ""
        """The span of the last try, where the trace is recorded."""
        self.results: tuple[Result, ...] = ()
        """What came of it at caches, limits and the like, in the order in which it has met them."""
        self.notes: dict[str, str | int | float] | None = None
        """What was noted by name, where anything was."""
        self.steps: list[Step] | None = None
        """What was waited for beside the tries, where anything was."""
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

    def note(self, name: str, value: str | int | float) -> None:
        """Note something of the request for the log and for `portico why`: a name in lower case with dots, as in
        `geo.country`, and no secret. A later value takes the place of an earlier one."""
        if isinstance(value, str) and len(value) > MAX_NOTE:
            value = value[:MAX_NOTE]
        notes = self.notes
        if notes is None:
            self.notes = {name: value}
        elif len(notes) < MOST_NOTES or name in notes:
            notes[name] = value

    def step(self, name: str, began: float, ended: float, what: str) -> None:
        """Note that the policy `name` has waited, or done what took time; `what` says for what, and is no secret."""
        what = what[:MAX_NOTE]
        steps = self.steps
        if steps is None:
            self.steps = [Step(name, began, ended, what)]
        elif len(steps) < MOST_NOTES:
            steps.append(Step(name, began, ended, what))

    def try_again(self, outcome: str, now: float) -> None:
        """Put the last try, which came out so, with those before: from now on all that is said is of the next one."""
        if self.sent or self.connecting:
            self._keep(self._last_try(outcome, now))
        self.connecting = self.connected = self.tls = self.sent = self.first_byte = 0.0
        self.try_span = ""

    def all_tries(self) -> list[Try]:
        """Return all tries, in the order in which they ended, also those that could not be connected."""
        tries = [] if self.tried is None else list(self.tried)
        if self.sent or self.connecting:
            given_up = self.outcome is not None and not self.first_byte
            outcome = self.try_outcome or (UNANSWERED if given_up else ANSWERED)
            tries.append(self._last_try(outcome, self.ended))
        return tries

    def _last_try(self, outcome: str, now: float) -> Try:
        return Try(
            self.service,
            self.target,
            outcome,
            started=self.connecting,
            connected=self.connected,
            tls=self.tls,
            sent=self.sent,
            first_byte=self.first_byte,
            ended=now,
            span_id=self.try_span,
        )

    def _keep(self, gone: Try) -> None:
        if self.tried is None:
            self.tried = [gone]
        elif len(self.tried) < MOST_NOTES:
            self.tried.append(gone)

    def branch(self) -> Exchange:
        """Return a record for one of several tries at the same time: what they write must not mix."""
        branch = Exchange(self.started)
        branch.trace_id, branch.span_id, branch.sampled = self.trace_id, self.span_id, self.sampled
        branch.trace = self.trace
        return branch

    def forgo(self, branch: Exchange, outcome: str, now: float) -> None:
        """Have the tries of a branch among those that do not count; the last of them came out so."""
        for gone in branch.tried or ():
            self._keep(gone)
        if branch.sent or branch.connecting:
            self._keep(branch._last_try(outcome, now))

    def take(self, branch: Exchange) -> None:
        """Have what a branch has, as that try is the one that counts; whatever waits for its end waits for this one."""
        self.tell_of(branch)
        callbacks, branch._on_end = branch._on_end, None
        for callback in callbacks or ():
            self.on_end(callback)

    def tell_of(self, other: Exchange) -> None:
        """Have all that another record says of tries, and of the policies there, as its answer is this one's, too."""
        self.service, self.target, self.error = other.service, other.target, other.error
        self.connecting, self.connected, self.tls = other.connecting, other.connected, other.tls
        self.sent, self.first_byte, self.try_outcome = other.sent, other.first_byte, other.try_outcome
        self.try_span = other.try_span
        self.results += other.results
        if other.stopped_by:
            self.stopped_by = other.stopped_by
        for gone in other.tried or ():
            self._keep(gone)
        for step in other.steps or ():
            self.step(step.name, step.began, step.ended, step.what)
        for name, value in (other.notes or {}).items():
            self.note(name, value)

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
