"""How much a request counts, as far as that is known when it comes, and as its answer tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from portico.http.headers import Headers
from portico.http.message import Request
from portico.limiting.settings import Cost
from portico.policy.condition import Expression

_DIGITS: Final = 15
"""Of a number that is read; a longer one is as much as there may be."""


def number_in(text: str | bytes | None) -> int | None:
    """Return the number that is written in digits alone, or None."""
    if text is None or not text.isdigit() or not text.isascii():
        return None
    return int(text) if len(text) <= _DIGITS else 10**_DIGITS


class Costs:
    """Reads costs."""

    __slots__ = ("_header", "_most", "_read", "_strip", "before", "constant", "learns")

    def __init__(self, cost: Cost) -> None:
        self._most = cost.most
        self.constant = cost.before if isinstance(cost.before, int) else 1
        """What a request counts for which nothing else is said."""
        self.before: Callable[[Request], int] | None = None
        """Returns what a request counts when it comes; None where that is the same for all."""
        if isinstance(cost.before, str):
            self._read = Expression(cost.before).read
            self.before = self._said
        self._header = b"" if cost.header is None else cost.header.lower().encode("ascii")
        self._strip = cost.strip
        self.learns = cost.header is not None
        """Whether answers tell."""

    def _said(self, request: Request) -> int:
        said = number_in(self._read(request))
        return self.constant if said is None else min(said, self._most)

    def beyond(self, headers: Headers, counted: int) -> int:
        """Return what an answer says that its request has cost beyond what was counted; 0 where it says nothing that
        can be read."""
        said = number_in((headers.get(self._header) or b"").strip(b" \t"))
        if self._strip:
            headers.remove(self._header)
        return 0 if said is None else max(0, min(said, self._most) - counted)
