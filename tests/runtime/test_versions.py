"""Routes with versions: what they are written out as, which of them a request gets, and what is wrong with them."""

from __future__ import annotations

import asyncio
import re
import time

import jsonschema
import pytest
import yaml

from portico.config import Loaded, TextSource, read, validate
from portico.config.json_schema import json_schema
from portico.http.headers import Headers
from portico.http.message import Request
from portico.runtime.loading import compiled
from portico.runtime.plugins import load_registry
from tests.config.kinds import cases

REGISTRY = load_registry(())
SERVICES = "services: {a: 'http://a', b: 'http://b', c: 'http://c'}\n"


def load(text: str) -> Loaded:
    document = read(TextSource(text), {})
    return validate(document, policies=REGISTRY.policy_kinds, endpoints=REGISTRY.endpoint_kinds)


def route_of(text: str, target: str, *headers: tuple[str, str], method: str = "GET") -> str:
    """Return the name of the route that a request gets."""
    loaded = load(SERVICES + text)
    assert loaded.findings == []
    config = loaded.config
    assert config is not None
    path, _, query = target.partition("?")
    fields = Headers([(name.encode(), value.encode()) for name, value in headers])

    async def match() -> str:
        async with asyncio.TaskGroup() as tasks:
            with compiled(config, REGISTRY, tasks) as result:
                return result.runtime.route_of(Request(method, path, query or None, fields)).name

    return asyncio.run(match()).removeprefix("portico:")


HEADER = "routes: [{name: o, path: /o/**, methods: GET, versions: {by: header, default: v2, v1: a, v2: b, v3: c}}]"
STRICT = "routes: [{name: o, path: /o/**, versions: {by: header, name: X-V, v1: a, v2: b}}]"
QUERY = "routes: [{name: o, path: /o/**, versions: {by: query, default: '1', '1': a, '2': b}}]"
MEDIA = "routes: [{name: o, path: /o/**, versions: {by: media-type, name: vnd.acme, default: v1, v1: a, v2: b}}]"
PARAMETER = "routes: [{name: o, path: /o/**, versions: {by: media-type, v1: a, v2: b}}]"
PATH = """
routes:
  - {path: [/o/**, '/api/{version}/p'], versions: {by: path, default: v1, v1: a, v2: b}}
  - {path: /other/o, service: c}
"""


@pytest.mark.parametrize(
    ("text", "target", "value", "route"),
    [
        (HEADER, "/o", None, "o-v2"),
        (HEADER, "/o", "v1", "o-v1"),
        (HEADER, "/o", "v2", "o-v2"),
        (HEADER, "/o/x", "v3", "o-v3"),
        (HEADER, "/o", "v4", "o-unknown"),
        (HEADER, "/o", "V1", "o-unknown"),
        (HEADER, "/o", "", "o-unknown"),
        (HEADER, "/o", "v1 ", "o-unknown"),
        (HEADER, "/o", "v1x", "o-unknown"),
        (HEADER, "/p", "v1", "no-route"),
        (STRICT, "/o", None, "o-unknown"),
        (QUERY, "/o", None, "o-1"),
        (QUERY, "/o?version=2", None, "o-2"),
        (QUERY, "/o?a=b&version=1", None, "o-1"),
        (QUERY, "/o?version=3", None, "o-unknown"),
        (QUERY, "/o?version", None, "o-unknown"),
        (PATH, "/v1/o", None, "o-v1"),
        (PATH, "/v2/o/x", None, "o-v2"),
        (PATH, "/o/x", None, "o-v1"),
        (PATH, "/v3/o", None, "o-unknown"),
        (PATH, "/w3/o", None, "no-route"),
        (PATH, "/api/v2/p", None, "o-v2"),
        (PATH, "/api/p", None, "o-v1"),
        (PATH, "/api/v9/p", None, "o-unknown"),
        (PATH, "/other/o", None, "other-o"),
    ],
)
def test_a_request_gets_the_version_that_it_names(text: str, target: str, value: str | None, route: str) -> None:
    headers = [] if value is None else [("accept-version", value)]
    assert route_of(text, target, *headers) == route


def test_another_header_can_name_it() -> None:
    assert route_of(STRICT, "/o", ("x-v", "v2")) == "o-v2"
    assert route_of(STRICT, "/o", ("Accept-Version", "v2")) == "o-unknown"


def test_another_method_is_none_of_any_version() -> None:
    for value in ("v1", "v2", "v9"):
        assert route_of(HEADER, "/o", ("Accept-Version", value), method="POST") == "wrong-method"


