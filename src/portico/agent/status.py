"""How the gateway is, as plain data: what `portico status` shows and the status listener answers."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypedDict

from portico import __version__
from portico.agent.credentials import Credentials
from portico.agent.reload import Reloads
from portico.agent.upstreams import Known, Upstreams
from portico.agent.workers import WorkerLink, Workers
from portico.config.balance import Target
from portico.runtime.protocol import Plan
from portico.runtime.state import FAILURES
from portico.state.board import AGENT, Board, Segment, Vital

LATE: Final = 2.0
"""Seconds without a sign of life from which a process is called stuck."""

_NOT_WELL: Final = "not well: "
_SPACES: Final = ("volatile", "durable")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Process(TypedDict):
    """One process of the gateway."""

    name: str
    pid: int
    state: str
    """`serving`, `stuck`, `draining` or `starting`."""
    uptime: float
    """Seconds."""
    silent: float
    """Seconds since its last sign of life."""
    revision: int
    connections: int
    in_flight: int
    requests: int
    retired: int
    """Earlier configurations that still have requests under way."""
    memory: int
    """Resident bytes; 0 where the system does not tell."""
    loop_lag: float
    loop_lag_max: float
    """Seconds that its loop was late, at the last beat and at its latest."""
    gc_pauses: int
    gc_seconds: float
    gc_pause_max: float
    store_wait_max: float
    """Seconds that its loop has waited for the lock of the store at most."""


async def status(
    plan: Plan,
    board: Board,
    workers: Workers,
    reloads: Reloads,
    upstreams: Upstreams,
    credentials: Credentials,
    supervisor: int,
) -> dict[str, Any]:
    """Return it; a worker that does not answer is told of by the board alone."""
    links: list[WorkerLink] = list(workers)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(link.report()) for link in links]
    reports = [task.result() for task in asked]
    last = reloads.last
    counters = board.counters()
    processes = [
        _process("agent", board.segment(AGENT)),
        *(_process(f"worker {slot}", board.segment(1 + slot)) for slot in range(plan.workers)),
    ]
    return {
        "version": __version__,
        "file": plan.file,
        "revision": plan.revision,
        "origin": plan.origin,
        "loaded_at": _time(plan.loaded_at),
        "listen": [f"{scheme}://{host or '*'}:{port}" for host, port, scheme in plan.listen],
        "last_reload": None if last is None else {**asdict(last), "at": _time(last.at)},
        "supervisor": {"pid": supervisor, "memory": _memory(supervisor)},
        "processes": processes,
        "services": _services(reports, upstreams),
        "breakers": _breakers(reports),
        "concurrency": _concurrency(reports),
        "retries": _retries(reports),
        "discovery": _discovery(upstreams),
        "consumer_database": _database(credentials),
        "certificates": _certificates(reports),
        "state": _state(reports, counters.get(FAILURES, 0)),
        "counters": {name: value for name, value in counters.items() if not name.startswith("http_")},
    }


def _process(name: str, segment: Segment) -> Process:
    vital = segment.vitals()
    now = time.monotonic_ns()
    pid = vital[Vital.PID]
    silent = (now - vital[Vital.BEAT]) / 1e9 if pid else 0.0
    if not pid or not (vital[Vital.REVISION] or name == "agent"):
        state = "starting"
    elif silent > LATE:
        state = "stuck"
    else:
        state = "draining" if vital[Vital.DRAINING] else "serving"
    return Process(
        name=name,
        pid=pid,
        state=state,
        uptime=round((now - vital[Vital.STARTED]) / 1e9, 1) if pid else 0.0,
        silent=round(silent, 3),
        revision=vital[Vital.REVISION],
        connections=vital[Vital.CONNECTIONS],
        in_flight=vital[Vital.IN_FLIGHT],
        requests=vital[Vital.REQUESTS],
        retired=vital[Vital.RETIRED],
        memory=_memory(pid),
        loop_lag=vital[Vital.LAG] / 1e9,
        loop_lag_max=vital[Vital.LAG_MAX] / 1e9,
        gc_pauses=vital[Vital.GC_RUNS],
        gc_seconds=vital[Vital.GC_TIME] / 1e9,
        gc_pause_max=vital[Vital.GC_MAX] / 1e9,
        store_wait_max=vital[Vital.STORE_WAIT_MAX] / 1e9,
    )


def _memory(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _services(reports: list[dict[str, Any]], upstreams: Upstreams) -> dict[str, list[dict[str, Any]]]:
    """Return each service's targets: what the workers have found, and their connections together; and what the agent
    knows of them.
    """
    services: dict[str, dict[str, dict[str, Any]]] = {}
    for report in reports:
        for name, targets in report.get("services", {}).items():
            known = services.setdefault(name, {})
            for target in targets:
                sum_ = known.setdefault(target["address"], _nothing_of(target["address"]))
                sum_["connections"] += target["connections"]
                if not target["reachable"]:  # as that worker has found when it tried last
                    sum_["reachable"] = False
                    sum_["unreachable_by"] += 1
                if target["state"] == "ejected":  # each worker finds that out for itself
                    sum_["ejected_by"] += 1
                    sum_["ejected_for"] = target["why"]
    for name in upstreams:
        known = services.setdefault(name, {})
        for target in upstreams[name].targets:  # those that no worker has told of by now are there too
            known.setdefault(str(target), _nothing_of(str(target))).update(_known(upstreams[name], target))
    return {name: [judged(target) for target in targets.values()] for name, targets in services.items()}


def judged(target: dict[str, Any]) -> dict[str, Any]:
    """Return a target with what all of that comes to: its `state`, and why."""
    health = target.get("health", "")
    if health.startswith(_NOT_WELL):
        state, why = "unhealthy", health.removeprefix(_NOT_WELL)
    elif target["ejected_by"]:
        state, why = "ejected", target["ejected_for"]
    elif not target["reachable"]:
        state, why = "unreachable", "it could not be connected to when last tried"
    else:
        state, why = "healthy" if health == "well" else "unchecked", ""
    return {"address": target["address"], "state": state, "why": why, **target}


def _nothing_of(address: str) -> dict[str, Any]:
    """Return a target of which nothing is known."""
    return {
        "address": address,
        "reachable": True,
        "unreachable_by": 0,
        "connections": 0,
        "ejected_by": 0,
        "ejected_for": "",
    }


def _known(upstream: Known, target: Target) -> dict[str, Any]:
    """Return what the agent knows of a target."""
    known: dict[str, Any] = {"weight": target.weight, "priority": target.priority, "metadata": target.metadata}
    if upstream.checked:
        verdict = upstream.verdicts.get(str(target))
        if verdict is None:
            known["health"] = "not looked at"
        else:
            known["health"] = "well" if verdict.well else f"{_NOT_WELL}{verdict.why}"
            known["since"] = _time(verdict.since)
    return known


def _breakers(reports: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what each breaker is, which is the same for all workers."""
    breakers: dict[str, dict[str, Any]] = {}
    for report in reports:
        for name, each in report.get("breakers", {}).items():
            since = _time(each["since"]) if each["since"] else ""
            breakers.setdefault(name, {"state": each["name"], "since": since, "why": each["why"]})
    return breakers


