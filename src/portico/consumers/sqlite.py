"""Consumers in an SQLite file, which any number of processes of one machine read while another one writes (WAL).

It has an application id, by which it is known, the version of its tables, and what tells its key from others. The file
and its key are looked at before each use: where another one has taken its place, that one is opened.
"""

from __future__ import annotations

import hmac
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from portico.config.consumers import LAST_MOMENT, NEVER, Consumer, Credential
from portico.consumers.credentials import binding_of, is_exposed, kept, key_file, new_key, read_key, write_key
from portico.consumers.store import StoreFailed

APPLICATION: Final = 0x506F7274
"""What SQLite calls the application id of a database: whose it is."""
VERSION: Final = 1
"""The version of the tables below."""
READ_PATIENCE: Final = 0.5
"""Seconds that a look-up waits for a lock that somebody has on the whole file, which the commands never take."""
WRITE_PATIENCE: Final = 5.0
"""Seconds that a command waits for another one that writes."""
TABLES: Final = f"""
CREATE TABLE binding (value BLOB NOT NULL);
CREATE TABLE consumers (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, password TEXT NOT NULL, profile BLOB NOT NULL
);
CREATE INDEX with_password ON consumers (id) WHERE password != '';
CREATE TABLE keys (
    digest BLOB PRIMARY KEY, consumer INTEGER NOT NULL REFERENCES consumers ON DELETE CASCADE,
    expires REAL, added REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX keys_of ON keys (consumer);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
SETS: Final = ("roles", "scopes", "permissions", "groups")
"""What a profile has, beside `metadata`."""
_OF_KEY: Final = """
SELECT name, password, profile, expires FROM keys JOIN consumers ON consumers.id = keys.consumer WHERE digest = ?
"""
_OF_NAME: Final = "SELECT name, password, profile FROM consumers WHERE name = ?"
_A_PASSWORD: Final = "SELECT password FROM consumers WHERE password != '' ORDER BY id LIMIT 1"  # noqa: S105 - no password

RAISED: Final = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises; the latter is of a message of its own, which repeats what stands in a damaged file."""

_File = tuple[int, int, int, int]
_Identity = tuple[_File, _File]


class Opened(NamedTuple):
    """A database that is open, and what it was when that was done."""

    connection: sqlite3.Connection
    key: bytes
    identity: _Identity


def create(path: str, key_of: str = "") -> None:
    """Make an empty database and its key, which only their owner may read; raise StoreFailed.

    The key is a new one, or that in the file `key_of`.
    """
    secret = key_file(path)
    key = read_key(key_of) if key_of else new_key()
    made: list[str] = []
    try:
        write_key(secret, key)
        made.append(secret)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        made.append(path)
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN; {TABLES} COMMIT;")
            connection.execute("INSERT INTO binding VALUES (?)", (binding_of(key),))
        finally:
            connection.close()
    except (OSError, *RAISED) as error:
        for each in made:
            Path(each).unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise StoreFailed(f"{error.filename} is there already", "take another name, or remove it") from None
        raise failure(path, error) from None


def open_database(path: str, mode: str, patience: float) -> Opened:
    """Open a database, in mode `ro` or `rw`, and make sure that it is one of ours; raise StoreFailed."""
    identity = identity_of(path)
    key = read_key(key_file(path))
    try:
        uri = f"{Path(path).absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None, check_same_thread=False)
    except RAISED as error:
        raise failure(path, error) from None
    try:
        _check(path, connection, key)
    except RAISED as error:
        connection.close()
        raise failure(path, error) from None
    except BaseException:
        connection.close()
        raise
    return Opened(connection, key, identity)


def _check(path: str, connection: sqlite3.Connection, key: bytes) -> None:
    if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION,):
        raise StoreFailed(f"{path} is no database of consumers", "portico consumer init makes one")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        hint = "it was made by a newer Portico; install that" if version > VERSION else "make another, and import it"
        raise StoreFailed(f"{path} is of version {version}, and this Portico knows version {VERSION}", hint)
    (binding,) = connection.execute("SELECT value FROM binding").fetchone() or (b"",)
    if not isinstance(binding, bytes) or not hmac.compare_digest(binding, binding_of(key)):
        hint = "put the file there that was made with the database"
        raise StoreFailed(f"{key_file(path)} is not the key of {path}", hint)


def identity_of(path: str) -> _Identity:
    """Return what tells a database and its key from others of the same names; raise StoreFailed.

    Whoever copies another one over it leaves the file the same one, and SQLite tells nobody who has it open. So each
    time that what commands have written goes into the file itself, it counts as another one: that is seldom.
    """
    try:
        return _file(path), _file(key_file(path))
    except FileNotFoundError as error:
        if error.filename == path:
            raise StoreFailed(f"there is no database {path}", f"portico consumer init {path} makes one") from None
        hint = "it was made with the database, and belongs to its backup"
        raise StoreFailed(f"the key of the database, {error.filename}, is missing", hint) from None
    except OSError as error:
        raise failure(path, error) from None


