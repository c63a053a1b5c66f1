"""`portico purge` on gateways that run: by which workers, and who knows of it."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portico.agent.control_socket import sockets_of
from portico.cli.ask import ask, find
from tests.harness.gateway import DEADLINE, Done, Gateway, curl, portico_here, wait_for
from tests.harness.valkey import ValkeyServer

PLUGIN = '''
import itertools, os
from portico.plugin import Policy, PolicyConfig, Response, Stage, StoreUnavailable

made = itertools.count()


class Remember(PolicyConfig):
    """Keeps answers in the store, and in memory before it."""


class RememberPolicy(Policy[Remember], name="remember", stages=(Stage.CACHE,)):
    def setup(self, env):
        self.space, self.purges, self.wall = env.store.volatile, env.purges, env.wall
        self.memory = {}

    async def handle(self, request, next):
        try:
            body, whence = await self.found(request)
        except StoreUnavailable:
            return Response(503)
        response = Response(200, body=body)
        response.headers.set(b"X-From", whence)
        response.headers.set(b"X-Worker", b"%d" % os.getpid())
        return response

    async def found(self, request):
        url = f"http://{request.host}{request.target}".encode()
        if request.method == "POST":
            await self.space.delete(url)
            self.purges.forget(url)
            return b"", b"nowhere"
        stamp = self.purges.stamp(url)
        known = self.memory.get(url)
        if known and known[0] == stamp:
            return known[1], b"memory"
        tags = [request.path.split("/")[1].encode()]
        kept = await self.space.get(url)
        if kept:
            asked, _, body = kept.partition(b" ")
            if await self.purges.since(tags, url, float(asked)) > float(asked):
                kept = None
        if not kept:
            asked, body = self.wall(), b"%d.%d" % (os.getpid(), __import__("builtins").next(made))
            await self.space.put(url, b"%r %b" % (asked, body), 600.0)
        self.memory[url] = stamp, body
        return body, b"store" if kept else b"service"
'''

CONFIG = """
plugins: [remember.py]
routes: [{path: /**, respond: {body: never}, policies: [remember]}]
"""


@pytest.fixture(scope="module", autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("purge")
    (folder / "remember.py").write_text(PLUGIN)
    with Gateway(folder, CONFIG, workers=2) as gateway:
        gateway.agent_answers()
        yield gateway


def call(gateway: Gateway, path: str, method: str = "GET") -> tuple[str, str, int]:
    """Return what was said, whence, and by which worker; by a connection of its own."""
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)
    try:
        client.request(method, path, headers={"Host": "127.0.0.1"})
        answer = client.getresponse()
        assert answer.status == 200
        return answer.read().decode(), answer.headers["X-From"], int(answer.headers["X-Worker"])
    finally:
        client.close()


def by_all(gateway: Gateway, path: str) -> str:
    """Ask until each worker has answered from its memory, and return what all of them have said."""
    bodies: set[str] = set()
    workers: set[int] = set()

    def said() -> bool:
        body, whence, worker = call(gateway, path)
        bodies.add(body)
        if whence == "memory":
            workers.add(worker)
        return len(workers) == gateway.workers

    wait_for(said, "all workers to answer")
    (body,) = bodies
    return body


def purge(gateway: Gateway, *arguments: str) -> Done:
    return portico_here("purge", *arguments, "--pid", str(gateway.popen.pid))


def host(path: str) -> str:
    return f"http://127.0.0.1{path}"


def test_what_is_purged_nobody_gives_any_more_and_all_else_stays(gateway: Gateway) -> None:
    logged = gateway.log().count("purged: ")
    paths = ("/a/1", "/a/1?x", "/a/2", "/b/1")
    before = {path: by_all(gateway, path) for path in paths}

    def changed() -> list[str]:
        nonlocal before
        now = {path: by_all(gateway, path) for path in paths}
        found = [path for path in paths if now[path] != before[path]]
        before = now
        return found

    assert len(set(before.values())) == 4
    assert changed() == []
    assert purge(gateway, host("/a/1")) == (0, "purged 1 URL\n", "")
    assert changed() == ["/a/1", "/a/1?x"]
    assert purge(gateway, host("/a/1?x"), host("/b/1")) == (0, "purged 2 URLs\n", "")
    assert changed() == ["/a/1?x", "/b/1"]
    assert purge(gateway, "--tag", "a", "--tag", "c") == (0, "purged 2 tags\n", "")
    assert changed() == ["/a/1", "/a/1?x", "/a/2"]
    assert purge(gateway, host("/never"), "--tag", "c").out == "purged 1 URL and 1 tag\n"
    assert changed() == []
    done = purge(gateway, "--all", "--file", str(gateway.file), "--json")
    assert json.loads(done.out) == {"purged": {"urls": [], "tags": [], "all": True}}
    assert changed() == list(paths)
    assert gateway.log().count("purged: ") == logged + 5
    assert "purged: 0 URLs, 2 tags" in gateway.log()


def test_what_a_worker_forgets_the_others_do_not_give_either(gateway: Gateway) -> None:
    before = {path: by_all(gateway, path) for path in ("/a", "/b")}
    call(gateway, "/a", "POST")
    assert by_all(gateway, "/a") != before["/a"]
    assert by_all(gateway, "/b") == before["/b"]


def test_another_gateway_of_the_file_and_the_next_version_know_of_it(tmp_path: Path) -> None:
    (tmp_path / "remember.py").write_text(PLUGIN)
    with Gateway(tmp_path, CONFIG) as gateway:
        _of_two_gateways(gateway)
        _of_two_versions(gateway)


def _of_two_gateways(gateway: Gateway) -> None:
    with Gateway(gateway.folder, CONFIG) as other:
        wait_for(lambda: len(sockets_of(str(gateway.file))) == 2, "the other agent to answer")
        before = by_all(gateway, "/a")
        assert by_all(other, "/a") == before
        assert portico_here("purge", "--all", "--file", str(gateway.file)).err.startswith("several gateways run")
        assert purge(gateway, "--all").code == 0
        after = by_all(other, "/a")
        assert by_all(gateway, "/a") == after != before


def _of_two_versions(gateway: Gateway) -> None:
    before = by_all(gateway, "/a")
    workers = gateway.worker_pids()
    os.kill(gateway.popen.pid, signal.SIGUSR2)
    wait_for(lambda: not set(workers) & set(gateway.worker_pids()), "other workers")
    gateway.agent_answers()
    assert by_all(gateway, "/a") == before
    wait_for(lambda: purge(gateway, "--all").code == 0, "the agent to know its workers")
    assert by_all(gateway, "/a") != before


def test_a_worker_that_stands_still_keeps_nobody_from_it(gateway: Gateway) -> None:
    def processes() -> Any:
        return ask(find(gateway.file, None), "GET", "/status")["processes"]

    by_all(gateway, "/a")
    stopped, _ = gateway.worker_pids()
    os.kill(stopped, signal.SIGSTOP)
    try:
        wait_for(lambda: [each for each in processes() if each["state"] == "stuck"], "a worker to be missed")
        assert purge(gateway, "--all") == (0, "purged everything\n", "")
    finally:
        os.kill(stopped, signal.SIGCONT)
    by_all(gateway, "/a")  # all of them say the same, and so the one that stood still knows of it


def test_a_store_that_is_down_is_told_and_nothing_is_purged(tmp_path: Path) -> None:
    (tmp_path / "remember.py").write_text(PLUGIN)
    with ValkeyServer() as server:
        config = CONFIG + f"state: {{store: 'redis://127.0.0.1:{server.port}', timeout: 5s}}\n"
        with Gateway(tmp_path, config) as gateway:
            gateway.agent_answers()
            before = by_all(gateway, "/a")
            assert purge(gateway, "--tag", "other").code == 0
            assert by_all(gateway, "/a") == before
            assert purge(gateway, "--tag", "a").code == 0
            assert by_all(gateway, "/a") != before
            server.kill()
            done = purge(gateway, "--all")
            assert (done.code, done.out) == (1, "")
            assert done.err.startswith("nothing was purged: the store")


def test_where_nothing_keeps_answers_that_is_said(tmp_path: Path) -> None:
    with Gateway(tmp_path, "routes: [{path: /**, respond: {body: hello}}]\n") as gateway:
        gateway.agent_answers()
        done = purge(gateway, "--all")
        assert done == (1, "", "nothing that is served keeps answers, so there is nothing to purge\n")
        assert ask(find(gateway.file, None), "GET", "/status")["state"] is None  # nothing has asked for a store


def test_what_makes_no_sense_is_refused(gateway: Gateway) -> None:
    assert purge(gateway, "/a") == (
        1,
        "",
        "'/a' is no URL to purge; write all of it, as in https://example.com/orders\n",
    )
    assert "what begins alike cannot be purged" in purge(gateway, host("/a/*")).err
    assert "is no tag" in purge(gateway, "--tag", "a b").err
    for arguments in ([], ["--all", "http://a/"], ["--all", "--tag", "a"]):
        done = portico_here("purge", *arguments)
        assert (done.code, done.out) == (2, "")
        assert "give URLs and tags, or --all" in done.err
    missing = portico_here("purge", "--all", "--file", str(gateway.folder / "other.yaml"))
    assert missing.code == 1
    assert missing.err.startswith("no gateway runs ")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "Invalid JSON"),
        (b"[]", 400, "Input should be an object"),
        (b'{"url": []}', 400, "url: Extra inputs are not permitted"),
        (b'{"urls": "http://a/"}', 400, "urls: Input should be a valid"),
        (b'{"tags": [1]}', 400, "tags.0: Input should be a valid string"),
        (b"{}", 400, "there is nothing to purge"),
        (b'{"all": true, "tags": ["a"]}', 400, "say one of them"),
        (b'{"tags": ["' + b"a" * 1024 * 1024 + b'"]}', 413, "the body is over 1048576 bytes"),
    ],
)
def test_the_agent_says_what_is_wrong(gateway: Gateway, body: bytes, status: int, said: str) -> None:
    path = str(find(gateway.file, None))
    answer = curl("--unix-socket", path, "-X", "POST", "--data-binary", "@-", "http://localhost/purge", stdin=body)
    assert (answer.status, said in json.loads(answer.body)["error"]) == (status, True)


def test_the_agent_takes_json_and_no_get(gateway: Gateway) -> None:
    path = str(find(gateway.file, None))
    body = '{"urls": ["http://a/"], "tags": ["b"]}'
    answer = curl("--unix-socket", path, "-d", body, "http://localhost/purge")
    assert json.loads(answer.body) == {"purged": {"urls": ["http://a/"], "tags": ["b"], "all": False}}
    assert curl("--unix-socket", path, "http://localhost/purge").status == 405
