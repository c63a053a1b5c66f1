"""HTTP/1.1 for the services, on the standard library's server: keep-alive, bounded bodies, JSON, an orderly end."""

from __future__ import annotations

import json
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from peer import Refusal

MAX_BODY = 4 * 1024 * 1024
MAX_DISCARD = 16 * 1024 * 1024
MAX_LINE = 4096
IDLE_TIMEOUT = 75.0


@dataclass(frozen=True)
class Answer:
    """A status and a JSON document; or the pieces of a stream, whose Content-Type is among the headers."""

    status: int = 200
    document: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterator[bytes] | None = None


Application = Callable[[str, str, Message, bytes], Answer]
"""Method, target, headers and body in; an Answer out, or a Refusal raised."""


class Server(ThreadingHTTPServer):
    """A thread for each connection; closing the server waits for them all."""

    daemon_threads = False
    request_queue_size = 256
    allow_reuse_port = False  # a port in use must be an error

    def __init__(self, address: tuple[str, int], application: Application, headers: Mapping[str, str]) -> None:
        self.application = application
        self.headers = headers
        self.ending = False
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection until it ends."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def end(self) -> None:
        """Accept and read nothing more; answers under way are still sent."""
        self.ending = True
        self.shutdown()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # the client left first
                    connection.shutdown(socket.SHUT_RD)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what broke a connection, unless it is only that the client left."""
        if not isinstance(sys.exc_info()[1], OSError):
            traceback.print_exc()


class _Connection(BaseHTTPRequestHandler):
    """One client connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # also an unreadable request is answered with a head
    timeout = IDLE_TIMEOUT
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one write

    def _serve(self) -> None:
        try:
            body = self._body()
        except Refusal as refusal:
            self.close_connection = True  # where the next request begins is unknown
            self._send(Answer(refusal.status, refusal.document))
            self._discard()
            return
        try:
            answer = self.server.application(self.command, self.path, self.headers, body)
        except Refusal as refusal:
            answer = Answer(refusal.status, refusal.document, refusal.headers)
        except Exception:  # noqa: BLE001 - a bug in one route must not end the service
            traceback.print_exc()
            answer = Answer(500, {"error": "internal-error", "detail": "this service has a bug"})
        self._send(answer)

    # The names that the base class looks for:
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815

    def _send(self, answer: Answer) -> None:
        self.close_connection = self.close_connection or self.server.ending
        chunked = answer.stream is not None and self.request_version != "HTTP/1.0"
        content = b"" if answer.document is None else json.dumps(answer.document).encode() + b"\n"
        headers = {"Content-Type": "application/json"} if content else {}
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif answer.stream is not None:
            self.close_connection = True
        elif answer.status != HTTPStatus.NO_CONTENT:
            headers["Content-Length"] = str(len(content))
        if self.close_connection:
            headers["Connection"] = "close"
        self.send_response(answer.status)
        for name, value in {**headers, **self.server.headers, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
            for piece in answer.stream or ():
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                self.wfile.flush()
            if chunked:
                self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _body(self) -> bytes:
        codings = self.headers.get_all("Transfer-Encoding", [])
        lengths = self.headers.get_all("Content-Length", [])
        if [coding.lower() for coding in codings] == ["chunked"] and not lengths:
            return b"".join(self._chunks())
        if codings or len(lengths) > 1 or not all(text.isascii() and text.isdigit() for text in lengths):
            raise Refusal(400, "bad-framing", "the length of the body is not clear")
        return self._exactly(int(lengths[0]) if lengths else 0)

    def _discard(self) -> None:
        """Read some of what is still coming: closing on it would be a reset, which can destroy the answer."""
        left = MAX_DISCARD
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1.0)
            while left > 0 and (piece := self.connection.recv(65536)):
                left -= len(piece)

    def _chunks(self) -> Iterator[bytes]:
        left = MAX_BODY
        while size := self._chunk_size():
            yield self._exactly(size, left)
            left -= size
            if self.rfile.readline(MAX_LINE) != b"\r\n":
                raise Refusal(400, "bad-framing", "a chunk does not end where it said")
        while self.rfile.readline(MAX_LINE) not in (b"\r\n", b"\n", b""):
            pass  # trailers

    def _chunk_size(self) -> int:
        digits = self.rfile.readline(MAX_LINE).partition(b";")[0].strip()
        if not digits.isalnum():
            raise Refusal(400, "bad-framing", "a chunk has no size")
        try:
            return int(digits, 16)
        except ValueError as error:
            raise Refusal(400, "bad-framing", "a chunk has no size") from error

    def _exactly(self, size: int, limit: int = MAX_BODY) -> bytes:
        if size > limit:
            raise Refusal(413, "too-large", f"a body may have {MAX_BODY} bytes")
        data = self.rfile.read(size)
        if len(data) < size:
            raise Refusal(400, "bad-framing", "the body ended too early")
        return data

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer in JSON where the base class, which could not read the request, would answer in HTML."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._send(Answer(code, {"error": status.name.lower().replace("_", "-"), "detail": message or status.phrase}))

    def version_string(self) -> str:
        """Return what the Server header says."""
        return "demo-service"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Write no log: the gateway has one."""
