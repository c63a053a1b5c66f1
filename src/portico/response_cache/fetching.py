"""How something is fetched: by one worker of all, if that is quick enough; validated where it was kept; and kept.

Who fetches has a lease in the store. It is for courtesy only: it runs out, and who has waited for it in vain asks as
well. What keeps an answer from taking the place of a newer one is when its service was asked, which is compared; and
what keeps it from being given after something was changed is the same. So nothing depends on how long a worker may have
been stopped, and a slow service is kept as well as a quick one.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from portico.caching.freshness import explicit_lifetime, policy_of
from portico.caching.reuse import ERRORS, Decision, Verdict, decide, may_stand_in
from portico.caching.rules import CachingRules
from portico.caching.status import CacheStatus, Forward
from portico.caching.stored import NotStored, Stored
from portico.caching.storing import store
from portico.caching.validation import Change, freshened, to_fetch, to_validate
from portico.errors import BodyTruncated, PorticoError
from portico.http.body import Body
from portico.http.headers import Headers
from portico.http.message import Handler, Request, Response
from portico.http.user import USER
from portico.observe.exchange import Exchange
from portico.policy.base import Env
from portico.response_cache.flight import Came, Flight, Lonely
from portico.response_cache.keys import Place
from portico.response_cache.memory import Kept, Memory
from portico.response_cache.record import Entry, is_same
from portico.response_cache.settings import CacheSettings, Users
from portico.response_cache.shelf import Shelf
from portico.response_cache.telling import waited

HIT_FOR_MISS: Final = 120.0
"""Seconds for which requests do not wait for each other, after one was answered what is not kept; as in Varnish."""
MOST_TAGS: Final = 128
LONGEST_TAG: Final = 256
FIRST_LOOK: Final = 0.01
"""Seconds after which it is looked again whether another worker has fetched it; then ever longer."""
LAST_LOOK: Final = 0.2


class Errand(NamedTuple):
    """What is to be fetched, and why."""

    place: Place
    kept: Kept | None
    entries: Sequence[Entry]
    """What is kept for such requests."""
    decision: Decision
    alike: bytes
    """What such requests have in common, with where it is kept."""


class _Lease:
    """The lease of one fetch; the token is 0 where it is not ours."""

    __slots__ = ("key", "token")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.token = 0


class Fetching:
    """Fetches for one cache."""

    def __init__(
        self,
        settings: CacheSettings,
        route: str,
        env: Env,
        shelf: Shelf,
        memory: Memory,
        entries_for: Callable[[Request, Kept | None], list[Entry]],
    ) -> None:
        """`entries_for` says which answers of a place may be for a request."""
        self._settings = settings
        self._rules = settings.rules
        self._bare = dataclasses.replace(settings.rules, ttl={}, heuristic=0.0)
        self._route = route
        self._clock = env.clock
        self._wall = env.wall
        self._shelf = shelf
        self._memory = memory
        self._entries_for = entries_for
        self._lasts = max(1.0, settings.wait)
        self._name = env.place.rpartition(":")[2]
        self._stored = env.counter("portico_cache_stored_total")
        self._lonely = Lonely()

    def flight(self, exchange: Exchange, place: Place) -> Flight:
        """Return what is to be run; `exchange` is its record."""
        return Flight(exchange, self._lonely, self._memory, self._shelf.stamp(place.uri))

    async def run(self, flight: Flight, seen: Request, next: Handler, errand: Errand) -> None:  # noqa: A002
        """Fetch something, and keep it; `seen` is the request for which, with a client's own conditions."""
        lease, alone = _Lease(errand.alike), asyncio.timeout(None)
        try:
            async with alone:
                flight.start(alone)
                began = self._clock()
                errand = await self._turn(flight, seen, errand, lease)
                waited(flight.exchange, self._name, began, self._clock(), "asked the store who fetches it")
                if not flight.over:
                    await self._fetch(flight, seen, next, errand, lease)
        except TimeoutError:
            if not alone.expired():  # it is not that nobody waits for it any more
                raise
        finally:
            flight.end(self._clock())
        if lease.token:
            await self._shelf.release(lease.key, lease.token)

    async def learnt(
        self, place: Place, entries: Sequence[Entry], change: Change, asked: float, stamp: tuple[int, int]
    ) -> None:
        """Keep what was learnt of an answer that is kept, unless its URI was changed since it had that stamp."""
        if not self._shelf.is_changed(stamp):
            keep, gone = _sorted_out(entries, [change], asked, self._rules)
            await self._shelf.keep(place, keep, gone)
            await self._shelf.drop_if_changed(place, stamp)
            self._shelf.forget(place.uri)

    async def _turn(self, flight: Flight, seen: Request, errand: Errand, lease: _Lease) -> Errand:
        """Wait until it is ours to fetch, or nobody knows; or finish the flight with what another worker has."""
        own = errand.decision.why is Forward.REQUEST
        end, pause = self._clock() + self._settings.wait, FIRST_LOOK
        while True:
            token = await self._shelf.claim(lease.key, self._lasts)
            lease.token = token or 0
            if token is None or (not token and own):
                return errand
            if not own:
                errand = await self._look_again(flight, seen, errand)
            if token or flight.over:
                return errand
            if errand.decision.gives:  # it is stale, and somebody else renews it
                flight.end(self._clock())
                return errand
            if self._clock() >= end:
                return errand
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LAST_LOOK)

    async def _look_again(self, flight: Flight, seen: Request, errand: Errand) -> Errand:
        """Return what is to be done by what the store has now; finish the flight where that will do."""
        kept = await self._shelf.load(errand.place, errand.kept)
        if kept is None:
            return errand
        entries = self._entries_for(seen, kept)
        decision = decide(seen, [entry.stored for entry in entries], self._wall(), self._rules)
        errand = errand._replace(kept=kept, entries=entries)
        if decision.verdict is Verdict.GIVE:
            entry = next(each for each in entries if each.stored is decision.stored)
            whole = await self._shelf.content(errand.place, entry)
            if whole is not None:
                self._memory.put(errand.place.text, kept if whole is entry else kept.with_entry(entry, whole))
                status = dataclasses.replace(errand.decision.status, collapsed=True)
                flight.finish(Came(whole, status, b"MISS"))
            return errand
        return errand._replace(decision=decision) if decision.stored is not None else errand

    async def _fetch(
        self,
        flight: Flight,
        seen: Request,
        next: Handler,  # noqa: A002
        errand: Errand,
        lease: _Lease,
    ) -> None:
        """Ask the service, and keep what it says."""
        place, why = errand.place, errand.decision.why or Forward.STALE
        stamp = flight.stamp
        shown = await self._shown(errand)
        asked, response = await self._ask(flight, seen, next, errand, shown)
        if response.status == 304 and shown:
            stored = [entry.stored for entry in shown]
            changes = freshened(seen, response.headers, stored, asked, self._wall(), self._rules)
            if changes:
                first = changes[0]
                entry = _of(shown, first.old)
                shared = isinstance(first.kept, Stored) and first.kept is not first.old
                now = _changed(entry, first.new, asked, self._rules)
                status = CacheStatus(forward=why, forward_status=304)
                flight.finish(Came(now, status, b"REVALIDATED", shared=shared))
                await self._write(errand, *_sorted_out(shown, changes, asked, self._rules), stamp, lease)
                return
            response.body.close()
            asked, response = await self._ask(flight, seen, next, errand, [])
        received = self._wall()
        stale = shown[0] if shown and shown[0].stored is errand.decision.stored else None
        if stale is not None and response.status in ERRORS and may_stand_in(stale.stored, seen, received, self._rules):
            response.body.close()
            status = CacheStatus(forward=why, forward_status=response.status, detail="stale-if-error")
            flight.finish(Came(stale, status, b"STALE", stands_in=True))
            return
        gone = [] if stale is None or response.status >= 500 else [stale]
        made = self.judge(seen, response, asked, received)
        if made is None or self._is_too_large(response):
            self._memory.mark(errand.alike, self._clock() + HIT_FOR_MISS)
            flight.give(response)
            if gone:
                await self._shelf.keep(place, [], gone)
                self._shelf.forget(place.uri)  # or it would be given from memory for as long as it may be stale
        elif await self._collect(flight, response):
            content = flight.content()
            stored_ = made.stored.completed(len(content))
            entry = dataclasses.replace(made, stored=stored_, length=len(content), content=content)
            status = CacheStatus(forward=why, stored=True)
            flight.finish(Came(entry, status, b"MISS" if stale is None else b"EXPIRED"))
            self._memory.unmark(errand.alike)
            await self._write(errand, [entry], gone, stamp, lease)
        elif flight.broken is None:
            self._memory.mark(errand.alike, self._clock() + HIT_FOR_MISS)

    async def _shown(self, errand: Errand) -> list[Entry]:
        """Return the answers that a service is asked about, that for the request first, with their contents."""
        chosen = [each for each in errand.entries if each.stored is errand.decision.stored]
        others = [each for each in errand.entries if each.stored.etag is not None and each not in chosen]
        shown = []
        for each in (*chosen, *others):
            whole = await self._shelf.content(errand.place, each)
            if whole is not None:
                shown.append(whole)
        return shown

    async def _ask(
        self,
        flight: Flight,
        seen: Request,
        next: Handler,  # noqa: A002
        errand: Errand,
        shown: Sequence[Entry],
    ) -> tuple[float, Response]:
        """Return when the service was asked, and what it has answered."""
        request = seen.copy(Body())
        request.exchange = flight.exchange
        chosen = shown[0].stored if shown and shown[0].stored is errand.decision.stored else None
        others = [entry.stored for entry in shown if entry.stored is not chosen]
        request.headers = to_validate(seen.headers, chosen, others) if shown else to_fetch(seen.headers)
        asked = self._wall()
        return asked, await next(request)

    async def _collect(self, flight: Flight, response: Response) -> bool:
        """Take in a content as it comes; return whether all of it is there, and may be kept."""
        body = response.body
        flight.begin(response)
        if body.whole is not None:
            flight.add(body.whole)
            return True
        try:
            while piece := await body.chunk():
                flight.add(piece)
                if flight.size > self._settings.max_size or not self._memory.room:
                    flight.hand_over(body)
                    return False
            if body.length is not None and flight.size != body.length:
                raise BodyTruncated("the answer is not as long as it says")  # noqa: TRY301 - as one that breaks off
        except PorticoError as error:
            body.close()
            flight.break_off(error)
            return False
        except BaseException:
            body.close()
            raise
        return True

    async def _write(
        self, errand: Errand, keep: Sequence[Entry], gone: Sequence[Entry], stamp: tuple[int, int], lease: _Lease
    ) -> None:
        """Have at hand what has come, and write it to the store, and after it that others may fetch."""
        place, before = errand.place, errand.kept
        others = [] if before is None or (before.slot, before.stamp) != stamp else before.entries
        left = [each for each in others if not any(is_same(each, other) for other in (*keep, *gone))]
        self._memory.put(place.text, Kept(place.uri, [*left, *keep], *stamp, self._clock()))
        if self._shelf.is_changed(stamp):
            return  # and so is this of no use; whoever asks now is to ask the service
        token, lease.token = lease.token, 0
        if await self._shelf.keep(place, keep, gone, lease.key, token):
            self._stored.add()
            await self._shelf.drop_if_changed(place, stamp)
        if errand.decision.why is Forward.REQUEST or not keep:
            self._shelf.forget(place.uri)  # other workers have what was fresh until then, or may be given stale

    def judge(self, request: Request, response: Response, asked: float, received: float) -> Entry | None:
        """Return an answer as it is to be kept, without its content; None where it is not."""
        if response.problem_value is not None or response.duplex is not None:
            return None
        settings, headers = self._settings, response.headers
        careful = settings.cookies and b"cookie" in request.headers.index
        asks = _of_nobody(request) if settings.users is Users.ALIKE else request
        rules = self._bare if careful else self._rules
        stored = store(asks, response.status, headers, asked, received, rules)
        if isinstance(stored, NotStored):
            return None
        tags = self._tags_of(headers)
        if tags is None:
            return None
        for name in (b"cache-status", settings.header.lower(), *(() if settings.show_tags else settings.tags)):
            stored.headers.remove(name)
        return Entry(stored, self._route, asked, 0, None, *_said(stored, rules), tags)

    def _tags_of(self, headers: Headers) -> tuple[bytes, ...] | None:
        """Return by what an answer is purged; None where that is more than anyone means, and would be missed."""
        found: dict[bytes, None] = {}
        for name in self._settings.tags:
            for value in headers.get_all(name):
                found.update(dict.fromkeys(value.replace(b",", b" ").split()))
        if len(found) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in found):
            return None
        return tuple(found)

    def _is_too_large(self, response: Response) -> bool:
        length = response.body.length
        declared = response.headers.get(b"content-length")
        if response.body.whole is not None and declared is not None and declared != b"%d" % len(response.body.whole):
            return True  # not so much as it says
        return length is not None and length > self._settings.max_size


