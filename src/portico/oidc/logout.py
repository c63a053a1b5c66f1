"""How a session ends at its owner's wish, and at nobody else's."""

from __future__ import annotations

from typing import Final

from portico.config.addresses import parse_url
from portico.config.values import BadValue
from portico.http.headers import HeaderBlock
from portico.http.message import Request, Response

_PAGE: Final = (
    b'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Sign out</title>\n'
    b'<form method="post"><p>Do you want to sign out?</p><button>Sign out</button></form>\n</html>\n'
)
_HEADERS: Final = HeaderBlock(
    (
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Cache-Control", b"no-store"),
        (b"Content-Security-Policy", b"default-src 'none'; frame-ancestors 'none'"),
    )
)
METHODS: Final = frozenset(("GET", "HEAD", "POST"))


def is_meant(request: Request, origin: str) -> bool:
    """Return whether it is the user who asks for a logout, by a page of `origin`, and not a page of somebody else.

    A browser says so by Sec-Fetch-Site, or for a POST by Origin. Where it says nothing of that kind, a POST is taken:
    the cookie of the session is not sent along from elsewhere (SameSite), and without it there is nothing to end.
    """
    headers = request.headers
    site = headers.get(b"sec-fetch-site")
    if request.method != "POST":
        followed = headers.get(b"sec-fetch-mode") == b"navigate" and b"sec-purpose" not in headers
        return followed and site in (b"same-origin", b"none")
    if site is not None:
        return site in (b"same-origin", b"none")
    shown = headers.text(b"origin")
    return shown is None or _is_same(shown, origin)


def _is_same(shown: str, origin: str) -> bool:
    try:
        return parse_url(shown) == parse_url(origin)
    except BadValue:
        return False


def page() -> Response:
    """Return a page that asks."""
    response = Response(200, body=_PAGE)
    response.headers.set_block(_HEADERS)
    return response
