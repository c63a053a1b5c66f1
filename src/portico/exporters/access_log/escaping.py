"""How what others have sent becomes a part of a line, so that none of them can make a line of their own.

In JSON, beside what RFC 8259 asks for, whatever some reader takes for the end of a line, or a terminal for an order,
is escaped: DEL, the C1 controls, U+2028 and U+2029, and marks that turn the direction of writing. In text it is as
nginx does it: `"`, the backslash, and all bytes below 32 or above 126 as `\\xXX`. Bytes that are no UTF-8 are `\\xXX`
in both.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

_UNSEEN: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_ODD: Final = re.compile(r'["\\\x00-\x1f\x7f-\xff]')
CUT: Final = "…"


def cut(text: str, longest: int) -> str:
    """Return so much of a text, and a sign where there was more."""
    return text if len(text) <= longest else text[:longest] + CUT


def decoded(raw: bytes) -> str:
    """Return bytes as text; those that are no UTF-8 as `\\xXX`."""
    return raw.decode("utf-8", "backslashreplace")


def json_text(text: str) -> str:
    """Return a text as a value of JSON, quotes included."""
    try:
        made = orjson.dumps(text).decode()
    except TypeError:  # it has half of a surrogate pair, as JSON lets a token's claim have
        made = orjson.dumps(text.encode("utf-8", "backslashreplace").decode()).decode()
    return made if made.isascii() and "\x7f" not in made else _UNSEEN.sub(_as_escape, made)


def plain_text(text: str) -> str:
    """Return a text as it may stand between double quotes."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return _ODD.sub(_as_byte, text.encode("utf-8", "backslashreplace").decode("latin-1"))


def _as_escape(odd: re.Match[str]) -> str:
    return f"\\u{ord(odd[0]):04x}"


def _as_byte(odd: re.Match[str]) -> str:
    return f"\\x{ord(odd[0]):02X}"