@pytest.mark.parametrize(
    ("accept", "route"),
    [
        (None, "o-v1"),
        ("*/*", "o-v1"),
        ("application/json", "o-v1"),
        ("application/vnd.acme+json", "o-v1"),
        ("application/vnd.acme.v1+json", "o-v1"),
        ("application/vnd.acme.v2+json", "o-v2"),
        ("Application/VND.Acme.V2+JSON", "o-v2"),
        ("application/vnd.acme.2+json", "o-v2"),
        ("application/vnd.acme.v2", "o-v2"),
        ("application/vnd.acme.order.v2+json", "o-v2"),
        ("text/html, application/vnd.acme.v2+json;q=0.9", "o-v2"),
        ("application/vnd.acme+json;version=2", "o-v2"),
        ("application/vnd.acme+json; charset=utf-8; version=v2; q=1", "o-v2"),
        ('application/vnd.acme+json;version="2"', "o-v2"),
        ("application/vnd.acme+json;version=3", "o-unknown"),
        ("application/vnd.acme.v3+json", "o-unknown"),
        ("application/vnd.acme.v22+json", "o-unknown"),
        ("application/vnd.acme.v3+json, application/vnd.acme.v2+json", "o-v2"),
        ("application/vnd.acme.v3+json, application/vnd.acme.v1+json", "o-v1"),
        ("application/vnd.acme.v3+json, */*;q=0.1", "o-v1"),
        ("application/vnd.other.v2+json", "o-v1"),
        ("application/json;version=2", "o-v1"),
        ("application/vnd.acmev2+json", "o-v1"),
    ],
)
def test_a_media_type_names_it(accept: str | None, route: str) -> None:
    assert route_of(MEDIA, "/o", *([] if accept is None else [("Accept", accept)])) == route


@pytest.mark.parametrize(
    ("accept", "route"),
    [
        ("application/json;version=2", "o-v2"),
        ("text/html, application/json; version=v1", "o-v1"),
        ("application/json; version=3", "o-unknown"),
        ("application/json", "o-unknown"),
        ("application/vnd.acme.v2+json", "o-unknown"),
    ],
)
def test_a_parameter_of_any_media_type_names_it_where_no_name_is_given(accept: str, route: str) -> None:
    assert route_of(PARAMETER, "/o", ("Accept", accept)) == route


@pytest.mark.parametrize("piece", [",", ";", " ", ", ", ".v", "application/vnd.acme.v9,", "a/b;version=", "/*"])
def test_a_long_accept_takes_no_long_time(piece: str) -> None:
    loaded = load(SERVICES + MEDIA)
    assert loaded.config is not None
    conditions = [route.headers["Accept"].value for route in loaded.config.routes if route.headers]
    for regex in conditions:
        began = time.process_time()
        re.compile(regex).fullmatch(f"application/vnd.acme{piece * (30_000 // len(piece))}x")
        assert time.process_time() - began < 1


@pytest.mark.parametrize("blanks", ["\t", " ", "\t ", '"'])
def test_a_version_with_a_long_end_takes_no_long_time(blanks: str) -> None:
    loaded = load(SERVICES + MEDIA)
    assert loaded.config is not None
    for regex in [route.headers["Accept"].value for route in loaded.config.routes if route.headers]:
        began = time.process_time()
        re.compile(regex).fullmatch(f"application/vnd.acme;version=3{blanks * (8_000 // len(blanks))}+")
        assert time.process_time() - began < 1


def test_what_stands_at_the_route_is_the_same_for_all_versions_and_policies_are_added() -> None:
    config = load(
        SERVICES
        + """
routes:
  - path: /o/**
    host: a.example
    strip_prefix: /o
    max_body: 5
    policies: [correlation-id]
    versions:
      by: header
      v1: {service: a, max_body: 7, sunset: 2026-12-31, policies: [security-headers]}
      v2: {respond: {status: 410}, errors: simple}
"""
    ).config
    assert config is not None
    one, two, unknown = config.routes
    assert [route.name for route in config.routes] == ["o-v1", "o-v2", "o-unknown"]
    assert {route.hosts for route in config.routes} == {("a.example",)}
    assert [route.max_body for route in config.routes] == [7, 5, 5]
    assert [use.name for use in one.policies] == ["correlation-id", "security-headers", "deprecation", "api-version"]
    assert (
        [use.name for use in two.policies]
        == [use.name for use in unknown.policies]
        == ["correlation-id", "api-version"]
    )
    assert (one.endpoint.config.strip_prefix, one.endpoint.config.service) == ("/o", "a")  # type: ignore[attr-defined]
    assert [route.endpoint.kind for route in config.routes] == ["service", "respond", "respond"]
    assert (two.errors is not None, one.origin, two.origin) == (True, "portico.yaml:11:7", "portico.yaml:12:7")


