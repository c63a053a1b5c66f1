"""One HTTP/1 connection to a target: sends a request, hands out the answer."""

from __future__ import annotations

import asyncio
from typing import Final

from mypy_extensions import mypyc_attr

from portico.errors import BodyTruncated, MalformedResponse, Source, UpstreamClosed, UpstreamTimeout
from portico.http.body import Body, Trailers
from portico.http.message import Request, Response
from portico.net.stream import NEVER, DeadlineExceeded, Stream
from portico.observe.exchange import Exchange
from portico.wire import h1
from portico.wire.events import Data, End, ResponseHead
from portico.wire.fields import FieldTable

MAX_FIELDS: Final = 1000
"""Header fields that an answer may have."""

MAX_INTERIM: Final = 16
"""Interim answers that a service may give to one request."""

_CLIENT_FIELDS: Final = frozenset(
    (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"forwarded", b"x-real-ip")
)
_DROP_FROM_CLIENT: Final[frozenset[bytes]] = (
    h1.REQUEST_DROP | _CLIENT_FIELDS | {name.replace(b"-", b"_") for name in _CLIENT_FIELDS}
)
"""What a client says of itself is not passed on as if the gateway had said it; nor is what CGI and WSGI take for it."""

_IDEMPOTENT: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))


class Patience:
    """How long to wait for a target, in seconds: for its first byte, then between bytes."""

    __slots__ = ("first_byte", "idle")

    def __init__(self, first_byte: float, idle: float) -> None:
        self.first_byte = first_byte
        self.idle = idle