def _file(path: str) -> _File:
    found = os.stat(path)  # noqa: PTH116 - plain, and often
    if not stat.S_ISREG(found.st_mode):
        raise StoreFailed(f"{path} is not a regular file")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def failure(path: str, error: Exception) -> StoreFailed:
    """Return what an error of SQLite, or of the system, means."""
    if isinstance(error, OSError):
        return StoreFailed(f"{path} cannot be used: {error.strerror or error}")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreFailed(f"{path} is locked by another process", "end it, or try again")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or isinstance(error, UnicodeDecodeError):
        return StoreFailed(f"{path} is damaged, or no SQLite database", "put a backup in its place")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        hint = "its user needs to read and write the file, and the folder that it is in"
        return StoreFailed(f"{path} cannot be opened: {error}", hint)
    return StoreFailed(f"{path} cannot be used: {error}")


class _Use:
    """An open database, opened again where another has taken its place, or where it has failed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._opened: Opened | None = None

    def _open(self) -> tuple[Opened, bool]:
        """Return it, and whether it was opened just now."""
        opened = self._opened
        if opened is not None:
            if identity_of(self._path) == opened.identity:
                return opened, False
            self.close()
        self._opened = opened = open_database(self._path, "ro", READ_PATIENCE)
        return opened, True

    def close(self) -> None:
        """Let go of it."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.connection.close()


class SqliteReader(_Use):
    """Looks consumers up."""

    decoy = ""

    def by_key(self, digest: bytes) -> Credential | None:
        """Return whose key has this digest."""
        row = self._row(_OF_KEY, digest)
        if row is None:
            return None
        *consumer, expires = row
        return Credential(consumer_of(*consumer), expiry_of(expires))

    def by_name(self, name: str) -> Consumer | None:
        """Return the consumer of a name."""
        row = self._row(_OF_NAME, name)
        return None if row is None else consumer_of(*row)

    def _row(self, query: str, wanted: bytes | str) -> Any:
        try:
            opened, new = self._open()
            if new:
                (decoy,) = opened.connection.execute(_A_PASSWORD).fetchone() or ("",)
                self.decoy = decoy if isinstance(decoy, str) else ""
            if isinstance(wanted, bytes):
                wanted = kept(opened.key, wanted)
            return opened.connection.execute(query, (wanted,)).fetchone()
        except RAISED as error:
            self.close()
            raise failure(self._path, error) from None


def consumer_of(name: str, password: str, profile: bytes) -> Consumer:
    """Return a consumer as its row has it, without its keys. A column of SQLite takes values of any type, and somebody
    may have written to it by other means."""
    try:
        said = orjson.loads(profile)
        _texts([name, password])
        roles, scopes, permissions, groups = (frozenset(_texts(said.get(key, []))) for key in SETS)
        metadata = dict(said.get("metadata", {}).items())
        return Consumer(name, (), password, roles, scopes, permissions, groups, metadata)
    except (ValueError, TypeError, AttributeError):
        hint = "portico consumer remove takes it away"
        raise StoreFailed(f"what the database has of consumer {name!r} makes no sense", hint) from None


def expiry_of(expires: object) -> float:
    """Return when a key expires, as its column has it."""
    if expires is None:
        return NEVER
    if not isinstance(expires, float) or not 0 <= expires <= LAST_MOMENT:
        hint = "write seconds since 1970, or NULL"
        raise StoreFailed(f"a key in the database expires at {expires!r}, which is no time", hint)
    return expires


def _texts(words: object) -> list[str]:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError
    return words


def profile_of(consumer: Consumer) -> dict[str, object]:
    """Return what is said of a consumer beside what it proves itself by; what is empty is left out."""
    said: dict[str, object] = {name: sorted(getattr(consumer, name)) for name in SETS if getattr(consumer, name)}
    return said | ({"metadata": consumer.metadata} if consumer.metadata else {})


class SqliteWatch(_Use):
    """Tells that somebody has written."""

    _version = -1

    def changed(self) -> bool:
        """Return whether anything was committed since the last call."""
        try:
            opened, new = self._open()
            before = self._version
            (self._version,) = opened.connection.execute("PRAGMA data_version").fetchone()
        except RAISED as error:
            self.close()
            raise failure(self._path, error) from None
        return new or self._version != before


class SqliteStore:
    """An SQLite file with consumers."""

    def __init__(self, path: str) -> None:
        self._path = path

    def reader(self) -> SqliteReader:
        """Return a reader."""
        return SqliteReader(self._path)

    def watch(self) -> SqliteWatch:
        """Return a watch."""
        return SqliteWatch(self._path)


def remarks_on(path: str) -> list[str]:
    """Return what is odd about a database that can be used; raise StoreFailed where it cannot."""
    open_database(path, "ro", READ_PATIENCE).connection.close()
    exposed = [each for each in (path, key_file(path)) if is_exposed(each)]
    return [f"others than its owner may read {each}" for each in exposed]
