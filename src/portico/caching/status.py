"""What a cache says of how it has handled a request: Cache-Status (RFC 9211)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

_TOKEN: Final = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
_LONGEST: Final = 256
"""Characters of a text that are told; a key has the client's words in it."""


class Forward(Enum):
    """Why a request went on to the service (RFC 9211 section 2.2)."""

    BYPASS = "bypass"
    """The cache has nothing to do with requests of this kind."""
    METHOD = "method"
    """Its method is not answered by caches."""
    URI_MISS = "uri-miss"
    """Nothing is kept for its URI."""
    VARY_MISS = "vary-miss"
    """What is kept for its URI is for others."""
    REQUEST = "request"
    """What is kept is fresh, and the request does not want it."""
    STALE = "stale"
    """What is kept is too old."""


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """One cache's part in an answer; what is None or False is not told."""

    hit: bool = False
    forward: Forward | None = None
    forward_status: int | None = None
    """What the service answered, where the client is answered something else."""
    stored: bool = False
    collapsed: bool = False
    ttl: float | None = None
    key: str | None = None
    detail: str = ""

    def text(self, cache: str) -> bytes:
        """Return it as a member of Cache-Status; `cache` is what the cache is called."""
        said = [_word(cache)]
        if self.hit:
            said.append("hit")
        elif self.forward is not None:
            said.append(f"fwd={self.forward.value}")
            if self.forward_status is not None:
                said.append(f"fwd-status={self.forward_status}")
        if self.ttl is not None:
            said.append(f"ttl={int(self.ttl // 1)}")
        if self.stored:
            said.append("stored")
        if self.collapsed:
            said.append("collapsed")
        if self.key is not None:
            said.append(f"key={_string(self.key)}")
        if self.detail:
            said.append(f"detail={_word(self.detail)}")
        return "; ".join(said).encode("ascii")


def _word(text: str) -> str:
    return text if _TOKEN.fullmatch(text) is not None and len(text) <= _LONGEST else _string(text)


def _string(text: str) -> str:
    shown = _UNPRINTABLE.sub("?", text[:_LONGEST])
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
