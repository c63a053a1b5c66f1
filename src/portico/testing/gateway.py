"""A gateway in memory: everything that a worker has, but for sockets and the real time."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar, Unpack, cast

import orjson

from portico.config.addresses import DEFAULT_PORTS
from portico.config.findings import Finding, Findings, report
from portico.config.nearest import did_you_mean, one_of
from portico.config.policy_use import PolicyUse
from portico.config.schema import Config, EndpointUse
from portico.config.source import TextSource
from portico.errors import ConfigError
from portico.http.forwarded import Encryption
from portico.http.message import Client, Handler
from portico.http.target import EncodedSlashes
from portico.net.server import Server
from portico.net.stream import Outbox
from portico.policy.base import Component, Endpoint, Policy, Stage
from portico.runtime.compile import Compiled, CompileError, Surroundings, compile_config
from portico.runtime.lint import lint
from portico.runtime.listeners import limits, redirect_to_https, trust
from portico.runtime.loading import Loaded, read_in
from portico.runtime.shared import Lease, Leases
from portico.state.board import Counter
from portico.state.memory import MemoryStore
from portico.state.purges import Purges, keys_to_purge
from portico.state.stamps import Stamps
from portico.testing.clock import Clock, FakeTimeLoop
from portico.testing.services import FakeService, Plays, Reply
from portico.testing.visit import Answer, Options, Visit
from portico.upstream.stand_in import stand_in

T = TypeVar("T")

PATIENCE: Final = 3600.0
"""Seconds of fake time after which a request that has come to no end is given up."""

CLIENT_PORT: Final = 50_000
SEED: Final = 1
"""Has each run draw the same lots: which target is asked first, to which part of a split a request goes."""
BEHIND: Final = "service"
"""The service behind policies that are tested by themselves, unless the test names others."""


class Gateway:
    """A gateway in a test; `with` starts and ends it.

    It is given one of these:

    - `file`: a configuration, as `portico run` takes it;
    - `text`: the same as YAML; what it names is looked for relative to the working folder;
    - `policies`, `endpoint` or both: objects, around and at the end of one route for `path`, with the endpoint being
      the first of `services` (or one that answers 200) unless it is given.

    Where a file or a text is wrong, ConfigError is raised, with what `portico check` prints. `services` says what the
    services of the configuration answer; only those that are asked have to be there. `classes` are policies and
    endpoints that the configuration may use beside those of its plugins.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None = None,
        *,
        text: str | None = None,
        policies: Sequence[Policy[Any]] = (),
        endpoint: Endpoint[Any] | None = None,
        path: str = "/**",
        services: Mapping[str, Plays] | None = None,
        classes: Iterable[type[Component[Any]]] = (),
    ) -> None:
        alone = bool(policies) or endpoint is not None
        if [file is not None, text is not None, alone].count(True) != 1:
            raise TypeError("Gateway takes one of: a file, text=..., or policies=[...] with or without endpoint=...")
        plays: dict[str, Plays] = dict(services or {})
        if alone:
            plays = plays or {BEHIND: Reply()}
            self._loaded = _around(policies, endpoint, path, list(plays))
        else:
            self._loaded = read_in(TextSource(text or "") if file is None else Path(file), tuple(classes))
        self._linted = not alone
        self._config = _sound(self._loaded.config, self._loaded.findings)
        self.findings: tuple[Finding, ...] = self._loaded.findings
        """Warnings about the configuration, as `portico check` prints them."""
        for name in plays:
            if name not in self._config.services:
                hint = did_you_mean(name, self._config.services)
                has = f"it has {one_of(list(self._config.services), 'and')}" if self._config.services else "it has none"
                raise ConfigError(f"the configuration has no service {name!r}; {hint or has}")
            split = self._config.services[name].split
            if split is not None:
                parts = one_of([part.service for part in split.to], "and")
                raise ConfigError(f"the service {name!r} is divided among {parts}; say what those answer")
        self.services = {
            name: FakeService(name, plays.get(name))
            for name, service in self._config.services.items()
            if service.split is None
        }
        """The services by name, with all that they were asked."""
        self._counters: dict[str, Counter] = {}
        self._runner: asyncio.Runner | None = None

    def __enter__(self) -> Self:
        _not_within_a_loop()
        self._runner = asyncio.Runner(loop_factory=FakeTimeLoop)
        loop = self._runner.get_loop()
        self.clock = Clock(loop, self._pass)
        self._ending = asyncio.Event()
        self._closer: asyncio.Task[Any] | None = None
        started: asyncio.Future[None] = loop.create_future()
        self._life = loop.create_task(self._live(started), name="gateway")
        try:
            self._runner.run(_first(started, self._life))
        except BaseException:
            self._runner.close()
            self._runner = None
            raise
        return self

    def __exit__(self, *_: object) -> None:
        runner, self._runner = self._runner, None
        assert runner is not None
        try:
            runner.run(self._end())
        finally:
            runner.close()

    async def _live(self, started: asyncio.Future[None]) -> None:
        """Be a worker, until the test is over."""
        loop, config = asyncio.get_running_loop(), self._config
        async with asyncio.TaskGroup() as tasks:
            surroundings = Surroundings(
                self._loaded.registry,
                Leases(),
                tasks,
                Outbox(loop),
                loop.time,
                rng=random.Random(SEED),  # noqa: S311
                wall=self.clock.wall,
                store=lambda _, lease: self._store(lease),
                purges=lambda _, lease: lease.share(
                    ("purges",),
                    lambda: Purges(self._store(lease), Stamps.private(), loop.time, self.clock.wall),
                ),
                counter=lambda name: self._counters.setdefault(name, Counter.private()),
            )
            try:
                compiled = compile_config(config, surroundings)
            except CompileError as error:
                raise ConfigError(report([*self.findings, *error.findings]).rstrip()) from None
            self._ready(compiled, tasks)
            started.set_result(None)
            await self._ending.wait()
            compiled.runtime.close()
            for task in asyncio.all_tasks(loop):
                if task not in (self._life, self._closer):
                    task.cancel()

    async def _end(self) -> None:
        self._closer = asyncio.current_task()
        self._ending.set()
        await self._life

    def _store(self, lease: Lease) -> MemoryStore:
        return lease.share(("state",), lambda: MemoryStore(self.clock.wall))

    def _ready(self, compiled: Compiled, tasks: asyncio.TaskGroup) -> None:
        self._compiled = compiled
        config, runtime = self._config, compiled.runtime
        if self._linted:
            found = Findings(self.findings)
            lint(config, compiled, self._loaded.registry, found)
            self.findings = found.sorted()
        for name, service in runtime.services.items():
            fake = self.services[name]
            stand_in(service, fake.answer, fake.probe)
        slashes = EncodedSlashes(config.path.encoded_slashes)
        self._server = Server(runtime.handle, limits(config), slashes, tasks, trust=trust(config))
        self._server.observer = runtime.observer
        self._doors: list[tuple[str, int, Handler]] = []
        for listener, entrance in zip(config.listen, runtime.entrances, strict=True):
            handler: Handler = runtime.handle
            if entrance.redirect_https is not None:
                handler = redirect_to_https(entrance.redirect_https, lambda: runtime.handle)
            scheme = "http" if entrance.tls is None else "https"
            self._doors.append((scheme, listener.address.port or DEFAULT_PORTS[scheme], handler))

    # What a test does with it.

    @property
    def counters(self) -> dict[str, int]:
        """What `env.counter` has counted so far, by name with labels, as in `hits_total{route="orders"}`."""
        return {name: counter.value for name, counter in self._counters.items()}

    async def ask(self, method: str, target: str, **options: Unpack[Options]) -> Answer:
        """Send one request; for use within `run`, where several can be under way at once."""
        certificate = options.get("certificate")
        asked = options.get("scheme", self._doors[0][0] if certificate is None else "https")
        doors = [door for door in self._doors if door[0] == asked]
        scheme, port, handler = doors[0] if doors else (asked, 0, self._doors[0][2])
        address = options.get("client", "127.0.0.1")
        client = Client(address, CLIENT_PORT, port or DEFAULT_PORTS[scheme], scheme, self._server.trust.style)
        if certificate is not None:
            client.encryption = Encryption("TLSv1.3", "TLS_AES_128_GCM_SHA256", "", certificate)
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await Visit(self._server, client, method, target, options).run(handler)
        except TimeoutError:
            raise AssertionError(
                f"{method} {target} had no end within {PATIENCE:.0f} s of the gateway's time"
            ) from None
        for service in self.services.values():
            if service.mistakes:
                raise service.mistakes.pop(0)
        return answer

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run an async function on the gateway's loop, in its time: what awaits `ask` several times at once."""
        if self._runner is None:
            raise RuntimeError("the gateway does not run; write: with Gateway(...) as gateway:")
        _not_within_a_loop()
        result = self._runner.run(main())
        if self._life.done():
            self._life.result()
        return result

    def request(self, method: str, target: str, **options: Unpack[Options]) -> Answer:
        """Send one request, and return what it was answered. What may be said of it: `Options`."""
        return self.run(lambda: self.ask(method, target, **options))

    def get(self, target: str, **options: Unpack[Options]) -> Answer:
        """Send a GET."""
        return self.request("GET", target, **options)

    def head(self, target: str, **options: Unpack[Options]) -> Answer:
        """Send a HEAD."""
        return self.request("HEAD", target, **options)

    def post(self, target: str, **options: Unpack[Options]) -> Answer:
        """Send a POST."""
        return self.request("POST", target, **options)

    def put(self, target: str, **options: Unpack[Options]) -> Answer:
        """Send a PUT."""
        return self.request("PUT", target, **options)

    def patch(self, target: str, **options: Unpack[Options]) -> Answer:
        """Send a PATCH."""
        return self.request("PATCH", target, **options)

    def delete(self, target: str, **options: Unpack[Options]) -> Answer:
        """Send a DELETE."""
        return self.request("DELETE", target, **options)

    def options(self, target: str, **options: Unpack[Options]) -> Answer:
        """Send an OPTIONS."""
        return self.request("OPTIONS", target, **options)

    def purge(self, urls: Sequence[str] = (), *, tags: Sequence[str] = (), everything: bool = False) -> None:
        """Purge what is kept, as `portico purge` does."""
        purges = self._compiled.runtime.purges
        if purges is None:
            raise RuntimeError("nothing in this configuration keeps answers: no policy has asked for env.purges")
        slashes = EncodedSlashes(self._config.path.encoded_slashes)
        keys = keys_to_purge(urls, tags, everything=everything, slashes=slashes)
        self.run(lambda: purges.purge(keys))

    def _pass(self, seconds: float) -> None:
        self.run(lambda: asyncio.sleep(seconds))


