"""Parts of content that is kept as a whole (RFC 9110 section 14)."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

_RANGE: Final = re.compile(rb"bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.IGNORECASE)
_MOST_DIGITS: Final = 18
"""Digits of a position; more of them are past every end, whatever they say."""


class NoPart(Enum):
    """Why no part is given."""

    ALL = "all"
    """All of it is: Range is of another kind, or of none, or asks for several parts, or for what cannot be named."""
    BEYOND = "beyond"
    """There is no such part: 416."""


def part_of(value: bytes, length: int) -> tuple[int, int] | NoPart:
    """Return where the part that a Range asks for begins and ends (the end is the first byte after it).

    Several parts are answered with all, as section 14.2 allows: many small ones cost more than they save (section
    17.15).
    """
    match = _RANGE.fullmatch(value)
    if match is None:
        return NoPart.ALL
    first, last, suffix = match.groups()
    if suffix is not None:
        wanted = _position(suffix)
        if wanted == 0:
            return NoPart.BEYOND
        return (max(0, length - wanted), length) if length else NoPart.ALL  # a Content-Range cannot say "nothing"
    begin = _position(first)
    end = _position(last) + 1 if last else length
    if last and end <= begin:
        return NoPart.ALL  # not well formed, and so it is not there
    return (begin, min(end, length)) if begin < length else NoPart.BEYOND


def _position(digits: bytes) -> int:
    digits = digits.lstrip(b"0")
    return int(digits or b"0") if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS
