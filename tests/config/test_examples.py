"""The files that the issue and the specifications show."""

from __future__ import annotations

from tests.config.kinds import Respond, Service, config_of

ISSUE = """
listen: 127.0.0.1:8000            # or a list; a listener may be a mapping with address, ...
workers: 2
services:
  orders: {url: http://127.0.0.1:9002}
  users: {targets: [127.0.0.1:9001, {address: 127.0.0.1:9011, weight: 5}]}
policies: [correlation-id, security-headers]          # global; also under a service and under a route
routes:
  - {path: /api/v1/orders/**, service: orders, methods: [GET, POST], policies: [{request-size: {max: 1MiB}}]}
  - {path: /api/v1/users/**, service: users, strip_prefix: /api/v1}
  - {path: /ping, respond: {status: 200, body: pong}}
"""

ROUTES = """
# Route configuration
routes:
  - path: /api/v1/users/**
    service: user-service
    methods: [GET, POST, PUT, DELETE]
    
  - path: /api/v1/orders/**
    service: order-service
    methods: [GET, POST]
    
  - path: /api/v1/products/**
    service: product-service
    strip_prefix: /api/v1  # Remove prefix before forwarding
    
  - path: /api/v2/users/**
    service: user-service-v2
    # Version routing
"""  # noqa: W293 - verbatim

SERVICES = """
services:
  user-service: http://user-service:8080
  order-service: http://order-service:8080
  product-service: http://product-service:8080
  user-service-v2: http://user-service-v2:8080
"""

TABLE = """
routes:
  - {path: /api/v1/users/*, service: user-service:8001}
  - {path: /api/v1/auth/*, service: user-service:8001}
  - {path: /api/v1/roles/*, service: user-service:8001}
  - {path: /api/v1/orders/*, service: order-service:8002}
  - {path: /api/v1/order-items/*, service: order-service:8002}
  - {path: /api/v1/inventory/*, service: inventory-service:8003}
  - {path: /api/v1/products/*, service: inventory-service:8003}
  - {path: /api/v1/payments/*, service: payment-service:8004}
  - {path: /api/v1/transactions/*, service: payment-service:8004}
  - {path: /api/v1/notifications/*, service: notification-service:8005}
  - {path: /api/v1/email/*, service: notification-service:8005}
"""


def test_the_issue_s_file() -> None:
    config = config_of(ISSUE)
    assert config.workers == 2
    assert [str(listener.address) for listener in config.listen] == ["127.0.0.1:8000"]
    assert [(target.port, target.weight) for target in config.services["users"].targets] == [(9001, 1), (9011, 5)]
    assert [use.name for use in config.policies] == ["correlation-id", "security-headers"]
    assert [route.endpoint.config for route in config.routes] == [
        Service(service="orders"),
        Service(service="users", strip_prefix="/api/v1"),
        Respond(status=200, body="pong"),
    ]
    assert [use.kind for use in config.routes[0].policies] == ["request-size"]


def test_the_specification_s_routes() -> None:
    config = config_of(ROUTES + SERVICES)
    assert [(route.path, route.methods) for route in config.routes] == [
        (("/api/v1/users/**",), ("GET", "POST", "PUT", "DELETE")),
        (("/api/v1/orders/**",), ("GET", "POST")),
        (("/api/v1/products/**",), ()),
        (("/api/v2/users/**",), ()),
    ]
    assert config.routes[2].endpoint.config == Service(service="product-service", strip_prefix="/api/v1")


def test_the_specification_s_table() -> None:
    config = config_of(TABLE)
    assert len(config.routes) == 11
    assert {name: service.targets[0].port for name, service in config.services.items()} == {
        "user-service:8001": 8001,
        "order-service:8002": 8002,
        "inventory-service:8003": 8003,
        "payment-service:8004": 8004,
        "notification-service:8005": 8005,
    }
