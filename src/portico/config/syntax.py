"""What the YAML parser says when it cannot read a text, in the words of someone who wants to mend it."""

from __future__ import annotations

import yaml

from portico.config.findings import Findings, Place

_PLAIN: dict[str, tuple[str, str]] = {
    "mapping values are not allowed in this context": (
        "a ':' that YAML cannot place",
        "quote text that has ': ' in it, or check the indentation of this line and the one above",
    ),
    "did not find expected key": (
        "this line fits none of the lines above",
        "check its indentation, or quote the whole of a text that starts with a quote",
    ),
    "did not find expected '-' indicator": (
        "an item of the list was expected here",
        "start it with '-' under the other items, or check the indentation",
    ),
    "did not find expected node content": ("a value was expected here", "quote text that starts with one of ,:[]{}"),
    "found unexpected ':'": ("a ':' that YAML cannot place", "quote text that has ':' in it, here within brackets"),
    "found a tab character that violates indentation": ("a tab in the indentation", "indent with spaces"),
    "found a tab character where an indentation space is expected": ("a tab in the indentation", "indent with spaces"),
    "found unknown escape character": (
        "this backslash has no meaning between double quotes",
        "use single quotes, where a backslash is only a backslash",
    ),
    "did not find expected alphabetic or numeric character": (
        "a name was expected after '*' or '&'",
        "quote text that starts with '*' or '&', such as \"*.example.com\"",
    ),
    "did not find expected <document start>": (
        "text goes on after the value is complete",
        "quote the whole value, or check the indentation",
    ),
}

_FROM_ITS_BEGINNING: dict[str, tuple[str, str]] = {
    "found unexpected end of stream": ("the quote that opens here is never closed", "close it"),
    "could not find expected ':'": ("a ':' was expected after this key", "write 'key: value', with a space"),
}


def explain_syntax_error(error: yaml.MarkedYAMLError, file: str, text: str, findings: Findings) -> None:
    """Note what keeps `text` from being YAML."""
    mark = error.problem_mark or error.context_mark
    place = _place(file, mark)
    problem = error.problem or "it cannot be parsed"
    if problem == "did not find expected node content" and not _character(text, place):
        findings.error(place, "a value was expected here", "is a bracket above left open?")
    elif problem in _PLAIN:
        findings.error(place, *_PLAIN[problem])
    elif problem == "found character that cannot start any token":
        _explain_character(_character(text, place), place, findings)
    elif problem in _FROM_ITS_BEGINNING:
        findings.error(_place(file, error.context_mark or mark), *_FROM_ITS_BEGINNING[problem])
    elif problem.startswith("did not find expected ',' or"):
        _explain_brackets(problem[-2], place, _place(file, error.context_mark or mark), text, findings)
    else:
        findings.error(place, f"this is not YAML: {problem}")


def _explain_character(character: str, place: Place, findings: Findings) -> None:
    if character == "\t":
        findings.error(place, "a tab in the indentation", "indent with spaces")
    else:
        findings.error(place, f"a value cannot start with {character!r}", "quote it")


def _explain_brackets(closing: str, place: Place, opening: Place, text: str, findings: Findings) -> None:
    character = _character(text, place)
    if character == "{" and _character(text, place._replace(column=place.column - 1)) == "$":
        findings.error(place, "'${' stands unquoted within brackets", 'quote it there: {url: "${URL}"}')
    elif character in tuple("[{"):
        hint = 'quote the whole text there: {path: "/users/{id}"}'
        findings.error(place, f"'{character}' stands unquoted in a text within brackets", hint)
    else:
        findings.error(place, f"a ',' or '{closing}' was expected here", f"the bracket opens at line {opening.line}")


def _place(file: str, mark: yaml.Mark | None) -> Place:
    return Place(file, mark.line + 1, mark.column + 1) if mark is not None else Place(file)


def _character(text: str, place: Place) -> str:
    """Return the character at `place`, or nothing beyond the end of its line."""
    lines = text.split("\n")
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    return line[place.column - 1 : place.column]
