"""The shape of a configuration: frozen models, whose field docstrings are its documentation.

What stands in a file and what comes out of it have the same names. Fields that no file has (where something stands,
what a route ends in) are given by the loader; they are marked NotInFile.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Final, Literal

from pydantic import (
    BaseModel,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from portico.config.access_log import AccessLog, RouteAccessLog
from portico.config.addresses import EVERYONE, LOCAL_NETWORKS, Address, Cidr, ListenAddress
from portico.config.consumer_database import ConsumerDatabase
from portico.config.consumers import Consumers, ConsumerSettings
from portico.config.errors import Errors
from portico.config.forms import NotInFile, Off, OneOrMany, Shorthand, Yes
from portico.config.part import Part
from portico.config.policy_use import Policies
from portico.config.state import State
from portico.config.tls import ListenerTls
from portico.config.tracing import Recorder, Tracing
from portico.config.upstream import Service
from portico.config.values import (
    BadValue,
    Count,
    Duration,
    HeaderName,
    HostPattern,
    Method,
    Name,
    PathText,
    Port,
    Positive,
    PositiveOrOff,
    Share,
    Size,
    Token,
    ValueCondition,
    Whole,
)
from portico.observe.metrics import BUCKETS

_PORT_OF_FIRST_TLS: Final = 0
"""What stands for the port of the first listener with TLS until all listeners are known; no file can give it."""


class Listener(Part):
    """Where clients connect."""

    address: ListenAddress
    """`host:port`, `[v6]:port`, or `:port` for every interface."""
    tls: ListenerTls | None = None
    """How TLS is spoken with clients; they speak plain HTTP unless it is there."""
    proxy_protocol: Annotated[
        Annotated[tuple[Cidr, ...], Field(min_length=1), OneOrMany()] | None, Off(), Yes(EVERYONE)
    ] = None
    """The networks of the load balancers that connect here, or `true` for any. Each of their connections must begin
    with a header of the PROXY protocol, version 1 or 2, which says who the client is; connections from elsewhere are
    closed. Not spoken unless given."""
    redirect_https: Annotated[Port | None, Off(), Yes(_PORT_OF_FIRST_TLS)] = None
    """Answers every request here, those to `/health` and the like included, with a redirect (308) to the same URL with
    `https` and this port, without any policies; `true` is the port of the first listener that has `tls`. Only what one
    of `trusted_proxies` has received over https is served."""
    origin: Annotated[str, NotInFile()] = ""
    """Where it is written: `file:line:column`."""

    @field_validator("redirect_https")
    @classmethod
    def _to_another_listener(cls, port: int | None, info: ValidationInfo) -> int | None:
        if port is not None and info.data.get("tls") is not None:
            raise BadValue("this listener has tls itself", "leave one out, or give plain HTTP a listener of its own")
        return port


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
    headers: dict[HeaderName, ValueCondition] = Field(default_factory=dict)
    """What headers must be: a text, `~` and a regular expression, `true` for present or `false` for absent."""
    query: Conditions = Field(default_factory=dict)
    """What query parameters must be, in the same words."""
    cookies: Conditions = Field(default_factory=dict)
    """What cookies must be, in the same words."""
    priority: Whole = 0
    """Decides between routes that match the same request equally well; the higher wins."""
    max_body: Size | None = None
    """The most bytes that a request's body may have, where that is not `limits.body`."""
    sample: Share | None = None
    """Which share of its traces is recorded, where that is not `tracing.sample`."""
    policies: Policies = ()
    """Policies around this route alone."""
    errors: Annotated[Errors, Shorthand("shape")] | None = None
    """How its problems are written, where that is not as its service or the file has it."""
    access_log: Annotated[RouteAccessLog, Shorthand("level")] | None = None
    """Which of its requests have a line in the access log, where that is not as the file has it."""
    endpoint: Annotated[EndpointUse, NotInFile()]
    """What it ends in; in the file a key named after the kind, such as `service`."""
    origin: Annotated[str, NotInFile()] = ""
    """Where it is written: `file:line:column`."""


