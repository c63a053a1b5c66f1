"""Targets without sockets, and what is counted of those that a balancer picks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from portico.config.balance import Balance
from portico.http.message import Request
from portico.net.client import ClientStream, Connections
from portico.upstream.balance import Balancer, Make, balancing
from portico.upstream.target import Target

GET = Request("GET", "/")


class Busy(Connections):
    """A pool with as many requests under way as a test says."""

    def __init__(self) -> None:
        self.under_way = 0

    @property
    def busy(self) -> int:
        return self.under_way

    def take(self) -> ClientStream | None:
        raise AssertionError

    async def connect(self, timeout: float, deadline: float | None) -> ClientStream:
        raise AssertionError

    async def probe(self) -> None:
        raise AssertionError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def a_target(address: str, weight: int = 1, share: float = 1.0, priority: int = 0) -> Target:
    target = Target("http", address, address.encode(), "", Busy(), weight, priority)
    target.share = share
    return target


def some_targets(weights: Iterable[int]) -> list[Target]:
    return [a_target(f"10.0.{number >> 8}.{number & 255}:80", weight) for number, weight in enumerate(weights)]


def set_busy(target: Target, count: int) -> None:
    assert isinstance(target.pool, Busy)
    target.pool.under_way = count


def maker(config: object, seed: int = 1, clock: Clock | None = None, service: str = "svc") -> Make:
    """Return what makes the balancers of `balance: <config>`."""
    written = {"algorithm": config} if isinstance(config, str) else config
    return balancing(Balance.model_validate(written), service, Random(seed), clock or Clock())


def counted(balancer: Balancer, count: int, request: Request = GET) -> Counter[Target]:
    return Counter(balancer.pick(request) for _ in range(count))


def visited(balancer: Balancer, request: Request = GET, first: Sequence[Target] = ()) -> list[Target]:
    """Return the targets in the order in which they are tried while each fails."""
    tried = list(first) or [balancer.pick(request)]
    while (target := balancer.other(request, tried)) is not None:
        assert target not in tried
        tried.append(target)
    return tried


def as_the_weights_say(counts: Mapping[Target, int], targets: Sequence[Target]) -> bool:
    """Return whether lots that were drawn by weight would differ that much once in a thousand times (chi-square)."""
    total, weights = sum(counts.values()), sum(target.turns for target in targets)
    expected = {target: total * target.turns / weights for target in targets}
    chi = sum((counts[target] - of) ** 2 / of for target, of in expected.items())
    free = len(targets) - 1
    limit = free * (1 - 2 / (9 * free) + 3.09 * math.sqrt(2 / (9 * free))) ** 3  # Wilson and Hilferty
    return chi < limit
