from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import ValidationError

from portico.plugin import (
    USER,
    Body,
    ConfigError,
    Endpoint,
    Handler,
    Outcome,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Stage,
    User,
)
from portico.policies.idempotency_key import IdempotencyKey, IdempotencyKeyPolicy
from portico.testing import Answer, Cut, Gateway, Options, Refuse, Reply, ServiceRequest, Silence
from portico.testing.services import Plays

KEY = '"8e03978e-40d5-43dd-bc93-6894a57f9324"'

CONFIG = """
services: {{pay: {{url: "http://127.0.0.1:9"{service}}}}}
routes:
  - path: /**
    service: pay
    policies: [{{idempotency-key: {{{settings}}}}}{more}]
"""


class Odd(PolicyConfig):
    status: int = 0
    """The problem that it answers instead; 0 is a bug."""
    after: bool = False
    """Whether the service is asked first."""


class OddPolicy(Policy[Odd], name="odd", stages=(Stage.TRANSFORM,)):
    """Fails in one way or another."""

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002
        if self.config.after:
            (await next(request)).body.close()
        if not self.config.status:
            raise RuntimeError("a mistake")
        return Response.problem(self.config.status, "odd")


class SpoilPolicy(Policy[PolicyConfig], name="spoil", stages=(Stage.TRANSFORM,)):
    """Makes a mistake with the content of answers."""

    def response(self, request: Request, response: Response) -> Response:
        response.body = Body.stream(self, None)
        return response

    async def read(self) -> bytes:
        raise RuntimeError("a mistake")

    def trailers(self) -> list[tuple[bytes, bytes]]:
        return []


class Bare(PolicyConfig):
    """Nothing."""


class BareEndpoint(Endpoint[Bare], name="bare"):
    """Asks somebody by itself, and fails."""

    async def handle(self, request: Request) -> Response:
        return Response.problem(502, "odd")


@contextmanager
def gateway(plays: Plays | None, settings: str = "", *, service: str = "", more: str = "") -> Iterator[Gateway]:
    text = CONFIG.format(settings=settings, service=service, more=more)
    with Gateway(
        text=text, services={"pay": plays} if plays else {}, classes=[OddPolicy, SpoilPolicy, BareEndpoint]
    ) as made:
        yield made


def pay(made: Gateway, key: str | None = KEY, **options: Any) -> Answer:
    return made.run(lambda: paying(made, key, **options))


async def paying(made: Gateway, key: str | None = KEY, **options: Any) -> Answer:
    options.setdefault("body", b'{"amount": 1}')
    method, target = options.pop("method", "POST"), options.pop("target", "/payments")
    headers = dict(options.pop("headers", {"Content-Type": "application/json"}))
    if key is not None:
        headers["Idempotency-Key"] = key
    given: Options = {**options, "headers": headers}  # type: ignore[typeddict-item]
    return await made.ask(method, target, **given)


def calls(made: Gateway) -> int:
    return len(made.services["pay"].requests)


def replayed(answer: Answer) -> bool:
    return answer.headers.get("Idempotency-Replayed") == "true"


class Slow:
    """Answers when it is told to, and not before."""

    def __init__(self, answer: Reply | None = None) -> None:
        self.asked = 0
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self._answer = answer

    async def __call__(self, request: ServiceRequest) -> Reply:
        self.asked += 1
        self.begun.set()
        await self.go.wait()
        return self._answer or Reply(201, body=f"payment {self.asked}")


# The first answer, again.


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_the_same_request_again_is_given_the_first_answer(method: str) -> None:
    date = "Tue, 01 Dec 2026 10:00:00 GMT"
    reply = Reply(201, {"Content-Type": "text/plain", "Location": "/payments/1", "Date": date}, "paid")
    with gateway(reply) as made:
        first, again = (pay(made, method=method) for _ in range(2))
        assert calls(made) == 1
        assert made.services["pay"].requests[0].headers["Idempotency-Key"] == KEY
        assert made.services["pay"].requests[0].body == b'{"amount": 1}'
    assert not replayed(first)
    assert "Idempotency-Replayed" not in first.headers
    assert replayed(again)
    assert (first.status, first.body) == (again.status, again.body) == (201, b"paid")
    assert set(first.headers) | {"idempotency-replayed"} == set(again.headers)
    assert all(again.headers[name] == first.headers[name] for name in first.headers)
    assert again.headers["Date"] == date


