from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.errors import BodyTooLarge, BodyTruncated, RequestTimeout
from portico.http.body import Body, BodySource, Trailers, spelled


class Pieces:
    """A source of pieces, with a record of what was asked of it; an exception among the pieces is raised."""

    def __init__(self, pieces: Iterable[bytes | Exception], trailers: Trailers | None = None) -> None:
        self.left = list(pieces)
        self.closed = 0
        self._trailers = trailers or []

    async def read(self) -> bytes:
        piece = self.left.pop(0) if self.left else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def trailers(self) -> Trailers:
        return self._trailers

    def close(self) -> None:
        self.closed += 1


def stream(*pieces: bytes | Exception, length: int | None = None) -> tuple[Body, Pieces]:
    source = Pieces(pieces)
    return Body.stream(source, length), source


async def rest(body: Body) -> bytes:
    content = b""
    while piece := await body.chunk():
        content += piece
    return content


def test_a_body_in_memory() -> None:
    async def main() -> None:
        body = Body(b"hello")
        assert (body.whole, body.length) == (b"hello", 5)
        assert await body.peek(2) == b"he"
        assert await body.read(5) == b"hello"
        assert await body.read(5) == b"hello"
        assert body.trailers() == []
        with pytest.raises(BodyTooLarge):
            await body.read(4)
        with pytest.raises(RuntimeError):
            await body.chunk()
        body.close()

    asyncio.run(main())


def test_the_next_piece_is_fetched_only_when_it_is_asked_for() -> None:
    async def main() -> None:
        body, source = stream(b"a", b"b", length=2)
        assert (body.whole, body.length) == (None, 2)
        assert await body.chunk() == b"a"
        assert source.left == [b"b"]
        assert await body.chunk() == b"b"
        assert await body.chunk() == b""
        assert await body.chunk() == b""

    asyncio.run(main())


def test_read_buffers_once_for_all_later_readers() -> None:
    async def main() -> None:
        body, source = stream(b"hel", b"lo")
        assert await body.read(5) == b"hello"
        assert (body.whole, body.length) == (b"hello", 5)
        assert await body.read(9) == b"hello"
        assert await body.peek(3) == b"hel"
        assert not source.left
        with pytest.raises(BodyTooLarge):
            await body.read(4)

    asyncio.run(main())


def test_read_stops_where_the_limit_is_passed() -> None:
    async def main() -> None:
        body, source = stream(b"123", b"456", b"789")
        with pytest.raises(BodyTooLarge):
            await body.read(5)
        assert source.left == [b"789"]
        assert body.whole is None
        body, source = stream(b"123456", length=6)
        with pytest.raises(BodyTooLarge):
            await body.read(5)
        assert source.left == [b"123456"]

    asyncio.run(main())


def test_the_smallest_restriction_counts_for_what_streams() -> None:
    async def main() -> None:
        body, _ = stream(b"123", b"456")
        assert body.restrict(5)
        assert body.restrict(50)
        assert body.limit == 5
        assert await body.chunk() == b"123"
        with pytest.raises(BodyTooLarge):
            await body.chunk()
        body, _ = stream(b"123", b"45")
        assert body.restrict(5)
        assert await rest(body) == b"12345"

    asyncio.run(main())


def test_what_is_known_to_be_too_large_is_known_at_once() -> None:
    assert not stream(length=6)[0].restrict(5)
    assert stream(length=5)[0].restrict(5)
    assert not Body(b"123456").restrict(5)
    assert Body(b"12345").restrict(5)


def test_what_was_peeked_at_counts_once_against_the_limit() -> None:
    async def main() -> None:
        body, _ = stream(b"123", b"45")
        assert body.restrict(5)
        assert await body.peek(4) == b"1234"
        assert await body.read(5) == b"12345"

    asyncio.run(main())


def test_a_source_that_breaks_off_breaks_off_for_its_reader() -> None:
    async def main() -> None:
        body, _ = stream(b"123", BodyTruncated("gone"))
        with pytest.raises(BodyTruncated):
            await body.read(100)
        assert body.whole is None

    asyncio.run(main())


def test_close_and_trailers_are_the_sources() -> None:
    async def main() -> None:
        source = Pieces([b"a"], [(b"X", b"y")])
        body = Body.stream(source, None)
        assert await body.read(10) == b"a"
        assert body.trailers() == [(b"X", b"y")]
        body.close()
        body.close()
        assert source.closed == 2

    asyncio.run(main())


