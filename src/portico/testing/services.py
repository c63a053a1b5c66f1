"""Services that a test plays: what they are asked is kept, and they answer, refuse, are silent or break off."""

from __future__ import annotations

import asyncio
import inspect
import json as jsons
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import orjson

from portico.errors import ConnectFailed, MalformedResponse, Source, UpstreamClosed, UpstreamTimeout
from portico.http.body import Body, Trailers
from portico.http.headers import HOP_BY_HOP
from portico.http.message import Request, Response
from portico.net.stream import NEVER
from portico.testing.fields import Fields, Given, headers_of
from portico.upstream.stand_in import Asked

MISSING: Final[Any] = object()

Pieces = Iterable[bytes] | AsyncIterable[bytes]


class Trouble(Exception):
    """What a service does instead of answering; given in place of a Reply, or raised while one is made."""


class Refuse(Trouble):
    """No connection is accepted: another target is tried, then the client is answered 502."""


class Silence(Trouble):
    """Nothing comes, until the service's timeouts, or the request's own, are over: 504."""


class Cut(Trouble):
    """The connection breaks off: before an answer 502; raised by a Reply's body, in the midst of the answer."""


class NothingToAnswer(AssertionError):
    """A service was asked, and the test has not said what it answers."""


class Reply:
    """What a service answers.

    A body in pieces is streamed; it may wait (`asyncio.sleep` takes no time) and raise `Cut`. A generator is used up by
    one answer: where there are several, give a function that makes a Reply of it. `json` makes the body of data.
    `interim` answers, such as `(103, {"Link": "</a.css>"})`, go ahead.
    """

    def __init__(
        self,
        status: int = 200,
        headers: Given | None = None,
        body: bytes | str | Pieces = b"",
        *,
        json: object = MISSING,
        trailers: Given | None = None,
        interim: Sequence[tuple[int, Given]] = (),
    ) -> None:
        self.status = status
        self.headers = headers_of(headers)
        self.trailers: Trailers = list(headers_of(trailers))
        self.interim = [(number, headers_of(given)) for number, given in interim]
        self.body: bytes | Pieces = body.encode() if isinstance(body, str) else body
        if json is not MISSING:
            self.body = orjson.dumps(json)
            if b"content-type" not in self.headers:
                self.headers.set(b"Content-Type", b"application/json")

    def __repr__(self) -> str:
        return f"Reply({self.status})"


class ServiceRequest:
    """A request as a service gets it."""

    def __init__(self, asked: Asked, body: bytes, trailers: Trailers) -> None:
        request = asked.request
        self.method: str = request.method
        self.target: str = asked.path
        """Path and query."""
        self.path, _, self.query = asked.path.partition("?")
        lines = asked.head().partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        pairs = (line.partition(b": ") for line in lines)
        self.headers = Fields((name, value) for name, _, value in pairs)
        self.body = body
        self.trailers = Fields(trailers)
        self.address: str = asked.target.address
        """The target that was picked, `host:port`."""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """Return what the body says as JSON."""
        return jsons.loads(self.body)

    def __repr__(self) -> str:
        return f"<ServiceRequest {self.method} {self.target}>"


Told = Reply | Trouble | type[Trouble]
Says = Told | Callable[[ServiceRequest], Told | Awaitable[Told]]
"""What a service says to one request: a Reply, a Trouble, or a function of the request, which may wait."""
Plays = Says | Sequence[Says]
"""What a service says to all requests, or to one after the other; the last goes on."""


