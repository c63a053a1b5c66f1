from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from portico.errors import ConnectFailed, Overloaded, Source, UpstreamClosed, UpstreamTimeout
from portico.http.message import Request, Response
from portico.net.client import AnswerLimits, ClientStream, Patience
from portico.net.h1_client import H1Connection
from portico.net.pool import Pool, PoolOptions
from portico.net.stream import NEVER
from portico.net.tls import ClientTls
from tests.harness.gateway import reserved_port
from tests.harness.loop import JumpingLoop, run, run_jumping, turns, until
from tests.harness.peer import Peer, Service, service

PATIENCE = Patience(10.0, 10.0)


@asynccontextmanager
async def pool_of(
    port: int, max_connections: int = 10, max_idle: int = 10, idle_timeout: float = 60.0
) -> AsyncIterator[Pool]:
    async with asyncio.TaskGroup() as tasks:
        options = PoolOptions(max_connections, max_idle, idle_timeout, AnswerLimits(1000))
        pool = Pool("127.0.0.1", port, None, options, tasks)
        try:
            yield pool
        finally:
            pool.close()


async def exchange(pool: Pool, peer: Peer | None, target: Service, fields: bytes = b"") -> tuple[ClientStream, Peer]:
    """Have one request answered, over an idle connection or a new one; `peer` is the other side of the idle one."""
    stream = pool.take() or await pool.connect(10.0, None)
    sending = asyncio.get_running_loop().create_task(send(stream))
    peer = peer or await target.accept()
    await peer.head()
    peer.send(b"HTTP/1.1 204 No Content\r\n" + fields + b"\r\n")
    assert (await sending).status == 204
    return stream, peer


def abort(*streams: ClientStream) -> None:
    """Close connections that were taken and will not be used."""
    for stream in streams:
        assert isinstance(stream, H1Connection)
        stream.stream.abort()


async def send(stream: ClientStream) -> Response:
    return await stream.send(Request("GET", "/"), "/", b"a", PATIENCE)


def test_a_connection_is_used_again() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port) as pool:
            assert pool.take() is None
            first, peer = await exchange(pool, None, target)
            second, _ = await exchange(pool, peer, target)
            assert first is second
            assert second.reused
            assert (target.accepted, pool.connections) == (1, 1)

    run(main)


def test_the_last_used_connection_is_taken_first() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port) as pool:
            streams = [await pool.connect(10.0, None) for _ in range(2)]
            assert pool.connections == 2
            for stream in streams:
                sending = asyncio.get_running_loop().create_task(send(stream))
                peer = await target.accept()
                await peer.head()
                peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
                await sending
            assert [pool.take(), pool.take(), pool.take()] == [streams[1], streams[0], None]
            abort(*streams)

    run(main)


def test_no_more_than_so_many_stay_idle() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port, max_idle=0) as pool:
            _, peer = await exchange(pool, None, target)
            assert await peer.rest() == b""
            assert pool.connections == 0
            assert pool.take() is None

    run(main)


@pytest.mark.parametrize("fields", [b"Connection: close\r\n"])
def test_an_answer_may_end_its_connection(fields: bytes) -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port) as pool:
            await exchange(pool, None, target, fields)
            assert (pool.take(), pool.connections) == (None, 0)

    run(main)


def test_an_idle_connection_is_closed_in_time() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port, idle_timeout=60) as pool:
            _, peer = await exchange(pool, None, target)
            begin = asyncio.get_running_loop().time()
            assert await peer.rest() == b""
            assert 59 < asyncio.get_running_loop().time() - begin < 62
            assert (pool.take(), pool.connections) == (None, 0)

    run_jumping(main)


@pytest.mark.parametrize("how", ["leave", "reset", "half_close"])
def test_a_connection_that_the_target_closes_is_forgotten(how: str) -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port) as pool:
            _, peer = await exchange(pool, None, target)
            assert pool.connections == 1
            getattr(peer, how)()
            await until(lambda: pool.connections == 0, "the pool to notice")
            assert pool.take() is None

    run(main)


