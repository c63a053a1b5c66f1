"""What a part of a route raises is answered with all that the policies around it add to answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Literal

import pytest

from portico.plugin import Endpoint, Handler, Policy, PolicyConfig, Request, Response, Stage
from portico.testing import Gateway, Reply
from portico.testing.visit import Answer

ORIGIN = "https://page.example"
SENT = {"Origin": ORIGIN, "X-Correlation-ID": "id-7"}
EXPECTED = {
    "access-control-allow-origin": ORIGIN,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-correlation-id": "id-7",
}
STAGES = tuple(Stage)


class Raise(PolicyConfig):
    at: Literal["request", "response", "handle", "after"] = "request"
    """Where it raises."""


class RaisePolicy(Policy[Raise], name="raise", stages=(Stage.TRANSFORM,)):
    def request(self, request: Request) -> Response | None:
        if self.config.at == "request":
            raise LookupError
        return None

    def response(self, request: Request, response: Response) -> Response:
        if self.config.at == "response":
            raise LookupError
        return response


class RaiseWaitingPolicy(Policy[Raise], name="raise-waiting", stages=(Stage.TRANSFORM,)):
    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        await asyncio.sleep(0)
        if self.config.at == "handle":
            raise LookupError
        await next(request)
        raise LookupError


class Limit(PolicyConfig):
    of: int = 10
    """Bytes that are read at most."""


class ReadPolicy(Policy[Limit], name="read", stages=(Stage.TRANSFORM,)):
    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        await request.body.read(self.config.of)
        return await next(request)


class ReadAnswerPolicy(Policy[Limit], name="read-answer", stages=(Stage.TRANSFORM,)):
    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        response = await next(request)
        await response.body.read(self.config.of)
        return response


class StampPolicy(Policy[PolicyConfig], name="stamp", stages=STAGES):
    """Waits, and adds a header to whatever comes."""

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        try:
            response = await next(request)
        except Exception as error:
            raise AssertionError("an error came out of `next`") from error
        problem = response.problem_value
        response.headers.set(b"X-Stamp", b"-" if problem is None else problem.type.encode())
        return response


class BrokenEndpoint(Endpoint[PolicyConfig], name="broken"):
    async def handle(self, request: Request) -> Response:
        raise LookupError


CLASSES = (RaisePolicy, RaiseWaitingPolicy, ReadPolicy, ReadAnswerPolicy, StampPolicy, BrokenEndpoint)

CONFIG = """
policies:
  - security-headers
  - {stamp: {}, stage: observe}
  - correlation-id
  - cors: https://page.example
services: {api: "http://127.0.0.1:9002"}
routes:
  - {path: /max, service: api, max_body: 10}
  - {path: /size, service: api, policies: [request-size: 10]}
  - {path: /read, service: api, policies: [read: {}]}
  - {path: /read-answer, service: api, policies: [read-answer: {}]}
  - {path: /condition, service: api, policies: [{raise: request, when: "headers['x-text'].matches('foo.*bar')"}]}
  - {path: /request, service: api, policies: [raise: request]}
  - {path: /response, service: api, policies: [raise: response]}
  - {path: /handle, service: api, policies: [raise-waiting: handle]}
  - {path: /after, service: api, policies: [raise-waiting: after]}
  - {path: /endpoint, broken: {}}
"""
INNER = """
  - {stamp: {}, stage: transform, name: inner}
"""
LARGE = [b"eight by", b"tes, and more"]


@pytest.fixture(params=["", INNER], ids=["plain", "one that waits"], scope="module")
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """Return a gateway whose innermost policy around each route's own is a plain one, or one that waits."""
    text = CONFIG.replace("services:", f"{request.param.strip(chr(10))}\nservices:", 1)
    with Gateway(text=text, classes=CLASSES, services={"api": Reply(200, body=b"more than ten bytes")}) as gateway:
        yield gateway


def complete(answer: Answer, status: int, problem: str) -> None:
    """Check that an answer is a failure which has all that the policies around it add to answers."""
    assert (answer.status, answer.problem) == (status, problem)
    assert {name: answer.headers.get(name) for name in EXPECTED} == EXPECTED
    assert answer.headers.get("x-stamp") == problem
    assert answer.exchange.error == problem


@pytest.mark.parametrize("path", ["/max", "/size", "/read"])
def test_a_body_over_its_limit(gateway: Gateway, path: str, caplog: pytest.LogCaptureFixture) -> None:
    complete(gateway.post(path, headers=SENT, body=LARGE), 413, "content-too-large")
    assert caplog.records == []


