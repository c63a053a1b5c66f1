"""`portico consumer`: the consumers of a database."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer
from pydantic import TypeAdapter, ValidationError

from portico.cli.hash import What, asked_for, hash_of
from portico.cli.token import named_value
from portico.config.consumer_database import read_consumer_database
from portico.config.consumers import NEVER, Consumer, Moment, digest_of
from portico.config.document import read
from portico.config.findings import Findings, report
from portico.config.values import BadValue
from portico.consumers.credentials import key_file, new_api_key
from portico.consumers.sqlite import create, profile_of
from portico.consumers.transfer import check_stored_name, exported, put, take_in, time_of
from portico.consumers.writer import Kept, KeptKey, NotWritten, Writer
from portico.errors import PorticoError
from portico.runtime.loading import read_in

app = typer.Typer(no_args_is_help=True)
keys = typer.Typer(no_args_is_help=True)

_CONFIGURATIONS: Final = (".yaml", ".yml")

File = Annotated[
    Path, typer.Option("--file", metavar="FILE", help="The database, or the configuration (YAML) that names it.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The consumer.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Roles = Annotated[list[str] | None, typer.Option("--role", metavar="ROLE", help="What it is; repeatable.")]
Scopes = Annotated[list[str] | None, typer.Option("--scope", metavar="SCOPE", help="What it may ask for; repeatable.")]
Permissions = Annotated[
    list[str] | None, typer.Option("--permission", metavar="NAME", help="What it may do; repeatable.")
]
Groups = Annotated[list[str] | None, typer.Option("--group", metavar="NAME", help="A group it is in; repeatable.")]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="NAME=VALUE", help="What else is said of it; JSON or a text; repeatable."),
]
HERE: Final = Path("portico.yaml")


@contextmanager
def _told() -> Iterator[None]:
    """Exit with 1 where anything goes wrong that is foreseen, and say what."""
    try:
        yield
    except (PorticoError, BadValue) as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from None


@contextmanager
def _database(file: Path) -> Iterator[Writer]:
    with _told(), Writer(database_of(file)) as writer:
        yield writer


def database_of(file: Path) -> str:
    """Return the path of the database that `file` is, or names; raise NotWritten where it names none."""
    if file.suffix not in _CONFIGURATIONS:
        return str(file)
    if not file.exists():
        raise NotWritten(f"there is no {file}; give --file the database, or the configuration (YAML) that names it")
    document = read(file)
    findings = Findings(document.findings)
    database = read_consumer_database(document.root.entries.get("consumer_database"), findings)
    if database is not None:
        return database.file
    if findings.failed:
        raise NotWritten(report(findings.sorted()).rstrip())
    raise NotWritten(f"{file} names no database; add consumer_database: consumers.db, or give --file the path of one")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The database to make.")] = Path("consumers.db"),
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The key of another database, whose export is to be imported.")
    ] = None,
) -> None:
    """Make an empty database for consumers, and its key, which is a file beside it: a backup needs both."""
    with _told():
        create(str(file), "" if key is None else str(key))
    typer.echo(f"wrote {file} and {key_file(str(file))}; next: consumer_database: {file} in the configuration")


@app.command()
def add(
    name: Name,
    role: Roles = None,
    scope: Scopes = None,
    permission: Permissions = None,
    group: Groups = None,
    metadata: Metadata = None,
    password: Annotated[bool, typer.Option("--password", help="Ask for a password, or read it from stdin.")] = False,
    key: Annotated[bool, typer.Option("--key", help="Make a key, and print it; it cannot be shown again.")] = False,
    file: File = HERE,
) -> None:
    """Add a consumer."""
    with _database(file) as writer:
        consumer = _changed(Consumer(check_stored_name(name)), role, scope, permission, group, metadata)
        if password:
            consumer = consumer._replace(password=_hashed_password())
        made = new_api_key()
        writer.add(consumer, [writer.kept(digest_of(made.encode()))] if key else [])
    sys.stderr.write(f"added {name}\n")
    if key:
        typer.echo(made)


@app.command()
def change(
    name: Name,
    role: Roles = None,
    scope: Scopes = None,
    permission: Permissions = None,
    group: Groups = None,
    metadata: Metadata = None,
    password: Annotated[
        bool | None, typer.Option("--password/--no-password", help="Ask for another password; or have none.")
    ] = None,
    file: File = HERE,
) -> None:
    """Change what a consumer is. What is given takes the place of all that there was of its kind: `--role ''` leaves no
    roles. Its keys stay.
    """
    hashed = None
    with _told():
        if (role, scope, permission, group, metadata, password) == (None,) * 6:
            raise BadValue("there is nothing to change", "give --role, --password, or another option that --help has")
        if password is not None:
            hashed = _hashed_password() if password else ""
    with _database(file) as writer, writer.together():
        consumer = _changed(writer.get(name).consumer, role, scope, permission, group, metadata)
        writer.change(consumer if hashed is None else consumer._replace(password=hashed))
    sys.stderr.write(f"changed {name}\n")


@app.command()
def remove(name: Name, file: File = HERE) -> None:
    """Remove a consumer with its keys. Within a second it is not let in any more; what is under way goes on."""
    with _database(file) as writer:
        writer.remove(name)
    sys.stderr.write(f"removed {name}\n")


@app.command("list")
def list_(as_json: Json = False, file: File = HERE) -> None:
    """Print all consumers, each on a line: the name, how many keys, whether there is a password, and the roles."""
    with _database(file) as writer:
        for each in writer.all():
            if as_json:
                typer.echo(json.dumps(_shown(each)))
                continue
            count, consumer = len(each.keys), each.consumer
            said = (f"{count} key{'' if count == 1 else 's'}", "password" if consumer.password else "no password")
            typer.echo("\t".join((consumer.name, *said, _listed(consumer.roles))))


@app.command()
def show(name: Name, as_json: Json = False, file: File = HERE) -> None:
    """Print what there is of a consumer, and the ids of its keys; neither keys nor hashes."""
    with _database(file) as writer:
        shown = _shown(writer.get(name))
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    for what, value in shown.items():
        if what != "keys":
            typer.echo(f"{what}: {_listed(value) if isinstance(value, list) else _text(value)}")
    for key in shown["keys"]:
        expires = f", expires {key['expires']}" if "expires" in key else ""
        typer.echo(f"key {key['id']}: added {key['added']}{expires}")


@app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Lines of JSON, or a configuration (YAML); `-` is stdin.")
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put them in the place of those that have the same names.")
    ] = False,
    file: File = HERE,
) -> None:
    """Take in consumers: all, or where anything is wrong none.

    SOURCE is what `portico consumer export` has written, or lines of JSON of another origin, such as `{"name": "ada",
    "keys": ["sha256:..."], "roles": ["admin"]}`, with what a consumer of a file has. Of a configuration it takes the
    `consumers`.
    """
    with _database(file) as writer:
        if source.suffix in _CONFIGURATIONS:
            count = _take_from(writer, source, replace=replace)
        else:
            with _opened(source) as lines:
                count = take_in(writer, lines, replace=replace)
    sys.stderr.write(f"imported {count} consumer{'' if count == 1 else 's'}\n")


@app.command()
def export(
    target: Annotated[
        Path | None, typer.Argument(metavar="[TARGET]", help="The file to write, for its owner alone; or stdout.")
    ] = None,
    file: File = HERE,
) -> None:
    """Write all consumers as lines of JSON, with the hashes of their passwords and what is kept of their keys: not for
    everyone's eyes. It can be imported into a database that was made with the same key: `portico consumer init --key`.
    """
    with _database(file) as writer:
        if target is None:
            _write_out(sys.stdout.buffer, "stdout", exported(writer))
            return
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NotWritten(f"{target} cannot be written: {error.strerror}") from None
        try:
            with os.fdopen(descriptor, "wb") as out:
                _write_out(out, str(target), exported(writer))
        except BaseException:
            target.unlink()  # half of an export looks like a whole one
            raise


@keys.command("add")
def add_key(
    name: Name,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="From when on it is refused: 2027-01-31, or with a time.")
    ] = None,
    file: File = HERE,
) -> None:
    """Make a key for a consumer, and print it. It cannot be shown again: what is kept of it is a hash."""
    with _database(file) as writer:
        made = new_api_key()
        key = writer.kept(digest_of(made.encode()), NEVER if expires is None else _moment(expires))
        writer.add_key(name, key)
    sys.stderr.write(f"added key {key.id}\n")
    typer.echo(made)


@keys.command("remove")
def remove_key(
    name: Name,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The key, as `portico consumer show` has it.")],
    file: File = HERE,
) -> None:
    """Take a key from a consumer. Within a second nobody is let in by it any more."""
    with _database(file) as writer:
        writer.remove_key(name, id_)
    sys.stderr.write(f"removed key {id_}\n")


app.add_typer(keys, name="key", help="Keys of a consumer in the database.")


def _changed(
    consumer: Consumer,
    roles: Sequence[str] | None,
    scopes: Sequence[str] | None,
    permissions: Sequence[str] | None,
    groups: Sequence[str] | None,
    metadata: Sequence[str] | None,
) -> Consumer:
    given = {"roles": roles, "scopes": scopes, "permissions": permissions, "groups": groups}
    said: dict[str, Any] = {what: frozenset(filter(None, words)) for what, words in given.items() if words is not None}
    if metadata is not None:
        said["metadata"] = dict(named_value(each) for each in metadata if each)
    return consumer._replace(**said)


def _hashed_password() -> str:
    return hash_of(What.PASSWORD, asked_for(What.PASSWORD))


def _write_out(out: BinaryIO, name: str, lines: Iterable[bytes]) -> None:
    try:
        out.writelines(lines)
        out.flush()
    except BrokenPipeError:  # whoever reads has seen enough
        raise
    except OSError as error:
        raise NotWritten(f"{name} cannot be written: {error.strerror}") from None


def _moment(text: str) -> float:
    moment: TypeAdapter[float] = TypeAdapter(Moment)
    try:
        found = moment.validate_python(text)
    except ValidationError:
        raise BadValue(f"{text!r} is not a date or a time", "write 2027-01-31 or 2027-01-31T12:00:00Z") from None
    if found <= time.time():
        raise BadValue(f"{text} is over, so the key would never be taken", "name a time to come")
    return found


def _take_from(writer: Writer, source: Path, *, replace: bool) -> int:
    """Take in the consumers of a configuration."""
    loaded = read_in(source)
    if loaded.config is None:
        raise NotWritten(report(loaded.findings).rstrip())
    with writer.together():
        for consumer in loaded.config.consumers:
            check_stored_name(consumer.name)
            put(writer, consumer, replace=replace)
    return len(loaded.config.consumers)


@contextmanager
def _opened(source: Path) -> Iterator[Iterable[bytes]]:
    if str(source) == "-":
        yield sys.stdin.buffer
        return
    try:
        lines = source.open("rb")
    except OSError as error:
        raise NotWritten(f"{source} cannot be read: {error.strerror}") from None
    with lines:
        yield lines


def _shown(kept: Kept) -> dict[str, Any]:
    """Return what may be shown of a consumer."""
    consumer, keys_ = kept
    return {
        "name": consumer.name,
        **profile_of(consumer),
        "password": _kind_of(consumer.password),
        "keys": [_shown_key(key) for key in keys_],
    }


def _kind_of(password: str) -> str:
    if not password:
        return "none"
    return "argon2id" if password.startswith("$argon2id$") else "bcrypt"


def _shown_key(key: KeptKey) -> dict[str, str]:
    shown = {"id": key.id, "added": time_of(key.added)}
    return shown if key.expires == NEVER else shown | {"expires": time_of(key.expires)}


def _listed(words: Iterable[object]) -> str:
    return ",".join(_text(each) for each in sorted(map(str, words)))


def _text(value: object) -> str:
    """Return a value on one line that no terminal takes for orders."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else ascii(text)
