"""Where policies look for consumers: among those of the file, and in a database where there is one."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from portico.config.consumers import Consumer, Credential
from portico.errors import PorticoError


class LookupFailed(PorticoError):
    """It cannot be found out now who is calling; the message says why, in words for the log. Where an authenticator
    lets it pass, the answer is 503."""


class ConsumerLookup(Protocol):
    """Who calls, by what they prove themselves by. Answers that take some waiting are awaitables, which raise
    LookupFailed where it cannot be found out now."""

    @property
    def decoy(self) -> str:
        """A hash to compare the passwords of unknown users with, so that they take as long as known ones."""
        ...

    def by_key(self, digest: bytes) -> Credential | Awaitable[Credential | None] | None:
        """Return whose key has this digest, which `digest_of` makes, also where it has expired."""
        ...

    def by_name(self, name: str) -> Consumer | Awaitable[Consumer | None] | None:
        """Return the consumer of a name."""
        ...
