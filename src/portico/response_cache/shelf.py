"""What is kept, in the store: records of answers, when something was changed, and who is fetching what.

The store may fail at any time, and then nothing is kept: nobody waits for it again for a while.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from struct import Struct
from typing import Any, Final, TypeVar

from portico.errors import StoreUnavailable
from portico.policy.verdicts import Trouble
from portico.response_cache import record
from portico.response_cache.keys import Place, digest_of
from portico.response_cache.memory import Kept
from portico.response_cache.record import INLINE, Entry, is_same
from portico.state.board import Counter
from portico.state.purges import CLOCK_SKEW, LONGEST_KEPT, Purges
from portico.state.store import Space

APART_KEPT: Final = 86400.0
"""The same where a URI is answered apart for many: so long it is remembered that something was changed there."""
CHANGED: Final = 600.0
"""Seconds for which that is remembered otherwise, as what was kept is deleted: for fetches that were under way."""
LONGEST_FETCH: Final = CHANGED / 2
"""What has taken longer to come is not kept: nobody knows any more whether it was changed meanwhile."""
MOST_OWED: Final = 1024
"""Changes that are remembered while the store cannot be told of them."""
REST: Final = 1.0
"""Seconds for which a store that has failed is not asked again."""

_RECORD: Final = b"c"
_CHANGED: Final = b"i"
_LEASE: Final = b"l"
_TIME: Final = Struct("<d")

T = TypeVar("T")


class Shelf:
    """Reads and writes what is kept by one policy."""

    def __init__(
        self,
        space: Space,
        purges: Purges,
        clock: Callable[[], float],
        wall: Callable[[], float],
        trouble: Trouble,
        failures: Counter,
        spawn: Callable[[Coroutine[Any, Any, None], str], None],
        keep_stale: float,
        *,
        apart: bool,
    ) -> None:
        """`keep_stale` is how long what is stale is kept to be validated; `apart`, whether a URI has several places."""
        self._space = space
        self._purges = purges
        self._stamp_at = purges.stamp_at
        self._holds = purges.holds
        self._clock = clock
        self._wall = wall
        self._trouble = trouble
        self._failures = failures
        self._spawn = spawn
        self._makes_up = False
        self._closed = False
        self._keep_stale = keep_stale
        self._apart = apart
        self._reading = _Rest()
        self._writing = _Rest()  # one that is full can be read
        self._owed: dict[bytes, float] = {}
        self._noted = apart or purges.holds is not None
        """Whether changes are written down: there are other places than that of the URI, or other machines."""

    async def load(self, place: Place, before: Kept | None = None) -> Kept | None:
        """Return what is kept at a place, with the contents that `before` has; None where the store has no answer."""
        if self._owed and not await self._pay():
            return None
        uri = digest_of(place.uri)
        slot = self._purges.slot(uri)
        stamp = self._purges.stamp_at(slot)  # ahead of what it is to vouch for
        entries: Iterable[Entry] = ()
        found = await self._try(self._space.get(_RECORD + digest_of(place.text)), self._reading)
        if isinstance(found, bytes):
            found = entries = await self._try(self._alive(record.decode(found), uri, place.url), self._reading)
        if found is _FAILED:
            return None
        if before is not None:
            entries = _with_contents(entries, before.entries)
        return Kept(place.uri, tuple(entries), slot, stamp, self._clock())

    async def content(self, place: Place, entry: Entry) -> Entry | None:
        """Return an answer with all of its content; None where that is not there any more, or not whole."""
        if entry.content is not None:
            return entry
        key, parts = digest_of(place.text), []
        for number, size in enumerate(record.part_sizes(entry.length)):
            part = await self._try(self._space.get(record.part_key(key, entry.name, number)), self._reading)
            if not isinstance(part, bytes) or len(part) != size:
                return None
            parts.append(part)
            await asyncio.sleep(0)  # others have their turn between large ones
        return entry.with_content(b"".join(parts))

    async def keep(
        self, place: Place, entries: Iterable[Entry], gone: Iterable[Entry] = (), lease: bytes = b"", token: int = 0
    ) -> bool:
        """Keep answers, each in the place of that before it unless that is newer, and have others go.

        A lease with a token is given back by the same write.
        """
        return (
            await self._try(self._keep(digest_of(place.text), list(entries), list(gone), lease, token), self._writing)
            is True
        )

    async def changed(self, uri: str) -> None:
        """Have all go that is kept for a URI, and was asked for before now.

        Where the store cannot be asked, or the client leaves, that is made up for: ahead of the next look at the store,
        and as soon as it can be.
        """
        key = digest_of(uri)
        if len(self._owed) < MOST_OWED:
            self._owed[key] = self._wall()
        self._writing.until = float("-inf")  # this is worth a wait
        self._purges.forget(key)  # whoever writes from now on takes it away again; what was written before is found
        try:
            await self._pay()
        finally:
            if self._owed and not self._makes_up:
                self._spawn(self._make_up(), "cache")

    def close(self) -> None:
        """Make up for nothing any more."""
        self._closed = True

    async def _make_up(self) -> None:
        """Write what was changed as soon as the store can be asked: other workers may ask it before this one does."""
        if self._makes_up:
            return
        self._makes_up = True
        try:
            while self._owed and not self._closed:
                if not await self._pay():
                    await asyncio.sleep(REST)
        finally:
            self._makes_up = False

    async def _pay(self) -> bool:
        """Write what was changed; return whether all of it was written."""
        while self._owed:
            key, when = next(iter(self._owed.items()))
            if await self._try(self._write_change(key, when), self._writing) is _FAILED:
                return False
            self._purges.forget(key)  # who has read it meanwhile reads again
            if self._owed.get(key) == when:
                del self._owed[key]
        return True

    async def _write_change(self, key: bytes, when: float) -> None:
        """Write that something was changed.

        Where all who fetch it are of this machine, the stamp tells them (`drop_if_changed`), and nothing is to be
        written unless there is something to delete: most of what is changed is not kept.
        """
        if self._noted:
            skew = 0.0 if self._purges.holds is None else CLOCK_SKEW
            await self._space.put(_CHANGED + key, _TIME.pack(when + skew), APART_KEPT if self._apart else CHANGED)
        if not self._apart and (self._noted or await self._space.get(_RECORD + key) is not None):
            await self._space.delete(_RECORD + key)

    async def claim(self, key: bytes, ttl: float) -> int | None:
        """Return the token by which a fetch is ours; 0 where it is somebody else's; None without a store."""
        found = await self._try(self._space.claim(_LEASE + key, ttl), self._writing)
        return None if found is _FAILED else found.token

    async def release(self, key: bytes, token: int) -> None:
        """Let others fetch it."""
        await self._try(self._space.release(_LEASE + key, token), self._writing)

    def is_changed(self, stamp: tuple[int, int]) -> bool:
        """Whether a URI was changed since it had this stamp."""
        return self._purges.stamp_at(stamp[0]) != stamp[1]

    async def drop_if_changed(self, place: Place, stamp: tuple[int, int]) -> None:
        """Have go again what was kept, if the URI was changed since it had this stamp; and what others have read."""
        if self.is_changed(stamp):
            await self._try(self._space.delete(_RECORD + digest_of(place.text)), self._writing)
            self._purges.forget(digest_of(place.uri))

    def alive_in_memory(self, kept: Kept) -> bool:
        """Whether what is at hand is as good as what is in the store."""
        if self._stamp_at(kept.slot) != kept.stamp:
            return False
        holds = self._holds
        return holds is None or self._clock() - kept.read < holds

    def unchanged(self, kept: Kept) -> bool:
        """Whether nobody of this machine has said that it is good no more."""
        return self._purges.stamp_at(kept.slot) == kept.stamp

    def forget(self, uri: str) -> None:
        """Have all workers read anew what is kept for a URI."""
        self._purges.forget(digest_of(uri))

    def stamp(self, uri: str) -> tuple[int, int]:
        """Return the slot of a URI, and its stamp."""
        slot = self._purges.slot(digest_of(uri))
        return slot, self._purges.stamp_at(slot)

    def lives(self, entry: Entry) -> float:
        """Return for how many seconds an answer is of use."""
        stored, life = entry.stored, entry.stored.life
        stale = max(life.while_revalidate, life.if_error)
        if stored.etag is not None or stored.modified is not None:
            stale = max(stale, self._keep_stale)
        lives = max(0.0, stored.ttl(self._wall())) + stale
        return min(max(1.0, lives), APART_KEPT if self._apart else LONGEST_KEPT)

    async def _alive(self, entries: Iterable[Entry], uri: bytes, url: bytes) -> tuple[Entry, ...]:
        """Leave out what was asked for before something was changed, or purged."""
        found = await self._space.get(_CHANGED + uri) if self._noted else None
        changed = 0.0 if found is None or len(found) != _TIME.size else _TIME.unpack(found)[0]
        since = self._purges.since
        return tuple(
            [
                entry
                for entry in entries
                if entry.asked >= changed and entry.asked >= await since(entry.tags, url, entry.asked)
            ]
        )

    async def _keep(
        self, key: bytes, entries: Iterable[Entry], gone: Sequence[Entry], lease: bytes, token: int
    ) -> bool:
        found = await self._space.get(_RECORD + key)
        now = self._wall()
        before = () if found is None else record.decode(found)
        before = tuple([each for each in before if each.asked <= now + CLOCK_SKEW])  # a clock was set back
        wanted = []
        for entry in entries:
            if any(is_same(entry, each) and each.asked > entry.asked for each in before):
                continue  # somebody was quicker, and has asked later
            if now - entry.asked <= LONGEST_FETCH:
                wanted.append(await self._parted(key, entry, now))
        left = [each for each in before if not any(is_same(each, other) for other in (*wanted, *gone))]
        kept = [*left, *wanted]
        writing: list[Awaitable[object]] = []  # what is asked at once is one transaction
        if kept and (wanted or gone):
            ttl = max(self.lives(entry) for entry in kept)
            writing.append(self._space.put(_RECORD + key, record.encode(kept), ttl))
        elif before and not kept:
            writing.append(self._space.delete(_RECORD + key))
        if token:
            writing.append(self._space.release(_LEASE + lease, token))
        await asyncio.gather(*writing)
        return bool(wanted)

    async def _parted(self, key: bytes, entry: Entry, now: float) -> Entry:
        """Write a content that is large in parts, ahead of the record that names them."""
        content = entry.content
        if content is None:
            return entry  # its parts are as they were
        if len(content) <= INLINE:
            return dataclasses.replace(entry, name=b"", parts_until=0.0)
        lives = self.lives(entry)
        if entry.name and entry.parts_until >= now + lives:
            return entry
        entry = dataclasses.replace(entry, name=secrets.token_bytes(12), parts_until=now + 2 * lives)
        for number, part in enumerate(record.parts_of(content)):
            await self._space.put(record.part_key(key, entry.name, number), part, 2 * lives)
        return entry

    async def _try(self, work: Awaitable[T], rest: _Rest) -> T | Any:
        """Return what comes of asking the store, or `_FAILED`."""
        if self._clock() < rest.until:
            _close(work)
            return _FAILED
        try:
            return await work
        except StoreUnavailable as error:
            rest.until = self._writing.until = self._clock() + REST  # what cannot be read is not written either
            self._failures.add()
            self._trouble.tell(str(error))
            return _FAILED


class _Rest:
    """Until when the store is not asked again."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = float("-inf")


class _Failed:
    """Stands for what a store has no answer to."""


_FAILED: Final = _Failed()


def _close(work: Awaitable[Any]) -> None:
    close = getattr(work, "close", None)
    if close is not None:
        close()


def _with_contents(entries: Iterable[Entry], before: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return answers with the large contents that are at hand already."""
    known = {entry.name: entry.content for entry in before if entry.name and entry.content is not None}
    return tuple(
        entry if entry.content is not None or entry.name not in known else entry.with_content(known[entry.name])
        for entry in entries
    )
