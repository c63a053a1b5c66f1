"""Who calls: the consumers of a file, by name, each with what it proves itself by and what it may.

```yaml
consumers:
  ada: {keys: "${ADA_KEY:-ada-has-a-long-key}", roles: [admin], groups: [staff], metadata: {plan: gold}}
  mobile-app:
    keys:
      - sha256:5c7f4aa0f9b1b6c6c3a7b4a2e1f0d9c8b7a69584736251403f2e1d0c9b8a7968
      - {hash: "sha256:0e1d2c3b4a5968778695a4b3c2d1e0ff0123456789abcdef0123456789abcdef", expires: 2027-01-01}
    permissions: [orders:read]
routes:
  - {path: /orders/**, respond: Welcome, policies: [key-auth]}
```

A key stands here as its hash, which `portico hash key` prints, or as itself, best out of `${NAME}` or `${file:PATH}`:
then it is hashed when the file is loaded, and only the hash is kept. Two keys at once let a client change from the one
to the other. A key that has expired is refused. A password is always a hash: `portico hash password` prints it.

Many consumers go into files of their own, by [include](#more-files), or into [a database](#consumerdatabase).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    SecretBytes,
    SecretStr,
    WithJsonSchema,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_wrap_validator_function as around
from pydantic_core.core_schema import plain_serializer_function_ser_schema as to_plain

from portico.config.build import build, entries_of
from portico.config.findings import Findings
from portico.config.forms import OneOrMany, Shorthand
from portico.config.nodes import Entry
from portico.config.part import Part
from portico.config.policy_lists import with_shorthand
from portico.config.values import BadValue, text_of
from portico.http.user import User

SHORTEST_KEY: Final = 16
"""Characters of a key that stands in a file: fewer could be found by trying, out of a hash that is quick to make."""
NEVER: Final = math.inf
"""When a key expires that does not."""
LAST_MOMENT: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
"""The last one that a key can expire at."""
DECOY: Final = "$argon2id$v=19$m=65536,t=3,p=4$bm9ib2R5IGlzIGhlcmUhIQ$DFYKyX5mrcvWqWAydvHb1kD3IaZ0vGYdA4mVbXo0tA0"
"""A hash of no password, as `portico hash` would make it."""

MOST_COST: Final = 14
"""Of bcrypt; each one more doubles the time, and this takes about a second."""

LONGEST_NAME: Final = 128
"""Characters that the name of a consumer may have."""
_NAME: Final = r"[^\x00-\x20\x7f:]([^\x00-\x1f\x7f:]{0,126}[^\x00-\x20\x7f:])?"
_HASHED_KEY: Final = "sha256:"
_HASHED_PASSWORD: Final = re.compile(
    r"\$argon2id\$v=19\$m=\d{1,7},t=\d{1,3},p=\d{1,2}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}|\$2[aby]\$(?:0[4-9]|1\d|20)\$[./A-Za-z0-9]{53}"
)


def digest_of(key: bytes) -> bytes:
    """Return what is kept of a key, and looked up: nobody finds a key of some length by it."""
    return hashlib.sha256(key).digest()


def _digest(value: object) -> object:
    if isinstance(value, SecretBytes):
        return value
    text = text_of(value)
    if text.startswith(_HASHED_KEY):
        digits = text.removeprefix(_HASHED_KEY)
        if re.fullmatch("[0-9a-fA-F]{64}", digits) is None:
            raise BadValue("after sha256: there are 64 hexadecimal digits", "portico hash key prints the whole line")
        return bytes.fromhex(digits)
    if len(text) < SHORTEST_KEY:
        raise BadValue(f"a key has {SHORTEST_KEY} or more characters", "a shorter one can stand here as its hash alone")
    if text != text.strip() or re.search(r"[\x00-\x1f\x7f]", text) is not None:
        raise BadValue("a key has no line breaks, no tabs, and no spaces around it", "no client could send it")
    return digest_of(text.encode())


def _password(value: SecretStr) -> SecretStr:
    if _HASHED_PASSWORD.fullmatch(value.get_secret_value()) is None:
        hint = "portico hash password prints one; in a file it stands in single quotes"
        raise BadValue("a password stands here as its hash, of argon2id or bcrypt", hint)
    return value


def _moment(value: object) -> float:
    if isinstance(value, float) and 0 <= value <= LAST_MOMENT:
        return value
    try:
        moment = datetime.fromisoformat(text_of(value))
    except ValueError:
        raise BadValue(f"{value!r} is not a date or a time", "write 2027-01-31 or 2027-01-31T12:00:00Z") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


KeyHash = Annotated[
    SecretBytes,
    BeforeValidator(_digest),
    WithJsonSchema({"type": "string", "minLength": SHORTEST_KEY, "examples": ["${ADA_KEY}", "sha256:…"]}),
]
PasswordHash = Annotated[
    SecretStr, AfterValidator(_password), WithJsonSchema({"type": "string", "examples": ["$argon2id$…", "$2b$12$…"]})
]
Moment = Annotated[
    float,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\d", "examples": ["2027-01-31"]}),
]


class KeyRecord(NamedTuple):
    """What is kept of a key."""

    digest: bytes
    expires: float = NEVER


class ApiKey(Part):
    """A key. A text stands for its `hash`."""

    hash: KeyHash
    """`sha256:` and its hash, as `portico hash key` prints it; or the key itself, best out of `${NAME}`, which is
    hashed at once."""
    expires: Moment | None = None
    """A date, or a time as `2027-01-31T12:00:00Z`, from which on it is refused; a date begins in UTC. Never unless
    given."""

    @property
    def record(self) -> KeyRecord:
        """What is kept of it."""
        return KeyRecord(self.hash.get_secret_value(), NEVER if self.expires is None else self.expires)


ApiKeys = Annotated[tuple[Annotated[ApiKey, Shorthand("hash")], ...], OneOrMany()]
_Texts = Annotated[frozenset[str], OneOrMany()]
_Anything = Annotated[JsonValue, WithJsonSchema({})]


class ConsumerSettings(Part):
    """A person or a program that calls. A text, or a list of them, stands for its `keys`."""

    keys: ApiKeys = ()
    """The keys by which [key-auth](policies/key-auth.md) knows it; one, or a list."""
    password: PasswordHash | None = None
    """The hash of the password by which [basic-auth](policies/basic-auth.md) knows it, as `portico hash password`
    prints it: of argon2id, or of bcrypt. Those of all consumers are best of one kind, so that none is told from the
    others by how long it takes."""
    roles: _Texts = frozenset()
    """What it is, such as `admin`."""
    scopes: _Texts = frozenset()
    """What it may ask for, in the words of OAuth."""
    permissions: _Texts = frozenset()
    """What it may do, such as `orders:read`."""
    groups: _Texts = frozenset()
    """Which groups it is in."""
    metadata: dict[str, _Anything] = Field(default_factory=dict)
    """What else there is to say of it: conditions find it under `user.claims`."""


class Consumer(NamedTuple):
    """A consumer as policies know it."""

    name: str
    keys: tuple[KeyRecord, ...] = ()
    password: str = ""
    """The hash of its password; empty where it has none."""
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    metadata: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it

    def user(self, kind: str) -> User:
        """Return it as the user that a policy has found out."""
        return User(
            self.name, self.roles, self.scopes, self.metadata, self.permissions, self.groups, kind, consumer=self.name
        )

    def __repr__(self) -> str:
        return f"Consumer({self.name!r})"


class Credential(NamedTuple):
    """A key that is known: whose it is, and until when it is good, in seconds since the epoch."""

    consumer: Consumer
    expires: float = NEVER


SettingsT = TypeVar("SettingsT")


class Consumers(Generic[SettingsT]):
    """The consumers of a file in a form that a hundred thousand of them fit in; written as a mapping of names to
    settings. Once loaded, it does not change.
    """

    __slots__ = ("_by_key", "_by_name", "decoy")

    def __init__(self, consumers: Iterable[Consumer] = ()) -> None:
        self._by_name: dict[str, Consumer] = {}
        self._by_key: dict[bytes, Credential] = {}
        self.decoy = DECOY
        self.take(consumers)

    def take(self, consumers: Iterable[Consumer]) -> None:
        """Take in more, while it is loaded."""
        for each in consumers:
            self._by_name[each.name] = each
            for digest, expires in each.keys:
                self._by_key[digest] = Credential(each, expires)
            if each.password and self.decoy is DECOY:
                self.decoy = each.password

    def by_key(self, digest: bytes) -> Credential | None:
        """Return whose key has this digest."""
        return self._by_key.get(digest)

    def by_name(self, name: str) -> Consumer | None:
        """Return the consumer of a name."""
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[Consumer]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Consumers) and self._by_name == other._by_name

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        return Consumers, (list(self),)

    def __repr__(self) -> str:
        return f"<Consumers: {len(self)}>"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def kept(value: object, other: Callable[[object], dict[str, ConsumerSettings]]) -> Consumers[Any]:
            if isinstance(value, Consumers):
                return value
            return Consumers(compact(name, settings) for name, settings in other(value).items())

        settings: Any = Annotated[get_args(source)[0], Shorthand("keys")]
        return around(kept, handler.generate_schema(dict[str, settings]), serialization=to_plain(_names))


def check_consumer_name(name: str) -> str:
    """Return `name` if a consumer can be called so, or raise BadValue."""
    if re.fullmatch(_NAME, name) is None:
        hint = f"it has at most {LONGEST_NAME} characters, and neither colons nor spaces around it"
        raise BadValue(f"{name!r} cannot be the name of a consumer", hint)
    return name


def _names(consumers: Iterable[Consumer]) -> dict[str, dict[str, object]]:
    """Return what a dump has of them: who they are, and nothing that they prove it by."""
    return {each.name: {} for each in consumers}


def compact(name: str, settings: ConsumerSettings) -> Consumer:
    """Return a consumer as policies know it."""
    return Consumer(
        name,
        tuple(key.record for key in settings.keys),
        "" if settings.password is None else settings.password.get_secret_value(),
        settings.roles,
        settings.scopes,
        settings.permissions,
        settings.groups,
        settings.metadata,
    )


def read_consumers(entry: Entry | None, findings: Findings) -> Consumers[ConsumerSettings]:
    """Return the consumers below the key, without those that are wrong."""
    made: list[Consumer] = []
    owners: dict[bytes, str] = {}
    for name, each in entries_of("consumers", entry, findings).items():
        try:
            check_consumer_name(name)
        except BadValue as error:
            findings.error(each.key, error.message, error.hint)
        fields = with_shorthand(ConsumerSettings, each)
        settings = build(ConsumerSettings, fields, f"consumer {name}", findings)
        if settings is None:
            continue
        consumer = compact(name, settings)
        for key in consumer.keys:
            owner = owners.setdefault(key.digest, name)
            if owner != name:
                place = fields.entries["keys"].node.place
                findings.error(place, f"a key of {name} is one of {owner} as well", "give each a key of its own")
        if _cost_of(consumer.password) > MOST_COST:
            message = f"the password of {name} takes seconds to compare: its hash has a cost above {MOST_COST}"
            findings.warning(fields.entries["password"].node.place, message, "portico hash password makes another one")
        made.append(consumer)
    return Consumers(made)


def _cost_of(hashed: str) -> int:
    """Return the cost of a hash of bcrypt, or 0 for others."""
    return int(hashed[4:6]) if hashed.startswith("$2") else 0
