"""`${NAME}`, `${NAME:-default}` and `${file:PATH}` in values.

They are filled in after the YAML was parsed, so that no value can add a key or a route, and what was filled in is not
looked at again. `$${` writes a `${`. A default stands in for a variable that is unset or empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from portico.config.findings import Findings, Place
from portico.config.nearest import did_you_mean
from portico.config.source import ConfigSource, beside

SECRET_LIMIT = 1024 * 1024
"""The most bytes that `${file:PATH}` takes in; a bundle of certificates is some hundred KiB."""

_MARKER = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORMS = "write ${NAME}, ${NAME:-default} or ${file:PATH}; $${ stands for a plain ${"


class Filled(NamedTuple):
    """A text with its substitutions made."""

    text: str
    secret: bool = False
    broken: bool = False


class _Failed(Exception):
    """A substitution cannot be made."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Substitution:
    """Fills in the values of one load; the only one who reads the environment."""

    def __init__(self, source: ConfigSource, environment: Mapping[str, str], findings: Findings) -> None:
        self.files: list[str] = []
        """The files that were read, or should have been."""
        self._source = source
        self._environment = environment
        self._findings = findings

    def fill(self, text: str, place: Place) -> Filled:
        """Return `text` with its substitutions made; those that fail are noted as findings."""
        secret = broken = False

        def value(marker: re.Match[str]) -> str:
            nonlocal secret, broken
            if marker[0] == "$${":
                return "${"
            secret = secret or marker[0].startswith("${file:")
            try:
                return self._value(marker[1], place)
            except _Failed as error:
                broken = True
                self._findings.error(place, str(error), error.hint)
                return ""

        return Filled(_MARKER.sub(value, text), secret, broken)

    def _value(self, body: str | None, place: Place) -> str:
        if body is None:
            raise _Failed("'${' without its '}', or with braces between them", _FORMS)
        name, colon, default = body.partition(":-")
        if _NAME.fullmatch(name):
            return self._variable(name, default if colon else None)
        kind, _, path = body.partition(":")
        if kind == "file" and path:
            return self._file(beside(place.file, path))
        raise _Failed("'${...}' is not a substitution", _FORMS)  # it may be part of a password, and is not repeated

    def _variable(self, name: str, default: str | None) -> str:
        value = self._environment.get(name)
        if default is not None:
            return value or default
        if value is None:
            hint = did_you_mean(name, self._environment) or f"set it, or give a default: ${{{name}:-default}}"
            raise _Failed(f"the environment has no variable {name}", hint)
        return value

    def _file(self, name: str) -> str:
        self.files.append(name)
        try:
            data = self._source.read(name, SECRET_LIMIT + 1)
        except OSError as error:
            raise _Failed(
                f"cannot read {name}: {error.strerror}", "the path is relative to the file it stands in"
            ) from None
        if len(data) > SECRET_LIMIT:
            raise _Failed(f"{name} is longer than {SECRET_LIMIT} bytes, the limit for a file in a value")
        try:
            return data.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise _Failed(f"{name} is not text: it holds bytes that are not UTF-8") from None


class Unfilled(Substitution):
    """Fills in nothing: for files that others write, who must not get at the environment."""

    def fill(self, text: str, place: Place) -> Filled:
        """Refuse it; `$${` stands for itself."""
        if any(marker[0] != "$${" for marker in _MARKER.finditer(text)):
            self._findings.error(place, "nothing is filled in here", "write the value itself, and $${ for a plain ${")
            return Filled("", broken=True)
        return Filled(text.replace("$${", "${"))
