from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from portico.http.forwarded import Client
from portico.plugin import ConfigError, Response
from portico.policies.security_headers import SecurityHeadersPolicy
from tests.harness.gateway import Call, Gateway, Service, curl
from tests.harness.policy import made, request, response

DEFAULTS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-XSS-Protection": "1; mode=block",
}
ALL_OFF = {"content_type_options": "off", "frame_options": "off", "xss_protection": "off"}
AGE = "max-age=31536000; includeSubDomains"


def headers_of(answer: Response, scheme: str | None = "https", **settings: object) -> dict[str, str]:
    asked = request()
    asked.client = None if scheme is None else Client("192.0.2.1", 5, 443, scheme)
    reply = made(SecurityHeadersPolicy, **settings).response(asked, answer)
    assert reply is answer
    shown = {name.decode(): value.decode() for name, value in reply.headers.pairs}
    assert len(shown) == len(reply.headers.pairs)
    return shown


def test_the_defaults() -> None:
    assert headers_of(response()) == DEFAULTS
    assert headers_of(Response.problem(403, "no")) == DEFAULTS
    assert headers_of(response(200, b"", x_frame_options="ALLOWALL", X="y")) == {"X": "y", **DEFAULTS}


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [
        ("content_type_options", "X-Content-Type-Options", "nosniff"),
        ("frame_options", "X-Frame-Options", "SAMEORIGIN"),
        ("xss_protection", "X-XSS-Protection", "0"),
        ("hsts", "Strict-Transport-Security", AGE),
        ("content_security_policy", "Content-Security-Policy", "default-src 'self'; img-src *"),
        ("content_security_policy_report_only", "Content-Security-Policy-Report-Only", "default-src 'self'"),
        ("referrer_policy", "Referrer-Policy", "no-referrer"),
        ("permissions_policy", "Permissions-Policy", "camera=(), microphone=()"),
        ("opener_policy", "Cross-Origin-Opener-Policy", "same-origin"),
        ("embedder_policy", "Cross-Origin-Embedder-Policy", "require-corp"),
        ("resource_policy", "Cross-Origin-Resource-Policy", "same-site"),
    ],
)
def test_each_header(field: str, name: str, value: str) -> None:
    assert headers_of(response(), **ALL_OFF | {field: value}) == {name: value}
    of_service = response(200, b"", **{name: "the service's"})
    assert headers_of(of_service, **ALL_OFF | {field: value}) == {name: value}
    for own in ({}, {name: "the service's"}):
        kept = headers_of(response(200, b"", **own), **ALL_OFF | {field: value, "keep": [field]})
        assert kept == {name: own.get(name, value)}
    off = headers_of(response(200, b"", **{name: "the service's"}), **ALL_OFF | {field: "off", "keep": [field]})
    assert off == {name: "the service's"}


@pytest.mark.parametrize("keep", [[], ["hsts"]])
@pytest.mark.parametrize(("scheme", "wanted"), [("https", True), ("http", False), (None, False)])
def test_hsts_is_for_https(scheme: str | None, wanted: bool, keep: list[str]) -> None:
    shown = headers_of(response(), scheme, hsts=AGE, keep=keep)
    assert shown.get("Strict-Transport-Security") == (AGE if wanted else None)
    assert DEFAULTS.items() <= shown.items()


@pytest.mark.parametrize(
    "settings",
    [
        {"frame_options": "ALLOW"},
        {"content_type_options": "sniff"},
        {"hsts": "31536000"},
        {"hsts": "includeSubDomains"},
        {"hsts": "xmax-age=5"},
        {"opener_policy": "yes"},
        {"keep": ["x"]},
        {"x_frame_options": "DENY"},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        made(SecurityHeadersPolicy, **settings)


@pytest.mark.parametrize("value", ["a\nb", "caf\u20ac", "a\0"])
def test_values_that_no_header_can_have(value: str) -> None:
    for keep in ([], ["referrer_policy"]):
        with pytest.raises(ConfigError):
            made(SecurityHeadersPolicy, referrer_policy=value, keep=keep)


def answer(call: Call) -> None:
    call.note()
    call.answer(200, b"x", X_Frame_Options="ALLOWALL", Content_Security_Policy="script-src 'nonce-1'")


CONFIG = """
services:
  page: {{url: http://127.0.0.1:{port}}}
trusted_proxies: [127.0.0.1]
policies:
  - security-headers:
      hsts: max-age=5
      content_security_policy: default-src 'self'
      keep: [content_security_policy]
routes:
  - {{path: /page, service: page}}
  - {{path: /none, service: page, policies: [security-headers: off]}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("security")
    with Service(answer) as service, Gateway(folder, CONFIG.format(port=service.port)) as gateway:
        yield gateway


def test_through_a_gateway(gateway: Gateway) -> None:
    page, miss = curl(f"{gateway.url}/page"), curl(f"{gateway.url}/nowhere")
    assert (page.status, miss.status) == (200, 404)
    for reply in (page, miss):
        for name, value in DEFAULTS.items():
            assert reply.values(name) == [value]
        assert not reply.values("Strict-Transport-Security")
    assert page.value("Content-Security-Policy") == "script-src 'nonce-1'"
    assert miss.value("Content-Security-Policy") == "default-src 'self'"
    assert curl(f"{gateway.url}/none").value("X-Frame-Options") == "ALLOWALL"


def test_a_client_whose_proxy_says_https(gateway: Gateway) -> None:
    reply = curl("-H", "X-Forwarded-For: 192.0.2.1", "-H", "X-Forwarded-Proto: https", f"{gateway.url}/page")
    assert reply.value("Strict-Transport-Security") == "max-age=5"
