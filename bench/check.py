"""Before timing: does every peer give the service's own answer, and tell the service the same of the client?"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Mapping
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


@dataclass(frozen=True)
class Encryption:
    """What a peer and a client agreed on."""

    protocol: str
    cipher: str

    def __str__(self) -> str:
        return f"{self.protocol} with {self.cipher}"


def ask(port: int, *requests: Request, trust: ssl.SSLContext | None = None) -> list[Answer]:
    """Send requests one after the other on one connection, over TLS where it is said whom to trust."""
    if trust is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS, context=trust)
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


def same_answer(name: str, row: Row, port: int, service_port: int, trust: ssl.SSLContext | None = None) -> list[str]:
    """Raise unless a peer answers as the service itself does; the names of the headers that it adds."""
    (want,) = ask(service_port, row.request)
    added: set[str] = set()
    for got in ask(port, row.request, row.request, trust=trust):
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


def same_request(
    name: str, row: Row, port: int, service_port: int, trust: ssl.SSLContext | None = None
) -> dict[str, str]:
    """Raise unless a peer's requests tell the service of the client; what the service saw."""
    if row.echo is None:
        return {}
    echo = Request(row.request.method, row.echo, row.request.headers, row.request.body)
    (answer,) = ask(port, echo, trust=trust)
    seen = {key.removeprefix("x-seen-"): value for key, value in answer.headers.items() if key.startswith("x-seen-")}
    if answer.status != 200:
        raise BenchError(f"{row.name}: {name} answered {answer.status} at {row.echo}")
    # Which Host is right is each configuration's choice: the client's or the service's own, they are equally long.
    allowed = {
        "host": (f"127.0.0.1:{port}", f"127.0.0.1:{service_port}"),
        "protocol": ("HTTP/1.1",),
        "forwarded-for": ("127.0.0.1",),
        "forwarded-proto": (row.scheme,),
    }
    for what, values in allowed.items():
        if seen.get(what) not in values:
            raise BenchError(
                f"{row.name}: {name} sent the service {what} {seen.get(what)!r}, not {' or '.join(values)}"
            )
    return seen


def encryption(name: str, row: Row, port: int, trust: ssl.SSLContext) -> Encryption:
    """Raise unless a peer answers twice on one connection of TLS 1.3; what was agreed on for it.

    The client offers what wrk offers, the defaults of OpenSSL.
    """
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS, context=trust)
    try:
        connection.connect()
        connection.auto_open = 0  # the second request must not get a connection of its own unnoticed
        for _ in range(2):
            connection.request(
                row.request.method, row.request.path, row.request.body or None, dict(row.request.headers)
            )
            connection.getresponse().read()
        if not isinstance(connection.sock, ssl.SSLSocket):
            raise BenchError(f"{row.name}: {name} does not keep its client's connection over TLS")
        protocol, cipher = connection.sock.version(), connection.sock.cipher()
    except http.client.NotConnected as error:
        raise BenchError(f"{row.name}: {name} does not keep its client's connection over TLS") from error
    except OSError as error:
        raise BenchError(f"{row.name}: {name} does not answer over TLS: {error!r}") from error
    finally:
        connection.close()
    if protocol != "TLSv1.3" or cipher is None:
        raise BenchError(f"{row.name}: {name} speaks {protocol}, not TLSv1.3")
    return Encryption(protocol, cipher[0])


def same_encryption(row: Row, found: Mapping[str, Encryption]) -> None:
    """Raise unless all peers agreed on the same: else the ratio would be one of ciphers."""
    if len(set(found.values())) > 1:
        differing = ", ".join(f"{name} {one}" for name, one in found.items())
        raise BenchError(f"{row.name}: the peers do not encrypt alike: {differing}")


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


def upstream_connections(name: str, before: Counters, after: Counters, answered: int, *, alone: bool) -> int:
    """How many connections a round opened to the service; raise unless it was asked, on kept-alive ones, or, where the
    peer answers `alone`, was not asked."""
    asked = after.requests - before.requests - 1  # without the question for the counters, which has its own connection
    opened = after.connections - before.connections - 1
    if alone and asked:
        raise BenchError(f"{name} is to answer by itself, and has asked the service {asked} times")
    if not alone and asked < answered:
        raise BenchError(f"{name} answered {answered} requests, the service only {asked}")
    if opened > max(answered // 100, 100):
        raise BenchError(f"{name} opened {opened} connections for {answered} requests: it does not keep them alive")
    return opened
