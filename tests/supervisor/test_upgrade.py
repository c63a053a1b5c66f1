"""SIGUSR2, up to the moment at which another program takes the place: when it does, and what is left as it was."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from portico.runtime.protocol import Plan
from portico.supervisor import upgrade as module
from portico.supervisor.doors import Door, Doors
from portico.supervisor.handover import HANDLED, BadHandover
from portico.supervisor.upgrade import Trial, Upgrade
from tests.harness.plan import PLAN


class Left:
    """What would be handed over; the other program never comes."""

    def __init__(self, doors: Iterable[Door]) -> None:
        self.doors = [door.bound for door in doors]
        self.done = False
        self.blocked: set[signal.Signals] = set()

    def become_by(self, trial: int, environment: Mapping[str, str]) -> None:
        self.done = True
        self.blocked = {signal.Signals(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}
        raise BadHandover("this is a test")


class Root:
    """The supervisor, and its link to the agent, as far as they are needed."""

    def __init__(self) -> None:
        self.plan = PLAN
        self.stopping = self.asked = self.busy = False
        self.announced = True
        self.doors = Doors()
        self.doors.accept(self.doors.propose(PLAN.listen, range(2)), ["http"])
        self.notifier = self
        self.lefts: list[Left] = []

    def environment(self) -> dict[str, str]:
        return {}

    def left(self, doors: Iterable[Door]) -> Left:
        self.lefts.append(Left(doors))
        return self.lefts[-1]


class Tried(Trial):
    """A trial that has run, or not, as the test has it."""

    made: list[Tried]
    listen: list[list[str | int]]

    def __init__(self, plan: Plan) -> None:
        self.revision = plan.revision
        self.why = ""
        self.file = -1
        self.ready = True
        self.closed = False
        self.made.append(self)

    def poll(self, now: float) -> bool:
        return self.ready

    def wanted(self) -> tuple[list[list[str | int]], int]:
        return self.listen, 2

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Root]:
    before = set(Path("/proc/self/fd").iterdir())
    monkeypatch.setattr(module, "Trial", Tried)
    monkeypatch.setattr(Tried, "made", [], raising=False)
    monkeypatch.setattr(Tried, "listen", PLAN.listen, raising=False)
    root = Root()
    yield root
    root.doors.accept([], [])
    assert set(Path("/proc/self/fd").iterdir()) <= before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(HANDLED)


@pytest.fixture
def upgrade(root: Root) -> Upgrade:
    stands_in: Any = root
    return Upgrade(stands_in, stands_in)


@contextmanager
def port() -> Iterator[int]:
    """Yield a port that somebody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        yield taken.getsockname()[1]


def test_it_is_handed_over_with_signals_blocked(root: Root, upgrade: Upgrade, caplog: pytest.LogCaptureFixture) -> None:
    upgrade.begin()
    upgrade.tend(0.0)
    (left,) = root.lefts
    assert left.done
    assert left.blocked >= set(HANDLED)
    assert left.doors == [door.bound for door in root.doors.current]
    assert "this is a test; everything stays as it is" in caplog.text
    assert Tried.made[0].closed
    upgrade.begin()
    assert len(Tried.made) == 2


def test_new_addresses_are_bound_before_anything_is_given_up(
    root: Root, upgrade: Upgrade, monkeypatch: pytest.MonkeyPatch
) -> None:
    with port() as free:
        pass
    monkeypatch.setattr(Tried, "listen", [*PLAN.listen, ["127.0.0.1", free, "http"]])
    upgrade.begin()
    upgrade.tend(0.0)
    assert root.lefts[0].doors == [root.doors.current[0].bound, free]
    with closing(socket.create_server(("127.0.0.1", free))):
        pass  # since it was not handed over, it is not bound any more


def test_an_address_that_is_taken_changes_nothing(
    root: Root, upgrade: Upgrade, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with port() as taken:
        monkeypatch.setattr(Tried, "listen", [["127.0.0.1", taken, "http"]])
        upgrade.begin()
        upgrade.tend(0.0)
    assert not root.lefts
    assert f"cannot listen on 127.0.0.1:{taken}: Address already in use; everything stays as it is" in caplog.text
    assert len(root.doors.current[0].sockets) == 2


def test_a_signal_that_came_before_is_acted_on_first(root: Root, upgrade: Upgrade) -> None:
    upgrade.begin()
    root.asked = True
    upgrade.tend(0.0)
    assert not root.lefts
    root.asked = False
    upgrade.tend(0.0)
    assert root.lefts


def test_a_reload_comes_first_and_is_not_undone(root: Root, upgrade: Upgrade) -> None:
    upgrade.begin()
    root.busy = True
    upgrade.tend(0.0)
    assert not root.lefts
    root.busy, root.plan = False, replace(PLAN, revision=2)
    upgrade.tend(0.0)
    assert not root.lefts  # what was loaded is older than what is served
    first, second = Tried.made
    assert (first.closed, second.revision) == (True, 2)
    upgrade.tend(0.0)
    assert root.lefts[0].done


def test_it_ends_with_the_gateway(root: Root, upgrade: Upgrade) -> None:
    upgrade.begin()
    upgrade.give_up()
    assert Tried.made[0].closed
    upgrade.tend(0.0)
    assert not root.lefts
    root.stopping = True
    upgrade.begin()
    assert len(Tried.made) == 1


def test_a_trial_that_has_left_nothing_is_told(tmp_path: Path) -> None:
    trial = Trial(replace(PLAN, file=str(tmp_path / "none.yaml")))
    try:
        with pytest.raises(BadHandover):
            trial.wanted()
    finally:
        trial.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(trial.file)
