"""What a worker says of its services from time to time."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any, cast

import pytest

from portico.runtime.metering import AT_ONCE, Metering
from portico.runtime.runtime import Runtime
from portico.state.board import Segment
from portico.state.slots import ABSENT
from portico.upstream.target import Target
from tests.harness.targets import a_target
from tests.state.test_board import a_board


def service(*targets: Target, breaker: str = "", room: tuple[int, int, int] | None = None) -> Any:
    return SimpleNamespace(
        targets=targets,
        breaker=SimpleNamespace(state=SimpleNamespace(name=breaker)) if breaker else None,
        bulkhead=None
        if room is None
        else SimpleNamespace(room=SimpleNamespace(taken=room[0], waiting=room[1]), limit=room[2]),
    )


def target(address: str = "a:80", **state: float) -> Target:
    made = a_target(address)
    for name, value in state.items():
        setattr(made, name, value)
    return made


class Served(SimpleNamespace):
    """A runtime: unlike its base, it may be referred to weakly."""


def runtime(**services: Any) -> Runtime:
    expiry = SimpleNamespace(certificate="cert.pem", not_after=1000.5)
    entrance = SimpleNamespace(tls=SimpleNamespace(expires=[expiry]))
    return cast(Any, Served(services=services, entrances=[entrance, SimpleNamespace(tls=None)]))


def said(segment: Segment) -> dict[str, int]:
    return {reading.name: reading.own[0] for reading in segment.readings() if reading.own and reading.own[0] != ABSENT}


def test_services_and_certificates_are_told_of() -> None:
    with a_board() as board:
        segment = board.segment(1)
        metering = Metering(segment)
        metering.tell(None)
        serving = runtime(
            one=service(target(), target("b:80", down_since=5.0), target("c:80", ejected_until=9.0)),
            two=service(breaker="open", room=(7, 2, 10)),
        )
        for _ in range(3):
            metering.tell(serving)
        assert said(segment) == {
            'portico_upstream_targets{service="one",state="healthy"}': 0,
            'portico_upstream_targets{service="one",state="unhealthy"}': 1,
            'portico_upstream_targets{service="one",state="ejected"}': 1,
            'portico_upstream_targets{service="one",state="unchecked"}': 1,
            'portico_upstream_target_healthy{service="one",target="a:80"}': 1,
            'portico_upstream_target_healthy{service="one",target="b:80"}': 0,
            'portico_upstream_target_healthy{service="one",target="c:80"}': 0,
            'portico_upstream_connections{service="one"}': 0,
            'portico_upstream_connections_busy{service="one"}': 0,
            'portico_upstream_targets{service="two",state="healthy"}': 0,
            'portico_upstream_targets{service="two",state="unhealthy"}': 0,
            'portico_upstream_targets{service="two",state="ejected"}': 0,
            'portico_upstream_targets{service="two",state="unchecked"}': 0,
            'portico_upstream_connections{service="two"}': 0,
            'portico_upstream_connections_busy{service="two"}': 0,
            'portico_upstream_concurrency_taken{service="two"}': 7,
            'portico_upstream_concurrency_waiting{service="two"}': 2,
            'portico_upstream_concurrency_limit{service="two"}': 10,
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
        assert {name for name in said(segment) if "connections" in name or "healthy" in name} == {
            'portico_upstream_connections{service="two"}',
            'portico_upstream_connections_busy{service="two"}',
            'portico_upstream_targets{service="two",state="healthy"}',
            'portico_upstream_targets{service="two",state="unhealthy"}',
            'portico_upstream_target_healthy{service="two",target="a:80"}',
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
        assert turns >= 3
        assert said(segment)[name] == 3 * AT_ONCE


def healthy(segment: Segment) -> dict[str, int]:
    """Return which targets are told to be well, by address."""
    return {name.split('"')[3]: value for name, value in said(segment).items() if "target_healthy" in name}


def test_a_target_is_well_unless_anything_is_known_against_it_and_is_gone_when_it_goes() -> None:
    with a_board() as board:
        segment = board.segment(1)
        metering = Metering(segment)
        twice = (target("twice:80", down_since=5.0), target("twice:80"))
        for targets, expected in (
            ((target("a:80", looked_at=True), target("b:80", ejected_until=9.0)), {"a:80": 1, "b:80": 0}),
            ((target("b:80"), *twice), {"b:80": 1, "twice:80": 0}),
            ((), {}),
            ((target("a:80"),), {"a:80": 1}),
        ):
            serving = runtime(one=service(*targets))
            for _ in range(3):
                metering.tell(serving)
            assert healthy(segment) == expected


def test_a_target_that_could_not_be_reached_once_may_be_well_since() -> None:
    """Whether it can be is found out by a new connection alone, and there may be none for long."""
    with a_board() as board:
        segment = board.segment(1)
        metering = Metering(segment)
        serving = runtime(one=service(target(failing=True)))
        for _ in range(3):
            metering.tell(serving)
        assert healthy(segment) == {"a:80": 1}


def dropped(segment: Segment) -> int:
    return dict(segment.counters())["portico_metrics_dropped_series_total"]


def test_only_so_many_targets_are_told_of_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("portico.runtime.target_gauges.MOST_TARGETS", 3)
    with a_board() as board:
        segment = board.segment(1)
        metering = Metering(segment)
        serving = runtime(one=service(*(target(f"{number}:80") for number in range(5))))
        for _ in range(5):
            metering.tell(serving)
        assert healthy(segment) == {"0:80": 1, "1:80": 1, "2:80": 1}
        assert said(segment)['portico_upstream_targets{service="one",state="unchecked"}'] == 5
        assert dropped(segment) == 2
        assert len(caplog.records) == 1


def test_the_places_of_targets_that_went_are_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.runtime.target_gauges.MOST_TARGETS", 3)
    with a_board() as board:
        segment = board.segment(1)
        metering = Metering(segment)
        names = 0
        for first in range(0, 300, 3):
            serving = runtime(one=service(*(target(f"{number}:80") for number in range(first, first + 3))))
            for _ in range(4):
                metering.tell(serving)
            assert healthy(segment) == {f"{number}:80": 1 for number in range(first, first + 3)}
            names = names or len(list(segment.readings()))
        assert len(list(segment.readings())) == names
        assert dropped(segment) == 0


def test_a_name_without_room_where_others_were_has_a_place_of_its_own() -> None:
    with a_board() as board:
        segment = board.segment(1)
        metering = Metering(segment)
        for address in ("a:80", "a" * 200 + ":80", "b:80"):
            serving = runtime(one=service(target(address)))
            for _ in range(4):
                metering.tell(serving)
            assert healthy(segment) == {address: 1}


def test_what_is_served_no_more_is_let_go_in_the_middle_of_its_round() -> None:
    with a_board() as board:
        segment = board.segment(1)
        metering = Metering(segment)
        before = runtime(one=service(*(target() for _ in range(3 * AT_ONCE))))
        metering.tell(before)
        gone = weakref.ref(before)
        del before
        serving = runtime(two=service(target()))
        metering.tell(serving)
        assert gone() is None
        assert 'portico_upstream_connections{service="two"}' in said(segment)
        metering.tell(None)
        assert said(segment)