class FakeService:
    """A service of the configuration, played by the test."""

    def __init__(self, name: str, plays: Plays | None = None) -> None:
        self.name = name
        self._plays = plays
        self._turn = 0
        self.requests: list[ServiceRequest] = []
        """What it was asked, in order."""
        self.mistakes: list[Exception] = []
        """What its functions have raised, other than a Trouble; raised by the Gateway for the test to see."""

    @property
    def plays(self) -> Plays | None:
        """What it answers; may be set anew at any time."""
        return self._plays

    @plays.setter
    def plays(self, plays: Plays) -> None:
        self._plays = plays
        self._turn = 0

    def probe(self) -> None:
        """Accept a connection, or not: what `/health` asks."""
        if self._plays is Refuse or isinstance(self._plays, Refuse):
            raise ConnectionRefusedError("the test has it refuse")

    async def answer(self, asked: Asked) -> Response:
        """Answer in the place of a target."""
        loop = asyncio.get_running_loop()
        request, body = asked.request, asked.request.body
        exchange = request.exchange
        content = body.whole if body.whole is not None else await _all_of(body)
        if exchange is not None:
            exchange.sent = loop.time()
        until = min(loop.time() + asked.patience.first_byte, NEVER if request.deadline is None else request.deadline)
        try:
            async with asyncio.timeout_at(None if until == NEVER else until):
                reply = await self._reply(ServiceRequest(asked, content, body.trailers()))
        except TimeoutError:
            raise UpstreamTimeout("no answer in time", source=Source.RESPONSE) from None
        except Refuse:
            if exchange is not None:
                exchange.tries -= 1  # what found no connection is no try
            raise ConnectFailed("the test has it refuse", source=Source.CONNECT, retryable=True) from None
        except Cut:
            raise UpstreamClosed("closed before an answer", source=Source.RESPONSE) from None
        for status, headers in reply.interim:
            request.interim(status, headers)
        if exchange is not None:
            exchange.first_byte = loop.time()
        return _response(reply, request, asked)

    async def _reply(self, request: ServiceRequest) -> Reply:
        """Return what to answer, or raise a Trouble; a mistake of the test is noted."""
        try:
            said = await self._said(request)
            if isinstance(said, type) and issubclass(said, Trouble):
                said = said()
            if isinstance(said, Trouble):
                raise said  # noqa: TRY301 - as one that a function raises
            if not isinstance(said, Reply):
                raise TypeError(f"the service {self.name!r} has to answer a Reply or a Trouble, not {said!r}")  # noqa: TRY301
        except Silence:
            await asyncio.get_running_loop().create_future()
            raise
        except Trouble:
            raise
        except Exception as error:
            self.mistakes.append(error)
            raise MalformedResponse("the test's own function has failed", source=Source.RESPONSE) from error
        return said

    async def _said(self, request: ServiceRequest) -> object:
        said: Any = self._plays
        if isinstance(said, Sequence):
            said = said[min(self._turn, len(said) - 1)]
        self._turn += 1
        self.requests.append(request)
        if said is None:
            raise NothingToAnswer(
                f"{request.method} {request.target} was sent to the service {self.name!r}, which has no answer; "
                f"pass services={{{self.name!r}: Reply(200)}}"
            )
        if callable(said) and not isinstance(said, type):
            said = said(request)
            if inspect.isawaitable(said):
                said = await said
        return said


async def _all_of(body: Body) -> bytes:
    """Return a body that is on its way: a service takes it piece by piece, and what was sent is not there any more."""
    pieces = []
    while piece := await body.chunk():
        pieces.append(piece)
    return b"".join(pieces)


def _response(reply: Reply, request: Request, asked: Asked) -> Response:
    headers = reply.headers.copy()
    for name in HOP_BY_HOP:
        headers.remove(name)
    if isinstance(reply.body, bytes) and not reply.trailers:
        whole = b"" if request.method == "HEAD" else reply.body
        return Response(reply.status, headers, whole)
    pieces: Pieces = [reply.body] if isinstance(reply.body, bytes) else reply.body
    content = _Content(pieces, reply.trailers, asked.patience.idle, request.deadline)
    if request.exchange is not None:
        request.exchange.on_end(lambda _: content.close())
    length = headers.index.get(b"content-length")
    return Response(reply.status, headers, Body.stream(content, None if length is None else int(length)))


class _Content:
    """The content of an answer that comes in pieces; each has to come in time."""

    def __init__(self, pieces: Pieces, trailers: Trailers, idle: float, deadline: float | None) -> None:
        self._pieces = aiter(pieces) if isinstance(pieces, AsyncIterable) else _slowly(pieces)
        self._trailers = trailers
        self._idle = idle
        self._deadline = NEVER if deadline is None else deadline
        self._over = False

    async def read(self) -> bytes:
        """Return the next piece, or b"" at the end."""
        until = min(asyncio.get_running_loop().time() + self._idle, self._deadline)
        try:
            async with asyncio.timeout_at(None if until == NEVER else until):
                while not self._over:
                    piece = await anext(self._pieces, b"")
                    self._over = not piece
                    return piece
        except TimeoutError:
            raise UpstreamTimeout("the answer stalled", source=Source.RESPONSE) from None
        except Cut:
            raise UpstreamClosed("closed within its answer", source=Source.RESPONSE) from None
        return b""

    def trailers(self) -> Trailers:
        """Return the trailer fields."""
        return self._trailers

    def close(self) -> None:
        """Give up the rest."""
        self._over = True


async def _slowly(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        if piece:  # an empty one would be the end
            yield piece
