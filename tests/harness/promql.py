"""Queries of Prometheus, read by a parser that knows nothing of how they were made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import NamedTuple

import promql_parser as promql

from portico.observe.metrics import METRICS, Kind, Metric

SCRAPED = frozenset(("job", "instance"))
GROWING = frozenset(("rate", "increase"))


class Series(NamedTuple):
    """What Prometheus has under one name."""

    metric: str
    """Whose it is."""
    labels: frozenset[str]
    grows: bool
    """Whether what it says makes sense by how much it grows alone."""


Known = Mapping[str, Series]


def known(metrics: Mapping[str, Metric] = METRICS) -> dict[str, Series]:
    """Return every series that is scraped, by its name."""
    found = {"up": Series("up", SCRAPED, grows=False)}
    for metric in metrics.values():
        labels = SCRAPED | set(metric.labels)
        if metric.kind is Kind.HISTOGRAM:
            for part, more in (("_bucket", {"le"}), ("_sum", set()), ("_count", set())):
                found[metric.name + part] = Series(metric.name, labels | more, grows=True)
        else:
            found[metric.name] = Series(metric.name, labels, grows=metric.kind is Kind.COUNTER)
    return found


def parsed(text: str) -> promql.Expr:
    """Parse a query, with the one variable of Grafana that a parser stumbles over filled in."""
    return promql.parse(text.replace("$__rate_interval", "5m"))


def names(text: str) -> set[str]:
    """Return the names of all series that a query asks for."""
    return {_name(selector) for selector in _selectors(parsed(text))}


def labels(text: str, series: Known) -> frozenset[str]:
    """Return the labels that the result has; AssertionError where something is not there, or is asked in vain."""
    found = _labels(parsed(text), series)
    assert found is not None, f"{text} is a number"
    return found


def labels_of(selector: str, series: Known) -> frozenset[str]:
    """Return the labels of the series that a selector picks."""
    expr = parsed(selector)
    assert isinstance(expr, promql.VectorSelector)
    return _of_selector(expr, series, grows=series[_name(expr)].grows)


def _selectors(expr: promql.Expr) -> Iterator[promql.VectorSelector]:
    found: list[promql.VectorSelector] = []

    def visit(node: promql.Expr) -> bool:
        if isinstance(node, promql.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql.VectorSelector):
            found.append(node)
        return True

    promql.walk(expr, pre_visit=visit)
    yield from found


def _labels(expr: promql.Expr, series: Known) -> frozenset[str] | None:
    """Return the labels of what an expression is, or None for a number."""
    match expr:
        case promql.NumberLiteral():
            return None
        case promql.VectorSelector():
            return _of_selector(expr, series, grows=False)
        case promql.ParenExpr():
            return _labels(expr.expr, series)
        case promql.AggregateExpr():
            return _of_aggregate(expr, series)
        case promql.BinaryExpr():
            return _of_two(expr, series)
        case promql.Call():
            return _of_call(expr, series)
    raise AssertionError(f"{expr} is nothing that is known here")


def _name(selector: promql.VectorSelector) -> str:
    assert selector.name is not None, f"{selector} names no metric"
    return selector.name


def _of_selector(selector: promql.VectorSelector, series: Known, *, grows: bool) -> frozenset[str]:
    name = _name(selector)
    assert name in series, f"there is no metric {name}"
    there = series[name]
    named = {matcher.name for matcher in selector.matchers.matchers}
    assert named <= there.labels, f"{name} has no {named - there.labels}"
    assert there.grows is grows, f"{name} is asked as what it is not"
    return there.labels


def _of_aggregate(expr: promql.AggregateExpr, series: Known) -> frozenset[str]:
    inner = _labels(expr.expr, series)
    assert inner is not None
    by = frozenset(expr.modifier.labels if expr.modifier is not None else ())
    assert by <= inner, f"{by - inner} is not there to tell series apart"
    return by


def _of_two(expr: promql.BinaryExpr, series: Known) -> frozenset[str] | None:
    left, right = _labels(expr.lhs, series), _labels(expr.rhs, series)
    if left is None or right is None:
        return left if right is None else right
    matching = expr.modifier and expr.modifier.matching
    if matching is None:
        assert left == right, f"{left} and {right} do not meet"
    else:
        assert set(matching.labels) <= left & right, f"{matching.labels} are not on both sides"
    return left


def _of_call(expr: promql.Call, series: Known) -> frozenset[str] | None:
    called = expr.func.name
    if called == "time":
        return None
    argument = expr.args[-1]
    if isinstance(argument, promql.MatrixSelector):
        return _of_selector(argument.vector_selector, series, grows=called in GROWING)
    inner = _labels(argument, series)
    assert inner is not None
    if called == "histogram_quantile":
        assert "le" in inner, "a quantile needs the bounds"
        return _without(inner, {"le"})
    assert called == "absent", f"nobody said what {called} does"
    return _without(inner, {"instance"})


def _without(labels: Set[str], less: Set[str]) -> frozenset[str]:
    return frozenset(labels - less)
