"""A gateway as a real process, services that record what reaches them, and short ways to wait."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from typer.testing import CliRunner

from portico.agent.control_socket import sockets_of
from portico.cli.commands import app

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0
PORTICO = (sys.executable, "-m", "portico")


def wait_for(condition: Callable[[], T], what: str = "a condition") -> T:
    """Return the first true value of `condition`."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        select.select([], [], [], 0.01)
    return value


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_of(pid: int) -> str:
    """Return what a process calls itself; "" where there is none."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def is_process(pid: int, what: str) -> bool:
    """Return whether a process is a gateway's `worker`, or its `agent`.

    One that was just forked still has its parent's title, with the path of a test's folder in it.
    """
    return re.search(rf"portico: {what}|-m portico\.(runtime\.)?{what}", command_of(pid)) is not None


def memory_of(pid: int, field: str) -> int:
    """Return `VmRSS` or `VmHWM` of a process, in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def reserved_port() -> tuple[socket.socket, int]:
    """Return a port on which every connection is refused while the socket is open."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    return holder, holder.getsockname()[1]


@contextmanager
def refusing_port() -> Iterator[int]:
    holder, port = reserved_port()
    with holder:
        yield port


class Done(NamedTuple):
    code: int
    out: str
    err: str


def portico(*arguments: object, cwd: Path | None = None, **environment: str) -> Done:
    """Run one command to its end."""
    done = subprocess.run(
        [*PORTICO, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def portico_here(*arguments: str) -> Done:
    """Run one command in this process, which is quicker, and enough where it starts nothing."""
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, Exception):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


class Gateway:
    """`portico run` on a port that the kernel chose; leaving ends it with SIGTERM and looks at how it ended.

    `config` is YAML without `listen` and `workers`. Where `listen` is a list, the first must be of plain HTTP on
    127.0.0.1; `ports` has all of them in the order of the file.
    """

    def __init__(
        self, folder: Path, config: str, *, workers: int = 1, listen: str = "127.0.0.1:0", stderr: int | None = None
    ) -> None:
        """Where `stderr` is given, somebody else copies what comes to it to `gateway.log` in the folder."""
        self.folder = folder
        self.file = folder / "portico.yaml"
        self.file.write_text(f"listen: {listen}\nworkers: {workers}\n{config}")
        self.workers = workers
        self.listen = listen
        self._log = folder / "gateway.log"
        self.expected_traces = 0
        """How many tracebacks the log may have."""
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [*PORTICO, "run", str(self.file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log if stderr is None else stderr,
                cwd=folder,
                start_new_session=True,
            )
        self.port = 0
        self.ports: list[int] = []
        try:
            self.ports = wait_for(self._bound, "the gateway to listen")
            self.port = self.ports[0]
            wait_for(self._live, "/livez")
        except BaseException:
            self.kill()
            raise

    def _bound(self) -> list[int]:
        assert self.popen.poll() is None, self.log()
        found = re.search(r"listening on (http://127\.0\.0\.1:.*) with \d+ worker", self.log())
        return [int(url.rpartition(":")[2]) for url in found[1].split(", ")] if found else []

    def _live(self) -> bool:
        assert self.popen.poll() is None, self.log()
        with suppress(OSError), self.connect() as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)

    def worker_pids(self) -> list[int]:
        return [pid for pid in children_of(self.popen.pid) if is_process(pid, "worker")]

    def agent_pid(self) -> int:
        """Return the agent's process id, once it is there."""
        return wait_for(self._agent, "the agent")[0]

    def agent_answers(self) -> None:
        """Wait until the agent can be asked."""
        wait_for(lambda: sockets_of(str(self.file)), "the agent to answer")

    def _agent(self) -> list[int]:
        return [pid for pid in children_of(self.popen.pid) if is_process(pid, "agent")]

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def terminate(self) -> None:
        """End it as a service manager does; it must end well, and say nothing that worries."""
        workers = self.worker_pids() if self.popen.poll() is None else []
        if self.popen.poll() is None:
            self.popen.terminate()
        self.finish(workers)

    def finish(self, workers: list[int]) -> None:
        try:
            code = self.popen.wait(DEADLINE)
        finally:
            self.kill()
        log = self.log()
        assert code == 0, log
        assert log.count("Traceback") == self.expected_traces, log
        assert not [pid for pid in workers if is_alive(pid)]

    def kill(self) -> None:
        """End whatever is left of it, by force."""
        with suppress(FileNotFoundError, ProcessLookupError):
            children = children_of(self.popen.pid)
            self.popen.kill()
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.popen.wait(DEADLINE)


