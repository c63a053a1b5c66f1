"""Messages, and descriptors, between the processes of one gateway, over a Unix socket of the stream kind.

A message is a frozen dataclass of plain values; `Codec` knows which there are. On the wire it is eight bytes (its
length, and how many descriptors come with it), and JSON. The standard library is all that it takes, so that the
supervisor, which must not die of an import, can speak it too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

logger = logging.getLogger("portico.channel")

MESSAGE_LIMIT: Final = 16 * 1024 * 1024
"""The most bytes of a message; what is larger goes into a file of memory whose descriptor is sent."""
BACKLOG_LIMIT: Final = 32 * 1024 * 1024
"""The most bytes that wait for a process that does not read; beyond them the channel is cut."""
ROOM: Final = 128 * 1024
"""How few bytes wait when there is room for more of what is in no hurry."""
DESCRIPTORS: Final = 200
"""The most descriptors that one message may bring; Linux takes 253 (SCM_MAX_FD)."""

_HEAD: Final = struct.Struct("!II")
_PIECE: Final = 64 * 1024


class BadMessage(Exception):
    """What came makes no sense: the other side is of another version, or not a part of the gateway."""


class Received(NamedTuple):
    """A message, and the descriptors that came with it, which are the receiver's to close."""

    message: Any
    descriptors: tuple[int, ...]


class Codec:
    """Reads and writes messages of the given kinds; made once, for each end that reads a `Reader`."""

    def __init__(self, kinds: Iterable[type]) -> None:
        self._kinds = {kind.__name__: kind for kind in kinds}

    def encode(self, message: Any, descriptors: int = 0) -> bytes:
        """Return the bytes of a message with so many descriptors."""
        name = type(message).__name__
        assert self._kinds.get(name) is type(message)
        body = json.dumps([name, vars(message)], separators=(",", ":")).encode()
        if len(body) > MESSAGE_LIMIT or descriptors > DESCRIPTORS:
            raise ValueError(f"{name} is too large for a channel: {len(body)} bytes, {descriptors} descriptors")
        return _HEAD.pack(len(body), descriptors) + body

    def decode(self, body: bytes) -> Any:
        """Return the message that `body` is. Raises BadMessage."""
        try:
            name, values = json.loads(body)
            return self._kinds[name](**values)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadMessage(f"not a message of this version: {body[:80]!r}") from error


class Reader:
    """Puts messages together from what a socket gives, and gives each the descriptors that came with it."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._received = bytearray()
        self._descriptors: deque[int] = deque()

    def read(self, sock: socket.socket) -> list[Received] | None:
        """Return the messages that are whole, or None where the other side has closed. Raises BadMessage, OSError."""
        # It is asked for at most what one message brings: what has no room is closed by the kernel, without a word.
        data, ancillary, _, _ = sock.recvmsg(_PIECE, socket.CMSG_SPACE(DESCRIPTORS * 4), _CLOEXEC)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self._descriptors.extend(numbers)
                for number in numbers:
                    os.set_inheritable(number, False)
        if not data:
            return None
        self._received += data
        return self._whole()

    def _whole(self) -> list[Received]:
        found: list[Received] = []
        try:
            while (received := self._next()) is not None:
                found.append(received)
        except BadMessage:
            for each in found:
                close_all(each.descriptors)
            raise
        return found

    def _next(self) -> Received | None:
        if len(self._received) < _HEAD.size:
            return None
        size, count = _HEAD.unpack_from(self._received)
        if size > MESSAGE_LIMIT or count > DESCRIPTORS:
            raise BadMessage(f"a message of {size} bytes and {count} descriptors")
        end = _HEAD.size + size
        if len(self._received) < end:
            return None
        body = bytes(self._received[_HEAD.size : end])
        del self._received[:end]
        if len(self._descriptors) < count:
            raise BadMessage("a message without its descriptors")
        descriptors = tuple(self._descriptors.popleft() for _ in range(count))
        try:
            return Received(self._codec.decode(body), descriptors)
        except BadMessage:
            close_all(descriptors)
            raise

    def close(self) -> None:
        """Close the descriptors of messages that never became whole."""
        close_all(self._descriptors)
        self._descriptors.clear()


_CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def send_now(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> int:
    """Send the beginning of `data`, and all of `descriptors` with its first byte; return how many bytes went out.

    Raises OSError; BlockingIOError where nothing went out.
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
    return sock.sendmsg([data], ancillary)


class Channel:
    """One end of a channel on an event loop; `on_message` and `on_closed` are called from the loop.

    Descriptors to send stay the caller's: they are sent at once, or as copies later.
    """

    def __init__(
        self,
        sock: socket.socket,
        codec: Codec,
        on_message: Callable[[Any, tuple[int, ...]], None],
        on_closed: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._codec = codec
        self._reader = Reader(codec)
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._waiting_bytes = 0
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._paused = False
        self.closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message; where the other side is gone, or takes nothing, the channel closes and that is all."""
        if self.closed:
            return
        data = self._codec.encode(message, len(descriptors))
        if not self._waiting:
            data, descriptors = self._write(data, descriptors)
            if not data:
                return
            self._loop.add_writer(self._socket.fileno(), self._writable)
        self._waiting.append((data, tuple(map(os.dup, descriptors))))
        self._waiting_bytes += len(data)
        if self._waiting_bytes > ROOM:
            self._roomy.clear()
        if self._waiting_bytes > BACKLOG_LIMIT:
            logger.warning("a process of the gateway takes no messages; its channel is cut")
            self._lost()

    @property
    def has_room(self) -> bool:
        """Whether little waits for the other side, and it is still there."""
        return self._roomy.is_set() and not self.closed

    async def room(self) -> bool:
        """Wait until little waits for the other side; tell whether that is still there."""
        await self._roomy.wait()
        return not self.closed

    def pause(self) -> None:
        """Hear nothing until `resume`: the other side waits, too, once the socket is full."""
        if not self._paused and not self.closed:
            self._paused = True
            self._loop.remove_reader(self._socket.fileno())

    def resume(self) -> None:
        """Hear again."""
        if self._paused and not self.closed:
            self._paused = False
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Close this end."""
        if self.closed:
            return
        self.closed = True
        self._roomy.set()
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._reader.close()
        for _, descriptors in self._waiting:
            close_all(descriptors)
        self._waiting.clear()

    def _write(self, data: bytes, descriptors: Sequence[int]) -> tuple[bytes, Sequence[int]]:
        """Return what could not be sent yet."""
        try:
            while data:
                sent = send_now(self._socket, data, descriptors)
                data, descriptors = data[sent:], ()
        except BlockingIOError:
            pass
        except OSError:
            self._lost()
            return b"", ()
        return data, descriptors

    def _writable(self) -> None:
        while self._waiting:
            data, copies = self._waiting[0]
            rest, unsent = self._write(data, copies)
            if self.closed:
                return
            if copies and not unsent:
                close_all(copies)
            self._waiting_bytes -= len(data) - len(rest)
            if self._waiting_bytes <= ROOM:
                self._roomy.set()
            if rest:
                self._waiting[0] = rest, tuple(unsent)
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            received = self._reader.read(self._socket)
        except BlockingIOError:
            return
        except BadMessage as error:
            logger.error("a channel is cut: %s", error)  # noqa: TRY400 - a trace says no more
            received = None
        except OSError:
            received = None
        if received is None:
            self._lost()
            return
        for message, descriptors in received:
            if self.closed:
                close_all(descriptors)
            else:
                self._on_message(message, descriptors)

    def _lost(self) -> None:
        if not self.closed:
            self.close()
            self._on_closed()
