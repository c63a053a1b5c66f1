"""Consumers as lines of JSON, on their way from one database to another, or from wherever else they were.

Each line is a consumer: its `name`, and what a consumer of a file has. A key of an export is `hmac-sha256:` and what
was kept of it, which is of use only with the key of the database that it came from; the first line says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError

from portico.config.consumers import NEVER, Consumer, ConsumerSettings, Moment, check_consumer_name, compact
from portico.config.values import BadValue
from portico.consumers.sqlite import profile_of
from portico.consumers.writer import Kept, KeptKey, NotWritten, Writer

MOST_TOLD: Final = 20
"""Lines that are told of where many are wrong."""
_HEAD: Final = "portico_consumers"
_KEPT: Final = "hmac-sha256:"
_moment: Final[TypeAdapter[float]] = TypeAdapter(Moment)


def exported(writer: Writer) -> Iterator[bytes]:
    """Yield the lines of an export."""
    yield orjson.dumps({_HEAD: 1, "binding": writer.binding.hex()}) + b"\n"
    for consumer, keys in writer.all():
        said: dict[str, object] = {"name": consumer.name}
        if keys:
            said["keys"] = [_key(key) for key in keys]
        if consumer.password:
            said["password"] = consumer.password
        yield orjson.dumps(said | profile_of(consumer)) + b"\n"


def time_of(moment: float) -> str:
    """Return a time as a file has it."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def _key(key: KeptKey) -> dict[str, str]:
    said = {"hash": f"{_KEPT}{key.digest.hex()}", "added": time_of(key.added)}
    return said if key.expires == NEVER else said | {"expires": time_of(key.expires)}


def take_in(writer: Writer, lines: Iterable[bytes], *, replace: bool) -> int:
    """Take in what the lines say, and return how many consumers that were; where one is wrong, none of them.

    With `replace` a consumer takes the place of the one of its name. Raises NotWritten.
    """
    taking = _Import(writer, replace)
    wrong: list[str] = []
    with writer.together():
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                taking.take(line)
            except (BadValue, NotWritten) as error:
                wrong.append(f"line {number}: {error}")
                if len(wrong) > MOST_TOLD:
                    wrong[-1] = "and more"
                    break
        if wrong:
            raise NotWritten("\n".join([*wrong, "nothing was imported"]))
    return taking.count


class _Import:
    """Takes in lines, one after the other."""

    def __init__(self, writer: Writer, replace: bool) -> None:
        self.count = 0
        self._writer = writer
        self._replace = replace
        self._headed = False

    def take(self, line: bytes) -> None:
        said = _mapping(line)
        if _HEAD in said:
            self._headed = True
            if said.get("binding") != self._writer.binding.hex():
                hint = "make one with the same key: portico consumer init --key FILE"
                raise BadValue("this was exported from a database with another key", hint)
            return
        consumer, keys = _consumer(said)
        if keys and not self._headed:
            hint = "import the first line of the export as well, which says of which database they are"
            raise BadValue(f"the keys of {consumer.name} may be of no use here", hint)
        put(self._writer, consumer, keys, replace=self._replace)
        self.count += 1


def put(writer: Writer, consumer: Consumer, keys: Iterable[KeptKey] = (), *, replace: bool) -> None:
    """Add a consumer, or with `replace` put it in the place of the one of its name; raise NotWritten."""
    if replace and writer.has(consumer.name):
        writer.remove(consumer.name)
    writer.add(consumer, list(keys))


def _mapping(line: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise BadValue("this is no JSON", "each line has one consumer") from None
    if not isinstance(said, dict):
        raise BadValue("this is no mapping", 'write {"name": "ada", "roles": ["admin"]}')
    return said


def _consumer(said: dict[str, Any]) -> Kept:
    name = said.pop("name", None)
    if not isinstance(name, str):
        raise BadValue("the consumer has no name", 'write {"name": "ada", "roles": ["admin"]}')
    check_stored_name(name)
    given = said.get("keys", [])
    given = given if isinstance(given, list) else [given]
    kept = [each for each in given if _is_kept(each)]
    if kept:
        said["keys"] = [each for each in given if not _is_kept(each)]
    try:
        settings = ConsumerSettings.model_validate(said)
        return Kept(compact(name, settings), [_kept(each) for each in kept])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise BadValue(f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def check_stored_name(name: str) -> str:
    """Return `name` if a consumer of a database can be called so, or raise BadValue."""
    if not name.isprintable():
        raise BadValue(f"{name!r} cannot be the name of a consumer", "it has characters that cannot be seen")
    return check_consumer_name(name)


def _is_kept(key: object) -> bool:
    return isinstance(key, dict) and str(key.get("hash", "")).startswith(_KEPT)


def _kept(said: dict[str, Any]) -> KeptKey:
    try:
        digest = bytes.fromhex(str(said["hash"]).removeprefix(_KEPT))
    except ValueError:
        digest = b""
    if len(digest) != 32 or not said.keys() <= {"hash", "added", "expires"}:
        raise BadValue("a key of an export has been changed", "export it anew")
    expires = NEVER if said.get("expires") is None else _moment.validate_python(said["expires"])
    return KeptKey(digest, expires, _moment.validate_python(said.get("added", "1970-01-01")))
