"""The public face for those who test: a policy, a chain or a whole configuration at work in memory.

Semantic versioning applies to this module as it does to `portico.plugin`. Nothing listens and no service runs; all else
is what a worker does: the file is loaded and compiled, a request takes its route, its chain and the service's timeouts,
an answer leaves by the route's edge, and the end of the exchange is told. Time is the test's: see `Clock`.

    from portico.testing import Gateway, Reply

    def test_orders_are_fetched() -> None:
        with Gateway("portico.yaml", services={"orders": Reply(200, json={"id": 7})}) as gateway:
            answer = gateway.get("/shop/orders/7", headers={"CF-IPCountry": "CH"})
            assert (answer.status, answer.json()) == (200, {"id": 7})
            assert gateway.services["orders"].requests[0].path == "/v1/orders/7"
"""

from portico.errors import ConfigError
from portico.testing.clock import Clock
from portico.testing.fields import Fields
from portico.testing.gateway import Gateway
from portico.testing.services import (
    Cut,
    FakeService,
    NothingToAnswer,
    Refuse,
    Reply,
    ServiceRequest,
    Silence,
    Trouble,
)
from portico.testing.visit import Answer, Options

__all__ = [
    "Answer",
    "Clock",
    "ConfigError",
    "Cut",
    "FakeService",
    "Fields",
    "Gateway",
    "NothingToAnswer",
    "Options",
    "Refuse",
    "Reply",
    "ServiceRequest",
    "Silence",
    "Trouble",
]
