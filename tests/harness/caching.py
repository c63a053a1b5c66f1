"""Requests, answers and times of cache tests, as short as they can be written."""

from __future__ import annotations

from portico.caching.dates import write_date
from portico.caching.rules import STRICT, CachingRules
from portico.caching.stored import Stored
from portico.caching.storing import store
from portico.http.headers import Headers
from portico.http.message import Request

T0 = 1_800_000_000.0
"""Fri, 15 Jan 2027 08:00:00 GMT: when the answers of these tests come."""


def at(seconds: float) -> str:
    """The date so many seconds after T0."""
    return write_date(T0 + seconds).decode()


def lines(text: str) -> Headers:
    """The headers that are written as `Name: value | Name: value`."""
    headers = Headers()
    for line in filter(None, (line.strip() for line in text.split(" | "))):
        name, _, value = line.partition(":")
        headers.add(name.encode(), value.strip().encode("latin-1"))
    return headers


def asking(text: str = "", method: str = "GET", path: str = "/a", query: str | None = None) -> Request:
    """A request to example.com with the headers `text`."""
    return Request(method, path, query, lines(f"Host: example.com | {text}"), host="example.com")


def answering(text: str) -> Headers:
    """The headers of an answer; it has the Date of T0, unless `text` has another, or says `Date:` and no more."""
    headers = lines(text if "Date:" in text else f"Date: {at(0)} | {text}")
    if headers.get(b"date") == b"":
        headers.remove(b"date")
    return headers


def keep(text: str, request: Request | None = None, rules: CachingRules = STRICT, status: int = 200) -> Stored:
    """What is kept of an answer that came at T0."""
    stored = store(request or asking(), status, answering(text), T0, T0, rules)
    assert isinstance(stored, Stored), stored
    return stored
