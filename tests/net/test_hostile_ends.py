"""Clients and targets that end, break off or ask in ways that nobody means: each was seen to do harm once."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest

from portico.errors import UpstreamTimeout
from portico.http.body import Body
from portico.http.forwarded import Client, Style, Trust
from portico.http.message import Handler, Request, Response
from portico.net.client import Patience
from portico.net.h1_server import H1ServerConnection
from portico.net.listener import Begin, Listener, begin_h1
from portico.net.pem import KeyPair
from portico.net.pool import Pool, PoolOptions
from portico.net.server import Server, ServerLimits
from portico.net.stream import Stream
from portico.net.tls import ClientTls, ServerTls
from portico.net.tls_stream import TlsStream
from portico.observe.exchange import Exchange, Outcome
from tests.harness.certificates import Authority
from tests.harness.loop import run, run_jumping, turns, until
from tests.harness.peer import Peer, service
from tests.harness.tls_peer import TlsPeer, meeting
from tests.net.test_server import Handle, Pieces, Serving, echo, streamed
from tests.net.test_tunnel import ASK, SWITCH, Side, gateway

ASKED = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
MALFORMED = b"GET / HTTP/1.1\r\nHost: a\r\nbad\r\n\r\n"
HALF = {
    "length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    "chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
}


class World(NamedTuple):
    """A server's TLS, what clients speak, and who signs for both."""

    server: ServerTls
    client: ssl.SSLContext
    authority: Authority
    pair: KeyPair


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    pair = authority.issue("a", "a.test", "127.0.0.1")
    server = ServerTls([pair], ssl.TLSVersion.TLSv1_2, None, ssl.CERT_NONE)
    return World(server, authority.client(only=ssl.TLSVersion.TLSv1_3), authority, pair)


@asynccontextmanager
async def serving(
    handler: Handle, tls: ServerTls | None = None, limits: ServerLimits | None = None, begin: Begin = begin_h1
) -> AsyncIterator[Serving]:
    """Serve as a worker does: what escapes from a connection ends the block."""
    async with asyncio.TaskGroup() as tasks:
        made = Serving(handler, limits or ServerLimits(), tasks)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(Listener(made.server, None, tls, begin=begin).protocol, "127.0.0.1", 0)
        made.port = listener.sockets[0].getsockname()[1]
        try:
            yield made
        finally:
            listener.close()
            await made.server.drain(loop.time() + 1)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


def ending_early(data: bytes) -> Begin:
    """Have each connection begin with `data` and the end of the client's direction, all before its task has run."""

    def begin(server: Server, client: Client, stream: Stream, handler: Handler | None) -> None:
        begin_h1(server, client, stream, handler)
        stream.data_received(data)
        stream.eof_received()

    return begin


# A good record, and a broken one behind it.


async def hello(request: Request) -> Response:
    return Response(200, None, b"x" * 100_000 if request.path == "/large" else b"hello")


@pytest.mark.parametrize(
    "good", [LAST, MALFORMED, ASKED, ASKED.replace(b"/ ", b"/large ")], ids=["last", "malformed", "usual", "large"]
)
@pytest.mark.parametrize("waiting", [True, False])
def test_what_breaks_behind_a_good_record_harms_nobody_else(
    world: World, good: bytes, waiting: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "portico")

    async def main() -> None:
        async with serving(hello, world.server) as served, Peer.connected(served.port) as raw:
            peer = TlsPeer(raw, world.client, "a.test")
            last = await peer.handshake()
            await until(lambda: served.server._connections)
            if waiting:
                raw.send(last)
                last = b""
                await until(lambda: any(waits(each) for each in served.server._connections))
            broken = bytearray(peer.record(good) + peer.record(b"x" * 20))
            broken[-1] ^= 1
            raw.send(last + bytes(broken))
            with suppress(ConnectionResetError):
                await raw.rest()
            await until(lambda: not served.server._connections)
            assert [exchange for exchange in served.exchanges if exchange.outcome is None] == []
            async with meeting(served.port, world.client) as other:
                other.send(LAST)
                assert (await other.read()).startswith(b"HTTP/1.1 200 ")

    run(main)
    assert errors(caplog) == []


def waits(connection: Any) -> bool:
    return isinstance(connection, H1ServerConnection) and connection._stream._arrival.waiting


