"""Limits that go on to mean something while the store cannot be asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from portico.errors import StoreUnavailable
from portico.state.limits import Limits, Verdict
from portico.state.memory import MemorySpace
from portico.state.store import Space

OnStoreFailure: TypeAlias = Literal["allow", "deny", "local"]
"""What becomes of a request that the store cannot count: it passes, or is refused, or each worker counts by itself."""


class LimitCheck:
    """Checks limits in a store, and does what its policy says where that has no answer.

    The log is told when the store begins to fail, and when it answers again.
    """

    def __init__(
        self,
        space: Space,
        limits: Limits,
        on_failure: OnStoreFailure,
        logger: logging.Logger,
        wall: Callable[[], float] = time.time,
        local: MemorySpace | None = None,
    ) -> None:
        """`local` is where a worker counts by itself; a memory of its own unless given."""
        self.limits = limits
        self.failures = 0
        """Checks that the store had no answer to."""
        self._take = space.take
        self._charge = space.charge
        self._on_failure = on_failure
        self._logger = logger
        self._local = (MemorySpace(wall) if local is None else local) if on_failure == "local" else None
        self._failing = False

    def take(self, key: bytes, cost: int = 1) -> Verdict | Awaitable[Verdict]:
        """Count by all limits of a key, or by none; never raises StoreUnavailable. `known` says who has counted."""
        try:
            found = self._take(key, self.limits, cost)
        except StoreUnavailable as error:
            return self._without(key, cost, error)
        if type(found) is not Verdict:
            return self._later(found, key, cost)  # type: ignore[arg-type] # there is nothing else that it could be
        if self._failing:
            self._well_again()
        return found

    def charge(self, key: bytes, cost: int) -> Verdict | Awaitable[Verdict]:
        """Count by all limits of a key what was used already; never raises StoreUnavailable."""
        try:
            found = self._charge(key, self.limits, cost)
        except StoreUnavailable as error:
            return self._without(key, cost, error, charge=True)
        return found if type(found) is Verdict else self._later(found, key, cost, charge=True)  # type: ignore[arg-type]

    async def _later(self, found: Awaitable[Verdict], key: bytes, cost: int, *, charge: bool = False) -> Verdict:
        try:
            verdict = await found
        except StoreUnavailable as error:
            return self._without(key, cost, error, charge=charge)
        if self._failing:
            self._well_again()
        return verdict

    def _without(self, key: bytes, cost: int, error: StoreUnavailable, *, charge: bool = False) -> Verdict:
        self.failures += 1
        if not self._failing:
            self._failing = True
            self._logger.error("%s; until it answers, on_store_failure is %s", error, self._on_failure)
        if self._local is not None:
            return (self._local.charge if charge else self._local.take)(key, self.limits, cost)
        return self.limits.unknown(allowed=self._on_failure == "allow")

    def _well_again(self) -> None:
        self._failing = False
        self._logger.info("the store answers again; %d requests so far were not counted by it", self.failures)
