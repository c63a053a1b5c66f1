"""One worker by itself: the test has the parts of the supervisor and of the agent."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from portico.net.channel import Codec, Reader, close_all, send_now
from portico.runtime.loading import load
from portico.runtime.protocol import KINDS, Commit, Committed, Meet, Prepare, Prepared, Report, Reported
from portico.runtime.snapshot import pack
from portico.state.board import Board, Segment, Vital, shared_file
from tests.harness.gateway import DEADLINE, wait_for

CODEC = Codec(KINDS)


def snapshot_of(folder: Path, text: str) -> bytes:
    """Return what a worker is given of a configuration."""
    file = folder / "portico.yaml"
    file.write_text(text)
    loaded = load(file)
    assert loaded.config is not None, loaded.findings
    return pack(loaded.config, loaded.plugins)


class Talk:
    """A blocking end of a channel."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._reader = Reader(CODEC)
        self._heard: list[Any] = []
        sock.settimeout(DEADLINE)

    def say(self, message: Any, *descriptors: int) -> None:
        data = CODEC.encode(message, len(descriptors))
        assert send_now(self.sock, data, descriptors) == len(data)

    def hear(self) -> Any:
        while not self._heard:
            received = self._reader.read(self.sock)
            assert received is not None, "the other side has closed"
            for message, descriptors in received:
                close_all(descriptors)
                self._heard.append(message)
        return self._heard.pop(0)

    def close(self) -> None:
        self._reader.close()
        self.sock.close()


class Worker:
    """A worker process with one door."""

    def __init__(self, folder: Path, snapshot: bytes) -> None:
        self.log_file = folder / "worker.log"
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.socket.getsockname()[1]
        board = Board.create(1)
        self.board = Board(board)
        self.segment: Segment = self.board.segment(1)
        self.revision = 1
        self.expected_traces = 0
        self._lifeline, lifeline = os.pipe()
        ready, ready_writer = os.pipe()
        ours, its = socket.socketpair()
        packed = shared_file("snapshot", snapshot)
        passed = (self.socket.fileno(), packed, board, its.fileno(), ready_writer, self._lifeline)
        with self.log_file.open("wb") as log:
            self.popen = subprocess.Popen(
                [
                    *(sys.executable, "-m", "portico.runtime.worker", "--slot=0", f"--doors=1:{passed[0]}"),
                    *(f"--snapshot={packed}", "--revision=1", f"--board={board}", f"--control={its.fileno()}"),
                    *(f"--ready={ready_writer}", f"--lifeline={self._lifeline}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=passed,
                cwd=folder,
            )
        close_all((packed, board, ready_writer))
        its.close()
        self._lifeline_writer = lifeline
        assert os.read(ready, 1) == b"\n", self.log()
        os.close(ready)
        self.supervisor = Talk(ours)
        self.agent = self.meet()

    def meet(self) -> Talk:
        """Introduce a new agent."""
        one, other = socket.socketpair()
        with one:
            self.supervisor.say(Meet(), one.fileno())
        return Talk(other)

    def prepare(self, snapshot: bytes) -> Any:
        """Have a snapshot compiled, and return what the worker says to it."""
        self.revision += 1
        packed = shared_file("snapshot", snapshot)
        try:
            self.agent.say(Prepare(self.revision, [1], []), packed)
        finally:
            os.close(packed)
        return self.agent.hear()

    def swap(self, snapshot: bytes) -> None:
        """Have a snapshot served."""
        answer = self.prepare(snapshot)
        assert isinstance(answer, Prepared), answer
        self.agent.say(Commit(self.revision))
        assert self.agent.hear() == Committed(self.revision)

    def report(self) -> dict[str, Any]:
        self.agent.say(Report(7))
        answer = self.agent.hear()
        assert isinstance(answer, Reported)
        return answer.state

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.terminate()
        try:
            code = self.popen.wait(DEADLINE)
        finally:
            self.popen.kill()
            self.popen.wait(DEADLINE)
            self.agent.close()
            self.supervisor.close()
            self.socket.close()
            self.board.close()
            for each in (self._lifeline, self._lifeline_writer):
                os.close(each)
        assert code == 0, self.log()
        assert self.log().count("Traceback") == self.expected_traces, self.log()

    def settled(self) -> None:
        """Wait until nothing of earlier configurations is left."""
        wait_for(lambda: self.segment[Vital.RETIRED] == 0, "earlier configurations to be closed")


def descriptors_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def get(port: int, path: str) -> bytes:
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        return client.makefile("rb").read().partition(b"\r\n\r\n")[2]
