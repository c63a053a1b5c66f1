from __future__ import annotations

import array
import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.net import channel as module
from portico.net.channel import DESCRIPTORS, MESSAGE_LIMIT, BadMessage, Channel, Codec, Reader, close_all, send_now
from tests.harness.loop import run, turns, until


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Numbers:
    numbers: list[int]
    more: str = ""


@dataclass(frozen=True)
class Unknown:
    text: str = ""


CODEC = Codec([Text, Numbers])
MORE = Codec([Text, Numbers, Unknown])


def open_descriptors() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    run(turns)  # the first loop of a process opens what it never closes
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def files(*contents: str) -> list[int]:
    """Return descriptors of files that are known by what they hold."""
    descriptors = []
    for content in contents:
        descriptor = os.memfd_create("test")
        os.write(descriptor, content.encode())
        descriptors.append(descriptor)
    return descriptors


def held(descriptors: Sequence[int]) -> list[str]:
    """Return what files hold, and close them."""
    contents = [os.pread(each, 100, 0).decode() for each in descriptors]
    assert not any(os.get_inheritable(each) for each in descriptors)
    close_all(descriptors)
    return contents


def sent(message: object, *contents: str) -> tuple[bytes, list[int]]:
    return CODEC.encode(message, len(contents)), files(*contents)


