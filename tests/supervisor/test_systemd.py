"""The protocols between a service manager and the gateway: sockets that it has bound, and what it is told."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from portico.supervisor.systemd import Notifier, activated
from tests.harness.gateway import DEADLINE, PORTICO, children_of, curl, is_alive, is_process, wait_for

PID = str(os.getpid())


# Sockets


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LISTEN_PID": PID, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, range(3, 5)),
        ({"LISTEN_PID": PID, "LISTEN_FDS": "0"}, range(0)),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, range(0)),
        ({"LISTEN_FDS": "2"}, range(0)),
        ({"LISTEN_PID": PID}, range(0)),
        ({"LISTEN_PID": PID, "LISTEN_FDS": "-1"}, range(0)),
        ({"LISTEN_PID": PID, "LISTEN_FDS": "many"}, range(0)),
        ({"LISTEN_PID": PID, "LISTEN_FDS": ""}, range(0)),
        ({}, range(0)),
    ],
)
def test_sockets_are_taken_where_they_are_for_this_process(environment: dict[str, str], expected: range) -> None:
    environment["PATH"] = "/bin"
    found = activated(environment)
    assert list(found) == list(expected)
    assert environment == {"PATH": "/bin"}  # no child is to take them for its own
    assert list(activated(environment)) == []


# What it is told


class Manager:
    """The service manager's end of the conversation."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.settimeout(DEADLINE)
        self._sock.bind("\0" + address[1:] if address.startswith("@") else address)

    def hear(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._sock.recv(4096).decode().split("\n"))

    def hears_nothing(self) -> bool:
        return not select.select([self._sock], [], [], 0)[0]

    def hear_until(self, name: str) -> list[str]:
        """Return what it is told, without status and watchdog, up to and with `name`."""
        told: list[str] = []
        while name not in told:
            told += [
                f"{key}={value}" for key, value in self.hear().items() if key in ("READY", "RELOADING", "STOPPING")
            ]
        return told

    def close(self) -> None:
        self._sock.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@portico-test-{PID}")
    yield manager
    manager.close()


def test_the_manager_is_told_in_one_message(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "PATH": "/bin"}
    notifier = Notifier(environment)
    assert environment == {"PATH": "/bin"}
    notifier.tell("READY=1", "STATUS=revision 1, größe")
    assert manager.hear() == {"READY": "1", "STATUS": "revision 1, größe"}
    notifier.tell("STOPPING=1")
    assert manager.hear() == {"STOPPING": "1"}


