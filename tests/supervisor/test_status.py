"""What the status listener tells of a gateway, whom, and how it is asked."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.certificates import Authority
from tests.harness.gateway import DEADLINE, Gateway, Service, curl, portico_here, refusing_port, reserved_port, wait_for

PLAIN = "routes: [{path: /say, respond: hello}]\n"


@contextmanager
def told(folder: Path, config: str = PLAIN, **options: Any) -> Iterator[tuple[Gateway, str]]:
    """Run a gateway that has a status listener; yield it, and where that is."""
    holder, port = reserved_port()
    holder.close()
    with Gateway(folder, f"status: 127.0.0.1:{port}\n{config}", **options) as gateway:
        gateway.agent_answers()
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: curl(f"{url}/livez", codes=(0, 7)).status == 200, "the status listener")
        yield gateway, url


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with told(tmp_path_factory.mktemp("status")) as (_, url):
        yield url


def test_pages_are_there_to_be_read(url: str) -> None:
    assert curl(f"{url}/livez").json == {"status": "alive"}
    for path in ("/status", "/"):
        answer = curl(f"{url}{path}")
        assert answer.value("Content-Type") == "application/json"
        assert answer.value("Cache-Control") == "no-store"
        assert answer.json["revision"] == 1
    assert b"portico_build_info{" in curl(f"{url}/metrics").body
    for path in ("/status", "/metrics", "/livez"):
        head = curl("--head", f"{url}{path}")
        assert (head.status, head.body) == (200, b"")


def test_nothing_can_be_changed_there(url: str) -> None:
    for path in ("/status", "/metrics", "/livez"):
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            answer = curl("-X", method, f"{url}{path}")
            assert (answer.status, answer.value("Allow")) == (405, "GET, HEAD")
    for path in ("/reload", "/purge", "/why?id=x", "/tail", "/status/"):
        assert curl("-X", "POST", f"{url}{path}").status == 404


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.8.8.8:1", "[::1]", "[::1]:9901"])
def test_it_is_asked_by_a_name_of_this_machine(url: str, host: str) -> None:
    assert curl(f"{url}/status", "-H", f"Host: {host}").status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "0.0.0.0", "[fe80::1]"]
)
def test_a_page_whose_own_name_leads_here_learns_nothing(url: str, host: str) -> None:
    for path in ("/status", "/metrics", "/livez"):
        answer = curl(f"{url}{path}", "-H", f"Host: {host}")
        assert answer.status == 403
        assert answer.json == {"error": "ask by a loopback address, or localhost"}


def test_what_is_too_large_or_no_request_is_refused(url: str) -> None:
    assert curl(f"{url}/status", "-H", f"X-Large: {'x' * 40_000}").status == 431
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=DEADLINE) as client:
        client.sendall(b"GET /status HTTP/1.1\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400")
    assert curl(f"{url}/status").status == 200


def test_there_is_none_unless_it_is_asked_for(tmp_path: Path) -> None:
    with Gateway(tmp_path, PLAIN) as gateway:
        gateway.agent_answers()
        tables = [(Path("/proc") / str(gateway.agent_pid()) / "net" / name).read_text() for name in ("tcp", "tcp6")]
        sockets = Path("/proc") / str(gateway.agent_pid()) / "fd"
        inodes = {os.readlink(each)[8:-1] for each in sockets.iterdir() if os.readlink(each).startswith("socket:[")}  # noqa: PTH115
        listening = [line.split() for table in tables for line in table.splitlines()[1:]]
        assert not [fields for fields in listening if fields[3] == "0A" and fields[9] in inodes]
    done = portico_here("check", str(config_with(tmp_path, "status: 0.0.0.0:9901\n")))
    assert done.code == 1
    assert "0.0.0.0:9901 can be reached from elsewhere" in done.out + done.err


def config_with(folder: Path, text: str) -> Path:
    file = folder / "other.yaml"
    file.write_text(text + PLAIN)
    return file


PARTS = """
state: {{path: {folder}/state}}
services:
  checked:
    targets: [127.0.0.1:{there}, 127.0.0.1:{dead}]
    health: {{path: /health, interval: 200ms, fall: 1, rise: 1}}
  plain: {{url: "http://127.0.0.1:{dead}", breaker: {{}}}}
