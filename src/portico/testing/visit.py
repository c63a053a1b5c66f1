"""A client that a test plays: one request, and what came of it."""

from __future__ import annotations

import asyncio
import json as jsons
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any, TypedDict

import orjson

from portico.errors import RequestError
from portico.http.body import Trailers
from portico.http.headers import Headers
from portico.http.message import Client, Handler, Key, Request, Response
from portico.net.server import Server
from portico.net.server_stream import ServerStream
from portico.observe.exchange import Exchange, Outcome
from portico.testing.fields import Fields, Given, headers_of
from portico.testing.services import Pieces
from portico.wire import h1
from portico.wire.events import Data, End, RequestHead


class Options(TypedDict, total=False):
    """What may be said of a request, beside its method and its target."""

    headers: Given | None
    body: bytes | str | Pieces
    """Its content; in pieces it is streamed, and sent chunked unless there is a Content-Length among the headers."""
    json: object
    """Content to be written as JSON."""
    trailers: Given | None
    """What follows content in pieces."""
    client: str
    """The address that the connection comes from; 127.0.0.1 unless given. The file's trusted proxies are believed."""
    host: str
    """The host that is asked for; `localhost` unless given."""
    scheme: str
    """`http` or `https`; that of the first listener unless given."""
    certificate: bytes
    """The certificate that the client has shown, in DER, as if a listener had asked for it and verified it."""
    slots: Mapping[Key[Any], Any]
    """Slots that are filled as if by policies further out: `slots={USER: User("ada")}`."""
    leaves_after: float
    """Seconds after which the client closes its connection, if it has no whole answer yet."""


class Answer:
    """What a client was answered.

    `status` is 0 where it was sent nothing: it had left, or the request's task was ended.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers = Fields()
        self.chunks: list[bytes] = []
        """The content in the pieces in which it was sent."""
        self.trailers = Fields()
        self.interim: list[tuple[int, Fields]] = []
        """Answers that were sent ahead of this one (1xx)."""
        self.whole = False
        """Whether it came to its end, and was not cut."""
        self.exchange = Exchange(0.0)
        """The record of the request: route, service, tries, bytes, times, outcome."""
        self._problem = ""

    @property
    def body(self) -> bytes:
        """Its content."""
        return b"".join(self.chunks)

    @property
    def text(self) -> str:
        """Its content as text."""
        return self.body.decode()

    def json(self) -> Any:
        """Return what its content says as JSON."""
        return jsons.loads(self.body)

    @property
    def problem(self) -> str:
        """The type of the problem that it tells, such as `no-route`; "" where it tells none."""
        return self._problem

    @property
    def outcome(self) -> Outcome | None:
        """How the exchange has ended."""
        return self.exchange.outcome

    @property
    def route(self) -> str:
        """The name of the route that was taken."""
        return self.exchange.route

    def __repr__(self) -> str:
        problem = f" {self.problem}" if self.problem else ""
        return f"<Answer {self.status}{problem}>"


class Visit(ServerStream):
    """The server's side of one request, with a test where a connection would be."""

    def __init__(self, server: Server, client: Client, method: str, target: str, options: Options) -> None:
        super().__init__(server, client)
        self.answer = Answer()
        self.ended = server.loop.create_future()
        self._method = method
        self._target = target
        self._options = options
        self._sent: bytes | None = b""
        self._pieces: AsyncIterator[bytes] | None = None

    async def run(self, handler: Handler) -> Answer:
        """Send the request, and return what came of it once it is over."""
        loop, leaves = self.server.loop, self._options.get("leaves_after")
        leaving = None if leaves is None else loop.call_later(leaves, self.client_left)
        self._begin(handler)
        try:
            await self.ended
        finally:
            if leaving is not None:
                leaving.cancel()
            if not self.ended.done():
                self.give_up()
        if self._exchange is not None:
            self.answer.exchange = self._exchange
        return self.answer

    def _begin(self, handler: Handler) -> None:
        slots = self._options.get("slots", {})

        async def with_slots(request: Request) -> Response:
            for key, value in slots.items():
                request[key] = value
            return await handler(request)

        try:
            head = self._head()
        except RequestError as error:
            refused = error

            async def refuse(request: Request) -> Response:
                raise refused

            nothing = RequestHead("GET", b"/", 1, Headers([(b"Host", b"localhost")]), 0, False, False)
            self.begin(nothing, refuse)
        else:
            self.begin(head, with_slots)

    def _head(self) -> RequestHead:
        """Return the head as it is read from a connection; raise RequestError where it is not sound."""
        options, limits = self._options, self.server.limits
        fields = headers_of(options.get("headers"))
        body = options.get("body", b"")
        if "json" in options:
            body = orjson.dumps(options["json"])
            if b"content-type" not in fields:
                fields.set(b"Content-Type", b"application/json")
        content = body.encode() if isinstance(body, str) else body
        if isinstance(content, bytes):
            self._sent = content
            if content and b"content-length" not in fields:
                fields.set(b"Content-Length", b"%d" % len(content))
        else:
            self._sent = None
            self._pieces = aiter(content) if isinstance(content, AsyncIterable) else _each(content)
            if b"content-length" not in fields:
                fields.set(b"Transfer-Encoding", b"chunked")
        pairs = list(fields)
        if b"host" not in fields:
            pairs.insert(0, (b"Host", options.get("host", "localhost").encode("latin-1")))
        start = f"{self._method} {self._target} HTTP/1.1".encode("latin-1")
        lines = [start, *(name + b": " + value for name, value in pairs), b"", b""]
        reader = h1.RequestReader(limits.request_head, limits.header_count, limits.request_target)
        reader.receive(b"\r\n".join(lines))
        head = reader.next_head()
        if head is None:
            raise ValueError(f"{self._method!r} {self._target!r} cannot be the beginning of a request")
        return head

    # What a codec does: the test's side of it.

    async def read_content(self) -> Data | End:
        """Return the next piece of the request's content."""
        assert self._pieces is not None
        piece = await anext(self._pieces, b"")
        return Data(piece, last=False) if piece else End(list(headers_of(self._options.get("trailers"))))

    def take_whole(self) -> bytes | None:
        """Return the request's content, unless it comes in pieces."""
        return self._sent

    def send_interim(self, status: int, headers: Headers) -> None:
        """Note an answer ahead of the final one."""
        self.answer.interim.append((status, Fields(headers)))

    def send_head(self, head: RequestHead, response: Response) -> None:
        """Note the head of the answer."""
        self.answer.status = response.status
        self.answer.headers = Fields(self.answer_fields(head, response))
        problem = response.problem_value
        if problem is not None:
            self.answer._problem = problem.type  # noqa: SLF001 - an answer is read by tests, and written here
        elif response.body.whole and self.answer.headers.get("content-type") == "application/problem+json":
            told = str(orjson.loads(response.body.whole).get("type", ""))
            self.answer._problem = told.removeprefix("urn:portico:problem:")  # noqa: SLF001 - as above

    def send_content(self, data: bytes) -> None:
        """Note a piece of the answer's content."""
        self.answer.chunks.append(data)

    def send_end(self, trailers: Trailers) -> None:
        """Note that the answer is whole."""
        self.answer.whole = True
        self.answer.trailers = Fields(trailers)

    async def drain(self) -> None:
        """Let others have their turn; a test takes all that comes."""
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Note that the answer broke off, by leaving `whole` as it is."""

    def over(self) -> None:
        """Tell the test."""
        if not self.ended.done():
            self.ended.set_result(None)


async def _each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        if piece:
            yield piece
