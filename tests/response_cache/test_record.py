"""Records of what is kept: what is written is read again, and nothing else is taken for it."""

from __future__ import annotations

import dataclasses
import os

from hypothesis import given
from hypothesis import strategies as st

from portico.response_cache.record import INLINE, MOST_VARIANTS, Entry, decode, encode, part_sizes, parts_of
from portico.state.store import LARGEST_VALUE
from tests.harness.caching import T0, asking, keep


def entry(content: bytes = b"x", number: int = 0, said: str = "Cache-Control: max-age=60") -> Entry:
    stored = keep(said, asking(f"X: {number}")).completed(len(content))
    stored = dataclasses.replace(stored, received=T0 + number, variant=b"%d" % number)
    return Entry(stored, "route", T0, len(content), content, tags=(b"one", b"tw\xff"))


def test_what_is_written_is_read() -> None:
    entries = (
        entry(b"", 0, 'Cache-Control: max-age=60, stale-if-error=7 | ETag: "\xe9" | Vary: X'),
        entry(b"abc", 1),
        dataclasses.replace(entry(os.urandom(INLINE), 2), implied=True, for_all=True),
    )
    assert decode(encode(entries)) == entries


def test_of_a_content_in_parts_only_its_name_is_in_the_record() -> None:
    content = os.urandom(LARGEST_VALUE * 2 + 5)
    large = dataclasses.replace(entry(content), name=b"name", parts_until=T0 + 5)
    (read,) = decode(encode([large]))
    assert read == dataclasses.replace(large, content=None)
    assert [len(part) for part in parts_of(content)] == list(part_sizes(len(content))) == [2**20, 2**20, 5]
    assert b"".join(parts_of(content)) == content


def test_there_are_only_so_many_and_the_oldest_go() -> None:
    read = decode(encode([entry(number=number) for number in range(40)]))
    assert [each.stored.variant for each in read] == [b"%d" % number for number in range(40 - MOST_VARIANTS, 40)]


def test_a_record_is_never_larger_than_a_value() -> None:
    large = [entry(b"x" * INLINE, number, f"Cache-Control: max-age=60 | X: {'y' * 60000}") for number in range(16)]
    record = encode(large)
    assert len(record) <= LARGEST_VALUE
    assert 10 < len(decode(record)) < 16


@given(st.data())
def test_what_is_cut_or_changed_is_read_as_nothing_or_as_something_sound(data: st.DataObject) -> None:
    record = bytearray(encode([entry(b"abc", 0), entry(b"defg", 1)]))
    cut = data.draw(st.integers(0, len(record)))
    for each in decode(bytes(record[:cut])):
        assert each.content is not None
        assert len(each.content) == each.length
    at = data.draw(st.integers(0, len(record) - 1))
    record[at] = data.draw(st.integers(0, 255))
    for each in decode(bytes(record)):
        assert each.name or (each.content is not None and len(each.content) == each.length)


def test_another_version_is_nothing() -> None:
    record = encode([entry()])
    assert decode(b"\x01" + record[1:]) == ()
    assert decode(b"") == ()
