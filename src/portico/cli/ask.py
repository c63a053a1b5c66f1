"""Asking a gateway that runs, over the Unix socket of its agent."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from portico.agent.control_socket import folder, sockets_of
from portico.errors import ConfigError, PorticoError

TIMEOUT = 300.0
"""Seconds that a reload may take, by far."""


_OF_THE_ASKED = (400, 409, 413, 503, 504)
"""Where it was understood, and cannot be done: the answer says why."""


class NoGateway(PorticoError):
    """There is nobody to ask, or more than one; the message says so, and what to do."""


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def find(file: Path | None, pid: int | None) -> Path:
    """Return the socket of the gateway that runs `file`, or of the only one. Raises NoGateway."""
    try:
        found = sockets_of(None if file is None else str(file))
        where = folder()
    except ConfigError as error:
        raise NoGateway(str(error)) from error
    if pid is not None:
        found = [path for path in found if path.stem.endswith(f"-{pid}")]
    if not found:
        what = "no gateway runs" if file is None else f"no gateway runs {file}"
        raise NoGateway(f"{what}, or not as this user: there is no socket of it that answers in {where}")
    if len(found) > 1:
        pids = ", ".join(path.stem.rpartition("-")[2] for path in found)
        raise NoGateway(f"several gateways run, with the process ids {pids}: choose one with --pid")
    return found[0]


def listen(path: Path, target: str) -> Iterator[bytes]:
    """Yield the lines of an answer as they come; some have no end. Raises NoGateway."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        if response.status != 200:
            raise NoGateway(json.loads(response.read()).get("error", f"the gateway's agent answers {response.status}"))
        while line := response.readline():
            yield line
    except (OSError, HTTPException, ValueError) as error:
        raise NoGateway(f"the gateway's agent does not answer at {path}: {error}") from error
    finally:
        connection.close()


def ask_for_text(path: Path, target: str) -> str:
    """Return what the agent answers as text. Raises NoGateway."""
    return b"".join(listen(path, target)).decode()


def ask(path: Path, method: str, target: str, content: object = None) -> Any:
    """Return what the agent answers, to `content` as JSON where there is any. Raises NoGateway."""
    body = None if content is None else json.dumps(content)
    connection = _UnixConnection(path)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, HTTPException, ValueError) as error:
        raise NoGateway(f"the gateway's agent does not answer at {path}: {error}; try again in a moment") from error
    finally:
        connection.close()
    if response.status in _OF_THE_ASKED and "error" in answer:
        raise NoGateway(answer["error"])
    if response.status != 200:
        raise NoGateway(f"the gateway's agent refuses: {answer.get('error', response.status)}")
    return answer
