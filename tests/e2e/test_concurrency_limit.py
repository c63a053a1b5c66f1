"""Requests under way over real workers: never more than may be, and none is counted that is over."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness.gateway import DEADLINE, Call, Gateway, Service, wait_for
from tests.harness.valkey import ValkeyServer

ROUTE = "  - {{path: /{name}/**, service: s, policies: [concurrency-limit: {{key: everyone, {limit}}}]}}"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"


class Held:
    """A service that holds requests for `/.../held` until they may go on, and counts how many of a route it has."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> None:
        _, route, what = call.path.split("/")
        with self._lock:
            self.inside[route] += 1
            self.most[route] = max(self.most[route], self.inside[route])
        try:
            if what == "held":
                self.may.wait(3 * DEADLINE)
            elif what == "chat":
                self._chat(call)
                return
            else:
                threading.Event().wait(0.005)
        finally:
            with self._lock:
                self.inside[route] -= 1
        with suppress(OSError):
            call.answer(200)

    @staticmethod
    def _chat(call: Call) -> None:
        call.connection.sendall(SWITCH)
        while call.connection.recv(100):
            pass
        call.close_connection = True


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


@contextmanager
def limited(folder: Path, store: str = "lmdb", **limits: str) -> Iterator[tuple[Gateway, Held]]:
    """Run a gateway that has a route for each of the limits, by its name."""
    held = Held()
    with Service(held) as service:
        routes = "\n".join(ROUTE.format(name=name, limit=limit) for name, limit in limits.items())
        services = f'services: {{s: {{url: "http://127.0.0.1:{service.port}", upgrades: [chat]}}}}'
        with Gateway(folder, f"{services}\nstate: {store}\nroutes:\n{routes}\n", workers=2) as gateway:
            try:
                yield gateway, held
            finally:
                held.may.set()


def ask(gateway: Gateway, path: str) -> int:
    """Return the status of one request by a connection of its own; 0 where there was no answer."""
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)
    try:
        client.request("GET", path)
        return client.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        client.close()


def begun(gateway: Gateway, held: Held, count: int, route: str, what: str = "held") -> list[socket.socket]:
    """Begin so many requests, and wait until the service has them; those before may be over only a moment later."""
    before = held.inside[route]
    upgrade = "Connection: Upgrade\r\nUpgrade: chat\r\n" if what == "chat" else ""

    def begin() -> socket.socket:
        client = gateway.connect()
        client.sendall(f"GET /{route}/{what} HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n".encode())
        return client

    clients = [begin() for _ in range(count)]

    def there() -> bool:
        for at, client in enumerate(clients):
            if is_refused(client):
                client.close()
                clients[at] = begin()
        return held.inside[route] == before + count

    wait_for(there, "the service to have them")
    return clients


def is_refused(client: socket.socket) -> bool:
    timeout = client.gettimeout()
    client.settimeout(0)
    try:
        return client.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 429"
    except BlockingIOError:
        return False
    finally:
        client.settimeout(timeout)


def over(held: Held, clients: list[socket.socket]) -> None:
    """Have all that the service holds go on, and wait until it is over."""
    held.may.set()
    for client in clients:
        client.close()
    wait_for(lambda: not any(held.inside.values()), "the service to be free")
    held.may.clear()


def free_again(gateway: Gateway, route: str) -> None:
    wait_for(lambda: ask(gateway, f"/{route}/x") == 200, "a place")


