from __future__ import annotations

import pickle
from ipaddress import ip_address

import pytest

from portico.config.addresses import Address, Url
from portico.config.balance import Target
from portico.config.resilience import Keepalive, Timeout
from portico.config.schema import Config, Listener
from portico.config.upstream import Service
from portico.config.values import Condition
from portico.endpoints.health import Health, HealthEndpoint
from tests.config.kinds import (
    Aggregate,
    CorrelationId,
    Cors,
    Redirect,
    RequestSize,
    Respond,
    SecurityHeaders,
    config_of,
    findings_of,
    load,
    messages_of,
)
from tests.config.kinds import Service as ServiceEndpoint

ORDERS = "services: {orders: 'http://orders:8080'}\n"


def test_an_empty_configuration_has_safe_defaults() -> None:
    config = config_of("{}")
    assert config == Config()
    assert config.listen == (Listener(address=Address("127.0.0.1", 8000)),)
    assert config.workers == "auto"
    assert config.limits.request_head == 32 * 1024
    assert config.limits.body == 100 * 2**20
    assert config.shutdown_timeout == 30.0
    assert config.path.encoded_slashes == "keep"
    addresses = [ip_address(text) for text in ("127.0.0.1", "::1", "10.1.1.1", "fe80::1", "8.8.8.8")]
    allowed = [any(address in network for network in config.health.allow) for address in addresses]
    assert allowed == [True, True, True, True, False]


def test_who_is_told_of_the_services_is_the_same_for_the_endpoint() -> None:
    assert HealthEndpoint(Health()).config.allow == Config().health.allow


def test_keys_with_nothing_below_them_are_as_good_as_none() -> None:
    assert config_of("listen:\nservices:\nroutes:\npolicies:\nplugins:\nlimits:\ninclude:\n") == Config()


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        (":80", [("", 80)]),
        ("{address: 127.0.0.1:80}", [("127.0.0.1", 80)]),
        ("[127.0.0.1:80, {address: '[::1]:81'}]", [("127.0.0.1", 80), ("::1", 81)]),
    ],
)
def test_listen(text: str, addresses: list[tuple[str, int]]) -> None:
    assert [tuple(listener.address) for listener in config_of(f"listen: {text}").listen] == addresses


def test_an_address_is_listened_on_once() -> None:
    message = "1:9 listen: the address 127.0.0.1:80 is there twice"
    assert messages_of("listen: [127.0.0.1:80, ':81', {address: 127.0.0.1:80}]") == [message]
    assert len(config_of("listen: [127.0.0.1:0, 127.0.0.1:0, 127.0.0.1:80, '[::1]:80']").listen) == 4


def test_everything_else_at_the_top() -> None:
    config = config_of(
        """
        workers: 4
        shutdown_timeout: 1m
        plugins: [./geo.py, my.module]
        limits: {body: 1GiB, head_timeout: 5s, connections: 5}
        health: {allow: [10.0.0.0/8]}
        path: {encoded_slashes: reject}
        """
    )
    assert (config.workers, config.shutdown_timeout) == (4, 60.0)
    assert config.plugins == ("geo.py", "my.module")
    assert (config.limits.body, config.limits.head_timeout, config.limits.connections) == (2**30, 5.0, 5)
    assert [str(network) for network in config.health.allow] == ["10.0.0.0/8"]
    assert config.path.encoded_slashes == "reject"


