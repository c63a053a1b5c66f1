"""Where a service runs, and which of its targets gets the next request."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from portico.config.addresses import DEFAULT_PORTS, Address, SrvName, TargetAddress, Url
from portico.config.forms import Off, Shorthand, Yes
from portico.config.part import Part
from portico.config.values import (
    BadValue,
    Count,
    FilePath,
    HeaderName,
    HeaderValue,
    Name,
    Positive,
    PositiveOrOff,
    Secret,
    Share,
    StatusCode,
    Token,
    Whole,
    not_framing,
)

MAX_TARGETS: Final = 5000
"""The most targets of a service that is found out: beyond that, something else was found."""

MAX_METADATA: Final = 32
"""The most entries of a target's metadata."""

METADATA_LENGTH: Final = 256
"""The most characters of a key, and of a value, there."""

SHORTEST_INTERVAL: Final = 0.1
"""Seconds that are between two looks at a target at least."""

ContentHeaderName = Annotated[HeaderName, AfterValidator(not_framing)]
"""A header that says nothing of how a message is framed, or of its connection."""


class Target(Part):
    """One of the places where a service runs. A text stands for its `address`."""

    address: TargetAddress
    """`host:port`, or `https://host:port` to speak TLS to it."""
    weight: Count = 1
    """How large its share of the requests is, compared with the other targets."""
    priority: Annotated[Whole, Field(ge=0)] = 0
    """Its group: those of the lowest number are asked, the next ones while none of them is well."""
    metadata: dict[Name, str] = Field(default_factory=dict)
    """What is to be known of it, such as its zone; `portico status` shows it. Up to 32 entries of 256 characters."""

    @field_validator("metadata")
    @classmethod
    def _little_metadata(cls, metadata: dict[str, str]) -> dict[str, str]:
        if len(metadata) > MAX_METADATA:
            raise BadValue(f"{len(metadata)} entries are more than {MAX_METADATA}", "keep what is asked for")
        if any(max(len(key), len(value)) > METADATA_LENGTH for key, value in metadata.items()):
            raise BadValue(f"an entry is longer than {METADATA_LENGTH} characters", "keep what is asked for")
        return metadata

    @property
    def scheme(self) -> Literal["http", "https"]:
        """`https` where TLS is spoken to it."""
        return self.address.scheme

    @property
    def host(self) -> str:
        """Its name or address."""
        return self.address.host

    @property
    def port(self) -> int:
        """Its port."""
        return self.address.port

    @property
    def server_name(self) -> str:
        """The name that it is asked for by TLS, and that its certificate must have, unless the service says another."""
        return self.host

    @property
    def authority(self) -> str:
        """The `Host` that it is sent: its name, with the port where that is not the scheme's own."""
        address = Address(self.server_name, self.port)
        return str(address).rpartition(":")[0] if self.port == DEFAULT_PORTS[self.scheme] else str(address)

    def __str__(self) -> str:
        """Return it as the log and `portico status` call it: `host:port`."""
        return str(Address(self.host, self.port))


class NamedTarget(Target):
    """A target that was found by a name: connections go to its address, `Host` and its certificate have the name."""

    name: str
    """The name."""

    @property
    def server_name(self) -> str:
        """The name that it was found by."""
        return self.name


class HashKey(Part):
    """What says which requests go to the same target: one of these. A text stands for `by`."""

    by: Literal["address", "consumer"] | None = None
    """The client's address, or who it is known to be (its user)."""
    header: HeaderName | None = None
    """A header's value."""
    cookie: Token | None = None
    """A cookie's value."""
    query: str | None = None
    """A query parameter's value."""
    capture: Name | None = None
    """What a name in the route's path has matched."""

    @model_validator(mode="before")
    @classmethod
    def _exactly_one(cls, given: Any) -> Any:
        if isinstance(given, dict) and len([key for key in given if given[key] is not None]) != 1:
            raise BadValue("one thing says which target", "write hash: {header: X-User}, or hash: address")
        return given


class Sticky(Part):
    """Keeps a client at one target, by a cookie that it cannot forge. A text stands for its `secret`."""

    secret: Secret
    """What the cookie is signed with, from 16 bytes: write `${STICKY_SECRET}`, and give all gateways the same."""
    cookie: Token = "portico-target"
    """The name of the cookie."""
    max_age: PositiveOrOff = None
    """How long the client keeps it; until its browser ends unless given."""

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secret: Secret) -> Secret:
        if len(secret.get_secret_value().encode()) < 16:
            raise BadValue("the secret is shorter than 16 bytes", "make one with: openssl rand -hex 16")
        return secret


Algorithm = Literal["round-robin", "least-request", "peak-ewma", "random", "consistent-hash"]


