"""Semaphores that all workers share, by key: how many may be at something at once.

A worker keeps in mind how many places of a key it has, and says that number to the store: to get one more, when it has
given one back, and every other second where neither has happened, so that who is at it for long stays counted. A worker
that has died is not heard of any more, and within seconds its places are free.

Where the store knows at once, so does `enter`. Where it has to be waited for, one word of a key is under way at a time,
and whoever comes meanwhile is in the next: a thousand requests at once are two words. What the store could not be told,
or has lost, is right again with the next word, as that has the whole number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from enum import Enum
from types import CoroutineType
from typing import Any, Final, NamedTuple, TypeAlias, cast

from portico.errors import StoreUnavailable
from portico.state.check import OnStoreFailure
from portico.state.holders import ID, Held
from portico.state.store import WAITING, Space

LIVES: Final = 6.0
"""Seconds after which a worker that says nothing of its places has lost them."""

RENEW: Final = 2.0
"""Seconds between two looks at what has to be said again, which is what was not said in the last of them."""

LOOK: Final = 0.01
"""Seconds between two looks for places that other workers have given back, while somebody waits."""

SHARE: Final = 0.1
"""Seconds for which places go to those who wait for them in the same worker. The next one is for those of others, who
have the time of two looks for it."""

TOGETHER: Final = 64
"""Keys of which the store is told at once."""

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], None]


class NoPlace(Enum):
    """Why there is no place."""

    FULL = "full"
    """All are taken."""
    UNKNOWN = "unknown"
    """The store does not say whether there is one, and `on_failure` is `deny`."""


class SemaphoreRules(NamedTuple):
    """How a semaphore is entered."""

    most: int
    """How many places there are."""
    on_failure: OnStoreFailure
    wait: float = 0.0
    """Seconds that may be waited for a place."""
    queue: int = 0
    """How many of this worker may wait, whatever the key; further ones are refused at once."""


class Place:
    """What a worker has of one key. Whoever has entered it has a place, until they `leave`."""

    __slots__ = ("_all", "asking", "count", "fresh", "key", "patient", "rests", "rules", "said", "said_at", "shares")

    def __init__(self, all_: Semaphores, key: bytes, rules: SemaphoreRules) -> None:
        self._all = all_
        self.key = key
        self.rules = rules
        self.count = 0
        """Places that are taken here."""
        self.said: int | None = 0
        """What the store takes `count` for; None where nobody knows."""
        self.said_at = 0.0
        self.asking = False
        """Whether a word is under way."""
        self.fresh: list[_Turn] = []
        """Who has come meanwhile."""
        self.patient: dict[_Turn, None] = {}
        """Who waits for a place, who has waited longest first."""
        self.shares = 0.0
        """When the next place is for others, though somebody here waits."""
        self.rests = 0.0
        """Until when nobody here looks for that one."""

    def leave(self) -> None:
        """Give a place back, once for each time it was entered. It raises nothing."""
        self._all.left(self)


class Uncounted(NamedTuple):
    """What comes of one whom the store could not count, as it did not answer."""

    entered: Place | NoPlace
    """By what the rules say for that: a place, to be left as any other, or why there is none."""


Entered: TypeAlias = Place | NoPlace | Uncounted


class _Turn:
    """One who wants a place."""

    __slots__ = ("deadline", "future", "timer")

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.future: asyncio.Future[Entered | None] = asyncio.get_running_loop().create_future()
        """What comes of it; None is that it is its turn to ask the store."""
        self.timer: asyncio.TimerHandle | None = None

    def tell(self, what: Entered | None) -> bool:
        """Tell what has come of it; False where nobody waits for that any more."""
        if self.timer is not None:
            self.timer.cancel()
        if self.future.done():
            return False
        self.future.set_result(what)
        return True


class Semaphores:
    """The semaphores of one worker whose keys are in one space. They are leased, so that they outlive a reload.

    What belongs to no request is done by a configuration: `serve` says by which, and `without` that it ends.
    """

    def __init__(self, space: Space, clock: Callable[[], float], logger: logging.Logger) -> None:
        self.failures = 0
        """Words that the store had no answer to."""
        self._space = space
        self._clock = clock
        self._logger = logger
        self._holder = os.urandom(ID)
        self._places: dict[bytes, Place] = {}
        self._unsaid: dict[Place, None] = {}
        """Of which the store is to be told."""
        self._sought: dict[Place, None] = {}
        """Those that somebody waits for."""
        self._waiting = 0
        """How many wait."""
        self._at_once = False
        """Whether the store knows at once, as far as that has been seen."""
        self._failing = False
        self._closed = False
        self._spawns: dict[Spawn, None] = {}
        self._work: CoroutineType[Any, Any, None] | None = None
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """How many keys are kept in mind."""
        return len(self._places)

    def serve(self, spawn: Spawn) -> None:
        """Have a configuration do the work."""
        self._spawns[spawn] = None
        self._begin()

    def without(self, spawn: Spawn) -> None:
        """Do without a configuration that ends."""
        self._spawns.pop(spawn, None)

    def close(self) -> None:
        """Keep nothing in mind any more; the store will not hear of it."""
        self._closed = True
        for place in self._places.values():
            for turn in (*place.fresh, *place.patient):
                turn.tell(NoPlace.FULL)
        for kept in (self._places, self._unsaid, self._sought):
            kept.clear()

    # What requests do.

    def enter(self, key: bytes, rules: SemaphoreRules, deadline: float | None = None) -> Entered | Awaitable[Entered]:
        """Return a place of a key, or why there is none, each as `Uncounted` where the store could not be asked; nobody
        waits for one beyond `deadline`.

        Where it is known at once, there is nothing to wait for.
        """
        place = self._places.get(key)
        if place is None:
            self._begin()
            place = self._places[key] = Place(self, key, rules)
        place.rules = rules
        if place.patient:
            return self._wait(place, deadline)
        if place.asking:
            return self._join(place, deadline)
        try:
            held = self._space.hold(key, self._holder, place.count, 1, rules.most, LIVES)
        except StoreUnavailable as error:
            self._at_once = True
            self._failed(place, error)
            return self._without(place)
        if type(held) is not Held:
            place.asking = True
            return self._first(place, deadline, held)  # type: ignore[arg-type] # there is nothing else that it could be
        self._at_once = True
        self._heard(place, place.count, held)
        if held.granted:
            place.count += 1
            return place
        if rules.wait:
            return self._wait(place, deadline)
        self._forget(place)
        return NoPlace.FULL

    def left(self, place: Place) -> None:
        """Have a place back: it goes to whoever waits, or to the store."""
        if self._closed:
            return
        if place.patient:
            now = self._clock()
            if now < place.shares and self._hand_on(place):
                return
            place.shares, place.rests = now + SHARE, now + 2 * LOOK
        place.count -= 1
        if place.said != place.count:
            self._say(place)
        else:
            self._forget(place)

    async def _first(self, place: Place, deadline: float | None, held: Awaitable[Held]) -> Entered:
        """Return what comes of a word that is under way for one alone."""
        turn = _Turn(deadline)
        await self._ask(place, place.count, (turn,), held)
        entered: Entered = await self._told(place, turn)
        return entered

    async def _join(self, place: Place, deadline: float | None) -> Entered:
        """Be in the next word."""
        if len(place.fresh) >= WAITING:
            return self._without(place)
        turn = _Turn(deadline)
        place.fresh.append(turn)
        entered: Entered | None = await self._told(place, turn)
        if entered is not None:
            return entered
        turn = _Turn(deadline)
        turns = (turn, *(each for each in place.fresh if not each.future.done()))
        place.fresh.clear()
        await self._word(place, turns, len(turns) + len(place.patient))
        entered = await self._told(place, turn)
        assert entered is not None
        return entered

    async def _wait(self, place: Place, deadline: float | None) -> Entered:
        """Wait for a place that others give back."""
        turn = _Turn(deadline)
        if not self._queue_up(place, turn):
            self._forget(place)
            return NoPlace.FULL
        entered: Entered = await self._told(place, turn)
        return entered

    async def _told(self, place: Place, turn: _Turn) -> Any:
        """Return what has come of a turn; what nobody waits for any more is somebody else's."""
        try:
            return await turn.future
        except BaseException:
            self._no_longer(place, turn)
            what = turn.future.result() if turn.future.done() and not turn.future.cancelled() else NoPlace.FULL
            if type(what) is Uncounted:
                what = what.entered
            if what is None:
                self._pass_on(place)
            elif type(what) is Place:
                place.leave()
            else:
                self._forget(place)
            raise

    # Who waits.

    def _queue_up(self, place: Place, turn: _Turn) -> bool:
        """Have one wait for a place; False where they may not."""
        rules, now = place.rules, self._clock()
        until = now + rules.wait if turn.deadline is None else min(now + rules.wait, turn.deadline)
        if until <= now or self._waiting >= rules.queue:
            return False
        turn.timer = asyncio.get_running_loop().call_later(until - now, self._give_up, place, turn)
        if not place.patient:
            place.shares = now + SHARE
        place.patient[turn] = None
        self._sought[place] = None
        self._waiting += 1
        if self._waiting == 1:
            self._wake.set()
        return True

    def _give_up(self, place: Place, turn: _Turn) -> None:
        self._no_longer(place, turn)
        turn.tell(NoPlace.FULL)
        self._forget(place)

    def _no_longer(self, place: Place, turn: _Turn) -> None:
        """Have one not wait any more."""
        if turn.timer is not None:
            turn.timer.cancel()
        if turn in place.patient:
            del place.patient[turn]
            self._waiting -= 1
        if not place.patient:
            self._sought.pop(place, None)

    def _hand_on(self, place: Place) -> bool:
        """Give a place to whoever has waited longest; False where nobody waits."""
        while place.patient:
            turn = next(iter(place.patient))
            self._no_longer(place, turn)
            if turn.tell(place):  # a task that is being cancelled does not wait any more, and has not heard of that yet
                return True
        return False

    # What a worker has, and what the store knows of it.

    def _word(self, place: Place, turns: Sequence[_Turn], wanted: int) -> Awaitable[None]:
        """Say a word, and hear what comes of it."""
        place.asking = True
        held = self._space.hold(place.key, self._holder, place.count, wanted, place.rules.most, LIVES)
        return self._ask(place, place.count, turns, held)  # type: ignore[arg-type] # this one has to be waited for

    async def _ask(self, place: Place, said: int, turns: Sequence[_Turn], held: Awaitable[Held]) -> None:
        """Give those who want one what the store has given of places, and have the next one ask."""
        known = True
        try:
            found = await held
        except StoreUnavailable as error:
            known = False
            self._failed(place, error)
            for turn in turns:
                if not turn.future.done():
                    turn.tell(self._without(place))
        except BaseException:
            place.said = None
            place.fresh[:0] = turns[1:]  # who asked has left, and they ask again
            raise
        else:
            self._heard(place, said, found)
            self._give(place, turns, found.granted)
        finally:
            self._pass_on(place, say=known)

    def _give(self, place: Place, turns: Iterable[_Turn], granted: int) -> None:
        """Give places away, first to those who have waited."""
        while granted and self._hand_on(place):
            place.count += 1
            granted -= 1
        for turn in turns:
            if granted and turn.tell(place):
                place.count += 1
                granted -= 1
            elif not turn.future.done() and not self._queue_up(place, turn):
                turn.tell(NoPlace.FULL)

    def _pass_on(self, place: Place, *, say: bool = True) -> None:
        """Have the next one ask, or nobody. What the store has not heard is said again: soon, or else by and by."""
        while place.fresh:
            if place.fresh.pop(0).tell(None):
                return
        place.asking = False
        if say and place.said != place.count:
            self._say(place)
        else:
            self._forget(place)

    def _say(self, place: Place) -> None:
        """Have the store told how many places there are: now, or else as soon as nothing else is under way."""
        if not self._at_once:
            self._unsaid[place] = None
            self._begin()
            self._wake.set()
            return
        self._look(place, 0)

    def _look(self, place: Place, wanted: int) -> None:
        """Tell a store that knows at once, and give away what it gives."""
        said = place.count
        try:
            held = self._space.hold(place.key, self._holder, said, wanted, place.rules.most, LIVES)
        except StoreUnavailable as error:
            self._failed(place, error)
        else:
            self._heard(place, said, held)  # type: ignore[arg-type] # as it knows at once
            self._give(place, (), held.granted)  # type: ignore[union-attr]
            if wanted and place.said != place.count:
                self._look(place, 0)
        self._forget(place)

    def _heard(self, place: Place, said: int, held: Held) -> None:
        place.said = said + held.granted
        place.said_at = self._clock()
        if self._failing:
            self._failing = False
            self._logger.info("the store answers again; %d words so far were not heard by it", self.failures)

    def _failed(self, place: Place, error: StoreUnavailable) -> None:
        """Note that nobody knows what the store has heard; what there is none of it will forget by itself.

        Nobody waits for a place any more that only the store could give.
        """
        self.failures += 1
        place.said = None if place.count else 0
        while place.patient and place.rules.on_failure != "local":  # else there is one when somebody here leaves
            turn = next(iter(place.patient))
            self._no_longer(place, turn)
            if not turn.future.done():
                turn.tell(self._without(place))
        if not self._failing:
            self._failing = True
            self._logger.error("%s; until it answers, on_store_failure is %s", error, place.rules.on_failure)

    def _without(self, place: Place) -> Uncounted:
        """Return what comes of one whom the store cannot count. It is told later of those who are let in."""
        how = place.rules.on_failure
        if how == "allow" or (how == "local" and place.count < place.rules.most):
            place.count += 1
            return Uncounted(place)
        self._forget(place)
        return Uncounted(NoPlace.UNKNOWN if how == "deny" else NoPlace.FULL)

    def _forget(self, place: Place) -> None:
        idle = not (place.count or place.said != 0 or place.asking or place.patient)
        if idle and self._places.get(place.key) is place:
            del self._places[place.key]
            self._unsaid.pop(place, None)

    # What belongs to no request.

    def _begin(self) -> None:
        """Have the work done, unless it is."""
        if self._work is not None and self._work.cr_frame is not None:  # it has not come to its end
            return
        for spawn in reversed(self._spawns):
            work = self._work = cast("CoroutineType[Any, Any, None]", self._work_of(spawn))
            spawn(work, "semaphores")
            if work.cr_frame is not None:  # else that configuration is over
                return

    async def _work_of(self, spawn: Spawn) -> None:
        try:
            await self._keep()
        except asyncio.CancelledError:
            if spawn not in self._spawns:  # that configuration has ended, and it is the next one's turn
                self._work = None
                self._begin()
            raise

    async def _keep(self) -> None:
        renew, look = self._clock() + RENEW, 0.0
        while True:
            self._wake.clear()
            unsaid, self._unsaid = self._unsaid, {}
            await self._tell([place for place in unsaid if place.said != place.count], patient=False)
            now = self._clock()
            if self._sought and now >= look:
                look = now + LOOK
                await self._tell([place for place in self._sought if place.rests <= now], patient=True)
            if now >= renew:
                renew = now + RENEW
                await self._tell([place for place in self._places.values() if _is_due(place, now)], patient=False)
            until = min(look, renew) if self._sought else renew
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until - self._clock())):
                    await self._wake.wait()

    async def _tell(self, places: Sequence[Place], *, patient: bool) -> None:
        """Tell the store of some places, and ask for more where somebody is patient."""
        for at in range(0, len(places), TOGETHER):
            some = [place for place in places[at : at + TOGETHER] if not place.asking]
            if self._at_once:
                for place in some:
                    self._look(place, len(place.patient) if patient else 0)
                await asyncio.sleep(0)
            else:
                await asyncio.gather(*[self._word(place, (), len(place.patient) if patient else 0) for place in some])


def _is_due(place: Place, now: float) -> bool:
    return place.said != place.count or (place.count > 0 and place.said_at <= now - RENEW / 2)
