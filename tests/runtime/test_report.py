"""What a worker tells of itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from portico.runtime.report import SHOWN, SHOWN_TOGETHER, report
from tests.harness.loop import run
from tests.harness.targets import a_target
from tests.harness.upstream import service_of


def told(services: int, targets: int, failing: int) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        made = {}
        for name in range(services):
            its = [a_target(f"t{number}") for number in range(targets)]
            its[failing].failing = True
            made[f"s{name}"] = service_of(its, name=f"s{name}")
        runtime = SimpleNamespace(revision=1, routes=(), services=made, entrances=(), report_of_store=lambda: None)
        return await report(SimpleNamespace(runtime=runtime))  # type: ignore[arg-type,return-value]

    return run(main)["services"]


def test_what_is_other_than_usual_is_told_of_thousands_of_targets() -> None:
    (targets,) = told(1, 3000, 2999).values()
    assert len(targets) == SHOWN
    assert [each["reachable"] for each in targets].count(False) == 1
    assert len(told(1, 3, 2)["s0"]) == 3


def test_a_report_has_a_limit_however_many_services_there_are() -> None:
    assert sum(map(len, told(60, 200, 5).values())) == SHOWN_TOGETHER
