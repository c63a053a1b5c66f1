"""Requests that share a fetch: one begins it, the others follow."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import replace
from typing import Final

from portico.caching.reuse import may_stand_in, select
from portico.caching.status import Forward
from portico.caching.validators import CONDITIONS
from portico.http.body import Body
from portico.http.message import Handler, Request, Response
from portico.observe.exchange import Exchange
from portico.policy.base import Env
from portico.response_cache.fetching import Errand, Fetching
from portico.response_cache.flight import Came, Flight, FlightContent
from portico.response_cache.record import Entry
from portico.response_cache.settings import CacheSettings
from portico.response_cache.shelf import Shelf
from portico.response_cache.telling import Telling, by_cache, waited

LONGEST_WAIT: Final = 3600.0
"""Seconds that a request waits for its own fetch at most; services give up long before."""
_CONDITIONS: Final = frozenset(CONDITIONS)
_WORDS: Final = {Forward.STALE: b"EXPIRED", Forward.REQUEST: b"EXPIRED"}


def word_for(why: Forward | None) -> bytes:
    """Return what nginx's `$upstream_cache_status` calls it where the service was asked."""
    return b"MISS" if why is None else _WORDS.get(why, b"MISS")


class Sharing:
    """The fetches of one cache that are under way."""

    def __init__(self, settings: CacheSettings, env: Env, shelf: Shelf, fetching: Fetching, telling: Telling) -> None:
        self._name = env.place.rpartition(":")[2]
        self._settings = settings
        self._rules = settings.rules
        self._clock = env.clock
        self._wall = env.wall
        self._spawn = env.spawn
        self._shelf = shelf
        self._fetching = fetching
        self._telling = telling
        self._flights: dict[bytes, Flight] = {}

    def close(self) -> None:
        """End what is being fetched; nobody waits for it."""
        for flight in tuple(self._flights.values()):
            flight.cancel()

    def under_way(self, alike: bytes) -> Flight | None:
        """Return the fetch in which such requests may share: none that began before something was changed."""
        flight = self._flights.get(alike)
        return None if flight is None or flight.over or self._shelf.is_changed(flight.stamp) else flight

    def launch(
        self,
        request: Request,
        next: Handler,  # noqa: A002
        errand: Errand,
    ) -> Flight:
        """Begin a fetch, in which those who come after share."""
        exchange = Exchange(self._clock())
        if request.exchange is not None:
            exchange.route = request.exchange.route
        flight = self._fetching.flight(exchange, errand.place)
        seen, where = request.copy(Body()), errand.alike
        seen.method = "GET"  # a HEAD may have it renewed
        if errand.decision.gives:
            seen.headers.remove(b"cache-control")  # the client has its answer, and what it takes is of no account
        if self.under_way(where) is None:  # one that is over may still be written to the store
            self._flights[where] = flight

        async def fetch() -> None:
            try:
                await self._fetching.run(flight, seen, next, errand)
            finally:
                if self._flights.get(where) is flight:
                    del self._flights[where]

        work = fetch()
        self._spawn(work, "cache")
        if inspect.getcoroutinestate(work) == inspect.CORO_CLOSED:  # this configuration is over
            flight.end(self._clock())
        return flight

    def renew(self, request: Request, next: Handler, errand: Errand) -> None:  # noqa: A002
        """Have what is stale validated, unless that is under way."""
        if self.under_way(errand.alike) is None:
            self.launch(request, next, errand).led = False

    async def follow(self, request: Request, flight: Flight) -> tuple[Entry | None, bool]:
        """Wait for a fetch, and return what it came to, where that is for this request too, and whether it is over."""
        wait = self._settings.wait
        if request.deadline is not None:
            wait = min(wait, request.deadline - self._clock())
        began = self._clock()
        flight.watch()
        try:
            async with asyncio.timeout(max(0.0, wait)):
                await flight.until_over()
        except TimeoutError:
            return None, False
        finally:
            flight.leave()
            waited(request.exchange, self._name, began, self._clock(), "waited for another request's fetch")
        came = flight.came
        return came.entry if came is not None and came.shared and self._is_for(request, came) else None, True

    def _is_for(self, request: Request, came: Came) -> bool:
        """Whether another request's answer is for this one, too."""
        entry, now = came.entry, self._wall()
        if not self._settings.may_give(entry, request):
            return False
        if came.stands_in and not may_stand_in(entry.stored, request, now, self._rules):
            return False
        return select(request, [entry.stored], now, self._rules) is not None

    async def lead(self, request: Request, flight: Flight, errand: Errand) -> Response | None:
        """Return the answer that a fetch of one's own brings, as it comes; None where one has to ask anew."""
        flight.watch()
        plain = _CONDITIONS.isdisjoint(request.headers.index)
        streams = False
        until = self._clock() + LONGEST_WAIT if request.deadline is None else request.deadline
        try:
            async with asyncio.timeout_at(until):
                await flight.until_begun()
                if not plain:
                    await flight.until_over()
            _take(request.exchange, flight.exchange)
            response = self._led(request, flight, errand, plain)
            streams = response is not None and response.body.whole is None
        except TimeoutError:
            return Response.problem(504, "service-timeout", "The service did not answer in time")
        else:
            return response
        finally:
            if not streams:
                flight.leave()
                flight.let_go(self._clock())

    def _led(self, request: Request, flight: Flight, errand: Errand, plain: bool) -> Response | None:
        came, given, decision = flight.came, flight.given, errand.decision
        begun = flight.begun
        if came is not None and (begun is None or not plain):
            if came.stands_in or came.status.collapsed:  # or another worker had it by now
                by_cache(request, self._name)
            return self._telling.answer(request, came.entry, came.status, came.word, self._wall())
        if not plain and (given is None or given.problem_value is None):
            return None  # it has asked for a part, or has something already, and the fetch has not said so
        word = word_for(decision.why)
        if given is not None:
            if given.body.whole is None:
                given.body = self._coming(request, flight)
                given.body.of_answer = True
            return self._telling.told(given, decision.status, word)
        if begun is None:
            return None
        whole = None if came is None else came.entry.content
        body = self._coming(request, flight) if whole is None else Body(whole)
        response = Response(begun.status, begun.headers.copy(), body)
        return self._telling.told(response, replace(decision.status, stored=True), word)

    def _coming(self, request: Request, flight: Flight) -> Body:
        """Return content as it comes, which is given up at the end of the request."""
        content = FlightContent(flight, self._clock)
        if request.exchange is not None:
            request.exchange.on_end(lambda _: content.close())
        return Body.stream(content, flight.length)


def _take(exchange: Exchange | None, of: Exchange) -> None:
    """Have the record of a request tell of its fetch."""
    if exchange is not None:
        exchange.tell_of(of)
        exchange.tries = of.tries
