"""The dashboards and the rules: they ask for what there is, and show all of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from docs.monitoring.dashboards import dashboards
from docs.monitoring.panels import Form, Panel, as_json, legend
from docs.monitoring.rules import RECORDINGS, alerts
from docs.source import ROOT
from portico.observe.metrics import METRICS, Kind, Metric
from tests.harness import promql
from tests.harness.tools import program

GRAFANA = ROOT / "deploy" / "grafana"
PROMETHEUS = ROOT / "deploy" / "prometheus"
GUIDE = ROOT / "docs" / "operations" / "monitoring.md"
SERIES = promql.known()
BOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
EVERY_BOARD = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


def read(board: Path) -> Any:
    return json.loads(board.read_text("utf-8"))


def targets(board: Path) -> Iterator[dict[str, Any]]:
    for panel in read(board)["panels"]:
        yield from panel.get("targets", ())


def queries(board: Path) -> list[str]:
    return [target["expr"] for target in targets(board)]


def rules(file: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / file).read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> dict[str, promql.Series]:
    """Return what the rules record, as series of their own."""
    return {
        rule["record"]: promql.Series(rule["record"], promql.labels(rule["expr"], SERIES), grows=False)
        for rule in rules("recording.yml")
    }


def test_there_are_dashboards() -> None:
    assert {board.stem for board in BOARDS} == {dashboard.uid for dashboard in dashboards()}


@EVERY_BOARD
def test_every_query_of_a_dashboard_asks_for_what_there_is(board: Path) -> None:
    assert queries(board)
    for target in targets(board):
        found = promql.labels(target["expr"], SERIES)
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) == found, target


@EVERY_BOARD
def test_every_variable_of_a_dashboard_has_values_and_is_used(board: Path) -> None:
    _source, *variables = read(board)["templating"]["list"]
    names = {variable["name"] for variable in variables}
    for variable in variables:
        found = LABEL_VALUES.fullmatch(variable["query"]["query"])
        assert found is not None
        assert found[2] in promql.labels_of(found[1], SERIES)
    used = {name for text in queries(board) for name in re.findall(r'"\$(\w+)"', text)}
    assert used == names


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {SERIES[name].metric for board in BOARDS for text in queries(board) for name in promql.names(text)}
    assert shown == {*METRICS, "up"}


def test_a_metric_that_nobody_has_placed_is_shown_where_it_suits() -> None:
    new = (
        Metric("portico_upstream_pool_age", Kind.GAUGE, "Well: 1.", ("service", "target"), merge=max),
        Metric("portico_queue_requests_total", Kind.COUNTER, "Queued.", ("policy",)),
        Metric("portico_queue_seconds", Kind.HISTOGRAM, "Waited.", ("endpoint",), "seconds"),
        Metric("portico_backup_timestamp_seconds", Kind.GAUGE, "The last one.", (), "seconds", merge=max),
    )
    there = {metric.name: metric for metric in new}
    more = {board.uid: board.rows[-1].panels for board in dashboards({**METRICS, **there})}
    assert [panel.title for board in more.values() for panel in board] == [
        "Queue seconds",
        "Upstream pool age",
        "Queue requests",
        "Backup timestamp seconds",
    ]
    for panels in more.values():
        for query in panels[0].queries:
            promql.labels(query.text, promql.known(there))


def lost(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Yield what is not in `theirs`, by where it is."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            yield from lost(value, theirs.get(name), f"{path}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, value in enumerate(ours):
            yield from lost(value, theirs[number], f"{path}[{number}]")
    elif ours != theirs:
        yield path


def as_grafana_has_it(made: Any) -> Any:
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(made), cls=JSONEncoder))


@EVERY_BOARD
def test_grafanas_own_types_know_all_that_a_dashboard_says(board: Path) -> None:
    made = read(board)
    assert list(lost(made, as_grafana_has_it(made))) == []
    panel = next(panel for panel in made["panels"] if panel["type"] == "timeseries")
    panel["colour"] = panel["fieldConfig"]["defaults"]["custom"]["fillOpaqueness"] = panel["targets"][0]["query"] = 1
    assert len(list(lost(made, as_grafana_has_it(made)))) == 3


@EVERY_BOARD
def test_panels_neither_overlap_nor_leave_the_page(board: Path) -> None:
    panels = read(board)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_panels_say_what_their_metrics_say() -> None:
    for dashboard in dashboards():
        made = [panel for panel in json.loads(as_json(dashboard))["panels"] if panel["type"] != "row"]
        panels = [panel for row in dashboard.rows for panel in row.panels]
        for panel, said in zip(panels, made, strict=True):
            for metric in {metric for query in panel.queries for metric in query.metrics}:
                assert metric.help in said["description"]
            assert said["fieldConfig"]["defaults"]["unit"] == panel.queries[0].unit
            assert len({legend(query) for query in panel.queries}) == len(panel.queries), panel.title


def test_a_panel_of_two_units_is_refused() -> None:
    (panel, other) = dashboards()[0].rows[0].panels[1:3]
    with pytest.raises(ValueError, match="too many values"):
        _ = Panel("Both", (*panel.queries, *other.queries), Form.TIME).unit


def test_every_rule_asks_for_what_there_is() -> None:
    known = SERIES | recorded()
    assert set(recorded()) == {recording.name for recording in RECORDINGS}
    for recording in RECORDINGS:
        assert recorded()[recording.name].labels == set(recording.query.labels)
    for rule in rules("alerts.yml"):
        found = promql.labels(rule["expr"], known)
        told = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", told)) <= found, rule["alert"]


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    titles = re.findall(r"^### (\w+)$", GUIDE.read_text("utf-8"), re.MULTILINE)
    found = rules("alerts.yml")
    assert titles == [rule["alert"] for rule in found] == [each.name for group in alerts().values() for each in group]
    for rule in found:
        assert set(rule["labels"]) == {"severity"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        told = rule["annotations"]
        page, _, anchor = told["runbook"].partition("#")
        assert ROOT / page == GUIDE
        assert anchor == rule["alert"].lower()
        assert told["runbook"] in told["description"]
        assert told["summary"]


def test_promtool_finds_nothing_wrong() -> None:
    promtool = program("promtool")
    for what, files in (("config", ["prometheus.yml"]), ("rules", ["recording.yml", "alerts.yml"])):
        command = [promtool, "check", what, *files]
        done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done
    for name in ("prometheus.yml", "kubernetes.yml"):
        assert scraping(name)["rule_files"] == ["recording.yml", "alerts.yml"]


def scraping(file: str) -> dict[str, Any]:
    """Return a configuration of Prometheus."""
    text: dict[str, Any] = yaml.safe_load((PROMETHEUS / file).read_text("utf-8"))
    return text


def test_grafana_is_told_where_everything_is() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/portico.yml").read_text("utf-8"))["providers"]
    assert provider["options"] == {"path": "/var/lib/grafana/dashboards"}
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/portico.yml").read_text("utf-8"))["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    for board in BOARDS:
        variable, *_ = read(board)["templating"]["list"]
        assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
        assert {target["datasource"]["uid"] for target in targets(board)} == {"${datasource}"}
