from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.http.headers import HOP_BY_HOP, HeaderBlock, Headers, Pair, check_name, check_value
from portico.wire import h1

NAMES = st.sampled_from([b"A", b"a", b"B-c", b"b-C", b"X"])
VALUES = st.sampled_from([b"1", b"2", b""])


def test_order_and_case_are_kept_and_lookup_ignores_case() -> None:
    headers = Headers([(b"Accept", b"a"), (b"X-Y", b"b"), (b"ACCEPT", b"c")])
    assert list(headers) == [(b"Accept", b"a"), (b"X-Y", b"b"), (b"ACCEPT", b"c")]
    assert len(headers) == 3
    assert headers.get(b"accept") == b"a"
    assert headers.get_all(b"accept") == [b"a", b"c"]
    assert b"x-y" in headers
    assert b"z" not in headers
    assert headers.get(b"z") is None
    assert headers.get_all(b"z") == []
    assert headers.text(b"z") is None


def test_text_is_latin_1_and_cannot_fail() -> None:
    assert Headers([(b"A", b"\xe4\xff")]).text(b"a") == "äÿ"


def test_the_first_of_several_is_found() -> None:
    headers = Headers([(b"A", b"1"), (b"a", b"2")])
    assert headers.get(b"a") == b"1"
    assert headers.get_all(b"a") == [b"1", b"2"]


def test_set_makes_one_of_many() -> None:
    headers = Headers([(b"a", b"1"), (b"b", b"2"), (b"A", b"3")])
    headers.set(b"A", b"4")
    assert headers.get_all(b"a") == [b"4"]
    assert headers.get(b"b") == b"2"
    headers.set(b"C", b"5")
    assert list(headers)[-1] == (b"C", b"5")


def test_remove_takes_all_and_does_not_mind_none() -> None:
    headers = Headers([(b"a", b"1"), (b"b", b"2"), (b"A", b"3")])
    headers.remove(b"a")
    headers.remove(b"a")
    assert list(headers) == [(b"b", b"2")]
    headers.add(b"A", b"4")
    assert headers.get(b"a") == b"4"


def test_a_copy_is_apart() -> None:
    headers = Headers([(b"a", b"1")])
    copy = headers.copy()
    assert copy == headers
    copy.set(b"a", b"2")
    copy.add(b"b", b"3")
    assert list(headers) == [(b"a", b"1")]
    assert b"b" not in headers
    assert copy != headers
    assert headers != [(b"a", b"1")]


def test_headers_change_and_so_have_no_hash() -> None:
    with pytest.raises(TypeError):
        hash(Headers())


def test_a_block_is_set_over_what_is_there() -> None:
    block = HeaderBlock([(b"X-A", b"1"), (b"X-B", b"2")])
    headers = Headers([(b"x-a", b"old"), (b"X-A", b"older"), (b"c", b"3")])
    headers.set_block(block)
    assert sorted(headers) == [(b"X-A", b"1"), (b"X-B", b"2"), (b"c", b"3")]
    assert (headers.get(b"x-a"), headers.get(b"x-b")) == (b"1", b"2")


def test_a_block_does_not_change_the_headers_of_others() -> None:
    block = HeaderBlock([(b"X-A", b"1")])
    one, other = Headers(), Headers()
    one.set_block(block)
    one.set(b"X-A", b"2")
    other.set_block(block)
    assert other.get(b"x-a") == b"1"


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"\xe4", b"a\n", b'"', b"a\0"])
def test_a_bad_name_is_refused_wherever_one_is_given(name: bytes) -> None:
    headers = Headers()
    with pytest.raises(ValueError, match="not a header name"):
        check_name(name)
    with pytest.raises(ValueError, match="not a header name"):
        headers.set(name, b"x")
    with pytest.raises(ValueError, match="not a header name"):
        headers.add(name, b"x")
    with pytest.raises(ValueError, match="not a header name"):
        Headers([(name, b"x")])
    with pytest.raises(ValueError, match="not a header name"):
        HeaderBlock([(name, b"x")])
    assert len(headers) == 0
    assert not headers.index


@pytest.mark.parametrize("value", [b"a\r\nEvil: b", b"a\nb", b"a\rb", b"\0", b"\x7f", b"\x1b[0m"])
def test_a_bad_value_is_refused_wherever_one_is_given(value: bytes) -> None:
    headers = Headers()
    with pytest.raises(ValueError, match="control character"):
        check_value(value)
    with pytest.raises(ValueError, match="control character"):
        headers.set(b"a", value)
    with pytest.raises(ValueError, match="control character"):
        headers.add(b"a", value)
    with pytest.raises(ValueError, match="control character"):
        HeaderBlock([(b"a", value)])
    assert len(headers) == 0
    assert not headers.index


def test_tabs_and_bytes_beyond_ascii_may_stand_in_values() -> None:
    assert check_value(b"a\tb \xff") == b"a\tb \xff"


class _Model:
    """What Headers should do, done slowly."""

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []

    def drop(self, key: bytes) -> None:
        self.pairs = [pair for pair in self.pairs if pair[0].lower() != key]


