from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from portico.net.stream import NEVER, DeadlineExceeded
from portico.net.tls import ServerTls, client_context
from portico.net.tls_stream import SPEAKS_HTTPS, TlsStream
from tests.harness.certificates import Authority
from tests.harness.loop import run, run_jumping, turns, until
from tests.harness.peer import Peer, service
from tests.harness.tls_peer import TlsPeer, accepting, meeting
from tests.harness.tls_world import V12, V13, World

pytestmark = pytest.mark.usefixtures("no_noise")
Main = Callable[[], Coroutine[Any, Any, None]]


# The handshake.


@pytest.mark.parametrize("version", [V12, V13])
def test_bytes_go_both_ways(world: World, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.at(version)) as peer:
            stream = await listener.accepted()
            peer.send(b"question")
            assert await stream.receive() == b"question"
            stream.write(b"an")
            stream.write(b"swer")
            assert await peer.read() == b"answer"  # what is written in one turn is one record
            assert (stream.scheme, stream.half_closes) == ("https", False)
            assert stream.version == peer.tls.version()
            assert stream.cipher == peer.tls.cipher()[0]  # type: ignore[index]
            assert stream.alpn is None
            assert stream.server_name == "a.test"
            assert stream.peer_certificate() is None
            assert not stream.resumed

    run(main)


