"""What a reload changes, and what it leaves alone when it fails."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from portico.cli.ask import ask, find
from tests.harness.gateway import (
    DEADLINE,
    Call,
    Done,
    Gateway,
    Service,
    curl,
    is_alive,
    portico,
    portico_here,
    refusing_port,
    wait_for,
)

ROUTES = "routes:\n  - {{path: /say, respond: {word}}}\n"


def write(gateway: Gateway, config: str, **head: object) -> None:
    """Write another configuration with the gateway's own `listen` and `workers`, unless `head` has others."""
    said = {"listen": gateway.listen, "workers": gateway.workers} | head
    gateway.file.write_text("".join(f"{key}: {value}\n" for key, value in said.items()) + config)


def reload(gateway: Gateway, *options: str) -> Done:
    return portico_here("reload", str(gateway.file), *options)


def status(gateway: Gateway) -> Any:
    return ask(find(gateway.file, None), "GET", "/status")


def says(gateway: Gateway, path: str = "/say") -> bytes:
    return curl(f"{gateway.url}{path}").body


@pytest.fixture
def gateway(tmp_path: Path) -> Any:
    with Gateway(tmp_path, ROUTES.format(word="one"), workers=2) as gateway:
        gateway.agent_answers()
        yield gateway


def test_by_command(gateway: Gateway) -> None:
    write(gateway, ROUTES.format(word="two") + "  - {path: /more, respond: more}\n")
    tried = reload(gateway, "--dry-run")
    assert (tried.code, tried.err) == (0, "")
    assert tried.out.splitlines() == [
        "this would change:",
        "  + route: more (/more)",
        "  ~ route: say (endpoint)",
    ]
    assert says(gateway) == b"one"
    done = reload(gateway)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1:] == tried.out.splitlines()[1:]
    assert done.out.startswith("revision 2 after ")
    assert {says(gateway) for _ in range(10)} == {b"two"}
    assert says(gateway, "/more") == b"more"
    state = status(gateway)
    assert (state["revision"], state["origin"], state["last_reload"]["ok"]) == (2, "portico reload", True)
    assert {each["revision"] for each in state["processes"]} == {2}
    again = reload(gateway)
    assert (again.code, again.out) == (0, "nothing changed\n")
    assert status(gateway)["revision"] == 2


def test_by_sighup(gateway: Gateway) -> None:
    workers = gateway.worker_pids()
    write(gateway, ROUTES.format(word="two"))
    os.kill(gateway.popen.pid, signal.SIGHUP)
    wait_for(lambda: "SIGHUP: revision 2" in gateway.log(), "the reload")
    assert says(gateway) == b"two"
    assert gateway.worker_pids() == workers


