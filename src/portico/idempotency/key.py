"""The key of a request, and what tells the request from others that bear the same key."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import ClassVar, Final

from portico.errors import RequestError
from portico.http.headers import Headers
from portico.http.message import Request

LONGEST: Final = 255
"""The most characters of a key; Stripe takes as many."""

AT_ONCE: Final = 128 * 1024
"""Bytes that are hashed before others have their turn: less than a millisecond of work."""

_TEXT: Final = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_PARAMETER: Final = rf"; *[a-z*][a-z0-9_\-.*]*(?:=(?:{_TEXT}|[!#$%&'*+\-.^_`|~0-9A-Za-z:/?@=]+))?"
_QUOTED: Final = re.compile(rf"({_TEXT})(?:{_PARAMETER})*".encode())
"""A String with parameters, of which none is known (RFC 9651 sections 3.3 and 3.3.3)."""
_ESCAPED: Final = re.compile(rb'\\(["\\])')
_BARE: Final = re.compile(rb"[!#-+\--:<-\[\]-~]+")
"""Visible ASCII, without what a list, parameters or a String would need."""
_MOST_BYTES: Final = 4 * LONGEST


class MalformedKey(RequestError):
    """The request has an idempotency key that is none, or more than one."""

    type: ClassVar[str] = "idempotency-key-invalid"


class KeyReader:
    """Reads the key of a request."""

    __slots__ = ("_name", "_unquoted")

    def __init__(self, header: str, *, unquoted: bool) -> None:
        """With `unquoted` a key may come without the quotes of a String, as most clients send it."""
        self._name = header.lower().encode("ascii")
        self._unquoted = unquoted

    def read(self, headers: Headers) -> bytes | None:
        """Return the key, or None where there is none; raise MalformedKey where it cannot be one."""
        value = headers.get(self._name)
        if value is None:
            return None
        if len(headers.index) != len(headers.pairs) and len(headers.get_all(self._name)) > 1:
            raise MalformedKey("There is more than one key.")
        value = value.strip(b" \t")
        key = self._key_of(value) if len(value) <= _MOST_BYTES else value
        if key is None:
            wanted = "a text in quotes, or visible ASCII" if self._unquoted else "a text in quotes"
            raise MalformedKey(f"The key has to be {wanted}.")
        if not 0 < len(key) <= LONGEST:
            raise MalformedKey(f"The key has to have 1 to {LONGEST} characters.")
        return key

    def _key_of(self, value: bytes) -> bytes | None:
        quoted = _QUOTED.fullmatch(value)
        if quoted is not None:
            return _ESCAPED.sub(rb"\1", quoted[1][1:-1])
        return value if self._unquoted and _BARE.fullmatch(value) is not None else None


async def fingerprint(request: Request, content: bytes) -> bytes:
    """Return what tells a request from others: its method, host, path, query, type of content, and content."""
    headers = request.headers
    said = (
        request.method,
        request.host,
        request.path,
        request.query,
        headers.get(b"content-type"),
        headers.get(b"content-encoding"),
    )
    digest = hashlib.blake2b(repr(said).encode("utf-8", "surrogatepass"), digest_size=32)
    digest.update(b"\0")
    for start in range(0, len(content), AT_ONCE):
        if start:
            await asyncio.sleep(0)
        digest.update(memoryview(content)[start : start + AT_ONCE])
    return digest.digest()
