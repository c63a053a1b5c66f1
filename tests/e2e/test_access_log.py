"""The access log of a gateway: a line for each answer, whatever happens to workers, files, and who reads."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.harness.gateway import DEADLINE, Call, Gateway, Service, children_of, curl, is_process, wait_for
from tests.harness.load import Load

Line = dict[str, Any]

HELLO = "routes: [{path: /hello/**, respond: {body: hello}}]\n"


def lines_of(*files: Path) -> list[Line]:
    """Return the lines of some files, each of which must be whole."""
    lines = []
    for file in files:
        text = file.read_bytes()
        assert not text or text.endswith(b"\n")
        lines += [json.loads(line) for line in text.split(b"\n")[:-1]]
    return lines


def line_with(file: Path, **wanted: object) -> Line:
    """Wait for the one line that says so, and return it."""

    def found() -> list[Line]:
        text = file.read_text() if file.exists() else ""
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
        return [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]

    (line,) = wait_for(found, f"a line with {wanted}")
    return line


def send(gateway: Gateway, data: bytes) -> bytes:
    """Send some bytes on a connection of their own; return what comes until it is closed."""
    with gateway.connect() as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def dropped(gateway: Gateway) -> int:
    """Return how many lines the gateway says that it has lost."""
    text = curl(f"{gateway.url}/metrics").body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith("portico_access_log_dropped_total ")]
    return int(line.rpartition(" ")[2])


def test_each_field_is_there(tmp_path: Path) -> None:
    with Service() as service:
        config = f"""
