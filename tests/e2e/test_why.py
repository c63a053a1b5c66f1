"""What became of a request, as the gateway's own commands tell it, whichever worker has answered."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from portico.agent.control_socket import sockets_of
from tests.harness.gateway import (
    DEADLINE,
    PORTICO,
    Call,
    Gateway,
    Service,
    curl,
    echo,
    portico,
    portico_here,
    refusing_port,
    wait_for,
)
from tests.harness.load import Load

CONFIG = """
services:
  svc: {{targets: [{targets}], balance: round-robin}}
policies: [correlation-id]
routes:
  - {{name: svc, path: "/svc/**", service: svc}}
  - {{name: posts, path: "/svc/**", methods: [POST], service: svc}}
  - name: never
    path: /never
    service: svc
    policies: [{{ip-restriction: {{deny: [127.0.0.0/8]}}}}, {{headers: {{}}}}]
  - {{name: hi, path: /hi, respond: {{body: hi}}}}
"""


def config(*targets: int, extra: str = "") -> str:
    return extra + CONFIG.format(targets=", ".join(f"127.0.0.1:{port}" for port in targets))


def why(gateway: Gateway, wanted: str) -> dict[str, Any]:
    """Return the one request with an id."""
    gateway.agent_answers()

    def asked() -> Any:
        done = portico_here("why", wanted, "--json", "--file", str(gateway.file))
        assert done.err == ""
        return json.loads(done.out)["found"]

    (found,) = wait_for(asked, "the request to be over")
    assert isinstance(found, dict)
    return found


def test_a_request_that_was_sent_again_over_a_dead_target(tmp_path: Path) -> None:
    with (
        Service() as service,
        refusing_port() as dead,
        Gateway(tmp_path, config(dead, service.port), workers=2) as gateway,
    ):
        for number in range(6):  # until a worker has met the dead target
            curl(f"{gateway.url}/svc/a?token=secret", "-H", f"X-Correlation-ID: id-{number}")
        found = next(each for number in range(6) if len((each := why(gateway, f"id-{number}"))["tries"]) == 2)
        first, last = found["tries"]
        assert (first["target"], first["outcome"]) == (f"127.0.0.1:{dead}", "service-unreachable")
        assert (last["target"], last["outcome"]) == (f"127.0.0.1:{service.port}", "answered")
        assert found["status"] == 200
        assert found["target"] == "/svc/a?token=…"
        assert [candidate["route"] for candidate in found["candidates"]] == ["posts", "svc"]
        text = told(gateway, found["correlation_id"])
        assert f"service svc answered, from 127.0.0.1:{service.port}, at try 2" in text
        assert f"try 1: 127.0.0.1:{dead}, service-unreachable" in text
        assert "secret" not in text
        assert told(gateway, found["id"]) == text


def test_a_request_that_a_policy_has_refused(tmp_path: Path) -> None:
    with Service() as service, Gateway(tmp_path, config(service.port), workers=2) as gateway:
        assert curl(f"{gateway.url}/never", "-H", "X-Correlation-ID: refused").status == 403
        found = why(gateway, "refused")
        assert found["stopped_by"] == "ip-restriction"
        assert {policy["name"]: policy["verdict"] for policy in found["policies"]} == {
            "correlation-id": "passed",
            "ip-restriction": "answered",
            "headers": "not asked",
        }
        assert found["policies"][1]["origin"].startswith(f"{gateway.file}:")
        assert found["tries"] == []
        assert "next would have been: headers, then service svc" in told(gateway, "refused")
        done = portico("why", "another", "--file", str(gateway.file))
        assert (done.code, done.err) == (1, "")
        assert done.out.startswith("no request another is remembered by 2 workers")


def test_a_request_whose_client_has_left(tmp_path: Path) -> None:
    asked, over = threading.Event(), threading.Event()

    def late(call: Call) -> None:
        asked.set()
        over.wait(DEADLINE)
        with suppress(OSError):
            echo(call)

    with Service(late) as service, Gateway(tmp_path, config(service.port), workers=2) as gateway:
        with gateway.connect() as client:
            client.sendall(b"GET /svc/a HTTP/1.1\r\nHost: a\r\nX-Correlation-ID: left\r\n\r\n")
            assert asked.wait(DEADLINE)
        found = why(gateway, "left")
        assert (found["status"], found["outcome"]) == (499, "client-left")
        assert [each["outcome"] for each in found["tries"]] == ["cancelled"]
        assert found["tries"][0]["first_byte"] is None
        over.set()
        assert f"the client left while service svc at 127.0.0.1:{service.port}" in told(gateway, "left")


def test_what_was_malformed_is_remembered_by_its_number(tmp_path: Path) -> None:
    with Service() as service, Gateway(tmp_path, config(service.port)) as gateway, tail(gateway) as lines:
        with gateway.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 400")
        record = wait_for(lambda: [each for each in lines.records() if each["status"] == 400], "the line")[0]
        assert "it never became a request: malformed-request" in told(gateway, record["id"])


def told(gateway: Gateway, wanted: str) -> str:
    """Return what is told of the request in words."""
    return portico_here("why", wanted, "--file", str(gateway.file)).out


class Lines:
    """What a command prints."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.popen = popen
        self._lines: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.append(line)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in tuple(self._lines)]

    def end(self) -> int:
        self.popen.send_signal(signal.SIGINT)
        code = self.popen.wait(DEADLINE)
        self._thread.join(DEADLINE)
        return code


