"""A thread that writes to an environment of LMDB, off the loop: whatever waits at once is one transaction, and one wait
for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import lmdb

from portico.errors import StoreUnavailable
from portico.state.board import WAITS, Counter, Mark
from portico.state.store import WAITING
from portico.state.tidy import PAUSE, Tidier

logger = logging.getLogger("portico.state")

T = TypeVar("T")
Txn: TypeAlias = "lmdb.Transaction[bytes]"
Job: TypeAlias = Callable[[Txn], Any]
"""What is to be done within a transaction; it may be done again where others of its group have failed."""

TIMEOUT: Final = 2.0
"""Seconds that anybody waits for what is to be written."""

TOGETHER: Final = 64
"""Jobs of one transaction, at most: others wait for its lock meanwhile."""

WAITING_BYTES: Final = 64 * 1024 * 1024
"""The most bytes of what waits to be written."""

TRIES: Final = 32
"""How often room is made for what finds none."""

LAST_WAIT: Final = 5.0
"""Seconds that the end waits for what is still to be written."""


class _Asked(NamedTuple):
    job: Job
    size: int
    future: asyncio.Future[Any]


class Writer:
    """The thread of one environment; it starts when there is something to do."""

    def __init__(
        self, name: str, env: lmdb.Environment, mark: Mark, failures: Counter, tidier: Tidier, room: int
    ) -> None:
        """`room` is how many bytes one transaction may write."""
        self._name = name
        self._env = env
        self._mark = mark
        self._failures = failures
        self._tidier = tidier
        self._room = room
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[_Asked] = deque()
        self._bytes = 0
        self._thread: threading.Thread | None = None
        self._closed = False
        self._full = False

    async def do(self, job: Callable[[Txn], T], size: int = 0) -> T:
        """Do something within a transaction, and return what came of it once that is committed.

        `size` is how many bytes it has with it. Raises StoreUnavailable where it has to wait too long, or others do.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._changed:
            if self._closed:
                raise self._failed("the store is closed")
            if len(self._waiting) >= WAITING or self._bytes + size > WAITING_BYTES:
                raise self._failed("too much waits to be written to the store")
            self._waiting.append(_Asked(job, size, future))
            self._bytes += size
            self._begin()
            self._changed.notify_all()
        try:
            async with asyncio.timeout(TIMEOUT):
                return await future
        except TimeoutError:
            raise self._failed(f"the store has not written it within {TIMEOUT:g} s") from None
        except lmdb.Error as error:
            raise self._failed(f"the store could not write it: {error}") from None

    def _failed(self, why: str) -> StoreUnavailable:
        self._failures.add()
        return StoreUnavailable(why)

    def tidy_soon(self) -> None:
        """Have it tidied up now."""
        with self._changed:
            if not self._closed:
                self._full = True
                self._begin()
                self._changed.notify_all()

    def start(self) -> None:
        """Have it tidied up from now on."""
        with self._changed:
            self._begin()

    def close(self) -> bool:
        """Write what is left, and end; False where that has not come to its end in time."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            return True
        thread.join(LAST_WAIT)
        return not thread.is_alive()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        due = 0.0
        while True:
            with self._changed:
                left = due - time.monotonic()
                self._changed.wait_for(lambda: self._waiting or self._closed or self._full, max(0.0, left))
                group = self._group()
                if self._closed and not group:
                    return
                full, self._full = self._full, False
            if group:
                _tell(group, self._write(group))
            if full or self._tidier.full or time.monotonic() >= due:
                self._tidy_up()
                due = time.monotonic() + PAUSE

    def _group(self) -> list[_Asked]:
        """Take what is to be written together."""
        group: list[_Asked] = []
        size = 0
        while self._waiting and len(group) < TOGETHER:
            size += self._waiting[0].size
            if group and size > self._room:
                break
            group.append(self._waiting.popleft())
            self._bytes -= group[-1].size
        return group

    def _tidy_up(self) -> None:
        """Tidy, unless there is something to write, which goes first."""
        try:
            while self._tidier.step() and not self._waiting and not self._closed:
                pass
        except Exception:  # the thread's boundary: it has to be there for what is to be written
            logger.exception("the store could not be tidied up")

    def _write(self, group: Sequence[_Asked]) -> list[Any]:
        """Return what came of each job, or the error that kept it from being done."""
        try:
            if self._tidier.crowded:
                self._tidier.make_room()
            return self._together(group)
        except Exception as error:  # noqa: BLE001 - it is told to whoever has asked
            if len(group) == 1:
                return [self._write_with_room(group, error) if isinstance(error, lmdb.MapFullError) else error]
        return [each for asked in group for each in self._write([asked])]  # one of them must not fail the others

    def _write_with_room(self, group: Sequence[_Asked], error: Exception) -> Any:
        """Make room until it is enough, and write; return the last error where it never is."""
        for _ in range(TRIES):
            if not isinstance(error, lmdb.MapFullError):
                break
            try:
                self._tidier.make_room()
                return self._together(group)[0]
            except Exception as another:  # noqa: BLE001 - as above
                error = another
        return error

    def _together(self, group: Sequence[_Asked]) -> list[Any]:
        self._mark.write(time.monotonic_ns() | WAITS)
        try:
            txn = self._env.begin(write=True)
            self._mark.write(time.monotonic_ns() & ~WAITS)
            try:
                results = [asked.job(txn) for asked in group]
                txn.commit()
            except BaseException:
                txn.abort()
                raise
        finally:
            self._mark.write(0)
        return results


def _tell(group: Sequence[_Asked], results: Sequence[Any]) -> None:
    """Tell those who wait, all of one loop at once."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for asked, result in zip(group, results, strict=True):
        loops.setdefault(asked.future.get_loop(), []).append((asked.future, result))
    for loop, told in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_settle, told)


def _settle(told: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in told:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