@pytest.mark.parametrize("store", ["lmdb", "valkey"])
def test_a_service_never_has_more_than_may_be_and_what_a_killed_worker_had_comes_back(folder: Path, store: str) -> None:
    with ValkeyServer() as server:
        state = "lmdb" if store == "lmdb" else f"{{store: 'redis://127.0.0.1:{server.port}', timeout: 10s}}"
        routes = {"hasty": "requests: 5", "patient": "requests: 5, wait: 30s, queue: 1000"}
        with limited(folder, state, **routes) as (gateway, held):
            statuses: Counter[tuple[str, int]] = Counter()

            def client() -> None:
                for number in range(40):
                    route = ("hasty", "patient")[number % 2]
                    statuses[route, ask(gateway, f"/{route}/x")] += 1

            together(client, 16)
            assert set(statuses) - {("hasty", 429)} == {("hasty", 200), ("patient", 200)}
            assert statuses["patient", 200] == 16 * 20
            assert held.most["hasty"] <= 5
            assert held.most["patient"] == 5
            over(held, begun(gateway, held, 5, "hasty") + begun(gateway, held, 5, "patient"))

            clients = begun(gateway, held, 5, "hasty")
            assert ask(gateway, "/hasty/x") == 429
            os.kill(gateway.worker_pids()[0], signal.SIGKILL)
            wait_for(lambda: "died (signal 9)" in gateway.log(), "the worker's end")
            lost = sum(map(has_ended, clients))
            free_again(gateway, "hasty")
            clients += begun(gateway, held, lost, "hasty")  # as many as were lost: the others are still under way
            assert ask(gateway, "/hasty/x") == 429 or not lost
            over(held, clients)
            over(held, begun(gateway, held, 5, "hasty"))


def together(call: object, count: int) -> None:
    threads = [threading.Thread(target=call) for _ in range(count)]  # type: ignore[arg-type]
    for each in threads:
        each.start()
    for each in threads:
        each.join(2 * DEADLINE)


def has_ended(client: socket.socket) -> bool:
    """Whether the gateway has closed a connection, or does so soon."""
    client.settimeout(0.2)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_what_is_under_way_is_counted_to_its_end_and_no_longer(folder: Path) -> None:
    with limited(folder, one="requests: 1, queue: 1", three="requests: 3") as (gateway, held):
        clients = begun(gateway, held, 3, "three")
        assert ask(gateway, "/three/x") == 429
        for client in clients:
            client.close()
        free_again(gateway, "three")
        assert held.inside["three"] == 3  # the clients have left, which the service does not know of yet

        (client,) = begun(gateway, held, 1, "one", "chat")
        assert client.recv(1000).startswith(b"HTTP/1.1 101 ")
        assert ask(gateway, "/one/x") == 429
        client.close()
        free_again(gateway, "one")

        gateway.agent_answers()
        (client,) = begun(gateway, held, 1, "one")
        for revision, status in ((2, 503), (3, 429)):  # a reload forgets nobody
            text = gateway.file.read_text()
            gateway.file.write_text(text.replace("requests: 1,", "requests: 1, status: 503,"))
            if status == 429:
                gateway.file.write_text(text.replace(" status: 503,", ""))
            gateway.popen.send_signal(signal.SIGHUP)
            wait_for(lambda revision=revision: f"SIGHUP: revision {revision}" in gateway.log(), "it")  # type: ignore[misc]
            assert ask(gateway, "/one/x") == status
        held.may.set()
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        free_again(gateway, "one")
        client.close()


def test_a_server_that_is_down_is_done_without_and_hears_of_all_when_it_is_back(folder: Path) -> None:
    allowed = {"allow": {200}, "deny": {503}, "local": {200, 429}}
    routes = {name: f"requests: 2, on_store_failure: {name}" for name in allowed}
    with ValkeyServer() as server:
        state = f"{{store: 'redis://127.0.0.1:{server.port}', timeout: 5s}}"
        with limited(folder, state, **routes) as (gateway, held):
            clients = [client for route in routes for client in begun(gateway, held, 2, route)]
            assert [ask(gateway, f"/{route}/x") for route in routes] == [429] * 3
            server.kill()
            wait_for(lambda: ask(gateway, "/deny/x") == 503, "the store to be missed")
            for route, statuses in allowed.items():
                wait_for(lambda route=route, wanted=statuses: ask(gateway, f"/{route}/x") in wanted, route)  # type: ignore[misc]
                assert {ask(gateway, f"/{route}/x") for _ in range(10)} <= statuses
            server.start()
            wait_for(lambda: "answers again" in gateway.log(), "the store to be back")
            for route in routes:
                wait_for(lambda route=route: refused_all(gateway, route), "both to be counted again")  # type: ignore[misc]
            over(held, clients)
            for route in routes:
                free_again(gateway, route)


def refused_all(gateway: Gateway, route: str) -> bool:
    return all(ask(gateway, f"/{route}/x") == 429 for _ in range(6))
