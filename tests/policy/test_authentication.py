"""Several policies that authenticate on one route: who is let in, and what everybody else is told."""

from __future__ import annotations

import asyncio
import itertools
import logging
import types
from collections.abc import Awaitable
from pathlib import Path

import pytest

from portico.http.headers import HeaderBlock, Headers
from portico.http.message import Request, Response
from portico.http.user import USER, User
from portico.observe.exchange import Exchange
from portico.policy.authentication import Authentication, Part, unknown_user
from portico.policy.authenticator import ADMITTED, Authenticator, AuthenticatorConfig, Found, Refusal
from portico.policy.consumers import LookupFailed
from portico.runtime.loading import load
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


def test_what_is_missing_has_a_name_where_it_is_one_thing() -> None:
    class ByBadge(ByHeader, name="by-badge"):
        missing = "Missing badge"

    badge, other = Part(ByBadge("Badge"), None), Part(ByBadge("Other"), None)
    for parts, headers, title in (
        ([badge], {}, "Missing badge"),
        ([badge, other], {}, "Missing badge"),
        ([badge, Part(A, None)], {}, "Missing authentication"),
        ([Part(A, None), badge], {}, "Missing authentication"),
        ([Part(A, None), Part(ByBadge("Badge", required=True), None)], {"A": "ok-ada"}, "Missing badge"),
    ):
        problem = ask(parts, **headers)[0].problem_value
        assert problem is not None
        assert problem.title == title


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


class Inviting(ByHeader, name="inviting"):
    """Says more in a 401 than its challenge does."""

    def challenge_headers(self, request: Request) -> HeaderBlock:
        return HeaderBlock([(b"Accept-Signature", f"{self.header}=();{request.method.lower()}".encode())])


def test_a_401_says_what_else_would_be_taken() -> None:
    parts = [Part(A, None), Part(Inviting("C"), None), Part(Inviting("D"), None)]
    for headers in ({}, {"A": "bad"}, {"D": "bad"}):
        response, _ = ask(parts, **headers)
        assert response.headers.get_all(b"accept-signature") == [b"C=();get", b"D=();get"]
        assert len(response.headers.get_all(b"www-authenticate")) == 3
    response, _ = ask(parts, D="broken")
    assert (response.status, b"accept-signature" in response.headers) == (503, False)


def test_who_needs_somebody_has_the_challenges_of_those_whose_condition_did_not_hold() -> None:
    request = Request("GET", "/")

    async def passed(request: Request) -> Response:
        return unknown_user(request)

    async def main() -> Response:
        return await Authentication([Part(A, lambda _: False)]).handle(request, passed)

    assert run(main).headers.get_all(b"www-authenticate") == [b'A realm="x"']


def test_nobody_is_invited_by_one_whose_condition_does_not_hold() -> None:
    class Guests(ByHeader, name="guests"):
        takes_nobody = True

        def identify(self, request: Request) -> User:
            return User("guest")

    for there in (False, True):
        login = Part(WithLogin("C"), lambda _, there=there: there)  # type: ignore[misc]
        for others, told in (([], b"C"), ([Part(A, None)], b"A"), ([Part(Guests("-"), None)], b"C")):
            response = answered([login, *others], made())
            assert response.status == (302 if there else 401)
            assert there or response.headers.get_all(b"www-authenticate") == [told + b' realm="x"']


class Finds(ByHeader, name="finds"):
    """Finds the same of every request, at once or after a while."""

    def __init__(self, what: object, required: bool, slow: bool) -> None:
        super().__init__("F", required=required)
        self.what = what
        self.slow = slow
        self.concealed = 0

    def identify(self, request: Request):  # type: ignore[no-untyped-def]
        return self.after_a_while() if self.slow else self.what

    async def after_a_while(self) -> object:
        await asyncio.sleep(0)
        return self.what

    def conceal(self, request: Request) -> None:
        self.concealed += 1


GOOD: tuple[object, ...] = (User("ada"), ADMITTED)
BAD: tuple[object, ...] = (Refusal("bad", "Bad"), Response(403))


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("guests", [False, True])
def test_nobody_is_let_in_who_should_not_be(*, guests: bool, slow: bool) -> None:
    class Guests(ByHeader, name="guests"):
        takes_nobody = True

        def identify(self, request: Request) -> User:
            return User("guest")

    kinds = list(itertools.product((*GOOD, *BAD, None), (False, True), (None, True, False)))

    async def main() -> None:
        for chosen in itertools.product(kinds, repeat=2):
            parts = [
                Part(Finds(what, required, slow), None if there is None else lambda _, there=there: there)  # type: ignore[misc]
                for what, required, there in chosen
            ]
            seen: list[User | None] = []

            async def passed(request: Request, seen: list[User | None] = seen) -> Response:
                seen.append(request.get(USER))
                return Response(204)

            request = Request("GET", "/")
            await Authentication(parts + [Part(Guests("-"), None)] * guests).handle(request, passed)
            asked = [part.policy for part in parts if part.holds is None or part.holds(request)]
            found = [policy.what in GOOD for policy in asked]
            nothing_shown = all(policy.what is None for policy in asked)
            enough = any(found) or (guests and nothing_shown) or not asked
            duties = all(good for policy, good in zip(asked, found, strict=True) if policy.config.required)
            assert len(seen) == (enough and duties), chosen
            assert all(policy.concealed == len(seen) for policy in asked)
            assert seen or request.get(USER) is None

    run(main)


