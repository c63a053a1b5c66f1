from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portico.limiting.periods import SHORTEST, Periods, Unit

ZURICH = ZoneInfo("Europe/Zurich")
DAY = 86400.0
ZONES = ["UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"]


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("unit", "zone", "offset", "now", "name", "start", "end"),
    [
        ("day", "UTC", 0, "2026-12-01T00:00:00", "d20261201", "2026-12-01T00:00:00", "2026-12-02T00:00:00"),
        ("day", "UTC", 0, "2026-12-01T23:59:59.999", "d20261201", "2026-12-01T00:00:00", "2026-12-02T00:00:00"),
        ("day", "UTC", 3600 * 6, "2026-12-01T05:59:59", "d20261130", "2026-11-30T06:00:00", "2026-12-01T06:00:00"),
        ("week", "UTC", 0, "2026-12-01T12:00:00", "w20261130", "2026-11-30T00:00:00", "2026-12-07T00:00:00"),
        ("week", "UTC", 6 * DAY, "2026-12-01T12:00:00", "w20261123", "2026-11-29T00:00:00", "2026-12-06T00:00:00"),
        ("month", "UTC", 0, "2026-12-31T23:00:00", "m20261201", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("month", "UTC", 0, "2028-02-29T23:00:00", "m20280201", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
        ("month", "UTC", 14 * DAY, "2026-12-14T23:00:00", "m20261101", "2026-11-15T00:00:00", "2026-12-15T00:00:00"),
        ("month", "Europe/Zurich", 0, "2026-12-01T00:30:00", "m20261201", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("day", "Europe/Zurich", 0, "2026-10-25T12:00:00", "d20261025", "2026-10-25T00:00:00", "2026-10-26T00:00:00"),
        ("day", "Europe/Zurich", 0, "2026-03-29T12:00:00", "d20260329", "2026-03-29T00:00:00", "2026-03-30T00:00:00"),
    ],
)
def test_a_period_of_the_calendar(
    unit: Unit, zone: str, offset: float, now: str, name: str, start: str, end: str
) -> None:
    period = Periods(unit, ZoneInfo(zone), offset).at(at(now, zone))
    assert period == (name.encode(), at(start, zone), at(end, zone))


def test_a_day_on_which_clocks_are_changed_is_longer_or_shorter() -> None:
    periods = Periods("day", ZURICH)
    hours = []
    for day in ("2026-03-29", "2026-10-25", "2026-10-26"):
        period = periods.at(at(f"{day}T12:00:00", "Europe/Zurich"))
        hours.append((period.end - period.start) / 3600)
    assert hours == [23, 25, 24]


@settings(deadline=None)
@example("day", "Pacific/Apia", 0, 0, 1_325_160_000, [86_400])  # where a day was left out
@given(
    st.sampled_from(["day", "week", "month"]),
    st.sampled_from(ZONES),
    st.integers(0, 86399),
    st.integers(0, 27),
    st.integers(1_230_000_000, 2_100_000_000),
    st.lists(st.integers(-3 * 86400, 40 * 86400), max_size=20),
)
def test_every_moment_is_of_one_period_and_the_next_begins_where_it_ends(
    unit: Unit, zone: str, seconds: int, days: int, first: int, steps: list[int]
) -> None:
    offset = min(seconds + days * DAY, SHORTEST[unit].total_seconds() - 1)
    periods, fresh = Periods(unit, ZoneInfo(zone), offset), Periods(unit, ZoneInfo(zone), offset)
    now = float(first)
    for step in [0, *steps]:
        now += step
        period = periods.at(now)
        assert period.start <= now < period.end
        assert fresh.at(period.end).start == period.end
        assert fresh.at(period.end - 0.001) == period
        assert fresh.at(period.end).name != period.name
        long = timedelta(seconds=period.end - period.start)
        assert SHORTEST[unit] - timedelta(days=1, hours=2) <= long <= timedelta(days=33)
