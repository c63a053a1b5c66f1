"""Records by name on the board: what every worker of the machine both reads and writes, such as the state of a breaker.

A record is a few uint64 slots and a line of text. Unlike the rest of the board it has many writers, so whoever keeps
something in one has to encode it so that no race does harm: a slot is written whole, but between reading and writing it
another process may write it, too. What must happen exactly once, or at most so many times at once, takes one of the
record's `places`: locks that never wait, and that a process which dies gives back.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import struct
from typing import Final

logger = logging.getLogger("portico.state")

RECORDS: Final = 1024
"""The most records. What asks for one more gets a record of its own process."""

SLOTS: Final = 22
"""The slots of a record."""

PLACES: Final = 32
"""The places of a record."""

_SLOT: Final = 8
_KEY: Final = 2
"""Slots ahead of the others: a digest of the name. The second one is never 0 once the record is somebody's."""
_TEXT: Final = 256
"""Bytes for the text, two for its length among them."""
_RECORD: Final = (_KEY + SLOTS) * _SLOT + _TEXT
_HEAD: Final = 64
"""Bytes ahead of the records; the lock for making one is on the first of them."""

SIZE: Final = _HEAD + RECORDS * _RECORD
"""Bytes that the records take; only pages in use take memory."""


class Record:
    """A few numbers and a line of text that go by a name."""

    __slots__ = ("_file", "_held", "_start", "_text", "slots")

    def __init__(self, slots: memoryview, text: memoryview, file: int = -1, start: int = 0) -> None:
        """`file` and `start` are where its places are to be locked; without a file there are no other processes."""
        self.slots = slots
        """Numbers of 64 bits, all 0 at first; there are `SLOTS` of them."""
        self._text = text
        self._file = file
        self._start = start
        self._held: set[int] = set()

    @classmethod
    def private(cls) -> Record:
        """Return a record that no other process has."""
        return cls(memoryview(bytearray(SLOTS * _SLOT)).cast("Q"), memoryview(bytearray(_TEXT)))

    @property
    def text(self) -> str:
        """The text; one that is being written meanwhile may be half of each."""
        size = min(int.from_bytes(self._text[:2], "little"), _TEXT - 2)
        return bytes(self._text[2 : 2 + size]).decode(errors="replace")

    @text.setter
    def text(self, text: str) -> None:
        content = text.encode()[: _TEXT - 2].decode(errors="ignore").encode()
        self._text[:2] = b"\0\0"
        self._text[2 : 2 + len(content)] = content
        self._text[:2] = len(content).to_bytes(2, "little")

    def take(self, place: int) -> bool:
        """Take a place, unless somebody has it; never waits. It is given back when this process ends, however it does.

        Locks of a file do not exclude the process that has them, so what this one has is kept in mind.
        """
        if place in self._held:
            return False
        if self._file >= 0:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._start + place)
            except (BlockingIOError, PermissionError):  # either may be what a system says (POSIX, fcntl)
                return False
        self._held.add(place)
        return True

    def give_back(self, place: int) -> None:
        """Give a place back that was taken."""
        self._held.remove(place)
        if self._file >= 0:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._start + place)


class PrivateRecords:
    """Records for what is no worker: a check, a test."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def record(self, name: str) -> Record:
        """Return the record of that name."""
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = Record.private()
        return record


class Records:
    """The records of a board, as one process sees them.

    The descriptor of the locks is a copy, and nobody else's: closing *any* descriptor of a file drops all locks that a
    process has on it. So while places are taken, no other descriptor of the board may be closed.
    """

    __slots__ = ("_file", "_keys", "_memory", "_mine", "_start", "_told")

    def __init__(self, memory: memoryview, descriptor: int, start: int) -> None:
        """`memory` begins at byte `start` of the board behind `descriptor`."""
        self._memory = memory
        self._keys = memory[_HEAD:].cast("Q")
        self._file = os.dup(descriptor)
        self._start = start
        self._mine: dict[str, Record] = {}
        self._told = False

    def record(self, name: str) -> Record:
        """Return the record of that name, the same object each time; made, all zeros, where there is none.

        Making one waits for other processes that do, which takes them microseconds. Where there is no room, it is a
        record of this process alone.
        """
        record = self._mine.get(name)
        if record is None:
            record = self._mine[name] = self._shared(name)
        return record

    def _shared(self, name: str) -> Record:
        low, high = struct.unpack("=QQ", hashlib.blake2b(name.encode(), digest_size=16).digest())
        high |= 1
        number, found = self._find(low, high)
        if not found:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self._start)
            try:
                number, found = self._find(low, high)
                if number >= 0 and not found:
                    at = number * _RECORD // _SLOT
                    self._keys[at] = low
                    self._keys[at + 1] = high  # last: from now on it is found, and it has been all zeros ever since
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._start)
        if number < 0:
            if not self._told:
                self._told = True
                logger.warning("the board has no room for more than %d records: workers do not share them all", RECORDS)
            return Record.private()
        start = _HEAD + number * _RECORD
        text = start + (_KEY + SLOTS) * _SLOT
        slots = self._memory[start + _KEY * _SLOT : text].cast("Q")
        return Record(slots, self._memory[text : start + _RECORD], self._file, self._start + start)

    def _find(self, low: int, high: int) -> tuple[int, bool]:
        """Return the record's number and whether it is there already; a number of -1 where there is no room.

        Records are never taken away, so that a search ends at the first free one.
        """
        keys = self._keys
        for step in range(RECORDS):
            number = (low + step) % RECORDS
            at = number * _RECORD // _SLOT
            if keys[at + 1] == 0:
                return number, False
            if keys[at + 1] == high and keys[at] == low:
                return number, True
        return -1, False

    def close(self) -> None:
        """Let go of the memory, where nobody else has it, and of all places."""
        self._mine.clear()
        self._keys.release()
        self._memory.release()
        os.close(self._file)
