from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from portico.errors import Source, UpstreamClosed
from portico.http.duplex import Duplex
from portico.http.message import Request, Response
from portico.http.target import EncodedSlashes
from portico.net.client import Patience
from portico.net.listener import Listener
from portico.net.pem import KeyPair
from portico.net.pool import Pool, PoolOptions
from portico.net.server import Server, ServerLimits
from portico.net.stream import DeadlineExceeded
from portico.net.tls import ClientTls, ServerTls
from portico.net.tunnel import join
from portico.observe.exchange import Exchange, Outcome
from tests.harness.certificates import Authority
from tests.harness.loop import QUIET, run, run_jumping, turns, until
from tests.harness.peer import Peer, Service, service

SILENCE = 100.0


class Side(Duplex):
    """One end of a tunnel, in memory: what is put into `comes` comes in, and `taken` is what was sent to it."""

    def __init__(self, half_closes: bool = True) -> None:
        self._half_closes = half_closes
        self.comes: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self.taken: list[bytes] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.failure: Exception | None = None
        self.closed = 0
        self.broken_off = False

    @property
    def half_closes(self) -> bool:
        return self._half_closes

    @property
    def unread(self) -> bool:
        return not self.comes.empty()

    async def receive(self) -> bytes:
        piece = await self.comes.get()
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def send(self, data: bytes) -> None:
        assert not self.closed
        if self.failure is not None:
            raise self.failure
        self.taken.append(data)
        await self.takes.wait()

    def end(self) -> None:
        self.taken.append(b"")

    def break_off(self) -> None:
        self.broken_off = True

    def close(self) -> None:
        self.closed += 1


class Tunnel:
    """Two sides that are joined, in a task of the test's."""

    def __init__(self, tasks: asyncio.TaskGroup, half_closes: bool = True) -> None:
        self.client, self.service = Side(half_closes), Side()
        self.exchange = Exchange(0.0)
        self.joined = tasks.create_task(join(self.client, self.service, SILENCE, self.exchange))

    async def over(self) -> None:
        """Wait for its end, after which both sides are closed."""
        await self.joined
        assert self.client.closed
        assert self.service.closed


def test_bytes_go_both_ways_and_are_counted() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tunnel = Tunnel(tasks)
            for piece in (b"one", b"two", b""):
                tunnel.client.comes.put_nowait(piece)
            await until(lambda: tunnel.service.taken == [b"one", b"two", b""])
            for piece in (b"three", b""):
                tunnel.service.comes.put_nowait(piece)
            await tunnel.over()
            assert tunnel.client.taken == [b"three", b""]
            assert (tunnel.exchange.bytes_in, tunnel.exchange.bytes_out, tunnel.exchange.error) == (6, 5, "")

    run(main)


@pytest.mark.parametrize("first", ["client", "service"])
def test_a_direction_outlives_the_other_where_connections_can_say_so(first: str) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tunnel = Tunnel(tasks)
            one, other = tunnel.client, tunnel.service
            if first == "service":
                one, other = other, one
            one.comes.put_nowait(b"")
            await until(lambda: other.taken == [b""])
            await turns()
            other.comes.put_nowait(b"still here")
            await until(lambda: one.taken == [b"still here"])
            assert not tunnel.joined.done()
            other.comes.put_nowait(b"")
            await tunnel.over()
            assert one.taken == [b"still here", b""]

    run(main)


@pytest.mark.parametrize("first", ["client", "service"])
def test_one_end_is_both_ends_where_they_cannot(first: str) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tunnel = Tunnel(tasks, half_closes=False)
            one, other = tunnel.client, tunnel.service
            if first == "service":
                one, other = other, one
            one.comes.put_nowait(b"last words")
            one.comes.put_nowait(b"")
            await tunnel.over()
            assert other.taken == [b"last words", b""]
            assert tunnel.exchange.error == ""

    run(main)


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError("gone"), DeadlineExceeded(), UpstreamClosed("gone", source=Source.RESPONSE)],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("side", ["client", "service"])
@pytest.mark.parametrize("sending", [False, True])
def test_what_breaks_on_one_side_ends_the_other(error: Exception, side: str, sending: bool) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tunnel = Tunnel(tasks)
            broken, other = tunnel.client, tunnel.service
            if side == "service":
                broken, other = other, broken
            if sending:
                broken.failure = error
                other.comes.put_nowait(b"never taken")
            else:
                broken.comes.put_nowait(error)
            await tunnel.over()
            assert other.taken == []
            assert tunnel.exchange.error.startswith("tunnel-broken")

    run(main)


