"""What a worker tells of its last requests, and of those that end from now on, to the agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from portico.config.schema import Config
from portico.config.tracing import Recorder as RecorderConfig
from portico.errors import RequestError
from portico.http.message import Observer
from portico.http.target import parse_target
from portico.observe.exchange import Exchange
from portico.runtime.observing import Watch, Watched
from portico.runtime.protocol import Seek, Sought, Tail, Tailed
from portico.runtime.recorder import Memory, ProbeRecorder, Record, Recorder
from portico.runtime.serving import Serving
from portico.runtime.trail import summary_of, trail_of

JUMP: Final = 0.1
"""Seconds by which the time of day has to change until it is taken to have been set; that of the loop is in steps."""
MOST_FOUND: Final = 10
"""Requests that are told of at once; an id that a client has chosen may be that of many."""
MOST_CANDIDATES: Final = 20
"""Routes on a request's path that are told of."""
MOST_TAILS: Final = 16
"""How many may look on at a time."""
PENDING: Final = 100
"""Requests that wait to be told of to one who looks on; what would be more is counted, and not told."""
EVERY: Final = 0.1
"""Seconds between two messages to one who looks on."""


class RecorderWatch:
    """Watches the requests of one configuration to remember them."""

    def __init__(self, memory: Memory, wanted: RecorderConfig) -> None:
        self._recorder = Recorder(memory, wanted.slow, wanted.headers)
        self._of_probes = ProbeRecorder(memory, wanted.slow, wanted.headers, self._recorder.routes)

    def of_route(self, route: Watched) -> Observer:
        """Return what remembers the requests of a route."""
        self._recorder.routes[route.name] = route
        return self._of_probes if route.probed else self._recorder

    def of_rest(self) -> Observer:
        """Return what remembers the others."""
        return self._recorder


class Recording:
    """The memory of one worker, and those who look on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wall: Callable[[], float] = time.time) -> None:
        self._loop = loop
        self._wall = wall
        self._offset = wall() - loop.time()
        self.memory = Memory()
        self._tails: dict[int, _Tail] = {}

    def watch(self, config: Config) -> Watch | None:
        """Return what remembers the requests of a configuration; None where it wants none remembered."""
        wanted = config.recorder
        self.memory.resize(0 if wanted is None else wanted.keep)
        return None if wanted is None else RecorderWatch(self.memory, wanted)

    def seek(self, order: Seek, serving: Serving) -> Sought:
        """Return what is remembered of the requests with an id, the newest first."""
        ahead = self._ahead()
        found = []
        number, wanted, wanted_bytes = order.wanted[1:], order.wanted, order.wanted.encode("utf-8", "replace")
        numbered = wanted.startswith("#")
        for record in self.memory:
            if numbered:
                is_it = str(record.number) == number
            else:
                is_it = record.correlation_id == wanted_bytes or record.exchange.trace_id == wanted
            if is_it:
                found.append({**trail_of(record, ahead), "candidates": _candidates(record, serving)})
                if len(found) == MOST_FOUND:
                    break
        return Sought(order.ticket, found)

    def begin(self, order: Tail, say: Callable[[Tailed], bool]) -> None:
        """Tell of each request from now on that `order` wants, by `say`, which returns False where there is no room."""
        if len(self._tails) < MOST_TAILS:
            self._tails[order.tail] = _Tail(order, self._loop, self._ahead, say)
            self.memory.on_record = self._see

    def end(self, tail: int) -> None:
        """Tell one of them no more."""
        gone = self._tails.pop(tail, None)
        if gone is not None:
            gone.close()
        if not self._tails:
            self.memory.on_record = None

    def agent_gone(self) -> None:
        """Tell nobody any more."""
        for tail in tuple(self._tails):
            self.end(tail)

    def _see(self, record: Record) -> None:
        for tail in self._tails.values():
            tail.see(record)

    def _ahead(self) -> float:
        """Return how far the time of day is ahead of the worker's: the same each time, unless it was set."""
        offset = self._wall() - self._loop.time()
        if abs(offset - self._offset) > JUMP:
            self._offset = offset
        return self._offset


def _candidates(record: Record, serving: Serving) -> list[dict[str, Any]]:
    """Return the routes of what is served now that take the path of a request, in their order of preference."""
    runtime, exchange = serving.runtime, record.exchange
    if runtime is None or not record.target:
        return []
    try:
        path, _, _ = parse_target(record.target, exchange.method, serving.slashes)
    except RequestError:
        return []
    candidates = []
    for candidate in runtime.candidates(record.host, path):
        route, methods = candidate.payload, candidate.methods
        if route.name == exchange.route:
            why = "chosen"
        elif methods is not None and exchange.method not in methods:
            why = f"takes {', '.join(sorted(methods))}"
        elif candidate.conditions:
            why = "has conditions on headers, query or cookies"
        else:
            why = "takes it, too"
        candidates.append({"route": route.name, "path": str(candidate.path), "origin": route.origin, "why": why})
        if len(candidates) == MOST_CANDIDATES:
            break
    return candidates


class _Tail:
    """One who looks on."""

    def __init__(
        self, order: Tail, loop: asyncio.AbstractEventLoop, ahead: Callable[[], float], say: Callable[[Tailed], bool]
    ) -> None:
        self._order = order
        self._loop = loop
        self._ahead = ahead
        self._say = say
        self._pending: list[Record] = []
        self._lost = 0
        self._timer: asyncio.TimerHandle | None = None

    def see(self, record: Record) -> None:
        """Tell of a request, if it is one that is wanted."""
        if not _wants(self._order, record.exchange):
            return
        if len(self._pending) >= PENDING:
            self._lost += 1
            return
        self._pending.append(record)
        if self._timer is None:
            self._timer = self._loop.call_later(EVERY, self._tell)

    def _tell(self) -> None:
        self._timer = None
        pending, self._pending = self._pending, []
        ahead = self._ahead()
        told = Tailed(self._order.tail, [summary_of(record, ahead) for record in pending], self._lost)
        if self._say(told):
            self._lost = 0
        else:
            self._lost += len(pending)

    def close(self) -> None:
        """Say nothing more."""
        if self._timer is not None:
            self._timer.cancel()


def _wants(order: Tail, exchange: Exchange) -> bool:
    if order.routes and exchange.route not in order.routes:
        return False
    if order.methods and exchange.method not in order.methods:
        return False
    if order.statuses and not any(low <= exchange.status <= high for low, high in order.statuses):
        return False
    return exchange.ended - exchange.started >= order.slow
