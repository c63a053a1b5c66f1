"""Looks at the targets of one service again and again, and judges them by what it finds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Any, Final

from portico.agent.looks import Finding
from portico.config.balance import HealthCheck, Target
from portico.errors import ConfigError
from portico.upstream.feed import Verdict

logger = logging.getLogger("portico.agent")

JITTER: Final = 0.1
"""By how much of itself the time between two looks is longer or shorter."""

STAGGER: Final = 0.02
"""Seconds between the first looks at two targets, unless there are so many that they would not fit into an interval."""

WHY_LENGTH: Final = 300
"""How many characters of what a look has found are told: a target may have chosen them."""


class _Watched:
    """One target, and the looks at it."""

    def __init__(self, target: Target, task: asyncio.Task[None] | None = None) -> None:
        self.target = target
        self.task = task
        self.in_a_row = 0
        """How many of the last looks have found other than what it is taken for."""


class Checks:
    """The health checks of one service."""

    def __init__(
        self,
        service: str,
        check: HealthCheck,
        look: Callable[[Target], Awaitable[Finding]],
        tasks: asyncio.TaskGroup,
        gate: AbstractAsyncContextManager[Any],
        changed: Callable[[str], None],
        rng: Random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Call `changed` with each target of which something new is known; looks pass the `gate`."""
        self._service = service
        self._check = check
        self._look = look
        self._tasks = tasks
        self._gate = gate
        self._changed = changed
        self._rng = rng
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._trouble = ""
        self._late = False
        """Whether looks have waited for their turn so long that the next ones were due."""
        self._none_well = False
        self.verdicts: dict[str, Verdict] = {}
        """What is known, by target."""
        self.complete = False
        """Whether each of them was looked at once: from then on all that can be known is known here."""

    def follow(self, targets: Sequence[Target]) -> None:
        """Look at these targets from now on; those that stay are not disturbed."""
        wanted = {str(target): target for target in targets}
        for address, watched in tuple(self._watched.items()):
            if address not in wanted or not _same(watched.target, wanted[address]):
                self._end(address)
        new = [target for address, target in wanted.items() if address not in self._watched]
        step = min(STAGGER, self._check.interval / max(len(new), 1))
        for number, target in enumerate(new):
            watched = self._watched[str(target)] = _Watched(target)
            watched.task = self._tasks.create_task(self._run(watched, number * step), name="health check")
        self._see_whether_any_is_well()

    def succeed(self, before: Checks) -> None:
        """Begin with what other checks have found of the same targets: one look does not decide about these."""
        for address, verdict in before.verdicts.items():
            watched = self._watched.get(address)
            if watched is not None and _same(watched.target, before._watched[address].target):
                self.verdicts[address] = verdict
        self.complete = before.complete

    def close(self) -> None:
        """Look no more."""
        for address in tuple(self._watched):
            self._end(address)

    def _end(self, address: str) -> None:
        task = self._watched.pop(address).task
        assert task is not None
        task.cancel()
        self.verdicts.pop(address, None)

    async def _run(self, watched: _Watched, delay: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(delay)
        while True:
            try:
                due = loop.time()
                async with self._gate:
                    self._waited(loop.time() - due)
                    finding = await self._look(watched.target)
                self._trouble = ""
                self._judge(watched, finding._replace(why=finding.why[:WHY_LENGTH]))
            except ConfigError as error:
                self._cannot(str(error))
            except Exception:  # a task of the agent's: the next look may go better, and until then nothing is said
                logger.exception("service %s: target %s could not be looked at", self._service, watched.target)
            await asyncio.sleep(self._check.interval * self._rng.uniform(1 - JITTER, 1 + JITTER))

    def _waited(self, seconds: float) -> None:
        late = seconds > self._check.interval
        if late and not self._late:
            logger.warning(
                "service %s: a look at a target has waited %.1f s for its turn; too many do not answer",
                self._service,
                seconds,
            )
        self._late = late

    def _cannot(self, why: str) -> None:
        """Tell, once, that its files of certificates do not let anyone look; that is not the targets' fault."""
        if why != self._trouble:
            self._trouble = why
            logger.error("service %s: its targets cannot be looked at: %s", self._service, why)

    def _judge(self, watched: _Watched, finding: Finding) -> None:
        address = str(watched.target)
        before = self.verdicts.get(address)
        if before is None:
            if not finding.well:
                logger.warning("service %s: target %s is not well: %s", self._service, address, finding.why)
            self._note(address, Verdict(finding.well, self._clock(), finding.why))
            return
        if finding.well == before.well:
            watched.in_a_row = 0
            if not finding.well and finding.why != before.why:
                self._note(address, before._replace(why=finding.why))
            return
        watched.in_a_row += 1
        if watched.in_a_row < (self._check.rise if finding.well else self._check.fall):
            return
        looks = "1 look" if watched.in_a_row == 1 else f"{watched.in_a_row} looks in a row"
        watched.in_a_row = 0
        if finding.well:
            logger.info("service %s: target %s is well again (%s)", self._service, address, looks)
        else:
            why = finding.why
            logger.warning("service %s: target %s is not well any more: %s (%s)", self._service, address, why, looks)
        self._note(address, Verdict(finding.well, self._clock(), finding.why))

    def _note(self, address: str, verdict: Verdict) -> None:
        self.verdicts[address] = verdict
        self.complete = self.complete or len(self.verdicts) == len(self._watched)
        self._see_whether_any_is_well()
        self._changed(address)

    def _see_whether_any_is_well(self) -> None:
        """Tell, once, that none is; of a lone target that was told."""
        known = self.verdicts
        none_well = 1 < len(known) == len(self._watched) and not any(each.well for each in known.values())
        if none_well and not self._none_well:
            logger.error("service %s: none of its %d targets is well", self._service, len(known))
        self._none_well = none_well


def _same(one: Target, other: Target) -> bool:
    """Whether a look at both finds the same."""
    return (one.address, one.server_name) == (other.address, other.server_name)
