"""Two connections joined into one, once they have stopped speaking HTTP (RFC 9110 section 7.8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from portico.errors import UpstreamError
from portico.http.duplex import Duplex
from portico.net.stream import NEVER, DeadlineExceeded
from portico.observe.exchange import Exchange


class _Over(Exception):
    """One side has ended its direction, and the other direction cannot outlive that."""


async def join(client: Duplex, service: Duplex, silence: float, exchange: Exchange) -> None:
    """Pass bytes both ways until both directions have ended, or for `silence` seconds neither side has said anything.

    A side that ends its direction leaves the other one open, as plain TCP has it; over TLS that ends both. What was
    received before an end is sent before it is passed on.
    """
    clock = asyncio.get_running_loop().time

    def came_in(size: int) -> None:
        exchange.bytes_in += size
        said()

    def went_out(size: int) -> None:
        exchange.bytes_out += size
        said()

    def said() -> None:
        if silence != NEVER and not quiet.expired():  # it may be running out in this very turn
            quiet.reschedule(clock() + silence)

    try:
        async with asyncio.timeout(None if silence == NEVER else silence) as quiet, asyncio.TaskGroup() as both:
            there, back = _Direction(client, service, came_in), _Direction(service, client, went_out)
            there.other, back.other = back, there
            both.create_task(there.run(), name="tunnel to the service")
            both.create_task(back.run(), name="tunnel to the client")
    except* TimeoutError:
        exchange.error = "tunnel-timeout: neither side has said anything"
    except* _Over:
        pass
    except* (ConnectionError, DeadlineExceeded, UpstreamError) as broken:
        exchange.error = f"tunnel-broken: {broken.exceptions[0]}"
        client.break_off()
        service.break_off()
    finally:
        client.close()
        service.close()


class _Direction:
    """What one side says, until it has no more."""

    __slots__ = ("_passed", "_sink", "_source", "last", "other", "sending")

    other: _Direction

    def __init__(self, source: Duplex, sink: Duplex, passed: Callable[[int], None]) -> None:
        self._source = source
        self._sink = sink
        self._passed = passed
        self.sending = False
        self.last = False

    async def run(self) -> None:
        source, sink = self._source, self._sink
        while data := await source.receive():
            self._passed(len(data))
            self.sending = True
            await sink.send(data)
            self.sending = False
            if self.last and not source.unread:
                raise _Over
        sink.end()
        if not (source.half_closes and sink.half_closes):
            if not self.other.sending:
                raise _Over
            self.other.last = True  # what has come is still sent