@pytest.mark.parametrize("status", [200, 201, 204, 302, 400, 402, 403, 404, 409, 422, 500, 502, 504])
def test_what_the_service_says_is_kept_whatever_it_is(status: int) -> None:
    with gateway(Reply(status)) as made:
        assert [(each.status, replayed(each)) for each in (pay(made), pay(made))] == [(status, False), (status, True)]
        assert calls(made) == 1


@pytest.mark.parametrize("status", [401, 408, 425, 429, 503])
def test_that_nothing_was_done_is_not_kept(status: int) -> None:
    with gateway([Reply(status), Reply(201)]) as made:
        assert [(each.status, replayed(each)) for each in (pay(made), pay(made), pay(made))] == [
            (status, False),
            (201, False),
            (201, True),
        ]


def test_which_statuses_these_are_is_a_choice() -> None:
    with gateway([Reply(500), Reply(503), Reply(201)], "retryable: 500") as made:
        assert [(each.status, replayed(each)) for each in (pay(made), pay(made), pay(made))] == [
            (500, False),
            (503, False),
            (503, True),
        ]


def test_after_its_time_a_key_is_a_new_one() -> None:
    with gateway([Reply(201), Reply(202)], "ttl: 1h") as made:
        assert pay(made).status == 201
        made.clock.advance(3590)
        assert pay(made).status == 201
        made.clock.advance(20)
        assert pay(made).status == 202


def test_cookies_and_what_is_of_one_connection_are_not_kept() -> None:
    reply = Reply(200, {"Set-Cookie": "session=secret", "X-Kept": "1", "Trailer": "X-A"}, "ok")
    with gateway(reply) as made:
        first, again = pay(made), pay(made)
    assert first.headers["Set-Cookie"] == "session=secret"
    assert again.headers["X-Kept"] == "1"
    assert "Set-Cookie" not in again.headers
    assert "Trailer" not in again.headers
    assert again.headers["Content-Length"] == "2"


