"""What a worker has at hand of what is kept: bounded in bytes, and what is not asked for goes first.

What is here is as good as the store's while the stamp of its place is unchanged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, TypeAlias

from portico.caching.rules import CachingRules
from portico.caching.variants import variant_of
from portico.http.headers import HeaderBlock
from portico.http.message import Request
from portico.response_cache.record import Entry
from portico.state.board import Counter
from portico.state.purges import CLOCK_SKEW

_LARGEST: Final = 8
"""One place may have this part of the whole, at most."""
_SIGNATURES: Final = 64
"""Ways in which requests were found to have the same fields, for each place."""
_SIGNATURE: Final = 300
"""Bytes that one of them takes, beside the values of the fields."""
_LONGEST_VALUE: Final = 256
"""Bytes of a field that is remembered so."""
_SPARED: Final = 32
"""Places that have a second chance at a time; then the oldest goes, used or not, so that nobody waits for long."""
MOST_MARKS: Final = 8192
"""Places of which it is remembered that what is asked for there is not kept."""
BUFFERED: Final = 64 * 1024 * 1024
"""The bytes of contents on their way that a worker may hold to keep them; beyond it, they pass."""


_NOTHING: Final = HeaderBlock(())
Signature: TypeAlias = tuple[str, int, tuple[bytes | None, ...]]
"""All of a request that may make a difference among the answers of a place: the route, whether it has a cookie or is in
somebody's name where that counts, and the fields by which some answer varies."""


class Given:
    """An answer at hand, with the head that it is sent with in this second."""

    __slots__ = ("block", "content", "entry", "good_from", "second", "stale_at")

    def __init__(self, entry: Entry, content: bytes) -> None:
        self.entry = entry
        self.content = content
        self.good_from = entry.asked - CLOCK_SKEW  # of a clock that was set back, it knows nothing else
        self.stale_at = entry.stored.stale_at
        self.second = -1
        self.block = _NOTHING


class Kept:
    """The answers of one place, as they were in the store when it had this stamp."""

    __slots__ = (
        "_remembered",
        "entries",
        "implied",
        "names",
        "read",
        "signatures",
        "size",
        "slot",
        "stamp",
        "uri",
        "used",
    )

    def __init__(self, uri: str, entries: Sequence[Entry], slot: int, stamp: int, read: float) -> None:
        """`read` is when it was read from the store, by the worker's clock."""
        self.uri = uri
        self.entries = tuple(entries)
        self.slot = slot
        self.stamp = stamp
        self.read = read
        self.size = 600 + 2 * len(uri) + sum(entry.size for entry in entries)
        self.names = tuple(sorted({name for entry in entries for name in entry.stored.vary}))
        self.implied = any(entry.implied for entry in entries)
        """Whether some answer is for nobody in particular."""
        self.signatures: dict[Signature, Given] = {}
        self._remembered = 0
        self.used = False
        """Whether somebody has asked for it since it had its place in the memory, or since it was spared there."""

    def with_entry(self, old: Entry, new: Entry) -> Kept:
        """Return the same with another answer in the place of one."""
        return Kept(self.uri, [new if each is old else each for each in self.entries], self.slot, self.stamp, self.read)

    def remember(self, signature: Signature, entry: Entry, content: bytes) -> None:
        """Have requests of the same fields answered the same."""
        if any(value is not None and len(value) > _LONGEST_VALUE for value in signature[2]):
            return
        if len(self.signatures) >= _SIGNATURES:
            self.signatures.clear()
            self.size -= self._remembered
            self._remembered = 0
        grown = _SIGNATURE + sum(len(value or b"") for value in signature[2])
        self._remembered += grown
        self.size += grown
        same = (given for given in self.signatures.values() if given.entry is entry)
        self.signatures[signature] = next(same, None) or Given(entry, content)


class Memory:
    """All that a worker has at hand; its caches share it."""

    __slots__ = ("_evicted", "_kept", "_marks", "_most", "buffered", "most_buffered", "size")

    def __init__(self, most: int, evicted: Counter) -> None:
        self._most = most
        self._evicted = evicted
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._marks: OrderedDict[bytes, float] = OrderedDict()
        self.size = 0
        """The bytes that are taken, nearly."""
        self.most_buffered = BUFFERED
        self.buffered = 0
        """The bytes of contents on their way."""

    def get(self, place: str) -> Kept | None:
        """Return what is at hand of a place."""
        kept = self._kept.get(place)
        if kept is not None:
            kept.used = True
        return kept

    def put(self, place: str, kept: Kept) -> None:
        """Have it at hand, unless it is too large."""
        self.drop(place)
        if kept.size > self._most // _LARGEST:
            return
        self._make_room(kept.size)
        self._kept[place] = kept
        self.size += kept.size

    def remember(self, place: str, kept: Kept, signature: Signature, entry: Entry) -> None:
        """Have requests of the same fields answered the same, while that is at hand; the entry has its content."""
        if self._kept.get(place) is kept:
            assert entry.content is not None
            before = kept.size
            kept.remember(signature, entry, entry.content)
            self.size += kept.size - before
            self._make_room(0)

    def _make_room(self, wanted: int) -> None:
        """Have the oldest go, but some that were used since their turn came last: they begin anew (second chance)."""
        spared = 0
        while self._kept and self.size + wanted > self._most:
            place, oldest = next(iter(self._kept.items()))
            if oldest.used and spared < _SPARED:
                oldest.used = False
                self._kept.move_to_end(place)
                spared += 1
            else:
                self.drop(place)
                self._evicted.add()

    def drop(self, place: str) -> None:
        """Have it at hand no more."""
        kept = self._kept.pop(place, None)
        if kept is not None:
            self.size -= kept.size

    def mark(self, alike: bytes, until: float) -> None:
        """Remember for a while that what such requests are answered is not kept; `alike` has a place in it."""
        self._marks[alike] = until
        self._marks.move_to_end(alike)
        if len(self._marks) > MOST_MARKS:
            self._marks.popitem(last=False)

    def unmark(self, alike: bytes) -> None:
        """Forget that."""
        self._marks.pop(alike, None)

    def marked(self, alike: bytes, now: float) -> bool:
        """Whether it is so."""
        until = self._marks.get(alike)
        if until is None:
            return False
        if now >= until:
            del self._marks[alike]
            return False
        return True

    @property
    def room(self) -> bool:
        """Whether more may be held of contents on their way."""
        return self.buffered <= self.most_buffered

    def __len__(self) -> int:
        return len(self._kept)

    def close(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._marks.clear()
        self.size = 0


def alike(kept: Sequence[Entry], request: Request, rules: CachingRules) -> bytes:
    """Return what requests have in common that are likely to be answered the same, by what is kept for the URI."""
    vary: tuple[bytes, ...] = ()
    latest = 0.0
    for entry in kept:
        if entry.stored.received >= latest:
            latest, vary = entry.stored.received, entry.stored.vary
    return variant_of(vary, request, rules)
