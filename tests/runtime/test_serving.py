"""A worker that is given one configuration after another: what it serves, and that nothing of the others stays."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from portico.http.message import Request, Response
from portico.http.target import EncodedSlashes
from portico.net.server import Server, ServerLimits
from portico.net.stream import Outbox
from portico.observe.exchange import Exchange, Outcome
from portico.policy.registry import Registry
from portico.runtime.compile import Surroundings
from portico.runtime.garbage import Garbage
from portico.runtime.pace import Pace
from portico.runtime.protocol import Abandon, Commit, Committed, Prepare, Prepared, Refused
from portico.runtime.serving import Serving, _over
from portico.runtime.shared import Leases
from portico.state.board import Board, Vital, shared_file
from tests.harness.gateway import DEADLINE, Call, Service, memory_of, wait_for
from tests.harness.loop import run, turns, until
from tests.harness.worker import Worker, descriptors_of, get, snapshot_of, threads_of

SWAPS = 1000
WARM = 200
GROWTH = 1.05


def config(word: str, routes: int = 40) -> str:
    lines = "".join(
        f"  - {{path: /{word}{number}/**, service: {word}, methods: [GET, POST]}}\n" for number in range(routes)
    )
    return (
        "policies: [correlation-id, security-headers]\n"
        f"services: {{{word}: {{targets: ['127.0.0.1:1', '127.0.0.1:2']}}, other: 'http://127.0.0.1:9'}}\n"
        f"routes:\n  - {{path: /say, respond: {word}}}\n  - {{path: /other, service: other}}\n{lines}"
    )


def plugin(folder: Path, number: int) -> bytes:
    """Return a snapshot with a plugin whose code is another for each number."""
    (folder / "word.py").write_text(
        "from portico.plugin import Policy, PolicyConfig, Request, Response, Stage\n"
        "class Word(PolicyConfig):\n"
        "    word: str = 'w'\n"
        "    '''A word.'''\n"
        "class WordPolicy(Policy[Word], name='word', stages=(Stage.TRANSFORM,)):\n"
        "    def request(self, request: Request) -> Response | None:\n"
        f"        return Response(200, body=b'{number}')\n"
    )
    return snapshot_of(folder, "plugins: [word.py]\npolicies: [word]\nroutes: [{path: /say, respond: x}]\n")


def test_one_configuration_after_another(tmp_path: Path) -> None:
    with Worker(tmp_path, snapshot_of(tmp_path, config("a"))) as worker:
        assert get(worker.port, "/say") == b"a"
        worker.swap(snapshot_of(tmp_path, config("b")))
        assert get(worker.port, "/say") == b"b"
        assert worker.segment[Vital.REVISION] == 2
        assert worker.report()["revision"] == 2
        assert set(worker.report()["services"]) == {"b", "other"}


def test_what_is_prepared_is_not_served_before_it_is_told(tmp_path: Path) -> None:
    with Worker(tmp_path, snapshot_of(tmp_path, config("a"))) as worker:
        assert isinstance(worker.prepare(snapshot_of(tmp_path, config("b"))), Prepared)
        assert get(worker.port, "/say") == b"a"
        worker.agent.say(Abandon(worker.revision))
        worker.agent.say(Commit(worker.revision))
        assert worker.agent.hear() == Refused(worker.revision, ["it is not prepared here"])
        assert get(worker.port, "/say") == b"a"
        assert isinstance(worker.prepare(snapshot_of(tmp_path, config("c"))), Prepared)
        worker.swap(snapshot_of(tmp_path, config("d")))  # the one before it was never told to be served
        assert get(worker.port, "/say") == b"d"


def test_a_commit_that_comes_too_early(tmp_path: Path) -> None:
    with Worker(tmp_path, snapshot_of(tmp_path, config("a"))) as worker:
        packed = shared_file("snapshot", snapshot_of(tmp_path, config("b", 2000)))
        worker.agent.say(Prepare(2, [1], []), packed)
        worker.agent.say(Commit(2))
        os.close(packed)
        assert worker.agent.hear() == Refused(2, ["it is not prepared here"])
        assert isinstance(worker.agent.hear(), Prepared)
        worker.agent.say(Commit(2))
        assert worker.agent.hear() == Committed(2)


def test_an_agent_that_is_gone_takes_its_proposal_along(tmp_path: Path) -> None:
    with Worker(tmp_path, snapshot_of(tmp_path, config("a"))) as worker:
        assert isinstance(worker.prepare(snapshot_of(tmp_path, config("b"))), Prepared)
        worker.agent.close()
        worker.agent = worker.meet()
        worker.agent.say(Commit(worker.revision))
        assert isinstance(worker.agent.hear(), Refused)
        worker.swap(snapshot_of(tmp_path, config("c")))
        assert get(worker.port, "/say") == b"c"


def test_a_snapshot_that_makes_no_sense(tmp_path: Path) -> None:
    with Worker(tmp_path, snapshot_of(tmp_path, config("a"))) as worker:
        answer = worker.prepare(b"this is no pickle")
        assert isinstance(answer, Refused)
        assert get(worker.port, "/say") == b"a"
        worker.swap(snapshot_of(tmp_path, config("b")))
        assert get(worker.port, "/say") == b"b"
        worker.expected_traces = 1


def test_channels_that_make_no_sense_are_cut(tmp_path: Path) -> None:
    with Worker(tmp_path, snapshot_of(tmp_path, config("a"))) as worker:
        worker.agent.sock.sendall(b"\0\0\0\3\0\0\0\0abc")
        assert worker.agent.sock.recv(1) == b""
        worker.agent.close()
        worker.agent = worker.meet()
        worker.swap(snapshot_of(tmp_path, config("b")))
        assert get(worker.port, "/say") == b"b"


def test_connections_go_on_over_a_swap(tmp_path: Path) -> None:
    with (
        Worker(tmp_path, snapshot_of(tmp_path, config("a"))) as worker,
        closing(socket.create_connection(("127.0.0.1", worker.port), timeout=DEADLINE)) as client,
    ):
        answers = client.makefile("rb")
        for word in "abc":
            client.sendall(b"GET /say HTTP/1.1\r\nHost: a\r\n\r\n")
            head = b"".join(iter(answers.readline, b"\r\n"))
            assert b"connection: close" not in head.lower()
            assert answers.read(1) == word.encode()
            worker.swap(snapshot_of(tmp_path, config(chr(ord(word) + 1))))


@pytest.mark.timeout(300)
def test_a_thousand_swaps_leave_nothing_behind(tmp_path: Path) -> None:
    snapshots = [snapshot_of(tmp_path, config(word, routes)) for word, routes in (("a", 40), ("b", 50))]
    with Worker(tmp_path, snapshots[0]) as worker:
        pid = worker.popen.pid
        looks = []
        for number in range(SWAPS):
            worker.swap(snapshots[(number + 1) % 2])
            if number + 1 in (WARM, SWAPS):
                worker.settled()
                looks.append((memory_of(pid, "VmRSS"), descriptors_of(pid), threads_of(pid)))
        (warm, *others), (end, *at_end) = looks
        print(f"\n{SWAPS} swaps: {warm / 2**20:.1f} MiB after {WARM}, {end / 2**20:.1f} at the end")
        assert end <= warm * GROWTH
        assert at_end == others
        assert get(worker.port, "/say") == b"a"
        assert worker.report()["revision"] == SWAPS + 1
        assert worker.report()["tasks"] <= 4


@pytest.mark.timeout(300)
def test_plugins_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Worker(tmp_path, plugin(tmp_path, 0)) as worker:
        pid = worker.popen.pid
        looks = []
        for number in range(1, 401):
            worker.swap(plugin(tmp_path, number))
            if number in (200, 400):
                wait_for(lambda: worker.segment[Vital.RETIRED] == 0, "the old ones to be closed")
                assert get(worker.port, "/say") == b"%d" % number
                looks.append(memory_of(pid, "VmRSS"))
        print(f"\n400 plugins: {looks[0] / 2**20:.1f} MiB after 200, {looks[1] / 2**20:.1f} at the end")
        assert looks[1] <= looks[0] * GROWTH


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which descriptors a process has")
def test_a_worker_has_no_descriptor_of_the_board_that_anybody_could_close(tmp_path: Path) -> None:
    """Closing one would drop the locks that it has there (`portico.state.records`)."""

    def of_the_board(worker: Worker) -> list[str]:
        links = Path(f"/proc/{worker.popen.pid}/fd").iterdir()
        return sorted(link.name for link in links if "portico-board" in str(link.readlink()))

    with Worker(tmp_path, snapshot_of(tmp_path, config("a"))) as worker:
        first = of_the_board(worker)
        assert len(first) == 2  # that of the mapping, and that of the locks
        worker.swap(snapshot_of(tmp_path, config("b")))
        assert get(worker.port, "/say") == b"b"
        assert of_the_board(worker) == first


def test_a_second_sigterm_asks_for_no_more_than_the_first(tmp_path: Path) -> None:
    """Whoever ends every process of a service, and the supervisor, each send one."""
    release = threading.Event()

    def slow(call: Call) -> None:
        call.note()
        release.wait(DEADLINE)
        call.answer(200, b"whole")

    with Service(slow) as service:
        text = f"services: {{s: 'http://127.0.0.1:{service.port}'}}\nroutes: [{{path: /s/**, service: s}}]\n"
        with (
            Worker(tmp_path, snapshot_of(tmp_path, text)) as worker,
            closing(socket.create_connection(("127.0.0.1", worker.port), timeout=DEADLINE)) as client,
        ):
            client.sendall(b"GET /s/ HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: service.seen, "the request")
            worker.popen.terminate()
            wait_for(lambda: worker.segment[Vital.DRAINING], "the drain")
            worker.popen.terminate()
            seen = worker.segment[Vital.BEAT]
            wait_for(lambda: worker.segment[Vital.BEAT] > seen, "it to live on")
            release.set()
            assert client.makefile("rb").read().endswith(b"whole")
            assert worker.popen.wait(DEADLINE) == 0


def test_a_proposal_that_is_given_up_before_it_begins_leaves_nothing_open(tmp_path: Path) -> None:
    with Worker(tmp_path, snapshot_of(tmp_path, config("a"))) as worker:
        packed = shared_file("snapshot", snapshot_of(tmp_path, config("b")))
        before = descriptors_of(worker.popen.pid)
        worker.popen.send_signal(signal.SIGSTOP)  # so that it hears both at once
        worker.agent.say(Prepare(2, [1], []), packed)
        agent = worker.meet()
        worker.popen.send_signal(signal.SIGCONT)
        os.close(packed)
        worker.agent.close()
        worker.agent = agent
        worker.report()
        wait_for(lambda: descriptors_of(worker.popen.pid) == before, "the snapshot to be closed")


def test_a_worker_does_not_swap_where_it_could_not_open_every_door(tmp_path: Path) -> None:
    with Worker(tmp_path, snapshot_of(tmp_path, config("a"))) as worker:
        packed = shared_file("snapshot", snapshot_of(tmp_path, config("b")))
        worker.agent.say(Prepare(2, [2], []), packed)  # the socket of door 2 came with a configuration that it missed
        assert isinstance(worker.agent.hear(), Prepared)
        worker.agent.say(Commit(2))
        assert worker.agent.hear() == Refused(2, ["there is no socket here of door 2"])
        assert get(worker.port, "/say") == b"a"
        assert worker.segment[Vital.REVISION] == 1
        with closing(socket.create_server(("127.0.0.1", 0))) as other:
            worker.agent.say(Prepare(2, [2], [2]), packed, other.fileno())
            os.close(packed)
            assert isinstance(worker.agent.hear(), Prepared)
            worker.agent.say(Commit(2))
            assert worker.agent.hear() == Committed(2)
            assert get(other.getsockname()[1], "/say") == b"b"


class Interrupted(Exception):
    """What ends a load in its last phase."""


def test_a_load_that_ends_in_its_last_phase_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise Interrupted

    monkeypatch.setattr("portico.runtime.serving._dropping", interrupted)
    packed = snapshot_of(tmp_path, config("a"))
    descriptor = Board.create(1)
    board = Board(descriptor)

    async def nobody(request: Request) -> Response:
        raise AssertionError

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            loop = asyncio.get_running_loop()
            leases = Leases()
            outbox = Outbox(loop)
            surroundings = Surroundings(Registry(), leases, tasks, outbox, loop.time)
            garbage = Garbage(board.segment(1))
            server = Server(nobody, ServerLimits(), EncodedSlashes.KEEP, tasks, outbox)
            serving = Serving(surroundings, server, garbage)
            try:
                with pytest.raises(Interrupted):
                    await serving.prepare(packed, 1, Pace())
                await until(lambda: not len(leases))
            finally:
                garbage.close()

    try:
        run(main)
    finally:
        gc.unfreeze()
        board.close()
        os.close(descriptor)


def test_a_configuration_is_closed_whose_requests_were_over_before_it_waited() -> None:
    async def main() -> None:
        one, other = Exchange(0.0), Exchange(0.0)
        one.end(Outcome.COMPLETE, 1.0)  # between the swap and the first step of the task that waits
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(_over([one, other]))
            await turns()
            assert not waiting.done()
            other.end(Outcome.COMPLETE, 1.0)
        await _over([one])

    run(main)
