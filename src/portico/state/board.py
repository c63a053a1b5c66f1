"""The board: numbers that all processes of one gateway can read at any time, in memory that they share.

It has four parts, of uint64 slots. In the first three each slot has one writer:

- **words**, which the agent writes. A worker that keeps a copy of something looks at the word of it, and gets it anew
  when the word has changed. `Word` names them.
- a **segment** for each worker, and one for the agent, which the process itself writes: its vitals (`Vital`), which are
  about this process and die with it, and what goes by a name: gauges, which die with it, too, and counters and
  histograms (`portico.state.slots`), which outlive it.
- **totals**, which the supervisor writes: what the counters of processes that have ended came to. A segment is folded
  into them before the next process gets it, so that nothing that was counted is lost, and nothing counted twice.
- **records** by name, which every worker writes (`portico.state.records`): they outlive all but the supervisor.

Reading takes no lock. A slot is written whole; what is read in several slots may be of different moments.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from portico.state import records
from portico.state.records import Record, Records
from portico.state.slots import ABSENT, EXEMPLAR, Histogram, private_slots
from portico.state.slots import Counter as Counter
from portico.state.slots import Mark as Mark

AGENT: Final = 0
"""The segment of the agent; worker n has segment n + 1."""

COUNTERS: Final = 2**18
"""The slots of a segment for what goes by a name. What asks for one more gets one that nobody reads, and
`Vital.OVERFLOW`."""

NAMES: Final = 4 * 1024 * 1024
"""The most bytes that the names of a segment take."""

_MAGIC: Final = 0x504F525449434F03
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_SLOT: Final = 8
_HEAD: Final = 4
"""Slots ahead of the words: what it is, segments, and how often something was folded (twice for each)."""
_WORDS: Final = 28
_NOTHING: Final[Mapping[str, Sequence[int]]] = MappingProxyType({})
_READS: Final = 100
"""How often the counters are read again while something is folded; were it ever so, the last sums would do."""


class Word(IntEnum):
    """What the agent writes for everyone; each is a number that only ever grows."""

    CONFIG = 0
    """The revision of the configuration that all should serve."""
    CREDENTIALS = 2
    """Grows when credentials were taken back, so that what was verified before has to be verified again."""


class Vital(IntEnum):
    """How one process is; each is about the process that runs now. Times are nanoseconds."""

    PID = 0
    STARTED = 1
    """When it started, on the monotonic clock of the machine."""
    BEAT = 2
    """When it was last seen alive, on the same clock: its loop turned then."""
    REVISION = 3
    """The revision of the configuration that it serves; 0 before it serves one."""
    DRAINING = 4
    """1 once it takes no more clients."""
    CONNECTIONS = 5
    """Connections that clients have open."""
    IN_FLIGHT = 6
    """Requests that are being answered."""
    REQUESTS = 7
    """Requests answered since it started."""
    LAG = 8
    """How late the loop was at the last beat."""
    LAG_MAX = 9
    """How late it was at its latest."""
    GC_RUNS = 10
    """Collections of all generations."""
    GC_TIME = 11
    """What they took together."""
    GC_MAX = 12
    """What the longest one took."""
    RETIRED = 13
    """Configurations that are not served any more, but still have requests under way."""
    OVERFLOW = 14
    """Counters that there was no room for."""
    CREDENTIALS_BEAT = 15
    """When the agent last began a look at the database of consumers that was well; 0 where there is none."""
    CREDENTIALS_OF = 16
    """Which database that was: a number made of its name."""
    STORE_HELD = 17
    """Since when its loop has the lock of the store, which all other workers wait for; 0 while it has not. With `WAITS`
    it is since when it waits for it; one that has been stopped just then may have it, and not know yet."""
    STORE_WRITING = 18
    """The same of the thread that writes what may be made anew."""
    STORE_LASTING = 19
    """The same of the thread that writes what has to last, and its lock."""
    STORE_WAIT_MAX = 20
    """What its loop has waited for the store's lock at most."""


WAITS: Final = 1
"""The bit by which a time is of one who waits for a lock."""

_VITALS: Final = 32
_SEGMENT_HEAD: Final = 3
"""Slots ahead of a segment's vitals: how many names it has, how many bytes they take, and how many slots."""

