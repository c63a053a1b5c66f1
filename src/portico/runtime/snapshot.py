"""A configuration on its way to the workers: bytes that need no file, read in steps that keep nobody waiting."""

from __future__ import annotations

import functools
import io
import os
import pickle
from collections.abc import Generator, Sequence
from typing import Final, NamedTuple

from portico.config.consumers import Consumers, ConsumerSettings
from portico.config.schema import Config, Route
from portico.config.upstream import Service
from portico.runtime.plugins import PluginModule, PluginSource
from portico.runtime.shared import Lease

_ROUTES_A_STEP: Final = 16
"""Routes that are read in one step, which takes about a millisecond."""
_CONSUMERS_A_STEP: Final = 128
"""Consumers that are read in one step, which takes about as long."""


class Snapshot(NamedTuple):
    """What a worker needs to serve a configuration, whatever happens to its files meanwhile."""

    config: Config
    plugins: tuple[PluginSource, ...]


def pack(config: Config, plugins: Sequence[PluginSource]) -> bytes:
    """Return a snapshot as bytes: pickles one after the other, for whoever has no plugins first, then the plugins."""
    out = io.BytesIO()
    bare = {name: service.model_copy(update={"policies": ()}) for name, service in config.services.items()}
    pickle.dump(pickle.dumps(bare, pickle.HIGHEST_PROTOCOL), out, pickle.HIGHEST_PROTOCOL)
    routes = config.routes
    consumers = list(config.consumers)
    pieces = [routes[at : at + _ROUTES_A_STEP] for at in range(0, len(routes), _ROUTES_A_STEP)]
    more = [consumers[at : at + _CONSUMERS_A_STEP] for at in range(0, len(consumers), _CONSUMERS_A_STEP)]
    rest = config.model_copy(update={"routes": (), "consumers": Consumers()})
    for part in (tuple(plugins), rest, len(pieces), *pieces, len(more), *more):
        pickle.dump(part, out, pickle.HIGHEST_PROTOCOL)
    return out.getvalue()


def unpack(packed: bytes, modules: Lease) -> Generator[None, None, Snapshot]:
    """Return what was packed; plugins are imported first, since the configuration holds values of their classes.

    Those that are files are leased by `modules`. Raises ConfigError where a plugin cannot be imported here.
    """
    source = io.BytesIO(packed)

    def load() -> object:
        return pickle.load(source)  # noqa: S301 - it comes from the gateway's own processes, by a descriptor

    load()  # what `services_of` reads, still packed
    plugins = load()
    assert isinstance(plugins, tuple)
    for plugin in plugins:
        if plugin.code is not None:
            modules.share(("plugin", plugin), functools.partial(PluginModule, plugin))
        yield
    config = load()
    assert isinstance(config, Config)
    count = load()
    assert isinstance(count, int)
    routes: list[Route] = []
    for _ in range(count):
        yield
        piece = load()
        assert isinstance(piece, tuple)
        routes += piece
    count = load()
    assert isinstance(count, int)
    consumers: Consumers[ConsumerSettings] = Consumers()
    for _ in range(count):
        yield
        more = load()
        assert isinstance(more, list)
        consumers.take(more)
    return Snapshot(config.model_copy(update={"routes": tuple(routes), "consumers": consumers}), plugins)


def services_of(packed: bytes) -> dict[str, Service]:
    """Return the services of what was packed, without their policies: no plugin is imported for it."""
    services: dict[str, Service] = pickle.loads(pickle.load(io.BytesIO(packed)))  # noqa: S301 - as in `unpack`
    return services


def read(descriptor: int) -> bytes:
    """Return the snapshot in a file, wherever others have read it to."""
    size = os.fstat(descriptor).st_size
    parts = []
    at = 0
    while at < size:
        part = os.pread(descriptor, size - at, at)
        if not part:
            raise EOFError("the snapshot is shorter than it was")
        parts.append(part)
        at += len(part)
    return b"".join(parts)
