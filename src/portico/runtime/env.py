"""What policies and endpoints are given at load."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from portico.config.addresses import parse_url
from portico.config.schema import Route as RouteConfig
from portico.config.services import led_to
from portico.config.upstream import Service as ServiceConfig
from portico.config.values import BadValue
from portico.errors import ConfigError
from portico.http.body import BodySource
from portico.http.message import Handler
from portico.observe.health import ServiceHealth
from portico.policy.base import RouteInfo, Shared
from portico.policy.consumers import ConsumerLookup
from portico.runtime.life import Life
from portico.runtime.shared import Lease
from portico.runtime.state import StateOf
from portico.state.board import Counter, counter_name
from portico.state.purges import Purges
from portico.state.store import Store
from portico.upstream.health import HealthReport
from portico.upstream.target import Target
from portico.upstream.upstream import Upstream


class ServiceSettings:
    """What tells the settings of the services of one configuration from others'."""

    def __init__(self, services: Mapping[str, ServiceConfig]) -> None:
        self._services = services
        self._prints: dict[str, bytes] = {}

    def of(self, name: str) -> bytes:
        """Return the print of a service's settings, and of those of all that it leads to."""
        if name not in self._prints:
            # Not where it is written: a line more in the file is another place, and the same service.
            without = {"origin", "policies"}
            led = sorted(led_to(self._services, [name]))
            said = [(each, self._services[each].model_dump_json(exclude=without)) for each in led]
            self._prints[name] = hashlib.sha256(repr(said).encode()).digest()
        return self._prints[name]


class ConfigEnv:
    """What the parts of all routes of one configuration are given."""

    def __init__(
        self,
        consumers: ConsumerLookup,
        services: Mapping[str, Upstream],
        used: set[str],
        lease: Lease,
        health: HealthReport,
        clock: Callable[[], float],
        life: Life,
        wall: Callable[[], float],
        settings: ServiceSettings,
        function: Callable[[str], Callable[..., object]],
        state: StateOf,
        counter: Callable[[str], Counter],
        scrape: Callable[[bool], BodySource],
    ) -> None:
        self.consumers = consumers
        self.clock = clock
        self.wall = wall
        self.function = function
        self.state = state
        self.counter = counter
        self.scrape = scrape
        self.life = life
        self.share = lease.share
        self.health = health.states
        self._services = services
        self._used = used
        self._settings = settings
        self._urls: dict[str, tuple[tuple[Target, ...], tuple[str, ...]]] = {}

    def service(self, name: str) -> Handler:
        """Return the Handler of a service of the file."""
        service = self._service(name)
        self._used.add(name)
        return service.handle

    def urls(self, name: str) -> tuple[str, ...]:
        """Return where a service of the file is at the moment."""
        targets = tuple(self._service(name).targets)
        known = self._urls.get(name)
        if known is None or known[0] != targets:
            known = self._urls[name] = targets, tuple(dict.fromkeys(url for each in targets for url in _urls_of(each)))
        return known[1]

    def settings_of(self, name: str) -> bytes:
        """Return what tells the settings of a service from any others."""
        self._service(name)
        return self._settings.of(name)

    def _service(self, name: str) -> Upstream:
        service = self._services.get(name)
        if service is None:
            raise ConfigError(f"there is no service {name!r}")
        return service


class RouteEnv:
    """The `Env` of one of a route's policies, or of its endpoint."""

    __slots__ = ("_config", "_written", "logger", "place", "route")

    def __init__(
        self, config: ConfigEnv, written: RouteConfig, route: RouteInfo, logger: logging.Logger, place: str
    ) -> None:
        """`written` is the route as the file has it."""
        self._config = config
        self._written = written
        self.route = route
        self.logger = logger
        self.place = place

    def route_print(self) -> bytes:
        """Return what tells a route from those that take other requests, or lead elsewhere."""
        route = self._written
        asks = (route.path, route.hosts, route.methods, route.headers, route.query, route.cookies)
        said = repr((asks, route.endpoint.kind, route.endpoint.config))
        return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    @property
    def consumers(self) -> ConsumerLookup:
        """The consumers of the file, and of its database."""
        return self._config.consumers

    @property
    def store(self) -> Store:
        """The store of the file."""
        return self._config.state.store()

    @property
    def purges(self) -> Purges:
        """What was purged of what is kept in the store."""
        return self._config.state.purges()

    @property
    def clock(self) -> Callable[[], float]:
        """The worker's monotonic time."""
        return self._config.clock

    @property
    def wall(self) -> Callable[[], float]:
        """The time of day."""
        return self._config.wall

    def counter(self, name: str, **labels: str) -> Counter:
        """Return what counts something on the board."""
        return self._config.counter(counter_name(name, labels))

    def service(self, name: str) -> Handler:
        """Return the Handler of a service of the file."""
        return self._config.service(name)

    def urls(self, name: str) -> tuple[str, ...]:
        """Return where a service of the file is at the moment."""
        return self._config.urls(name)

    def settings_of(self, name: str) -> bytes:
        """Return what tells the settings of a service from any others."""
        return self._config.settings_of(name)

    def scrape(self, openmetrics: bool) -> BodySource:
        """Return all metrics, as they are read."""
        return self._config.scrape(openmetrics)

    async def health(self) -> Mapping[str, ServiceHealth]:
        """Return how each service is."""
        return await self._config.health()

    def web(self, url: str, ca: str | None = None) -> Handler:
        """Return the Handler of whatever host a URL names."""
        try:
            return self._config.life.web.handler(parse_url(url), ca)
        except BadValue as error:
            raise ConfigError(str(error)) from None

    def function(self, reference: str) -> Callable[..., object]:
        """Return a function of a plugin."""
        return self._config.function(reference)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do work that belongs to no request."""
        self._config.life.spawn(work, name)

    def see_through(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do work that is to come to its end."""
        self._config.life.see_through(work, name)

    def share(self, key: tuple[object, ...], make: Callable[[], Shared]) -> Shared:
        """Return the value that is leased under `key`."""
        return self._config.share(key, make)


def _urls_of(target: Target) -> Iterator[str]:
    yield f"{target.scheme}://{target.authority.decode('ascii')}{target.prefix}"
    if target.name != target.address.rpartition(":")[0].strip("[]"):  # it was found by its name
        yield f"{target.scheme}://{target.address}{target.prefix}"
