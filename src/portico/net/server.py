"""The server side: accepts connections, and runs one linear loop for each."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import ClassVar, Final

from portico.errors import BodyTruncated, MalformedRequest, PorticoError, RequestError, RequestTimeout
from portico.http.body import Body, Trailers
from portico.http.headers import Headers
from portico.http.message import Client, Handler, Request, Response
from portico.http.problem import PROBLEM_JSON, Problem
from portico.http.target import EncodedSlashes, parse_host, parse_target
from portico.net.stream import DeadlineExceeded, Outbox, Stream
from portico.observe.exchange import Exchange, Outcome
from portico.wire import h1
from portico.wire.events import Data, End, RequestHead
from portico.wire.fields import request_fields

logger = logging.getLogger("portico.server")

_ALLOW: Final = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_COMPLETE: Final = Outcome.COMPLETE  # a name of this module costs less than the attribute of an enum

PIPELINED: Final = 32
"""Requests that one client's pipeline is answered in a row before other connections have their turn."""

DISCARD_BYTES: Final = 256 * 1024
DISCARD_SECONDS: Final = 1.0
"""What is still read of a request that was answered before its end; closing at once could destroy the answer."""

REFUSED_METHODS: Final = frozenset(("CONNECT", "TRACE"))


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a client may send, and how long it may take: bytes, counts, and seconds."""

    request_head: int = 32 * 1024
    request_target: int = 8 * 1024
    header_count: int = 100
    head_timeout: float = 30.0
    body_timeout: float = 30.0
    keepalive_timeout: float = 75.0
    connections: int = 10_000
    requests_per_connection: int = 10_000


class Server:
    """All connections of one worker. `handler` answers; it is read once per request, so a swap is one assignment."""

    def __init__(
        self,
        handler: Handler,
        limits: ServerLimits,
        slashes: EncodedSlashes,
        tasks: asyncio.TaskGroup,
        outbox: Outbox | None = None,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.slashes = slashes
        self.draining = False
        self.loop = asyncio.get_running_loop()
        self._tasks = tasks
        self._outbox = Outbox(self.loop) if outbox is None else outbox
        self.fields = request_fields(limits.header_count)
        self._connections: set[H1ServerConnection] = set()
        self._empty = asyncio.Event()
        self._date = b""
        self._date_second = 0

    def protocol(self) -> Stream:
        """Return what the event loop talks to for one accepted connection."""
        stream = Stream(self.loop, self._outbox)
        stream.on_connected = self._connected
        return stream

    def date(self) -> bytes:
        """Return the Date header line (RFC 9110 section 6.6.1), for answers that have none."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second = second
            self._date = f"Date: {formatdate(second, usegmt=True)}".encode("ascii")
        return self._date

    def forget(self, connection: H1ServerConnection) -> None:
        """Strike a connection that has ended."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def drain(self, deadline: float) -> None:
        """Let every request under way come to its end, by `deadline` at the latest, and close all connections."""
        self.draining = True
        for connection in tuple(self._connections):
            connection.close_if_idle()
        try:
            async with asyncio.timeout_at(deadline):
                while self._connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            logger.warning("%d connections were still busy at the deadline of the drain", len(self._connections))
            for connection in tuple(self._connections):
                connection.cancel()

    def _connected(self, stream: Stream) -> None:
        if not _has_peer(stream):
            stream.abort()  # reset before it was accepted; whose requests these are is not known
            return
        connection = H1ServerConnection(self, stream)
        if len(self._connections) >= self.limits.connections:
            connection.refuse(Problem(503, "too-many-connections", detail="Try again later."), b"Retry-After: 1")
            stream.close()
            return
        self._connections.add(connection)
        connection.start(self._tasks)


def _has_peer(stream: Stream) -> bool:
    """Tell whether the address of the other side is known, as far as its kind of socket has one."""
    peer = stream.transport.get_extra_info("peername")
    return isinstance(peer, tuple) or isinstance(stream.transport.get_extra_info("sockname"), str)


def _client_of(stream: Stream) -> Client:
    """Say who is on the other side of a connection."""
    transport = stream.transport
    peer = transport.get_extra_info("peername")
    local = transport.get_extra_info("sockname")
    scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
    if not isinstance(peer, tuple) or not isinstance(local, tuple):
        return Client("", 0, 0, scheme)
    return Client(peer[0].partition("%")[0], peer[1], local[1], scheme)


class H1ServerConnection:
    """One client's HTTP/1 connection: next request, its answer, and again."""

    __slots__ = ("_busy", "_client", "_content", "_exchange", "_host", "_interim", "_raw_host", "_reader", "_server",
                 "_stream", "_task")  # fmt: skip

    def __init__(self, server: Server, stream: Stream) -> None:
        limits = server.limits
        self._server = server
        self._stream = stream
        self._reader = h1.RequestReader(limits.request_head, limits.header_count, limits.request_target, server.fields)
        self._client = _client_of(stream)
        self._busy = False
        self._exchange: Exchange | None = None
        self._raw_host = b""
        self._host = ""
        self._interim = self.send_interim
        self._content: _RequestContent | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to serve, in a task that the server's group owns."""
        self._stream.on_lost = self._lost
        self._task = tasks.create_task(self._serve(), name=f"connection {self._client.address}:{self._client.port}")

    def close_if_idle(self) -> None:
        """Close the connection where no request is under way or on its way."""
        if not self._busy and self._reader.idle and not self._stream.unread:
            self._stream.close()

    def cancel(self) -> None:
        """End the connection, whatever it is doing."""
        if self._task is not None:
            self._task.cancel()

    def _lost(self) -> None:
        """The client has left: what it asked for is of no more use."""
        if self._busy:
            self.cancel()

    async def _serve(self) -> None:  # noqa: C901 - one coroutine, since each more costs at every wake-up
        """Answer one request after the other, until one side has no more; what ends that early is dealt with here."""
        server, stream, reader = self._server, self._stream, self._reader
        clock, limits = server.loop.time, server.limits
        left = limits.requests_per_connection
        try:
            stream.set_deadline(clock() + limits.head_timeout)
            while True:
                if reader.idle:
                    if not server.draining:
                        reader.receive(stream.take() or (b"" if stream.eof else await stream.arrival()))
                elif left % PIPELINED == 0:
                    await asyncio.sleep(0)  # others have their turn too
                head = reader.next_head()
                if head is None:
                    head = await self._rest_of_head()
                    if head is None:
                        break
                if stream.closed:
                    break  # the client was gone before its request was read
                exchange = self._exchange = Exchange(clock())
                request = self._request(head, exchange)
                left -= 1
                self._busy = True
                response = await server.handler(request)
                keep_alive = self._keep_alive(head, response.body, left)
                if response.body.whole is not None:
                    self._send_whole(head, response, exchange, keep_alive)
                else:
                    await self._send_stream(head, response, exchange, keep_alive=keep_alive)
                if stream.congested:
                    await self._drain()
                now = clock()
                self._complete(exchange, now)
                if not keep_alive:
                    if not reader.done:
                        await self._discard_input()
                    break
                stream.set_deadline(now + (limits.keepalive_timeout if reader.idle else limits.head_timeout))
        except RequestError as error:
            self._reject(error)
            await self._discard_input()
        except (ConnectionError, DeadlineExceeded):
            self._end(Outcome.CLIENT_LEFT)
            if self._busy:
                stream.abort()  # a client that takes nothing would keep a closing connection, and its answer, for ever
        except asyncio.CancelledError:
            self._end(Outcome.CLIENT_LEFT if stream.eof else Outcome.CANCELLED)
            stream.abort()
            raise
        except Exception:  # the connection boundary: a bug ends one connection, not the worker
            logger.exception("a connection failed")
            self._end(Outcome.FAILED)
            stream.abort()
        finally:
            stream.close()
            server.forget(self)

    def _complete(self, exchange: Exchange, now: float) -> None:
        """Close the books of one request; whoever still holds its body gets nothing of the next one's."""
        exchange.end(_COMPLETE, now)
        self._busy = False
        if self._content is not None:
            self._content.close()
            self._content = None

    async def _rest_of_head(self) -> RequestHead | None:
        """Wait until a head is whole; None where the client has no more."""
        reader, stream, server = self._reader, self._stream, self._server
        if not reader.ended:
            stream.set_deadline(server.loop.time() + server.limits.head_timeout)
        while not (reader.ended or (reader.idle and server.draining)):
            try:
                reader.receive(stream.take() or (b"" if stream.eof else await stream.arrival()))
            except DeadlineExceeded:
                raise RequestTimeout("the request head did not come in time") from None
            head = reader.next_head()
            if head is not None:
                return head
        return None

    def _keep_alive(self, head: RequestHead, body: Body, left: int) -> bool:
        """Tell whether the connection goes on after this answer."""
        if not head.keep_alive or left <= 0 or self._server.draining:
            return False
        if head.minor == 0 and body.length is None:
            return False  # HTTP/1.0 knows no chunks: the close is the content's end
        # A streamed answer may have come before the upload's end, which is then not ours to pass over.
        return self._reader.done or (body.whole is not None and self._skip_buffered())

    def _send_whole(self, head: RequestHead, response: Response, exchange: Exchange, keep_alive: bool) -> None:
        """Send an answer whose content is in memory, head and content in one write."""
        content = response.body.whole
        assert content is not None
        exchange.status = response.status
        if h1.has_content(response.status, head.method):
            exchange.bytes_out = len(content)
        self._stream.write(self._head(head, response, keep_alive, content))

    def _head(self, head: RequestHead, response: Response, keep_alive: bool, content: bytes) -> bytes:
        headers = response.headers
        date = b"" if b"date" in headers.index else self._server.date()
        return h1.response_head(
            response.status, headers, date, response.body.length, head.method, head.minor, keep_alive, content
        )

    def _request(self, head: RequestHead, exchange: Exchange) -> Request:
        """Build the Request that a head announces; raise a RequestError where the head is not sound."""
        method = head.method
        if method in REFUSED_METHODS:
            raise _MethodRefused(f"{method} is not served here")
        headers = head.headers
        path, query, authority = parse_target(head.target, method, self._server.slashes)
        self._take_host(headers, head.minor)
        if authority is not None:  # it replaces the Host header for everyone after us (RFC 9112 section 3.2.2)
            headers.set(b"Host", authority.encode("ascii"))
            self._take_host(headers, head.minor)
        if self._reader.done:
            body = Body()
        else:
            whole = None if head.expects_continue else self._reader.take_whole()
            if whole is not None:
                exchange.bytes_in = len(whole)
                body = Body(whole)
            else:
                self._content = _RequestContent(self, head, exchange)
                body = Body.stream(self._content, head.length)
        interim = self._interim if head.minor else None  # HTTP/1.0 does not know them (RFC 9110 section 15.2)
        return Request(method, path, query, headers, body, self._host, self._client, exchange, interim)

    def _take_host(self, headers: Headers, minor: int) -> None:
        """Read the Host header (RFC 9112 section 3.2); that of the request before is not read again."""
        raw_host = headers.index.get(b"host")
        if raw_host is None:
            if minor:
                raise MalformedRequest("the Host header is missing")
            raw_host = b""
        if raw_host != self._raw_host:
            self._host = parse_host(raw_host)[0] if raw_host else ""
            self._raw_host = raw_host
        if len(headers.index) != len(headers.pairs) and len(headers.get_all(b"host")) > 1:
            raise MalformedRequest("the Host header is repeated")

    async def _send_stream(
        self, head: RequestHead, response: Response, exchange: Exchange, *, keep_alive: bool
    ) -> None:
        """Send an answer whose content is still on its way."""
        stream, body = self._stream, response.body
        exchange.status = response.status
        try:
            stream.write(self._head(head, response, keep_alive, b""))
            if not h1.has_content(response.status, head.method):
                return
            chunked = body.length is None and head.minor == 1
            while data := await body.chunk():
                exchange.bytes_out += len(data)
                if body.length is not None and exchange.bytes_out > body.length:
                    raise BodyTruncated("the answer is longer than it says")
                stream.write(h1.chunk(data) if chunked else data)
                if stream.congested:
                    await self._drain()
            if chunked:
                stream.write(h1.last_chunk(body.trailers()))
            elif body.length is not None and exchange.bytes_out < body.length:
                raise BodyTruncated("the answer is shorter than it says")
        except (PorticoError, ConnectionError, DeadlineExceeded) as error:
            # The head is gone: a cut connection is the only way left to say that the content is not whole.
            exchange.error = f"{type(error).__name__}: {error}"
            self._end(Outcome.TRUNCATED if isinstance(error, PorticoError) else Outcome.CLIENT_LEFT)
            stream.flush()
            stream.abort()
            raise ConnectionAbortedError("the answer was cut") from error
        finally:
            body.close()

    async def _drain(self) -> None:
        """Wait for a slow client to take what was sent, for as long as the limit allows."""
        self._stream.set_deadline(self._server.loop.time() + self._server.limits.body_timeout)
        await self._stream.drain()

    def send_interim(self, status: int, headers: Headers) -> None:
        """Send a 1xx answer ahead of the final one (RFC 9110 section 15.2)."""
        self._stream.write(h1.interim_head(status, headers))

    async def read_content(self) -> Data | End:
        """Return the next piece of the request's content."""
        stream, reader = self._stream, self._reader
        while (event := reader.next_content()) is None:
            stream.set_deadline(self._server.loop.time() + self._server.limits.body_timeout)
            try:
                reader.receive(await stream.receive())
            except DeadlineExceeded:
                raise RequestTimeout("the request body did not come in time") from None
        return event

    def _skip_buffered(self) -> bool:
        """Pass over content that has come already and that nobody wants; tell whether that was all of it."""
        try:
            while not self._reader.done:
                if self._reader.next_content() is None:
                    return False
        except (RequestError, BodyTruncated):
            return False
        return True

    async def _discard_input(self) -> None:
        """Let a client that still sends read its answer, before the connection closes."""
        stream = self._stream
        stream.end_output()
        stream.set_deadline(self._server.loop.time() + DISCARD_SECONDS)
        left = DISCARD_BYTES
        try:
            while left > 0 and (data := await stream.receive()):
                left -= len(data)
        except DeadlineExceeded:
            return

    def _reject(self, error: RequestError) -> None:
        """Answer what never became a request, or broke off as one, and record it."""
        if self._exchange is None or self._exchange.outcome is not None:
            self._exchange = Exchange(self._server.loop.time())
        self._exchange.status = error.status
        self._exchange.error = f"{error.type}: {error.detail}"
        self._end(Outcome.REJECTED)
        allow = _ALLOW if error.status == 405 else b""
        self.refuse(Problem(error.status, error.type, detail=error.detail), allow)

    def refuse(self, problem: Problem, extra: bytes = b"") -> None:
        """Send `problem` as the last answer on this connection."""
        content = problem.render("")
        headers = Headers([(b"Content-Type", PROBLEM_JSON)])
        date = self._server.date()
        extra = date + b"\r\n" + extra if extra else date
        self._stream.write(h1.response_head(problem.status, headers, extra, len(content), "GET", 1, False, content))

    def _end(self, outcome: Outcome) -> None:
        exchange = self._exchange
        if exchange is not None:
            if exchange.status == 0 and outcome is Outcome.CLIENT_LEFT:
                exchange.status = 499
            exchange.end(outcome, self._server.loop.time())


