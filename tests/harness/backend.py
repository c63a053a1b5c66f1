"""An instance of a service as a process of its own, to be killed, paused and started again.

It answers every request with its name, and writes method, path and `X-Id` of each into a file before it answers. The
status of its answers may be chosen, and changed, while it runs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness.gateway import DEADLINE, ROOT, wait_for


class Backend:
    """One instance; it keeps its port when it is started again."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.log = folder / f"{name}.requests"
        self.log.touch()
        self._status = folder / f"{name}.status"
        self.answer(200)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self.kill()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.harness.backend", self.name, str(self.port)]
        command += [str(self.log), str(self._status)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
        wait_for(self._answers, f"{self.name} to listen")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(DEADLINE)
        self._process = None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def answer(self, status: int) -> None:
        """Answer with `status` from now on; with 0 nothing is answered before another one is chosen."""
        new = self._status.with_suffix(".new")
        new.write_text(str(status))
        new.replace(self._status)

    def requests(self) -> Counter[str]:
        """Return how often each `X-Id` has come."""
        return Counter(line.split()[2] for line in self.log.read_text().splitlines())

    def paths(self) -> Counter[str]:
        """Return how often each method and path has come."""
        return Counter(line.rpartition(" ")[0] for line in self.log.read_text().splitlines())

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            return True
        return False


async def _serve(name: str, port: int, log: Path, status: Path) -> None:
    answer = b"HTTP/1.1 %d It\r\nContent-Length: %d\r\n\r\n%s"

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head.split("\r\n")}
                await reader.readexactly(int(fields.get("content-length", "0")))
                method, path, _ = head.split("\r\n")[0].split(" ")
                out.write(f"{method} {path} {fields.get('x-id', '-')}\n")
                while (chosen := int(status.read_text())) == 0:
                    await asyncio.sleep(0.01)
                writer.write(answer % (chosen, len(name), name.encode()))
                await writer.drain()
        writer.close()

    with log.open("a", buffering=1) as out:
        server = await asyncio.start_server(client, "127.0.0.1", port, backlog=1024)
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])))
