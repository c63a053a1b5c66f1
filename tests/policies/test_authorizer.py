from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from portico.plugin import ConfigError, RouteInfo
from portico.policies.authorizer import MOST_WAITING, THREADS, Authorizer, AuthorizerPolicy
from portico.testing import Answer, Cut, Gateway, Refuse, Reply, ServiceRequest, Silence
from portico.testing.services import Plays
from tests.harness.gateway import Call, Service, curl, portico_here, problem_of
from tests.harness.gateway import Gateway as Process
from tests.harness.tokens import World, in_time, show

ARN = "arn:aws:execute-api:local:000000000000:portico/$default"
YES = Reply(json={"isAuthorized": True, "context": {"principalId": "ada", "roles": "admin"}})
NO = Reply(json={"isAuthorized": False})
BEARER = {"Authorization": "a"}
UNAVAILABLE = (503, "authentication-unavailable")


def gateway(settings: str = "", auth: Plays = YES, others: str = "user-headers") -> Gateway:
    text = f"""
consumers: {{bob: bob-has-a-long-key}}
services: {{auth: "http://auth/base", s: "http://s"}}
routes:
  - path: [/a/**, /b]
    name: both
    service: s
    policies: [{{authorizer: {{service: auth, path: "/v?w", {settings}}}}}, {others}]
  - {{path: "/orders/{{id}}", service: s, policies: [{{authorizer: {{service: auth, {settings}}}}}]}}
"""
    return Gateway(text=text, services={"auth": auth, "s": Reply(200, body="served")})


def asked(world: Gateway, name: str = "auth") -> list[ServiceRequest]:
    return world.services[name].requests


def told(world: Gateway, target: str = "/a", method: str = "GET", **options: Any) -> int:
    """Return how many questions a request has led to."""
    before = len(asked(world))
    world.request(method, target, **({"headers": BEARER} | options))
    return len(asked(world)) - before


# A service that answers as Lambda authorizers do


def test_what_is_asked() -> None:
    with gateway() as world:
        answer = world.post("/a/x?q=1", headers={**BEARER, "Cookie": "c=d"}, body="content", client="192.0.2.7")
        assert (answer.status, answer.text) == (200, "served")
        assert asked(world, "s")[0].body == b"content"
        (question,) = asked(world)
        assert (question.method, question.target) == ("POST", "/base/v?w")
        assert question.headers["Content-Type"] == "application/json"
        assert not {"authorization", "cookie"} & set(question.headers)
        event = question.json()
        assert (event["version"], event["type"], event["identitySource"]) == ("2.0", "REQUEST", ["a"])
        assert (event["routeArn"], event["routeKey"]) == (f"{ARN}/POST/a/x", "POST both")
        assert (event["headers"]["authorization"], event["cookies"]) == ("a", ["c=d"])
        assert event["queryStringParameters"] == {"q": "1"}
        assert event["requestContext"]["http"]["sourceIp"] == "192.0.2.7"
        assert abs(event["requestContext"]["timeEpoch"] / 1000 - world.clock.wall()) < 1
        assert world.get("/orders/7", headers=BEARER).status == 200
        event = asked(world)[1].json()
        assert (event["routeKey"], event["pathParameters"]) == ("GET /orders/{id}", {"id": "7"})
        assert (asked(world)[1].target, event["routeArn"]) == ("/base/", f"{ARN}/GET/orders/7")


def test_who_it_is() -> None:
    context = {"sub": "zoë", "realm": {"roles": ["a", "b"]}, "scope": "read write", "email": "z@x.example", "n": 7}
    auth = Reply(json={"isAuthorized": True, "context": context})
    headers = "{user-headers: {scopes: U-Scopes, kind: U-Kind, claims: {email: U-Email, n: U-N}}}"
    with gateway("user: sub, roles: realm.roles", auth, headers) as world:
        assert world.get("/a", headers={**BEARER, "X-User-ID": "root"}).status == 200
        said = asked(world, "s")[0].headers
        assert (said["X-User-ID"], said["X-User-Roles"], said["U-Scopes"]) == ("zo%C3%AB", "a,b", "read,write")
        assert (said["U-Kind"], said["U-Email"], said["U-N"]) == ("authorizer", "z@x.example", "7")


