"""What a worker says of its services from time to time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from portico.runtime.metering import AT_ONCE, Metering
from portico.runtime.runtime import Runtime
from portico.state.board import Segment
from portico.state.slots import ABSENT
from portico.upstream.target import Target
from tests.state.test_board import a_board


def service(*targets: Target, breaker: str = "") -> Any:
    return SimpleNamespace(
        targets=targets, breaker=SimpleNamespace(state=SimpleNamespace(name=breaker)) if breaker else None
    )


def target(**state: float) -> Target:
    made = Target("http", "a:80", b"a", "", cast(Any, None))
    for name, value in state.items():
        setattr(made, name, value)
    return made


def runtime(**services: Any) -> Runtime:
    expiry = SimpleNamespace(certificate="cert.pem", not_after=1000.5)
    entrance = SimpleNamespace(tls=SimpleNamespace(expires=[expiry]))
    return cast(Any, SimpleNamespace(services=services, entrances=[entrance, SimpleNamespace(tls=None)]))


def said(segment: Segment) -> dict[str, int]:
    return {reading.name: reading.own[0] for reading in segment.readings() if reading.own[0] != ABSENT}


def test_services_and_certificates_are_told_of() -> None:
    with a_board() as board:
        segment = board.segment(1)
        metering = Metering(segment)
        metering.tell(None)
        serving = runtime(
            one=service(target(), target(down_since=5.0), target(ejected_until=9.0)), two=service(breaker="open")
        )
        for _ in range(2):
            metering.tell(serving)
        assert said(segment) == {
            'portico_upstream_targets{service="one",state="healthy"}': 0,
            'portico_upstream_targets{service="one",state="unhealthy"}': 1,
            'portico_upstream_targets{service="one",state="ejected"}': 1,
            'portico_upstream_targets{service="one",state="unchecked"}': 1,
            'portico_upstream_connections{service="one"}': 0,
            'portico_upstream_targets{service="two",state="healthy"}': 0,
            'portico_upstream_targets{service="two",state="unhealthy"}': 0,
            'portico_upstream_targets{service="two",state="ejected"}': 0,
            'portico_upstream_targets{service="two",state="unchecked"}': 0,
            'portico_upstream_connections{service="two"}': 0,
            'portico_breaker_state{service="two"}': 2,
            'portico_tls_certificate_expiry_timestamp_seconds{file="cert.pem"}': 1000,
        }


def test_what_is_served_no_more_is_told_of_no_more() -> None:
    with a_board() as board:
        segment = board.segment(1)
        metering = Metering(segment)
        for serving in (runtime(one=service(target()), two=service(target())), runtime(two=service(target()))):
            for _ in range(4):
                metering.tell(serving)
        assert {name for name in said(segment) if "connections" in name} == {
            'portico_upstream_connections{service="two"}'
        }


def test_many_targets_are_looked_at_in_turns() -> None:
    with a_board() as board:
        segment = board.segment(1)
        metering = Metering(segment)
        serving = runtime(one=service(*(target() for _ in range(3 * AT_ONCE))))
        name = 'portico_upstream_targets{service="one",state="unchecked"}'
        turns = 0
        while name not in said(segment):
            metering.tell(serving)
            turns += 1
            assert turns < 10
        assert turns >= 4
        assert said(segment)[name] == 3 * AT_ONCE
