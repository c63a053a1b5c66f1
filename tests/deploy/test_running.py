"""What `deploy/` describes runs: the gateway's file alone, also in a read-only root, and all of the compose file."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from portico.cli.platform_demo import INSTANCES
from portico.jose.mint import secret_key, sign
from tests.harness.deployment import (
    SECRET,
    compose,
    container,
    environment,
    filled,
    for_a_test,
    given_to,
    instruction,
    pod,
    store,
    variables,
)
from tests.harness.gateway import DEADLINE, PORTICO, Gateway, curl, portico, refusing_port, wait_for
from tests.harness.valkey import ValkeyServer

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables().all:
        monkeypatch.delenv(name, raising=False)


def with_variables(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize("redis", [{}, {"REDIS_URL": "redis://redis:6379"}], ids=["by-itself", "redis"])
def test_the_file_is_well(redis: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "portico.yaml"
    file.write_text("listen: 127.0.0.1:0\n" + for_a_test(), "utf-8")
    given = {each["name"]: each["value"] for each in container()["env"] if "value" in each}
    given = {name: given[name] for name in given if name != "REDIS_URL"}
    done = portico("check", file, **given, **redis, JWT_SECRET=SECRET)
    assert (done.code, done.err) == (0, "")


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize("name", sorted(variables().required))
def test_what_it_needs_is_asked_for_by_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / "portico.yaml"
    file.write_text("listen: 127.0.0.1:0\n" + for_a_test(), "utf-8")
    given = environment(NOWHERE)
    del given[name]
    done = portico("check", file, **given)
    assert done.code == 1
    assert f"the environment has no variable {name}" in done.err


@pytest.mark.usefixtures("no_variables")
def test_probes_are_answered_though_nothing_is_behind_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing_port() as port:
        with_variables(monkeypatch, environment(f"http://127.0.0.1:{port}", REDIS_URL=f"redis://127.0.0.1:{port}"))
        with Gateway(tmp_path, for_a_test()) as gateway:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = container()[probe]["httpGet"]["path"]
                assert curl(gateway.url + path).status == 200
            assert curl(f"{gateway.url}/health").json["status"] in ("healthy", "degraded")
            assert curl(f"{gateway.url}/api/v1/products").status in (502, 503)
            asked = curl(f"{gateway.url}/api/v1/orders/1")
            assert (asked.status, asked.value("WWW-Authenticate")) == (401, 'Bearer realm="api"')


def test_a_probe_of_a_gateway_that_is_full_is_refused(tmp_path: Path) -> None:
    """Which is why the liveness probe has patience."""
    path = container()["livenessProbe"]["httpGet"]["path"]
    with Gateway(tmp_path, "limits: {connections: 1}\nroutes: []\n") as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=DEADLINE) as kept:
            kept.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            assert kept.recv(100).startswith(b"HTTP/1.1 200 ")
            assert curl(gateway.url + path).status == 503
        wait_for(lambda: curl(gateway.url + path).status == 200, "room again")


@pytest.mark.usefixtures("no_variables")
def test_the_store_of_kubernetes_takes_the_gateways_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"api-gateway-secrets/jwt-secret": SECRET, "redis-secrets/password": "0f" * 32}
    program, *options = store()["command"]
    assert program == "valkey-server"
    known = given_to(store(), secrets)
    with ValkeyServer(*(filled(option, known) for option in options)) as valkey, refusing_port() as nobody:
        assert "NOAUTH" in str(valkey.say("DBSIZE"))
        valkey.password = secrets["redis-secrets/password"]
        assert valkey.say("DBSIZE") == 0
        given = given_to(container(), secrets)
        url = given["REDIS_URL"].replace("@redis:6379", f"@127.0.0.1:{valkey.port}")
        with_variables(monkeypatch, environment(f"http://127.0.0.1:{nobody}", REDIS_URL=url))
        with Gateway(tmp_path, for_a_test()) as gateway:
            assert curl(f"{gateway.url}/api/v1/products").status in (502, 503)
            assert valkey.say("DBSIZE") > 0
            assert secrets["redis-secrets/password"] not in gateway.log()


def read_only(command: str) -> list[str]:
    """Return a command in a root that cannot be written to but for the mounts of a pod; or skip the test."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can make a read-only root")
    mounts = [mount["mountPath"] for mount in container()["volumeMounts"]]
    memory = [volume["name"] for volume in pod()["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"]
    (runtime,) = (mount["mountPath"] for mount in container()["volumeMounts"] if mount["name"] in memory)
    assert runtime in mounts
    script = f"""
        set -e
        mount -t proc proc /proc
        mount -t tmpfs -o mode=0755 tmpfs /run
        mkdir {runtime} && chmod 2777 {runtime}
        for folder in /tmp /dev/shm; do mount --bind $folder $folder; mount -o remount,ro,bind $folder; done
        mount -o remount,ro,bind /
        for folder in / /tmp /dev/shm; do
            if touch $folder/portico-test 2>/dev/null; then echo "$folder can be written to"; exit 3; fi
        done
        exec {command}
    """
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]


