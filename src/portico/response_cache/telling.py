"""What clients are sent, and what is said of how it came about."""

from __future__ import annotations

from portico.caching.answering import answer
from portico.caching.status import CacheStatus
from portico.http.headers import HeaderBlock, Headers
from portico.http.message import Request, Response
from portico.observe.exchange import Exchange
from portico.response_cache.memory import Given
from portico.response_cache.record import Entry
from portico.response_cache.settings import CacheSettings


def by_cache(request: Request, name: str) -> None:
    """Have the record of a request tell that the cache of this name has answered it, and not the service."""
    if request.exchange is not None:
        request.exchange.stopped_by = name


def waited(exchange: Exchange | None, name: str, began: float, now: float, what: str) -> None:
    """Have the record of a request tell for what the cache of this name has waited, where that took any time."""
    if exchange is not None and now > began:
        exchange.step(name, began, now, what)


class Telling:
    """Makes answers of what is kept, and says so."""

    __slots__ = ("_settings",)

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings

    def give(self, given: Given, now: float) -> Response:
        """Return what is at hand; answers of the same second share their head."""
        second = int(now)
        if given.second != second:
            stored = given.entry.stored
            headers = stored.headers.copy()
            headers.set(b"Age", b"%d" % int(stored.age(now)))
            self._tell(headers, CacheStatus(hit=True, ttl=stored.ttl(now)), b"HIT")
            given.block, given.second = HeaderBlock.of(headers), second
        headers = Headers()
        headers.set_block(given.block)
        return Response(given.entry.stored.status, headers, given.content)

    def answer(self, request: Request, entry: Entry, status: CacheStatus, word: bytes, now: float) -> Response:
        """Return what a client is sent of what is kept, by its own conditions."""
        content = entry.content
        assert content is not None
        told = answer(request, entry.stored, entry.length, now)
        self._tell(told.headers, status, word)
        return Response(told.status, told.headers, content[told.begin : told.end])

    def _tell(self, headers: Headers, status: CacheStatus, word: bytes) -> None:
        settings = self._settings
        if settings.name:
            headers.add(b"Cache-Status", status.text(settings.name))
        if settings.header:
            headers.set(settings.header, word)

    def told(self, response: Response, status: CacheStatus, word: bytes) -> Response:
        """Return an answer of the service's, with what is said of how it came about."""
        if not self._settings.show_tags:
            for name in self._settings.tags:
                response.headers.remove(name)
        self._tell(response.headers, status, word)
        return response
