"""The real gateway's processes: replaced, drained, and ended, without a client that waits in vain."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from tests.harness.gateway import (
    DEADLINE,
    PORTICO,
    Call,
    Gateway,
    Service,
    children_of,
    curl,
    is_alive,
    portico,
    wait_for,
)

CONFIG = """
shutdown_timeout: {timeout}
services:
  s: {{url: http://127.0.0.1:{port}}}
routes:
  - {{path: /s/**, service: s}}
"""
GET = b"GET /s/fast HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Slow:
    """The service's side: `/s/slow` is answered when it is released, `/s/stream` begins at once and ends then."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.release = threading.Event()

    def __call__(self, call: Call) -> None:
        call.note()
        if call.path == "/s/stream":
            call.send_response(200)
            call.send_header("Transfer-Encoding", "chunked")
            call.end_headers()
            call.wfile.write(b"5\r\nbegin\r\n")
            self.asked.set()
            self.release.wait(DEADLINE)
            call.wfile.write(b"3\r\nend\r\n0\r\n\r\n")
            return
        if call.path == "/s/slow":
            self.asked.set()
            self.release.wait(DEADLINE)
        call.answer(200, call.path.encode())


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.release.set()


@pytest.fixture
def config(slow: Slow) -> Iterator[str]:
    with Service(slow) as service:
        yield CONFIG.format(port=service.port, timeout="30s")


def is_refused(gateway: Gateway) -> bool:
    try:
        gateway.connect().close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was in the queue of a socket that has just been closed
        return False
    return False


def test_clients_in_the_queue_of_a_killed_worker_are_served(tmp_path: Path, config: str) -> None:
    with Gateway(tmp_path, config) as gateway, ExitStack() as clients:
        (worker,) = gateway.worker_pids()
        os.kill(worker, signal.SIGSTOP)  # so that it accepts nobody
        queued = [clients.enter_context(gateway.connect()) for _ in range(20)]
        for client in queued:
            client.sendall(GET)
        os.kill(worker, signal.SIGKILL)
        for client in queued:
            assert b"HTTP/1.1 200 OK\r\n" in client.makefile("rb").read()
        (replacement,) = gateway.worker_pids()
        assert replacement != worker
        assert "worker 0 died (signal 9); the next starts now" in gateway.log()


def test_one_of_two_workers_is_killed(tmp_path: Path, config: str) -> None:
    with Gateway(tmp_path, config, workers=2) as gateway:
        before = gateway.worker_pids()
        os.kill(before[0], signal.SIGKILL)
        for _ in range(20):
            assert curl(f"{gateway.url}/s/fast").status == 200
        after = wait_for(lambda: len(pids := gateway.worker_pids()) == 2 and pids, "the replacement")
        assert after
        assert before[1] in after
        assert before[0] not in after
        wait_for(lambda: "serves again" in gateway.log(), "the replacement to serve")


@pytest.mark.parametrize(("path", "content"), [("/s/slow", b"/s/slow"), ("/s/stream", b"beginend")])
def test_a_request_under_way_is_drained(tmp_path: Path, config: str, slow: Slow, path: str, content: bytes) -> None:
    with (
        Gateway(tmp_path, config) as gateway,
        closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as idle,
        closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as busy,
    ):
        idle.request("GET", "/s/fast")
        assert idle.getresponse().read() == b"/s/fast"
        busy.request("GET", path)
        assert slow.asked.wait(DEADLINE)
        gateway.popen.terminate()
        assert idle.sock.recv(1) == b""  # nothing was under way there
        wait_for(lambda: is_refused(gateway), "new connections to be refused")
        assert gateway.popen.poll() is None
        slow.release.set()
        response = busy.getresponse()
        assert (response.status, response.read()) == (200, content)
        assert path == "/s/stream" or response.headers["Connection"] == "close"
        assert busy.sock is None or busy.sock.recv(1) == b""
        assert gateway.popen.wait(DEADLINE) == 0


def test_a_second_signal_ends_at_once(tmp_path: Path, config: str, slow: Slow) -> None:
    with (
        Gateway(tmp_path, config) as gateway,
        closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as busy,
    ):
        busy.request("GET", "/s/slow")
        assert slow.asked.wait(DEADLINE)
        gateway.popen.terminate()
        wait_for(lambda: "draining" in gateway.log(), "the drain")
        gateway.popen.terminate()
        assert gateway.popen.wait(DEADLINE / 2) == 0  # while the drain would last longer than that
        with pytest.raises((HTTPException, ConnectionError)):
            busy.getresponse()
        assert "second signal: ending at once" in gateway.log()


def test_the_drain_has_an_end(tmp_path: Path, slow: Slow) -> None:
    with (
        Service(slow) as service,
        Gateway(tmp_path, CONFIG.format(port=service.port, timeout="200ms")) as gateway,
        closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as busy,
    ):
        busy.request("GET", "/s/slow")
        assert slow.asked.wait(DEADLINE)
        gateway.terminate()
        with pytest.raises((HTTPException, ConnectionError)):
            busy.getresponse()
        assert "1 connections were still busy at the deadline of the drain" in gateway.log()


def test_the_workers_drain_when_the_supervisor_is_killed(tmp_path: Path, config: str, slow: Slow) -> None:
    gateway = Gateway(tmp_path, config, workers=2)
    workers = gateway.worker_pids()
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as busy:
        busy.request("GET", "/s/slow")
        assert slow.asked.wait(DEADLINE)
        gateway.popen.kill()
        gateway.popen.wait(DEADLINE)
        wait_for(lambda: is_refused(gateway), "new connections to be refused")
        slow.release.set()
        response = busy.getresponse()
        assert (response.status, response.read()) == (200, b"/s/slow")
    wait_for(lambda: not any(map(is_alive, workers)), "the workers to end")
    assert "Traceback" not in gateway.log()


def test_what_a_terminal_sends_is_a_drain(tmp_path: Path, config: str, slow: Slow) -> None:
    number = signal.SIGINT
    with (
        Gateway(tmp_path, config, workers=2) as gateway,
        closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as busy,
    ):
        workers = gateway.worker_pids()
        busy.request("GET", "/s/slow")
        assert slow.asked.wait(DEADLINE)
        os.killpg(gateway.popen.pid, number)  # as a terminal does it: to the workers too
        wait_for(lambda: f"{number.name}: draining" in gateway.log(), "the drain")
        slow.release.set()
        assert busy.getresponse().read() == b"/s/slow"
        gateway.finish(workers)


def test_control_c_while_the_workers_start(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("listen: 127.0.0.1:0\nworkers: 2\nroutes: [{path: /a, respond: a}]\n")
    log = tmp_path / "log"
    with log.open("wb") as errors:
        popen = subprocess.Popen([*PORTICO, "run", tmp_path / "a.yaml"], stderr=errors, start_new_session=True)
    try:
        wait_for(lambda: popen.poll() is not None or len(children_of(popen.pid)) == 2, "the workers")
        os.killpg(popen.pid, signal.SIGINT)
        assert popen.wait(DEADLINE) == 0
    finally:
        popen.kill()
        popen.wait(DEADLINE)
    assert "SIGINT: draining" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_worker_that_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "fussy.py").write_text(
        "import sys\n"
        "from portico.plugin import Policy, PolicyConfig, Stage\n"
        "class Fussy(Policy[PolicyConfig], name='fussy', stages=(Stage.GUARD,)):\n"
        "    def setup(self, env):\n"
        "        if sys.argv[0].endswith('worker.py'):\n"
        "            raise RuntimeError('not in a worker')\n"
    )
    (tmp_path / "a.yaml").write_text(
        "listen: 127.0.0.1:0\nworkers: 2\nplugins: [fussy.py]\npolicies: [fussy]\nroutes: [{path: /a, respond: a}]\n"
    )
    done = portico("run", "a.yaml", cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert "RuntimeError: not in a worker" in done.err
    assert "a worker could not start (exit code 1)" in done.err
    assert "listening on" not in done.err


def test_two_gateways_do_not_share_a_port(tmp_path: Path, config: str) -> None:
    with Gateway(tmp_path, config) as gateway:
        (tmp_path / "other.yaml").write_text(f"listen: 127.0.0.1:{gateway.port}\nworkers: 1\n")
        done = portico("run", "other.yaml", cwd=tmp_path)
        said = f"other.yaml: cannot listen on 127.0.0.1:{gateway.port}: Address already in use\n"
        assert done == (1, "", said)
        assert curl(f"{gateway.url}/s/fast").status == 200


def test_several_addresses(tmp_path: Path) -> None:
    with Gateway(tmp_path, "routes: [{path: /a, respond: a}]\n", listen="['127.0.0.1:0', '[::1]:0']") as gateway:
        last = gateway.log().partition("[::1]:")[2].split()[0]
        assert curl("-g", f"http://[::1]:{last}/a").body == b"a"
        assert curl(f"{gateway.url}/a").body == b"a"
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", int(last))) != 0
