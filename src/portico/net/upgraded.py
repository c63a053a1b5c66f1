"""A connection that has stopped being HTTP's, as one side of a tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from portico.http.duplex import Duplex
from portico.net.stream import NEVER, Stream


class Upgraded(Duplex):
    """What is left of an HTTP/1 connection after a 101: its stream, and what had come behind the head."""

    __slots__ = ("_closed", "_first", "_loop", "_lost", "_over", "_patience", "_stream")

    def __init__(
        self,
        stream: Stream,
        first: bytes,
        loop: asyncio.AbstractEventLoop,
        patience: float,
        lost: Callable[[], Exception],
        over: Callable[[], None],
    ) -> None:
        """Take over `stream`, with the `first` bytes of the new protocol.

        The other side has `patience` seconds to take what it is sent. `lost` makes the error that tells of a broken
        connection; `over` is called once, when this one is closed.
        """
        self._stream = stream
        self._first = first
        self._loop = loop
        self._patience = patience
        self._lost = lost
        self._over = over
        self._closed = False
        stream.set_deadline(NEVER)  # how long it may be silent is for the tunnel to say

    @property
    def half_closes(self) -> bool:
        """True while one direction can end and the other go on."""
        return self._stream.half_closes

    @property
    def unread(self) -> bool:
        """True while bytes have come that `receive` would return at once."""
        return bool(self._first) or self._stream.unread

    async def receive(self) -> bytes:
        """Return the next bytes; b"" is the end of the other side's direction."""
        if self._first:
            data, self._first = self._first, b""
            return data
        data = await self._stream.receive()
        if not data and self._stream.broken:
            raise self._lost()
        return data

    async def send(self, data: bytes) -> None:
        """Send `data`; wait while too much is unsent."""
        stream = self._stream
        if stream.closed:  # nobody reads on a side that has ended its direction: only this tells of a reset
            raise self._lost()
        stream.write(data)
        if stream.congested:
            await stream.drain(self._loop.time() + self._patience)

    def end(self) -> None:
        """Send no more, and say so where the connection can."""
        self._stream.end_output()

    def break_off(self) -> None:
        """End both directions; what was sent is not taken for all of it, where the connection can say so."""
        self._stream.break_off()
        self.close()

    def close(self) -> None:
        """End both directions, after what was sent."""
        if not self._closed:
            self._closed = True
            self._stream.close()
            self._over()
