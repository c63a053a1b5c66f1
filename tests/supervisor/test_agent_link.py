"""The supervisor's side of the conversation with the agent; the agent's side is played by the test."""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from portico.net.channel import DESCRIPTORS, Reader, Received, close_all, send_now
from portico.runtime.protocol import (
    Bound,
    Declined,
    Plan,
    Reloading,
    ReloadWanted,
    Remembered,
    SlotSockets,
    WantWorker,
    Withdraw,
    WorkerReady,
)
from portico.state.board import Board, shared_file
from portico.supervisor import agent_link
from portico.supervisor.agent_link import CODEC, AgentLink
from portico.supervisor.doors import Doors
from tests.harness.gateway import wait_for
from tests.harness.plan import PLAN


class Agent:
    """The place of the agent; its other end is the test's."""

    def __init__(self) -> None:
        self.control, self.other = socket.socketpair()
        self.control.setblocking(False)
        self.other.setblocking(False)
        self.killed = 0
        self._reader = Reader(CODEC)
        self._heard: list[Received] = []

    def kill(self) -> None:
        self.killed += 1

    def say(self, message: object, *descriptors: int) -> None:
        send_now(self.other, CODEC.encode(message, len(descriptors)), descriptors)

    def heard(self) -> list[Received]:
        with suppress(BlockingIOError, ConnectionResetError):
            self._heard += self._reader.read(self.other) or []
        return self._heard

    def close(self) -> None:
        for each in self._heard:
            close_all(each.descriptors)
        self._reader.close()
        self.control.close()
        self.other.close()


class Root:
    """The supervisor, as far as its link to the agent needs it; and what it would tell a service manager."""

    def __init__(self) -> None:
        self.plan = PLAN
        self.snapshot = shared_file("snapshot", b"standing")
        self.remembered = ""
        self.stopping = False
        self.workers: list[Any] = []
        self.selector = selectors.DefaultSelector()
        self.doors = Doors()
        self._board_file = Board.create(4)
        self.board = Board(self._board_file)
        self.agent = Agent()
        self.notifier = self
        self.told: list[str] = []

    def watch(self, sock: socket.socket, heard: Callable[[], None]) -> None:
        self.selector.register(sock, selectors.EVENT_READ, heard)

    def forget(self, sock: socket.socket) -> None:
        self.selector.unregister(sock)

    def reloading(self) -> None:
        self.told.append("RELOADING=1")

    def tell(self, *lines: str) -> None:
        self.told += lines

    def turn(self) -> None:
        for key, _ in self.selector.select(0):
            key.data()

    def hears(self, count: int) -> list[Any]:
        """Turn until the agent has heard so many messages."""

        def all_heard() -> bool:
            self.turn()
            return len(self.agent.heard()) >= count

        wait_for(all_heard, f"{count} messages")
        return [each.message for each in self.agent.heard()]

    def close(self) -> None:
        self.doors.accept([], [])
        self.agent.close()
        self.selector.close()
        self.board.close()
        os.close(self._board_file)
        os.close(self.snapshot)


@pytest.fixture
def root() -> Iterator[Root]:
    before = set(Path("/proc/self/fd").iterdir())
    root = Root()
    yield root
    root.close()
    assert set(Path("/proc/self/fd").iterdir()) == before


@pytest.fixture
def link(root: Root) -> Iterator[AgentLink]:
    link = AgentLink(root)  # type: ignore[arg-type]
    link.begin()
    yield link
    link.lost()


def test_an_agent_is_told_how_things_stand(root: Root, link: AgentLink) -> None:
    assert root.hears(2) == [Remembered(""), PLAN]
    (snapshot,) = root.agent.heard()[1].descriptors
    assert os.pread(snapshot, 100, 0) == b"standing"


class Child:
    """A worker, as far as the link knows it."""

    def __init__(self, pid: int) -> None:
        self.name, self.pid, self.ready = "worker", pid, True
        self.control, self.other = socket.socketpair()


def test_a_worker_whose_channel_was_cut_is_met_again(root: Root, link: AgentLink) -> None:
    root.hears(2)
    worker = Child(77)
    root.workers.append(worker)
    root.agent.say(WantWorker(0, 76))  # another one is there by now
    root.agent.say(WantWorker(3, 77))
    root.agent.say(WantWorker(0, 77))
    assert root.hears(3)[2:] == [WorkerReady(0, 77)]
    reader = Reader(CODEC)
    (met,) = reader.read(worker.other) or ()
    close_all(met.descriptors)
    assert len(met.descriptors) == 1
    worker.control.close()
    worker.other.close()


def test_what_an_agent_is_told_may_be_more_than_it_takes_at_once(root: Root, link: AgentLink) -> None:
    root.hears(2)
    link.lost()
    root.agent.close()
    root.agent = Agent()
    root.remembered = "a" * 3_000_000
    link.begin()
    link.ask(ReloadWanted("SIGHUP"))
    root.turn()
    assert root.agent.killed == 0
    assert root.hears(3) == [Remembered(root.remembered), PLAN, ReloadWanted("SIGHUP")]
    assert [len(each.descriptors) for each in root.agent.heard()] == [0, 1, 0]
    assert root.selector.get_key(root.agent.control).events == selectors.EVENT_READ


