"""Asking a service whether what is kept is still good, and what its answer changes (RFC 9111 section 4.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from portico.caching.directives import request_directives
from portico.caching.reuse import select
from portico.caching.rules import CachingRules, SetCookie
from portico.caching.stored import NotStored, Stored
from portico.caching.storing import restore
from portico.caching.validators import CONDITIONS, is_strong, is_tag, same_strongly, same_tag_and_date, same_weakly
from portico.http.headers import Headers
from portico.http.message import Request

MAX_TAGS: Final = 16
"""Entity tags that a service is asked about at once."""
_OF_WHAT_IS_KEPT: Final = frozenset(
    (b"content-length", b"content-encoding", b"content-range", b"content-md5", b"content-digest", b"digest")
)
"""What no 304 changes: it speaks of the bytes that are kept, and the message that says it has none (section 3.2)."""


class Change(NamedTuple):
    """What became of an answer that was kept."""

    old: Stored
    new: Stored
    """What it is now, with the same content; the client who has asked is answered with this."""
    kept: Stored | NotStored
    """What is to be kept in its place, which may be the old one; or why nothing is any more."""


def to_fetch(headers: Headers) -> Headers:
    """Return a request's headers as they go to the service where all of an answer is wanted, to be kept.

    The client's own conditions, and its Range, are for `answer` to see to; so does nginx.
    """
    asked = headers.copy()
    for name in CONDITIONS:
        asked.remove(name)
    return asked


def to_validate(headers: Headers, stored: Stored | None, others: Iterable[Stored] = ()) -> Headers:
    """Return a request's headers as they go to the service to validate what is kept (section 4.3.1).

    `others` are answers for the same URI and for other requests, of which one may do; their entity tags are shown too,
    and where nothing is for this request (`stored` is None), only theirs. What has no validators is fetched anew.
    """
    asked = to_fetch(headers)
    named = others if stored is None else (stored, *others)
    tags = [tag for tag in dict.fromkeys(each.etag for each in named) if tag is not None and is_tag(tag)][:MAX_TAGS]
    if tags:
        asked.set(b"If-None-Match", b", ".join(tags))
    if stored is not None and stored.modified is not None and len(tags) <= 1:
        asked.set(b"If-Modified-Since", stored.modified)
    return asked


def freshened(
    request: Request, headers: Headers, shown: Sequence[Stored], asked: float, received: float, rules: CachingRules
) -> list[Change]:
    """Return what a 304 with these headers changes of the answers that the service was shown (section 4.3.4).

    The one that was for the request stands first in `shown`, where there was one. The first of the changes is what the
    request is answered with, and it is the request's variant. None at all means that the 304 speaks of none of them,
    and the service must be asked anew, without conditions.

    A 304 without validators is taken to speak of the only answer that was shown, as nginx takes it; the section has
    that for answers without validators alone, but a service that has sent one forgets it easily.
    """
    changes = [_change(request, headers, stored, asked, received, rules) for stored in _named(headers, shown)]
    return [change if at == 0 else _for_others(change) for at, change in enumerate(changes)]


def updated_by_head(
    request: Request, headers: Headers, kept: Sequence[Stored], asked: float, received: float, rules: CachingRules
) -> Change | None:
    """Return what the 200 to a HEAD changes of what is kept for it; None where nothing is (section 4.3.5).

    What it does not agree with has to be validated before it is given again.
    """
    stored = select(request, kept, received, rules)
    if stored is None:
        return None
    length = headers.get(b"content-length")
    same_length = length is None or length == stored.headers.get(b"content-length")
    if not same_length or not same_tag_and_date(headers, stored.headers):
        invalid = stored.invalidated()
        return Change(stored, invalid, invalid)
    return _change(request, headers, stored, asked, received, rules)


def merged(stored: Headers, new: Headers) -> Headers:
    """Return what is kept with the fields of a 304 in the place of those of the same name (section 3.2)."""
    replaced = new.index.keys() - _OF_WHAT_IS_KEPT
    result = Headers()
    for name, value in stored.pairs:
        if name.lower() not in replaced:
            result.put_parsed(name, value)
    for name, value in new.pairs:
        if name.lower() in replaced:
            result.put_parsed(name, value)
    if b"date" not in replaced:
        result.remove(b"date")  # it was made anew, and does not say when
    return result


def _named(headers: Headers, shown: Sequence[Stored]) -> Sequence[Stored]:
    """Return which of the answers a 304 speaks of, in the order in which they were shown."""
    tag, modified = headers.get(b"etag"), headers.get(b"last-modified")
    if tag is not None and is_strong(tag):
        return [stored for stored in shown if stored.etag is not None and same_strongly(tag, stored.etag)]
    if tag is not None:
        matching = [stored for stored in shown if stored.etag is not None and same_weakly(tag, stored.etag)]
        if matching and matching[0] is shown[0]:
            return matching[:1]
        return sorted(matching, key=lambda stored: (stored.date, stored.received))[-1:]
    if len(shown) == 1 and modified in (None, shown[0].modified):
        return shown
    return []  # a date tells no variants apart


def _change(
    request: Request, headers: Headers, stored: Stored, asked: float, received: float, rules: CachingRules
) -> Change:
    if rules.set_cookie is not SetCookie.KEEP and b"set-cookie" in headers.index:
        headers = headers.copy()  # a cookie that comes with a 304 is for the one who has asked
        headers.remove(b"set-cookie")
    new, refused = restore(request, stored.status, merged(stored.headers, headers), headers, asked, received, rules)
    # What was learnt in a user's name, or is not to be kept, changes nothing for the others.
    untold = refused is NotStored.AUTHORIZED or request_directives(request.headers).no_store
    return Change(stored, new, stored if untold else refused or new)


def _for_others(change: Change) -> Change:
    """Return what a change is for an answer that is not the one to the request: its variant is its own."""
    old, kept = change.old, change.kept
    if isinstance(kept, NotStored) or kept is old:
        return change
    return change._replace(
        kept=dataclasses.replace(kept, variant=old.variant) if kept.vary == old.vary else NotStored.VARIES
    )
