from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from portico.config import TextSource, json_schema, read, schema
from portico.config.annotations import file_keys
from portico.config.compose import compose
from portico.config.findings import Findings
from portico.config.nodes import plain
from portico.config.source import ConfigSource
from portico.config.substitute import Filled, Substitution
from tests.config.kinds import ENDPOINTS, POLICIES, load
from tests.config.test_examples import ISSUE, ROUTES, SERVICES, TABLE

SCHEMA = json_schema(POLICIES, ENDPOINTS)


class Untouched(Substitution):
    """Leaves a text as an editor sees it."""

    def __init__(self, source: ConfigSource) -> None:
        super().__init__(source, {}, Findings())

    def fill(self, text: str, place: object) -> Filled:
        return Filled(text)


def is_valid(text: str) -> bool:
    root = compose("portico.yaml", text, Untouched(TextSource(text)), Findings())
    assert root is not None
    return Draft202012Validator(SCHEMA).is_valid(plain(root))


GOOD = [
    ISSUE,
    ROUTES + SERVICES,
    TABLE,
    "{}",
    "routes:\nservices:\npolicies:\nplugins:\n",
    "listen: [':80', {address: ':81'}]\nworkers: auto\nplugins: [a.py]\n",
    "limits: {body: 1GiB, head_timeout: 5, header_count: 5}\npath: {encoded_slashes: decode}\n",
    "services: {a: 'http://a', b: {targets: ['a:1'], timeout: 5s, keepalive: off, policies: [{cors: [a]}]}}",
    "services: {a: {url: 'http://a', timeout: {connect: 5s, total: off, idle: false}, keepalive: {idle: 5}}}",
    "policies: [{request-size: 1KiB}, {request-size: {max: 5}, name: b, stage: limit}, {correlation-id: }]",
    "policies: [{request-size: {max: 5}, when: method == 'GET'}]",
    "routes: [{respond: 204, policies: [{a: off}, {b: false}]}, {respond: }, {respond: {}, body: x}]",
    "routes: [{redirect: /x, status: 308, path: [/a, /b], hosts: a.b, methods: GET, priority: -1, max_body: 1}]",
    "routes: [{redirect: {to: /x}, host: [a.b], headers: {a: 5, b: true, c: ~x}, cookies: {a: b}, query: {a: b}}]",
    "routes: [{aggregate: {parts: {a: b}}}, {aggregate: , parts: {a: b}, timeout: 1s}]",
    "listen: [{address: ':80', redirect_https: true, proxy_protocol: 10.0.0.0/8}, {address: ':1', tls: TLS}]",
    "listen: [{address: ':80', redirect_https: 443, proxy_protocol: [10.0.0.0/8]}]",
    "listen: [{address: ':80', redirect_https: off, proxy_protocol: off}, {address: ':1', proxy_protocol: true}]",
    "listen: {address: ':80', tls: {certificates: [FILE, {certificate: FILE}, {certificate: FILE, key: FILE}]}}",
    "listen: {address: ':80', tls: {certificate: FILE, min_version: '1.3', client_certificates: off}}",
    "listen: {address: ':80', tls: {certificate: FILE, client_certificates: optional, client_ca: FILE}}",
    "services: {a: {url: 'https://a', tls: {ca: FILE, server_name: a.b, min_version: 1.3}}}",
    "services: {a: {url: 'https://a', tls: {verify: false}}}",
    "trusted_proxies: 10.0.0.0/8\nforwarded: both\n",
    "trusted_proxies: ['::1', 10.0.0.0/8]\nforwarded: {headers: forwarded, via: off}\n",
    "limits: {handshake_timeout: 1s, write_timeout: 1, tunnel_timeout: 1h, chunk_line: 1KiB, trailers: 1}\n",
]
GOOD = [text.replace("TLS", "{certificate: FILE}").replace("FILE", __file__) for text in GOOD]
FILLED = [
    "workers: ${N}\nlisten: ${L}\nlimits: {body: '${B}', header_count: '${C}', head_timeout: '${D}'}",
    "services: {a: '${URL}', b: {url: '${URL}', timeout: '${T}'}}\npath: {encoded_slashes: '${M}'}",
    "listen: {address: '${A}', redirect_https: '${R}', proxy_protocol: '${P}', tls: {certificate: '${C}'}}",
    "listen: {address: '${A}', tls: {min_version: '${V}', client_certificates: '${C}'}}\nforwarded: '${F}'",
    "services: {a: {url: '${URL}', tls: {verify: '${V}', server_name: '${S}'}}}\ntrusted_proxies: '${T}'",
    "policies: [{request-size: '${S}', stage: '${STAGE}'}]\nroutes: [{respond: '${S}', priority: '${P}'}]",
]
BAD = [
    "naem: x",
    "name: edge",
    "path: {merge_slashes: true}",
    "listen: []",
    "workers: 0",
    "workers: many",
    "limits: {bodi: 5}",
    "limits: {body: 5M}",
    "limits: {head_timeout: 5sec}",
    "path: {encoded_slashes: drop}",
    "services: {a b: 'http://a'}",
    "services: {a: 'ftp://a'}",
    "services: {a: {url: 'http://a', timeout: {conect: 1}}}",
    "services: {a: {url: 'http://a', origin: x}}",
    "services: {a: {targets: [{weight: 1}]}}",
    "policies: [nope]",
    "policies: [{request-size: 5, when: [a]}]",
    "policies: [{request-size: {max: 5, when: 'true'}}]",
    "policies: [request-size]",
    "policies: [{request-size: }]",
    "policies: [{request-size: {max: 1, min: 2}}]",
    "policies: [{cors: {origins: []}}]",
    "policies: [{cors: [a], stage: early}]",
    "policies: [{cors: [a], correlation-id: b}]",
    "policies: [{nope: {}}]",
    "routes: [{path: /a}]",
    "routes: [{path: /a, service: x, respond: 200}]",
    "routes: [{path: /a, redirect: /b, strip_prefix: /c}]",
    "routes: [{path: /a, respond: 200, methdos: GET}]",
    "routes: [{path: [], respond: 200}]",
    "routes: [{respond: 99}]",
    "routes: [{respond: 200, endpoint: x}]",
    "listen: {address: ':80', redirect_https: 0}",
    "listen: {address: ':80', redirect_https: many}",
    "listen: {address: ':80', proxy_protocol: []}",
    "listen: {address: ':80', proxy_protocol: 5}",
    "listen: {address: ':80', origin: x}",
    "listen: {address: ':80', tls: true}",
    "listen: {address: ':80', tls: {certificate: FILE, min_version: 1.1}}",
    "listen: {address: ':80', tls: {certificate: FILE, client_certificates: perhaps}}",
    "listen: {address: ':80', tls: {certificates: [{key: FILE}]}}",
    "services: {a: {url: 'https://a', tls: {verify: 7}}}",
    "services: {a: {url: 'https://a', tls: {server: a}}}",
    "forwarded: {headers: neither}",
    "forwarded: off",
    "limits: {write_timeout: off}",
]
BAD = [text.replace("FILE", __file__) for text in BAD]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("text", GOOD)
def test_good_files_are_valid_for_both(text: str) -> None:
    assert is_valid(text)
    unknown = [finding for finding in load(text).findings if "there is no" not in finding.message]
    assert unknown == []


