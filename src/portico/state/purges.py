"""Purges: from when on answers are of no use that were kept before, by URL, by tag, or all of them.

A purge takes nothing away. It writes when it was to the durable space of the store: what is kept and was asked for
before that is as good as gone. What workers have in memory is told by `Stamps`.

A URL stands for what is kept of it by either scheme and any port, without a query for all of its queries.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Final
from urllib.parse import urlsplit

from portico.errors import RequestError
from portico.http.target import EncodedSlashes, normalise_path, parse_host
from portico.state.stamps import EVERYTHING, Stamps
from portico.state.store import Store

LONGEST_KEPT: Final = 30 * 86400.0
"""Seconds that an answer may be kept at most: a purge is forgotten some time after it."""

CLOCK_SKEW: Final = 5.0
"""Seconds by which the clocks of machines that share a store may differ. So long after a purge nothing that is kept is
of use; it could be from before."""

HOLDS: Final = 1.0
"""Seconds that a machine believes what it has in memory of a store that others have, too: nobody tells it of theirs."""

MOST_AT_ONCE: Final = 1000
"""The most URLs and tags of one purge."""

LONGEST_TAG: Final = 256
LONGEST_URL: Final = 8192

_REMEMBERED: Final = 16_384
"""Purges that a worker remembers, or that there was none."""
_TOGETHER: Final = 64
"""Stamps that are written at once; LMDB has so many in a transaction."""
_URL_FORM: Final = re.compile(r"https?://[!-~]+", re.IGNORECASE).fullmatch
_TAG_FORM: Final = re.compile(rf"[!-+\--~]{{1,{LONGEST_TAG}}}").fullmatch
_TTL: Final = LONGEST_KEPT + 86400.0
_TIME: Final = Struct("<d")

_LATEST: Final = b"portico.purge:"
"""When anything was purged last. It is written after all else: a purge that has failed is none."""
_ALL: Final = _LATEST + b"*"
_URL: Final = _LATEST + b"u"
_TAG: Final = _LATEST + b"t"


class BadPurge(ValueError):
    """What is to be purged cannot be understood; the message says why."""


class Purges:
    """What was purged, as a worker sees it: `env.purges`."""

    def __init__(self, store: Store, stamps: Stamps, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._space = store.durable
        self._stamps = stamps
        self._clock = clock
        self._wall = wall
        self.stamp_at: Callable[[int], int] = stamps.at
        """Returns the stamp of a slot; it takes some hundredths of a microsecond."""
        self._skew = 0.0 if store.local else CLOCK_SKEW
        self.holds: float | None = None if store.local else HOLDS
        """Seconds that what is in memory may be believed while its stamp is the same; None for any time."""
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self._stamp = -1
        self._until = 0.0

    def slot(self, place: bytes) -> int:
        """Return the number of a place's slot, for `stamp_at`; a place is any bytes, such as a key of the store."""
        return self._stamps.slot(place)

    def stamp(self, place: bytes) -> int:
        """Return a number that changes when anything was purged, or something at this place was forgotten by any worker
        of the machine; ask for it ahead of reading the store.
        """
        return self._stamps[self._stamps.slot(place)]

    def forget(self, place: bytes) -> None:
        """Tell the machine's workers that what they have in memory of a place is good no more; after the store was."""
        self._stamps.change(self._stamps.slot(place))

    async def since(self, tags: Iterable[bytes] = (), url: bytes = b"", after: float = 0.0) -> float:
        """Return when one of these tags, or this URL, or everything was purged last, in seconds since 1970, or 0.0.

        `url` is `scheme://host/path`, and `?query` where there is one: host and path as a Request has them, the host in
        lower case and without a port. What is kept is of no use where its service was asked *before* that: an answer
        that was on its way meanwhile may be older than the purge. Purges up to `after` are of no interest, and 0.0 may
        stand for them, which saves looking: give it when the service was asked. Raises StoreUnavailable.
        """
        remembered = self._believed()
        latest = remembered.get(_LATEST)
        if latest is None:
            latest = await self._look(remembered, _LATEST)
        if latest <= after:
            return 0.0
        keys = [_ALL, *(_TAG + tag for tag in tags), *_keys_of(url)]
        unknown = [key for key in keys if key not in remembered]
        found = {key: remembered[key] for key in keys if key in remembered}
        looked = await asyncio.gather(*(self._look(remembered, key) for key in unknown))
        return max(*found.values(), *looked, 0.0)

    async def purge(self, keys: Sequence[bytes]) -> None:
        """Purge what these keys, made by `keys_to_purge`, stand for, and tell the machine.

        Raises StoreUnavailable; then it is no purge.
        """
        now = self._wall() + self._skew
        for start in range(0, len(keys), _TOGETHER):
            await asyncio.gather(*(self._write(key, now) for key in keys[start : start + _TOGETHER]))
        await self._write(_LATEST, now)
        self._stamps.change_all()

    def close(self) -> None:
        """Let go of the stamps."""
        self._stamps.close()

    def _believed(self) -> OrderedDict[bytes, float]:
        """Return what is remembered and still holds. Who has got it before a purge adds to what is thrown away then."""
        stamp = self._stamps[EVERYTHING]
        now = self._clock()
        if stamp != self._stamp or now >= self._until:
            self._remembered = OrderedDict()
            self._stamp = stamp
            self._until = now + (self.holds or float("inf"))
        return self._remembered

    async def _look(self, remembered: OrderedDict[bytes, float], key: bytes) -> float:
        when = await self._read(key)
        remembered[key] = when
        if len(remembered) > _REMEMBERED:
            remembered.popitem(last=False)
        return when

    async def _read(self, key: bytes) -> float:
        kept = await self._space.get(key)
        return 0.0 if kept is None or len(kept) != _TIME.size else _TIME.unpack(kept)[0]

    async def _write(self, key: bytes, now: float) -> None:
        """Write when it was; not an earlier time than what is there, by a clock that was set back."""
        await self._space.put(key, _TIME.pack(max(now, await self._read(key))), _TTL)


