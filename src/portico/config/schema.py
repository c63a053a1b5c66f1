"""The shape of a configuration: frozen models, whose field docstrings are its documentation.

What stands in a file and what comes out of it have the same names. Fields that no file has (where something stands,
what a route ends in) are given by the loader; they are marked NotInFile.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationInfo, field_validator

from portico.config.addresses import LOCAL_NETWORKS, Address, Cidr, HttpUrl, ListenAddress, TargetAddress
from portico.config.forms import NotInFile, Off, OneOrMany, Shorthand, is_off
from portico.config.values import (
    BadValue,
    Count,
    Duration,
    HeaderName,
    HostPattern,
    Method,
    Name,
    PathText,
    Size,
    ValueCondition,
    Whole,
)

StageName = Literal["observe", "guard", "authenticate", "authorize", "limit", "cache", "transform"]

Positive = Annotated[Duration, Field(gt=0)]
PositiveOrOff = Annotated[Positive | None, Off()]


class Part(BaseModel):
    """A part of the configuration. Parts are equal when they say the same, wherever they say it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._said() == other._said()

    __hash__ = None  # type: ignore[assignment]

    def _said(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "origin"}


class Listener(Part):
    """Where clients connect."""

    address: ListenAddress
    """`host:port`, `[v6]:port`, or `:port` for every interface."""


class Target(Part):
    """One of the places where a service runs."""

    address: TargetAddress
    """`host:port`, or `https://host:port` to speak TLS to it."""
    weight: Count = 1
    """How large its share of the requests is, compared with the other targets."""

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


class Timeout(Part):
    """How long a service may take; each of them may be `off`."""

    connect: PositiveOrOff = 5.0
    """For a connection to be made, TLS included."""
    first_byte: PositiveOrOff = 30.0
    """From the end of the request to the head of the answer."""
    idle: PositiveOrOff = 60.0
    """Between two pieces of the answer's body."""
    total: PositiveOrOff = None
    """For everything, from the first attempt to the last byte; none unless given."""


def _not_off(value: object) -> object:
    if is_off(value):
        raise BadValue("this does not say which", "write {connect: off, first_byte: off, idle: off, total: off}")
    return value


class Keepalive(Part):
    """How long connections to a service are kept for the next request."""

    max_idle: Count = 256
    """How many unused connections each worker keeps to a target."""
    idle: Positive = 60.0
    """How long an unused connection is kept."""


class PolicyUse(Part):
    """A policy in the list of the file, of a service or of a route."""

    name: Name
    """What it is called: the same name at a narrower scope replaces it. The kind, unless the file says otherwise."""
    kind: str
    """Which policy it is."""
    config: SerializeAsAny[BaseModel] | None = None
    """Its settings; None where it is switched off."""
    stage: StageName | None = None
    """Where in the chain it stands, where that is not the policy's default."""
    off: bool = False
    """Whether this removes the policy of that name from a wider scope."""
    origin: Annotated[str, NotInFile()] = ""
    """Where it is written: `file:line:column`."""


Policies = tuple[PolicyUse, ...]


class Service(Part):
    """What requests are sent to. A text stands for its `url`."""

    url: HttpUrl | None = None
    """Where it is: `http(s)://host[:port][/path]`; requests go below the path. Either this or `targets`."""
    targets: Annotated[tuple[Annotated[Target, Shorthand("address")], ...], Field(validate_default=True)] = ()
    """The places where it runs: `host:port`, or a mapping of `address` and `weight`."""
    timeout: Annotated[Timeout, Shorthand("total"), BeforeValidator(_not_off)] = Timeout()
    """How long it may take; a single duration is `total`."""
    max_connections: Count = 1024
    """How many connections each worker may have to each target; requests beyond that are answered 503."""
    keepalive: Annotated[Keepalive | None, Off()] = Keepalive()
    """How long connections are kept for the next request; `off` makes a new one each time."""
    policies: Policies = ()
    """Policies around every request to this service."""
    origin: Annotated[str, NotInFile()] = ""
    """Where it is written: `file:line:column`."""

    @property
    def base_path(self) -> str:
        """The path of its URL, which all requests go below."""
        return self.url.path if self.url is not None else ""

    @field_validator("targets")
    @classmethod
    def _one_way_to_say_where(cls, targets: tuple[Target, ...], info: ValidationInfo) -> tuple[Target, ...]:
        """Make the URL the one target, so that whoever reads a Service has one thing to look at."""
        if "url" not in info.data:  # it is wrong, and that was said
            return targets
        url = info.data["url"]
        if url is None:
            if not targets:
                raise BadValue("nothing says where it is", "give it a url: http://host:port, or targets: [host:port]")
            return targets
        only = (Target(address=url._replace(path="")),)
        if targets not in ((), only):
            raise BadValue("the service has a url as well", "keep one of them")
        return only


