"""Gives a request its place in a trace, ahead of its route's policies.

Whether a trace is recorded is decided by its id, so that all who decide by the same share decide the same (as
OpenTelemetry's TraceIdRatioBased does), unless the request says so, or has a signed header that does.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from portico.http.forwarded import Trust
from portico.http.headers import Headers
from portico.http.message import Request
from portico.http.trace_context import (
    B3,
    B3_MULTI,
    FIELDS,
    MALFORMED,
    RANDOM,
    SAMPLED,
    UNDECIDED,
    W3C,
    Given,
    Ids,
    flags_of,
    read,
    tell,
    traceparent,
    tracestate,
)
from portico.observe.exchange import Exchange, Trace

_IDS: Final = 1 << 56
"""How many there are of what is random in a trace's id (Trace Context section 3.2.2.5.2)."""
_RANDOM_PART: Final = 18
"""Where that begins, in hexadecimal digits."""
_KNOWN_PEERS: Final = 1024
"""Addresses of which it is remembered whether they are trusted."""
_LONGEST_TOKEN: Final = 128


class Force:
    """Believes a header that was signed with a secret."""

    __slots__ = ("_longest", "_secret", "_wall", "key")

    def __init__(self, key: bytes, secret: bytes, longest: float, wall: Callable[[], float]) -> None:
        """`key` is the header's name in lower case; a time more than `longest` seconds ahead is not believed."""
        self.key = key
        self._secret = secret
        self._longest = longest
        self._wall = wall

    def believes(self, value: bytes) -> bool:
        """Return whether a header with this value was signed, and is good still."""
        until, _, signature = value.partition(b".")
        if len(value) > _LONGEST_TOKEN or not until.isdigit() or len(until) > 12:
            return False
        right = hmac.new(self._secret, b"trace until " + until, "sha256").hexdigest().encode("ascii")
        if not hmac.compare_digest(right, signature):
            return False
        left = int(until) - self._wall()
        return 0.0 <= left <= self._longest


class Rules:
    """What is the same for all routes of a configuration."""

    __slots__ = ("careful", "follow", "force", "forms", "ids", "known_peers", "order", "trust")

    def __init__(self, order: tuple[int, ...], follow: bool, trust: Trust | None, force: Force | None) -> None:
        """Believe the first of the forms in `order` that is there; where there is a `trust`, only from those."""
        self.order = order
        self.forms = sum(order)
        self.follow = follow
        self.trust = trust
        self.force = force
        self.careful = self.forms != W3C or trust is not None or force is not None
        """Whether there is more to look at than the headers of Trace Context."""
        self.ids = Ids()
        self.known_peers: dict[str, bool] = {}

    def trusts(self, request: Request) -> bool:
        """Return whether what a request says of its trace is believed."""
        if self.trust is None:
            return True
        client = request.client
        if client is None:
            return False
        known = self.known_peers.get(client.peer)
        if known is None:
            if len(self.known_peers) >= _KNOWN_PEERS:
                self.known_peers.clear()
            known = self.known_peers[client.peer] = self.trust.includes(client.peer)
        return known


class Tracer:
    """The traces of one route."""

    __slots__ = ("_limit", "_rules")

    def __init__(self, rules: Rules, share: float) -> None:
        """Have `share`, from 0 to 1, of those traces recorded that do not say it themselves."""
        self._rules = rules
        self._limit = round(share * _IDS)

    def begin(self, exchange: Exchange, request: Request) -> None:
        """Have a request be a part of a trace, and its headers say so for the service."""
        rules = self._rules
        headers = request.headers
        index = headers.index
        value = index.get(b"traceparent")
        if value is None and not rules.careful and b"tracestate" not in index:
            self._begin_anew(exchange, headers)
            return
        if value is None or rules.careful or len(index) != len(headers.pairs):
            self._begin_with_care(exchange, request)
            return
        flags = flags_of(value)
        if flags == MALFORMED:
            self._begin_with_care(exchange, request)
            return
        trace_id = exchange.trace_id = value[3:35].decode("ascii")
        span_id = exchange.span_id = rules.ids.span()
        if not rules.follow:
            flags = self._decided(trace_id, flags)
        if flags & SAMPLED:
            exchange.sampled = True
            exchange.trace = Trace(value[36:52].decode("ascii"), flags, W3C)
        if b"tracestate" in index:
            _keep_state(headers)
        headers.put(b"traceparent", traceparent(trace_id, span_id, flags))

    def _begin_anew(self, exchange: Exchange, headers: Headers) -> None:
        """Begin a trace here, for a request that says nothing of any."""
        digits = self._rules.ids.both()
        trace_id = exchange.trace_id = digits[:32]
        span_id = exchange.span_id = digits[32:]
        flags = self._decided(trace_id, RANDOM)
        if flags & SAMPLED:
            exchange.sampled = True
            exchange.trace = Trace("", flags, W3C)
        headers.put(b"traceparent", traceparent(trace_id, span_id, flags))

    def _begin_with_care(self, exchange: Exchange, request: Request) -> None:
        """Do the same for a request of which more is to be looked at, or of which nothing is known."""
        rules = self._rules
        headers = request.headers
        forced = self._forced(headers)
        given: Given | None = None
        if rules.trusts(request):
            believed = 0
            for form in rules.order:
                given = read(headers, form)
                if given is not None:
                    believed = form
                    break
            if believed == W3C:
                _keep_state(headers)
            elif rules.forms & W3C:  # it is of a traceparent that does not count (section 3.3)
                headers.remove(b"tracestate")
        else:
            for name in FIELDS:
                headers.remove(name)
        span_id = exchange.span_id = rules.ids.span()
        if given is not None and given.trace_id:
            exchange.trace_id, parent_id, flags = given.trace_id, given.parent_id, given.flags & RANDOM
        else:
            exchange.trace_id, parent_id, flags = rules.ids.trace(), "", RANDOM
        if forced:
            flags |= SAMPLED
        elif rules.follow and given is not None and given.decision != UNDECIDED:
            flags |= given.decision
        else:
            flags = self._decided(exchange.trace_id, flags)
        if flags & SAMPLED:
            exchange.sampled = True
            exchange.trace = Trace(parent_id, flags, rules.forms)
        tell(headers, rules.forms, exchange, span_id, parent_id, flags)

    def _forced(self, headers: Headers) -> bool:
        """Return whether the request is to be recorded in any case; no service is told."""
        force = self._rules.force
        if force is None:
            return False
        value = headers.get(force.key)
        if value is None:
            return False
        headers.remove(force.key)
        return force.believes(value)

    def _decided(self, trace_id: str, flags: int) -> int:
        """Return the flags of a trace whose recording is decided here."""
        sampled = self._limit > 0 and int(trace_id[_RANDOM_PART:], 16) < self._limit
        return flags | SAMPLED if sampled else flags & ~SAMPLED


def _keep_state(headers: Headers) -> None:
    """Keep a tracestate as one header where it is sound; otherwise all of it goes."""
    values = headers.get_all(b"tracestate")
    if not values:
        return
    state = tracestate(values)
    if not state:
        headers.remove(b"tracestate")
    elif len(values) > 1 or values[0] != state:
        headers.put(b"tracestate", state)


FORMS: Final = {"w3c": W3C, "b3": B3, "b3-multi": B3_MULTI}
"""The forms of headers as the file calls them."""
