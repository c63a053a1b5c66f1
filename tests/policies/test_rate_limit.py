from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from portico.http.headers import Headers
from portico.plugin import USER, Client, ConfigError, Request, Response, StoreUnavailable, User
from portico.policies.rate_limit import RateLimit, RateLimitPolicy
from portico.state.limits import Limits, Verdict
from portico.state.memory import MemorySpace, MemoryStore
from portico.testing import Answer, Gateway, Reply
from tests.harness.loop import run
from tests.harness.policy import TestEnv
from tests.state.stores import ENGINES

ADA, BOB = User("ada", consumer="ada", kind="key-auth"), User("bob", kind="jwt")


@contextmanager
def gateway(settings: str, service: Any = None, more: str = "") -> Iterator[Gateway]:
    """A gateway with one policy, at the beginning of a minute."""
    text = f"""
services: {{s: "http://s"}}
policies: [{{rate-limit: {settings}}}]
routes: [{{path: /**, service: s}}]
{more}
"""
    with Gateway(text=text, services={"s": Reply() if service is None else service}) as made:
        made.clock.advance(3600 - made.clock.wall() % 3600)
        yield made


def statuses(at: Gateway, count: int, **options: Any) -> list[int]:
    return [at.get("/", **options).status for _ in range(count)]


def passed(at: Gateway, count: int = 20, **options: Any) -> int:
    """Ask so often, and return how many were let through: the first ones."""
    found = statuses(at, count, **options)
    good = found.count(200)
    assert found == [200] * good + [429] * (count - good)
    return good


def limits_of(answer: Answer) -> dict[str, str]:
    names = ("RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    return {name: answer.headers[name] for name in (*names, "Retry-After") if name in answer.headers}


@pytest.mark.parametrize(
    "settings",
    [
        "3/1m",
        "3/m",
        "3/minute",
        "3 / 60s",
        "[3/1m]",
        "[3/1m, 100/h]",
        "{limits: 3/1m}",
        "{limits: {requests: 3, window: 1m}}",
        "{limits: [{requests: 3, window: 1m}, {requests: 1000, window: 1h}]}",
        "{limits: {requests: 3, window: 1m, algorithm: fixed}}",
        "{limits: {requests: 3, window: 1m, algorithm: gcra}}",
        "{limits: {requests: 600, window: 1h, algorithm: gcra, burst: 3}}",
    ],
)
def test_the_forms_of_a_limit(settings: str) -> None:
    with gateway(settings) as at:
        assert passed(at) == 3
        assert passed(at, client="192.0.2.9") == 3


def test_who_is_refused_may_come_again() -> None:
    with gateway("2/1m") as at:
        passed(at)
        refused = at.get("/")
        assert (refused.status, refused.problem) == (429, "rate-limited")
        assert refused.json()["title"] == "Rate limit exceeded"
        assert refused.json()["violated-policies"] == ["2/1m"]
        assert refused.headers["Retry-After"] == "90"
        at.clock.advance(89)
        assert at.get("/").status == 429
        at.clock.advance(1)
        assert passed(at) == 1
        at.clock.advance(200)
        assert passed(at) == 2
        assert len(at.services["s"].requests) == 5


def test_what_clients_are_told() -> None:
    with gateway("[3/1m, 4/1h]") as at:
        policy = {"RateLimit-Policy": '"3/1m";q=3;w=60, "4/1h";q=4;w=3600'}
        told = [limits_of(at.get("/")) for _ in range(4)]
        assert told == [
            policy
            | {"RateLimit": f'"3/1m";r={left};t={time}'}
            | {"X-RateLimit-Limit": "3", "X-RateLimit-Remaining": f"{left}", "X-RateLimit-Reset": f"{time}"}
            | more
            for left, time, more in ((2, 60, {}), (1, 60, {}), (0, 60, {}), (0, 80, {"Retry-After": "80"}))
        ]
        at.clock.advance(120)
        assert at.get("/").headers["RateLimit"] == '"4/1h";r=0;t=3600'
        refused = at.get("/")
        assert refused.json()["violated-policies"] == ["4/1h"]
        assert refused.headers["RateLimit"] == f'"4/1h";r=0;t={refused.headers["Retry-After"]}'
        assert int(refused.headers["Retry-After"]) > 3480


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ("[draft]", {"RateLimit-Policy", "RateLimit"}),
        ("draft", {"RateLimit-Policy", "RateLimit"}),
        ("x-ratelimit", {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}),
        ("off", set()),
    ],
)
def test_which_headers_tell_it(headers: str, names: set[str]) -> None:
    with gateway(f"{{limits: 1/1m, headers: {headers}}}") as at:
        assert set(limits_of(at.get("/"))) == names
        assert set(limits_of(at.get("/"))) == {*names, "Retry-After"}


