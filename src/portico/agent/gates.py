"""How many looks there are at the same time: few enough for the machine, and some for every service."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

OWN: Final = 8
"""Looks of each service that never wait for those of others, whose targets may all be silent."""

MOST: Final = 64
"""The most looks of one service."""


class Gates:
    """The gates of all services."""

    def __init__(self, most: int) -> None:
        """Let `most` looks be under way, beside those that are each service's own."""
        self._most = most
        self._under_way = 0
        self._waiting: dict[Gate, None] = {}

    def gate(self) -> Gate:
        """Return the gate of one service."""
        return Gate(self)

    @property
    def full(self) -> bool:
        """Whether only a service's own looks may begin."""
        return self._under_way >= self._most

    def took(self) -> None:
        """Count a look."""
        self._under_way += 1

    def gave(self) -> None:
        """Count it no more, and let those in that wait: one of each service, in turn."""
        self._under_way -= 1
        for gate in tuple(self._waiting):
            if gate.let_in():
                self._waiting.pop(gate, None)
                if gate.has_waiting:
                    self._waiting[gate] = None
            elif not gate.has_waiting:
                self._waiting.pop(gate, None)

    def waits(self, gate: Gate) -> None:
        """Let `gate` know when there is room."""
        self._waiting.setdefault(gate)


class Gate:
    """The gate of one service: `async with` it to look."""

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def has_waiting(self) -> bool:
        """Whether anyone waits here."""
        return bool(self._waiting)

    async def __aenter__(self) -> None:
        """Wait for a turn."""
        if not self._waiting and self._open:
            self._take()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._gates.waits(self)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled():
                self._give()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Let another in."""
        self._give()

    def let_in(self) -> bool:
        """Let one in that waits, if there is room; tell whether there was."""
        while self._waiting and self._open:
            turn = self._waiting.popleft()
            if not turn.done():
                self._take()
                turn.set_result(None)
                return True
        return False

    @property
    def _open(self) -> bool:
        return self._under_way < OWN or (self._under_way < MOST and not self._gates.full)

    def _take(self) -> None:
        self._under_way += 1
        self._gates.took()

    def _give(self) -> None:
        self._under_way -= 1
        self._gates.gave()
