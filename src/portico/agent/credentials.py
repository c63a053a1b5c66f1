"""Looks for changes of the database of consumers, once for the machine, and tells the workers by the board."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from portico.consumers.generation import INTERVAL, announce
from portico.consumers.sqlite import SqliteStore
from portico.consumers.store import Store, StoreFailed
from portico.state.board import Board

logger = logging.getLogger("portico.agent")

LONGEST: Final = 5.0
"""Seconds after which a look that is not over is told of."""


class Credentials:
    """The looks at the database that stands; none where there is none."""

    def __init__(self, board: Board, tasks: asyncio.TaskGroup, store_at: Callable[[str], Store] = SqliteStore) -> None:
        self._board = board
        self._tasks = tasks
        self._store_at = store_at
        self._looking: asyncio.Task[None] | None = None
        self.file = ""
        """The database; empty where there is none."""
        self.trouble = ""
        """Why it cannot be looked at; empty where it can."""

    def follow(self, file: str) -> None:
        """Look at this database from now on; at none where it is empty."""
        if file == self.file:
            return
        self.close()
        self.file = file
        if file:
            self._looking = self._tasks.create_task(self._look(file), name="consumers")

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self.file = self.trouble = ""

    async def _look(self, file: str) -> None:
        """Look again and again, in a thread of its own: one that hangs keeps nothing else from going on."""
        watch = self._store_at(file).watch()
        thread = ThreadPoolExecutor(1, thread_name_prefix="consumers")
        first = True
        try:
            while True:
                began = time.monotonic_ns()
                looking = asyncio.get_running_loop().run_in_executor(thread, watch.changed)
                try:
                    while not (await asyncio.wait([looking], timeout=LONGEST))[0]:
                        self._tell(f"a look at {file} takes more than {LONGEST:g} s")
                    changed = looking.result() or first
                except StoreFailed as failed:
                    self._tell(str(failed))
                else:
                    first = False
                    self._tell("")
                    announce(self._board, file, began, changed=changed)
                await asyncio.sleep(INTERVAL)
        finally:
            thread.submit(watch.close)
            thread.shutdown(wait=False)

    def _tell(self, trouble: str) -> None:
        """Note how it went; the log has each change."""
        if trouble and trouble != self.trouble:
            logger.error("changes of consumers are not seen, so workers look all of them up: %s", trouble)
        elif self.trouble and not trouble:
            logger.info("changes of consumers are seen again")
        self.trouble = trouble
