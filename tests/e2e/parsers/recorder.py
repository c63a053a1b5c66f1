"""A service that keeps every byte that reaches it."""

from __future__ import annotations

import base64
import json
import re
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Self

from tests.harness.gateway import DEADLINE

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: chunked\r\n", re.IGNORECASE)


def whole_request(data: bytes) -> int:
    """Return the size of the request that `data` begins with, or 0 where it has not all come.

    It knows the framing that the gateway and nginx write, and nothing else: what it reads is theirs.
    """
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return 0
    if _CHUNKED.search(data, 0, end) is None:
        length = _LENGTH.search(data, 0, end)
        end += int(length[1]) if length is not None else 0
        return end if len(data) >= end else 0
    while (line := data.find(b"\r\n", end)) >= 0:
        size = int(data[end:line], 16)
        if size == 0:
            last = data.find(b"\r\n\r\n", line)
            return last + 4 if last >= 0 else 0
        end = line + 2 + size + 2
    return 0


def ok(_: bytes) -> bytes:
    """Answer with a word."""
    return b"Content-Length: 2\r\n\r\nok"


def described(request: bytes) -> bytes:
    """Answer with the request, whose content, if any, has a Content-Length, as the parsers do."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    method, target, _ = line.split(" ")
    shown = {
        "method": method,
        "target": target,
        "headers": [field.split(": ", 1) for field in fields],
        "body": body.decode("latin-1"),
        "trailers": None,
    }
    return b"Parsed: %b\r\nContent-Length: 0\r\n\r\n" % base64.b64encode(json.dumps(shown).encode())


class Recorded:
    """One connection: all its bytes, the whole requests among them, and whether the other side has left."""

    def __init__(self) -> None:
        self.data = b""
        self.requests: list[bytes] = []
        self.closed = False
        self.answered = 0

    @property
    def left_over(self) -> bytes:
        """What came after the last whole request."""
        return self.data[self.answered :]


class Recorder:
    """Answers each whole request with 200. One thread reads everything that has come before it answers anything: when
    an answer is there, all that was sent before its request has been recorded.
    """

    def __init__(self, answer: Callable[[bytes], bytes] = ok) -> None:
        self.connections: list[Recorded] = []
        self._answer_to = answer
        self._sockets: dict[socket.socket, Recorded] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._waker, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._error: BaseException | None = None

    @property
    def requests(self) -> list[bytes]:
        """Every whole request, by connection."""
        return [request for connection in self.connections for request in connection.requests]

    def mark(self) -> list[int]:
        """Return where each connection stands."""
        return [len(connection.data) for connection in self.connections]

    def since(self, mark: list[int]) -> list[bytes]:
        """Return what has come since `mark`, by connection, without those that had nothing."""
        starts = mark + [0] * (len(self.connections) - len(mark))
        pieces = [connection.data[start:] for connection, start in zip(self.connections, starts, strict=True)]
        return [piece for piece in pieces if piece]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.close()
        self._thread.join(DEADLINE)
        self._waker.close()
        self._listener.close()
        if self._error is not None:
            raise self._error

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._waker, selectors.EVENT_READ)
            try:
                while self._waker not in {key.fileobj for key, _ in selector.select()}:
                    self._accept(selector)
                    for connected in tuple(self._sockets):
                        self._read(connected, selector)
                    for connected, recorded in self._sockets.items():
                        self._answer(connected, recorded)
            except BaseException as error:
                self._error = error
                raise
            finally:
                for connected in self._sockets:
                    connected.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except BlockingIOError:
                return
            connected.setblocking(False)
            selector.register(connected, selectors.EVENT_READ)
            self._sockets[connected] = Recorded()
            self.connections.append(self._sockets[connected])

    def _read(self, connected: socket.socket, selector: selectors.BaseSelector) -> None:
        recorded = self._sockets[connected]
        try:
            while data := connected.recv(1 << 20):
                recorded.data += data
        except BlockingIOError:
            return
        except ConnectionError:
            pass
        recorded.closed = True
        selector.unregister(connected)
        connected.close()
        del self._sockets[connected]

    def _answer(self, connected: socket.socket, recorded: Recorded) -> None:
        while size := whole_request(recorded.left_over):
            request = recorded.left_over[:size]
            recorded.answered += size
            recorded.requests.append(request)
            rest = self._answer_to(request)
            if request.startswith(b"HEAD "):
                rest = rest.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            connected.setblocking(True)
            try:
                connected.sendall(b"HTTP/1.1 200 OK\r\n" + rest)
            except ConnectionError:
                return
            finally:
                connected.setblocking(False)