def _concurrency(reports: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return how many requests are under way, and wait, where they are limited: those of all workers together."""
    together: dict[str, dict[str, int]] = {}
    for report in reports:
        for name, room in report.get("concurrency", {}).items():
            known = together.get(name, {})
            together[name] = {key: known.get(key, 0) + count for key, count in room.items()}
    return together


def _retries(reports: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many further tries are left in the budgets of all workers together."""
    left: Counter[str] = Counter()
    for report in reports:
        left.update(report.get("retries", {}))
    return dict(left)


def _discovery(upstreams: Upstreams) -> dict[str, dict[str, Any]]:
    """Return where the targets of services are from that are found out, and why they cannot be, where that is so."""
    return {
        name: {"source": known.source, "targets": len(known.targets), "trouble": known.trouble}
        for name in upstreams
        if (known := upstreams[name]).source
    }


def _database(credentials: Credentials) -> dict[str, str] | None:
    """Return which database of consumers is looked at, and why that cannot be done, where that is so."""
    return {"file": credentials.file, "trouble": credentials.trouble} if credentials.file else None


def _state(reports: list[dict[str, Any]], failures: int) -> dict[str, Any] | None:
    """Return how the store is, where workers have it open: how full, which all see alike, and who cannot ask it."""
    told = [report["state"] for report in reports if report.get("state") is not None]
    if not told:
        return None
    troubles = [each["trouble"] for each in told if each["trouble"]]
    return {
        **told[0],
        "trouble": troubles[0] if troubles else "",
        "in_trouble": len(troubles),
        "failures": failures,
        **{space: _filled([each[space] for each in told if each[space] is not None]) for space in _SPACES},
    }


def _filled(told: list[dict[str, int]]) -> dict[str, int] | None:
    """Return how full a space is; each worker has taken away records of its own."""
    if not told:
        return None
    return {
        "used": max(each["used"] for each in told),
        "size": told[0]["size"],
        "evicted": sum(each["evicted"] for each in told),
    }


def _certificates(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each certificate with its end, which is the earliest where workers have read its file at other times."""
    ends: dict[str, float] = {}
    for report in reports:
        for certificate in report.get("certificates", ()):
            file, end = certificate["file"], certificate["expires"]
            ends[file] = min(end, ends.get(file, end))
    return [{"file": file, "expires": _time(end)} for file, end in ends.items()]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
