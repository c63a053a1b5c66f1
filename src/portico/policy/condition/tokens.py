"""The words of an expression (the lexis of CEL: https://github.com/google/cel-spec/blob/master/doc/langdef.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from portico.policy.condition.error import Fault

Sort = Literal["name", "text", "number", "sign", "end"]


class Token(NamedTuple):
    """One word: what sort it is of, how it is written, where, and what a literal stands for."""

    sort: Sort
    written: str
    at: int
    value: str | int = ""

    @property
    def shown(self) -> str:
        """What a message calls it."""
        return "the end" if self.sort == "end" else repr(self.written) if self.sort == "sign" else self.written


_SPACE: Final = re.compile(r"(?:\s+|//[^\n]*)*+")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*+")
_NUMBER: Final = re.compile(r"(0[xX][0-9A-Fa-f]++|[0-9]++)(?![0-9A-Za-z_]|\.[0-9])")
_TEXT: Final = re.compile(r"""'(?:[^'\\\n]|\\[^\n])*+'|"(?:[^"\\\n]|\\[^\n])*+\"""")
_RAW_TEXT: Final = re.compile(r"""[rR](?:'[^'\n]*+'|"[^"\n]*+")""")
_SIGN: Final = re.compile(r"&&|\|\||[=!<>]=|[!<>()\[\],.?:-]")
_ESCAPE: Final = re.compile(
    r"\\(?:[xX]([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-3][0-7]{2})|(.?))", re.DOTALL
)
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {
    sign: sign for sign in "\\?\"'`"
}
_MEANT: Final = {
    "&": "write &&",
    "|": "write ||",
    "=": "write == to compare",
    "'": "a text ends with the quote that it began with, on the same line",
    '"': "a text ends with the quote that it began with, on the same line",
    "/": "a text stands in quotes: '/orders'",
    "{": "a list stands in square brackets: ['GET', 'HEAD']",
    "%": "there is no arithmetic here",
    "+": "there is no arithmetic here",
    "*": "there is no arithmetic here",
}
_LARGEST: Final = 2**63


def tokens(text: str) -> Iterator[Token]:
    """Iterate over the words of `text`, the last of which is its end; raise Fault where something is none."""
    at = 0
    while True:
        found = _SPACE.match(text, at)
        at = found.end() if found is not None else at
        if at == len(text):
            yield Token("end", "", at)
            return
        token = _token(text, at)
        yield token
        at += len(token.written)


def _token(text: str, at: int) -> Token:
    if found := _TEXT.match(text, at):
        return Token("text", found[0], at, _unescaped(found[0][1:-1], at + 1))
    if found := _RAW_TEXT.match(text, at):
        return Token("text", found[0], at, found[0][2:-1])
    if found := _NAME.match(text, at):
        return Token("name", found[0], at)
    if found := _NUMBER.match(text, at):
        number = int(found[1], 0) if found[1][:2] in ("0x", "0X") else int(found[1])
        if number > _LARGEST:  # which only a minus makes smaller
            raise Fault("this number is too large", at, "the largest is 9223372036854775807")
        return Token("number", found[0], at, number)
    if found := _SIGN.match(text, at):
        return Token("sign", found[0], at)
    if text[at].isascii() and text[at].isdigit():
        raise Fault("this is not a whole number", at, "write 10; there are no fractions and no suffixes here")
    raise Fault(f"{text[at]!r} has no meaning here", at, _MEANT.get(text[at], ""))


def _unescaped(text: str, at: int) -> str:
    """Return what a text stands for, that begins at `at`."""

    def plain(found: re.Match[str]) -> str:
        code = found[1] or found[2] or found[3]
        number = int(code, 16) if code else int(found[4], 8) if found[4] else None
        if number is not None and number < 0x110000 and not 0xD800 <= number < 0xE000:
            return chr(number)
        if number is None and found[5] in _ESCAPES:
            return _ESCAPES[found[5]]
        hint = "for a backslash write \\\\, or put an r before the text: r'\\d'"
        raise Fault(f"there is no escape {found[0]}", at + found.start(), hint)

    return _ESCAPE.sub(plain, text)