def test_what_was_not_asked_for_spoils_a_connection() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port) as pool:
            stream, peer = await exchange(pool, None, target)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            assert isinstance(stream, H1Connection)
            await until(lambda: stream.stream.unread)
            assert (pool.take(), pool.connections) == (None, 0)
            assert await peer.rest() == b""

    run(main)


def test_what_comes_behind_an_answer_spoils_its_connection() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port) as pool:
            await exchange(pool, None, target, b"\r\nHTTP/1.1 200 OK\r\n")
            assert (pool.take(), pool.connections) == (None, 0)

    run(main)


def test_the_end_of_a_kept_connection_is_a_reason_to_try_again() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port) as pool:
            _, peer = await exchange(pool, None, target)
            stream = pool.take()
            assert stream is not None
            peer.leave()  # just as the request is being sent
            with pytest.raises(UpstreamClosed) as caught:
                await send(stream)
            assert caught.value.retryable
            assert pool.connections == 0

    run(main)


def test_there_are_no_more_connections_than_allowed() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port, max_connections=1) as pool:
            stream = await pool.connect(10.0, None)
            with pytest.raises(Overloaded) as caught:
                await pool.connect(10.0, None)
            assert caught.value.retryable  # nothing was sent: another target may do it
            sending = asyncio.get_running_loop().create_task(send(stream))
            peer = await target.accept()
            peer.leave()
            with pytest.raises(UpstreamClosed):
                await sending
            assert pool.connections == 0
            abort(await pool.connect(10.0, None))

    run(main)


def test_a_refused_connection_may_be_tried_elsewhere() -> None:
    async def main() -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))  # and never listens
            async with pool_of(holder.getsockname()[1]) as pool:
                with pytest.raises(ConnectFailed) as caught:
                    await pool.connect(10.0, None)
                assert (caught.value.source, caught.value.retryable) == (Source.CONNECT, True)
                assert pool.connections == 0
                with pytest.raises(OSError):
                    await pool.probe()

    run(main)


@asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """Listen on a port whose queue is full: connections are neither accepted nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        try:
            yield address[1]
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.parametrize(
    ("timeout", "total", "retryable"),
    [(5.0, None, True), (5.0, 100.0, True), (NEVER, 5.0, False), (100.0, 5.0, False)],  # no time left: no other target
)
def test_a_connection_is_made_in_time_or_not_at_all(timeout: float, total: float | None, retryable: bool) -> None:
    async def main() -> None:
        async with deaf() as port, pool_of(port) as pool:
            begin = asyncio.get_running_loop().time()
            with pytest.raises(UpstreamTimeout) as caught:
                await pool.connect(timeout, None if total is None else begin + total)
            assert 4.9 < asyncio.get_running_loop().time() - begin < 6
            assert (caught.value.source, caught.value.retryable) == (Source.CONNECT, retryable)
            assert pool.connections == 0

    run_jumping(main)


def test_who_gives_up_connecting_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with deaf() as port, pool_of(port) as pool:
            connecting = asyncio.get_running_loop().create_task(pool.connect(100.0, None))
            await until(lambda: pool.connections == 1)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            assert pool.connections == 0

    run(main)


def test_connections_that_are_in_use_or_being_opened_are_busy() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port) as pool:
            assert pool.busy == 0
            _, peer = await exchange(pool, None, target)
            assert (pool.busy, pool.connections) == (0, 1)
            kept = pool.take()
            assert kept is not None
            assert pool.busy == 1
            connecting = asyncio.get_running_loop().create_task(pool.connect(10.0, None))
            await until(lambda: pool.busy == 2)
            abort(await connecting)
            sending = asyncio.get_running_loop().create_task(send(kept))
            await peer.head()
            peer.leave()
            with pytest.raises(UpstreamClosed):
                await sending
            assert pool.busy == pool.connections == 1  # the one that was opened and is not used
        async with deaf() as port, pool_of(port) as pool:
            connecting = asyncio.get_running_loop().create_task(pool.connect(100.0, None))
            await until(lambda: pool.busy == 1)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            assert pool.busy == 0

    run(main)


def test_connecting_may_be_without_a_limit() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port) as pool:
            abort(await pool.connect(NEVER, None))
            assert pool.connections == 1

    run(main)


def test_a_closed_pool_keeps_nothing() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port) as pool:
            _, idle = await exchange(pool, None, target)
            busy = await pool.connect(10.0, None)
            sending = asyncio.get_running_loop().create_task(send(busy))
            peer = await target.accept()
            await peer.head()
            pool.close()
            assert await idle.rest() == b""
            peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert (await sending).status == 204
            assert await peer.rest() == b""
            assert pool.connections == 0

    run(main)


def test_a_probe_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with service() as target, pool_of(target.port) as pool:
            await pool.probe()
            peer = await target.accept()
            assert await peer.rest() == b""
            assert pool.connections == 0

    run(main)


def test_a_probe_of_a_service_with_tls_speaks_tls() -> None:
    async def main() -> None:
        async with service() as target, asyncio.TaskGroup() as tasks:
            tls = ClientTls(None, None, True, ssl.TLSVersion.TLSv1_2, "localhost")
            pool = Pool("127.0.0.1", target.port, tls, PoolOptions(1, 1, 60.0), tasks)
            probing = asyncio.get_running_loop().create_task(pool.probe())
            peer = await target.accept()
            peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with pytest.raises(OSError, match=r"WRONG_VERSION|not TLS"):
                await probing

    run(main)


def taken(pool: Pool) -> list[ClientStream]:
    """Take all that the pool has."""
    streams = []
    while (stream := pool.take()) is not None:
        streams.append(stream)
    return streams


@asynccontextmanager
async def pool_with(
    port: int, chance: float = 0.0, gate: asyncio.Semaphore | None = None, **options: Any
) -> AsyncIterator[Pool]:
    """Have a pool with these options and lots that are all the same."""
    known = {"max_connections": 10, "max_idle": 10, "idle_timeout": 1000.0} | options
    async with asyncio.TaskGroup() as tasks:
        pool = Pool("127.0.0.1", port, None, PoolOptions(**known), tasks, gate=gate, chance=lambda: chance)
        try:
            yield pool
        finally:
            pool.close()


@pytest.mark.parametrize(("chance", "ends"), [(0.0, 100.0), (0.5, 95.0)])
def test_an_idle_connection_is_closed_when_it_is_too_old(chance: float, ends: float) -> None:
    async def main() -> None:
        async with service() as target, pool_with(target.port, chance, max_age=100.0) as pool:
            begin = asyncio.get_running_loop().time()
            _, peer = await exchange(pool, None, target)
            await asyncio.sleep(90)
            await exchange(pool, peer, target)
            assert target.accepted == 1
            assert await peer.rest() == b""
            assert ends - 1 < asyncio.get_running_loop().time() - begin < ends + 1
            assert (pool.take(), pool.connections) == (None, 0)

    run_jumping(main)


def test_a_connection_that_has_become_too_old_is_not_put_back() -> None:
    async def main() -> None:
        async with service() as target, pool_with(target.port, max_age=100.0) as pool:
            stream = await pool.connect(10.0, None)
            sending = asyncio.get_running_loop().create_task(
                stream.send(Request("GET", "/"), "/", b"a", Patience(NEVER, NEVER))
            )
            peer = await target.accept()
            await peer.head()
            await asyncio.sleep(101)
            peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert (await sending).status == 204
            assert await peer.rest() == b""
            assert pool.connections == 0

    run_jumping(main)


def test_a_connection_that_has_become_too_old_is_not_taken() -> None:
    async def main() -> None:
        async with service() as target, pool_with(target.port, max_age=100.0) as pool:
            _, peer = await exchange(pool, None, target)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, JumpingLoop)
            loop.jump(100)  # and no timer has run since
            assert pool.take() is None
            assert await peer.rest() == b""
            assert pool.connections == 0

    run_jumping(main)


def test_connections_are_opened_ahead_of_requests() -> None:
    async def main() -> None:
        async with service() as target, pool_with(target.port, warm=3) as pool:
            pool.warm()
            await until(lambda: len(pool._ready) == 3, "three connections")
            await turns()
            assert (pool.connections, target.accepted) == (3, 3)
            streams = taken(pool)
            assert len(streams) == 3
            abort(*streams)
            pool.warm()
            await turns()
            assert target.accepted == 3

    run(main)


def test_no_more_are_opened_ahead_than_are_allowed_and_kept() -> None:
    async def main() -> None:
        async with service() as target, pool_with(target.port, warm=3, max_connections=2) as pool:
            pool.warm()
            await until(lambda: len(pool._ready) == 2, "two connections")
            await turns()
            assert pool.connections == 2

    run(main)


def test_a_target_that_closes_each_at_once_is_not_connected_to_again_and_again() -> None:
    async def main() -> None:
        async with service() as target, pool_with(target.port, warm=3) as pool:
            pool.warm()
            for _ in range(3):
                (await target.accept()).leave()
            await until(lambda: pool.connections == 0, "all of them to be closed")
            await turns(50)
            assert target.accepted <= 3

    run(main)


def test_a_connection_that_was_opened_ahead_and_closed_by_the_target_is_a_reason_to_try_again() -> None:
    async def main() -> None:
        async with service() as target, pool_with(target.port, warm=1) as pool:
            pool.warm()
            peer = await target.accept()
            await until(lambda: pool._ready)
            stream = pool.take()
            assert stream is not None
            peer.leave()
            with pytest.raises(UpstreamClosed) as caught:
                await send(stream)
            assert caught.value.retryable

    run(main)


def test_no_connection_ahead_of_requests_is_no_failure_and_is_made_up_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "portico.upstream")

    async def main() -> None:
        holder, port = reserved_port()
        async with pool_with(port, warm=3) as pool:
            with holder:
                pool.warm()
                await until(lambda: caplog.records, "the log")
                assert (len(caplog.records), pool.connections) == (1, 0)
                with pytest.raises(ConnectFailed):
                    await pool.connect(10.0, None)
            back = Service(port)
            listener = await asyncio.start_server(back.connected, "127.0.0.1", port)
            stream = await pool.connect(10.0, None)
            await until(lambda: len(pool._ready) == 2, "the others")
            await turns()
            assert pool.connections == 3
            abort(stream)
            listener.close()
        for peer in back.peers:
            assert await peer.rest() == b""
            peer.leave()
        assert [record.levelname for record in caplog.records] == ["DEBUG"]

    run(main)


def test_what_is_being_opened_ahead_ends_with_its_pool() -> None:
    async def main() -> None:
        async with deaf() as port:
            async with pool_with(port, warm=3) as pool:
                pool.warm()
                await until(lambda: pool.connections == 1)
            assert pool.connections == 0  # and its task is over, for which the group has waited

    run(main)


def test_few_are_opened_at_once_ahead_of_requests() -> None:
    async def main() -> None:
        gate = asyncio.Semaphore(1)
        async with (
            deaf() as port,
            service() as target,
            pool_with(port, warm=3, gate=gate) as slow,
            pool_with(target.port, warm=2, gate=gate) as pool,
        ):
            slow.warm()
            await until(lambda: slow.connections == 1)
            pool.warm()
            await turns()
            assert pool.connections == 0
            slow.close()
            await until(lambda: len(pool._ready) == 2, "their turn")

    run(main)


def test_a_tls_handshake_may_have_a_time_of_its_own() -> None:
    async def main() -> None:
        async with service() as target, asyncio.TaskGroup() as tasks:
            tls = ClientTls(None, None, True, ssl.TLSVersion.TLSv1_2, "localhost")
            options = PoolOptions(2, 1, 60.0, tls_timeout=3.0)
            pool = Pool("127.0.0.1", target.port, tls, options, tasks)
            loop = asyncio.get_running_loop()
            begin = loop.time()
            with pytest.raises(UpstreamTimeout, match="no TLS handshake in time") as caught:
                await pool.connect(10.0, None)
            assert 2.9 < loop.time() - begin < 4
            assert (caught.value.source, caught.value.retryable) == (Source.CONNECT, True)
            assert pool.connections == 0
            with pytest.raises(UpstreamTimeout, match="no connection in time"):
                await pool.connect(1.0, None)
            with pytest.raises(OSError, match="no TLS handshake in time"):
                await pool.probe()
            for peer in target.peers:
                await peer.rest()  # each was left

    run_jumping(main)
