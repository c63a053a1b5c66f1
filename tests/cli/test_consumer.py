"""`portico consumer`: what it does to a database, what it prints, and what it keeps to itself."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import argon2
import pytest
from typer.testing import CliRunner

from portico.cli.commands import app
from portico.consumers.credentials import key_file
from portico.consumers.sqlite import SqliteReader
from tests.harness.consumers import ADA, HASH, consumer, database, key_of
from tests.harness.gateway import Done, portico, portico_here


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database in the working folder, and a configuration that names it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "portico.yaml").write_text(
        "consumer_database: ../consumers.db\nroutes: [{path: /**, respond: here, policies: [key-auth]}]\n"
    )
    (tmp_path / "portico.yaml").symlink_to(tmp_path / "conf" / "portico.yaml")
    done = portico_here("consumer", "init")
    assert done == (
        0,
        "wrote consumers.db and consumers.db.key; next: consumer_database: consumers.db in the configuration\n",
        "",
    )
    (tmp_path / "portico.yaml").unlink()
    return tmp_path / "conf" / "portico.yaml"


def told(*arguments: str, text: str | bytes = "") -> Done:
    result = CliRunner().invoke(app, ["consumer", *arguments, "--file", "consumers.db"], input=text)
    if isinstance(result.exception, Exception):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def names(done: Done) -> list[str]:
    assert done.code == 0
    return [line.partition("\t")[0] for line in done.out.splitlines()]


def owner_of(key: str) -> str:
    reader = SqliteReader("consumers.db")
    found = reader.by_key(key_of(key))
    reader.close()
    return "" if found is None else found.consumer.name


def test_a_consumer_from_its_beginning_to_its_end(file: Path) -> None:
    done = told(
        "add", "ada", "--role", "admin", "--role", "staff", "--metadata", "plan=gold", "--metadata", "n=7", "--key"
    )
    assert (done.code, done.err) == (0, "added ada\n")
    first = done.out.removesuffix("\n")
    assert owner_of(first) == "ada"
    done = told("key", "add", "ada", "--expires", "2127-01-31")
    second = done.out.removesuffix("\n")
    assert (done.code, owner_of(second)) == (0, "ada")
    shown = json.loads(told("show", "ada", "--json").out)
    assert shown["roles"] == ["admin", "staff"]
    assert shown["metadata"] == {"plan": "gold", "n": 7}
    assert shown["password"] == "none"
    assert [key.get("expires") for key in shown["keys"]] == [None, "2127-01-31T00:00:00Z"]
    assert done.err == f"added key {shown['keys'][1]['id']}\n"
    text = told("show", "ada").out
    assert text.startswith('name: ada\nroles: admin,staff\nmetadata: {"plan": "gold", "n": 7}\npassword: none\nkey ')
    assert text.endswith(", expires 2127-01-31T00:00:00Z\n")
    for said in (text, told("list").out, told("list", "--json").out, told("export").out):
        assert first not in said
        assert second not in said
        assert key_of(first).hex() not in said

    done = told("key", "remove", "ada", shown["keys"][0]["id"])
    assert done == (0, "", f"removed key {shown['keys'][0]['id']}\n")
    assert (owner_of(first), owner_of(second)) == ("", "ada")
    assert told("change", "ada", "--role", "", "--group", "g").err == "changed ada\n"
    shown = json.loads(told("show", "ada", "--json").out)
    assert "roles" not in shown
    assert (shown["groups"], shown["metadata"], len(shown["keys"])) == (["g"], {"plan": "gold", "n": 7}, 1)
    assert told("remove", "ada") == (0, "", "removed ada\n")
    assert owner_of(second) == ""
    assert told("list") == (0, "", "")


def test_a_password_is_asked_for_and_shown_to_nobody(file: Path) -> None:
    assert told("add", "bob", "--password", text="swordfish ä\n").code == 0
    reader = SqliteReader("consumers.db")
    bob = reader.by_name("bob")
    assert bob is not None
    assert argon2.PasswordHasher().verify(bob.password, "swordfish ä")
    for said in (told("show", "bob").out, told("list").out):
        assert bob.password not in said
        assert "swordfish" not in said
    assert "password: argon2id" in told("show", "bob").out
    assert told("change", "bob", "--role", "r").code == 0
    assert reader.by_name("bob") == bob._replace(roles=frozenset("r"))
    assert told("change", "bob", "--no-password").code == 0
    assert reader.by_name("bob") == bob._replace(roles=frozenset("r"), password="")
    assert told("change", "bob", "--password", text="\n") == (1, "", "the password is empty\n")
    reader.close()


def test_the_configuration_may_name_it(file: Path) -> None:
    assert portico_here("consumer", "add", "ada", "--file", str(file)).code == 0
    assert names(told("list")) == ["ada"]
    done = portico("consumer", "list", cwd=file.parent)
    assert (done.code, done.err) == (0, "")
    assert done.out == "ada\t0 keys\tno password\t\n"


def test_a_configuration_that_names_none(file: Path) -> None:
    for text, message in (
        ("routes: []\n", "names no database; add consumer_database: consumers.db"),
        ("consumer_database: {fil: a.db}\n", "portico.yaml:1:21: unknown key 'fil' in consumer_database"),
        ("consumer_database: postgres://db\n", "portico.yaml:1:20: file: a database of consumers is an SQLite file"),
        ("consumer_database: [a]\n", "portico.yaml:1:20:"),
        ("a: [\n", "portico.yaml:2:1:"),
    ):
        file.write_text(text)
        done = portico_here("consumer", "list", "--file", str(file))
        assert (done.code, done.out) == (1, "")
        assert message in done.err
    done = portico_here("consumer", "list", "--file", str(file.parent / "nope.yaml"))
    assert (done.code, done.out) == (1, "")
    assert "nope.yaml; give --file the database, or the configuration" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "ada"], "there is a consumer ada already"),
        (["add", "a:b"], "'a:b' cannot be the name of a consumer"),
        (["add", "a\u200bb"], "characters that cannot be seen"),
        (["add", "eve", "--metadata", "plan"], "'plan' is no name with a value; write name=value"),
        (["add", "eve", "--metadata", "n=" + "9" * 30], "what is said of eve cannot be kept: Integer exceeds"),
        (["add", "eve", "--role", "\udcff"], "what is said of eve cannot be kept: str is not valid UTF-8"),
        (["add", "eve", "--password"], "the password is empty"),
        (["change", "ada"], "there is nothing to change; give --role"),
        (["change", "eve", "--role", "r"], "there is no consumer eve; portico consumer list has all"),
        (["remove", "eve"], "there is no consumer eve"),
        (["show", "eve"], "there is no consumer eve"),
        (["key", "add", "eve"], "there is no consumer eve"),
        (["key", "add", "ada", "--expires", "soon"], "'soon' is not a date or a time; write 2027-01-31"),
        (["key", "add", "ada", "--expires", "2020-01-31"], "2020-01-31 is over, so the key would never be taken"),
        (["key", "remove", "ada", "abc"], "ada has no key abc; portico consumer show ada has the ids"),
        (["import", "nope"], "nope cannot be read: No such file or directory"),
        (["export", "portico.db"], "portico.db cannot be written: File exists"),
    ],
)
def test_what_cannot_be_done_changes_nothing(file: Path, arguments: list[str], message: str) -> None:
    Path("portico.db").write_text("")
    told("add", "ada", "--role", "r")
    before = told("export").out
    done = told(*arguments)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert told("export").out == before


def test_a_database_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = told("list")
    assert done == (1, "", "there is no database consumers.db; portico consumer init consumers.db makes one\n")
    Path("consumers.db").write_text("x" * 5000)
    Path("consumers.db.key").write_text("ab" * 32)
    assert told("list") == (1, "", "consumers.db is damaged, or no SQLite database; put a backup in its place\n")
    assert (
        portico_here("consumer", "init").err == "consumers.db.key is there already; take another name, or remove it\n"
    )


def test_metadata_that_is_no_json_is_a_text(file: Path) -> None:
    told("add", "ada", "--metadata", "a=NaN", "--metadata", "b=-Infinity", "--metadata", "c=[1]")
    assert json.loads(told("show", "ada", "--json").out)["metadata"] == {"a": "NaN", "b": "-Infinity", "c": [1]}


def test_half_of_an_export_is_none(file: Path) -> None:
    told("add", "ada")
    told("add", "bob")
    with sqlite3.connect("consumers.db") as connection:
        connection.execute("UPDATE consumers SET profile = '[]' WHERE name = 'bob'")
    connection.close()
    done = told("export", "out")
    assert (done.code, done.out) == (1, "")
    assert "'bob' makes no sense; portico consumer remove takes it away" in done.err
    assert not Path("out").exists()
    with Path("/dev/full").open("wb") as full:
        assert told("remove", "bob").code == 0
        command = [sys.executable, "-m", "portico", "consumer", "export", "--file", "consumers.db"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "stdout cannot be written: No space left on device\n")


def test_there_and_back(file: Path) -> None:
    told("add", "ada", "--key")
    told("add", "bob", "--role", "r")
    assert told("export", "all.jsonl").code == 0
    assert stat.S_IMODE(Path("all.jsonl").stat().st_mode) == 0o600
    assert portico_here("consumer", "init", "second.db", "--key", "consumers.db.key").code == 0
    there = ("--file", "second.db")
    assert portico_here("consumer", "import", "all.jsonl", *there) == (0, "", "imported 2 consumers\n")
    assert portico_here("consumer", "export", *there).out == told("export").out == Path("all.jsonl").read_text()
    done = portico_here("consumer", "import", "all.jsonl", *there)
    assert (done.code, done.err.splitlines()[-1]) == (1, "nothing was imported")
    assert portico_here("consumer", "import", "all.jsonl", "--replace", *there).code == 0
    assert told("import", "-", "--replace", text=Path("all.jsonl").read_bytes()) == (0, "", "imported 2 consumers\n")


def test_those_of_a_file_are_taken_in(file: Path) -> None:
    text = f"consumers: {{ada: '${{KEY}}', bob: {{password: '{HASH}', roles: r}}}}\n"
    Path("old.yaml").write_text(text)
    done = CliRunner(env={"KEY": ADA}).invoke(app, ["consumer", "import", "old.yaml", "--file", str(file)])
    assert (done.exit_code, done.stderr) == (0, "imported 2 consumers\n")
    assert owner_of(ADA) == "ada"
    assert names(told("list")) == ["ada", "bob"]
    assert told("import", "old.yaml", "--replace").code == 1  # without the variable
    assert owner_of(ADA) == "ada"
    Path("old.yaml").write_text("consumers: {a\u00adb: {}}\n")
    assert "cannot be seen" in told("import", "old.yaml").err


def test_what_others_have_called_things_gives_terminals_no_orders(file: Path) -> None:
    told("import", "-", text=json.dumps({"name": "ada", "roles": ["\x1b[2J"], "metadata": {"\x9b2J": "\x9b2J"}}))
    for said in (told("show", "ada").out, told("list").out):
        assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said) is None
        assert "\\x1b[2J" in said


def test_check_says_what_is_wrong_with_it(file: Path) -> None:
    done = portico_here("check", str(file))
    assert (done.code, done.err) == (0, "")
    Path(key_file("consumers.db")).chmod(0o644)
    done = portico_here("check", str(file))
    assert done.code == 0
    assert re.search(r"portico\.yaml:1:20: warning: others than its owner may read \S+consumers\.db\.key", done.err)
    Path(key_file("consumers.db")).unlink()
    done = portico_here("check", str(file))
    assert done.code == 1
    assert re.search(r"portico\.yaml:1:20: the key of the database, \S+consumers\.db\.key, is missing", done.err)
    Path("consumers.db").unlink()
    done = portico_here("check", str(file))
    assert done.code == 1
    assert re.search(
        r"portico\.yaml:1:20: there is no database \S+/consumers\.db \(hint: portico consumer init", done.err
    )


def test_explain_says_nothing_of_them(file: Path, tmp_path: Path) -> None:
    database(tmp_path, consumer("ada", ADA, password=HASH), name="other.db")
    text = file.read_text().replace("../consumers.db", str(tmp_path / "other.db"))
    file.write_text(text)
    for arguments in ((), ("--json",), ("-H", f"X-API-Key: {ADA}")):
        done = portico_here("explain", str(file), "GET", "/", *arguments)
        assert done.code == 0
        for secret in (ADA, HASH, key_of(ADA).hex(), Path(f"{tmp_path}/other.db.key").read_text().strip()):
            assert secret not in done.out + done.err
