"""Cookies that are added to the answers of services."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from portico.http.message import Response

_FOR_CACHES: Final = (b"expires", b"cdn-cache-control", b"surrogate-control")
"""What caches heed instead of Cache-Control, or beside it (RFC 9213)."""


def with_cookies(response: Response, lines: Iterable[bytes]) -> Response:
    """Return an answer that sets cookies as well; nobody may keep it then, who would give them to others."""
    headers = response.headers
    for line in lines:
        headers.add(b"Set-Cookie", line)
    headers.set(b"Cache-Control", b"no-store")
    for name in _FOR_CACHES:
        headers.remove(name)
    return response