@pytest.mark.parametrize(
    ("window", "name"),
    [
        ("90s", "90s"),
        ("120s", "2m"),
        ("1d", "1d"),
        ("500ms", "0.5s"),
        ("1000001s", "1000001s"),
        ("123457.25s", "123457.25s"),
    ],
)
def test_a_limit_is_called_by_its_window(window: str, name: str) -> None:
    with gateway(f"5/{window}") as at:
        assert at.get("/").headers["RateLimit"].startswith(f'"5/{name}";')


def test_what_a_service_says_of_its_own_limits_is_replaced_unless_nothing_is_told() -> None:
    own = {"RateLimit": "theirs", "X-RateLimit-Remaining": "7", "RateLimit-Reset": "1", "Retry-After": "5"}
    with gateway("5/1m", Reply(headers=own)) as at:
        headers = at.get("/").headers
        assert headers.all("ratelimit") == ['"5/1m";r=4;t=60']
        assert headers.all("x-ratelimit-remaining") == ["4"]
        assert "RateLimit-Reset" not in headers
        assert headers["Retry-After"] == "5"
    with gateway("{limits: 5/1m, headers: off}", Reply(headers=own)) as at:
        assert {name: at.get("/").headers[name] for name in own} == own


def test_of_several_policies_the_tightest_limit_is_told() -> None:
    text = """
services: {s: "http://s"}
policies: [{rate-limit: {limits: 5/1m, key: everyone}}]
routes:
  - {path: /a, service: s, policies: [{rate-limit: 3/1m, name: own}]}
  - {path: /b, service: s, policies: [{rate-limit: {limits: 9/1m, headers: off}, name: own}]}
  - {path: /c, service: s, policies: [{rate-limit: 2/1h}]}
"""
    with Gateway(text=text, services={"s": Reply()}) as at:
        at.clock.advance(3600 - at.clock.wall() % 3600)
        first = at.get("/a")
        assert limits_of(first) == {
            "RateLimit-Policy": '"5/1m";q=5;w=60, "3/1m";q=3;w=60',
            "RateLimit": '"3/1m";r=2;t=60',
            "X-RateLimit-Limit": "3",
            "X-RateLimit-Remaining": "2",
            "X-RateLimit-Reset": "60",
        }
        at.get("/a")
        assert at.get("/a", client="192.0.2.7").headers["RateLimit"] == '"5/1m";r=2;t=60'
        at.get("/a")
        refused = at.get("/a")
        assert (refused.status, refused.headers["RateLimit"]) == (429, '"3/1m";r=0;t=80')
        assert refused.headers["RateLimit-Policy"] == first.headers["RateLimit-Policy"]
        assert at.get("/b").status == 429  # the outer one has counted the refused one, too
        assert at.get("/b").headers["RateLimit-Policy"] == '"5/1m";q=5;w=60'
        assert at.get("/c").headers["RateLimit-Policy"] == '"2/1h";q=2;w=3600'  # it replaces the wider one


def test_routes_share_the_counts_of_a_policy_that_stands_around_them() -> None:
    text = """
services: {s: {url: "http://s", policies: [{rate-limit: 4/1m, name: of-service}]}}
policies: [{rate-limit: 6/1m}]
routes:
  - {path: /a, service: s}
  - {path: /b, service: s}
  - {path: /c, respond: c}
  - {path: /d, respond: d, policies: [{rate-limit: 6/1m}]}
"""
    with Gateway(text=text, services={"s": Reply()}) as at:
        assert [at.get(path).status for path in ("/a", "/b", "/c", "/a", "/c", "/b", "/a", "/c")] == [
            *[200] * 6, 429, 429
        ]  # fmt: skip
        assert [at.get("/d").status for _ in range(7)] == [200] * 6 + [429]
        assert at.get("/livez").status == 200


