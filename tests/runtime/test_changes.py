from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from portico.runtime.changes import Changes, changes
from portico.runtime.loading import Loaded, load
from portico.runtime.pace import at_once
from portico.runtime.plugins import registry_of
from portico.runtime.shared import Leases
from portico.runtime.snapshot import pack, unpack

PLUGIN = """
from portico.plugin import *


class NoSettings(PolicyConfig):
    pass


class Greet(PolicyConfig):
    word: str = "hello"


class GreetPolicy(Policy[Greet], name="greet", stages=(Stage.GUARD, Stage.TRANSFORM)):
    pass


class PlainPolicy(Policy[PolicyConfig], name="plain", stages=(Stage.TRANSFORM,)):
    pass


class OtherPolicy(Policy[PolicyConfig], name="other", stages=(Stage.TRANSFORM,)):
    pass


class Answer(Endpoint[PolicyConfig], name="answer"):
    async def handle(self, request):
        return Response(200)
"""

BASE = """
listen: 127.0.0.1:8000
services:
  s: http://127.0.0.1:1/base
  t: {targets: ["127.0.0.1:1", "127.0.0.1:2"]}
routes:
  - {name: a, path: /a, service: s}
  - {name: b, path: /b, service: t}
"""

Compare = Callable[..., Changes]


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Return the changes between two texts, the first as a snapshot has it."""

    def loaded(text: str, plugin: str) -> Loaded:
        (tmp_path / "plugin.py").write_text(plugin)
        (tmp_path / "portico.yaml").write_text(text)
        loaded = load(tmp_path / "portico.yaml")
        assert loaded.config is not None, loaded.findings
        return loaded

    def compared(before: str, after: str, plugin: str = PLUGIN, new_plugin: str = PLUGIN) -> Changes:
        first = loaded(before, plugin)
        assert first.config is not None
        lease = Leases().lease()
        old = at_once(unpack(pack(first.config, first.plugins), lease))
        new = loaded(after, new_plugin)
        assert new.config is not None
        found = changes(old.config, registry_of(old.plugins), new.config, new.registry)
        lease.close()
        return found

    return compared


def told(found: Changes) -> dict[str, list[str]]:
    return {name: lines for name, lines in asdict(found).items() if lines}


def with_policies(*, file: str = "[]", service: str = "[]", route: str = "[]", plugins: str = "[plugin.py]") -> str:
    return f"""
plugins: {plugins}
policies: {file}
services:
  s: {{url: "http://127.0.0.1:1", policies: {service}}}
routes:
  - {{name: a, path: /a, service: s, policies: {route}}}
  - {{name: b, path: /b, respond: {{body: b}}}}
"""


# Nothing


def test_the_same_file_changes_nothing(compare: Compare) -> None:
    found = compare(BASE, BASE)
    assert not found
    assert told(found) == {}
    assert list(found.lines()) == []
    assert found.summary() == "nothing changed"


def test_lines_above_change_nothing(compare: Compare) -> None:
    text = with_policies(file="[correlation-id]", service="[greet]", route="[{greet: {word: a}}, plain]")
    assert not compare(text, "# a remark\n\n" + text)


def test_another_spelling_of_the_same_changes_nothing(compare: Compare) -> None:
    after = """
routes:
  - path: [/a]
    name: a
    service: s
  - {name: b, path: /b, service: t}
services:
  t: {targets: [{address: "127.0.0.1:1", weight: 1}, "http://127.0.0.1:2"]}
  s: {url: "http://127.0.0.1:1/base/"}
listen: ["127.0.0.1:8000"]
limits: {header_count: 100}
"""
    assert told(compare(BASE, after)) == {}


# Routes


def test_routes_come_and_go_and_change(compare: Compare) -> None:
    after = """
listen: 127.0.0.1:8000
services:
  s: http://127.0.0.1:1/base
  t: {targets: ["127.0.0.1:1", "127.0.0.1:2"]}
routes:
  - {name: a, path: [/a, /also], service: t, methods: [GET]}
  - {name: c, path: [/c, /d], service: s}
"""
    found = compare(BASE, after)
    assert found
    assert told(found) == {
        "routes_added": ["c (/c, /d)"],
        "routes_removed": ["b (/b)"],
        "routes_changed": ["a (path, methods, endpoint)"],
    }
    assert list(found.lines()) == [
        "route added: c (/c, /d)",
        "route removed: b (/b)",
        "route changed: a (path, methods, endpoint)",
    ]
    assert found.summary() == "routes added: 1, routes removed: 1, routes changed: 1"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("hosts: a.example.com", "hosts"),
        ("headers: {X-A: b}", "headers"),
        ("query: {a: true}", "query"),
        ("cookies: {a: ~b+}", "cookies"),
        ("priority: 1", "priority"),
        ("max_body: 1MB", "max_body"),
    ],
)
def test_a_route_changes_by_any_of_its_fields(compare: Compare, more: str, field: str) -> None:
    after = BASE.replace("path: /a,", f"path: /a, {more},")
    assert told(compare(BASE, after)) == {"routes_changed": [f"a ({field})"]}
    assert told(compare(after, BASE)) == {"routes_changed": [f"a ({field})"]}


def test_a_route_changes_with_what_it_ends_in(compare: Compare) -> None:
    before = "routes: [{name: a, path: /a, respond: {body: one}}]"
    assert told(compare(before, before.replace("one", "two"))) == {"routes_changed": ["a (endpoint)"]}
    assert told(compare(before, before.replace("respond: {body: one}", "redirect: /b"))) == {
        "routes_changed": ["a (endpoint)"]
    }


def test_another_order_of_the_routes_is_a_change(compare: Compare) -> None:
    before = """
