from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from portico.config.schema import Config
from portico.errors import ConfigError
from portico.runtime.loading import Loaded, load
from portico.runtime.pace import at_once
from portico.runtime.plugins import PluginSource, registry_of
from portico.runtime.shared import Leases
from portico.runtime.snapshot import Snapshot, pack, read, unpack
from portico.state.board import shared_file
from tests.harness.gateway import DEADLINE

PLUGIN = """
from portico.plugin import *


class Greet(PolicyConfig):
    word: str


class GreetPolicy(Policy[Greet], name="greet", stages=(Stage.TRANSFORM,)):
    def greeting(self) -> str:
        return "WORD, " + self.config.word
"""

CONFIG = """
listen: ["127.0.0.1:8000", {address: ":8001", proxy_protocol: [10.0.0.0/8]}]
workers: 3
plugins: [greet.py]
trusted_proxies: 192.168.0.0/16
services:
  a: {url: "http://127.0.0.1:8080/base", timeout: 3s, policies: [{greet: {word: service}}]}
  b: {targets: ["127.0.0.1:1", {address: "https://b.test:2", weight: 3}]}
policies: [correlation-id, {greet: {word: file}}]
routes:
  - {path: "/a/{id}", service: a, methods: [GET], headers: {X-Kind: "~a|b"}, policies: [{greet: off}]}
  - {path: /b/**, hosts: "*.example.com", service: b, max_body: 1MB, policies: [{greet: {word: route}}]}
  - {path: /c, redirect: {to: "https://example.com/", status: 301}}
"""

OTHER = """
import os, sys
from portico.runtime.pace import at_once
from portico.runtime.plugins import registry_of
from portico.runtime.shared import Leases
from portico.runtime.snapshot import read, unpack
leases = Leases()
snapshot = at_once(unpack(read(int(sys.argv[1])), leases.lease()))
registry = registry_of(snapshot.plugins)
use = snapshot.config.routes[1].policies[0]
print(len(leases), registry.policies[use.kind](use.config).greeting(), snapshot.config.routes[0].origin)
"""


def loaded_from(folder: Path, config: str = CONFIG, plugin: str = PLUGIN) -> Loaded:
    (folder / "greet.py").write_text(plugin)
    (folder / "portico.yaml").write_text(config)
    loaded = load(folder / "portico.yaml")
    assert loaded.config is not None, loaded.findings
    return loaded


def packed(loaded: Loaded) -> bytes:
    assert loaded.config is not None
    return pack(loaded.config, loaded.plugins)


def unpacked(content: bytes, leases: Leases | None = None) -> Snapshot:
    return at_once(unpack(content, (leases or Leases()).lease()))


def test_a_configuration_arrives_as_it_was(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path)
    snapshot = unpacked(packed(loaded))
    assert snapshot.config == loaded.config
    assert snapshot.plugins == loaded.plugins
    assert [route.origin for route in snapshot.config.routes] == [
        f"{tmp_path}/portico.yaml:{line}:5" for line in (11, 12, 13)
    ]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
def test_all_routes_arrive_in_their_order(tmp_path: Path, count: int) -> None:
    routes = "".join(f"  - {{path: /r{number}, respond: {{body: a}}}}\n" for number in range(count))
    loaded = loaded_from(tmp_path, f"routes:\n{routes}" if routes else "routes: []")
    snapshot = unpacked(packed(loaded))
    assert snapshot.config == loaded.config
    assert [route.path for route in snapshot.config.routes] == [(f"/r{number}",) for number in range(count)]


