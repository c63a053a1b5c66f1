from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import ValidationError

from portico.plugin import ConfigError, Headers, Memory, Request, Response
from portico.policies.oauth2_introspection import MOST_REFUSED, OAuth2Introspection, OAuth2IntrospectionPolicy
from tests.harness.gateway import Call, Gateway, Service, curl, portico_here, problem_of, refusing_port
from tests.harness.tokens import NOW, Verdict, World, bearer, in_time, show

URL = "https://issuer.example/introspect"
ISSUER = "https://issuer.example"
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"
ACTIVE = {"active": True, "sub": "ada"}
UNAVAILABLE = (503, "authentication-unavailable")


def policy_of(world: World, **settings: Any) -> OAuth2IntrospectionPolicy:
    return world.made(OAuth2IntrospectionPolicy, **({"url": URL} | settings))


def found(said: dict[str, Any], **settings: Any) -> Verdict:
    """Return what becomes of a request whose token the server says this of."""

    async def main(world: World) -> Verdict:
        world.hosts[URL] = said
        return await bearer(policy_of(world, **settings), "token")

    return in_time(main)


GOOD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"exp": NOW + 1}, {}),
    ({"exp": NOW - 59}, {}),  # clocks differ
    ({"exp": None, "iss": None, "aud": None}, {}),
    ({"token_type": "Bearer"}, {}),
    ({"token_type": "access_token"}, {}),
    ({"iss": "b"}, {"issuer": ["a", "b"]}),
    ({"aud": ["x", "a"]}, {"audience": "a"}),
    ({"aud": "x"}, {}),
    ({"sub": None, "username": "ada"}, {"user": "username"}),
]


@pytest.mark.parametrize(("said", "settings"), GOOD)
def test_what_is_taken(said: dict[str, Any], settings: dict[str, Any]) -> None:
    verdict = found({**ACTIVE, **said}, **settings)
    assert verdict.status == 204
    assert verdict.user is not None
    assert (verdict.user.name, verdict.user.kind) == ("ada", "oauth2-introspection")


BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"active": False}, {}, "invalid-token"),
    ({"exp": NOW - 60}, {}, "token-expired"),
    ({"exp": "soon"}, {}, "invalid-token"),
    ({"nbf": NOW + 61}, {}, "invalid-token"),
    ({"token_type": "DPoP"}, {}, "invalid-token"),
    ({"token_type": "refresh_token"}, {}, "invalid-token"),
    ({"token_type": 7}, {}, "invalid-token"),
    ({"iss": "b"}, {"issuer": "a"}, "invalid-token"),
    ({}, {"issuer": "a"}, "invalid-token"),
    ({"aud": "b"}, {"audience": "a"}, "invalid-token"),
    ({}, {"audience": "a"}, "invalid-token"),
    ({"sub": None}, {}, "invalid-token"),
    ({"sub": "a\nb"}, {}, "invalid-token"),
]


@pytest.mark.parametrize(("said", "settings", "type_"), BAD)
def test_what_is_not_taken(said: dict[str, Any], settings: dict[str, Any], type_: str) -> None:
    verdict = found({**ACTIVE, **said}, **settings)
    assert (verdict.status, verdict.type) == (401, type_)


def test_what_is_said_of_a_user() -> None:
    said = {"scope": "read write", "realm_access": {"roles": ["admin"]}, "client_id": "shop"}
    user = found({**ACTIVE, **said}, roles="realm_access.roles").user
    assert user is not None
    assert (user.scopes, user.roles, user.claims["client_id"]) == ({"read", "write"}, {"admin"}, "shop")


def test_the_answers() -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = {"active": False}
        policy = policy_of(world, realm="shop")
        missing = await show(policy)
        assert (missing.type, missing.title) == ("authentication-required", "Missing authentication")
        assert missing.challenges == ['Bearer realm="shop"']
        refused = await bearer(policy, "x")
        assert (refused.type, refused.title) == ("invalid-token", "Invalid token")
        assert refused.challenges == [
            'Bearer realm="shop", error="invalid_token", error_description="The token is not valid here"'
        ]

    in_time(main)


