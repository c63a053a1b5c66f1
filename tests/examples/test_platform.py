"""The demo platform: its services as real processes, its gateway file, and the command that runs them all."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest

from portico.cli.platform_demo import INSTANCES, PORT, SECRET, SERVICES_FROM
from portico.config.document import read
from portico.config.load import validate
from portico.config.schema import Config
from portico.endpoints.service import Service as ServiceEndpoint
from portico.jose.mint import secret_key, sign
from portico.runtime.plugins import load_registry
from tests.harness.gateway import Answer, Gateway, curl, problem_of, wait_for

ROOT = Path(__file__).parents[2]
PLATFORM = ROOT / "examples" / "platform"
DEADLINE = 20.0
REFUSED_CARD = "4000000000000002"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    document: Any


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    """Send one request; a body that is not bytes goes as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    with closing(HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
        return reply_of(connection)


def reply_of(connection: HTTPConnection) -> Reply:
    response = connection.getresponse()
    content = response.read()
    is_json = content and response.headers.get_content_type() == "application/json"
    return Reply(response.status, dict(response.headers), json.loads(content) if is_json else content)


class Process:
    """A service under the development mode of Python, which reports what was not closed."""

    def __init__(self, name: str, data: Path, port: int = 0, **peers: Process) -> None:
        script = PLATFORM / f"{name.partition('-')[0]}_service.py"
        command = [sys.executable, "-X", "dev", str(script), "--port", str(port), "--name", name, "--data", str(data)]
        for peer, process in peers.items():
            command += [f"--{peer}-service", f"http://127.0.0.1:{process.port}"]
        pipe = subprocess.PIPE
        self.popen = subprocess.Popen([*command, "--end-with-stdin"], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.popen.stdout is not None
        ready, _, _ = select.select([self.popen.stdout], [], [], DEADLINE)
        line = self.popen.stdout.readline() if ready else ""
        if not line:
            self.popen.kill()
        assert line, self.popen.communicate()[1]
        self.port: int = int(line.rpartition(":")[2])

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the process, which must do so without a word."""
        self.popen.send_signal(number)
        self.finish()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate(timeout=DEADLINE)

    def finish(self) -> None:
        try:
            _, errors = self.popen.communicate(timeout=DEADLINE)
        finally:
            self.popen.kill()
        assert (self.popen.returncode, errors) == (0, "")


class Platform:
    """All services but the users', with two instances of the order service."""

    def __init__(self, data: Path) -> None:
        self.running: list[Process] = []
        self.inventory = self.start("inventory-1", data)
        self.payment = self.start("payment-1", data)
        self.notification = self.start("notification-1", data)
        peers = {"inventory": self.inventory, "payment": self.payment, "notification": self.notification}
        self.orders = [self.start(name, data, **peers) for name in ("order-1", "order-2")]

    def start(self, name: str, data: Path, **peers: Process) -> Process:
        process = Process(name, data, **peers)
        self.running.append(process)
        return process

    def end(self) -> None:
        for process in self.running:
            process.popen.terminate()
        for process in self.running:
            process.finish()

    def order(self, product: str, quantity: int, instance: int = 0, **more: str) -> Reply:
        document = {"items": [{"product_id": product, "quantity": quantity}], **more}
        return ask(self.orders[instance].port, "POST", "/api/v1/orders", document, X_Correlation_ID=f"of-{product}")

    def available(self, product: str) -> int:
        available: int = ask(self.inventory.port, "GET", f"/api/v1/inventory/{product}").document["available"]
        return available

    def add_product(self, product: str, stock: int) -> None:
        document = {"id": product, "name": product, "price_cents": 100, "stock": stock}
        assert ask(self.inventory.port, "POST", "/api/v1/products", document).status == 201


@contextmanager
def running_platform(data: Path) -> Iterator[Platform]:
    platform = Platform(data)
    try:
        yield platform
    finally:
        platform.end()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("platform")) as platform:
        yield platform


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    data = tmp_path_factory.mktemp("users")
    processes = [Process(name, data) for name in ("user-1", "user-2")]
    yield processes
    for process in processes:
        process.end()


class TestOrders:
    def test_an_order_takes_stock_and_money_and_tells_the_customer(self, platform: Platform) -> None:
        before = platform.available("keyboard")
        reply = platform.order("keyboard", 2, customer="Ada")
        assert reply.status == 201
        assert reply.headers["X-Served-By"] == "order-1"
        assert reply.document["status"] == "placed"
        assert reply.document["total_cents"] == 2 * 8900
        assert reply.document["notified"] is True
        assert platform.available("keyboard") == before - 2
        payment = ask(platform.payment.port, "GET", f"/api/v1/payments/{reply.document['payment_id']}").document
        assert (payment["amount_cents"], payment["status"]) == (2 * 8900, "captured")
        sent = ask(platform.notification.port, "GET", "/api/v1/notifications?limit=1").document["notifications"]
        assert sent[0]["recipient"] == "Ada"
        assert sent[0]["correlation_id"] == "of-keyboard"

    def test_instances_share_their_state(self, platform: Platform) -> None:
        order = platform.order("mouse", 1, instance=0).document
        reply = ask(platform.orders[1].port, "GET", f"/api/v1/orders/{order['id']}")
        assert reply.headers["X-Served-By"] == "order-2"
        assert reply.document["items"] == order["items"]
        items = ask(platform.orders[1].port, "GET", "/api/v1/order-items?limit=100").document["order_items"]
        assert order["items"][0]["id"] in [item["id"] for item in items]

    def test_out_of_stock_is_a_conflict(self, platform: Platform) -> None:
        platform.add_product("rare", 3)
        reply = platform.order("rare", 4)
        assert (reply.status, reply.document["error"]) == (409, "out-of-stock")
        assert platform.available("rare") == 3

    def test_the_last_pieces_are_sold_once(self, platform: Platform) -> None:
        platform.add_product("last", 3)
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda number: platform.order("last", 1, number % 2), range(8)))
        assert sorted(reply.status for reply in replies) == [201] * 3 + [409] * 5
        assert platform.available("last") == 0

    def test_a_refused_payment_gives_the_goods_back(self, platform: Platform) -> None:
        platform.add_product("dear", 5)
        reply = platform.order("dear", 2, card=REFUSED_CARD)
        assert (reply.status, reply.document["error"]) == (402, "payment-refused")
        assert platform.available("dear") == 5
        order = ask(platform.orders[1].port, "GET", "/api/v1/orders?limit=1").document["orders"][0]
        assert (order["status"], order["reason"]) == ("rejected", "the card that ends in 0002 was refused")

    def test_all_items_or_none(self, platform: Platform) -> None:
        platform.add_product("plenty", 5)
        items = [{"product_id": "plenty", "quantity": 1}, {"product_id": "unheard-of", "quantity": 1}]
        reply = ask(platform.orders[0].port, "POST", "/api/v1/orders", {"items": items})
        assert (reply.status, reply.document["error"]) == (422, "unknown-product")
        assert platform.available("plenty") == 5

    def test_a_payment_is_refunded_once(self, platform: Platform) -> None:
        payment_id = platform.order("mouse", 1).document["payment_id"]
        path = f"/api/v1/payments/{payment_id}/refund"
        assert ask(platform.payment.port, "POST", path).document["status"] == "refunded"
        assert ask(platform.payment.port, "POST", path).status == 409
        newest = ask(platform.payment.port, "GET", "/api/v1/transactions?limit=1").document["transactions"][0]
        assert (newest["payment_id"], newest["kind"], newest["amount_cents"]) == (payment_id, "refund", -4500)

    def test_services_that_are_down(self, tmp_path: Path) -> None:
        with running_platform(tmp_path) as platform:
            platform.running.remove(platform.notification)
            platform.notification.end()
            reply = platform.order("monitor", 1)
            assert (reply.status, reply.document["notified"]) == (201, False)

            platform.running.remove(platform.payment)
            platform.payment.end(signal.SIGINT)
            reply = platform.order("monitor", 2)
            assert (reply.status, reply.document["error"]) == (503, "payment-service-unavailable")
            assert "the payment-service did not answer" in reply.document["detail"]
            assert platform.available("monitor") == 2


