"""`python -m portico.agent.loader`: loads a file in a process of its own, and leaves what came of it behind.

So that whatever a plugin does when it is imported, and however long ten thousand routes take, the agent goes on; and so
that each load has the code that is installed now.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from portico.agent.plan import plan_of
from portico.config.findings import Severity
from portico.runtime.changes import Changes, changes
from portico.runtime.loading import Loaded, load
from portico.runtime.pace import at_once
from portico.runtime.plugins import registry_of
from portico.runtime.protocol import Plan
from portico.runtime.shared import Leases
from portico.runtime.snapshot import pack, read, unpack

NICE = 5
"""How much the load gives way to the workers."""


@dataclass(frozen=True)
class Outcome:
    """What came of a load."""

    plan: Plan | None
    """None where there is an error among the findings."""
    errors: list[str]
    warnings: list[str]
    files: list[str]
    patterns: list[str]
    changes: Changes | None = None
    """What is other than in the configuration that it was compared with."""

    def to_json(self) -> bytes:
        """Return it as bytes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Outcome:
        """Return what `to_json` has written."""
        values: dict[str, Any] = json.loads(content)
        plan, found = values.pop("plan"), values.pop("changes")
        return cls(
            plan=None if plan is None else Plan(**plan), changes=None if found is None else Changes(**found), **values
        )


def _outcome(loaded: Loaded, plan: Plan | None, against: int | None) -> Outcome:
    errors = [str(each) for each in loaded.findings if each.severity is Severity.ERROR]
    warnings = [str(each) for each in loaded.findings if each.severity is not Severity.ERROR]
    found = None
    if loaded.config is not None and against is not None:
        old = at_once(unpack(read(against), Leases().lease()))
        found = changes(old.config, registry_of(old.plugins), loaded.config, loaded.registry)
    return Outcome(plan, errors, warnings, list(loaded.files), list(loaded.patterns), found)


def _write(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def main(arguments: Sequence[str] | None = None) -> int:
    """Load a file; 1 where it cannot be run."""
    parser = argparse.ArgumentParser(prog="portico loader", description="Loads a file; started by the gateway.")
    parser.add_argument("file")
    parser.add_argument("--origin", required=True, help="what has asked for it")
    parser.add_argument("--revision", required=True, type=int, help="the revision that it would be")
    parser.add_argument("--snapshot", required=True, type=int, help="descriptor to write the snapshot to")
    parser.add_argument("--outcome", required=True, type=int, help="descriptor to write the outcome to")
    parser.add_argument("--against", type=int, help="descriptor of the snapshot to compare with")
    options: Any = parser.parse_args(arguments)
    os.nice(NICE)
    loaded = load(Path(options.file))
    plan = None
    if loaded.config is not None:
        plan = plan_of(loaded, options.file, options.revision, options.origin)
        _write(os.dup(options.snapshot), pack(loaded.config, loaded.plugins))
    _write(os.dup(options.outcome), _outcome(loaded, plan, options.against).to_json())
    return 0 if plan is not None else 1


if __name__ == "__main__":
    sys.exit(main())