@pytest.mark.parametrize(
    ("key", "one", "other", "together"),
    [
        ("user", {"slots": {USER: ADA}}, {"slots": {USER: BOB}}, False),
        ("user", {"slots": {USER: ADA}}, {"slots": {USER: User("ada", kind="jwt")}}, False),
        (
            "user",
            {"slots": {USER: ADA}, "client": "192.0.2.1"},
            {"slots": {USER: User("ada", consumer="ada", kind="basic-auth")}, "client": "192.0.2.2"},
            True,
        ),
        ("user", {"client": "192.0.2.1"}, {"client": "192.0.2.2"}, False),
        ("user", {"client": "2001:db8::1"}, {"client": "2001:db8::2"}, True),
        ("user", {"client": "2001:db8::1"}, {"client": "2001:db8:0:1::1"}, False),
        ("address", {"slots": {USER: ADA}}, {"slots": {USER: BOB}}, True),
        ("everyone", {"client": "192.0.2.1"}, {"client": "192.0.2.2"}, True),
        ("\"headers['x-tenant']\"", {"headers": {"X-Tenant": "a"}}, {"headers": {"X-Tenant": "b"}}, False),
        ("\"headers['x-tenant']\"", {"headers": {"X-Tenant": "a"}}, {"headers": {}}, False),
        ("[user, route]", {"slots": {USER: ADA}}, {"slots": {USER: ADA}}, True),
        ("[user, \"headers['x']\"]", {"headers": {"X": "1"}}, {"headers": {"X": "2"}}, False),
    ],
)
def test_who_is_counted_together(key: str, one: dict[str, Any], other: dict[str, Any], together: bool) -> None:
    with gateway(f"{{limits: 4/1m, key: {key}}}") as at:
        assert passed(at, 3, **one) == 3
        assert passed(at, 9, **other) == (1 if together else 4)


def test_tiers_and_plans() -> None:
    settings = """{
      limits: 1/1h,
      tiers: [
        {when: "path == '/free'", limits: none},
        {when: "user.kind == 'key-auth'", limits: 3/1h},
        {when: "user != ''", limits: 2/1h}],
      plans: {gold: 5/1h, any: none}}"""
    with gateway(settings) as at:
        assert passed(at) == 1
        assert passed(at, slots={USER: BOB}) == 2
        assert passed(at, slots={USER: ADA}) == 3
        assert passed(at, slots={USER: User("eve", kind="jwt", claims={"plan": "silver"})}) == 2
        gold = User("eve", kind="jwt", claims={"plan": "gold"})
        assert passed(at, slots={USER: gold}) == 5
        assert passed(at, slots={USER: User("eve", kind="jwt", claims={"plan": "any"})}) == 20
        assert [at.get("/free").status for _ in range(9)] == [200] * 9
        assert not limits_of(at.get("/free"))
        assert at.get("/free", slots={USER: gold}).status == 429  # a plan goes ahead of tiers


def test_a_tier_has_counts_of_its_own() -> None:
    with gateway("{limits: 3/1m, tiers: [{when: \"headers['x'] != ''\", limits: 3/1m}]}") as at:
        assert passed(at) == 3
        assert passed(at, headers={"X": "y"}) == 3


def test_a_plan_is_what_the_expression_says() -> None:
    with gateway("{limits: 1/1m, plans: {big: 4/1m}, plan: \"headers['x-plan']\"}") as at:
        assert passed(at, headers={"X-Plan": "big"}) == 4
        assert passed(at, headers={"X-Plan": "bigger"}) == 1


def test_the_tiers_of_the_documentation() -> None:
    text = """
consumers: {app: {keys: app-has-a-long-key}, gold: {keys: gold-has-a-long-key, metadata: {plan: gold}}}
policies:
  - key-auth
  - anonymous
  - rate-limit:
      limits: 100/1h
      tiers:
        - {when: "user.kind == 'key-auth'", limits: 10000/1h}
        - {when: "user.kind != 'anonymous'", limits: 1000/1h}
      plans: {gold: 1000/1m}
routes: [{path: /**, respond: here}]
"""
    with Gateway(text=text) as at:
        for key, limit in (("app-has-a-long-key", "10000"), ("gold-has-a-long-key", "1000"), (None, "100")):
            answer = at.get("/", headers={} if key is None else {"X-API-Key": key})
            assert answer.headers["X-RateLimit-Limit"] == limit
        assert at.get("/", client="192.0.2.8").headers["X-RateLimit-Remaining"] == "99"  # guests are not all one


