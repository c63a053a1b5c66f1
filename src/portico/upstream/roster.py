"""Which of a service's targets may be asked: those that there are, are well, and have not failed too often of late.

All of it is decided when something changes, never for a request: what a request finds is a balancer over the targets
that may be asked, or none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from portico.upstream.balance import Balancer, group, groups_of
from portico.upstream.target import Target

logger = logging.getLogger("portico.upstream")

SLOW_STEPS: Final = 10
"""In how many steps a target comes to its full share, from a tenth of it on."""


class Ejecting:
    """When a target is taken out for a while, and for how long (see the configuration's `outliers`)."""

    __slots__ = ("failures", "first", "longest", "most")

    def __init__(self, failures: int, first: float, longest: float, most: float) -> None:
        """Eject after so many `failures` in a row, the `first` time for so many seconds, and at `most` so large a
        share of the targets at the same time."""
        self.failures = failures
        self.first = first
        self.longest = longest
        self.most = most

    def time(self, ejections: int) -> float:
        """Return for how many seconds a target is out that was ejected so many times in a row."""
        return min(self.first * ejections, self.longest)


class Roster:
    """The targets of one service."""

    __slots__ = (
        "_balancing",
        "_clock",
        "_closed",
        "_ejecting",
        "_loop",
        "_panic",
        "_panicking",
        "_slow_start",
        "_soon",
        "_timer",
        "balancer",
        "service",
        "targets",
    )

    def __init__(
        self,
        service: str,
        balancing: Callable[[Sequence[Target]], Balancer],
        ejecting: Ejecting | None,
        slow_start: float = 0.0,
        panic: float = 0.0,
    ) -> None:
        """`balancing` makes a balancer; fewer than the share `panic` of healthy targets count for none of them."""
        self.service = service
        self.targets: tuple[Target, ...] = ()
        """All of them, well or not."""
        self.balancer: Balancer | None = None
        """Picks among those that may be asked; None where there are none."""
        self._balancing = balancing
        self._ejecting = ejecting
        self._slow_start = slow_start
        self._panic = panic
        self._panicking = False
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        """Whether `rebuild` is to come in the loop's next turn."""
        self._closed = False

    def change(self, targets: Sequence[Target]) -> None:
        """Have these targets from now on; those that join others start slowly."""
        known = frozenset(self.targets)
        self.targets = tuple(targets)
        if known:
            now = self._clock()
            for target in targets:
                if target not in known:
                    self._begin(target, now)
        self.rebuild()

    # How they are

    def judge(self, target: Target, *, well: bool, since: float, why: str) -> None:
        """Note what a health check has found. Then `rebuild`."""
        was_down = target.down_since != 0.0
        target.why, target.looked_at = why, True
        if well:
            target.down_since = 0.0
            target.well_since = since
            if was_down:
                self._begin(target, self._clock())
                target.ejected_until = 0.0  # it has shown that it is well
                target.failing = False
        else:
            target.down_since = since

    def forget(self, target: Target) -> None:
        """Note that nothing is known of a target any more. Then `rebuild`."""
        target.down_since, target.looked_at, target.why = 0.0, False, ""

    def failed(self, target: Target, why: str) -> None:
        """Note an answer that was a failure."""
        target.failures += 1
        ejecting = self._ejecting
        if ejecting is not None and target.failures >= ejecting.failures:
            self.eject(target, f"{target.failures} failures in a row, the last: {why}")

    def eject(self, target: Target, why: str) -> bool:
        """Ask a target no more for a while, unless too many are out already; return whether that is so."""
        ejecting, now = self._ejecting, self._clock()
        if ejecting is None or target.ejected_until or target not in self.targets:
            return False
        out = sum(1 for each in self.targets if each.ejected_until)
        left = sum(1 for each in self.targets if not each.ejected_until and not each.down_since)
        if out + 1 > ejecting.most * len(self.targets) or left <= 1:
            return False
        if now - target.ejected_at > 2 * ejecting.time(target.ejections):
            target.ejections = 0  # it has been well for as long as it was out
        target.ejections += 1
        seconds = ejecting.time(target.ejections)
        target.ejected_at = now
        target.ejected_until = now + seconds
        target.ejected_since = time.time()
        target.failures = 0
        target.ejected_for = why
        logger.warning("service %s: target %s is out for %g s: %s", self.service, target.address, seconds, why)
        if not self._soon and not self._closed:  # many may fail in one turn
            self._soon = True
            self._loop.call_soon(self.rebuild)
        return True

    # Who may be asked

    def rebuild(self) -> None:
        """Decide anew which targets may be asked."""
        self._soon = False
        if self._closed:
            return
        now = self._clock()
        for target in self.targets:
            if target.ejected_until and target.ejected_until <= now:
                target.ejected_until = 0.0
                self._begin(target, now)
                logger.info("service %s: target %s is asked again", self.service, target.address)
            self._grow(target, now)
        asked = self._asked()
        self.balancer = self._balancing(asked) if asked else None
        self._set_timer(now)

    def _asked(self) -> Sequence[Target]:
        """Return the targets of the first group that has enough that are well; or, in a panic, all of a group."""
        groups = groups_of(self.targets)
        for members in groups:
            well = [target for target in members if not target.down_since and not target.ejected_until]
            if well and len(well) >= self._panic * len(members):
                self._tell_of_panic(None)
                return well
        out = [target for target in self.targets if not target.down_since]
        if self._panic:
            best = next((members for members in groups if any(target in out for target in members)), self.targets)
            self._tell_of_panic(best)
            return group(best)
        return group(out)  # who is out is asked where nobody else can be

    def _tell_of_panic(self, asked: Sequence[Target] | None) -> None:
        """Tell the log where a panic has begun, for `asked`, or is over."""
        panics = bool(asked)
        if panics == self._panicking:
            return
        self._panicking = panics
        if asked:
            well = sum(1 for target in asked if not target.down_since and not target.ejected_until)
            count = len(asked)
            logger.warning("service %s: %d of %d targets are well; all are asked", self.service, well, count)
        else:
            logger.info("service %s: only targets that are well are asked again", self.service)

    def _begin(self, target: Target, now: float) -> None:
        """Have a target start slowly."""
        if self._slow_start:
            target.started = now
            target.share = 1 / SLOW_STEPS

    def _grow(self, target: Target, now: float) -> None:
        if target.share < 1.0:
            steps = int((now - target.started) / self._slow_start * SLOW_STEPS + 1e-6)
            target.share = min(1.0, (1 + steps) / SLOW_STEPS)

    def _set_timer(self, now: float) -> None:
        """Decide anew when the next one comes back, or comes to a larger share."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [target.ejected_until for target in self.targets if target.ejected_until]
        if any(target.share < 1.0 for target in self.targets):
            times.append(now + self._slow_start / SLOW_STEPS)
        if times:
            self._timer = self._loop.call_at(min(times), self.rebuild)

    def close(self) -> None:
        """Decide nothing any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
