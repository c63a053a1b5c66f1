"""What a policy is, what an endpoint is, and the order in which policies stand."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from portico.config.nearest import one_of
from portico.errors import ConfigError
from portico.http.body import BodySource
from portico.http.message import Handler, Request, Response
from portico.observe.health import ServiceHealth
from portico.policy.consumers import ConsumerLookup
from portico.state.board import Counter
from portico.state.purges import Purges
from portico.state.store import Store


class Closable(Protocol):
    """What can be leased: a value with an end."""

    def close(self) -> None:
        """Free what the value holds."""
        ...


Shared = TypeVar("Shared", bound=Closable)


class Stage(IntEnum):
    """Where in the chain a policy stands; from the outside in. The chain is the stable merge by stage."""

    OBSERVE = 1
    """Sees every request and every answer, also refused ones: correlation ids, timing, security headers."""
    GUARD = 2
    """Refuses before anyone is asked who they are: address lists, CORS preflights, sizes."""
    AUTHENTICATE = 3
    """Finds out who is calling."""
    AUTHORIZE = 4
    """Decides whether they may."""
    LIMIT = 5
    """Decides whether they may now: rates, quotas, concurrency."""
    CACHE = 6
    """Answers without the service."""
    TRANSFORM = 7
    """Changes what the service is sent, and what it sends back."""


class PolicyConfig(BaseModel):
    """The body of a policy or an endpoint in the file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


ConfigT = TypeVar("ConfigT", bound=PolicyConfig)


class RouteInfo(NamedTuple):
    """What a route's parts may know of it: its name, its path patterns as written, what each of them captures, and the
    methods that it takes."""

    name: str
    paths: tuple[str, ...]
    captures: Mapping[str, frozenset[str]] = MappingProxyType({})
    methods: tuple[str, ...] = ()
    """The methods that the route takes; none is any."""
    built_in: bool = False
    """Whether no file has written it: it is for probes, or answers what no route takes."""

    def check_captures(self, names: Iterable[str]) -> None:
        """Raise ConfigError where one of the paths has no capture of such a name, which would leave its place empty."""
        for name in sorted(names):
            for path, known in self.captures.items():
                if name not in known:
                    has = f"only {one_of(sorted(known), 'and')}" if known else "none"
                    raise ConfigError(f"{{{{ captures.{name} }}}} is no capture of the path {path}, which has {has}")


class Env(Protocol):
    """What a policy or an endpoint is given at load, in `setup`."""

    @property
    def logger(self) -> logging.Logger:
        """A logger that bears the name of this policy and its route."""
        ...

    @property
    def route(self) -> RouteInfo:
        """The route that this is set up for."""
        ...

    @property
    def place(self) -> str:
        """Where in the file this is, but for its lines: the same text for all routes around which a policy stands that
        is written once, and after a reload. Of what is kept in the store, it tells one policy's from another's."""
        ...

    def route_print(self) -> bytes:
        """Return what tells a route that takes these requests to this endpoint from any other, whatever it is
        called."""
        ...

    @property
    def consumers(self) -> ConsumerLookup:
        """The consumers of the file, and behind them those of its database."""
        ...

    @property
    def store(self) -> Store:
        """What all workers share, and what lasts: counters, quotas, values with a time to live. It is there from the
        time on at which something first asks for it; raises ConfigError where it cannot be."""
        ...

    @property
    def purges(self) -> Purges:
        """What was purged of what is kept in the store; whoever keeps answers asks it. Raises ConfigError as `store`
        does."""
        ...

    def clock(self) -> float:
        """Return the worker's monotonic time in seconds, as in `Request.deadline`."""
        ...

    def wall(self) -> float:
        """Return the time of day: the seconds since 1970 in UTC, as tokens and certificates have it. It may jump."""
        ...

    def counter(self, name: str, **labels: str) -> Counter:
        """Return what counts something over all workers, such as `portico_rate_limit_requests_total`; the same for the
        same name and labels. There is room for a few thousand: labels are of the file, and never of a request."""
        ...

    def service(self, name: str) -> Handler:
        """Return the Handler of a service of the file; the only way to reach one."""
        ...

    def urls(self, name: str) -> tuple[str, ...]:
        """Return where a service of the file is: for each target its scheme, its `Host`, and the path of the service,
        as in `http://10.0.0.7:8080/v1`; for one that was found by its name the same with its address, too.

        Targets may come and go, and there may be none yet when this is set up: ask when it is to be known. While
        nothing has changed, the very same tuple is returned.
        """
        ...

    def settings_of(self, name: str) -> bytes:
        """Return what tells the settings of a service of the file, and of those that it leads to, from any others.

        What was found out by asking it is not to outlive a reload that has changed them: `share` it under a key that
        has this in it.
        """
        ...

    def scrape(self, openmetrics: bool) -> BodySource:
        """Return the text of all metrics, of OpenMetrics or of Prometheus: a body that is made as it is read."""
        ...

    async def health(self) -> Mapping[str, ServiceHealth]:
        """Return how each service of the file is, and its targets; what is probed for it is at most 2 seconds old."""
        ...

    def web(self, url: str, ca: str | None = None) -> Handler:
        """Return the Handler of whatever host a URL of http or https names, for requests that are not a client's own.

        It has no service of the file's policies, and the limits and timeouts that a service has by default; a path is
        each request's own. Where `ca` is a file, one of its authorities must have signed the host's certificate.
        Raises ConfigError where it is no such URL.
        """
        ...

    def function(self, reference: str) -> Callable[..., object]:
        """Return the function of a plugin of the file that `module:name` stands for, where `module` is what the plugin
        is called, a file without its `.py`. It is that of this load: a reload takes new code. Raises ConfigError.
        """
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do work that belongs to no request, such as keeping something fresh. It ends with this configuration; what it
        raises is logged.
        """
        ...

    def see_through(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do work that is to come to its end, such as a payment whose client has left. This configuration stays for as
        long as that takes; a worker that is to end gives it as long as requests under way, then cancels it, and lets
        it have a moment to make that known. What it raises is logged.
        """
        ...

    def share(self, key: tuple[object, ...], make: Callable[[], Shared]) -> Shared:
        """Return the value that is leased under `key`, made on first use.

        It outlives a reload while the new configuration leases it too, and is closed when none does.
        """
        ...