_NAME: Final = "=HHH"
"""What comes ahead of a name: its size, its slots that are summed up over processes, and those that are not."""
_NAME_HEAD: Final = struct.calcsize(_NAME)
_AT_ONCE: Final = 4096


class Reading(NamedTuple):
    """One name on the board, as it was read."""

    name: str
    """As Prometheus writes it, with labels; for a histogram followed by a zero byte and the bounds of its buckets."""
    sums: Sequence[int]
    """What is added up over processes: one number for a counter, and several for a histogram; none for a gauge."""
    own: Sequence[int]
    """What is not: the value of a gauge, or the exemplar of a histogram."""


class Segment:
    """The part of the board that one process writes."""

    __slots__ = ("_counters", "_mine", "_names", "_rooms", "_slots")

    def __init__(self, memory: memoryview) -> None:
        slots = _SEGMENT_HEAD + _VITALS + COUNTERS
        self._slots = memory[: slots * _SLOT].cast("Q")
        self._names = memory[slots * _SLOT :]
        self._counters = self._slots[_SEGMENT_HEAD + _VITALS :]
        self._mine: dict[str, Any] = {}
        self._rooms: dict[str, tuple[int, int]] = {}
        """Where the names of gauges are that may be renamed, and how many bytes they may have."""

    def __getitem__(self, vital: Vital) -> int:
        value: int = self._slots[_SEGMENT_HEAD + vital]
        return value

    def __setitem__(self, vital: Vital, value: int) -> None:
        self._slots[_SEGMENT_HEAD + vital] = value

    def __contains__(self, name: str) -> bool:
        """Return whether this process has something of that name."""
        return name in self._mine

    def raise_to(self, vital: Vital, value: int) -> None:
        """Write `value` where it is more than what is there."""
        if value > self[vital]:
            self[vital] = value

    def mark(self, vital: Vital) -> Mark:
        """Return a vital by itself."""
        return Mark(self._slots, _SEGMENT_HEAD + vital)

    def counter(self, name: str) -> Counter:
        """Return the counter `name`, from 0 on unless this process has it already; only its own process may ask."""
        counter: Counter | None = self._mine.get(name)
        if counter is None:
            at = self._new(name, 1, 0)
            counter = self._mine[name] = Counter.private() if at < 0 else Counter(self._counters, at)
        return counter

    def gauge(self, name: str, room: int = 0) -> Mark:
        """Return the gauge `name`, which ends with its process; only that may ask. What it says at first is nothing.
        With `room` for a name of so many bytes, another may take its place by `rename`."""
        gauge: Mark | None = self._mine.get(name)
        if gauge is None:
            told = name.ljust(room - len(name.encode()) + len(name), "\0") if room else name
            where = self._slots[1] + _NAME_HEAD
            at = self._new(told, 0, 1)
            gauge = self._mine[name] = Mark.private() if at < 0 else Mark(self._counters, at)
            if room and at >= 0:
                self._rooms[name] = (where, len(told.encode()))
        return gauge

    def rename(self, old: str, new: str) -> Mark | None:
        """Have a gauge go by a new name, and say nothing; None where there is no room for that. Its first value is to
        be written a while later: whoever reads the board just now may have the old name in hand."""
        at, room = self._rooms.get(old, (0, 0))
        told = new.encode()
        if len(told) > room or new in self._mine:
            return None
        gauge: Mark = self._mine.pop(old)
        gauge.write(ABSENT)
        self._names[at : at + room] = told.ljust(room, b"\0")
        del self._rooms[old]
        self._rooms[new] = (at, room)
        self._mine[new] = gauge
        return gauge

    def histogram(self, name: str, bounds: Sequence[float], scale: int) -> Histogram:
        """Return the histogram `name` with these upper bounds, which is another one than with others; only its own
        process may ask. Its sum has `scale` to the unit."""
        full = f"{name}\0{','.join(map(repr, bounds))}"
        histogram: Histogram | None = self._mine.get(full)
        if histogram is None:
            upper = list(bounds)
            at = self._new(full, len(upper) + 2, EXEMPLAR)
            if at < 0:
                histogram = Histogram.private(upper, scale)
            else:
                histogram = Histogram(self._counters, at, upper, scale)
            self._mine[full] = histogram
        return histogram

    @property
    def nearly_full(self) -> bool:
        """Whether nine tenths of its room are taken: what nobody needs is not to be added."""
        return bool(self._slots[2] > COUNTERS * 9 // 10 or self._slots[1] > NAMES * 9 // 10)

    def _new(self, name: str, sums: int, own: int) -> int:
        """Return where the slots of a new name are; -1 where there is no room."""
        told = name.encode()
        count, used, at = self._slots[0], self._slots[1], self._slots[2]
        end = used + _NAME_HEAD + len(told)
        if at + sums + own > COUNTERS or end > NAMES or len(told) > 0xFFFF:
            self[Vital.OVERFLOW] += 1
            return -1
        self._counters[at] = ABSENT if not sums else 0
        self._names[used:end] = struct.pack(_NAME, len(told), sums, own) + told
        self._slots[1] = end
        self._slots[2] = at + sums + own
        self._slots[0] = count + 1  # last: who reads this count finds the names
        return int(at)

    def add(self, name: str, sums: Sequence[int]) -> None:
        """Add to what is summed up under a name, which may be new here; only its own process may."""
        at: int | None = self._mine.get(name)
        if at is None:
            own = EXEMPLAR if len(sums) > 1 else 0
            at = self._mine[name] = self._new(name, len(sums), own)
        if at >= 0:
            for number, value in enumerate(sums, at):
                self._counters[number] += value

    def readings(self) -> Iterator[Reading]:
        """Yield what is there by each name."""
        at = slot = 0
        for _ in range(self._slots[0]):
            size, sums, own = struct.unpack_from(_NAME, self._names, at)
            start, middle = at + _NAME_HEAD, slot + sums
            at, slot = start + size, middle + own
            # A reader that is overtaken by the next process of the segment may see half a name; it will read again.
            name = bytes(self._names[start:at]).rstrip(b"\0").decode(errors="replace")
            yield Reading(name, self._counters[middle - sums : middle].tolist(), self._counters[middle:slot].tolist())

    def counters(self) -> Iterator[tuple[str, int]]:
        """Yield each counter's name and value."""
        for name, sums, _ in self.readings():
            if len(sums) == 1:
                yield name, sums[0]

    def vitals(self) -> dict[Vital, int]:
        """Return all vitals."""
        return {vital: self[vital] for vital in Vital}

    def begin(self, pid: int, now: int) -> None:
        """Make it the segment of a process that has just started."""
        used = min(self._slots[2], COUNTERS)
        self._slots[0] = 0
        self._slots[1] = 0
        self._slots[2] = 0
        self._mine.clear()
        self._rooms.clear()
        for at in range(_SEGMENT_HEAD, _SEGMENT_HEAD + _VITALS):
            self._slots[at] = 0
        for at in range(0, used, _AT_ONCE):
            piece = min(_AT_ONCE, used - at)
            self._counters[at : at + piece] = private_slots(piece)
        self[Vital.STARTED] = now
        self[Vital.PID] = pid

    def release(self) -> None:
        """Let go of the memory."""
        self._mine.clear()
        for view in (self._counters, self._slots, self._names):
            view.release()


_SEGMENT_SIZE: Final = (_SEGMENT_HEAD + _VITALS + COUNTERS) * _SLOT + NAMES


class Board:
    """The memory that the processes of one gateway share. Its file descriptor is what they pass on."""

    def __init__(self, descriptor: int) -> None:
        """Map the board behind `descriptor`, which stays the caller's: to close before it asks for a record, or never.

        Raises ValueError where it is none.
        """
        size = os.fstat(descriptor).st_size
        head = (_HEAD + _WORDS) * _SLOT
        start = head + records.SIZE
        magic, count = struct.unpack("=QQ", os.pread(descriptor, 2 * _SLOT, 0).ljust(2 * _SLOT, b"\0"))
        if magic != _MAGIC or size != start + (1 + count) * _SEGMENT_SIZE:
            raise ValueError("this is no board, or one of another version")
        self._map = mmap.mmap(descriptor, size)
        self._memory = memoryview(self._map)
        self._head = self._memory[:head].cast("Q")
        self._records = Records(self._memory[head:start], descriptor, head)
        parts = [self._memory[at : at + _SEGMENT_SIZE] for at in range(start, size, _SEGMENT_SIZE)]
        self._totals = Segment(parts[0])
        self._segments = [Segment(part) for part in parts[1:]]

    @staticmethod
    def create(workers: int) -> int:
        """Return the descriptor of a new board, for an agent and at most so many workers; only pages in use take
        memory.
        """
        size = (_HEAD + _WORDS) * _SLOT + records.SIZE + (workers + 2) * _SEGMENT_SIZE
        descriptor = shared_file("portico-board", struct.pack("=QQ", _MAGIC, workers + 1))
        os.ftruncate(descriptor, size)
        return descriptor

    @property
    def workers(self) -> int:
        """How many workers it has room for."""
        return len(self._segments) - 1

    def segment(self, number: int) -> Segment:
        """Return the segment of the agent (`AGENT`), or of worker n (n + 1)."""
        return self._segments[number]

    def record(self, name: str) -> Record:
        """Return the record of that name, which all processes share."""
        return self._records.record(name)

    def word(self, word: Word) -> int:
        """Return a word; it is a few hundredths of a microsecond."""
        value: int = self._head[_HEAD + word]
        return value

    def set_word(self, word: Word, value: int) -> None:
        """Write a word; only the agent may."""
        self._head[_HEAD + word] = value

    def bump(self, word: Word) -> int:
        """Add one to a word, and return it; only the agent may."""
        value = self.word(word) + 1
        self.set_word(word, value)
        return value

    def fold(self, number: int) -> None:
        """Add the counters of a process that has ended to the totals, and empty its segment; only the supervisor may.

        Who reads `counters` meanwhile reads again.
        """
        segment = self._segments[number]
        self._head[2] += 1
        for name, sums, _ in segment.readings():
            if any(sums):
                self._totals.add(name, sums)
        segment.begin(0, 0)
        self._head[2] += 1

    def add_totals(self, counters: Mapping[str, int], histograms: Mapping[str, Sequence[int]] = _NOTHING) -> None:
        """Add what a board before this one has counted; only the supervisor may."""
        for name, value in counters.items():
            self._totals.add(name, (value,))
        for name, sums in histograms.items():
            self._totals.add(name, sums)

    def counters(self) -> dict[str, int]:
        """Return the sums of all counters, over the processes that run and those that have ended."""
        return {name: sums[0] for name, sums in self._sums().items() if len(sums) == 1}

    def histograms(self) -> dict[str, list[int]]:
        """Return the same of all histograms."""
        return {name: sums for name, sums in self._sums().items() if len(sums) > 1}

    def _sums(self) -> dict[str, list[int]]:
        steps = self.reading()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                readings: dict[str, list[Reading]] = end.value
                return {name: added for name, each in readings.items() if (added := summed(each))}

    def reading(self) -> Generator[None, None, dict[str, list[Reading]]]:
        """Read everything that goes by a name, in small steps; return the readings of all processes, those that have
        ended together as one, by name."""
        found: dict[str, list[Reading]] = {}
        for _ in range(_READS):
            before = self._head[2]
            found = {}
            for segment in (self._totals, *self._segments):
                for reading in segment.readings():
                    found.setdefault(reading.name, []).append(reading)
                    yield
            if before % 2 == 0 and before == self._head[2]:
                break
        return found

    def close(self) -> None:
        """Let go of the memory; those that still have it keep it."""
        for segment in (self._totals, *self._segments):
            segment.release()
        self._records.close()
        self._head.release()
        self._memory.release()
        with contextlib.suppress(BufferError):  # a counter or a record that somebody still has keeps it
            self._map.close()


def summed(readings: Sequence[Reading]) -> list[int]:
    """Return the sums of what was read by one name; nothing of gauges."""
    if len(readings) == 1:
        return list(readings[0].sums)
    return [sum(values) for values in zip(*(reading.sums for reading in readings), strict=False)]


def counter_name(name: str, labels: Mapping[str, str]) -> str:
    """Return the name of a counter with labels, as Prometheus writes it: `requests_total{route="orders"}`."""
    if not labels:
        return name
    said = [f'{label}="{value.translate(_ESCAPES)}"' for label, value in sorted(labels.items())]
    return f"{name}{{{','.join(said)}}}"


def shared_file(name: str, content: bytes) -> int:
    """Return the descriptor of a new file of memory, for other processes to get; on macOS it is one without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    return descriptor