def test_silence_ends_it() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as tasks:
            began = clock()
            tunnel = Tunnel(tasks)
            await tunnel.over()
            assert SILENCE <= clock() - began < SILENCE + 1
            assert tunnel.exchange.error.startswith("tunnel-timeout")

    run_jumping(main)


@pytest.mark.parametrize("speaker", ["client", "service"])
def test_whoever_speaks_keeps_it(speaker: str) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as tasks:
            tunnel = Tunnel(tasks)
            side = tunnel.client if speaker == "client" else tunnel.service
            for _ in range(5):
                await asyncio.sleep(SILENCE * 0.9)
                side.comes.put_nowait(b"here")
            await turns()
            said = clock()
            await tunnel.over()
            assert SILENCE - 1 < clock() - said < SILENCE + 1

    run_jumping(main)


def test_bytes_that_come_as_time_runs_out_are_no_failure() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tunnel = Tunnel(tasks)
            tunnel.service.takes.clear()
            tunnel.client.comes.put_nowait(b"taken late")
            tunnel.client.comes.put_nowait(b"never")
            await until(lambda: tunnel.service.taken)
            loop = asyncio.get_running_loop()
            # It wakes who waits to send in the very turn in which the silence has lasted too long, and ahead of that.
            loop.call_at(loop.time() + SILENCE - QUIET / 2, tunnel.service.takes.set)
            while not tunnel.joined.done():
                await asyncio.sleep(SILENCE / 2)
            await tunnel.over()

    run_jumping(main)


def test_what_was_said_before_the_end_of_the_other_direction_is_still_sent() -> None:
    """Over TLS, where one end is both ends (DESIGN, section 3)."""

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tunnel = Tunnel(tasks, half_closes=False)
            tunnel.client.takes.clear()
            for piece in (b"one", b"two", b"three"):
                tunnel.service.comes.put_nowait(piece)
            await until(lambda: tunnel.client.taken == [b"one"])
            tunnel.client.comes.put_nowait(b"")
            await until(lambda: tunnel.service.taken == [b""])
            tunnel.client.takes.set()
            await tunnel.over()
            assert tunnel.client.taken == [b"one", b"two", b"three"]

    run(main)


def test_cancelling_closes_both_sides_and_goes_on() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tunnel = Tunnel(tasks)
            await turns()
            tunnel.joined.cancel()
            with pytest.raises(asyncio.CancelledError):
                await tunnel.joined
            assert tunnel.client.closed
            assert tunnel.service.closed

    run(main)


def test_a_bug_is_not_taken_for_an_end() -> None:
    async def main() -> None:
        client, behind = Side(), Side()
        client.comes.put_nowait(LookupError("a bug"))
        with pytest.raises(ExceptionGroup) as raised:
            await join(client, behind, SILENCE, Exchange(0.0))
        assert raised.group_contains(LookupError)
        assert client.closed
        assert behind.closed

    run(main)


# From here on over sockets: a server, and a pool to a service that the test plays.