SAID = [(b"Client-Cert", b"a"), (b"client_cert", b"b"), (b"X-Sum", b"c"), (b"X-User_ID", b"d"), (b"x-sum", b"e")]


@pytest.mark.parametrize("when", ["before", "between", "after"])
@pytest.mark.parametrize("buffered", [False, True])
def test_trailers_are_refused_in_all_spellings(when: str, buffered: bool) -> None:
    async def main() -> None:
        body = Body.stream(Pieces([b"a", b"b"], SAID), None)
        names = frozenset((spelled(b"Client-Cert"), spelled(b"X_USER_ID")))
        if when == "before":
            body.refuse_trailers(names.__contains__)
        assert await body.peek(1) == b"a"
        if when == "between":
            body.refuse_trailers(names.__contains__)
        assert await (body.read(10) if buffered else rest(body)) == b"ab"
        if when == "after":
            assert body.trailers() == SAID
            body.refuse_trailers(names.__contains__)
        assert body.trailers() == [(b"X-Sum", b"c"), (b"x-sum", b"e")]
        body.refuse_trailers(frozenset({b"x-sum"}).__contains__)
        assert body.trailers() == []


def test_trailers_that_are_refused() -> None:
    async def main() -> None:
        fields = [(b"X-User", b"a"), (b"x_user", b"b"), (b"X-USER_", b"c"), (b"X-Sum", b"d"), (b"y", b"e")]
        for buffered in (False, True):
            source = Pieces([b"a"], fields)
            body = Body.stream(source, None)
            if buffered:
                assert await body.read(10) == b"a"
            assert body.trailers() == fields
            body.refuse_trailers(frozenset((b"x-user",)).__contains__)
            assert body.trailers() == fields[2:]
            body.refuse_trailers(frozenset((b"y",)).__contains__)
            body.pass_through(lambda inner, ahead: inner)
            assert body.trailers() == fields[2:4]
            assert source.trailers() == fields  # a source is nobody's to change
        nothing = Body(b"a")
        nothing.refuse_trailers(frozenset((b"y",)).__contains__)
        assert nothing.trailers() == []

    asyncio.run(main())


def test_refused_trailers_stay_so_whatever_the_content_comes_through() -> None:
    """Also where somebody further in has put another source, or another body, in its place."""

    class Through(Pieces):
        def __init__(self, source: BodySource, ahead: bytes) -> None:
            super().__init__([])
            self.source = source

        def trailers(self) -> Trailers:
            return self.source.trailers()

    body = Body.stream(Pieces([b"a"], SAID), None)
    body.refuse_trailers(frozenset({b"client-cert", b"x-sum"}).__contains__)
    body.pass_through(Through)
    assert body.trailers() == [(b"X-User_ID", b"d")]
    assert Body.stream(Through(body, b""), None).trailers() == [(b"X-User_ID", b"d")]  # type: ignore[arg-type]


def test_content_in_memory_has_no_trailers_to_refuse() -> None:
    body = Body(b"a")
    body.refuse_trailers(frozenset({b"a"}).__contains__)
    assert body.trailers() == []


@settings(max_examples=100)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=5), max_size=6),
    sizes=st.lists(st.integers(0, 20), max_size=4),
    buffered=st.booleans(),
)
def test_peeking_changes_nothing(pieces: list[bytes], sizes: list[int], *, buffered: bool) -> None:
    async def main() -> None:
        content = b"".join(pieces)
        body, _ = stream(*pieces)
        for size in sizes:
            assert await body.peek(size) == content[:size]
        assert await (body.read(len(content)) if buffered else rest(body)) == content

    asyncio.run(main())


def test_it_tells_whether_its_pieces_were_touched_and_whether_one_is_awaited() -> None:
    async def main() -> None:
        body, _ = stream(b"one", b"two", RequestTimeout("too slow"))
        assert (body.touched, body.pending) == (False, False)
        await body.peek(2)
        assert (body.touched, body.pending) == (False, False)
        await body.chunk()
        await body.chunk()
        assert (body.touched, body.pending) == (True, False)
        with pytest.raises(RequestTimeout):
            await body.chunk()
        assert body.pending

    asyncio.run(main())


def test_a_reader_that_was_cancelled_has_the_piece_awaited_for_good() -> None:
    class Never(Pieces):
        async def read(self) -> bytes:
            await asyncio.get_running_loop().create_future()
            raise AssertionError

    async def main() -> None:
        body = Body.stream(Never([]), None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await body.chunk()
        assert (body.touched, body.pending) == (True, True)

    asyncio.run(main())
