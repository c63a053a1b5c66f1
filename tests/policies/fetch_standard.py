"""What a browser makes of answers: the parts of the Fetch standard that speak of CORS, word by word.

Sections 2.2.2 (safelisted headers), 3.3.3 (extracting header list values), 4.8 (CORS-preflight fetch), 4.10 (CORS
check) of https://fetch.spec.whatwg.org/.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from portico.plugin import Headers, Request, Response

SAFE_METHODS = frozenset(("GET", "HEAD", "POST"))
SAFE_HEADERS = frozenset(("accept", "accept-language", "content-language"))
SAFE_EXPOSED = frozenset(
    ("cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma")
)


class Wish(NamedTuple):
    """What a page asks of `fetch`; the values of its headers are not such as are safelisted."""

    origin: str
    method: str
    headers: tuple[str, ...] = ()
    credentials: bool = False


class Got(NamedTuple):
    """What the page gets: nothing (a network error), or an answer with the headers that it may read."""

    answer: Response | None
    readable: frozenset[str] = frozenset()


def values(headers: Headers, name: str) -> list[str] | None:
    """Extract header list values: None is failure, no header is an empty list."""
    found = [item.strip(" \t") for line in headers.get_all(name.encode()) for item in line.decode("latin-1").split(",")]
    found = [item for item in found if item]
    if any(re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", item) is None for item in found):
        return None
    return found


def cors_check(wish: Wish, response: Response) -> bool:
    lines = response.headers.get_all(b"access-control-allow-origin")
    if not lines:
        return False
    origin = b", ".join(lines).decode("latin-1")
    if not wish.credentials and origin == "*":
        return True
    if origin != wish.origin:
        return False
    if not wish.credentials:
        return True
    return b", ".join(response.headers.get_all(b"access-control-allow-credentials")) == b"true"


def unsafe_names(wish: Wish) -> list[str]:
    """Return the CORS-unsafe request-header names, in lower case and sorted."""
    return sorted({name.lower() for name in wish.headers} - SAFE_HEADERS)


def preflight_of(wish: Wish) -> Request:
    pairs = [
        (b"Accept", b"*/*"),
        (b"Access-Control-Request-Method", wish.method.encode()),
        (b"Origin", wish.origin.encode()),
    ]
    names = unsafe_names(wish)
    if names:
        pairs.append((b"Access-Control-Request-Headers", ",".join(names).encode()))
    return Request("OPTIONS", "/x", headers=Headers(pairs), host="api.example")


def preflight_passes(wish: Wish, response: Response) -> bool:
    if not cors_check(wish, response) or not 200 <= response.status <= 299:
        return False
    methods = values(response.headers, "access-control-allow-methods")
    names = values(response.headers, "access-control-allow-headers")
    if methods is None or names is None:
        return False
    if wish.method not in methods and wish.method not in SAFE_METHODS and (wish.credentials or "*" not in methods):
        return False
    lower = {name.lower() for name in names}
    unsafe = unsafe_names(wish)
    if "authorization" in unsafe and "authorization" not in lower:
        return False  # the one CORS non-wildcard request-header name
    return all(name in lower or ("*" in lower and not wish.credentials) for name in unsafe)


def fetch(wish: Wish, ask: Callable[[Request], Response]) -> Got:
    """Return what a page gets from a server of another origin."""
    if (wish.method not in SAFE_METHODS or unsafe_names(wish)) and not preflight_passes(wish, ask(preflight_of(wish))):
        return Got(None)
    headers = Headers([(b"Origin", wish.origin.encode())])
    for name in wish.headers:
        headers.add(name.encode(), b'"')
    answer = ask(Request(wish.method, "/x", headers=headers, host="api.example"))
    if not cors_check(wish, answer):
        return Got(None)
    exposed = values(answer.headers, "access-control-expose-headers") or []
    names = {name.decode().lower() for name, _ in answer.headers}
    readable = {name.lower() for name in exposed} | SAFE_EXPOSED
    if "*" in exposed and not wish.credentials:
        readable = names - {"set-cookie", "set-cookie2"}
    return Got(answer, frozenset(names & readable))
