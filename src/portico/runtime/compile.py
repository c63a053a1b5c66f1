"""From a Config to a Runtime: services, chains and the matcher are built once, here, and every mistake is told at
once."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from portico.config.findings import Finding, Findings, place_of
from portico.config.policy_use import PolicyUse
from portico.config.schema import Config, EndpointUse
from portico.config.schema import Route as RouteConfig
from portico.config.state import State
from portico.config.values import Condition as ConditionConfig
from portico.consumers.generation import nobody_looks
from portico.consumers.lookup import FileFirst, StoredConsumers
from portico.consumers.sqlite import SqliteStore
from portico.errors import ConfigError, PorticoError
from portico.http.body import BodySource
from portico.http.message import Observer
from portico.http.target import EncodedSlashes
from portico.net.stream import Outbox
from portico.policy.authentication import Authentication
from portico.policy.authentication import Part as AuthPart
from portico.policy.authenticator import Authenticator
from portico.policy.base import Component, Policy, RouteInfo
from portico.policy.chain import Conditional, Scoped
from portico.policy.consumers import ConsumerLookup
from portico.policy.registry import Registry
from portico.routing.entry import Absent, Condition, Entry, Equals, Matches, Part, Present
from portico.routing.matcher import Matcher
from portico.routing.pattern import ANY_PATH, PathPattern, PatternError, parse_host_pattern, parse_path
from portico.runtime.certificates import CertificateWatch
from portico.runtime.chains import BUILT_IN, chain_of, is_probed, scopes_of, stage_of
from portico.runtime.conditions import Conditions
from portico.runtime.env import ConfigEnv, RouteEnv, ServiceSettings
from portico.runtime.errors import ErrorWriters
from portico.runtime.feeds import Feeds
from portico.runtime.life import Life
from portico.runtime.listeners import entrances
from portico.runtime.observing import Ground, Stand, Watch, Watched, joined
from portico.runtime.pace import at_once
from portico.runtime.runtime import Route, Runtime
from portico.runtime.scrape import nothing_to_scrape
from portico.runtime.services import ServiceBuilder
from portico.runtime.shared import Lease, Leases
from portico.runtime.state import StateOf, private_purges, private_store
from portico.runtime.tracer import Tracer
from portico.runtime.tracing import Traces, traces_of
from portico.runtime.upstreams import Upstreams
from portico.runtime.web import Web
from portico.state.board import Counter
from portico.state.purges import Purges
from portico.state.records import PrivateRecords, Record
from portico.state.store import Store
from portico.upstream.health import HealthReport
from portico.upstream.mirror import Mirror
from portico.upstream.split import Split
from portico.upstream.stack import Service
from portico.upstream.upstream import Upstream

_MISSES: Final = ("no-route", "wrong-method")
"""The endpoints of what comes to no route of the file."""
_BUILT_IN_NAME: Final = "portico:{}"
"""The name of a built-in route; no file can give it, as a name has no colon."""


class CompileError(PorticoError):
    """A configuration that reads well and cannot be run; `findings` say why."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join(map(str, findings)))
        self.findings = tuple(findings)


@dataclass(frozen=True)
class Surroundings:
    """What a runtime is compiled into: a worker, or for a check something like one."""

    registry: Registry
    leases: Leases
    tasks: asyncio.TaskGroup
    outbox: Outbox
    clock: Callable[[], float]
    certificates: CertificateWatch = field(default_factory=CertificateWatch)
    rng: random.Random = field(default_factory=random.Random)
    """Draws lots: which target comes first, how long to wait, what is copied. No secret comes of it."""
    records: Callable[[str], Record] = field(default_factory=lambda: PrivateRecords().record)
    """What workers share, by name: the board's, or for a check nobody else's."""
    feeds: Feeds = field(default_factory=Feeds)
    """What the agent knows of services."""
    wall: Callable[[], float] = time.time
    """The time of day."""
    generation: Callable[[str], Callable[[], int | None]] = lambda _: nobody_looks
    """What tells whether a database of consumers has changed, by its name: the board, or for a check nothing."""
    store: Callable[[State, Lease], Store] = private_store
    """Opens the store, leased."""
    counter: Callable[[str], Counter] = lambda _: Counter.private()
    """What counts, by name: the board's, or for a check nobody else's."""
    purges: Callable[[State, Lease], Purges] = private_purges
    """Opens what was purged, leased."""
    watches: Callable[[Ground], Sequence[Watch]] = lambda _: ()
    """Who watches the requests of a configuration."""
    scrape: Callable[[bool], BodySource] = nothing_to_scrape
    """Tells all metrics, in the format of OpenMetrics or of Prometheus."""


