"""A client's HTTP/1 connection: one linear loop."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from portico.errors import BodyTruncated, MalformedRequest, RequestError, RequestTimeout
from portico.http.body import Body, Trailers
from portico.http.duplex import Duplex
from portico.http.headers import Headers
from portico.http.message import Client, Handler, Interim, Request, Response
from portico.http.problem import Problem
from portico.net.server import Server, ServerConnection
from portico.net.server_stream import RequestContent, ServerStream, no_switch, refused
from portico.net.stream import DeadlineExceeded, Stream
from portico.net.tunnel import join
from portico.net.upgraded import Upgraded
from portico.observe.exchange import Exchange, Outcome
from portico.wire import h1
from portico.wire.events import Data, End, RequestHead

logger = logging.getLogger("portico.server")

PIPELINED: Final = 32
"""Requests that one client's pipeline is answered in a row before other connections have their turn."""

DISCARD_BYTES: Final = 256 * 1024
DISCARD_SECONDS: Final = 1.0
"""What is still read of a request that was answered before its end; closing at once could destroy the answer."""


class H1ServerConnection(ServerStream, ServerConnection):
    """One client's HTTP/1 connection: next request, its answer, and again. It has room for one request at a time."""

    __slots__ = (
        "_begun",
        "_busy",
        "_chunked",
        "_goes_on",
        "_handler",
        "_interim",
        "_reader",
        "_stream",
        "_until_close",
    )

    def __init__(self, server: Server, client: Client, stream: Stream, handler: Handler | None) -> None:
        """Make ready to serve `client`; `handler`, where there is one, answers instead of the server's."""
        ServerStream.__init__(self, server, client)
        limits = server.limits
        self._stream = stream
        self._handler = handler
        self._reader = h1.RequestReader(
            limits.request_head,
            limits.header_count,
            limits.request_target,
            server.fields,
            limits.chunk_line,
            limits.trailers,
        )
        self._begun = False
        self._busy = False
        self._chunked = False
        self._until_close = False
        self._goes_on = False
        self._interim: Interim = self.send_interim

    def start(self) -> None:
        """Begin to serve, in a task that the server's group owns."""
        self._stream.on_lost = self._lost
        name = f"connection {self.client.address}:{self.client.port}"
        self._task = self.server.tasks.create_task(self._serve(), name=name)

    def close_if_idle(self) -> None:
        """Close the connection where no request is under way or on its way."""
        if not self._busy and self._reader.idle and not self._stream.unread:
            self._stream.close()

    def cancel(self) -> None:
        """End the connection, whatever it is doing."""
        if self._task is not None:
            self._task.cancel()
        if not self._begun:  # nor will it: a task that is cancelled before its first step never runs
            self._stream.abort()
            self.server.forget(self)

    def _lost(self) -> None:
        """The client has left: what it asked for is of no more use."""
        if self._busy:
            self.cancel()
        elif not self._stream.closed:
            self._stream.on_lost = self._lost  # only its direction has ended so far; a request of it may be on its way

    async def _serve(self) -> None:  # noqa: C901 - one coroutine, since each more costs at every wake-up
        """Answer one request after the other, until one side has no more; what ends that early is dealt with here."""
        server, stream, reader = self.server, self._stream, self._reader
        clock, limits = server.loop.time, server.limits
        left = limits.requests_per_connection
        head: RequestHead | None = None
        self._begun = True
        refused: RequestError | None = None
        try:
            try:
                stream.set_deadline(clock() + limits.head_timeout)
                while True:
                    if reader.idle:
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
                    response = await (server.handler if self._handler is None else self._handler)(request)
                    keep_alive = self._keep_alive(head, response.body, left)
                    if response.duplex is not None:
                        await self._tunnel(head, response, response.duplex, exchange)
                        break
                    if response.body.whole is not None:
                        self._send_whole(head, response, exchange, keep_alive)
                    else:
                        self._goes_on = keep_alive
                        if not await self.send_stream(head, response, exchange):
                            break
                    if stream.congested:
                        await self.drain()
                    now = clock()
                    self.complete(exchange, now)
                    self._busy = False
                    if not keep_alive:
                        if not reader.done:
                            await self._discard_input()
                        break
                    stream.set_deadline(now + (limits.keepalive_timeout if reader.idle else limits.head_timeout))
            except RequestError as error:
                refused = error
            if refused is not None:  # and not above: compiled, an `except` that waits leaves its error to whoever runs
                self._reject(refused, head)
                await self._discard_input()
        except (ConnectionError, DeadlineExceeded):
            self.end(Outcome.CLIENT_LEFT)
            if self._busy:
                stream.abort()  # a client that takes nothing would keep a closing connection, and its answer, for ever
        except asyncio.CancelledError:
            self.end(Outcome.CLIENT_LEFT if stream.eof else Outcome.CANCELLED)
            self.cut()
            raise
        except Exception:  # the connection boundary: a bug ends one connection, not the worker
            logger.exception("a connection failed")
            self.end(Outcome.FAILED)
            self.cut()
        finally:
            stream.close()
            server.forget(self)
            self._asked = None
            self._interim = _never  # it held this connection, and its buffers, until the next collection
            if self._content is not None:
                self._content.close()
                self._content = None

    def _request(self, head: RequestHead, exchange: Exchange) -> Request:
        """Build the Request that a head announces, with its content where all of that has come."""
        if self._reader.done:
            body = Body()
        else:
            whole = None if head.expects_continue else self._reader.take_whole()
            if whole is not None:
                exchange.bytes_in = len(whole)
                body = Body(whole)
            else:
                self._content = RequestContent(self, head, exchange)
                body = Body.stream(self._content, head.length)
        interim = self._interim if head.minor else None  # HTTP/1.0 does not know them (RFC 9110 section 15.2)
        return self.request(head, exchange, body, interim)

    async def _rest_of_head(self) -> RequestHead | None:
        """Wait until a head is whole; None where the client has no more."""
        reader, stream, server = self._reader, self._stream, self.server
        if not reader.ended:
            stream.set_deadline(server.loop.time() + server.limits.head_timeout)
        while not reader.ended:
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
        if not head.keep_alive or left <= 0 or self.epoch != self.server.epoch:
            return False
        if head.minor == 0 and body.length is None:
            return False  # HTTP/1.0 knows no chunks: the close is the content's end
        # A streamed answer may have come before the upload's end, which is then not ours to pass over.
        return self._reader.done or (body.whole is not None and self._skip_buffered())

    def _send_whole(self, head: RequestHead, response: Response, exchange: Exchange, keep_alive: bool) -> None:
        """Send an answer whose content is in memory, head and content in one write."""
        content = response.body.whole
        assert content is not None
        self.answering(exchange, response.status)
        if h1.has_content(response.status, head.method):
            exchange.bytes_out = len(content)
        self._stream.write(self._head(head, response, keep_alive, content))

    def _head(self, head: RequestHead, response: Response, keep_alive: bool, content: bytes) -> bytes:
        headers = response.headers
        date = b"" if b"date" in headers.index else self.server.date()
        return h1.response_head(
            response.status, headers, date, response.body.length, head.method, head.minor, keep_alive, content
        )

    def send_head(self, head: RequestHead, response: Response) -> None:
        """Send the head of an answer whose content is still on its way."""
        chunked = response.body.length is None and head.minor == 1
        self._chunked = chunked and h1.has_content(response.status, head.method)
        self._until_close = response.body.length is None and head.minor == 0
        self._stream.write(self._head(head, response, self._goes_on, b""))

    def send_content(self, data: bytes) -> None:
        """Send a piece of the answer's content."""
        self._stream.write(h1.chunk(data) if self._chunked else data)

    def send_end(self, trailers: Trailers) -> None:
        """Send the last chunk; a length has said it before, and to HTTP/1.0 the close will."""
        if self._chunked:
            self._stream.write(h1.last_chunk(trailers))

    async def drain(self) -> None:
        """Wait for a slow client to take what was sent, for as long as the limit allows."""
        if self._stream.congested:
            await self._stream.drain(self.server.loop.time() + self.server.limits.write_timeout)

    def cut(self) -> None:
        """Break the answer off, after what was sent of it."""
        if self._until_close:
            self._stream.reset()  # an orderly end would say that the content is whole
        else:
            self._stream.flush()
            self._stream.abort()

    def send_interim(self, status: int, headers: Headers) -> None:
        """Send a 1xx answer ahead of the final one (RFC 9110 section 15.2)."""
        self._stream.write(h1.interim_head(status, headers))

    async def _tunnel(self, head: RequestHead, response: Response, duplex: Duplex, exchange: Exchange) -> None:
        """Switch protocols: from here on the client and the service speak with each other alone."""
        stream = self._stream
        if not head.upgrade:
            duplex.close()
            raise no_switch()
        stream.on_lost = None  # the end of one direction is not the end of the other any more
        self.answering(exchange, response.status)
        stream.write(h1.switching_head(response.headers, head.upgrade))
        limits, loop = self.server.limits, self.server.loop
        client = Upgraded(stream, self._reader.take_pending(), loop, limits.write_timeout, _left, _nothing)
        await join(client, duplex, limits.tunnel_timeout, exchange)
        self.complete(exchange, self.server.loop.time())

    async def read_content(self) -> Data | End:
        """Return the next piece of the request's content."""
        stream, reader = self._stream, self._reader
        while (event := self._next_content()) is None:
            stream.set_deadline(self.server.loop.time() + self.server.limits.body_timeout)
            try:
                reader.receive(await stream.receive())
            except DeadlineExceeded:
                raise RequestTimeout("the request body did not come in time") from None
        return event

    def _next_content(self) -> Data | End | None:
        try:
            return self._reader.next_content()
        except BodyTruncated as error:
            raise MalformedRequest(str(error)) from error

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
        stream.set_deadline(self.server.loop.time() + DISCARD_SECONDS)
        left = DISCARD_BYTES
        try:
            while left > 0 and (data := await stream.receive()):
                left -= len(data)
        except DeadlineExceeded:
            return

    def _reject(self, error: RequestError, head: RequestHead | None) -> None:
        """Answer what never became a request, or broke off as one; `head` is the last that was read."""
        under_way = self._exchange is not None and self._exchange.outcome is None
        request = Request(head.method, "", None, head.headers) if head is not None and under_way else Request("GET", "")
        if self._content is not None:
            self._content.close()  # what is left of it is passed over here, and by nobody else
        self.rejected(error, head if under_way else None)
        problem = Problem(error.status, error.type, detail=error.detail)
        self._stream.write(refusal(self.server, problem, [], request))


def _never(status: int, headers: Headers) -> None:
    """Send nothing: the connection is over."""


def _nothing() -> None:
    """Do nothing: the connection's own loop tells of its end."""


def refusal(server: Server, problem: Problem, extra: list[bytes], request: Request) -> bytes:
    """Return `problem` as the last answer on a connection, with `extra` header lines; `request` is what is known of
    the request."""
    response = refused(server, problem, request)
    content = response.body.whole or b""
    lines = b"\r\n".join([server.date(), *extra])
    return h1.response_head(problem.status, response.headers, lines, len(content), request.method, 1, False, content)


def _left() -> Exception:
    return ConnectionResetError("the client has left")
