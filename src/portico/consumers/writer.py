"""Writes an SQLite file of consumers, for the commands. Each change is one transaction, or in `together` many are.

Workers go on reading meanwhile, and the agent sees the change within a third of a second.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Self

import orjson

from portico.config.consumers import NEVER, Consumer
from portico.consumers.credentials import binding_of, kept
from portico.consumers.sqlite import RAISED, WRITE_PATIENCE, consumer_of, expiry_of, failure, open_database, profile_of
from portico.errors import PorticoError

_ID: Final = 6
"""Bytes of what is kept of a key that name it to people."""


class NotWritten(PorticoError):
    """Nothing was changed; the message says why."""


class KeptKey(NamedTuple):
    """A key as the database has it."""

    digest: bytes
    """The keyed digest."""
    expires: float = NEVER
    added: float = 0.0

    @property
    def id(self) -> str:
        """What names it to people, and tells nothing of it."""
        return self.digest[:_ID].hex()


class Kept(NamedTuple):
    """A consumer as the database has it."""

    consumer: Consumer
    """Without its keys."""
    keys: Sequence[KeptKey]


class Writer:
    """A database that is open for changes; `with` closes it. Raises StoreFailed where it cannot be used."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection, self._key, _ = open_database(path, "rw", WRITE_PATIENCE)
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._together = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What was written goes into the file itself, so that a copy of it is whole. Where a reader is in the way, a
        # later one does it.
        with contextlib.suppress(*RAISED):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Have all changes within the block, or where it raises none of them."""
        if self._together:
            yield
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._together = True
            try:
                yield
            except BaseException:
                if self._connection.in_transaction:  # where the disk is full, SQLite has done so by itself
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except RAISED as error:
            raise failure(self._path, error) from None
        finally:
            self._together = False

    @property
    def binding(self) -> bytes:
        """What tells the key of this database from others."""
        return binding_of(self._key)

    def has(self, name: str) -> bool:
        """Return whether there is a consumer of this name."""
        return self._connection.execute("SELECT 1 FROM consumers WHERE name = ?", (name,)).fetchone() is not None

    def kept(self, digest: bytes, expires: float = NEVER) -> KeptKey:
        """Return what is kept of a key with this digest."""
        return KeptKey(kept(self._key, digest), expires, time.time())

    def add(self, consumer: Consumer, keys: Sequence[KeptKey] = ()) -> None:
        """Add a consumer with its keys, and such as are kept already; raise NotWritten where there is one of its name,
        or where a key is another's.
        """
        with self.together():
            row = (consumer.name, consumer.password, _profile(consumer))
            try:
                added = self._connection.execute(
                    "INSERT INTO consumers (name, password, profile) VALUES (?, ?, ?)", row
                ).lastrowid
            except sqlite3.IntegrityError:
                told = f"there is a consumer {consumer.name} already; change that one, or import with --replace"
                raise NotWritten(told) from None
            assert added is not None
            for key in (*(self.kept(*each) for each in consumer.keys), *keys):
                self._add_key(consumer.name, added, key)

    def _add_key(self, name: str, number: int, key: KeptKey) -> None:
        row = (key.digest, number, None if key.expires == NEVER else key.expires, key.added)
        try:
            self._connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise NotWritten(f"a key of {name} is there already; give each a key of its own") from None

    def change(self, consumer: Consumer) -> None:
        """Write anew what a consumer of that name is; its keys stay. Raises NotWritten where there is none."""
        with self.together():
            row = (consumer.password, _profile(consumer), consumer.name)
            done = self._connection.execute("UPDATE consumers SET password = ?, profile = ? WHERE name = ?", row)
            _must_have_found(done, consumer.name)

    def remove(self, name: str) -> None:
        """Remove a consumer and its keys; raise NotWritten where there is none."""
        with self.together():
            _must_have_found(self._connection.execute("DELETE FROM consumers WHERE name = ?", (name,)), name)

    def add_key(self, name: str, key: KeptKey) -> None:
        """Give a consumer one more key; raise NotWritten where there is no such consumer, or the key is there."""
        with self.together():
            self._add_key(name, self._number(name), key)

    def remove_key(self, name: str, id_: str) -> None:
        """Take a key from a consumer; raise NotWritten where it has none of this id."""
        with self.together():
            number = self._number(name)
            found = [key for key in self._keys(number) if key.id == id_]
            if not found:
                raise NotWritten(f"{name} has no key {id_}; portico consumer show {name} has the ids")
            self._connection.executemany("DELETE FROM keys WHERE digest = ?", [(key.digest,) for key in found])

    def get(self, name: str) -> Kept:
        """Return a consumer; raise NotWritten where there is none."""
        try:
            number = self._number(name)
            row = self._connection.execute("SELECT name, password, profile FROM consumers WHERE id = ?", (number,))
            return Kept(consumer_of(*row.fetchone()), list(self._keys(number)))
        except RAISED as error:
            raise failure(self._path, error) from None

    def all(self) -> Iterator[Kept]:
        """Yield all consumers by name, as they were when that began."""
        try:
            rows: Any = self._connection.execute(
                "SELECT name, password, profile, digest, expires, added FROM consumers"
                " LEFT JOIN keys ON keys.consumer = consumers.id ORDER BY name, added, digest"
            )
            last: Kept | None = None
            for name, password, profile, *key in rows:
                if last is None or last.consumer.name != name:
                    if last is not None:
                        yield last
                    last = Kept(consumer_of(name, password, profile), [])
                if key[0] is not None:
                    last = last._replace(keys=[*last.keys, _key_of(*key)])
            if last is not None:
                yield last
        except RAISED as error:
            raise failure(self._path, error) from None

    def __len__(self) -> int:
        (count,) = self._connection.execute("SELECT count(*) FROM consumers").fetchone()
        assert isinstance(count, int)
        return count

    def _number(self, name: str) -> int:
        row = self._connection.execute("SELECT id FROM consumers WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise _unknown(name)
        number = row[0]
        assert isinstance(number, int)
        return number

    def _keys(self, number: int) -> Iterator[KeptKey]:
        query = "SELECT digest, expires, added FROM keys WHERE consumer = ? ORDER BY added, digest"
        return (_key_of(*row) for row in self._connection.execute(query, (number,)))


def _profile(consumer: Consumer) -> bytes:
    try:
        return orjson.dumps(profile_of(consumer))
    except TypeError as error:
        raise NotWritten(f"what is said of {consumer.name} cannot be kept: {error}") from None


def _key_of(digest: bytes, expires: float | None, added: float) -> KeptKey:
    return KeptKey(digest, expiry_of(expires), added)


def _must_have_found(done: sqlite3.Cursor, name: str) -> None:
    if not done.rowcount:
        raise _unknown(name)


def _unknown(name: str) -> NotWritten:
    return NotWritten(f"there is no consumer {name}; portico consumer list has all")
