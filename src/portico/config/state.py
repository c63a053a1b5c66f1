"""Where the store is: what outlives requests and is the same for all workers, such as counters and quotas."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import Field, PlainSerializer, PlainValidator, SecretStr, WithJsonSchema, model_validator

from portico.config.addresses import Address, split_address
from portico.config.part import Part
from portico.config.values import NAME_PATTERN, BadValue, FilePath, FolderPath, Name, Positive, Secret, Size, text_of

_HINT: Final = "write lmdb, redis://127.0.0.1:6379/0, or rediss:// for TLS"
_SENTINEL_HINT: Final = "write redis+sentinel://one:26379,two:26379/mymaster/0"
_REDIS: Final = frozenset(("redis", "rediss", "valkey", "valkeys"))
_SENTINEL: Final = frozenset(("redis+sentinel", "rediss+sentinel"))
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379

SMALLEST: Final = 16 * 1024 * 1024
"""The smallest size that a store of one machine may have."""


class StoreUrl(NamedTuple):
    """What keeps the state, and where that is."""

    kind: Literal["lmdb", "redis", "sentinel"]
    hosts: tuple[Address, ...] = ()
    """The Redis, or the Sentinels that know which one it is."""
    master: str = ""
    """What the Sentinels call it."""
    database: int = 0
    tls: bool = False
    user: str = ""
    password: SecretStr | None = None

    def __str__(self) -> str:
        if self.kind == "lmdb":
            return "lmdb"
        scheme = ("rediss" if self.tls else "redis") + ("+sentinel" if self.kind == "sentinel" else "")
        user = f"{self.user}@" if self.user else ""
        master = f"/{self.master}" if self.master else ""
        return f"{scheme}://{user}{','.join(map(str, self.hosts))}{master}/{self.database}"


def parse_store(value: object) -> StoreUrl:
    """Return what `lmdb`, or the URL of a Redis, stands for. What is wrong is told without what may be a password."""
    if isinstance(value, StoreUrl):
        return value
    text = text_of(value)
    if text == "lmdb":
        return StoreUrl("lmdb")
    shown = repr(re.sub(r"//.*@", "//***@", text))
    scheme, _, rest = text.partition("://")
    if scheme not in _REDIS | _SENTINEL or re.fullmatch(r"[!-~]+", rest) is None or re.search(r"[?#]", rest):
        raise BadValue(f"{shown} is no store", _HINT)
    sentinel = scheme in _SENTINEL
    hint = _SENTINEL_HINT if sentinel else _HINT
    try:
        parts = urlsplit(text)
    except ValueError:
        raise BadValue(f"{shown} is no store", hint) from None
    who, _, where = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    hosts = tuple(_host(each, _SENTINEL_PORT if sentinel else _PORT) for each in where.split(","))
    path = parts.path.strip("/").split("/") if parts.path.strip("/") else []
    master = path.pop(0) if sentinel and path else ""
    database = path.pop(0) if path else "0"
    wrong = path or (len(hosts) > 1 and not sentinel) or (sentinel and re.fullmatch(NAME_PATTERN, master) is None)
    if wrong or None in hosts or re.fullmatch(r"\d{1,6}", database, re.ASCII) is None:
        raise BadValue(f"{shown} is no store", hint)
    return StoreUrl(
        "sentinel" if sentinel else "redis",
        tuple(host for host in hosts if host is not None),
        master,
        int(database),
        scheme.partition("+")[0] in ("rediss", "valkeys"),
        unquote(user),
        SecretStr(unquote(password)) if password else None,
    )


def _host(text: str, port: int) -> Address | None:
    """Return where a host is; None where the text cannot be one."""
    address = split_address(text) or split_address(f"{text}:{port}")
    return address if address is not None and address.host and 0 < address.port < 65536 else None


Store = Annotated[
    StoreUrl,
    PlainValidator(parse_store),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(lmdb|(redis|rediss|valkey|valkeys|redis\+sentinel|rediss\+sentinel)://.+)$",
            "examples": ["lmdb", "redis://127.0.0.1:6379/0", "rediss://redis.internal"],
        }
    ),
]


class State(Part):
    """Where state is kept that all workers share: counters, quotas, answers that are kept, and records of requests that
    must not be carried out twice. A text stands for `store`."""

    store: Annotated[Store, Field(json_schema_extra={"default": "lmdb"})] = StoreUrl("lmdb")
    """`lmdb` is this machine, and needs nothing else; with `redis://host:port/database` it is a Redis or a Valkey, that
    several machines can share. `rediss://` speaks TLS; `redis+sentinel://one:26379,two:26379/name/database` asks
    Sentinels which Redis it is. A user may stand before the host."""
    path: FolderPath | None = None
    """With `lmdb`, the folder of what has to last, such as quotas; it is made where it is not there. Without one it is
    in memory, and lasts until the machine ends. What may be made anew is in memory in any case."""
    size: Annotated[Size, Field(ge=SMALLEST)] = 32 * 1024 * 1024
    """With `lmdb`, the most bytes of what may be made anew, and of what has to last. Where they are full, what would
    expire first goes."""
    password: Secret | None = None
    """The password of the Redis; better `${file:...}` than in the file itself."""
    ca: FilePath | None = None
    """A file with the authorities that must have signed its certificate; those of the system otherwise."""
    prefix: Name = "portico"
    """What the keys in a Redis begin with: gateways with the same one share what they count."""
    timeout: Annotated[Positive, Field(le=10.0)] = 0.25
    """How long a Redis may take to answer; then it counts as down for this request."""

    @model_validator(mode="after")
    def _of_one_kind(self) -> State:
        local = self.store.kind == "lmdb"
        keys = ("ca", "password", "prefix", "timeout") if local else ("path", "size")
        vain = [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]
        if vain:
            what = "lmdb" if local else "a Redis"
            raise BadValue(f"{' and '.join(vain)} cannot be said of {what}", "leave it out, or give another store")
        if self.password is not None and self.store.password is not None:
            raise BadValue("there are two passwords", "leave the one in the URL out")
        if self.ca is not None and not self.store.tls:
            raise BadValue("there is a ca, and no TLS", "write rediss://, or leave it out")
        return self
