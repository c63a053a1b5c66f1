"""Several policies that authenticate on one route: who is let in, and what everybody else is told."""

from __future__ import annotations

import asyncio
import logging

import pytest

from portico.http.headers import Headers
from portico.http.message import Request, Response
from portico.http.user import USER, User
from portico.policy.authentication import (
    Authentication,
    Authenticator,
    AuthenticatorConfig,
    Found,
    Part,
    Refusal,
    unknown_user,
)
from portico.policy.consumers import LookupFailed
from tests.harness.loop import run


class ByHeader(Authenticator[AuthenticatorConfig], name="by-header"):
    """Takes what a header says: `ok-NAME`; `slow-NAME` takes a while, anything else is refused."""

    def __init__(self, header: str, *, required: bool = False) -> None:
        super().__init__(AuthenticatorConfig(required=required))
        self.header = header

    def identify(self, request: Request):  # type: ignore[no-untyped-def]
        value = request.headers.text(self.header.lower().encode())
        if value is not None and value.startswith("slow-"):
            return self.later(value)
        return self.found(value)

    async def later(self, value: str) -> Found:
        await asyncio.sleep(0)
        if value == "slow-down":
            raise LookupFailed("too many consumers to look up")
        return self.found("ok-" + value.removeprefix("slow-"))

    def found(self, value: str | None) -> Found:
        if value is None:
            return None
        if value == "broken":
            return Refusal("store-down", "Authentication is not available", status=503)
        kind, _, name = value.partition("-")
        return User(name, kind=self.header) if kind == "ok" else Refusal("bad", "Invalid token", error="invalid_token")

    def challenge(self, refusal: Refusal | None) -> str:
        return f'{self.header} realm="x"' + ("" if refusal is None else f', error="{refusal.error}"')


def ask(parts: list[Part], **headers: str) -> tuple[Response, User | None]:
    request = Request("GET", "/", headers=Headers((name.encode(), value.encode()) for name, value in headers.items()))

    async def passed(request: Request) -> Response:
        return Response(204)

    async def main() -> Response:
        return await Authentication(parts).handle(request, passed)

    return run(main), request.get(USER)


A, B = ByHeader("A"), ByHeader("B")
EITHER = [Part(A, None), Part(B, None)]


@pytest.mark.parametrize(
    ("headers", "name", "kind"),
    [
        ({"A": "ok-ada"}, "ada", "A"),
        ({"B": "ok-bob"}, "bob", "B"),
        ({"A": "slow-ada"}, "ada", "A"),
        ({"A": "ok-ada", "B": "ok-bob"}, "ada", "A"),
        ({"A": "ok-ada", "B": "bad"}, "ada", "A"),
        ({"A": "bad", "B": "ok-bob"}, "bob", "B"),
        ({"A": "broken", "B": "ok-bob"}, "bob", "B"),
    ],
)
def test_one_of_them_is_enough(headers: dict[str, str], name: str, kind: str) -> None:
    response, user = ask(EITHER, **headers)
    assert response.status == 204
    assert user is not None
    assert (user.name, user.kind) == (name, kind)


def test_who_shows_nothing_is_told_all_ways() -> None:
    response, user = ask(EITHER)
    assert user is None
    assert response.status == 401
    assert response.problem_value is not None
    assert (response.problem_value.type, response.problem_value.title) == (
        "authentication-required",
        "Missing authentication",
    )
    assert response.headers.get_all(b"www-authenticate") == [b'A realm="x"', b'B realm="x"']


def test_who_shows_something_that_is_not_taken_is_told_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "portico.security")
    response, _ = ask(EITHER, B="secret-thing")
    assert response.problem_value is not None
    assert (response.status, response.problem_value.type) == (401, "bad")
    assert response.headers.get_all(b"www-authenticate") == [
        b'A realm="x"',
        b'B realm="x", error="invalid_token"',
    ]
    assert caplog.messages == ["refused by-header: Invalid token, client -, route -"]
    assert "secret" not in caplog.text


def test_what_cannot_be_found_out_is_no_401() -> None:
    response, _ = ask(EITHER, A="broken")
    assert response.status == 503
    assert b"www-authenticate" not in response.headers
    assert b"retry-after" not in response.headers


def test_who_cannot_be_looked_up_now_is_asked_to_come_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "portico.security")
    response, user = ask(EITHER, A="slow-down")
    assert user is None
    assert response.problem_value is not None
    assert (response.status, response.problem_value.type) == (503, "authentication-busy")
    assert response.headers.get_all(b"retry-after") == [b"1"]
    assert b"www-authenticate" not in response.headers
    assert caplog.messages == ["refused by-header: too many consumers to look up, client -, route -"]
    assert ask(EITHER, A="slow-down", B="ok-bob")[0].status == 204  # one of them is enough


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"A": "ok-ada", "B": "ok-bob"}, 204),
        ({"A": "ok-ada"}, 401),
        ({"B": "ok-bob"}, 204),
        ({"A": "ok-ada", "B": "bad"}, 401),
        ({}, 401),
    ],
)
def test_one_that_is_required_has_to_be_there(headers: dict[str, str], status: int) -> None:
    parts = [Part(A, None), Part(ByHeader("B", required=True), None)]
    assert ask(parts, **headers)[0].status == status


def test_all_can_be_required() -> None:
    parts = [Part(ByHeader("A", required=True), None), Part(ByHeader("B", required=True), None)]
    assert ask(parts, A="ok-ada")[0].status == 401
    response, user = ask(parts, A="ok-ada", B="ok-bob")
    assert response.status == 204
    assert user is not None
    assert user.name == "ada"


def test_one_whose_condition_does_not_hold_is_not_there() -> None:
    def only_posts(request: Request) -> bool:
        return request.method == "POST"

    assert ask([Part(A, only_posts)])[0].status == 204  # nobody is asked
    response, _ = ask([Part(A, only_posts), Part(B, None)])
    assert response.headers.get_all(b"www-authenticate") == [b'B realm="x"']


def test_one_alone_is_a_policy_like_any_other() -> None:
    async def passed(request: Request) -> Response:
        return Response(204, None, request[USER].name.encode())

    async def main() -> None:
        good = Request("GET", "/", headers=Headers([(b"A", b"ok-ada")]))
        assert (await A.handle(good, passed)).body.whole == b"ada"
        assert (await A.handle(Request("GET", "/"), passed)).status == 401

    run(main)


def test_a_condition_may_speak_of_who_was_found_out_before() -> None:
    def by_a(request: Request) -> bool:
        user = request.get(USER)
        return user is not None and user.kind == "A"

    parts = [Part(A, None), Part(ByHeader("B", required=True), by_a)]
    response, user = ask(parts, A="ok-ada")
    assert response.status == 401
    assert user is None  # whoever looks at the answer sees nobody
    assert ask(parts, A="ok-ada", B="ok-ada")[0].status == 204


def test_who_needs_somebody_has_the_challenges_of_those_whose_condition_did_not_hold() -> None:
    request = Request("GET", "/")

    async def passed(request: Request) -> Response:
        return unknown_user(request)

    async def main() -> Response:
        return await Authentication([Part(A, lambda _: False)]).handle(request, passed)

    assert run(main).headers.get_all(b"www-authenticate") == [b'A realm="x"']
