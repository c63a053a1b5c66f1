from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from portico.http.duplex import Duplex
from portico.plugin import (
    USER,
    Body,
    BodyTruncated,
    ConfigError,
    Exchange,
    Outcome,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Stage,
    StoreUnavailable,
    User,
)
from portico.policies.concurrency_limit import ConcurrencyLimit, ConcurrencyLimitPolicy
from portico.state.memory import MemorySpace
from portico.testing import Answer, Cut, Gateway, Refuse, Reply, ServiceRequest, Silence
from tests.harness.policy import Pieces, TestEnv, answering, request, response, rest

COUNTER = "portico_concurrency_limit_requests_total"


def file(policy: str, more: str = "", route: str = "r") -> str:
    return f"""
services: {{s: {{url: "http://s", timeout: {{first_byte: 10s}}}}}}
{more}
routes: [{{name: {route}, path: /**, service: s, policies: [{policy}]}}]
"""


async def slowly(asked: ServiceRequest) -> Reply:
    """Take a second for each request."""
    await asyncio.sleep(1.0)
    return Reply(200, body=asked.target)


def gateway_of(policy: str, more: str = "", plays: Any = slowly) -> Gateway:
    return Gateway(text=file(policy, more), services={"s": plays})


def statuses(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers]


def at_once(gateway: Gateway, count: int, **options: Any) -> list[Answer]:
    """Send some requests at once, and return what each was answered."""

    async def main() -> list[Answer]:
        return list(await asyncio.gather(*(gateway.ask("GET", f"/{number}", **options) for number in range(count))))

    return gateway.run(main)


def counted(gateway: Gateway, policy: str = "concurrency-limit") -> dict[str, int]:
    """Return what was counted, without what was not."""
    found = {}
    for name, value in gateway.counters.items():
        if name.startswith(f'{COUNTER}{{policy="{policy}"') and value:
            found[name.rpartition('result="')[2].rstrip('"}')] = value
    return found


def test_so_many_are_under_way_and_no_more() -> None:
    with gateway_of("concurrency-limit: 3") as gateway:
        answers = at_once(gateway, 8)
        assert statuses(answers) == [200] * 3 + [429] * 5
        assert len(gateway.services["s"].requests) == 3
        refused = answers[-1]
        assert refused.problem == "too-many-concurrent-requests"
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["title"] == "Too many concurrent requests"
        assert statuses(at_once(gateway, 4)) == [200] * 3 + [429]
        assert counted(gateway) == {"allowed": 6, "limited": 6}


@pytest.mark.parametrize(
    ("key", "same"),
    [
        ("user", False),
        ("address", True),
        ("everyone", True),
        ("\"headers['x-tenant']\"", False),
        ("[user, address]", False),
    ],
)
def test_each_caller_has_their_own(key: str, same: bool) -> None:
    with gateway_of(f"concurrency-limit: {{requests: 1, key: {key}}}") as gateway:

        async def main() -> list[int]:
            one = gateway.ask("GET", "/", slots={USER: User("ada")}, headers={"X-Tenant": "a"})
            other = gateway.ask("GET", "/", slots={USER: User("bob")}, headers={"X-Tenant": "b"})
            again = gateway.ask("GET", "/", slots={USER: User("ada")}, headers={"X-Tenant": "a"})
            return [each.status for each in await asyncio.gather(one, other, again)]

        assert gateway.run(main) == [200, 429 if same else 200, 429]


