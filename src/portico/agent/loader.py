"""`python -m portico.agent.loader`: loads a file in a process of its own, and prints what came of it.

So that whatever a plugin does when it is imported, and however long ten thousand routes take, the agent goes on; and so
that each load has the code that is installed now.

It prints two lines of JSON. The first comes once the file is read and validated, with a snapshot that workers can
begin to compile; the second once it was compiled here too, and compared with what is served.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from portico.agent.plan import plan_of
from portico.config.findings import Finding, Severity
from portico.runtime.changes import Changes, changes
from portico.runtime.loading import Loaded, read_in, try_out
from portico.runtime.pace import at_once
from portico.runtime.plugins import registry_of
from portico.runtime.protocol import Plan
from portico.runtime.shared import Leases
from portico.runtime.snapshot import Snapshot, pack, read, unpack

NICE = 5
"""How much the load gives way to the workers."""


MOST_PROBLEMS = 500
"""How many errors and warnings are told of by their objects."""


class Problem(TypedDict):
    """One thing that is wrong with a configuration, or odd."""

    object: str
    """Whose it is, such as `service orders` or `route checkout`; empty where it is of none."""
    severity: str
    """`error` or `warning`."""
    place: str
    """`file:line:column`."""
    message: str
    hint: str


@dataclass(frozen=True)
class Outcome:
    """What came of a load so far."""

    plan: Plan | None
    """None where there is an error."""
    errors: list[str]
    warnings: list[str]
    files: list[str]
    patterns: list[str]
    problems: list[Problem] = field(default_factory=list)
    """The errors and the warnings, by the objects in which they are."""
    unchanged: bool = False
    """Whether it says what is served already."""
    changes: Changes | None = None
    """What is other than in what is served; None before that is known."""

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: bytes) -> Outcome:
        """Return what `to_json` has written."""
        values: dict[str, Any] = json.loads(line)
        plan, found = values.pop("plan"), values.pop("changes")
        return cls(
            plan=None if plan is None else Plan(**plan), changes=None if found is None else Changes(**found), **values
        )


def _outcome(loaded: Loaded, plan: Plan | None) -> Outcome:
    errors = [str(each) for each in loaded.findings if each.severity is Severity.ERROR]
    warnings = [str(each) for each in loaded.findings if each.severity is not Severity.ERROR]
    gravest = sorted(loaded.findings, key=lambda each: each.severity is not Severity.ERROR)
    problems = [_problem(each, loaded) for each in gravest[:MOST_PROBLEMS]]
    return Outcome(plan, errors, warnings, list(loaded.files), list(loaded.patterns), problems)


def _problem(finding: Finding, loaded: Loaded) -> Problem:
    return Problem(
        object="" if loaded.objects is None else loaded.objects.at(finding.place),
        severity=finding.severity.value,
        place=str(finding.place),
        message=finding.message,
        hint=finding.hint,
    )


def _load(file: str, revision: int, origin: str, snapshot: int, served: Snapshot, say: Any) -> bool:
    """Load `file`, `say` what comes of it, and tell whether it can be run."""
    loaded = read_in(Path(file))
    plan = None if loaded.config is None else plan_of(loaded, file, revision, origin)
    first = _outcome(loaded, plan)
    if loaded.config is None:
        say(first)
        return False
    with os.fdopen(os.dup(snapshot), "wb") as out:
        out.write(pack(loaded.config, loaded.plugins))
    say(replace(first, unchanged=loaded.config == served.config and loaded.plugins == served.plugins))
    os.nice(NICE)  # by now the workers have as much to do
    tried = try_out(loaded)
    found = changes(served.config, registry_of(served.plugins), loaded.config, loaded.registry)
    say(replace(_outcome(tried, plan if tried.config is not None else None), changes=found))
    return tried.config is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Load a file; 1 where it cannot be run."""
    parser = argparse.ArgumentParser(prog="portico loader", description="Loads a file; started by the gateway.")
    parser.add_argument("file")
    parser.add_argument("--origin", required=True, help="what has asked for it")
    parser.add_argument("--revision", required=True, type=int, help="the revision that it would be")
    parser.add_argument("--snapshot", required=True, type=int, help="descriptor to write the snapshot to")
    parser.add_argument("--served", required=True, type=int, help="descriptor of the snapshot that is served")
    options: Any = parser.parse_args(arguments)
    os.nice(NICE)
    gc.disable()  # it walks all that was read, again and again, and this process has not long to live
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a plugin prints is none of our lines

    def say(outcome: Outcome) -> None:
        out.write(outcome.to_json() + "\n")
        out.flush()

    served = at_once(unpack(read(options.served), Leases().lease()))
    well = _load(options.file, options.revision, options.origin, options.snapshot, served, say)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
