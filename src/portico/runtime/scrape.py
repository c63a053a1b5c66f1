"""What is scraped: everything that all processes have put on the board, in the text of Prometheus. Any of them can
tell it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

from portico import __version__
from portico.http.body import Trailers
from portico.observe import metrics
from portico.observe.exposition import Exemplar, Sample, write
from portico.observe.metrics import Kind, Metric, metric_of
from portico.runtime import runtime as compiled_or_not
from portico.state.board import AGENT, Board, Reading, Vital, Word, summed
from portico.state.slots import ABSENT

SLICE: Final = 0.002
"""Seconds for which a scrape has the loop at a time."""

PIECE: Final = 64 * 1024
"""Bytes that are sent at a time, at least."""

_TICK: Final = metrics.NANO // os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_VITALS: Final = (
    (metrics.WORKER_REVISION, Vital.REVISION),
    (metrics.LOOP_LAG, Vital.LAG),
    (metrics.LOOP_LAG_MAX, Vital.LAG_MAX),
    (metrics.GC_RUNS, Vital.GC_RUNS),
    (metrics.GC_TIME, Vital.GC_TIME),
    (metrics.GC_MAX, Vital.GC_MAX),
    (metrics.STORE_WAIT_MAX, Vital.STORE_WAIT_MAX),
)

Families = dict[str, list[Sample]]


class Scrape:
    """The text, while it is being sent: a body that is made as it is read, a little at a time."""

    def __init__(self, text: Iterator[str]) -> None:
        self._text = text

    async def read(self) -> bytes:
        """Return the next piece, or b"" at the end."""
        pieces: list[str] = []
        size = 0
        while size < PIECE:
            until = time.perf_counter() + SLICE
            while size < PIECE and time.perf_counter() < until:
                piece = next(self._text, None)
                if piece is None:
                    return "".join(pieces).encode()
                size += len(piece)
                pieces.append(piece)
            await asyncio.sleep(0)
        return "".join(pieces).encode()

    def trailers(self) -> Trailers:
        """Return none."""
        return []

    def close(self) -> None:
        """Give up the rest."""
        self._text = iter(())


def nothing_to_scrape(openmetrics: bool) -> Scrape:
    """Return the text where nothing is counted."""
    return Scrape(write((), openmetrics=openmetrics))


def scrape(board: Board) -> Callable[[bool], Scrape]:
    """Return what tells the metrics of a board."""
    return lambda openmetrics: Scrape(exposition(board, openmetrics=openmetrics))


def exposition(board: Board, *, openmetrics: bool) -> Generator[str, None, None]:
    """Yield the text in small pieces, also empty ones: they are where others may have the loop."""
    families: Families = {}
    found: dict[str, list[Reading]] = {}
    reading = board.reading()
    while True:
        try:
            next(reading)
        except StopIteration as end:
            found = end.value
            break
        yield ""
    for series in _by_series(found):
        if series is not None:
            add_sample(families, *series)
        yield ""
    for name, labels, value in (*_of_processes(board), *_of_all(board)):
        families.setdefault(name, []).append(Sample(labels, value))
    yield from write(_in_order(families), openmetrics=openmetrics)


def _in_order(families: Families) -> Iterator[tuple[Metric, Iterator[Sample]]]:
    """Yield those that are known in their order, then those of plugins; each is let go as it is passed on."""
    order = {name: number for number, name in enumerate(metrics.METRICS)}
    for name in sorted(families, key=lambda name: (order.get(name, len(order)), name)):
        yield metric_of(name), _emptied(families.pop(name))


def _emptied(samples: list[Sample]) -> Iterator[Sample]:
    samples.reverse()
    while samples:
        yield samples.pop()


def _by_series(found: dict[str, list[Reading]]) -> Iterator[tuple[str, str, list[Reading]] | None]:
    """Yield the metric, the labels, and all readings of each series, and None in between; a histogram may have had
    other bounds before. Nothing is left of what was found."""
    series: dict[str, list[Reading]] = {}
    while found:  # the last first, which is put right below
        name, readings = found.popitem()
        known = series.setdefault(name.partition("\0")[0], readings)
        if known is not readings:
            known[:0] = readings
        yield None
    while series:
        name, readings = series.popitem()
        metric, _, labels = name.partition("{")
        yield metric, labels.removesuffix("}"), readings


def add_sample(families: Families, name: str, labels: str, readings: list[Reading]) -> None:
    """Add what a series says to its metric."""
    metric = metric_of(name)
    if metric.kind is Kind.HISTOGRAM:
        sample = _histogram(metric, labels, readings)
    elif readings[0].sums:
        sample = Sample(labels, summed(readings)[0] / metric.scale)
    else:
        said = [reading.own[0] for reading in readings if reading.own[0] != ABSENT]
        if not said:
            return
        sample = Sample(labels, metric.merge(said) / metric.scale)
    families.setdefault(name, []).append(sample)


def _histogram(metric: Metric, labels: str, readings: Sequence[Reading]) -> Sample:
    """Put readings together by the bounds of the last one, which is of a process that runs, if any is: what was counted
    by others goes to the bucket that its own lies in."""
    bounds = _bounds(readings[-1])
    counts = [0] * (len(bounds) + 1)
    total = 0
    exemplar: Exemplar | None = None
    for reading in readings:
        *each, sum_ = reading.sums
        total += sum_
        for upper, count in zip((*_bounds(reading), float("inf")), each, strict=True):
            counts[bisect_left(bounds, upper)] += count
        at, value, high, low = reading.own
        if at and (exemplar is None or at / 1000 > exemplar.at):
            exemplar = Exemplar(f"{high << 64 | low:032x}", value / metric.scale, at / 1000)
    return Sample(labels, total / metric.scale, bounds, tuple(counts), exemplar)


def _bounds(reading: Reading) -> tuple[float, ...]:
    return tuple(float(bound) for bound in reading.name.partition("\0")[2].split(","))


def _of_processes(board: Board) -> Iterator[tuple[str, str, float]]:
    """Yield what is known of each process."""
    now, wall = time.monotonic_ns(), time.time()
    connections = in_flight = 0
    for number in range(board.workers + 1):
        segment = board.segment(number)
        pid = segment[Vital.PID]
        if not pid:
            continue
        name = "agent" if number == AGENT else f"worker {number - 1}"
        labels = f'process="{name}"'
        if number != AGENT:
            connections += segment[Vital.CONNECTIONS]
            in_flight += segment[Vital.IN_FLIGHT]
        for metric, vital in _VITALS:
            if number != AGENT or metric is not metrics.WORKER_REVISION:
                yield metric.name, labels, segment[vital] / metric.scale
        yield metrics.PROCESS_START.name, labels, round(wall - (now - segment[Vital.STARTED]) / metrics.NANO, 3)
        yield from _of_system(pid, labels)
    yield metrics.CONNECTIONS.name, "", connections
    yield metrics.IN_FLIGHT.name, "", in_flight


def _of_system(pid: int, labels: str) -> Iterator[tuple[str, str, float]]:
    """Yield what the system knows of a process, where it tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        yield metrics.PROCESS_CPU.name, labels, (int(fields[11]) + int(fields[12])) * _TICK / metrics.NANO
        yield metrics.PROCESS_MEMORY.name, labels, int(fields[21]) * _PAGE
    except (OSError, IndexError, ValueError):
        return


def _of_all(board: Board) -> Iterator[tuple[str, str, float]]:
    yield metrics.CONFIG_REVISION.name, "", board.word(Word.CONFIG)
    python = ".".join(map(str, sys.version_info[:3]))
    compiled = str((compiled_or_not.__file__ or "").endswith(".so")).lower()
    yield metrics.BUILD.name, f'version="{__version__}",python="{python}",compiled="{compiled}"', 1
