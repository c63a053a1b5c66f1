"""A service as a Handler: pick a target, take a connection, send, and turn failures into answers.

From the outside in: `rescue` makes a Response of every UpstreamError, so that policies see one kind of answer; within
it a request that certainly was not carried out goes to another target; within that, the target's pool and its
connection.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from portico.errors import Overloaded, Source, UpstreamError
from portico.http.message import Request, Response
from portico.net.client import ClientStream, Patience
from portico.net.stream import NEVER
from portico.upstream.balance.round_robin import RoundRobin
from portico.upstream.target import Target

logger = logging.getLogger("portico.upstream")

TELL_AGAIN: Final = 60.0
"""Seconds for which the log does not tell again that a target's answers go wrong."""


class Service:
    """A service of the file. `handle` is its Handler, the only way to reach it."""

    __slots__ = ("_balancer", "_clock", "_connect_timeout", "_patience", "_total", "_upgrades", "name", "targets")

    def __init__(
        self,
        name: str,
        targets: Sequence[tuple[Target, int]],
        connect_timeout: float,
        patience: Patience,
        total: float,
        clock: Callable[[], float],
        upgrades: frozenset[bytes] = frozenset((b"websocket",)),
    ) -> None:
        """`upgrades` are the protocols, in lower case, that a client may change to (RFC 9110 section 7.8)."""
        self.name = name
        self._upgrades = upgrades
        for target, weight in targets:
            target.weight = weight
        self.targets = tuple(target for target, _ in targets)
        self._balancer = RoundRobin(self.targets)
        self._connect_timeout = connect_timeout
        self._patience = patience
        self._total = total
        self._clock = clock

    async def handle(self, request: Request) -> Response:
        """Send `request` and return the service's answer, or the problem that stood in its way (`rescue`).

        A request that certainly was not carried out goes to another target, or again over a new connection.
        """
        if request.deadline is None and self._total != NEVER:
            request.deadline = self._clock() + self._total
        if request.upgrade and request.upgrade not in self._upgrades:
            request.upgrade = b""
        target = self._balancer.pick(request)
        error: UpstreamError
        try:
            stream = target.pool.take()
            if stream is None:
                stream = await self._connect(request, target)
            return await self._send(request, target, stream)
        except UpstreamError as first:
            error = first
        tried: list[Target] = []
        while error.retryable:
            if error.source is Source.CONNECT:
                if not isinstance(error, Overloaded):
                    self._connect_failed(target, error)
                tried.append(target)
                other = self._balancer.other(request, tried)
                if other is None:
                    break
                target = other
            try:
                # Never over a kept connection: one that was closed meanwhile may be why we are here.
                return await self._send(request, target, await self._connect(request, target))
            except UpstreamError as next_one:
                error = next_one
        if error.source is Source.RESPONSE:
            self._answer_failed(target, error)
        if request.exchange is not None:
            request.exchange.error = f"{error.type}: {error.source}: {error.detail}"
        return Response.problem(error.status, error.type, error.title)

    def _send(self, request: Request, target: Target, stream: ClientStream) -> Awaitable[Response]:
        exchange = request.exchange
        if exchange is not None:
            exchange.service = self.name
            exchange.target = target.address
            exchange.tries += 1
        path = request.path if request.query is None else f"{request.path}?{request.query}"
        authority = target.authority if request.authority is None else request.authority
        return stream.send(request, target.prefix + path, authority, self._patience)

    async def _connect(self, request: Request, target: Target) -> ClientStream:
        stream = await target.pool.connect(self._connect_timeout, request.deadline)
        if target.failing:
            target.failing = False
            logger.info("service %s: target %s is reachable again", self.name, target.address)
        return stream

    def _answer_failed(self, target: Target, error: UpstreamError) -> None:
        """Log what went wrong with an answer, at most once in a while: what is wrong with each is in its record."""
        now = self._clock()
        if now - target.told_at >= TELL_AGAIN:
            target.told_at = now
            logger.warning("service %s: target %s: %s (%s)", self.name, target.address, error, error.type)

    def _connect_failed(self, target: Target, error: UpstreamError) -> None:
        if not target.failing:
            target.failing = True
            logger.warning("service %s: target %s is not reachable: %s", self.name, target.address, error)
