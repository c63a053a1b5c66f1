"""Services for tests, without a configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from portico.config.balance import Balance
from portico.errors import Source, UpstreamError
from portico.http.message import Request, Response
from portico.net.client import ClientStream, Connections, Patience
from portico.runtime.compile import FirstLot
from portico.upstream.balance import balancing
from portico.upstream.retry import RetryPolicy
from portico.upstream.roster import Ejecting, Roster
from portico.upstream.stack import Service, Times
from portico.upstream.target import Target

Step = Response | Exception


class ScriptedPool(Connections):
    """A pool whose connections answer as a test has them; what happens is written into `log`."""

    def __init__(self, name: str, log: list[str], *, kept: Sequence[Step] = (), connects: Sequence[Step] = ()) -> None:
        self.name = name
        self.log = log
        self.kept = list(kept)
        self.connects = list(connects)
        self.asked: list[tuple[float, float | None]] = []
        """Timeout and deadline of each attempt to connect."""
        self.sent: list[tuple[str, bytes]] = []
        """Path and authority of each request."""
        self.patiences: list[Patience] = []
        self.told: list[dict[bytes, bytes]] = []
        """The headers of each request."""

    def take(self) -> ScriptedStream | None:
        return ScriptedStream(self, self.kept.pop(0), reused=True) if self.kept else None

    async def connect(self, timeout: float, deadline: float | None) -> ScriptedStream:
        self.asked.append((timeout, deadline))
        step = self.connects.pop(0)
        if isinstance(step, UpstreamError) and step.source is Source.CONNECT:
            self.log.append(f"{self.name} fails")
            raise step
        return ScriptedStream(self, step, reused=False)

    async def probe(self) -> None:
        raise AssertionError


class ScriptedStream(ClientStream):
    def __init__(self, pool: ScriptedPool, step: Step, *, reused: bool) -> None:
        self.reused = reused
        self._pool = pool
        self._step = step

    async def send(self, request: Request, target: str, authority: bytes, patience: Patience) -> Response:
        self._pool.log.append(f"{self._pool.name} {'again' if self.reused else 'new'}")
        self._pool.sent.append((target, authority))
        self._pool.patiences.append(patience)
        self._pool.told.append(dict(request.headers.index))
        if isinstance(self._step, Exception):
            raise self._step
        return self._step


def roster_of(
    targets: Sequence[Target],
    *,
    balance: Balance | None = None,
    ejecting: Ejecting | None = None,
    slow_start: float = 0.0,
    panic: float = 0.0,
) -> Roster:
    """Return a roster of these targets; it needs a running loop."""
    make = balancing(balance or Balance(), "svc", FirstLot(), asyncio.get_running_loop().time)
    roster = Roster("svc", make, ejecting, slow_start, panic)
    roster.change(targets)
    return roster


def service_of(
    targets: Sequence[Target],
    times: Times | None = None,
    retry: RetryPolicy | None = None,
    *,
    name: str = "svc",
    balance: Balance | None = None,
    ejecting: Ejecting | None = None,
) -> Service:
    """Return a service with these targets, on the running loop's clock."""
    roster = roster_of(targets, balance=balance, ejecting=ejecting)
    return Service(name, roster, times or Times(), asyncio.get_running_loop().time, retry)


def scripted_service(
    pools: Sequence[ScriptedPool],
    times: Times | None = None,
    retry: RetryPolicy | None = None,
    *,
    ejecting: Ejecting | None = None,
) -> Service:
    """Return a service with a target for each of these pools; it needs a running loop."""
    targets = [Target("http", f"{pool.name}:80", pool.name.encode(), "", pool) for pool in pools]
    return service_of(targets, times, retry, ejecting=ejecting)
