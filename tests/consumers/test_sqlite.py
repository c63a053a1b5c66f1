"""An SQLite file of consumers: what is in it, what is not, and what is said where it cannot be used."""

from __future__ import annotations

import random
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from portico.config.consumers import NEVER, Consumer, KeyRecord
from portico.consumers.credentials import key_file, new_api_key, read_key
from portico.consumers.sqlite import SqliteReader, SqliteWatch, create, remarks_on
from portico.consumers.store import StoreFailed, number_of
from portico.consumers.writer import NotWritten, Writer
from tests.harness.consumers import ADA, BOB, HASH, consumer, database, key_of


def test_what_is_written_is_found(tmp_path: Path) -> None:
    said = {name: frozenset((f"{name}-1", f"{name}-2")) for name in ("roles", "scopes", "permissions", "groups")}
    ada = Consumer(
        "ada", (KeyRecord(key_of(ADA), 5.0), KeyRecord(key_of(BOB))), HASH, **said, metadata={"n": [1, None]}
    )
    path = database(tmp_path, ada, Consumer("zoë"))
    reader = SqliteReader(path)
    for key, expires in ((ADA, 5.0), (BOB, NEVER)):
        found = reader.by_key(key_of(key))
        assert found is not None
        assert (found.consumer, found.expires) == (ada._replace(keys=()), expires)
    assert reader.by_key(key_of("x")) is None
    assert reader.by_name("ada") == ada._replace(keys=())
    assert reader.by_name("zoë") == Consumer("zoë")
    assert reader.by_name("Ada") is None
    assert reader.decoy == HASH
    reader.close()


def test_no_key_is_in_any_of_its_files_nor_its_hash(tmp_path: Path) -> None:
    one = database(tmp_path, consumer("ada", ADA))
    with sqlite3.connect(one) as holder:  # so that what is written stays in the log
        holder.execute("SELECT * FROM keys").fetchone()
        with Writer(one) as writer:
            writer.add(consumer("bob", BOB))
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    holder.close()
    for key in (ADA, BOB):
        assert key.encode() not in content
        assert key_of(key) not in content
    other = database(tmp_path, consumer("ada", ADA), name="other.db")
    with Writer(one) as writer, Writer(other) as second:
        assert writer.get("ada").keys[0].digest != second.get("ada").keys[0].digest


def test_its_files_are_its_owners(tmp_path: Path) -> None:
    path = database(tmp_path, consumer("ada", ADA))
    with sqlite3.connect(path) as holder:
        holder.execute("SELECT * FROM keys").fetchone()
        assert len(list(tmp_path.iterdir())) == 4
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    holder.close()
    assert remarks_on(path) == []
    for file in (path, key_file(path)):
        Path(file).chmod(0o640)
    assert remarks_on(path) == [f"others than its owner may read {file}" for file in (path, key_file(path))]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = database(tmp_path, consumer("ada", ADA))
    key = read_key(key_file(path))
    with pytest.raises(StoreFailed, match=r"consumers\.db\.key is there already"):
        create(path)
    Path(key_file(path)).rename(tmp_path / "key")
    with pytest.raises(StoreFailed, match=r"consumers\.db is there already"):
        create(path)
    assert not Path(key_file(path)).exists()
    create(str(tmp_path / "second.db"), str(tmp_path / "key"))
    assert read_key(str(tmp_path / "second.db.key")) == key
    with pytest.raises(StoreFailed, match="No such file"):
        create(str(tmp_path / "nowhere" / "consumers.db"))


def missing(path: Path) -> None:
    path.unlink()


def without_key(path: Path) -> None:
    Path(key_file(str(path))).unlink()


def another_key(path: Path) -> None:
    Path(key_file(str(path))).write_text("ab" * 32)


def no_key(path: Path) -> None:
    Path(key_file(str(path))).write_bytes(b"\xff" * 64)


def newer(path: Path) -> None:
    statement(path, "PRAGMA user_version = 2")


def another_application(path: Path) -> None:
    statement(path, "PRAGMA application_id = 7")


