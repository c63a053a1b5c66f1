from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httptools
import pytest

from portico.config.findings import Finding
from portico.net.server_stream import REFUSED_METHODS
from portico.runtime.lint import METHODS
from portico.runtime.loading import load
from portico.testing import Gateway
from tests.harness.certificates import Authority, without_names

KEYS = """
from portico.plugin import Policy, PolicyConfig, Stage

class Keys(PolicyConfig):
    realm: str = ""

class KeysPolicy(Policy[Keys], name="keys", stages=(Stage.AUTHENTICATE,)):
    pass
"""


@pytest.fixture(autouse=True)
def _no_module_stays() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("portico_plugin_"):
            del sys.modules[name]


@pytest.fixture
def warnings(tmp_path: Path) -> Warnings:
    return Warnings(tmp_path)


class Warnings:
    """Loads texts and returns what is said of each: `line message`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, text: str) -> list[str]:
        return [f"{finding.line} {finding.message}" for finding in self.found(text)]

    def found(self, text: str) -> tuple[Finding, ...]:
        (self.folder / "keys.py").write_text(KEYS)
        file = self.folder / "portico.yaml"
        file.write_text(text)
        loaded = load(file)
        assert loaded.config is not None, loaded.findings
        assert {finding.severity for finding in loaded.findings} <= {"warning"}
        assert all(finding.hint for finding in loaded.findings)
        return loaded.findings


def test_nothing_is_said_of_what_is_well(warnings: Warnings) -> None:
    assert (
        warnings("services: {a: 'http://a:80'}\nroutes:\n  - {path: /a/**, service: a}\n  - {path: /b, respond: hi}\n")
        == []
    )


def test_a_route_that_never_matches(warnings: Warnings) -> None:
    text = """\
