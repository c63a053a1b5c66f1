"""From the file's `balance` to what makes a service's balancers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from portico.config.balance import Algorithm, Balance
from portico.upstream.balance.balancer import Make
from portico.upstream.balance.ewma import PeakEwma
from portico.upstream.balance.key import key_of
from portico.upstream.balance.lottery import LeastRequest, Lottery
from portico.upstream.balance.ring import Rings
from portico.upstream.balance.round_robin import RoundRobin
from portico.upstream.balance.sticky import sticky


class _Needs(NamedTuple):
    config: Balance
    random: Callable[[], float]
    clock: Callable[[], float]


def balancing(config: Balance, service: str, rng: Random, clock: Callable[[], float]) -> Make:
    """Return what makes the balancers of `service`, one after the other; `clock` is that of `observe`."""
    make = _MAKES[config.algorithm](_Needs(config, rng.random, clock))
    return make if config.sticky is None else sticky(config.sticky, service, make)


def _round_robin(needs: _Needs) -> Make:
    return lambda targets: RoundRobin(targets, needs.random())


def _random(needs: _Needs) -> Make:
    return lambda targets: Lottery(targets, needs.random)


def _least_request(needs: _Needs) -> Make:
    return lambda targets: LeastRequest(targets, needs.random)


def _peak_ewma(needs: _Needs) -> Make:
    return lambda targets: PeakEwma(targets, needs.random, needs.clock)


def _consistent_hash(needs: _Needs) -> Make:
    assert needs.config.hash is not None
    return Rings(key_of(needs.config.hash), _round_robin(needs)).make


_MAKES: Final[dict[Algorithm, Callable[[_Needs], Make]]] = {
    "round-robin": _round_robin,
    "random": _random,
    "least-request": _least_request,
    "peak-ewma": _peak_ewma,
    "consistent-hash": _consistent_hash,
}