def text(path: Path) -> None:
    path.write_text("consumers: {}\n" * 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    path.write_bytes(content)


def without_binding(path: Path) -> None:
    statement(path, "DROP TABLE binding")
    statement(path, "CREATE TABLE binding (value BLOB)")
    statement(path, "INSERT INTO binding VALUES (NULL)")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def statement(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(sql)
    connection.commit()
    connection.close()


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (missing, r"there is no database \S+consumers\.db; portico consumer init"),
    (without_key, r"the key of the database, \S+consumers\.db\.key, is missing"),
    (another_key, r"consumers\.db\.key is not the key of \S+consumers\.db"),
    (no_key, r"consumers\.db\.key is not the key of a database"),
    (newer, "is of version 2, and this Portico knows version 1; it was made by a newer Portico"),
    (another_application, "is no database of consumers"),
    (text, "is damaged, or no SQLite database"),
    (empty, "is no database of consumers"),
    (damaged, "is damaged, or no SQLite database"),
    (without_binding, r"consumers\.db\.key is not the key of \S+consumers\.db"),
    (a_folder, r"consumers\.db is not a regular file"),
]


@pytest.mark.parametrize(("harm", "message"), BROKEN, ids=lambda each: getattr(each, "__name__", ""))
def test_what_cannot_be_used_is_told(harm: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = database(tmp_path, consumer("ada", ADA))
    reader, watch = SqliteReader(path), SqliteWatch(path)
    harm(Path(path))
    for use in (lambda: reader.by_key(key_of(ADA)), watch.changed, lambda: remarks_on(path), lambda: Writer(path)):
        with pytest.raises(StoreFailed, match=message):
            use()


def test_no_damage_raises_anything_else(tmp_path: Path) -> None:
    path = Path(database(tmp_path, consumer("ada", ADA, password=HASH), *(consumer(f"u{n}") for n in range(50))))
    whole, dice = path.read_bytes(), random.Random(7)
    spoilt = [whole[: dice.randrange(len(whole))] for _ in range(40)]
    for number in range(200):
        at, content = dice.randrange(4096 if number % 2 else len(whole)), bytearray(whole)  # the schema is in the first
        content[at : at + 16] = dice.randbytes(16)
        spoilt.append(bytes(content[: len(whole)]))
    failed = 0
    for content in (*spoilt, whole):
        path.write_bytes(content)
        reader, watch = SqliteReader(str(path)), SqliteWatch(str(path))
        for use in (lambda: reader.by_key(key_of(ADA)), lambda: reader.by_name("ada"), watch.changed):  # noqa: B023
            try:
                use()
            except StoreFailed:
                failed += 1
        assert isinstance(reader.decoy, str)
        reader.close()
        watch.close()
    assert failed > 100
    assert reader.decoy == HASH


def test_what_somebody_else_has_locked_is_told_and_the_next_one_tries_again(tmp_path: Path) -> None:
    path = database(tmp_path, consumer("ada", ADA))
    locking = sqlite3.connect(path, isolation_level=None)
    locking.execute("PRAGMA locking_mode = EXCLUSIVE")
    locking.execute("UPDATE consumers SET password = ''")
    reader, watch = SqliteReader(path), SqliteWatch(path)
    for use in (lambda: reader.by_key(key_of(ADA)), watch.changed):
        with pytest.raises(StoreFailed, match="is locked by another process"):
            use()
    locking.close()
    assert reader.by_key(key_of(ADA)) is not None
    assert watch.changed()
    reader.close()
    watch.close()


def test_who_reads_waits_for_nobody_who_writes(tmp_path: Path) -> None:
    path = database(tmp_path, consumer("ada", ADA))
    reader = SqliteReader(path)
    with Writer(path) as writer, writer.together():
        writer.remove("ada")
        assert reader.by_key(key_of(ADA)) is not None
    assert reader.by_key(key_of(ADA)) is None
    reader.close()


def test_what_makes_no_sense_is_told_without_showing_it(tmp_path: Path) -> None:
    path = database(tmp_path, consumer("ada", ADA))
    told = "what the database has of consumer 'ada' makes no sense"
    for expires, moment in (("'2027-01-31'", "'2027-01-31'"), ("1e300", r"1e\+300"), ("-1", "-1.0")):
        statement(Path(path), f"UPDATE keys SET expires = {expires}")
        with Writer(path) as writer:
            for look in (lambda: SqliteReader(path).by_key(key_of(ADA)), lambda: writer.get("ada")):
                with pytest.raises(StoreFailed, match=f"expires at {moment}, which is no time; write seconds since"):
                    look()
    assert SqliteReader(path).by_name("ada") == Consumer("ada")
    for nonsense in ("x'7b'", "'[]'", *(f"'{{{said}}}'" for said in ('"roles": 7', '"roles": "ab"', '"groups": [1]'))):
        statement(Path(path), f"UPDATE consumers SET profile = {nonsense}")
        with pytest.raises(StoreFailed, match=told):
            SqliteReader(path).by_name("ada")
    for change in ("profile = '{\"metadata\": [1]}'", "profile = '{}', password = x'00'"):
        statement(Path(path), f"UPDATE consumers SET {change}")
        with pytest.raises(StoreFailed, match=told):
            SqliteReader(path).by_name("ada")


def test_changes_are_seen_and_nothing_else(tmp_path: Path) -> None:
    path = database(tmp_path)
    watch = SqliteWatch(path)
    assert [watch.changed() for _ in range(3)] == [True, False, False]
    with Writer(path) as writer:
        writer.add(consumer("ada", ADA))
        assert [watch.changed() for _ in range(2)] == [True, False]
        with pytest.raises(NotWritten):
            writer.add(consumer("ada"))
        assert not watch.changed()
        writer.all()
        SqliteReader(path).by_key(key_of(ADA))
        assert not watch.changed()
    other = database(tmp_path, name="other.db")
    Path(key_file(other)).replace(key_file(path))
    Path(other).replace(path)
    assert watch.changed()
    assert not watch.changed()
    Path(f"{path}.copy").write_bytes(Path(path).read_bytes())
    Path(f"{path}.copy").replace(path)
    assert watch.changed()  # who knows what it is a copy of
    Path(path).rename(f"{path}.away")
    with pytest.raises(StoreFailed):
        watch.changed()
    Path(f"{path}.away").rename(path)
    with Writer(path) as writer:
        writer.add(consumer("bob", BOB))
    assert watch.changed()
    watch.close()


def test_another_that_is_copied_over_it_is_read_and_seen(tmp_path: Path) -> None:
    path = database(tmp_path, consumer("bob", BOB))
    backup = Path(path).read_bytes()
    with Writer(path) as writer:
        writer.add(consumer("ada", ADA))
    readers, watch = [SqliteReader(path) for _ in range(2)], SqliteWatch(path)
    watch.changed()
    for reader in readers:
        assert reader.by_key(key_of(ADA)) is not None
    Path(path).write_bytes(backup)
    assert [watch.changed() for _ in range(2)] == [True, False]
    for reader in readers:
        assert reader.by_key(key_of(ADA)) is None
        assert reader.by_key(key_of(BOB)) is not None
        reader.close()
    watch.close()


def test_keys_that_are_made_are_told_apart_and_known_as_such() -> None:
    made = {new_api_key() for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith("ptk_") and len(key) == 47 for key in made)
    assert number_of("/a") != number_of("/b")
    assert 0 <= number_of("/a") < 2**64
