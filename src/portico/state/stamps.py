"""Stamps: what tells all workers of a machine that what they have in memory of the store is good no more.

They are numbers in a file of memory beside the store, and so whoever shares the one shares the other: the workers from
before an upgrade, and those of another gateway of the same file, too. Every process reads and writes them, without a
lock. What is read has no meaning but that it has changed.
"""

from __future__ import annotations

import mmap
import os
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Final
from zlib import crc32

from portico.errors import ConfigError

PLACES: Final = 4096
"""Slots for places. Two places may have the same one: then what is said of one of them is said of both."""

EVERYTHING: Final = 0
"""The slot that changes when something was purged; those of places are the ones behind it."""

_SLOT: Final = 8
_SIZE: Final = (1 + PLACES) * _SLOT
_FILE: Final = "stamps-v1"
"""Of another version, where slots are another number, or found in another way."""


class Stamps:
    """The stamps of one machine."""

    __slots__ = ("_map", "_memory", "_now", "_slots", "at")

    def __init__(self, memory: mmap.mmap, now: Callable[[], int] = time.monotonic_ns) -> None:
        self._map = memory
        self._memory = memoryview(memory)
        self._slots = self._memory.cast("Q")
        self._now = now
        self.at: Callable[[int], int] = self._slots.__getitem__
        """Returns a stamp; each hit of a cache asks for one, and so it is no method of ours."""

    @classmethod
    def private(cls) -> Stamps:
        """Return some that no other process has."""
        return cls(mmap.mmap(-1, _SIZE))

    @classmethod
    def open(cls, folder: Path) -> Stamps:
        """Return those of the store that has its files in this folder. Raises ConfigError."""
        file = folder / _FILE
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _reserve(descriptor)
                return cls(mmap.mmap(descriptor, _SIZE))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ConfigError(f"{file} cannot be opened: {error.strerror}") from None

    @staticmethod
    def slot(place: bytes) -> int:
        """Return the number of a place's slot, the same one in all processes."""
        return 1 + crc32(place) % PLACES

    def __getitem__(self, slot: int) -> int:
        value: int = self._slots[slot]
        return value

    def change(self, slot: int) -> None:
        """Change one stamp.

        Where two processes do so at once, either of them is a change to all who have read it before.
        """
        self._slots[slot] = max(self._now(), self._slots[slot] + 1)

    def change_all(self) -> None:
        """Change all stamps. One that is read half changed is changed once more, and that does no harm."""
        stamp = max(self._now(), max(self._slots) + 1)
        self._slots[EVERYTHING] = stamp  # first: who sees that of a place changed does not believe what it remembers
        self._slots[EVERYTHING + 1 :] = memoryview(array("Q", [stamp]) * PLACES)

    def close(self) -> None:
        """Let go of the memory."""
        self._slots.release()
        self._memory.release()
        self._map.close()


def _reserve(descriptor: int) -> None:
    """Give the file its size where it has none yet, all zeros; never cut it, as others may have it in their memory."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, _SIZE)  # a page that cannot be had later would end the process
    elif os.fstat(descriptor).st_size < _SIZE:
        os.truncate(descriptor, _SIZE)
