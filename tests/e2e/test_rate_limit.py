"""Limits at work: exact over all workers, whatever becomes of one of them, of the configuration, or of the store."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.harness.backend import Backend
from tests.harness.gateway import DEADLINE, Gateway, curl, problem_of, wait_for
from tests.harness.load import Load
from tests.harness.valkey import ValkeyServer

LIMIT = 1000
CLIENTS = 8
CONFIG = """
services: {{s: "http://{address}"}}
routes: [{{path: /**, service: s}}]
state: {state}
policies: [{policy}]
"""
NEVER_BACK = f"{{rate-limit: {{limits: {{requests: {LIMIT}, window: 365d, algorithm: gcra}}, key: everyone}}}}"
"""A limit of which nothing comes back while a test lasts."""


class Clients:
    """Clients that ask as fast as they can while entered, each now and then by a new connection, and what they got."""

    def __init__(self, port: int) -> None:
        self.answers: Counter[int] = Counter()
        """How often each status came; 0 is a connection that ended without one."""
        self._port = port
        self._numbers = count()
        self._lock = threading.Lock()
        self._over = False
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over = True
        for each in self._threads:
            each.join(DEADLINE)

    def until(self, status: int, times: int) -> None:
        """Wait until a status has come so often."""
        wait_for(lambda: self.answers[status] >= times, f"{times} answers with {status}")

    def _ask(self) -> None:
        while not self._over:
            client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE)
            for _ in range(20):
                with self._lock:
                    number = next(self._numbers)
                status = 0
                with suppress(OSError, http.client.HTTPException):
                    client.request("GET", "/", headers={"X-Id": str(number)})
                    answer = client.getresponse()
                    answer.read()
                    status = answer.status
                with self._lock:
                    self.answers[status] += 1
                if self._over or status == 0:
                    break
            client.close()


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / "run"))
    with Backend(tmp_path, "one") as one:
        yield one


def workers_of(gateway: Gateway) -> list[int]:
    return wait_for(lambda: len(pids := gateway.worker_pids()) == 2 and pids, "two workers")  # type: ignore[return-value]


@pytest.mark.parametrize("store", ["lmdb", "valkey"])
def test_workers_let_exactly_as_many_pass_also_while_the_configuration_is_read_again(
    backend: Backend, tmp_path: Path, store: str
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(ValkeyServer()) if store == "valkey" else None
        state = "lmdb" if server is None else f"{{store: 'redis://127.0.0.1:{server.port}', timeout: 10s}}"
        config = CONFIG.format(address=backend.address, state=state, policy=NEVER_BACK)
        gateway = stack.enter_context(Gateway(tmp_path, config, workers=2))
        gateway.agent_answers()
        with Clients(gateway.port) as clients:
            for number in range(2):
                clients.until(200, 300 * (number + 1))
                text = gateway.file.read_text().replace("routes: [", f"routes: [{{path: /{number}, respond: a}}, ")
                gateway.file.write_text(text.replace("key: everyone}", "key: everyone, message: Slow down}"))
                gateway.popen.send_signal(signal.SIGHUP)
                wait_for(lambda: f"SIGHUP: revision {number + 2}" in gateway.log(), "the reload")  # noqa: B023
            clients.until(429, 300)
        assert set(clients.answers) == {200, 429}
        assert clients.answers[200] == LIMIT
        assert len(backend.requests()) == LIMIT
        assert set(backend.requests().values()) == {1}


def test_workers_that_are_killed_let_nobody_pass_beyond_the_limit(backend: Backend, tmp_path: Path) -> None:
    config = CONFIG.format(address=backend.address, state="lmdb", policy=NEVER_BACK)
    with Gateway(tmp_path, config, workers=2) as gateway:
        workers_of(gateway)
        with Clients(gateway.port) as clients:
            for number in range(2):
                clients.until(200, 250 * (number + 1))
                pid = workers_of(gateway)[number]
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda: pid not in gateway.worker_pids(), "the worker's end")  # noqa: B023
            clients.until(429, 300)
            assert LIMIT - 2 * CLIENTS <= len(backend.requests()) <= LIMIT
        assert LIMIT - 2 * CLIENTS <= len(backend.requests()) <= LIMIT


def test_while_a_redis_is_gone_requests_pass_uncounted_or_are_refused_as_the_file_says(
    backend: Backend, tmp_path: Path
) -> None:
    with ValkeyServer() as server:
        policy = "{rate-limit: {limits: 1000000/1h, on_store_failure: %s}}"
        config = CONFIG.format(
            address=backend.address,
            state=f"{{store: 'redis://127.0.0.1:{server.port}', timeout: 5s}}",
            policy=policy % "allow",
        )
        strict = f"{{path: /strict, service: s, policies: [{policy % 'deny'}]}}"
        config = config.replace("routes: [", f"routes: [{strict}, ")
        with Gateway(tmp_path, config, workers=2) as gateway:
            with Load(gateway.port, "/") as load:
                for _ in range(2):
                    load.some_more()
                    server.kill()
                    load.some_more()
                    began = time.monotonic()
                    refused = curl(f"{gateway.url}/strict")
                    assert time.monotonic() - began < 10
                    problem_of(refused, 503, "store-unavailable")
                    assert refused.value("Retry-After") == "1"
                    server.start()
                    load.some_more()
                    wait_for(lambda: curl(f"{gateway.url}/strict").status == 200, "the store to be back")
            assert not load.failures
            assert max(took.seconds for took in load.took) < 10
            assert "until it answers, on_store_failure is allow" in gateway.log()
            assert gateway.log().count("the store answers again") >= 2


def test_what_was_used_of_a_quota_outlives_the_gateway(backend: Backend, tmp_path: Path) -> None:
    config = CONFIG.format(
        address=backend.address,
        state=f"{{path: {tmp_path / 'lib'}}}",
        policy="{quota: {requests: 600/month, key: everyone}}",
    )
    most_in_hand = 2 * 600 // 100
    with Gateway(tmp_path, config, workers=2) as gateway, Clients(gateway.port) as clients:
        clients.until(200, 200)
        pid = workers_of(gateway)[0]
        os.kill(pid, signal.SIGKILL)
        clients.until(200, 350)
    first = backend.requests().total()
    with Gateway(tmp_path, config, workers=2) as gateway:
        with Clients(gateway.port) as clients:
            clients.until(429, 100)
        refused = curl(gateway.url)
        assert (refused.status, refused.json["violated-policies"]) == (429, ["600/month"])
        assert refused.value("RateLimit").startswith('"600/month";r=0;t=')
    reached = backend.requests().total()
    assert first < reached <= 600
    assert reached >= 600 - 3 * most_in_hand - CLIENTS
    with Gateway(tmp_path, config, workers=1) as gateway:
        assert [curl(gateway.url).status for _ in range(3)] == [429] * 3