class Component(Generic[ConfigT]):
    """What policies and endpoints have in common: a name, a config class, and a life.

    A subclass names its config class in the brackets of its base: `class GeoFencePolicy(Policy[GeoFence], ...)`.
    """

    name: ClassVar[str] = ""
    config_class: ClassVar[type[PolicyConfig]] = PolicyConfig
    called: str = ""
    """What the file calls this one, which is its `name` unless that gives it another."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def __init_subclass__(cls, *, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            cls.name = cls.called = name
        for base in getattr(cls, "__orig_bases__", ()):
            if isinstance(get_origin(base), type) and issubclass(get_origin(base), Component):
                argument = get_args(base)[0]
                if isinstance(argument, type):
                    cls.config_class = argument

    def setup(self, env: Env) -> None:
        """Prepare at load whatever requests will need; raise ConfigError where the config cannot work."""

    def close(self) -> None:
        """End what `setup` began; called once, when the last request that could use it is over."""


class Policy(Component[ConfigT]):
    """A Handler around a Handler.

    Override `request` and `response` where neither has to wait, or `handle` for full control; `request` returns a
    Response to stop there, and `response` returns the answer to pass on.

    What it raises is an answer for the policies further out; so nothing comes out of `next` but answers, and what ends
    the request's task.
    """

    stages: ClassVar[tuple[Stage, ...]] = ()
    answers_preflights: ClassVar[bool] = False
    """Whether a CORS preflight shall come to the route of the request that it asks about, even if that takes no
    OPTIONS, because this policy answers it."""

    of_callers: ClassVar[bool] = False
    """Whether it is about who is calling, or how much they may, and so does not stand around the built-in routes for
    probes."""

    of_certificates: ClassVar[bool] = False
    """Whether it looks for the certificates of clients, and so is of no use unless a listener asks for them."""

    def __init_subclass__(cls, *, name: str = "", stages: tuple[Stage, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(name=name, **kwargs)
        if stages:
            cls.stages = stages

    @classmethod
    def own_urls(cls, config: ConfigT) -> Sequence[str]:
        """Return the URLs that this policy answers itself, and that therefore have to lead to a route that has it."""
        return ()

    @classmethod
    def remarks(cls, config: ConfigT, stage: Stage) -> Iterable[tuple[str, str]]:
        """Return what is legal in these settings, where it stands in this stage, and probably not meant: each as a
        message, and a hint how to mend it."""
        return ()

    def request(self, request: Request) -> Response | None:
        """Look at or change a request on its way in; a Response stops it here."""
        return None

    def stopped(self, request: Request, response: Response) -> Response:
        """Return `response`, and note in the request's record that this policy has answered it. What `request` returns
        is noted anyway; `handle` says so by this."""
        if request.exchange is not None:
            request.exchange.stopped_by = self.called
        return response

    def response(self, request: Request, response: Response) -> Response:
        """Look at or change an answer on its way out."""
        return response

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        """Answer `request`, with the help of `next` or without. This default is the whole law of a policy."""
        early = self.request(request)
        if early is not None:
            return early
        return self.response(request, await next(request))


class Endpoint(Component[ConfigT]):
    """What a route ends in."""

    in_file: ClassVar[bool] = True
    """Whether a file may name it; otherwise only routes that are made at load end in it."""

    def handle(self, request: Request) -> Awaitable[Response]:
        """Answer `request`; an `async def` in subclasses."""
        raise NotImplementedError

    def handler(self) -> Handler:
        """Return what the chain calls, after `setup`: `handle`, or whatever does the same with less."""
        return self.handle

    def describe(self) -> str:
        """Return one line for `portico explain`: what this endpoint would do."""
        return self.name
