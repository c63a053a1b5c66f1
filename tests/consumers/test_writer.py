"""Changes of a database, and consumers as lines on their way in and out."""

from __future__ import annotations

import threading
from pathlib import Path

import orjson
import pytest

from portico.config.consumers import NEVER, Consumer
from portico.consumers.credentials import key_file
from portico.consumers.sqlite import SqliteReader, create
from portico.consumers.store import StoreFailed
from portico.consumers.transfer import exported, take_in
from portico.consumers.writer import Kept, NotWritten, Writer
from tests.harness.consumers import ADA, BOB, HASH, consumer, database, key_of


def test_changes(tmp_path: Path) -> None:
    with Writer(database(tmp_path, consumer("ada", ADA, roles=frozenset("r")))) as writer:
        (key,) = writer.get("ada").keys
        writer.change(Consumer("ada", password=HASH, groups=frozenset("g")))
        assert writer.get("ada") == Kept(Consumer("ada", password=HASH, groups=frozenset("g")), [key])
        second = writer.kept(key_of(BOB), 9.0)
        writer.add_key("ada", second)
        assert [each.expires for each in writer.get("ada").keys] == [NEVER, 9.0]
        writer.remove_key("ada", key.id)
        assert writer.get("ada").keys == [second]
        writer.add(consumer("bob"))
        assert [each.consumer.name for each in writer.all()] == ["ada", "bob"]
        assert len(writer) == 2
        writer.remove("ada")
        assert [each.consumer.name for each in writer.all()] == ["bob"]
        writer.add_key("bob", second)  # a consumer's keys are gone with it
    reader = SqliteReader(str(tmp_path / "consumers.db"))
    assert reader.by_key(key_of(ADA)) is None
    reader.close()


def test_what_cannot_be_changed(tmp_path: Path) -> None:
    with Writer(database(tmp_path, consumer("ada", ADA), consumer("bob"))) as writer:
        before = list(writer.all())
        for wrong, message in (
            (lambda: writer.add(consumer("ada")), "there is a consumer ada already"),
            (lambda: writer.add(consumer("eve", BOB, ADA)), "a key of eve is there already"),
            (lambda: writer.add_key("bob", writer.kept(key_of(ADA))), "a key of bob is there already"),
            (lambda: writer.add_key("eve", writer.kept(key_of(BOB))), "there is no consumer eve"),
            (lambda: writer.remove("eve"), "there is no consumer eve"),
            (lambda: writer.change(Consumer("eve")), "there is no consumer eve"),
            (lambda: writer.get("eve"), "there is no consumer eve"),
            (lambda: writer.remove_key("bob", before[0].keys[0].id), "bob has no key"),
            (lambda: writer.remove_key("ada", ""), "ada has no key"),
        ):
            with pytest.raises(NotWritten, match=message):
                wrong()
        assert list(writer.all()) == before


def test_all_or_nothing(tmp_path: Path) -> None:
    with Writer(database(tmp_path, consumer("ada", ADA))) as writer:

        def half_wrong() -> None:
            with writer.together():
                writer.remove("ada")
                writer.add(consumer("bob", BOB))
                writer.add(consumer("bob"))

        with pytest.raises(NotWritten):
            half_wrong()
        assert [each.consumer.name for each in writer.all()] == ["ada"]
        with writer.together():
            writer.add(consumer("bob", BOB))
        assert len(writer) == 2


def test_a_full_disk_is_told_and_nothing_is_changed(tmp_path: Path) -> None:
    with Writer(database(tmp_path, consumer("ada", ADA))) as writer:
        writer._connection.execute("PRAGMA max_page_count = 10")

        def too_many() -> None:
            with writer.together():
                for number in range(10_000):
                    writer.add(consumer(f"u{number}"))

        with pytest.raises(StoreFailed, match="database or disk is full"):
            too_many()
        assert [each.consumer.name for each in writer.all()] == ["ada"]
        writer.add(consumer("bob", BOB))
        assert len(writer) == 2


