"""Where the targets of a service are found out: one file for each kind of place, one small seam for all of them.

Used by the agent alone. A kind is a class with one method, `look`, and a line in `kinds.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final, NamedTuple

from portico.config.balance import Target
from portico.errors import PorticoError

LOOK_LIMIT: Final = 30.0
"""Seconds that a look may take which does not wait for anything new."""


class Found(NamedTuple):
    """The targets of a service, as they are now."""

    targets: tuple[Target, ...]
    again_in: float
    """After how many seconds to look again; 0 where `look` itself waits until there is something new."""
    trouble: str = ""
    """What could not be found out beside them, in the same words for as long as it is the same."""


class DiscoveryFailed(PorticoError):
    """The targets cannot be found out now; what was found before stays. The message says why, in the same words
    for as long as it is for the same reason.
    """

    def __init__(self, why: str, again_in: float | None = None) -> None:
        """Look again in `again_in` seconds; unless given, after longer and longer pauses."""
        super().__init__(why)
        self.again_in = again_in


class Discovery(ABC):
    """Finds out the targets of one service."""

    longest: ClassVar[float | None] = None
    """Seconds that a look may take; None where it waits until there is something new."""

    @abstractmethod
    async def look(self) -> Found:
        """Return the targets, in an order that does not change by itself. Raises DiscoveryFailed.

        It is called again and again, never twice at once. It may wait, for as long as it likes, until there is
        something new; it is cancelled when nobody wants to know any more.
        """
