"""The files for Grafana and for Prometheus, by their paths below `deploy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from docs.monitoring.dashboards import dashboards
from docs.monitoring.panels import as_json
from docs.monitoring.rules import JOB, RECORDINGS, Alert, alerts

APP: Final = "api-gateway"
"""The label `app` of the gateway's pods, as in the manifests of Kubernetes."""
PORT: Final = 8000
GATEWAY: Final = f"{APP}:{PORT}"
"""Where the gateway is, as in the compose file."""
PROMETHEUS: Final = "http://prometheus:9090"
DASHBOARDS: Final = "/var/lib/grafana/dashboards"
"""Where Grafana's container has the dashboards."""
GUIDE: Final = "docs/operations/monitoring.md"
"""The page that says of each alert what to do."""

_NOTICE: Final = "# Made from the code by `make docs`. Do not edit.\n"
_INTERVAL: Final = "15s"


class _Dumper(yaml.SafeDumper):
    """Writes the same list twice where it stands twice."""

    def ignore_aliases(self, data: object) -> bool:
        """Return that none is another."""
        return True


def grafana() -> dict[str, str]:
    """Return the dashboards, and what has Grafana find them and Prometheus."""
    made = {f"dashboards/{dashboard.uid}.json": as_json(dashboard) for dashboard in dashboards()}
    return made | {
        "provisioning/datasources/portico.yml": _yaml(_data_sources()),
        "provisioning/dashboards/portico.yml": _yaml(_providers()),
    }


def prometheus() -> dict[str, str]:
    """Return the configuration of Prometheus and its rules."""
    return {
        "prometheus.yml": _yaml(_scraping({"static_configs": [{"targets": [GATEWAY]}]})),
        "kubernetes.yml": _yaml(_scraping(_pods())),
        "recording.yml": _yaml({"groups": [_recordings()]}),
        "alerts.yml": _yaml({"groups": [_group(name, group) for name, group in alerts().items()]}),
    }


def _scraping(where: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": _INTERVAL, "evaluation_interval": _INTERVAL},
        "rule_files": ["recording.yml", "alerts.yml"],
        "scrape_configs": [{"job_name": JOB, "metrics_path": "/metrics", **where}],
    }


def _pods() -> dict[str, Any]:
    """Return how each pod of the gateway is found, by itself: a Service would give another one each time."""
    pod = "__meta_kubernetes_pod_"
    relabeling = [
        {
            "source_labels": [f"{pod}label_app", f"{pod}container_port_number"],
            "regex": f"{APP};{PORT}",
            "action": "keep",
        },
        {"source_labels": [f"{pod}phase"], "regex": "Succeeded|Failed", "action": "drop"},
        {"source_labels": [f"{pod}name"], "target_label": "instance"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
    ]
    return {"kubernetes_sd_configs": [{"role": "pod"}], "relabel_configs": relabeling}


def _recordings() -> dict[str, Any]:
    rules = [{"record": recording.name, "expr": recording.query.text} for recording in RECORDINGS]
    return {"name": "portico-recording", "rules": rules}


def _group(name: str, group: tuple[Alert, ...]) -> dict[str, Any]:
    return {"name": name, "rules": [_alert(alert) for alert in group]}


def _alert(alert: Alert) -> dict[str, Any]:
    runbook = f"{GUIDE}#{alert.name.lower()}"
    return {
        "alert": alert.name,
        "expr": alert.query.text,
        "for": alert.lasting,
        "labels": {"severity": str(alert.severity)},
        "annotations": {
            "summary": alert.summary,
            "description": f"{alert.description} What to do: {runbook}",
            "runbook": runbook,
        },
    }


def _data_sources() -> dict[str, Any]:
    source = {
        "name": "Prometheus",
        "uid": "portico-prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": PROMETHEUS,
        "isDefault": True,
        "jsonData": {"httpMethod": "POST", "timeInterval": _INTERVAL},
    }
    return {"apiVersion": 1, "datasources": [source]}


def _providers() -> dict[str, Any]:
    provider = {
        "name": "portico",
        "folder": "Portico",
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": DASHBOARDS},
    }
    return {"apiVersion": 1, "providers": [provider]}


def _yaml(content: Mapping[str, Any]) -> str:
    return _NOTICE + yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