@pytest.mark.parametrize(
    ("settings", "authorization", "form"),
    [
        ({}, None, {}),
        ({"client_id": "a", "client_secret": "b"}, "Basic YTpi", {}),
        # `a b:ä` and `%&:` are encoded as in a form before they are joined.
        ({"client_id": "a b:ä", "client_secret": "%&:"}, "Basic YStiJTNBJUMzJUE0OiUyNSUyNiUzQQ==", {}),
        (
            {"client_id": "a b", "client_secret": "&=+", "client_auth": "post"},
            None,
            {"client_id": ["a b"], "client_secret": ["&=+"]},
        ),
    ],
)
def test_what_is_asked(settings: dict[str, Any], authorization: str | None, form: dict[str, list[str]]) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Response:
        asked.append(request)
        return Response(200, None, json.dumps(ACTIVE).encode())

    async def main(world: World) -> None:
        world.hosts[f"{URL}?tenant=a"] = answer
        assert (await bearer(policy_of(world, url=f"{URL}?tenant=a", **settings), "a+b/c-._~==")).status == 204

    in_time(main)
    (request,) = asked
    assert (request.method, request.target) == ("POST", "/introspect?tenant=a")
    assert request.headers.text(b"authorization") == authorization
    assert request.headers.text(b"content-type") == "application/x-www-form-urlencoded"
    assert request.headers.text(b"accept") == "application/json"
    assert request.body.whole is not None
    said = parse_qs(request.body.whole.decode(), strict_parsing=True)
    assert said == {"token": ["a+b/c-._~=="], "token_type_hint": ["access_token"], **form}


def test_where_a_token_is_looked_for() -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = ACTIVE
        policy = policy_of(world, cookie="t", query="t", cache="0s")
        for headers, query in (
            ([("Authorization", "bearer a")], None),
            ([("Authorization", "Basic YTpi"), ("Cookie", "t=a")], None),
            ([("Cookie", "b=c; t=a")], None),
            ([], "b=c&t=a%2Bb%3D"),
        ):
            assert (await show(policy, *headers, query=query)).status == 204
        assert len(world.asked) == 4
        assert (await show(policy_of(world), ("Cookie", "t=a"), query="t=a")).type == "authentication-required"
        twice = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
        assert (await show(policy, *twice)).type == "invalid-token"
        assert len(world.asked) == 4

    in_time(main)


@pytest.mark.parametrize("text", ["", " ", "a b", "a=b", "=", "a,b", '"a"', "a%20", "ä", "a" * 101, "a;b"])
def test_nobody_is_asked_about_what_is_no_token(text: str) -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = ACTIVE
        policy = policy_of(world, max_size=100, cookie="t", query="t")
        assert (await bearer(policy, text)).type == "invalid-token"
        assert (await show(policy, query=f"t={text}")).type == "invalid-token"
        assert not world.asked

    in_time(main)


FAILURES: list[Response | None] = [
    None,
    Response(500),
    Response(401),
    Response(302, Headers([(b"Location", URL.encode())])),
    Response(204),
    Response(200, None, b"yes"),
    Response(200, None, b"[true]"),
    Response(200, None, b'{"active": "true", "sub": "ada"}'),
    Response(200, None, b'{"active": 1, "sub": "ada"}'),
    Response(200, None, b'{"active": false, "active": true, "sub": "ada"}'),
    Response(200, None, b'{"sub": "ada"}'),
    Response(200, None, b'{"active": true, "sub": "ada", "x": "' + b"y" * 1000 + b'"}'),
]


