"""The compact form of a signed token (RFC 7515 section 7.1), read strictly: what two readers could read differently is
refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from typing import Any, Final, NamedTuple, NoReturn

import orjson

_BASE64URL: Final = re.compile(rb"[A-Za-z0-9_-]+")
_REFUSED_HEADERS: Final = {
    "crit": "it has extensions that must be understood",
    "b64": "its content is not encoded",
    "jku": "it brings a key of its own",
    "jwk": "it brings a key of its own",
    "x5u": "it brings a key of its own",
    "x5c": "it brings a key of its own",
    "zip": "it is compressed",
    "enc": "it is encrypted",
}
"""Header parameters that no token may have, whatever they say."""
_MAX_INTEGER: Final = 2**63 - 1


class NotTaken(Exception):
    """A token is not taken. The message says why, in words that may be logged: no part of the token is among them."""


class Compact(NamedTuple):
    """A token that is well formed, and is not verified yet."""

    algorithm: str
    """The algorithm that it says it is signed by."""
    kid: str | None
    """What it calls its key."""
    signed: bytes
    """What the signature is over."""
    payload: bytes
    """What it says."""
    signature: bytes


def decode(token: bytes) -> Compact:
    """Return what a token is made of; raise NotTaken."""
    parts = token.split(b".")
    if len(parts) != 3:
        raise NotTaken("it is not of three parts")
    header = json_object(_decode_part(parts[0], "header"), "header")
    for name, reason in _REFUSED_HEADERS.items():
        if name in header:
            raise NotTaken(reason)
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise NotTaken("it names no algorithm")
    if kid is not None and not isinstance(kid, str):
        raise NotTaken("the name of its key is no text")
    if not isinstance(header.get("typ", ""), str):
        raise NotTaken("its type is no text")
    payload = _decode_part(parts[1], "payload")
    signature = _decode_part(parts[2], "signature")
    return Compact(algorithm, kid, token[: len(token) - len(parts[2]) - 1], payload, signature)


def json_object(data: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object that is written there; raise NotTaken.

    A name may not stand twice, numbers must be finite and not beyond 64 bits, and texts must be of Unicode.
    """
    try:
        orjson.loads(data)  # stricter of the two: UTF-8 alone, no NaN, no half of a surrogate pair
        value = _DECODER.decode(data.decode())
    except NotTaken:
        raise
    except (ValueError, RecursionError):
        raise NotTaken(f"its {what} is not JSON") from None
    if not isinstance(value, dict):
        raise NotTaken(f"its {what} is no JSON object")
    return value


def _decode_part(part: bytes, what: str) -> bytes:
    """Return what base64url without padding stands for (RFC 7515 section 2), if it is the only way to write that."""
    if not part:
        raise NotTaken(f"its {what} is empty")
    if _BASE64URL.fullmatch(part) is not None:
        try:
            data = base64.urlsafe_b64decode(part + b"==="[: -len(part) % 4])
        except binascii.Error:
            raise NotTaken(f"its {what} is not base64url") from None
        if base64.urlsafe_b64encode(data).rstrip(b"=") == part:
            return data
    raise NotTaken(f"its {what} is not base64url")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise NotTaken("a name stands twice in it")
    return value


def _integer(text: str) -> int:
    number = int(text) if len(text) <= 20 else _MAX_INTEGER + 1
    if not -_MAX_INTEGER <= number <= _MAX_INTEGER:
        raise NotTaken("a number of it is too large")
    return number


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotTaken("a number of it is too large")
    return number


def _constant(text: str) -> NoReturn:
    raise NotTaken("a number of it is none")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_no_twins, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
