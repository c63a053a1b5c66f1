from __future__ import annotations

import pytest

from portico.config.resilience import Fallback as FallbackConfig
from portico.errors import BodyTooLarge, CircuitOpen, NoTarget, Overloaded, Source, UpstreamError, UpstreamTimeout
from portico.http.body import Body
from portico.http.message import Handler, Request, Response
from portico.observe.exchange import Exchange
from portico.upstream.fallback import Fallback
from tests.harness.loop import run
from tests.http.test_body import Pieces

FAILED = UpstreamTimeout("no answer in time", source=Source.RESPONSE)
SAID = "service-timeout: response: no answer in time"


class Services:
    """A service that fails, the one that its fallback names, and what they were asked."""

    def __init__(self, outcome: Response | Exception = FAILED) -> None:
        self.outcome = outcome
        self.asked: list[tuple[float | None, bytes, bytes]] = []

    async def inner(self, request: Request) -> Response:
        request.deadline = 77.0  # as a service with a time of its own does
        request.upgrade = b""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def other(self, request: Request) -> Response:
        self.asked.append((request.deadline, request.upgrade, await request.body.read(100)))
        if request.path == "/fails":
            assert request.exchange is not None
            request.exchange.error = "it fails, too"
            return Response(503)
        return Response(203)


def fallback(services: Services, other: Handler | None = None, now: float = 50.0, **config: object) -> Fallback:
    return Fallback(FallbackConfig.model_validate(config), other, lambda: now, services.inner)


def ask(what: Fallback, request: Request | None = None) -> Response:
    async def main() -> Response:
        return await what.handle(Request("GET", "/") if request is None else request)

    return run(main)


@pytest.mark.parametrize(
    "error",
    [
        FAILED,
        CircuitOpen("", source=Source.GATEWAY),
        NoTarget("", source=Source.GATEWAY),
        Overloaded("", source=Source.GATEWAY),
    ],
)
def test_a_failure_is_answered_otherwise(error: UpstreamError) -> None:
    exchange = Exchange(0.0)
    answer = ask(
        fallback(Services(error), status=203, body="größe", headers={"X-Stale": "yes"}),
        Request("GET", "/", exchange=exchange),
    )
    assert (answer.status, answer.body.whole) == (203, "größe".encode())
    assert list(answer.headers) == [(b"Content-Type", b"text/plain; charset=utf-8"), (b"X-Stale", b"yes")]
    assert exchange.error == f"{error.type}: {error.source}: {error.detail}"


def test_each_answer_is_one_of_its_own() -> None:
    what = fallback(Services(), body="[]", content_type="application/json")
    first = ask(what)
    first.headers.set(b"X-More", b"1")
    second = ask(what)
    assert list(second.headers) == [(b"Content-Type", b"application/json")]
    assert second.body is not first.body


def test_an_answer_without_content_has_no_media_type() -> None:
    answer = ask(fallback(Services(), status=204))
    assert (answer.status, answer.body.whole, list(answer.headers)) == (204, b"", [])


@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_an_answer_of_the_service_is_left_as_it_is(status: int) -> None:
    exchange = Exchange(0.0)
    response = Response(status)
    assert ask(fallback(Services(response), body="x"), Request("GET", "/", exchange=exchange)) is response
    assert exchange.error == ""


@pytest.mark.parametrize("error", [BodyTooLarge(""), RuntimeError("a bug")])
def test_what_is_not_the_services_doing_is_no_reason(error: Exception) -> None:
    with pytest.raises(type(error)):
        ask(fallback(Services(error), body="x"))


def test_another_service_gets_the_request_as_it_came() -> None:
    services = Services()
    exchange = Exchange(0.0)
    request = Request("POST", "/", body=Body(b"content"), exchange=exchange)
    request.upgrade = b"websocket"
    request.deadline = 60.0
    assert ask(fallback(services, services.other, service="other"), request).status == 203
    assert services.asked == [(60.0, b"websocket", b"content")]
    assert exchange.error == SAID


def test_what_fails_at_both_is_told_of_both() -> None:
    services = Services()
    exchange = Exchange(0.0)
    request = Request("GET", "/fails", exchange=exchange)
    assert ask(fallback(services, services.other, service="other"), request).status == 503
    assert exchange.error == f"{SAID}; then it fails, too"


def test_another_service_is_not_asked_when_the_time_is_over() -> None:
    services = Services()
    request = Request("GET", "/")
    request.deadline = 50.0
    with pytest.raises(UpstreamTimeout):
        ask(fallback(services, services.other, service="other"), request)
    assert services.asked == []
    assert ask(fallback(services, body="x"), request).status == 200


@pytest.mark.parametrize("how", ["untouched", "peeked", "buffered", "begun", "read"])
def test_a_body_that_was_sent_already_cannot_be_sent_again(how: str) -> None:
    services = Services()
    body = Body.stream(Pieces([b"one ", b"two"]), None)

    async def main() -> Response:
        if how == "peeked":
            await body.peek(3)
        elif how == "buffered":
            await body.read(100)
        elif how == "begun":
            await body.chunk()
        elif how == "read":
            while await body.chunk():
                pass
        return await fallback(services, services.other, service="other").handle(Request("POST", "/", body=body))

    if how in ("begun", "read"):
        with pytest.raises(UpstreamTimeout):
            run(main)
        assert services.asked == []
    else:
        run(main)
        assert services.asked == [(None, b"", b"one two")]