@pytest.mark.parametrize("text", FILLED)
def test_substitutions_may_stand_for_every_value(text: str) -> None:
    assert is_valid(text)


@pytest.mark.parametrize("text", BAD)
def test_bad_files_are_valid_for_neither(text: str) -> None:
    assert not is_valid(text)
    assert load(text).config is None


def test_fields_are_described_by_their_docstrings() -> None:
    timeout = SCHEMA["$defs"]["Timeout"]["properties"]
    assert timeout["connect"]["description"] == "For a connection to be made, TLS included."
    routes: list[dict[str, Any]] = SCHEMA["$defs"]["Route"]["anyOf"]
    by_kind = {route["required"][0]: route["properties"] for route in routes}
    assert by_kind["service"]["strip_prefix"]["description"] == "What is cut from the beginning of the path."
    assert "strip_prefix" not in by_kind["respond"]
    assert by_kind["respond"]["path"]["description"].startswith("The path")


def test_every_field_of_a_file_is_documented() -> None:
    for part in vars(schema).values():
        if isinstance(part, type) and issubclass(part, schema.Part):
            assert part.__doc__
            for name, field in file_keys(part).items():
                assert field.description, f"{part.__name__}.{name}"


def test_documents_and_schema_know_the_same_top() -> None:
    text = "".join(f"{key}:\n" for key in SCHEMA["properties"])
    document = read(TextSource(text), {})
    assert document.findings == ()
    assert load(text).findings == []
