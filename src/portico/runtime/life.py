"""What lives as long as a runtime: work that belongs to no request, and the hosts that it asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from portico.runtime.web import Web

logger = logging.getLogger("portico.runtime")


class Life:
    """Work in the worker's group that ends with one runtime, or has to come to its end before that does."""

    def __init__(self, tasks: asyncio.TaskGroup, web: Web) -> None:
        self.web = web
        self._tasks = tasks
        self._running: set[asyncio.Task[None]] | None = set()
        """None once it is over."""
        self._awaited: set[asyncio.Task[None]] = set()
        """Those of them that are to come to their end."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do some work; what it raises is logged, and ends nothing else."""
        self._begin(work, name)

    def see_through(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do as `spawn` does; `settled` waits for it."""
        task = self._begin(work, name)
        if task is not None:
            self._awaited.add(task)
            task.add_done_callback(self._awaited.discard)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
        if self._running is None:
            work.close()
            return None
        task = self._tasks.create_task(_safely(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: work.close())  # where it was ended before it had begun
        return task

    async def settled(self) -> None:
        """Wait until what is to come to its end has."""
        while self._awaited:
            await asyncio.wait(self._awaited)

    def stop(self) -> None:
        """End what was begun so far, which for a look at what was compiled has not even asked anybody."""
        for task in tuple(self._running or ()):
            task.cancel()

    def close(self) -> None:
        """End it all."""
        running, self._running = self._running, None
        for task in running or ():
            task.cancel()
        self.web.close()


async def _safely(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except Exception:  # a policy's mistake must not end the worker
        logger.exception("%s: the work has failed", name)
