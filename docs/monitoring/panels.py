"""Dashboards as Grafana reads them: what is on one, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import count
from typing import Any, Final, NamedTuple

from docs.monitoring.promql import Query, View
from portico.observe.metrics import Kind, Metric

TAG: Final = "portico"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION: Final = 38
"""That of Grafana 10.1; later ones bring a dashboard up to date by themselves."""

_COLUMNS: Final = 24
_ALL: Final = {"selected": True, "text": ["All"], "value": ["$__all"]}

Json = dict[str, Any]


class Form(StrEnum):
    """How a panel shows what it asks for, in the words of Grafana."""

    TIME = "timeseries"
    STAT = "stat"
    STATES = "state-timeline"
    TABLE = "table"


class Panel(NamedTuple):
    """One picture; what it says of itself is what its metrics say."""

    title: str
    queries: tuple[Query, ...]
    form: Form = Form.TIME
    width: int = 8
    """In columns, of which there are 24."""
    stacked: bool = False
    means: Mapping[int, str] = {}
    """What single values stand for."""

    @property
    def description(self) -> str:
        """What its metrics say of themselves."""
        metrics = dict.fromkeys(metric for query in self.queries for metric in query.metrics)
        return "\n\n".join(f"`{metric.name}`: {metric.help}" for metric in metrics)

    @property
    def unit(self) -> str:
        """That of its queries, which have the same."""
        (unit,) = {query.unit for query in self.queries}
        return unit


class Row(NamedTuple):
    """Panels under one title."""

    title: str
    panels: tuple[Panel, ...]


class Variable(NamedTuple):
    """What can be chosen: some values of a label, or all."""

    label: str
    of: Metric
    view: View
    """Where they are looked for."""
    anything: bool = True
    """Whether all also means series that do not have the label."""


class Dashboard(NamedTuple):
    """One page."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]


def as_json(dashboard: Dashboard) -> str:
    """Return the file of a dashboard."""
    return json.dumps(_dashboard(dashboard), indent=2) + "\n"


def _dashboard(dashboard: Dashboard) -> Json:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": f"{dashboard.description} Made from the metrics by `make docs`.",
        "tags": [TAG],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "links": [
            {
                "type": "dashboards",
                "title": "Portico",
                "icon": "external link",
                "tooltip": "",
                "tags": [TAG],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "url": "",
            }
        ],
        "templating": {"list": [_source(), *map(_variable, dashboard.variables)]},
        "panels": list(_panels(dashboard.rows)),
    }


def _source() -> Json:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> Json:
    asked = variable.view.label_values(variable.of, variable.label)
    made: Json = {
        "name": variable.label,
        "label": variable.label.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": asked, "refId": f"Values-{variable.label}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": _ALL,
    }
    return made | {"allValue": ".*"} if variable.anything else made


def _panels(rows: Sequence[Row]) -> Iterator[Json]:
    """Yield the titles of rows and their panels, from the left to the right and down."""
    numbers = count(1)
    y = 0
    for row in rows:
        yield {
            "id": next(numbers),
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                y += height
                x = height = 0
            high = 4 if panel.form is Form.STAT else 8
            yield _panel(panel, next(numbers), {"x": x, "y": y, "w": panel.width, "h": high})
            x += panel.width
            height = max(height, high)
        y += height


def _panel(panel: Panel, number: int, place: Json) -> Json:
    return {
        "id": number,
        "type": str(panel.form),
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.form],
        "targets": [_target(panel, query, chr(ord("A") + n)) for n, query in enumerate(panel.queries)],
    }


def _defaults(panel: Panel) -> Json:
    made: Json = {"unit": panel.unit}
    if panel.means:
        options = {str(value): {"text": text, "index": n} for n, (value, text) in enumerate(panel.means.items())}
        made["mappings"] = [{"type": "value", "options": options}]
    if panel.form is Form.TIME:
        made["custom"] = {"fillOpacity": 10, "showPoints": "never", "axisSoftMin": 0}
        if panel.stacked:
            made["custom"] |= {"fillOpacity": 30, "stacking": {"mode": "normal", "group": "A"}}
    return made


def _target(panel: Panel, query: Query, reference: str) -> Json:
    asked = panel.form in {Form.STAT, Form.TABLE}
    return {
        "refId": reference,
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.text,
        "legendFormat": legend(query),
        "range": not asked,
        "instant": asked,
        "format": "table" if panel.form is Form.TABLE else "time_series",
        "exemplar": panel.form is Form.TIME and query.metrics[0].kind is Kind.HISTOGRAM,
    }


def legend(query: Query) -> str:
    """Return what the series of a query are called: its name, and what tells them apart."""
    return " ".join([*filter(None, [query.name]), *(f"{{{{{label}}}}}" for label in query.labels)]) or "all"


_LEGEND: Final = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
_TOOLTIP: Final = {"mode": "multi", "sort": "desc"}
_LAST: Final = {"values": False, "calcs": ["lastNotNull"], "fields": ""}
_OPTIONS: Final[Mapping[Form, Json]] = {
    Form.TIME: {"legend": _LEGEND, "tooltip": _TOOLTIP},
    Form.STAT: {"reduceOptions": _LAST, "colorMode": "value", "graphMode": "none", "textMode": "auto"},
    Form.STATES: {"mergeValues": True, "showValue": "auto", "rowHeight": 0.9, "legend": _LEGEND, "tooltip": _TOOLTIP},
    Form.TABLE: {"showHeader": True},
}
