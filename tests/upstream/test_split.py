from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from portico.http.message import Request, Response
from portico.upstream.split import Part, Split, Why
from portico.upstream.target import Target
from tests.harness.loop import run
from tests.harness.upstream import ScriptedPool


class To:
    """A service that says its name."""

    def __init__(self, name: str, *targets: Target) -> None:
        self.name = name
        self.targets = targets

    async def handle(self, request: Request) -> Response:
        return Response(200, None, self.name.encode())


def by_user(request: Request) -> str | None:
    return request.headers.text(b"user")


def request_of(**headers: str) -> Request:
    request = Request("GET", "/")
    for name, value in headers.items():
        request.headers.add(name.encode(), value.encode())
    return request


def split_of(
    *weights: int,
    key: Callable[[Request], str | None] | None = None,
    chance: Callable[[], float] | None = None,
    whens: Sequence[Callable[[Request], bool] | None] = (),
) -> Split:
    parts = [
        Part(To(f"v{number}"), weight, whens[number] if number < len(whens) else None)
        for number, weight in enumerate(weights)
    ]
    return Split("orders", parts, key, chance or random.Random(7).random)


async def ask(split: Split, request: Request) -> str:
    return ((await split.handle(request)).body.whole or b"").decode()


def asked(split: Split, requests: Sequence[Request]) -> list[str]:
    async def main() -> list[str]:
        return [await ask(split, request) for request in requests]

    return run(main)


def test_requests_are_divided_by_weight() -> None:
    seen = Counter(asked(split_of(90, 0, 9, 1), [Request("GET", "/")] * 20_000))
    assert set(seen) == {"v0", "v2", "v3"}
    assert abs(seen["v0"] - 18_000) < 300
    assert abs(seen["v2"] - 1_800) < 200
    assert abs(seen["v3"] - 200) < 60


@pytest.mark.parametrize("chance", [0.0, 0.5, 1 - 2**-53])
def test_every_lot_is_someones(chance: float) -> None:
    for total in (1, 2, 3, 7, 100, 10**9 + 7):
        assert asked(split_of(total, chance=lambda: chance), [Request("GET", "/")]) == ["v0"]
        expected = "v0" if chance == 0.0 else "v1"
        assert asked(split_of(1, total, chance=lambda: chance), [Request("GET", "/")]) == [expected]


def test_keys_are_divided_by_weight_and_stay_where_they_are() -> None:
    requests = [request_of(user=f"user-{number}") for number in range(10_000)]
    split = split_of(95, 5, key=by_user)
    first = asked(split, requests)
    assert abs(Counter(first)["v1"] - 500) < 100
    assert asked(split, requests) == first
    assert asked(split_of(950, 50, key=by_user, chance=lambda: 0.99), requests) == first


def test_few_keys_move_when_the_weights_change() -> None:
    requests = [request_of(user=f"user-{number}") for number in range(10_000)]
    before = asked(split_of(95, 5, key=by_user), requests)
    after = asked(split_of(90, 10, key=by_user), requests)
    moved = Counter((was, now) for was, now in zip(before, after, strict=True) if was != now)
    assert list(moved) == [("v0", "v1")]  # nobody goes back
    assert abs(moved["v0", "v1"] - 500) < 100


def test_where_a_key_belongs_is_the_same_for_ever() -> None:
    keys = ["a", "b", "é", "\udcff", "user-1", "user-2"]
    split = split_of(*[1] * 10, key=lambda request: request.path)
    assert asked(split, [Request("GET", key) for key in keys]) == ["v2", "v5", "v7", "v6", "v6", "v2"]


def test_a_request_without_a_key_is_drawn_by_lot() -> None:
    split = split_of(1, 1, key=by_user)
    assert set(asked(split, [Request("GET", "/")] * 50)) == {"v0", "v1"}


def test_the_first_condition_that_holds_decides_whatever_the_weights() -> None:
    whens = [None, lambda request: b"canary" in request.headers, lambda request: b"user" in request.headers]
    split = split_of(1, 0, 0, whens=whens, key=by_user)
    requests = [request_of(canary="1", user="a"), request_of(user="a"), request_of()]
    assert asked(split, requests) == ["v1", "v2", "v0"]


def test_whoever_looks_is_told_of_each_choice() -> None:
    told: list[tuple[str, Why]] = []
    split = split_of(1, 1, whens=[lambda request: b"canary" in request.headers], key=by_user, chance=lambda: 0.9)
    split.on_choice = lambda _, part, why: told.append((part.to.name, why))
    asked(split, [request_of(canary="1"), request_of(user="user-1"), request_of()])
    assert told == [("v0", Why.CONDITION), ("v1", Why.KEY), ("v1", Why.LOT)]


def test_its_targets_are_those_of_its_parts_each_once() -> None:
    one, two, three = (Target("http", address, address.encode(), "", ScriptedPool(address, [])) for address in "abc")
    inner = Split("inner", [Part(To("x", one, two), 1), Part(To("y", two), 0)])
    assert Split("outer", [Part(inner, 1), Part(To("z", three, one), 1)]).targets == (one, two, three)
