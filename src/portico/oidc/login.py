"""A login under way: what a browser keeps until it comes back, and where it is led then."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

import orjson

from portico.http.message import Request
from portico.oidc.seal import Seal

LASTS: Final = 600.0
"""Seconds that a login may take."""
LONGEST_RETURN: Final = 1024
"""Bytes of the target that a login leads back to; beyond it, it leads to the path alone, or to `/`."""
_PURPOSE: Final = b"login"
_RETURN: Final = re.compile(r"/(?!/)[!-\[\]-~]*")
"""A target at this host: a path of printable characters without a backslash."""
_HTML: Final = re.compile(r"(?:^|[\s,])(?:text/html|application/xhtml\+xml)(?:$|[\s,;])", re.IGNORECASE)
_STATE: Final = re.compile(r"[A-Za-z0-9_-]{32}")
_MOST_PARAMETERS: Final = 32


class Login(NamedTuple):
    """What is to be known when the browser comes back."""

    state: str
    nonce: str
    verifier: str
    """The secret of PKCE (RFC 7636)."""
    back: str
    """The target that was asked for."""
    begun: float

    @classmethod
    def begin(cls, request: Request, now: float) -> Login:
        """Return a login that leads back to what was asked for."""
        state, nonce, verifier = (secrets.token_urlsafe(size) for size in (24, 24, 32))
        return cls(state, nonce, verifier, return_of(request), now)

    @property
    def challenge(self) -> str:
        """What the provider is told of the verifier (S256, RFC 7636 section 4.2)."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def __repr__(self) -> str:
        return "<Login>"

    def sealed(self, seal: Seal) -> bytes:
        """Return it as the text of a cookie."""
        return seal.seal(_PURPOSE, orjson.dumps(tuple(self)))


def opened(seal: Seal, text: bytes) -> Login | None:
    """Return the login that a cookie's text says, or None where it says none."""
    content = seal.open(_PURPOSE, text)
    return None if content is None else Login(*orjson.loads(content))


def finished(login: Login | None, state: str, now: float) -> bool:
    """Return whether a browser that shows `state` has come back in time from the login that it has begun."""
    return login is not None and hmac.compare_digest(login.state, state) and now < login.begun + LASTS


def is_state(text: str) -> bool:
    """Return whether a text can be the state of a login."""
    return _STATE.fullmatch(text) is not None


def return_of(request: Request) -> str:
    """Return where to lead a browser after the login that a request needs: to a path of this host, and nowhere else."""
    for target in (request.target, request.path):
        if len(target) <= LONGEST_RETURN and _RETURN.fullmatch(target) is not None:
            return target
    return "/"


def is_navigation(request: Request) -> bool:
    """Return whether a browser asks for a page to show it, and so would follow a redirect to a login."""
    if request.method not in ("GET", "HEAD"):
        return False
    headers = request.headers
    mode = headers.get(b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate"
    if headers.get(b"x-requested-with") is not None:
        return False
    return _HTML.search(headers.text(b"accept") or "") is not None


def parameters_of(query: str | None, wanted: Callable[[str], bool]) -> dict[str, str] | None:
    """Return the parameters of a query that are wanted; None where one of them stands twice, or there are too many."""
    pairs = (query or "").split("&", _MOST_PARAMETERS)
    if len(pairs) > _MOST_PARAMETERS:
        return None
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        name = unquote_plus(name)
        if not wanted(name):
            continue
        if name in found:
            return None
        found[name] = unquote_plus(value)
    return found
