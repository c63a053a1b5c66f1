"""What is wrong with an expression, and where in it."""

from __future__ import annotations

from portico.errors import ConfigError


class ConditionError(ConfigError):
    """An expression that cannot be used: `message` says what is wrong at `line` and `column`, `hint` how to mend it.

    Both count from 1, in the expression.
    """

    def __init__(self, message: str, text: str, at: int, hint: str = "") -> None:
        """Say what is wrong at the offset `at` of `text`."""
        self.line = text.count("\n", 0, at) + 1
        self.column = at - (text.rfind("\n", 0, at) + 1) + 1
        where = f"column {self.column}" if "\n" not in text.strip() else f"line {self.line}, column {self.column}"
        super().__init__(f"{where}: {message}")
        self.message = message
        self.hint = hint


class Fault(Exception):
    """The same, on its way to someone who knows the whole text."""

    def __init__(self, message: str, at: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.at = at
        self.hint = hint