@pytest.mark.parametrize(
    ("settings", "auth", "others", "headers", "status", "questions"),
    [
        ("", YES, "{authorize: admin}", BEARER, 200, 1),
        ("", Reply(json={"isAuthorized": True}), "", BEARER, 200, 1),
        ("", Reply(json={"isAuthorized": True}), "{authorize: admin}", BEARER, 401, 1),  # nobody is known
        ("", Reply(json={"isAuthorized": True, "context": {"principalId": ""}}), "", BEARER, 503, 1),
        ("", NO, "", BEARER, 403, 1),
        ("", YES, "", {}, 401, 0),
        ("", YES, "", {"Authorization": ""}, 401, 0),
        ("", NO, "key-auth", {**BEARER, "X-API-Key": "bob-has-a-long-key"}, 200, 1),
        ("required: on", NO, "key-auth", {**BEARER, "X-API-Key": "bob-has-a-long-key"}, 403, 1),
        ("", YES, "anonymous", {}, 200, 0),
        ("", NO, "anonymous", BEARER, 403, 1),
        ("identity_source: {}", YES, "", {}, 200, 1),
        ("identity_source: [X-A, X-B]", YES, "", {"X-A": "1", "X-B": "2"}, 200, 1),
        ("identity_source: [X-A, X-B]", YES, "", {"X-A": "1"}, 401, 0),
        ("identity_source: {cookies: s}", YES, "", {"Cookie": "a=b; s=1"}, 200, 1),
        ("identity_source: {cookies: s}", YES, "", {"Cookie": "s=; xs=1"}, 401, 0),
        ("identity_source: {query: k}", YES, "", BEARER, 401, 0),
    ],
)
def test_who_may_pass(
    settings: str, auth: Plays, others: str, headers: dict[str, str], status: int, questions: int
) -> None:
    with gateway(settings, auth, others) as world:
        assert world.get("/a", headers=headers).status == status
        assert len(asked(world)) == questions
        assert len(asked(world, "s")) == (status == 200)


def test_the_answers() -> None:
    with gateway("challenge: 'Partner realm=\"a\"'", [NO, Reply(401), YES]) as world:
        missing = world.get("/a")
        assert (missing.status, missing.problem) == (401, "authentication-required")
        assert missing.headers.all("WWW-Authenticate") == ['Partner realm="a"']
        denied = world.get("/a", headers=BEARER)
        assert (denied.status, denied.problem, denied.json()["title"]) == (403, "forbidden", "Forbidden")
        assert "WWW-Authenticate" not in denied.headers
        refused = world.get("/a", headers={"Authorization": "b"})
        assert (refused.status, refused.problem) == (401, "invalid-credentials")
        assert world.get("/a", headers={"Authorization": "b"}).status == 200  # that is not kept
    with gateway("challenge: ''") as world:
        assert "WWW-Authenticate" not in world.get("/a").headers


FAILURES: list[Plays] = [
    Refuse,
    Cut,
    Silence,
    Reply(500),
    Reply(403),
    Reply(302, {"Location": "/"}),
    Reply(204),
    Reply(200, body="yes"),
    Reply(json=[True]),
    Reply(json={}),
    Reply(json={"isAuthorized": "yes"}),
    Reply(200, body='{"isAuthorized": false, "isAuthorized": true}'),
    Reply(json={"isAuthorized": True, "context": {"principalId": "a\nb"}}),
    Reply(json={"isAuthorized": True, "context": {"a": "x" * 100}}),
]


@pytest.mark.parametrize("auth", FAILURES)
def test_no_answer_that_can_be_used(auth: Plays, caplog: pytest.LogCaptureFixture) -> None:
    with gateway("max_answer: 100, timeout: 1s", auth) as world:
        before = world.clock()
        answer = world.get("/a", headers={"Authorization": "a-secret"})
        assert (answer.status, answer.problem) == UNAVAILABLE
        assert world.clock() - before < 1.5
        world.services["auth"].plays = Reply(json={"isAuthorized": True})
        assert world.get("/a", headers={"Authorization": "a-secret"}).status == 200  # it was not kept
    assert "authorizer: nobody says who may pass: " in caplog.text
    assert "a-secret" not in caplog.text