class Seen(NamedTuple):
    """A request as a service got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[str]
    connection: int

    def values(self, name: str) -> list[str]:
        return [value for field, value in self.headers if field.lower() == name.lower()]

    @property
    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}


class Call(BaseHTTPRequestHandler):
    """One request that a service has to answer; `connection` is the socket, for answers of any shape."""

    protocol_version = "HTTP/1.1"
    wbufsize = 0
    server: _Server
    trailers: list[str]
    connections = 0

    def setup(self) -> None:
        super().setup()
        self.number = self.server.service.connected()

    def read_body(self) -> Iterator[bytes]:
        """Yield the pieces of the request's body as they come."""
        self.trailers = []
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := self._chunk_size():
                piece = self.rfile.read(size)
                if len(piece) < size:
                    raise ConnectionAbortedError("the body breaks off")
                yield piece
                self.rfile.readline()
            while (line := self.rfile.readline().strip()) != b"":
                self.trailers.append(line.decode())
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            data = self.rfile.read1(min(left, 65536))  # type: ignore[attr-defined]
            if not data:
                raise ConnectionAbortedError("the body breaks off")
            left -= len(data)
            yield data

    def _chunk_size(self) -> int:
        line = self.rfile.readline()
        if not line:
            raise ConnectionAbortedError("the body breaks off")
        return int(line.split(b";")[0], 16)

    def note(self, body: bytes = b"") -> Seen:
        """Record the request."""
        seen = Seen(
            self.command, self.path, list(self.headers.items()), body, getattr(self, "trailers", []), self.number
        )
        self.server.service.seen.append(seen)
        return seen

    def answer(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """Send an answer with a Content-Length."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def dispatch(self) -> None:
        self.server.service.answer(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_PURGE = dispatch  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    service: Service

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            self.service.errors.append(error)


def echo(call: Call) -> None:
    """Answer with the request, as JSON."""
    seen = call.note(b"".join(call.read_body()))
    shown = {"method": seen.method, "target": seen.target, "headers": seen.headers, "body": seen.body.decode("latin-1")}
    call.answer(200, json.dumps(shown).encode(), Content_Type="application/json", X_Service=call.server.service.name)


class Service:
    """A real HTTP server in threads; `answer` answers each request, and `seen` has them all."""

    def __init__(self, answer: Callable[[Call], None] = echo, name: str = "service", port: int = 0) -> None:
        self.answer = answer
        self.name = name
        self.seen: list[Seen] = []
        self.errors: list[BaseException | None] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), Call)
        self._server.service = self
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def connected(self) -> int:
        with self._lock:
            self.connections += 1
            return self.connections

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE)
        assert not self.errors


class Answer(NamedTuple):
    """What curl has printed."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for field, value in self.headers if field.lower() == name.lower()]

    def value(self, name: str) -> str:
        (value,) = self.values(name)
        return value

    @property
    def json(self) -> Any:
        return json.loads(self.body)


BROKEN_OFF = (18, 56)
"""How curl ends where an answer is not whole: by FIN or by RST."""


def curl(*arguments: str, stdin: bytes | None = None, codes: tuple[int, ...] = (0,)) -> Answer:
    """Run curl, which must end with one of `codes`, and return the last answer that it got."""
    command = ["curl", "-q", "-sS", "-i", "--max-time", str(int(DEADLINE)), "--noproxy", "*", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=DEADLINE + 5)
    assert done.returncode in codes, (done.returncode, done.stderr, done.stdout[:2000])
    status, headers, rest = 0, [], done.stdout
    while rest.startswith(b"HTTP/1.") and (status < 200 or ("-L" in arguments and status < 400)):
        head, _, rest = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    return Answer(status, headers, rest)


def problem_of(answer: Answer, status: int, kind: str) -> dict[str, Any]:
    """Return the problem of an answer that must be one: RFC 9457's shape, and nothing of the inside."""
    assert answer.status == status
    assert answer.value("Content-Type") == "application/problem+json"
    problem: dict[str, Any] = answer.json
    assert problem["type"] == f"urn:portico:problem:{kind}"
    assert problem["status"] == status
    assert isinstance(problem["title"], str)
    assert problem["title"]
    assert set(problem) <= {"type", "title", "status", "detail", "instance"}
    for inside in ("127.0.0.1", "Traceback", "Errno", "errno", ".py", "portico.yaml", "Error("):
        assert inside not in answer.body.decode()
    return problem
