"""From a file to a configuration that is known to run: what `run`, `check` and `explain` all do first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from portico.config.document import Document, read
from portico.config.findings import Finding, Findings, place_of
from portico.config.load import validate
from portico.config.objects import Objects
from portico.config.schema import Config
from portico.config.source import ConfigSource
from portico.consumers.sqlite import remarks_on
from portico.consumers.store import StoreFailed
from portico.errors import ConfigError
from portico.net.stream import Outbox
from portico.policy.base import Component
from portico.policy.registry import Registry
from portico.runtime.compile import Compiled, CompileError, FirstLot, Surroundings, compile_config
from portico.runtime.lint import lint
from portico.runtime.plugins import PluginSource, import_plugin, installed_plugins, read_plugin, registry_of
from portico.runtime.shared import Leases


@dataclass(frozen=True)
class Loaded:
    """What became of a file: its configuration, unless a finding is an error, and all that was found, by place."""

    config: Config | None
    findings: tuple[Finding, ...]
    registry: Registry = field(default_factory=Registry)
    plugins: tuple[PluginSource, ...] = ()
    files: tuple[str, ...] = ()
    """Every file that it was made of."""
    patterns: tuple[str, ...] = ()
    """The patterns by which it includes more."""
    objects: Objects | None = None
    """What is in it; None where it was not read from files."""
    began: float = 0.0
    """When the first of them was read, in seconds since the epoch."""


def load(path: Path) -> Loaded:
    """Read, validate and compile the file at `path`; nothing is raised, what is wrong is among the findings."""
    return try_out(read_in(path))


def read_in(source: Path | ConfigSource, more: Iterable[type[Component[Any]]] = ()) -> Loaded:
    """Read and validate a file, which may still be one that cannot be compiled.

    `more` are policies and endpoints that it may use beside those of its plugins.
    """
    began = time.time()
    document = read(source)
    findings = Findings()
    plugins = (*installed_plugins(), *_plugins(document, findings))
    try:
        registry = registry_of(plugins)
    except ConfigError as error:
        findings.error(document.place("plugins"), str(error))
        registry = registry_of(())
    for each in more:
        registry.add(each)
    judged = validate(document, policies=registry.policy_kinds, endpoints=registry.endpoint_kinds)
    found = Findings([*findings.sorted(), *judged.findings])
    if judged.config is not None:
        _look_at_database(judged.config, found)
    files = tuple(dict.fromkeys([*document.files, *(plugin.name for plugin in document.plugins if plugin.is_file)]))
    config = None if found.failed else judged.config
    objects = Objects(document.root)
    return Loaded(config, found.sorted(), registry, plugins, files, document.patterns, objects, began)


def _look_at_database(config: Config, findings: Findings) -> None:
    """Tell why the database of consumers cannot be used, and what is odd about it."""
    database = config.consumer_database
    if database is None:
        return
    place = place_of(database.origin)
    try:
        for remark in remarks_on(database.file):
            findings.warning(place, remark, "leave it to the gateway's user alone: chmod 600")
    except StoreFailed as failed:
        findings.error(place, failed.message, failed.hint)


def try_out(loaded: Loaded) -> Loaded:
    """Compile what was read in, and add what is found by that."""
    if loaded.config is None:
        return loaded
    tried = Findings([*loaded.findings, *asyncio.run(_try_out(loaded.config, loaded.registry))])
    return replace(loaded, config=None if tried.failed else loaded.config, findings=tried.sorted())


async def _try_out(config: Config, registry: Registry) -> tuple[Finding, ...]:
    """Compile `config` as a worker will, and look for what is legal and odd."""
    findings = Findings()
    async with asyncio.TaskGroup() as tasks:
        try:
            with compiled(config, registry, tasks) as result:
                lint(config, result, registry, findings)
        except CompileError as error:
            return error.findings
    return findings.sorted()


@contextmanager
def compiled(config: Config, registry: Registry, tasks: asyncio.TaskGroup) -> Iterator[Compiled]:
    """Compile `config` for a look at it, without a worker around it, and without the work that keeps things fresh."""
    loop = asyncio.get_running_loop()
    result = compile_config(config, Surroundings(registry, Leases(), tasks, Outbox(loop), loop.time, rng=FirstLot()))
    result.life.stop()
    try:
        yield result
    finally:
        result.runtime.close()


def _plugins(document: Document, findings: Findings) -> tuple[PluginSource, ...]:
    sources = []
    for plugin in document.plugins:
        try:
            source = read_plugin(plugin.name)
            import_plugin(source)
        except ConfigError as error:
            findings.error(plugin.place, str(error))
        else:
            sources.append(source)
    return tuple(sources)
