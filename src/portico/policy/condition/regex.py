"""Regular expressions that clients cannot make slow.

Python's matcher goes back and tries again, and clients choose what it is tried on. So what makes the tries grow beyond
measure is found at load, and each expression is tried on texts of such a length only that a million tries are enough.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final, NamedTuple

from portico.errors import HeadTooLarge
from portico.policy.condition.error import Fault

LONGEST: Final = 8192
"""Characters of the longest text that is tried."""
SHORTEST: Final = 256
"""An expression that could be tried on shorter texts only is refused."""
_TRIES: Final = 2**20
"""Tries that one text may cost: some 10 ms."""
_FEW: Final = 16
"""A repetition of at most this many is counted as so many ways; of more, as open."""
_MANY: Final = 2**20
"""So many ways are too many, however many more they are."""

_REFUSED: Final = {
    code.ASSERT: "look-around",
    code.ASSERT_NOT: "look-around",
    code.GROUPREF: "a back-reference",
    code.GROUPREF_EXISTS: "a back-reference",
}
_REPEATS: Final = (code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT)
_FLAGS: Final = re.VERBOSE | re.MULTILINE | re.LOCALE
_BEGINNINGS: Final = ((code.AT, code.AT_BEGINNING), (code.AT, code.AT_BEGINNING_STRING))
_END: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*+\]|(\$)", re.DOTALL)
_CLASSES: Final = {
    code.CATEGORY_DIGIT: r"\d",
    code.CATEGORY_NOT_DIGIT: r"\D",
    code.CATEGORY_SPACE: r"\s",
    code.CATEGORY_NOT_SPACE: r"\S",
    code.CATEGORY_WORD: r"\w",
    code.CATEGORY_NOT_WORD: r"\W",
}

Item = tuple[Any, Any]
"""An operation of a parsed expression, and its argument."""


def compile_regex(pattern: str, at: int) -> Callable[[str], bool]:
    """Return what tells whether `pattern` matches somewhere in a text; raise Fault where it could be slow.

    What is returned raises HeadTooLarge for a text that is too long to be tried.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # of what a later Python may read in another way
            tree = parser.parse(pattern, re.ASCII)
            # RE2's `$` is the very end; Python's would be satisfied with a line break before it.
            search = re.compile(_END.sub(lambda found: r"\Z" if found[1] else found[0], pattern), re.ASCII).search
        items = list(tree)
        open_ones, ways = _effort(items, at)
    except (re.error, OverflowError, RecursionError, ValueError, FutureWarning) as error:
        raise Fault(f"{pattern!r} is not a regular expression: {error}", at) from None
    if tree.state.flags & _FLAGS:
        raise Fault("of flags there are only (?i) and (?s) here", at)
    if not items or items[0] not in _BEGINNINGS:
        open_ones += 1  # the search for a beginning
    longest = min(LONGEST, int((_TRIES / ways) ** (1 / open_ones))) if open_ones else LONGEST if ways < _MANY else 0
    if longest < SHORTEST:
        hint = "begin it with ^, have fewer of *, + and ?, and let each part match in one way only"
        raise Fault(f"{pattern!r} could take too long", at, hint)

    def matches(text: str) -> bool:
        if len(text) > longest:
            raise HeadTooLarge(f"A value of more than {longest} characters cannot be matched here.")
        return search(text) is not None

    return matches


class _Effort(NamedTuple):
    """How the tries grow: with the length of the text to the power of `open_ones`, times `ways`."""

    open_ones: int = 0
    ways: int = 1


def _effort(items: Iterable[Item], at: int) -> _Effort:
    """Return what one try of `items` may cost; raise Fault for what is refused."""
    open_ones, ways = 0, 1
    for operation, argument in items:
        if operation in _REFUSED:
            raise Fault(f"a regular expression cannot have {_REFUSED[operation]} here", at)
        effort = _Effort()
        if operation in _REPEATS:
            effort = _effort_of_repeat(argument, at)
        elif operation is code.BRANCH:
            branches = [_effort(branch, at) for branch in argument[1]]
            several = max if _are_told_apart(argument[1]) else sum
            effort = _Effort(max(each.open_ones for each in branches), several(each.ways for each in branches))
        elif operation in (code.SUBPATTERN, code.ATOMIC_GROUP):
            effort = _effort(_inside(operation, argument, at), at)
        open_ones += effort.open_ones
        ways = min(ways * effort.ways, _MANY)
    return _Effort(open_ones, ways)


def _effort_of_repeat(argument: tuple[int, Any, Any], at: int) -> _Effort:
    least, most, inner = argument
    inside = _effort(inner, at)
    if most <= _FEW:
        return _Effort(inside.open_ones * int(most), min(int(most - least + 1) * inside.ways ** int(most), _MANY))
    if inside != _Effort() and not _is_delimited(list(inner)):
        hint = "let what is repeated match in one way only: [a-z0-9-]+, or (/[^/]+)*"
        raise Fault("a repetition within a repetition could take too long", at, hint)
    return _Effort(0 if least == most else 1, 1)


def _inside(operation: Any, argument: Any, at: int) -> list[Item]:
    """Return what stands in a group."""
    if operation is code.SUBPATTERN:
        if argument[1] & _FLAGS:
            raise Fault("of flags there are only (?i) and (?s) here", at)
        return list(argument[3])
    return list(argument)


def _are_told_apart(branches: Iterable[Iterable[Item]]) -> bool:
    """Whether the first letter decides between `branches`; in lower case, as (?i) may stand before."""
    items = [next(iter(branch), None) for branch in branches]
    firsts = [chr(item[1]).lower() if item is not None and item[0] is code.LITERAL else "" for item in items]
    return "" not in firsts and len(set(firsts)) == len(firsts)


def _is_delimited(items: list[Item]) -> bool:
    """Whether `items` are like `/[^/]+`: a sign, and one repetition of what is not that sign, which ends each round."""
    while len(items) == 1 and items[0][0] is code.SUBPATTERN:
        items = list(items[0][1][3])
    if not items or items[0][0] is not code.LITERAL or chr(items[0][1]).isalnum():
        return False
    sign = chr(items[0][1])
    repeats = [argument for operation, argument in items[1:] if operation in _REPEATS]
    single = [item for item in items[1:] if item[0] not in _REPEATS]
    inner = [list(argument[2]) for argument in repeats]
    return (
        len(repeats) == 1
        and len(inner[0]) == 1
        and all(_is_other(operation, argument, sign) for operation, argument in (*single, inner[0][0]))
    )


def _is_other(operation: Any, argument: Any, sign: str) -> bool:
    """Whether an item is one character, and never `sign`."""
    if operation is code.LITERAL:
        return bool(argument != ord(sign))
    if operation is code.NOT_LITERAL:
        return bool(argument == ord(sign))
    if operation is not code.IN:
        return False
    negated = argument[0][0] is code.NEGATE
    return any(_includes(each, sign) for each in argument[negated:]) is negated


def _includes(item: Item, sign: str) -> bool:
    operation, argument = item
    if operation is code.LITERAL:
        return bool(argument == ord(sign))
    if operation is code.RANGE:
        return bool(argument[0] <= ord(sign) <= argument[1])
    return re.fullmatch(_CLASSES[argument], sign, re.ASCII) is not None
