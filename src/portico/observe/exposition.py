"""What is scraped: the text formats of Prometheus (0.0.4) and of OpenMetrics (1.0.0)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from portico.observe.metrics import Kind, Metric

PROMETHEUS: Final = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Exemplar(NamedTuple):
    """One value of a histogram, with the trace that it is of."""

    trace_id: str
    value: float
    at: float
    """Seconds since the epoch."""


class Sample(NamedTuple):
    """What a metric says for one set of labels."""

    labels: str
    """As they are written, without the braces: `method="GET",status="200"`."""
    value: float
    """Of a histogram, its sum."""
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    """Of a histogram: how many there are in each bucket alone; one more than `bounds`."""
    exemplar: Exemplar | None = None


def write(families: Iterable[tuple[Metric, Iterable[Sample]]], *, openmetrics: bool) -> Iterator[str]:
    """Yield the text in pieces, at least one for each sample."""
    for metric, samples in families:
        head = _head(metric, openmetrics=openmetrics)
        for sample in samples:
            if metric.kind is Kind.HISTOGRAM:
                yield head + _histogram(metric.name, sample, openmetrics=openmetrics)
            else:
                labels = f"{{{sample.labels}}}" if sample.labels else ""
                yield f"{head}{metric.name}{labels} {_number(sample.value)}\n"
            head = ""
    if openmetrics:
        yield "# EOF\n"


def _head(metric: Metric, *, openmetrics: bool) -> str:
    name = metric.name
    if openmetrics and metric.kind is Kind.COUNTER:
        name = name.removesuffix("_total")
    unit = f"# UNIT {name} {metric.unit}\n" if metric.unit and openmetrics else ""
    about = metric.help.translate(_HELP_ESCAPES)
    if openmetrics:
        about = about.replace('"', r"\"")
    return f"# HELP {name} {about}\n# TYPE {name} {metric.kind}\n{unit}"


def _histogram(name: str, sample: Sample, *, openmetrics: bool) -> str:
    comma = "," if sample.labels else ""
    exemplar = sample.exemplar if openmetrics else None
    lines = []
    total = 0
    for bound, count in zip((*sample.bounds, None), sample.counts, strict=True):
        total += count
        told = ""
        if exemplar is not None and count and (bound is None or exemplar.value <= bound):
            told = f' # {{trace_id="{exemplar.trace_id}"}} {exemplar.value!r} {exemplar.at:.3f}'
            exemplar = None
        upper = "+Inf" if bound is None else repr(float(bound))
        lines.append(f'{name}_bucket{{{sample.labels}{comma}le="{upper}"}} {total}{told}\n')
    labels = f"{{{sample.labels}}}" if sample.labels else ""
    return f"{''.join(lines)}{name}_count{labels} {total}\n{name}_sum{labels} {_number(sample.value)}\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