class FirstLot(random.Random):
    """Draws the lowest lot each time: for those who only look, so that they see the same each time."""

    def random(self) -> float:
        """Return 0."""
        return 0.0


@dataclass(frozen=True)
class Compiled:
    """A Runtime, and the routes as the matcher sees them: the file's in order, then the built-in ones."""

    runtime: Runtime
    entries: tuple[Entry[Route], ...]
    used_services: frozenset[str]
    """The services that some route's parts have asked for."""
    life: Life
    """The work that was begun for it, and the hosts beside its services that it would ask."""
    splits: tuple[Split, ...] = ()
    """The services that divide their requests among others."""
    mirrors: tuple[Mirror, ...] = ()
    """What copies the requests of a service to another one."""


def compile_config(config: Config, surroundings: Surroundings, revision: int = 0) -> Compiled:
    """Compile `config`; raise CompileError, with all that is wrong, where it cannot be run."""
    return at_once(compiling(config, surroundings, revision))


def compiling(config: Config, surroundings: Surroundings, revision: int) -> Generator[None, None, Compiled]:
    """Compile `config` in small steps, between which others may have the loop. Raises as `compile_config` does.

    Whoever gives up on it closes the generator, and nothing of it is left.
    """
    lease = surroundings.leases.lease()
    findings = Findings()
    made: list[Route] = []
    services: dict[str, Service] = {}
    upstreams: dict[str, Upstream] = {}
    life: Life | None = None
    try:
        builder = ServiceBuilder(
            config,
            surroundings.leases,
            surroundings.tasks,
            surroundings.outbox,
            surroundings.clock,
            surroundings.certificates,
            surroundings.feeds,
            findings,
            surroundings.rng,
            surroundings.records,
            upstreams,
        )
        for name, wanted in config.services.items():
            if wanted.split is None:
                services[name] = builder.build(name, wanted)
            yield
        conditions = Conditions(findings)
        together = Upstreams(
            config, services, upstreams, conditions, lease, surroundings.tasks, findings, surroundings.rng
        )
        for name in config.services:
            together.make(name)
            yield
        health = HealthReport(upstreams, surroundings.tasks, surroundings.clock)
        life = Life(surroundings.tasks, Web(builder.build))
        doors = entrances(config, surroundings.certificates, findings)
        yield

        used: set[str] = set()
        consumers = _consumers_of(config, lease, surroundings)
        settings = ServiceSettings(config.services)

        state = StateOf(config.state, lease, surroundings.store, surroundings.purges)
        env = ConfigEnv(
            consumers,
            upstreams,
            used,
            lease,
            health,
            surroundings.clock,
            life,
            surroundings.wall,
            settings,
            surroundings.registry.function,
            state,
            surroundings.counter,
            surroundings.scrape,
        )
        bare = replace(builder, config=config.model_copy(update={"routes": (), "services": {}}))
        traces = _traces_of(config, life, lease, surroundings, findings)
        watches = (
            *surroundings.watches(Ground(config, lease.share, lambda: Web(bare.build))),
            *(() if traces is None else (traces,)),
        )

        yield from conditions.compiling(config)
        writers = ErrorWriters(config)
        routes = _Routes(config, surroundings.registry, env, conditions, writers, findings, made, watches, traces)
        entries = []
        for order, route in enumerate([*config.routes, *_built_in_routes(config, surroundings.registry)]):
            entry = routes.entry(route, order)
            if entry is not None:
                entries.append(entry)
            yield
        no_route, wrong_method = (
            routes.route(_built_in(kind, (ANY_PATH.text,), kind, {}, surroundings.registry), {}) for kind in _MISSES
        )
        if findings.failed:
            raise CompileError(findings.sorted())  # noqa: TRY301 - what was made so far is to be closed
        matcher = yield from Matcher.gradually(entries, no_route, wrong_method)
    except BaseException:
        for each in made:
            each.close()
        if life is not None:
            life.close()
        for built in services.values():
            built.close()
        lease.close()
        raise
    observer = joined(watch.of_rest() for watch in watches)
    runtime = Runtime(revision, matcher, made, services, doors, lease, writers.of_file, life, state, observer)
    return Compiled(runtime, tuple(entries), frozenset(used), life, tuple(together.splits), tuple(together.mirrors))


def _traces_of(
    config: Config, life: Life, lease: Lease, surroundings: Surroundings, findings: Findings
) -> Traces | None:
    """Return who traces requests; where that cannot be, it is added to `findings`."""
    try:
        return traces_of(config, life, lease, surroundings.clock, surroundings.wall, surroundings.counter)
    except ConfigError as error:
        findings.error(place_of(""), f"tracing: {error}")
        return None


