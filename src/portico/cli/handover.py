"""From a file to what a supervisor begins with: for `portico run`, and for SIGUSR2, which runs this as a program."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from portico.agent.plan import plan_of
from portico.config.findings import report
from portico.runtime.loading import Loaded, load
from portico.runtime.snapshot import pack
from portico.state.board import shared_file
from portico.supervisor.handover import Handover


def handover_of(loaded: Loaded, file: Path, snapshot: int, revision: int = 1, origin: str = "start") -> Handover:
    """Return what a supervisor needs to run what was loaded; the snapshot is written to `snapshot`."""
    assert loaded.config is not None
    with os.fdopen(os.dup(snapshot), "wb") as packed:
        packed.write(pack(loaded.config, loaded.plugins))
    return Handover(plan_of(loaded, str(file), revision, origin), snapshot, started=time.time())


def new_snapshot() -> int:
    """Return the descriptor of an empty file of memory."""
    return shared_file("portico-snapshot", b"")


def main() -> int:
    """Load a file by the version that is installed, and write what its supervisor would begin with."""
    parser = argparse.ArgumentParser(prog="portico handover", description="Started by the gateway on SIGUSR2.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--revision", required=True, type=int, help="the revision that it would be")
    parser.add_argument("--snapshot", required=True, type=int, help="descriptor to write the snapshot to")
    parser.add_argument("--to", required=True, type=int, help="descriptor to write the handover to")
    options: Any = parser.parse_args()
    loaded = load(options.file)
    sys.stderr.write(report(loaded.findings))
    if loaded.config is None:
        return 1
    handover_of(loaded, options.file, options.snapshot, options.revision, "SIGUSR2").write_to(options.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