@pytest.mark.parametrize(
    ("cost", "headers", "passes"),
    [
        ("5", {}, 2),
        ("{before: 3}", {}, 3),
        ("\"headers['x-size']\"", {}, 10),
        ("\"headers['x-size']\"", {"X-Size": "5"}, 2),
        ("\"headers['x-size']\"", {"X-Size": "0"}, 20),
        ("\"headers['x-size']\"", {"X-Size": "-5"}, 10),
        ("\"headers['x-size']\"", {"X-Size": "1e3"}, 10),
        ("\"headers['x-size']\"", {"X-Size": "\u00b2"}, 10),
        ("{before: \"headers['x-size']\", most: 5}", {"X-Size": "9" * 5000}, 2),
        ("\"method == 'GET' ? '2' : '1'\"", {}, 5),
    ],
)
def test_what_a_request_costs(cost: str, headers: dict[str, str], passes: int) -> None:
    with gateway(f"{{limits: 10/1m, cost: {cost}}}") as at:
        assert passed(at, headers=headers) == passes


def test_what_never_fits_has_no_time_to_come_again() -> None:
    with gateway("{limits: 10/1m, cost: \"headers['x']\"}") as at:
        refused = at.get("/", headers={"X": "11"})
        assert refused.status == 429
        assert "Retry-After" not in refused.headers
        assert refused.headers["RateLimit"] == '"10/1m";r=10;t=60'
        assert at.get("/", headers={"X": "10"}).status == 200


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (["1"], 99),
        (["0"], 99),
        (["40"], 60),
        ([" 40\t"], 60),
        (["-40"], 99),
        (["40.5"], 99),
        (["+40"], 99),
        ([""], 99),
        (["9" * 4000], 50),
        (["51"], 50),
        (["\u0664\u0660".encode().decode("latin-1")], 99),
        (["30", "40"], 70),
        ([], 99),
    ],
)
def test_what_an_answer_says_of_its_cost(said: list[str], left: int) -> None:
    service = Reply(headers=[("X-Tokens-Used", each) for each in said])
    for strip in ("true", "false"):
        with gateway(f"{{limits: 100/1m, cost: {{header: X-Tokens-Used, most: 50, strip: {strip}}}}}", service) as at:
            answer = at.get("/")
            assert answer.headers["X-RateLimit-Remaining"] == f"{left}"
            assert ("X-Tokens-Used" in answer.headers) == (bool(said) and strip == "false")


def test_what_was_used_beyond_the_limit_has_to_come_back() -> None:
    service = Reply(headers={"X-Tokens-Used": "250"})
    with gateway(
        "{limits: {requests: 100, window: 1m, algorithm: gcra}, cost: {header: x-tokens-used}}", service
    ) as at:
        assert at.get("/").headers["RateLimit"] == '"100/1m";r=0;t=150'
        refused = at.get("/")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "91")
        at.clock.advance(90)
        assert at.get("/").status == 429
        at.clock.advance(0.7)
        assert at.get("/").status == 200


def test_requests_wait_for_their_turn() -> None:
    with gateway("{limits: {requests: 10, window: 1s, algorithm: gcra, burst: 5, delay: true}}") as at:

        async def main() -> list[tuple[int, float]]:
            began = at.clock()

            async def one() -> tuple[int, float]:
                answer = await at.ask("GET", "/")
                return answer.status, round(at.clock() - began, 3)

            return await asyncio.gather(*(one() for _ in range(7)))

        assert sorted(at.run(main)) == [(200, 0.0), (200, 0.1), (200, 0.2), (200, 0.3), (200, 0.4), (429, 0), (429, 0)]


def test_so_many_do_not_wait() -> None:
    with gateway("{limits: {requests: 10, window: 1s, algorithm: gcra, burst: 5, delay: 3}}") as at:
        began = at.clock()
        times = []
        for _ in range(5):
            assert at.get("/").status == 200
            times.append(round(at.clock() - began, 3))
        assert times[:4] == [0, 0, 0, 0]
        assert times[4] == 0.1


