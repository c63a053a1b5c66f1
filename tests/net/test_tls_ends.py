"""How connections over TLS end, and what is kept of them meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import random
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from portico.net.stream import HIGH_WATER, NEVER, DeadlineExceeded
from portico.net.tls import ServerTls
from portico.net.tls_stream import TlsStream
from tests.harness.certificates import Authority
from tests.harness.loop import run, run_jumping, turns, until
from tests.harness.peer import Peer
from tests.harness.tls_peer import Accepting, TlsPeer, accepting, meeting
from tests.harness.tls_world import V12, V13, World

pytestmark = pytest.mark.usefixtures("no_noise")
Main = Callable[[], Coroutine[Any, Any, None]]


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
            kept = stream._incoming.pending
            stream.data_received(b"and nobody keeps it")
            assert stream._incoming.pending == kept
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


def test_what_had_come_before_a_write_failed_is_read(world: World) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.client) as peer:
            stream = await listener.accepted()
            peer.send(b"early")
            await until(lambda: stream.unread)
            stream.transport.pause_reading()
            peer.raw.send(peer.record(b", and final") + peer.ending())
            peer.raw.reset()
            stream.write(b"x")
            await until(lambda: stream.closed)
            assert await stream.receive() == b"early, and final"
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
            with pytest.raises((ssl.SSLError, EOFError, ConnectionResetError)):
                await peer.read()
            await until(lambda: stream.closed)
            assert stream.broken

    run(main)
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert "has failed" in message


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
                assert await stream.receive() == b"%d" % number * 1000
            assert await peer.read() == b"no"

    run(main)


def test_aborting_is_at_once_and_says_nothing(world: World) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, meeting(listener.port, world.client) as peer:
            stream = await listener.accepted()
            stream.write(b"x")
            stream.abort()
            for _ in range(10):
                stream.write(b"y" * HIGH_WATER)
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


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_connection_may_be_refused_once_its_handshake_is_complete(world: World, how: str) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, Peer.connected(listener.port) as raw:
            listener.serve = lambda stream: getattr(stream, how)()
            peer = TlsPeer(raw, world.client, "a.test")
            last = await peer.handshake()
            raw.send(last + b"".join(peer.record(bytes(16_000)) for _ in range(8)))
            with contextlib.suppress(EOFError, ConnectionResetError):
                assert await peer.read() == b""
            (stream,) = listener.made
            await until(lambda: stream.closed)
            assert not stream.unread

    run(main)


def test_nothing_is_written_before_the_handshake(world: World) -> None:
    async def main() -> None:
        async with accepting(world.context) as listener, Peer.connected(listener.port):
            await until(lambda: listener.made)
            with pytest.raises(RuntimeError, match="before the handshake"):
                listener.made[0].write(b"x" * HIGH_WATER)

    run(main)


# Back-pressure.


def test_what_openssl_takes_a_little_of_is_sent_whole(tmp_path: Path) -> None:
    class Sparing(ssl.SSLObject):
        def write(self, data: Any) -> int:
            return super().write(memoryview(data)[:1000])

    authority = Authority(tmp_path)
    context = ServerTls([authority.issue("a", "a.test")], V12, None, ssl.CERT_NONE).context
    context.sslobject_class = Sparing

    async def main() -> None:
        async with accepting(lambda: context) as listener, meeting(listener.port, authority.client()) as peer:
            stream = await listener.accepted()
            for size in (999, 1000, 1001, 200_000):
                data = bytes(range(250)) * (size // 250) + b"x" * (size % 250)
                stream.write(data)
                assert await peer.exactly(size) == data

    run(main)


def test_reading_stops_where_nobody_takes(world: World) -> None:
    async def main() -> None:
        sent = hashlib.sha256()
        size = 8 * 1024 * 1024
        async with accepting(world.context) as listener:
            _, writer = await asyncio.open_connection(
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
            assert await stream.receive() == b""
            stream.close()
            await writer.wait_closed()

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
        async with accepting(world.context) as listener, meeting(listener.port, world.client):
            stream = await listener.accepted()

            def answer_much() -> None:  # as if it had been asked for something forty times
                for _ in range(40):
                    stream._outgoing.write(bytes(1000))
                    stream.data_received(b"")

            for _ in range(2):
                answer_much()
            assert not stream.broken  # the peer reads
            for _ in range(2):
                stream.pause_writing()
                answer_much()
                assert not stream.broken
                stream.resume_writing()
            stream.pause_writing()
            for _ in range(2):
                answer_much()
            assert stream.broken
            assert stream.eof
            stream.resume_writing()
            await until(lambda: stream.closed)  # by itself

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


@pytest.mark.parametrize("end", ["good", "eof", "reset", "garbage", "late", "late garbage", "abort"])
def test_a_connection_that_is_over_does_not_wait_for_the_collector(world: World, end: str) -> None:
    def streams() -> int:
        return sum(isinstance(each, TlsStream) for each in gc.get_objects())

    async def main() -> None:
        async with accepting(world.context, handshake=1.0) as listener:
            gc.collect()
            before = streams()
            gc.disable()
            try:
                for _ in range(5):
                    async with Peer.connected(listener.port) as raw:
                        if end == "garbage":
                            raw.send(b"GET / HTTP/1.1\r\n\r\n")
                        elif end != "late":
                            peer = TlsPeer(raw, world.client, "a.test")
                            await peer.connect()
                            stream = await listener.accepted()
                            match end:
                                case "good":
                                    raw.send(peer.ending())
                                    await stream.receive()
                                    stream.close()
                                case "eof":
                                    raw.half_close()
                                    await stream.receive()
                                    stream.close()
                                case "reset":
                                    raw.reset()
                                case "late garbage":
                                    raw.send(b"GET / HTTP/1.1\r\n\r\n")
                                case "abort":
                                    stream.abort()
                            del stream
                        await until(lambda: listener.made and listener.made[0].closed)
                    listener.made.clear()
                    listener.streams.clear()
                    await turns()
                assert streams() == before
            finally:
                gc.enable()

    run_jumping(main) if end == "late" else run(main)
