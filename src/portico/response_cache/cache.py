"""What becomes of a request: it is answered by what is at hand or in the store, or it has it fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from portico.caching.invalidation import invalidated
from portico.caching.reuse import ERRORS, Decision, Verdict, decide, may_stand_in, passes_by
from portico.caching.status import CacheStatus, Forward
from portico.caching.validation import updated_by_head
from portico.http.message import Handler, Request, Response
from portico.http.user import speaks_for_a_user
from portico.observe.exchange import Result, ResultKind
from portico.policy.base import Env
from portico.policy.verdicts import Trouble
from portico.response_cache.fetching import Errand, Fetching
from portico.response_cache.keys import SPECIAL, KeySettings, Place, Places, Vetting, digest_of, scheme_of
from portico.response_cache.memory import Kept, Memory, Signature, alike
from portico.response_cache.record import Entry
from portico.response_cache.settings import CacheSettings, Users
from portico.response_cache.sharing import Sharing, word_for
from portico.response_cache.shelf import Shelf
from portico.response_cache.telling import Telling, by_cache, waited
from portico.state.purges import CLOCK_SKEW

_TURNS: Final = 3
"""How often a request looks anew, where what it has waited for was for others."""
_MISS: Final = Decision(Verdict.FETCH, None, Forward.URI_MISS)

_Tally: TypeAlias = tuple[Callable[[], None], tuple[Result, ...]]
"""Counts one more, and what records are told of it."""


class ResponseCache:
    """The cache of one policy on one route."""

    def __init__(
        self, settings: CacheSettings, key: KeySettings, env: Env, bypass: Callable[[Request], bool] | None = None
    ) -> None:
        """`bypass` says for which requests there is none."""
        self._settings = settings
        self._rules = settings.rules
        self._route = env.route_print().hex()
        self._clock = env.clock
        self._wall = env.wall
        self._bypass = bypass
        marks = hashlib.blake2b(repr((settings, replace(key, parts=()))).encode(), digest_size=8).hexdigest()
        self._places = Places(key, f"{env.place}\0{marks}")
        self._vetting = Vetting(key.headers)

        self._name = name = env.place.rpartition(":")[2]  # not the route's: a board has no room for each of them
        self._hit, self._missed, self._stale, self._passed = (
            (env.counter("portico_cache_requests_total", policy=name, result=what).add, _result(name, what))
            for what in ("hit", "miss", "stale", "pass")
        )
        self._hit_at_once, self._was_hit = self._hit
        self._memory: Memory = env.share(
            ("cache", settings.memory),
            lambda: Memory(settings.memory, env.counter("portico_cache_evicted_total")),
        )
        trouble = Trouble(
            env.logger, env.clock, "cache: the store cannot be asked", "requests go to their services meanwhile"
        )
        self._shelf = Shelf(
            env.store.volatile,
            env.purges,
            env.clock,
            env.wall,
            trouble,
            env.counter("portico_cache_store_failures_total"),
            env.spawn,
            settings.keep_stale,
            apart=self._places.apart,
        )
        self._fetching = Fetching(settings, self._route, env, self._shelf, self._memory, self._entries_for)
        self._telling = Telling(settings)
        self._sharing = Sharing(settings, env, self._shelf, self._fetching, self._telling)

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - as in policies
        """Answer a request, with the service's help or without."""
        headers, memory = request.headers, self._memory
        if (
            request.method == "GET"
            and request.body.length == 0
            and not request.upgrade
            and self._vetting.plain(headers)
            and (self._bypass is None or not self._bypass(request))
        ):
            text = self._places.text_of(request)
            kept = memory.get(text)
            if kept is not None and self._shelf.alive_in_memory(kept):
                given = kept.signatures.get(self._signature(kept, request))
                now = self._wall()
                if given is not None and given.good_from <= now < given.stale_at:
                    self._hit_at_once()
                    exchange = request.exchange
                    if exchange is not None:
                        exchange.results += self._was_hit
                        exchange.stopped_by = self._name
                    return self._telling.give(given, now)
            place = self._places.of(request) if self._places.apart else Place(text, text)
            if kept is None:
                alike_ = self._alike(request, place, ())
                if memory.marked(alike_, self._clock()):  # most of what is not kept; there is no need to look for it
                    return await self._by_itself(request, next, Errand(place, None, (), _MISS, alike_))
            return await self._look(request, next, place, kept, _TURNS)
        if passes_by(request) is not None:
            return await self._pass_by(request, next)
        if not self._vetting.passes(headers) or (self._bypass is not None and self._bypass(request)):
            self._came(request, self._passed)
            return self._telling.told(await next(request), CacheStatus(forward=Forward.BYPASS), b"BYPASS")
        place = self._places.of(request)
        return await self._look(request, next, place, memory.get(place.text), _TURNS)

    def close(self) -> None:
        """End what is being fetched."""
        self._shelf.close()
        self._sharing.close()

    def _came(self, request: Request, which: _Tally, met: int | None = None) -> None:
        """Count what came of a request, and have its record tell of it: ahead of what it has met since it had met so
        many others, if that is given."""
        count, result = which
        count()
        exchange = request.exchange
        if exchange is not None:
            results = exchange.results
            exchange.results = results + result if met is None else results[:met] + result + results[met:]

    # What is answered at once.

    def _signature(self, kept: Kept, request: Request) -> Signature:
        """Return all of a request that may make a difference among the answers of a place."""
        headers, index, who = request.headers, request.headers.index, 0
        if kept.implied:
            who = (1 if b"cookie" in index else 0) + (2 if speaks_for_a_user(request) else 0)
        if not kept.names:
            return (self._route, who, ())
        if len(headers.pairs) == len(index):
            return (self._route, who, tuple([index.get(name) for name in kept.names]))
        lines = [headers.get_all(name) for name in kept.names]
        told = (b"\n".join(values) if values else None for values in lines)
        return (self._route, who, tuple(told))

    # What is not answered at once.

    def _entries_for(self, request: Request, kept: Kept | None) -> list[Entry]:
        """Return which of the answers of a place may be for a request."""
        if kept is None:
            return []
        may_give, latest = self._settings.may_give, self._wall() + CLOCK_SKEW
        return [
            each
            for each in kept.entries
            if each.route == self._route and each.asked <= latest and may_give(each, request)
        ]

    def _decide(self, request: Request, entries: Sequence[Entry]) -> Decision:
        return decide(request, [entry.stored for entry in entries], self._wall(), self._rules)

    async def _look(self, request: Request, next: Handler, place: Place, kept: Kept | None, turns: int) -> Response:  # noqa: A002
        """Answer by what is at hand, or in the store, or go on."""
        alive = kept is not None and self._shelf.alive_in_memory(kept)
        entries = self._entries_for(request, kept) if alive else []
        decision = self._decide(request, entries)
        if not decision.gives:
            began = self._clock()
            loaded = await self._shelf.load(place, kept)
            waited(request.exchange, self._name, began, self._clock(), "asked the store")
            if loaded is not None:
                kept = loaded
                if kept.entries:
                    self._memory.put(place.text, kept)
            elif kept is not None and not self._shelf.unchanged(kept):
                kept = None
            entries = self._entries_for(request, kept)
            decision = self._decide(request, entries)
        if decision.gives:
            assert kept is not None
            response = await self._given(request, next, place, kept, entries, decision)
            if response is not None:
                return response
            entries = [entry for entry in entries if entry.stored is not decision.stored]
            decision = self._decide(request, entries)
        if decision.verdict is Verdict.REFUSE:
            self._came(request, self._missed)
            by_cache(request, self._name)
            refused = Response.problem(504, "not-cached", "Not cached", "There is no answer kept that would do.")
            return self._telling.told(refused, decision.status, b"MISS")
        if decision.verdict is Verdict.PASS or request.method == "HEAD":
            return await self._pass(request, next, place, entries, decision)
        alike_ = self._alike(request, place, entries)
        return await self._fetch(request, next, Errand(place, kept, entries, decision, alike_), turns)

    async def _given(
        self,
        request: Request,
        next: Handler,  # noqa: A002
        place: Place,
        kept: Kept,
        entries: Sequence[Entry],
        decision: Decision,
    ) -> Response | None:
        """Return the answer that was decided on; None where its content is lost."""
        entry = _decided(entries, decision)
        began = self._clock()
        whole = await self._shelf.content(place, entry)
        waited(request.exchange, self._name, began, self._clock(), "read the content in the store")
        if whole is None:
            return None
        by_cache(request, self._name)
        if whole is not entry:
            kept = kept.with_entry(entry, whole)
            self._memory.put(place.text, kept)
        now = self._wall()
        if decision.verdict is Verdict.GIVE_AND_RENEW:
            self._came(request, self._stale)
            alike_ = self._alike(request, place, entries)
            if not self._memory.marked(alike_, self._clock()):
                self._sharing.renew(request, next, Errand(place, kept, entries, decision, alike_))
            return self._telling.answer(request, whole, decision.status, b"UPDATING", now)
        self._came(request, self._hit)
        if decision.ttl is not None and decision.ttl <= 0:
            return self._telling.answer(request, whole, decision.status, b"STALE", now)
        headers = request.headers
        if request.method == "GET" and SPECIAL.isdisjoint(headers.index):
            self._memory.remember(place.text, kept, self._signature(kept, request), whole)
        return self._telling.answer(request, whole, decision.status, b"HIT", now)

    async def _pass_by(self, request: Request, next: Handler) -> Response:  # noqa: A002
        """Leave a request to the service that no cache has to do with, and have go what it has changed."""
        why = passes_by(request)
        self._came(request, self._passed)
        response = await next(request)
        if why is Forward.METHOD and response.problem_value is None:
            for place in invalidated(request, response.status, response.headers, scheme_of(request)):
                await self._shelf.changed(self._places.uri_of(request, place.path, place.query))
        return self._telling.told(response, CacheStatus(forward=why), b"BYPASS")

    async def _pass(
        self,
        request: Request,
        next: Handler,  # noqa: A002
        place: Place,
        entries: Sequence[Entry],
        decision: Decision,
    ) -> Response:
        """Leave a request to the service; what a HEAD tells of what is kept is taken in."""
        asked, stamp = self._wall(), self._shelf.stamp(place.uri)
        self._came(request, self._missed)
        response = await next(request)
        if request.method == "HEAD" and response.status == 200 and response.problem_value is None and entries:
            stored = [entry.stored for entry in entries]
            change = updated_by_head(request, response.headers, stored, asked, self._wall(), self._rules)
            if change is not None:
                await self._fetching.learnt(place, entries, change, asked, stamp)
        return self._telling.told(response, decision.status, b"MISS")

    async def _by_itself(self, request: Request, next: Handler, errand: Errand) -> Response:  # noqa: A002
        """Have a request answered for itself alone."""
        asked, met, came = self._wall(), _met(request), self._missed
        try:
            response = await next(request)
            stand_in = await self._stand_in(request, response, errand, asked)
            if stand_in is not None:
                came = self._stale
        finally:
            self._came(request, came, met)
        if stand_in is not None:
            return stand_in
        return self._telling.told(response, errand.decision.status, word_for(errand.decision.why))

    async def _stand_in(self, request: Request, response: Response, errand: Errand, asked: float) -> Response | None:
        """Return what is stale, where it is to be given instead of an answer."""
        if self._fetching.judge(request, response, asked, self._wall()) is not None:
            self._memory.unmark(errand.alike)  # the next one may be shared
        stored = errand.decision.stored
        if stored is not None and response.status in ERRORS and may_stand_in(stored, request, asked, self._rules):
            whole = await self._shelf.content(errand.place, _decided(errand.entries, errand.decision))
            if whole is not None:
                response.body.close()
                by_cache(request, self._name)
                status = CacheStatus(forward=Forward.STALE, forward_status=response.status, detail="stale-if-error")
                return self._telling.answer(request, whole, status, b"STALE", asked)
        return None

    # What is fetched.

    def _alike(self, request: Request, place: Place, entries: Sequence[Entry]) -> bytes:
        """Return what requests have in common that may share a fetch, with where that is kept."""
        index = request.headers.index
        flags = (self._settings.users is Users.HEED and speaks_for_a_user(request)), b"cookie" in index
        return digest_of(f"{place.text}\0{self._route}{flags}") + alike(entries, request, self._rules)

    async def _fetch(self, request: Request, next: Handler, errand: Errand, turns: int) -> Response:  # noqa: A002
        """Have it fetched, or wait for who does so already."""
        where = errand.alike
        if not turns or self._memory.marked(where, self._clock()):
            return await self._by_itself(request, next, errand)
        flight = self._sharing.under_way(where)
        if flight is not None and errand.decision.why is not Forward.REQUEST:
            entry, over = await self._sharing.follow(request, flight)
            if entry is not None:
                stands_in = flight.came is not None and flight.came.stands_in
                self._came(request, self._stale if stands_in else self._missed)
                by_cache(request, self._name)
                status = replace(errand.decision.status, collapsed=True)
                return self._telling.answer(request, entry, status, b"MISS", self._wall())
            if over and not self._memory.marked(where, self._clock()):
                kept = self._memory.get(errand.place.text)
                return await self._look(request, next, errand.place, kept, turns - 1)
            return await self._by_itself(request, next, errand)
        met = _met(request)
        flight = self._sharing.launch(request, next, errand)
        response = await self._sharing.lead(request, flight, errand)
        if response is None:
            return await self._by_itself(request, next, errand)
        stands_in = flight.came is not None and flight.came.stands_in
        self._came(request, self._stale if stands_in else self._missed, met)
        return response


def _met(request: Request) -> int:
    """Return how many results a request has by now."""
    return 0 if request.exchange is None else len(request.exchange.results)


def _result(name: str, what: str) -> tuple[Result, ...]:
    return (Result(ResultKind.CACHE, name, what),)


def _decided(entries: Sequence[Entry], decision: Decision) -> Entry:
    """Return the answer that was decided on."""
    return next(entry for entry in entries if entry.stored is decision.stored)
