"""One access log: it gathers records, and makes lines of them behind the requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from portico.exporters.access_log.losses import Losses
from portico.exporters.access_log.record import Lines, Record
from portico.exporters.access_log.ways import Way

LINGER: Final = 0.1
"""Seconds that a record waits for others."""
BATCH: Final = 128
"""Records of which lines are made at once: they hold up the loop for a fraction of a millisecond."""
_WIDEST: Final = 4
"""Bytes of a character of UTF-8, at most."""


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """Have it not happen."""
        ...


class Log:
    """One format, and one way."""

    def __init__(
        self,
        lines: Lines,
        way: Way,
        losses: Losses,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        """`later` calls something after so many seconds of the loop."""
        self._lines = lines
        self._way = way
        self._losses = losses
        self._clock = clock
        self._wall = wall
        self._later = later
        self._records: list[Record] = []
        self._timer: Timer | None = None

    def keep(self, record: Record) -> None:
        """Have a line for a record, soon."""
        records = self._records
        records.append(record)
        count = len(records)
        if count == 1:
            self._timer = self._later(LINGER, self.flush)
        elif count >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Make lines of what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        records, self._records = self._records, []
        if not records:
            return
        wall, now = self._wall(), self._clock()
        lines = self._lines.render(records, wall, now)
        longest = self._way.longest
        for at, line in enumerate(lines):
            if len(line) * _WIDEST >= longest and len(line.encode("utf-8", "backslashreplace")) >= longest:
                lines[at] = self._lines.shorten(records[at], wall, now)
        refused = self._way.send(lines)
        if refused:
            self._losses.add(refused, "they are not taken as fast as they come")

    def reopen(self) -> None:
        """Have its file opened anew."""
        self.flush()
        self._way.reopen()

    def close(self) -> None:
        """Have what there is written, and take no more."""
        self.flush()
        self._way.close()

    def finish(self, seconds: float) -> None:
        """Wait so long for what is still to be written, after `close`."""
        lost = self._way.finish(seconds)
        if lost:
            self._losses.add(lost, "they were not taken in time at the end")