def test_a_plan_says_how_many() -> None:
    policy = "concurrency-limit: {requests: 1, plans: {gold: 3, staff: none}}"
    with gateway_of(policy) as gateway:

        async def main() -> dict[str, list[int]]:
            users = {name: User(name, claims={"plan": name}) for name in ("gold", "staff", "tin")}
            asked = {
                name: [gateway.ask("GET", "/", slots={USER: user}) for _ in range(5)] for name, user in users.items()
            }
            answers = iter(await asyncio.gather(*(each for some in asked.values() for each in some)))
            return {name: [next(answers).status for _ in range(5)] for name in users}

        assert gateway.run(main) == {
            "gold": [200] * 3 + [429] * 2,
            "staff": [200] * 5,
            "tin": [200] + [429] * 4,
        }
        assert counted(gateway) == {"allowed": 4, "limited": 6}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{requests: 1}, stage: guard", "nobody is known yet in this stage, so the key user counts addresses"),
        ("{requests: 1, key: address}, stage: guard", None),
        ("{requests: 1}", None),
        (
            "{requests: 1, key: address, plans: {gold: 2}}, stage: guard",
            """nobody is known yet in this stage, so "user.claims['plan']" never finds anyone""",
        ),
    ],
)
def test_what_is_odd_about_a_stage_is_said(settings: str, message: str | None) -> None:
    with gateway_of(f"{{concurrency-limit: {settings}}}") as gateway:
        assert [finding.message for finding in gateway.findings] == ([message] if message else [])


def test_routes_around_which_one_line_stands_count_together_and_others_do_not() -> None:
    text = """
services: {s: {url: "http://s"}}
policies: [concurrency-limit: {requests: 2, key: everyone}]
routes:
  - {path: /a, service: s}
  - {path: /b, service: s}
  - {path: /c, service: s, policies: [concurrency-limit: {requests: 2, key: everyone}]}
"""
    with Gateway(text=text, services={"s": slowly}) as gateway:

        async def main() -> list[int]:
            asked = [gateway.ask("GET", path) for path in ("/a", "/b", "/a", "/c", "/b", "/c", "/c", "/livez")]
            return [each.status for each in await asyncio.gather(*asked)]

        assert gateway.run(main) == [200, 200, 429, 200, 429, 200, 429, 200]


async def in_pieces() -> AsyncIterator[bytes]:
    for _ in range(3):
        await asyncio.sleep(0.5)
        yield b"piece"


async def breaking() -> AsyncIterator[bytes]:
    yield b"piece"
    await asyncio.sleep(0.5)
    raise Cut


@pytest.mark.parametrize(
    ("plays", "status"),
    [
        (slowly, 200),
        (lambda _: Reply(200, body=in_pieces()), 200),
        (lambda _: Reply(200, body=breaking()), 200),
        (Refuse, 502),
        (Cut, 502),
        (Silence, 504),
    ],
)
def test_a_request_is_over_however_it_ends(plays: Any, status: int) -> None:
    with gateway_of("concurrency-limit: 1", plays=plays) as gateway:
        for _ in range(3):
            assert gateway.get("/").status == status
            assert gateway.get("/", leaves_after=0.3).status in (0, status)
        if plays is not Refuse and plays is not Cut:
            assert statuses(at_once(gateway, 2)) == [status, 429]
        assert gateway.get("/").status == status


class Refuses(Policy[PolicyConfig], name="refuses", stages=(Stage.TRANSFORM,)):
    """Lets nobody through."""

    def request(self, request: Request) -> Response:
        return Response.problem(403, "no")


class Raises(Policy[PolicyConfig], name="raises", stages=(Stage.TRANSFORM,)):
    """Has a bug."""

    def request(self, request: Request) -> Response:
        raise ZeroDivisionError


@pytest.mark.parametrize(("further_in", "status"), [(Refuses, 403), (Raises, 500)])
def test_what_is_refused_or_fails_further_in_is_over_too(further_in: type[Policy[PolicyConfig]], status: int) -> None:
    limit = ConcurrencyLimitPolicy(ConcurrencyLimit(requests=1))
    with Gateway(policies=[limit, further_in(PolicyConfig())]) as gateway:
        assert [gateway.get("/").status for _ in range(3)] == [status] * 3


