"""How others read the bytes that the gateway has forwarded: h11, aiohttp's two parsers, Node and nginx.

All but h11 are servers that get the bytes from a socket and answer each request with what they read of it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import h11

from tests.e2e.parsers.recorder import Recorder, described
from tests.harness.gateway import DEADLINE, wait_for
from tests.harness.tools import program

HERE = Path(__file__).parent
MARKER = b"GET /the-end HTTP/1.1\r\nHost: the.end\r\nConnection: close\r\n\r\n"
"""Follows what was forwarded. A parser that is out of step does not see this request, or not as it stands."""

_PARSED = re.compile(rb"\r\nparsed: ([^\r]*)\r\n", re.IGNORECASE)

Fields = list[tuple[str, str]]


class Read(NamedTuple):
    """A request as a parser read it; names are in lower case, and `trailers` is None where it does not tell."""

    method: str
    target: str
    headers: Fields
    body: bytes
    trailers: Fields | None


Parser = Callable[[bytes], list[Read]]


class Unread(AssertionError):
    """A parser has refused what was forwarded, or has lost its end."""


def with_h11(data: bytes) -> list[Read]:
    """Read `data` to its end, or to what is incomplete; raise h11.RemoteProtocolError where it is malformed."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    found: list[Read] = []
    head, pieces = None, []
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            head, pieces = event, []
        elif isinstance(event, h11.Data):
            pieces.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            found.append(
                Read(
                    head.method.decode("ascii"),
                    head.target.decode("latin-1"),
                    _lowered(head.headers),
                    b"".join(pieces),
                    _lowered(event.headers),
                )
            )
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return found
            connection.start_next_cycle()
        else:
            return found


def _lowered(fields: h11.Headers | list[tuple[bytes, bytes]]) -> Fields:
    return [(name.decode("ascii").lower(), value.decode("latin-1")) for name, value in fields]


class Server:
    """A parser at the other end of a socket."""

    def __init__(self, family: int, address: str | tuple[str, int]) -> None:
        self._family, self._address = family, address

    def __call__(self, data: bytes) -> list[Read]:
        """Have `data` read, which ends with MARKER; raise Unread where an answer is not there or not good."""
        with self.connect() as connection:
            connection.sendall(data)
            try:
                return self._answers(connection)
            except TimeoutError:
                raise Unread("it waits for more") from None

    def whole_requests(self, data: bytes) -> list[Read]:
        """Have `data` read, behind which the connection ends, and return what passed for whole requests."""
        with self.connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            with suppress(Unread, ConnectionError):
                return self._answers(connection)
        return []

    def connect(self) -> socket.socket:
        connection = socket.socket(self._family)
        try:
            connection.settimeout(DEADLINE / 3)
            connection.connect(self._address)
        except BaseException:
            connection.close()
            raise
        return connection

    def is_up(self) -> bool:
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def _answers(self, connection: socket.socket) -> list[Read]:
        found = []
        data = b""
        while piece := connection.recv(1 << 20):
            data += piece
            while (end := data.find(b"\r\n\r\n")) >= 0:
                head, data = data[: end + 2], data[end + 4 :]
                parsed = _PARSED.search(head)
                if not head.startswith(b"HTTP/1.1 200 ") or parsed is None:
                    raise Unread((head + data).decode("latin-1"))
                found.append(_read(json.loads(base64.b64decode(parsed[1]))))
        if data:
            raise Unread(data)
        return found


def _read(shown: dict[str, str | Fields | None]) -> Read:
    method, target, headers, body, trailers = (shown[name] for name in Read._fields)

    def fields(pairs: str | Fields | None) -> Fields:
        return [(name.lower(), value) for name, value in pairs or ()]

    assert isinstance(method, str)
    assert isinstance(target, str)
    assert isinstance(body, str)
    read_trailers = None if trailers is None else fields(trailers)
    return Read(method, target, fields(headers), body.encode("latin-1"), read_trailers)


@contextmanager
def _running(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | environment, start_new_session=True
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(DEADLINE)


@contextmanager
def _announced(*command: str, **environment: str) -> Iterator[Server]:
    """Run a server that prints its port."""
    with _running(*command, **environment) as process:
        assert process.stdout is not None
        yield Server(socket.AF_INET, ("127.0.0.1", int(process.stdout.readline())))


@contextmanager
def _nginx(folder: Path) -> Iterator[Server]:
    with Recorder(described) as service:
        template = string.Template((HERE / "nginx.conf").read_text())
        config = folder / "nginx.conf"
        config.write_text(template.substitute(folder=folder, service=service.port))
        with _running(program("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(config)) as process:
            server = Server(socket.AF_UNIX, str(folder / "nginx.sock"))
            wait_for(lambda: process.poll() is not None or server.is_up(), "nginx to listen")
            yield server


@contextmanager
def parsers(folder: Path) -> Iterator[dict[str, Server]]:
    """Run all servers for as long as the block lasts; skip the test where a program is not there."""
    aiohttp = (sys.executable, str(HERE / "parse_aiohttp.py"))
    with ExitStack() as stack:
        yield {
            "aiohttp": stack.enter_context(_announced(*aiohttp)),
            "aiohttp in Python": stack.enter_context(_announced(*aiohttp, AIOHTTP_NO_EXTENSIONS="1")),
            "Node": stack.enter_context(_announced(program("node"), str(HERE / "parse.js"))),
            "nginx": stack.enter_context(_nginx(folder)),
        }
