from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.state import board as module
from portico.state.board import AGENT, COUNTERS, NAMES, Board, Vital, Word, counter_name, shared_file
from tests.harness.gateway import DEADLINE

OTHER = """
import sys
from portico.state.board import Board, Vital, Word
board = Board(int(sys.argv[1]))
assert board.workers == 2
assert board.word(Word.CONFIG) == 7
assert board.segment(1)[Vital.PID] == 42
assert board.counters() == {"a": 3}
segment = board.segment(2)
segment.begin(43, 1)
segment.counter("a").add(10)
segment.counter("b").add(20)
"""


@contextmanager
def a_board(workers: int = 2) -> Iterator[Board]:
    descriptor = Board.create(workers)
    board = Board(descriptor)
    try:
        yield board
    finally:
        board.close()
        os.close(descriptor)


def test_words_are_zero_until_they_are_written() -> None:
    with a_board() as board:
        assert [board.word(word) for word in Word] == [0] * len(Word)
        board.set_word(Word.CONFIG, 7)
        assert board.bump(Word.CREDENTIALS) == 1
        assert board.bump(Word.CREDENTIALS) == 2
        assert {word: board.word(word) for word in Word if board.word(word)} == {Word.CONFIG: 7, Word.CREDENTIALS: 2}


def test_a_slot_holds_64_bits() -> None:
    with a_board() as board:
        board.set_word(Word.CONFIG, 2**64 - 1)
        assert board.word(Word.CONFIG) == 2**64 - 1
        board.segment(AGENT)[Vital.LAG] = 2**64 - 1
        assert board.segment(AGENT)[Vital.LAG] == 2**64 - 1


def test_a_process_begins_with_its_vitals_alone() -> None:
    with a_board() as board:
        segment = board.segment(1)
        for vital in Vital:
            segment[vital] = 99
        segment.begin(42, 1000)
        assert {vital: value for vital, value in segment.vitals().items() if value} == {
            Vital.PID: 42,
            Vital.STARTED: 1000,
        }
        assert all(value == 0 for value in board.segment(2).vitals().values())


def test_a_vital_is_only_ever_raised() -> None:
    with a_board() as board:
        segment = board.segment(AGENT)
        for value in (5, 3, 8, 0):
            segment.raise_to(Vital.LAG_MAX, value)
        assert segment[Vital.LAG_MAX] == 8


def test_a_counter_is_found_by_its_name() -> None:
    with a_board() as board:
        segment = board.segment(1)
        counter = segment.counter("requests{route=a}")
        assert segment.counter("requests{route=a}") is counter
        counter.add()
        counter.add(4)
        segment.counter("größe").add(2)
        segment.counter("")
        assert counter.value == 5
        assert list(segment.counters()) == [("requests{route=a}", 5), ("größe", 2), ("", 0)]


def test_the_labels_of_a_counter_are_in_its_name() -> None:
    assert counter_name("hits_total", {}) == "hits_total"
    assert counter_name("hits_total", {"route": "b", "place": "a"}) == 'hits_total{place="a",route="b"}'
    assert counter_name("hits_total", {"a": 'x"y\\z\n'}) == 'hits_total{a="x\\"y\\\\z\\n"}'


def test_the_next_process_of_a_segment_counts_from_zero() -> None:
    with a_board() as board:
        segment = board.segment(1)
        segment.counter("a").add(5)
        segment.counter("b").add(6)
        segment.begin(42, 0)
        assert list(segment.counters()) == []
        assert segment.counter("b").value == 0
        assert list(segment.counters()) == [("b", 0)]


def test_a_counter_that_there_is_no_room_for_counts_for_nobody() -> None:
    with a_board() as board:
        segment = board.segment(1)
        for number in range(COUNTERS):
            segment.counter(f"c{number}").add()
        assert segment[Vital.OVERFLOW] == 0
        for _ in range(2):
            segment.counter("one more").add(7)
        assert segment.counter("one more").value == 14
        assert segment[Vital.OVERFLOW] == 1
        segment.counter("and another").add()
        assert segment[Vital.OVERFLOW] == 2
        segment.counter(f"c{COUNTERS - 1}").add()
        counted = board.counters()
        assert len(counted) == COUNTERS
        assert sum(counted.values()) == COUNTERS + 1
        assert list(board.segment(2).counters()) == []


def test_names_have_room_to_the_last_byte_and_no_further() -> None:
    with a_board() as board:
        segment = board.segment(1)
        longest = [letter * 0xFFFF for letter in "abc"]
        left = NAMES - 3 * (2 + 0xFFFF) - 2
        for name in (*longest, "d" * left):
            segment.counter(name).add()
        assert segment[Vital.OVERFLOW] == 0
        segment.counter("").add()
        assert segment[Vital.OVERFLOW] == 1
        assert board.counters() == dict.fromkeys((*longest, "d" * left), 1)
        assert list(board.segment(2).counters()) == []


