"""What the page on troubles prints is what is printed: its commands are run, against gateways of its files."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.test_docs import FENCE
from tests.harness.gateway import DEADLINE, ROOT, Gateway, reserved_port, wait_for

PAGE = ROOT / "docs" / "operations" / "troubleshooting.md"
GATEWAY_PORT = "8000"
SILENT_PORT = "9003"


class Step(NamedTuple):
    """A command of the page, and what it says that is printed."""

    command: str
    expected: str


class Scene(NamedTuple):
    """A file of the page, and the commands that follow it."""

    config: str
    steps: list[Step]


def steps_of(block: str) -> Iterator[Step]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield Step(command, expected)


def scenes() -> list[Scene]:
    found: list[Scene] = []
    for block in FENCE.finditer(PAGE.read_text("utf-8")):
        if block[1] == "yaml":
            found.append(Scene(block[2], []))
        elif block[2].startswith("$ "):
            found[-1].steps.extend(steps_of(block[2]))
    return found


def squeezed(text: str) -> str:
    """Return a text with single spaces, as columns are as wide as what is in them."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def is_printed(expected: str, printed: str) -> bool:
    """Return whether `printed` is what is expected: `...` is anything, and on a line of its own any lines."""
    lines = squeezed(expected).splitlines()
    patterns = ("(.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n" for line in lines)
    return re.fullmatch("".join(patterns), squeezed(printed) + "\n" * bool(printed)) is not None


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a  b\n", "a b", True),
        ("a ... c\n", "a b c", True),
        ("a ... c\n", "a\nc", False),
        ("a\n...\nd\n", "a\nb\nc\nd", True),
        ("...\nd\n", "a\nb\nd", True),
        ("a\n...\n", "a\nb\nc", True),
        ("a\n...\n", "a", True),
        ("a\n", "a\nb", False),
        ("a\n", "b\na", False),
        ("a.b\n", "axb", False),
    ],
)
def test_what_is_compared_can_differ(expected: str, printed: str, same: bool) -> None:
    assert is_printed(expected, printed) is same


def run(step: Step, folder: Path) -> str:
    """Run a command in a folder, with what the command line of this Python is."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = re.sub(r"(^|[ |])portico (?=[a-z])", rf"\1{sys.executable} -m portico ", step.command)
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
    )
    return done.stdout.replace("\r\n", "\n").replace(f"{folder}/portico.yaml", "portico.yaml")


SCENES = scenes()


@pytest.mark.parametrize("scene", SCENES, ids=["services", "store"])
def test_what_the_page_says_is_what_is_printed(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / "run"))
    assert scene.steps
    with ExitStack() as stack:
        ports = {}
        for port in sorted(set(re.findall(r"127\.0\.0\.1:(9\d+)", scene.config))):
            holder, there = reserved_port()
            stack.enter_context(holder)
            ports[port] = str(there)
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        if SILENT_PORT in ports:
            ports[SILENT_PORT] = str(silent.getsockname()[1])
        head, _, config = scene.config.partition("workers: 1\n")
        assert head == f"listen: 127.0.0.1:{GATEWAY_PORT}\n"
        with Gateway(tmp_path, moved(config, ports)) as gateway:
            gateway.agent_answers()
            ports[GATEWAY_PORT] = str(gateway.port)
            # It has to be at the same address after a reload.
            gateway.file.write_text(gateway.file.read_text().replace(":0\n", f":{gateway.port}\n", 1))
            if "carts:" in config:
                wait_for(lambda: "service carts" in gateway.log(), "a look at the carts")
            back = {there: port for port, there in ports.items()}
            for command, expected in scene.steps:
                printed = moved(run(Step(moved(command, ports), ""), tmp_path), back)
                assert is_printed(expected, printed), f"{command}\n{printed}"


def moved(text: str, ports: dict[str, str]) -> str:
    """Return a text with other ports of this machine."""
    return re.sub(r"\b127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{ports.get(found[1], found[1])}", text)


def test_what_the_log_says_of_a_worker_that_stands_still(tmp_path: Path) -> None:
    (block,) = (each[2] for each in FENCE.finditer(PAGE.read_text("utf-8")) if each[2].startswith("worker 0 (pid"))
    with Gateway(tmp_path, "watchdog: 3s\nroutes: []\n") as gateway:
        (worker,) = gateway.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        for line in block.replace("19218", str(worker)).replace("15 s", "3 s").splitlines():
            wait_for(lambda line=line: line in gateway.log(), line)  # type: ignore[misc]
