"""A service that fails is left alone by all workers, is tried again carefully, and the log tells of it once."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from portico.cli.ask import ask, find
from tests.harness.backend import Backend
from tests.harness.gateway import DEADLINE, Gateway, curl, portico_here, problem_of, wait_for

SERVICES = """
services:
  orders:
    url: http://{address}
    breaker: {{failures: 3, open_for: 1s}}
  quotes:
    url: http://{address}
    breaker: {{failures: 2, open_for: 60s}}
    fallback: {{status: 200, body: "[]", content_type: application/json}}
  reports:
    url: http://{address}
    concurrency: {{limit: 2, queue: 1, wait: 60s}}
    retry: 2
routes:
  - {{path: /orders, service: orders}}
  - {{path: /quotes, service: quotes}}
  - {{path: /reports, service: reports}}
"""

TRYING = "service orders: the breaker is half open: trying"


class Reply(NamedTuple):
    status: int
    kind: str
    """What its problem is called, where it is one."""
    retry_after: str


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with Backend(tmp_path, "one") as one:
        yield one


def gateway_for(backend: Backend, folder: Path, workers: int = 2) -> Gateway:
    gateway = Gateway(folder, SERVICES.format(address=backend.address), workers=workers)
    gateway.agent_answers()
    return gateway


def get(gateway: Gateway, path: str = "/orders") -> Reply:
    """Send a request over a connection of its own, which any worker may get."""
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        content = response.read()
        kind = json.loads(content)["type"] if "problem" in response.headers.get_content_type() else ""
        return Reply(response.status, kind.rpartition(":")[2], response.headers.get("Retry-After", ""))


def status(gateway: Gateway) -> Any:
    return ask(find(gateway.file, None), "GET", "/status")


def each_worker_answers(gateway: Gateway, replies: int = 20) -> Counter[Reply]:
    """Send requests until every worker has had a few; return the answers."""

    def requests() -> list[int]:
        return [each["requests"] for each in status(gateway)["processes"] if each["name"] != "agent"]

    before, answers = requests(), Counter[Reply]()

    def enough() -> bool:
        answers.update(get(gateway) for _ in range(replies))
        return all(after >= count + 3 for after, count in zip(requests(), before, strict=True))

    wait_for(enough, "an answer of each worker")
    return answers


REFUSED = Reply(503, "circuit-open", "1")


@pytest.mark.timeout(300)
def test_a_service_that_flaps(backend: Backend, tmp_path: Path) -> None:
    with gateway_for(backend, tmp_path) as gateway:
        assert get(gateway).status == 200
        backend.answer(500)
        assert [get(gateway).status for _ in range(3)] == [500] * 3

        # Open. What comes through is one request each time that it is half open, which fails.
        answers = each_worker_answers(gateway)
        tries = gateway.log().count(TRYING)
        assert set(answers) - {Reply(500, "", "")} == {REFUSED}
        assert answers[Reply(500, "", "")] == tries
        assert backend.paths()["GET /orders"] == 1 + 3 + tries
        wait_for(lambda: get(gateway).status == 500, "a try that fails")
        wait_for(lambda: "the breaker is open for 1 s: a probe failed: status 500" in gateway.log(), "the log")

        backend.kill()
        wait_for(lambda: get(gateway).status == 502, "a try that is refused")
        wait_for(lambda: get(gateway) == REFUSED, "a try that is refused to open it again")
        seen = backend.paths()["GET /orders"]
        shown = status(gateway)["breakers"]["orders"]
        assert shown["state"] in ("open", "half-open")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", shown["since"])
        assert shown["why"].startswith("a probe failed: ")

        # Half open, and the one request that goes through is not answered yet.
        backend.answer(0)
        backend.start()
        with ThreadPoolExecutor(1) as pool:
            probe: Future[Reply] = pool.submit(first_that_goes_through, gateway)
            wait_for(lambda: backend.paths()["GET /orders"] > seen, "a request that goes through")
            assert set(each_worker_answers(gateway)) == {REFUSED}
            assert backend.paths()["GET /orders"] == seen + 1
            assert status(gateway)["breakers"]["orders"]["state"] == "half-open"
            backend.answer(200)
            assert probe.result(DEADLINE).status == 200

        assert {answer.status for answer in each_worker_answers(gateway)} == {200}
        assert status(gateway)["breakers"]["orders"]["state"] == "closed"
        story = re.findall(r"service orders: (the breaker .*)$", gateway.log(), re.MULTILINE)
    assert story[0] == "the breaker is open for 1 s: 3 failures in a row, the last: status 500"
    assert story[1::2] == ["the breaker is half open: trying"] * len(story[1::2])
    assert all(line.startswith("the breaker is open for 1 s: a probe failed: ") for line in story[2:-1:2])
    assert story[-1] == "the breaker is closed again"
    assert len(story) % 2 == 1


def first_that_goes_through(gateway: Gateway) -> Reply:
    """Send one request after the other, until one was not refused; return its answer."""
    while (reply := get(gateway)) == REFUSED:
        pass
    return reply


@pytest.mark.timeout(300)
def test_while_it_is_open_the_fallback_answers(backend: Backend, tmp_path: Path) -> None:
    backend.answer(500)
    with gateway_for(backend, tmp_path) as gateway:
        assert [get(gateway, "/quotes").status for _ in range(2)] == [500] * 2
        for _ in range(8):
            answer = curl(f"{gateway.url}/quotes")
            assert (answer.status, answer.body, answer.value("Content-Type")) == (200, b"[]", "application/json")
        assert backend.paths()["GET /quotes"] == 2
        told = curl(f"{gateway.url}/health").json
        assert (told["status"], told["services"]["quotes"], told["services"]["orders"]) == (
            "degraded",
            "unhealthy",
            "healthy",
        )
        assert told["breakers"]["orders"] == {"state": "closed"}
        since = told["breakers"]["quotes"].pop("since")
        why = "2 failures in a row, the last: status 500"
        assert told["breakers"]["quotes"] == {"state": "open", "why": why}
        assert set(told["breakers"]) == {"orders", "quotes"}
        shown = portico_here("status", str(gateway.file)).out
        assert re.search(rf"\nquotes +OPEN +{since} +{why}\n", shown), shown


@pytest.mark.timeout(300)
def test_a_service_has_so_many_requests_and_no_more(backend: Backend, tmp_path: Path) -> None:
    backend.answer(0)
    with gateway_for(backend, tmp_path, workers=1) as gateway, ThreadPoolExecutor(3) as pool:
        replies = [pool.submit(get, gateway, "/reports") for _ in range(3)]
        full = {"taken": 2, "limit": 2, "waiting": 1}
        wait_for(lambda: status(gateway)["concurrency"]["reports"] == full, "two requests, and one that waits")
        assert status(gateway)["retries"]["reports"] >= 3
        answer = curl(f"{gateway.url}/reports")
        problem_of(answer, 503, "service-overloaded")
        assert re.search(r"\nreports +2 of 2 +1 +\d+\n", portico_here("status", str(gateway.file)).out)
        wait_for(lambda: backend.paths()["GET /reports"] == 2, "two requests")
        backend.answer(200)
        assert [reply.result(DEADLINE).status for reply in replies] == [200] * 3
        assert backend.paths()["GET /reports"] == 3
        nothing = {"taken": 0, "limit": 2, "waiting": 0}
        wait_for(lambda: status(gateway)["concurrency"]["reports"] == nothing, "room again")
