"""`portico demo`: the example platform as real processes, with the gateway in front, until Ctrl-C.

The services are those of `examples/platform`; a wheel carries that folder beside this file, as `platform`.
"""

from __future__ import annotations

import re
import shlex
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from portico.cli.children import Child, Interrupted, Signals, end
from portico.errors import PorticoError

HOST = "127.0.0.1"
PORT = 8000
SERVICES_FROM = 9000
START_SECONDS = 20.0
STOP_SECONDS = 10.0
AGAIN_SECONDS = 5.0
"""When an instance that has died is started again."""
PROBE_SECONDS = 1.0


class DemoFailed(PorticoError):
    """The demo cannot start, or cannot go on; the message says why, and how to mend it."""


@dataclass(frozen=True)
class Instance:
    """One process of a service; its port is `offset` above the first port of the services."""

    name: str
    service: str
    offset: int

    @property
    def script(self) -> str:
        """The file that it runs."""
        return f"{self.service.replace('-', '_')}.py"


INSTANCES = (
    Instance("user-1", "user-service", 1),
    Instance("user-2", "user-service", 11),
    Instance("order-1", "order-service", 2),
    Instance("order-2", "order-service", 12),
    Instance("inventory-1", "inventory-service", 3),
    Instance("payment-1", "payment-service", 4),
    Instance("notification-1", "notification-service", 5),
)
PEERS = {"order-service": ("inventory-service", "payment-service", "notification-service")}
"""Which services a service calls; it takes their addresses as options of these names."""


SECRET = "the-demo-secret-that-everyone-knows"  # noqa: S105 - it says so
"""What the user service signs tokens with."""
_WITH_TOKEN = '-H "$AUTH"'  # noqa: S105 - the shell's variable


def _token(user: int, role: str) -> str:
    return f"Authorization: Bearer $(PORTICO token --secret {SECRET} --issuer user-service --sub {user} --roles {role})"


def _post(path: str, document: str, *more: str) -> str:
    return " ".join((f"curl -s -i GATEWAY/api/v1/{path} -H 'Content-Type: application/json' -d '{document}'", *more))


TOUR = (
    ("a token of an administrator, for the lines below", f'AUTH="{_token(1, "admin")}"'),
    ("a product, for which nobody needs one", "curl -s GATEWAY/api/v1/products/keyboard"),
    ("an order without one: 401", "curl -s -i GATEWAY/api/v1/orders/1"),
    (
        "a customer where only an administrator may go: 403",
        f'curl -s -i GATEWAY/api/v1/users -H "{_token(2, "customer")}"',
    ),
    ("a list", "curl -s 'GATEWAY/api/v1/products?limit=2'"),
    (
        "an order: the order service asks inventory, payment and notification",
        _post("orders", '{"customer":"Ada","items":[{"product_id":"keyboard","quantity":2}]}', _WITH_TOKEN),
    ),
    ("more than there is: 409", _post("orders", '{"items":[{"product_id":"monitor","quantity":99}]}', _WITH_TOKEN)),
    (
        "a card that is refused: 402, and the goods go back",
        _post("orders", '{"card":"4000000000000002","items":[{"product_id":"mouse","quantity":1}]}', _WITH_TOKEN),
    ),
    ("a login, which gives a token, too", _post("auth/login", '{"email":"ada@example.com","password":"demo"}')),
    (
        "two instances take turns",
        f"curl -s -o /dev/null -D - 'GATEWAY/api/v1/users?page=[1-4]' {_WITH_TOKEN} | grep -i x-served-by",
    ),
    (
        "events as they happen, for 5 seconds",
        f"curl -s -N 'GATEWAY/api/v1/notifications/stream?seconds=5' {_WITH_TOKEN}",
    ),
    ("a service that is too slow: 504 after 2 seconds", "curl -s -i 'GATEWAY/shop/api/v1/products?delay=5'"),
    (
        "a body that is too large: 413",
        f"head -c 2000000 /dev/zero | curl -s -i GATEWAY/api/v1/orders --data-binary @- {_WITH_TOKEN}",
    ),
    ("a path that no route has: 404", f"curl -s -i GATEWAY/api/v1/nothing {_WITH_TOKEN}"),
    (
        "a method that its route does not take: 405, Allow says which",
        f"curl -s -i -X DELETE GATEWAY/api/v1/orders/1 {_WITH_TOKEN}",
    ),
    (
        "kill -9 for one of two instances while requests come: all are answered; it is started again after 5 seconds",
        (
            "for n in $(seq 40); do [ $n = 9 ] && kill -9 USER_1; "
            f"curl -s -w '%{{http_code}}\\n' GATEWAY/api/v1/roles {_WITH_TOKEN}; done"
        ),
    ),
    ("a redirect", "curl -s -i GATEWAY/"),
    ("an answer of the gateway itself", "curl -s -i GATEWAY/ping"),
    ("the gateway's health", "curl -s GATEWAY/health"),
)
"""What to try: what it shows, and one line for the shell, in which GATEWAY stands for the gateway's URL, USER_1 for
the process of the first instance of the user service, and PORTICO for this command."""