class End:
    """A channel's end that records what it hears."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[Any] = []
        self.contents: list[list[str]] = []
        self.lost = 0
        self.channel = Channel(sock, CODEC, self._heard, self._closed)

    def _heard(self, message: Any, descriptors: tuple[int, ...]) -> None:
        self.messages.append(message)
        self.contents.append(held(descriptors))

    def _closed(self) -> None:
        self.lost += 1


@asynccontextmanager
async def end_and_peer() -> AsyncIterator[tuple[End, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    end = End(ours)
    with theirs:
        yield end, theirs
        end.channel.close()


@asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[End, End]]:
    ours, theirs = socket.socketpair()
    ends = End(ours), End(theirs)
    yield ends
    for end in ends:
        end.channel.close()


# Messages


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.one_of(st.builds(Text, st.text()), st.builds(Numbers, st.lists(st.integers()), st.text())), max_size=6),
    st.data(),
)
def test_messages_come_whole_wherever_they_are_split_or_glued(messages: list[Any], data: st.DataObject) -> None:
    stream = b"".join(CODEC.encode(message) for message in messages)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    ours, theirs = socket.socketpair()
    reader, found = Reader(CODEC), []
    with ours, theirs:
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            if start < end:
                theirs.sendall(stream[start:end])
                received = reader.read(ours)
                assert received is not None
                found += received
    reader.close()
    assert found == [(message, ()) for message in messages]


def test_a_message_of_one_byte_at_a_time_comes_once() -> None:
    async def main() -> None:
        async with end_and_peer() as (end, peer):
            for byte in CODEC.encode(Text("größe")):
                assert end.messages == []
                peer.send(bytes([byte]))
                await turns()
            await until(lambda: end.messages)
            assert end.messages == [Text("größe")]

    run(main)


def test_large_messages_come_whole_and_in_order() -> None:
    messages = [Text("a" * 5_000_000), Text("b"), Numbers(list(range(200_000))), Text("c" * 300_000)]

    async def main() -> None:
        async with two_ends() as (one, other):
            for message in messages:
                one.channel.send(message)
            await until(lambda: len(other.messages) == len(messages))
            assert other.messages == messages
            one.channel.send(Text("afterwards"))
            other.channel.send(Text("and back"))
            await until(lambda: one.messages and len(other.messages) > len(messages))
            assert one.messages == [Text("and back")]

    run(main)


# Descriptors


def test_descriptors_come_with_their_message() -> None:
    async def main() -> None:
        async with two_ends() as (one, other):
            given = files("1", "2", "3")
            one.channel.send(Text("two"), given[:2])
            one.channel.send(Text("none"))
            one.channel.send(Text("one"), given[2:])
            await until(lambda: len(other.messages) == 3)
            assert other.messages == [Text("two"), Text("none"), Text("one")]
            assert other.contents == [["1", "2"], [], ["3"]]
            assert held(given) == ["1", "2", "3"]  # they are still the sender's

    run(main)


def test_descriptors_come_with_their_message_however_many_are_glued() -> None:
    async def main() -> None:
        async with end_and_peer() as (end, peer):
            expected = []
            for number in range(20):
                contents = [f"{number}-{each}" for each in range(number % 4)]
                data, given = sent(Text(str(number)), *contents)
                assert send_now(peer, data, given) == len(data)
                close_all(given)
                expected.append(contents)
            await until(lambda: len(end.messages) == 20)  # they were all there before the first was read
            assert end.contents == expected

    run(main)


def test_descriptors_of_messages_that_were_sent_as_one_come_with_their_own() -> None:
    async def main() -> None:
        async with end_and_peer() as (end, peer):
            given = files("1", "2", "3")
            glued = CODEC.encode(Text("a"), 1) + CODEC.encode(Text("b")) + CODEC.encode(Text("c"), 2)
            assert send_now(peer, glued, given) == len(glued)
            close_all(given)
            await until(lambda: len(end.messages) == 3)
            assert end.contents == [["1"], [], ["2", "3"]]

    run(main)


def test_descriptors_come_ahead_of_the_rest_of_their_message() -> None:
    async def main() -> None:
        async with end_and_peer() as (end, peer):
            before = CODEC.encode(Text("before"))
            data, given = sent(Text("with"), "1")
            peer.send(before[:5])
            await turns()
            peer.send(before[5:])
            send_now(peer, data[:1], given)
            close_all(given)
            await until(lambda: end.messages)
            assert end.messages == [Text("before")]
            peer.send(data[1:] + before)
            await until(lambda: len(end.messages) == 3)
            assert end.contents == [[], ["1"], []]

    run(main)


def test_as_many_descriptors_as_a_message_may_have_come_with_it() -> None:
    async def main() -> None:
        async with two_ends() as (one, other):
            (given,) = files("x")
            one.channel.send(Text("many"), [given] * DESCRIPTORS)
            one.channel.send(Text("next"), [given])
            await until(lambda: len(other.messages) == 2)
            assert other.contents == [["x"] * DESCRIPTORS, ["x"]]
            os.close(given)

    run(main)


def test_descriptors_wait_with_a_message_that_waits() -> None:
    async def main() -> None:
        async with two_ends() as (one, other):
            one.channel.send(Text("a" * 1_000_000))  # more than the kernel takes at once
            for name in ("1", "2"):
                given = files(name)
                one.channel.send(Text(name * 1_000_000), given)
                close_all(given)  # copies wait
            await until(lambda: len(other.messages) == 3)
            assert other.contents == [[], ["1"], ["2"]]

    run(main)


# What makes no sense


@pytest.mark.parametrize(
    "body",
    [
        MORE.encode(Unknown())[8:],
        b'["Text",{"text":"a","more":1}]',
        b'["Text",{}]',
        b'["Text","text"]',
        b'["Text",5]',
        b'["Text"]',
        b'[["Text"],{}]',
        b'{"Text":{}}',
        b"null",
        b"[",
        b"",
        b"\xff\xfe",
        b"[" * 20_000,
    ],
)
def test_what_is_no_message_cuts_the_channel(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with end_and_peer() as (end, peer):
            (given,) = files("never read")
            good = CODEC.encode(Text("before"), 1)
            head = len(body).to_bytes(4, "big") + (1).to_bytes(4, "big")
            send_now(peer, good + head + body, [given, given])
            os.close(given)
            await until(lambda: end.lost)
            assert end.channel.closed
            assert end.messages == []
            assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""

    run(main)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "a channel is cut: not a message of this version" in caplog.text


@pytest.mark.parametrize(
    "head",
    [
        (MESSAGE_LIMIT + 1).to_bytes(4, "big") + bytes(4),
        bytes(4) + (DESCRIPTORS + 1).to_bytes(4, "big"),
        b"GET / HT",
        CODEC.encode(Text("without its descriptor"), 1),
    ],
)
def test_a_head_that_makes_no_sense_cuts_the_channel(head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with end_and_peer() as (end, peer):
            peer.send(head)
            await until(lambda: end.lost)
            assert end.messages == []

    run(main)
    assert "a channel is cut" in caplog.text


def test_messages_that_are_too_large_are_not_sent() -> None:
    async def main() -> None:
        async with two_ends() as (one, other):
            with pytest.raises(ValueError, match="Text is too large for a channel"):
                one.channel.send(Text("a" * MESSAGE_LIMIT))
            with pytest.raises(ValueError, match=f"{DESCRIPTORS + 1} descriptors"):
                one.channel.send(Text("a"), [0] * (DESCRIPTORS + 1))
            one.channel.send(Text("a"))
            await until(lambda: other.messages)
            assert other.messages == [Text("a")]

    run(main)


def test_a_reader_closes_what_came_with_half_a_message() -> None:
    ours, theirs = socket.socketpair()
    reader = Reader(CODEC)
    with ours, theirs:
        data, given = sent(Text("a"), "1", "2")
        send_now(theirs, data[:-1], given)
        close_all(given)
        assert reader.read(ours) == []
    reader.close()
    reader.close()


def test_a_reader_closes_what_came_with_a_message_ahead_of_one_that_is_bad() -> None:
    ours, theirs = socket.socketpair()
    reader = Reader(CODEC)
    with ours, theirs:
        data, given = sent(Text("a"), "1")
        send_now(theirs, data + (3).to_bytes(4, "big") + bytes(4) + b"bad", given)
        close_all(given)
        with pytest.raises(BadMessage):
            reader.read(ours)
    reader.close()


def test_more_descriptors_than_are_asked_for_are_not_taken() -> None:
    async def main() -> None:
        async with end_and_peer() as (end, peer):
            (given,) = files("x")
            rights = array.array("i", [given] * 253)
            peer.sendmsg([CODEC.encode(Text("a"), 1)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            os.close(given)
            await until(lambda: end.messages)
            assert end.contents == [["x"]]

    run(main)


# The end


def test_a_peer_that_closes_ends_the_channel_once() -> None:
    async def main() -> None:
        async with two_ends() as (one, other):
            one.channel.send(Text("last"))
            one.channel.close()
            await until(lambda: other.lost)
            assert other.messages == [Text("last")]
            assert other.channel.closed
            other.channel.send(Text("to nobody"))
            other.channel.close()
            await turns()
            assert (one.lost, other.lost) == (0, 1)

    run(main)


def test_a_peer_that_closes_in_the_middle_of_a_message_ends_the_channel() -> None:
    async def main() -> None:
        async with end_and_peer() as (end, peer):
            data, given = sent(Text("a"), "1")
            send_now(peer, data[:-1], given)
            close_all(given)
            await turns()
            peer.close()
            await until(lambda: end.lost)
            assert end.messages == []

    run(main)


def test_a_send_that_fails_ends_the_channel() -> None:
    async def main() -> None:
        async with end_and_peer() as (end, peer):
            peer.close()
            given = files("1")
            end.channel.send(Text("a"), given)
            assert end.channel.closed
            assert end.lost == 1
            close_all(given)

    run(main)


def test_a_channel_that_is_closed_by_what_it_hears_hears_no_more() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        heard = []

        def on_message(message: Any, descriptors: tuple[int, ...]) -> None:
            heard.append(message)
            close_all(descriptors)
            channel.close()

        channel = Channel(ours, CODEC, on_message, lambda: heard.append("closed"))
        with theirs:
            given = files("1", "2", "3")
            glued = CODEC.encode(Text("a"), 1) + CODEC.encode(Text("b"), 2) + CODEC.encode(Text("c"))
            send_now(theirs, glued, given)
            close_all(given)
            await until(lambda: heard)
            await turns()
        assert heard == [Text("a")]

    run(main)


def test_messages_wait_for_a_peer_that_reads_later() -> None:
    async def main() -> None:
        async with end_and_peer() as (end, peer):
            messages = [Text(str(number) * 100_000) for number in range(10)]
            for message in messages:
                end.channel.send(message)
            await turns()
            assert not end.channel.closed
            reader, found = Reader(CODEC), []

            def received() -> bool:
                with suppress(BlockingIOError):
                    found.extend(reader.read(peer) or [])
                return len(found) == len(messages)

            await until(received)
            assert [each.message for each in found] == messages

    run(main)


def test_a_peer_that_reads_nothing_is_cut_in_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "BACKLOG_LIMIT", 4_000_000)

    async def main() -> None:
        async with end_and_peer() as (end, _):
            given = files("1")
            for _ in range(4):
                end.channel.send(Text("a" * 1_000_000), given)
                await turns()
            assert not end.channel.closed
            end.channel.send(Text("a" * 1_000_000), given)
            assert end.channel.closed
            assert end.lost == 1
            end.channel.send(Text("a"), given)
            close_all(given)

    run(main)
    assert [record.getMessage() for record in caplog.records] == [
        "a process of the gateway takes no messages; its channel is cut"
    ]


def test_what_waits_is_dropped_when_the_peer_goes() -> None:
    async def main() -> None:
        async with end_and_peer() as (end, peer):
            given = files("1")
            for _ in range(3):
                end.channel.send(Text("a" * 1_000_000), given)
            close_all(given)
            await turns()
            peer.close()
            await until(lambda: end.lost)
            assert end.channel.closed

    run(main)


def test_whoever_has_much_to_say_waits_for_room() -> None:
    async def main() -> None:
        async with two_ends() as (ours, theirs):
            theirs.channel.pause()
            for _ in range(20):
                ours.channel.send(Text("a" * 100_000))
            waiting = asyncio.get_running_loop().create_task(ours.channel.room())
            await turns(50)
            assert not waiting.done()
            theirs.channel.resume()
            assert await waiting
            await until(lambda: len(theirs.messages) == 20)
            theirs.channel.pause()
            for _ in range(20):
                ours.channel.send(Text("a" * 100_000))
            waiting = asyncio.get_running_loop().create_task(ours.channel.room())
            await turns()
            ours.channel.close()
            assert not await waiting

    run(main)
