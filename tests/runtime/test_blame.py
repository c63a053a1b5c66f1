"""Which policy has raised, or keeps the loop from turning, is told by name and place."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portico.plugin import Endpoint, Env, Handler, Policy, PolicyConfig, Request, Response, Stage
from portico.runtime.blame import running
from portico.runtime.blocked import BlockedWatch
from portico.runtime.runtime import Route
from portico.testing import Gateway
from portico.upstream.stand_in import stand_in
from tests.harness.gateway import wait_for

FILE = __file__


class Where(PolicyConfig):
    at: str = "request"
    """Where it raises."""


def boom() -> None:
    raise LookupError


class BoomPolicy(Policy[Where], name="boom", stages=(Stage.LIMIT,)):
    def request(self, request: Request) -> Response | None:
        if self.config.at == "request":
            boom()
        return None

    def response(self, request: Request, response: Response) -> Response:
        if self.config.at == "response":
            boom()
        return response


class AroundPolicy(Policy[Where], name="around", stages=(Stage.LIMIT,)):
    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        return await next(request)


class CardEndpoint(Endpoint[Where], name="card"):
    async def handle(self, request: Request) -> Response:
        raise LookupError


class AskPolicy(Policy[Where], name="ask", stages=(Stage.LIMIT,)):
    def setup(self, env: Env) -> None:
        self._ask = env.service("service")

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        return await self._ask(request)


def line_of(function: Callable[..., object]) -> int:
    return function.__code__.co_firstlineno + 1


def failed(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> str:
    """Send a request that must fail, and return the line of the log that says so."""
    caplog.clear()
    assert gateway.get("/x").problem == "internal-error"
    (record,) = [record for record in caplog.records if record.name == "portico.runtime"]
    assert record.exc_info is not None
    return record.getMessage()


def test_a_policy_that_raises_is_named_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    place = f"{FILE}:{line_of(boom)}"
    for at in ("request", "response"):
        with Gateway(policies=[AroundPolicy(Where()), BoomPolicy(Where(at=at)), AroundPolicy(Where())]) as gateway:
            assert failed(gateway, caplog) == f"route tested failed in policy boom ({place}): GET /x"
    text = "routes: [{path: /x, respond: a, policies: [{boom: request, name: mine}]}]"
    with Gateway(text=text, classes=[BoomPolicy]) as gateway:
        assert failed(gateway, caplog) == f"route x failed in policy mine ({place}): GET /x"


def test_an_endpoint_that_raises_is_named_and_not_the_policies_around_it(caplog: pytest.LogCaptureFixture) -> None:
    with Gateway(policies=[AroundPolicy(Where())], endpoint=CardEndpoint(Where())) as gateway:
        assert failed(gateway, caplog).startswith(f"route tested failed in endpoint card ({FILE}:")


def test_a_plugin_file_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plugin = tmp_path / "moody.py"
    code = "from portico.plugin import *\n\nclass M(Policy[PolicyConfig], name='moody', stages=(Stage.LIMIT,)):\n"
    plugin.write_text(f"{code}    def request(self, request):\n        1 / 0\n")
    with Gateway(text=f"plugins: ['{plugin}']\nroutes: [{{path: /x, respond: a, policies: [moody]}}]") as gateway:
        assert failed(gateway, caplog) == f"route x failed in policy moody ({plugin}:5): GET /x"


def test_a_policy_that_asks_a_service_is_not_blamed_for_what_fails_there(caplog: pytest.LogCaptureFixture) -> None:
    nothing: Any = None
    with Gateway(policies=[AskPolicy(Where())]) as gateway:
        assert gateway.get("/x").status == 200
        stand_in(gateway._compiled.runtime.services["service"], nothing)
        assert failed(gateway, caplog) == "route tested failed: GET /x"


def test_code_that_runs_for_no_part_is_nobodys() -> None:
    assert running(sys._getframe(), ()) is None


class Watched:
    """A loop of which the test says when it turned."""

    def __init__(self) -> None:
        self.beat = time.monotonic_ns()
        self.looks = 0

    def last(self) -> int:
        self.looks += 1
        return self.beat


def turns(watched: Watched) -> bool:
    watched.beat = time.monotonic_ns()
    return watched.looks >= 3


def test_a_loop_that_turns_is_looked_at_twice_a_second_and_never_told_of(caplog: pytest.LogCaptureFixture) -> None:
    began, watched = time.monotonic(), Watched()
    watch = BlockedWatch(watched.last, tuple)
    wait_for(lambda: turns(watched))
    watch.close()
    assert time.monotonic() - began > 1.0
    assert caplog.records == []


def test_what_is_nobodys_is_not_told_and_the_watch_ends(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watch = BlockedWatch(watched.last, tuple)
    wait_for(lambda: watched.looks)
    watch.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "blocked"]
    assert caplog.records == []


def test_each_place_and_each_standstill_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def lines() -> int:
        return len([record for record in caplog.records if "does not let go" in record.getMessage()])

    class Held(Policy[Where], name="held", stages=(Stage.LIMIT,)):
        def request(self, request: Request) -> Response | None:
            watched = Watched()
            watch = BlockedWatch(watched.last, lambda: (route_of(gateway),))
            try:
                wait_for(lambda: watched.looks >= 2)  # the thread that made the watch is the one that is watched
            finally:
                watch.close()
            return None

    with Gateway(policies=[Held(Where())]) as gateway:
        assert gateway.get("/x").status == 200
    assert lines() == 1
    message = caplog.records[-1].getMessage()
    assert "policy held (" in message
    assert " in wait_for, route tested) does not let go" in message


def route_of(gateway: Gateway) -> Route:
    return next(route for route in gateway._compiled.runtime.routes if route.name == "tested")
