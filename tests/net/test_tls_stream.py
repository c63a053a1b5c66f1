from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from portico.net.stream import HIGH_WATER, NEVER, DeadlineExceeded
from portico.net.tls import ServerTls, client_context
from portico.net.tls_stream import TlsStream
from tests.harness.certificates import Authority
from tests.harness.loop import run, run_jumping, turns, until
from tests.harness.peer import Peer, service
from tests.harness.tls_peer import Accepting, TlsPeer, accepting, meeting

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
Main = Callable[[], Coroutine[Any, Any, None]]


class World(NamedTuple):
    """A server's TLS, what clients speak, and who signs for both."""

    server: ServerTls
    client: ssl.SSLContext
    authority: Authority

    def context(self) -> ssl.SSLContext:
        return self.server.context

    def at(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        return self.authority.client(only=version)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    pair = authority.issue("a", "a.test", "127.0.0.1")
    return World(ServerTls([pair], V12, None, ssl.CERT_NONE), authority.client(), authority)


@pytest.fixture(autouse=True)
def no_noise(caplog: pytest.LogCaptureFixture) -> Any:
    """Whatever a peer does, nobody is to be woken for it."""
    caplog.set_level(logging.DEBUG, "portico")
    yield
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


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
    class Header(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            header, _, rest = data.partition(b"\r\n")
            assert header == b"PROXY"
            stream = TlsStream(asyncio.get_running_loop(), None, world.context(), NEVER)
            stream.on_connected = lambda made: made.write(b"welcome")
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
        listener.close()

    run(main)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\xff\xff" + b"x" * 65535,
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x80\x2e\x01\x03\x01",
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
            with pytest.raises(ConnectionResetError):  # one that is late is owed no goodbye
                while not raw.left_behind:
                    await raw.exactly(1)
                raise ConnectionResetError
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
            stream.set_deadline(asyncio.get_running_loop().time() + 5)
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

    async def main() -> None:
        async with accepting(lambda: server.context) as listener, Peer.connected(listener.port) as raw:
            peer = TlsPeer(raw, authority.client(cards[who], version), "a.test")
            if who != "known":
                with pytest.raises(
                    ssl.SSLError, match=r"(?i)alert (certificate required|unknown ca|handshake failure)"
                ):
                    raw.send(await peer.handshake() + peer.record(b"GET / HTTP/1.1\r\n\r\n"))
                    await peer.read()
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


# The end.


@pytest.mark.parametrize("version", [V12, V13])
def test_a_close_notify_is_an_end_in_good_order(world: World, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.at(version)) as peer:
            stream = await listener.accepted()
            told: list[str] = []
            stream.on_lost = lambda: told.append("lost")
            peer.raw.send(peer.record(b"last") + peer.ending() + b"whatever comes after it")
            assert await stream.receive() == b"last"
            assert await stream.receive() == b""
            assert (stream.eof, stream.broken, stream.closed, told) == (True, False, False, ["lost"])
            stream.write(b"answer")  # what is owed is still sent
            stream.close()
            assert await peer.read() == b"answer"
            assert await peer.read() == b""
            await until(lambda: stream.closed)
            assert (stream.broken, told) == (False, ["lost"])

    run(main)


@pytest.mark.parametrize("end", ["eof", "reset"])
@pytest.mark.parametrize("waiting", [True, False])
def test_an_end_without_a_close_notify_is_a_broken_one(world: World, end: str, waiting: bool) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.client) as peer:
            stream = await listener.accepted()
            told: list[str] = []
            stream.on_lost = lambda: told.append("lost")
            if not waiting:
                peer.send(b"some")
                await until(lambda: stream.unread)
            reading = asyncio.get_running_loop().create_task(stream.receive())
            await turns()
            peer.raw.half_close() if end == "eof" else peer.raw.reset()
            assert await reading == (b"" if waiting else b"some")
            assert await stream.receive() == b""
            assert stream.broken
            assert told == ["lost"]
            if end == "eof":
                assert not stream.closed
                stream.write(b"answer")
                stream.close()
                assert await peer.read() == b"answer"
                assert await peer.read() == b""
            await until(lambda: stream.closed)
            assert stream.broken

    run(main)


def test_a_reset_after_a_close_notify_does_not_make_less_of_what_was_read(world: World) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.client) as peer:
            stream = await listener.accepted()
            peer.raw.send(peer.record(b"whole") + peer.ending())
            await until(lambda: stream.eof)
            peer.raw.reset()
            stream.write(b"x" * 1_000_000)
            await until(lambda: stream.closed)
            assert await stream.receive() == b"whole"
            assert await stream.receive() == b""
            assert not stream.broken

    run(main)


