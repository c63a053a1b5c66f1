"""From a configuration to what the supervisor needs to know of it."""

from __future__ import annotations

import os

from portico.runtime.loading import Loaded
from portico.runtime.protocol import Plan


def plan_of(loaded: Loaded, file: str, revision: int, origin: str) -> Plan:
    """Return the plan by which what was loaded, as `origin` has asked for, is run."""
    config = loaded.config
    assert config is not None
    status, database = config.status, config.consumer_database
    return Plan(
        file=file,
        revision=revision,
        origin=origin,
        loaded_at=loaded.began,
        listen=[
            [listener.address.host, listener.address.port, "http" if listener.tls is None else "https"]
            for listener in config.listen
        ],
        workers=_cores() if config.workers == "auto" else config.workers,
        drain_timeout=config.shutdown_timeout,
        watchdog=config.watchdog or 0.0,
        files=list(loaded.files),
        patterns=list(loaded.patterns),
        watch=config.watch,
        log=[config.log.format, config.log.level],
        consumer_database="" if database is None else database.file,
        status=[] if status is None else [status.listen.host, status.listen.port],
    )


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