def test_by_a_changed_file(tmp_path: Path) -> None:
    (tmp_path / "word.txt").write_text("one\n")
    (tmp_path / "more.yaml").write_text("routes: [{path: /more, respond: more}]\n")
    config = "watch: true\ninclude: ['more*.yaml']\nroutes: [{path: /say, respond: '${file:word.txt}'}]\n"
    with Gateway(tmp_path, config) as gateway:
        gateway.agent_answers()
        (tmp_path / "word.txt").write_text("two\n")
        wait_for(lambda: says(gateway) == b"two", "a changed secret")
        (tmp_path / "more.yaml").write_text("routes: [{path: /more, respond: other}]\n")
        wait_for(lambda: says(gateway, "/more") == b"other", "a changed include")
        (tmp_path / "more-of-it.yaml").write_text("routes: [{path: /yet, respond: yet}]\n")
        wait_for(lambda: curl(f"{gateway.url}/yet").body == b"yet", "another include")
        (tmp_path / "more.yaml").write_text("routes: [{path: /more, respnd: other}]\n")
        wait_for(lambda: "unknown key 'respnd'" in gateway.log(), "the refusal")
        assert says(gateway, "/more") == b"other"
        (tmp_path / "more.yaml").write_text("routes: [{path: /more, respond: mended}]\n")
        wait_for(lambda: says(gateway, "/more") == b"mended", "the mended include")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("routes: [{path: /say, respnd: two}]\n", "unknown key 'respnd' in route (hint: did you mean 'respond'?)"),
        ("routes: [", "a value was expected here (hint: is a bracket above left open?)"),
        ("routes: [{path: '/say/**/x', respond: two}]\n", "`**` stands for any depth only as the last segment"),
        ("plugins: [gone.py]\n", "gone.py cannot be read: No such file or directory"),
        ("plugins: [ends.py]\n", "loading it ended with exit code 7"),
        ("plugins: [fussy.py]\npolicies: [fussy]\n" + ROUTES.format(word="x"), "RuntimeError: not in a worker"),
    ],
    ids=["key", "syntax", "pattern", "no plugin", "plugin that ends", "plugin that workers refuse"],
)
def test_what_is_wrong_changes_nothing(gateway: Gateway, config: str, said: str) -> None:
    (gateway.folder / "ends.py").write_text("import os\nos._exit(7)\n")
    (gateway.folder / "fussy.py").write_text(
        "import sys\n"
        "from portico.plugin import Policy, PolicyConfig, Stage\n"
        "class Fussy(Policy[PolicyConfig], name='fussy', stages=(Stage.GUARD,)):\n"
        "    def setup(self, env):\n"
        "        if 'worker' in sys.argv[0]:\n"
        "            raise RuntimeError('not in a worker')\n"
    )
    write(gateway, config)
    done = reload(gateway)
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert done.err.endswith("nothing has changed; revision 1 goes on\n")
    assert said in gateway.log()
    assert says(gateway) == b"one"
    state = status(gateway)
    assert (state["revision"], state["last_reload"]["ok"]) == (1, False)
    assert any(said in error for error in state["last_reload"]["errors"])
    assert "has failed, and nothing was changed by it" in portico_here("status", str(gateway.file)).out
    write(gateway, ROUTES.format(word="mended"))
    assert reload(gateway).code == 0
    assert says(gateway) == b"mended"
    assert len(gateway.worker_pids()) == 2


def test_a_plugin_runs_its_new_code(tmp_path: Path) -> None:
    code = (
        "from portico.plugin import Policy, PolicyConfig, Request, Response, Stage\n"
        "class Word(Policy[PolicyConfig], name='word', stages=(Stage.TRANSFORM,)):\n"
        "    def response(self, request: Request, response: Response) -> Response:\n"
        "        response.headers.set(b'X-Word', b'{word}')\n"
        "        return response\n"
    )
    plugin = tmp_path / "word.py"
    plugin.write_text(code.format(word="one"))
    with Gateway(tmp_path, "plugins: [word.py]\npolicies: [word]\n" + ROUTES.format(word="x")) as gateway:
        gateway.agent_answers()
        for word in ("two", "three"):
            plugin.write_text(code.format(word=word))
            done = reload(gateway)
            assert done.out.splitlines()[1:] == ["  ~ chain of: say (~word)"]
            assert curl(f"{gateway.url}/say").value("X-Word") == word


def test_a_request_ends_as_it_began(tmp_path: Path) -> None:
    asked, release = threading.Event(), threading.Event()

    def answer(call: Call) -> None:
        asked.set()
        release.wait(DEADLINE)
        call.answer(200, b"old")

    with (
        Service(answer) as service,
        Gateway(tmp_path, f"routes:\n  - {{path: /say, service: 'http://127.0.0.1:{service.port}'}}\n") as gateway,
        closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as busy,
    ):
        gateway.agent_answers()
        busy.request("GET", "/say")
        assert asked.wait(DEADLINE)
        write(gateway, ROUTES.format(word="new"))
        assert reload(gateway).code == 0
        assert says(gateway) == b"new"
        wait_for(lambda: status(gateway)["processes"][1]["retired"] == 1, "the board to tell of it")
        release.set()
        response = busy.getresponse()
        assert response.read() == b"old"
        assert response.headers["Connection"] is None
        busy.request("GET", "/say")
        assert busy.getresponse().read() == b"new"
        wait_for(lambda: status(gateway)["processes"][1]["retired"] == 0, "the old configuration to be closed")


