"""Rules for the modules that are compiled, which the compiler does not hold by itself."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPILED = re.findall(r'^    "([a-z0-9_/]+)",$', (ROOT / "hatch_build.py").read_text(), re.MULTILINE)

Waits = (ast.Await, ast.AsyncFor, ast.Yield, ast.YieldFrom)


def waits_in_handlers(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            for part in (*node.handlers, *node.finalbody):
                yield from (inner.lineno for inner in ast.walk(part) if isinstance(inner, Waits))


def test_the_list_is_read() -> None:
    assert "net/h1_server" in COMPILED
    source = "async def f():\n try:\n  pass\n except OSError:\n  await g()\n finally:\n  await g()\n"
    assert list(waits_in_handlers(ast.parse(source))) == [5, 7]


@pytest.mark.parametrize("name", COMPILED)
def test_no_handler_waits(name: str) -> None:
    """A compiled coroutine that waits in an `except` or `finally` leaves the error that it handles to the event loop.

    All later errors of the process then have it as their context, in a chain that grows.
    """
    tree = ast.parse((ROOT / "src" / "portico" / f"{name}.py").read_text())
    assert not list(waits_in_handlers(tree))


def test_no_error_is_being_handled_between_tests() -> None:
    assert sys.exc_info() == (None, None, None)