routes:
  - {{path: /checked, service: checked}}
  - {{path: /plain, service: plain, policies: [rate-limit: 1000/1h]}}
"""


def test_all_parts_of_a_gateway_are_told_of(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("example", "a.example", days=30)
    listen = f"['127.0.0.1:0', {{address: '127.0.0.1:0', tls: {{certificate: {pair.certificate}, key: {pair.key}}}}}]"
    with Service() as service, refusing_port() as dead:
        config = PARTS.format(folder=tmp_path, there=service.port, dead=dead)
        with told(tmp_path, config, workers=2, listen=listen) as (gateway, url):
            for _ in range(4):
                assert curl(f"{gateway.url}/plain").status in (502, 503)

            def targets(name: str) -> dict[str, tuple[str, str]]:
                found = curl(f"{url}/status").json["services"][name]
                return {each["address"]: (each["state"], each["why"]) for each in found}

            well, gone = f"127.0.0.1:{service.port}", f"127.0.0.1:{dead}"
            wait_for(lambda: "unchecked" not in str(targets("checked")), "the first looks")
            found = targets("checked")
            assert found[well] == ("healthy", "")
            assert (found[gone][0], "refused" in found[gone][1].lower()) == ("unhealthy", True)
            assert targets("plain") == {gone: ("unreachable", "it could not be connected to when last tried")}
            state = curl(f"{url}/status").json
            assert [each["name"] for each in state["processes"]] == ["agent", "worker 0", "worker 1"]
            assert {each["state"] for each in state["processes"]} == {"serving"}
            assert set(state["breakers"]) == {"plain"}
            assert state["state"]["store"] == "lmdb"
            assert state["state"]["in_trouble"] == 0
            (certificate,) = state["certificates"]
            assert certificate["file"] == pair.certificate
            assert certificate["expires"] > "2026"
            by_command = json.loads(portico_here("status", str(gateway.file), "--json").out)
            assert by_command.keys() == state.keys()


BROKEN = """
services:
  one: {url: "http://127.0.0.1:1", timeoutt: 3}
routes:
  - {path: /say, respond: hello}
  - {name: checkout, path: /checkout, service: nowhere}
  - {path: /odd, respond: {stauts: 1}}
cors: {}
"""


def test_what_was_wrong_with_a_reload_is_told_by_whose_it_is(tmp_path: Path) -> None:
    with told(tmp_path) as (gateway, url):
        sound = gateway.file.read_text()
        gateway.file.write_text(sound.replace(PLAIN, BROKEN))
        gateway.popen.send_signal(signal.SIGHUP)

        def last() -> Any:
            return curl(f"{url}/status").json["last_reload"]

        failed = wait_for(last, "the reload")
        assert failed["ok"] is False
        assert [(each["severity"], each["object"]) for each in failed["problems"]] == [
            ("error", "service one"),
            ("error", "route checkout"),
            ("error", "route /odd"),
            ("error", "cors"),
        ]
        first = failed["problems"][0]
        assert first["message"] == "unknown key 'timeoutt' in service one"
        assert first["hint"] == "did you mean 'timeout'?"
        line = 1 + sound.replace(PLAIN, BROKEN).split("timeoutt")[0].count("\n")
        assert first["place"].startswith(f"{gateway.file}:{line}:")
        lines = portico_here("status", str(gateway.file)).out.splitlines()
        at = lines.index("  route checkout:")
        assert "there is no service 'nowhere'" in lines[at + 1]
        assert curl(f"{gateway.url}/say").status == 200
        gateway.file.write_text(sound)
        gateway.popen.send_signal(signal.SIGHUP)
        wait_for(lambda: last()["ok"], "the next one")
        assert last()["problems"] == []
