"""Queries are right by how they are built: what a metric cannot be asked cannot be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from docs.monitoring.promql import Not, Query, View, above, absent, below, both, equal, ratio
from portico.observe.metrics import Kind, Metric
from tests.harness import promql

COUNTER = Metric("asked_total", Kind.COUNTER, "Asked.", ("route", "status"))
SECONDS = Metric("busy_seconds_total", Kind.COUNTER, "Busy.", ("process",), "seconds")
GAUGE = Metric("things", Kind.GAUGE, "Things.", ("process",))
WORST = Metric("worst_bytes", Kind.GAUGE, "The worst.", (), "bytes", merge=max)
WHEN = Metric("end_timestamp_seconds", Kind.GAUGE, "The end.", ("file",), "seconds", merge=min)
TIMES = Metric("took_seconds", Kind.HISTOGRAM, "Took.", ("route",), "seconds")
ALL = {metric.name: metric for metric in (COUNTER, SECONDS, GAUGE, WORST, WHEN, TIMES)}

VIEW = View({"job": "j", "route": "/a|/b"}, "5m")
BRIEF = View({"job": "j"}, "1m")
ERRORS = VIEW.rate(COUNTER, "route", status="5..")
REQUESTS = VIEW.rate(COUNTER, "route")

WRITTEN = {
    'sum by (route) (rate(asked_total{job="j", route=~"/a|/b"}[5m]))': REQUESTS,
    'sum(rate(asked_total{job="j", route=~"/a|/b", status!~"2.."}[5m]))': VIEW.rate(COUNTER, status=Not("2..")),
    'sum(rate(asked_total{job="j", route=~"/a|/b", status!="200"}[5m]))': VIEW.rate(COUNTER, status=Not("200")),
    'sum by (process) (increase(busy_seconds_total{job="j"}[1h]))': VIEW.increase(SECONDS, "1h", "process"),
    'sum by (process) (things{job="j"})': VIEW.value(GAUGE, "process"),
    'max(worst_bytes{job="j"})': VIEW.value(WORST),
    'max by (instance) (max_over_time(worst_bytes{job="j"}[2m]))': VIEW.highest(WORST, "2m", "instance"),
    'sum by (process) (avg_over_time(things{job="j"}[5m]))': VIEW.average(GAUGE, "5m", "process"),
    'min by (file) (changes(end_timestamp_seconds{job="j"}[30m]))': VIEW.changes(WHEN, "30m", "file"),
    'min by (file) (end_timestamp_seconds{job="j"}) - time()': VIEW.until(WHEN, "file"),
    'time() - min(end_timestamp_seconds{job="j"})': VIEW.since(WHEN),
    'histogram_quantile(0.95, sum by (route, le) (rate(took_seconds_bucket{job="j", route=~"/a|/b"}[5m])))': (
        VIEW.quantile(0.95, TIMES, "route")
    ),
    'sum(rate(took_seconds_sum{job="j"}[1m])) / sum(rate(took_seconds_count{job="j"}[1m]))': BRIEF.mean(TIMES),
    f"({ERRORS.text} or {REQUESTS.text} * 0) / {REQUESTS.text}": ratio(ERRORS, REQUESTS),
    '(time() - min(end_timestamp_seconds{job="j"})) > 1209600': above(VIEW.since(WHEN), 1209600),
    'sum by (process) (things{job="j"}) < 0.5': below(VIEW.value(GAUGE, "process"), 0.5),
    'sum by (process, job) (things{job="j"}) < on (job) group_left () max by (job) (worst_bytes{job="j"})': (
        below(VIEW.value(GAUGE, "process", "job"), VIEW.value(WORST, "job"))
    ),
    '(things{job="j"} == 2) and on (instance) (max by (instance) (worst_bytes{job="j"}) > 1)': (
        both(equal(VIEW.each(GAUGE), 2), above(VIEW.value(WORST, "instance"), 1))
    ),
    'absent(things{job="j"})': absent(VIEW.each(GAUGE)),
}


@pytest.mark.parametrize(("text", "query"), WRITTEN.items(), ids=range(len(WRITTEN)))
def test_a_query_is_written_as_prometheus_reads_it(text: str, query: Query) -> None:
    assert query.text == text
    promql.labels(text, promql.known(ALL))
    assert {metric.name for metric in query.metrics} == {promql.known(ALL)[name].metric for name in promql.names(text)}


def test_units_follow_from_what_is_asked() -> None:
    assert VIEW.rate(COUNTER).unit == "cps"
    assert VIEW.rate(COUNTER._replace(name="some_requests_total")).unit == "reqps"
    assert VIEW.rate(SECONDS).unit == "percentunit"
    assert VIEW.increase(SECONDS, "1h").unit == "s"
    assert VIEW.changes(WHEN, "1h").unit == "short"
    assert VIEW.average(WORST, "1h").unit == "bytes"
    assert VIEW.value(WORST).unit == "bytes"
    assert VIEW.quantile(0.5, TIMES).unit == VIEW.mean(TIMES).unit == "s"
    assert ratio(ERRORS, REQUESTS).unit == "percentunit"


def next_of(values: Iterable[int]) -> int:
    return next(iter(values))


VAIN: dict[str, Callable[[], object]] = {
    "things is a gauge, and is asked as if it were a counter": lambda: VIEW.rate(GAUGE),
    "took_seconds is a histogram, and is asked as if it were a counter": lambda: VIEW.increase(TIMES, "5m"),
    "asked_total is a counter, and is asked as if it were a gauge": lambda: VIEW.value(COUNTER),
    "busy_seconds_total is a counter, and is asked as if it were a gauge": lambda: VIEW.each(SECONDS),
    "took_seconds is a histogram, and is asked as if it were a gauge": lambda: VIEW.highest(TIMES, "5m"),
    "asked_total is a counter, and is asked as if it were a histogram": lambda: VIEW.quantile(0.5, COUNTER),
    "things is a gauge, and is asked as if it were a histogram": lambda: VIEW.mean(GAUGE),
    "busy_seconds_total is a counter, and is asked as if": lambda: VIEW.changes(SECONDS, "5m"),
    "asked_total is a counter, and is asked as if": lambda: VIEW.average(COUNTER, "5m"),
    "things does not say a time": lambda: VIEW.since(GAUGE),
    "asked_total has no label process": lambda: VIEW.rate(COUNTER, "process"),
    "things has no label status": lambda: VIEW.value(GAUGE, status="200"),
    "worst_bytes has no label process": lambda: VIEW.label_values(WORST, "process"),
    "is no part of what is by": lambda: ratio(VIEW.rate(COUNTER), REQUESTS),
    "no name in PromQL for how it is put together": lambda: VIEW.value(WORST._replace(merge=next_of)),
}


@pytest.mark.parametrize(("why", "asked"), VAIN.items())
def test_what_makes_no_sense_is_refused(why: str, asked: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=why):
        asked()


WRONG = {
    "there is no metric elsewhere": "sum(elsewhere)",
    "has no .*'state'": 'sum(things{state="a"})',
    "'state'.* is not there to tell series apart": "sum by (state) (things)",
    "asked_total is asked as what it is not": "sum(asked_total)",
    "things is asked as what it is not": "sum(rate(things[5m]))",
    "took_seconds_bucket is asked as what it is not": "sum(took_seconds_bucket)",
    "there is no metric took_seconds": "sum(took_seconds)",
    "a quantile needs the bounds": "histogram_quantile(0.5, sum(rate(took_seconds_bucket[5m])))",
    "do not meet": "sum by (process) (things) / sum(worst_bytes)",
    "are not on both sides": "sum by (process) (things) < on (instance) group_left () sum(worst_bytes)",
}


@pytest.mark.parametrize(("why", "text"), WRONG.items())
def test_who_reads_queries_finds_what_is_wrong(why: str, text: str) -> None:
    with pytest.raises(AssertionError, match=why):
        promql.labels(text, promql.known(ALL))
