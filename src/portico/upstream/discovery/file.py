"""Targets that a file lists: read again when the file changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from portico.config.balance import Discover, Target
from portico.config.targets import read_targets
from portico.net.pem import Stamp, stamp
from portico.upstream.discovery import LOOK_LIMIT, Discovery, DiscoveryFailed, Found

T = TypeVar("T")

SETTLE: Final = 0.1
"""Seconds for which a changed file has to stay as it is before it is read: it may still be written."""

SHOWN: Final = 3
"""How many mistakes of a file are told."""


class Listed(Discovery):
    """The targets of one file."""

    longest = LOOK_LIMIT

    def __init__(self, discover: Discover) -> None:
        assert discover.file is not None
        self._path = discover.file
        self._interval = discover.interval
        self._read: Stamp = None
        """How the file was when it was read last."""
        self._seen: Stamp = None
        """How it was at the last look."""
        self._result: tuple[Target, ...] | str = ""
        """What was in it: targets, or what is wrong with it; an empty text before it was read."""

        self._reading: asyncio.Future[Any] | None = None
        """What a thread is busy with; a folder of another machine may not answer."""

    async def look(self) -> Found:
        """Return what is in the file; raise DiscoveryFailed where that is no list of targets."""
        before, self._seen = self._seen, await self._read_by(stamp)
        again_in = self._interval
        if self._result == "" or (self._seen == before and self._seen != self._read):
            self._read = self._seen
            self._result = await self._read_by(_result)
        elif self._seen != self._read:
            again_in = min(SETTLE, self._interval)
        if isinstance(self._result, str):
            raise DiscoveryFailed(self._result, again_in)
        return Found(self._result, again_in)

    async def _read_by(self, read: Callable[[str], T]) -> T:
        """Read in a thread: in one at a time, since a look that is given up leaves its thread behind."""
        if self._reading is not None and not self._reading.done():
            await asyncio.shield(self._reading)
        reading = self._reading = asyncio.get_running_loop().run_in_executor(None, read, self._path)
        return await asyncio.shield(reading)


def _result(path: str) -> tuple[Target, ...] | str:
    targets, findings = read_targets(path)
    if findings:
        more = f"; and {len(findings) - SHOWN} more" if len(findings) > SHOWN else ""
        return "; ".join(map(str, findings[:SHOWN])) + more
    return targets or f"{path}:1:1: the list is empty"
