"""Validators (RFC 9110 section 8.8): entity tags, and when something was last changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from portico.caching.dates import parse_date
from portico.http.headers import Headers

_TAG: Final = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_LIST_OF_TAGS: Final = re.compile(rb'[ \t,]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*"|\*)')


def is_tag(value: bytes) -> bool:
    """Whether a value is an entity tag (section 8.8.3)."""
    return _TAG.fullmatch(value) is not None


def is_strong(tag: bytes) -> bool:
    """Whether a value is an entity tag that stands for the very bytes (section 8.8.1)."""
    return tag.startswith(b'"') and is_tag(tag)


def same_weakly(one: bytes, other: bytes) -> bool:
    """Compare two entity tags for If-None-Match (section 8.8.3.2)."""
    return one.removeprefix(b"W/") == other.removeprefix(b"W/")


def same_strongly(one: bytes, other: bytes) -> bool:
    """Compare two entity tags for ranges (section 8.8.3.2)."""
    return one == other and is_strong(one)


def tags_of(values: Sequence[bytes]) -> list[bytes]:
    """Return the entity tags that If-None-Match lists, or `*`; what comes after one that is none is left out.

    A tag may have commas in it, and backslashes that escape nothing.
    """
    found = []
    for value in values:
        at = 0
        while (tag := _LIST_OF_TAGS.match(value, at)) is not None:
            found.append(tag[1])
            at = tag.end()
    return found


def is_strong_date(headers: Headers, now: float) -> bool:
    """Whether Last-Modified is a strong validator: it was past by a second when the answer was made (8.8.2.2)."""
    modified, date = (_date(headers, name, now) for name in (b"last-modified", b"date"))
    return modified is not None and date is not None and date - modified >= 1


def not_changed(request: Headers, stored: Headers, received: float) -> bool:
    """Whether a client has already what is kept, by its If-None-Match, or else its If-Modified-Since.

    (RFC 9110 section 13.2.2, RFC 9111 section 4.3.2.) A condition that cannot be read is none. Where nothing says when
    it was last changed, the time at which it was made does.
    """
    if b"if-none-match" in request.index:
        tags = tags_of(request.get_all(b"if-none-match"))
        tag = stored.get(b"etag")
        return b"*" in tags or (tag is not None and any(same_weakly(tag, each) for each in tags))
    if b"if-modified-since" not in request.index or len(request.get_all(b"if-modified-since")) > 1:
        return False
    since = _date(request, b"if-modified-since", received)
    changed = _date(stored, b"last-modified", received)
    if changed is None:
        changed = _date(stored, b"date", received)
    return since is not None and (received if changed is None else changed) <= since


def range_counts(request: Headers, stored: Headers, received: float) -> bool:
    """Whether If-Range lets Range count: what the client has a part of is what is kept (RFC 9110 section 13.1.5)."""
    if b"if-range" not in request.index:
        return True
    values = request.get_all(b"if-range")
    if len(values) > 1:
        return False
    value = values[0].strip(b" \t")
    if is_tag(value):
        return same_strongly(value, stored.get(b"etag") or b"")
    # Equal dates, and not a later one: a clock may have been set back. Equal bytes are equal dates.
    return value == stored.get(b"last-modified") and is_strong_date(stored, received)


def _date(headers: Headers, name: bytes, now: float) -> float | None:
    value = headers.get(name)
    return None if value is None else parse_date(value.strip(b" \t"), now)


def same_tag_and_date(one: Headers, other: Headers) -> bool:
    """Whether all the validators that `one` has are those of `other` (RFC 9111 section 4.3.5)."""
    return all(name not in one.index or one.get(name) == other.get(name) for name in (b"etag", b"last-modified"))


CONDITIONS: Final = (b"if-none-match", b"if-modified-since", b"if-range", b"range")
"""What a client asks of something that it has: the answer from the store sees to it, and the service is not asked."""