class Limits(Part):
    """What a client may send, what a service may answer, and for how long; whatever is beyond is refused before it can
    do harm."""

    request_head: Annotated[Size, Field(ge=256)] = 32 * 1024
    """The most bytes of a request line and its headers together; beyond it the answer is 431."""
    request_target: Annotated[Size, Field(ge=16)] = 8 * 1024
    """The most bytes of a path and its query; beyond it the answer is 414."""
    header_count: Count = 100
    """The most headers of a request; beyond it the answer is 431."""
    body: Size = 100 * 1024 * 1024
    """The most bytes of a request's body; beyond it the answer is 413. A route's `max_body` overrides it."""
    chunk_line: Annotated[Size, Field(ge=16)] = 256
    """The most bytes of the line that begins a chunk: its size and its extensions. A request beyond it is answered 400;
    a service's answer beyond it is malformed."""
    trailers: Size = 8 * 1024
    """The most bytes of the headers that follow a chunked body (its trailers). A request beyond it is answered 400; a
    service's answer beyond it is malformed."""
    handshake_timeout: Positive = 10.0
    """How long a new connection may take before HTTP begins: for the header of the PROXY protocol and the TLS handshake
    together."""
    head_timeout: Positive = 30.0
    """How long a client may take to send the head of a request, from its first byte."""
    body_timeout: Positive = 30.0
    """How long a client may pause between two pieces of a body."""
    write_timeout: Positive = 30.0
    """How long a client may leave what it was sent unread; then its connection is cut. (`body_timeout` served for this,
    too, before there was this limit.)"""
    keepalive_timeout: Positive = 75.0
    """How long a connection is kept without a request."""
    tunnel_timeout: PositiveOrOff = 600.0
    """How long a connection that was upgraded, such as a WebSocket, may be silent in both directions; or `off`."""
    connections: Count = 10_000
    """The most connections that clients may have to each worker."""
    requests_per_connection: Count = 10_000
    """After how many requests a connection is closed."""
    response_head: Annotated[Size, Field(ge=256)] = 64 * 1024
    """The most bytes of a service's status line and headers together; beyond it the client is answered 502."""
    response_header_count: Count = 1000
    """The most headers of a service's answer; beyond it the client is answered 502."""


class Forwarded(Part):
    """What services are told of the client, and in which words. A text stands for its `headers`."""

    headers: Literal["x-forwarded", "forwarded", "both"] = "x-forwarded"
    """Which headers say who the client is, and what it asked for: `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`, or
    `Forwarded` (RFC 7239), or both. The same ones are believed of `trusted_proxies`; with both, `X-Forwarded-*`."""
    via: Annotated[Token | None, Off()] = "portico"
    """What the gateway calls itself in `Via` (RFC 9110, section 7.6.3); `off` sends no `Via`."""


class Health(Part):
    """Who is told by `/health` how each service is."""

    allow: tuple[Cidr, ...] = LOCAL_NETWORKS
    """The networks that are told of the services; everyone else is told the summary alone. Loopback, private and
    link-local ones unless given."""


class Metrics(Part):
    """What `/metrics` tells, in the text formats of Prometheus and OpenMetrics, and whom."""

    allow: tuple[Cidr, ...] = LOCAL_NETWORKS
    """The networks that are told; everyone else is answered 403. Loopback, private and link-local ones unless given. A
    load balancer counts by its own address, unless it is one of `trusted_proxies`."""
    buckets: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=50)] = BUCKETS
    """The upper bounds of what tells how long requests took, each greater than the one before."""
    limit: Annotated[Count, Field(le=20_000)] = 10_000
    """The most series of requests that each worker has: `http_requests_total` by method, endpoint, status and service,
    and `http_request_duration_seconds`. Those that would be more are counted as endpoint `other`."""

    @field_validator("buckets")
    @classmethod
    def _in_order(cls, buckets: tuple[float, ...]) -> tuple[float, ...]:
        for lower, upper in pairwise(buckets):
            if lower >= upper:
                raise BadValue(f"{upper:g}s comes after {lower:g}s", "write each bound once, the smallest first")
        return buckets


class Log(Part):
    """What the gateway's processes write to standard error: what they do, what goes wrong, whom they refuse. A text
    stands for its `format`."""

    format: Literal["text", "json"] = "text"
    """Lines of text, or of JSON: `timestamp`, `level`, `logger`, `process`, `pid`, `message`, and `exception` where
    there is one."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written. Case makes no difference, as it often comes from the environment."""

    @field_validator("level", mode="before")
    @classmethod
    def _in_lower_case(cls, level: object) -> object:
        return level.lower() if isinstance(level, str) else level


