"""One socket's two directions, with back-pressure both ways and a deadline on every wait."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import select
import socket
import struct
from collections.abc import Callable, Generator
from typing import Final, cast

logger = logging.getLogger("portico.stream")

HIGH_WATER: Final = 64 * 1024
"""Bytes received and not yet taken, above which reading from the socket stops; also the limit of unsent bytes."""

LINGER: Final = 10.0
"""Seconds for which a closed connection is kept for what was not sent yet."""

LEFT_BEHIND: Final = 64 * 1024
"""Bytes that are still read of a connection to which writing has failed."""

_NEWS: Final = select.POLLIN | getattr(select, "POLLRDHUP", 0)
"""What a poll is asked for; it always tells of a reset."""

_NO_LINGER: Final = struct.pack("ii", 1, 0)

NEVER: Final = float("inf")


class DeadlineExceeded(Exception):
    """A wait on a stream went past the stream's deadline."""


class Arrival:
    """The wait for the next bytes of a stream: what `await stream.arrival()` awaits.

    It is to a Task what a Future is, but for one thing: when bytes come, the task runs on at once, within the
    transport's callback, and not in the loop's next turn. No task is running then, so the order is what it would have
    been; a turn of the loop, a handle and a poll for events are saved for each wait. There is one for each stream, used
    again and again, since a stream has one reader.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_error", "_loop", "_value", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = False
        self._callback: Callable[[Arrival], object] | None = None
        self._context: contextvars.Context | None = None
        self._value = b""
        self._error: BaseException | None = None
        self.waiting = False
        """True while a task waits whose wake-up is not on its way yet."""

    def __await__(self) -> Generator[Arrival, None, bytes]:
        self._asyncio_future_blocking = True
        yield self
        value, self._value = self._value, b""  # or the last bytes would be held for as long as the connection
        return value  # what the wait ended with, where not with bytes, was thrown in by the task

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, as a Task asks for it."""
        return self._loop

    def add_done_callback(
        self, callback: Callable[[Arrival], object], *, context: contextvars.Context | None = None
    ) -> None:
        """Take what wakes the task."""
        assert not self.waiting
        self._callback = callback
        self._context = context
        self.waiting = True

    def cancel(self, msg: object = None) -> bool:
        """Make the wait raise CancelledError; tell whether it was still waiting."""
        if not self.waiting:
            return False
        self.wake_soon(b"", asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True

    def result(self) -> bytes:
        """Return the bytes, or raise what the wait ended with."""
        error = self._error
        if error is not None:
            self._error = None
            raise error
        return self._value

    def wake_now(self, value: bytes) -> None:
        """Run the task on with `value`; only from a callback of the transport, where no task is running."""
        self.waiting = False
        self._value = value
        callback, context = self._callback, self._context
        self._callback = self._context = None  # or a kept connection would hold the task that last used it
        assert callback is not None
        assert context is not None
        context.run(callback, self)

    def wake_soon(self, value: bytes, error: BaseException | None) -> None:
        """Have the task run on in the loop's next turn."""
        self.waiting = False
        callback, context = self._callback, self._context
        self._callback = self._context = None
        assert callback is not None
        self._loop.call_soon(self._deliver, callback, value, error, context=context)

    def _deliver(self, callback: Callable[[Arrival], object], value: bytes, error: BaseException | None) -> None:
        """Run the task on that waited; only now, since another may have begun to wait meanwhile."""
        self._value = value
        self._error = error
        callback(self)


class Outbox:
    """Gathers what a worker writes in one turn of the loop, and hands it to the sockets at the turn's end.

    Writes in a row cost less than writes spread over the turn: their readers are woken once, and not for each.
    """

    __slots__ = ("_loop", "_streams")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._streams: list[Stream] = []

    def add(self, stream: Stream) -> None:
        """Have `stream` flushed at the end of this turn."""
        if not self._streams:
            self._loop.call_soon(self._flush)
        self._streams.append(stream)

    def _flush(self) -> None:
        streams, self._streams = self._streams, []
        for stream in streams:
            try:
                stream.flush()
            except Exception:  # one stream's failure must not keep the others' answers back
                logger.exception("a write failed")
                stream.abort()


class Stream(asyncio.Protocol):
    """A connected socket: `receive` and `write`. It has one reader; several may write, and wait in `drain`.

    The deadline for what arrives costs nothing to move later: one timer stands, and where it fires early it is set
    again. What is sent has a deadline of its own, at each `drain`. `on_lost` is called once, when the other side has
    closed or reset the connection, or has ended its direction of it.
    """

    __slots__ = (
        "_arrival",
        "_deadline",
        "_draining",
        "_expired",
        "_failure",
        "_loop",
        "_outbox",
        "_paused",
        "_received",
        "_timer",
        "_timer_at",
        "_unsent",
        "broken",
        "closed",
        "congested",
        "eof",
        "made",
        "on_connected",
        "on_expired",
        "on_lost",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox | None = None) -> None:
        self._loop = loop
        self._received = b""
        self._unsent = b""
        self._outbox = Outbox(loop) if outbox is None else outbox
        self._arrival = Arrival(loop)
        self._draining: list[asyncio.Future[None]] = []
        self._failure: BaseException | None = None
        self._paused = False
        self._deadline = NEVER
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self.made = False
        """True once there is a transport."""
        self.eof = False
        self.closed = False
        self.broken = False
        """True where the connection did not end in good order: what was read to its end may not be whole."""
        self.congested = False
        """True while more than the high-water mark waits to be sent: whoever writes on must `drain` first."""
        self.on_lost: Callable[[], None] | None = None
        self.on_expired: Callable[[], None] | None = None
        """Called when the deadline passes while nobody waits."""
        self.on_connected: Callable[[Stream], None] | None = None

    # What the transport calls; asyncio.Protocol says when.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102 - as above
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.made = True
        self.tell_connected()

    def data_received(self, data: bytes) -> None:  # noqa: D102 - as above
        if self._arrival.waiting:
            self._arrival.wake_now(data)
            return
        self._received = self._received + data if self._received else data
        if len(self._received) >= HIGH_WATER and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:  # noqa: D102 - as above
        self.eof = True
        self._wake()
        self._tell_lost()
        return self.half_closes  # then the other direction stays open, since an answer may still be owed

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102 - as above
        if exc is not None and not self.eof:
            self._take_left_behind()
        self.eof = self.closed = True
        self.broken = exc is not None
        self.on_expired = self.on_connected = None  # with them go circles that only the collector could open
        self._cancel_timer()
        self._wake()
        for drained in self._draining:
            if not drained.done():
                drained.set_exception(ConnectionResetError("the connection was lost"))
        self._tell_lost()

    def _take_left_behind(self) -> None:
        """Read what had come before a write failed: a service that refuses an upload answers first, then closes.

        The transport gives up reading where it finds that it cannot write.
        """
        held = self.transport.get_extra_info("socket")
        if held is None or held.fileno() < 0:
            return
        try:
            self._received += os.read(held.fileno(), LEFT_BEHIND)
        except OSError:
            return  # nothing was left

    def pause_writing(self) -> None:  # noqa: D102 - as above
        self.congested = True

    def resume_writing(self) -> None:  # noqa: D102 - as above
        self.congested = False
        for drained in self._draining:
            if not drained.done():
                drained.set_result(None)

    # What the owner calls.

    @property
    def scheme(self) -> str:
        """`http` or `https`: what a URL of the other side begins with."""
        return "http" if self.transport.get_extra_info("sslcontext") is None else "https"

    @property
    def half_closes(self) -> bool:
        """True while one direction can end and the other go on: on plain TCP, and not over TLS."""
        return not self.closed and self.transport.get_extra_info("sslcontext") is None

    @property
    def unread(self) -> bool:
        """True where bytes have come that nobody took."""
        return bool(self._received)

    def has_news(self) -> bool:
        """Return whether something has come, be it the end, that the loop has not read yet: this asks the socket."""
        held = self.transport.get_extra_info("socket")
        descriptor: int = -1 if held is None else held.fileno()
        if descriptor < 0:
            return True
        asked = select.poll()
        asked.register(descriptor, _NEWS)
        return bool(asked.poll(0))

    def take(self) -> bytes:
        """Return the bytes that have come and that nobody took; b"" where there are none."""
        data = self._received
        if data:
            self._received = b""
            if self._paused:
                self._paused = False
                if not self.closed:
                    self.transport.resume_reading()
        return data

    def arrival(self) -> Arrival:
        """Return what to await for the next bytes, after `take` had none; b"" is the end of the other side's direction.

        It raises DeadlineExceeded, or what `fail` was given.
        """
        if self._failure is not None:
            raise self._failure
        if self._expired:
            raise DeadlineExceeded
        return self._arrival

    async def receive(self) -> bytes:
        """Return the next bytes: `take`, or else `arrival`."""
        data = self.take()
        if data or (self.eof and self._failure is None):
            return data
        return await self.arrival()

    def write(self, data: bytes) -> None:
        """Send `data`, after what was written before; nothing happens on a closed connection."""
        if self.closed:
            return
        if self._unsent:
            self._unsent += data
            if len(self._unsent) >= HIGH_WATER:
                self.flush()
        elif len(data) >= HIGH_WATER:
            self._transmit(data)  # it may congest, which the writer asks about at once
        else:
            self._unsent = data
            self._outbox.add(self)

    def flush(self) -> None:
        """Hand what was written to the transport."""
        data, self._unsent = self._unsent, b""
        if data and not self.closed:
            self._transmit(data)

    def _transmit(self, data: bytes) -> None:
        self.transport.write(data)

    def end_output(self) -> None:
        """Say that nothing more will be sent, where the transport can say so before it closes."""
        self.flush()
        if not self.closed and self.transport.can_write_eof():
            self.transport.write_eof()

    async def drain(self, when: float) -> None:
        """Wait until `when` for less than the high-water mark to be unsent.

        Raises ConnectionResetError or DeadlineExceeded.
        """
        if self.closed:
            raise ConnectionResetError("the connection was lost")
        if not self.congested:
            return
        drained = self._loop.create_future()
        self._draining.append(drained)
        timer = None if when == NEVER else self._loop.call_at(when, self._too_slow, drained)
        try:
            await drained
        finally:
            self._draining.remove(drained)
            if timer is not None:
                timer.cancel()

    @staticmethod
    def _too_slow(drained: asyncio.Future[None]) -> None:
        if not drained.done():
            drained.set_exception(DeadlineExceeded())

    def fail(self, error: BaseException) -> None:
        """Make the pending or the next `receive` raise `error`."""
        self._failure = error
        if self._arrival.waiting:
            self._arrival.wake_soon(b"", error)

    @property
    def failure(self) -> BaseException | None:
        """What `fail` was given."""
        return self._failure

    def set_deadline(self, when: float) -> None:
        """Let no wait for bytes last beyond `when`, a time of the loop's clock; NEVER lifts the deadline."""
        self._deadline = when
        self._expired = False
        if when < self._timer_at and not self.closed:
            self._arm(when)

    def close(self) -> None:
        """Close the connection after what was written has been sent."""
        self._cancel_timer()
        self.flush()
        if not self.closed:
            self.transport.close()
            if self.transport.get_write_buffer_size():
                self._timer = self._loop.call_later(LINGER, self.transport.abort)

    def abort(self) -> None:
        """Close the connection at once; what is unsent is lost."""
        self._cancel_timer()
        if not self.closed:
            self.transport.abort()

    def reset(self) -> None:
        """Close the connection at once and by a RST, so that its end does not pass for the end of what was sent."""
        if not self.closed:
            held = self.transport.get_extra_info("socket")
            if held is not None and held.fileno() >= 0:
                held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.abort()

    def break_off(self) -> None:
        """Close the connection after what was written has been sent, and do not say that this was all, if that can be
        left unsaid: over TLS."""
        self.close()

    def tell_connected(self) -> None:
        """Tell the owner, once, that the connection can be used."""
        on_connected, self.on_connected = self.on_connected, None
        if on_connected is not None:
            on_connected(self)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._timer_fired)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = 0.0  # nothing is earlier: no deadline arms a timer on a connection that is done

    def _timer_fired(self) -> None:
        self._timer = None
        self._timer_at = NEVER
        if self._deadline > self._loop.time():
            if self._deadline != NEVER:
                self._arm(self._deadline)
            return
        self._expired = True
        if self._arrival.waiting:
            self._arrival.wake_soon(b"", DeadlineExceeded())
        elif self.on_expired is not None:
            self.on_expired()

    def _wake(self) -> None:
        """Wake who waits, with what was left behind, or with the end."""
        if self._arrival.waiting:
            self._arrival.wake_soon(self.take(), None)

    def _tell_lost(self) -> None:
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()