class _MethodRefused(RequestError):
    """CONNECT would make an open proxy of the gateway, TRACE shows a client what the gateway adds."""

    status: ClassVar[int] = 405
    type: ClassVar[str] = "method-not-allowed"


class _RequestContent:
    """The content of one request while it is still on its way."""

    __slots__ = ("_closed", "_connection", "_exchange", "_head", "_over", "_started", "_trailers")

    def __init__(self, connection: H1ServerConnection, head: RequestHead, exchange: Exchange) -> None:
        self._connection = connection
        self._head = head
        self._exchange = exchange
        self._started = False
        self._over = False
        self._closed = False
        self._trailers: Trailers = []

    async def read(self) -> bytes:
        if self._closed:
            raise BodyTruncated("the request is over")
        if self._over:
            return b""
        if not self._started:
            self._started = True
            if self._head.expects_continue and self._exchange.status == 0:
                self._connection.send_interim(100, Headers())
        event = await self._connection.read_content()
        if isinstance(event, Data):
            self._over = event.last
            self._exchange.bytes_in += len(event.data)
            return event.data
        self._over = True
        self._trailers = event.trailers
        return b""

    def trailers(self) -> Trailers:
        return self._trailers

    def close(self) -> None:
        self._closed = True  # what is left on the connection is the connection's to discard