def test_an_answer_that_still_comes_is_under_way() -> None:
    with gateway_of("concurrency-limit: 1", plays=lambda _: Reply(200, body=in_pieces())) as gateway:

        async def main() -> list[int]:
            first = asyncio.ensure_future(gateway.ask("GET", "/"))  # noqa: TID251
            found = []
            for _ in range(2):
                await asyncio.sleep(0.6)
                found.append((await gateway.ask("GET", "/")).status)
            found.append((await first).status)
            found.append((await gateway.ask("GET", "/")).status)
            return found

        assert gateway.run(main) == [429, 429, 200, 200]


def test_those_beyond_may_wait_for_their_turn() -> None:
    with gateway_of("concurrency-limit: {requests: 2, wait: 1500ms, queue: 3}") as gateway:
        answers = at_once(gateway, 7)
        assert statuses(answers) == [200] * 4 + [429] * 3  # one waits in vain, and two may not even wait
        assert [answer.text for answer in answers[:4]] == ["/0", "/1", "/2", "/3"]
        assert statuses(at_once(gateway, 2)) == [200] * 2


def test_nobody_waits_beyond_the_time_that_a_request_has() -> None:
    with gateway_of("timeout: 500ms, concurrency-limit: {requests: 1, wait: 30s}", plays=Silence) as gateway:
        began = gateway.clock()
        assert statuses(at_once(gateway, 2)) == [504, 504]
        assert len(gateway.services["s"].requests) == 1
        assert gateway.clock() - began == pytest.approx(0.5, abs=0.01)


def test_who_leaves_while_waiting_takes_no_place() -> None:
    with gateway_of("concurrency-limit: {requests: 1, wait: 5s}") as gateway:

        async def main() -> list[int]:
            asked = [gateway.ask("GET", "/"), gateway.ask("GET", "/", leaves_after=0.5), gateway.ask("GET", "/")]
            return [each.status for each in await asyncio.gather(*asked)]

        assert gateway.run(main) == [200, 0, 200]
        assert len(gateway.services["s"].requests) == 2


def test_another_status() -> None:
    with gateway_of("concurrency-limit: {requests: 1, status: 503}") as gateway:
        answers = at_once(gateway, 2)
        assert statuses(answers) == [200, 503]
        assert answers[1].problem == "too-many-concurrent-requests"
        assert answers[1].json()["status"] == 503


def test_a_dry_run_refuses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "portico.route")
    with gateway_of("concurrency-limit: {requests: 1, wait: 30s, dry_run: true}") as gateway:
        assert statuses(at_once(gateway, 5)) == [200] * 5
        assert counted(gateway) == {"allowed": 1, "dry-run": 4}
        gateway.clock.advance(60)
        assert statuses(at_once(gateway, 2)) == [200] * 2
    said = [record.message for record in caplog.records if record.name == "portico.route.r"]
    assert said == ["dry run: more than 1 requests are under way"] * 2


@pytest.mark.parametrize(
    ("on_failure", "expected", "results"),
    [
        ("allow", [200] * 4, {"unchecked": 4}),
        ("deny", [503] * 4, {"unchecked": 4}),
        ("local", [200] * 2 + [429] * 2, {"limited": 2, "unchecked": 2}),
    ],
)
def test_without_a_store(
    on_failure: str, expected: list[int], results: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise StoreUnavailable("it is down")

    with gateway_of(f"concurrency-limit: {{requests: 2, on_store_failure: {on_failure}}}") as gateway:
        with monkeypatch.context() as patch:
            patch.setattr(MemorySpace, "hold", down)
            answers = at_once(gateway, 4)
        assert statuses(answers) == expected
        assert counted(gateway) == results
        if on_failure == "deny":
            assert answers[0].problem == "store-unavailable"
            assert answers[0].headers["retry-after"] == "1"
        assert statuses(at_once(gateway, 3)) == [200, 200, 429]


def test_a_dry_run_without_a_store_does_not_say_that_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*_: object) -> None:
        raise StoreUnavailable("it is down")

    with gateway_of("concurrency-limit: {requests: 2, on_store_failure: deny, dry_run: true}") as gateway:
        monkeypatch.setattr(MemorySpace, "hold", down)
        assert statuses(at_once(gateway, 2)) == [200, 200]
        assert counted(gateway) == {"unchecked": 2}
    assert "under way" not in caplog.text


