"""A service as a Handler: pick a target, take a connection, send, and turn failures into answers.

From the outside in: `rescue` makes a Response of every UpstreamError, so that policies see one kind of answer; within it
a request that certainly was not carried out goes to another target; within that, the target's pool and its connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from portico.errors import Source, UpstreamError
from portico.http.message import Request, Response
from portico.net.client import Patience
from portico.net.pool import Pool
from portico.net.stream import NEVER
from portico.upstream.balance import RoundRobin

logger = logging.getLogger("portico.upstream")


class Target:
    """One address of a service: the Host it is sent, the path it hangs its API under, and its connections."""

    __slots__ = ("address", "authority", "failing", "pool", "prefix")

    def __init__(self, address: str, authority: bytes, prefix: str, pool: Pool) -> None:
        self.address = address
        self.authority = authority
        self.prefix = prefix
        self.pool = pool
        self.failing = False
        """True since the last attempt to connect failed; the log tells of each change once."""

    def __repr__(self) -> str:
        return f"<Target {self.address}>"


class Service:
    """A service of the file. `handle` is its Handler, the only way to reach it."""

    __slots__ = ("_balancer", "_clock", "_connect_timeout", "_patience", "_total", "name", "targets")

    def __init__(
        self,
        name: str,
        targets: Sequence[tuple[Target, int]],
        connect_timeout: float,
        patience: Patience,
        total: float,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.targets = tuple(target for target, _ in targets)
        self._balancer = RoundRobin(targets)
        self._connect_timeout = connect_timeout
        self._patience = patience
        self._total = total
        self._clock = clock

    async def handle(self, request: Request) -> Response:
        """Send `request` and return the service's answer, or the problem that stood in its way (`rescue`)."""
        if request.deadline is None and self._total != NEVER:
            request.deadline = self._clock() + self._total
        try:
            return await self._send(request)
        except UpstreamError as error:
            exchange = request.exchange
            if exchange is not None:
                exchange.error = f"{error.type}: {error.source}: {error.detail}"
            return Response.problem(error.status, error.type, error.title)

    async def _send(self, request: Request) -> Response:
        """Send to the target whose turn it is; to another, where the request certainly was not carried out."""
        target = self._balancer.next()
        tried: list[Target] = []
        fresh = False
        while True:
            try:
                return await self._try(request, target, fresh=fresh)
            except UpstreamError as error:
                if not error.retryable:
                    raise
                if error.source is Source.CONNECT:
                    self._connect_failed(target, error)
                    tried.append(target)
                    other = self._balancer.other(tried)
                    if other is None:
                        raise
                    target = other
                elif fresh:
                    raise
                else:
                    fresh = True  # a kept connection had been closed meanwhile: a new one tells for certain

    async def _try(self, request: Request, target: Target, *, fresh: bool) -> Response:
        pool = target.pool
        stream = None if fresh else pool.take()
        if stream is None:
            stream = await pool.connect(self._connect_timeout, request.deadline)
            if target.failing:
                target.failing = False
                logger.info("service %s: target %s is reachable again", self.name, target.address)
        exchange = request.exchange
        if exchange is not None:
            exchange.service = self.name
            exchange.target = target.address
            exchange.tries += 1
        path = target.prefix + request.target if target.prefix else request.target
        return await stream.send(request, path, request.authority or target.authority, self._patience)

    def _connect_failed(self, target: Target, error: UpstreamError) -> None:
        if not target.failing:
            target.failing = True
            logger.warning("service %s: target %s is not reachable: %s", self.name, target.address, error)
