"""What is wrong with a configuration, and where: every mistake of it is told at once."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """Whether a finding stops the configuration from being run."""

    ERROR = "error"
    WARNING = "warning"


class Place(NamedTuple):
    """Where something stands in a file; line and column count from 1, as editors do."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


def place_of(origin: str) -> Place:
    """Return the place that an origin names."""
    file, _, rest = origin.rpartition(":")
    file, _, line = file.rpartition(":")
    return Place(file, int(line), int(rest)) if line.isdigit() and rest.isdigit() else Place(origin)


class Finding(NamedTuple):
    """One thing that is wrong: where it is, what it is, and how to mend it."""

    severity: Severity
    file: str
    line: int
    column: int
    message: str
    hint: str = ""

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.file, self.line, self.column)

    def __str__(self) -> str:
        severity = "" if self.severity is Severity.ERROR else f"{self.severity}: "
        hint = f" (hint: {self.hint})" if self.hint else ""
        return f"{self.place}: {severity}{self.message}{hint}"


class Findings:
    """The findings of one load, in the order in which they were made."""

    def __init__(self, found: Iterable[Finding] = ()) -> None:
        self._found = list(found)

    def error(self, place: Place, message: str, hint: str = "") -> None:
        """Note a mistake that keeps the configuration from being run."""
        self._found.append(Finding(Severity.ERROR, *place, message, hint))

    def warning(self, place: Place, message: str, hint: str = "") -> None:
        """Note an oddity that the configuration can be run with."""
        self._found.append(Finding(Severity.WARNING, *place, message, hint))

    @property
    def failed(self) -> bool:
        """Whether there is an error among them."""
        return any(finding.severity is Severity.ERROR for finding in self._found)

    def sorted(self) -> tuple[Finding, ...]:
        """Return them by place, each once: text that an alias repeats is wrong in one place only."""
        return tuple(sorted(set(self._found), key=lambda finding: (finding.place, finding.message)))


def report(findings: Iterable[Finding]) -> str:
    """Return `findings` as text, one line each."""
    return "".join(f"{finding}\n" for finding in findings)
