"""The client side, whatever the version of HTTP: room for one request and its answer on a connection to a target."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from mypy_extensions import mypyc_attr, trait

from portico.errors import BodyTruncated, MalformedResponse, Source, UpstreamTimeout
from portico.http.body import Body, Trailers
from portico.http.headers import Headers, Pair
from portico.http.message import Request, Response
from portico.net.stream import NEVER, DeadlineExceeded
from portico.observe.exchange import Exchange
from portico.wire import h1
from portico.wire.events import Data, End, ResponseHead
from portico.wire.framing import MAX_CHUNK_LINE, MAX_TRAILERS

MAX_INTERIM: Final = 16
"""Interim answers that a service may give to one request."""

_CLIENT_FIELDS: Final = frozenset(
    (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"forwarded", b"x-real-ip")
)
_DROP_FROM_CLIENT: Final[frozenset[bytes]] = (
    h1.REQUEST_DROP | _CLIENT_FIELDS | {name.replace(b"-", b"_") for name in _CLIENT_FIELDS}
)
"""What a client says of itself is not passed on as if the gateway had said it; nor is what CGI and WSGI take for it."""

IDEMPOTENT: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))


class Patience:
    """How long to wait for a target, in seconds: for its first byte, then between bytes."""

    __slots__ = ("first_byte", "idle")

    def __init__(self, first_byte: float, idle: float) -> None:
        self.first_byte = first_byte
        self.idle = idle


class AnswerLimits(NamedTuple):
    """What a target may send: bytes of a head, header fields, bytes of a chunk-size line and of a trailer section."""

    head: int = 64 * 1024
    fields: int = 1000
    chunk_line: int = MAX_CHUNK_LINE
    trailers: int = MAX_TRAILERS


def outbound_head(request: Request, target: str, authority: bytes) -> bytes:
    """Return what a service is sent first: the head, of what the client sent and what the gateway says of it, and the
    content where that is in memory.
    """
    headers = request.headers
    client = request.client
    body = request.body
    content = b"" if body.whole is None else body.whole
    extra: list[bytes] = [] if client is None else client.forwarded(headers.index.get(b"host"))
    if request.upgrade:
        extra = [*extra, h1.upgrade_lines(request.upgrade)]
    drop = h1.REQUEST_DROP if client is None else _DROP_FROM_CLIENT
    return h1.request_head(request.method, target, authority, headers, extra, body.length, drop, content)


def outbound_fields(request: Request) -> list[Pair]:
    """Return the header fields that a service is sent, for a codec that sends them as pairs: what `outbound_head` has,
    without Host and without what only HTTP/1 needs."""
    headers, client, length = request.headers, request.client, request.body.length
    drop = h1.REQUEST_DROP if client is None else _DROP_FROM_CLIENT
    fields = [(name, value) for name, value in headers.pairs if name.lower() not in drop]
    if client is not None:
        for line in b"\r\n".join(client.forwarded(headers.index.get(b"host"))).split(b"\r\n"):
            name, _, value = line.partition(b": ")
            fields.append((name, value))
    if length:
        fields.append((b"Content-Length", b"%d" % length))
    return fields


@trait
@mypyc_attr(allow_interpreted_subclasses=True)
class ClientConnection:
    """A connection to a target, as its pool sees it: with room for one stream, or for several at once.

    It says when it has room again, and once that it is over, to its pool; see Connections.
    """

    pooled: bool
    """Whether the pool has it among those with room."""
    expires: float | None
    """When it is too old for further requests, on the loop's clock; None for never. Its pool says so."""

    def open(self) -> ClientStream | None:
        """Return room for one request; None where it takes no more: then the pool has it `close`."""
        raise NotImplementedError

    def has_room(self) -> bool:
        """Return whether it takes another request beside those under way."""
        raise NotImplementedError

    def may_idle_until(self, when: float) -> None:
        """Close it at `when`, unless it is opened again before."""
        raise NotImplementedError

    def last_use(self) -> float:
        """Return when its last answer came, on the loop's clock."""
        raise NotImplementedError

    def close(self) -> None:
        """Close it, once the requests under way on it have come to their end; then it is `connection_over`."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Connections:
    """What a target needs of its pool. A class, not a Protocol, so that compiled callers call it directly."""

    @property
    def handshake(self) -> float:
        """Seconds that TLS took of the connection which `connect` has returned just now; 0 where none was spoken."""
        return 0.0

    @property
    def busy(self) -> int:
        """How many requests are under way, those that wait for a connection included."""
        raise NotImplementedError

    def take(self) -> ClientStream | None:
        """Return room on an open connection, or None where there is none: then `connect`."""
        raise NotImplementedError

    async def connect(self, timeout: float, deadline: float | None) -> ClientStream:  # noqa: ASYNC109 - it is the seam
        """Open a connection within `timeout` seconds and before `deadline`; raise an UpstreamError."""
        raise NotImplementedError

    async def probe(self) -> None:
        """Find out whether the target accepts connections; raise OSError where it does not."""
        raise NotImplementedError

    def warm(self) -> None:
        """Begin to open the connections that are to be there ahead of requests; where none are, nothing happens."""

    def stream_over(self, connection: ClientConnection) -> None:
        """Take back a connection that goes on, and has no request under way any more."""
        raise NotImplementedError

    def room_again(self, connection: ClientConnection) -> None:
        """Take back room on a connection that has other requests under way."""
        raise NotImplementedError

    def connection_over(self, connection: ClientConnection) -> None:
        """Strike a connection that is closed, or being closed with nothing under way; called once for each."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class ClientStream:
    """What a pool hands out: room for one request and its answer, whatever the connection beneath.

    A codec says how a head is sent and awaited, and how content goes and comes; what is done with it is here.
    """

    __slots__ = ("_loop", "_tasks", "_unowned", "_upload")

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: asyncio.TaskGroup) -> None:
        self._loop = loop
        self._tasks = tasks
        self._upload: asyncio.Task[None] | None = None
        self._unowned: AnswerContent | None = None

    # What a codec does its own way.

    def send_request(self, request: Request, target: str, authority: bytes) -> None:
        """Send the head of `request`, and its content where that is in memory."""
        raise NotImplementedError

    async def next_head(self, request: Request) -> ResponseHead:
        """Return the next head of the answer, interim or final; raise an UpstreamError, or DeadlineExceeded."""
        raise NotImplementedError

    def take_whole(self) -> bytes | None:
        """Return all of the answer's content, where it has come already and ends without trailers; otherwise None."""
        raise NotImplementedError

    def send_content(self, data: bytes) -> None:
        """Send a piece of the request's content, as the target takes it; `drain` before the next."""
        raise NotImplementedError

    def send_end(self, trailers: Trailers) -> None:
        """Say that streamed content is whole, where its length has not said so before."""
        raise NotImplementedError

    async def drain(self, when: float) -> None:
        """Wait until `when` for the target to take what was sent; raise ConnectionResetError or DeadlineExceeded."""
        raise NotImplementedError

    def answered(self) -> bool:
        """Return whether the head of the answer has come."""
        raise NotImplementedError

    def set_deadline(self, when: float) -> None:
        """Let no wait for the answer last beyond `when`."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Make whoever waits for the answer get `error`."""
        raise NotImplementedError

    async def content(self, patience: float, deadline: float | None) -> Data | End:
        """Return the next piece of the answer's content, and give the target leave to send on."""
        raise NotImplementedError

    def content_ended(self) -> None:
        """End the exchange with its answer's last byte."""
        raise NotImplementedError

    def finish(self, reusable: bool) -> None:
        """End the exchange; where it is not `reusable`, what is still under way of it is broken off."""
        raise NotImplementedError

    # What is the same for all of them.

    async def send(self, request: Request, target: str, authority: bytes, patience: Patience) -> Response:
        """Send `request` for `target` and return the answer once its head has come; raise an UpstreamError."""
        clock, exchange = self._loop.time, request.exchange
        interims = 0
        try:
            self.send_request(request, target, authority)
            if request.body.whole is None:
                self.begin_upload(request, patience.first_byte)
            sent = clock()
            if exchange is not None:
                exchange.sent = sent
            self.set_deadline(_until(sent + patience.first_byte if self._upload is None else NEVER, request.deadline))
            while (head := await self.next_head(request)).status < 200:
                interims += 1
                self.pass_interim(request, head, interims)
        except DeadlineExceeded:
            self.finish(False)
            raise UpstreamTimeout("no answer in time", source=Source.RESPONSE) from None
        except BaseException:
            self.finish(False)
            raise
        if exchange is not None:
            exchange.first_byte = clock()
        whole = self.take_whole()
        if whole is not None:
            self.content_ended()
            return Response(head.status, head.headers, whole)
        return self.streamed(request, head.status, head.headers, head.length, patience.idle)

    def begin_upload(self, request: Request, patience: float) -> None:
        """Begin to stream the request's content."""
        self._upload = self._tasks.create_task(self._send_content(request, patience), name="upload")

    @property
    def uploading(self) -> bool:
        """True while the request's content is still being sent."""
        return self._upload is not None

    def end_upload(self) -> None:
        """Give up what was not sent yet of the request's content."""
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None

    def pass_interim(self, request: Request, head: ResponseHead, number: int) -> None:
        """Pass an interim answer on, the `number`th to this request (RFC 9110 section 15.2)."""
        if head.status == 101 or number > MAX_INTERIM:
            raise MalformedResponse("an answer that was not asked for", source=Source.RESPONSE)
        if head.status != 100:  # the server has said that by itself
            request.interim(head.status, head.headers)

    def streamed(self, request: Request, status: int, headers: Headers, length: int | None, idle: float) -> Response:
        """Return an answer whose content is still on its way."""
        content = AnswerContent(self, idle, request.deadline)
        if request.exchange is not None:
            request.exchange.on_end(content.exchange_ended)
        else:  # a policy's own: nobody says when it is over, should its answer not be read to the end
            self._unowned = content
            self.set_deadline(_until(self._loop.time() + idle, request.deadline))
        return Response(status, headers, Body.stream(content, length))

    def let_go(self) -> None:
        """Close an answer that belongs to no exchange, and that nobody reads on."""
        content, self._unowned = self._unowned, None
        if content is not None:
            content.close()

    async def _send_content(self, request: Request, patience: float) -> None:
        """Stream the request's content; where that fails, whoever waits for the answer is told why.

        The target has `patience` seconds to take a piece, and to answer once it has them all; a slow client is the
        server's to deal with. A target that answers before it has taken all may take its time.
        """
        body, deadline = request.body, request.deadline
        sent = 0
        try:
            while data := await body.chunk():
                sent += len(data)
                self.send_content(data)
                await self._drain_upload(patience, deadline)
            if body.length is not None and sent != body.length:
                raise BodyTruncated(f"the request has {sent} bytes, not {body.length}")  # noqa: TRY301 - as a source's own
            self.send_end(body.trailers())
            if not self.answered():
                self.set_deadline(_until(self._loop.time() + patience, deadline))
        except ConnectionResetError:
            return  # the reader of the answer finds the same, and may still find an answer before it
        except Exception as reason:  # noqa: BLE001 - passed on: it is raised where the answer is awaited
            self.fail(reason)
            return
        self._upload = None

    async def _drain_upload(self, patience: float, deadline: float | None) -> None:
        while True:
            try:
                await self.drain(_until(self._loop.time() + patience, deadline))
            except DeadlineExceeded:
                if not self.answered():
                    raise
                deadline = None  # whoever reads the answer keeps to it; here it would be over again and again
            else:
                return


def _until(when: float, deadline: float | None) -> float:
    return when if deadline is None else min(when, deadline)


class AnswerContent:
    """The content of one answer while it is still on its way."""

    __slots__ = ("_deadline", "_idle", "_stream", "_trailers")

    def __init__(self, stream: ClientStream, idle: float, deadline: float | None) -> None:
        self._stream: ClientStream | None = stream
        self._idle = idle
        self._deadline = deadline
        self._trailers: Trailers = []

    async def read(self) -> bytes:
        """Return the next piece, or b"" at the end."""
        stream = self._stream
        if stream is None:
            return b""
        try:
            event = await stream.content(self._idle, self._deadline)
        except BaseException:
            self.close()
            raise
        if isinstance(event, Data):
            if event.last:
                self._end(stream)
            return event.data
        self._trailers = event.trailers
        self._end(stream)
        return b""

    def trailers(self) -> Trailers:
        """Return the trailer fields, complete only after the end."""
        return self._trailers

    def exchange_ended(self, _: Exchange) -> None:
        """Let go of the connection, where nobody has read to the end."""
        self.close()

    def close(self) -> None:
        """Give up the rest."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.finish(False)

    def _end(self, stream: ClientStream) -> None:
        self._stream = None
        stream.content_ended()