@pytest.mark.usefixtures("no_variables")
def test_it_runs_as_the_first_process_of_a_read_only_root(tmp_path: Path) -> None:
    runtime = re.search(r"PORTICO_RUNTIME_DIR=(\S+)", instruction("ENV").text)
    assert runtime is not None
    file = tmp_path / "portico.yaml"
    file.write_text("listen: 127.0.0.1:0\nworkers: 1\n" + for_a_test(), "utf-8")
    given = environment(NOWHERE, PORTICO_RUNTIME_DIR=runtime[1])  # and no Redis: what is counted is in memory
    command = read_only(" ".join((*PORTICO, "run", str(file))))
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, env=os.environ | given, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        ) as outside,
    ):
        try:
            port = wait_for(lambda: port_in(outside, log), "the gateway")
            answer = curl(f"http://127.0.0.1:{port}/api/v1/products")
            assert answer.value("RateLimit").endswith(";r=99;t=3600")
            (inside,) = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()
            os.kill(int(inside), signal.SIGTERM)
            assert outside.wait(DEADLINE) == 0
        finally:
            outside.kill()
    assert "Traceback" not in log.read_text()


def port_in(process: subprocess.Popen[bytes], log: Path) -> int:
    """Return the port that a log tells, or 0."""
    assert process.poll() is None, log.read_text()
    found = re.search(r"listening on http://127\.0\.0\.1:(\d+) ", log.read_text())
    return int(found[1]) if found else 0


# The platform


class Platform:
    """The services of the compose file as processes of this machine, each at another port."""

    def __init__(self, folder: Path, redis: str) -> None:
        self._folder = folder
        self._services = compose()["services"]
        self._redis = redis
        self._held = {service: held_port() for service in {instance.service for instance in INSTANCES}}
        self._ports = {service: int(held.getsockname()[1]) for service, held in self._held.items()}

    def environment(self, name: str) -> dict[str, str]:
        """Return what a service's environment is, with the places where the others are now."""
        given = {key: str(value) for key, value in self._services[name].get("environment", {}).items()}
        for variable in given:
            service = variable.removesuffix("_URL").lower().replace("_", "-")
            if service in self._ports:
                given[variable] = f"http://127.0.0.1:{self._ports[service]}"
        places = {"JWT_SECRET": SECRET, "REDIS_URL": self._redis, "LOG_LEVEL": "INFO"}
        return given | {name: value for name, value in places.items() if name in given}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._held.values():
            held.close()

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Run a service by its command."""
        command = list(self._services[name]["command"])
        command[command.index("--port") + 1] = str(self._ports[name])
        command[command.index("--host") + 1] = "127.0.0.1"
        folder = self._folder / name
        folder.mkdir()
        with subprocess.Popen(
            [*PORTICO, *command], cwd=folder, env=os.environ | self.environment(name), stdout=subprocess.DEVNULL
        ) as process:
            try:
                yield
                process.terminate()
                assert process.wait(DEADLINE) == 0
            finally:
                process.kill()

    def is_well(self, name: str) -> bool:
        """Return what the health check of a service says."""
        _, python, *arguments, url = self._services[name]["healthcheck"]["test"]
        assert python == "python"
        url = re.sub(r":\d+/", f":{self._ports[name]}/", url)
        done = subprocess.run([sys.executable, *arguments, url], capture_output=True, timeout=DEADLINE)
        return done.returncode == 0


def held_port() -> socket.socket:
    """Return a socket that keeps its port from all who ask for any, and not from a server that asks for just that."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def token(role: str) -> str:
    claims: dict[str, Any] = {"sub": "1", "iss": "user-service", "roles": [role], "exp": 4_000_000_000}
    return f"Authorization: Bearer {sign(claims, secret_key(SECRET))}"


@pytest.mark.usefixtures("no_variables")
def test_the_platform_of_the_compose_file_takes_an_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        valkey = stack.enter_context(ValkeyServer())
        platform = stack.enter_context(Platform(tmp_path, f"redis://127.0.0.1:{valkey.port}"))
        names = dict.fromkeys(instance.service for instance in INSTANCES)
        for name in names:
            stack.enter_context(platform.running(name))
        for name in names:
            wait_for(lambda name=name: platform.is_well(name), name)  # type: ignore[misc]
        with_variables(monkeypatch, platform.environment("api-gateway"))
        with Gateway(tmp_path, for_a_test()) as gateway:
            login = curl(f"{gateway.url}/api/v1/auth/login", "-d", '{"email":"ada@example.com","password":"demo"}')
            assert login.status == 200
            authorization = f"Authorization: Bearer {login.json['token']}"
            order = ("-d", '{"items":[{"product_id":"mouse","quantity":1}]}')
            once = ("-H", "Idempotency-Key: 7", "-H", authorization)
            first = curl(f"{gateway.url}/api/v1/orders", *order, *once)
            again = curl(f"{gateway.url}/api/v1/orders", *order, *once)
            assert (first.status, again.body) == (201, first.body)
            assert curl(f"{gateway.url}/api/v1/users", "-H", token("customer")).status == 403
            assert curl(f"{gateway.url}/api/v1/users", "-H", token("admin")).status == 200
            assert curl(f"{gateway.url}/api/v1/users").status == 401
            assert valkey.say("DBSIZE") > 0  # what is counted is there
