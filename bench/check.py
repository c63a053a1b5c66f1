"""Before timing: does every peer give the service's own answer, and tell the service the same of the client?"""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass

from bench import BenchError
from bench.row import Request, Row

TIMEOUT_SECONDS = 5.0
COUNTERS = Request(path="/bench/counters")
OWN_HEADERS = {"date", "server", "connection", "keep-alive", "via"}
"""What a proxy may say for itself; every other header of the service must arrive as it was."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    closes: bool

    def counted(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name not in OWN_HEADERS}


def ask(port: int, *requests: Request) -> list[Answer]:
    """Send requests one after the other on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        answers = []
        for request in requests:
            connection.request(request.method, request.path, request.body or None, dict(request.headers))
            response = connection.getresponse()
            body = response.read()
            headers = {name.lower(): value for name, value in response.getheaders()}
            answers.append(Answer(response.status, headers, body, response.will_close))
        return answers
    finally:
        connection.close()


def same_answer(name: str, row: Row, port: int, service_port: int) -> list[str]:
    """Raise unless a peer answers as the service itself does; the names of the headers that it adds."""
    (want,) = ask(service_port, row.request)
    added: set[str] = set()
    for got in ask(port, row.request, row.request):
        if got.status != 200 or want.status != 200:
            raise BenchError(f"{row.name}: {name} answered {got.status}, the service itself {want.status}; not 200")
        if got.body != want.body:
            raise BenchError(f"{row.name}: {name} changed the body: {got.body[:200]!r}")
        if got.closes:
            raise BenchError(f"{row.name}: {name} does not keep its client's connection")
        for header, value in want.counted().items():
            if got.headers.get(header) != value:
                raise BenchError(f"{row.name}: {name} made {header} {got.headers.get(header)!r}, it was {value!r}")
        added |= got.counted().keys() - want.counted().keys()
    return sorted(added)


def same_request(name: str, row: Row, port: int, service_port: int) -> dict[str, str]:
    """Raise unless a peer's requests tell the service of the client; what the service saw."""
    if row.echo is None:
        return {}
    (answer,) = ask(port, Request(row.request.method, row.echo, row.request.headers, row.request.body))
    seen = {key.removeprefix("x-seen-"): value for key, value in answer.headers.items() if key.startswith("x-seen-")}
    if answer.status != 200:
        raise BenchError(f"{row.name}: {name} answered {answer.status} at {row.echo}")
    # Which Host is right is each configuration's choice: the client's or the service's own, they are equally long.
    allowed = {
        "host": (f"127.0.0.1:{port}", f"127.0.0.1:{service_port}"),
        "protocol": ("HTTP/1.1",),
        "forwarded-for": ("127.0.0.1",),
        "forwarded-proto": ("http",),
    }
    for what, values in allowed.items():
        if seen.get(what) not in values:
            raise BenchError(
                f"{row.name}: {name} sent the service {what} {seen.get(what)!r}, not {' or '.join(values)}"
            )
    return seen


@dataclass(frozen=True)
class Counters:
    """What the service itself counted since it was started."""

    connections: int
    requests: int


def counters(service_port: int) -> Counters:
    (answer,) = ask(service_port, COUNTERS)
    numbers = re.search(rb"requests\s+(\d+) (\d+) (\d+)", answer.body)
    if numbers is None:
        raise BenchError(f"the service has no counters: {answer.status} {answer.body[:200]!r}")
    return Counters(connections=int(numbers[1]), requests=int(numbers[3]))


def upstream_connections(name: str, before: Counters, after: Counters, answered: int) -> int:
    """How many connections a round opened to the service; raise unless it was asked, on kept-alive ones."""
    asked = after.requests - before.requests - 1  # without the question for the counters, which has its own connection
    opened = after.connections - before.connections - 1
    if asked < answered:
        raise BenchError(f"{name} answered {answered} requests, the service only {asked}")
    if opened > max(answered // 100, 100):
        raise BenchError(f"{name} opened {opened} connections for {answered} requests: it does not keep them alive")
    return opened