access_log: {{file: access.log, headers: [X-Shown], hashed: [Authorization], hash_key: pepper}}
trusted_proxies: 127.0.0.1
services: {{orders: "http://127.0.0.1:{service.port}"}}
consumers: {{ada: {{keys: [a-very-long-key-of-ada]}}}}
policies: [correlation-id]
routes:
  - {{name: shop, path: /shop/**, service: orders, policies: [key-auth]}}
"""
        with Gateway(tmp_path, config) as gateway:
            headers = {
                "X-API-Key": "a-very-long-key-of-ada",
                "X-Correlation-ID": "one-two",
                "User-Agent": 'a "browser"',
                "X-Forwarded-For": "203.0.113.7",
                "X-Forwarded-Proto": "https",
                "X-Shown": "yes",
                "Authorization": "Basic c2VjcmV0",
                "Cookie": "not=shown",
            }
            options = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
            answer = curl(*options, "--data", "12345", f"{gateway.url}/shop/a%20b?page=2&access_token=hidden&q=%C3%A9")
            line = line_with(tmp_path / "access.log", status_code=200)
            assert answer.status == 200
            told = {key: line.pop(key) for key in ("timestamp", "duration_ms", "upstream_ms")}
            assert len(told["timestamp"]) == len("2026-12-01T12:00:00.000Z")
            assert told["timestamp"].endswith("Z")
            assert 0 <= told["upstream_ms"] <= told["duration_ms"] < DEADLINE * 1000
            (print_,) = [line["headers"].pop("authorization")]
            assert len(print_) == len("hmac:") + 16
            assert line == {
                "method": "POST",
                "url": f"https://127.0.0.1:{gateway.port}/shop/a%20b?page=2&access_token=[redacted]&q=%C3%A9",
                "status_code": 200,
                "user_id": "ada",
                "correlation_id": "one-two",
                "user_agent": 'a "browser"',
                "ip_address": "203.0.113.7",
                "route": "shop",
                "service": "orders",
                "target": f"127.0.0.1:{service.port}",
                "tries": 1,
                "bytes_in": 5,
                "bytes_out": len(answer.body),
                "outcome": "complete",
                "headers": {"x-shown": "yes"},
            }
            for hidden in ("a-very-long-key-of-ada", "c2VjcmV0", "hidden", "not=shown"):
                assert hidden not in (tmp_path / "access.log").read_text()


def test_what_goes_wrong_is_told_with_its_source(tmp_path: Path) -> None:
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        config = f"""
access_log: access.log
services: {{gone: "http://127.0.0.1:{refusing.getsockname()[1]}"}}
routes:
  - {{name: gone, path: /gone, service: gone}}
  - {{name: closed, path: /closed, respond: {{body: never}}, policies: [{{ip-restriction: {{deny: [127.0.0.0/8]}}}}]}}
"""
        with Gateway(tmp_path, config) as gateway:
            file = tmp_path / "access.log"
            assert curl(f"{gateway.url}/gone").status == 502
            line = line_with(file, status_code=502)
            assert (line["route"], line["service"], line["error_source"]) == ("gone", "gone", "connect")
            assert line["error"].startswith("service-unreachable: connect: ")
            assert curl(f"{gateway.url}/closed").status == 403
            line = line_with(file, status_code=403)
            assert (line["error_source"], line["stopped_by"]) == ("policy", "ip-restriction")
            assert curl(f"{gateway.url}/nowhere").status == 404
            line = line_with(file, status_code=404)
            assert (line["error"], line["error_source"]) == ("no-route", "client")
            assert send(gateway, b"GET /%zz?token=x HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 400 ")
            line = line_with(file, status_code=400)
            assert (line["method"], line["url"], line["ip_address"]) == ("GET", "/%zz", "127.0.0.1")
            assert (line["outcome"], line["error_source"], line["user_agent"]) == ("rejected", "client", None)
            assert send(gateway, b"nothing\x00like\nit\r\n\r\n").startswith(b"HTTP/1.1 400 ")
            line = line_with(file, status_code=400, method=None)
            assert (line["ip_address"], line["url"]) == ("127.0.0.1", "")


def test_a_client_that_leaves_has_a_line(tmp_path: Path) -> None:
    def never(call: Call) -> None:
        call.note()
        call.connection.recv(1)

    with Service(never) as service:
        config = f"""
access_log: access.log
services: {{slow: "http://127.0.0.1:{service.port}"}}
routes: [{{path: /slow, service: slow}}]
"""
        with Gateway(tmp_path, config) as gateway:
            with gateway.connect() as connection:
                connection.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
                wait_for(lambda: service.seen, "the request")
            line = line_with(tmp_path / "access.log", status_code=499)
            assert (line["outcome"], line["error_source"], line["tries"]) == ("client-left", "client", 1)


def test_two_workers_write_a_line_for_each_answer_and_none_is_lost_when_the_file_is_moved(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    moved = [tmp_path / f"access.log.{number}" for number in range(3)]
    with Gateway(tmp_path, f"access_log: access.log\n{HELLO}", workers=2) as gateway:
        with Load(gateway.port, "/hello/x") as load:
            for old in moved:
                load.some_more(100)
                file.rename(old)
                gateway.popen.send_signal(signal.SIGUSR1)
                wait_for(file.exists, "a new file")
            load.some_more(100)
        assert not load.failures
    counted = Counter(line["url"] for line in lines_of(file, *moved))
    assert counted == {"http://a/hello/x": len(load.took)}
    assert all(lines_of(old) for old in moved)
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_reload_keeps_the_log_or_takes_another_one_and_loses_no_line(tmp_path: Path) -> None:
    with Gateway(tmp_path, f"access_log: one.log\n{HELLO}", workers=2) as gateway:
        gateway.agent_answers()
        text = gateway.file.read_text()
        with Load(gateway.port, "/hello/x") as load:
            load.some_more(50)
            for config in (f"{text}# the same\n", text.replace("one.log", "{file: two.log, level: all}")):
                gateway.file.write_text(config)
                gateway.popen.send_signal(signal.SIGHUP)
                load.some_more(50)
            wait_for((tmp_path / "two.log").exists, "the other log")
            load.some_more(50)
        assert not load.failures
    one, two = lines_of(tmp_path / "one.log"), lines_of(tmp_path / "two.log")
    assert len(one) + len(two) == len(load.took)
    assert len(one) >= 50
    assert two  # a worker that takes it later has gone on with the other one meanwhile


def test_levels_and_shares(tmp_path: Path) -> None:
    config = """
access_log: {file: access.log, level: errors}
routes:
  - {path: /quiet, access_log: off, respond: {status: 500}}
  - {path: /loud, access_log: all, respond: {body: hello}}
  - {path: /few, access_log: {level: all, sample: 0%}, respond: {body: hello}}
  - {path: /bad, respond: {status: 503}}
  - {path: /good, respond: {body: hello}}
"""
    with Gateway(tmp_path, config) as gateway:
        for path in ("quiet", "loud", "few", "bad", "good", "health", "metrics"):
            curl(f"{gateway.url}/{path}")
        curl(f"{gateway.url}/last")
        line_with(tmp_path / "access.log", status_code=404)
    paths = [line["url"].rpartition("/")[2] for line in lines_of(tmp_path / "access.log")]
    assert paths == ["loud", "bad", "last"]


def test_standard_output_takes_lines_unless_there_is_another_place(tmp_path: Path) -> None:
    with Gateway(tmp_path, f"access_log: {{format: combined}}\n{HELLO}") as gateway:
        curl("-A", "an agent", "-e", "http://else.where/?code=5", f"{gateway.url}/hello/x?key=hidden")
        line = wait_for(lambda: [line for line in gateway.log().splitlines() if "an agent" in line], "the line")[0]
    assert line.startswith("127.0.0.1 - - [")
    assert line.endswith('"GET /hello/x?key=[redacted] HTTP/1.1" 200 5 "http://else.where/?code=[redacted]" "an agent"')


def test_a_disk_that_is_full_costs_no_answer_and_lines_are_counted(tmp_path: Path) -> None:
    with Gateway(tmp_path, f"access_log: /dev/full\n{HELLO}") as gateway:
        for _ in range(5):
            assert curl(f"{gateway.url}/hello/x").status == 200
        wait_for(lambda: dropped(gateway) == 5, "the lines to be counted")
        assert "of the access log were lost: /dev/full: No space left on device" in gateway.log()
        assert gateway.log().count("of the access log were lost") == 1


def test_a_reader_that_stops_costs_no_answer_and_no_memory(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        config = f"access_log: {{file: fifo, buffer: 64KiB}}\n{HELLO}"
        with Gateway(tmp_path, config) as gateway:
            with Load(gateway.port, "/hello/" + "x" * 1500) as load:
                wait_for(lambda: load.failures or "of the access log were lost" in gateway.log(), "lines to be lost")
            assert not load.failures
            os.set_blocking(reader, False)
            read = bytearray()

            def all_there() -> bool:
                with suppress(BlockingIOError):
                    read.extend(os.read(reader, 1 << 20))
                return read.count(b"\n") + dropped(gateway) == len(load.took)

            wait_for(all_there, "each line to be read or counted")
            for line in bytes(read).split(b"\n")[:-1]:
                json.loads(line)
    finally:
        os.close(reader)


def test_a_collector_is_sent_lines_and_one_that_hangs_costs_no_answer(tmp_path: Path) -> None:
    bodies: list[tuple[str | None, bytes]] = []
    hangs = [False]

    def collect(call: Call) -> None:
        body = b"".join(call.read_body())
        if hangs[0]:
            call.connection.recv(1)
            return
        bodies.append((call.headers.get("Authorization"), body))
        call.answer(503 if len(bodies) == 1 else 204)

    with Service(collect) as collector:
        config = f"""
access_log:
  collector:
    url: "http://127.0.0.1:{collector.port}/in"
    headers: {{Authorization: Bearer sesame}}
    linger: 100ms
    timeout: 1s
{HELLO}
"""
        with Gateway(tmp_path, config) as gateway:
            with Load(gateway.port, "/hello/x") as load:
                load.some_more(200)
            wait_for(lambda: sum(body.count(b"\n") for _, body in bodies[1:]) == len(load.took), "all lines")
            assert {said for said, _ in bodies} == {"Bearer sesame"}
            assert bodies[0] == bodies[1]
            for _, body in bodies:
                assert [json.loads(line)["status_code"] for line in body.splitlines()]
            hangs[0] = True
            assert curl(f"{gateway.url}/hello/x").status == 200
            wait_for(lambda: dropped(gateway) == 1, "the line to be given up")
            assert "of the access log were lost: the collector does not answer" in gateway.log()
            hangs[0] = False
            curl(f"{gateway.url}/hello/last")
            wait_for(lambda: b"/hello/last" in bodies[-1][1], "the collector to be sent lines again")


@pytest.mark.parametrize("kind", ["unix", "udp", "tcp"])
def test_a_syslog_is_sent_messages(tmp_path: Path, kind: str) -> None:
    where = tmp_path / "log"
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as server:
        server.bind(str(where) if kind == "unix" else ("127.0.0.1", 0))
        server.settimeout(DEADLINE)
        address = f"unix:{where}" if kind == "unix" else f"{kind}://127.0.0.1:{server.getsockname()[1]}"
        if kind == "tcp":
            server.listen()
        config = f'access_log: {{syslog: {{address: "{address}", facility: local3, app_name: edge}}}}\n{HELLO}'
        with Gateway(tmp_path, config) as gateway:
            curl(f"{gateway.url}/hello/x")
            if kind == "tcp":
                connection = server.accept()[0]
                with connection, connection.makefile("rb") as stream:
                    size = b""
                    while (digit := stream.read(1)) != b" ":
                        size += digit
                    message = stream.read(int(size))
            else:
                message = server.recv(65536)
            head, _, line = message.partition(b" - {")
            priority, at, host, *rest = head.decode().split(" ")
            assert priority == f"<{19 * 8 + 6}>1"
            assert at.endswith("Z")
            assert host
            assert rest == ["edge", str(gateway.worker_pids()[0]), "access"]
            assert json.loads(b"{" + line)["url"].endswith("/hello/x")


def test_a_worker_that_is_killed_loses_at_most_its_last_batch(tmp_path: Path) -> None:
    with (
        Gateway(tmp_path, f"access_log: access.log\n{HELLO}", workers=2) as gateway,
        Load(gateway.port, "/hello/x") as load,
    ):
        load.some_more(300)
        os.kill(gateway.worker_pids()[0], signal.SIGKILL)
        load.ended(300)
    lines = lines_of(tmp_path / "access.log")
    assert len(load.took) - 2 * 128 - len(load.failures) <= len(lines) <= len(load.took) + len(load.failures)


def test_a_worker_that_is_starting_is_not_ended_by_being_told_to_open_its_log_anew(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    with Gateway(tmp_path, f"access_log: access.log\n{HELLO}") as gateway:
        (worker,) = gateway.worker_pids()
        os.kill(worker, signal.SIGKILL)
        (new,) = wait_for(lambda: [pid for pid in children_of(gateway.popen.pid) if _is_new(gateway, pid)], "another")
        for number in range(20):
            if file.exists():
                file.rename(tmp_path / f"old.{number}")
            gateway.popen.send_signal(signal.SIGUSR1)
            select.select([], [], [], 0.05)  # somewhere within its start
        assert curl(f"{gateway.url}/hello/x").status == 200
        assert gateway.worker_pids() == [new]
        wait_for(file.exists, "the file that the last signal was for")


def _is_new(gateway: Gateway, pid: int) -> bool:
    return is_process(pid, "worker") and "died" in gateway.log()
