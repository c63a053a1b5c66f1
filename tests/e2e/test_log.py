"""The log of the gateway's processes, in JSON."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.harness.gateway import Gateway, curl, wait_for

REFUSING = "routes: [{path: /x, respond: {body: hello}, policies: [key-auth]}]\n"


def test_all_processes_log_in_json_and_a_reload_changes_that(tmp_path: Path) -> None:
    config = f"log: json\nconsumers: {{ada: {{keys: [a-very-long-key-of-ada]}}}}\n{REFUSING}"
    with Gateway(tmp_path, config) as gateway:
        gateway.agent_answers()
        assert curl(f"{gateway.url}/x").status == 401
        wait_for(lambda: "portico.security" in gateway.log(), "the refusal to be told")
        said = [json.loads(line) for line in gateway.log().splitlines()]
        assert all(
            line.keys() == {"timestamp", "level", "logger", "process", "pid", "message"} and line["timestamp"]
            for line in said
        )
        (refused,) = [line for line in said if line["logger"] == "portico.security"]
        assert (refused["process"], refused["pid"]) == ("worker", gateway.worker_pids()[0])
        assert {line["process"] for line in said} >= {"supervisor", "worker"}

        gateway.file.write_text(gateway.file.read_text().replace("log: json", "log: {level: error}"))
        gateway.popen.send_signal(signal.SIGHUP)
        wait_for(lambda: curl(f"{gateway.url}/x").status == 401 and _is_quiet(gateway), "the other level")


def _is_quiet(gateway: Gateway) -> bool:
    before = gateway.log()
    curl(f"{gateway.url}/x")
    return gateway.log() == before