def test_services() -> None:
    services = config_of(
        """
        services:
          short: http://10.0.0.1:8080
          url: {url: 'https://api.example.com/v1/', timeout: 3s, keepalive: off, max_connections: 8}
          targets:
            targets: [a:80, {address: b:81, weight: 5}, 'https://c', {address: 'https://d:8443'}]
            timeout: {connect: 1s, first_byte: off, total: 2m}
            keepalive: {max_idle: 2, idle: 5s}
        """
    ).services
    short = services["short"]
    assert short.url == Url("http", "10.0.0.1", 8080)
    assert short.targets == (Target(address=Url("http", "10.0.0.1", 8080)),)
    assert (short.base_path, short.max_connections, short.timeout, short.keepalive) == (
        "",
        1024,
        Timeout(),
        Keepalive(),
    )
    assert short.origin == "portico.yaml:3:11"
    url = services["url"]
    assert url.base_path == "/v1"
    assert [(t.scheme, t.host, t.port, t.weight) for t in url.targets] == [("https", "api.example.com", 443, 1)]
    assert url.timeout == Timeout(total=3.0)
    assert (url.keepalive, url.max_connections) == (None, 8)
    targets = services["targets"]
    assert [(t.scheme, t.host, t.port, t.weight) for t in targets.targets] == [
        ("http", "a", 80, 1),
        ("http", "b", 81, 5),
        ("https", "c", 443, 1),
        ("https", "d", 8443, 1),
    ]
    assert targets.base_path == ""
    assert targets.timeout == Timeout(connect=1.0, first_byte=None, total=120.0)
    assert targets.keepalive == Keepalive(max_idle=2, idle=5.0)


def test_a_service_can_be_made_in_python() -> None:
    service = Service.model_validate({"url": "http://a/b"})
    assert service.targets[0].host == "a"
    assert Service.model_validate(service.model_dump()) == service


def test_routes() -> None:
    routes = config_of(
        ORDERS
        + """
routes:
  - service: orders
  - path: [/a/**, /b]
    host: A.example.com
    methods: get
    headers: {X-Version: 2, X-Beta: true, X-Old: false, X-Name: "~a.*"}
    query: {v: 1.0}
    cookies: {id: abc}
    priority: 5
    max_body: 1MiB
    service: {service: orders}
    strip_prefix: /a
  - {path: /c, hosts: ['*.example.com', b.example], methods: [GET, Purge], name: c, respond: {status: 204}}
"""
    ).routes
    assert routes[0].path == ("/**",)
    assert (routes[0].hosts, routes[0].methods, routes[0].policies, routes[0].max_body) == ((), (), (), None)
    assert routes[0].endpoint.config == ServiceEndpoint(service="orders")
    assert (routes[0].origin, routes[0].endpoint.origin) == ("portico.yaml:4:5", "portico.yaml:4:5")
    full = routes[1]
    assert (full.path, full.hosts, full.methods) == (("/a/**", "/b"), ("a.example.com",), ("GET",))
    assert full.headers == {
        "X-Version": Condition("equals", "2"),
        "X-Beta": Condition("present"),
        "X-Old": Condition("absent"),
        "X-Name": Condition("matches", "a.*"),
    }
    assert full.query == {"v": Condition("equals", "1.0")}
    assert full.cookies == {"id": Condition("equals", "abc")}
    assert (full.priority, full.max_body) == (5, 2**20)
    assert full.endpoint.kind == "service"
    assert full.endpoint.config == ServiceEndpoint(service="orders", strip_prefix="/a")
    assert (routes[2].hosts, routes[2].methods) == (("*.example.com", "b.example"), ("GET", "PURGE"))


@pytest.mark.parametrize(
    ("text", "kind", "config"),
    [
        ("redirect: /new", "redirect", Redirect(to="/new")),
        ("redirect: /new, status: 308", "redirect", Redirect(to="/new", status=308)),
        ("redirect: {to: /new}, status: 308", "redirect", Redirect(to="/new", status=308)),
        ("respond: 204", "respond", Respond(status=204)),
        ("respond: ", "respond", Respond()),
        ("respond: {}, body: 5", "respond", Respond(body="5")),
        ("aggregate: {parts: {a: orders, b: orders}}", "aggregate", Aggregate(parts={"a": "orders", "b": "orders"})),
        ("aggregate: , parts: {a: orders}, timeout: 1s", "aggregate", Aggregate(parts={"a": "orders"}, timeout=1.0)),
    ],
)
def test_endpoints(text: str, kind: str, config: object) -> None:
    route = config_of(f"{ORDERS}routes: [{{path: /, {text}}}]").routes[0]
    assert (route.endpoint.kind, route.endpoint.config) == (kind, config)