def portico_run(config: Path) -> Sequence[str]:
    """Return the command that runs the gateway."""
    return (sys.executable, "-m", "portico", "run", str(config))


def _this() -> str:
    """Return how a shell calls this command."""
    script = Path(sys.executable).with_name("portico")
    return shlex.quote(str(script)) if script.is_file() else f"{shlex.quote(sys.executable)} -m portico"


def platform_folder() -> Path:
    """Return where the services and their `portico.yaml` are: in a wheel, or in a checkout of the source."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "platform", here.parents[3] / "examples" / "platform"):
        if (folder / "portico.yaml").is_file():
            return folder
    raise DemoFailed(f"the folder of the example platform is missing beside {here}: install portico again")


def service_command(service: str, *, host: str, port: int, data: Path) -> list[str]:
    """Return the command that runs one service of the platform. Raises DemoFailed where there is none of that name."""
    scripts = {instance.service: instance.script for instance in INSTANCES}
    if service not in scripts:
        raise DemoFailed(f"there is no {service}, but {', '.join(scripts)}")
    script = platform_folder() / scripts[service]
    return [sys.executable, str(script), "--host", host, "--port", str(port), "--data", str(data)]


def run_demo(
    *, port: int = PORT, services_from: int = SERVICES_FROM, gateway: Callable[[Path], Sequence[str]] = portico_run
) -> int:
    """Run the demo until a signal ends it, and return the command's exit code."""
    with Signals() as signals, TemporaryDirectory(prefix="portico-demo-") as data:
        demo = _Demo(signals, Path(data), port, services_from)
        try:
            demo.start_services()
            demo.start_gateway(gateway)
            demo.watch()
        except Interrupted:
            print("\nEnding the gateway and the services.", flush=True)
            return 0
        except DemoFailed as failure:
            print(f"portico demo: {failure}", file=sys.stderr, flush=True)
            return 1
        finally:
            demo.end()


