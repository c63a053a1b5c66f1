"""What callers may: which limits a request is counted by, and where."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from portico.http.message import Request
from portico.limiting.settings import LimitSettings
from portico.limiting.told import Terms, Told
from portico.policy.base import Env
from portico.policy.condition import Condition, Expression
from portico.state.check import LimitCheck, OnStoreFailure
from portico.state.limits import Limits, Verdict
from portico.state.memory import MemorySpace
from portico.state.store import Space, key_of

_LOCAL: Final = 32 * 1024 * 1024
"""The bytes, nearly, in which a worker counts by itself."""


class Check(Protocol):
    """What checks limits, as a LimitCheck does."""

    def take(self, key: bytes, cost: int = 1) -> Verdict | Awaitable[Verdict]:
        """Count by all limits of a key, or by none."""
        ...

    def charge(self, key: bytes, cost: int) -> Verdict | Awaitable[Verdict]:
        """Count what was used already."""
        ...


class Budget:
    """Limits that are checked together."""

    __slots__ = ("_prefix", "check", "delays", "terms")

    def __init__(self, prefix: bytes, check: Check, terms: Terms, delays: tuple[tuple[int, float], ...] = ()) -> None:
        """`prefix` is what the keys of their records begin with."""
        self._prefix = prefix
        self.check = check
        self.terms = terms
        self.delays = delays
        """Which of them has requests wait for their turn, and by how many seconds they may be ahead of it."""

    def key(self, caller: bytes, period: bytes = b"") -> bytes:
        """Return the key of a caller's record, which is of bounded length."""
        return key_of(self._prefix + period, caller)

    def turn(self, verdict: Verdict) -> float:
        """Return the seconds after which it is a request's turn."""
        backlogs = verdict.backlogs
        return max(backlogs[at] - ahead for at, ahead in self.delays)


def prefix_of(place: str, *which: str) -> bytes:
    """Return what tells the keys of one budget from those of all others, also after a reload."""
    return hashlib.blake2b("\0".join((place, *which)).encode("utf-8", "surrogatepass"), digest_size=10).digest()


def checks_of(env: Env, space: Space, on_failure: OnStoreFailure) -> Callable[[Limits], LimitCheck]:
    """Return what makes checks of limits in a space. Ask in each `setup`: it leases the memory in which the worker
    counts by itself, which is one for all of its limits, as clients can fill whatever there is."""
    local = env.share(("limits", "local"), lambda: MemorySpace(env.wall, _LOCAL)) if on_failure == "local" else None
    logger, wall = env.logger, env.wall
    return lambda limits: LimitCheck(space, limits, on_failure, logger, wall, local)


def budget_of(prefix: bytes, settings: Sequence[LimitSettings], check: Callable[[Limits], LimitCheck]) -> Budget | None:
    """Return the budget of a list of limits; None where it has none."""
    if not settings:
        return None
    terms = Terms(
        Told(each.name or each.text, each.requests, each.window, slides=each.algorithm == "sliding")
        for each in settings
    )
    delays = tuple(
        (at, each.window / each.requests * (0 if each.delay is True else each.delay))
        for at, each in enumerate(settings)
        if each.delay is not False
    )
    return Budget(prefix, check(Limits([each.limit for each in settings])), terms, delays)


class Budgets:
    """Finds the budget of a request: that of its plan; else the first whose condition holds; else the general one."""

    __slots__ = ("_otherwise", "_plan", "_plans", "_tiers", "of")

    def __init__(
        self,
        otherwise: Budget | None,
        plan: str,
        plans: Mapping[str, Budget | None],
        tiers: Sequence[tuple[str, Budget | None]] = (),
    ) -> None:
        """None is a budget without an end."""
        self._otherwise = otherwise
        self._plan = Expression(plan).read
        self._plans = plans
        self._tiers = tuple((Condition(when).holds, budget) for when, budget in tiers)
        self.of: Callable[[Request], Budget | None] = (
            self._found if plans else self._among_tiers if tiers else self._general
        )
        """Returns the budget of a request."""

    def _general(self, request: Request) -> Budget | None:
        return self._otherwise

    def _found(self, request: Request) -> Budget | None:
        plan = self._plan(request)
        return self._plans[plan] if plan in self._plans else self._among_tiers(request)

    def _among_tiers(self, request: Request) -> Budget | None:
        for holds, budget in self._tiers:
            if holds(request):
                return budget
        return self._otherwise
