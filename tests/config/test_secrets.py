from __future__ import annotations

import re

import pytest

from tests.config.kinds import Jwt, config_of, findings_of

SECRET = "hunter2'\\\"ä"
FILES: dict[str, str | bytes] = {"key": SECRET + "\n"}


def said(text: str, **environment: str) -> str:
    return "\n".join(map(str, findings_of({"portico.yaml": text, **FILES}, **environment)))


PLACES = """
policies: [{jwt: {secret: [K], audience: a}}]
policies: [{jwt: {secret: {a: K}, audience: a}}]
policies: [{jwt: {secret: 12345678, audience: a, more: [{id: K, secret: K, x: K}]}}]
policies: [{jwt: {secret: 12345678, audience: a, more: K}}]
policies: [{jwt: {secret: 12345678, audience: [K]}}]
policies: [{jwt: {secret: 12345678, audience: a, service: K}}]
policies: [{request-size: K}, {request-size: xK, name: K}]
policies: [{correlation-id: K}, {cors: {origins: [], max_age: K}}]
policies: [K, {name: K}, {cors: {origins: K}, stage: K}]
listen: K
listen: {address: ':80', tls: {certificate: K, key: K, certificates: K, min_version: K, client_ca: K}}
listen: {address: ':80', tls: {certificates: [K], client_certificates: K}, proxy_protocol: K, redirect_https: K}
services: {a: {url: 'https://a', tls: {ca: K, certificate: K, key: K, verify: K, server_name: K, min_version: K}}}
trusted_proxies: K
forwarded: K
forwarded: {headers: K, via: K}
workers: K
plugins: K
include: K
limits: {body: K, header_count: K}
health: {allow: [K]}
path: {encoded_slashes: K}
services: {a: K, b: {targets: [K], timeout: K}}
services: K
routes: [{path: K, methods: K, host: K, service: K}]
routes: [{headers: {a: ~[K}, priority: K, max_body: K, respond: K}]
routes: [{path: K, methods: K, host: K, name: K}]
routes: [{redirect: /, name: K}, {redirect: /, name: K}]
policies: [{cors: {origins: [a]}, name: K}, {cors: {origins: [a]}, name: K}]
routes: [K, {redirect: /, policies: K}]
routes: K
"""


@pytest.mark.parametrize("place", PLACES.strip().splitlines())
def test_what_a_file_holds_is_not_repeated(place: str) -> None:
    text = re.sub(r"(~\[|x|\b)K\b", r'"\1${file:key}"', place)
    assert "hunter2" not in said(text)


@pytest.mark.parametrize(
    "text",
    [
        'policies: [{jwt: {secret: "${KEY}", audience: a}}]',
        "policies: [{jwt: {secret: hunter2, audience: a}}]",
        "policies: [{jwt: hunter2}]",
        "policies: [{jwt: {secret: [hunter2], audience: a}}]",
        "policies: [{jwt: {secret: 12345678, audience: a, more: [hunter2]}}]",
        "policies: [{jwt: {secret: 12345678, audience: a, more: {id: hunter2}}}]",
    ],
)
def test_what_stands_where_a_secret_belongs_is_not_repeated(text: str) -> None:
    assert "hunter2" not in said(text, KEY="hunter2")


def secret_of(text: str, **environment: str) -> str:
    config = config_of({"portico.yaml": text, **FILES}, **environment)
    jwt = config.policies[0].config
    assert isinstance(jwt, Jwt)
    assert jwt.secret.get_secret_value() not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"
    return jwt.secret.get_secret_value()


def test_a_secret_is_taken_as_it_is() -> None:
    assert secret_of('policies: [{jwt: {secret: "${file:key}", audience: a}}]') == SECRET
    assert secret_of("policies: [{jwt: {secret: 00123456.0, audience: a}}]") == "00123456.0"
    for secret in ("1e10000000", "007007007", "0x1234567"):
        assert secret_of("policies:\n- jwt:\n    secret: ${K}\n    audience: a\n", K=secret) == secret