def test_how_long_an_answer_holds() -> None:
    with gateway() as world:
        assert [told(world), told(world)] == [1, 0]
        assert [request.headers["X-User-ID"] for request in asked(world, "s")] == ["ada", "ada"]
        same: tuple[dict[str, Any], ...] = ({"target": "/b"}, {"target": "/a?x"}, {"client": "192.0.2.7"})
        assert [told(world, **options) for options in same] == [0, 0, 0]
        other: tuple[dict[str, Any], ...] = (
            {"method": "PUT"},
            {"headers": {"Authorization": "b"}},
            {"target": "/orders/7"},
        )
        assert [told(world, **options) for options in other] == [1, 1, 1]
        world.clock.advance(299)
        assert told(world) == 0
        world.clock.advance(1)
        assert told(world) == 1
        world.services["auth"].plays = NO
        assert [told(world, headers={"Authorization": "c"}) for _ in range(2)] == [1, 0]
        assert world.get("/a", headers={"Authorization": "c"}).status == 403


@pytest.mark.parametrize(
    ("settings", "other", "questions"),
    [
        ("ttl: 0s", {}, 1),
        ("ttl: 1m", {}, 0),
        ("identity_source: {}", {}, 1),
        ("identity_source: {headers: Authorization, path: on}", {}, 0),
        ("identity_source: {headers: Authorization, path: on}", {"target": "/a/x"}, 1),
        ("identity_source: {query: k, headers: Authorization}", {"target": "/a?k=1&x"}, 0),
        ("identity_source: {query: k, headers: Authorization}", {"target": "/a?k=1&k=2"}, 1),
        ("identity_source: {query: k, headers: Authorization}", {"target": "/a?k=%FF"}, 1),
    ],
)
def test_what_answers_are_kept_by(settings: str, other: dict[str, Any], questions: int) -> None:
    with gateway(settings) as world:
        assert told(world, "/a?k=1") == 1
        assert told(world, **({"target": "/a?k=1"} | other)) == questions


def test_what_was_answered_of_one_path_is_not_that_of_another_route_of_the_same_name() -> None:
    async def main(world: World) -> None:
        world.hosts["https://auth/"] = {"isAuthorized": True}
        for paths, questions in ((("/orders/**",), 1), (("/admin/**",), 2), (("/orders/**",), 2)):
            after = world.reloaded()
            after.route = RouteInfo("orders", paths)
            policy = after.made(AuthorizerPolicy, url="https://auth/", ttl="1m")
            assert (await show(policy, ("Authorization", "x"))).status == 204
            assert len(world.asked) == questions
            after.close()

    in_time(main)


def test_what_is_no_unicode_is_told_apart() -> None:
    with gateway("identity_source: {query: k}") as world:
        assert [told(world, f"/a?k={value}") for value in ("%FF", "%FE", "%FF", "%EF%BF%BD")] == [1, 1, 0, 1]
        assert [request.json()["identitySource"] for request in asked(world)] == [["\ufffd"]] * 3


