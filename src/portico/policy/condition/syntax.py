"""From the text of an expression to its tree (the grammar of CEL, without what conditions have no use for).

::

    choice   = any ["?" any ":" choice]
    any      = all {"||" all}
    all      = relation {"&&" relation}
    relation = unary [("==" | "!=" | "<" | "<=" | ">" | ">=" | "in") unary]
    unary    = "!" unary | "-" number | member
    member   = primary {"." name ["(" [choice {"," choice}] ")"] | "[" choice "]"}
    primary  = text | number | "true" | "false" | name ["(" ... ")"] | "(" choice ")" | "[" choice {"," choice} "]"
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from portico.policy.condition.error import Fault
from portico.policy.condition.tokens import Sort, Token, tokens

MAX_LENGTH: Final = 4096
"""Characters that an expression may have."""
MAX_DEPTH: Final = 32
"""How deep one may be nested."""

_RELATIONS: Final = ("==", "!=", "<", "<=", ">", ">=", "in")
_WORDS: Final = {"and": "&&", "or": "||", "not": "!", "AND": "&&", "OR": "||", "NOT": "!", "eq": "==", "is": "=="}
"""What other languages say."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, a number or a truth value."""

    value: str | int | bool
    at: int


@dataclass(frozen=True, slots=True)
class Name:
    """A word such as `method`."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[a, b]`."""

    items: tuple[Tree, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Member:
    """`of.name`."""

    of: Tree
    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Index:
    """`of[key]`."""

    of: Tree
    key: Tree
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """`name(arguments)`, or `of.name(arguments)`."""

    of: Tree | None
    name: str
    arguments: tuple[Tree, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Not:
    """`!operand`."""

    operand: Tree
    at: int


@dataclass(frozen=True, slots=True)
class Relation:
    """`left sign right`."""

    sign: str
    left: Tree
    right: Tree
    at: int


@dataclass(frozen=True, slots=True)
class Several:
    """Operands with `&&` or with `||` between them."""

    sign: str
    operands: tuple[Tree, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Choice:
    """`test ? then : otherwise`."""

    test: Tree
    then: Tree
    otherwise: Tree
    at: int


Tree: TypeAlias = Literal | Name | ListOf | Member | Index | Call | Not | Relation | Several | Choice
"""A part of an expression; `at` is where in the text a mistake in it would be shown."""


def parse(text: str) -> Tree:
    """Return the tree of `text`; raise Fault where it has none."""
    if len(text) > MAX_LENGTH:
        raise Fault(f"a condition has at most {MAX_LENGTH} characters, not {len(text)}", MAX_LENGTH)
    return _Parser(text).whole()


class _Parser:
    """Reads one text, from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._next = next(self._tokens)
        self._depth = 0

    def whole(self) -> Tree:
        if self._at_sort("end"):
            raise Fault("there is no expression", self._next.at, "write one such as method == 'POST'")
        tree = self._choice()
        if self._at_sort("end"):
            return tree
        raise self._unexpected("an operator or the end")

    def _take(self) -> Token:
        token = self._next
        if token.sort != "end":
            self._next = next(self._tokens)
        return token

    def _at_sort(self, sort: Sort) -> bool:
        return self._next.sort == sort

    def _at_sign(self, *signs: str) -> bool:
        return self._next.sort in ("sign", "name") and self._next.written in signs

    def _expect(self, sign: str) -> None:
        if not self._at_sign(sign):
            raise self._unexpected(repr(sign))
        self._take()

    def _unexpected(self, expected: str) -> Fault:
        token = self._next
        hint = f"write {_WORDS[token.written]}" if token.written in _WORDS else ""
        if token.written in _RELATIONS:
            hint = "put what is compared first in parentheses"
        return Fault(f"{expected} was expected here, not {token.shown}", token.at, hint)

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        if self._depth == MAX_DEPTH:
            raise Fault(f"this is nested more than {MAX_DEPTH} deep", self._next.at)
        self._depth += 1
        yield
        self._depth -= 1

    def _choice(self) -> Tree:
        with self._deeper():
            test = self._several("||")
            if not self._at_sign("?"):
                return test
            at = self._take().at
            then = self._several("||")
            self._expect(":")
            return Choice(test, then, self._choice(), at)

    def _several(self, sign: str) -> Tree:
        """Return operands with `sign` between them: those of `||` may have `&&` in them."""
        operands = [self._operand(sign)]
        at = self._next.at
        while self._at_sign(sign):
            self._take()
            operands.append(self._operand(sign))
        return operands[0] if len(operands) == 1 else Several(sign, tuple(operands), at)

    def _operand(self, sign: str) -> Tree:
        return self._several("&&") if sign == "||" else self._relation()

    def _relation(self) -> Tree:
        left = self._unary()
        if not self._at_sign(*_RELATIONS):
            return left
        sign = self._take()
        return Relation(sign.written, left, self._unary(), sign.at)

    def _unary(self) -> Tree:
        if self._at_sign("!"):
            at = self._take().at
            with self._deeper():
                return Not(self._unary(), at)
        if self._at_sign("-"):
            at = self._take().at
            if self._next.sort != "number":
                raise self._unexpected("a number")
            return Literal(-int(self._take().value), at)
        return self._member()

    def _member(self) -> Tree:
        tree = self._primary()
        for _ in range(MAX_DEPTH):
            if self._at_sign("."):
                self._take()
                name = self._name()
                if self._at_sign("("):
                    tree = Call(tree, name.written, self._arguments(), name.at)
                else:
                    tree = Member(tree, name.written, name.at)
            elif self._at_sign("["):
                at = self._take().at
                tree = Index(tree, self._choice(), at)
                self._expect("]")
            else:
                return tree
        raise Fault(f"this is nested more than {MAX_DEPTH} deep", self._next.at)

    def _name(self) -> Token:
        if self._next.sort != "name":
            raise self._unexpected("a name")
        return self._take()

    def _arguments(self) -> tuple[Tree, ...]:
        self._expect("(")
        return self._until(")")

    def _until(self, closing: str) -> tuple[Tree, ...]:
        """Return the expressions between commas up to `closing`."""
        found: list[Tree] = []
        while not self._at_sign(closing):
            if found:
                self._expect(",")
            found.append(self._choice())
        self._take()
        return tuple(found)

    def _primary(self) -> Tree:
        if self._next.sort in ("text", "number"):
            token = self._take()
            if token.value == 2**63:
                raise Fault("this number is too large", token.at, "the largest is 9223372036854775807")
            return Literal(token.value, token.at)
        if self._at_sign("("):
            self._take()
            inner = self._choice()
            self._expect(")")
            return inner
        if self._at_sign("["):
            at = self._take().at
            return ListOf(self._until("]"), at)
        if self._next.sort != "name" or self._next.written in ("in", *_WORDS):
            raise self._unexpected("a value")
        token = self._take()
        if token.written in ("true", "false"):
            return Literal(token.written == "true", token.at)
        if self._at_sign("("):
            return Call(None, token.written, self._arguments(), token.at)
        return Name(token.written, token.at)
