"""Keeps looking for the targets of one service, and keeps what it has found while there is nothing better."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from portico.config.balance import Target
from portico.upstream.discovery import Discovery, DiscoveryFailed

logger = logging.getLogger("portico.agent")

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds from a look that failed to the next: twice as many each time."""

SHORTEST_PAUSE: Final = 0.05
"""Seconds between two looks, whatever a provider says: one that does not wait must not keep the agent busy."""

TROUBLE_LENGTH: Final = 1000
"""How many characters of what is wrong are told: names in it are others' to choose."""

SHOWN: Final = 20
"""How many targets a line of the log has."""


class Discovering:
    """The search for the targets of one service."""

    def __init__(self, service: str, source: str, discovery: Discovery, changed: Callable[[], None]) -> None:
        """Call `changed` after each change of what is known."""
        self._what = f"service {service}: targets from {source}"
        self._discovery = discovery
        self._changed = changed
        self._failures = 0
        self._closed = False
        self.targets: tuple[Target, ...] = ()
        """The last that were found; none before there were any."""
        self.trouble = ""
        """Why they could not be found out the last time; empty where they could."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while not self._closed:
            pause = await self._look()
            await asyncio.sleep(max(pause, SHORTEST_PAUSE))

    def close(self) -> None:
        """Look no more: whoever cancels `run` may do so while a library swallows it."""
        self._closed = True

    async def _look(self) -> float:
        """Look once, and return when to do it again."""
        try:
            async with asyncio.timeout(self._discovery.longest):
                found = await self._discovery.look()
        except TimeoutError:
            return self._failed(f"the look has taken more than {self._discovery.longest or 0:g} s", None)
        except DiscoveryFailed as failed:
            return self._failed(str(failed), failed.again_in)
        except Exception as error:  # a mistake of the provider's: what was found stays, as with any other failure
            why = f"{type(error).__name__}: {error}"
            if self.trouble != why:
                logger.exception("%s: the look has failed", self._what)
            return self._failed(why, None)
        if self._closed:
            return 0.0
        if not found.targets:
            return self._failed("there are none", None)
        self._failures = 0
        before, self.trouble = self.trouble, found.trouble[:TROUBLE_LENGTH]
        if before and not self.trouble:
            logger.info("%s are found out again", self._what)
        elif before != self.trouble:
            logger.warning("%s: %s", self._what, self.trouble)
        changed = found.targets is not self.targets and found.targets != self.targets
        if changed:
            logger.info("%s: %s", self._what, ", ".join(_differences(self.targets, found.targets) or ["another order"]))
            self.targets = found.targets
        if changed or before != self.trouble:
            self._changed()
        return found.again_in

    def _failed(self, why: str, again_in: float | None) -> float:
        if self._closed:
            return 0.0
        why = why[:TROUBLE_LENGTH]
        if why != self.trouble:
            self.trouble = why
            count = len(self.targets)
            stays = f"; the last {count} stay" if count else "; none were found before"
            logger.warning("%s cannot be found out: %s%s", self._what, why, stays)
            self._changed()
        self._failures += 1
        pause = FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10)
        return min(pause, LONGEST_PAUSE) if again_in is None else again_in


def _differences(before: Sequence[Target], after: Sequence[Target]) -> list[str]:
    """Return what has come, what has gone and what is other, as the log has it; where it is long, not to its end."""
    old = {str(target): target for target in before}
    new = {str(target): target for target in after}
    changes = {each: _change(old[each], new[each]) for each in new if each in old}
    found = [
        *(f"+ {each}" for each in new if each not in old),
        *(f"- {each}" for each in old if each not in new),
        *(f"~ {each} ({what})" for each, what in changes.items() if what),
    ]
    return found if len(found) <= SHOWN else [*found[:SHOWN], f"and {len(found) - SHOWN} more"]


def _change(before: Target, after: Target) -> str:
    pairs = (
        ("scheme", before.scheme, after.scheme),
        ("name", before.server_name, after.server_name),
        ("weight", before.weight, after.weight),
        ("priority", before.priority, after.priority),
    )
    other = ["metadata"] if before.metadata != after.metadata else []  # what it says may be nobody's business
    return ", ".join([f"{what} {new}" for what, old, new in pairs if old != new] + other)
