"""The answer to a request, made of one that is kept: all of it, a part, or that nothing has changed."""

from __future__ import annotations

from typing import Final, NamedTuple

from portico.caching.ranges import NoPart, part_of
from portico.caching.stored import Stored
from portico.caching.validators import not_changed, range_counts
from portico.http.coding import DIGESTS
from portico.http.headers import Headers
from portico.http.message import Request

_OF_CONTENT: Final = frozenset(
    (b"content-type", b"content-length", b"content-encoding", b"content-language", b"content-range", *DIGESTS)
)
"""What a 304 does not repeat of what the client has (RFC 9110 section 15.4.5)."""
_OF_ALL: Final = _OF_CONTENT | {b"etag", b"last-modified", b"cache-control", b"expires", b"content-location"}
"""What speaks of the content that a 416 has none of; other caches might keep it for what was kept here."""


class Answer(NamedTuple):
    """What the client is sent: the headers, and from where to where of the content that is kept."""

    status: int
    headers: Headers
    begin: int = 0
    end: int = 0


def answer(request: Request, stored: Stored, length: int, now: float) -> Answer:
    """Return what a client is sent of an answer that is kept, and whose content has `length` bytes.

    The client's conditions are decided here (RFC 9110 section 13.2.2): what it has already is not sent again.
    """
    if 200 <= stored.status < 300 and not_changed(request.headers, stored.headers, stored.received):
        return Answer(304, _with_age(_without(stored.headers, _OF_CONTENT), stored, now))
    if request.method == "HEAD":
        return Answer(stored.status, _with_age(stored.headers.copy(), stored, now))
    wanted = request.headers.get(b"range")
    if wanted is not None and stored.status == 200 and len(request.headers.get_all(b"range")) == 1:
        return _part(request, stored, wanted, length, now)
    return Answer(stored.status, _with_age(stored.headers.copy(), stored, now), 0, length)


def _part(request: Request, stored: Stored, wanted: bytes, length: int, now: float) -> Answer:
    part = part_of(wanted, length) if range_counts(request.headers, stored.headers, stored.received) else NoPart.ALL
    if part is NoPart.ALL:
        return Answer(200, _with_age(stored.headers.copy(), stored, now), 0, length)
    if part is NoPart.BEYOND:
        headers = _without(stored.headers, _OF_ALL)
        headers.set(b"Content-Range", b"bytes */%d" % length)
        return Answer(416, headers)
    begin, end = part
    headers = _with_age(_without(stored.headers, _OF_THE_MESSAGE), stored, now)
    headers.set(b"Content-Length", b"%d" % (end - begin))
    headers.set(b"Content-Range", b"bytes %d-%d/%d" % (begin, end - 1, length))
    return Answer(206, headers, begin, end)


_OF_THE_MESSAGE: Final = frozenset((b"content-md5", b"content-digest"))
"""Digests of the bytes that are sent, which are others in a part (RFC 9530 section 2)."""


def _without(headers: Headers, names: frozenset[bytes]) -> Headers:
    kept = Headers()
    for name, value in headers.pairs:
        if name.lower() not in names:
            kept.put_parsed(name, value)
    return kept


def _with_age(headers: Headers, stored: Stored, now: float) -> Headers:
    headers.set(b"Age", b"%d" % int(stored.age(now)))
    return headers
