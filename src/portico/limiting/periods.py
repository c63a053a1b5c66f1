"""Periods of the calendar, in which a quota may be used up."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Final, Literal, NamedTuple, TypeAlias

Unit: TypeAlias = Literal["day", "week", "month"]

SHORTEST: Final[dict[Unit, timedelta]] = {
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=28),
}
"""How long each is at least. By less than that a period may begin later than the calendar's."""

LONGEST: Final = timedelta(days=31)
"""How long one is at most."""


class Period(NamedTuple):
    """One period; times are seconds since 1970."""

    name: bytes
    """The day of the calendar at which it begins, but for an offset, and what it is."""
    start: float
    end: float


class Periods:
    """The periods of one kind: days, weeks from Monday on, or months; by the clocks of a time zone."""

    def __init__(self, unit: Unit, zone: tzinfo, offset: float = 0.0) -> None:
        """`offset` are the seconds by which each begins later than its day."""
        self._unit = unit
        self._zone = zone
        self._offset = timedelta(seconds=offset)
        self._now = Period(b"", 0.0, 0.0)

    @staticmethod
    def shortest(unit: Unit) -> float:
        """Return the seconds that a period has at least."""
        return SHORTEST[unit].total_seconds()

    def at(self, now: float) -> Period:
        """Return the period that has a moment in it."""
        period = self._now
        if period.start <= now < period.end:
            return period
        local = datetime.fromtimestamp(now, self._zone).replace(tzinfo=None) - self._offset
        begin = self._begin(local)
        # Where clocks are put back or forward, the moment may be of a neighbour.
        around = (self._begin(begin - timedelta(days=1)), begin, self._after(begin))
        periods = map(self._from, around)
        self._now = period = next(each for each in periods if each.start <= now < each.end)
        return period

    def _begin(self, local: datetime) -> datetime:
        day = local.replace(hour=0, minute=0, second=0, microsecond=0)
        if self._unit == "month":
            return day.replace(day=1)
        return day - timedelta(days=day.weekday()) if self._unit == "week" else day

    def _after(self, begin: datetime) -> datetime:
        return self._begin(begin + (LONGEST if self._unit == "month" else SHORTEST[self._unit]))

    def _from(self, begin: datetime) -> Period:
        start, end = (
            (each + self._offset).replace(tzinfo=self._zone).timestamp() for each in (begin, self._after(begin))
        )
        return Period(f"{self._unit[0]}{begin:%Y%m%d}".encode("ascii"), start, end)
