from __future__ import annotations

from portico.config.source import TextSource
from portico.plugin import Env, Policy, PolicyConfig, Request, Response, Stage
from portico.runtime.env import ServiceSettings
from portico.runtime.loading import read_in
from portico.testing import Gateway, Reply

BASE = """
services:
  a: {url: "http://127.0.0.1:1/base", fallback: b}
  b: {split: [c, d]}
  c: {url: "http://127.0.0.1:2"}
  d: {url: "http://127.0.0.1:3"}
  e: {url: "http://127.0.0.1:4", policies: [security-headers]}
routes: [{path: /a, service: a}]
"""


def prints(text: str) -> dict[str, bytes]:
    config = read_in(TextSource(text)).config
    assert config is not None
    settings = ServiceSettings(config.services)
    return {name: settings.of(name) for name in config.services}


def changed(old: str, new: str) -> set[str]:
    """Return the services whose settings are others where the file says something else."""
    assert old in BASE
    before, after = prints(BASE), prints(BASE.replace(old, new))
    return {name for name in before if before[name] != after[name]}


def test_settings_of_services_are_told_apart() -> None:
    assert len(set(prints(BASE).values())) == 5
    assert not changed("services:", "# a line more\nservices:")
    assert not changed("[security-headers]", "[]")  # they stand around routes, and not around who asks
    assert changed("127.0.0.1:1/base", "127.0.0.1:1/other") == {"a"}
    assert changed("127.0.0.1:3", "127.0.0.1:9") == {"a", "b", "d"}  # and whatever leads to it
    assert changed('127.0.0.1:4"', '127.0.0.1:4", timeout: 1s') == {"e"}


class Placed(Policy[PolicyConfig], name="placed", stages=(Stage.GUARD,)):
    """Counts requests by where it is written."""

    def setup(self, env: Env) -> None:
        self._counter = env.counter("requests_total", place=env.place)

    def request(self, request: Request) -> Response | None:
        self._counter.add()
        return None


def test_a_policy_that_is_written_once_is_in_one_place() -> None:
    text = """
    services: {a: {url: "http://127.0.0.1:1", policies: [{placed: {}, name: second}]}}
    policies: [placed]
    routes:
      - {path: /a, name: a, service: a}
      - {path: /b, name: b, service: a}
      - {path: /c, name: c, respond: hi, policies: [placed]}
      - {path: /d, name: d, respond: hi, policies: [{placed: {}, name: third}]}
    """
    with Gateway(text=text, services={"a": Reply()}, classes=[Placed]) as gateway:
        for path in ("/a", "/b", "/b", "/c", "/d"):
            gateway.request("GET", path)
        counted = {name: value for name, value in gateway.counters.items() if value}
    assert counted == {
        'requests_total{place="global:placed"}': 4,
        'requests_total{place="service:a:second"}': 3,
        'requests_total{place="route:c:placed"}': 1,
        'requests_total{place="route:d:third"}': 1,
    }