def test_routes_are_named_after_their_paths() -> None:
    paths = [
        "/",
        "/**",
        "/api/v1/orders/**",
        "/api/{version}/x.json",
        "~/a/(b|c)+",
        "/api/v1/orders",
        "/*",
        "/api-v1-orders-2",
        "/ä",
    ]
    text = "routes:\n" + "".join(f"  - {{path: '{path}', respond: 204}}\n" for path in paths)
    names = [route.name for route in config_of(text + "  - {name: all-2, respond: 204}\n").routes]
    assert names[:6] == ["root", "all", "api-v1-orders", "api-version-x.json", "a-b-c", "api-v1-orders-2"]
    assert names[6:] == ["all-3", "api-v1-orders-2-2", "route", "all-2"]


def test_a_place_makes_a_service() -> None:
    config = config_of(
        """
routes:
  - {path: /a, service: "user-service:8001"}
  - {path: /b, service: "user-service:8001"}
  - {path: /c, aggregate: {parts: {x: "https://orders.example/v1"}}}
policies: [{jwt: {secret: 12345678, audience: a, service: "keys:80"}}]
"""
    )
    assert list(config.services) == ["keys:80", "user-service:8001", "https://orders.example/v1"]
    assert config.services["user-service:8001"].targets[0].port == 8001
    assert config.services["user-service:8001"].origin == "portico.yaml:3:5"
    assert config.services["https://orders.example/v1"].base_path == "/v1"


def test_policies() -> None:
    config = config_of(
        """
policies:
  - correlation-id
  - security-headers:
  - {request-size: 1MiB, name: big, stage: limit}
  - {cors: [https://a.example]}
  - cors:
      origins: [b]
      max_age: 1h
    name: other
services:
  orders: {url: 'http://a', policies: [{big: off}, {request-size: {max: 5}}]}
routes:
  - {service: orders, policies: [{request-size: false}, {correlation-id: X-Id}, {other: "off"}]}
"""
    )
    assert [(use.name, use.kind, use.config, use.stage, use.off) for use in config.policies] == [
        ("correlation-id", "correlation-id", CorrelationId(), None, False),
        ("security-headers", "security-headers", SecurityHeaders(), None, False),
        ("big", "request-size", RequestSize(max=2**20), "limit", False),
        ("cors", "cors", Cors(origins=("https://a.example",)), None, False),
        ("other", "cors", Cors(origins=("b",), max_age=3600.0), None, False),
    ]
    assert [(use.name, use.kind, use.config, use.off) for use in config.services["orders"].policies] == [
        ("big", "request-size", None, True),
        ("request-size", "request-size", RequestSize(max=5), False),
    ]
    assert [(use.name, use.kind, use.off) for use in config.routes[0].policies] == [
        ("request-size", "request-size", True),
        ("correlation-id", "correlation-id", False),
        ("other", "cors", True),
    ]
    assert config.policies[2].origin == "portico.yaml:5:6"


def test_only_what_is_wider_can_be_switched_off() -> None:
    text = ORDERS.replace("'http://orders:8080'", "{url: 'http://a', policies: [{cors: [a]}]}") + (
        "routes:\n"
        "  - {path: /a, service: orders, policies: [{cors: off}]}\n"
        "  - {path: /b, respond: 204, policies: [{cors: off}]}\n"
    )
    assert messages_of(text) == ["4:42 there is no policy 'cors' here to switch off"]


def test_a_mistake_in_a_policy_does_not_hide_its_name() -> None:
    text = (
        "policies: [{request-size: x}, nope]\nroutes: [{respond: 204, policies: [{request-size: off}, {nope: off}]}]\n"
    )
    assert messages_of(text) == ["1:27 max: 'x' is not a size", "1:31 there is no policy 'nope'"]