def test_a_name_that_is_too_long_has_no_counter() -> None:
    with a_board() as board:
        segment = board.segment(1)
        segment.counter("a" * 0x10000).add()
        assert segment[Vital.OVERFLOW] == 1
        segment.counter("b").add()
        assert board.counters() == {"b": 1}


def test_counters_are_summed_over_all_processes() -> None:
    with a_board() as board:
        board.segment(AGENT).counter("a").add(1)
        board.segment(1).counter("b").add(10)
        board.segment(1).counter("a").add(100)
        board.segment(2).counter("a").add(1000)
        board.add_totals({"a": 10_000, "c": 5})
        assert board.counters() == {"a": 11_101, "b": 10, "c": 5}


def test_a_process_that_ended_is_folded_and_its_segment_is_empty() -> None:
    with a_board() as board:
        segment = board.segment(1)
        segment.begin(42, 1000)
        segment.counter("a").add(5)
        segment.counter("never").add(0)
        board.fold(1)
        assert list(segment.counters()) == []
        assert not any(segment.vitals().values())
        assert board.counters() == {"a": 5}
        board.fold(1)
        assert board.counters() == {"a": 5}
        segment.begin(43, 2000)
        segment.counter("b").add(1)
        segment.counter("a").add(2)
        assert board.counters() == {"a": 7, "b": 1}
        board.fold(1)
        assert board.counters() == {"a": 7, "b": 1}


def test_a_reader_that_meets_a_fold_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_board() as board:
        segment = board.segment(2)
        segment.counter("a").add(5)
        counters = module.Segment.counters
        met = []

        def folded_meanwhile(self: module.Segment) -> Iterator[tuple[str, int]]:
            found = list(counters(self))
            if self is segment and not met:  # the totals have been read, without what is folded into them now
                met.append(True)
                monkeypatch.undo()
                board.fold(2)
                found = []
            return iter(found)

        monkeypatch.setattr(module.Segment, "counters", folded_meanwhile)
        assert board.counters() == {"a": 5}
        assert met


def test_a_reader_does_not_wait_for_a_fold_that_never_ends() -> None:
    with a_board() as board:
        board.segment(1).counter("a").add(5)
        board._head[2] = 1
        assert board.counters() == {"a": 5}


def test_another_process_sees_the_same_board() -> None:
    descriptor = Board.create(2)
    board = Board(descriptor)
    board.set_word(Word.CONFIG, 7)
    board.segment(1)[Vital.PID] = 42
    board.segment(1).counter("a").add(3)
    done = subprocess.run(
        [sys.executable, "-c", OTHER, str(descriptor)],
        pass_fds=[descriptor],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    assert board.counters() == {"a": 13, "b": 20}
    assert board.segment(2)[Vital.PID] == 43
    board.fold(2)
    assert board.counters() == {"a": 13, "b": 20}
    board.close()
    os.close(descriptor)


def test_a_board_outlives_its_descriptor() -> None:
    descriptor = Board.create(1)
    board = Board(descriptor)
    os.close(descriptor)
    board.segment(1).counter("a").add(3)
    assert board.counters() == {"a": 3}
    board.close()


def test_room_is_for_the_workers_that_were_asked_for() -> None:
    with a_board(workers=3) as board:
        assert board.workers == 3
        for number in range(4):
            board.segment(number).counter("a").add()
        assert board.counters() == {"a": 4}
        with pytest.raises(IndexError):
            board.segment(4)


def whole() -> bytes:
    descriptor = Board.create(1)
    try:
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: b"", id="nothing"),
        pytest.param(lambda: b"x", id="one byte"),
        pytest.param(lambda: b"a text that is no board", id="a text"),
        pytest.param(lambda: bytes(100_000), id="zeros"),
        pytest.param(lambda: whole()[:8], id="the first slot"),
        pytest.param(lambda: whole()[:16], id="the first two slots"),
        pytest.param(lambda: whole()[:-8], id="a slot too short"),
        pytest.param(lambda: whole() + bytes(8), id="a slot too long"),
        pytest.param(lambda: bytes([whole()[0] ^ 1]) + whole()[1:], id="another version"),
    ],
)
def test_what_is_no_board_is_refused(content: object) -> None:
    assert callable(content)
    descriptor = shared_file("no-board", content())
    with pytest.raises(ValueError):
        Board(descriptor)
    os.close(descriptor)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2), st.sampled_from("abcde"), st.integers(0, 2**40)),
        st.tuples(st.just("fold"), st.integers(0, 2), st.just(""), st.just(0)),
        st.tuples(st.just("totals"), st.just(0), st.sampled_from("abcde"), st.integers(0, 2**40)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_nothing_that_was_counted_is_lost_or_counted_twice(steps: list[tuple[str, int, str, int]]) -> None:
    with a_board() as board:
        expected: dict[str, int] = {}
        for what, number, name, amount in steps:
            if what == "add":
                board.segment(number).counter(name).add(amount)
            elif what == "totals":
                board.add_totals({name: amount})
            else:
                board.fold(number)
            expected[name] = expected.get(name, 0) + amount
            counted = {name: value for name, value in board.counters().items() if value}
            assert counted == {name: value for name, value in expected.items() if value}
