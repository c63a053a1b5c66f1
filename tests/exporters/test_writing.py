"""Ways for lines to take: files, pipes, and the thread that may wait for them."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path

import pytest

from portico.exporters.access_log import files
from portico.exporters.access_log.files import DescriptorSink
from portico.exporters.access_log.ways import FileWay
from portico.exporters.access_log.writer import NotWritten, Piece, Writer
from tests.harness.gateway import DEADLINE, wait_for

Lost = list[tuple[int, str]]


class Slow:
    """A sink that writes when it is told to."""

    def __init__(self) -> None:
        self.goes = threading.Event()
        self.written: list[bytes] = []
        self.fails = ""

    def open(self) -> None:
        raise OSError("write tells it")

    def write(self, piece: Piece) -> None:
        assert self.goes.wait(DEADLINE)
        if self.fails:
            raise NotWritten(piece.lines, self.fails)
        self.written.append(piece.data)

    def reopen(self) -> None:
        self.written.append(b"reopened")

    def close(self) -> None:
        self.written.append(b"closed")


def test_pieces_are_written_in_order_and_what_is_over_the_limit_is_refused() -> None:
    sink = Slow()
    lost: Lost = []
    writer = Writer(sink, 10, lambda lines, why: lost.append((lines, why)))
    assert writer.submit([Piece(b"12345", 2), Piece(b"1234", 1), Piece(b"12", 4)]) == 4
    assert writer.submit([Piece(b"1", 1), Piece(b"2", 1)]) == 1
    sink.goes.set()
    writer.close()
    assert writer.submit([Piece(b"3", 5)]) == 5
    assert writer.finish(DEADLINE) == 0
    assert writer.over
    assert sink.written == [b"12345", b"1234", b"1", b"closed"]
    assert not lost


def test_room_that_was_taken_is_free_once_it_is_written() -> None:
    sink = Slow()
    writer = Writer(sink, 4, lambda *_: None)
    sink.goes.set()
    for number in range(20):
        piece = Piece(b"%04d" % number, 1)
        wait_for(lambda piece=piece: writer.submit([piece]) == 0, "room")
    writer.close()
    assert writer.finish(DEADLINE) == 0
    assert sink.written == [*(b"%04d" % number for number in range(20)), b"closed"]


def test_what_cannot_be_written_is_told_and_the_next_is_tried() -> None:
    sink = Slow()
    lost: Lost = []
    writer = Writer(sink, 100, lambda lines, why: lost.append((lines, why)))
    sink.fails = "full"
    sink.goes.set()
    writer.submit([Piece(b"1", 3)])
    wait_for(lambda: lost == [(3, "full")], "the loss")
    sink.fails = ""
    writer.submit([Piece(b"2", 1)])
    writer.reopen()
    writer.close()
    assert writer.finish(DEADLINE) == 0
    assert sorted(sink.written) == [b"2", b"closed", b"reopened"]
    assert sink.written[-1] == b"closed"


def test_one_that_hangs_at_the_end_is_given_up() -> None:
    sink = Slow()
    writer = Writer(sink, 100, lambda *_: None)
    writer.submit([Piece(b"1", 3), Piece(b"2", 1)])
    writer.close()
    assert writer.finish(0.05) == 4
    sink.goes.set()
    assert writer.finish(DEADLINE) == 0
    assert sink.written == [b"1", b"closed"]


def test_a_file_is_made_and_what_is_there_stays(tmp_path: Path) -> None:
    file = tmp_path / "log"
    for line in (b"one\n", b"two\n"):
        sink = DescriptorSink(str(file))
        sink.write(Piece(line, 1))
        sink.close()
    assert file.read_bytes() == b"one\ntwo\n"
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, moved = tmp_path / "log", tmp_path / "moved"
    sink = DescriptorSink(str(file))
    sink.write(Piece(b"one\n", 1))
    file.rename(moved)
    sink.write(Piece(b"two\n", 1))
    sink.reopen()
    sink.write(Piece(b"three\n", 1))
    assert (moved.read_bytes(), file.read_bytes()) == (b"one\ntwo\n", b"three\n")
    file.unlink()
    file.mkdir()
    sink.reopen()
    assert "cannot be opened anew: Is a directory" in caplog.text
    sink.write(Piece(b"four\n", 1))
    sink.close()


def test_lines_that_were_written_ahead_of_a_failure_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log"
    write, room = os.write, [10]

    def nearly_full(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(files.os, "write", nearly_full)
    sink = DescriptorSink(str(file))
    with pytest.raises(NotWritten, match="No space left on device") as error:
        sink.write(Piece(b"one\ntwo\nthree\nfour\n", 4))
    assert error.value.lines == 2
    room[0] = 100
    sink.write(Piece(b"five\n", 1))
    sink.write(Piece(b"six\n", 1))
    sink.close()
    assert file.read_bytes() == b"one\ntwo\nth\nfive\nsix\n"


def test_a_descriptor_that_does_not_wait_is_waited_for() -> None:
    reader, out = os.pipe()
    os.set_blocking(out, False)
    os.set_blocking(reader, False)
    while True:
        try:
            os.write(out, b"x" * 4096)
        except BlockingIOError:
            break
    sink = DescriptorSink(None, out)
    thread = threading.Thread(target=sink.write, args=(Piece(b"line\n", 1),))
    thread.start()
    read = b""
    while not read.endswith(b"line\n"):
        select.select([reader], [], [], DEADLINE)
        read += os.read(reader, 65536)
    thread.join(DEADLINE)
    sink.close()
    os.close(reader)
    os.close(out)


def test_a_pipe_is_given_no_more_at_once_than_is_written_as_a_whole() -> None:
    reader, out = os.pipe()
    sink = DescriptorSink(None, out)
    assert (sink.largest, sink.longest) == (select.PIPE_BUF, select.PIPE_BUF)
    pieces: list[Piece] = []
    way = FileWay(sink, 10**6, lambda *_: None)
    way._writer.submit = lambda given: pieces.extend(given) or 0  # type: ignore[method-assign,func-returns-value]
    way.send([f"{number:0{number}}" for number in range(1, 300)])
    assert all(len(piece.data) <= select.PIPE_BUF and piece.data.endswith(b"\n") for piece in pieces)
    assert sum(piece.lines for piece in pieces) == 299
    lines = b"".join(piece.data for piece in pieces).split(b"\n")
    assert lines == [*(f"{number:0{number}}".encode() for number in range(1, 300)), b""]
    way.close()
    assert way.finish(DEADLINE) == 0
    os.close(reader)
    os.close(out)