ASK = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Gateway:
    """A server whose every request goes to one service."""

    def __init__(self, server: Server, pool: Pool, target: Service) -> None:
        self.server = server
        self.pool = pool
        self.target = target
        self.port = 0
        self.exchanges: list[Exchange] = []
        self.patience = Patience(10.0, 20.0)
        self.idle_tasks: set[asyncio.Task[object]] = set()

    async def handle(self, request: Request) -> Response:
        assert request.exchange is not None
        self.exchanges.append(request.exchange)
        stream = self.pool.take() or await self.pool.connect(10.0, None)
        return await stream.send(request, request.target, b"svc", self.patience)

    @asynccontextmanager
    async def tunnel(self) -> AsyncIterator[tuple[Peer, Peer]]:
        """Yield the client's and the service's connection once both have switched."""
        async with Peer.connected(self.port) as client:
            client.send(ASK)
            behind = await self.target.accept()
            assert b"\r\nUpgrade: websocket\r\n" in await behind.head()
            behind.send(SWITCH)
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
            yield client, behind

    async def over(self) -> Exchange:
        """Wait until nothing is left of the tunnel; return its exchange."""
        exchange = self.exchanges[-1]
        await until(lambda: exchange.outcome, "the end of the exchange")
        await until(lambda: asyncio.all_tasks() == self.idle_tasks, "the end of all tasks")
        await until(lambda: self.pool.connections == 0, "the end of the connections to the service")
        await until(lambda: not self.server._connections, "the end of the connections of clients")
        return exchange


@asynccontextmanager
async def gateway(limits: ServerLimits | None = None, tls: ServerTls | None = None) -> AsyncIterator[Gateway]:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks, service() as target:
        pool = Pool("127.0.0.1", target.port, None, PoolOptions(30, 10, 60.0), tasks)

        def handler(request: Request) -> object:
            return made.handle(request)

        server = Server(handler, limits or ServerLimits(), EncodedSlashes.KEEP, tasks)  # type: ignore[arg-type]
        made = Gateway(server, pool, target)
        listener = await loop.create_server(Listener(server, tls=tls).protocol, "127.0.0.1", 0)
        made.port = listener.sockets[0].getsockname()[1]
        made.idle_tasks = asyncio.all_tasks()
        try:
            yield made
        finally:
            listener.close()
            pool.close()
            await server.drain(loop.time() + 1)


def test_an_exchange_lasts_as_long_as_its_tunnel() -> None:
    async def main() -> None:
        async with gateway() as through:
            async with through.tunnel() as (client, behind):
                client.send(b"question")
                assert await behind.exactly(8) == b"question"
                behind.send(b"the answer")
                assert await client.exactly(10) == b"the answer"
                assert through.exchanges[-1].outcome is None
                client.half_close()
                assert await behind.rest() == b""
                behind.half_close()
                assert await client.rest() == b""
            exchange = await through.over()
            assert (exchange.status, exchange.outcome, exchange.error) == (101, Outcome.COMPLETE, "")
            assert (exchange.bytes_in, exchange.bytes_out) == (8, 10)

    run(main)


def test_bytes_that_came_with_the_heads_are_not_lost() -> None:
    async def main() -> None:
        async with gateway() as through, Peer.connected(through.port) as client:
            client.send(ASK + b"early bird")
            behind = await through.target.accept()
            await behind.head()
            behind.send(SWITCH + b"at once")
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
            assert await client.exactly(7) == b"at once"
            assert await behind.exactly(10) == b"early bird"
            client.leave()
            behind.leave()
            exchange = await through.over()
            assert (exchange.bytes_in, exchange.bytes_out) == (10, 7)

    run(main)


@pytest.mark.parametrize("half_closed", ["nobody", "client", "service"])
@pytest.mark.parametrize("reset", ["client", "service"])
def test_a_reset_ends_the_other_side(reset: str, half_closed: str) -> None:
    """Even where the side that is reset had ended its direction before: then it is found out by sending to it."""

    async def main() -> None:
        async with gateway() as through:
            async with through.tunnel() as (client, behind):
                gone, other = (client, behind) if reset == "client" else (behind, client)
                if half_closed != "nobody":
                    first, second = (client, behind) if half_closed == "client" else (behind, client)
                    first.half_close()
                    assert await second.rest() == b""
                gone.reset()
                if half_closed == reset:
                    await _speak_until_cut(other, through)
                elif half_closed == "nobody":
                    assert await _ended(other)
            exchange = await through.over()
            assert exchange.outcome is not None
            assert exchange.error.startswith("tunnel-broken")

    run(main)


