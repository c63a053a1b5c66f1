"""One socket's two directions, with back-pressure both ways and a deadline on every wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

HIGH_WATER: Final = 64 * 1024
"""Bytes received and not yet taken, above which reading from the socket stops; also the limit of unsent bytes."""

NEVER: Final = float("inf")


class DeadlineExceeded(Exception):
    """A wait on a stream went past the stream's deadline."""


class Stream(asyncio.Protocol):
    """A connected socket: `receive` and `write`, one reader and one writer at a time.

    The deadline costs nothing to move later: one timer stands, and where it fires early it is set again. `on_lost` is
    called once, when the other side has closed or reset the connection, or has ended its direction of it.
    """

    __slots__ = (
        "_deadline",
        "_drained",
        "_expired",
        "_failure",
        "_loop",
        "_paused",
        "_received",
        "_timer",
        "_timer_at",
        "_waiter",
        "closed",
        "congested",
        "eof",
        "on_connected",
        "on_expired",
        "on_lost",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._received = b""
        self._waiter: asyncio.Future[bytes] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._paused = False
        self._deadline = NEVER
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self.eof = False
        self.closed = False
        self.congested = False
        """True while more than the high-water mark waits to be sent: whoever writes on must `drain` first."""
        self.on_lost: Callable[[], None] | None = None
        self.on_expired: Callable[[], None] | None = None
        """Called when the deadline passes while nobody waits."""
        self.on_connected: Callable[[Stream], None] | None = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        if self.on_connected is not None:
            self.on_connected(self)

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(data)
                return
        self._received = self._received + data if self._received else data
        if len(self._received) >= HIGH_WATER and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.eof = True
        self._wake()
        self._tell_lost()
        # On plain TCP the other direction stays open, since an answer may still be owed; TLS has no half-close.
        return self.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.eof = self.closed = True
        self._cancel_timer()
        self._wake()
        drained = self._drained
        if drained is not None and not drained.done():
            drained.set_exception(ConnectionResetError("the connection was lost"))
        self._tell_lost()

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # What the owner calls.

    @property
    def unread(self) -> bool:
        """True where bytes have come that nobody took."""
        return bool(self._received)

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

    def arrival(self) -> asyncio.Future[bytes]:
        """Return what to await for the next bytes, after `take` had none; b"" is the end of the other side's direction.

        A future and no coroutine: most waits of a gateway are here. It raises DeadlineExceeded, or what `fail` was
        given.
        """
        waiter = self._waiter = self._loop.create_future()
        if self._failure is not None:
            waiter.set_exception(self._failure)
        elif self.eof:
            waiter.set_result(b"")
        elif self._expired:
            waiter.set_exception(DeadlineExceeded())
        return waiter

    async def receive(self) -> bytes:
        """Return the next bytes: `take`, or else `arrival`."""
        return self.take() or await self.arrival()

    def write(self, data: bytes) -> None:
        """Send `data`, after what was written before; nothing happens on a closed connection."""
        if not self.closed:
            self.transport.write(data)

    def end_output(self) -> None:
        """Say that nothing more will be sent, where the transport can say so before it closes."""
        if not self.closed and self.transport.can_write_eof():
            self.transport.write_eof()

    async def drain(self) -> None:
        """Wait until less than the high-water mark is unsent. Raises ConnectionResetError or DeadlineExceeded."""
        if self.closed:
            raise ConnectionResetError("the connection was lost")
        if not self.congested:
            return
        if self._expired:
            raise DeadlineExceeded
        drained = self._drained = self._loop.create_future()
        try:
            await drained
        finally:
            self._drained = None

    def fail(self, error: BaseException) -> None:
        """Make the pending or the next `receive` raise `error`."""
        self._failure = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def set_deadline(self, when: float) -> None:
        """Let no wait last beyond `when`, a time of the loop's clock; NEVER lifts the deadline."""
        self._deadline = when
        self._expired = False
        if when < self._timer_at and not self.closed:
            self._arm(when)

    def close(self) -> None:
        """Close the connection after what was written has been sent."""
        self._cancel_timer()
        if not self.closed:
            self.transport.close()

    def abort(self) -> None:
        """Close the connection at once; what is unsent is lost."""
        self._cancel_timer()
        if not self.closed:
            self.transport.abort()

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
        waiting = [waiter for waiter in (self._waiter, self._drained) if waiter is not None and not waiter.done()]
        for waiter in waiting:
            waiter.set_exception(DeadlineExceeded())
        if not waiting and self.on_expired is not None:
            self.on_expired()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(b"")

    def _tell_lost(self) -> None:
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()
