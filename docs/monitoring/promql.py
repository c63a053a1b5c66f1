"""Queries of Prometheus, built from metrics.

What can be asked depends on the kind: of a counter how much it grows, of a histogram what its buckets, its count and
its sum tell, of a gauge what it says. ValueError is raised where something else is asked, or a label that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from portico.observe.metrics import Kind, Metric

SCRAPED: Final = ("job", "instance")
"""Labels that Prometheus itself gives every series: of which job, and at which address it was scraped."""

UP: Final = Metric("up", Kind.GAUGE, "Whether the last scrape went well: 1 or 0.", merge=min)
"""What Prometheus itself says of everything that it scrapes."""

_UNITS: Final = {"seconds": "s", "bytes": "bytes"}
_RATES: Final = {"": "cps", "seconds": "percentunit", "bytes": "Bps"}
_PLAIN: Final = "short"
_SHARE: Final = "percentunit"
_MERGES: Final[Mapping[Callable[..., int], str]] = {sum: "sum", max: "max", min: "min"}
_LITERAL: Final = re.compile(r"[\w -]+")


class Not(str):
    """A regular expression for what a label must not be."""

    __slots__ = ()


class Query(NamedTuple):
    """An expression whose value is an instant vector."""

    text: str
    unit: str
    """As Grafana calls it."""
    labels: tuple[str, ...]
    """Which tell its series apart."""
    metrics: tuple[Metric, ...]
    name: str = ""
    """What it is called among others, such as `p95`."""
    compound: bool = False
    """Whether it needs parentheses where it is a part of another."""

    @property
    def within(self) -> str:
        """It as a part of another."""
        return f"({self.text})" if self.compound else self.text

    def called(self, name: str) -> Query:
        """Return it under a name."""
        return self._replace(name=name)


class View(NamedTuple):
    """Which series are looked at, and over what time."""

    where: Mapping[str, str]
    """What labels have to be, of the metrics that have them: a regular expression each."""
    window: str
    """The time over which a rate is taken."""

    def series(self, metric: Metric, part: str = "", where: Mapping[str, str] = MappingProxyType({})) -> str:
        """Return the selector of a metric, or of a part of a histogram."""
        for label in where:
            _has(metric, label)
        here = {label: pattern for label, pattern in self.where.items() if label in (*metric.labels, *SCRAPED)}
        matchers = ", ".join(f'{label}{_operator(value)}"{value}"' for label, value in {**here, **where}.items())
        return f"{metric.name}{part}{{{matchers}}}" if matchers else metric.name + part

    def rate(self, counter: Metric, *by: str, **where: str) -> Query:
        """Return how much a counter grows in a second; one of seconds is the share of the time."""
        _want(counter, Kind.COUNTER)
        series = self.series(counter, where=where)
        return _query(_summed("sum", f"rate({series}[{self.window}])", by), _rate_unit(counter), by, counter)

    def increase(self, counter: Metric, over: str, *by: str, **where: str) -> Query:
        """Return how much a counter has grown in the time `over`."""
        _want(counter, Kind.COUNTER)
        series = self.series(counter, where=where)
        return _query(_summed("sum", f"increase({series}[{over}])", by), _unit(counter), by, counter)

    def quantile(self, share: float, histogram: Metric, *by: str, **where: str) -> Query:
        """Return what a share of what a histogram has observed is at most."""
        _want(histogram, Kind.HISTOGRAM)
        rate = f"rate({self.series(histogram, '_bucket', where)}[{self.window}])"
        text = f"histogram_quantile({share:g}, {_summed('sum', rate, (*by, 'le'))})"
        return _query(text, _unit(histogram), by, histogram).called(f"p{share * 100:g}")

    def mean(self, histogram: Metric, *by: str, **where: str) -> Query:
        """Return the mean of what a histogram has observed."""
        _want(histogram, Kind.HISTOGRAM)
        total, count = (
            _summed("sum", f"rate({self.series(histogram, part, where)}[{self.window}])", by)
            for part in ("_sum", "_count")
        )
        return _query(f"{total} / {count}", _unit(histogram), by, histogram)._replace(name="mean", compound=True)

    def value(self, gauge: Metric, *by: str, **where: str) -> Query:
        """Return what a gauge says; of several as one, what it makes of several processes."""
        return self._value(gauge, by, self.series(gauge, where=where))

    def highest(self, gauge: Metric, over: str, *by: str, **where: str) -> Query:
        """Return the most that a gauge has said in the time `over`."""
        return self._value(gauge, by, f"max_over_time({self.series(gauge, where=where)}[{over}])")

    def average(self, gauge: Metric, over: str, *by: str, **where: str) -> Query:
        """Return what a gauge has said on average in the time `over`."""
        return self._value(gauge, by, f"avg_over_time({self.series(gauge, where=where)}[{over}])")

    def changes(self, gauge: Metric, over: str, *by: str, **where: str) -> Query:
        """Return how often a gauge has come to say something else in the time `over`."""
        text = f"changes({self.series(gauge, where=where)}[{over}])"
        return self._value(gauge, by, text)._replace(unit=_PLAIN)

    def since(self, gauge: Metric, *by: str, **where: str) -> Query:
        """Return how long ago the time is that a gauge says."""
        value = self.value(_time(gauge), *by, **where)
        return value._replace(text=f"time() - {value.text}", compound=True)

    def until(self, gauge: Metric, *by: str, **where: str) -> Query:
        """Return how long it is until the time that a gauge says."""
        value = self.value(_time(gauge), *by, **where)
        return value._replace(text=f"{value.text} - time()", compound=True)

    def each(self, gauge: Metric, **where: str) -> Query:
        """Return every series of a gauge."""
        _want(gauge, Kind.GAUGE)
        labels = tuple(dict.fromkeys((*gauge.labels, *SCRAPED)))
        return _query(self.series(gauge, where=where), _unit(gauge), labels, gauge)

    def label_values(self, metric: Metric, label: str) -> str:
        """Return how Grafana asks for all values of a label."""
        _has(metric, label)
        other = {name: pattern for name, pattern in self.where.items() if name != label}
        return f"label_values({View(other, self.window).series(metric)}, {label})"

    def _value(self, gauge: Metric, by: tuple[str, ...], series: str) -> Query:
        _want(gauge, Kind.GAUGE)
        merge = _MERGES.get(gauge.merge)
        if merge is None:
            raise ValueError(f"{gauge.name}: there is no name in PromQL for how it is put together")
        return _query(_summed(merge, series, by), _unit(gauge), by, gauge)


def ratio(part: Query, whole: Query) -> Query:
    """Return what share of a whole a part is: 0 where there is none of the part."""
    if part.labels != whole.labels:
        raise ValueError(f"what is told apart by {part.labels} is no part of what is by {whole.labels}")
    text = f"({part.within} or {whole.within} * 0) / {whole.within}"
    return Query(text, _SHARE, whole.labels, _together(part, whole), compound=True)


def above(query: Query, limit: float) -> Query:
    """Return the series that are above a limit."""
    return _compared(query, f"> {limit:.15g}")


def below(query: Query, limit: float | Query) -> Query:
    """Return the series that are below a limit, or below the one of another query that has the same labels."""
    if not isinstance(limit, Query):
        return _compared(query, f"< {limit:.15g}")
    compared = _compared(query, f"< on ({', '.join(limit.labels)}) group_left () {limit.within}")
    return compared._replace(metrics=_together(query, limit))


def equal(query: Query, value: float) -> Query:
    """Return the series that are just that."""
    return _compared(query, f"== {value:.15g}")


def both(query: Query, other: Query) -> Query:
    """Return the series of a query for which there is one of the other, by the labels of that."""
    text = f"{query.within} and on ({', '.join(other.labels)}) {other.within}"
    return query._replace(text=text, metrics=_together(query, other), compound=True)


def absent(query: Query) -> Query:
    """Return 1 where there are no such series, and nothing otherwise."""
    return query._replace(text=f"absent({query.text})", labels=())


def _compared(query: Query, how: str) -> Query:
    return query._replace(text=f"{query.within} {how}", compound=True)


def _query(text: str, unit: str, labels: Iterable[str], metric: Metric) -> Query:
    for label in labels:
        _has(metric, label)
    return Query(text, unit, tuple(labels), (metric,))


def _summed(how: str, text: str, by: tuple[str, ...]) -> str:
    return f"{how} by ({', '.join(by)}) ({text})" if by else f"{how}({text})"


def _together(*queries: Query) -> tuple[Metric, ...]:
    return tuple(dict.fromkeys(metric for query in queries for metric in query.metrics))


def _unit(metric: Metric) -> str:
    return _UNITS.get(metric.unit, _PLAIN)


def _rate_unit(counter: Metric) -> str:
    return "reqps" if counter.name.endswith("requests_total") else _RATES.get(counter.unit, _PLAIN)


def _operator(value: str) -> str:
    if isinstance(value, Not):
        return "!=" if _LITERAL.fullmatch(value) else "!~"
    return "=" if _LITERAL.fullmatch(value) else "=~"


def _want(metric: Metric, kind: Kind) -> None:
    if metric.kind is not kind:
        raise ValueError(f"{metric.name} is a {metric.kind}, and is asked as if it were a {kind}")


def _time(gauge: Metric) -> Metric:
    if not gauge.name.endswith("_timestamp_seconds"):
        raise ValueError(f"{gauge.name} does not say a time")
    return gauge


def _has(metric: Metric, label: str) -> None:
    if label not in (*metric.labels, *SCRAPED):
        raise ValueError(f"{metric.name} has no label {label}")