@mypyc_attr(allow_interpreted_subclasses=True)
class ClientStream:
    """What a pool hands out: room for one request and its answer, whatever the connection beneath."""

    async def send(self, request: Request, target: str, authority: bytes, patience: Patience) -> Response:
        """Send `request` for `target` and return the answer once its head has come; raise an UpstreamError."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Connections:
    """What a target needs of its pool. A class, not a Protocol, so that compiled callers call it directly."""

    def take(self) -> ClientStream | None:
        """Return room on an open connection, or None where there is none: then `connect`."""
        raise NotImplementedError

    async def connect(self, timeout: float, deadline: float | None) -> ClientStream:  # noqa: ASYNC109 - it is the seam
        """Open a connection within `timeout` seconds and before `deadline`; raise an UpstreamError."""
        raise NotImplementedError

    async def probe(self) -> None:
        """Find out whether the target accepts connections; raise OSError where it does not."""
        raise NotImplementedError

    def exchange_over(self, connection: ClientStream, reusable: bool) -> None:
        """Take back a connection; where it is not `reusable` it has been closed."""
        raise NotImplementedError


def outbound_head(request: Request, target: str, authority: bytes) -> bytes:
    """Return what a service is sent first: the head, of what the client sent and what the gateway says of it, and the
    content where that is in memory.
    """
    headers = request.headers
    client = request.client
    body = request.body
    content = b"" if body.whole is None else body.whole
    if client is None:
        return h1.request_head(request.method, target, authority, headers, [], body.length, h1.REQUEST_DROP, content)
    extra = client.forwarded(headers.index.get(b"host"))
    return h1.request_head(request.method, target, authority, headers, extra, body.length, _DROP_FROM_CLIENT, content)


class H1Connection(ClientStream):
    """A connection that carries one exchange at a time (RFC 9112); a `ClientStream` of its own."""

    __slots__ = ("_loop", "_owner", "_reader", "_stream", "_tasks", "_upload", "last_used", "reused")

    def __init__(
        self,
        stream: Stream,
        loop: asyncio.AbstractEventLoop,
        tasks: asyncio.TaskGroup,
        max_head: int,
        owner: Connections,
        fields: FieldTable | None = None,
    ) -> None:
        self._stream = stream
        self._loop = loop
        self._tasks = tasks
        self._reader = h1.ResponseReader(max_head, MAX_FIELDS, fields)
        self._owner = owner
        self._upload: asyncio.Task[None] | None = None
        self.reused = False
        self.last_used = 0.0
        """When the last answer came, on the loop's clock."""

    @property
    def stream(self) -> Stream:
        """The socket, which is the owner's while no exchange is under way."""
        return self._stream

    async def send(self, request: Request, target: str, authority: bytes, patience: Patience) -> Response:
        """Send `request` and return the answer once its head, or all of a short answer, has come."""
        stream, reader = self._stream, self._reader
        clock = self._loop.time
        try:
            self._write(request, target, authority, patience.first_byte)
            sent = clock()
            when = sent + patience.first_byte if self._upload is None else NEVER
            stream.set_deadline(when if request.deadline is None else min(when, request.deadline))
            data = stream.take() or (b"" if stream.eof else await stream.arrival())
            reader.receive(data)
            head = reader.next_head(request.method) if data else None
            if head is None or head.status < 200:
                head = await self._later_head(request, head, data)
            now = self.last_used = clock()
        except DeadlineExceeded:
            self.finish(reusable=False)
            raise UpstreamTimeout("no answer in time", source=Source.RESPONSE) from None
        except BaseException:
            self.finish(reusable=False)
            raise
        exchange = request.exchange
        if exchange is not None:
            exchange.sent = sent
            exchange.first_byte = now
        whole = b"" if reader.done else reader.take_whole()
        if whole is not None:
            self.finish(reusable=reader.keep_alive)
            return Response(head.status, head.headers, whole)
        content = _Content(self, patience.idle, request.deadline)
        if exchange is not None:
            exchange.on_end(content.exchange_ended)
        return Response(head.status, head.headers, Body.stream(content, head.length))

    def _write(self, request: Request, target: str, authority: bytes, patience: float) -> None:
        """Send the head, and with it the content where that is in memory; otherwise begin to stream it."""
        self._stream.write(outbound_head(request, target, authority))
        if request.body.whole is None:
            self._upload = self._tasks.create_task(self._send_content(request, patience), name="upload")

    async def _send_content(self, request: Request, patience: float) -> None:
        """Stream the request's content; where that fails, whoever waits for the answer is told why.

        The target has `patience` seconds to take a piece, and to answer once it has them all; a slow client is the
        server's to deal with.
        """
        stream, body, deadline = self._stream, request.body, request.deadline
        chunked = body.length is None
        sent = 0
        try:
            while data := await body.chunk():
                sent += len(data)
                stream.write(h1.chunk(data) if chunked else data)
                if stream.congested:
                    self._wait_for_answer(self._loop.time() + patience, deadline)
                    await stream.drain()
                    self._wait_for_answer(NEVER, deadline)
            if chunked:
                stream.write(h1.last_chunk(body.trailers()))
            elif sent != body.length:
                raise BodyTruncated(f"the request has {sent} bytes, not {body.length}")  # noqa: TRY301 - as a source's own
            self._wait_for_answer(self._loop.time() + patience, deadline)
        except (ConnectionResetError, DeadlineExceeded):
            return  # the reader of the answer finds the same, and may still find an answer before it
        except Exception as error:  # noqa: BLE001 - passed on: it is raised where the answer is awaited
            stream.fail(error)
            return
        self._upload = None

    def _wait_for_answer(self, when: float, deadline: float | None) -> None:
        """Wait until `when` for the head of the answer, unless it has come and its content is being read."""
        if self._reader.done:
            self._stream.set_deadline(when if deadline is None else min(when, deadline))

    async def _later_head(self, request: Request, head: ResponseHead | None, data: bytes) -> ResponseHead:
        """Read on to the head of the final answer, and pass interim ones on (RFC 9110 section 15.2)."""
        reader = self._reader
        if not data:
            if self._stream.failure is not None:
                raise self._stream.failure
            retryable = self.reused and request.method in _IDEMPOTENT and request.body.whole is not None
            raise UpstreamClosed("closed before an answer", source=Source.RESPONSE, retryable=retryable)
        interims = 0
        while True:
            while head is None:
                data = await self._stream.receive()
                if not data:
                    raise UpstreamClosed("closed within the head of its answer", source=Source.RESPONSE)
                reader.receive(data)
                head = reader.next_head(request.method)
            if head.status >= 200:
                return head
            interims += 1
            if head.status == 101 or interims > MAX_INTERIM:
                raise MalformedResponse("an answer that was not asked for", source=Source.RESPONSE)
            if head.status != 100:
                request.interim(head.status, head.headers)
            head = reader.next_head(request.method)

    async def content(self, patience: float, deadline: float | None) -> Data | End:
        """Return the next piece of the answer's content."""
        reader = self._reader
        while True:
            try:
                event = reader.next_content()
                if event is not None:
                    return event
                when = self._loop.time() + patience
                self._stream.set_deadline(when if deadline is None else min(when, deadline))
                data = await self._stream.receive()
                if not data and self._stream.broken:
                    raise UpstreamClosed("reset within its answer", source=Source.RESPONSE)
                reader.receive(data)
            except DeadlineExceeded:
                raise UpstreamTimeout("the answer stalled", source=Source.RESPONSE) from None
            except BodyTruncated as error:
                raise UpstreamClosed(f"closed within its answer: {error}", source=Source.RESPONSE) from error

    def finish(self, *, reusable: bool) -> None:
        """End the exchange: the connection goes back to its pool, or, where it is not `reusable`, is closed."""
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None
            reusable = False
        if reusable and (self._stream.eof or self._stream.unread or self._reader.pending):
            reusable = False  # bytes that no request asked for could pass for the next one's answer
        if not reusable:
            self._stream.abort()
        self.reused = True
        self._owner.exchange_over(self, reusable)

    def content_ended(self) -> None:
        """End the exchange with its answer's last byte."""
        self.last_used = self._loop.time()
        self.finish(reusable=self._reader.keep_alive)


class _Content:
    """The content of one answer while it is still on its way."""

    __slots__ = ("_connection", "_deadline", "_idle", "_trailers")

    def __init__(self, connection: H1Connection, idle: float, deadline: float | None) -> None:
        self._connection: H1Connection | None = connection
        self._idle = idle
        self._deadline = deadline
        self._trailers: Trailers = []

    async def read(self) -> bytes:
        connection = self._connection
        if connection is None:
            return b""
        try:
            event = await connection.content(self._idle, self._deadline)
        except BaseException:
            self.close()
            raise
        if isinstance(event, Data):
            if event.last:
                self._end(connection)
            return event.data
        self._trailers = event.trailers
        self._end(connection)
        return b""

    def trailers(self) -> Trailers:
        return self._trailers

    def exchange_ended(self, _: Exchange) -> None:
        """Let go of the connection, where nobody has read to the end."""
        self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finish(reusable=False)

    def _end(self, connection: H1Connection) -> None:
        self._connection = None
        connection.content_ended()