@given(st.lists(st.tuples(st.sampled_from(["set", "add", "remove", "block", "copy"]), NAMES, VALUES), max_size=12))
def test_headers_do_what_a_plain_list_does(steps: list[tuple[str, bytes, bytes]]) -> None:
    headers, model = Headers(), _Model()
    for step, name, value in steps:
        key = name.lower()
        if step == "copy":
            headers = headers.copy()
        elif step == "add":
            headers.add(name, value)
            model.pairs.append((name, value))
        else:
            model.drop(key)
            if step == "remove":
                headers.remove(key)
                continue
            if step == "set":
                headers.set(name, value)
            else:
                headers.set_block(HeaderBlock([(name, value)]))
            model.pairs.append((name, value))
        assert sorted(headers) == sorted(model.pairs)
        if len(headers.index) == len(headers.pairs):  # then both have the same order, which writing relies on
            assert list(headers.index.items()) == [(name.lower(), value) for name, value in headers]
        for wanted in (b"a", b"b-c", b"x"):
            values = [value for name, value in model.pairs if name.lower() == wanted]
            assert headers.get_all(wanted) == values
            assert headers.get(wanted) == (values[0] if values else None)


FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("set"), NAMES, VALUES),
        st.tuples(st.just("add"), NAMES, VALUES),
        st.tuples(st.just("put_parsed"), NAMES, VALUES),
        st.tuples(st.just("put"), NAMES.map(bytes.lower), VALUES),
        st.tuples(st.just("remove"), NAMES),
        st.tuples(st.just("set_block"), FIELDS),
        st.tuples(st.just("copy")),
    ),
    max_size=5,
)


def changed(headers: Headers, changes: list[tuple[Any, ...]]) -> Headers:
    for what, *given_ in changes:
        if what == "copy":
            headers = headers.copy()
        elif what == "set_block":
            headers.set_block(HeaderBlock(given_[0]))
        elif what == "remove":
            headers.remove(given_[0].lower())
        else:
            getattr(headers, what)(*given_)
    return headers


@given(FIELDS, CHANGES)
def test_headers_that_share_a_block_change_apart(
    fields: list[tuple[bytes, bytes]], changes: list[tuple[Any, ...]]
) -> None:
    block = HeaderBlock(fields)
    before, lines = list(block.pairs), block.lines(HOP_BY_HOP)
    shared, apart = Headers(), Headers()
    shared.set_block(block)
    other = shared.copy()
    for name, value in fields:
        apart.set(name, value)
    assert shared == apart
    shared, apart = changed(shared, changes), changed(apart, changes)
    assert (shared.pairs, shared.index) == (apart.pairs, apart.index)
    assert list(shared.index.values()) == [shared.get_all(name)[0] for name in shared.index]
    assert (block.pairs, block.lines(HOP_BY_HOP), other.pairs) == (before, lines, before)
    if shared.base is not None:
        assert shared.pairs[: len(shared.base.pairs)] == shared.base.pairs
    for length, method in ((5, "GET"), (None, "GET"), (5, "HEAD")):
        one, two = (h1.response_head(200, each, b"", length, method, 1, True) for each in (shared, apart))
        assert sorted(one.split(b"\r\n")) == sorted(two.split(b"\r\n"))
    one, two = (h1.request_head("GET", "/", b"a", each, [], 0) for each in (shared, apart))
    assert one == two


@given(FIELDS)
def test_a_block_of_a_message_has_what_it_has(fields: list[tuple[bytes, bytes]]) -> None:
    headers, shared = Headers(fields), Headers()
    block = HeaderBlock.of(headers)
    shared.set_block(block)
    assert (shared.pairs, shared.index) == (headers.pairs, headers.index)
    headers.add(b"Later", b"1")
    assert b"later" not in shared


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], [(b"x", b"new")]),
        ([(b"A", b"1")], [(b"A", b"1"), (b"x", b"new")]),
        ([(b"A", b"1"), (b"X", b"old"), (b"B", b"2")], [(b"A", b"1"), (b"X", b"new"), (b"B", b"2")]),
        ([(b"A", b"1"), (b"x", b"old"), (b"B", b"2")], [(b"A", b"1"), (b"x", b"new"), (b"B", b"2")]),
        ([(b"A", b"old"), (b"X", b"old")], [(b"A", b"old"), (b"X", b"new")]),
        ([(b"X", b"1"), (b"A", b"1"), (b"x", b"2")], [(b"A", b"1"), (b"x", b"new")]),
        ([(b"A", b"1"), (b"A", b"2"), (b"x", b"2")], [(b"A", b"1"), (b"A", b"2"), (b"x", b"new")]),
    ],
)
def test_put_takes_the_place_of_what_is_there(fields: list[Pair], expected: list[Pair]) -> None:
    headers = Headers(fields)
    headers.put(b"x", b"new")
    assert headers.pairs == expected
    assert headers.get_all(b"x") == [b"new"]
    assert headers.index == {name.lower(): value for name, value in reversed(expected)}


def test_put_leaves_a_block_as_it_is() -> None:
    block = HeaderBlock([(b"x", b"1")])
    headers = Headers()
    headers.set_block(block)
    headers.put(b"x", b"2")
    assert (headers.pairs, block.pairs) == ([(b"x", b"2")], [(b"x", b"1")])