def test_those_who_write_at_once_wait_for_each_other(tmp_path: Path) -> None:
    path = database(tmp_path)

    def add(name: str) -> None:
        for number in range(20):
            with Writer(path) as writer:
                writer.add(consumer(f"{name}-{number}"))

    threads = [threading.Thread(target=add, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with Writer(path) as writer:
        assert len(writer) == 60


def test_what_was_exported_can_be_imported(tmp_path: Path) -> None:
    full = consumer("ada", ADA, password=HASH, roles=frozenset("ab"), scopes=frozenset("s"), metadata={"a": {"b": [1]}})
    path = database(tmp_path, full, consumer("bob"))
    other = str(tmp_path / "other.db")
    create(other, key_file(path))
    with Writer(path) as writer, Writer(other) as second:
        writer.add_key("ada", writer.kept(key_of(BOB), 1_900_000_000.0))
        lines = list(exported(writer))
        assert take_in(second, lines, replace=False) == 2
        for before, after in zip(writer.all(), second.all(), strict=True):
            assert before.consumer == after.consumer
            assert [key[:2] for key in before.keys] == [key[:2] for key in after.keys]
            assert all(abs(one.added - two.added) < 1e-3 for one, two in zip(before.keys, after.keys, strict=True))
        assert ADA.encode() not in b"".join(lines)
        assert take_in(second, lines, replace=True) == 2
        assert len(second) == 2
        with pytest.raises(NotWritten, match="line 2: there is a consumer ada already"):
            take_in(second, lines, replace=False)
    reader = SqliteReader(other)
    found = reader.by_key(key_of(ADA))
    assert found is not None
    assert found.consumer == full._replace(keys=())
    reader.close()


def test_an_export_is_of_no_use_without_its_key(tmp_path: Path) -> None:
    with Writer(database(tmp_path, consumer("ada", ADA))) as writer:
        lines = list(exported(writer))
    with Writer(database(tmp_path, name="other.db")) as other:
        with pytest.raises(NotWritten, match="line 1: this was exported from a database with another key"):
            take_in(other, lines, replace=False)
        assert len(other) == 0


def test_keys_of_an_export_come_with_its_first_line(tmp_path: Path) -> None:
    with Writer(database(tmp_path, consumer("ada", ADA), consumer("bob"))) as writer:
        head, *lines = exported(writer)
    with Writer(database(tmp_path, name="other.db")) as other:
        with pytest.raises(NotWritten, match="line 1: the keys of ada may be of no use here; import the first line"):
            take_in(other, lines, replace=False)
        assert take_in(other, lines[1:], replace=False) == 1
        with pytest.raises(NotWritten, match="another key") as caught:
            take_in(other, [head, *lines], replace=True)
        assert "of no use" not in str(caught.value)


def test_lines_of_another_origin(tmp_path: Path) -> None:
    lines = [
        orjson.dumps({"name": "ada", "keys": [ADA, {"hash": f"sha256:{key_of(BOB).hex()}", "expires": "2027-01-31"}]}),
        b"",
        orjson.dumps({"name": "bob", "keys": "the-only-key-of-bob", "password": HASH, "roles": "admin"}),
    ]
    with Writer(database(tmp_path)) as writer:
        assert take_in(writer, lines, replace=False) == 2
        assert writer.get("bob").consumer == Consumer("bob", (), HASH, frozenset(("admin",)))
    reader = SqliteReader(str(tmp_path / "consumers.db"))
    for key, name in ((ADA, "ada"), (BOB, "ada"), ("the-only-key-of-bob", "bob")):
        found = reader.by_key(key_of(key))
        assert found is not None
        assert found.consumer.name == name
    reader.close()


SECRET = "short-secret"
WRONG = [
    (b"{", "this is no JSON"),
    (b"[]", "this is no mapping"),
    (b"{}", "the consumer has no name"),
    (b'{"name": 7}', "the consumer has no name"),
    (b'{"name": "a:b"}', "cannot be the name of a consumer"),
    (b'{"name": "a\\u200bb"}', "characters that cannot be seen"),
    (b'{"name": "' + b"n" * 129 + b'"}', "at most 128 characters"),
    (b'{"name": "a", "rolls": []}', "a: rolls: Extra inputs"),
    (b'{"name": "a", "password": "' + SECRET.encode() + b'"}', "a password stands here as its hash"),
    (b'{"name": "a", "keys": ["' + SECRET.encode() + b'"]}', "16 or more characters"),
    (b'{"name": "a", "keys": [{"hash": "hmac-sha256:00"}]}', "has been changed"),
    (b'{"name": "a", "keys": [{"hash": "hmac-sha256:zz"}]}', "has been changed"),
    (b'{"name": "a", "keys": [{"hash": "hmac-sha256:' + b"00" * 32 + b'", "x": 1}]}', "has been changed"),
    (b'{"name": "a", "keys": [{"hash": "hmac-sha256:' + b"00" * 32 + b'", "expires": "soon"}]}', "is not a date"),
    (b'{"name": "a", "keys": [{"hash": "sha256:' + b"00" * 32 + b'", "expires": 1e300}]}', "is not a date"),
]


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_a_line_that_is_wrong_keeps_all_out(line: bytes, message: str, tmp_path: Path) -> None:
    with Writer(database(tmp_path)) as writer:
        with pytest.raises(NotWritten, match=message) as caught:
            take_in(writer, [b'{"name": "good"}', line], replace=False)
        assert "line 2: " in str(caught.value)
        assert str(caught.value).endswith("nothing was imported")
        assert SECRET not in str(caught.value)
        assert len(writer) == 0


def test_many_wrong_lines_are_not_all_told(tmp_path: Path) -> None:
    with Writer(database(tmp_path)) as writer, pytest.raises(NotWritten) as caught:
        take_in(writer, [b"{"] * 1000, replace=False)
    assert len(str(caught.value).splitlines()) == 22