async def _first(started: asyncio.Future[None], life: asyncio.Task[None]) -> None:
    """Wait until the gateway has started; raise what has kept it from that."""
    await asyncio.wait([started, life], return_when=asyncio.FIRST_COMPLETED)
    if life.done():
        try:
            life.result()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


def _not_within_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("a Gateway has a loop of its own; use it in a plain function, and its `run` for what is async")


def _sound(config: Config | None, findings: Sequence[Finding]) -> Config:
    if config is None:
        raise ConfigError(report(findings).rstrip())
    return config


class _Given:
    """Stands in a registry where a class stands, and makes no new object: the test keeps hold of its own."""

    def __init__(self, component: Component[Any]) -> None:
        self.name = component.name
        self.config_class = component.config_class
        self.stages: tuple[Stage, ...] = getattr(component, "stages", ())
        self.answers_preflights: bool = getattr(component, "answers_preflights", False)
        self._component = component

    def __call__(self, config: object) -> Component[Any]:
        return self._component


def _around(
    policies: Sequence[Policy[Any]], endpoint: Endpoint[Any] | None, path: str, services: Sequence[str]
) -> Loaded:
    """Return a configuration of one route with these around it and at its end."""
    written = {
        "services": {name: {"url": f"http://{name}", "timeout": {"total": "30s"}} for name in services},
        "routes": [{"name": "tested", "path": path, "service": services[0]}],
    }
    loaded = read_in(TextSource(orjson.dumps(written).decode(), "test"))
    config, registry = _sound(loaded.config, loaded.findings), loaded.registry
    uses: list[PolicyUse] = []
    for policy in policies:
        kind = type(policy)
        if not policy.stages:
            raise ConfigError(
                f"{kind.__name__} names no stage; write class {kind.__name__}(..., stages=(Stage.LIMIT,))"
            )
        name = _free(policy.name or kind.__name__, [use.name for use in uses])
        registry.policies[name] = cast(Any, _Given(policy))
        uses.append(PolicyUse(name=name, kind=name, config=policy.config))
    changes: dict[str, object] = {"policies": tuple(uses)}
    if endpoint is not None:
        end = endpoint.name or type(endpoint).__name__
        registry.endpoints[end] = cast(Any, _Given(endpoint))
        changes["endpoint"] = EndpointUse(kind=end, config=endpoint.config)
    route = config.routes[0].model_copy(update=changes)
    return Loaded(config.model_copy(update={"routes": (route,)}), (), registry)


def _free(name: str, taken: Sequence[str]) -> str:
    """Return `name`, with a number where it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