def alone(requests: int = 1) -> ConcurrencyLimitPolicy:
    """Return a policy without a gateway around it."""
    policy = ConcurrencyLimitPolicy(ConcurrencyLimit(requests=requests))
    env = TestEnv()
    env.spawn = lambda work, name: work.close()  # type: ignore[method-assign]
    policy.setup(env)
    return policy


async def status_of(policy: ConcurrencyLimitPolicy) -> int:
    return (await policy.handle(request(), answering(response()))).status


def test_a_request_that_no_client_waits_for_ends_with_its_answer() -> None:
    async def main() -> None:
        policy = alone()
        for _ in range(2):
            assert await status_of(policy) == 200  # an answer in memory is over at once
        answer = await policy.handle(request(), answering(response(body=streamed(b"a", b"b"))))
        assert await status_of(policy) == 429
        assert await rest(answer.body) == b"ab"
        assert await status_of(policy) == 200
        answer = await policy.handle(request(), answering(response(body=streamed(b"a", b"b"))))
        answer.body.close()
        answer.body.close()
        assert await status_of(policy) == 200
        answer = await policy.handle(request(), answering(response(body=streamed(b"a", BodyTruncated("cut")))))
        with pytest.raises(BodyTruncated):
            await rest(answer.body)
        assert await status_of(policy) == 200
        assert await status_of(policy) == 200

    asyncio.run(main())


def test_what_is_raised_or_cancelled_without_a_client_is_over() -> None:
    async def main() -> None:
        policy = alone()

        async def waits(_: Request) -> Response:
            await asyncio.Event().wait()
            raise AssertionError

        task = asyncio.ensure_future(policy.handle(request(), waits))  # noqa: TID251
        await asyncio.sleep(0)
        assert await status_of(policy) == 429
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await status_of(policy) == 200

    asyncio.run(main())


def test_an_exchange_that_is_over_already_takes_no_place() -> None:
    async def main() -> None:
        policy = alone()
        asked = request()
        asked.exchange = Exchange(0.0)
        asked.exchange.end(Outcome.CLIENT_LEFT, 0.0)
        for _ in range(2):
            assert (await policy.handle(asked, answering(response()))).status == 200

    asyncio.run(main())


@pytest.mark.parametrize("upgrades", [True, False])
def test_an_upgraded_connection_counts_while_it_is_open_or_not_at_all(upgrades: bool) -> None:
    async def main() -> None:
        policy = alone()
        policy.config = ConcurrencyLimit(requests=1, upgrades=upgrades)
        asked, answer = request(), response(101)
        asked.exchange, answer.duplex = Exchange(0.0), Duplex()
        await policy.handle(asked, answering(answer))
        assert await status_of(policy) == (429 if upgrades else 200)
        asked.exchange.end(Outcome.COMPLETE, 0.0)
        assert await status_of(policy) == 200

    asyncio.run(main())


def streamed(*pieces: bytes | Exception) -> Body:
    return Body.stream(Pieces(pieces), None)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"requests": 0},
        {"requests": 1, "key": "nobody"},
        {"requests": 1, "key": []},
        {"requests": 1, "wait": "2m"},
        {"requests": 1, "plans": {"gold": 0}},
        {"requests": 1, "plan": "nonsense("},
        {"requests": 1, "queue": 0},
        {"requests": 1, "status": 500},
        {"requests": 1, "on_store_failure": "shrug"},
    ],
)
def test_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ConcurrencyLimit.model_validate(settings)


def test_a_key_of_captures_that_there_are_none_of_is_told_at_load() -> None:
    with pytest.raises(ConfigError, match="no capture 'tenant'"):
        gateway_of("concurrency-limit: {requests: 1, key: \"captures['tenant']\"}").__enter__()