def test_a_body_that_is_said_to_be_over_its_limit(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/max", "/size", "/read"):
        asked = len(gateway.services["api"].requests)
        for _ in range(2):
            complete(gateway.post(path, headers=SENT, body=b"more than ten bytes"), 413, "content-too-large")
            announced = {**SENT, "Content-Length": "21"}
            complete(gateway.post(path, headers=announced, body=LARGE), 413, "content-too-large")
        assert len(gateway.services["api"].requests) == asked
    assert caplog.records == []


def test_who_may_not_come_is_told_so_before_the_size_of_the_body() -> None:
    class DenyPolicy(Policy[PolicyConfig], name="deny", stages=(Stage.AUTHORIZE,)):
        def request(self, request: Request) -> Response | None:
            return Response.problem(403, "denied")

    text = "routes: [{path: /x, respond: a, max_body: 1, policies: [deny: {}]}, {path: /y, respond: a, max_body: 1}]"
    with Gateway(text=text, classes=[DenyPolicy]) as gateway:
        assert gateway.post("/x", body=b"long").problem == "denied"
        assert gateway.post("/y", body=b"long").problem == "content-too-large"
        assert gateway.post("/y", body=b"a").status == 200


def test_a_text_that_is_too_long_for_a_condition(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    answer = gateway.get("/condition", headers={**SENT, "X-Text": "x" * 2000})
    complete(answer, 431, "request-header-fields-too-large")
    assert caplog.records == []


def test_an_answer_over_the_limit_of_a_policy_that_reads_it(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    complete(gateway.get("/read-answer", headers=SENT), 502, "service-answer-too-large")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/request", "policy raise"),
        ("/response", "policy raise"),
        ("/handle", "policy raise-waiting"),
        ("/after", "policy raise-waiting"),
        ("/endpoint", "endpoint broken"),
    ],
)
def test_a_bug(gateway: Gateway, path: str, part: str, caplog: pytest.LogCaptureFixture) -> None:
    complete(gateway.get(path, headers=SENT), 500, "internal-error")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError
    assert record.getMessage().startswith(f"route {path[1:]} failed in {part} ({__file__}:")


def test_a_bug_of_a_policy_further_out_is_told_as_well(caplog: pytest.LogCaptureFixture) -> None:
    policies = [StampPolicy(PolicyConfig()), RaisePolicy(Raise(at="response")), RaiseWaitingPolicy(Raise(at="after"))]
    with Gateway(policies=policies, endpoint=BrokenEndpoint(PolicyConfig())) as gateway:
        answer = gateway.get("/x")
    assert (answer.status, answer.headers.get("x-stamp")) == (500, "internal-error")
    parts = [record.getMessage().partition(" (")[0].partition("failed in ")[2] for record in caplog.records]
    assert parts == ["endpoint broken", "policy raise-waiting", "policy raise"]


def test_a_policy_may_answer_in_the_place_of_a_failure() -> None:
    class MendPolicy(Policy[PolicyConfig], name="mend", stages=(Stage.TRANSFORM,)):
        def response(self, request: Request, response: Response) -> Response:
            problem = response.problem_value
            return Response(200, body=b"mended") if problem is not None and problem.status == 500 else response

    with Gateway(policies=[MendPolicy(PolicyConfig())], endpoint=BrokenEndpoint(PolicyConfig())) as gateway:
        answer = gateway.get("/x")
        assert (answer.status, answer.text, answer.exchange.error) == (200, "mended", "")


def test_who_leaves_is_answered_by_nobody(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[BaseException | Response] = []

    class WatchPolicy(Policy[PolicyConfig], name="watch", stages=(Stage.TRANSFORM,)):
        async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
            try:
                response = await next(request)
            except BaseException as error:
                seen.append(error)
                raise
            seen.append(response)
            return response

    class SleepEndpoint(Endpoint[PolicyConfig], name="sleep"):
        async def handle(self, request: Request) -> Response:
            await asyncio.sleep(60)
            return Response(200)

    with Gateway(policies=[WatchPolicy(PolicyConfig())], endpoint=SleepEndpoint(PolicyConfig())) as gateway:
        answer = gateway.get("/x", leaves_after=1)
    assert answer.status == 0
    assert list(map(type, seen)) == [asyncio.CancelledError]
    assert caplog.records == []
