"""The registry of one load: built-in policies and endpoints, those of installed packages, and those of plugin files."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import linecache
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import portico.endpoints
import portico.policies
from portico.errors import ConfigError
from portico.policy.registry import Registry

ENTRY_POINT_GROUP = "portico.policies"
"""The entry points by which an installed package offers a module of policies and endpoints."""


class PluginSource(NamedTuple):
    """A plugin as it was when the configuration was loaded; every worker runs these very bytes.

    `code` is None for a module of an installed package.
    """

    name: str
    code: bytes | None

    @property
    def called(self) -> str:
        """What its functions are found by: the name of the file without `.py`, or that of the module."""
        return self.name if self.code is None else Path(self.name).stem


def read_plugin(name: str) -> PluginSource:
    """Return the plugin that a file names: the path of a Python file, or a module. Raises ConfigError."""
    if not name.endswith(".py"):
        return PluginSource(name, None)
    try:
        return PluginSource(name, Path(name).read_bytes())
    except OSError as error:
        raise ConfigError(f"plugin {name} cannot be read: {error.strerror}") from error


def load_registry(plugins: Iterable[PluginSource]) -> Registry:
    """Return the registry of the built-in modules, installed packages and `plugins`. Raises ConfigError."""
    return registry_of((*installed_plugins(), *plugins))


def installed_plugins() -> tuple[PluginSource, ...]:
    """Return the plugins that installed packages offer; to find them takes a look at every package."""
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    return tuple(PluginSource(point.value.partition(":")[0], None) for point in points)


def registry_of(plugins: Iterable[PluginSource]) -> Registry:
    """Return the registry of the built-in modules and just these plugins. Raises ConfigError."""
    modules = [*_package_modules(portico.endpoints), *_package_modules(portico.policies)]
    imported = [(plugin.called, import_plugin(plugin)) for plugin in plugins]
    registry = Registry.of(dict.fromkeys([*modules, *(module for _, module in imported)]))
    for called, module in imported:
        registry.offer(called, module)
    return registry


def import_plugin(plugin: PluginSource) -> ModuleType:
    """Import a plugin. A file is imported under a name that holds its digest, so new code is a new module."""
    if plugin.code is None:
        return _import(plugin.name)
    digest = hashlib.sha256(plugin.name.encode() + b"\0" + plugin.code).hexdigest()[:16]
    name = f"portico_plugin_{Path(plugin.name).stem}_{digest}"
    known = sys.modules.get(name)
    if known is not None:
        return known
    module = ModuleType(name)
    module.__file__ = plugin.name
    sys.modules[name] = module
    try:
        # Whoever looks at the source, as pydantic does for docstrings, must see these bytes, not the file as it is now.
        lines = importlib.util.decode_source(plugin.code).splitlines(keepends=True)
        linecache.cache[plugin.name] = (len(plugin.code), None, lines, plugin.name)
        exec(compile(plugin.code, plugin.name, "exec"), module.__dict__)  # noqa: S102 - running it is what it is for
    except (Exception, SystemExit) as error:  # whatever a plugin raises is told as the plugin's
        del sys.modules[name]
        raise ConfigError(f"plugin {plugin.name} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


class PluginModule:
    """A plugin's file as a module, for as long as somebody leases it: new code leaves none of the old behind."""

    __slots__ = ("_name",)

    def __init__(self, plugin: PluginSource) -> None:
        """Import it, unless that was done. Raises ConfigError."""
        self._name = import_plugin(plugin).__name__

    def close(self) -> None:
        """Forget the module."""
        sys.modules.pop(self._name, None)


@functools.cache
def _package_modules(package: ModuleType) -> list[ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # as above
        raise ConfigError(f"plugin {name} cannot be imported: {type(error).__name__}: {error}") from error
