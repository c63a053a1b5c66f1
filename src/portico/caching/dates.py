"""Dates of HTTP (RFC 9110 section 5.6.7), as seconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Final

_MONTHS: Final = (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec")
_MONTH: Final = rb"(?P<month>" + b"|".join(_MONTHS) + rb")"
_TIME: Final = rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_FORMS: Final = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rb"[a-z]{3}, (?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _TIME + rb" GMT",
        rb"[a-z]{6,9}, (?P<day>\d\d)-" + _MONTH + rb"-(?P<year>\d\d) " + _TIME + rb" GMT",
        rb"[a-z]{3} " + _MONTH + rb" (?P<day>[ \d]\d) " + _TIME + rb" (?P<year>\d{4})",
    )
)
_LONGEST: Final = 40


def parse_date(value: bytes, now: float) -> float | None:
    """Return the time that a date in one of HTTP's three forms stands for, or None.

    Another zone than GMT is not guessed at, and so an Expires that has one is in the past; nginx takes every zone for
    GMT. `now` tells the century of a year that is written with two digits.
    """
    if len(value) > _LONGEST:
        return None
    for form in _FORMS:
        match = form.fullmatch(value)
        if match is not None:
            return _time(match, now)
    return None


def write_date(time: float) -> bytes:
    """Return a time in the form that is sent."""
    return formatdate(int(time), usegmt=True).encode("ascii")


def _time(match: re.Match[bytes], now: float) -> float | None:
    year, day, hour, minute, second = map(int, match.group("year", "day", "hour", "minute", "second"))
    month = _MONTHS.index(match["month"].lower()) + 1
    if len(match["year"]) == 2:
        this_year = datetime.fromtimestamp(now, UTC).year
        year += this_year - this_year % 100
        if year > this_year + 50:  # what seems to be more than 50 years ahead is of the last century
            year -= 100
    if second == 60:  # a leap second
        second = 59
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None