def _keys_of(url: bytes) -> tuple[bytes, ...]:
    """Return the keys by which something at a URL may have been purged."""
    place = url.partition(b"://")[2]
    path, _, query = place.partition(b"?")
    return (_URL + path, _URL + place) if query else (_URL + path,) if path else ()


def keys_to_purge(
    urls: Sequence[str], tags: Sequence[str], *, everything: bool, slashes: EncodedSlashes = EncodedSlashes.KEEP
) -> list[bytes]:
    """Return the keys of what is to be purged; `slashes` is what becomes of encoded ones in paths. Raises BadPurge."""
    if everything and (urls or tags):
        raise BadPurge("everything is to be purged, and URLs or tags as well: say one of them")
    if not (everything or urls or tags):
        raise BadPurge("there is nothing to purge: give URLs, tags, or everything")
    if len(urls) + len(tags) > MOST_AT_ONCE:
        raise BadPurge(f"at most {MOST_AT_ONCE} URLs and tags can be purged at once, not {len(urls) + len(tags)}")
    keys = [_ALL] if everything else []
    keys += (_URL + _place(url, slashes) for url in urls)
    keys += (_TAG + _tag(tag) for tag in tags)
    return list(dict.fromkeys(keys))


def _place(url: str, slashes: EncodedSlashes) -> bytes:
    """Return `host/path`, and the query where there is one, as requests have them."""
    if len(url) > LONGEST_URL:
        raise BadPurge(f"a URL has at most {LONGEST_URL} characters: {url[:80]}...")
    shown = repr(re.sub(r"//[^/]*@", "//***@", url))
    if _URL_FORM(url) is None:
        raise BadPurge(f"{shown} is no URL to purge; write all of it, as in https://example.com/orders")
    if url.endswith("*"):
        raise BadPurge(f"{shown}: what begins alike cannot be purged; have the service tag it, and purge the tag")
    try:
        parts = urlsplit(url)
        host, _ = parse_host(parts.netloc.encode("ascii"))
        path = normalise_path(parts.path or "/", slashes)
    except (ValueError, RequestError) as error:
        raise BadPurge(f"{shown} is no URL to purge: {error}") from None
    return f"{host}{path}?{parts.query}".encode() if parts.query else f"{host}{path}".encode()


def _tag(tag: str) -> bytes:
    if _TAG_FORM(tag) is None:
        raise BadPurge(f"{tag[:80]!r} is no tag: 1 to {LONGEST_TAG} visible ASCII characters, without a comma")
    return tag.encode("ascii")
