"""CORS preflights: an OPTIONS request that asks, in a browser's name, whether another request may be sent.

It goes to the route of the request that it asks about, where that route's chain answers preflights: so a route for GET
and POST need not list OPTIONS, `Allow` does not name a method that no service has, and a wider route that takes any
method does not get to answer for a narrower one.
"""

from __future__ import annotations

from portico.http.message import Key, Request
from portico.routing.entry import ANNOUNCED

UNANSWERED_PREFLIGHT: Key[bool] = Key("unanswered-preflight")
"""Set on a CORS preflight that asks about a request of a route without a policy that answers preflights: no policy of
another route may answer it instead."""


def asked_about(request: Request) -> Request | None:
    """Return the request that a CORS preflight asks about, as far as it tells; None for what is no preflight.

    It has the preflight's own headers, and is known to have those that are announced (Fetch standard, section 4.8).
    """
    if request.method != "OPTIONS" or b"origin" not in request.headers:
        return None
    method = request.headers.text(b"access-control-request-method")
    if method is None:
        return None
    asked = Request(method, request.path, request.query, request.headers, host=request.host)
    lines = request.headers.get_all(b"access-control-request-headers")
    names = (name.strip(b" \t").lower() for line in lines for name in line.split(b","))
    asked[ANNOUNCED] = frozenset(name.decode("latin-1") for name in names if name)
    return asked
