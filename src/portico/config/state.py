"""Where the store is: what outlives requests and is the same for all workers, such as counters and quotas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from pydantic import Field, PlainSerializer, PlainValidator, SecretStr, WithJsonSchema, model_validator

from portico.config.addresses import Address, split_address
from portico.config.part import Part
from portico.config.values import NAME_PATTERN, BadValue, FilePath, FolderPath, Name, Positive, Secret, Size, text_of

_Kind: TypeAlias = Literal["lmdb", "redis", "sentinel", "cluster"]

_SCHEMES: Final[Mapping[str, tuple[_Kind, bool]]] = {
    "redis": ("redis", False),
    "rediss": ("redis", True),
    "valkey": ("redis", False),
    "valkeys": ("redis", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
"""What the beginning of a URL says: what is there, and whether it speaks TLS."""
_HINTS: Final[Mapping[_Kind, str]] = {
    "redis": "write lmdb, redis://127.0.0.1:6379/0, or rediss:// for TLS",
    "sentinel": "write redis+sentinel://one:26379,two:26379/mymaster/0",
    "cluster": "write redis+cluster://one:6379,two:6379",
}
_PATHS: Final[Mapping[_Kind, str]] = {
    "redis": r"(?:/(?P<database>\d{1,6})?)?",
    "sentinel": rf"/(?P<master>{NAME_PATTERN})(?:/(?P<database>\d{{1,6}})?)?",
    "cluster": r"/?",
}
"""What may stand behind the hosts."""
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379

SMALLEST: Final = 16 * 1024 * 1024
LARGEST: Final = 64 * 1024 * 1024 * 1024
"""The sizes that a store of one machine may have."""


class StoreUrl(NamedTuple):
    """What keeps the state, and where that is."""

    kind: _Kind
    hosts: tuple[Address, ...] = ()
    """The Redis, or the Sentinels that know which one it is, or some servers of the cluster."""
    master: str = ""
    """What the Sentinels call it."""
    database: int = 0
    tls: bool = False
    user: str = ""
    password: SecretStr | None = None

    def __str__(self) -> str:
        if self.kind == "lmdb":
            return "lmdb"
        scheme = ("rediss" if self.tls else "redis") + ("" if self.kind == "redis" else f"+{self.kind}")
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        master = f"/{self.master}" if self.master else ""
        database = "" if self.kind == "cluster" else f"/{self.database}"
        return f"{scheme}://{user}{','.join(map(str, self.hosts))}{master}{database}"


def parse_store(value: object) -> StoreUrl:
    """Return what `lmdb`, or the URL of a Redis, stands for. What is wrong is told without what may be a password."""
    if isinstance(value, StoreUrl):
        return value
    text = text_of(value)
    if text == "lmdb":
        return StoreUrl("lmdb")
    shown = repr(re.sub(r"//.*@", "//***@", text))
    scheme, _, rest = text.partition("://")
    kind, tls = _SCHEMES.get(scheme, ("redis", False))
    wrong = BadValue(f"{shown} is no store", _HINTS[kind])
    if scheme not in _SCHEMES or re.fullmatch(r"[!-~]+", rest) is None or re.search(r"[?#]", rest):
        raise wrong
    try:
        parts = urlsplit(text)
    except ValueError:
        raise wrong from None
    who, _, where = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    hosts = tuple(_host(each, _SENTINEL_PORT if kind == "sentinel" else _PORT) for each in where.split(","))
    path = re.fullmatch(_PATHS[kind], parts.path, re.ASCII)
    if path is None or None in hosts or (len(hosts) > 1 and kind == "redis"):
        raise wrong
    found = path.groupdict()
    return StoreUrl(
        kind,
        tuple(host for host in hosts if host is not None),
        found.get("master") or "",
        int(found.get("database") or 0),
        tls,
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
            "pattern": r"^(lmdb|(redis|rediss|valkey|valkeys|rediss?\+(sentinel|cluster))://.+)$",
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
    Sentinels which Redis it is, and `redis+cluster://one:6379,two:6379` is a cluster. A user may stand before the
    host."""
    path: FolderPath | None = None
    """With `lmdb`, the folder of what has to last, such as quotas; it is made where it is not there. Without one it is
    in memory, and lasts until the machine ends. What may be made anew is in memory in any case."""
    size: Annotated[Size, Field(ge=SMALLEST, le=LARGEST)] = 32 * 1024 * 1024
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