class Status(Part):
    """Where the gateway tells how it is, beside the socket that `portico status` asks. A text stands for `listen`."""

    listen: ListenAddress
    """A loopback address, such as `127.0.0.1:9901`: `GET /status` there is answered in JSON."""

    @field_validator("listen")
    @classmethod
    def _not_for_everyone(cls, listen: Address) -> Address:
        if not listen.is_loopback:
            raise BadValue(f"{listen} can be reached from elsewhere", f"write 127.0.0.1:{listen.port or 9901}")
        return listen


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
    services: dict[str, Annotated[Service, Shorthand("url")]] = Field(default_factory=dict)
    """What requests can be sent to, by name."""
    consumers: Consumers[ConsumerSettings] = Field(default_factory=Consumers)
    """Who calls, by name: see [consumers](#consumers)."""
    consumer_database: Annotated[ConsumerDatabase, Shorthand("file")] | None = None
    """A database with more of them; none unless given."""
    policies: Policies = ()
    """Policies around every request."""
    routes: tuple[Route, ...] = ()
    """Which requests are answered, and how."""
    errors: Annotated[Errors, Shorthand("shape")] | None = None
    """How problems are written for clients."""
    plugins: tuple[str, ...] = ()
    """Python files, or modules, with policies and endpoints of your own."""
    limits: Limits = Limits()
    """What a client may send, and what a service may answer."""
    trusted_proxies: Annotated[tuple[Cidr, ...], OneOrMany()] = ()
    """The networks of the proxies and load balancers in front of the gateway, whose `X-Forwarded-*` (or `Forwarded`)
    are believed and added to; from everyone else they are replaced. One, or a list."""
    forwarded: Annotated[Forwarded, Shorthand("headers")] = Forwarded()
    """What services are told of the client."""
    health: Health = Health()
    """Who is told how each service is."""
    metrics: Annotated[Metrics | None, Off()] = Metrics()
    """What is told of requests at `/metrics`, and whom; `off` counts nothing, and has no such path."""
    access_log: Annotated[Annotated[AccessLog, Shorthand("file")] | None, Off()] = None
    """The log of requests; none unless given. `{}` writes one to standard output."""
    log: Annotated[Log, Shorthand("format")] = Log()
    """What the processes say of themselves."""
    tracing: Annotated[Tracing | None, Off(), Yes(Tracing())] = None
    """Whether requests have a place in a trace, and where that is recorded; nothing is traced unless given. `true` is
    all of its defaults."""
    recorder: Annotated[Annotated[Recorder, Shorthand("keep")] | None, Off()] = Recorder()
    """What is remembered of the last requests, for `portico why` and `portico tail`; or `off`."""
    path: PathRules = PathRules()
    """How the path of a request is read."""
    state: Annotated[State, Shorthand("store")] = State()
    """Where counters, quotas and whatever else all workers share are kept."""
    shutdown_timeout: Duration = 30.0
    """How long requests under way may take to end when the gateway stops."""
    watch: bool = False
    """Whether the file is loaded again when it changes, or a file that it includes, takes a value from, or has as a
    plugin. SIGHUP and `portico reload` have it loaded again in any case."""
    watchdog: PositiveOrOff = 15.0
    """How long a worker may stand still, stopped or in an endless loop, before another takes its place; or `off`."""
    status: Annotated[Annotated[Status, Shorthand("listen")] | None, Off()] = None
    """Where to tell how the gateway is, beside the socket that `portico status` asks; nowhere unless given."""

    @field_validator("listen")
    @classmethod
    def _ports_of_redirects(cls, listen: tuple[Listener, ...]) -> tuple[Listener, ...]:
        """Give each redirect that is to lead to the first listener with TLS that one's port."""
        port = next((listener.address.port for listener in listen if listener.tls is not None), None)
        open_ones = [index for index, each in enumerate(listen) if each.redirect_https == _PORT_OF_FIRST_TLS]
        if open_ones and not port:
            raise _within([(index, "redirect_https") for index in open_ones], _no_port(port))
        return tuple(
            each.model_copy(update={"redirect_https": port}) if index in open_ones else each
            for index, each in enumerate(listen)
        )

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


def _no_port(port: int | None) -> BadValue:
    if port is None:
        return BadValue("no listener has tls", "give one tls: {certificate: ..., key: ...}, or write the port here")
    return BadValue("the listener with tls takes any free port", "give it a port, or write one here")


def _within(paths: Iterable[tuple[int | str, ...]], error: BadValue) -> ValidationError:
    """Return `error` as the verdict on what is further inside."""
    kind = PydanticCustomError("value_error", "{error}", {"error": error})
    details = [InitErrorDetails(type=kind, loc=path, input=None) for path in paths]
    return ValidationError.from_exception_data("listeners", details)