routes:
  - {name: all, path: /a/**, respond: x}
  - {name: never, path: '/a/{id}', priority: -1, respond: y}
  - {name: other, path: '/b/{id}', respond: z}
  - {name: same, path: '/b/{key}', respond: z}
"""
    said = warnings(text)
    assert [line.partition("(")[0] for line in said] == [
        "3 route never can never match /a/{id}: all ",
        "5 route same can never match /b/{key}: other ",
    ]
    assert said[1].endswith("portico.yaml:4:5) goes first")


def test_a_route_may_stand_in_the_way_of_a_built_in_one(warnings: Warnings) -> None:
    assert warnings("routes:\n  - {path: /**, priority: 5, respond: x}\n") == []


def test_a_service_that_nobody_uses(warnings: Warnings) -> None:
    text = """\
services:
  used: http://a:80
  unused: http://b:80
routes:
  - {path: /a, service: used}
"""
    assert warnings(text) == ["3 no route uses service unused"]


@pytest.mark.parametrize("which", ["connect", "first_byte", "idle"])
def test_a_service_that_may_be_waited_for_for_ever(warnings: Warnings, which: str) -> None:
    text = f"""\
services:
  endless: {{url: 'http://a:80', timeout: {{{which}: off}}}}
  ends: {{url: 'http://b:80', timeout: {{{which}: off, total: 60s}}}}
routes:
  - {{path: /a, service: endless}}
  - {{path: /b, service: ends}}
"""
    assert warnings(text) == ["2 service endless may keep a request waiting for ever"]


def parses(method: str) -> bool:
    try:
        httptools.HttpRequestParser(object()).feed_data(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return False
    return True


REGISTERED = [
    *("ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD", "LABEL"),
    *("LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "OPTIONS"),
    *("ORDERPATCH", "PATCH", "POST", "PRI", "PROPFIND", "PROPPATCH", "PUT", "REBIND", "REPORT", "SEARCH", "TRACE"),
    *("UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL"),
]
"""IANA's registry of methods, which the parser knows in part."""


def test_the_methods_are_those_of_the_parser() -> None:
    every = {*REGISTERED, *METHODS, "DESCRIBE", "ANNOUNCE", "SETUP", "PLAY", "BREW", "GTE"}
    assert {method for method in every if parses(method)} - REFUSED_METHODS == METHODS


def test_a_method_that_never_comes(warnings: Warnings) -> None:
    text = """\
routes:
  - {name: typo, path: /a, methods: [GTE, POST], respond: x}
  - {name: refused, path: /b, methods: trace, respond: x}
  - {name: rare, path: /c, methods: [purge, M-SEARCH], respond: x}
"""
    assert "did you mean 'GET'?" in {finding.hint for finding in warnings.found(text)}
    assert warnings(text) == [
        "2 route typo never sees the method GTE, which the gateway answers 501",
        "3 route refused never sees the method TRACE, which the gateway answers 405",
    ]


OPEN = """\
plugins: [./keys.py]
services: {a: 'http://a:80'}
routes:
  - {name: closed, path: /closed, service: a, policies: [keys]}
"""


def test_an_open_route_among_closed_ones(warnings: Warnings) -> None:
    assert warnings(OPEN + "  - {name: open, path: /open, service: a}\n") == [
        "5 route open is open to everyone, while closed asks who is calling"
    ]


def test_an_open_route_that_says_so(warnings: Warnings) -> None:
    text = OPEN.replace("routes:", "policies: [keys]\nroutes:")
    assert warnings(text + "  - {name: open, path: /open, service: a, policies: [{keys: off}]}\n") == []


def test_what_asks_no_service_may_be_open(warnings: Warnings) -> None:
    assert warnings(OPEN + "  - {name: hello, path: /hello, respond: hi}\n") == []


def test_where_nobody_asks_all_may_be_open(warnings: Warnings) -> None:
    text = OPEN.replace(", policies: [keys]", "")
    assert warnings(text + "  - {name: open, path: /open, service: a}\n") == []


KEY_AUTH = "{key-auth: {keys: {ada: a-key-of-some-length}}"


@pytest.mark.parametrize(
    ("policies", "warned"),
    [
        (f"[{KEY_AUTH}}}]", ""),
        (f"[{KEY_AUTH}}}, anonymous]", ""),
        ("[anonymous]", ""),
        (f"[{KEY_AUTH}, when: '!path.startsWith(\"/a/public\")'}}]", ""),
        (f'[{KEY_AUTH}, when: \'headers["x-api-key"] != ""\'}}]', "whoever calls route a chooses"),
        (f'[{KEY_AUTH}, when: \'query["key"] != ""\'}}, {{authorize: {{roles: [a]}}}}]', ""),
        (f'[{KEY_AUTH}, when: \'query["key"] != ""\'}}, anonymous]', ""),
        ("[]", "route a is open to everyone, while b asks who is calling"),
    ],
)
def test_who_is_asked(warnings: Warnings, policies: str, warned: str) -> None:
    text = f"""\
services: {{a: 'http://a:80'}}
routes:
  - {{name: a, path: /a, service: a, policies: {policies}}}
  - {{name: b, path: /b, service: a, policies: [{KEY_AUTH}}}]}}
"""
    found = warnings(text)
    assert [each.startswith(f"3 {warned}") for each in found] == ([True] if warned else [])


def test_keys_that_anyone_can_change(warnings: Warnings) -> None:
    text = """\
routes:
  - {path: /a, respond: a, policies: [{jwt: {issuer: a, jwks_url: "http://issuer.example/keys"}}]}
  - {path: /b, respond: a, policies: [{jwt: {issuer: a, jwks_url: "http://127.0.0.1:8/keys?a=b"}}]}
  - {path: /c, respond: a, policies: [{jwt: {issuer: a, jwks_url: "http://localhost/keys"}}]}
  - {path: /d, respond: a, policies: [{jwt: {issuer: a, jwks_url: "https://issuer.example/keys"}}]}
  - {path: /e, respond: a, policies: [{oauth2-introspection: {url: "http://issuer.example/introspect"}}]}
  - {path: /f, respond: a, policies: [{oauth2-introspection: {url: "http://127.0.0.1:8/introspect"}}]}
"""
    found = [(2, "jwt", "jwks_url"), (6, "oauth2-introspection", "url")]
    assert warnings(text) == [
        f"{line} whoever is on the way can change what {kind} gets from its {name}, and be anyone then"
        for line, kind, name in found
    ]


@pytest.mark.parametrize(
    ("workers", "shared", "warned"),
    [("auto", "shared: off", True), ("2", "shared: off", True), ("1", "shared: off", False), ("2", "", False)],
)
def test_nonces_that_each_worker_takes(workers: str, shared: str, warned: bool, warnings: Warnings) -> None:
    keys = "keys: {k: {secret: a-secret-of-thirty-two-bytes-or-more}}"
    text = f"""\
workers: {workers}
routes:
  - {{path: /a, respond: a, policies: [hmac-auth: {{nonce: required, {keys}, {shared}}}]}}
  - {{path: /b, respond: a, policies: [hmac-auth: {{{keys}}}]}}
"""
    expected = "3 each worker takes a nonce of hmac-auth once, and there may be several workers"
    assert warnings(text) == ([expected] if warned else [])


def test_certificates_that_nobody_asks_for(warnings: Warnings) -> None:
    Authority(warnings.folder).issue("one", "a.test")
    listen = """\
listen:
  - ':80'
  - {address: ':443', tls: {certificate: one.crt, key: one.keyMORE}}
"""
    text = """\
services:
  a: {url: 'http://a', policies: [{mtls: {identity: uri}, name: service}]}
routes:
  - {path: /a, service: a, policies: [mtls]}
  - {path: /b, service: a, policies: [{service: off}]}
"""
    said = "no listener asks clients for a certificate, so {} finds none"
    assert warnings(text) == [f"2 {said.format('service')}", f"4 {said.format('mtls')}"]
    assert len(warnings(listen.replace("MORE", "") + text)) == 2
    for asked in ("", ", client_certificates: optional"):
        assert warnings(listen.replace("MORE", f", client_ca: authority.pem{asked}") + text) == []


def test_a_service_whose_certificate_is_not_looked_at(warnings: Warnings) -> None:
    text = """\
services:
  checked: {url: 'https://a', tls: {min_version: 1.3}}
  any: {url: 'https://b', tls: {verify: false}}
routes:
  - {path: /a, service: checked}
  - {path: /b, service: any}
"""
    assert warnings(text) == [
        "3 whoever is on the way to service any can read and change everything, as verify is false"
    ]


def test_a_listener_that_believes_everyone_s_proxy_protocol(warnings: Warnings) -> None:
    text = """\
listen:
  - {address: '0.0.0.0:81', proxy_protocol: true}
  - {address: ':82', proxy_protocol: [10.0.0.0/8, '::/0']}
  - {address: ':83', proxy_protocol: 10.0.0.0/8}
  - {address: '127.0.0.1:84', proxy_protocol: true}
  - {address: '[::1]:85', proxy_protocol: true}
  - {address: 'localhost:86', proxy_protocol: true}
  - ':87'
"""
    assert warnings(text) == [
        "2 everyone who connects to 0.0.0.0:81 can say who they are",
        "3 everyone who connects to :82 can say who they are",
    ]


def test_trusting_everyone(warnings: Warnings) -> None:
    said = warnings("trusted_proxies:\n  - 10.0.0.0/8\n  - 0.0.0.0/0\n")
    assert said == ["3 with 0.0.0.0/0 trusted, everyone can say who they are"]


LISTENERS = """\
listen:
  - {address: ':1443', tls: {certificates: [{certificate: CERT, key: KEY}, nameless.pem]}}
  - address: ':2443'
    tls: {certificate: CERT, key: KEY}
"""
SERVICES = """\
services:
  a: {url: 'https://a', tls: {certificate: CERT, key: KEY}}
  b: {url: 'https://b', tls: {certificate: CERT, key: KEY}}
  c: {url: 'https://c', tls: {verify: true}}
routes:
  - {path: /a, service: a}
  - {path: /b, service: b}
  - {path: /c, service: c}
"""


@pytest.mark.parametrize(
    ("days", "moved", "said"),
    [
        (30, 0, None),
        (10, 0, "CERT expires on DAY"),
        (-10, 0, "CERT expired on DAY: SIDE refuse it"),
        (30, -61, "CERT is not valid before DAY: SIDE refuse it"),
    ],
)
def test_a_certificate_that_is_not_valid_or_not_for_long(
    warnings: Warnings, monkeypatch: pytest.MonkeyPatch, days: float, moved: float, said: str | None
) -> None:
    without_names(warnings.folder)
    authority = Authority(warnings.folder)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + moved * 86400)
    pair = authority.issue("a", "a.test", days=days)

    def found(text: str, side: str) -> list[str]:
        lines = warnings(text.replace("CERT", pair.certificate).replace("KEY", pair.key))
        lines = [line.replace(pair.certificate, "CERT").replace(f"{warnings.folder}/", "") for line in lines]
        return [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "DAY", line).replace(side, "SIDE") for line in lines]

    expected = [] if said is None else [said]
    nameless = [line for line in found(LISTENERS, "clients") if "nameless.pem" in line]
    assert "2 nameless.pem has no host in its subjectAltName: it is never shown" in nameless
    named = [line for line in found(LISTENERS, "clients") if line not in nameless]
    assert named == [f"{line} {each}" for line in (2, 3) for each in expected]
    assert found(SERVICES, "services") == [f"{line} {each}" for line in (2, 3) for each in expected]


def test_a_certificate_that_is_never_shown(warnings: Warnings) -> None:
    authority = Authority(warnings.folder)
    authority.issue("a", "a.test", "b.test")
    authority.issue("b", "b.test")
    text = "listen:\n  - ':80'\n  - {address: ':443', tls: {certificates: [FIRST, SECOND]}}\n"
    text = text.replace("FIRST", "{certificate: a.crt, key: a.key}").replace(
        "SECOND", "{certificate: b.crt, key: b.key}"
    )
    (said,) = warnings(text)
    assert said.startswith("3 ")
    assert said.endswith("/b.crt is never shown: another certificate comes first for each of its names")


def test_a_redirect_to_where_it_comes_from(warnings: Warnings) -> None:
    text = "listen:\n  - {address: ':80', redirect_https: 80}\n  - {address: ':81', redirect_https: 80}\n"
    assert warnings(text) == ["2 :80 redirects to its own port 80, without an end"]
    assert warnings(text + "trusted_proxies: 10.0.0.0/8\n") == []  # such a proxy may speak TLS at the same port


def test_a_look_that_takes_longer_than_the_time_to_the_next(warnings: Warnings) -> None:
    text = """\
services:
  a: {url: "http://a", health: {path: /, interval: 1s}}
  b: {url: "http://b", health: {path: /, interval: 2s}}
routes:
  - {path: /a, service: a}
  - {path: /b, service: b}
"""
    assert warnings(text) == ["2 a look at a target of service a may take longer than the time to the next one"]


def test_a_way_around_a_policy_that_asks_who_is_calling() -> None:
    text = """
services:
  a: {url: "http://a.test", policies: [{key-auth: {keys: {ada: sixteen-letters-or-more}}}]}
  s: {split: [a]}
routes: [{path: /s, service: s}, {path: /a, service: a}]
"""
    with Gateway(text=text) as gateway:
        assert any(
            "what comes to service a by s is not asked for its key-auth" in str(each) for each in gateway.findings
        )
    with Gateway(
        text=text.replace("split: [a]", "split: [a], policies: [{key-auth: {keys: {b: sixteen-letters-or-more}}}]")
    ) as gateway:
        assert not any("what comes to service" in str(each) for each in gateway.findings)