@pytest.mark.parametrize("version", [V12, V13])
def test_both_sides_may_be_ours(world: World, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = client_context(world.authority.path, None, verify=True)
        context.maximum_version = version
        async with accepting(world.context) as listener:
            _, client = await loop.create_connection(
                lambda: TlsStream(loop, None, context, NEVER, "a.test"), "127.0.0.1", listener.port
            )
            await client.handshake()
            await client.handshake()  # there is nothing to wait for any more
            server = await listener.accepted()
            for one, other in ((client, server), (server, client)):
                one.write(b"x" * 100_000)
                got = b""
                while len(got) < 100_000:
                    got += await other.receive()
                assert one.alpn == "http/1.1"
                assert one.version == version.name.replace("_", ".")
                assert one.server_name == "a.test"
            shown = client.peer_certificate()
            assert shown is not None
            assert shown.der == ssl.PEM_cert_to_DER_cert(Path(world.server.expires[0].certificate).read_text())
            assert ("DNS", "a.test") in shown.fields["subjectAltName"]
            client.close()
            assert await server.receive() == b""
            assert not server.broken
            server.close()
            await until(lambda: client.closed and server.closed)

    run(main)


@pytest.mark.parametrize("version", [V12, V13])
def test_nobody_is_met_before_the_handshake_is_complete(world: World, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, Peer.connected(listener.port) as raw:
            peer = TlsPeer(raw, world.at(version), "a.test")
            if version is V12:
                raw.send(peer.step())
                await peer.more()
                last = peer.step()
            else:
                last = await peer.handshake()
            for at in range(len(last)):
                await until(lambda: listener.made)
                await turns(2)
                assert listener.streams == []
                raw.send(last[at : at + 1])
            stream = await listener.accepted()
            assert stream.version is not None

    run(main)


def test_bytes_may_come_one_by_one_and_many_at_a_time(world: World) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, Peer.connected(listener.port) as raw:
            peer = TlsPeer(raw, world.client, "a.test")
            for byte in peer.step():
                raw.send(bytes([byte]))
                await turns(2)
            await peer.more()
            # The end of the handshake, and the first records, in one segment; and a half of the last.
            later = peer.step() + peer.record(b"one") + peer.record(b"two")
            last = peer.record(b"three")
            raw.send(later + last[:10])
            stream = await listener.accepted()
            assert await stream.receive() == b"onetwo"
            raw.send(last[10:-1])
            await turns(20)
            assert not stream.unread
            raw.send(last[-1:] + peer.ending())
            assert await stream.receive() == b"three"
            assert await stream.receive() == b""
            assert not stream.broken

    run(main)


def test_something_may_come_before_tls_in_the_same_segment(world: World) -> None:
    made: list[TlsStream] = []

    class Header(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            header, _, rest = data.partition(b"\r\n")
            assert header == b"PROXY"
            stream = TlsStream(asyncio.get_running_loop(), None, world.context(), NEVER)
            stream.on_connected = lambda _: stream.write(b"welcome")
            made.append(stream)
            self.transport.set_protocol(stream)
            stream.connection_made(self.transport)
            stream.data_received(rest)

    async def main() -> None:
        listener = await asyncio.get_running_loop().create_server(Header, "127.0.0.1", 0)
        async with Peer.connected(listener.sockets[0].getsockname()[1]) as raw:
            peer = TlsPeer(raw, world.client, "a.test")
            raw.send(b"PROXY\r\n" + peer.step())
            await peer.connect()
            assert await peer.read() == b"welcome"
            made[0].abort()
        listener.close()

    run(main)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\xff\xff" + b"x" * 65535,
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x80\x2e\x01\x03\x01" + b"x" * 43,
        b"\x00" * 100_000,
        b"\x17\x03\x03\x00\x10" + b"x" * 16,
    ],
)
def test_garbage_ends_the_handshake(world: World, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, Peer.connected(listener.port) as raw:
            raw.send(garbage)
            try:
                answer = await raw.rest()
            except ConnectionResetError:  # it left with some of it unread
                answer = b""
            if garbage.startswith(b"GET "):
                assert answer == SPEAKS_HTTPS
            else:
                assert answer[:1] in (b"", b"\x15")  # an alert, if anything
            assert listener.streams == []
            (stream,) = listener.made
            await until(lambda: stream.closed)

    run(main)
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert message.startswith("127.0.0.1:")
    assert "the TLS handshake failed: " in message


@pytest.mark.parametrize("sent", ["nothing", "half", "hello"])
@pytest.mark.parametrize("end", ["eof", "reset"])
def test_who_leaves_within_the_handshake_is_forgotten(
    world: World, sent: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, Peer.connected(listener.port) as raw:
            hello = TlsPeer(raw, world.client, "a.test").step()
            raw.send({"nothing": b"", "half": hello[:100], "hello": hello}[sent])
            await until(lambda: listener.made)
            await turns()
            if end == "eof":
                raw.half_close()
            else:
                raw.reset()
            (stream,) = listener.made
            await until(lambda: stream.closed)
            assert listener.streams == []

    run(main)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("sent", ["nothing", "half", "hello"])
def test_a_handshake_has_its_time(world: World, sent: str) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with accepting(world.context, handshake=10.0) as listener, Peer.connected(listener.port) as raw:
            begin = clock()
            hello = TlsPeer(raw, world.client, "a.test").step()
            raw.send({"nothing": b"", "half": hello[:100], "hello": hello}[sent])
            await asyncio.sleep(9)
            (stream,) = listener.made
            assert not stream.closed
            with contextlib.suppress(ConnectionResetError):
                await raw.rest()
            assert 9.5 <= clock() - begin <= 11
            assert listener.streams == []
            assert stream.closed

    run_jumping(main)


def test_the_deadline_of_the_handshake_ends_with_it(world: World) -> None:
    async def main() -> None:
        async with accepting(world.context, handshake=10.0) as listener, meeting(listener.port, world.client) as peer:
            stream = await listener.accepted()
            await asyncio.sleep(100)
            peer.send(b"late")
            assert await stream.receive() == b"late"
            clock = asyncio.get_running_loop().time
            stream.set_deadline(clock() + 5)
            await asyncio.sleep(10)
            assert not stream.closed  # what becomes of a deadline that nobody waits for is the owner's
            stream.set_deadline(clock() + 5)
            with pytest.raises(DeadlineExceeded):
                await stream.receive()

    run_jumping(main)


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("who", ["nobody", "stranger", "known"])
def test_a_client_without_the_certificate_it_needs_is_never_met(
    tmp_path: Path, version: ssl.TLSVersion, who: str
) -> None:
    authority, others = Authority(tmp_path), Authority(tmp_path, "others")
    server = ServerTls([authority.issue("a", "a.test")], V12, authority.path, ssl.CERT_REQUIRED)
    cards = {"nobody": None, "stranger": others.issue("x", "x.test"), "known": authority.issue("y", "y.test")}

    async def ask(peer: TlsPeer) -> None:
        peer.raw.send(await peer.handshake() + peer.record(b"GET / HTTP/1.1\r\n\r\n"))
        await peer.read()

    async def main() -> None:
        async with accepting(lambda: server.context) as listener, Peer.connected(listener.port) as raw:
            peer = TlsPeer(raw, authority.client(cards[who], version), "a.test")
            if who != "known":
                refused = r"(?i)alert (certificate required|unknown ca|handshake failure)"
                with pytest.raises(ssl.SSLError, match=refused):
                    await ask(peer)
                assert listener.streams == []
                return
            await peer.connect()
            stream = await listener.accepted()
            card = stream.peer_certificate()
            assert card is not None
            assert card.fields["subjectAltName"] == (("DNS", "y.test"),)

    run(main)


# The client's side of it.


async def connected(port: int, context: ssl.SSLContext, name: str = "a.test", by: float = NEVER) -> TlsStream:
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(lambda: TlsStream(loop, None, context, by, name), "127.0.0.1", port)
    return stream


@pytest.mark.parametrize(("name", "problem"), [("b.test", "Hostname mismatch"), ("a.test", "unable to get local")])
def test_a_server_that_is_not_who_it_should_be_is_left(world: World, name: str, problem: str, tmp_path: Path) -> None:
    authority = world.authority if name == "b.test" else Authority(tmp_path)

    async def main() -> None:
        async with accepting(world.context) as listener:
            stream = await connected(listener.port, client_context(authority.path, None, verify=True), name)
            for _ in range(2):
                with pytest.raises(ssl.SSLCertVerificationError, match=problem):
                    await stream.handshake()
            await until(lambda: stream.closed and listener.made[0].closed)
            assert listener.streams == []

    run(main)


def test_a_server_that_leaves_or_says_nothing_is_an_os_error(world: World) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with service() as silent:
            for leave in (Peer.leave, Peer.reset):
                stream = await connected(silent.port, world.client)
                leave(await silent.accept())
                with pytest.raises(ConnectionError):
                    await stream.handshake()
            stream = await connected(silent.port, world.client, by=loop.time() + 5)
            with pytest.raises(TimeoutError):
                await stream.handshake()
            stream = await connected(silent.port, world.client)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await stream.handshake()
            await until(lambda: stream.closed)  # who gave up waiting leaves nothing behind
            (await silent.accept()).send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            stream = await connected(silent.port, world.client)
            (await silent.accept()).send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    run_jumping(main)


def test_what_is_no_name_is_found_before_there_is_a_connection(world: World) -> None:
    async def main() -> None:
        for name in ("", ".a.test", "a" * 64 + ".test"):
            with pytest.raises(ValueError):
                TlsStream(asyncio.get_running_loop(), None, world.client, NEVER, name)

    run(main)