@pytest.mark.parametrize("harm", ["flipped", "plain alert", "plain text", "too long", "handshake"])
def test_what_is_not_tls_breaks_the_connection(world: World, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.client) as peer:
            stream = await listener.accepted()
            told: list[str] = []
            stream.on_lost = lambda: told.append("lost")
            good, bad = peer.record(b"good"), bytearray(peer.record(b"bad"))
            bad[-1] ^= 1
            wrong = {
                "flipped": bytes(bad),
                "plain alert": b"\x15\x03\x03\x00\x02\x01\x00",
                "plain text": b"GET / HTTP/1.1\r\n\r\n",
                "too long": b"\x17\x03\x03\xff\xff" + bytes(70_000),
                "handshake": b"\x16\x03\x03\x00\x04\x00\x00\x00\x00",
            }[harm]
            peer.raw.send(good + wrong + b"never seen")
            assert await stream.receive() == b"good"
            assert await stream.receive() == b""
            assert stream.broken
            assert told == ["lost"]
            stream.write(b"of no use")
            stream.close()
            try:
                with pytest.raises((ssl.SSLError, EOFError)):
                    await peer.read()
            except ConnectionResetError:  # it left with some of it unread
                pass
            await until(lambda: stream.closed)
            assert stream.broken

    run(main)
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert "TLS has failed" in message


@pytest.mark.parametrize("version", [V12, V13])
def test_closing_sends_what_was_written_and_a_close_notify(world: World, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.at(version)) as peer:
            stream = await listener.accepted()
            stream.write(b"x" * 3_000_000)
            stream.write(b"y")
            stream.close()
            stream.close()
            stream.write(b"of no use")
            data = await peer.exactly(3_000_001)
            assert data == b"x" * 3_000_000 + b"y"
            assert await peer.read() == b""
            assert await peer.raw.rest() == b""
            await until(lambda: stream.closed)

    run(main)


@pytest.mark.parametrize("version", [V12, V13])
def test_who_has_ended_its_output_still_reads(world: World, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.at(version)) as peer:
            stream = await listener.accepted()
            half = peer.record(b"half of it had come")
            peer.raw.send(half[:10])
            stream.write(b"the end")
            await turns(20)
            stream.end_output()
            stream.end_output()
            stream.write(b"of no use")
            assert await peer.exactly(7) == b"the end"
            peer.raw.send(half[10:])
            assert await stream.receive() == b"half of it had come"
            assert await peer.read() == b""
            assert not stream.closed
            # OpenSSL does not let a peer write on after a close_notify has come; TLS 1.3 does.
            peer.raw.send(peer.ending())
            assert await stream.receive() == b""
            assert not stream.broken

    run(main)


def test_an_upload_goes_on_after_the_answer_has_ended(world: World) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.client) as peer:
            stream = await listener.accepted()
            stream.write(b"no")
            stream.end_output()
            for number in range(100):
                peer.send(b"%d" % number * 1000)
                assert (await stream.receive())[:1] == b"%d"[:0] + str(number).encode()[:1]
            assert await peer.read() == b"no"

    run(main)


def test_aborting_is_at_once_and_says_nothing(world: World) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.client) as peer:
            stream = await listener.accepted()
            stream.write(b"x")
            stream.abort()
            stream.write(b"y")
            stream.close()
            await until(lambda: stream.closed)
            with pytest.raises((EOFError, ConnectionResetError)):
                await peer.read()

    run(main)


@pytest.mark.parametrize("how", ["close", "abort", "end_output"])
def test_the_owner_may_leave_within_the_handshake(world: World, how: str) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, Peer.connected(listener.port) as raw:
            raw.send(TlsPeer(raw, world.client, "a.test").step()[:50])
            await until(lambda: listener.made)
            (stream,) = listener.made
            getattr(stream, how)()
            if how == "end_output":
                await turns()
                assert not stream.closed
                return
            await until(lambda: stream.closed)
            assert listener.streams == []

    run(main)


def test_nothing_is_written_before_the_handshake(world: World) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, Peer.connected(listener.port):
            await until(lambda: listener.made)
            with pytest.raises(RuntimeError, match="before the handshake"):
                listener.made[0].write(b"x" * HIGH_WATER)

    run(main)


# Back-pressure.


