"""The types of problem that clients are told: the errors with a status, and every answer that is built as a problem."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from docs.source import files, markdown, name_given, tree, value_docs

ROOTS: Final = ("RequestError", "UpstreamError")
"""What is made from these errors becomes an answer; they themselves are not raised."""
_ARGUMENTS: Final = ("status", "type", "title", "detail")
"""What `Response.problem` and `Problem` are called with, in this order."""
_OF_REFUSAL: Final = ("type", "title", "reason", "error", "status", "retry_after")
"""What `Refusal` is called with."""
_NOT_TAKEN: Final = (
    "The credentials that were shown are not taken, or it cannot be found out now whether they are good."
)

Said = Mapping[str, object]


class ProblemType(NamedTuple):
    """One type of problem."""

    status: int
    type: str
    title: str
    """Empty where it is the standard phrase of the status, which is not the same in every Python."""
    meanings: tuple[str, ...]
    """One for each of its causes that says something."""


class _Class(NamedTuple):
    bases: list[str]
    doc: str
    said: Said


def problem_types() -> list[ProblemType]:
    """Return every type of problem, by status and name."""
    found: dict[str, ProblemType] = {}
    for problem in (*_of_answers(), *_of_errors()):
        known = found.setdefault(problem.type, problem)
        if known.status != problem.status:
            raise ValueError(f"problem {problem.type} is answered with {known.status} and with {problem.status}")
        meanings = dict.fromkeys((*known.meanings, *problem.meanings))
        found[problem.type] = known._replace(meanings=tuple(meanings))
    return sorted(found.values())


def _problem(said: Said, meaning: str) -> ProblemType | None:
    status, type_, title = said.get("status"), said.get("type"), said.get("title") or ""
    if not isinstance(status, int) or not isinstance(type_, str):
        return None  # it passes on what an error says
    return ProblemType(status, type_, str(title), (meaning,) if meaning else ())


def _of_errors() -> Iterator[ProblemType]:
    classes: dict[str, _Class] = {}
    for path in files():
        classes |= {node.name: _read(node) for node in tree(path).body if isinstance(node, ast.ClassDef)}
    for name, item in classes.items():
        line = list(_line(name, classes))
        if name in ROOTS or not set(ROOTS) & set(line):
            continue
        said = {key: value for ancestor in reversed(line) for key, value in classes[ancestor].said.items()}
        problem = _problem(said, item.doc)
        if problem is not None:
            yield problem


def _line(name: str, classes: Mapping[str, _Class]) -> Iterator[str]:
    """Iterate over a class and what it is made from."""
    if name in classes:
        yield name
        for base in classes[name].bases:
            yield from _line(base, classes)


def _read(node: ast.ClassDef) -> _Class:
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    said = {
        name_given(statement): statement.value.value
        for statement in node.body
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Constant)
    }
    return _Class(bases, markdown(ast.get_docstring(node) or ""), said)


def _of_answers() -> Iterator[ProblemType]:
    for path in files():
        owners = {inner: node for node in tree(path).body if isinstance(node, ast.ClassDef) for inner in ast.walk(node)}
        for call in (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call) and _makes_a_problem(node)):
            refuses = ast.unparse(call.func) == "Refusal"
            said: dict[str, object] = {"status": 401} if refuses else {}
            said |= zip(_OF_REFUSAL if refuses else _ARGUMENTS, map(_constant, call.args), strict=False)
            said |= {keyword.arg: _constant(keyword.value) for keyword in call.keywords if keyword.arg}
            owner = owners.get(call)
            meaning = str(said.get("detail") or (_endpoint_doc(owner) if owner is not None else ""))
            if refuses:
                meaning = _refusal_doc(path, call) or _NOT_TAKEN
            problem = _problem(said, meaning)
            if problem is not None:
                yield problem


def _makes_a_problem(call: ast.Call) -> bool:
    return ast.unparse(call.func) in {"Response.problem", "Problem", "Refusal"}


def _refusal_doc(path: str, call: ast.Call) -> str:
    """Return what stands below the name of a refusal, or what the function that makes it is said to be for."""
    for statement in tree(path).body:
        if call in ast.walk(statement):
            if isinstance(statement, ast.FunctionDef):
                return markdown((ast.get_docstring(statement) or "").partition("\n\n")[2])
            return markdown(value_docs(path).get(name_given(statement), ""))
    return ""


def _constant(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _endpoint_doc(node: ast.ClassDef) -> str:
    """Return what an endpoint says of itself: one whose answer is a problem says what that means."""
    is_endpoint = any(ast.unparse(base).startswith("Endpoint[") for base in node.bases)
    return markdown(ast.get_docstring(node) or "") if is_endpoint else ""
