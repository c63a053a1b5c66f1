"""Digests of content (RFC 9530), by which a signature covers it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Any, Final

from portico.http.headers import Headers
from portico.signatures.fields import NotSigned, dictionary

AT_ONCE: Final = 128 * 1024
"""Bytes that are hashed before others have their turn: less than a millisecond of work."""
_HASHES: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}


class ContentDigest:
    """What `Content-Digest` says of the content that follows; algorithms that are not known are passed over."""

    __slots__ = ("_said",)

    def __init__(self, headers: Headers) -> None:
        """Raises NotSigned where it says nothing that can be checked."""
        if b"content-digest" not in headers.index:
            raise NotSigned("there is no Content-Digest")
        members = dictionary(headers, b"content-digest")
        self._said: list[tuple[str, bytes]] = []
        for algorithm in _HASHES.keys() & members.keys():
            member = members[algorithm]
            if not isinstance(member, tuple) or not isinstance(member[0], bytes):
                raise NotSigned("a value of Content-Digest is no digest")
            self._said.append((algorithm, member[0]))
        if not self._said:
            raise NotSigned(f"Content-Digest has none of {' and '.join(_HASHES)}")

    async def matches(self, content: bytes) -> bool:
        """Return whether it is this content that all of the digests are of."""
        hashes = [(_HASHES[algorithm](), digest) for algorithm, digest in self._said]
        for start in range(0, len(content), AT_ONCE):
            if start:
                await asyncio.sleep(0)
            _update(hashes, memoryview(content)[start : start + AT_ONCE])
        return all(hmac.compare_digest(computed.digest(), digest) for computed, digest in hashes)


def _update(hashes: list[tuple[Any, bytes]], piece: memoryview) -> None:
    for computed, _ in hashes:
        computed.update(piece)
