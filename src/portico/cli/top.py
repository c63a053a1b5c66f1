"""What `portico top` shows: the routes of a gateway with their rates, errors and times, and its services, anew every
few seconds. It is made of what `/metrics` and `portico status` tell, so that whoever looks costs no request anything.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TextIO, TypeAlias

from portico.observe.metrics import CONNECTIONS, DURATION, IN_FLIGHT, NONE, REQUESTS

HOME: Final = "\x1b[H"
CLEAR: Final = "\x1b[J"
_END_OF_LINE: Final = "\x1b[K"
OTHER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"
THIS_SCREEN: Final = "\x1b[?25h\x1b[?1049l"
"""The terminal's other screen, without a cursor, and the way back."""

QUANTILES: Final = (0.5, 0.95, 0.99)

_SAMPLE: Final = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
_LABEL: Final = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
_BUCKET: Final = f"{DURATION.name}_bucket"
_UNCUT: Final = (10_000, 10_000)
"""The columns and lines of what is no terminal."""
_UNLIMITED: Final = float("inf")

Look: TypeAlias = Callable[[], tuple[str, Mapping[str, Any]]]
"""Returns what `/metrics` and `portico status` tell now."""

Key: TypeAlias = tuple[str, str]
"""A route's first path, and its service."""


class Counted(NamedTuple):
    """What was counted up to a moment."""

    at: float
    requests: dict[Key, dict[str, float]]
    """By route and status."""
    buckets: dict[Key, dict[float, float]]
    """By route and upper bound, each with all below it."""
    connections: float
    in_flight: float


class Row(NamedTuple):
    """One route, between two moments."""

    path: str
    service: str
    rate: float
    """Requests each second."""
    refused: float
    failed: float
    """Shares of 4xx, and of 5xx, from 0 to 1."""
    times: tuple[float | None, ...]
    """Seconds in which as many as QUANTILES say have ended; None where none has."""


def read_metrics(text: str, at: float) -> Counted:
    """Return what the text of `/metrics` says at a moment."""
    requests: dict[Key, dict[str, float]] = {}
    buckets: dict[Key, dict[float, float]] = {}
    gauges = {CONNECTIONS.name: 0.0, IN_FLIGHT.name: 0.0}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None or not match[1].startswith(("http_", IN_FLIGHT.name)):
            continue
        name, value = match[1], float(match[3])
        labels = {label[1]: label[2] for label in _LABEL.finditer(match[2] or "")}
        key = labels.get("endpoint", ""), labels.get("service", "")
        if name == REQUESTS.name:
            by_status = requests.setdefault(key, {})
            by_status[labels["status"]] = by_status.get(labels["status"], 0.0) + value
        elif name == _BUCKET:
            bound = _UNLIMITED if labels["le"] == "+Inf" else float(labels["le"])
            by_bound = buckets.setdefault(key, {})
            by_bound[bound] = by_bound.get(bound, 0.0) + value
        elif name in gauges:
            gauges[name] += value
    return Counted(at, requests, buckets, *gauges.values())


def rows_of(before: Counted, now: Counted) -> list[Row]:
    """Return the routes that had requests between two moments, the busiest first."""
    seconds = max(now.at - before.at, 1e-9)
    rows = []
    for key, by_status in now.requests.items():
        earlier = before.requests.get(key, {})
        new = {status: max(0.0, count - earlier.get(status, 0.0)) for status, count in by_status.items()}
        total = sum(new.values())
        if total:
            shares = [sum(n for status, n in new.items() if status.startswith(digit)) / total for digit in "45"]
            times = _times(before.buckets.get(key, {}), now.buckets.get(key, {}))
            rows.append(Row(*key, total / seconds, shares[0], shares[1], times))
    return sorted(rows, key=lambda row: (-row.rate, row.path, row.service))


