"""Finds consumers in a store for the requests of a worker, and remembers them: the loop never waits for the store.

A few threads ask the store. What they have found, and what they have not, is remembered; each in its own place, so that
keys that somebody makes up can push out no good one. What is remembered holds while the generation of credentials is
the one that it was read at, and in any case for `FRESH` seconds: without an agent everybody is looked up again, but not
for each request.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Generic, NamedTuple, TypeVar

from portico.config.consumers import DECOY, LONGEST_NAME, Consumer, Consumers, Credential
from portico.consumers.store import Reader, Store, StoreFailed
from portico.policy.consumers import LookupFailed

THREADS: Final = 2
"""Look-ups that a worker has under way at once."""
MOST_WAITING: Final = 64
"""Look-ups of strangers that are under way, or wait for it; beyond them the answer is 503."""
MOST_KNOWN: Final = 1024
"""Look-ups of those who were known to be good, beside those of strangers: after a change they all come at once."""
MOST_REMEMBERED: Final = 10_000
"""Keys that are remembered, and as many names; and as many of those that there are not."""
DEADLINE: Final = 1.0
"""Seconds that a request waits for a look-up."""
FRESH: Final = 0.25
"""Seconds that what was read holds, whatever has changed; a deleted key must be gone within one."""

logger = logging.getLogger("portico.consumers")

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class Threads:
    """The threads that ask a store, each with a reader of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="consumers")
        self._idle: list[Reader] = []
        self._lock = threading.Lock()
        self._closed = False
        self._strangers = self._known = 0
        self._trouble = ""
        self.decoy = ""
        """The hash of some password in the store, once one was seen."""

    def ask(self, question: Callable[[Reader], T], *, known: bool) -> asyncio.Future[T]:
        """Have a thread ask something; raise LookupFailed where too many wait for it.

        `known` is whether it is about somebody who was known to be good.
        """
        if self._known >= MOST_KNOWN if known else self._strangers >= MOST_WAITING:
            raise LookupFailed("too many consumers to look up")
        self._count(1, known=known)
        asking = asyncio.get_running_loop().run_in_executor(self._pool, self._ask, question)
        asking.add_done_callback(lambda _: self._count(-1, known=known))
        asking.add_done_callback(self._done)
        return asking

    def _count(self, more: int, *, known: bool) -> None:
        if known:
            self._known += more
        else:
            self._strangers += more

    def _ask(self, question: Callable[[Reader], T]) -> T:
        with self._lock:
            reader = self._idle.pop() if self._idle else self._store.reader()
        try:
            answer = question(reader)
            self.decoy = reader.decoy
            return answer
        finally:
            with self._lock:
                closed = self._closed
                if not closed:
                    self._idle.append(reader)
            if closed:
                reader.close()

    def _done(self, asking: asyncio.Future[Any]) -> None:
        error = None if asking.cancelled() else asking.exception()
        trouble = "" if error is None else str(error)
        if trouble and trouble != self._trouble:
            logger.error("consumers cannot be looked up, so they are answered 503: %s", trouble)
        elif self._trouble and not trouble:
            logger.info("consumers can be looked up again")
        self._trouble = trouble

    def close(self) -> None:
        """End the threads; what they have begun comes to its end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()


class _Read(NamedTuple, Generic[T]):
    """Something that was read, or is being read, and when that began."""

    value: T
    generation: int | None
    at: float

    def holds(self, generation: int | None, now: float) -> bool:
        """Return whether it may be believed."""
        return (generation is not None and generation == self.generation) or now - self.at < FRESH


class Remembered(Generic[K, V]):
    """What is known of one kind of thing to look up: of keys, or of names."""

    def __init__(
        self,
        find: Callable[[Reader, K], V | None],
        threads: Threads,
        generation: Callable[[], int | None],
        clock: Callable[[], float],
    ) -> None:
        self._find = find
        self._threads = threads
        self._generation = generation
        self._clock = clock
        self._hits: OrderedDict[K, _Read[V]] = OrderedDict()
        self._misses: OrderedDict[K, _Read[None]] = OrderedDict()
        self._under_way: dict[K, _Read[asyncio.Future[V | None]]] = {}

    def get(self, wanted: K) -> V | Awaitable[V | None] | None:
        """Return what is known of it, or an awaitable that raises LookupFailed where that cannot be found out."""
        generation, now = self._generation(), self._clock()
        known = self._hits.get(wanted)
        if known is not None and known.holds(generation, now):
            self._hits.move_to_end(wanted)
            return known.value
        if known is None:
            missed = self._misses.get(wanted)
            if missed is not None and missed.holds(generation, now):
                return None
        return self._looked_up(wanted, generation, now)

    async def _looked_up(self, wanted: K, generation: int | None, now: float) -> V | None:
        looking = self._under_way.get(wanted)
        if looking is None or not looking.holds(generation, now):
            looking = self._begin(wanted, generation, now)
        try:
            async with asyncio.timeout(DEADLINE):
                return await asyncio.shield(looking.value)  # whoever leaves must not end it for the others
        except TimeoutError:
            raise LookupFailed("looking up a consumer takes too long") from None
        except StoreFailed:
            raise LookupFailed("consumers cannot be looked up") from None

    def _begin(self, wanted: K, generation: int | None, now: float) -> _Read[asyncio.Future[V | None]]:
        asking = self._threads.ask(lambda reader: self._find(reader, wanted), known=wanted in self._hits)
        looking = self._under_way[wanted] = _Read(asking, generation, now)
        asking.add_done_callback(lambda _: self._end(wanted, looking))
        return looking

    def _end(self, wanted: K, looking: _Read[asyncio.Future[V | None]]) -> None:
        if self._under_way.get(wanted) is not looking:
            return  # another has begun after it, and will know better
        del self._under_way[wanted]
        asking = looking.value
        if asking.cancelled() or asking.exception() is not None:
            return
        found = asking.result()
        if found is None:
            self._hits.pop(wanted, None)
            _keep(self._misses, wanted, _Read(None, looking.generation, looking.at))
        else:
            self._misses.pop(wanted, None)
            _keep(self._hits, wanted, _Read(found, looking.generation, looking.at))


def _keep(place: OrderedDict[K, T], wanted: K, read: T) -> None:
    place[wanted] = read
    place.move_to_end(wanted)
    if len(place) > MOST_REMEMBERED:
        place.popitem(last=False)


class StoredConsumers:
    """The consumers of a store, for all configurations of a worker that name it."""

    def __init__(self, store: Store, generation: Callable[[], int | None], clock: Callable[[], float]) -> None:
        """`generation` tells which one of what is in the store this is; None while nobody looks for changes."""
        self._threads = Threads(store)
        self._keys: Remembered[bytes, Credential] = Remembered(_by_key, self._threads, generation, clock)
        self._names: Remembered[str, Consumer] = Remembered(_by_name, self._threads, generation, clock)

    @property
    def decoy(self) -> str:
        """A hash to compare the passwords of unknown users with."""
        return self._threads.decoy or DECOY

    def by_key(self, digest: bytes) -> Credential | Awaitable[Credential | None] | None:
        """Return whose key has this digest."""
        return self._keys.get(digest)

    def by_name(self, name: str) -> Consumer | Awaitable[Consumer | None] | None:
        """Return the consumer of a name."""
        if len(name) > LONGEST_NAME or not name.isprintable():
            return None  # there is none, and it is not worth remembering
        return self._names.get(name)

    def close(self) -> None:
        """Let go of the store."""
        self._threads.close()


def _by_key(reader: Reader, digest: bytes) -> Credential | None:
    return reader.by_key(digest)


def _by_name(reader: Reader, name: str) -> Consumer | None:
    return reader.by_name(name)


class FileFirst:
    """The consumers of a file, and behind them those of a store: one of the file hides the other of its name."""

    __slots__ = ("_file", "_stored")

    def __init__(self, file: Consumers[Any], stored: StoredConsumers) -> None:
        self._file = file
        self._stored = stored

    @property
    def decoy(self) -> str:
        """A hash to compare the passwords of unknown users with."""
        return self._stored.decoy if self._file.decoy is DECOY else self._file.decoy

    def by_key(self, digest: bytes) -> Credential | Awaitable[Credential | None] | None:
        """Return whose key has this digest."""
        of_file = self._file.by_key(digest)
        if of_file is not None:
            return of_file
        stored = self._stored.by_key(digest)
        if stored is None or type(stored) is Credential:
            return self._unless_hidden(stored)
        return self._later(stored)  # type: ignore[arg-type]

    async def _later(self, looking: Awaitable[Credential | None]) -> Credential | None:
        return self._unless_hidden(await looking)

    def _unless_hidden(self, stored: Credential | None) -> Credential | None:
        return None if stored is None or self._file.by_name(stored.consumer.name) is not None else stored

    def by_name(self, name: str) -> Consumer | Awaitable[Consumer | None] | None:
        """Return the consumer of a name."""
        return self._file.by_name(name) or self._stored.by_name(name)
