"""What a service of the file is to those who send it requests, whatever it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from portico.http.message import Request, Response
from portico.upstream.breaker import Breaker
from portico.upstream.target import Target


class Upstream(Protocol):
    """A service with targets of its own, a split among others, or either with a mirror. `handle` is its Handler."""

    @property
    def name(self) -> str:
        """What the file calls it."""
        ...

    @property
    def targets(self) -> Sequence[Target]:
        """Where its requests may end."""
        ...

    @property
    def breaker(self) -> Breaker | None:
        """Its breaker, where it has one of its own."""
        ...

    def well(self, is_well: Callable[[Target], bool]) -> bool:
        """Return whether it can be asked, when `is_well` says how each target is."""
        ...

    def handle(self, request: Request) -> Awaitable[Response]:
        """Answer `request`."""
        ...
