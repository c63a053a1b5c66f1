"""Two connections joined into one, once they have stopped speaking HTTP (RFC 9110 section 7.8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from portico.errors import UpstreamError
from portico.http.duplex import Duplex
from portico.net.stream import DeadlineExceeded
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
        quiet.reschedule(clock() + silence)

    def went_out(size: int) -> None:
        exchange.bytes_out += size
        quiet.reschedule(clock() + silence)

    try:
        async with asyncio.timeout(silence) as quiet, asyncio.TaskGroup() as both:
            both.create_task(_pass(client, service, came_in), name="tunnel to the service")
            both.create_task(_pass(service, client, went_out), name="tunnel to the client")
    except* TimeoutError:
        exchange.error = "tunnel-timeout: neither side has said anything"
    except* _Over:
        pass
    except* (ConnectionError, DeadlineExceeded, UpstreamError) as broken:
        exchange.error = f"tunnel-broken: {broken.exceptions[0]}"
    finally:
        client.close()
        service.close()


async def _pass(source: Duplex, sink: Duplex, passed: Callable[[int], None]) -> None:
    while data := await source.receive():
        passed(len(data))
        await sink.send(data)
    sink.end()
    if not (source.half_closes and sink.half_closes):
        raise _Over
