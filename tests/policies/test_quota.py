from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from portico.http.headers import Headers
from portico.plugin import USER, Client, Request, Response, User
from portico.policies.quota import Quota, QuotaPolicy
from portico.testing import Gateway, Reply
from tests.harness.loop import run
from tests.harness.policy import TestEnv
from tests.state.stores import ENGINES

ADA = User("ada", consumer="ada", kind="key-auth", claims={"plan": "gold"})


def seconds_to(now: float, unit: str) -> float:
    """Return the seconds to the beginning of the next period, in UTC."""
    today = datetime.fromtimestamp(now, UTC)
    day = today.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    if unit == "day":
        return day + 86400 - now
    if unit == "week":
        return day + 86400 * (7 - today.weekday()) - now
    year, month = (today.year + 1, 1) if today.month == 12 else (today.year, today.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp() - now


@contextmanager
def gateway(settings: str, service: Any = None) -> Iterator[Gateway]:
    """A gateway with one quota, at noon of the second day of a month."""
    text = f"""
services: {{s: "http://s"}}
policies: [{{quota: {settings}}}]
routes: [{{path: /a, service: s}}, {{path: /b, service: s}}]
"""
    with Gateway(text=text, services={"s": Reply() if service is None else service}) as made:
        made.clock.advance(seconds_to(made.clock.wall(), "month") + 1.5 * 86400)
        yield made


def passed(at: Gateway, count: int = 10, path: str = "/a", **options: Any) -> int:
    found = [at.get(path, **options).status for _ in range(count)]
    good = found.count(200)
    assert found == [200] * good + [429] * (count - good)
    return good


@pytest.mark.parametrize(
    ("settings", "unit"),
    [
        ("3/month", "month"),
        ("3/day", "day"),
        ("3 / week", "week"),
        ("{requests: 3, per: month}", "month"),
        ("{requests: 3/week}", "week"),
        ("{requests: 3/day, timezone: UTC}", "day"),
    ],
)
def test_a_quota_begins_anew_with_each_period(settings: str, unit: str) -> None:
    with gateway(settings) as at:
        assert passed(at) == 3
        assert passed(at, path="/b") == 0
        assert passed(at, client="192.0.2.9") == 3
        left = seconds_to(at.clock.wall(), unit)
        refused = at.get("/a")
        assert (refused.status, refused.problem) == (429, "quota-exceeded")
        assert refused.json()["title"] == "Quota exceeded"
        assert refused.json()["violated-policies"] == [f"3/{unit}"]
        assert abs(int(refused.headers["Retry-After"]) - left) <= 1
        at.clock.advance(left - 1)
        assert passed(at) == 0
        at.clock.advance(1.001)
        assert passed(at) == 3


def test_what_clients_are_told() -> None:
    with gateway("{requests: 5, per: day}") as at:
        told = at.get("/a").headers
        assert told["RateLimit-Policy"] == '"5/day";q=5;w=86400'
        assert told["RateLimit"] == '"5/day";r=4;t=43200'
        assert (told["X-RateLimit-Limit"], told["X-RateLimit-Remaining"]) == ("5", "4")
        at.clock.advance(600)
        assert at.get("/a").headers["RateLimit"] == '"5/day";r=3;t=42600'
    with gateway("5/month") as at:
        assert at.get("/a").headers["RateLimit-Policy"] == '"5/month";q=5'


def test_beside_a_rate_limit_the_tighter_one_is_told() -> None:
    text = """
policies: [rate-limit: 3/1m, quota: 4/month]
routes: [{path: /**, respond: here}]
"""
    with Gateway(text=text) as at:
        at.clock.advance(60 - at.clock.wall() % 60)
        answer = at.get("/")
        assert answer.headers["RateLimit-Policy"] == '"3/1m";q=3;w=60, "4/month";q=4'
        assert answer.headers["RateLimit"] == '"3/1m";r=2;t=60'
        at.get("/")
        at.clock.advance(120)
        assert at.get("/").headers["RateLimit"].startswith('"4/month";r=1;t=')
        at.get("/")
        assert at.get("/").problem == "quota-exceeded"
        assert at.get("/").problem == "rate-limited"  # what the quota refuses has been counted by the limit


def test_an_offset_and_a_time_zone() -> None:
    with gateway("{requests: 1/day, offset: 6h}") as at:
        at.clock.advance(17 * 3600)  # it is five in the morning
        assert passed(at) == 1
        assert at.get("/a").headers["Retry-After"] == "3600"
        at.clock.advance(3600)
        assert passed(at) == 1
    with gateway("{requests: 1/day, timezone: Asia/Kathmandu}") as at:
        assert at.get("/a").headers["X-RateLimit-Reset"] == str(12 * 3600 - 20700)


def test_plans_share_what_was_used() -> None:
    settings = "{requests: 2, per: month, plans: {gold: 5, all: none}}"
    with gateway(settings) as at:
        silver = User("ada", consumer="ada", kind="key-auth", claims={"plan": "silver"})
        unlimited = User("ada", consumer="ada", kind="key-auth", claims={"plan": "all"})
        assert passed(at, slots={USER: silver}) == 2
        assert passed(at, slots={USER: ADA}) == 3
        assert passed(at, slots={USER: unlimited}) == 10
        assert passed(at, slots={USER: silver}) == 0
    with gateway("{requests: none, per: month, plans: {free: 1}}") as at:
        assert passed(at) == 10
        assert passed(at, slots={USER: User("eve", claims={"plan": "free"})}) == 1


def test_all_credentials_of_a_consumer_count_together() -> None:
    text = """
consumers: {ada: {keys: [ada-has-a-long-key, and-another-long-key]}}
policies: [key-auth, quota: 3/month]
routes: [{path: /**, respond: here}]
"""
    with Gateway(text=text) as at:
        keys = ["ada-has-a-long-key", "and-another-long-key"] * 2
        assert [at.get("/", headers={"X-API-Key": key}).status for key in keys] == [200, 200, 200, 429]


def test_costs_that_are_learnt_count_at_once() -> None:
    with gateway("{requests: 100/month, cost: {header: X-Tokens}}", Reply(headers={"X-Tokens": "70"})) as at:
        assert at.get("/a").headers["X-RateLimit-Remaining"] == "30"
        assert at.get("/a").headers["X-RateLimit-Remaining"] == "0"
        assert at.get("/a").status == 429


def test_a_dry_run_refuses_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with gateway("{requests: 1/month, dry_run: true}") as at:
        assert passed(at) == 10
    assert caplog.text.count("dry run: beyond 1/month: client 127.0.0.1") == 1


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_each_store_counts_the_same(engine: str, tmp_path: Path) -> None:
    async def service(_: Request) -> Response:
        return Response(200, Headers([(b"X-Cost", b"3")]))

    async def main() -> None:
        async with ENGINES[engine](tmp_path) as made:
            for settings, amount in (({}, 400), ({"exact": True}, 40), ({"cost": {"header": "X-Cost"}}, 400)):
                env = TestEnv()
                env.store = made.store  # type: ignore[assignment]
                env.place = f"global:{settings}"
                tasks: list[asyncio.Task[None]] = []
                env.spawn = lambda work, _, tasks=tasks: tasks.append(asyncio.create_task(work))  # type: ignore[method-assign, misc]  # noqa: TID251
                policy = QuotaPolicy(
                    Quota.model_validate({"requests": f"{amount}/month", "key": "everyone", **settings})
                )
                policy.setup(env)
                requests = [Request("GET", "/", client=Client("192.0.2.1", 1, 80, "http")) for _ in range(amount + 50)]
                if "cost" in settings:
                    answers = [await policy.handle(request, service) for request in requests[:150]]
                    assert [answer.status for answer in answers] == [200] * 134 + [429] * 16
                else:
                    answers = await asyncio.gather(*(policy.handle(request, service) for request in requests))
                    assert sorted(answer.status for answer in answers) == [200] * amount + [429] * 50
                policy.close()
                for task in tasks:
                    task.cancel()

    run(main)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "Field required"),
    ({"requests": 5}, "Field required"),
    ({"requests": "5/hour"}, "'5/hour' is not a quota"),
    ({"requests": "5"}, "'5' is not a quota"),
    ({"requests": "5/day", "per": "month"}, "'5/day' is not a quota"),
    ({"requests": 0, "per": "day"}, "greater than or equal to 1"),
    ({"requests": None, "per": "day"}, "valid integer"),
    ({"requests": "none", "per": "day"}, "this limits nothing"),
    ({"requests": "5/day", "plans": {"a": 0}}, "greater than or equal to 1"),
    ({"requests": "5/day", "timezone": "Europe/Atlantis"}, "there is no time zone 'Europe/Atlantis'"),
    ({"requests": "5/day", "timezone": "../etc/passwd"}, "there is no time zone"),
    ({"requests": "5/day", "timezone": ""}, "there is no time zone"),
    ({"requests": "5/day", "offset": "24h"}, "by this offset a day would begin in the next one"),
    ({"requests": "5/month", "offset": "28d"}, "by this offset a month"),
    ({"requests": "5/month", "cost": 6}, "never fits into 5"),
    ({"requests": "5/month", "stage": "guard"}, "Extra inputs"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Quota.model_validate(settings)
    assert any(message in error["msg"] for error in caught.value.errors()), caught.value
