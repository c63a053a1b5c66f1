"""Where policies look for consumers: among those of the file, and in a database where there is one."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from portico.config.consumers import Consumer, Credential
from portico.errors import PorticoError
from portico.http.user import User


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


class ConsumerUsers:
    """Consumers as the users that a policy has found out. To make one takes longer than all else; so those used are
    kept at hand, each for as long as it is the same consumer."""

    __slots__ = ("_kind", "_made", "_most")

    def __init__(self, kind: str, most: int) -> None:
        self._kind = kind
        self._most = most
        self._made: dict[str, tuple[Consumer, User]] = {}

    def of(self, consumer: Consumer) -> User:
        """Return a consumer as a user."""
        kept, user = self._made.get(consumer.name, (None, None))
        if kept is not consumer or user is None:
            user = consumer.user(self._kind)
            if len(self._made) >= self._most:
                self._made.clear()
            self._made[consumer.name] = consumer, user
        return user

    def __len__(self) -> int:
        return len(self._made)