@pytest.mark.parametrize("length", [{}, {"Content-Length": "8"}], ids=["chunked", "announced"])
def test_an_answer_in_pieces_is_kept_as_a_whole(length: dict[str, str]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(1)
            yield b"ab"

    with gateway(lambda _: Reply(200, length, pieces())) as made:
        first, again = pay(made), pay(made)
    assert (first.body, again.body) == (b"abababab", b"abababab")
    assert replayed(again)


# What is larger, or cannot be given again.


@pytest.mark.parametrize("length", [{}, {"Content-Length": "40"}], ids=["chunked", "announced"])
def test_a_larger_answer_streams_and_is_not_kept(length: dict[str, str]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(100)  # all of it takes longer than the claim
            yield b"x" * 10

    with gateway(lambda _: Reply(200, length, pieces()), "max_answer: 5", service=", timeout: {idle: 5m}") as made:
        first, again = pay(made), pay(made)
        assert calls(made) == 1
    assert (first.status, first.body, first.outcome) == (200, b"x" * 40, Outcome.COMPLETE)
    assert (again.status, again.problem) == (409, "idempotency-answer-not-kept")


def test_one_that_is_in_memory_is_not_kept_either_where_it_is_larger() -> None:
    with gateway([Reply(200, body="x" * 5), Reply(200, body="x" * 6)], "max_answer: 5") as made:
        assert (pay(made, "a").status, replayed(pay(made, "a"))) == (200, True)
        assert (pay(made, "b").body, pay(made, "b").problem) == (b"x" * 6, "idempotency-answer-not-kept")


def test_nor_is_one_with_trailers_or_a_header_that_is_too_large() -> None:
    plays = [Reply(200, body=[b"a"], trailers={"X-Sum": "1"}), Reply(200, {"X-Long": "x" * 40_000}, "b")]
    with gateway(plays) as made:
        first = pay(made, "a")
        assert (first.body, first.trailers["X-Sum"]) == (b"a", "1")
        assert pay(made, "a").problem == "idempotency-answer-not-kept"
        assert pay(made, "b").status == 200
        assert pay(made, "b").problem == "idempotency-answer-not-kept"


# Keys that are missing, malformed, or those of other requests.


def test_without_a_key_a_request_passes_as_ever() -> None:
    with gateway([Reply(201), Reply(202)]) as made:
        assert [pay(made, None).status for _ in range(2)] == [201, 202]


def test_where_one_is_required_it_is_missed() -> None:
    with gateway(Reply(201), "required: true, documentation: 'https://developer.example.com/keys'") as made:
        missing = pay(made, None)
        assert calls(made) == 0
        assert made.get("/payments").status == 201
        assert pay(made).status == 201
    assert (missing.status, missing.problem) == (400, "idempotency-key-missing")
    assert missing.headers["Link"] == '<https://developer.example.com/keys>; rel="describedby"; type="text/html"'
    assert missing.json()["title"] == "Idempotency-Key is missing"


MALFORMED = ["", '""', '"a', "a,b", "a b", '"a", "b"', "caf\xe9", '"' + "x" * 256 + '"', "x" * 9999]


@pytest.mark.parametrize("key", MALFORMED)
def test_what_is_no_key_is_refused(key: str) -> None:
    with gateway(Reply(201)) as made:
        answer = pay(made, key)
        assert (answer.status, answer.problem) == (400, "idempotency-key-invalid")
        assert calls(made) == 0
        assert not key.strip('"') or key not in answer.json()["detail"]


def test_more_than_one_key_is_refused() -> None:
    with gateway(Reply(201)) as made:
        headers = [("Idempotency-Key", '"a"'), ("idempotency-key", '"a"')]
        assert made.post("/payments", headers=headers).problem == "idempotency-key-invalid"


def test_with_and_without_quotes_it_is_the_same_key() -> None:
    with gateway([Reply(201), Reply(202)]) as made:
        assert [pay(made, each).status for each in ('"k-1"', "k-1", '"k-1";of=mine')] == [201, 201, 201]


def test_quotes_may_be_asked_for() -> None:
    with gateway(Reply(201), "unquoted: false") as made:
        assert pay(made, "k-1").problem == "idempotency-key-invalid"
        assert pay(made, '"k-1"').status == 201


def test_the_header_may_have_another_name() -> None:
    with gateway([Reply(201), Reply(202), Reply(203)], "header: X-Request-Id") as made:
        assert [pay(made).status for _ in range(2)] == [201, 202]
        headers = {"X-Request-Id": "7"}
        assert [pay(made, None, headers=headers).status for _ in range(2)] == [203, 203]


def test_other_methods_pass_with_a_key_or_without() -> None:
    with gateway([Reply(201), Reply(202), Reply(203)], "methods: [PUT]") as made:
        assert [pay(made).status for _ in range(2)] == [201, 202]
        assert [pay(made, method="PUT").status for _ in range(2)] == [203, 203]


OTHERS: list[dict[str, Any]] = [
    {"body": b'{"amount": 2}'},
    {"body": b""},
    {"target": "/refunds"},
    {"target": "/payments?dry=1"},
    {"target": "/payments?"},
    {"method": "PATCH"},
    {"host": "other.example"},
    {"headers": {"Content-Type": "text/plain"}},
    {"headers": {"Content-Type": "application/json", "Content-Encoding": "br"}},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_another_request_with_the_same_key_is_refused(other: dict[str, Any]) -> None:
    with gateway([Reply(201), Reply(202)], "documentation: 'https://a.example/'") as made:
        assert pay(made).status == 201
        refused = pay(made, **other)
        assert (refused.status, refused.problem) == (422, "idempotency-key-reused")
        assert refused.headers["Link"].startswith("<https://a.example/>")
        assert pay(made, "another", **other).status == 202
        assert pay(made).status == 201


def test_a_body_that_comes_in_pieces_is_the_same_as_one_that_does_not() -> None:
    with gateway(lambda request: Reply(201, body=request.body)) as made:
        first = pay(made, body=[b"a" * 100_000, b"b" * 100_000])
        assert first.body == b"a" * 100_000 + b"b" * 100_000
        assert replayed(pay(made, body=b"a" * 100_000 + b"b" * 100_000))
        assert pay(made, body=b"a" * 100_000 + b"b" * 99_999 + b"c").status == 422


@pytest.mark.parametrize("body", [b"x" * 11, [b"x" * 6, b"x" * 6]], ids=["announced", "chunked"])
def test_a_body_that_is_too_large_to_be_compared_is_refused(body: Any) -> None:
    with gateway(Reply(201), "max_body: 10") as made:
        answer = pay(made, body=body)
        assert (answer.status, answer.problem) == (413, "content-too-large")
        assert calls(made) == 0
        assert pay(made, None, body=b"x" * 11).status == 201


# Whose keys they are.


def test_one_caller_s_keys_are_not_another_s() -> None:
    with gateway([Reply(201, body="ada's"), Reply(201, body="bob's")]) as made:
        users = [{USER: User("ada")}, {USER: User("bob")}]
        assert [pay(made, slots=each).text for each in (*users, *users)] == ["ada's", "bob's", "ada's", "bob's"]
        assert calls(made) == 2


def test_who_is_not_known_counts_by_address_unless_the_key_is_everyone_s() -> None:
    for settings, expected in (("", [201, 202, 201]), ("key: everyone", [201, 201, 201])):
        with gateway([Reply(201), Reply(202)], settings) as made:
            answers = [pay(made, client=each).status for each in ("192.0.2.1", "192.0.2.2", "192.0.2.1")]
            assert answers == expected


def test_callers_may_be_told_apart_by_an_expression() -> None:
    with gateway([Reply(201), Reply(202)], "key: \"headers['x-tenant']\"") as made:
        tenants = [{"X-Tenant": "a"}, {"X-Tenant": "b"}, {"X-Tenant": "a"}]
        assert [pay(made, headers=each).status for each in tenants] == [201, 202, 201]


def test_each_line_of_the_file_has_keys_of_its_own() -> None:
    text = """
services: {pay: "http://127.0.0.1:9"}
routes:
  - {path: /a, service: pay, policies: [idempotency-key]}
  - {path: /b, service: pay, policies: [idempotency-key]}
"""
    with Gateway(text=text, services={"pay": [Reply(201), Reply(202)]}) as made:
        assert [pay(made, target=each).status for each in ("/a", "/b", "/a", "/b")] == [201, 202, 201, 202]


def test_one_line_for_all_routes_has_its_keys_in_common() -> None:
    text = """
policies: [idempotency-key]
services: {pay: "http://127.0.0.1:9"}
routes: [{path: /a, service: pay}, {path: /b, service: pay}]
"""
    with Gateway(text=text, services={"pay": [Reply(201), Reply(202)]}) as made:
        assert [pay(made, target=each).status for each in ("/a", "/b", "/a")] == [201, 422, 201]


# Requests at the same time.


def together(made: Gateway, slow: Slow, count: int, **options: Any) -> list[Answer]:
    """Send the same request several times while the first has no answer; have it answered a second later."""

    async def main() -> list[Answer]:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(paying(made))
            await slow.begun.wait()
            others = [group.create_task(paying(made, **options)) for _ in range(count)]
            await asyncio.sleep(1)
            slow.go.set()
        return [each.result() for each in (first, *others)]

    return made.run(main)


def test_while_the_first_has_no_answer_the_others_are_told_so() -> None:
    slow = Slow()
    with gateway(slow) as made:
        first, *others = together(made, slow, 10)
        assert [(each.status, each.problem) for each in others] == [(409, "idempotency-key-in-use")] * 10
        assert others[0].headers["Retry-After"] == "1"
        assert (first.status, slow.asked) == (201, 1)
        assert replayed(pay(made))


def test_or_wait_for_it() -> None:
    slow = Slow()
    with gateway(slow, "wait: 10s") as made:
        first, *others = together(made, slow, 10)
        assert {(each.status, each.text, replayed(each)) for each in others} == {(201, "payment 1", True)}
        assert not replayed(first)
        assert slow.asked == 1


def test_but_not_for_longer_than_they_are_to() -> None:
    slow = Slow()
    with gateway(slow, "wait: 10s") as made:

        async def main() -> tuple[Answer, float]:
            async with asyncio.TaskGroup() as group:
                group.create_task(paying(made))
                await slow.begun.wait()
                began = made.clock()
                second = await paying(made)
                took = made.clock() - began
                slow.go.set()
            return second, took

        second, took = made.run(main)
        assert second.problem == "idempotency-key-in-use"
        assert took == pytest.approx(10, abs=0.1)


def test_who_waits_for_one_that_failed_is_the_next() -> None:
    slow = Slow(Reply(503))
    with gateway(slow, "wait: 10s, retryable: 503") as made:
        first, second = together(made, slow, 1)
        assert (first.status, second.status, slow.asked) == (503, 503, 2)
        assert not replayed(second)


def test_who_waits_with_another_request_is_refused_at_the_end() -> None:
    slow = Slow()
    with gateway(slow, "wait: 10s") as made:
        _, other = together(made, slow, 1, body=b"other")
        assert other.problem == "idempotency-key-reused"


def test_only_so_many_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.idempotency.once.MOST_UNDER_WAY", 1)
    slow = Slow()
    with gateway(slow, "wait: 10s") as made:
        first, other = together(made, slow, 1, key="another")
        assert (other.status, other.problem) == (503, "idempotency-unavailable")
        assert other.headers["Retry-After"] == "1"
        assert (first.status, pay(made).status) == (201, 201)


# Clients that leave.


def test_a_client_that_leaves_does_not_end_it_and_finds_the_answer_later() -> None:
    async def slowly(_: ServiceRequest) -> Reply:
        await asyncio.sleep(20)
        return Reply(201, body="paid")

    with gateway(slowly) as made:
        assert pay(made, leaves_after=5).status == 0
        early = pay(made)
        assert early.problem == "idempotency-key-in-use"
        made.clock.advance(20)
        late = pay(made)
        assert (late.status, late.text, replayed(late), calls(made)) == (201, "paid", True, 1)


def test_nor_does_a_timeout_around_it() -> None:
    async def slowly(_: ServiceRequest) -> Reply:
        await asyncio.sleep(20)
        return Reply(201, body="paid")

    with gateway(slowly, more=", {timeout: 5s}") as made:
        assert pay(made).problem == "timeout"
        made.clock.advance(20)
        assert (pay(made).text, calls(made)) == ("paid", 1)


def test_an_answer_in_pieces_whose_client_has_left_is_kept_too() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(5)
            yield b"ab"

    with gateway(lambda _: Reply(200, None, pieces())) as made:
        assert pay(made, leaves_after=7).status == 0
        made.clock.advance(20)
        assert (pay(made).body, calls(made)) == (b"abababab", 1)


def test_one_that_is_too_large_is_let_go_where_its_client_has_left() -> None:
    sent: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(4):
            await asyncio.sleep(5)
            sent.append(number)
            yield b"x" * 4

    with gateway(lambda _: Reply(200, None, pieces()), "max_answer: 5") as made:
        assert pay(made, leaves_after=7).status == 0
        made.clock.advance(20)
        assert sent == [0, 1]
        assert pay(made).problem == "idempotency-answer-not-kept"


def test_who_waits_and_leaves_has_nothing_carried_out() -> None:
    slow = Slow(Reply(503))
    with gateway(slow, "wait: 60s") as made:

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(paying(made))
                await slow.begun.wait()
                assert (await paying(made, leaves_after=1)).status == 0
                slow.go.set()
            await asyncio.sleep(60)

        made.run(main)
        assert slow.asked == 1


# When there is no answer.


@pytest.mark.parametrize(("trouble", "problem"), [(Silence, "service-timeout"), (Cut, "service-closed-connection")])
def test_where_nobody_knows_what_became_of_it_the_key_is_used_up(trouble: Any, problem: str) -> None:
    with gateway([trouble(), Reply(201)], service=", timeout: {total: 5s}") as made:
        assert pay(made).problem == problem
        again = pay(made)
        assert (again.status, again.problem) == (409, "idempotency-outcome-unknown")
        assert "Retry-After" not in again.headers
        assert calls(made) == 1
        assert pay(made, body=b"other").problem == "idempotency-key-reused"


@pytest.mark.parametrize("trouble", [Silence, Cut])
def test_or_it_may_be_tried_again(trouble: Any) -> None:
    with gateway([trouble(), Reply(201)], "on_unknown: retry", service=", timeout: {total: 5s}") as made:
        assert pay(made).status >= 500
        assert pay(made).status == 201


def test_half_an_answer_is_none() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        raise Cut

    with gateway(lambda _: Reply(200, None, pieces())) as made:
        first = pay(made)
        assert first.status == 502
        assert pay(made).problem == "idempotency-outcome-unknown"


@pytest.mark.parametrize("leaves", [False, True])
def test_nor_is_one_with_which_a_policy_has_made_a_mistake(leaves: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def slowly(_: ServiceRequest) -> Reply:
        await asyncio.sleep(10)
        return Reply(201)

    with gateway(slowly, "lock: 60s", more=", spoil") as made:
        if leaves:
            assert pay(made, leaves_after=5).status == 0
        else:
            assert pay(made).problem == "internal-error"
        made.clock.advance(100)  # a claim would have ended
        assert pay(made).problem == "idempotency-outcome-unknown"
        assert calls(made) == 1
    assert "a mistake" in caplog.text


def test_what_no_target_was_sent_may_be_tried_again() -> None:
    with gateway([Refuse(), Reply(201)]) as made:
        assert pay(made).problem == "service-unreachable"
        assert (pay(made).status, replayed(pay(made))) == (201, True)


@pytest.mark.parametrize(
    ("more", "problem", "retried"),
    [
        ("{odd: {status: 403}}", "odd", True),
        ("{odd: {status: 503}}", "odd", True),
        ("{odd: {status: 502}}", "odd", False),
        ("odd", "internal-error", False),
        ("{odd: {status: 403, after: true}}", "odd", False),
        ("{odd: {after: true}}", "internal-error", False),
    ],
)
def test_what_the_gateway_refuses_is_not_kept(
    more: str, problem: str, retried: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    with gateway(Reply(201), more=f", {more}") as made:
        assert pay(made).problem == problem
        assert pay(made).problem == (problem if retried else "idempotency-outcome-unknown")


def test_what_an_endpoint_of_one_s_own_may_have_done_is_not_done_again() -> None:
    text = "routes: [{path: /**, bare: {}, policies: [idempotency-key]}]"
    with Gateway(text=text, classes=[BareEndpoint]) as made:
        assert pay(made).problem == "odd"
        assert pay(made).problem == "idempotency-outcome-unknown"


def test_what_a_fallback_answers_is_kept_where_the_service_may_have_begun() -> None:
    fallback = ", timeout: {total: 5s}, fallback: {status: 202, body: later}"
    with gateway([Silence(), Reply(201)], service=fallback) as made:
        assert [(each.status, replayed(each)) for each in (pay(made), pay(made))] == [(202, False), (202, True)]
    with gateway([Refuse(), Reply(201)], service=fallback) as made:
        assert [(each.status, replayed(each)) for each in (pay(made), pay(made))] == [(202, False), (201, False)]
    unsure = ", timeout: {total: 5s}, fallback: {status: 503, body: sorry}"
    with gateway([Silence(), Reply(201)], service=unsure) as made:
        assert pay(made).status == 503
        assert pay(made).problem == "idempotency-outcome-unknown"


RETRIES = ", timeout: {total: 5s}, retry: {methods: [POST], attempts: 2, on: [failure, timeout, 503, 504]}"


@pytest.mark.parametrize(
    ("first", "again"), [(Cut(), False), (Reply(504), False), (Reply(503), True), (Refuse(), True)]
)
def test_that_nothing_was_done_is_believed_of_all_tries_or_of_none(first: Any, again: bool) -> None:
    with gateway([first, Reply(503), Reply(201)], service=RETRIES) as made:
        assert pay(made).status == 503
        assert pay(made).status == (201 if again else 409)
        if not again:
            assert pay(made).problem == "idempotency-outcome-unknown"


def test_nor_where_another_target_was_asked_beside() -> None:
    hedged = ", timeout: {total: 5s}, retry: {methods: [POST], on: [failure]}, hedge: 1s"
    with gateway([Silence(), Reply(503), Reply(201)], service=hedged) as made:
        assert pay(made).status == 503
        assert pay(made).problem == "idempotency-outcome-unknown"
        assert calls(made) == 2


def test_what_takes_longer_than_the_claim_is_given_up() -> None:
    with gateway([Silence(), Reply(201)], "lock: 20s", service=", timeout: {first_byte: 1h}") as made:
        began = made.clock()
        first = pay(made)
        assert (first.status, first.problem) == (504, "timeout")
        assert made.clock() - began == pytest.approx(16, abs=0.5)
        assert pay(made).problem == "idempotency-outcome-unknown"


def test_the_record_of_the_request_tells_what_the_service_did() -> None:
    with gateway([Reply(201), Cut()]) as made:
        first = pay(made).exchange
        assert (first.service, first.tries, first.status, first.outcome) == ("pay", 1, 201, Outcome.COMPLETE)
        assert first.first_byte >= first.sent > 0
        again = pay(made).exchange
        assert (again.service, again.tries, again.status, again.outcome) == ("", 0, 201, Outcome.COMPLETE)
        failed = pay(made, "other").exchange
        assert failed.error.startswith("service-closed-connection")


def test_a_bulkhead_has_its_room_back() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 10
        await asyncio.sleep(10)
        yield b"x" * 10

    plays: list[Any] = [Reply(201), Cut(), lambda _: Reply(200, None, pieces()), lambda _: Reply(200, None, pieces())]
    with gateway([*plays, Reply(203)], "max_answer: 5", service=", concurrency: {limit: 1, queue: 0}") as made:
        assert pay(made, "a").status == 201
        assert pay(made, "b").status == 502
        assert pay(made, "c").body == b"x" * 20
        assert pay(made, "d", leaves_after=5).status == 200
        assert pay(made, "e").status == 203


def test_keys_are_not_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with gateway([Cut(), Reply(201)]) as made:
        pay(made, "sesame")
        pay(made, "sesame")
    assert "sesame" not in caplog.text


def test_requests_are_counted_by_what_became_of_them() -> None:
    with gateway([Reply(201), Cut()], "required: true") as made:
        for key in ("a", "a", "b", "b", None, "no key"):
            pay(made, key)
        pay(made, "a", body=b"other")
        assert all('{policy="idempotency-key",' in name for name in made.counters if "idempotency_key" in name)
        counted = {name.partition('result="')[2].rstrip('"}'): count for name, count in made.counters.items() if count}
    assert counted == {"first": 2, "replayed": 1, "unknown": 1, "missing": 1, "invalid": 1, "reused": 1}


# Settings.


def test_where_it_stands() -> None:
    assert IdempotencyKeyPolicy.stages == (Stage.CACHE, Stage.LIMIT)
    assert IdempotencyKeyPolicy.of_callers


@pytest.mark.parametrize(
    "settings",
    [
        {"methods": ["GET"]},
        {"methods": []},
        {"header": "a b"},
        {"key": []},
        {"key": "nobody"},
        {"ttl": 0},
        {"lock": "0.5s"},
        {"lock": "2h", "ttl": "1h"},
        {"max_answer": "1MiB"},
        {"retryable": [99]},
        {"on_unknown": "maybe"},
        {"on_store_failure": "local"},
        {"documentation": "developer.example.com"},
        {"documentation": "https://a.example/>; rel=x"},
        {"hold": "1s"},
    ],
    ids=str,
)
def test_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        IdempotencyKey.model_validate(settings)


def test_a_capture_that_no_path_has_is_told_at_load() -> None:
    with pytest.raises(ConfigError, match="tenant"), gateway(Reply(201), "key: captures.tenant"):
        pass