def _consumers_of(config: Config, lease: Lease, surroundings: Surroundings) -> ConsumerLookup:
    """Return where policies look for consumers; what is remembered of a database outlives a reload."""
    if config.consumer_database is None:
        return config.consumers
    file = config.consumer_database.file
    stored = lease.share(
        ("consumer database", file),
        lambda: StoredConsumers(SqliteStore(file), surroundings.generation(file), surroundings.clock),
    )
    return FileFirst(config.consumers, stored)


def _built_in_routes(config: Config, registry: Registry) -> list[RouteConfig]:
    """Return the routes that every configuration has, but for paths that the file itself gives a meaning."""
    written = {path for route in config.routes for path in route.path}
    offers: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
        ("/health", "health", {"allow": config.health.allow}),
        ("/livez", "live", {}),
        ("/readyz", "ready", {}),
        *(() if config.metrics is None else (("/metrics", "metrics", {"allow": config.metrics.allow}),)),
    )
    return [_built_in(path[1:], (path,), kind, body, registry) for path, kind, body in offers if path not in written]


def _built_in(name: str, path: tuple[str, ...], kind: str, body: Mapping[str, Any], registry: Registry) -> RouteConfig:
    config = registry.endpoints[kind].config_class(**body)
    end = EndpointUse(kind=kind, config=config, origin=BUILT_IN)
    route = RouteConfig(path=path, endpoint=end, origin=BUILT_IN)
    return route.model_copy(update={"name": _BUILT_IN_NAME.format(name)})