def test_a_mistake_elsewhere_does_not_hide_the_policies_around_a_route() -> None:
    text = """
services: {a: {url: x, policies: [{cors: [b]}]}, b: 'http://b'}
routes: [{service: a, policies: [{cors: off}]}, {service: c, policies: [{cors: off}]}]
"""
    assert messages_of(text) == ["2:21 url: 'x' is not a URL of http or https", "3:59 service: there is no service 'c'"]


def test_timeouts_are_switched_off_one_by_one() -> None:
    text = "services: {a: {url: 'http://a', timeout: off}, b: {url: 'http://b', timeout: {total: off, idle: 0}}}"
    assert messages_of(text) == ["1:42 timeout: this does not say which", "1:97 idle: expected more than 0, not 0"]


def test_what_could_not_be_filled_in_is_said_once() -> None:
    text = """
listen: ${A}
workers: ${A}
services: {a: "${A}", b: {url: "${A}"}, c: {targets: ["${A}", {address: "${A}"}]}, d: "x${A}"}
policies: ["${A}", {request-size: "${A}"}, {request-size: {max: "${A}"}, name: "${A}"}]
plugins: ["${A}"]
limits: {body: "${A}"}
routes: [{path: "${A}", service: "${A}"}, "${A}", {path: ["${A}"], respond: {status: "${A}", body: "${A}"}}]
"""
    assert {finding.message for finding in findings_of(text)} == {"the environment has no variable A"}


def test_texts_may_look_like_numbers() -> None:
    config = config_of("routes: [{name: 1e5, respond: {body: 007}}, {respond: {body: x}}]")
    assert config.routes[0].name == "1e5"
    assert config.routes[0].endpoint.config == Respond(body="007")


def test_numbers_may_come_quoted() -> None:
    limits = "{body: '${N}', head_timeout: '${N}', header_count: '${N}'}"
    text = f"workers: '${{N}}'\nlimits: {limits}\nroutes: [{{respond: '${{S}}'}}]"
    config = config_of(text, N="7", S="201")
    assert (config.workers, config.limits.body, config.limits.head_timeout, config.limits.header_count) == (
        7,
        7,
        7.0,
        7,
    )
    assert config.routes[0].endpoint.config == Respond(status=201)


def test_a_config_survives_a_pickle_and_compares_by_what_it_says() -> None:
    text = ORDERS + "policies: [correlation-id]\nroutes: [{service: orders, policies: [{cors: [a]}]}]\n"
    config = config_of(text)
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config
    moved = config_of("# moved down\n" + text)
    assert moved == config
    assert moved.routes[0].origin != config.routes[0].origin
    assert config_of(text.replace("cors: [a]", "cors: [b]")) != config


def test_the_loader_s_own_fields_are_no_keys() -> None:
    text = "services: {a: {url: 'http://a', origin: x}}\nroutes: [{respond: 204, origin: x, endpoint: y}]\n"
    assert messages_of(text) == [
        "1:33 unknown key 'origin' in service a",
        "2:25 unknown key 'origin' in route",
        "2:36 unknown key 'endpoint' in route",
    ]


def test_warnings_do_not_keep_a_config_from_being_run() -> None:
    loaded = load({"portico.yaml": "include: none/*.yaml"})
    assert loaded.config == Config()
    assert [str(finding) for finding in loaded.findings] == ["portico.yaml:1:10: warning: no file matches none/*.yaml"]


def test_many_routes() -> None:
    lines = [
        f"  - {{path: /api/v{n}/**, service: s{n % 50}, methods: [GET], policies: [{{request-size: 1MiB}}]}}\n"
        for n in range(2000)
    ]
    services = "".join(f"  s{n}: http://127.0.0.1:{9000 + n}\n" for n in range(50))
    config = config_of(f"services:\n{services}routes:\n{''.join(lines)}")
    assert len(config.routes) == 2000
    assert config.routes[1999].name == "api-v1999"
    assert len({route.name for route in config.routes}) == 2000


@pytest.mark.parametrize("level", ["warning", "WARNING", "Warning"])
def test_the_level_of_the_log_is_understood_in_any_case(level: str) -> None:
    assert config_of(f"log: {{level: {level}}}\n").log.level == "warning"