def test_nobody_waits_who_would_be_answered_too_late_or_has_left() -> None:
    settings = "{limits: {requests: 1, window: 10s, algorithm: gcra, burst: 4, delay: true}}"
    with gateway(settings) as at:
        assert at.get("/").status == 200

        async def leaving() -> Answer:
            return await at.ask("GET", "/", leaves_after=1)

        began = at.clock()
        assert at.run(leaving).status in (0, 499)
        assert at.clock() - began < 2
        assert len(at.services["s"].requests) == 1
    text = f"""
services: {{s: "http://s"}}
policies: [timeout: 5s, rate-limit: {settings}]
routes: [{{path: /**, service: s}}]
"""
    with Gateway(text=text, services={"s": Reply()}) as at:
        assert at.get("/").status == 200
        began = at.clock()
        refused = at.get("/")
        assert (refused.status, refused.problem, refused.headers["Retry-After"]) == (429, "rate-limited", "10")
        assert at.clock() == began
        at.clock.advance(10)  # the refused one has not counted, or nobody would ever pass who asks as often
        assert at.get("/").status == 200


def test_a_dry_run_refuses_nobody_and_says_so_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    service = Reply(headers={"RateLimit": "theirs"})
    with gateway("{limits: 2/1m, key: \"headers['x-key']\", dry_run: true}", service) as at:
        for _ in range(5):
            answer = at.get("/", headers={"X-Key": "sesame"}, slots={USER: ADA})
            assert answer.status == 200
            assert limits_of(answer) == {"RateLimit": "theirs"}
        assert at.get("/", headers={"X-Key": "other"}).status == 200
        said = [record.getMessage() for record in caplog.records if record.name.startswith("portico.route")]
        assert said == ["dry run: beyond 2/1m: user ada, client 127.0.0.1"]
        at.clock.advance(30)
        statuses(at, 5, headers={"X-Key": "sesame"})
        at.clock.advance(31)
        statuses(at, 5, headers={"X-Key": "sesame"})
    assert len([record for record in caplog.records if record.name.startswith("portico.route")]) == 2
    assert "sesame" not in caplog.text


def test_the_answer_is_as_the_file_says() -> None:
    with gateway("{limits: 1/1m, status: 503, message: Slow down}") as at:
        at.get("/")
        refused = at.get("/")
        assert (refused.status, refused.problem) == (503, "rate-limited")
        assert (refused.json()["title"], refused.json()["status"]) == ("Slow down", 503)
        assert "detail" not in refused.json()
        assert int(refused.headers["Retry-After"]) >= 1
    with gateway("1/1m", more="errors: simple") as at:
        at.get("/")
        assert at.get("/").json() == {"error": "Rate limit exceeded"}


class Broken:
    """A store that has no answer."""

    def take(self, key: bytes, limits: Limits, cost: int = 1) -> Verdict:
        raise StoreUnavailable("it is broken")

    def charge(self, key: bytes, limits: Limits, cost: int) -> Verdict:
        raise StoreUnavailable("it is broken")


def alone(store: Any = None, **settings: Any) -> tuple[RateLimitPolicy, dict[str, Any]]:
    """A policy by itself, and its counters."""
    policy = RateLimitPolicy(RateLimit.model_validate(settings))
    env = TestEnv()
    if store is not None:
        env.store = store
    counters: dict[str, Any] = {}
    make = env.counter
    env.counter = lambda name, **labels: counters.setdefault(labels["result"], make(name, **labels))  # type: ignore[method-assign]
    policy.setup(env)
    return policy, counters


async def asked(policy: RateLimitPolicy, count: int, *, costs: str = "") -> list[Response]:
    async def service(_: Request) -> Response:
        return Response(200, Headers([(b"X-Cost", costs.encode())] if costs else []))

    client = Client("192.0.2.1", 1, 80, "http")
    return [await policy.handle(Request("GET", "/", client=client), service) for _ in range(count)]


