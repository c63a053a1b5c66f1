"""What is kept under a key: the answer, or that there is none which could be given again."""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import Final

from portico.http.headers import HOP_BY_HOP, Headers
from portico.http.message import Response
from portico.state.store import LARGEST_VALUE

LARGEST_HEADERS: Final = 32 * 1024
"""The most bytes of the header of an answer that is kept."""

LARGEST_ANSWER: Final = LARGEST_VALUE - LARGEST_HEADERS - 1024
"""The most bytes of content of an answer that a store has room for."""

REPLAYED: Final = b"Idempotency-Replayed"

_HEAD: Final = Struct("<c32sHI")
"""What it is, the fingerprint of the request, the status, and how many bytes of header follow."""
_ANSWER: Final = b"a"
_UNKEPT: Final = b"l"
_UNKNOWN: Final = b"u"
_NEVER_KEPT: Final = HOP_BY_HOP | {b"content-length", b"set-cookie"}
"""Fields of one connection; what content tells of itself; and cookies, which may be credentials."""


class Standing(Enum):
    """Why a request is not answered by what was kept, nor by the service."""

    UNDER_WAY = "under-way"
    """The first request with the key has no answer yet."""
    REUSED = "reused"
    """The key was given to another request."""
    UNKNOWN = "unknown"
    """The first request was sent, and nobody knows what became of it."""
    UNKEPT = "unkept"
    """The first request was carried out, and its answer was too large to be kept."""
    LATE = "late"
    """There was no answer before the claim to the key would have ended, or the worker has."""
    NO_STORE = "no-store"
    """The store cannot be asked, and nothing was sent."""
    CROWDED = "crowded"
    """Too many requests are under way."""


def answer_record(print_: bytes, response: Response, content: bytes) -> bytes | None:
    """Return what is kept of an answer; None where its header is too large."""
    fields = b"\r\n".join([name + b":" + value for name, value in _end_to_end(response.headers)])
    if len(fields) > LARGEST_HEADERS:
        return None
    return _HEAD.pack(_ANSWER, print_, response.status, len(fields)) + fields + content


def unkept_record(print_: bytes) -> bytes:
    """Return what is kept where a request was carried out, and its answer cannot be kept."""
    return _HEAD.pack(_UNKEPT, print_, 0, 0)


def unknown_record(print_: bytes) -> bytes:
    """Return what is kept where nobody knows whether a request was carried out."""
    return _HEAD.pack(_UNKNOWN, print_, 0, 0)


def recalled(record: bytes, print_: bytes) -> Response | Standing:
    """Return the answer to a request that has come again, or why there is none."""
    if len(record) < _HEAD.size:
        return Standing.UNKNOWN  # of whoever else wrote it
    kind, first, status, size = _HEAD.unpack_from(record)
    if first != print_:
        return Standing.REUSED
    if kind != _ANSWER:
        return Standing.UNKEPT if kind == _UNKEPT else Standing.UNKNOWN
    start = _HEAD.size + size
    response = Response(status, body=record[start:])
    for line in record[_HEAD.size : start].split(b"\r\n") if size else ():
        name, _, value = line.partition(b":")
        response.headers.put_parsed(name, value)
    response.headers.set(REPLAYED, b"true")
    return response


def _end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    left_out = _NEVER_KEPT
    if b"connection" in headers.index:
        named = b",".join(headers.get_all(b"connection")).lower().split(b",")
        left_out = left_out | {name.strip() for name in named}
    return [(name, value) for name, value in headers.pairs if name.lower() not in left_out]
