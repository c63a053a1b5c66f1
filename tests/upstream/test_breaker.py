from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from portico.config.resilience import Breaker as BreakerConfig
from portico.errors import (
    AnswerTooLarge,
    BodyTooLarge,
    BodyTruncated,
    CircuitOpen,
    ConnectFailed,
    MalformedResponse,
    NoTarget,
    Overloaded,
    RequestTimeout,
    Source,
    UpstreamClosed,
    UpstreamError,
    UpstreamTimeout,
)
from portico.http.body import Body, Trailers
from portico.http.message import Request
from portico.net.client import Patience
from portico.observe.health import BreakerState
from portico.state.board import Board
from portico.state.records import PLACES, Record
from portico.upstream.breaker import Breaker
from tests.harness.calls import Asked, Call
from tests.harness.gateway import DEADLINE
from tests.harness.loop import run_jumping
from tests.harness.peer import service
from tests.upstream.test_stack import over_loopback

EPOCH = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return EPOCH + self.now


class Rig:
    """A breaker, its service and its clock."""

    def __init__(self, record: Record | None = None, clock: Clock | None = None, **config: Any) -> None:
        self.clock = Clock() if clock is None else clock
        self.record = Record.private() if record is None else record
        self.service = Asked()
        self.breaker = Breaker(
            "orders", BreakerConfig(**config), self.record, self.clock, self.service.handle, self.clock.wall
        )

    def call(self, request: Request | None = None) -> Call:
        return Call(self.breaker.handle, request)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.call().fail(failure())

    @property
    def state(self) -> str:
        return self.breaker.state.name


def failure() -> UpstreamError:
    return UpstreamTimeout("no answer in time", source=Source.RESPONSE)


def refused(call: Call) -> CircuitOpen:
    assert isinstance(call.error, CircuitOpen)
    return call.error


