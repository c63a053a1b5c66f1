"""A small protocol with many streams on one connection, to prove that the server, the pool and what lies between them
speak more than HTTP/1.

A frame is `[kind u8][stream u32][length u32][payload]`. A message is a HEAD in JSON (interim ones first), DATA, and an
END with trailers. DATA may go out as far as the receiver's window allows; reading it gives back as much. RESET ends one
stream and never the connection; `refused` says that nothing was done with the request.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from portico.errors import RequestTimeout, Source, UpstreamClosed, UpstreamTimeout
from portico.http.body import Trailers
from portico.http.headers import Headers, Pair
from portico.http.message import Client, Handler, Request, Response
from portico.net.client import IDEMPOTENT, ClientStream, outbound_fields
from portico.net.multiplexed import SharedClientConnection, SharedServerConnection
from portico.net.pool import Pool
from portico.net.server import Server
from portico.net.server_stream import ServerStream
from portico.net.stream import NEVER, DeadlineExceeded, Stream
from portico.wire import h1
from portico.wire.events import Data, End, RequestHead, ResponseHead

HEAD, DATA, END, WINDOW, RESET = range(5)
REFUSED = b"refused"

_FRAME = struct.Struct("!BII")


class Codec:
    """The protocol with its limits; `begin` is for a Listener, `speak` for a Pool. It knows every connection made."""

    def __init__(self, window: int = 16 * 1024, room: int = 100) -> None:
        self.window = window
        self.room = room
        self.served: list[CodecServerConnection] = []
        self.spoken: list[CodecClientConnection] = []

    def begin(self, server: Server, client: Client, stream: Stream, handler: Handler | None) -> None:
        connection = CodecServerConnection(self, server, client, stream, handler)
        self.served.append(connection)
        connection.start()

    def speak(self, pool: Pool, stream: Stream) -> CodecClientConnection:
        connection = CodecClientConnection(self, pool, stream)
        self.spoken.append(connection)
        return connection


class Frames:
    """The frames of one connection, both ways."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._received = b""
        self._draining = asyncio.Lock()

    def split(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield the frames that are complete with `data`."""
        self._received += data
        while len(self._received) >= _FRAME.size:
            kind, number, length = _FRAME.unpack_from(self._received)
            end = _FRAME.size + length
            if len(self._received) < end:
                return
            payload, self._received = self._received[_FRAME.size : end], self._received[end:]
            yield kind, number, payload

    def write(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.stream.write(_FRAME.pack(kind, number, len(payload)) + payload)

    def write_head(self, number: int, start: object, fields: list[Pair], length: int | None) -> None:
        head = {"start": start, "fields": _as_text(fields), "length": length}
        self.write(HEAD, number, json.dumps(head).encode())

    async def drain(self, when: float) -> None:
        """Wait for the socket; a Stream has room for one who waits, and here are many."""
        if self.stream.congested:
            async with self._draining:
                await self.stream.drain(when)


class Incoming:
    """What has come on one stream and nobody has read yet. Whoever waits is told of a deadline, a reset, or an end."""

    def __init__(self, frames: Frames, number: int, window: int) -> None:
        self._frames = frames
        self._number = number
        self._window = window
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes] = deque()
        self._trailers: Trailers = []
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.unread = 0
        self.credited = 0
        self.ended = False
        self.on_expired: Callable[[], None] | None = None

    def put(self, data: bytes) -> None:
        self.unread += len(data)
        if self.unread > self._window:
            raise ConnectionAbortedError("the other side does not keep to the window")
        self._pieces.append(data)
        self.wake()

    def end(self, trailers: Trailers) -> None:
        self.ended = True
        self._trailers = trailers
        self.wake()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def set_deadline(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if when == NEVER else self._loop.call_at(when, self._expired)

    def _expired(self) -> None:
        if self._waiter is not None:
            self._error = self._error or DeadlineExceeded()
            self.wake()
        elif self.on_expired is not None:
            self.on_expired()

    async def wait(self) -> None:
        """Wait until something has come; raise what went wrong."""
        if self._error is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._error is not None:
            raise self._error

    async def next(self) -> Data | End:
        """Return the next piece, and let the other side send as much again."""
        while self._error is not None or not self._pieces:
            if self.ended and self._error is None:
                return End(self._trailers)
            await self.wait()
        data = self._pieces.popleft()
        self.unread -= len(data)
        if not self.ended:
            self.credited += len(data)
            self._frames.write(WINDOW, self._number, struct.pack("!I", len(data)))
        return Data(data, last=False)

    def take_whole(self) -> bytes | None:
        if not self.ended or self._trailers or self._error is not None:
            return None
        return b"".join(self._pieces)


class Outgoing:
    """What is being sent on one stream, as far as the other side's window allows."""

    def __init__(self, frames: Frames, number: int, window: int) -> None:
        self._frames = frames
        self._number = number
        self._unsent = b""
        self._trailers: Trailers | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._broken = False
        self.window = window
        self.sent = 0
        self.ended = False

    def send(self, data: bytes) -> None:
        self._unsent += data
        self._flush()

    def end(self, trailers: Trailers) -> None:
        self._trailers = trailers
        self._flush()

    def credit(self, size: int) -> None:
        self.window += size
        self._flush()

    def break_off(self) -> None:
        """Send nothing any more."""
        self._broken = True
        self._wake()

    def _flush(self) -> None:
        if self._broken or self.ended:
            return
        data, self._unsent = self._unsent[: self.window], self._unsent[self.window :]
        if data:
            self.window -= len(data)
            self.sent += len(data)
            self._frames.write(DATA, self._number, data)
        if not self._unsent:
            if self._trailers is not None:
                self.ended = True
                self._frames.write(END, self._number, json.dumps(_as_text(self._trailers)).encode())
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def drain(self, when: float) -> None:
        """Wait until all has gone out; raise ConnectionResetError or DeadlineExceeded."""
        if self._unsent and not self._broken:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout_at(None if when == NEVER else when):
                    await self._waiter
            except TimeoutError:
                raise DeadlineExceeded from None
            finally:
                self._waiter = None
        if self._broken:
            raise ConnectionResetError("the stream was reset")
        await self._frames.drain(when)


class CodecServerStream(ServerStream):
    """One request, and its answer."""

    def __init__(self, connection: CodecServerConnection, number: int) -> None:
        super().__init__(connection.server, connection.client)
        self._connection = connection
        self._frames = connection.frames
        self.number = number
        self.incoming = Incoming(connection.frames, number, connection.codec.window)
        self.outgoing = Outgoing(connection.frames, number, connection.codec.window)
        self._reset = False

    async def read_content(self) -> Data | End:
        self.incoming.set_deadline(self.server.loop.time() + self.server.limits.body_timeout)
        try:
            return await self.incoming.next()
        except DeadlineExceeded:
            raise RequestTimeout("the request body did not come in time") from None

    def take_whole(self) -> bytes | None:
        return self.incoming.take_whole()

    def send_interim(self, status: int, headers: Headers) -> None:
        fields = [(name, value) for name, value in headers if name.lower() not in h1.RESPONSE_DROP]
        self._frames.write_head(self.number, status, fields, 0)

    def send_head(self, head: RequestHead, response: Response) -> None:
        length = response.body.length if h1.has_content(response.status, head.method) else 0
        self._frames.write_head(self.number, response.status, self.answer_fields(head, response), length)

    def send_content(self, data: bytes) -> None:
        self.outgoing.send(data)

    def send_end(self, trailers: Trailers) -> None:
        self.outgoing.end(trailers)

    async def drain(self) -> None:
        await self.outgoing.drain(self.server.loop.time() + self.server.limits.write_timeout)

    def cut(self) -> None:
        self.reset()

    def over(self) -> None:
        self.incoming.set_deadline(NEVER)
        if not (self._reset or (self.incoming.ended and self.outgoing.ended)):
            self.reset()
        del self._connection.streams[self.number]
        self._connection.stream_over(self)

    def reset(self, why: bytes = b"") -> None:
        self._reset = True
        self.outgoing.break_off()
        self._frames.write(RESET, self.number, why)

    def reset_by_client(self) -> None:
        self._reset = True
        self.outgoing.break_off()
        self.client_left()


class CodecServerConnection(SharedServerConnection):
    """A client's connection."""

    def __init__(self, codec: Codec, server: Server, client: Client, stream: Stream, handler: Handler | None) -> None:
        super().__init__(server, stream)
        self.codec = codec
        self.client = client
        self.frames = Frames(stream)
        self.streams: dict[int, CodecServerStream] = {}
        self._handler = handler

    def received(self, data: bytes) -> None:
        for kind, number, payload in self.frames.split(data):
            self._take(kind, number, payload)

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        stream = self.streams.get(number)
        if kind == HEAD and stream is None:
            self._begin(number, json.loads(payload))
        elif stream is None:
            return  # what was still on its way when the stream ended
        elif kind == DATA:
            stream.incoming.put(payload)
        elif kind == END:
            stream.incoming.end(_as_bytes(json.loads(payload)))
        elif kind == WINDOW:
            stream.outgoing.credit(int.from_bytes(payload))
        elif kind == RESET:
            stream.reset_by_client()

    def _begin(self, number: int, said: dict[str, Any]) -> None:
        stream = CodecServerStream(self, number)
        if self.server.draining or self.under_way >= self.codec.room:
            stream.reset(REFUSED)
            return
        method, target, authority = said["start"]
        headers = Headers([(b"Host", authority.encode()), *_as_bytes(said["fields"])])
        self.streams[number] = stream
        self.stream_begun(stream)
        head = RequestHead(method, target.encode(), 1, headers, said["length"], True, False)
        stream.begin(head, self._handler)


class CodecClientStream(ClientStream):
    """Room for one request and its answer."""

    def __init__(self, connection: CodecClientConnection, number: int) -> None:
        super().__init__(connection.pool.loop, connection.pool.tasks)
        self._connection = connection
        self._frames = connection.frames
        self.number = number
        self.incoming = Incoming(connection.frames, number, connection.codec.window)
        self.incoming.on_expired = self.let_go
        self.outgoing = Outgoing(connection.frames, number, connection.codec.window)
        self._heads: deque[ResponseHead] = deque()
        self._repeatable = False
        self._begun = False
        self._answered = False

    def send_request(self, request: Request, target: str, authority: bytes) -> None:
        body = request.body
        self._begun = True
        self._repeatable = request.method in IDEMPOTENT and body.whole is not None
        self._frames.write_head(
            self.number, [request.method, target, authority.decode()], outbound_fields(request), body.length
        )
        if body.whole is not None:
            self.outgoing.send(body.whole)
            self.outgoing.end(body.trailers())

    async def next_head(self, request: Request) -> ResponseHead:
        while not self._heads:
            await self.incoming.wait()
        return self._heads.popleft()

    def take_whole(self) -> bytes | None:
        return self.incoming.take_whole()

    def send_content(self, data: bytes) -> None:
        self.outgoing.send(data)

    def send_end(self, trailers: Trailers) -> None:
        self.outgoing.end(trailers)

    async def drain(self, when: float) -> None:
        await self.outgoing.drain(when)

    def answered(self) -> bool:
        return self._answered

    def set_deadline(self, when: float) -> None:
        self.incoming.set_deadline(when)

    def fail(self, error: BaseException) -> None:
        self.incoming.fail(error)

    async def content(self, patience: float, deadline: float | None) -> Data | End:
        when = self._loop.time() + patience
        self.incoming.set_deadline(when if deadline is None else min(when, deadline))
        try:
            return await self.incoming.next()
        except DeadlineExceeded:
            raise UpstreamTimeout("the answer stalled", source=Source.RESPONSE) from None

    def content_ended(self) -> None:
        self.finish(True)

    def finish(self, reusable: bool) -> None:
        self.end_upload()
        self.incoming.set_deadline(NEVER)
        if self._begun and not (self.incoming.ended and self.outgoing.ended):
            self.outgoing.break_off()
            self._frames.write(RESET, self.number)
        del self._connection.streams[self.number]
        self._connection.stream_over()

    def head_came(self, head: ResponseHead) -> None:
        self._answered = head.status >= 200
        self._heads.append(head)
        self.incoming.wake()

    def lost(self, detail: str, *, unseen: bool) -> None:
        """End the exchange: the stream was reset, or its connection is gone. A whole answer stays one.

        `unseen` says that nobody can have acted on the request, or that it does no harm to believe so.
        """
        self.outgoing.break_off()
        if not self.incoming.ended:
            retryable = self._repeatable and unseen
            self.incoming.fail(UpstreamClosed(detail, source=Source.RESPONSE, retryable=retryable))


class CodecClientConnection(SharedClientConnection):
    """A connection to a target."""

    def __init__(self, codec: Codec, pool: Pool, stream: Stream) -> None:
        super().__init__(stream, pool.loop, pool, codec.room)
        self.codec = codec
        self.pool = pool
        self.frames = Frames(stream)
        self.streams: dict[int, CodecClientStream] = {}
        self.opened = 0
        pool.tasks.create_task(self._read(), name="codec connection")

    def new_stream(self) -> ClientStream:
        self.opened += 1
        stream = self.streams[self.opened] = CodecClientStream(self, self.opened)
        return stream

    async def _read(self) -> None:
        try:
            while data := await self.stream.receive():
                for kind, number, payload in self.frames.split(data):
                    self._take(kind, number, payload)
        except (ConnectionError, DeadlineExceeded):
            pass  # nobody needed it, or it is of no more use
        finally:
            self.stream.close()
            for under_way in tuple(self.streams.values()):
                under_way.lost("the connection was lost", unseen=self.opened > 1)
            self.close()

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        stream = self.streams.get(number)
        if kind == RESET and payload == REFUSED:
            self.take_no_more()
        if stream is None:
            return  # what was still on its way when the stream ended
        if kind == HEAD:
            said = json.loads(payload)
            stream.head_came(ResponseHead(said["start"], Headers(_as_bytes(said["fields"])), said["length"]))
        elif kind == DATA:
            stream.incoming.put(payload)
        elif kind == END:
            stream.incoming.end(_as_bytes(json.loads(payload)))
        elif kind == WINDOW:
            stream.outgoing.credit(int.from_bytes(payload))
        elif kind == RESET:
            stream.lost("the stream was reset", unseen=payload == REFUSED)


def _as_text(fields: list[Pair]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def _as_bytes(fields: list[tuple[str, str]]) -> list[Pair]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