@pytest.mark.parametrize("answer", FAILURES)
def test_no_answer_that_can_be_used(answer: Response | None, caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        if answer is not None:
            world.hosts[URL] = answer
        policy = policy_of(world, client_id="a", client_secret="very-secret", max_answer=1000)
        found = await bearer(policy, "a-good-token")
        assert (found.status, found.type) == UNAVAILABLE
        assert not found.challenges
        world.hosts[URL] = ACTIVE
        assert (await bearer(policy, "a-good-token")).status == 204  # it was not kept

    in_time(main)
    assert "oauth2-introspection: nobody says what tokens are good: " in caplog.text
    assert "a-good-token" not in caplog.text
    assert "very-secret" not in caplog.text


def test_no_answer_in_time() -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = ACTIVE
        world.slow = 60
        before = world.clock()
        verdict = await bearer(policy_of(world, timeout="3s"), "a")
        assert (verdict.status, verdict.type) == UNAVAILABLE
        assert 3 <= world.clock() - before < 3.1

    in_time(main)


def test_what_is_remembered_and_for_how_long() -> None:
    async def main(world: World) -> None:
        policy = policy_of(world, cache="30s", cache_inactive="5s")

        async def asked(token: str, said: dict[str, Any]) -> int:
            world.hosts[URL] = said
            before = len(world.asked)
            await bearer(policy, token)
            return len(world.asked) - before

        good, bad = {**ACTIVE, "exp": NOW + 1000}, {"active": False}
        assert [await asked("a", good), await asked("a", bad), await asked("b", bad), await asked("b", good)] == [
            1, 0, 1, 0,
        ]  # fmt: skip
        await asyncio.sleep(5)
        assert [await asked("a", bad), await asked("b", good), await asked("b", bad)] == [0, 1, 0]
        await asyncio.sleep(25)
        assert await asked("a", bad) == 1
        assert (await bearer(policy, "a")).status == 401
        short = {**ACTIVE, "exp": NOW + world.clock() - 1000 + 10}
        assert [await asked("c", short), await asked("c", short)] == [1, 0]
        world.jump = 10  # the time of day is set
        assert await asked("c", short) == 1
        assert await asked("c", short) == 1  # as good as expired, and not kept
        policy = policy_of(world, cache="0s", cache_inactive="0s")
        assert [await asked("a", good), await asked("a", bad), await asked("a", good)] == [1, 1, 1]

    in_time(main)


def test_what_is_remembered_goes_on_while_the_server_is_down() -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = ACTIVE
        policy = policy_of(world)
        assert (await bearer(policy, "a")).status == 204
        del world.hosts[URL]
        assert (await bearer(policy, "a")).status == 204
        assert (await bearer(policy, "b")).status == 503
        await asyncio.sleep(30)
        assert (await bearer(policy, "a")).status == 503

    in_time(main)


def test_the_same_at_once_is_one_question() -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = ACTIVE
        world.slow = 1
        policy = policy_of(world, cache="0s")
        verdicts = await asyncio.gather(*(bearer(policy, token) for token in "aaab"))
        assert [verdict.status for verdict in verdicts] == [204] * 4
        assert len(world.asked) == 2

    in_time(main)


def test_what_anybody_can_make_up_puts_nobody_out_of_mind() -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = ACTIVE
        policy = policy_of(world)
        assert (await bearer(policy, "a")).status == 204
        world.hosts[URL] = {"active": False}
        for number in range(MOST_REFUSED + 10):
            assert (await bearer(policy, f"b{number}")).status == 401
        memories = [each for each in world.shared.values() if isinstance(each, Memory)]
        assert sorted(map(len, memories)) == [1, MOST_REFUSED]
        assert (await bearer(policy, "a")).status == 204
        assert len(world.asked) == 1 + MOST_REFUSED + 10
        assert "b1029" not in repr([each._known for each in memories])

    in_time(main)


def test_routes_and_reloads_share_what_is_remembered_by_the_same_settings(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("one")

    async def main(world: World) -> None:
        world.hosts[URL] = ACTIVE
        same = {"client_id": "a", "client_secret": "b", "ca": str(ca)}

        async def asked(**settings: Any) -> int:
            before = len(world.asked)
            await bearer(policy_of(world, **(same | settings)), "token")
            return len(world.asked) - before

        assert [await asked(), await asked(), await asked(required=True)] == [1, 0, 0]
        assert [await asked(client_secret="c"), await asked(audience="x"), await asked(user="client_id")] == [1, 1, 1]
        ca.write_text("two")
        assert await asked() == 1

    in_time(main)


# Where the server says that it is asked


def description(**said: Any) -> dict[str, Any]:
    return {"issuer": ISSUER, "introspection_endpoint": URL, **said}


@pytest.mark.parametrize(
    "place",
    [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/a",
    ],
)
def test_it_is_found_where_the_server_describes_itself(place: str) -> None:
    async def main(world: World) -> None:
        url = ISSUER + place
        world.hosts |= {url: description(issuer=ISSUER + ("/a" if place.endswith("/a") else "")), URL: ACTIVE}
        policies = [policy_of(world, url=None, discovery_url=url, **each) for each in ({}, {"audience": "a"})]
        await asyncio.sleep(0.1)
        assert world.asked == [url]
        assert (await bearer(policies[0], "a")).status == 204
        assert (await bearer(policies[1], "a")).status == 401
        assert world.asked == [url, URL, URL]
        await asyncio.sleep(3600)
        assert (await bearer(policies[0], "a")).status == 204
        await asyncio.sleep(0.1)
        assert world.asked == [url, URL, URL, URL, url]  # nobody waits for it to be found again
        del world.hosts[url]
        await asyncio.sleep(3600)
        for seconds, more in ((0, 2), (9, 1), (2, 2)):
            await asyncio.sleep(seconds)
            before = len(world.asked)
            assert (await bearer(policies[0], f"b{seconds}")).status == 204
            await asyncio.sleep(0.1)
            assert len(world.asked) == before + more

    in_time(main)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "answers 502"),
        ({}, "another issuer"),
        (description(issuer="https://other.example"), "another issuer"),
        (description(introspection_endpoint=None), "does not say where its introspection_endpoint is"),
        (description(introspection_endpoint="http://issuer.example/introspect"), "is not a URL of https"),
        (description(introspection_endpoint="https://"), "is no URL"),
        (Response(200, None, b" " * 300_000), "does not answer: the body is over 262144 bytes"),
    ],
)
def test_it_is_not_found(said: dict[str, Any] | Response | None, why: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        if said is not None:
            world.hosts[DISCOVERY] = said
        policy = policy_of(world, url=None, discovery_url=DISCOVERY)
        verdicts = await asyncio.gather(*(bearer(policy, str(number)) for number in range(20)))
        assert {(verdict.status, verdict.type) for verdict in verdicts} == {UNAVAILABLE}
        assert world.asked == [DISCOVERY]  # and not for each of them
        assert [task for task in world.tasks if task.done() and task.exception() is not None] == []
        world.hosts |= {DISCOVERY: description(), URL: ACTIVE}
        await asyncio.sleep(1)
        assert (await bearer(policy, "0")).status == 204

    in_time(main)
    assert why in caplog.text


def test_it_is_looked_for_by_each_configuration_and_kept() -> None:
    async def main(world: World) -> None:
        world.slow = 1
        world.hosts |= {DISCOVERY: description(), URL: ACTIVE}
        policy_of(world, url=None, discovery_url=DISCOVERY)
        await asyncio.sleep(0.5)
        other = world.reloaded()
        policy = policy_of(other, url=None, discovery_url=DISCOVERY, timeout="5s")
        world.close()  # what was under way ends with the old configuration
        assert (await bearer(policy, "a")).status == 204
        assert world.asked == [DISCOVERY, DISCOVERY, URL]
        other.close()

    in_time(main)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "there is nobody to ask; give one of url and discovery_url"),
    ({"url": URL, "discovery_url": DISCOVERY}, "there are a url and a discovery_url"),
    ({"url": "issuer.example"}, "not a URL of http"),
    ({"url": URL, "client_id": "a"}, "give both client_id and client_secret"),
    ({"url": URL, "client_secret": "a"}, "give both client_id and client_secret"),
    ({"url": URL, "client_auth": "jwt"}, "'basic' or 'post'"),
    ({"url": URL, "cache_inactive": "61s"}, "less than or equal to 60"),
    ({"url": URL, "timeout": "0s"}, "greater than 0"),
    ({"url": URL, "scopes_required": "a"}, "Extra inputs"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        OAuth2Introspection.model_validate(settings)
    assert message in str(caught.value)


def test_a_description_that_says_no_issuer() -> None:
    async def main(world: World) -> None:
        for url in (f"{ISSUER}/description", f"{DISCOVERY}/more", f"{ISSUER}/.well-known/oauth-authorization-server?a"):
            with pytest.raises(
                ConfigError, match=r"oauth2-introspection: the discovery_url .* give the issuer as well"
            ):
                policy_of(world, url=None, discovery_url=url)
            policy_of(world, url=None, discovery_url=url, issuer=ISSUER)

    in_time(main)


# A gateway at work


def says(call: Call) -> None:
    """Say of a token what it says itself."""
    form = parse_qs(b"".join(call.read_body()).decode())
    call.note(form["token"][0].encode())
    if call.headers["Authorization"] != "Basic cG9ydGljbzp2ZXJ5LXNlY3JldA==":
        call.answer(401)
        return
    user, _, scope = form["token"][0].partition(".")
    said = {"active": user != "none", "sub": user, "scope": scope, "aud": "orders"}
    call.answer(200, json.dumps(said).encode(), Content_Type="application/json")


def test_with_a_real_server(tmp_path: Path) -> None:
    with Service(says) as server, Service() as shop, refusing_port() as down:
        config = f"""
services: {{shop: "http://127.0.0.1:{shop.port}"}}
routes:
  - path: /shop/**
    service: shop
    policies:
      - oauth2-introspection: &asked
          {{url: "http://127.0.0.1:{server.port}/introspect", client_id: portico, client_secret: very-secret,
           audience: orders}}
      - authorize: {{scopes: read}}
      - user-headers
  - path: /wrong/**
    service: shop
    policies:
      - oauth2-introspection:
          {{url: "http://127.0.0.1:{server.port}/introspect", client_id: portico, client_secret: other-secret}}
  - path: /down/**
    service: shop
    policies: [oauth2-introspection: {{url: "http://127.0.0.1:{down}/introspect"}}]
"""
        with Gateway(tmp_path, config.replace("&asked", "")) as gateway:

            def ask(token: str, path: str = "/shop/a") -> Any:
                return curl("-H", f"Authorization: Bearer {token}", gateway.url + path)

            for _ in range(3):
                assert ask("ada.read").status == 200
            assert shop.last.values("X-User-ID") == ["ada"]
            assert len(server.seen) == 1
            assert (server.last.method, server.last.target, server.last.body) == ("POST", "/introspect", b"ada.read")
            lacking = ask("bob.write")
            problem_of(lacking, 403, "forbidden")
            assert lacking.value("WWW-Authenticate") == 'Bearer error="insufficient_scope"'
            refused = ask("none.read")
            assert problem_of(refused, 401, "invalid-token")["title"] == "Invalid token"
            assert refused.value("WWW-Authenticate").startswith('Bearer realm="api", error="invalid_token"')
            problem_of(curl(f"{gateway.url}/shop/a"), 401, "authentication-required")
            asked = len(server.seen)
            problem_of(ask("a,b"), 401, "invalid-token")
            assert len(server.seen) == asked
            problem_of(ask("ada.read", "/wrong/a"), 503, "authentication-unavailable")
            problem_of(ask("ada.read", "/down/a"), 503, "authentication-unavailable")
            assert len(shop.seen) == 3
            log = gateway.log()
            assert "it answers 401: it may know the client by another client_id or client_secret" in log
            assert "refused oauth2-introspection: it is not active, client 127.0.0.1, route shop" in log
            shown = portico_here("explain", str(gateway.file), "GET", "/shop/a").out
            for secret in ("ada.read", "very-secret", "other-secret", "cG9ydGljbz"):
                assert secret not in log + shown
