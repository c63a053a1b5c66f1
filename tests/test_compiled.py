"""Rules for the modules that are compiled, which the compiler does not hold by itself."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
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


SOURCES = ROOT / "src"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def file_of(module: str) -> Path | None:
    """Return the file of one of our modules."""
    path = SOURCES.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def imported_by(file: Path) -> frozenset[str]:
    """Return the modules that a file names in its imports, wherever they stand."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def known_to_the_compiler() -> set[str]:
    """Return the packages of others that it sees: it follows imports from the compiled modules on."""
    ahead, seen, foreign = [f"portico.{name.replace('/', '.')}" for name in COMPILED], set(), set()
    while ahead:
        module = ahead.pop()
        file = file_of(module)
        if file in seen or (file is None and module.startswith("portico")):
            continue
        seen.add(file)
        if file is None:
            foreign.add(module.partition(".")[0])
            seen.discard(file)
        else:
            parents = [module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)]
            ahead += [*imported_by(file), *parents]
    return foreign - sys.stdlib_module_names


def name_of(requirement: str) -> str:
    """Return the package that a requirement is about: of `mypy[mypyc]>=1.17`, mypy."""
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def with_what_it_brings(requirements: list[str]) -> set[str]:
    """Return the packages that are there where these are installed."""
    found, ahead = set(), [name_of(requirement) for requirement in requirements]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            with suppress(PackageNotFoundError):  # it is for another version of Python
                ahead += [name_of(each) for each in requires(name) or () if "extra ==" not in each]
    return found


def test_what_the_compiler_has_to_know_is_there_when_a_wheel_is_built() -> None:
    """Where a type is not known the compiler gives up, and what is installed then is not compiled."""
    there = with_what_it_brings(PROJECT["build-system"]["requires"])
    untyped = {module.removesuffix(".*") for rule in PROJECT["tool"]["mypy"]["overrides"] for module in rule["module"]}
    known = known_to_the_compiler() - {"compression"}  # the standard library's, from Python 3.14 on
    assert {"lmdb", "orjson"} <= known
    for module in known - untyped:
        packages = {name_of(name) for name in packages_distributions()[module]}
        assert {*packages, *(f"types-{name}" for name in packages)} & there, module


def test_no_error_is_being_handled_between_tests() -> None:
    assert sys.exc_info() == (None, None, None)
