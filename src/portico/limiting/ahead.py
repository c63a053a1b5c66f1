"""Totals that last, at a price that each request can pay: a worker takes some ahead, and gives those out at once.

To write to a disk takes a wait for it, of some milliseconds. So a worker takes as many for a caller as it asks for in a
second or two, and of what is left no more than a hundredth; toward the end it takes each one by itself. What is taken
is counted, and so nobody is ever given more than there is. What nobody has asked for is given back after a while. Only
of a worker that ends meanwhile it is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

from portico.errors import StoreUnavailable
from portico.limiting.budgets import Check
from portico.state.limits import Limits, Verdict
from portico.state.store import Space

FIRST: Final = 16
"""How many are taken ahead at first. It is twice as many whenever they were given out within `QUICK`."""
MOST: Final = 65_536
"""How many are taken ahead at most."""
PART: Final = 100
"""No more than one in so many of what is left is taken ahead."""
QUICK: Final = 1.0
"""Seconds."""
HELD: Final = 30.0
"""Seconds without a request after which what is left in hand is given back."""
PAUSE: Final = 1.0
"""Seconds between two looks for such."""
HANDS: Final = 4096
"""Callers for whom a worker has some in hand; for others it takes each one by itself."""
KNOWN: Final = 1.0
"""Seconds for which it is not asked again whether there is something left, where there was not, or no answer."""
PATIENCE: Final = 5.0
"""Seconds that a request waits for what is being taken, before it takes its own; no store takes as long."""
TRIES: Final = 3
"""How often a request waits for that: others may have been quicker."""

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], None]


class _Hand:
    """What is in hand for one caller."""

    __slots__ = ("flight", "left", "size", "spent", "stored", "taken", "touched")

    def __init__(self, stored: int, now: float) -> None:
        self.left = 0
        self.stored = stored
        """How much the store still had, when it was last asked."""
        self.size = FIRST
        self.spent = 0.0
        """Until when it is known that the store has none left."""
        self.taken = 0.0
        self.touched = now
        self.flight: asyncio.Future[None] | None = None
        """What is being taken; done when that has come to its end, whatever it was."""


class TakenAhead:
    """Checks one Total, of what is in hand where that is enough. It stands in the place of a LimitCheck."""

    def __init__(self, space: Space, limits: Limits, check: Check, clock: Callable[[], float]) -> None:
        """`check` is for what is taken by itself; `limits` are the same, a Total alone."""
        self._space = space
        self._limits = limits
        self._capacity = limits.rules[0].capacity
        self._check = check
        self._clock = clock
        self._hands: dict[bytes, _Hand] = {}
        self._spawns: dict[Spawn, None] = {}
        self._looker: Spawn | None = None
        """By whom the look for what is to be given back was begun, while it goes on."""
        self._look = 0
        self._fails = 0.0
        """Until when nothing is taken ahead, as the store has just had no answer."""

    def join(self, spawn: Spawn) -> None:
        """Have work done by somebody who lives on, until `leave`."""
        self._spawns[spawn] = None

    def leave(self, spawn: Spawn) -> None:
        """Have no more work done by somebody who ends; what goes on there ends, too."""
        self._spawns.pop(spawn, None)
        if self._looker == spawn:
            self._looker = None
            if self._hands:
                self._begin_to_look()

    def take(self, key: bytes, cost: int = 1) -> Verdict | Awaitable[Verdict]:
        """Count `cost`, where there is as much; a cost of 0 only looks. See `LimitCheck.take`."""
        hand = self._hands.get(key)
        if hand is not None:
            if hand.left >= (cost or 1):
                return self._given(hand, cost)
            if hand.spent and cost and self._clock() < hand.spent:
                return Verdict(self._limits, False, [self._capacity, 0.0, 0.0], hand.spent, cost)
        return self._more(key, cost)

    def charge(self, key: bytes, cost: int) -> Verdict | Awaitable[Verdict]:
        """Count what was used already. See `LimitCheck.charge`."""
        hand = self._hands.get(key)
        if hand is None:
            return self._check.charge(key, cost)
        if hand.left >= cost:
            return self._given(hand, cost)
        hand.size = min(max(hand.size, 2 * cost), MOST)
        return self._charged(hand, key, cost)

    def __len__(self) -> int:
        return len(self._hands)

    def _given(self, hand: _Hand, cost: int) -> Verdict:
        hand.left -= cost
        hand.touched = now = self._clock()
        used = self._capacity - (hand.stored + hand.left)
        return Verdict(self._limits, True, [used, 0.0, 0.0], now, cost)

    async def _charged(self, hand: _Hand, key: bytes, cost: int) -> Verdict:
        rest = cost - hand.left
        hand.left = 0
        return await self._itself(hand, key, rest, self._check.charge)

    async def _more(self, key: bytes, cost: int) -> Verdict:
        """Take more, or the one itself."""
        now = self._clock()
        hand = self._hands.get(key)
        if hand is None:
            hand = _Hand(int(self._capacity), now)
            if len(self._hands) < HANDS and self._spawns:
                self._hands[key] = hand
                if self._looker is None:
                    self._begin_to_look()
        hand.touched = now
        for _ in range(TRIES):
            if hand.left >= (cost or 1):
                return self._given(hand, cost)
            size = min(hand.size, hand.stored // PART)
            if size <= cost or now < self._fails or self._hands.get(key) is not hand:
                break
            if hand.flight is None:
                self._fetch(key, hand, size)
            if hand.flight is not None:
                await asyncio.wait([hand.flight], timeout=PATIENCE)
        verdict = await self._itself(hand, key, cost, self._check.take)
        if not verdict.allowed:  # what is in hand by now may be the last that there is
            if hand.flight is not None:
                await asyncio.wait([hand.flight], timeout=PATIENCE)
            if hand.left >= (cost or 1):
                return self._given(hand, cost)
        return verdict

    async def _itself(
        self,
        hand: _Hand,
        key: bytes,
        cost: int,
        count: Callable[[bytes, int], Verdict | Awaitable[Verdict]],
    ) -> Verdict:
        found = count(key, cost)
        verdict = found if isinstance(found, Verdict) else await found
        if verdict.known:
            hand.stored = verdict.left_of(0)
            if not hand.stored and not verdict.allowed:
                hand.spent = self._clock() + KNOWN
        return verdict

    def _fetch(self, key: bytes, hand: _Hand, size: int) -> None:
        """Have more taken, for all who wait for it; it belongs to none of them."""
        if self._spawns:
            hand.flight = asyncio.get_running_loop().create_future()
            next(reversed(self._spawns))(self._fetching(key, hand, size), "quota, ahead")

    async def _fetching(self, key: bytes, hand: _Hand, size: int) -> None:
        try:
            found = self._space.take(key, self._limits, size)
            verdict = found if isinstance(found, Verdict) else await found
            hand.stored = verdict.left_of(0)
            if verdict.allowed:
                now = self._clock()
                if now - hand.taken < QUICK:
                    hand.size = min(2 * hand.size, MOST)
                hand.taken = hand.touched = now
                hand.left += size
        except StoreUnavailable:
            self._fails = self._clock() + KNOWN  # until then each one is taken by itself, as the policy has it
        finally:
            flight, hand.flight = hand.flight, None
            if flight is not None and not flight.done():
                flight.set_result(None)

    def _begin_to_look(self) -> None:
        if self._spawns:
            self._looker = next(reversed(self._spawns))
            self._look += 1
            self._looker(self._looking(self._look), "quota, giving back")

    async def _looking(self, look: int) -> None:
        """Give back what nobody has asked for, until nobody has anything in hand, or somebody else does so."""
        while self._hands and look == self._look:
            await asyncio.sleep(PAUSE)
            before = self._clock() - HELD
            for key in [key for key, hand in self._hands.items() if hand.touched <= before]:
                hand = self._hands.get(key)
                if hand is not None and hand.touched <= before and hand.flight is None:
                    del self._hands[key]
                    await self._give_back(key, hand.left)
        if look == self._look:
            self._looker = None

    async def _give_back(self, key: bytes, left: int) -> None:
        try:
            found = self._space.charge(key, self._limits, -left) if left else None
            if found is not None and not isinstance(found, Verdict):
                await found
        except StoreUnavailable:
            pass  # it is lost to who could have had it, and nobody has too much