def test_addresses_come_and_go(gateway: Gateway) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        other = probe.getsockname()[1]
    listen = f"['127.0.0.1:0', '127.0.0.1:{other}']"
    write(gateway, ROUTES.format(word="both"), listen=listen)
    assert reload(gateway).code == 0
    assert {curl(f"http://127.0.0.1:{port}/say").body for port in (gateway.port, other)} == {b"both"}
    write(gateway, ROUTES.format(word="wide"), listen=f"['127.0.0.1:0', ':{other}']")
    assert reload(gateway).code == 0
    assert curl(f"http://127.0.0.1:{other}/say").body == b"wide"
    write(gateway, ROUTES.format(word="one again"))
    assert reload(gateway).code == 0
    wait_for(lambda: refused(other), "the address to be closed")
    assert says(gateway) == b"one again"


def refused(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def test_an_address_that_is_taken(gateway: Gateway) -> None:
    with refusing_port() as taken:
        write(gateway, ROUTES.format(word="two"), listen=f"['127.0.0.1:0', '127.0.0.1:{taken}']")
        done = reload(gateway)
        assert done.code == 1
        assert f"cannot listen on 127.0.0.1:{taken}: Address already in use" in done.err
        assert says(gateway) == b"one"
    assert reload(gateway).code == 0
    assert curl(f"http://127.0.0.1:{taken}/say").body == b"two"


def test_more_workers_and_fewer(gateway: Gateway) -> None:
    before = gateway.worker_pids()
    write(gateway, ROUTES.format(word="one"), workers=4)
    assert reload(gateway).out.splitlines()[1:] == ["  ~ setting: workers"]
    wait_for(lambda: len(gateway.worker_pids()) == 4, "more workers")
    assert set(before) <= set(gateway.worker_pids())
    write(gateway, ROUTES.format(word="one"), workers=1)
    assert reload(gateway).code == 0
    wait_for(lambda: gateway.worker_pids() == before[:1], "fewer workers")
    assert {says(gateway) for _ in range(20)} == {b"one"}
    write(gateway, ROUTES.format(word="one"), workers=500)
    assert "a reload can have 128 workers, not 500" in reload(gateway).err


def test_a_killed_agent_is_replaced_and_knows(gateway: Gateway) -> None:
    write(gateway, "routes: [{path: /say, respnd: two}]\n")
    assert reload(gateway).code == 1
    agent = gateway.agent_pid()
    os.kill(agent, signal.SIGKILL)
    assert says(gateway) == b"one"
    wait_for(lambda: gateway.agent_pid() != agent, "another agent")
    gateway.agent_answers()
    assert status(gateway)["last_reload"]["ok"] is False
    write(gateway, ROUTES.format(word="two"))
    assert reload(gateway).code == 0
    assert says(gateway) == b"two"
    assert "the agent died (signal 9); the next starts now" in gateway.log()


def test_a_sighup_while_there_is_no_agent(gateway: Gateway) -> None:
    agent = gateway.agent_pid()
    os.kill(agent, signal.SIGSTOP)
    os.kill(agent, signal.SIGKILL)
    write(gateway, ROUTES.format(word="two"))
    os.kill(gateway.popen.pid, signal.SIGHUP)
    wait_for(lambda: says(gateway) == b"two", "the reload by the next agent")


def test_a_worker_that_starts_after_a_reload_serves_what_stands(gateway: Gateway) -> None:
    write(gateway, ROUTES.format(word="two"))
    assert reload(gateway).code == 0
    gateway.file.write_text("broken(")
    for pid in gateway.worker_pids():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: gateway.log().count("serves again") == 2, "the replacements")
    assert {says(gateway) for _ in range(10)} == {b"two"}


def test_other_limits_hold_for_connections_that_are_open(gateway: Gateway) -> None:
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as client:
        client.request("GET", "/say")
        assert client.getresponse().read() == b"one"
        write(gateway, "limits: {header_count: 5}\n" + ROUTES.format(word="two"))
        assert reload(gateway).code == 0
        client.request("GET", "/say")
        response = client.getresponse()
        assert (response.read(), response.headers["Connection"]) == (b"two", "close")
    assert curl(*(option for n in range(6) for option in ("-H", f"X-{n}: y")), f"{gateway.url}/say").status == 431


