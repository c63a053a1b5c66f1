"""What a worker remembers of its last requests: references to what is there anyway, made into words when asked for.

There are three rings, so that a flood of one kind does not drive out the others: what failed or was slow, what was
refused, and everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from portico.http.correlation import CORRELATION_ID
from portico.http.message import Observer, Request
from portico.http.user import USER
from portico.observe.exchange import Exchange, Outcome
from portico.runtime.observing import Watched

MAX_TARGET: Final = 2048
"""Bytes of a request's target that are remembered."""
MAX_VALUE: Final = 256
"""Bytes of a header's value."""

_COMPLETE: Final = Outcome.COMPLETE


class Record:
    """One request that is over."""

    __slots__ = ("address", "correlation_id", "exchange", "headers", "host", "number", "routes", "target", "user")

    def __init__(self, exchange: Exchange, routes: Mapping[str, Watched], number: int) -> None:
        self.exchange = exchange
        self.routes = routes
        """Those of the configuration by which it was answered."""
        self.number = number
        """Counts the requests of the worker."""
        self.target = b""
        """As the client has sent it; a secret may be in its query."""
        self.host = ""
        self.address = ""
        self.user = ""
        self.correlation_id = b""
        self.headers: list[tuple[str, bytes]] | None = None
        """Some headers of the request, where any of those are there."""


class Ring:
    """The last records of one kind."""

    __slots__ = ("_at", "_records")

    def __init__(self, size: int) -> None:
        self._records: list[Record | None] = [None] * size
        self._at = 0

    def add(self, record: Record) -> None:
        """Remember a record, in the place of the oldest one."""
        at = self._at
        if not self._records:
            return
        self._records[at] = record
        at += 1
        self._at = 0 if at == len(self._records) else at

    def __iter__(self) -> Iterator[Record]:
        """Iterate from the newest to the oldest."""
        ordered = [*self._records[self._at :], *self._records[: self._at]]
        return iter([record for record in reversed(ordered) if record is not None])

    def resized(self, size: int) -> Ring:
        """Return a ring of another size with the newest of these."""
        other = Ring(size)
        for record in list(self)[:size][::-1]:
            other.add(record)
        return other


class Memory:
    """All that a worker remembers, over all its configurations."""

    __slots__ = ("_size", "count", "failed", "on_record", "refused", "usual")

    def __init__(self) -> None:
        self._size = 0
        self.count = 0
        self.failed = Ring(1)
        self.refused = Ring(1)
        self.usual = Ring(1)
        self.on_record: Callable[[Record], None] | None = None
        """Sees each record, while somebody wants to."""

    def resize(self, size: int) -> None:
        """Remember so many of each kind."""
        if size != self._size:
            self._size = size
            self.failed, self.refused = self.failed.resized(size), self.refused.resized(size)
            self.usual = self.usual.resized(size)

    def __iter__(self) -> Iterator[Record]:
        """Iterate from the newest to the oldest."""
        records = [record for ring in (self.failed, self.refused, self.usual) for record in ring]
        records.sort(key=lambda record: -record.number)
        return iter(records)


class Recorder(Observer):
    """Remembers the exchanges of one configuration."""

    __slots__ = ("_headers", "_memory", "_slow", "routes")

    def __init__(
        self, memory: Memory, slow: float, headers: tuple[str, ...], routes: dict[str, Watched] | None = None
    ) -> None:
        self._memory = memory
        self._slow = slow
        self._headers = [(name, name.lower().encode("ascii")) for name in headers]
        self.routes: dict[str, Watched] = {} if routes is None else routes
        """Which routes there are, by name."""

    def ended(self, exchange: Exchange, request: Request | None) -> None:
        """Remember an exchange."""
        memory = self._memory
        memory.count += 1
        record = Record(exchange, self.routes, memory.count)
        if request is not None:
            self._describe(record, request)
        status = exchange.status
        if status >= 500 or exchange.outcome is not _COMPLETE or exchange.ended - exchange.started >= self._slow:
            memory.failed.add(record)
        elif status >= 400:
            memory.refused.add(record)
        else:
            memory.usual.add(record)
        if memory.on_record is not None:
            memory.on_record(record)

    def _describe(self, record: Record, request: Request) -> None:
        target = request.raw_target
        record.target = target if len(target) <= MAX_TARGET else target[:MAX_TARGET]
        record.host = request.host
        client = request.client
        if client is not None:
            record.address = client.address
        if request.has_slots:
            user = request.get(USER)
            if user is not None:
                record.user = user.name
            correlation_id = request.get(CORRELATION_ID)
            if correlation_id is not None:
                record.correlation_id = correlation_id
        index = request.headers.index
        for name, key in self._headers:
            value = index.get(key)
            if value is not None:
                if record.headers is None:
                    record.headers = []
                record.headers.append((name, value if len(value) <= MAX_VALUE else value[:MAX_VALUE]))


class ProbeRecorder(Recorder):
    """Remembers of probes and scrapes what failed: the rest would drive out all else, and says nothing."""

    def ended(self, exchange: Exchange, request: Request | None) -> None:
        """Remember an exchange that was no success."""
        if exchange.status >= 400 or exchange.outcome is not _COMPLETE:
            super().ended(exchange, request)
