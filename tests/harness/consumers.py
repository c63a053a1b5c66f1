"""Databases of consumers, and ways to look into them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from portico.config.consumers import Consumer, Credential, KeyRecord, digest_of
from portico.consumers.sqlite import SqliteReader, SqliteStore, create
from portico.consumers.writer import Writer

T = TypeVar("T")

ADA, BOB = "ada-has-a-long-key", "bob-has-a-long-key"
HASH = "$argon2id$v=19$m=64,t=1,p=1$c29tZSBmcmVzaCBzYWx0$DFYKyX5mrcvWqWAydvHb1kD3IaZ0vGYdA4mVbXo0tA0"


def consumer(name: str, *keys: str, **said: object) -> Consumer:
    return Consumer(name, tuple(KeyRecord(digest_of(key.encode())) for key in keys), **said)  # type: ignore[arg-type]


def database(folder: Path, *consumers: Consumer, name: str = "consumers.db") -> str:
    """Make a database with these in it, and return its path."""
    path = str(folder / name)
    create(path)
    with Writer(path) as writer, writer.together():
        for each in consumers:
            writer.add(each)
    return path


def key_of(key: str) -> bytes:
    return digest_of(key.encode())


class WatchedStore(SqliteStore):
    """An SQLite file whose readers count what they are asked, and wait where `gate` is closed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.asked: list[bytes | str] = []
        self.threads: set[str] = set()
        self.open_readers = 0
        self.gate = threading.Event()
        self.gate.set()
        self.answered = 0
        self.held: list[threading.Event] = []
        """What those who were answered next wait for before they tell it."""

    def reader(self) -> SqliteReader:
        store = self
        store.open_readers += 1

        class Reader(SqliteReader):
            def by_key(self, digest: bytes) -> Credential | None:
                return store.note(digest, super().by_key)

            def by_name(self, name: str) -> Consumer | None:
                return store.note(name, super().by_name)

            def close(self) -> None:
                super().close()
                store.closed += 1

        return Reader(self._path)

    closed = 0

    def note(self, wanted: T, find: Callable[[T], object]) -> object:  # type: ignore[misc]
        self.asked.append(wanted)  # type: ignore[arg-type]
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(30)
        answer = find(wanted)
        self.answered += 1
        if self.held:
            assert self.held.pop().wait(30)
        return answer