async def _ended(peer: Peer) -> bool:
    try:
        return await peer.rest() == b""
    except ConnectionResetError:
        return True


async def _speak_until_cut(peer: Peer, through: Gateway) -> None:
    """Send on until the connection is cut: a tunnel whose other side is gone must not swallow bytes for ever."""
    clock = asyncio.get_running_loop().time
    by = clock() + 5
    while through.exchanges[-1].outcome is None:
        assert clock() < by, "it takes bytes that reach nobody"
        peer.send(b"is anybody there?")
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("sluggard", ["client", "service"])
def test_a_side_that_does_not_read_stops_the_other(sluggard: str) -> None:
    """Nothing but the buffers of four sockets, and two bounded ones, are between them."""
    piece = b"x" * 65536
    many = 64 * 1024 * 1024

    async def main() -> None:
        async with gateway() as through:
            async with through.tunnel() as (client, behind):
                slow, other = (client, behind) if sluggard == "client" else (behind, client)
                slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
                sent, left = 0, many
                stuck = False
                while left and not stuck:
                    other.send(piece)
                    sent += len(piece)
                    left -= len(piece)
                    try:
                        await asyncio.wait_for(other.writer.drain(), 0.5)
                    except TimeoutError:
                        stuck = True
                assert stuck, "it took everything"
                exchange = through.exchanges[-1]
                taken = exchange.bytes_out if sluggard == "client" else exchange.bytes_in
                assert taken < many / 2
                slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
                other.half_close()
                size = 0
                while data := await slow.reader.read(1 << 20):
                    size += len(data)
                assert size == sent
                slow.half_close()
            await through.over()

    run(main)


@pytest.mark.parametrize(("sluggard", "seconds"), [("client", 30.0), ("service", 20.0)])
def test_a_side_that_never_reads_is_given_up(sluggard: str, seconds: float) -> None:
    """A client after `write_timeout`, a service after its `timeout.idle`, long before the silence would end it."""

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with gateway() as through:
            async with through.tunnel() as (client, behind):
                slow, other = (client, behind) if sluggard == "client" else (behind, client)
                slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
                other.send(b"x" * (32 * 1024 * 1024))
                began = clock()
                await until(lambda: _counted(through.exchanges[-1]) > 100_000)
                while through.exchanges[-1].outcome is None and clock() < began + 300:
                    await asyncio.sleep(1)
                assert clock() - began < seconds + 10
            exchange = await through.over()
            assert exchange.error.startswith("tunnel-broken")

    run_jumping(main)


def _counted(exchange: Exchange) -> int:
    return exchange.bytes_in + exchange.bytes_out


def test_silence_ends_a_tunnel_over_sockets() -> None:
    async def main() -> None:
        async with gateway(ServerLimits(tunnel_timeout=50.0)) as through:
            async with through.tunnel() as (client, behind):
                assert await client.rest() == b""
                assert await behind.rest() == b""
            exchange = await through.over()
            assert exchange.error.startswith("tunnel-timeout")

    run_jumping(main)


def test_other_limits_do_not_end_a_tunnel() -> None:
    limits = ServerLimits(
        head_timeout=1.0, body_timeout=1.0, write_timeout=1.0, keepalive_timeout=1.0, tunnel_timeout=1000.0
    )

    async def main() -> None:
        async with gateway(limits) as through:
            through.patience = Patience(1.0, 1.0)
            async with through.tunnel() as (client, behind):
                for _ in range(3):
                    await asyncio.sleep(500.0)
                    client.send(b"hello")
                    assert await behind.exactly(5) == b"hello"
                    behind.send(b"hello")
                    assert await client.exactly(5) == b"hello"
                client.leave()
                behind.leave()
            assert (await through.over()).error == ""

    run_jumping(main)


def test_a_drain_ends_tunnels_at_its_deadline() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with gateway() as through:
            async with through.tunnel() as (client, behind):
                draining = loop.create_task(through.server.drain(loop.time() + 5))
                await asyncio.sleep(4)
                client.send(b"going on")
                assert await behind.exactly(8) == b"going on"
                await draining
                assert await _ended(client)
                assert await _ended(behind)
            exchange = await through.over()
            assert exchange.outcome is Outcome.CANCELLED

    run_jumping(main)


