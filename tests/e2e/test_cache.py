"""The response cache of a gateway at work: over its workers, whatever becomes of them, of a service or of the store."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.gateway import DEADLINE, Call, Gateway, Service, portico_here, wait_for
from tests.harness.valkey import ValkeyServer

PLUGIN = """
import os

from portico.plugin import Policy, PolicyConfig, Stage

ME = str(os.getpid()).encode()


class Worker(PolicyConfig):
    "Says which worker it is."


class WorkerPolicy(Policy[Worker], name="worker", stages=(Stage.OBSERVE,)):
    def request(self, request):
        request.headers.set(b"X-Worker", ME)

    def response(self, request, response):
        response.headers.set(b"X-Worker", ME)
        return response
"""

CONFIG = """
plugins: [worker.py]
services: {{s: {{url: "http://127.0.0.1:{port}", timeout: {{total: 30s}}}}}}
policies: [worker]
routes: [{{path: /**, service: s, policies: [cache: {cache}]}}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "worker.py").write_text(PLUGIN)
    return tmp_path


class Got(NamedTuple):
    """What a client was answered."""

    status: int
    worker: int
    told: str
    body: bytes


def ask(gateway: Gateway, path: str = "/", method: str = "GET") -> Got:
    """Ask by a connection of its own."""
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)
    try:
        client.request(method, path)
        answer = client.getresponse()
        body = answer.read()
        return Got(answer.status, int(answer.getheader("X-Worker", 0)), answer.getheader("Cache-Status", ""), body)
    finally:
        client.close()


def both(gateway: Gateway, path: str, holds: Callable[[Got], bool]) -> list[Got]:
    """Ask until each of two workers has given an answer of which something holds; return all answers."""
    answers: list[Got] = []

    def done() -> bool:
        answers.append(ask(gateway, path))
        return len({got.worker for got in answers if holds(got)}) == 2

    wait_for(done, "both workers")
    return answers


class Held:
    """A service that answers when it is told to; its answers have the number of the request, and are fresh."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.count = 0
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> None:
        b"".join(call.read_body())
        with self._lock:
            self.count += 1
            number = self.count
        call.note()
        assert self.open.wait(DEADLINE)
        call.answer(200, b"%d" % number, Cache_Control="max-age=600")


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def service(held: Held) -> Iterator[Service]:
    with Service(held) as service:
        yield service
        held.open.set()


def state_of(server: ValkeyServer) -> str:
    return f"state: {{store: 'redis://127.0.0.1:{server.port}', timeout: 5s}}\n"


def config(service: Service, cache: str = "{wait: 60s}") -> str:
    return CONFIG.format(port=service.port, cache=cache)


def asked_once(folder: Path, service: Service, held: Held, state: str) -> None:
    with Gateway(folder, config(service) + state, workers=2) as gateway, ThreadPoolExecutor(24) as clients:
        gateway.agent_answers()
        asking = [clients.submit(ask, gateway, "/many") for _ in range(24)]
        wait_for(lambda: service.seen, "the first request")
        wait_for(lambda: in_flight(gateway) >= 24, "all to wait")
        held.open.set()
        answers = [each.result(DEADLINE) for each in asking]
        assert {(got.status, got.body) for got in answers} == {(200, b"1")}
        assert len({got.worker for got in answers}) == 2
        assert held.count == 1


def in_flight(gateway: Gateway) -> int:
    told = json.loads(portico_here("status", "--json", str(gateway.file)).out)["processes"]
    return sum(each.get("in_flight", 0) for each in told)


def test_many_at_once_reach_the_service_once(folder: Path, service: Service, held: Held) -> None:
    asked_once(folder, service, held, "")


def test_many_at_once_reach_the_service_once_with_a_redis(folder: Path, service: Service, held: Held) -> None:
    with ValkeyServer() as server:
        asked_once(folder, service, held, state_of(server))


def test_others_go_on_where_a_worker_is_killed_that_fetches(folder: Path, service: Service, held: Held) -> None:
    with Gateway(folder, config(service, "{wait: 1s}"), workers=2) as gateway, ThreadPoolExecutor(12) as clients:

        def one() -> Got | None:
            try:
                return ask(gateway, "/killed")
            except (OSError, http.client.HTTPException):
                return None

        asking = [clients.submit(one) for _ in range(12)]
        first = wait_for(lambda: service.seen, "the first request")[0]
        os.kill(int(first.values("X-Worker")[0]), signal.SIGKILL)
        wait_for(lambda: held.count > 1, "another one to ask")
        held.open.set()
        answers = [got for each in asking if (got := each.result(DEADLINE)) is not None]
        assert answers
        assert {got.status for got in answers} == {200}
        wait_for(lambda: "hit" in ask(gateway, "/killed").told, "an answer to be kept")


def test_what_one_worker_has_go_the_other_gives_no_more(folder: Path, service: Service, held: Held) -> None:
    held.open.set()
    with Gateway(folder, config(service), workers=2) as gateway:
        answers = both(gateway, "/a", lambda got: "hit" in got.told)
        assert {got.body for got in answers} == {b"1"}
        assert ask(gateway, "/a", "POST").body == b"2"
        answers = both(gateway, "/a", lambda got: "hit" in got.told)
        assert {got.body for got in answers} == {b"3"}


def test_what_is_purged_is_given_by_no_worker(folder: Path, service: Service, held: Held) -> None:
    held.open.set()
    with Gateway(folder, config(service), workers=2) as gateway:
        gateway.agent_answers()
        both(gateway, "/a?x=1", lambda got: "hit" in got.told)
        done = portico_here("purge", f"http://127.0.0.1:{gateway.port}/a", "--file", str(gateway.file))
        assert done.code == 0, done.err
        answers = both(gateway, "/a?x=1", lambda got: "hit" in got.told)
        assert {got.body for got in answers} == {b"2"}


def test_what_is_too_large_or_breaks_off_is_not_kept(folder: Path) -> None:
    content = os.urandom(300_000)

    def says(call: Call) -> None:
        call.note()
        if call.path == "/large":
            call.answer(200, content, Cache_Control="max-age=600")
            return
        call.send_response(200)
        call.send_header("Cache-Control", "max-age=600")
        call.send_header("Content-Length", str(len(content)))
        call.end_headers()
        call.wfile.write(content[:1000] if len(call.server.service.seen) % 2 else content)
        call.close_connection = True

    with Service(says) as service, Gateway(folder, config(service, "{max_size: 200KiB}"), workers=1) as gateway:
        for _ in range(2):
            assert ask(gateway, "/large").body == content
        assert len(service.seen) == 2
    with Service(says) as service, Gateway(folder, config(service), workers=1) as gateway:
        with pytest.raises(http.client.IncompleteRead):
            ask(gateway, "/broken")
        assert ask(gateway, "/broken").body == content
        again = ask(gateway, "/broken")
        assert (again.body, "hit" in again.told) == (content, True)
        assert len(service.seen) == 2


def test_it_goes_on_without_its_store(folder: Path, service: Service, held: Held) -> None:
    held.open.set()
    with ValkeyServer() as server:
        more = f"state: {{store: 'redis://127.0.0.1:{server.port}', timeout: 500ms}}\n"
        with Gateway(folder, config(service) + more, workers=1) as gateway:
            assert ask(gateway, "/kept").body == b"1"
            server.kill()
            began = time.monotonic()
            for number in range(20):
                assert ask(gateway, f"/new/{number}").status == 200
                kept = ask(gateway, "/kept")
                assert (kept.status, kept.body) == (200, b"1")
            assert time.monotonic() - began < DEADLINE
            assert gateway.log().count("cache: the store cannot be asked") == 1
            server.start()
            wait_for(lambda: "hit" in ask(gateway, "/back").told, "answers to be kept again")
