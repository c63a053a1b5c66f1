from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portico.errors import ConfigError
from portico.runtime.plugins import PluginSource, import_plugin, load_registry, read_plugin

CODE = '''
from portico.plugin import Policy, PolicyConfig, Stage

class Fence(PolicyConfig):
    allow: str
    """Who may pass."""

class FencePolicy(Policy[Fence], name="fence", stages=(Stage.GUARD,)):
    pass
'''


@pytest.fixture(autouse=True)
def _no_module_stays() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("portico_plugin_"):
            del sys.modules[name]


def plugin(code: str = CODE, name: str = "plugins/fence.py") -> PluginSource:
    return PluginSource(name, code.encode())


def test_a_file_is_read_and_a_module_is_named() -> None:
    assert read_plugin("my.module") == PluginSource("my.module", None)
    with pytest.raises(ConfigError, match=r"plugin \./nothing\.py cannot be read: No such file"):
        read_plugin("./nothing.py")


def test_a_plugin_runs_as_it_was_when_it_was_read(tmp_path: Path) -> None:
    file = tmp_path / "fence.py"
    file.write_text(CODE)
    source = read_plugin(str(file))
    file.write_text("broken(")
    module = import_plugin(source)
    assert module.FencePolicy.name == "fence"
    assert module.Fence.model_fields["allow"].description == "Who may pass."


def test_same_code_is_the_same_module_and_new_code_a_new_one() -> None:
    first = import_plugin(plugin())
    assert import_plugin(plugin()) is first
    assert sys.modules[first.__name__] is first
    assert first.__name__.startswith("portico_plugin_fence_")
    assert first.__file__ == "plugins/fence.py"
    second = import_plugin(plugin(CODE + "\nVERSION = 2\n"))
    assert second is not first
    assert second.__name__ != first.__name__
    assert second.VERSION == 2
    assert import_plugin(plugin(name="elsewhere/fence.py")) is not first


def test_a_config_of_a_plugin_crosses_processes() -> None:
    module = import_plugin(plugin())
    config = module.Fence(allow="DE")
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_plugin_that_fails_is_told_of_and_leaves_nothing(code: str, message: str) -> None:
    before = set(sys.modules)
    with pytest.raises(ConfigError, match=f"plugin plugins/fence.py cannot be loaded: {message}"):
        import_plugin(plugin(code))
    assert not [name for name in set(sys.modules) - before if name.startswith("portico_plugin_")]


def test_a_module_that_is_not_installed_is_told_of() -> None:
    with pytest.raises(ConfigError, match=r"plugin no\.such cannot be imported: ModuleNotFoundError"):
        import_plugin(PluginSource("no.such", None))


def test_the_registry_has_built_in_parts_and_those_of_plugins() -> None:
    registry = load_registry([plugin(), plugin(), PluginSource("portico.policies.request_size", None)])
    assert {"correlation-id", "request-size", "security-headers", "fence"} <= registry.policies.keys()
    assert {"service", "respond", "redirect", "no-route", "wrong-method"} <= registry.endpoints.keys()
    assert not {"no-route", "wrong-method"} & registry.endpoint_kinds.keys()
    assert "fence" not in load_registry([]).policies


def test_a_plugin_may_not_take_a_built_in_name() -> None:
    with pytest.raises(ConfigError, match="both define 'request-size'"):
        load_registry([plugin(CODE.replace('"fence"', '"request-size"'))])