class TestUsers:
    def test_a_user_is_known_to_both_instances(self, users: list[Process]) -> None:
        first, second = (process.port for process in users)
        made = ask(first, "POST", "/api/v1/users", {"name": "Alan", "email": "alan@example.com"})
        assert made.status == 201
        path = made.headers["Location"]
        assert ask(second, "GET", path).document == made.document
        again = ask(second, "POST", "/api/v1/users", {"name": "Alan", "email": "alan@example.com"})
        assert (again.status, again.document["error"]) == (409, "email-taken")
        assert ask(second, "DELETE", path)[0::2] == (204, b"")
        assert ask(first, "GET", path).status == 404

    def test_a_login_gives_a_token_that_both_instances_take(self, users: list[Process]) -> None:
        credentials = {"email": "ada@example.com", "password": "demo"}
        token = ask(users[0].port, "POST", "/api/v1/auth/login", credentials).document["token"]
        me = ask(users[1].port, "GET", "/api/v1/auth/me", Authorization=f"Bearer {token}")
        assert me.document["name"] == "Ada"
        forged = ask(users[1].port, "GET", "/api/v1/auth/me", Authorization=f"Bearer {token[:-4]}AAAA")
        assert (forged.status, forged.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert ask(users[0].port, "POST", "/api/v1/auth/login", credentials | {"password": "x"}).status == 401

    def test_roles_and_limits(self, users: list[Process]) -> None:
        assert ask(users[0].port, "GET", "/api/v1/roles/admin").document["name"] == "admin"
        assert len(ask(users[0].port, "GET", "/api/v1/users?limit=2").document["users"]) == 2
        assert ask(users[0].port, "GET", "/api/v1/users?limit=none").status == 400


class TestHTTP:
    def test_one_connection_carries_many_requests(self, platform: Platform) -> None:
        with closing(HTTPConnection("127.0.0.1", platform.inventory.port, timeout=DEADLINE)) as connection:
            connection.request("GET", "/api/v1/products/mouse")
            assert reply_of(connection).document["id"] == "mouse"
            first = connection.sock
            connection.request("HEAD", "/api/v1/products/mouse")
            head = reply_of(connection)
            assert (head.status, head.document, int(head.headers["Content-Length"]) > 0) == (200, b"", True)
            connection.request("GET", "/health")
            assert reply_of(connection).document["instance"] == "inventory-1"
            assert connection.sock is first

    def test_refusals(self, platform: Platform) -> None:
        port = platform.inventory.port
        assert ask(port, "GET", "/api/v1/products/nothing").document["error"] == "not-found"
        assert ask(port, "GET", "/nowhere").document["error"] == "no-such-path"
        wrong = ask(port, "DELETE", "/api/v1/products")
        assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, HEAD, POST")
        for body in (b"", b"{", b"[]", b'{"id": "\\ud800"}', b"\xff"):
            bad = ask(port, "POST", "/api/v1/products", body)
            assert (bad.status, bad.document["error"]) == (400, "bad-json")
        assert ask(port, "POST", "/api/v1/products", {"id": "x", "name": "x", "price_cents": True}).status == 400
        assert ask(port, "POST", "/api/v1/products", bytes(5_000_000)).status == 413

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (b"nonsense\r\n\r\n", 400),
            (b"GET /health HTTP/9.9\r\n\r\n", 505),
            (b"POST /api/v1/email HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (b"POST /api/v1/email HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
            (b"POST /api/v1/email HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST /api/v1/email HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ],
    )
    def test_unclear_requests_are_answered_in_json_and_end_the_connection(
        self, platform: Platform, sent: bytes, status: int
    ) -> None:
        with socket.create_connection(("127.0.0.1", platform.notification.port), timeout=DEADLINE) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
        assert int(head.split()[1]) == status
        assert b"connection: close" in head.lower()
        assert json.loads(body)["error"]

    def test_a_chunked_body(self, platform: Platform) -> None:
        pieces = iter([b'{"to": "Ada", "subject": "Hello", ', b'"body": "World"}'])
        with closing(HTTPConnection("127.0.0.1", platform.notification.port, timeout=DEADLINE)) as connection:
            connection.request("POST", "/api/v1/email", pieces)
            assert reply_of(connection).document["message"] == "Hello\n\nWorld"
            connection.request("GET", "/api/v1/email?limit=1")
            assert reply_of(connection).document["email"][0]["recipient"] == "Ada"

    def test_events_arrive_as_they_happen(self, platform: Platform) -> None:
        port = platform.notification.port
        with closing(HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
            connection.request("GET", "/api/v1/notifications/stream?seconds=60")
            stream = connection.getresponse()
            assert stream.headers["Content-Type"] == "text/event-stream"
            assert stream.readline().startswith(b"id: ")  # the stream is under way
            ask(port, "POST", "/api/v1/notifications", {"recipient": "Ada", "message": "right now"})
            assert any(b"right now" in line for line in iter(stream.readline, b""))
            stream.close()
        assert ask(port, "GET", "/api/v1/notifications/stream?seconds=0").document.count(b"event: ") <= 3

    def test_a_slow_answer(self, platform: Platform) -> None:
        began = time.monotonic()
        assert ask(platform.inventory.port, "GET", "/api/v1/products?delay=0.3").status == 200
        assert time.monotonic() - began >= 0.3
        assert ask(platform.inventory.port, "GET", "/api/v1/products?delay=-1").status == 400

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_an_end_answers_what_is_under_way_and_waits_for_nothing_else(self, tmp_path: Path, number: int) -> None:
        process = Process("inventory-1", tmp_path)
        began = time.monotonic()
        with (
            closing(HTTPConnection("127.0.0.1", process.port, timeout=DEADLINE)) as idle,
            closing(HTTPConnection("127.0.0.1", process.port, timeout=DEADLINE)) as busy,
        ):
            idle.request("GET", "/health")
            assert reply_of(idle).status == 200
            busy.request("GET", "/api/v1/products?delay=10")
            ask(process.port, "GET", "/health")  # connected later than busy, and answered: busy is under way
            process.end(number)
            reply = reply_of(busy)
            assert (reply.status, reply.headers["Connection"]) == (200, "close")
        assert time.monotonic() - began < 8

    def test_a_service_ends_with_its_parent(self, tmp_path: Path) -> None:
        process = Process("payment-1", tmp_path)
        process.finish()  # closes its standard input

    def test_a_port_in_use_is_said_in_one_line(self, platform: Platform, tmp_path: Path) -> None:
        command = [sys.executable, str(PLATFORM / "payment_service.py"), "--port", str(platform.payment.port)]
        done = subprocess.run([*command, "--data", str(tmp_path)], capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == 1
        assert done.stderr == f"payment-1 cannot listen on 127.0.0.1:{platform.payment.port}: Address already in use\n"


class TestGatewayFile:
    @pytest.fixture
    def config(self) -> Config:
        registry = load_registry(())
        document = read(PLATFORM / "portico.yaml", {})
        loaded = validate(document, policies=registry.policy_kinds, endpoints=registry.endpoint_kinds)
        assert loaded.findings == []
        assert loaded.config is not None
        return loaded.config

    def test_every_route_leads_to_services_that_the_demo_starts(self, config: Config) -> None:
        started: dict[str, list[int]] = {}
        for instance in INSTANCES:
            started.setdefault(instance.service, []).append(SERVICES_FROM + instance.offset)
        assert {
            name: [target.port for target in service.targets] for name, service in config.services.items()
        } == started
        assert {service for _, service in self.table(config)} == set(started)
        assert [listener.address for listener in config.listen] == [("127.0.0.1", PORT)]

    def test_the_route_table_of_the_platform_is_complete(self, config: Config) -> None:
        wanted = {
            "user-service": ("users", "auth", "roles"),
            "order-service": ("orders", "order-items"),
            "inventory-service": ("inventory", "products"),
            "payment-service": ("payments", "transactions"),
            "notification-service": ("notifications", "email"),
        }
        assert {(f"/api/v1/{path}/*", service) for service in wanted for path in wanted[service]} <= self.table(config)

    def table(self, config: Config) -> set[tuple[str, str]]:
        ends = [(route.path, route.endpoint.config) for route in config.routes]
        return {(path, end.service) for paths, end in ends if isinstance(end, ServiceEndpoint) for path in paths}


def admin() -> str:
    """Return the header of an administrator's token."""
    claims = {"iss": "user-service", "sub": "1", "roles": ["admin"], "exp": int(time.time()) + 600}
    return f"Authorization: Bearer {sign(claims, secret_key(SECRET))}"


class Loop:
    """curl, again and again, in a thread of its own while entered."""

    def __init__(self, url: str) -> None:
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._url = url
        self._over = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over = True
        self._thread.join(DEADLINE)

    def until(self, holds: Callable[[list[Answer]], bool], what: str) -> None:
        """Wait until it holds for the answers from now on."""
        before = len(self.answers)
        wait_for(lambda: self.failures or holds(self.answers[before:]), what)
        assert not self.failures

    def _run(self) -> None:
        while not self._over:
            try:
                self.answers.append(curl("-f", self._url, "-H", admin()))
            except AssertionError as error:
                self.failures.append(str(error))


class TestSurvival:
    """The example's own file, and instances that are killed."""

    @pytest.fixture
    def start(self, tmp_path: Path) -> Iterator[Callable[..., Process]]:
        """Start instances, and end those that are left."""
        folder, running = tmp_path / "data", []
        folder.mkdir()

        def start(name: str, port: int = 0) -> Process:
            running.append(Process(name, folder, port))
            return running[-1]

        yield start
        for process in running:
            if process.popen.returncode is None:
                process.end()

    def gateway_for(self, folder: Path, *processes: tuple[int, Process]) -> Gateway:
        """Run the gateway with the example's file and these instances; where the others are, nobody listens."""
        ports = {number: process.port for number, process in processes}
        text = re.sub(r"(?m)^(listen|workers):.*$", "", (PLATFORM / "portico.yaml").read_text())
        text = re.sub(
            r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{ports.get(int(found[1]), int(found[1]) % 100)}", text
        )
        return Gateway(folder, text, workers=2)

    def log(self, gateway: Gateway, text: str) -> None:
        wait_for(lambda: re.search(text, gateway.log()), f"the log to say {text!r}")

    def test_one_of_two_is_killed_and_nobody_notices(self, start: Callable[..., Process], tmp_path: Path) -> None:
        one, two = start("user-1"), start("user-2")
        with self.gateway_for(tmp_path, (9001, one), (9011, two)) as gateway:
            target = f"service user-service: target 127.0.0.1:{one.port}"
            with Loop(f"{gateway.url}/api/v1/users") as loop:
                loop.until(lambda answers: served(answers) == {"user-1", "user-2"}, "answers of both")
                one.kill()
                self.log(gateway, f"WARNING .*{target} is out for 10 s: connection refused")
                self.log(gateway, f"WARNING .*{target} is not well( any more)?: connection refused")
                loop.until(lambda answers: len(answers) >= 10, "answers without it")
                start("user-1", one.port)
                began = time.monotonic()
                loop.until(lambda answers: "user-1" in served(answers), "answers of the one that was started again")
                took = time.monotonic() - began
            assert {answer.status for answer in loop.answers} == {200}
            self.log(gateway, f"INFO .*{target} is well again")
            counts = Counter(answer.value("X-Served-By") for answer in loop.answers)
            print(f"\n{len(loop.answers)} times curl, one SIGKILL: {dict(counts)}; back after {took:.1f} s")

    def test_a_payment_that_is_sent_again_is_made_once(
        self, start: Callable[..., Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / "run"))
        with self.gateway_for(tmp_path, (9004, start("payment-1"))) as gateway:
            refused = '{"order_id": 1, "amount_cents": 100, "card": "4000000000000002"}'
            options = ("-H", admin(), "-H", "Idempotency-Key: first", "-H", "Content-Type: application/json")
            answers = [curl(f"{gateway.url}/api/v1/payments", *options, "-d", refused) for _ in range(3)]
            assert [answer.status for answer in answers] == [402] * 3
            assert [answer.values("Idempotency-Replayed") for answer in answers] == [[], ["true"], ["true"]]
            made = curl(f"{gateway.url}/api/v1/payments", "-H", admin()).json["payments"]
            assert [payment["status"] for payment in made] == ["refused"]

    def test_the_only_one_is_killed_and_clients_are_told(self, start: Callable[..., Process], tmp_path: Path) -> None:
        payment, inventory = start("payment-1"), start("inventory-1")
        with self.gateway_for(tmp_path, (9004, payment), (9003, inventory)) as gateway:
            payments, products = (f"{gateway.url}/api/v1/{path}" for path in ("payments", "products"))
            assert [curl(url, "-H", admin()).status for url in (payments, products)] == [200, 200]
            payment.kill()
            inventory.kill()
            for _ in range(5):  # each is told what there is to tell
                problem_of(curl(payments, "-H", admin()), 502, "service-unreachable")
            refused = curl(payments, "-H", admin())
            problem_of(refused, 503, "circuit-open")
            assert 1 <= int(refused.value("Retry-After")) <= 5
            self.log(gateway, "payment-service: the breaker is open for 5 s: 5 failures in a row, the last: ")
            wait_for(lambda: curl(products).status == 503, "a health check that fails")
            problem_of(curl(products), 503, "no-healthy-target")
            self.log(gateway, "inventory-service: target .* is not well( any more)?: connection refused")
            told = curl(f"{gateway.url}/health").json
            assert [told["services"][name] for name in ("payment-service", "inventory-service")] == ["unhealthy"] * 2
            assert told["breakers"]["payment-service"]["state"] in ("open", "half-open")

            start("payment-1", payment.port)
            start("inventory-1", inventory.port)
            began, took = time.monotonic(), []
            for url in (products, payments):
                wait_for(lambda url=url: curl(url, "-H", admin()).status == 200, f"{url} to be answered again")  # type: ignore[misc]
                took.append(time.monotonic() - began)
            self.log(gateway, "payment-service: the breaker is closed again")
            print(f"\nback after {took[0]:.1f} s (health check) and {took[1]:.1f} s (breaker)")


def served(answers: list[Answer]) -> set[str]:
    """Return which instances have answered."""
    return {answer.value("X-Served-By") for answer in answers}