@contextmanager
def tail(gateway: Gateway, *options: str) -> Iterator[Lines]:
    """Run `portico tail`, which sees what comes from now on."""
    gateway.agent_answers()
    command = [*PORTICO, "tail", "--json", "--file", str(gateway.file), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as popen:
        lines = Lines(popen)
        try:
            wait_for(lambda: curl(f"{gateway.url}/hi?{'x' * 10}").status == 200 and lines.records(), "the first line")
            yield lines
        finally:
            popen.kill()


def test_requests_of_all_workers_are_shown_until_ctrl_c(tmp_path: Path) -> None:
    with Service() as service, Gateway(tmp_path, config(service.port), workers=2) as gateway, tail(gateway) as lines:
        for number in range(40):
            curl(f"{gateway.url}/svc/{number}")
        seen = wait_for(
            lambda: len(now := [each for each in lines.records() if each["route"] == "svc"]) == 40 and now, "all"
        )
        assert {each["worker"] for each in seen} == {0, 1}
        assert {each["pid"] for each in seen} == set(gateway.worker_pids())
        assert lines.end() == 130


def test_a_worker_that_comes_later_is_seen_too(tmp_path: Path) -> None:
    with Service() as service, Gateway(tmp_path, config(service.port)) as gateway, tail(gateway) as lines:
        (before,) = gateway.worker_pids()
        with suppress(ProcessLookupError):
            subprocess.run(["kill", "-KILL", str(before)], check=True)
        wait_for(lambda: before not in gateway.worker_pids() and gateway.worker_pids(), "the next worker")

        def seen() -> list[dict[str, Any]]:
            with suppress(AssertionError):
                curl(f"{gateway.url}/hi")
            return [each for each in lines.records() if each["pid"] != before]

        assert wait_for(seen, "a request of the next worker")


def test_only_what_is_asked_for_is_shown(tmp_path: Path) -> None:
    with Service() as service, Gateway(tmp_path, config(service.port)) as gateway:
        gateway.agent_answers()
        command = [*PORTICO, "tail", "--status", "4xx", "--json", "--file", str(gateway.file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as popen:
            lines = Lines(popen)
            wait_for(lambda: curl(f"{gateway.url}/nothing").status == 404 and lines.records(), "the first line")
            curl(f"{gateway.url}/hi")
            curl(f"{gateway.url}/never")
            wait_for(lambda: [each for each in lines.records() if each["route"] == "never"], "the last line")
            assert {each["status"] for each in lines.records()} == {403, 404}
            assert lines.end() == 130
        done = portico_here("tail", "--status", "x", "--file", str(gateway.file))
        assert done.err == "'x' is not a status: write 5xx, 404 or 400-499\n"


def test_who_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    with Service() as service, Gateway(tmp_path, config(service.port)) as gateway:
        gateway.agent_answers()
        (path,) = sockets_of(str(gateway.file))
        with socket.socket(socket.AF_UNIX) as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(str(path))
            reader.sendall(b"GET /tail HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert reader.recv(12) == b"HTTP/1.1 200"
            with Load(gateway.port, "/hi") as load:
                load.some_more(1000)
            assert not load.failures
        assert json.loads(portico_here("status", "--json", str(gateway.file)).out)["processes"]


def test_rates_and_targets_are_shown_over_all_workers(tmp_path: Path) -> None:
    with Service() as service, Gateway(tmp_path, config(service.port), workers=2) as gateway:
        gateway.agent_answers()
        with Load(gateway.port, "/svc/a"):
            done = portico("top", "--every", "1s", "--count", "2", "--file", str(gateway.file))
        assert (done.code, done.err) == (0, "")
        last = done.out.split("portico ")[-1]
        assert "2 of 2 workers serve" in last
        (row,) = [line.split() for line in last.splitlines() if line.startswith("/svc/**")]
        assert row[1] == "svc"
        assert float(row[2]) > 1
        assert row[3:5] == ["0.0%", "0.0%"]
        assert f"127.0.0.1:{service.port}" in last


KEPT = """
access_log: {{file: access.log}}
services: {{svc: "http://127.0.0.1:{port}"}}
policies: [correlation-id, rate-limit: {{limits: 5/1h}}]
routes:
  - {{name: shop, path: "/shop/**", service: svc, policies: [{{cache: {{ttl: 60s}}}}, {{headers: {{}}}}]}}
  - {{name: pay, path: /pay, service: svc, policies: [idempotency-key]}}
"""


def test_what_was_kept_is_told_to_be_answered_by_who_has_kept_it(tmp_path: Path) -> None:
    with Service() as service, Gateway(tmp_path, KEPT.format(port=service.port), workers=2) as gateway:
        for number in range(2):
            assert curl(f"{gateway.url}/shop/a", "-H", f"X-Correlation-ID: get-{number}").status == 200
            paid = ("-d", "x", "-H", 'Idempotency-Key: "k"', "-H", f"X-Correlation-ID: pay-{number}")
            assert curl(f"{gateway.url}/pay", *paid).status == 200
        assert curl(f"{gateway.url}/pay", "-d", "x", "-H", "X-Correlation-ID: fifth").status == 200
        assert curl(f"{gateway.url}/pay", "-d", "x", "-H", "X-Correlation-ID: sixth").status == 429

        def chain(wanted: str) -> list[tuple[str, str, str]]:
            policies = why(gateway, wanted)["policies"]
            return [(policy["name"], policy["verdict"], policy["result"]) for policy in policies[1:]]

        allowed = ("rate-limit", "passed", "allowed")
        assert chain("get-0") == [allowed, ("cache", "passed", "miss"), ("headers", "passed", "")]
        assert chain("get-1") == [allowed, ("cache", "answered", "hit"), ("headers", "not asked", "")]
        assert chain("pay-0") == [allowed, ("idempotency-key", "passed", "first")]
        assert chain("pay-1") == [allowed, ("idempotency-key", "answered", "replayed")]
        assert chain("sixth") == [("rate-limit", "answered", "limited"), ("idempotency-key", "not asked", "")]
        assert [each["target"] for each in why(gateway, "get-0")["tries"]] == [f"127.0.0.1:{service.port}"]
        assert why(gateway, "get-1")["tries"] == []
        assert "the policy cache answered (hit), and not service svc" in told(gateway, "get-1")
        replayed = told(gateway, "pay-1")
        assert "the policy idempotency-key answered (replayed), and not service svc" in replayed
        assert "idempotency-key: asked the store for its key" in replayed
        lines = {line["correlation_id"]: line for line in read_lines(tmp_path / "access.log", 6)}
        names = ("cache", "limit", "limit_policy", "idempotency", "stopped_by")
        assert {wanted: [line.get(name) for name in names] for wanted, line in lines.items()} == {
            "get-0": ["miss", "allowed", "rate-limit", None, None],
            "get-1": ["hit", "allowed", "rate-limit", None, "cache"],
            "pay-0": [None, "allowed", "rate-limit", "first", None],
            "pay-1": [None, "allowed", "rate-limit", "replayed", "idempotency-key"],
            "fifth": [None, "allowed", "rate-limit", None, None],
            "sixth": [None, "limited", "rate-limit", None, "rate-limit"],
        }


def read_lines(file: Path, count: int) -> list[dict[str, Any]]:
    """Return the lines of a log, once there are so many."""

    def read() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
        return lines if len(lines) == count else []

    return wait_for(read, f"{count} lines")
