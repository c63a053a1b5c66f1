from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from portico.net.stream import HIGH_WATER, NEVER, DeadlineExceeded, Stream
from tests.harness.loop import JumpingLoop, run_jumping, turns


class Wire(asyncio.Transport):
    """A transport that writes down what it is told."""

    def __init__(self, *, tls: bool = False) -> None:
        super().__init__({"sslcontext": object() if tls else None})
        self.sent = b""
        self.reading = True
        self.resumed = 0
        self.ended = ""
        self.limit: int | None = None

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.sent += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limit = high

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True
        self.resumed += 1

    def can_write_eof(self) -> bool:
        return self.get_extra_info("sslcontext") is None

    def write_eof(self) -> None:
        self.ended = "eof"

    def close(self) -> None:
        self.ended = "close"

    def abort(self) -> None:
        self.ended = "abort"


def connected(*, tls: bool = False) -> tuple[Stream, Wire]:
    stream, wire = Stream(asyncio.get_running_loop()), Wire(tls=tls)
    stream.connection_made(wire)
    return stream, wire


def arrives(stream: Stream, data: bytes) -> None:
    """Have `data` arrive in the loop's next turn, from where a transport would call: outside of any task."""
    asyncio.get_running_loop().call_soon(stream.data_received, data)


def begun(waiting: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(waiting)


def test_what_has_come_is_taken_as_one() -> None:
    async def main() -> None:
        stream, _ = connected()
        assert stream.take() == b""
        stream.data_received(b"a")
        stream.data_received(b"b")
        assert stream.unread
        assert stream.take() == b"ab"
        assert not stream.unread
        stream.data_received(b"c")
        assert await stream.receive() == b"c"

    run_jumping(main)


def test_who_waits_is_given_what_comes() -> None:
    async def main() -> None:
        stream, _ = connected()
        for data in (b"a", b"b"):
            task = begun(stream.receive())
            await turns()
            assert not task.done()
            arrives(stream, data)
            assert await task == data
        assert not stream.unread

    run_jumping(main)


def test_bytes_that_come_for_a_reader_who_gave_up_are_the_next_ones() -> None:
    async def main() -> None:
        stream, _ = connected()
        task = begun(stream.receive())
        await turns()
        task.cancel()
        await turns()
        assert task.cancelled()
        stream.data_received(b"a")
        assert stream.unread
        assert await stream.receive() == b"a"

    run_jumping(main)


def test_reading_stops_at_the_high_water_mark_until_it_is_taken() -> None:
    async def main() -> None:
        stream, wire = connected()
        stream.data_received(b"x" * (HIGH_WATER - 1))
        assert wire.reading
        stream.data_received(b"x")
        assert not wire.reading
        stream.data_received(b"x")  # a transport may have had it in hand
        assert len(stream.take()) == HIGH_WATER + 1
        assert wire.reading
        stream.take()
        assert wire.resumed == 1

    run_jumping(main)


def test_reading_is_not_resumed_on_a_lost_connection() -> None:
    async def main() -> None:
        stream, wire = connected()
        stream.data_received(b"x" * HIGH_WATER)
        stream.connection_lost(None)
        assert len(await stream.receive()) == HIGH_WATER
        assert wire.resumed == 0
        assert await stream.receive() == b""

    run_jumping(main)


def test_the_end_comes_after_what_was_sent_before_it() -> None:
    async def main() -> None:
        stream, _ = connected()
        stream.data_received(b"a")
        assert stream.eof_received() is True
        assert stream.eof
        assert not stream.closed
        assert [await stream.receive() for _ in range(3)] == [b"a", b"", b""]

    run_jumping(main)


def test_the_end_wakes_who_waits() -> None:
    async def main() -> None:
        for end in ("eof", "lost"):
            stream, _ = connected()
            task = begun(stream.receive())
            await turns()
            if end == "eof":
                stream.eof_received()
            else:
                stream.connection_lost(ConnectionResetError())
            assert await task == b""

    run_jumping(main)


def test_tls_has_no_half_close() -> None:
    async def main() -> None:
        stream, wire = connected(tls=True)
        assert stream.eof_received() is False
        stream.end_output()
        assert wire.ended == ""
        plain, plain_wire = connected()
        plain.end_output()
        assert plain_wire.ended == "eof"

    run_jumping(main)


def test_the_loss_is_told_once() -> None:
    async def main() -> None:
        stream, _ = connected()
        told: list[str] = []
        stream.on_lost = lambda: told.append("lost")
        stream.eof_received()
        stream.connection_lost(None)
        assert told == ["lost"]
        other, _ = connected()
        other.on_lost = lambda: told.append("other")
        other.connection_lost(None)
        assert told == ["lost", "other"]

    run_jumping(main)


def test_nothing_is_sent_on_a_lost_connection() -> None:
    async def main() -> None:
        stream, wire = connected()
        stream.write(b"a")
        await turns()
        stream.connection_lost(None)
        stream.write(b"b")
        stream.close()
        stream.abort()
        stream.end_output()
        assert (wire.sent, wire.ended) == (b"a", "")
        with pytest.raises(ConnectionResetError):
            await stream.drain(NEVER)

    run_jumping(main)


def test_drain_waits_while_there_is_congestion() -> None:
    async def main() -> None:
        stream, wire = connected()
        assert wire.limit == HIGH_WATER
        await stream.drain(NEVER)
        stream.pause_writing()
        assert stream.congested
        task = begun(stream.drain(NEVER))
        await turns()
        assert not task.done()
        stream.resume_writing()
        await task
        assert not stream.congested

    run_jumping(main)


def test_the_loss_of_the_connection_ends_a_drain() -> None:
    async def main() -> None:
        stream, _ = connected()
        stream.pause_writing()
        task = begun(stream.drain(NEVER))
        await turns()
        stream.connection_lost(None)
        with pytest.raises(ConnectionResetError):
            await task

    run_jumping(main)


def test_no_wait_goes_past_the_deadline() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        stream, _ = connected()
        stream.pause_writing()
        begin = clock()
        stream.set_deadline(begin + 30)
        with pytest.raises(DeadlineExceeded):
            await stream.receive()
        assert 29.9 <= clock() - begin <= 31
        with pytest.raises(DeadlineExceeded):
            await stream.receive()  # and no later one does

    run_jumping(main)


def test_what_arrives_and_what_is_sent_have_deadlines_of_their_own() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        stream, _ = connected()
        stream.pause_writing()
        stream.set_deadline(clock() + 50)
        began = clock()
        reader = begun(stream.receive())
        with pytest.raises(DeadlineExceeded):
            await stream.drain(clock() + 5)
        assert 4.9 <= clock() - began <= 6
        assert not reader.done()
        writer = begun(stream.drain(NEVER))
        with pytest.raises(DeadlineExceeded):
            await reader
        assert 49.9 <= clock() - began <= 51
        assert not writer.done()
        stream.resume_writing()
        await writer

    run_jumping(main)


def test_what_has_come_is_read_whatever_the_time() -> None:
    async def main() -> None:
        stream, _ = connected()
        stream.set_deadline(asyncio.get_running_loop().time() + 5)
        stream.data_received(b"a")
        await asyncio.sleep(10)
        assert await stream.receive() == b"a"
        with pytest.raises(DeadlineExceeded):
            await stream.receive()

    run_jumping(main)


def test_a_deadline_may_move_either_way() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        stream, _ = connected()
        begin = clock()
        stream.set_deadline(begin + 10)
        stream.set_deadline(begin + 100)
        task = begun(stream.receive())
        await asyncio.sleep(50)
        assert not task.done()
        stream.set_deadline(begin + 60)
        with pytest.raises(DeadlineExceeded):
            await task
        assert 59 <= clock() - begin <= 61

    run_jumping(main)


def test_a_deadline_may_be_lifted_and_an_old_one_is_forgotten() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        stream, _ = connected()
        stream.set_deadline(clock() + 10)
        stream.set_deadline(NEVER)
        task = begun(stream.receive())
        await asyncio.sleep(1000)
        arrives(stream, b"a")
        assert await task == b"a"
        stream.set_deadline(clock() + 10)
        await asyncio.sleep(20)
        stream.set_deadline(clock() + 10)  # what has passed does not count any more
        task = begun(stream.receive())
        await asyncio.sleep(5)
        assert not task.done()
        arrives(stream, b"b")
        assert await task == b"b"

    run_jumping(main)


def test_the_owner_is_told_of_a_deadline_that_nobody_waits_for() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        stream, _ = connected()
        told: list[float] = []
        stream.on_expired = lambda: told.append(clock())
        begin = clock()
        stream.set_deadline(begin + 10)
        await asyncio.sleep(20)
        assert len(told) == 1
        assert 9.9 <= told[0] - begin <= 11
        stream.set_deadline(clock() + 10)
        task = begun(stream.receive())
        with pytest.raises(DeadlineExceeded):
            await task
        assert len(told) == 1

    run_jumping(main)


@pytest.mark.parametrize("how", ["close", "abort", "lost"])
def test_no_timer_outlives_a_connection(how: str) -> None:
    async def main() -> None:
        stream, wire = connected()
        told: list[str] = []
        stream.on_expired = lambda: told.append("expired")
        stream.set_deadline(asyncio.get_running_loop().time() + 10)
        if how == "lost":
            stream.connection_lost(None)
        else:
            getattr(stream, how)()
            assert wire.ended == how
        stream.set_deadline(asyncio.get_running_loop().time() + 10)
        await asyncio.sleep(20)
        assert told == []

    run_jumping(main)


def test_a_failure_is_raised_where_the_next_bytes_are_awaited() -> None:
    async def main() -> None:
        stream, _ = connected()
        task = begun(stream.receive())
        await turns()
        stream.fail(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            await task
        other, _ = connected()
        other.fail(ValueError("not"))
        with pytest.raises(ValueError, match="not"):
            await other.receive()

    run_jumping(main)


def test_one_timer_serves_many_deadlines() -> None:
    class Counting(JumpingLoop):
        timers = 0

        def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
            self.timers += 1
            return super().call_at(when, callback, *args, context=context)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Counting)
        stream, _ = connected()
        for _ in range(1000):
            stream.set_deadline(loop.time() + 10)
        stream.close()
        return loop.timers

    with asyncio.Runner(loop_factory=Counting) as runner:
        assert runner.run(main()) == 1
