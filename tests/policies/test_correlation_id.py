from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from portico.plugin import CORRELATION_ID, Headers, Request, Response
from portico.policies.correlation_id import CorrelationIdPolicy
from portico.testing import Gateway as InMemory
from tests.harness.gateway import Gateway, Service, curl
from tests.harness.policy import answering, made, request, response

NAME = b"x-correlation-id"


def taken(*given: bytes, **settings: object) -> tuple[Request, bytes]:
    asked = Request("GET", "/", headers=Headers((b"x-correlation-ID", value) for value in given))
    assert made(CorrelationIdPolicy, **settings).request(asked) is None
    (value,) = asked.headers.get_all(NAME)
    assert asked[CORRELATION_ID] == value
    return asked, value


def is_made(value: bytes) -> bool:
    return uuid.UUID(value.decode()).version == 4 and len(value) == 36


@pytest.mark.parametrize(
    "given",
    [b"a", b"abc-123", b"x" * 128, b"01HXYZ", b"a/b+c==", b"{urn:uuid:1}", b"Root=1-2;Parent=3"],
)
def test_a_sound_id_is_taken(given: bytes) -> None:
    assert taken(given)[1] == given


@pytest.mark.parametrize(
    "given",
    [b"", b" ", b"x" * 129, b"a b", b"a,b", b'"a"', b"a\\b", b"caf\xe9", b"a\tb", b"a\x80", b"<a\xff>"],
)
def test_another_one_is_replaced(given: bytes) -> None:
    value = taken(given)[1]
    assert value != given
    assert is_made(value)


def test_without_an_id_one_is_made_each_time() -> None:
    values = {taken()[1] for _ in range(100)}
    assert len(values) == 100
    assert all(map(is_made, values))


def test_of_several_the_first_is_taken() -> None:
    assert taken(b"one", b"two")[1] == b"one"
    assert is_made(taken(b"not sound", b"two")[1])


def test_a_clients_id_is_not_taken_where_it_must_not() -> None:
    assert is_made(taken(b"abc", accept=False)[1])
    assert is_made(taken(b"abc", b"abc", accept=False)[1])


def test_the_answer_repeats_it() -> None:
    for answer in (response(), response(200, b"", X_Correlation_Id="of the service"), Response.problem(403, "no")):
        policy = made(CorrelationIdPolicy)
        asked = request(X_Correlation_Id="abc")
        reply = asyncio.run(policy.handle(asked, answering(answer)))
        assert reply.headers.get_all(NAME) == [b"abc"]


def test_the_answer_says_nothing_where_it_must_not() -> None:
    policy = made(CorrelationIdPolicy, echo=False)
    reply = asyncio.run(policy.handle(request(X_Correlation_Id="abc"), answering(response())))
    assert not reply.headers.get_all(NAME)


def test_another_header() -> None:
    policy = made(CorrelationIdPolicy, header="X-Request-ID")
    asked = request(X_Request_Id="abc", X_Correlation_Id="other")
    reply = asyncio.run(policy.handle(asked, answering(response())))
    assert reply.headers.pairs == [(b"X-Request-ID", b"abc")]
    assert asked.headers.text(NAME) == "other"


@pytest.mark.parametrize("settings", [{"header": "X Y"}, {"header": ""}, {"accept": "maybe"}, {"length": 3}])
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        made(CorrelationIdPolicy, **settings)


CONFIG = """
services:
  echo: {{url: http://127.0.0.1:{port}}}
policies: [correlation-id]
routes:
  - {{path: /api/**, service: echo, max_body: 3}}
  - {{path: /request/**, service: echo, policies: [correlation-id: {{header: X-Request-ID, accept: false}}]}}
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("correlation"), CONFIG.format(port=service.port)) as gateway:
        yield gateway


def test_client_service_and_answer_share_it(gateway: Gateway, service: Service) -> None:
    for sent in (["-H", "X-Correlation-ID: abc"], ["-H", "X-Correlation-ID: a b"], []):
        reply = curl(*sent, f"{gateway.url}/api/x")
        assert service.last.values("X-Correlation-ID") == reply.values("X-Correlation-ID")
        value = reply.value("X-Correlation-ID")
        assert value == "abc" if "abc" in " ".join(sent) else is_made(value.encode())


def test_a_route_has_its_own(gateway: Gateway, service: Service) -> None:
    reply = curl("-H", "X-Request-ID: abc", f"{gateway.url}/request/x")
    assert is_made(reply.value("X-Request-ID").encode())
    assert service.last.values("X-Request-ID") == reply.values("X-Request-ID")
    assert not reply.values("X-Correlation-ID")


def test_refusals_have_it_too(gateway: Gateway) -> None:
    assert curl("-H", "X-Correlation-ID: abc", f"{gateway.url}/nowhere").value("X-Correlation-ID") == "abc"


def test_who_is_refused_is_told_by_the_same_id(caplog: pytest.LogCaptureFixture) -> None:
    text = (
        "routes: [{path: /, respond: x, policies: [correlation-id, key-auth]}]\nconsumers: {ada: ada-has-a-long-key}\n"
    )
    with InMemory(text=text) as gateway:
        answer = gateway.get("/", headers={"X-Correlation-ID": "one-of-a-client"})
        assert (answer.status, answer.headers["X-Correlation-ID"]) == (401, "one-of-a-client")
        made = gateway.get("/", headers={"X-Correlation-ID": "no\\good", "X-API-Key": "wrong"})
    assert [message.partition(", client ")[0::2] for message in caplog.messages] == [
        ("refused key-auth: no credentials", "127.0.0.1, route root, id one-of-a-client"),
        ("refused key-auth: Invalid API key", f"127.0.0.1, route root, id {made.headers['X-Correlation-ID']}"),
    ]