def test_a_reload_is_told_with_its_moment(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    told = manager.hear()
    assert told.keys() == {"RELOADING", "MONOTONIC_USEC"}
    assert told["RELOADING"] == "1"
    assert before <= int(told["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_the_watchdog_hears_twice_as_often_as_it_wants(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": PID})
    assert notifier.watchdog == 4.0
    told = []
    for tick in range(100, 120):  # ten seconds, a look every half of one
        notifier.alive(tick / 2)
        if not manager.hears_nothing():
            assert manager.hear() == {"WATCHDOG": "1"}
            told.append(tick / 2)
    assert told == [50.0, 52.0, 54.0, 56.0, 58.0]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog_hears_where_none_listens(manager: Manager, environment: dict[str, str]) -> None:
    environment["NOTIFY_SOCKET"] = manager.address
    notifier = Notifier(environment)
    assert environment == {}
    for tick in range(10):
        notifier.alive(tick * 100.0)
    assert manager.hears_nothing()


def test_a_watchdog_without_a_process_id_means_this_one() -> None:
    assert Notifier({"WATCHDOG_USEC": "1500000"}).watchdog == 1.5


def test_nobody_is_told_where_nobody_asks(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        notifier = Notifier(environment)
        notifier.tell("READY=1")
        notifier.reloading()


def test_a_manager_that_does_not_listen_is_not_waited_for(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    for number in range(2000):  # more than any queue takes
        notifier.tell(f"STATUS={number}")
    assert manager.hear() == {"STATUS": "0"}


def test_the_next_program_in_this_process_finds_the_same() -> None:
    environment = {"NOTIFY_SOCKET": "@manager", "WATCHDOG_USEC": "1500000", "WATCHDOG_PID": PID}
    again = Notifier(Notifier(environment).environment())
    assert (again.path, again.watchdog) == ("@manager", 1.5)
    assert Notifier({}).environment() == {}


# End to end

LAUNCHER = """
import os, socket, sys
address, file, *command = sys.argv[1:]
listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind(("127.0.0.1", int(os.environ.pop("TEST_PORT"))))
listening.listen(128)
listening = listening.detach()
if listening != 3:
    os.dup2(listening, 3)
    os.close(listening)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http", NOTIFY_SOCKET=address)
os.environ.update(WATCHDOG_USEC="2000000", WATCHDOG_PID=str(os.getpid()))
os.execv(command[0], [*command, "run", file])
"""

CONFIG = """
listen: 127.0.0.1:{port}
workers: 2
routes:
  - {{path: /a, respond: {{body: {body}}}}}
"""


class Activated:
    """A gateway that a service manager has started at a port of its own."""

    def __init__(self, folder: Path, manager: Manager) -> None:
        self.manager = manager
        self.file = folder / "portico.yaml"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.write("first")
        self._log = folder / "gateway.log"
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, manager.address, str(self.file), *PORTICO],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"TEST_PORT": str(self.port), "PORTICO_RUNTIME_DIR": str(folder / "run")},
                start_new_session=True,
            )

    def write(self, body: str) -> None:
        self.file.write_text(CONFIG.format(port=self.port, body=body))

    def log(self) -> str:
        return self._log.read_text()

    def ask(self, target: str = "/a") -> str:
        return curl(f"http://127.0.0.1:{self.port}{target}").body.decode()

    def children(self, what: str) -> list[int]:
        return [pid for pid in children_of(self.popen.pid) if is_process(pid, what)]

    def reload(self) -> list[str]:
        self.popen.send_signal(signal.SIGHUP)
        return self.manager.hear_until("READY=1")


@contextmanager
def activated_gateway(folder: Path, manager: Manager) -> Iterator[Activated]:
    gateway = Activated(folder, manager)
    try:
        assert manager.hear_until("READY=1") == ["READY=1"], gateway.log()
        yield gateway
    finally:
        children = []
        with suppress(FileNotFoundError):
            children = children_of(gateway.popen.pid)
        gateway.popen.kill()
        gateway.popen.wait(DEADLINE)
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Activated]:
    manager = Manager(str(tmp_path / "notify"))
    with activated_gateway(tmp_path, manager) as gateway:
        yield gateway
    manager.close()


def test_a_gateway_of_systemds_from_start_to_end(gateway: Activated) -> None:
    manager = gateway.manager
    assert gateway.ask() == "first"
    assert f"listening on http://127.0.0.1:{gateway.port} with 2 worker(s)" in gateway.log()
    wait_for(lambda: gateway.children("agent"), "the agent")
    wait_for(lambda: "WATCHDOG" in manager.hear(), "a sign of life")

    gateway.write("second")
    assert gateway.reload() == ["RELOADING=1", "READY=1"]
    assert gateway.ask() == "second"

    gateway.file.write_text("routes: what")
    assert gateway.reload() == ["RELOADING=1", "READY=1"]  # it is as ready as before
    assert gateway.ask() == "second"

    workers = gateway.children("worker")
    gateway.popen.send_signal(signal.SIGTERM)
    assert manager.hear_until("STOPPING=1") == ["STOPPING=1"]
    assert gateway.popen.wait(DEADLINE) == 0, gateway.log()
    while not manager.hears_nothing():
        assert manager.hear() == {"WATCHDOG": "1"}
    assert "Traceback" not in gateway.log()
    assert not any(map(is_alive, workers))