class _Demo:
    """The processes of one demo."""

    def __init__(self, signals: Signals, data: Path, port: int, services_from: int) -> None:
        self._signals = signals
        self._data = data
        self._port = port
        self._services_from = services_from
        self._instances: dict[Instance, Child] = {}
        self._children: list[Child] = []

    def start_services(self) -> None:
        """Start every instance, and wait until all of them answer."""
        _want(self._port, "the gateway", "--port")
        for instance in INSTANCES:
            _want(self._services_from + instance.offset, instance.name, "--services-from")
        for instance in INSTANCES:
            self._start(instance)
        for instance, child in self._instances.items():
            self._wait_for(child, self._services_from + instance.offset, "/health")
            self._tell(instance, child)

    def start_gateway(self, command: Callable[[Path], Sequence[str]]) -> None:
        """Start the gateway, and say what to try as soon as it answers."""
        config = self._config(platform_folder() / "portico.yaml")
        gateway = Child("the gateway", command(config))
        self._children.append(gateway)
        self._wait_for(gateway, self._port, "/livez")
        print(f"{gateway.name:<16} http://{HOST}:{self._port}  pid {gateway.pid}  {config}\n")
        url, user_1 = f"http://{HOST}:{self._port}", str(self._instances[INSTANCES[0]].pid)
        for shows, line in TOUR:
            print(f"# {shows}\n{line.replace('GATEWAY', url).replace('USER_1', user_1).replace('PORTICO', _this())}")
        print("\nCtrl-C ends it all.", flush=True)

    def watch(self) -> NoReturn:
        """Report instances that die, and start them again, until a signal comes or the gateway dies."""
        gateway = self._children[-1]
        due: dict[Instance, float] = {}
        while True:
            self._signals.check()
            if not gateway.alive():
                raise DemoFailed(gateway.epitaph())
            now = time.monotonic()
            for instance, child in self._instances.items():
                if instance not in due and not child.alive():
                    due[instance] = now + AGAIN_SECONDS
                    further = f"the others go on, and it is started again in {AGAIN_SECONDS:g} s"
                    print(f"portico demo: {child.epitaph()}; {further}", file=sys.stderr, flush=True)
            for instance in [instance for instance, at in due.items() if at <= now]:
                del due[instance]
                self._tell(instance, self._start(instance))
            self._signals.pause(max(0.0, min(due.values()) - now) if due else None)

    def _start(self, instance: Instance) -> Child:
        log = self._data / f"{instance.name}.log"
        child = Child(instance.name, self._command(platform_folder(), instance), log=log)
        before = self._instances.get(instance)
        if before is not None:
            before.bury()
            self._children.remove(before)
        self._instances[instance] = child
        self._children.insert(0, child)
        return child

    def _tell(self, instance: Instance, child: Child) -> None:
        port = self._services_from + instance.offset
        print(f"{instance.name:<16} http://{HOST}:{port}  pid {child.pid}", flush=True)

    def end(self) -> None:
        """End every process, the gateway first."""
        end(self._children[::-1], self._signals, STOP_SECONDS)

    def _command(self, folder: Path, instance: Instance) -> list[str]:
        command = [sys.executable, str(folder / instance.script), "--end-with-stdin", "--data", str(self._data)]
        command += ["--name", instance.name, "--port", str(self._services_from + instance.offset)]
        for peer in INSTANCES:
            if peer.service in PEERS.get(instance.service, ()):
                command += [f"--{peer.service}", f"http://{HOST}:{self._services_from + peer.offset}"]
        return command

    def _config(self, original: Path) -> Path:
        """Return the gateway's file: the example's own, or a copy with the ports that were asked for."""
        ports = {SERVICES_FROM + instance.offset: self._services_from + instance.offset for instance in INSTANCES}
        ports[PORT] = self._port
        if all(old == new for old, new in ports.items()):
            return original
        text = original.read_text(encoding="utf-8")
        for_us = re.sub(rf"{re.escape(HOST)}:(\d+)", lambda found: f"{HOST}:{ports.get(int(found[1]), found[1])}", text)
        copy = self._data / original.name
        copy.write_text(for_us, encoding="utf-8")
        return copy

    def _wait_for(self, child: Child, port: int, path: str) -> None:
        answered = self._signals.until(lambda: _answers(port, path) or not child.alive(), START_SECONDS)
        if not child.alive():
            raise DemoFailed(child.epitaph())
        if not answered:
            raise DemoFailed(f"{child.name} does not answer at http://{HOST}:{port}{path} after {START_SECONDS:g} s")


def _want(port: int, name: str, option: str) -> None:
    """Fail if a port cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            mend = f"end what has it (`ss -ltnp 'sport = :{port}'` shows it), or choose another with {option}"
            raise DemoFailed(f"port {port}, which {name} needs, is not free ({reason}): {mend}") from error


def _answers(port: int, path: str) -> bool:
    """Return whether 200 is what a process of this machine answers."""
    with closing(HTTPConnection(HOST, port, timeout=PROBE_SECONDS)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