class Balance(Part):
    """Which target gets the next request. A text stands for its `algorithm`.

    ```yaml
    services:
      orders:
        targets: [{address: "127.0.0.1:9002", weight: 5}, 127.0.0.1:9012]
        balance: least-request
      carts:
        targets: [127.0.0.1:9003, 127.0.0.1:9013]
        balance: {hash: {header: X-User}}
      files:
        targets: [127.0.0.1:9004, 127.0.0.1:9014]
        balance: {algorithm: peak-ewma, slow_start: 30s}
    routes:
      - {path: /orders/**, service: orders}
      - {path: /carts/**, service: carts}
      - {path: /files/**, service: files}
    ```
    """

    algorithm: Algorithm = "round-robin"
    """`round-robin` takes turns, the heavy ones' spread out (as nginx does it); `random` draws lots; `least-request`
    takes the one of two at random that has fewer requests under way (as Envoy does it); `peak-ewma` the one of two
    that has answered faster of late, weighed by its requests under way (as Finagle and Linkerd do it);
    `consistent-hash` always the same one for the same key, of which few move when a target comes or goes. All of them
    keep to the weights."""
    hash: Annotated[HashKey, Shorthand("by")] | None = None
    """What the key of `consistent-hash` is, which need not be written then. A request without it takes turns."""
    sticky: Annotated[Annotated[Sticky, Shorthand("secret")] | None, Off()] = None
    """Keeps each client at the target of its first request, for as long as that one is well."""
    slow_start: PositiveOrOff = None
    """How long a target that is new, or well again, takes to come to its full share, from a tenth of it on."""
    panic: Annotated[Share | None, Off(), Yes(1e-9)] = None
    """Below which share of healthy targets all of them are asked, well or not, as Envoy does it; `true` where none is
    healthy. Unless given, such a request is answered 503."""

    @model_validator(mode="before")
    @classmethod
    def _a_key_means_hashing(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("hash") is not None:
            return {"algorithm": "consistent-hash", **given}
        return given

    @field_validator("hash")
    @classmethod
    def _hash_and_key(cls, key: HashKey | None, info: ValidationInfo) -> HashKey | None:
        algorithm = info.data.get("algorithm")
        if key is not None and algorithm not in (None, "consistent-hash"):
            raise BadValue(f"{algorithm} has no key", "leave out the hash, or the algorithm")
        return key

    @model_validator(mode="after")
    def _hashing_needs_a_key(self) -> Balance:
        if self.algorithm == "consistent-hash" and self.hash is None:
            raise BadValue("nothing says what is hashed", "write balance: {hash: {header: X-User}}")
        return self


class Discover(Part):
    """Where the targets of a service are found out, again and again. One of `dns`, `srv` and `file`.

    ```yaml
    services:
      orders:
        discover: {dns: "orders.internal:8080"}
      carts:
        discover: {srv: _http._tcp.carts.internal, resolver: "127.0.0.1:5353"}
      files:
        discover: {file: targets/files.yaml}
    routes:
      - {path: /orders/**, service: orders}
      - {path: /carts/**, service: carts}
      - {path: /files/**, service: files}
    ```

    The answers of DNS are asked for again when their time (TTL) is over. The file is a list of targets as `targets`
    has them, in YAML or JSON, and is read again when it changes. When the targets cannot be found out, the last ones
    that were stay, and the log and `portico status` say why.
    """

    dns: TargetAddress | None = None
    """A name and a port, `orders.internal:8080` or `https://orders.internal:8443`: each of its addresses (A, AAAA) is
    a target."""
    srv: SrvName | None = None
    """A name with SRV records (RFC 2782), `_http._tcp.orders.internal`: they say host, port, priority and weight."""
    file: FilePath | None = None
    """A file with a list of targets."""
    scheme: Literal["http", "https"] = "http"
    """Whether TLS is spoken with the targets of `srv`."""
    resolver: Annotated[TargetAddress | None, Field(examples=["127.0.0.1:53"])] = None
    """The DNS server that is asked; those of the system unless given."""
    interval: Positive = 1.0
    """The shortest time between two looks: of an answer of DNS with a shorter TTL, and of the file."""
    max_interval: Positive = 300.0
    """The longest time between two looks, whatever the TTL says."""

    @model_validator(mode="before")
    @classmethod
    def _exactly_one(cls, given: Any) -> Any:
        ways = [key for key in ("dns", "srv", "file") if isinstance(given, dict) and given.get(key) is not None]
        if isinstance(given, dict) and len(ways) != 1:
            raise BadValue("one of dns, srv and file says where the targets are", "write discover: {dns: orders:8080}")
        return given

    @field_validator("resolver")
    @classmethod
    def _plain_dns(cls, resolver: Url | None) -> Url | None:
        if resolver is not None and resolver.scheme == "https":
            raise BadValue("DNS is asked by UDP and TCP, not by HTTPS", "write 127.0.0.1:53")
        return resolver

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Discover:
        said = self.model_fields_set
        if "scheme" in said and self.srv is None:
            hint = "write it before the addresses in the file" if self.dns is None else "write dns: https://host:port"
            raise BadValue("scheme is for the targets of srv", hint)
        if self.file is not None and (vain := sorted(said & {"resolver", "max_interval"})):
            raise BadValue(f"a file has no use for {vain[0]}", f"leave out {vain[0]}")
        if "max_interval" in said and self.max_interval < self.interval:
            raise BadValue("max_interval is shorter than interval", "leave out max_interval, or make it longer")
        return self

    @property
    def may_speak_tls(self) -> bool:
        """Whether TLS is spoken with any of its targets, as far as can be said."""
        scheme = self.scheme if self.dns is None else self.dns.scheme
        return self.file is not None or scheme == "https"

    @property
    def source(self) -> str:
        """What it is, in few words: where targets are from."""
        if self.dns is not None:
            return f"dns {str(self.dns).removeprefix('http://')}"
        if self.srv is not None:
            return f"srv {self.srv}" if self.scheme == "http" else f"srv {self.srv} (https)"
        return f"file {self.file}"


class HealthCheck(Part):
    """How the agent finds out, once for the whole machine, whether a target is well. A text stands for its `path`.

    ```yaml
    services:
      orders:
        targets: [127.0.0.1:9002, 127.0.0.1:9012]
        health: {path: /health, interval: 1s, fall: 2}
      mail:
        targets: [127.0.0.1:9005]
        health: {tcp: true}
    routes:
      - {path: /orders/**, service: orders}
      - {path: /mail/**, service: mail}
    ```

    A target that was never looked at is taken for well; the first look at it decides at once, whatever `rise` and
    `fall` say.
    """

    path: Annotated[str, Field(pattern=r'^/[!"$-~]*$')] | None = None
    """The path, and query, that is asked for by GET."""
    tcp: bool = False
    """Whether a connection that is accepted (TLS included) is enough."""
    statuses: tuple[StatusCode, ...] = ()
    """The statuses of a target that is well; 200 to 299 unless given."""
    host: HeaderValue | None = None
    """The `Host` of the request; the target's own unless given."""
    headers: dict[ContentHeaderName, HeaderValue] = Field(default_factory=dict)
    """Further headers of the request."""
    interval: Positive = 5.0
    """The time between two looks at a target, spread by a tenth either way; at least 100 ms."""
    timeout: Positive = 2.0
    """How long a look may take."""
    rise: Count = 2
    """How many looks in a row have to go well until a target that was not well is well again."""
    fall: Count = 3
    """How many have to go wrong until it is not well any more."""

    @field_validator("headers")
    @classmethod
    def _host_has_its_key(cls, headers: dict[str, str]) -> dict[str, str]:
        if any(name.lower() == "host" for name in headers):
            raise BadValue("Host has a key of its own", "write it as host, beside headers")
        return headers

    @field_validator("interval")
    @classmethod
    def _not_all_the_time(cls, interval: float) -> float:
        if interval < SHORTEST_INTERVAL:
            raise BadValue(f"looks are at least {SHORTEST_INTERVAL * 1000:g} ms apart", "write interval: 100ms")
        return interval

    @model_validator(mode="after")
    def _one_way(self) -> HealthCheck:
        if (self.path is None) == (not self.tcp):
            raise BadValue("either a path is asked for or a connection is enough", "write health: {path: /health}")
        if self.tcp and (vain := sorted(self.model_fields_set & {"statuses", "host", "headers"})):
            raise BadValue(f"where a connection is enough, {vain[0]} says nothing", "leave it out, or give it a path")
        return self


class Outliers(Part):
    """When a target is taken out for a while by what its answers were like (as Envoy's outlier detection).

    ```yaml
    services:
      orders:
        targets: [127.0.0.1:9002, 127.0.0.1:9012]
        outliers: {failures: 3, ejection: 5s}
    routes:
      - {path: /orders/**, service: orders}
    ```

    Each worker finds out for itself. A target that has refused a connection is out at once.
    """

    failures: Count = 5
    """How many answers in a row have to be failures: 500 to 599, none in time, or a connection that broke off."""
    ejection: Positive = 10.0
    """How long it is out the first time; each time in a row that much longer."""
    max_ejection: Positive = 300.0
    """The longest that it is out."""
    max_ejected: Share = 0.5
    """How many of the targets may be out at the same time, rounded down; so a lone target never is."""