def _times(before: Mapping[float, float], now: Mapping[float, float]) -> tuple[float | None, ...]:
    new = [(bound, max(0.0, count - before.get(bound, 0.0))) for bound, count in sorted(now.items())]
    return tuple(quantile(new, share) for share in QUANTILES)


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Return in what time `share` of all have ended, as Prometheus' `histogram_quantile` does: as if those of one
    bucket were spread evenly over it. Beyond the last bound it is that bound."""
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        return None
    wanted = share * total
    lower, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if bound == _UNLIMITED:
                return lower
            inside = count - below
            return bound if not inside else lower + (bound - lower) * (wanted - below) / inside
        lower, below = bound, count
    return lower


def watch(look: Look, wait: Callable[[], bool], out: TextIO, clock: Callable[[], float]) -> None:
    """Show a screen each time after `wait`, until that returns False; on a terminal each in the place of the last."""
    terminal = out.isatty()
    before = read_metrics(look()[0], clock())
    try:
        if terminal:
            out.write(OTHER_SCREEN)
        while wait():
            text, status = look()
            now = read_metrics(text, clock())
            width, height = shutil.get_terminal_size() if terminal else _UNCUT
            shown = screen(before, now, status, width, height)
            out.write(painted(shown) if terminal else f"{shown}\n")
            out.flush()
            before = now
    finally:
        if terminal:
            out.write(THIS_SCREEN)
            out.flush()


def screen(before: Counted, now: Counted, status: Mapping[str, Any], width: int, height: int) -> str:
    """Return what is shown: as many routes and targets as there is room for."""
    rows = rows_of(before, now)
    lines = [*_head(rows, now, status), "", *_routes(rows)]
    services = list(_services(status))
    room = max(4, height - 2 - min(len(services), height // 3))
    shown = _cut(lines, room)
    if services:
        shown += ["", *_cut(services, max(3, height - 1 - len(shown)))]
    return "\n".join(line[:width] for line in shown[:height])


def painted(text: str) -> str:
    """Return a screen as it is written over the one before, which does not flicker."""
    return HOME + text.replace("\n", f"{_END_OF_LINE}\n") + _END_OF_LINE + CLEAR


def _cut(lines: Sequence[str], room: int) -> list[str]:
    if len(lines) <= room:
        return list(lines)
    return [*lines[: room - 1], f"... {len(lines) - room + 1} more"]


def _head(rows: Sequence[Row], now: Counted, status: Mapping[str, Any]) -> Iterator[str]:
    workers = [each for each in status["processes"] if each["name"] != "agent"]
    serving = sum(each["state"] == "serving" for each in workers)
    serves = f"{serving} of {len(workers)} workers serve"
    yield f"portico {status['version']}, revision {status['revision']}, {serves}, {status['file']}"
    rate = sum(row.rate for row in rows)
    failed = sum(row.rate * row.failed for row in rows)
    yield (
        f"{rate:.1f} requests/s, {failed / rate if rate else 0.0:.1%} failed, {now.in_flight:.0f} in flight, "
        f"{now.connections:.0f} connections"
    )


def _routes(rows: Sequence[Row]) -> Iterator[str]:
    head = ("route", "service", "req/s", "4xx", "5xx", *(f"p{share * 100:g}" for share in QUANTILES))
    cells = [
        (
            "(no route)" if row.path == NONE else row.path,
            row.service or "-",
            f"{row.rate:.1f}",
            f"{row.refused:.1%}",
            f"{row.failed:.1%}",
            *("-" if each is None else _time(each) for each in row.times),
        )
        for row in rows
    ]
    yield from _table([head, *cells], left=2)
    if not cells:
        yield "no requests in this time, or none are counted (metrics: off)"


def _services(status: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for name, targets in status["services"].items():
        breaker = status["breakers"].get(name, {}).get("state", "")
        for target in targets:
            state = target.get("health", "reachable" if target["reachable"] else "NOT REACHABLE")
            if target["ejected_by"]:
                state = "ejected"
            rows.append((name, breaker.upper() if breaker == "open" else breaker or "-", target["address"], state,
                         str(target["connections"])))  # fmt: skip
    if rows:
        yield from _table([("service", "breaker", "target", "state", "conns"), *rows], left=4)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1.0 else f"{seconds * 1e3:.3g} ms"


def _table(rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Yield rows in columns, of which the first so many begin at the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