def test_services_are_read_without_their_plugins(tmp_path: Path) -> None:
    content = packed(loaded_from(tmp_path))
    code = "import sys; from portico.runtime.snapshot import *; s = services_of(sys.stdin.buffer.read())\n"
    code += (
        "print(sorted(s), s['a'].policies, [str(t) for t in s['b'].targets], [m for m in sys.modules if 'greet' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, timeout=DEADLINE)
    assert done.stderr == b""
    assert done.stdout == b"['a', 'b'] () ['127.0.0.1:1', 'b.test:2'] []\n"


def test_it_is_read_in_small_steps(tmp_path: Path) -> None:
    routes = "".join(f"  - {{path: /r{number}, respond: {{body: a}}}}\n" for number in range(160))
    content = packed(loaded_from(tmp_path, f"plugins: [greet.py]\nroutes:\n{routes}"))
    assert sum(1 for _ in unpack(content, Leases().lease())) >= 10


def test_files_are_not_needed_any_more(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path)
    content = shared_file("snapshot", packed(loaded))
    for file in tmp_path.iterdir():
        file.unlink()
    done = subprocess.run(
        [sys.executable, "-c", OTHER, str(content)],
        pass_fds=[content],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    os.close(content)
    assert done.stderr == ""
    assert done.stdout == f"1 WORD, route {tmp_path}/portico.yaml:11:5\n"


def test_modules_of_plugins_live_as_long_as_they_are_leased(tmp_path: Path) -> None:
    first = packed(loaded_from(tmp_path))
    other = packed(loaded_from(tmp_path, plugin=PLUGIN.replace("WORD", "Hello")))
    leases = Leases()
    one, same, new = leases.lease(), leases.lease(), leases.lease()
    module = type(at_once(unpack(first, one)).config.routes[1].policies[0].config).__module__
    at_once(unpack(first, same))
    snapshot = at_once(unpack(other, new))
    assert type(snapshot.config.routes[1].policies[0].config).__module__ != module
    assert len(leases) == 2
    one.close()
    assert module in sys.modules
    same.close()
    assert module not in sys.modules
    assert registry_of(snapshot.plugins).policies["greet"].__module__ in sys.modules
    new.close()
    assert len(leases) == 0


def test_installed_plugins_are_not_leased() -> None:
    loaded_plugins = (PluginSource("json", None),)
    leases = Leases()
    config = unpacked(pack(Config(), loaded_plugins), leases)
    assert config.plugins == loaded_plugins
    assert len(leases) == 0


def test_a_plugin_that_cannot_be_imported_here_is_told(tmp_path: Path) -> None:
    source = PluginSource(str(tmp_path / "bad.py"), b"raise RuntimeError('not here')")
    leases = Leases()
    with pytest.raises(ConfigError, match=r"bad\.py cannot be loaded: RuntimeError: not here"):
        unpacked(pack(Config(), (source,)), leases)
    assert len(leases) == 0


def test_who_gives_up_in_the_middle_holds_what_was_leased_so_far(tmp_path: Path) -> None:
    content = packed(loaded_from(tmp_path))
    leases = Leases()
    lease = leases.lease()
    reading = unpack(content, lease)
    next(reading)
    reading.close()
    assert len(leases) == 1
    lease.close()
    assert len(leases) == 0


def test_a_file_is_read_whole_wherever_others_have_read_it_to() -> None:
    content = bytes(range(256)) * 10_000
    file = shared_file("snapshot", content)
    os.lseek(file, 1000, os.SEEK_SET)
    assert read(file) == content
    assert read(file) == content
    assert os.lseek(file, 0, os.SEEK_CUR) == 1000
    os.close(file)


def test_an_empty_file_has_nothing_to_read() -> None:
    file = shared_file("snapshot", b"")
    assert read(file) == b""
    os.close(file)


def test_a_file_that_shrinks_meanwhile_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    file = shared_file("snapshot", b"0123456789")
    pread = os.pread

    def shrinks(descriptor: int, size: int, at: int) -> bytes:
        os.ftruncate(file, 5)
        return pread(descriptor, size, at)

    monkeypatch.setattr(os, "pread", shrinks)
    with pytest.raises(EOFError):
        read(file)
    os.close(file)
