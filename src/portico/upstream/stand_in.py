"""What stands in for a service's connections, so that a request goes all its way and no socket is opened.

`portico explain` looks at what would be sent by it, and `portico.testing` has a test's own answers given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from portico.http.message import Request, Response
from portico.net.client import ClientStream, Connections, Patience, outbound_head
from portico.upstream.stack import Service
from portico.upstream.target import Target


class Asked(NamedTuple):
    """A request as it has come to where a target's connection would be."""

    target: Target
    request: Request
    path: str
    """The path and the query that the target would be sent."""
    authority: bytes
    patience: Patience

    def head(self) -> bytes:
        """Return the bytes that the target would be sent first: the head, and the content where it is in memory."""
        return outbound_head(self.request, self.path, self.authority)


Answering = Callable[[Asked], Awaitable[Response]]
"""Answers in a target's place; it raises an UpstreamError as a connection does."""

Probing = Callable[[], None]
"""Raises OSError where the target is to be one that accepts no connections."""


class StandIn(Connections):
    """Stands in for the pool of one target; it has room for every request."""

    def __init__(self, target: Target, answer: Answering, probe: Probing) -> None:
        self._target = target
        self._answer = answer
        self._probe = probe
        self.under_way = 0

    @property
    def busy(self) -> int:
        """How many requests are being answered."""
        return self.under_way

    def take(self) -> ClientStream:
        """Return room for one request."""
        return _StandInStream(self, self._target, self._answer)

    async def connect(self, timeout: float, deadline: float | None) -> ClientStream:  # noqa: ASYNC109 - it is the seam
        """Return room for one request, as `take` does."""
        return _StandInStream(self, self._target, self._answer)

    async def probe(self) -> None:
        """Accept a connection, or not."""
        self._probe()


class _StandInStream(ClientStream):
    def __init__(self, pool: StandIn, target: Target, answer: Answering) -> None:
        self._pool = pool
        self._target = target
        self._answer = answer

    async def send(self, request: Request, target: str, authority: bytes, patience: Patience) -> Response:
        """Have the request answered."""
        self._pool.under_way += 1
        try:
            return await self._answer(Asked(self._target, request, target, authority, patience))
        finally:
            self._pool.under_way -= 1


def stand_in(service: Service, answer: Answering, probe: Probing = lambda: None) -> None:
    """Have `answer` answer what `service` is sent, whichever of its targets is picked."""
    if not service.targets:  # they are to be found out, and nobody looks
        address = f"{service.name}:80"
        service.roster.change([Target("http", address, service.name.encode(), "", Connections())])
    for target in service.targets:
        target.pool = StandIn(target, answer, probe)