def _of(entries: Sequence[Entry], stored: Stored) -> Entry:
    return next(each for each in entries if each.stored is stored)


def _said(stored: Stored, rules: CachingRules) -> tuple[bool, bool]:
    """Return whether an answer does not say for how long it is fresh, and whether it says that others may have it."""
    policy = policy_of(stored.headers, rules)
    implied = stored.life.lifetime > 0 and explicit_lifetime(stored.headers, policy, stored.date) is None
    return implied, policy.directives.shares


def _changed(entry: Entry, stored: Stored, asked: float, rules: CachingRules) -> Entry:
    """Return an answer by what it says now."""
    implied, for_all = _said(stored, rules)
    return dataclasses.replace(entry, stored=stored, asked=asked, implied=implied, for_all=for_all)


def _sorted_out(
    entries: Sequence[Entry], changes: Sequence[Change], asked: float, rules: CachingRules
) -> tuple[list[Entry], list[Entry]]:
    """Return what is to be kept of answers that have changed, and which are not any more."""
    keep, gone = [], []
    for change in changes:
        old = _of(entries, change.old)
        if isinstance(change.kept, NotStored):
            gone.append(old)
        elif change.kept is not change.old:
            keep.append(_changed(old, change.kept, asked, rules))
            gone.append(old)  # where it varies otherwise now, it is not in the same place
    return keep, gone


def _of_nobody(request: Request) -> Request:
    """Return a request as if nobody in particular had sent it."""
    other = request.copy(Body())
    other.headers.remove(b"authorization")
    if other.get(USER) is not None:
        del other[USER]
    return other