# A client that has said all, and leaves.


async def _left(served: Serving, raw: Peer, source: Pieces) -> None:
    """Reset a connection whose client has ended its direction and is being streamed to; wait for the end of it."""
    await until(lambda: served.exchanges and served.exchanges[0].status == 200, "the head of the answer")
    assert not source.closed
    raw.reset()
    await until(lambda: not served.server._connections, "the end of the connection")
    assert source.closed
    assert served.exchanges[0].outcome is Outcome.CLIENT_LEFT


def test_who_said_all_within_the_handshake_and_leaves_is_given_up(world: World) -> None:
    handle, source = streamed()

    async def main() -> None:
        async with serving(handle, world.server) as served, Peer.connected(served.port) as raw:
            peer = TlsPeer(raw, world.client, "a.test")
            raw.send(await peer.handshake() + peer.record(ASKED) + peer.ending())
            await _left(served, raw, source)

    run(main)


def test_who_said_all_before_it_was_heard_and_leaves_is_given_up() -> None:
    handle, source = streamed()

    async def main() -> None:
        async with serving(handle, begin=ending_early(ASKED)) as served, served.client() as raw:
            await _left(served, raw, source)

    run(main)


@pytest.mark.parametrize("framing", HALF)
@pytest.mark.parametrize("tls", [True, False])
def test_an_upload_that_is_cut_off_is_the_clients_fault(
    world: World, framing: str, tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    half = HALF[framing]

    async def main() -> None:
        begin = begin_h1 if tls else ending_early(half)
        async with serving(echo, world.server if tls else None, begin=begin) as served, served.client() as raw:
            if tls:
                peer = TlsPeer(raw, world.client, "a.test")
                raw.send(await peer.handshake() + peer.record(half) + peer.ending())
                answer = b""
                while data := await peer.read():
                    answer += data
            else:
                answer = await raw.rest()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"malformed-request" in answer
            await until(lambda: not served.server._connections)
            assert served.exchanges[0].outcome is Outcome.REJECTED
            assert served.exchanges[0].status == 400

    run(main)
    assert errors(caplog) == []


# A connection that comes as the server goes.


@pytest.mark.parametrize("speaks", [True, False])
def test_a_drain_meets_a_connection_without_a_transport(world: World, speaks: bool) -> None:
    """An event loop asks for a connection's protocol when it accepts, and connects both in a later turn."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        async with asyncio.TaskGroup() as tasks, Peer.connected(listening.getsockname()[1]) as raw:
            served = Serving(echo, ServerLimits(), tasks)
            accepted, _ = await loop.sock_accept(listening)
            protocol = Listener(served.server, None, world.server).protocol()
            assert isinstance(protocol, TlsStream)
            began = loop.time()
            drained = loop.create_task(served.server.drain(began + 5))
            await turns(1)
            await loop.connect_accepted_socket(lambda: protocol, accepted)
            if speaks:
                peer = TlsPeer(raw, world.client, "a.test")
                await peer.connect()
                assert await peer.read() == b""
            await drained
            assert loop.time() - began < (4 if speaks else 6)
            await until(lambda: not served.server._connections)
            await until(lambda: protocol.closed)
        listening.close()

    run_jumping(main)


# A target that takes nothing.


def test_an_upload_past_its_deadline_does_not_spin() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers: list[float] = []
        call_at = loop.call_at

        def counted(when: float, *args: Any, **named: Any) -> asyncio.TimerHandle:
            timers.append(when)
            return call_at(when, *args, **named)

        async with asyncio.TaskGroup() as tasks, service() as target:
            pool = Pool("127.0.0.1", target.port, None, PoolOptions(10, 10, 60.0), tasks)
            stream = await pool.connect(10.0, None)
            source = Pieces(*[b"x" * 1_000_000] * 40)
            request = Request("POST", "/", body=Body.stream(source, None), exchange=Exchange(loop.time()))
            request.deadline = loop.time() + 100
            sending = loop.create_task(stream.send(request, "/", b"svc", Patience(50.0, 500.0)))
            behind = await target.accept()
            await behind.head()
            behind.writer.transport.pause_reading()
            behind.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            response = await sending
            await until(lambda: stream.stream.congested)
            loop.call_at = counted
            await asyncio.sleep(102)
            del loop.call_at
            assert source.given < 40_000_000
            assert 1 < len(timers) < 10  # one for each time that the target's patience with a piece is over
            with pytest.raises(UpstreamTimeout):
                await response.body.chunk()
            await until(lambda: pool.connections == 0)
            pool.close()

    run_jumping(main)


# A proxy whose client would strike what it says.


@pytest.mark.parametrize(
    ("name", "value", "address", "scheme"),
    [
        ("X-Forwarded-For", "203.0.113.9", "203.0.113.9", "http"),
        ("X-Forwarded-Proto", "https", "127.0.0.1", "https"),
        ("X-Forwarded-Host", "shop.example", "127.0.0.1", "http"),
        ("X-Forwarded-Port", "8443", "127.0.0.1", "http"),
        ("X-Real-IP", "203.0.113.9", "127.0.0.1", "http"),
        ("Forwarded", "for=203.0.113.9;proto=https", "203.0.113.9", "https"),
    ],
)
def test_connection_does_not_strike_what_a_proxy_says(name: str, value: str, address: str, scheme: str) -> None:
    async def handle(request: Request) -> Response:
        client = request.client
        assert client is not None
        assert request.headers.get(b"x-other") is None
        said = request.headers.get(name.lower().encode()) or b""
        return Response(200, None, b"|".join([client.address.encode(), client.scheme.encode(), said]))

    async def main() -> None:
        async with serving(handle) as served:
            style = Style(name != "Forwarded", name == "Forwarded", "")
            served.server.trust = Trust([ipaddress.ip_network("127.0.0.0/8")], style)
            async with served.client() as client:
                fields = (f"{name}: {value}", f"Connection: X-Other, {name.lower()}", "X-Other: 1")
                for _ in range(4):  # at last from among the heads that are known
                    answer = await client.get("/", *fields)
                    assert answer.content.decode() == f"{address}|{scheme}|{value}"

    run(main)


# Tunnels over TLS.


@pytest.mark.parametrize("orderly", [True, False])
def test_a_service_that_breaks_off_does_not_end_a_client_in_good_order(world: World, orderly: bool) -> None:
    async def main() -> None:
        async with gateway(tls=world.server) as through, meeting(through.port, world.client) as client:
            client.send(ASK)
            behind = await through.target.accept()
            await behind.head()
            behind.send(SWITCH + b"half of")
            said = b""
            while not said.endswith(b"\r\n\r\nhalf of"):
                said += await client.read()
            behind.half_close() if orderly else behind.reset()
            await _ends(client, orderly)
            exchange = await through.over()
            assert exchange.error.startswith("tunnel-broken") is not orderly

    run(main)


@pytest.mark.parametrize("orderly", [True, False])
@pytest.mark.parametrize("over_tls", [True, False])
def test_a_client_that_breaks_off_does_not_end_a_service_in_good_order(
    world: World, orderly: bool, over_tls: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*world.pair)

    async def main() -> None:
        async with gateway(tls=world.server if over_tls else None) as through, Peer.connected(through.port) as raw:
            tls = ClientTls(world.authority.path, None, True, ssl.TLSVersion.TLSv1_2, None)
            through.pool = Pool("127.0.0.1", through.target.port, tls, PoolOptions(30, 10, 60.0), through.server.tasks)
            client = TlsPeer(raw, world.client, "a.test") if over_tls else None
            if client is None:
                raw.send(ASK)
            else:
                raw.send(await client.handshake() + client.record(ASK))
            behind = TlsPeer(await through.target.accept(), context)
            await behind.connect()
            asked = b""
            while not asked.endswith(b"\r\n\r\n"):
                asked += await behind.read()
            behind.send(SWITCH)
            said = b"half of"
            raw.send(said if client is None else client.record(said))
            assert await behind.exactly(7) == said
            if not orderly:
                raw.reset()
            elif client is None:
                raw.half_close()
            else:
                raw.send(client.ending())
            await _ends(behind, orderly)
            await until(lambda: through.exchanges[-1].outcome)
            assert through.exchanges[-1].error.startswith("tunnel-broken") is not orderly
            through.pool.close()

    run(main)


async def _ends(peer: TlsPeer, orderly: bool) -> None:
    """Wait for the other side's end, which is a close_notify only if it is `orderly`."""
    if orderly:
        assert await peer.read() == b""
    else:
        with pytest.raises((EOFError, ConnectionResetError)):
            await peer.read()


@pytest.mark.parametrize(
    "request_",
    [
        ASKED,
        b"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na",
    ],
    ids=["no upgrade", "HTTP/1.0", "with content"],
)
def test_a_switch_that_nobody_asked_for_is_a_bug_of_the_handler(
    request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        side = Side()

        async def handle(_: Request) -> Response:
            response = Response(101)
            response.duplex = side
            return response

        async with serving(handle) as served, served.client() as client:
            client.send(request_)
            said = await client.rest()
            assert said == b"" or said.startswith(b"HTTP/1.1 500 ")
            await until(lambda: not served.server._connections)
            assert side.closed
            assert (side.taken, served.exchanges[0].outcome) == ([], Outcome.FAILED)

    run(main)
    assert len(errors(caplog)) == 1


# Names and refusals.


@pytest.mark.parametrize("name", ["a\nERROR portico.server forged", "a\r\nx", "a\x1b[2Jb"])
def test_a_server_name_that_cannot_be_shown_is_not(world: World, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "portico")
    context = world.authority.client()
    context.check_hostname = False
    names: list[str] = []

    async def handle(request: Request) -> Response:
        assert request.client is not None
        assert request.client.encryption is not None
        names.append(request.client.encryption.server_name)
        return Response(204)

    async def main() -> None:
        async with serving(handle, world.server) as served, meeting(served.port, context, name) as peer:
            peer.send(ASKED)
            await peer.read()
            broken = bytearray(peer.record(b"x" * 20))
            broken[-1] ^= 1
            peer.raw.send(bytes(broken))
            await until(lambda: not served.server._connections)

    run(main)
    assert names == [""]
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("portico")]
    assert any("has failed" in message for message in messages)
    assert all(message.isprintable() for message in messages)


def test_a_refused_head_has_no_content() -> None:
    async def main() -> None:
        async with serving(echo) as served:
            async with served.client() as client:
                answer = await client.get("/", "Host: b", method="HEAD")
                assert answer.status == 400
                assert int(answer.headers["content-length"]) > 0
                assert await client.rest() == b""
            async with served.client() as client:
                assert (await client.get(method="HEAD")).status == 200
                client.send(MALFORMED)  # which is not the request before it
                answer = await client.answer()
                assert (answer.status, b"malformed-request" in answer.content) == (400, True)

    run(main)


# What is left of them.


@pytest.mark.parametrize("end", ["served", "left", "reset", "broken", "garbage", "eof within", "late"])
def test_a_connection_that_is_over_is_not_left_to_the_collector(world: World, end: str) -> None:
    def alive() -> int:
        return sum(isinstance(each, TlsStream | H1ServerConnection) for each in gc.get_objects())

    async def visit(raw: Peer) -> None:
        peer = TlsPeer(raw, world.client, "a.test")
        if end == "garbage":
            raw.send(b"GET / HTTP/1.1\r\n\r\n")
        elif end == "eof within":
            raw.send(peer.step()[:50])
            raw.half_close()
        elif end == "late":
            await asyncio.sleep(1.5)  # of a clock that jumps
        else:
            await peer.connect()
            peer.send(LAST if end == "served" else ASKED)
            assert (await peer.read()).startswith(b"HTTP/1.1 200 ")
            match end:
                case "left":
                    raw.send(peer.ending())
                case "reset":
                    raw.reset()
                case "broken":
                    raw.send(b"\x17\x03\x03\x00\x20" + bytes(32))

    async def main() -> None:
        async with serving(echo, world.server, ServerLimits(handshake_timeout=1.0)) as served:
            gc.collect()
            before = alive()
            gc.disable()
            try:
                for _ in range(5):
                    async with Peer.connected(served.port) as raw:
                        await until(lambda: served.server._connections)
                        await visit(raw)
                        await until(lambda: not served.server._connections)
                served.exchanges.clear()
                await turns(20)
                assert alive() == before
            finally:
                gc.enable()

    run_jumping(main) if end == "late" else run(main)