def test_two_routes_with_versions_on_one_path_have_names_of_their_own() -> None:
    each = "{{path: /o, methods: {}, versions: {{by: header, v1: a}}}}"
    config = load(f"{SERVICES}routes: [{each.format('GET')}, {each.format('PUT')}]").config
    assert config is not None
    assert [route.name for route in config.routes] == ["o-v1", "o-unknown", "o-v1-2", "o-unknown-2"]


CASES = """
{versions: {by: headr, v1: a}}
    26 by: expected 'path', 'header', 'media-type' or 'query', not 'headr'
    hint: did you mean 'header'?
{versions: {v1: a}}
    21 versions needs 'by'
    hint: Where a request names its version.
{versions: a}
    21 versions: expected a mapping, not 'a'
    hint: write {by: header, v1: {service: orders-v1}}
{versions: {by: header}}
    11 versions: there is none among them
    hint: add one such as v1: {service: orders-v1}
{versions: {by: header, defualt: v1, v1: a}}
    34 unknown key 'defualt' in versions
    hint: did you mean 'default'?
{versions: {by: header, default: v3, v1: a}}
    43 default: there is no version 'v3'
    hint: the file has v1
{versions: {by: header, name: 'a b', v1: a}}
    40 name: 'a b' is not a header name
    hint: write one such as X-Request-Id
{versions: {by: path, name: x, v1: a}}
    38 name: a part of a path has no name
    hint: write {version} where it stands in the path
{versions: {by: media-type, name: 'a/b', v1: a}}
    44 name: 'a/b' is not the beginning of a media type
    hint: write one such as vnd.acme
{versions: {by: header, 'v 1': a}}
    34 'v 1' is not a name
    hint: a name has letters, digits, '-', '_' and '.', such as orders-v2
{versions: {by: header, v1: nowhere}}
    38 service: there is no service 'nowhere'
    hint: declare it under services:, or write its host:port
{versions: {by: header, v1: [a]}}
    38 v1: expected a version, not a list
    hint: write the name of a service, or {service: orders-v1}
{versions: {by: header, v1: {service: a, path: /x}}}
    51 'path' cannot stand at a version
    hint: move it to the route, where it is for all versions
{versions: {by: header, v1: {service: a, host: x}}}
    51 'host' cannot stand at a version
    hint: move it to the route, where it is for all versions
{versions: {by: header, v1: {service: a, sunset: soon}}}
    59 sunset: 'soon' is not a date; write 2026-12-31 or 2026-12-31T23:59:59Z
{versions: {by: header, v1: {service: a, strip_prefx: /x}}}
    51 unknown key 'strip_prefx' in route
    hint: did you mean 'strip_prefix'?
{versions: {by: header, v1: {service: a, policies: jwt}}}
    61 policies: expected a list, not 'jwt'
    hint: write policies: ['jwt']
{versions: {by: header, v1: }}
    34 nothing says what becomes of the requests of this route
{headers: {accept-version: x}, versions: {by: header, v1: a}}
    21 the condition on accept-version is for versions to make
    hint: leave one of them out
{path: '~/x', versions: {by: path, v1: a}}
    17 a regular expression has no place for a version
    hint: write it as /{version}/orders/**, or choose versions by something else
{service: a, version: {by: path}}
    23 unknown key 'version' in route
    hint: did you mean 'versions'?
"""


@pytest.mark.parametrize(("route", "said"), cases(CASES))
def test_mistakes_have_a_place(route: str, said: list[str]) -> None:
    loaded = load(f"{SERVICES}routes: [{route}]")
    lines = []
    for finding in loaded.findings:
        assert finding.line == 2
        lines += [f"{finding.column} {finding.message}", *([f"hint: {finding.hint}"] if finding.hint else [])]
    if said[0].endswith("of this route"):
        del lines[1:]  # the hint names every endpoint that there is
    assert lines == said


@pytest.mark.parametrize("text", [HEADER, STRICT, QUERY, MEDIA, PARAMETER, PATH])
def test_the_schema_knows_versions(text: str) -> None:
    schema = json_schema(REGISTRY.policy_kinds, REGISTRY.endpoint_kinds)
    jsonschema.validate(yaml.safe_load(SERVICES + text), schema)
    for wrong in ("{by: header, v1: [a]}", "{v1: a}", "{by: x, v1: a}", "{by: header, v1: {srvice: a}}"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(f"routes: [{{versions: {wrong}}}]"), schema)
