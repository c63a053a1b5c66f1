"""A service whose requests are copied to another one; what becomes of the copies is of no concern to the client."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from portico.errors import PorticoError
from portico.http.body import Body, BodySource, Trailers
from portico.http.message import Request, Response
from portico.observe.exchange import Exchange
from portico.upstream.breaker import Breaker
from portico.upstream.target import Target
from portico.upstream.upstream import Upstream

logger = logging.getLogger("portico.upstream")

MAX_DISCARDED: Final = 256 * 1024
"""Bytes of a copy's answer that are read and thrown away, so that its connection can be kept; a longer one is broken
off."""


class MirrorLimits(NamedTuple):
    """What a mirror keeps to: the share of requests that are copied, bytes of a body, how many copies may be under way,
    and seconds that one may take."""

    share: float
    body: int
    concurrency: int
    timeout: float


class Mirror:
    """Gives each request to `within`, and copies of some of them to another service.

    A body in memory is shared. One that streams is noted down as it passes, and its copy begins when it has passed as a
    whole; nothing waits for a copy, and nobody learns how it came out. What changes to another protocol is not copied.
    """

    __slots__ = (
        "_chance",
        "_copies",
        "_limits",
        "_noting",
        "_tasks",
        "_to",
        "_upgrades",
        "_within",
        "copied",
        "dropped",
        "failed",
        "instead",
        "share",
        "to",
    )

    def __init__(
        self,
        within: Upstream,
        to: Upstream,
        limits: MirrorLimits,
        upgrades: frozenset[bytes],
        tasks: asyncio.TaskGroup,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`upgrades` are the protocols that a client may change to; `chance` draws a number from 0 to below 1."""
        self._within = within
        self._to = to.handle
        self.to = to.name
        """The name of the service that gets the copies."""
        self.share = limits.share
        self._limits = limits
        self._upgrades = upgrades
        self._tasks = tasks
        self._chance = chance
        self._copies: set[asyncio.Task[None]] | None = set()
        """Those under way; None once there are to be no more."""
        self._noting = 0
        """How many bodies are being noted down."""
        self.copied = 0
        """How many copies were begun."""
        self.dropped = 0
        """How many were not, as there were too many under way."""
        self.failed = 0
        """How many were not answered, or not in time."""
        self.instead: Callable[[Mirror], None] | None = None
        """Called where a request could be copied, and no copy is made; for those who look at what becomes of one."""

    @property
    def name(self) -> str:
        """The name of the service whose requests are copied."""
        return self._within.name

    @property
    def targets(self) -> Sequence[Target]:
        """Where its requests may end, the copies not among them."""
        return self._within.targets

    @property
    def breaker(self) -> Breaker | None:
        """That of the service."""
        return self._within.breaker

    def well(self, is_well: Callable[[Target], bool]) -> bool:
        """Return whether the service can be asked; the copies are of no concern."""
        return self._within.well(is_well)

    def handle(self, request: Request) -> Awaitable[Response]:
        """Have `request` answered, and a copy of it made."""
        if request.upgrade not in self._upgrades:
            if self.instead is not None:
                self.instead(self)
            elif self.share >= 1.0 or self._chance() < self.share:
                self._copy(request)
        return self._within.handle(request)

    def close(self) -> None:
        """Give up the copies that are under way, and make no more."""
        copies, self._copies = self._copies, None
        for copy in copies or ():
            copy.cancel()

    def _copy(self, request: Request) -> None:
        body, exchange = request.body, request.exchange
        size = body.length
        if (size is not None and size > self._limits.body) or self._copies is None:
            return
        if body.whole is None and exchange is None:
            return  # nobody says when it is over, should its body not be read to the end
        if len(self._copies) + self._noting >= self._limits.concurrency:
            self.dropped += 1
        elif body.whole is not None:
            self.begin(request.copy(Body(body.whole)))
        else:
            assert exchange is not None
            self._noting += 1
            note = _Note(self, request.copy(Body()), self._limits.body, size)
            body.pass_through(note.take_over)
            exchange.on_end(note.give_up)

    def noted(self) -> None:
        """Have one body less that is being noted down."""
        self._noting -= 1

    def begin(self, copy: Request) -> None:
        """Send a copy on its way."""
        if self._copies is not None:
            self.copied += 1
            task = self._tasks.create_task(self._send(copy), name="mirror")
            self._copies.add(task)
            task.add_done_callback(self._copies.discard)

    async def _send(self, copy: Request) -> None:
        """Send a copy, and throw the answer away. It belongs to the worker's group: no error may leave it."""
        await asyncio.sleep(0)  # what the client waits for is sent first
        try:
            async with asyncio.timeout(self._limits.timeout):
                response = await self._to(copy)
                problem = response.problem_value
                if problem is not None:
                    self._fail(copy, problem.type)
                await _discard(response)
        except (PorticoError, TimeoutError) as error:
            self._fail(copy, str(error) or "no answer in time")
        except Exception:  # a bug here must not end the worker
            self.failed += 1
            logger.exception("service %s: a copy could not be sent to %s", self.name, self.to)

    def _fail(self, copy: Request, why: str) -> None:
        self.failed += 1
        logger.debug("service %s: the copy of %s %s for %s: %s", self.name, copy.method, copy.path, self.to, why)


async def _discard(response: Response) -> None:
    """Read an answer to its end, if that is near, and close it."""
    body = response.body
    try:
        if response.duplex is not None:
            response.duplex.close()
        left = MAX_DISCARDED
        while body.whole is None and left > 0 and (piece := await body.chunk()):
            left -= len(piece)
    finally:
        body.close()


class _Note:
    """A body on its way to the service, noted down as it passes."""

    __slots__ = ("_copy", "_left", "_length", "_mirror", "_pieces", "_source")

    def __init__(self, mirror: Mirror, copy: Request, limit: int, length: int | None) -> None:
        self._mirror = mirror
        self._copy = copy
        self._left = limit
        self._length = length
        self._pieces: list[bytes] | None = []
        """None once it was given up, or is complete."""
        self._source: BodySource | None = None

    def take_over(self, source: BodySource, ahead: bytes) -> BodySource:
        """Stand in for the source of a body of which `ahead` was looked at already."""
        self._source = source
        self._add(ahead)
        return self

    async def read(self) -> bytes:
        """Return the next piece."""
        assert self._source is not None
        piece = await self._source.read()
        if self._pieces is not None:
            if piece:
                self._add(piece)
            else:
                self._end(self._pieces)
        return piece

    def trailers(self) -> Trailers:
        """Return the trailer fields."""
        assert self._source is not None
        return self._source.trailers()

    def close(self) -> None:
        """Give up the rest."""
        self.give_up()
        if self._source is not None:
            self._source.close()

    def give_up(self, _: Exchange | None = None) -> None:
        """Make no copy, unless it was made."""
        if self._pieces is not None:
            self._pieces = None
            self._mirror.noted()

    def _add(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._left < 0:
            self.give_up()
        elif self._pieces is not None:
            self._pieces.append(piece)

    def _end(self, pieces: list[bytes]) -> None:
        self.give_up()
        content = b"".join(pieces)
        if self._length is None or len(content) == self._length:
            self._copy.body = Body(content)
            self._mirror.begin(self._copy)