@pytest.mark.parametrize("method", ["handle", "request"])
def test_what_would_never_be_called_is_refused(method: str) -> None:
    def never(self: object, *_: object) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match=rf"Odd\.{method} would never be called.*override identify"):
        types.new_class("Odd", (Authenticator[AuthenticatorConfig],), {}, lambda space: space.update({method: never}))


def test_a_plugin_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from portico.plugin import Authenticator, AuthenticatorConfig, Stage\n"
        "class Odd(Authenticator[AuthenticatorConfig], name='odd', stages=(Stage.AUTHENTICATE,)):\n"
        "    async def handle(self, request, next):\n"
        "        return await next(request)\n"
    )
    (tmp_path / "portico.yaml").write_text("plugins: [odd.py]\nroutes: [{path: /, respond: x, policies: [odd]}]\n")
    said = "\n".join(map(str, load(tmp_path / "portico.yaml").findings))
    assert "odd.py cannot be loaded: TypeError: Odd.handle would never be called" in said


class WithLogin(ByHeader, name="with-login"):
    """Answers what it is asked at /login, and leads everybody there who shows nothing."""

    def answer(self, request: Request) -> Awaitable[Response] | None:
        return self.page() if request.path == "/login" else None

    async def page(self) -> Response:
        return Response(200, body=b"who are you?")

    def invite(self, request: Request) -> Response | None:
        return Response(302, Headers([(b"Location", b"/login")])) if request.method == "GET" else None

    def response(self, request: Request, response: Response) -> Response:
        response.headers.add(b"Seen-By", b"C")
        return response


def answered(parts: list[Part], request: Request, service: Response | None = None) -> Response:
    async def passed(request: Request) -> Response:
        return service or unknown_user(request)

    async def main() -> Response:
        return await Authentication(parts).handle(request, passed)

    return run(main)


C = WithLogin("C")


def made(path: str = "/", method: str = "GET", **headers: str) -> Request:
    return Request(method, path, headers=Headers((name.encode(), value.encode()) for name, value in headers.items()))


def test_a_policy_answers_what_is_for_itself() -> None:
    for request in (made("/login"), made("/login", A="ok-ada"), made("/login", A="bad"), made("/login", C="ok-ada")):
        assert answered([Part(A, None), Part(C, None)], request, Response(204)).status == 200
    there = Part(C, lambda request: request.method == "GET")
    assert answered([Part(A, None), there], made("/login"), Response(204)).status == 200
    assert answered([Part(A, None), there], made("/login", "POST"), Response(204)).status == 401


def test_who_shows_nothing_is_invited_and_nobody_else() -> None:
    parts = [Part(A, None), Part(C, None)]
    response = answered(parts, made())
    assert (response.status, response.headers.get(b"location")) == (302, b"/login")
    assert b"www-authenticate" not in response.headers
    assert response.headers.get(b"seen-by") == b"C"
    assert answered(parts, made(A="bad")).status == 401
    assert answered(parts, made(C="bad")).status == 401
    assert answered(parts, made(method="POST")).headers.get_all(b"www-authenticate") == [
        b'A realm="x"',
        b'C realm="x"',
    ]
    required = WithLogin("C", required=True)
    assert answered([Part(A, None), Part(required, None)], made(A="ok-ada")).status == 302


def test_who_is_let_in_without_a_name_is_invited_where_one_is_needed() -> None:
    class Guests(ByHeader, name="guests"):
        takes_nobody = True

        def identify(self, request: Request) -> User:
            return User("guest")

    parts = [Part(C, None), Part(Guests("-"), None)]
    assert answered(parts, made(), Response(204)).status == 204
    assert answered(parts, made()).status == 302
    assert answered(parts, made(method="POST")).status == 401


def test_how_long_somebody_was_waited_for_is_in_the_record() -> None:
    times = iter((1.0, 1.5))
    exchange = Exchange(0.0)

    async def passed(request: Request) -> Response:
        return Response(204)

    async def main() -> None:
        for value in (b"ok-ada", b"slow-ada"):
            request = Request("GET", "/", headers=Headers([(b"A", value)]), exchange=exchange)
            await Authentication([Part(A, None)], lambda: next(times)).handle(request, passed)

    run(main)
    (step,) = exchange.steps or ()
    assert (step.name, step.began, step.ended, step.what) == (A.called, 1.0, 1.5, "found out who it is")
