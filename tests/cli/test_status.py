"""What `portico status` prints of the store."""

from __future__ import annotations

from typing import Any

import pytest

from portico.cli.status import status_text

STATE = {
    "version": "1",
    "file": "a.yaml",
    "listen": ["http://*:80"],
    "revision": 1,
    "loaded_at": "now",
    "origin": "start",
    "last_reload": None,
    "supervisor": {"pid": 1, "memory": 0},
    "processes": [],
    "services": {},
    "breakers": {},
    "concurrency": {},
    "retries": {},
    "discovery": {},
    "certificates": [],
}
LMDB = {
    "store": "lmdb",
    "path": "",
    "trouble": "",
    "in_trouble": 0,
    "volatile": {"used": 3 * 1024 * 1024, "size": 32 * 1024 * 1024, "evicted": 0},
    "durable": {"used": 0, "size": 32 * 1024 * 1024, "evicted": 0},
    "failures": 0,
}
FULL = {"used": 24 * 1024 * 1024, "size": 32 * 1024 * 1024, "evicted": 17}
REDIS = LMDB | {"store": "redis://10.0.0.1:6379/0", "volatile": None, "durable": None}


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (LMDB, "state in lmdb; volatile 3 MiB of 32 MiB; durable 0 B of 32 MiB; 0 failures"),
        (
            LMDB | {"path": "/lib", "durable": FULL, "failures": 1},
            "state in lmdb, /lib; volatile 3 MiB of 32 MiB; durable 24 MiB of 32 MiB (17 evicted); 1 failure",
        ),
        (REDIS, "state in redis://10.0.0.1:6379/0; 0 failures"),
        (
            REDIS | {"in_trouble": 1, "trouble": "it is gone", "failures": 2},
            "state in redis://10.0.0.1:6379/0; NOT THERE for 1 worker: it is gone; 2 failures",
        ),
    ],
)
def test_the_store(state: dict[str, Any], line: str) -> None:
    assert status_text(STATE | {"state": state}).splitlines()[-1] == line


def test_no_store_is_no_line() -> None:
    for state in (STATE, STATE | {"state": None}):  # an agent of the version before says nothing of it
        assert "state in" not in status_text(state)