class EndpointUse(Part):
    """What a route ends in."""

    kind: str
    """Which endpoint it is."""
    config: SerializeAsAny[BaseModel]
    """Its settings."""
    origin: Annotated[str, NotInFile()] = ""
    """Where it is written: `file:line:column`."""


Conditions = dict[str, ValueCondition]


class Route(Part):
    """Which requests are meant, and what becomes of them."""

    name: Annotated[Name, Field(validate_default=False)] = ""
    """What logs and metrics call it; made from its first path unless given."""
    path: Annotated[tuple[PathText, ...], Field(min_length=1), OneOrMany()] = ("/**",)
    """The path, or paths, of the requests."""
    hosts: Annotated[tuple[HostPattern, ...], Field(min_length=1, validate_default=False), OneOrMany()] = ()
    """The hosts that the requests are for, such as `api.example.com` or `*.example.com`; all unless given."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1, validate_default=False), OneOrMany()] = ()
    """The methods of the requests; all unless given."""
    headers: dict[HeaderName, ValueCondition] = {}
    """What headers must be: a text, `~` and a regular expression, `true` for present or `false` for absent."""
    query: Conditions = {}
    """What query parameters must be, in the same words."""
    cookies: Conditions = {}
    """What cookies must be, in the same words."""
    priority: Whole = 0
    """Decides between routes that match the same request equally well; the higher wins."""
    max_body: Size | None = None
    """The most bytes that a request's body may have, where that is not `limits.body`."""
    policies: Policies = ()
    """Policies around this route alone."""
    endpoint: Annotated[EndpointUse, NotInFile()]
    """What it ends in; in the file a key named after the kind, such as `service`."""
    origin: Annotated[str, NotInFile()] = ""
    """Where it is written: `file:line:column`."""


class Limits(Part):
    """What a client may send, and for how long; whatever is beyond is refused before it can do harm."""

    request_head: Size = 32 * 1024
    """The most bytes of a request line and its headers together; beyond it the answer is 431."""
    request_target: Size = 8 * 1024
    """The most bytes of a path and its query; beyond it the answer is 414."""
    header_count: Count = 100
    """The most headers of a request; beyond it the answer is 431."""
    body: Size = 100 * 1024 * 1024
    """The most bytes of a request's body; beyond it the answer is 413. A route's `max_body` overrides it."""
    head_timeout: Positive = 30.0
    """How long a client may take to send the head of a request, from its first byte."""
    body_timeout: Positive = 30.0
    """How long a client may pause between two pieces of a body."""
    keepalive_timeout: Positive = 75.0
    """How long a connection is kept without a request."""
    connections: Count = 10_000
    """The most connections that clients may have to each worker."""
    requests_per_connection: Count = 10_000
    """After how many requests a connection is closed."""
    response_head: Size = 64 * 1024
    """The most bytes of a service's status line and headers together; beyond it the client is answered 502."""


class Health(Part):
    """Who is told by `/health` how each service is."""

    allow: tuple[Cidr, ...] = LOCAL_NETWORKS
    """The networks that are told of the services; everyone else is told the summary alone. Loopback, private and
    link-local ones unless given."""


class PathRules(Part):
    """How the path of a request is read before a route is looked for."""

    encoded_slashes: Literal["keep", "decode", "reject"] = "keep"
    """What `%2F` is: kept as it is, decoded to a slash, or refused with 400."""


class Config(Part):
    """A whole configuration."""

    listen: Annotated[tuple[Annotated[Listener, Shorthand("address")], ...], Field(min_length=1), OneOrMany()] = (
        Listener(address=Address("127.0.0.1", 8000)),
    )
    """Where clients connect: an address, a mapping, or a list of them."""
    workers: Count | Literal["auto"] = "auto"
    """How many processes serve; `auto` is one for each core."""
    services: dict[str, Annotated[Service, Shorthand("url")]] = {}
    """What requests can be sent to, by name."""
    policies: Policies = ()
    """Policies around every request."""
    routes: tuple[Route, ...] = ()
    """Which requests are answered, and how."""
    plugins: tuple[str, ...] = ()
    """Python files, or modules, with policies and endpoints of your own."""
    limits: Limits = Limits()
    """What a client may send."""
    health: Health = Health()
    """Who is told how each service is."""
    path: PathRules = PathRules()
    """How the path of a request is read."""
    shutdown_timeout: Duration = 30.0
    """How long requests under way may take to end when the gateway stops."""

    @field_validator("listen")
    @classmethod
    def _each_address_once(cls, listen: tuple[Listener, ...]) -> tuple[Listener, ...]:
        seen: set[Address] = set()
        for address in (listener.address for listener in listen):
            if address in seen:
                raise BadValue(f"the address {address} is there twice", "keep one of them")
            if address.port:  # port 0 is another one each time
                seen.add(address)
        return listen
