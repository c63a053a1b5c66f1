from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from portico.state import records as module
from portico.state.board import Board
from portico.state.records import PLACES, RECORDS, SLOTS, PrivateRecords, Record
from tests.harness.gateway import DEADLINE

HOLDER = """
import sys
from portico.state.board import Board
board = Board(int(sys.argv[1]))
record = board.record("a")
assert record.take(3)
print("taken", flush=True)
sys.stdin.read()
"""

MAKER = """
import os, sys
from portico.state.board import Board
board = Board(int(sys.argv[1]))
print("here", flush=True)
sys.stdin.readline()
for number in range(200):
    record = board.record(f"service {number}")
    record.slots[int(sys.argv[2])] = number + 1
print(sorted(board.record(f"service {number}")._start for number in range(200)))
"""


@contextmanager
def a_board() -> Iterator[tuple[Board, int]]:
    descriptor = Board.create(1)
    board = Board(descriptor)
    try:
        yield board, descriptor
    finally:
        board.close()
        os.close(descriptor)


def process(code: str, descriptor: int, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(descriptor), *more],
        pass_fds=[descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_record_is_all_zeros_and_found_by_its_name() -> None:
    with a_board() as (board, descriptor):
        record = board.record("orders")
        assert list(record.slots) == [0] * SLOTS
        assert record.text == ""
        record.slots[0] = 2**64 - 1
        record.slots[SLOTS - 1] = 7
        assert board.record("orders") is record
        assert list(board.record("größe" * 1000).slots) == [0] * SLOTS
        other = Board(descriptor)
        assert list(other.record("orders").slots) == [2**64 - 1, *[0] * (SLOTS - 2), 7]
        other.close()


def test_a_record_has_a_line_of_text() -> None:
    with a_board() as (board, descriptor):
        record, after = board.record("a"), board.record("b")
        for text in ("5 failures in a row", "", "größe", "x" * 254):
            record.text = text
            assert record.text == text
        record.text = "é" * 200
        assert record.text == "é" * 127
        record.text = "€" * 200
        assert record.text == "€" * 84
        assert after.text == ""
        other = Board(descriptor)
        assert other.record("a").text == "€" * 84
        other.close()


def test_records_do_not_touch_each_other_or_what_is_around_them(caplog: pytest.LogCaptureFixture) -> None:
    with a_board() as (board, descriptor):
        segment = board.segment(0)
        segment.counter("a").add(5)
        for number in range(RECORDS):
            record = board.record(f"service {number}")
            assert not any(record.slots)
            for at in range(SLOTS):
                record.slots[at] = number + 1
            record.text = "x" * 254
        assert caplog.messages == []
        assert board.counters() == {"a": 5}
        assert not any(board.segment(1).vitals().values())
        other = Board(descriptor)
        for number in range(RECORDS):
            assert list(other.record(f"service {number}").slots) == [number + 1] * SLOTS
        other.close()


def test_without_room_a_record_is_of_the_process_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RECORDS", 3)
    caplog.set_level(logging.WARNING)
    with a_board() as (board, descriptor):
        for number in range(5):
            board.record(str(number)).slots[0] = number + 1
        assert [board.record(str(number)).slots[0] for number in range(5)] == [1, 2, 3, 4, 5]
        assert len(caplog.messages) == 1
        assert board.record("4").take(0)
        assert not board.record("4").take(0)
        board.record("4").give_back(0)
        other = Board(descriptor)
        assert [other.record(str(number)).slots[0] for number in range(4)] == [1, 2, 3, 0]
        other.close()


def test_four_processes_that_ask_at_once_get_one_record_for_each_name() -> None:
    with a_board() as (board, descriptor):
        makers = [process(MAKER, descriptor, str(number)) for number in range(4)]
        for maker in makers:
            assert maker.stdout is not None
            assert maker.stdout.readline() == "here\n"
        for maker in makers:
            assert maker.stdin is not None
            maker.stdin.write("\n")
            maker.stdin.flush()
        found = [maker.communicate(timeout=DEADLINE)[0] for maker in makers]
        assert [maker.returncode for maker in makers] == [0] * 4
        assert len(set(found)) == 1
        assert len(set(found[0].split())) == 200
        for number in range(200):
            assert list(board.record(f"service {number}").slots[:4]) == [number + 1] * 4


def test_a_place_is_for_one_at_a_time() -> None:
    for record in (Record.private(), PrivateRecords().record("a")):
        assert all(record.take(place) for place in range(PLACES))
        assert not any(record.take(place) for place in range(PLACES))
        record.give_back(3)
        assert record.take(3)


def test_a_place_excludes_other_processes_and_a_dead_one_gives_it_back() -> None:
    with a_board() as (board, descriptor):
        record = board.record("a")
        holder = process(HOLDER, descriptor)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        assert not record.take(3)
        assert record.take(2)
        assert board.record("b").take(3)
        holder.kill()
        holder.communicate(timeout=DEADLINE)
        assert record.take(3)
        assert not record.take(3)
        record.give_back(3)
        later = process(HOLDER, descriptor)
        assert later.communicate("", timeout=DEADLINE)[0] == "taken\n"
        assert later.returncode == 0


OWNER = """
import os, sys
from portico.state.board import Board
descriptor = int(sys.argv[1])
board = Board(descriptor)
os.close(descriptor)  # as a worker does
record = board.record("a")
assert record.take(3)
board.record("b")  # its lock for making records leaves the others alone
read, write = os.pipe()
os.close(read), os.close(write)
if sys.argv[2] == "again":
    os.close(os.dup(board._records._file))
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("how", "kept"), [("once", True), ("again", False)])
def test_only_closing_another_descriptor_of_the_board_later_would_drop_a_place(how: str, kept: bool) -> None:
    with a_board() as (board, descriptor):
        owner = process(OWNER, descriptor, how)
        assert owner.stdout is not None
        assert owner.stdout.readline() == "taken\n"
        assert board.record("a").take(3) is not kept
        owner.communicate("", timeout=DEADLINE)
        assert owner.returncode == 0