def test_a_policy_is_judged_for_each_request() -> None:
    statements = [
        {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": f"{ARN}/GET/orders/*"},
        {"Effect": "Deny", "Action": "execute-api:Invoke", "Resource": f"{ARN}/*/orders/8"},
    ]
    policy = {"principalId": "ada", "policyDocument": {"Version": "2012-10-17", "Statement": statements}}
    with gateway("format: iam", Reply(json=policy)) as world:
        paths = ("/orders/7", "/orders/8", "/orders/9", "/a")
        assert [world.get(path, headers=BEARER).status for path in paths] == [200, 403, 200, 403]
        assert len(asked(world)) == 2
    with gateway("format: iam", Reply(json=policy)) as world:
        assert [world.get(path, headers=BEARER).status for path in ("/orders/8", "/orders/7")] == [403, 200]
        assert len(asked(world)) == 1
    with gateway("format: iam", YES) as world:
        assert world.get("/a", headers=BEARER).problem == "authentication-unavailable"


def test_the_same_at_once_is_one_question_where_it_is_kept() -> None:
    async def slowly(_: ServiceRequest) -> Reply:
        await asyncio.sleep(1)
        return YES

    for settings, questions in (("", 2), ("ttl: 0s", 4)):
        with gateway(settings, slowly) as world:

            async def main(world: Gateway = world) -> list[Answer]:
                asking = [world.ask("GET", target, headers=BEARER) for target in ("/a", "/a", "/b")]
                return list(await asyncio.gather(*asking, world.ask("GET", "/a", headers={"Authorization": "b"})))

            assert [answer.status for answer in world.run(main)] == [200] * 4
            assert len(asked(world)) == questions


# Functions

CODE = """
import asyncio
import threading

from portico.plugin import Refusal, User

CALLS = []
GO_ON = threading.Event()


def of_token(request):
    CALLS.append((request.method, request.path))
    token = request.headers.text(b"authorization")
    return {
        None: None,
        "user": User("ada", roles=frozenset({"admin"})),
        "other-kind": User("ada", kind="mine"),
        "yes": True,
        "no": False,
        "refused": Refusal("out-of-hours", "Out of hours", "it is late", status=403),
        "nonsense": "root",
        "number": 1,
    }[token]


async def later(request):
    await asyncio.sleep(float(request.query or 0))
    return of_token(request)


def gives_an_awaitable(request):
    return later(request)


class Object:
    async def __call__(self, request):
        return of_token(request)


an_object = Object()


def store_is_down(request):
    CALLS.append(request.path)
    return Refusal("store-down", "Authentication not available", status=503)


async def signed(request):
    return await request.body.read(10) == b"good"


def hangs(request):
    assert GO_ON.wait(30)
    return True
"""


@contextmanager
def with_function(folder: Path, settings: str, others: str = "{user-headers: {kind: U-Kind}}") -> Iterator[Any]:
    """Yield a gateway, and the module of the plugin as `world.module`."""
    (folder / "checks.py").write_text(CODE)
    file = folder / "portico.yaml"
    file.write_text(f"""
plugins: [checks.py]
services: {{s: "http://s"}}
routes: [{{path: /**, service: s, policies: [{{authorizer: {{{settings}}}}}, {others}]}}]
""")
    with Gateway(file, services={"s": Reply(200, body="served")}) as world:
        (world.module,) = world._loaded.registry.plugins["checks"]  # type: ignore[attr-defined]
        world.module.CALLS.clear()  # type: ignore[attr-defined]
        yield world


@pytest.mark.parametrize("function", ["of_token", "later", "gives_an_awaitable", "an_object"])
def test_what_a_function_returns(function: str, tmp_path: Path) -> None:
    with with_function(tmp_path, f"function: 'checks:{function}'") as world:
        for token, status, problem in (
            ("user", 200, ""),
            ("other-kind", 200, ""),
            ("yes", 200, ""),
            ("no", 403, "forbidden"),
            ("refused", 403, "out-of-hours"),
        ):
            answer = world.get("/x", headers={"Authorization": token})
            assert (answer.status, answer.status != 200 and answer.problem) == (status, problem or False)
        assert world.get("/x").problem == "authentication-required"
        assert world.module.CALLS == [("GET", "/x")] * 6
        said = [request.headers for request in asked(world, "s")]
        assert [each.get("X-User-ID") for each in said] == ["ada", "ada", None]
        assert [each.get("U-Kind") for each in said] == ["authorizer", "mine", None]


@pytest.mark.parametrize("token", ["nonsense", "number", "raises"])
def test_a_function_that_is_wrong(token: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with with_function(tmp_path, "function: 'checks:of_token'") as world:
        answer = world.get("/", headers={"Authorization": token})
        assert (answer.status, answer.problem) == UNAVAILABLE
        assert not asked(world, "s")
    assert "authorizer: the work has failed" in caplog.text
    assert ("KeyError" in caplog.text) == (token == "raises")


def test_a_function_that_looks_at_the_content(tmp_path: Path) -> None:
    with with_function(tmp_path, "function: 'checks:signed'") as world:
        assert world.post("/", body="good").status == 200
        assert asked(world, "s")[0].body == b"good"
        assert world.post("/", body="bad").problem == "forbidden"
        answer = world.post("/", body="longer than ten bytes")
        assert (answer.status, answer.problem) == (413, "content-too-large")


def test_a_function_that_takes_too_long(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with with_function(tmp_path, "function: 'checks:later', timeout: 3s") as world:
        before = world.clock()
        answer = world.get("/?60", headers={"Authorization": "yes"})
        assert (answer.status, answer.problem) == UNAVAILABLE
        assert 3 <= world.clock() - before < 3.1
        assert not world.module.CALLS  # it was ended
    assert "no answer in time" in caplog.text


def test_answers_of_a_function_are_kept_by_choice(tmp_path: Path) -> None:
    settings = "function: 'checks:of_token', ttl: 1m, identity_source: Authorization"
    with with_function(tmp_path, settings) as world:
        for token in ("user", "no"):
            statuses = [world.get("/", headers={"Authorization": token}).status for _ in range(3)]
            assert statuses == [200 if token == "user" else 403] * 3
        assert len(world.module.CALLS) == 2
        assert world.get("/").status == 401
        assert len(world.module.CALLS) == 2
        world.clock.advance(60)
        world.get("/", headers={"Authorization": "user"})
        assert len(world.module.CALLS) == 3


def test_what_says_nothing_of_the_credentials_is_not_kept(tmp_path: Path) -> None:
    kept = "ttl: 1m, identity_source: Authorization"
    with with_function(tmp_path, f"function: 'checks:signed', {kept}") as world:
        assert world.post("/", body="much too large", headers=BEARER).problem == "content-too-large"
        assert world.post("/", body="good", headers=BEARER).status == 200
    with with_function(tmp_path, f"function: 'checks:store_is_down', {kept}") as world:
        assert [world.get("/", headers=BEARER).problem for _ in range(2)] == ["store-down"] * 2
        assert len(world.module.CALLS) == 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("checks:of_tokens", "plugin 'checks' has no function 'of_tokens'; did you mean 'of_token'?"),
        ("checks:CALLS", "plugin 'checks' has no function 'CALLS'"),
        ("check:of_token", "there is no plugin 'check' that could have a function; did you mean 'checks'?"),
        ("os:remove", r"there is no plugin 'os' that could have a function; add it to plugins, as in plugins: [os.py]"),
    ],
)
def test_functions_that_are_not_there(function: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught, with_function(tmp_path, f"function: '{function}'"):
        pass
    assert message in str(caught.value)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "there is nobody to ask; give one of function, service and url"),
    ({"service": "a", "url": "http://a/"}, "there are a service and a url"),
    ({"function": "a:b", "url": "http://a/"}, "there are a function and a url"),
    ({"function": "a.b"}, "match pattern"),
    ({"function": "a:b", "format": "iam"}, "format is of no use to a function"),
    ({"function": "a:b", "roles": "x"}, "roles is of no use to a function"),
    ({"function": "a:b", "ttl": "1m"}, "name in identity_source all that it looks at"),
    ({"service": "a", "ttl": "1m", "identity_source": {"path": True}}, "would hold for all"),
    ({"service": "a", "ttl": "2h"}, "less than or equal to 3600"),
    ({"service": "a", "ca": __file__}, "no url"),
    ({"url": "http://a/", "path": "/x"}, "leave path out"),
    ({"url": "a"}, "not a URL of http"),
    ({"service": "a", "format": "token"}, "'simple' or 'iam'"),
    ({"service": "a", "arn": "arn:aws:s3:::bucket"}, "match pattern"),
    ({"service": "a", "identity_source": "a b"}, "not a header name"),
    ({"service": "a", "identity_source": {"body": "a"}}, "Extra inputs"),
    ({"service": "a", "challenge": "a\r\nb"}, "cannot stand in a header"),
    ({"service": "a", "timeout": "0s"}, "greater than 0"),
    ({"service": "a", "on_failure": "allow"}, "Extra inputs"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Authorizer.model_validate(settings)
    assert message in str(caught.value)


# A gateway at work


def decides(call: Call) -> None:
    """Let in whose token is their name and `!`."""
    event = json.loads(b"".join(call.read_body()))
    call.note(json.dumps(event).encode())
    name, _, sign = event["identitySource"][0].removeprefix("Bearer ").partition("!")
    said: dict[str, Any] = {"isAuthorized": not sign and "!" in event["headers"]["authorization"]}
    if call.path == "/iam":
        allowed = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": f"{ARN}/GET/iam/{name}"}
        said = {"principalId": name, "policyDocument": {"Statement": [allowed]}}
    call.answer(200, json.dumps(said | {"context": {"principalId": name, "roles": "admin"}}).encode())


SYNC = """
import threading
from portico.plugin import Request, User

VERSION = 1

def check(request: Request) -> User | None:
    token = request.headers.text(b"authorization")
    if token == "hang":
        threading.Event().wait()
    return None if token is None else User(f"{token}-{VERSION}-{threading.current_thread() is threading.main_thread()}")
"""


def test_with_real_ones(tmp_path: Path) -> None:
    (tmp_path / "checks.py").write_text(SYNC)
    with Service(decides) as auth, Service() as shop:
        config = f"""
plugins: [checks.py]
services: {{auth: "http://127.0.0.1:{auth.port}", shop: "http://127.0.0.1:{shop.port}"}}
routes:
  - {{path: /simple/**, service: shop, policies: [authorizer: {{service: auth}}, user-headers]}}
  - path: "/iam/{{name}}"
    service: shop
    policies: [authorizer: {{url: "http://127.0.0.1:{auth.port}/iam", format: iam}}, user-headers]
  - path: /function/**
    service: shop
    policies:
      - authorizer: {{function: "checks:check", timeout: 500ms, ttl: 10m, identity_source: Authorization}}
      - user-headers
  - {{path: /down/**, service: shop, policies: [authorizer: {{url: "http://127.0.0.1:1/"}}]}}
"""
        with Process(tmp_path, config) as process:

            def ask(path: str, token: str) -> Any:
                return curl("-H", f"Authorization: {token}", process.url + path)

            for _ in range(3):
                assert ask("/simple/a", "Bearer ada!").status == 200
            assert shop.last.values("X-User-ID") == ["ada"]
            assert shop.last.values("X-User-Roles") == ["admin"]
            assert (len(auth.seen), auth.last.method, auth.last.target) == (1, "POST", "/")
            problem_of(ask("/simple/a", "Bearer ada"), 403, "forbidden")
            missing = curl(f"{process.url}/simple/a")
            problem_of(missing, 401, "authentication-required")
            assert missing.value("WWW-Authenticate") == "Bearer"
            assert len(auth.seen) == 2

            before = len(auth.seen)
            assert ask("/iam/ada", "Bearer ada!").status == 200
            assert shop.last.values("X-User-ID") == ["ada"]
            problem_of(ask("/iam/bob", "Bearer ada!"), 403, "forbidden")
            assert len(auth.seen) == before + 1
            problem_of(ask("/down/a", "Bearer ada!"), 503, "authentication-unavailable")

            assert ask("/function/a", "ada").status == 200
            assert shop.last.values("X-User-ID") == ["ada-1-False"]
            problem_of(curl(f"{process.url}/function/a"), 401, "authentication-required")
            problem_of(ask("/function/a", "hang"), 503, "authentication-unavailable")
            assert ask("/function/a", "bob").status == 200

            process.agent_answers()
            (tmp_path / "checks.py").write_text(SYNC.replace("VERSION = 1", "VERSION = 2"))
            assert portico_here("reload", str(process.file)).code == 0
            assert ask("/function/a", "ada").status == 200
            assert shop.last.values("X-User-ID") == ["ada-2-False"]
            (tmp_path / "checks.py").write_text(SYNC.replace("def check", "def other"))
            wrong = portico_here("check", str(process.file))
            assert "authorizer: plugin 'checks' has no function 'check'" in wrong.err + wrong.out
            assert "ada!" not in process.log()


def test_threads_are_bounded(tmp_path: Path) -> None:
    """One that hangs takes no more than threads of its own."""
    with with_function(tmp_path, "function: 'checks:hangs', timeout: 1h") as world:

        async def main() -> list[Answer]:
            async with asyncio.TaskGroup() as tasks:
                asking = [tasks.create_task(world.ask("GET", "/")) for _ in range(THREADS + MOST_WAITING + 3)]
                refused: set[asyncio.Task[Answer]] = set()
                while len(refused) < 3:
                    done, _ = await asyncio.wait(set(asking) - refused, return_when=asyncio.FIRST_COMPLETED)
                    refused |= done
                world.module.GO_ON.set()
            return [task.result() for task in asking]

        statuses = [answer.status for answer in world.run(main)]
        assert (statuses.count(200), statuses.count(503)) == (THREADS + MOST_WAITING, 3)