class _Routes:
    """Compiles routes one by one; what is wrong with one does not hide what is wrong with the next."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        env: ConfigEnv,
        conditions: Conditions,
        writers: ErrorWriters,
        findings: Findings,
        made: list[Route],
        watches: Sequence[Watch],
        traces: Traces | None,
    ) -> None:
        """Add each route to `made` as it is compiled."""
        self._config = config
        self._registry = registry
        self._env = env
        self._conditions = conditions
        self._writers = writers
        self._findings = findings
        self._slashes = EncodedSlashes(config.path.encoded_slashes)
        self._made = made
        self._watches = watches
        self._traces = traces
        self._chains: dict[str, Sequence[Scoped]] = {}
        self._told: dict[int, tuple[Sequence[Scoped], tuple[Stand, ...]]] = {}

    def entry(self, config: RouteConfig, order: int) -> Entry[Route] | None:
        """Compile one route and what it asks of a request; None where that cannot be understood."""
        patterns = self._patterns(config)
        route = self.route(config, patterns)
        if len(patterns) < len(set(config.path)):
            return None
        try:
            return Entry(
                payload=route,
                order=order,
                paths=tuple(patterns[path] for path in config.path),
                hosts=tuple(parse_host_pattern(host) for host in config.hosts),
                methods=frozenset(config.methods) or None,
                conditions=(
                    *(_condition(Part.HEADER, name, wanted) for name, wanted in config.headers.items()),
                    *(_condition(Part.QUERY, name, wanted) for name, wanted in config.query.items()),
                    *(_condition(Part.COOKIE, name, wanted) for name, wanted in config.cookies.items()),
                ),
                priority=config.priority,
                preflights=any(self._registry.policies[each.use.kind].answers_preflights for each in route.policies),
            )
        except ValueError as error:
            self._error(config.origin, f"route {config.name}: {error}")
            return None

    def _patterns(self, config: RouteConfig) -> dict[str, PathPattern]:
        """Return the pattern of each path, without those that cannot be understood."""
        patterns = {}
        for path in config.path:
            try:
                patterns[path] = parse_path(path, self._slashes)
            except PatternError as error:
                self._error(config.origin, f"route {config.name}: {error}")
        return patterns

    def route(self, config: RouteConfig, patterns: Mapping[str, PathPattern]) -> Route:
        """Compile one route: its chain of policies and its endpoint."""
        captures = {path: pattern.capture_names for path, pattern in patterns.items()}
        built_in = config.origin == BUILT_IN
        info = RouteInfo(config.name, config.path, captures, tuple(config.methods), built_in)
        logger = logging.getLogger(f"portico.route.{config.name}")
        places = {"global": "global", "service": f"service:{_service_of(config)}", "route": f"route:{config.name}"}
        env = RouteEnv(self._env, config, info, logger, places["route"])
        scoped = self._chain(config)
        endpoint = self._registry.endpoints[config.endpoint.kind](config.endpoint.config)
        end = endpoint.handler() if self._set_up(endpoint, env, config.endpoint.origin) else None
        components: list[Component[Any]] = [endpoint] if end is not None else []
        policies: list[Policy[Any] | Conditional | Authentication] = []
        authentication: Authentication | None = None
        conditionals: dict[str, Conditional] = {}
        for item in scoped:
            policy = self._registry.policies[item.use.kind](item.use.config)
            policy.called = item.use.name
            env = RouteEnv(self._env, config, info, logger, f"{places[item.scope]}:{item.use.name}")
            ready = self._set_up(policy, env, item.use.origin)
            condition = self._conditions.of(item.use, item.scope, info)
            if not ready:
                continue  # it was told, and nothing is served
            components.append(policy)
            conditional = None if condition is None else Conditional(policy, condition.holds)
            if conditional is not None:
                conditionals[item.use.name] = conditional
            if isinstance(policy, Authenticator):  # all of a route stand where the first of them does
                if authentication is None:
                    authentication = Authentication(clock=self._env.clock)
                    policies.append(authentication)
                authentication.add(AuthPart(policy, None if conditional is None else conditional.asked))
            else:
                policies.append(conditional or policy)
        route = Route(
            config.name,
            policies,
            end or endpoint.handle,
            self._config.limits.body if config.max_body is None else config.max_body,
            write_problem=self._writers.of_route(config),
            policies=scoped,
            conditionals=conditionals,
            endpoint=endpoint,
            components=components,
            origin=config.origin,
            observer=self._observer(config, scoped),
            tracer=self._tracer(config),
        )
        self._made.append(route)
        return route

    def _observer(self, config: RouteConfig, chain: Sequence[Scoped]) -> Observer | None:
        path = "" if config.endpoint.kind in _MISSES else config.path[0]
        service = _service_of(config)
        end = f"{config.endpoint.kind} {service}".rstrip()
        watched = Watched(config.name, path, service, config.origin, end, self._stands(chain), is_probed(config))
        return joined(watch.of_route(watched) for watch in self._watches)

    def _tracer(self, config: RouteConfig) -> Tracer | None:
        """Return who begins the traces of a route; probes and scrapes have none."""
        return None if self._traces is None or is_probed(config) else self._traces.tracer(config.sample)

    def _stands(self, chain: Sequence[Scoped]) -> tuple[Stand, ...]:
        """Return a chain in words; routes that have it in common have them in common."""
        known = self._told.get(id(chain))
        if known is None or known[0] is not chain:
            stands = tuple(
                Stand(each.use.name, each.use.kind, each.scope, each.use.origin, each.use.when or "") for each in chain
            )
            known = self._told[id(chain)] = chain, stands
        return known[1]

    def _chain(self, config: RouteConfig) -> Sequence[Scoped]:
        """Return the route's chain; routes of one service without policies of their own have it in common."""
        if config.policies or config.origin == BUILT_IN:
            return self._new_chain(config)
        service = _service_of(config)
        chain = self._chains.get(service)
        if chain is None:
            chain = self._chains[service] = self._new_chain(config)
        return chain

    def _new_chain(self, config: RouteConfig) -> Sequence[Scoped]:
        for _, uses in scopes_of(self._config, config):
            for use in uses:
                self._check_use(use)
        return chain_of(self._config, config, self._registry)

    def _check_use(self, use: PolicyUse) -> None:
        policy = self._registry.policies.get(use.kind)
        if policy is None:
            return
        if use.when is not None and policy.answers_preflights:
            message = f"{use.kind} cannot have a condition: a preflight comes ahead of the request that it asks about"
            self._error(use.when_origin, message, f"write {use.kind}: off on the routes without it")
        if use.stage is None or stage_of(use, self._registry) in policy.stages:
            return
        may = ", ".join(known.name.lower() for known in policy.stages)
        self._error(use.origin, f"policy {use.kind} cannot stand in stage {use.stage}", f"it may stand in {may}")

    def _set_up(self, component: Component[Any], env: RouteEnv, origin: str) -> bool:
        """Set up a part of a route; tell whether it is ready."""
        try:
            component.setup(env)
        except (ConfigError, ValueError) as error:
            self._error(origin, str(error))
        except Exception as error:  # noqa: BLE001 - a plugin's own mistake, which is told like the file's
            self._error(origin, f"{component.name} cannot be set up: {type(error).__name__}: {error}")
        else:
            return True
        return False

    def _error(self, origin: str, message: str, hint: str = "") -> None:
        self._findings.error(place_of(origin), message, hint)


def _service_of(config: RouteConfig) -> str:
    """Return the service that a route ends in, or nothing."""
    service: str = getattr(config.endpoint.config, "service", "")
    return service


def _condition(part: Part, name: str, wanted: ConditionConfig) -> Condition:
    if wanted.test == "equals":
        return Equals(part, name, wanted.value)
    if wanted.test == "matches":
        return Matches(part, name, re.compile(wanted.value))
    return Present(part, name) if wanted.test == "present" else Absent(part, name)
