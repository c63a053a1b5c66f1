"""How a worker knows, without asking the store, that what it remembers still holds: by two words of the board.

The agent looks at the store every `INTERVAL`. Where anything has changed it adds one to `Word.CREDENTIALS`; after each
look it writes when that began (`Vital.CREDENTIALS_BEAT`), and of which store (`Vital.CREDENTIALS_OF`). While these are
young, what was read at the present generation holds. Where they are not, because the agent has died, hangs, or looks at
another store, there is no generation, and nothing that is remembered may be believed for long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from portico.consumers.store import number_of
from portico.state.board import AGENT, Board, Vital, Word

INTERVAL: Final = 0.3
"""Seconds between two looks of the agent."""
SILENCE: Final = 0.6
"""Seconds after the beginning of a look from which on nobody is believed to look."""


class Generation:
    """The generation of what is in a store, as a worker sees it."""

    __slots__ = ("_agent", "_board", "_now", "_number")

    def __init__(self, board: Board, location: str, now: Callable[[], int] = time.monotonic_ns) -> None:
        self._board = board
        self._agent = board.segment(AGENT)
        self._number = number_of(location)
        self._now = now

    def __call__(self) -> int | None:
        """Return it, or None where nobody looks for changes."""
        agent = self._agent
        if agent[Vital.CREDENTIALS_OF] != self._number:
            return None
        if self._now() - agent[Vital.CREDENTIALS_BEAT] > SILENCE * 1e9:
            return None
        return self._board.word(Word.CREDENTIALS)  # last: the agent writes it ahead of the others


def announce(board: Board, location: str, began: int, *, changed: bool) -> None:
    """Tell the workers of a look that began at `began`, in nanoseconds of the monotonic clock; only the agent may."""
    agent = board.segment(AGENT)
    number = number_of(location)
    if agent[Vital.CREDENTIALS_OF] != number:
        agent[Vital.CREDENTIALS_BEAT] = 0  # the last look was at another store
        agent[Vital.CREDENTIALS_OF] = number
        changed = True
    if changed:
        board.bump(Word.CREDENTIALS)
    agent[Vital.CREDENTIALS_BEAT] = began


def nobody_looks() -> None:
    """Stand for the generation where there is no agent."""
