"""What is kept of a request until its line is made."""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias

from portico.http.forwarded import Client
from portico.http.user import User
from portico.observe.exchange import Exchange

Record: TypeAlias = tuple[Exchange, Client | None, bytes, dict[bytes, bytes], User | None, bytes | None]
"""The exchange; and of its request the client, the target as it was sent, the first values of its headers, the user,
and the correlation id. The client is None for what never became a request."""

LONGEST_URL: Final = 2048
"""Characters of a URL that a line has; the rest is left out, and `…` stands for it."""
LONGEST: Final = 512
"""The same of any other text."""
SHORT: Final = 48
"""The same of each text of a line that would be too long for where it goes."""


class Lines(Protocol):
    """A format: it makes lines of records."""

    def render(self, records: list[Record], wall: float, now: float) -> list[str]:
        """Return a line for each record, without its end; it was `now` by the clock of the records at `wall`."""
        ...

    def shorten(self, record: Record, wall: float, now: float) -> str:
        """Return a line that is short, whatever was sent."""
        ...
