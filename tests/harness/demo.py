"""`portico demo` as a real process."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from portico.cli.platform_demo import INSTANCES

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0
OFFSETS = [0, *(instance.offset for instance in INSTANCES)]
"""The gateway has the port at which the services' are counted from."""

STARTER = """
import sys
from portico.cli.platform_demo import run_demo
port, services_from, *command = sys.argv[1:]
more = {"gateway": lambda config: command} if command else {}
sys.exit(run_demo(port=int(port), services_from=int(services_from), **more))
"""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_base() -> int:
    """Return a port with free ones at itself and at all offsets of the services."""
    first = 20_000 + os.getpid() % 400 * 20
    return next(base for base in range(first, 32_000, 20) if all(is_free(base + offset) for offset in OFFSETS))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        select.select([], [], [], 0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def command(port: int, services_from: int, *gateway: str) -> list[str]:
    return [sys.executable, "-X", "dev", "-c", STARTER, str(port), str(services_from), *gateway]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **more}


class Demo:
    """The command in a process of its own, with a stand-in for the gateway unless another command is given."""

    def __init__(self, folder: Path, gateway: Sequence[str] | None = None) -> None:
        self.base = free_base()
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        (folder / "livez").touch()
        # A shell that dies by SIGTERM and leaves a worker behind, which the demo must not.
        stand_in = f"'{sys.executable}' -m http.server --bind 127.0.0.1 -d '{folder}' {self.base} 2>/dev/null & wait"
        self.command = command(self.base, self.base, *(("sh", "-c", stand_in) if gateway is None else gateway))
        self.popen = subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(TMPDIR=str(self.temporary)),
            bufsize=0,
        )
        self.printed = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.terminate()
        self.popen.communicate(timeout=DEADLINE)

    def read_until(self, text: str) -> None:
        assert self.popen.stdout is not None
        while text not in self.printed:
            ready, _, _ = select.select([self.popen.stdout], [], [], DEADLINE)
            piece = os.read(self.popen.stdout.fileno(), 65536) if ready else b""
            assert piece, f"no {text!r} after {self.printed!r}"
            self.printed += piece.decode()

    @property
    def pids(self) -> dict[str, int]:
        found = re.findall(r"^(\S.*?) +http://\S+  pid (\d+)", self.printed, re.MULTILINE)
        return {name: int(pid) for name, pid in found}

    def finish(self) -> tuple[int, str]:
        """Wait for the end, after which nothing may be left."""
        output, errors = self.popen.communicate(timeout=DEADLINE)
        self.printed += output.decode()
        assert not [name for name, pid in self.pids.items() if is_alive(pid)]
        wait_until(lambda: is_free(self.base))
        assert list(self.temporary.iterdir()) == []
        assert "Traceback" not in errors.decode()
        assert "Warning" not in errors.decode()
        return self.popen.returncode, errors.decode()