def test_reading_stops_where_nobody_takes(world: World) -> None:
    async def main() -> None:
        sent = hashlib.sha256()
        size = 8 * 1024 * 1024
        async with accepting(world.context) as listener:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", listener.port, ssl=world.client, server_hostname="a.test"
            )
            stream = await listener.accepted()

            async def upload() -> None:
                piece = bytes(range(256)) * 64
                for _ in range(size // len(piece)):
                    sent.update(piece)
                    writer.write(piece)
                    await writer.drain()

            uploading = asyncio.get_running_loop().create_task(upload())
            await until(lambda: not stream.transport.is_reading())
            await turns(50)
            assert len(stream._received) <= HIGH_WATER + 256 * 1024  # what came at once with the byte too many
            assert stream._incoming.pending < 32 * 1024
            assert not uploading.done()
            got, received = 0, hashlib.sha256()
            while got < size:
                data = await stream.receive()
                assert len(data) <= HIGH_WATER + 256 * 1024
                received.update(data)
                got += len(data)
            await uploading
            assert received.digest() == sent.digest()
            writer.close()
            await writer.wait_closed()
            assert await stream.receive() == b""

    run(main)


def test_a_writer_is_slowed_by_a_reader_that_is_slow(world: World) -> None:
    async def main() -> None:
        size, most = 8 * 1024 * 1024, 0
        async with accepting(world.context) as listener, meeting(listener.port, world.client) as peer:
            stream = await listener.accepted()
            sent, received = hashlib.sha256(), hashlib.sha256()
            clock = asyncio.get_running_loop().time

            async def answer() -> None:
                nonlocal most
                piece = bytes(range(256)) * 200
                for _ in range(size // len(piece)):
                    sent.update(piece)
                    stream.write(piece)
                    most = max(most, stream.transport.get_write_buffer_size())
                    if stream.congested:
                        await stream.drain(clock() + 20)
                stream.close()

            answering = asyncio.get_running_loop().create_task(answer())
            await until(lambda: stream.congested)
            await turns(50)
            assert not answering.done()
            while data := await peer.read():
                received.update(data)
            await answering
            assert received.digest() == sent.digest()
            assert most <= 3 * HIGH_WATER

    run(main)


def test_a_reader_that_takes_nothing_is_given_up(world: World) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with accepting(world.context) as listener, meeting(listener.port, world.client):
            stream = await listener.accepted()
            while not stream.congested:
                stream.write(b"x" * HIGH_WATER)
                await turns(2)
            begin = clock()
            with pytest.raises(DeadlineExceeded):
                await stream.drain(begin + 30)
            assert 29 <= clock() - begin <= 32

    run_jumping(main)


def test_what_tls_itself_answers_to_a_peer_that_does_not_read_has_a_limit(world: World) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.client) as peer:
            stream = await listener.accepted()
            for congested, broken in ((False, False), (True, False), (True, True)):
                stream.congested = congested
                for _ in range(40):  # as if as many updates of keys had been asked for
                    stream._outgoing.write(peer.record(b"x")[:0] + b"\x00" * 1000)
                    stream.data_received(b"")
                assert stream.broken == broken
                stream.take()

    run(main)


# Much in a row.


def test_a_certificate_changes_under_open_connections(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("a", "a.test")
    server = ServerTls([pair], V12, None, ssl.CERT_NONE)
    client = authority.client()

    async def main() -> None:
        async with accepting(lambda: server.context) as listener, meeting(listener.port, client) as old:
            first = await listener.accepted()
            async with Peer.connected(listener.port) as raw:
                within = TlsPeer(raw, client, "a.test")
                raw.send(within.step())
                await within.more()
                authority.issue("a", "a.test", "b.test", replaces=True)
                assert server.refresh()
                await within.connect()  # it began with the old one, and ends with it
                async with meeting(listener.port, client, "b.test") as new:
                    shown = [peer.tls.getpeercert(True) for peer in (old, within, new)]
                    assert shown[0] == shown[1] != shown[2]
                    old.send(b"still here")
                    assert await first.receive() == b"still here"

    run(main)


@pytest.mark.parametrize("seed", range(20))
def test_whoever_leaves_however_leaves_nothing_behind(world: World, seed: int) -> None:
    import random

    dice = random.Random(seed)

    async def echo(stream: TlsStream) -> None:
        try:
            while data := await stream.receive():
                stream.write(data)
                if stream.congested:
                    await stream.drain(NEVER)
        except ConnectionResetError:
            pass
        finally:
            stream.close()

    async def visit(listener: Accepting) -> None:
        async with Peer.connected(listener.port) as raw:
            peer = TlsPeer(raw, world.client, "a.test")
            steps = dice.randrange(5)
            try:
                if steps >= 1:
                    hello = peer.step()
                    raw.send(hello[: dice.choice((len(hello), dice.randrange(len(hello))))])
                if steps >= 2:
                    await asyncio.wait_for(peer.connect(), 0.05)
                if steps >= 3:
                    record = peer.record(dice.randbytes(dice.randrange(1, 16000)))
                    raw.send(record[: dice.choice((len(record), dice.randrange(len(record))))])
                if steps >= 4:
                    raw.send(dice.choice((peer.ending(), dice.randbytes(100), b"")))
                    await turns(dice.randrange(5))
            except (TimeoutError, EOFError, OSError):
                pass
            dice.choice((raw.leave, raw.reset, raw.half_close))()
            await turns(dice.randrange(5))

    async def main() -> None:
        tasks: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        async with accepting(world.context, handshake=5.0) as listener:
            listener.serve = lambda stream: tasks.add(loop.create_task(echo(stream)))
            await asyncio.gather(*[visit(listener) for _ in range(10)])
            await until(lambda: all(stream.closed for stream in listener.made))
            await asyncio.gather(*tasks)
            assert len(listener.made) == 10

    run(main)
