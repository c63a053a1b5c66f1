"""A real Prometheus that scrapes a gateway, and what its HTTP API answers."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from typing import Any
from urllib.error import HTTPError

import yaml

from tests.harness.gateway import DEADLINE, ROOT, reserved_port, wait_for
from tests.harness.tools import program

DEPLOYED = ROOT / "deploy" / "prometheus"


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer, which must be a success."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
                said = json.load(answer)
        except HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error
        assert said["status"] == "success", said
        return said["data"]

    def query(self, text: str) -> list[dict[str, Any]]:
        """Return the series that a query has now."""
        result: list[dict[str, Any]] = self.ask("query", query=text)["result"]
        return result

    def answers(self) -> bool:
        """Return whether it can be asked yet."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=DEADLINE) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def prometheus(
    folder: Path, target: str, *others: Mapping[str, Any], file: str = "prometheus.yml"
) -> Iterator[Prometheus]:
    """Run a Prometheus with what is deployed for it, but that it scrapes `target` each second.

    `others` are targets with labels, as `static_configs` has them; they stand for what is to be discovered.
    """
    holder, port = reserved_port()
    holder.close()
    here = folder / "prometheus"
    copytree(DEPLOYED, here)
    config = here / file
    said = yaml.safe_load(config.read_text("utf-8"))
    said["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = said["scrape_configs"]
    job.pop("kubernetes_sd_configs", None)  # some builds of Prometheus do not know Kubernetes
    job["static_configs"] = [{"targets": [target]}, *map(dict, others)]
    config.write_text(yaml.safe_dump(said), "utf-8")
    address = f"127.0.0.1:{port}"
    storage = ["--storage.tsdb.path", str(folder / "tsdb"), "--storage.tsdb.retention.time", "1h"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [program("prometheus"), f"--config.file={config}", f"--web.listen-address={address}", *storage],
            stdout=log,
            stderr=log,
        )
    try:
        running = Prometheus(f"http://{address}")
        wait_for(running.answers, "Prometheus to answer")
        yield running
    finally:
        process.terminate()
        process.wait(DEADLINE)


def findings(text: bytes) -> tuple[int, str]:
    """Return what `promtool check metrics` says of what is scraped: its exit code, and what it finds."""
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=DEADLINE)
    return done.returncode, (done.stdout + done.stderr).decode()
