"""A service's database: one SQLite file that all instances of the service open."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

BUSY_TIMEOUT = 5.0


class Database:
    """One connection for all threads of an instance, behind a lock; WAL and transactions keep instances apart."""

    def __init__(self, schema: str, seed: Mapping[str, Sequence[tuple[Any, ...]]]) -> None:
        self._schema = schema
        self._seed = seed
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection

    @contextmanager
    def opened(self, path: Path) -> Iterator[None]:
        """Open the file, and make and fill the tables if this instance is the first."""
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        with closing(connection):
            connection.row_factory = sqlite3.Row
            self._connection = connection
            # The change to WAL does not honour the busy timeout, so instances that start together take turns.
            with path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                if not self.row("PRAGMA user_version")["user_version"]:
                    self._fill()
            yield

    def _fill(self) -> None:
        with self.transaction():
            for statement in self._schema.split(";"):
                self.write(statement)
            for statement, rows in self._seed.items():
                self._connection.executemany(statement, rows)
            self.write("PRAGMA user_version = 1")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the write lock from the first statement on: a read that turns into a write could not wait for it."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Return what a query finds."""
        with self._lock:
            return [dict(row) for row in self._connection.execute(sql, values)]

    def row(self, sql: str, *values: Any) -> dict[str, Any]:
        """Return the first row that a query finds, or an empty one."""
        return next(iter(self.rows(sql, *values)), {})

    def write(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Carry out a statement; the cursor knows `lastrowid` and `rowcount`."""
        with self._lock:
            return self._connection.execute(sql, values)
