"""What a worker remembers of its requests, how long, and what it makes of that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from portico.config.schema import Config
from portico.config.tracing import Recorder as RecorderConfig
from portico.http.correlation import CORRELATION_ID
from portico.http.forwarded import Client
from portico.http.headers import Headers
from portico.http.message import Request
from portico.http.redacted import redacted_target
from portico.http.user import USER, User
from portico.observe.exchange import Exchange, Outcome, Result, ResultKind
from portico.runtime.observing import Stand, Watched
from portico.runtime.protocol import Tail, Tailed
from portico.runtime.recorder import Memory, Record, Recorder
from portico.runtime.recording import PENDING, Recording
from portico.runtime.trail import trail_of
from tests.harness.loop import run, until

STANDS = tuple(Stand(name, kind, "route", "a.yaml:1:1", "") for name, kind in (("id", "correlation-id"), ("k", "jwt")))


def recorder(size: int = 3, slow: float = 1.0, headers: tuple[str, ...] = ("User-Agent",)) -> tuple[Memory, Recorder]:
    memory = Memory()
    memory.resize(size)
    made = Recorder(memory, slow, headers)
    made.routes["orders"] = Watched("orders", "/orders/**", "svc", "a.yaml:2:1", "service svc", STANDS)
    return memory, made


def over(observer: Recorder, status: int = 200, outcome: Outcome = Outcome.COMPLETE, took: float = 0.1) -> Exchange:
    exchange = Exchange(10.0)
    exchange.method, exchange.status, exchange.route = "GET", status, "orders"
    exchange.end(outcome, 10.0 + took)
    fields = [(b"User-Agent", b"me" * 200), (b"Authorization", b"Bearer secret")]
    client = Client("192.0.2.7", 1, 80, "http")
    request = Request("GET", "/o", None, Headers(fields), None, "a.example", client, exchange, None, b"/o?token=secret")
    request[CORRELATION_ID] = b"an-id"
    request[USER] = User("ada")
    observer.ended(exchange, request)
    return exchange


def statuses(memory: Memory) -> list[int]:
    return [record.exchange.status for record in memory]


def test_the_last_ones_are_remembered_the_newest_first() -> None:
    memory, observer = recorder(3)
    for status in (200, 201, 202, 203, 204):
        over(observer, status)
    assert statuses(memory) == [204, 203, 202]
    assert [record.number for record in memory] == [5, 4, 3]


def test_what_failed_and_what_was_refused_is_not_driven_out_by_the_rest() -> None:
    memory, observer = recorder(2)
    over(observer, 503)
    over(observer, 200, Outcome.TRUNCATED)
    over(observer, 401)
    for _ in range(10):
        over(observer)
    assert statuses(memory) == [200, 200, 401, 200, 503]
    over(observer, 200, took=1.0)  # slow, and so in the place of the oldest that failed
    assert statuses(memory) == [200, 200, 200, 401, 200]
    for _ in range(5):
        over(observer, 404)
    assert statuses(memory) == [404, 404, 200, 200, 200, 200]


def test_of_probes_only_what_failed_is_remembered() -> None:
    async def main() -> None:
        recording = Recording(asyncio.get_running_loop())
        watch = recording.watch(Config())
        assert watch is not None
        probes = watch.of_route(Watched("portico:livez", "/livez", "", probed=True))
        assert isinstance(probes, Recorder)
        for status in (200, 503, 200, 404):
            over(probes, status)
        assert statuses(recording.memory) == [404, 503]
        assert watch.of_route(Watched("orders", "/orders", "")) is not probes
        assert set(probes.routes) == {"portico:livez", "orders"}

    run(main)


def test_what_never_became_a_request_is_remembered() -> None:
    memory, observer = recorder()
    exchange = Exchange(1.0)
    exchange.status, exchange.error = 400, "malformed-request: no"
    exchange.end(Outcome.REJECTED, 1.0)
    observer.ended(exchange, None)
    (record,) = memory
    assert trail_of(record, 0.0)["error"] == "malformed-request: no"
    assert trail_of(record, 0.0)["target"] == ""


@pytest.mark.parametrize("size", [1, 2, 5, 0])
def test_another_size_keeps_the_newest(size: int) -> None:
    memory, observer = recorder(3)
    for status in (200, 201, 202, 203):
        over(observer, status)
    memory.resize(size)
    assert statuses(memory) == [203, 202, 201][:size]
    over(observer, 299)
    assert statuses(memory) == [299, 203, 202, 201][: min(size, 4)]


def told(record: Record) -> dict[str, Any]:
    return trail_of(record, 1000.0)


def test_no_secret_is_told() -> None:
    memory, observer = recorder()
    over(observer)
    (record,) = memory
    assert "secret" not in str(told(record))
    assert told(record)["target"] == "/o?token=…"
    assert told(record)["headers"] == {"User-Agent": "me" * 128}
    assert (told(record)["user"], told(record)["correlation_id"], told(record)["at"]) == ("ada", "an-id", 1010.0)


def test_headers_with_secrets_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="Cookie is a secret"):
        RecorderConfig(headers=("Cookie",))


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/a/b", "/a/b"),
        ("/a?b=c&d=e", "/a?b=…&d=…"),
        ("/a?b=c=d", "/a?b=…"),
        ("/a?bare&&x=", "/a?…&&x=…"),
        ("/a?", "/a?"),
        ("/a@b:c", "/a@b:c"),
        ("http://ada:secret@example.com/x?y=z", "http://example.com/x?y=…"),
        ("*", "*"),
        ("", ""),
        ("/" + "x" * 3000, "/" + "x" * 2047),
    ],
)
def test_a_target_is_shown_without_its_values(target: str, shown: str) -> None:
    assert redacted_target(target) == shown


@pytest.mark.parametrize(
    ("stopped_by", "verdicts"),
    [("", ["passed", "passed"]), ("k", ["passed", "answered"]), ("id", ["answered", "not asked"]),
     ("jwt", ["passed", "answered"]), ("of-another-name", ["passed", "passed"])],
)  # fmt: skip
def test_what_each_policy_did_follows_from_who_answered(stopped_by: str, verdicts: list[str]) -> None:
    memory, observer = recorder()
    exchange = over(observer)
    exchange.stopped_by = stopped_by
    (record,) = memory
    assert [policy["verdict"] for policy in told(record)["policies"]] == verdicts


@pytest.mark.parametrize(
    ("sent", "of", "verdicts"),
    [
        (0.0, "", ["passed", "answered", "not asked", "not asked"]),
        (10.0, "", ["passed", "answered", "passed", "passed"]),
        (0.0, "limit", ["passed", "answered", "passed", "not asked"]),
        (0.0, "id", ["passed", "answered", "not asked", "not asked"]),
    ],
)
def test_what_was_asked_ahead_of_the_policy_that_answered_is_told_to_have_passed(
    sent: float, of: str, verdicts: list[str]
) -> None:
    """As where something stale stands in for an error."""
    memory, observer = recorder()
    exchange = over(observer)
    (record,) = memory
    stands = [Stand(name, name, "route", "a.yaml:1:1", "") for name in ("id", "cache", "limit", "headers")]
    observer.routes["orders"] = observer.routes["orders"]._replace(policies=tuple(stands))
    exchange.stopped_by, exchange.sent = "cache", sent
    exchange.results = (Result(ResultKind.LIMIT, of, "allowed"),) if of else ()
    assert [policy["verdict"] for policy in told(record)["policies"]] == verdicts


def test_tries_are_told_with_their_phases() -> None:
    memory, observer = recorder()
    exchange = over(observer)
    exchange.service, exchange.target = "svc", "10.0.0.1:80"
    exchange.connecting = 10.01
    exchange.try_again("service-unreachable", 10.02)
    exchange.target, exchange.sent, exchange.first_byte = "10.0.0.2:80", 10.03, 10.05
    (record,) = memory
    first, last = told(record)["tries"]
    assert (first["target"], first["outcome"], first["sent"]) == ("10.0.0.1:80", "service-unreachable", None)
    assert (round(first["connecting"], 3), round(first["ended"], 3)) == (0.01, 0.02)
    assert (last["target"], last["outcome"], last["connecting"]) == ("10.0.0.2:80", "answered", None)
    assert (round(last["sent"], 3), round(last["first_byte"], 3), round(last["ended"], 3)) == (0.03, 0.05, 0.1)


def test_a_recorder_that_is_off_watches_nothing() -> None:
    async def main() -> None:
        recording = Recording(asyncio.get_running_loop())
        assert recording.watch(Config(recorder=None)) is None
        assert recording.watch(Config()) is not None

    run(main)


class Looker:
    """Someone who looks on."""

    def __init__(self) -> None:
        self.said: list[Tailed] = []
        self.has_room = True

    def say(self, said: Tailed) -> bool:
        if self.has_room:
            self.said.append(said)
        return self.has_room

    @property
    def statuses(self) -> list[object]:
        return [record["status"] for said in self.said for record in said.records]


def test_who_looks_on_is_told_of_what_they_want() -> None:
    async def main() -> None:
        recording = Recording(asyncio.get_running_loop())
        observer = Recorder(recording.memory, 1.0, ())
        everything, failures = Looker(), Looker()
        over(observer)
        assert recording.memory.on_record is None
        recording.begin(Tail(1), everything.say)
        recording.begin(Tail(2, ["orders"], ["GET"], [[500, 599], [404, 404]], 0.05), failures.say)
        for status in (200, 404, 405, 500):
            over(observer, status)
        over(observer, 500, took=0.01)
        await until(lambda: everything.said and failures.said)
        assert everything.statuses == [200, 404, 405, 500, 500]
        assert failures.statuses == [404, 500]
        recording.end(1)
        over(observer, 500)
        await until(lambda: len(failures.said) == 2)
        assert len(everything.said) == 1
        recording.agent_gone()
        assert recording.memory.on_record is None

    run(main)


def test_who_looks_on_too_slowly_is_told_how_much_is_missing() -> None:
    async def main() -> None:
        recording = Recording(asyncio.get_running_loop())
        observer = Recorder(recording.memory, 1.0, ())
        looker = Looker()
        recording.begin(Tail(1), looker.say)
        for _ in range(PENDING + 7):
            over(observer)
        await until(lambda: looker.said)
        assert (len(looker.statuses), looker.said[0].lost) == (PENDING, 7)
        looker.has_room = False
        over(observer)
        tail = recording._tails[1]
        await until(lambda: tail._timer is None)
        looker.has_room = True
        over(observer)
        await until(lambda: len(looker.said) == 2)
        assert (len(looker.said[1].records), looker.said[1].lost) == (1, 1)
        recording.agent_gone()

    run(main)
