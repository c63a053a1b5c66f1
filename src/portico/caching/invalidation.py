"""What is no longer good once something was changed (RFC 9111 section 4.4)."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit

from portico.errors import RequestError
from portico.http.headers import Headers
from portico.http.message import Request
from portico.http.target import EncodedSlashes, normalise_path, parse_host

_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"))
"""Methods that are known to change nothing, by IANA's registry; all others may (section 4.4)."""
_PORTS: Final = {"http": 80, "https": 443}


class Place(NamedTuple):
    """A URI of the same origin as the request's."""

    path: str
    query: str | None


def invalidated(request: Request, status: int, headers: Headers, scheme: str) -> list[Place]:
    """Return for which URIs nothing that is kept may be given again unvalidated, the request's own being the first.

    These are also the ones that Location and Content-Location name, where they are of the same origin: nobody may
    have what is another's thrown away.
    """
    if request.method in _SAFE or not 200 <= status < 400:
        return []
    own = Place(request.path, request.query)
    places = {own: None}
    for name in (b"location", b"content-location"):
        value = headers.text(name)
        place = None if value is None else _same_origin(request, value, scheme)
        if place is not None:
            places[place] = None
    return list(places)


def _same_origin(request: Request, value: str, scheme: str) -> Place | None:
    host, port = _origin(request, scheme)
    try:
        target = urlsplit(urljoin(f"{scheme}://{host}:{port}{request.target}", value.strip(" \t")))
        if target.scheme != scheme:
            return None
        its_host, its_port = parse_host(target.netloc.encode("latin-1"))
        if (its_host, its_port or _PORTS.get(scheme)) != (host, port):
            return None
        path = normalise_path(target.path or "/", EncodedSlashes.KEEP)
    except (ValueError, RequestError):  # it is no URI, and so it names nothing
        return None
    return Place(path, target.query or None)


def _origin(request: Request, scheme: str) -> tuple[str, int | None]:
    asked = request.headers.get(b"host")
    port = None
    if asked is not None:
        try:
            port = parse_host(asked)[1]
        except RequestError:  # the target was in absolute form, and what Host says is of no account
            port = None
    return request.host, port or _PORTS.get(scheme)
