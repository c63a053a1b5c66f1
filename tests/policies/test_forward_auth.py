from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from portico.plugin import Headers
from portico.policies.forward_auth import ForwardAuth
from portico.policy.told import MOST_TOLD
from portico.testing import Answer, Cut, Gateway, Refuse, Reply, ServiceRequest, Silence
from portico.testing.services import Plays
from tests.harness.gateway import Call, Service, curl, portico_here, problem_of
from tests.harness.gateway import Gateway as Process

OK = Reply(204, {"X-Auth-User": "ada"})
NO = Reply(403, body="no")


def gateway(settings: str = "identity: X-Auth-User", auth: Plays = OK, others: str = "", more: str = "") -> Gateway:
    text = f"""
{more}
consumers: {{bob: {{keys: bob-has-a-long-key, roles: [admin]}}}}
services: {{auth: "http://auth/base", s: "http://s"}}
routes:
  - {{path: /**, service: s, policies: [{{forward-auth: {{service: auth, path: /verify, {settings}}}}}, {others}]}}
"""
    return Gateway(text=text, services={"auth": auth, "s": Reply(200, body="served")})


def asked(world: Gateway, name: str = "auth") -> list[ServiceRequest]:
    return world.services[name].requests


def test_what_is_asked() -> None:
    client = [
        ("Authorization", "Bearer x"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
        ("Accept", "text/html"),
        ("Content-Type", "text/plain"),
        ("Expect", "100-continue"),
        ("X-Forwarded-For", "9.9.9.9"),
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Uri", "/else"),
        ("X-Original-URI", "/else"),
        ("X_Forwarded_Uri", "/else"),
        ("Range", "bytes=1-2"),
    ]
    with gateway() as world:
        answer = world.post("/a%20b?c=d", headers=client, body="content", client="192.0.2.7", host="shop.example")
        assert (answer.status, answer.text) == (200, "served")
        (question,) = asked(world)
        assert (question.method, question.target, question.body) == ("GET", "/base/verify", b"")
        said = sorted((name.lower(), value) for name, value in question.headers.pairs)
        assert said == [
            ("accept-encoding", "identity"),
            ("authorization", "Bearer x"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("host", "auth"),
            ("via", "1.1 portico"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-method", "POST"),
            ("x-forwarded-port", "8000"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-uri", "/a%20b?c=d"),
            ("x-request-timeout-ms", "2000"),
        ]
        assert asked(world, "s")[0].body == b"content"


def test_what_is_asked_by_choice() -> None:
    with gateway("send: accept, original_uri: on", more="trusted_proxies: [10.0.0.1]") as world:
        headers = {"Accept": "a", "Authorization": "b", "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}
        assert world.get("/a?b", headers=headers, client="10.0.0.1").status == 200
        said = asked(world)[0].headers
        assert (said["Accept"], said["X-Original-URI"], said["X-Forwarded-Uri"]) == ("a", "/a?b", "/a?b")
        assert (said["X-Forwarded-For"], said["X-Forwarded-Proto"]) == ("1.2.3.4, 10.0.0.1", "https")
        assert "Authorization" not in said


def test_who_it_is_and_what_the_service_is_told() -> None:
    settings = """
      identity: {name: X-Name, roles: X-Roles, groups: X-Groups, scopes: X-Scopes, permissions: X-Can,
                 claims: {email: X-Email, age: X-Age}},
      pass: [X-Name, X-Extra, Authorization]"""
    auth = Reply(
        200,
        [
            ("X-Name", "zoë".encode().decode("latin-1")),
            ("X-Roles", "a, b ,,c"),
            ("X-Roles", "d"),
            ("X-Groups", "first group,second"),
            ("X-Scopes", "read write,all"),
            ("X-Email", "zoe@x.example"),
            ("x-extra", "1"),
            ("X-Extra", "2"),
            ("X-Internal", "secret"),
            ("Authorization", "Bearer inner"),
            ("Set-Cookie", "s=1"),
        ],
        body="ignored",
    )
    others = """user-headers: {roles: U-Roles, groups: U-Groups, scopes: U-Scopes, permissions: U-Can, kind: U-Kind,
      claims: {email: U-Email, age: U-Age}}"""
    forged = {"X_Name": "root", "x-roles": "root", "X-Extra": "9", "X_Can": "all", "Authorization": "Bearer outer"}
    with gateway(settings, auth, f"{{{others}}}") as world:
        answer = world.get("/", headers=forged)
        assert answer.status == 200
        assert not {"x-name", "x-internal", "set-cookie"} & set(answer.headers)
        said = asked(world, "s")[0].headers
        assert said.all("X-Name") == ["zoë".encode().decode("latin-1")]
        assert said.all("X-Extra") == ["1", "2"]
        assert said.all("Authorization") == ["Bearer inner"]
        assert not {"x_name", "x-roles", "x_can", "x-internal", "u-can", "u-age"} & set(said)
        assert said["X-User-ID"] == "zo%C3%AB"
        assert (said["U-Roles"], said["U-Groups"]) == ("a,b,c,d", "first%20group,second")
        assert (said["U-Scopes"], said["U-Kind"], said["U-Email"]) == (
            "all,read,write",
            "forward-auth",
            "zoe@x.example",
        )


@pytest.mark.parametrize("status", [300, 302, 401, 403, 404, 429, 499])
def test_any_other_answer_is_the_clients(status: int) -> None:
    headers = [
        ("WWW-Authenticate", "Bearer"),
        ("Location", "/login"),
        ("Content-Type", "text/html"),
        ("Set-Cookie", "a=1"),
        ("Server", "inner"),
        ("X-Auth-User", "ada"),
    ]
    with gateway(auth=Reply(status, headers, "go away")) as world:
        answer = world.get("/")
        assert (answer.status, answer.text) == (status, "go away")
        assert not asked(world, "s")
        assert set(answer.headers) == {
            "www-authenticate", "location", "content-type", "content-length", "cache-control", "date",
        }  # fmt: skip
        assert answer.headers["Cache-Control"] == "no-store"


def test_which_headers_of_it_is_a_choice() -> None:
    headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Location", "/"), ("Cache-Control", "private")]
    with gateway("answer: [set-cookie, Cache-Control]", Reply(302, headers)) as world:
        answer = world.head("/")
        assert answer.headers.all("Set-Cookie") == ["a=1", "b=2"]
        assert "Location" not in answer.headers
        assert answer.headers.all("Cache-Control") == ["private"]


FAILURES: list[Plays] = [
    Refuse,
    Cut,
    Silence,
    Reply(500),
    Reply(503, body="overloaded"),
    Reply(403, body="x" * 101),
    Reply(403, {"Location": "/" * MOST_TOLD}),
    Reply(200, {"X-Auth-User": "a" * (MOST_TOLD + 1)}),
    Reply(200, {"X-Pass": "a" * MOST_TOLD}),
    Reply(200, {"X-Auth-User": "a\tb"}),
    Reply(200, [("X-Auth-User", "ada"), ("X-Auth-User", "root")]),
]


@pytest.mark.parametrize("auth", FAILURES)
def test_without_an_answer(auth: Plays) -> None:
    settings = "identity: X-Auth-User, pass: X-Pass, max_answer: 100"
    with gateway(settings, auth) as world:
        answer = world.get("/")
        assert (answer.status, answer.problem) == (503, "authentication-unavailable")
        assert not asked(world, "s")
    with gateway(f"{settings}, on_failure: allow, cache: 1m", auth, "user-headers") as world:
        assert world.get("/", headers={"X-Auth-User": "root", "X_Pass": "1"}).status == 200
        assert not {"x-user-id", "x-auth-user", "x_pass"} & set(asked(world, "s")[0].headers)
        world.services["auth"].plays = NO  # what was no answer is not kept
        assert world.get("/").status == 403


@pytest.mark.parametrize("status", [401, 200])
def test_an_answer_that_stalls(status: int) -> None:
    async def slowly() -> Any:
        yield b"a"
        await asyncio.sleep(3)
        yield b"b"

    with gateway("timeout: 1s", lambda _: Reply(status, body=slowly())) as world:
        before = world.clock()
        assert world.get("/").problem == "authentication-unavailable"
        assert world.clock() < before + 2


def test_the_content_of_an_answer_that_lets_pass_is_of_no_use() -> None:
    with gateway("max_answer: 10", Reply(200, body="x" * 100)) as world:
        assert world.get("/").status == 200


KEY = {"X-API-Key": "bob-has-a-long-key"}
BAD = {"X-API-Key": "wrong"}


@pytest.mark.parametrize(
    ("settings", "auth", "others", "headers", "status", "questions"),
    [
        ("", Reply(), "{authorize: admin}", {}, 401, 1),  # it may pass, and nobody is known
        ("identity: X-Auth-User", Reply(), "", {}, 200, 1),
        ("identity: X-Auth-User", Reply(200, {"X-Auth-User": ""}), "", {}, 200, 1),
        ("", Reply(), "anonymous, {authorize: {allow: \"user == 'anonymous'\"}}", {}, 200, 1),
        ("", NO, "anonymous", {}, 403, 1),
        ("", NO, "key-auth", KEY, 200, 1),
        ("", NO, "key-auth", {}, 403, 1),
        ("", NO, "key-auth", BAD, 403, 1),
        ("", Refuse, "key-auth", KEY, 200, 1),
        ("", Refuse, "key-auth", {}, 503, 1),
        ("", Reply(), "key-auth", BAD, 200, 1),
        ("", Reply(), "{key-auth: {required: on}}", {}, 401, 1),
        ("", Reply(), "{key-auth: {required: on}}, {authorize: admin}", KEY, 200, 1),
        ("required: on", NO, "key-auth", KEY, 403, 1),
    ],
)
def test_beside_others(
    settings: str, auth: Plays, others: str, headers: Mapping[str, str], status: int, questions: int
) -> None:
    with gateway(settings, auth, others) as world:
        assert world.get("/", headers=headers).status == status
        assert len(asked(world)) == questions


def test_a_401_of_its_own_has_the_challenges_of_the_others_too() -> None:
    with gateway("", Reply(401, {"WWW-Authenticate": 'Form realm="x"'}), "key-auth") as world:
        assert world.get("/").headers.all("WWW-Authenticate") == ['Form realm="x"', 'Key realm="api"']


def test_who_is_known_already_is_not_asked_about_and_still_says_nothing_for_it() -> None:
    text = """
consumers: {bob: bob-has-a-long-key}
services: {auth: "http://auth", s: "http://s"}
routes: [{path: /**, service: s, policies: [key-auth, {forward-auth: {service: auth, pass: X-Auth-User}}]}]
"""
    with Gateway(text=text, services={"auth": OK, "s": Reply()}) as world:
        assert world.get("/", headers={**KEY, "X_Auth_User": "root", "X-Auth-User": "root"}).status == 200
        assert not asked(world)
        assert not {"x-auth-user", "x_auth_user"} & set(asked(world, "s")[0].headers)


def test_requests_that_come_at_once_are_one_question() -> None:
    async def slowly(_: ServiceRequest) -> Reply:
        await asyncio.sleep(1)
        return OK

    with gateway("identity: X-Auth-User, pass: X-Auth-User", slowly) as world:

        async def main() -> list[Answer]:
            async with asyncio.TaskGroup() as tasks:
                leaving = tasks.create_task(world.ask("GET", "/a", leaves_after=0.5))
                same = [tasks.create_task(world.ask("GET", "/a")) for _ in range(3)]
                other = [
                    tasks.create_task(world.ask("GET", "/b")),
                    tasks.create_task(world.ask("PUT", "/a")),
                    tasks.create_task(world.ask("GET", "/a", headers={"Cookie": "a=b"})),
                    tasks.create_task(world.ask("GET", "/a", client="192.0.2.7")),
                    tasks.create_task(world.ask("GET", "/a", host="other.example")),
                ]
            assert leaving.result().status == 0
            return [task.result() for task in (*same, *other)]

        assert [answer.status for answer in world.run(main)] == [200] * 8
        assert len(asked(world)) == 6
        assert [request.headers["X-Auth-User"] for request in asked(world, "s")] == ["ada"] * 8
        assert world.get("/a").status == 200
        assert len(asked(world)) == 7


def test_each_refused_client_has_an_answer_of_its_own() -> None:
    async def slowly(_: ServiceRequest) -> Reply:
        await asyncio.sleep(1)
        return NO

    others = "{headers: {response: {add: {X-More: a}}}, stage: guard, name: more}"
    with gateway("", slowly, others) as world:

        async def main() -> list[Answer]:
            return list(await asyncio.gather(*(world.ask("GET", "/") for _ in range(3))))

        for answer in world.run(main):
            assert (answer.status, answer.text, answer.headers.all("X-More")) == (403, "no", ["a"])
        assert len(asked(world)) == 1


def told(world: Gateway, target: str = "/a", **options: Any) -> int:
    """Return how many questions a request has led to."""
    before = len(asked(world))
    world.get(target, **options)
    return len(asked(world)) - before


def test_an_answer_holds_for_a_while() -> None:
    settings = "identity: X-Auth-User, pass: X-Auth-User, cache: 10s"
    with gateway(settings) as world:
        assert [told(world), told(world)] == [1, 0]
        assert [request.headers["X-Auth-User"] for request in asked(world, "s")] == ["ada", "ada"]
        assert told(world, headers={"Accept": "other"}) == 0
        for options in (
            {"target": "/b"},
            {"target": "/a?x"},
            {"headers": {"Cookie": "a"}},
            {"headers": {"Authorization": "a"}},
            {"client": "192.0.2.7"},
            {"host": "x"},
        ):
            assert [told(world, **options), told(world, **options)] == [1, 0]
        world.clock.advance(10)
        assert told(world) == 1


def test_what_others_are_known_by_is_a_choice() -> None:
    with gateway("cache: 10s, cache_by: method") as world:
        same: tuple[dict[str, Any], ...] = ({"target": "/b?x"}, {"client": "192.0.2.7"}, {"host": "x"})
        assert [told(world), *(told(world, **options) for options in same)] == [1, 0, 0, 0]
        assert told(world, headers={"Cookie": "a"}) == 1
        assert world.post("/a").status == 200
        assert len(asked(world)) == 3


@pytest.mark.parametrize(
    ("auth", "after", "questions"),
    [
        (Reply(200, {"Cache-Control": "no-store"}), 0, 1),
        (Reply(200, {"Cache-Control": 'private, No-Cache="x"'}), 0, 1),
        (Reply(200, {"Cache-Control": "max-age=0"}), 0, 1),
        (Reply(200, {"Cache-Control": "private, max-age=3"}), 2, 0),
        (Reply(200, {"Cache-Control": "private, max-age=3"}), 3, 1),
        (Reply(200, {"Cache-Control": "max-age=300"}), 10, 1),
        (NO, 0, 1),
        (Reply(302), 0, 1),
    ],
)
def test_what_is_not_kept(auth: Plays, after: float, questions: int) -> None:
    with gateway("cache: 10s", auth) as world:
        told(world)
        world.clock.advance(after)
        assert told(world) == questions


SESSION = [("Set-Cookie", "session=new; Path=/; HttpOnly"), ("Set-Cookie", "session_1=b"), ("Set-Cookie", "other=c")]


@pytest.mark.parametrize(
    ("settings", "status", "cookies"),
    [
        ("", 204, ["session=mine", "kept=d"]),
        ("cookies: session", 204, ["kept=d", "session=new; Path=/; HttpOnly"]),
        ("cookies: [session*]", 200, ["kept=d", "session=new; Path=/; HttpOnly", "session_1=b"]),
        ("cookies: Session", 200, ["session=mine", "kept=d"]),
        ("cookies: none", 200, ["session=mine", "kept=d"]),
        ("cookies: other, cache: 1m", 200, ["session=mine", "kept=d", "other=c"]),
    ],
)
def test_cookies_of_an_answer_that_lets_pass_are_the_clients_by_choice(
    settings: str, status: int, cookies: list[str]
) -> None:
    with gateway(settings, Reply(status, SESSION)) as world:
        world.services["s"].plays = Reply(200, [("Set-Cookie", "session=mine"), ("Set-Cookie", "kept=d")], "served")
        for _ in range(2):
            answer = world.get("/")
            assert (answer.status, answer.text, answer.headers.all("Set-Cookie")) == (200, "served", cookies)
        assert len(asked(world)) == 2  # none is given to a request that was not asked about


def test_no_cache_keeps_cookies_of_one_client_for_others() -> None:
    public = Reply(200, {"Cache-Control": "public, max-age=600", "Expires": "x", "CDN-Cache-Control": "max-age=600"})
    for settings, kept in (("cookies: session", ["no-store"]), ("", ["public, max-age=600"])):
        with gateway(settings, Reply(200, SESSION)) as world:
            world.services["s"].plays = public
            answer = world.get("/style.css")
            assert answer.headers.all("Cache-Control") == kept
            assert ("Expires" in answer.headers, "CDN-Cache-Control" in answer.headers) == (not settings,) * 2


def test_an_answer_without_such_cookies_is_kept() -> None:
    with gateway("cookies: session, cache: 1m", Reply(200, {"Set-Cookie": "other=c"})) as world:
        assert [told(world), told(world)] == [1, 0]


def test_cookies_come_with_whatever_is_answered_to_a_request_that_may_pass() -> None:
    with gateway("cookies: session", Reply(200, SESSION), "{authorize: admin}") as world:
        answer = world.get("/")
        assert (answer.status, answer.headers.all("Set-Cookie")) == (401, ["session=new; Path=/; HttpOnly"])
    with gateway("cookies: session", Reply(200, SESSION), "{key-auth: {required: on}}") as world:
        answer = world.get("/")
        assert (answer.status, answer.headers.all("Set-Cookie")) == (401, ["session=new; Path=/; HttpOnly"])


def test_cookies_of_an_answer_are_bounded() -> None:
    with gateway("cookies: session", Reply(200, {"Set-Cookie": f"session={'a' * MOST_TOLD}"})) as world:
        assert world.get("/").problem == "authentication-unavailable"


def test_nobody_waits_for_it_and_it_is_not_asked_any_more() -> None:
    ended: list[bool] = []

    async def slowly(_: ServiceRequest) -> Reply:
        try:
            await asyncio.sleep(1)
        finally:
            ended.append(True)
        return OK

    with gateway("timeout: 10s", slowly) as world:

        async def main() -> None:
            assert (await world.ask("GET", "/", leaves_after=0.5)).status == 0
            await asyncio.sleep(0.1)
            assert ended == [True]

        world.run(main)
        assert world.get("/").status == 200
        assert len(asked(world)) == 2


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "there is nobody to ask"),
    ({"service": "a", "url": "http://a/"}, "give one of service and url"),
    ({"url": "http://a/", "path": "/"}, "leave path out"),
    ({"url": "ftp://a/"}, "URL"),
    ({"service": "a", "ca": __file__}, "no url"),
    ({"service": "a", "path": "verify"}, "match pattern"),
    ({"service": "a", "timeout": "0s"}, "greater than 0"),
    ({"service": "a", "send": ["X-Forwarded-For"]}, "for the gateway to say"),
    ({"service": "a", "send": ["Host"]}, "for the gateway to say"),
    ({"service": "a", "send": ["X_Forwarded_Uri"]}, "for the gateway to say"),
    ({"service": "a", "pass": ["Transfer-Encoding"]}, "for the gateway to say"),
    ({"service": "a", "pass": ["Cookie"]}, "lose its cookies"),
    ({"service": "a", "answer": ["Content-Length"]}, "for the gateway to say"),
    ({"service": "a", "identity": "a b"}, "not a header name"),
    ({"service": "a", "cookies": ["a b"]}, "match pattern"),
    ({"service": "a", "cookies": ["*"]}, "match pattern"),
    ({"service": "a", "on_failure": "pass"}, "'refuse' or 'allow'"),
    ({"service": "a", "cache_by": ["header"]}, "'client'"),
    ({"service": "a", "passes": []}, "Extra inputs"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ForwardAuth.model_validate(settings)
    assert message in str(caught.value)


def verify(call: Call) -> None:
    """Let in who has the right cookie; send the others to the login."""
    seen = call.note()
    if call.headers["Cookie"] == "session=good":
        call.answer(200, b"fine", X_Auth_User="ada", X_Internal="secret")
    elif call.headers["Cookie"] is None:
        to = f"https://login.example/?to={call.headers['X-Forwarded-Host']}{seen.values('X-Forwarded-Uri')[0]}"
        call.answer(302, b"to the login", Location=to, X_Internal="secret")
    else:
        call.answer(401, b"who?", WWW_Authenticate="Session")


def test_with_a_real_service_that_decides(tmp_path: Path) -> None:
    with Service(verify) as auth, Service() as shop:
        config = f"""
services: {{auth: "http://127.0.0.1:{auth.port}", shop: "http://127.0.0.1:{shop.port}"}}
routes:
  - path: /shop/**
    service: shop
    policies: [forward-auth: {{service: auth, path: "/v?q=1", identity: X-Auth-User, pass: X-Auth-User}}, user-headers]
  - path: /url/**
    service: shop
    policies: [forward-auth: {{url: "http://127.0.0.1:{auth.port}/v?q=2", cache: 1m}}]
  - path: /down/**
    service: shop
    policies: [forward-auth: {{url: "http://127.0.0.1:1/v"}}]
"""
        with Process(tmp_path, config) as process:
            url, good, bad = process.url, ("-H", "Cookie: session=good"), ("-H", "Cookie: session=bad")
            answer = curl(*good, "-H", "X_Auth_User: root", "-d", "content", f"{url}/shop/a?b=1")
            assert answer.status == 200
            assert not answer.values("X-Auth-User")
            seen = shop.last
            assert (seen.method, seen.body, seen.target) == ("POST", b"content", "/shop/a?b=1")
            assert seen.values("X-Auth-User") == seen.values("X-User-ID") == ["ada"]
            assert not {"x_auth_user", "x-internal", "x-forwarded-method"} & seen.names
            question = auth.last
            assert (question.method, question.target, question.body) == ("GET", "/v?q=1", b"")
            assert question.values("X-Forwarded-Method") == ["POST"]
            assert question.values("X-Forwarded-Uri") == ["/shop/a?b=1"]
            assert question.values("Cookie") == ["session=good"]
            assert not {"content-length", "content-type", "transfer-encoding", "x_auth_user"} & question.names

            answer = curl(f"{url}/shop/a?b=1")
            host = url.removeprefix("http://")
            assert (answer.status, answer.body) == (302, b"to the login")
            assert answer.value("Location") == f"https://login.example/?to={host}/shop/a?b=1"
            assert not answer.values("X-Internal")
            answer = curl(*bad, f"{url}/shop/a")
            assert (answer.status, answer.body, answer.value("WWW-Authenticate")) == (401, b"who?", "Session")
            assert curl("-I", *bad, f"{url}/shop/a").status == 401

            before = len(auth.seen)
            assert [curl(*good, f"{url}/url/a").status for _ in range(3)] == [200] * 3
            assert len(auth.seen) == before + 1
            assert auth.last.target == "/v?q=2"
            assert curl(*bad, f"{url}/url/a").status == 401
            problem_of(curl(*good, f"{url}/down/a"), 503, "authentication-unavailable")
            assert len(shop.seen) == 4
            assert auth.connections == 1  # it is kept, and whoever asks there shares it
            assert "session=" not in process.log()


def test_what_is_remembered_outlives_a_reload_that_changes_nothing_of_it(tmp_path: Path) -> None:
    with Service(verify) as auth, Service(verify) as other, Service() as shop:
        config = """
listen: 127.0.0.1:0
workers: 1
services: {{auth: "http://127.0.0.1:{auth}/{base}", shop: "http://127.0.0.1:{shop}"}}
routes:
  - path: /**
    service: shop
    policies: [forward-auth: {{service: auth, cache: 10m, path: "{path}"}}]
"""
        said = {"auth": auth.port, "shop": shop.port, "base": "", "path": "/v"}
        with Process(tmp_path, config.format(**said).partition("workers: 1")[2]) as process:

            def asked_after(**changes: object) -> int:
                said.update(changes)
                process.file.write_text("# a line more\n" + config.format(**said))
                done = portico_here("reload", str(process.file))
                assert done.code == 0, done.err
                before = len(auth.seen) + len(other.seen)
                for _ in range(2):
                    assert curl("-H", "Cookie: session=good", process.url).status == 200
                return len(auth.seen) + len(other.seen) - before

            process.agent_answers()
            assert curl("-H", "Cookie: session=good", process.url).status == 200
            assert asked_after() == 0
            assert asked_after(path="/w") == 1
            assert asked_after(base="base") == 1
            assert asked_after(auth=other.port) == 1
            assert len(other.seen) == 1


def test_headers_of_an_answer_are_checked() -> None:
    bad = Headers()
    bad.put_parsed(b"X-Auth-User", b"a\r\nX-Role: admin")
    reply = Reply(200)
    reply.headers = bad
    with gateway("pass: X-Auth-User", reply) as world:
        assert world.get("/").problem == "authentication-unavailable"