def test_sigusr2_takes_the_version_that_is_installed(gateway: Gateway) -> None:
    before = gateway.worker_pids()
    write(gateway, ROUTES.format(word="two"))
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as client:
        client.request("GET", "/say")
        assert client.getresponse().read() == b"one"
        os.kill(gateway.popen.pid, signal.SIGUSR2)
        wait_for(lambda: "the workers from before have ended" in gateway.log(), "the new workers alone")
    assert gateway.popen.poll() is None
    assert not [pid for pid in before if is_alive(pid)]
    assert len(gateway.worker_pids()) == 2
    assert says(gateway) == b"two"
    gateway.agent_answers()
    assert (status(gateway)["revision"], status(gateway)["origin"]) == (2, "SIGUSR2")


def test_sigusr2_with_a_file_that_cannot_be_run(gateway: Gateway) -> None:
    before = gateway.worker_pids()
    write(gateway, "routes: [{path: /say, respnd: two}]\n")
    os.kill(gateway.popen.pid, signal.SIGUSR2)
    wait_for(lambda: "everything stays as it is" in gateway.log(), "the refusal")
    assert "unknown key 'respnd'" in gateway.log()
    assert gateway.worker_pids() == before
    assert says(gateway) == b"one"


def test_sigusr2_with_an_address_that_is_taken(gateway: Gateway) -> None:
    before = gateway.worker_pids()
    with refusing_port() as taken:
        write(gateway, ROUTES.format(word="two"), listen=f"['127.0.0.1:0', '127.0.0.1:{taken}']")
        os.kill(gateway.popen.pid, signal.SIGUSR2)
        wait_for(lambda: "everything stays as it is" in gateway.log(), "the refusal")
        assert f"cannot listen on 127.0.0.1:{taken}: Address already in use" in gateway.log()
    assert gateway.worker_pids() == before
    assert says(gateway) == b"one"


def test_sigusr2_with_other_addresses_and_fewer_workers(gateway: Gateway) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        other = probe.getsockname()[1]
    write(gateway, ROUTES.format(word="two"), workers=1, listen=f"['127.0.0.1:0', '127.0.0.1:{other}']")
    os.kill(gateway.popen.pid, signal.SIGUSR2)
    wait_for(lambda: "the workers from before have ended" in gateway.log(), "the new worker alone")
    assert len(gateway.worker_pids()) == 1
    for port in (gateway.port, other):  # nobody waits at the socket of a worker that there is no more
        assert {curl(f"http://127.0.0.1:{port}/say", "-m", "5").body for _ in range(20)} == {b"two"}


def test_the_status_listener(gateway: Gateway) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    write(gateway, f"status: 127.0.0.1:{port}\n" + ROUTES.format(word="two"))
    assert reload(gateway).code == 0
    url = f"http://127.0.0.1:{port}"
    answer = curl(f"{url}/status")
    assert (answer.status, answer.value("Content-Type"), answer.json["revision"]) == (200, "application/json", 2)
    assert curl(f"{url}/reload", "-X", "POST").status == 404
    assert curl(f"{url}/status", "-X", "POST").status == 405
    assert curl(f"{url}/status", "-H", "Host: evil.example").status == 403
    write(gateway, ROUTES.format(word="three"))
    assert reload(gateway).code == 0
    wait_for(lambda: refused(port), "it to be closed")


def test_targets_are_in_the_status(tmp_path: Path) -> None:
    with refusing_port() as port:
        config = f"services: {{s: {{url: 'http://127.0.0.1:{port}'}}}}\nroutes: [{{path: /s, service: s}}]\n"
        with Gateway(tmp_path, config) as gateway:
            gateway.agent_pid()
            gateway.agent_answers()
            assert curl(f"{gateway.url}/s").status == 502
            (target,) = status(gateway)["services"]["s"]
            assert (target["address"], target["reachable"]) == (f"127.0.0.1:{port}", False)
            assert "NOT REACHABLE" in portico_here("status", str(gateway.file)).out


def test_nobody_to_ask(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("routes: []\n")
    for command in ("status", "reload"):
        done = portico(command, str(tmp_path / "a.yaml"))
        assert (done.code, done.out) == (1, "")
        assert f"no gateway runs {tmp_path / 'a.yaml'}" in done.err