@pytest.mark.parametrize(
    ("on_failure", "expected"),
    [("allow", [200] * 4), ("deny", [503] * 4), ("local", [200, 200, 429, 429])],
)
def test_what_becomes_of_requests_while_the_store_has_no_answer(on_failure: str, expected: list[int]) -> None:
    async def main() -> None:
        store: Any = MemoryStore()
        store.volatile = Broken()
        policy, counters = alone(store, limits="2/1h", on_store_failure=on_failure, cost={"header": "X-Cost"})
        answers = await asked(policy, 4, costs="1")
        assert [answer.status for answer in answers] == expected
        known = on_failure == "local"
        assert all((b"ratelimit" in answer.headers) is known for answer in answers)
        assert counters["unchecked"].value == (0 if known else 4)
        if on_failure == "deny":
            problem = answers[0].problem_value
            assert problem is not None
            assert (problem.type, answers[0].headers.get(b"retry-after")) == ("store-unavailable", b"1")
            dry, _ = alone(store, limits="2/1h", on_store_failure="deny", dry_run=True)
            assert [answer.status for answer in await asked(dry, 3)] == [200] * 3

    asyncio.run(main())


def test_what_a_worker_counts_by_itself_is_in_one_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[MemorySpace] = []

    class Noted(MemorySpace):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    for module in ("portico.limiting.budgets", "portico.state.check"):
        monkeypatch.setattr(f"{module}.MemorySpace", Noted)
    text = """
policies: [{rate-limit: {limits: 5/1m, on_store_failure: local, plans: {a: 9/1m, b: 8/1m}}}]
routes:
  - {path: /a, respond: a, policies: [{rate-limit: {limits: 3/1m, on_store_failure: local}, name: own}]}
  - {path: /b, respond: b, policies: [{quota: {requests: 3/day, on_store_failure: local}}]}
"""
    with Gateway(text=text) as at:
        assert [at.get("/a").status for _ in range(4)] == [200, 200, 200, 429]
        assert len(made) == 1


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_each_store_counts_the_same(engine: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with ENGINES[engine](tmp_path) as made:
            policy, counters = alone(made.store, limits=[{"requests": 10, "window": "1d", "algorithm": "gcra"}])
            answers = await asyncio.gather(*(asked(policy, 1) for _ in range(25)))
            assert sorted(answer.status for (answer,) in answers) == [200] * 10 + [429] * 15
            assert {name: counter.value for name, counter in counters.items()} == {
                "allowed": 10, "limited": 15, "dry-run": 0, "unchecked": 0,
            }  # fmt: skip
            policy, _ = alone(made.store, limits="100/1d", cost={"header": "X-Cost"})
            told = [answer.headers.text(b"ratelimit") or "" for answer in await asked(policy, 4, costs="40")]
            assert [text.partition(";t=")[0] for text in told] == [
                '"100/1d";r=60', '"100/1d";r=20', '"100/1d";r=0', '"100/1d";r=0'
            ]  # fmt: skip

    run(main)


def test_too_many_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.limiting.gate.MOST_WAITING", 2)
    with gateway("{limits: {requests: 10, window: 1s, algorithm: gcra, burst: 9, delay: true}}") as at:

        async def main() -> list[Answer]:
            return await asyncio.gather(*(at.ask("GET", "/") for _ in range(5)))

        assert sorted(answer.status for answer in at.run(main)) == [200, 200, 200, 429, 429]
        at.clock.advance(2)
        assert at.get("/").status == 200


def test_in_the_stage_guard_wrong_passwords_are_counted() -> None:
    text = """
consumers: {ada: ada-has-a-long-key}
policies: [key-auth, {rate-limit: {limits: 3/1m, key: address}, stage: guard}]
routes: [{path: /**, respond: here}]
"""
    with Gateway(text=text) as at:
        assert [at.get("/", headers={"X-API-Key": "x"}).status for _ in range(5)] == [401, 401, 401, 429, 429]
        assert not at.findings


REMARKS = [
    ("{rate-limit: 5/1m, stage: guard}", "nobody is known yet in this stage, so the key user counts addresses"),
    ("{rate-limit: {limits: 5/1m, key: \"user.claims['org']\"}, stage: guard}", "nobody is known yet"),
    (
        "{rate-limit: {limits: 5/1m, key: address, tiers: [{when: user != '', limits: 9/1m}]}, stage: guard}",
        "never finds anyone",
    ),
    ("{rate-limit: {limits: 5/1m, key: address, plans: {a: 9/1m}}, stage: guard}", "never finds anyone"),
    ("{rate-limit: [100/1m, 50/1h]}", "the limit 100/1m means nothing beside 50/1h, which is smaller"),
    ("{rate-limit: {limits: none, plans: {a: [5/1m, 5/1h]}}}", "the limit 5/1m means nothing beside 5/1h"),
    ("{rate-limit: [100/1m, 500/1h]}", ""),
    ("{rate-limit: {limits: 5/1m, key: [address, \"headers['x-user']\"]}, stage: guard}", ""),
]


@pytest.mark.parametrize(("policy", "message"), REMARKS)
def test_what_check_has_to_say(policy: str, message: str) -> None:
    with Gateway(text=f"policies: [{policy}]\nroutes: [{{path: /**, respond: here}}]") as at:
        said = [str(finding) for finding in at.findings]
        assert len(said) == bool(message), said
        assert message in "".join(said)


GCRA = {"requests": 10, "window": "1m", "algorithm": "gcra"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "Field required"),
    ({"limits": []}, "at least 1"),
    ({"limits": None}, "valid dictionary"),
    ({"limits": "none"}, "this limits nothing"),
    ({"limits": "100"}, "'100' is not a limit"),
    ({"limits": 100}, "in which time 100 requests are the limit is not said"),
    ({"limits": "100/fortnight"}, "is not a limit"),
    ({"limits": "0/1m"}, "greater than or equal to 1"),
    ({"limits": "5/0s"}, "greater than or equal to"),
    ({"limits": "5/400d"}, "less than or equal to"),
    ({"limits": "9999999999/1s"}, "less than or equal to"),
    ({"limits": [{"requests": 5, "window": "1m", "burst": 9}]}, "burst has no meaning with sliding"),
    ({"limits": [{"requests": 5, "window": "1m", "delay": True}]}, "delay has no meaning with sliding"),
    ({"limits": [{**GCRA, "burst": 100, "delay": True}]}, "would wait"),
    ({"limits": [{**GCRA, "name": 'a"b'}]}, "match pattern"),
    ({"limits": "5/1m", "cost": 6}, "a request that costs 6 never fits into 5/1m"),
    ({"limits": "999999/1m", "cost": 200_000}, "200000 is more than a request may cost at most"),
    ({"limits": "5/1m", "cost": {"before": 3, "most": 2}}, "3 is more than a request may cost at most"),
    ({"limits": "5/1m", "cost": -1}, "greater than or equal to 0"),
    ({"limits": "5/1m", "cost": "user.roles"}, "a text is wanted here"),
    ({"limits": "5/1m", "cost": {"strip": True, "header": None}}, "no header to strip"),
    ({"limits": "5/1m", "key": "usr"}, "there is no 'usr'"),
    ({"limits": "5/1m", "key": []}, "at least 1"),
    ({"limits": "5/1m", "plan": "user ="}, "column"),
    ({"limits": "5/1m", "tiers": [{"when": "path", "limits": "1/s"}]}, "a condition is true or false"),
    ({"limits": "5/1m", "tiers": [{"when": "path == '/'"}]}, "Field required"),
    ({"limits": "5/1m", "status": 200}, "greater than or equal to 400"),
    ({"limits": "5/1m", "headers": ["kong"]}, "Input should be"),
    ({"limits": "5/1m", "on_store_failure": "panic"}, "Input should be"),
    ({"limits": "5/1m", "burst": 5}, "Extra inputs"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RateLimit.model_validate(settings)
    assert any(message in error["msg"] for error in caught.value.errors()), caught.value


@pytest.mark.parametrize(
    "settings",
    [
        "{limits: 1/s, key: \"captures['id']\"}",
        "{limits: 1/s, tiers: [{when: \"captures['id'] == 'a'\", limits: none}]}",
    ],
)
def test_a_route_has_the_captures_that_are_spoken_of(settings: str) -> None:
    for path, good in (("/a/{id}", True), ("/a/*", False)):
        text = f"routes: [{{path: '{path}', respond: here, policies: [{{rate-limit: {settings}}}]}}]"
        if good:
            Gateway(text=text).__enter__().__exit__()
            continue
        with pytest.raises(ConfigError, match="there is no capture 'id'"):
            Gateway(text=text).__enter__()
    with Gateway(text=f"policies: [{{rate-limit: {settings}}}]\nroutes: [{{path: /**, respond: here}}]") as at:
        assert at.get("/").status == 200
