from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.runtime.pace import at_once
from portico.state import board as module
from portico.state.board import (
    _NAME_HEAD as HEAD,
)
from portico.state.board import (
    AGENT,
    COUNTERS,
    NAMES,
    Board,
    Reading,
    Segment,
    Vital,
    Word,
    counter_name,
    shared_file,
)
from portico.state.slots import ABSENT, EXEMPLAR
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


def fill(segment: Segment, left: int) -> None:
    """Leave so many slots."""
    taken = COUNTERS - left
    while taken:
        part = min(taken, 60_000)
        segment._new(f"{taken}", 0, part)
        taken -= part


def test_a_counter_that_there_is_no_room_for_counts_for_nobody() -> None:
    with a_board() as board:
        segment = board.segment(1)
        fill(segment, left=3)
        assert segment.nearly_full
        for number in range(3):
            segment.counter(f"c{number}").add()
        assert segment[Vital.OVERFLOW] == 0
        for _ in range(2):
            segment.counter("one more").add(7)
        assert segment.counter("one more").value == 14
        assert segment[Vital.OVERFLOW] == 1
        segment.gauge("and another").write(4)
        segment.histogram("and another still", [1.0], 1).observe(0.5)
        assert segment[Vital.OVERFLOW] == 3
        segment.counter("c2").add()
        assert board.counters() == {"c0": 1, "c1": 1, "c2": 2}
        assert list(board.segment(2).counters()) == []


def test_names_have_room_to_the_last_byte_and_no_further() -> None:
    with a_board() as board:
        segment = board.segment(1)
        whole, rest = divmod(NAMES - HEAD, 60_000 + HEAD)
        longest = [f"{number:03}".ljust(60_000) for number in range(whole)]
        last = "d" * (rest - HEAD)
        for name in (*longest, last):
            segment.counter(name).add()
        assert segment[Vital.OVERFLOW] == 0
        assert segment.nearly_full
        segment.counter("").add()
        assert segment[Vital.OVERFLOW] == 0
        segment.counter("x").add()
        assert segment[Vital.OVERFLOW] == 1
        assert board.counters() == dict.fromkeys((*longest, last, ""), 1)
        assert list(board.segment(2).counters()) == []


def test_a_gauge_ends_with_its_process_and_a_histogram_does_not() -> None:
    with a_board() as board:
        for number in (1, 2):
            segment = board.segment(number)
            segment.gauge("g").write(5)
            histogram = segment.histogram("h", [0.1, 1.0], 1000)
            assert segment.histogram("h", [0.1, 1.0], 1000) is histogram
            for value in (0.05, 0.1, 0.2, 2.0):
                histogram.observe(value)
            histogram.show(0.2, f"{'a' * 31}{number}", 7.0, 1000.5)
            histogram.show(0.9, "b" * 32, 7.5, 1001.0)  # within the same second
        name = "h\0" + "0.1,1.0"
        assert board.histograms() == {name: [4, 2, 2, 4700]}
        assert {name: len(each) for name, each in at_once(board.reading()).items()} == {"g": 2, name: 2}
        board.fold(1)
        assert board.histograms() == {name: [4, 2, 2, 4700]}
        readings = at_once(board.reading())
        assert [reading.own for reading in readings["g"]] == [[5]]
        gone, running = readings[name]
        assert gone.own == [0] * EXEMPLAR
        assert running.own == [1_000_500, 200, 0xAAAA_AAAA_AAAA_AAAA, 0xAAAA_AAAA_AAAA_AAA2]
        with a_board() as after:
            after.add_totals(board.counters(), board.histograms())
            assert after.histograms() == {name: [4, 2, 2, 4700]}


def test_a_gauge_says_nothing_until_it_is_written() -> None:
    with a_board() as board:
        gauge = board.segment(1).gauge("g")
        assert gauge.value == ABSENT
        gauge.write(0)
        assert at_once(board.reading())["g"] == [Reading("g", [], [0])]


def test_a_gauge_with_room_gives_its_place_to_another() -> None:
    with a_board() as board:
        segment = board.segment(1)
        segment.gauge("first", 16).write(1)
        segment.gauge("fixed").write(2)
        assert segment.rename("fixed", "other") is None
        assert segment.rename("first", "s" * 17) is None
        assert segment.rename("first", "fixed") is None
        second = segment.rename("first", "s" * 16)
        assert second is not None
        assert second.value == ABSENT
        second.write(3)
        assert segment.gauge("s" * 16) is second
        assert "first" not in segment
        told = {name: readings[0].own[0] for name, readings in at_once(board.reading()).items()}
        assert told == {"s" * 16: 3, "fixed": 2}
        assert segment.rename("s" * 16, "ä") is second
        assert [reading.name for reading in segment.readings()] == ["ä", "fixed"]


def test_the_slots_of_a_process_are_zero_for_the_next() -> None:
    with a_board() as board:
        segment = board.segment(1)
        for number in range(5000):
            segment.counter(str(number)).add(9)
        segment.begin(42, 0)
        for number in range(5001):
            assert segment.counter(str(number)).value == 0


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
        readings = module.Segment.readings
        met = []

        def folded_meanwhile(self: module.Segment) -> Iterator[Reading]:
            found = list(readings(self))
            if self is segment and not met:  # the totals have been read, without what is folded into them now
                met.append(True)
                monkeypatch.undo()
                board.fold(2)
                found = []
            return iter(found)

        monkeypatch.setattr(module.Segment, "readings", folded_meanwhile)
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