def test_an_agent_that_reads_nothing_is_ended_in_the_end(
    root: Root, link: AgentLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_link, "BACKLOG_LIMIT", 1_000_000)
    for _ in range(5):
        link.ask(ReloadWanted("a" * 400_000))
    assert root.agent.killed == 1
    link.ask(ReloadWanted("SIGHUP"))
    assert root.agent.killed == 1


def test_an_agent_that_is_gone_is_not_told_anything(root: Root, link: AgentLink) -> None:
    root.agent.other.close()
    link.ask(ReloadWanted("SIGHUP"))
    link.ask(ReloadWanted("SIGHUP"))
    root.turn()
    assert root.agent.killed == 1


def test_an_agent_that_makes_no_sense_is_ended(root: Root, link: AgentLink) -> None:
    root.agent.other.send(b"GET / HTTP/1.1\r\n\r\n")
    root.turn()
    assert root.agent.killed == 1
    assert len(root.selector.get_map()) == 0


def test_a_proposal_is_bound_and_withdrawn(root: Root, link: AgentLink) -> None:
    snapshot = shared_file("snapshot", b"proposed")
    listen = [["127.0.0.1", 0, "http"], ["127.0.0.1", 0, "https"]]
    root.agent.say(Plan(**{**vars(PLAN), "revision": 2, "listen": listen}), snapshot)
    os.close(snapshot)
    assert root.hears(5)[2:] == [SlotSockets(0, [1, 2]), SlotSockets(1, [1, 2]), Bound(2, [1, 2])]
    assert root.doors.current == []
    root.agent.say(Withdraw(2))
    root.turn()


def test_a_proposal_of_an_agent_that_is_gone_leaves_nothing_open(root: Root, link: AgentLink) -> None:
    snapshot = shared_file("snapshot", b"proposed")
    root.hears(2)
    root.agent.say(Plan(**{**vars(PLAN), "revision": 2}), snapshot)
    os.close(snapshot)
    root.agent.other.close()
    root.turn()
    assert root.agent.killed == 1


def test_more_listeners_than_can_be_handed_out_are_declined(root: Root, link: AgentLink) -> None:
    snapshot = shared_file("snapshot", b"proposed")
    listen = [["127.0.0.1", 0, "http"]] * DESCRIPTORS
    root.agent.say(Plan(**{**vars(PLAN), "revision": 2, "listen": listen}), snapshot)
    os.close(snapshot)
    declined = root.hears(3)[2]
    assert isinstance(declined, Declined)
    assert "less than 200 listeners" in declined.reason


# Reloads


def test_the_service_manager_is_told_of_reloads_that_overlap(root: Root, link: AgentLink) -> None:
    for begun, told in (
        (True, ["RELOADING=1"]),
        (True, ["RELOADING=1", "RELOADING=1"]),
        (False, ["RELOADING=1", "RELOADING=1"]),
        (False, ["RELOADING=1", "RELOADING=1", "READY=1"]),
        (False, ["RELOADING=1", "RELOADING=1", "READY=1"]),
    ):
        root.agent.say(Reloading(begun=begun))
        root.turn()
        assert root.told == told


def test_a_reload_is_over_with_its_agent(root: Root, link: AgentLink) -> None:
    root.agent.say(Reloading(begun=True))
    root.turn()
    root.agent.other.close()
    root.turn()
    assert root.told == ["RELOADING=1", "READY=1"]
    link.lost()
    assert root.told == ["RELOADING=1", "READY=1"]


def test_a_gateway_that_ends_is_not_ready_again(root: Root, link: AgentLink) -> None:
    root.agent.say(Reloading(begun=True))
    root.turn()
    root.stopping = True
    root.agent.say(Reloading(begun=False))
    root.agent.say(Reloading(begun=True))
    root.turn()
    link.lost()
    assert root.told == ["RELOADING=1"]


@pytest.mark.parametrize(("begun", "asked"), [(False, [ReloadWanted("SIGHUP")]), (True, [])])
def test_the_next_agent_is_asked_for_what_the_last_one_has_not_begun(
    root: Root, link: AgentLink, begun: bool, asked: list[object]
) -> None:
    link.ask(ReloadWanted("SIGHUP"))
    if begun:
        root.agent.say(Reloading(begun=True))
    root.turn()
    link.lost()
    root.agent.close()
    root.agent = Agent()
    link.begin()
    link.worker_gone(0, 1, "so that something follows")
    assert root.hears(3 + len(asked))[2:-1] == asked


def test_without_a_descriptor_to_spare_an_agent_is_ended_and_nothing_else(
    root: Root, link: AgentLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(descriptor: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    root.hears(2)
    monkeypatch.setattr(os, "dup", none_left)
    root.agent.say(replace(PLAN, revision=2, listen=[*PLAN.listen, ["127.0.0.1", 0, "http"]]), root.snapshot)
    root.turn()
    assert root.agent.killed == 1
    assert link._sock is None


def test_an_agent_with_a_reload_to_carry_out_is_busy(root: Root, link: AgentLink) -> None:
    assert not link.busy
    link.ask(ReloadWanted("SIGHUP"))
    assert link.busy
    root.agent.say(Reloading(begun=True))
    root.turn()
    assert link.busy
    root.agent.say(Reloading(begun=False))
    root.turn()
    assert not link.busy
    link.ask(ReloadWanted("SIGHUP"))
    link.lost()
    assert not link.busy  # there is nobody to wait for