def test_it_opens_after_failures_in_a_row_and_closes_after_one_that_went_well(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig(failures=5, open_for=30.0)
    rig.fail(4)
    rig.call().answer()
    rig.fail(4)
    assert rig.breaker.state == BreakerState("closed", 0.0, "")
    rig.call().answer(503)
    why = "5 failures in a row, the last: status 503"
    assert rig.breaker.state == BreakerState("open", EPOCH + 1000.0, why)
    asked = rig.service.count
    error = refused(rig.call())
    assert (error.retry_after, error.source, error.retryable) == (30, Source.GATEWAY, False)
    assert str(error) == f"the breaker is open: {why}"
    rig.clock.now += 29.5
    assert refused(rig.call()).retry_after == 1
    assert rig.service.count == asked
    rig.clock.now += 0.5
    assert rig.breaker.state == BreakerState("half-open", EPOCH + 1030.0, why)
    probe = rig.call()
    assert refused(rig.call()).retry_after == 1
    rig.clock.now += 1.0
    assert probe.answer().response is not None
    assert rig.breaker.state == BreakerState("closed", EPOCH + 1031.0, "")
    assert rig.call().answer().response is not None
    assert caplog.messages == [
        f"service orders: the breaker is open for 30 s: {why}",
        "service orders: the breaker is half open: trying",
        "service orders: the breaker is closed again",
    ]


def test_a_probe_that_fails_opens_it_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig(failures=1, open_for=10.0)
    for what in ("1 failure in a row, the last", "a probe failed", "a probe failed"):
        rig.fail()
        assert rig.breaker.state.why == f"{what}: no answer in time (service-timeout)"
        rig.clock.now += 10.0
        assert rig.state == "half-open"
    rig.call().answer(500)
    assert rig.breaker.state.why == "a probe failed: status 500"
    assert sum("is open for" in line for line in caplog.messages) == 4
    assert sum("trying" in line for line in caplog.messages) == 3


def test_where_no_target_is_well_it_stays_half_open_until_one_is() -> None:
    rig = Rig(failures=1, open_for=10.0)
    rig.fail()
    rig.clock.now += 10.0
    for _ in range(3):
        call = rig.call().fail(NoTarget("none of its 1 targets is well", source=Source.GATEWAY))
        assert isinstance(call.error, NoTarget)
        assert rig.state == "half-open"
    rig.call().answer()
    assert rig.state == "closed"


def test_so_many_probes_at_once_and_so_many_have_to_go_well() -> None:
    rig = Rig(failures=1, open_for=10.0, probes=2, successes=3)
    rig.fail()
    rig.clock.now += 10.0
    one, two = rig.call(), rig.call()
    refused(rig.call())
    one.answer()
    three = rig.call()
    refused(rig.call())
    two.answer()
    assert rig.state == "half-open"
    three.answer()
    assert rig.state == "closed"
    rig.fail()
    rig.clock.now += 10.0
    rig.call().answer()
    rig.call().answer()
    assert rig.state == "half-open"  # it counts from the beginning each time


def test_the_most_probes_leave_a_place_for_changes() -> None:
    rig = Rig(failures=1, open_for=10.0, probes=16)
    rig.fail()
    rig.clock.now += 10.0
    calls = [rig.call() for _ in range(16)]
    refused(rig.call())
    calls[0].answer()
    assert rig.state == "closed"
    for call in calls[1:]:
        call.answer()
    assert all(rig.record.take(place) for place in range(PLACES))


class NeverAll:
    async def read(self) -> bytes:
        raise AssertionError

    def trailers(self) -> Trailers:
        return []

    def close(self) -> None:
        pass


def upload(*, pending: bool) -> Request:
    body = Body.stream(NeverAll(), None)
    body.pending = pending
    return Request("POST", "/", body=body)


@pytest.mark.parametrize(
    ("make", "request_", "counts"),
    [
        pytest.param(failure, None, True, id="timeout"),
        pytest.param(lambda: ConnectFailed("", source=Source.CONNECT, retryable=True), None, True, id="refused"),
        pytest.param(lambda: UpstreamClosed("", source=Source.RESPONSE), None, True, id="closed"),
        pytest.param(lambda: MalformedResponse("", source=Source.RESPONSE), None, True, id="malformed"),
        pytest.param(lambda: AnswerTooLarge("", source=Source.RESPONSE), None, True, id="too large"),
        pytest.param(lambda: NoTarget("", source=Source.GATEWAY), None, False, id="no target"),
        pytest.param(failure, upload(pending=False), True, id="timeout after an upload"),
        pytest.param(
            lambda: UpstreamClosed("", source=Source.RESPONSE), upload(pending=True), True, id="closed on one"
        ),
        pytest.param(failure, upload(pending=True), False, id="timeout for want of the client's content"),
        pytest.param(lambda: Overloaded("", source=Source.GATEWAY), None, False, id="overloaded"),
        pytest.param(lambda: CircuitOpen("", source=Source.GATEWAY), None, False, id="another breaker"),
        pytest.param(lambda: BodyTooLarge(""), None, False, id="the client's body"),
        pytest.param(lambda: RequestTimeout(""), None, False, id="the client's slowness"),
        pytest.param(lambda: BodyTruncated(""), None, False, id="the client's end"),
        pytest.param(lambda: RuntimeError("a bug"), None, False, id="a bug"),
    ],
)
def test_what_is_a_failure(make: Callable[[], Exception], request_: Request | None, counts: bool) -> None:
    rig = Rig(failures=2, open_for=10.0)
    rig.fail()
    error = make()
    assert rig.call(request_).fail(error).error is error
    assert rig.state == ("open" if counts else "closed")
    if not counts:
        rig.fail()  # the row goes on over what says nothing
    assert rig.state == "open"
    rig.clock.now += 10.0
    assert rig.call(request_).fail(error).error is error
    assert rig.state == ("open" if counts else "half-open")
    rig.clock.now += 10.0
    rig.call().answer()
    assert rig.state == "closed"


def test_a_client_that_leaves_says_nothing_and_gives_its_probe_back() -> None:
    rig = Rig(failures=2, open_for=10.0)
    rig.fail()
    rig.call().leave()
    assert rig.state == "closed"
    rig.fail()
    rig.clock.now += 10.0
    probe = rig.call()
    refused(rig.call())
    probe.leave()
    assert rig.state == "half-open"
    rig.call().answer()
    assert rig.state == "closed"


def test_statuses_are_what_the_file_says() -> None:
    rig = Rig(failures=1, statuses=(429,))
    rig.call().answer(500)
    assert rig.state == "closed"
    rig.call().answer(429)
    assert rig.state == "open"


def test_what_was_passed_on_before_a_change_does_not_count_after_it() -> None:
    rig = Rig(failures=2, open_for=10.0, probes=2, successes=2)
    early = [rig.call() for _ in range(8)]
    rig.fail(2)
    early[0].answer()
    early[1].fail(failure())
    assert rig.breaker.state.since == EPOCH + 1000.0
    rig.clock.now += 10.0
    late = rig.call()
    early[2].answer()
    early[3].fail(failure())
    assert rig.state == "half-open"
    rig.call().fail(failure())
    rig.clock.now += 10.0
    late.answer()
    rig.call().answer()
    assert rig.state == "half-open"  # the late one was let through in another trial
    rig.call().answer()
    assert rig.state == "closed"
    early[4].fail(failure())
    early[5].fail(failure())
    rig.fail()
    assert rig.state == "closed"
    early[6].fail(failure())
    early[7].answer()
    assert rig.state == "closed"
    rig.fail()
    assert rig.state == "open"


def test_a_new_row_begins_when_it_closes() -> None:
    rig = Rig(failures=2, open_for=10.0)
    rig.fail(2)
    rig.clock.now += 10.0
    rig.call().answer()
    rig.fail()
    assert rig.state == "closed"
    rig.fail()
    assert rig.state == "open"


@pytest.mark.parametrize(("passed", "state"), [(9.5, "open"), (10.0, "closed")])
def test_the_window_is_as_long_as_it_says(passed: float, state: str) -> None:
    rig = Rig(ratio=0.5, window=10.0, minimum=4, open_for=30.0)
    rig.fail(3)
    rig.clock.now += passed
    rig.fail()
    assert rig.state == state


def test_it_opens_by_the_share_of_failures_in_the_window() -> None:
    rig = Rig(ratio=0.5, window=10.0, minimum=4, open_for=30.0)
    rig.fail(3)
    rig.call().answer()
    assert rig.state == "closed"
    rig.clock.now += 10.0
    rig.call().answer()
    rig.call().answer()
    rig.fail(1)
    assert rig.state == "closed"
    rig.fail(1)
    assert rig.breaker.state.why == (
        "2 failures among 4 requests in 10 s, the last: no answer in time (service-timeout)"
    )
    rig.clock.now += 30.0
    rig.call().answer()
    rig.fail(3)
    assert rig.state == "closed"  # the window begins anew
    rig.fail(1)
    assert rig.state == "open"


def test_a_bucket_that_is_full_counts_no_further() -> None:
    rig = Rig(ratio=0.5, window=10.0, minimum=4, open_for=30.0)
    rig.call().answer()
    at = next(at for at, value in enumerate(rig.record.slots) if value)
    rig.record.slots[at] += ((1 << 20) - 2) << 20
    before = rig.record.slots[at]
    rig.fail(3)
    rig.call().answer()
    assert rig.record.slots[at] == before
    assert rig.state == "closed"


def test_all_breakers_of_a_record_are_one() -> None:
    one = Rig(failures=2, open_for=10.0)
    other = Rig(one.record, one.clock, failures=2, open_for=10.0)
    one.fail()
    other.fail()
    assert one.breaker.state == other.breaker.state
    assert one.state == "open"
    refused(one.call())
    one.clock.now += 10.0
    probe = one.call()
    refused(other.call())
    probe.answer()
    assert other.call().answer().response is not None


def test_a_change_that_another_process_is_at_is_left_to_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig(failures=2, open_for=10.0)
    assert rig.record.take(PLACES - 1)
    rig.fail(3)
    assert rig.state == "closed"
    rig.record.give_back(PLACES - 1)
    rig.fail()
    assert rig.state == "open"
    rig.clock.now += 10.0
    assert rig.record.take(PLACES - 1)
    rig.call().answer()
    rig.record.give_back(PLACES - 1)
    assert rig.state == "half-open"
    rig.call().answer()
    assert rig.state == "closed"
    assert len(caplog.messages) == 3


@pytest.mark.parametrize("change", ["reopened", "closed"])
def test_a_change_between_the_look_and_the_place_is_heeded(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(failures=1, open_for=10.0)
    rig.fail()
    rig.clock.now += 10.0
    take = Record.take
    met = []

    def meanwhile(self: Record, place: int) -> bool:
        if not met:
            met.append(True)
            call = rig.call()
            call.answer(500 if change == "reopened" else 200)
        return take(self, place)

    monkeypatch.setattr(Record, "take", meanwhile)
    asked = rig.service.count
    call = rig.call()
    if change == "reopened":
        refused(call)
        assert rig.service.count == asked + 1
    else:
        assert call.under_way
        call.answer()
    monkeypatch.undo()
    assert all(rig.record.take(place) for place in range(PLACES))


class Uploads:
    """A client that sends one piece, and then nothing, or one piece after the other."""

    def __init__(self, piece: bytes, *, stalls: bool) -> None:
        self._piece = piece
        self._stalls = stalls
        self._sent = False

    async def read(self) -> bytes:
        if self._sent and self._stalls:
            await asyncio.get_running_loop().create_future()
        self._sent = True
        return self._piece

    def trailers(self) -> Trailers:
        return []

    def close(self) -> None:
        pass


@pytest.mark.parametrize("slow", ["client", "service"])
def test_a_time_that_is_over_is_held_against_the_service_unless_the_client_was_the_slow_one(slow: str) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        async with service() as target, over_loopback([target.port], Patience(30.0, 30.0), total=3.0) as made:
            made.surround(lambda inner: inner)  # so that it raises
            record = Record.private()
            breaker = Breaker("orders", BreakerConfig(failures=1), record, loop.time, made.handle)
            source = Uploads(b"x" if slow == "client" else b"x" * 2**20, stalls=slow == "client")
            with pytest.raises(UpstreamTimeout):
                await breaker.handle(Request("POST", "/", body=Body.stream(source, 2**30)))
            assert target.accepted == 1
            return breaker.state.name

    assert run_jumping(main) == ("closed" if slow == "client" else "open")


# Against a model.


class Model:
    """What the documentation says, as simply as can be."""

    def __init__(self, config: BreakerConfig, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self.is_open = False
        self.since = 0.0
        self.period = 0
        self.good = 0
        self.history: list[tuple[int, bool]] = []
        self.probing = 0

    @property
    def name(self) -> str:
        if not self.is_open:
            return "closed"
        return "half-open" if self.clock.now - self.since >= self.config.open_for else "open"

    def admits(self) -> bool:
        return self.name == "closed" or (self.name == "half-open" and self.probing < self.config.probes)

    def change(self, is_open: bool) -> None:
        self.is_open = is_open
        self.since = self.clock.now
        self.period += 1
        self.good = 0
        self.history = []

    def result(self, period: int, failed: bool) -> None:
        if period != self.period:
            return
        if self.is_open:
            self.good += 1
            if failed or self.good >= self.config.successes:
                self.change(failed)
            return
        bucket = int(self.clock.now * (10 / self.config.window))
        self.history.append((bucket, failed))
        if not failed:
            return
        if self.config.ratio is None:
            last = self.history[-self.config.failures :]
            too_many = len(last) == self.config.failures and all(each for _, each in last)
        else:
            seen = [each for at, each in self.history if bucket - at < 10]
            too_many = len(seen) >= self.config.minimum and sum(seen) >= self.config.ratio * len(seen)
        if too_many:
            self.change(True)


ENDS = ["well", "well", "well", "failed", "failed", "failed", "status", "left", "full", "client"]


class AgainstTheModel(RuleBasedStateMachine):
    config: BreakerConfig

    @initialize(
        failures=st.integers(1, 4),
        ratio=st.none() | st.sampled_from([0.2, 0.5, 1.0]),
        minimum=st.integers(1, 6),
        probes=st.integers(1, 3),
        successes=st.integers(1, 3),
    )
    def begin(self, failures: int, ratio: float | None, minimum: int, probes: int, successes: int) -> None:
        given: dict[str, Any] = {"failures": failures} if ratio is None else {"ratio": ratio, "minimum": minimum}
        self.given = {**given, "probes": probes, "successes": successes, "open_for": 8.0, "window": 10.0}
        first = Rig(**self.given)
        self.clock = first.clock
        self.rigs = [first, Rig(first.record, first.clock, **self.given)]
        self.model = Model(BreakerConfig(**self.given), self.clock)
        self.calls: list[tuple[Call, int, bool]] = []

    @rule(seconds=st.sampled_from([0.125, 1.0, 3.0, 8.0, 8.0, 8.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(which=st.integers(0, 1))
    def reload(self, which: int) -> None:
        self.rigs[which] = Rig(self.rigs[which].record, self.clock, **self.given)

    @rule(which=st.integers(0, 1))
    def ask(self, which: int) -> None:
        self._ask(which)

    def _ask(self, which: int) -> bool:
        admits, probes = self.model.admits(), self.model.is_open
        call = self.rigs[which].call()
        assert call.under_way is admits
        if admits:
            self.calls.append((call, self.model.period, probes))
            self.model.probing += probes
        else:
            left = self.model.since + 8.0 - self.clock.now
            assert refused(call).retry_after == max(1, -int(-left // 1))
        return admits

    @rule(which=st.integers(0, 1), count=st.integers(1, 4), how=st.sampled_from(["well", "failed", "failed"]))
    def ask_and_end(self, which: int, count: int, how: str) -> None:
        for _ in range(count):
            if self._ask(which):
                self._end(-1, how)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), how=st.sampled_from(ENDS))
    def end(self, data: st.DataObject, how: str) -> None:
        self._end(data.draw(st.integers(0, len(self.calls) - 1)), how)

    def _end(self, which: int, how: str) -> None:
        call, period, probe = self.calls.pop(which)
        if how == "well":
            call.answer()
        elif how == "status":
            call.answer(503)
        elif how == "failed":
            call.fail(failure())
        elif how == "left":
            call.leave()
        elif how == "full":
            call.fail(Overloaded("", source=Source.GATEWAY))
        else:
            call.fail(BodyTooLarge(""))
        assert not call.under_way
        self.model.probing -= probe
        if how in ("well", "status", "failed"):
            self.model.result(period, how != "well")

    @invariant()
    def they_agree(self) -> None:
        if hasattr(self, "model"):
            for rig in self.rigs:
                assert rig.state == self.model.name
                if self.model.period:
                    since = self.model.since + (8.0 if self.model.name == "half-open" else 0.0)
                    assert rig.breaker.state.since == pytest.approx(EPOCH + since, abs=1e-3, rel=0)


TestAgainstTheModel = AgainstTheModel.TestCase
TestAgainstTheModel.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


# With other processes.

WORKER = """
import json, logging, sys
from portico.config.resilience import Breaker as Config
from portico.errors import CircuitOpen
from portico.http.message import Request, Response
from portico.state.board import Board
from portico.upstream.breaker import Breaker
from tests.harness.calls import Asked, Call
logging.basicConfig(level=logging.INFO, format="%(message)s", filename=sys.argv[3])
now = [0.0]
board = Board(int(sys.argv[1]))
service = Asked()
breaker = Breaker("orders", Config(**json.loads(sys.argv[2])), board.record("breaker orders"), lambda: now[0],
    service.handle, lambda: now[0])
calls = []
for line in sys.stdin:
    what, *more = line.split()
    said = ""
    if what == "time":
        now[0] = float(more[0])
    elif what == "ask":
        call = Call(breaker.handle)
        said = "under way" if call.under_way else f"{type(call.error).__name__} {call.error.retry_after}"
        if call.under_way:
            calls.append(call)
    elif what == "answer":
        calls.pop(0).answer(int(more[0]))
    elif what == "many":
        for _ in range(int(more[0])):
            call = Call(breaker.handle)
            if call.under_way:
                call.answer(int(more[1]))
    print(said or breaker.state.name, flush=True)
"""


class Process:
    """A worker's breaker in a process of its own."""

    def __init__(self, board: int, log: str, **config: Any) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(board), json.dumps(config), log],
            pass_fds=[board],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def tell(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{line}\n")
        self.popen.stdin.flush()

    def hear(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().rstrip()

    def __call__(self, line: str) -> str:
        self.tell(line)
        return self.hear()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate(timeout=DEADLINE)


@contextmanager
def processes(count: int, log: str, **config: Any) -> Iterator[tuple[list[Process], Callable[[], Process]]]:
    descriptor = Board.create(8)
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(descriptor, log, **config))
        return started[-1]

    try:
        for _ in range(count):
            start()
        yield started, start
    finally:
        for each in started:
            each.kill()
        os.close(descriptor)


@pytest.fixture
def log(tmp_path: Any) -> str:
    return str(tmp_path / "log")


def told(log: str) -> list[str]:
    return Path(log).read_text().splitlines()


def test_workers_are_one_and_a_later_one_sees_what_they_know(log: str) -> None:
    with processes(2, log, failures=4, open_for=10.0) as ((one, two), start):
        for process in (one, two):
            assert process("time 100") == "closed"
            assert process("many 2 503") == ("closed" if process is one else "open")
        assert one("ask") == "CircuitOpen 10"
        one.kill()
        three = start()
        assert three("time 105") == "open"
        assert three("ask") == "CircuitOpen 5"
        assert three("time 110") == "half-open"
        assert two("time 110") == "half-open"
        assert three("ask") == "under way"
        assert two("ask") == "CircuitOpen 1"
        assert three("answer 200") == "closed"
        assert two("ask") == "under way"
        assert told(log) == [
            "service orders: the breaker is open for 10 s: 4 failures in a row, the last: status 503",
            "service orders: the breaker is half open: trying",
            "service orders: the breaker is closed again",
        ]


def test_probes_are_bounded_over_processes_and_a_killed_one_gives_its_own_back(log: str) -> None:
    with processes(2, log, failures=1, open_for=10.0, probes=3) as ((one, two), _):
        assert one("time 100") == "closed"
        assert one("many 1 500") == "open"
        for process in (one, two):
            assert process("time 110") == "half-open"
        assert [one("ask"), one("ask"), two("ask"), two("ask"), one("ask")] == [
            *["under way"] * 3,
            *["CircuitOpen 1"] * 2,
        ]
        one.kill()
        assert [two("ask"), two("ask"), two("ask")] == ["under way", "under way", "CircuitOpen 1"]
        assert two("answer 200") == "closed"


def test_each_change_is_told_once_however_many_workers_see_it_at_the_same_time(log: str) -> None:
    with processes(4, log, failures=5, open_for=10.0, probes=2) as (workers, _):
        for turn in range(10):
            for line in (f"time {100 + turn * 20}", "many 50 503"):  # the first is a probe, which closes nothing
                for worker in workers:
                    worker.tell(line)
                for worker in workers:
                    worker.hear()
            assert {worker("many 0 200") for worker in workers} == {"open"}
        lines = told(log)
        assert sum("is open for" in line for line in lines) == 10
        assert sum("trying" in line for line in lines) == 9
