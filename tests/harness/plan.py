"""A plan to run, for tests of the supervisor's parts."""

from __future__ import annotations

from portico.runtime.protocol import Plan

PLAN = Plan(
    file="/a.yaml",
    revision=1,
    origin="start",
    loaded_at=0.0,
    listen=[["127.0.0.1", 0, "http"]],
    workers=2,
    drain_timeout=1.0,
    watchdog=0.0,
)