def test_clients_at_a_port_of_systemds_are_given_to_all_workers(gateway: Activated) -> None:
    clients = [socket.create_connection(("127.0.0.1", gateway.port), timeout=DEADLINE) for _ in range(64)]
    served = []
    for pid in gateway.children("worker"):
        assert not {"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"} & environment_of(pid)
        served.append(wait_for(lambda pid=pid: connections_of(pid, gateway.port), "a connection of each worker"))
    wait_for(
        lambda: sum(connections_of(pid, gateway.port) for pid in gateway.children("worker")) == 64, "every connection"
    )
    for client in clients:
        client.close()


def environment_of(pid: int) -> set[str]:
    content = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return {line.partition("=")[0] for line in content.split("\0")}


def connections_of(pid: int, port: int) -> int:
    """Return how many clients a process has at a port."""
    established = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "01":
            established.add(f"socket:[{fields[9]}]")
    links = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            links.add(str(each.readlink()))
    return len(established & links)


def test_a_reload_by_anyone_is_told(gateway: Activated) -> None:
    wait_for(lambda: gateway.children("agent"), "the agent")
    gateway.write("second")
    environment = os.environ | {"PORTICO_RUNTIME_DIR": str(gateway.file.parent / "run")}

    def reloaded() -> bool:  # the agent may not listen yet
        done = subprocess.run([*PORTICO, "reload", str(gateway.file), "--json"], env=environment, capture_output=True)
        return done.returncode == 0 and bool(json.loads(done.stdout)["ok"])

    wait_for(reloaded, "a reload")
    assert gateway.manager.hear_until("READY=1") == ["RELOADING=1", "READY=1"]


def test_reloads_that_follow_each_other_are_each_told(gateway: Activated) -> None:
    wait_for(lambda: gateway.children("agent"), "the agent")
    told = []
    for number in range(3):
        gateway.write(f"number {number}")
        gateway.popen.send_signal(signal.SIGHUP)
        told += gateway.manager.hear_until("RELOADING=1")
    while len(re.findall("revision [234] after", gateway.log())) < 3 or told[-1] != "READY=1":
        told += gateway.manager.hear_until("READY=1")
    assert told.count("RELOADING=1") == 3
    assert told[-1] == "READY=1"
    assert gateway.ask() == "number 2"


SLOW_PLUGIN = """
import os
from pathlib import Path
from portico.plugin import *

if (beside := Path(__file__).with_name("hold")).exists():
    beside.with_name("began").touch()
    open(beside).read()
"""


def test_an_agent_that_dies_in_the_middle_of_a_reload_leaves_a_gateway_that_is_ready(gateway: Activated) -> None:
    folder = gateway.file.parent
    (agent,) = wait_for(lambda: gateway.children("agent"), "the agent")
    hold = folder / "hold"
    os.mkfifo(hold)
    (folder / "slow.py").write_text(SLOW_PLUGIN)
    gateway.file.write_text(gateway.file.read_text() + "plugins: [slow.py]\n")
    gateway.popen.send_signal(signal.SIGHUP)
    assert gateway.manager.hear_until("RELOADING=1") == ["RELOADING=1"]
    wait_for((folder / "began").exists, "the load to begin")
    os.kill(agent, signal.SIGKILL)
    assert gateway.manager.hear_until("READY=1") == ["READY=1"]
    with hold.open("wb"):
        pass  # whoever still loads goes on, and ends
    hold.unlink()
    wait_for(lambda: gateway.children("agent") not in ([], [agent]), "the next agent")
    assert gateway.reload() == ["RELOADING=1", "READY=1"]
    assert gateway.ask() == "first"


def test_a_reload_that_an_agent_has_not_begun_is_the_next_ones(gateway: Activated) -> None:
    (agent,) = wait_for(lambda: gateway.children("agent"), "the agent")
    os.kill(agent, signal.SIGSTOP)
    gateway.write("second")
    gateway.popen.send_signal(signal.SIGHUP)
    wait_for(lambda: "WATCHDOG" in gateway.manager.hear(), "the supervisor to have turned")
    os.kill(agent, signal.SIGKILL)
    assert gateway.manager.hear_until("READY=1") == ["RELOADING=1", "READY=1"]
    assert gateway.ask() == "second"