routes:
  - {name: a, path: "~/x.*", respond: {body: a}}
  - {name: b, path: "~/.*y", respond: {body: b}}
  - {name: c, path: /c, respond: {body: c}}
"""
    lines = before.strip().splitlines()
    after = "\n".join([lines[0], lines[2], lines[1], lines[3]])
    assert told(compare(before, after)) == {"settings": ["order of routes"]}
    without = "\n".join([lines[0], lines[1], lines[3]])
    assert told(compare(before, without)) == {"routes_removed": ["b (~/.*y)"]}
    assert told(compare(without, before)) == {"routes_added": ["b (~/.*y)"]}


# Chains


def test_policies_come_and_go_and_change(compare: Compare) -> None:
    before = with_policies(route="[security-headers, {greet: {word: a}}]")
    after = with_policies(route="[{greet: {word: b}}, plain]")
    assert told(compare(before, after)) == {"chains": ["a (-security-headers, +plain, ~greet)"]}
    assert compare(before, after).summary() == "chains changed: 1"


def test_a_policy_of_the_file_stands_around_all_routes(compare: Compare) -> None:
    found = compare(with_policies(), with_policies(file="[correlation-id]"))
    assert told(found) == {"chains": ["a (+correlation-id)", "b (+correlation-id)"]}


def test_a_policy_of_a_service_stands_around_its_routes(compare: Compare) -> None:
    assert told(compare(with_policies(), with_policies(service="[greet]"))) == {"chains": ["a (+greet)"]}
    assert told(compare(with_policies(service="[greet]"), with_policies(route="[greet]"))) == {}


def test_a_policy_that_a_route_switches_off_leaves_its_chain(compare: Compare) -> None:
    before = with_policies(file="[greet]")
    assert told(compare(before, with_policies(file="[greet]", route="[{greet: off}]"))) == {"chains": ["a (-greet)"]}


def test_another_condition_is_a_change(compare: Compare) -> None:
    before = with_policies(route="[{greet: {}}]")
    after = with_policies(route="[{greet: {}, when: method == 'GET'}]")
    assert told(compare(before, after)) == {"chains": ["a (~greet)"]}
    assert told(compare(after, after.replace("'GET'", "'PUT'"))) == {"chains": ["a (~greet)"]}
    assert told(compare(after, f"# moved by a line\n{after}")) == {}


def test_policies_in_another_order_are_a_change(compare: Compare) -> None:
    before = with_policies(route="[plain, other]")
    assert told(compare(before, with_policies(route="[other, plain]"))) == {"chains": ["a (another order)"]}
    after = with_policies(route="[other, greet, plain]")
    assert told(compare(before, after)) == {"chains": ["a (+greet, another order)"]}


def test_a_policy_in_another_stage_is_a_change(compare: Compare) -> None:
    before = with_policies(route="[{greet: {}}]")
    after = with_policies(route="[{greet: {}, stage: transform}]")
    assert told(compare(before, after)) == {"chains": ["a (~greet)"]}


def test_another_kind_of_policy_by_the_same_name_is_a_change(compare: Compare) -> None:
    before = with_policies(route="[{plain: {}, name: x}]")
    after = with_policies(route="[{other: {}, name: x}]")
    assert told(compare(before, after)) == {"chains": ["a (~x)"]}


def test_what_only_requests_without_a_route_meet_is_a_change(compare: Compare) -> None:
    before = "policies: [correlation-id]\nroutes: []"
    after = "policies: [security-headers]\nroutes: []"
    assert told(compare(before, after)) == {"chains": ["without a route (-correlation-id, +security-headers)"]}


# Plugins


def test_new_code_of_a_plugin_changes_the_chain(compare: Compare) -> None:
    text = with_policies(route="[greet]")
    found = compare(text, text, new_plugin=PLUGIN + "\n# other code\n")
    assert told(found) == {"chains": ["a (~greet)"]}


def test_new_code_of_a_policy_without_settings_of_its_own_changes_the_chain(compare: Compare) -> None:
    text = with_policies(route="[plain]")
    assert told(compare(text, text, new_plugin=PLUGIN + "\n# other code\n")) == {"chains": ["a (~plain)"]}


def test_new_code_of_an_endpoint_changes_its_routes(compare: Compare) -> None:
    text = "plugins: [plugin.py]\nroutes: [{name: a, path: /a, answer: {}}, {name: b, path: /b, respond: {body: b}}]"
    assert told(compare(text, text, new_plugin=PLUGIN + "\n# other code\n")) == {"routes_changed": ["a (endpoint)"]}


def test_new_code_of_a_function_that_a_policy_calls_changes_the_chain(compare: Compare) -> None:
    text = with_policies(route='[{authorizer: {function: "plugin:Greet"}}]')
    assert told(compare(text, text, new_plugin=PLUGIN + "\n# other code\n")) == {"chains": ["a (~authorizer)"]}


def test_new_code_that_nothing_uses_changes_nothing(compare: Compare) -> None:
    assert not compare(with_policies(), with_policies(), new_plugin=PLUGIN + "\n# other code\n")


def test_another_plugin_is_a_setting(compare: Compare) -> None:
    assert told(compare(with_policies(), with_policies(plugins="[]"))) == {"settings": ["plugins"]}


# Services


def test_services_come_and_go(compare: Compare) -> None:
    after = BASE.replace("  s: http", "  u: http").replace("service: s}", "service: u}")
    found = compare(BASE, after)
    assert told(found) == {
        "routes_changed": ["a (endpoint)"],
        "services_added": ["u"],
        "services_removed": ["s"],
    }
    assert "service added: u" in list(found.lines())


def test_services_lose_and_gain_targets(compare: Compare) -> None:
    after = BASE.replace('["127.0.0.1:1", "127.0.0.1:2"]', '["127.0.0.1:2", "https://127.0.0.1:3", "127.0.0.1:4"]')
    assert told(compare(BASE, after)) == {
        "services_changed": [
            "t (loses http://127.0.0.1:1, gains https://127.0.0.1:3, gains http://127.0.0.1:4)",
        ]
    }


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "http://127.0.0.1:1/base",
            "http://127.0.0.1:2/base",
            "s (loses http://127.0.0.1:1, gains http://127.0.0.1:2)",
        ),
        ("http://127.0.0.1:1/base", "http://127.0.0.1:1/other", "s (url)"),
        ("http://127.0.0.1:1/base", "{targets: ['127.0.0.1:1']}", "s (url)"),
        ("{targets: ['127.0.0.1:1']}", "{targets: [{address: '127.0.0.1:1', weight: 2}]}", "s (weights)"),
        ("http://127.0.0.1:1/base", "{url: http://127.0.0.1:1/base, timeout: 5s}", "s (timeout)"),
        ("http://127.0.0.1:1/base", "{url: http://127.0.0.1:1/base, keepalive: off}", "s (keepalive)"),
        (
            "http://127.0.0.1:1/base",
            "{url: http://127.0.0.1:2/base, max_connections: 5, upgrades: off}",
            "s (loses http://127.0.0.1:1, gains http://127.0.0.1:2, max_connections, upgrades)",
        ),
    ],
)
def test_services_change(compare: Compare, before: str, after: str, expected: str) -> None:
    text = "services:\n  s: SERVICE\nroutes: [{path: /a, service: s}]"
    found = compare(text.replace("SERVICE", before), text.replace("SERVICE", after))
    assert told(found) == {"services_changed": [expected]}


def test_a_url_and_the_same_as_a_target_are_no_change(compare: Compare) -> None:
    text = "services:\n  s: SERVICE\nroutes: [{path: /a, service: s}]"
    one, other = text.replace("SERVICE", "http://127.0.0.1:1"), text.replace("SERVICE", "{targets: ['127.0.0.1:1']}")
    assert not compare(one, other)


# Settings


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("workers: 3", "workers"),
        ("limits: {body: 1MB}", "limits"),
        ("trusted_proxies: 10.0.0.0/8", "trusted_proxies"),
        ("forwarded: both", "forwarded"),
        ("health: {allow: []}", "health"),
        ("path: {encoded_slashes: reject}", "path"),
        ("shutdown_timeout: 1s", "shutdown_timeout"),
        ("watch: true", "watch"),
        ("watchdog: off", "watchdog"),
        ("status: 127.0.0.1:9901", "status"),
    ],
)
def test_settings_change(compare: Compare, more: str, key: str) -> None:
    found = compare(BASE, f"{BASE}{more}\n")
    assert told(found) == {"settings": [key]}
    assert list(found.lines()) == [f"setting changed: {key}"]
    assert told(compare(f"{BASE}{more}\n", BASE)) == {"settings": [key]}


def test_listeners_are_a_setting(compare: Compare) -> None:
    for other in (
        '["127.0.0.1:8000", "127.0.0.1:8001"]',
        "127.0.0.1:8001",
        "{address: 127.0.0.1:8000, proxy_protocol: true}",
    ):
        assert told(compare(BASE, BASE.replace("listen: 127.0.0.1:8000", f"listen: {other}"))) == {
            "settings": ["listen"]
        }
