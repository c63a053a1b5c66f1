"""What the sources say of themselves, read without running them: a compiled module has no docstrings to ask for."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src" / "portico"


@cache
def tree(path: str) -> ast.Module:
    """Return the syntax tree of a file, named relative to the package."""
    return ast.parse((SOURCES / path).read_text("utf-8"), path)


def files() -> list[str]:
    """Return the files of the package, relative to it."""
    return sorted(path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py"))


def module_doc(path: str) -> str:
    """Return the docstring of a file as Markdown."""
    return markdown(ast.get_docstring(tree(path)) or "")


def class_doc(path: str, name: str) -> str:
    """Return the docstring of a class as Markdown."""
    return markdown(ast.get_docstring(_class(path, name)) or "")


def value_docs(path: str, name: str = "") -> dict[str, str]:
    """Return the texts that stand below the names of a file, or below those of one of its classes."""
    body = (_class(path, name) if name else tree(path)).body
    docs = {}
    for statement, below in itertools.pairwise(body):
        name = name_given(statement)
        if name and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[name] = inspect.cleandoc(str(below.value.value))
    return docs


def name_given(statement: ast.stmt) -> str:
    """Return the name that a statement gives a value or a type, or an empty text."""
    if isinstance(statement, ast.Assign):
        target = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign):
        target = statement.target
    else:
        return ""
    return target.id if isinstance(target, ast.Name) else ""


def markdown(text: str) -> str:
    """Return a docstring with its drawings between fences, and its tables as Markdown has them."""
    return "\n\n".join(_block(block) for block in re.sub(r"\n+::\n+", "\n\n", text).split("\n\n")).strip()


def _block(block: str) -> str:
    lines = block.splitlines()
    if block.startswith("===="):
        at = block.index(" ")
        cells = [(line[:at].strip(), line[at:].strip()) for line in lines if not line.startswith("====")]
        rows = [" | ".join(cell.replace("|", r"\|") for cell in pair) for pair in cells]
        return "\n".join(["| | |", "| --- | --- |", *(f"| {row} |" for row in rows)])
    if lines and all(line.startswith("    ") for line in lines):
        return f"```text\n{inspect.cleandoc(block)}\n```"
    return block


def _class(path: str, name: str) -> ast.ClassDef:
    return next(node for node in tree(path).body if isinstance(node, ast.ClassDef) and node.name == name)
