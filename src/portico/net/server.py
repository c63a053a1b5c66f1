"""The server side, whatever the version of HTTP: who is connected, by which rules, and how all of it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from mypy_extensions import mypyc_attr, trait

from portico.http.error_shapes import ProblemWriter, write_problem
from portico.http.forwarded import Trust
from portico.http.message import Handler, Observer
from portico.http.target import EncodedSlashes
from portico.net.stream import Outbox
from portico.observe.exchange import Exchange
from portico.wire.fields import request_fields
from portico.wire.framing import MAX_CHUNK_LINE, MAX_TRAILERS

logger = logging.getLogger("portico.server")

NO_EPOCH: Final = -1

DRAIN_GRACE: Final = 1.0
"""Seconds that a connection without a request is kept when the server drains."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a client may send, and how long it may take: bytes, counts, and seconds."""

    request_head: int = 32 * 1024
    request_target: int = 8 * 1024
    header_count: int = 100
    chunk_line: int = MAX_CHUNK_LINE
    trailers: int = MAX_TRAILERS
    handshake_timeout: float = 10.0
    head_timeout: float = 30.0
    body_timeout: float = 30.0
    write_timeout: float = 30.0
    keepalive_timeout: float = 75.0
    tunnel_timeout: float = 600.0
    connections: int = 10_000
    requests_per_connection: int = 10_000


@trait
@mypyc_attr(allow_interpreted_subclasses=True)
class ServerConnection:
    """A client's connection, as far as the server has to end it."""

    def close_if_idle(self) -> None:
        """Close the connection where no request is under way or on its way, and otherwise once none is."""
        raise NotImplementedError

    def cancel(self) -> None:
        """End the connection, whatever it is doing."""
        raise NotImplementedError

    def exchanges(self) -> list[Exchange]:
        """Return the exchanges of the requests that are under way on it."""
        return []


class Server:
    """All connections of one worker. `handler` answers; it is read once per request, so a swap is one assignment."""

    def __init__(
        self,
        handler: Handler,
        limits: ServerLimits,
        slashes: EncodedSlashes,
        tasks: asyncio.TaskGroup,
        outbox: Outbox | None = None,
        trust: Trust | None = None,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.slashes = slashes
        self.trust = Trust() if trust is None else trust
        self.write_problem: ProblemWriter = write_problem
        """Writes what fails before there is a request; like `handler`, it is read each time."""
        self.observer: Observer | None = None
        """Who sees what comes to no route; None where nobody does. It is read for each request."""
        self.draining = False
        self.epoch = 0
        """Grows when connections are to end after their next answer: what they began with holds no more. One that
        begins while the server drains has none, and so ends after its first.
        """
        self.answered = 0
        """Requests that have come to an end of any kind."""
        self.loop = asyncio.get_running_loop()
        self.tasks = tasks
        self.outbox = Outbox(self.loop) if outbox is None else outbox
        self.fields = request_fields(limits.header_count)
        self._connections: set[ServerConnection] = set()
        self._empty = asyncio.Event()
        self._date = b""
        self._date_second = 0

    def date(self) -> bytes:
        """Return the Date header line (RFC 9110 section 6.6.1), for answers that have none."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second = second
            self._date = f"Date: {formatdate(second, usegmt=True)}".encode("ascii")
        return self._date

    @property
    def full(self) -> bool:
        """True where there are as many connections as there may be."""
        return len(self._connections) >= self.limits.connections

    def remember(self, connection: ServerConnection) -> None:
        """Count a connection, and end it when the server drains."""
        self._connections.add(connection)

    def forget(self, connection: ServerConnection) -> None:
        """Strike a connection that has ended."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    @property
    def epoch_of_new(self) -> int:
        """The epoch of a connection that begins now."""
        return NO_EPOCH if self.draining else self.epoch

    @property
    def connections(self) -> int:
        """How many connections clients have."""
        return len(self._connections)

    def under_way(self) -> list[Exchange]:
        """Return the exchanges of all requests that are under way."""
        found: list[Exchange] = []
        for connection in self._connections:
            found += connection.exchanges()
        return found

    def change(
        self,
        handler: Handler,
        limits: ServerLimits,
        slashes: EncodedSlashes,
        trust: Trust,
        write_problem: ProblemWriter = write_problem,
        observer: Observer | None = None,
    ) -> None:
        """Answer by `handler` from the next request on, and take clients by these rules.

        A connection that began by other rules is told, with its next answer, that it was the last.
        """
        self.handler, self.write_problem, self.observer = handler, write_problem, observer
        if limits == self.limits and slashes == self.slashes and trust.same_as(self.trust):
            return
        self.limits, self.slashes, self.trust = limits, slashes, trust
        self.fields = request_fields(limits.header_count)  # it remembers paths as the rules before had them
        self.epoch += 1

    async def drain(self, deadline: float) -> None:
        """Let every request under way come to its end, by `deadline` at the latest, and close all connections.

        A connection without a request is not closed at once: a request may be on its way, and its client would see it
        fail. For a moment it is still answered, and told that it was the last.
        """
        self.draining = True
        self.epoch += 1
        if not await self._emptied(min(deadline, self.loop.time() + DRAIN_GRACE)):
            for connection in tuple(self._connections):
                connection.close_if_idle()
        if not await self._emptied(deadline):
            logger.warning("%d connections were still busy at the deadline of the drain", len(self._connections))
            for connection in tuple(self._connections):
                connection.cancel()

    async def _emptied(self, by: float) -> bool:
        """Wait until all connections have ended, until `by` at the latest; tell whether they have."""
        try:
            async with asyncio.timeout_at(by):
                while self._connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            return False
        return True
