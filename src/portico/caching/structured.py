"""Dictionaries of structured fields (RFC 9651 section 3.2), as strict as they are meant to be."""

from __future__ import annotations

import re
from typing import Final

Member = bool | int | bytes | None
"""A boolean, an integer, or the text of a string or a token; None is anything else, of which no directive has need."""

_KEY: Final = re.compile(rb"[a-z*][a-z0-9_\-.*]*")
_NUMBER: Final = re.compile(rb"(-?)([0-9]+)(?:\.([0-9]+))?")
_TOKEN: Final = re.compile(rb"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_STRING: Final = re.compile(rb'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_OTHERS: Final = re.compile(
    rb":[A-Za-z0-9+/=]*:"  # bytes
    rb"|@-?[0-9]{1,15}(?![0-9.])"  # a date
    rb'|%"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*"'  # a text of Unicode
)
_BOOLEAN: Final = re.compile(rb"\?([01])")
_OWS: Final = re.compile(rb"[ \t]*")
_COMMA: Final = re.compile(rb",[ \t]*")
_SPACES: Final = re.compile(rb" *")
_SEMICOLON: Final = re.compile(rb"; *")
_ESCAPED: Final = re.compile(rb'\\(["\\])')


class _Malformed(Exception):
    pass


def dictionary(value: bytes) -> dict[bytes, Member] | None:
    """Return the members of a dictionary, without their parameters; None where it is none. Of twins the last counts."""
    value = value.strip(b" ")
    found: dict[bytes, Member] = {}
    at = 0
    try:
        while at < len(value):
            key, at = _key(value, at)
            member: Member = True
            if value[at : at + 1] == b"=":
                member, at = _member(value, at + 1)
            found[key] = member
            at = _end(_OWS, value, _parameters(value, at))
            if at == len(value):
                break
            at = _end(_COMMA, value, at)
            if at == len(value):
                return None
    except _Malformed:
        return None
    return found


def _key(value: bytes, at: int) -> tuple[bytes, int]:
    key = _KEY.match(value, at)
    if key is None:
        raise _Malformed
    return key[0], key.end()


def _member(value: bytes, at: int) -> tuple[Member, int]:
    if value[at : at + 1] != b"(":
        return _bare(value, at)
    at += 1  # a list within: its items are only looked over
    while True:
        begin = at
        at = _end(_SPACES, value, at)
        if value[at : at + 1] == b")":
            return None, at + 1
        if begin == at and value[at - 1 : at] != b"(":
            raise _Malformed
        _, at = _bare(value, at)
        at = _parameters(value, at)


def _parameters(value: bytes, at: int) -> int:
    while (semicolon := _SEMICOLON.match(value, at)) is not None:
        _, at = _key(value, semicolon.end())
        if value[at : at + 1] == b"=":
            _, at = _bare(value, at + 1)
    return at


def _bare(value: bytes, at: int) -> tuple[Member, int]:
    if (number := _NUMBER.match(value, at)) is not None:
        return _number(number), number.end()
    if (text := _STRING.match(value, at)) is not None:
        return _ESCAPED.sub(rb"\1", text[1]), text.end()
    if (token := _TOKEN.match(value, at)) is not None:
        return token[0], token.end()
    if (boolean := _BOOLEAN.match(value, at)) is not None:
        return boolean[1] == b"1", boolean.end()
    return None, _end(_OTHERS, value, at)


def _number(number: re.Match[bytes]) -> Member:
    sign, whole, fraction = number.groups()
    if len(whole) > (15 if fraction is None else 12) or (fraction is not None and len(fraction) > 3):
        raise _Malformed
    return int(sign + whole) if fraction is None else None


def _end(pattern: re.Pattern[bytes], value: bytes, at: int) -> int:
    match = pattern.match(value, at)
    if match is None:
        raise _Malformed
    return match.end()
