"""The metrics themselves, and the text that is scraped."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

import portico
from portico.observe.exposition import Exemplar, Sample, write
from portico.observe.metrics import METRICS, Kind, Metric, metric_of

SOURCE = Path(portico.__file__).parent


def test_names_and_units_are_those_of_prometheus() -> None:
    for metric in METRICS.values():
        assert metric.name.startswith(("http_", "portico_"))
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert metric.name.removesuffix("_total").endswith(metric.unit), metric.name
        assert metric.help.endswith("."), metric.name
        assert not metric.name.endswith(("_count", "_sum", "_bucket"))


def named_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and re.fullmatch(r"(?:portico|http)_[a-z_]+_total", str(node.value)):
            yield str(node.value)


def test_nothing_makes_up_a_name() -> None:
    for path in SOURCE.rglob("*.py"):
        for name in named_in(ast.parse(path.read_text())):
            assert name in METRICS, f"{path} has {name}, which observe/metrics.py does not have"


def test_a_metric_of_a_plugin_is_a_counter() -> None:
    assert metric_of("hits_total") == Metric("hits_total", Kind.COUNTER, metric_of("hits_total").help)
    assert metric_of("http_requests_total") is METRICS["http_requests_total"]


COUNTER = Metric("hits_total", Kind.COUNTER, 'How "often" it\\was\nhit.', ("path",))
GAUGE = Metric("room_bytes", Kind.GAUGE, "Room.", (), "bytes")
HISTOGRAM = Metric("took_seconds", Kind.HISTOGRAM, "Time.", ("path",), "seconds")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def text_of(families: Iterable[tuple[Metric, list[Sample]]], *, openmetrics: bool) -> str:
    return "".join(write(families, openmetrics=openmetrics))


FAMILIES = [
    (COUNTER, [Sample('path="/a"', 3), Sample('path="q\\"uo\\\\te\\n"', 2**53)]),
    (GAUGE, [Sample("", 0.25)]),
    (
        HISTOGRAM,
        [Sample('path="/a"', 7.5, (0.1, 1.0), (2, 0, 1), Exemplar(TRACE, 6.5, 1000.25)), Sample("", 0, (0.1,), (0, 0))],
    ),
]


@pytest.mark.parametrize("openmetrics", [True, False])
def test_what_is_written_is_read_back(openmetrics: bool) -> None:
    text = text_of(FAMILIES, openmetrics=openmetrics)
    families = list((read_openmetrics if openmetrics else read_prometheus)(text))
    read = {(sample.name, *sorted(sample.labels.items())): sample.value for each in families for sample in each.samples}
    assert read == {
        ("hits_total", ("path", "/a")): 3,
        ("hits_total", ("path", 'q"uo\\te\n')): 2**53,
        ("room_bytes",): 0.25,
        ("took_seconds_bucket", ("le", "0.1"), ("path", "/a")): 2,
        ("took_seconds_bucket", ("le", "1.0"), ("path", "/a")): 2,
        ("took_seconds_bucket", ("le", "+Inf"), ("path", "/a")): 3,
        ("took_seconds_count", ("path", "/a")): 3,
        ("took_seconds_sum", ("path", "/a")): 7.5,
        ("took_seconds_bucket", ("le", "0.1")): 0,
        ("took_seconds_bucket", ("le", "+Inf")): 0,
        ("took_seconds_count",): 0,
        ("took_seconds_sum",): 0,
    }
    told = {each.name: (each.type, each.documentation, each.unit) for each in families}
    unit = "seconds" if openmetrics else ""
    assert told["took_seconds"] == ("histogram", "Time.", unit)
    assert told["hits"] == ("counter", COUNTER.help, "")


def test_exemplars_are_in_their_bucket_and_in_openmetrics_alone() -> None:
    (_, _, family) = read_openmetrics(text_of(FAMILIES, openmetrics=True))
    shown = [(sample.labels["le"], sample.exemplar) for sample in family.samples if sample.exemplar is not None]
    ((bucket, exemplar),) = shown
    assert bucket == "+Inf"
    assert (exemplar.labels, exemplar.value, float(exemplar.timestamp)) == ({"trace_id": TRACE}, 6.5, 1000.25)
    assert "trace_id" not in text_of(FAMILIES, openmetrics=False)


def test_nothing_is_said_of_what_has_no_samples() -> None:
    assert text_of([(COUNTER, [])], openmetrics=False) == ""
    assert text_of([(COUNTER, [])], openmetrics=True) == "# EOF\n"
    assert list(read_openmetrics("# EOF\n")) == []
