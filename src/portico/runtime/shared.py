"""What outlives a reload: values leased by key, closed when no runtime leases them any more."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from portico.policy.base import Closable, Shared

logger = logging.getLogger("portico.runtime")


class Leases:
    """All leased values of one worker, with the number of runtimes that hold each."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], tuple[Closable, int]] = {}

    def lease(self) -> Lease:
        """Return the leases of one runtime, none yet."""
        return Lease(self)

    def take(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """Return the value under `key` for one more holder."""
        value, holders = self._held.get(key) or (make(), 0)
        self._held[key] = (value, holders + 1)
        return value

    def give_back(self, key: tuple[object, ...]) -> None:
        """End one holder's lease; the last one closes the value."""
        value, holders = self._held[key]
        if holders > 1:
            self._held[key] = (value, holders - 1)
        else:
            del self._held[key]
            try:
                value.close()
            except Exception:  # a plugin's mistake must not keep the others from closing
                logger.exception("what was shared as %r could not be closed", key)

    def __len__(self) -> int:
        return len(self._held)


class Lease:
    """What one runtime has leased; a runtime holds each value once, however often it asks for it."""

    __slots__ = ("_leases", "_values")

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._values: dict[tuple[object, ...], Any] = {}

    def share(self, key: tuple[object, ...], make: Callable[[], Shared]) -> Shared:
        """Return the value under `key`, made where no runtime of this worker holds it yet."""
        if key not in self._values:
            self._values[key] = self._leases.take(key, make)
        value: Shared = self._values[key]
        return value

    def give_back(self, key: tuple[object, ...]) -> None:
        """Give one value back ahead of the others."""
        del self._values[key]
        self._leases.give_back(key)

    def __len__(self) -> int:
        return len(self._values)

    def close(self) -> None:
        """Give everything back."""
        values, self._values = self._values, {}
        for key in values:
            self._leases.give_back(key)
