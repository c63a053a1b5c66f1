"""One HTTP/1 connection to a target: sends a request, hands out the answer."""

from __future__ import annotations

import asyncio

from portico.errors import BodyTruncated, MalformedResponse, Source, UpstreamClosed, UpstreamTimeout
from portico.http.body import Trailers
from portico.http.message import Request, Response
from portico.net.client import (
    IDEMPOTENT,
    AnswerLimits,
    ClientConnection,
    ClientStream,
    Connections,
    Patience,
    outbound_head,
)
from portico.net.stream import NEVER, DeadlineExceeded, Stream
from portico.net.upgraded import Upgraded
from portico.wire import h1
from portico.wire.events import Data, End, ResponseHead
from portico.wire.fields import FieldTable


class H1Connection(ClientStream, ClientConnection):
    """A connection that carries one exchange at a time (RFC 9112); a stream of its own."""

    __slots__ = ("_chunked", "_last_used", "_owner", "_reader", "_spent", "expires", "pooled", "reused", "stream")

    def __init__(
        self,
        stream: Stream,
        loop: asyncio.AbstractEventLoop,
        tasks: asyncio.TaskGroup,
        owner: Connections,
        limits: AnswerLimits,
        fields: FieldTable | None = None,
    ) -> None:
        ClientStream.__init__(self, loop, tasks)
        self.stream = stream
        self._reader = h1.ResponseReader(limits.head, limits.fields, fields, limits.chunk_line, limits.trailers)
        self._owner = owner
        self._last_used = 0.0
        self._chunked = False
        self.pooled = False
        self.expires = None
        self.reused = False
        """True once it has been idle: the target may have closed it meanwhile."""
        self._spent = False
        """True after a request with trailers: some servers take them for the next request's headers."""
        stream.on_lost = self._lost
        stream.on_expired = self._expired

    def open(self) -> ClientStream | None:
        """Return itself, unless the target has closed it or said what nobody asked for."""
        return None if self.stream.eof or self.stream.unread else self

    def has_room(self) -> bool:
        """Return False: one exchange at a time."""
        return False

    def may_idle_until(self, when: float) -> None:
        """Let the stream's deadline watch over it while it is idle; see `_expired`."""
        self.reused = True
        self.stream.set_deadline(when)

    def last_use(self) -> float:
        """Return when its last answer came, on the loop's clock."""
        return self._last_used

    def close(self) -> None:
        """Close it; its pool has it only while nothing is under way."""
        self.stream.close()
        self._owner.connection_over(self)

    def _lost(self) -> None:
        """The target has closed the connection: where nothing is under way, nobody else finds out."""
        if self.pooled:
            self.close()

    def _expired(self) -> None:
        """The deadline has passed while nobody waited: nobody needed the connection, or nobody reads its answer on."""
        if self.pooled:
            self.close()
        else:
            self.let_go()

    async def send(self, request: Request, target: str, authority: bytes, patience: Patience) -> Response:
        """Send `request` and return the answer once its head, or all of a short answer, has come.

        The steps are those of ClientStream.send, in one coroutine, since each more costs at every wake-up.
        """
        stream, reader, exchange = self.stream, self._reader, request.exchange
        clock = self._loop.time
        if self.reused and not _repeatable(request) and stream.has_news():
            # The target has closed it, and the loop has not heard of that. Nothing was sent, and nothing is lost.
            self.finish(False)
            raise UpstreamClosed("closed while it was idle", source=Source.RESPONSE, retryable=True)
        try:
            stream.write(outbound_head(request, target, authority))
            if request.body.whole is None:
                self._chunked = request.body.length is None
                self.begin_upload(request, patience.first_byte)
            sent = clock()
            if exchange is not None:
                exchange.sent = sent
            when = sent + patience.first_byte if self._upload is None else NEVER
            stream.set_deadline(when if request.deadline is None else min(when, request.deadline))
            data = stream.take() or (b"" if stream.eof else await stream.arrival())
            reader.receive(data)
            head = reader.next_head(request.method) if data else None
            if head is None or head.status < 200:
                head = await self._later_head(request, head, data)
            now = self._last_used = clock()
        except DeadlineExceeded:
            self.finish(False)
            raise UpstreamTimeout("no answer in time", source=Source.RESPONSE) from None
        except BaseException:
            self.finish(False)
            raise
        if exchange is not None:
            exchange.first_byte = now
        if head.status == 101:
            return self._switched(request, head, patience.idle)
        whole = b"" if reader.done else reader.take_whole()
        if whole is not None:
            self.finish(reader.keep_alive)
            return Response(head.status, head.headers, whole)
        return self.streamed(request, head.status, head.headers, head.length, patience.idle)

    def send_content(self, data: bytes) -> None:
        """Send a piece of the request's content."""
        self.stream.write(h1.chunk(data) if self._chunked else data)

    def send_end(self, trailers: Trailers) -> None:
        """Send the last chunk, where there are chunks."""
        if self._chunked:
            self._spent = bool(trailers)
            self.stream.write(h1.last_chunk(trailers))

    async def drain(self, when: float) -> None:
        """Wait until `when` for the target to take what was sent."""
        if self.stream.congested:
            await self.stream.drain(when)

    def answered(self) -> bool:
        """Return whether the head of the answer has come: then there is content to be read, or all is over."""
        return not self._reader.done

    def set_deadline(self, when: float) -> None:
        """Let no wait for the answer last beyond `when`."""
        self.stream.set_deadline(when)

    def fail(self, error: BaseException) -> None:
        """Make whoever waits for the answer get `error`."""
        self.stream.fail(error)

    async def _later_head(self, request: Request, head: ResponseHead | None, data: bytes) -> ResponseHead:
        """Read on to the head of the final answer, and pass interim ones on (RFC 9110 section 15.2)."""
        reader = self._reader
        if not data:
            if self.stream.failure is not None:
                raise self.stream.failure
            retryable = self.reused and _repeatable(request)
            raise UpstreamClosed("closed before an answer", source=Source.RESPONSE, retryable=retryable)
        interims = 0
        while True:
            while head is None:
                data = await self.stream.receive()
                if not data:
                    raise UpstreamClosed("closed within the head of its answer", source=Source.RESPONSE)
                reader.receive(data)
                head = reader.next_head(request.method)
            if head.status >= 200 or (head.status == 101 and _has_switched(request, head)):
                return head
            interims += 1
            self.pass_interim(request, head, interims)
            head = reader.next_head(request.method)

    def _switched(self, request: Request, head: ResponseHead, patience: float) -> Response:
        """Hand out the connection itself: it speaks another protocol from here on."""
        response = Response(101, head.headers)
        side = Upgraded(self.stream, self._reader.take_pending(), self._loop, patience, _reset, self._upgraded_over)
        response.duplex = side
        if request.exchange is not None:  # it may be that nobody is joined to it
            request.exchange.on_end(lambda _: side.close())
        return response

    def _upgraded_over(self) -> None:
        self._owner.connection_over(self)

    async def content(self, patience: float, deadline: float | None) -> Data | End:
        """Return the next piece of the answer's content."""
        reader = self._reader
        while True:
            try:
                event = reader.next_content()
                if event is not None:
                    return event
                when = self._loop.time() + patience
                self.stream.set_deadline(when if deadline is None else min(when, deadline))
                data = await self.stream.receive()
                if not data and self.stream.broken:
                    raise UpstreamClosed("reset within its answer", source=Source.RESPONSE)
                reader.receive(data)
            except DeadlineExceeded:
                raise UpstreamTimeout("the answer stalled", source=Source.RESPONSE) from None
            except BodyTruncated as error:
                raise UpstreamClosed(f"closed within its answer: {error}", source=Source.RESPONSE) from error

    def content_ended(self) -> None:
        """End the exchange with its answer's last byte."""
        self._last_used = self._loop.time()
        self.finish(self._reader.keep_alive)

    def finish(self, reusable: bool) -> None:
        """End the exchange: the connection goes back to its pool, or, where it is not `reusable`, is closed."""
        if self._upload is not None:
            self.end_upload()
            reusable = False
        self._unowned = None
        if reusable and not (self._spent or self.stream.eof or self.stream.unread or self._reader.pending):
            self._owner.stream_over(self)
        else:  # bytes that no request asked for could pass for the next one's answer
            self.stream.abort()
            self._owner.connection_over(self)


def _repeatable(request: Request) -> bool:
    """Return whether a request may be sent again that the target may have seen, and can be."""
    return request.body.whole is not None and request.method in IDEMPOTENT


def _has_switched(request: Request, head: ResponseHead) -> bool:
    """Return whether a 101 is the answer to what was asked: to speak that protocol, and no other."""
    if not request.upgrade:
        return False
    protocol = head.headers.get(b"upgrade")
    if protocol is None or protocol.lower() != request.upgrade:
        raise MalformedResponse("switched to a protocol that was not asked for", source=Source.RESPONSE)
    return True


def _reset() -> Exception:
    return UpstreamClosed("reset within its answer", source=Source.RESPONSE)
