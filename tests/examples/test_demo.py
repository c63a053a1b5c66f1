"""`portico demo`: that it starts everything, reports what dies, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path

import pytest

from portico.cli.platform_demo import INSTANCES, TOUR
from tests.harness.demo import (
    DEADLINE,
    OFFSETS,
    ROOT,
    Demo,
    command,
    environment,
    free_base,
    is_free,
    wait_until,
)

TOUR_SHOWS = {
    "a token of an administrator, for the lines below": "Authorization: Bearer ey",
    "a product, for which nobody needs one": '"id": "keyboard"',
    "an order without one: 401": "HTTP/1.1 401 (.*\n)*.*Missing authentication",
    "a customer where only an administrator may go: 403": "HTTP/1.1 403 ",
    "a list": '"products": \\[',
    "an order: the order service asks inventory, payment and notification": 'HTTP/1.1 201 (.*\n)*.*"notified": true',
    "more than there is: 409": "HTTP/1.1 409 (.*\n)*.*out-of-stock",
    "a card that is refused: 402, and the goods go back": "HTTP/1.1 402 (.*\n)*.*payment-refused",
    "a login, which gives a token, too": 'HTTP/1.1 200 (.*\n)*.*"token": "ey',
    "two instances take turns": r"(.*user-1\s.*user-2\s){2}|(.*user-2\s.*user-1\s){2}",
    "events as they happen, for 5 seconds": "id: 1\nevent: notification\ndata: {",
    "a service that is too slow: 504 after 2 seconds": "HTTP/1.1 504 ",
    "a body that is too large: 413": "HTTP/1.1 413 ",
    "a path that no route has: 404": "HTTP/1.1 404 ",
    "a method that its route does not take: 405, Allow says which": "HTTP/1.1 405 (.*\n)*[Aa]llow: GET, HEAD, POST",
    "kill -9 for one of two instances while requests come: all are answered; it is started again after 5 seconds": (
        '({"roles": .*}\n200\n){40}$'
    ),
    "a redirect": "HTTP/1.1 302 (.*\n)*[Ll]ocation: /api/v1/products",
    "an answer of the gateway itself": "HTTP/1.1 200 (.*\n)*pong",
    "the gateway's health": '"status": ?"healthy"',
}
"""What each line of the tour prints, by what it says that it shows."""


def fail_to_start(*command: str) -> str:
    """Run a command that must fail with one line, and return the line."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=environment())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def get(port: int, path: str) -> int:
    with closing(HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_all_is_started_and_all_is_ended(tmp_path: Path, number: int) -> None:
    with Demo(tmp_path) as demo:
        demo.read_until("Ctrl-C ends it all.")
        assert set(demo.pids) == {"the gateway", *(instance.name for instance in INSTANCES)}
        for instance in INSTANCES:
            assert get(demo.base + instance.offset, "/health") == 200
        assert not re.search("GATEWAY|PORTICO", demo.printed)
        assert f"kill -9 {demo.pids['user-1']};" in demo.printed
        lines = [line for line in demo.printed.splitlines() if "curl" in line]
        assert len(lines) == len(TOUR) - 1  # one makes a token
        assert all(f"http://127.0.0.1:{demo.base}/" in line for line in lines)
        demo.popen.send_signal(number)
        assert demo.finish() == (0, "")


def test_the_gateway_gets_a_file_with_the_ports_that_were_asked_for(tmp_path: Path) -> None:
    with Demo(tmp_path) as demo:
        demo.read_until("Ctrl-C ends it all.")
        found = re.search(r"^the gateway .* (\S+)$", demo.printed, re.MULTILINE)
        assert found is not None
        ports = re.findall(r"127\.0\.0\.1:(\d+)", Path(found[1]).read_text())
        assert sorted(map(int, ports)) == sorted(demo.base + offset for offset in OFFSETS)
        # A second demo cannot have the same ports, and says so before it starts anything.
        line = fail_to_start(*demo.command)
        assert line.startswith(f"portico demo: port {demo.base}, which the gateway needs, is not free")
        demo.popen.terminate()
        assert demo.finish() == (0, "")


def test_a_service_that_dies_is_reported_and_started_again_while_the_others_go_on(tmp_path: Path) -> None:
    with Demo(tmp_path) as demo:
        demo.read_until("Ctrl-C ends it all.")
        pid = demo.pids["order-2"]
        os.kill(pid, signal.SIGKILL)
        assert demo.popen.stderr is not None
        report = demo.popen.stderr.readline().decode()
        further = "the others go on, and it is started again in 5 s"
        assert report == f"portico demo: order-2 (pid {pid}) ended by SIGKILL; {further}\n"
        assert get(demo.base + 2, "/health") == 200
        demo.read_until("Ctrl-C ends it all.\norder-2 ")
        wait_until(lambda: not is_free(demo.base + 12))
        assert demo.pids["order-2"] != pid
        assert get(demo.base + 12, "/health") == 200
        demo.popen.send_signal(signal.SIGINT)
        assert demo.finish() == (0, "")


def test_a_gateway_that_dies_ends_the_demo(tmp_path: Path) -> None:
    with Demo(tmp_path, ["sh", "-c", "echo no such file >&2; exit 3"]) as demo:
        code, errors = demo.finish()
        assert code == 1
        assert re.fullmatch(r"no such file\nportico demo: the gateway \(pid \d+\) ended with status 3\n", errors)


def test_a_service_port_that_is_taken_is_named() -> None:
    base = free_base()
    with socket.create_server(("127.0.0.1", base + 3)):
        line = fail_to_start(*command(base, base, "true"))
    assert f"port {base + 3}, which inventory-1 needs, is not free (address already in use)" in line
    assert "--services-from" in line


def test_an_early_signal_ends_a_start_that_waits(tmp_path: Path) -> None:
    with Demo(tmp_path, ["sleep", "60"]) as demo:  # a gateway that never answers
        demo.read_until("notification-1")
        demo.popen.terminate()
        assert demo.finish() == (0, "")


def test_services_do_not_outlive_a_demo_that_is_killed(tmp_path: Path) -> None:
    with Demo(tmp_path) as demo:
        demo.read_until("Ctrl-C ends it all.")
        demo.popen.kill()
        os.killpg(demo.pids["the gateway"], signal.SIGKILL)  # a real one would have to be ended by hand
        wait_until(lambda: all(is_free(demo.base + offset) for offset in OFFSETS))


@pytest.mark.skipif(find_spec("portico.__main__") is None, reason="there is no gateway to run")
def test_every_line_of_the_tour_shows_what_it_says(tmp_path: Path) -> None:
    with Demo(tmp_path, []) as demo:
        demo.read_until("Ctrl-C ends it all.")
        tour = re.findall(r"^# (.+)\n(.+)$", demo.printed, re.MULTILINE)
        assert [shows for shows, _ in tour] == list(TOUR_SHOWS)
        (first, making), *tour = tour
        token = in_shell(f'{making}; printf %s "$AUTH"')
        assert re.match(TOUR_SHOWS[first], token)
        # Whose turn it is can be told only while nobody else asks the same service, and both instances are there.
        apart = [(shows, line) for shows, line in tour if shows.startswith(("two instances", "kill -9"))]
        together = [(shows, line) for shows, line in tour if (shows, line) not in apart]
        with ThreadPoolExecutor(len(together)) as pool:
            results = list(
                pool.map(
                    lambda line: in_shell(line.replace("seconds=5", "seconds=1"), AUTH=token),
                    (line for _, line in together),
                )
            )
        results += [in_shell(line, AUTH=token) for _, line in apart]
        for (shows, line), result in zip(together + apart, results, strict=True):
            assert re.match(f"(.*\n)*?.*{TOUR_SHOWS[shows]}", result), f"{line} printed {result}"
        demo.popen.send_signal(signal.SIGINT)
        assert demo.finish()[0] == 0


@pytest.mark.skipif(find_spec("portico.__main__") is None, reason="there is no gateway to run")
def test_the_lines_of_the_readme_show_what_they_say(tmp_path: Path) -> None:
    with Demo(tmp_path, []) as demo:
        demo.read_until("Ctrl-C ends it all.")
        making, *lines = re.findall(r"^    ((?:TOKEN=|curl ).+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
        token = in_shell(f'{making.replace(".venv/bin/portico", f"{sys.executable} -m portico")}; printf %s "$TOKEN"')
        statuses = [
            in_shell(line.replace("127.0.0.1:8000", f"127.0.0.1:{demo.base}"), TOKEN=token).split()[1] for line in lines
        ]
        assert statuses == ["200", "401", "200", "401"]
        demo.popen.send_signal(signal.SIGINT)
        assert demo.finish()[0] == 0


def in_shell(line: str, **more: str) -> str:
    """Return what a line prints, in a shell with these variables."""
    command = ["sh", "-c", line]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=True, env=environment(**more))
    return done.stdout.decode().replace("\r\n", "\n")


def test_one_service_by_itself(tmp_path: Path) -> None:
    port = free_base()
    command = ["demo-service", "inventory-service", "--port", str(port), "--data", str(tmp_path)]
    with subprocess.Popen([sys.executable, "-m", "portico", *command], env=environment()) as service:
        try:
            wait_until(lambda: not is_free(port))
            assert get(port, "/api/v1/products/keyboard") == 200
            assert (tmp_path / "inventory-service.db").exists()
        finally:
            service.terminate()
        assert service.wait(DEADLINE) == 0


def test_a_service_that_there_is_not_is_told_with_those_that_there_are() -> None:
    line = fail_to_start(sys.executable, "-m", "portico", "demo-service", "orders", "--port", "1")
    assert line.startswith("there is no orders, but user-service, order-service, ")
