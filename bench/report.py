"""What the rounds say: medians, ratios with their spread, a table and a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from bench.measure import Result

NOISY = 0.05


@dataclass(frozen=True)
class Spread:
    """Least, lower quartile, median, upper quartile, most."""

    least: float
    low: float
    median: float
    high: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(*[values[0]] * 5)
        low, middle, high = quantiles(values, method="inclusive")
        return cls(min(values), low, middle, high, max(values))

    def half(self, digits: int) -> str:
        return f"{self.low:.{digits}f}..{self.high:.{digits}f}"


@dataclass(frozen=True)
class Summary:
    """One peer of one row. The first peer is the base: every ratio is to it. What is no Spread is a median."""

    label: str
    cpu_us: Spread
    requests_per_second: float
    p50_us: float
    p99_us: float
    peer_busy: float
    other_busy: float
    load_busy: float
    ratio_of_medians: float
    round_ratio: Spread
    """The ratios within each round: a machine that is slower for a while is slower for both."""
    added_us: Spread
    """What it takes more than the base within each round."""


def summarize(result: Result) -> list[Summary]:
    base = result.peers[0].label
    base_cpu = median(each[base].cpu_us for each in result.rounds)
    found = []
    for peer in result.peers:
        samples = [each[peer.label] for each in result.rounds]
        cpu = Spread.of([sample.cpu_us for sample in samples])
        found.append(
            Summary(
                label=peer.label,
                cpu_us=cpu,
                requests_per_second=median(sample.requests / sample.seconds for sample in samples),
                p50_us=median(sample.p50_us for sample in samples),
                p99_us=median(sample.p99_us for sample in samples),
                peer_busy=median(sample.peer_busy for sample in samples),
                other_busy=median(sample.other_busy for sample in samples),
                load_busy=median(sample.load_busy for sample in samples),
                ratio_of_medians=cpu.median / base_cpu,
                round_ratio=Spread.of([each[peer.label].cpu_us / each[base].cpu_us for each in result.rounds]),
                added_us=Spread.of([each[peer.label].cpu_us - each[base].cpu_us for each in result.rounds]),
            )
        )
    return found


COLUMNS = (
    "peer",
    "CPU µs/req",
    "half of rounds",
    "req/s",
    "p50 ms",
    "p99 ms",
    "core",
    "ratio",
    "by round",
    "half of rounds",
    "added µs",
    "half of rounds",
)


def table(summaries: Sequence[Summary]) -> str:
    rows = [
        COLUMNS,
        *(
            (
                one.label,
                f"{one.cpu_us.median:.2f}",
                one.cpu_us.half(2),
                f"{one.requests_per_second:.0f}",
                f"{one.p50_us / 1000:.2f}",
                f"{one.p99_us / 1000:.2f}",
                f"{one.peer_busy:.0%}",
                f"{one.ratio_of_medians:.3f}",
                f"{one.round_ratio.median:.3f}",
                one.round_ratio.half(3),
                f"{one.added_us.median:.2f}",
                one.added_us.half(2),
            )
            for one in summaries
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for label, *figures in rows:
        lines.append("  ".join([label.ljust(widths[0]), *map(str.rjust, figures, widths[1:])]))
    return "\n".join(lines)


def warnings(summaries: Sequence[Summary], result: Result) -> list[str]:
    found = []
    for one in summaries:
        if one.other_busy > NOISY:
            found.append(
                f"{one.label}: other work took {one.other_busy:.0%} of the proxy's core; run it again in peace"
            )
        if one.peer_busy < 0.9:
            found.append(f"{one.label}: its core was {one.peer_busy:.0%} busy, less than full: the load was the limit")
    adding = [peer for peer in result.peers if peer.added_headers]
    return found + [f"{peer.label}: adds headers to the answer: {', '.join(peer.added_headers)}" for peer in adding]


def over(summaries: Sequence[Summary], subject: str, limit: float) -> list[str]:
    """The labels above the limit: of the subject where it ran, else of every peer but the base."""
    others = summaries[1:]
    judged = [one for one in others if one.label.partition("#")[0] == subject] or others
    return [one.label for one in judged if one.round_ratio.median > limit]


def as_json(result: Result, summaries: Sequence[Summary]) -> dict[str, Any]:
    row = dataclasses.asdict(result.row)
    row["request"]["body"] = result.row.request.body.decode("latin-1")
    return {
        "row": row,
        "peers": {
            peer.label: {
                "added_headers": peer.added_headers,
                "seen_by_service": peer.seen_by_service,
                "encryption": dataclasses.asdict(peer.encryption) if peer.encryption else None,
            }
            for peer in result.peers
        },
        "summary": [dataclasses.asdict(one) for one in summaries],
        "rounds": [{label: dataclasses.asdict(sample) for label, sample in each.items()} for each in result.rounds],
    }
