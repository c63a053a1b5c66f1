"""Payments that are made once: over workers, kills, restarts, reloads, and clients that leave."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.gateway import DEADLINE, Call, Gateway, Service, portico_here, wait_for
from tests.harness.valkey import ValkeyServer

CONFIG = """
services:
  pay: {{url: "http://127.0.0.1:{port}", timeout: {{first_byte: 60s}}}}
routes:
  - {{path: /**, service: pay, policies: [{{idempotency-key: {{{settings}}}}}]}}
state: {state}
shutdown_timeout: 20s
"""
BODY = b'{"amount": 1}'
REQUEST = (
    b"POST /payments HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: %%s\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / "run"))


class Payments:
    """A service that makes payments; while `open` is not set it has none of them done."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.made = 0
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> None:
        body = b"".join(call.read_body())
        with self._lock:
            self.made += 1
            number = self.made
        call.note(body)
        self.open.wait(DEADLINE)
        with contextlib.suppress(ConnectionError):
            call.answer(201, b"payment %d" % number)


@pytest.fixture
def payments() -> Payments:
    return Payments()


@pytest.fixture
def service(payments: Payments) -> Iterator[Service]:
    with Service(payments) as service:
        yield service
        payments.open.set()


def config(service: Service, state: object, settings: str = "") -> str:
    return CONFIG.format(port=service.port, state=state, settings=settings)


class Answer(NamedTuple):
    status: int
    text: str
    replayed: bool


def pay(gateway: Gateway, key: str = "k") -> Answer:
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)
    try:
        client.request("POST", "/payments", BODY, {"Idempotency-Key": key, "Content-Type": "application/json"})
        answer = client.getresponse()
        text = answer.read().decode()
        return Answer(answer.status, text, answer.getheader("Idempotency-Replayed") == "true")
    finally:
        client.close()


def problem(answer: Answer) -> str:
    return answer.text.partition("urn:portico:problem:")[2].partition('"')[0]


@contextmanager
def begun(gateway: Gateway, payments: Payments, key: str = "k") -> Iterator[socket.socket]:
    """Send a request that the service has begun to work on, and does not answer before `open` is set."""
    payments.open.clear()
    before = payments.made
    with contextlib.closing(gateway.connect()) as client:
        client.sendall(REQUEST % key.encode())
        wait_for(lambda: payments.made > before, "the service to be asked")
        yield client


def in_threads(gateway: Gateway, count: int) -> list[Answer]:
    """Send the same request so often at once."""
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(pay(gateway))) for _ in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(DEADLINE)
    assert len(answers) == count
    return answers


@contextmanager
def stored(kind: str, folder: Path) -> Iterator[str]:
    if kind == "lmdb":
        yield f"{{path: {folder / 'lib'}}}"
    else:
        with ValkeyServer() as server:
            yield f"{{store: 'redis://127.0.0.1:{server.port}', timeout: 10s}}"


@pytest.mark.parametrize("kind", ["lmdb", "valkey"])
def test_of_many_at_once_one_is_made_and_a_restart_forgets_none(
    kind: str, tmp_path: Path, service: Service, payments: Payments
) -> None:
    with stored(kind, tmp_path) as state:
        with Gateway(tmp_path, config(service, state, "wait: 20s"), workers=2) as gateway:
            answers = in_threads(gateway, 50)
            assert {(each.status, each.text) for each in answers} == {(201, "payment 1")}
            assert [each.replayed for each in answers].count(False) == 1
        with Gateway(tmp_path, config(service, state), workers=2) as gateway:
            assert pay(gateway) == (201, "payment 1", True)
            assert pay(gateway, "another") == (201, "payment 2", False)
    assert payments.made == 2
    assert service.seen[0].body == BODY
    assert service.seen[0].values("Idempotency-Key") == ["k"]


@pytest.mark.parametrize("kind", ["lmdb", "valkey"])
def test_others_are_told_while_one_is_at_work_also_where_its_client_has_left(
    kind: str, tmp_path: Path, service: Service, payments: Payments
) -> None:
    with stored(kind, tmp_path) as state, Gateway(tmp_path, config(service, state), workers=2) as gateway:
        with begun(gateway, payments) as client:
            answers = in_threads(gateway, 20)
            assert {(each.status, problem(each)) for each in answers} == {(409, "idempotency-key-in-use")}
            payments.open.set()
            assert client.makefile("rb").readline() == b"HTTP/1.1 201 Created\r\n"
        assert pay(gateway) == (201, "payment 1", True)
        with begun(gateway, payments, "left"):
            pass
        assert problem(pay(gateway, "left")) == "idempotency-key-in-use"
        payments.open.set()
        wait_for(lambda: pay(gateway, "left") == (201, "payment 2", True), "the answer to be kept")
        assert payments.made == 2


def test_a_worker_that_is_killed_keeps_its_claim_until_that_ends(
    tmp_path: Path, service: Service, payments: Payments
) -> None:
    with Gateway(tmp_path, config(service, "lmdb", "lock: 4s"), workers=1) as gateway:
        began = time.monotonic()
        with begun(gateway, payments):
            (worker,) = gateway.worker_pids()
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda: "died (signal 9)" in gateway.log(), "the worker's end")
        payments.open.set()
        answers = [pay(gateway)]
        while answers[-1].status != 201:
            answers.append(pay(gateway))
        assert time.monotonic() - began > 4.0
        assert {problem(each) for each in answers[:-1]} <= {"idempotency-key-in-use"}
        assert answers[-1] == (201, "payment 2", False)
        assert pay(gateway) == (201, "payment 2", True)


def test_a_reload_ends_nothing(tmp_path: Path, service: Service, payments: Payments) -> None:
    with Gateway(tmp_path, config(service, "lmdb"), workers=2) as gateway:
        with begun(gateway, payments):
            pass
        gateway.agent_answers()
        gateway.file.write_text(gateway.file.read_text().replace("shutdown_timeout: 20s", "shutdown_timeout: 21s"))
        assert portico_here("reload", str(gateway.file)).code == 0
        assert problem(pay(gateway)) == "idempotency-key-in-use"
        payments.open.set()
        wait_for(lambda: pay(gateway) == (201, "payment 1", True), "the answer to be kept")
        assert payments.made == 1


def test_nor_does_the_end_of_the_gateway(tmp_path: Path, service: Service, payments: Payments) -> None:
    state = f"{{path: {tmp_path / 'lib'}}}"
    with Gateway(tmp_path, config(service, state), workers=1) as gateway:
        with begun(gateway, payments):
            pass
        gateway.popen.terminate()
        wait_for(lambda: "draining" in gateway.log(), "the end to begin")
        payments.open.set()
        gateway.popen.wait(DEADLINE)
    with Gateway(tmp_path, config(service, state), workers=1) as gateway:
        assert pay(gateway) == (201, "payment 1", True)
    assert payments.made == 1


def test_which_does_not_wait_for_it_forever(tmp_path: Path, service: Service, payments: Payments) -> None:
    state = f"{{path: {tmp_path / 'lib'}}}"
    text = config(service, state).replace("shutdown_timeout: 20s", "shutdown_timeout: 1s")
    with Gateway(tmp_path, text, workers=1) as gateway, begun(gateway, payments):
        gateway.popen.terminate()
        assert gateway.popen.wait(DEADLINE) == 0
    with Gateway(tmp_path, text, workers=1) as gateway:
        with begun(gateway, payments, "left"):
            pass
        gateway.popen.terminate()
        assert gateway.popen.wait(DEADLINE) == 0
        assert "some work was not done at the deadline of the drain" in gateway.log()
    with Gateway(tmp_path, text, workers=1) as gateway:
        assert [problem(pay(gateway, key)) for key in ("k", "left")] == ["idempotency-outcome-unknown"] * 2


def test_without_a_store_nothing_is_paid_unless_that_is_wanted(
    tmp_path: Path, service: Service, payments: Payments
) -> None:
    with ValkeyServer() as server:
        state = f"{{store: 'redis://127.0.0.1:{server.port}', timeout: 5s}}"
        settings = "{on_store_failure: allow}"
        more = f"  - {{path: /lax, service: pay, policies: [{{idempotency-key: {settings}}}]}}\nstate"
        text = config(service, state).replace("state", more, 1)
        with Gateway(tmp_path, text, workers=1) as gateway:
            assert pay(gateway) == (201, "payment 1", False)
            server.kill()
            denied = wait_for(lambda: (answer := pay(gateway)).status == 503 and answer, "the store to be missed")
            assert problem(denied) == "idempotency-unavailable"
            assert payments.made == 1
            client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)
            with contextlib.closing(client):
                client.request("POST", "/lax", BODY, {"Idempotency-Key": "k"})
                assert client.getresponse().status == 201
            assert payments.made == 2
            server.start()
            wait_for(lambda: pay(gateway, "new").status == 201, "the store to be back")
            assert "idempotency-key: the store is missed" in gateway.log()
