"""Threads for what would hold up the loop: a bounded number of them, and of calls that wait for one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class TooManyCalls(Exception):
    """All threads are busy, and as many calls wait as may; or there is none, and the machine has no more."""


class Threads(Executor):
    """Some threads, which do not keep the process from its end, however long what they have begun may take."""

    def __init__(self, most: int, waiting: int, name: str) -> None:
        self._most = most
        self._name = name
        self._room = threading.Semaphore(most + waiting)
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._running = 0
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in a thread; raise TooManyCalls where too many wait for that."""
        if self._closed or not self._room.acquire(blocking=False):
            raise TooManyCalls
        if self._running < self._most:
            self._begin()
        if not self._running:
            self._room.release()
            raise TooManyCalls
        future: Future[T] = Future()
        future.add_done_callback(lambda _: self._room.release())
        self._work.put((future, lambda: fn(*args, **kwargs)))
        return future

    def _begin(self) -> None:
        """Begin one more, if the machine has one: otherwise those that there are have to do."""
        thread = threading.Thread(target=self._run, name=f"{self._name}-{self._running + 1}", daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self._running += 1

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, call = work
            if not future.set_running_or_notify_cancel():
                continue  # whoever wanted it has left
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is for whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)
            del work, future, call

    def close(self) -> None:
        """End the threads once they have done what they were given."""
        self._closed = True
        for _ in range(self._running):
            self._work.put(None)