@pytest.mark.parametrize("leaver", ["client", "service"])
def test_many_tunnels_at_once_leave_nothing_behind(leaver: str) -> None:
    async def use(number: int, client: Peer, behind: Peer) -> None:
        said = b"%d" % number * 1000
        client.send(said)
        behind.send((await behind.exactly(len(said)))[::-1])
        assert await client.exactly(len(said)) == said[::-1]
        first, second = (client, behind) if leaver == "client" else (behind, client)
        first.leave()
        assert await second.rest() == b""
        second.leave()

    async def main() -> None:
        async with gateway() as through, AsyncExitStack() as stack:
            pairs = [await stack.enter_async_context(through.tunnel()) for _ in range(20)]
            async with asyncio.TaskGroup() as all_of_them:
                for number, pair in enumerate(pairs):
                    all_of_them.create_task(use(number, *pair))
            await through.over()
            assert [exchange.outcome for exchange in through.exchanges] == [Outcome.COMPLETE] * 20

    run(main)


def test_a_service_that_closes_after_its_101_ends_the_client() -> None:
    async def main() -> None:
        async with gateway() as through, Peer.connected(through.port) as client:
            client.send(ASK)
            behind = await through.target.accept()
            await behind.head()
            behind.send(SWITCH + b"goodbye")
            behind.leave()
            await client.head()
            assert await client.rest() == b"goodbye"
            client.leave()
            assert (await through.over()).bytes_out == 7

    run(main)


def test_a_client_that_leaves_before_the_101_ends_the_request() -> None:
    async def main() -> None:
        async with gateway() as through:
            async with Peer.connected(through.port) as client:
                client.send(ASK)
                behind = await through.target.accept()
                await behind.head()
            assert await _ended(behind)
            assert (await through.over()).outcome is Outcome.CLIENT_LEFT

    run(main)


# Over TLS.


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_tls(pair: KeyPair) -> ServerTls:
    return ServerTls([pair], ssl.TLSVersion.TLSv1_2, None, ssl.CERT_NONE)


def test_over_tls_an_end_comes_after_what_was_said_before(authority: Authority) -> None:
    said = b"x" * 300_000

    async def main() -> None:
        async with gateway(tls=server_tls(authority.issue("server", "a.test"))) as through:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", through.port, ssl=authority.client(), server_hostname="a.test"
            )
            client = Peer(reader, writer)
            client.send(ASK)
            behind = await through.target.accept()
            await behind.head()
            behind.send(SWITCH + said)
            behind.half_close()
            await client.head()
            assert await client.rest() == said
            assert await behind.rest() == b""
            exchange = await through.over()
            assert (exchange.outcome, exchange.error, exchange.bytes_out) == (Outcome.COMPLETE, "", len(said))
            client.leave()

    run(main)


def test_over_tls_a_service_that_is_cut_is_no_end_in_good_order(authority: Authority, tmp_path: Path) -> None:
    """A connection that ends without a close_notify may have lost something: the exchange says so."""
    pair = authority.issue("service", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH + b"half of")
        await writer.drain()
        await reader.readexactly(4)
        writer.transport.abort()

    async def main() -> None:
        listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        async with listener, gateway() as through:
            port = listener.sockets[0].getsockname()[1]
            tls = ClientTls(authority.path, None, True, ssl.TLSVersion.TLSv1_2, None)
            through.pool = Pool("127.0.0.1", port, tls, PoolOptions(30, 10, 60.0), through.server.tasks)
            async with Peer.connected(through.port) as client:
                client.send(ASK)
                await client.head()
                assert await client.exactly(7) == b"half of"
                client.send(b"more")
                assert await _ended(client)
                await until(lambda: through.exchanges[-1].outcome)
            assert through.exchanges[-1].error.startswith("tunnel-broken")
            through.pool.close()

    run(main)
