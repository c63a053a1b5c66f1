from __future__ import annotations

import asyncio
import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.errors import AnswerTooLarge, BodyTooLarge, BodyTruncated, MalformedContent, MalformedResponse
from portico.http import coding
from portico.http.body import Body
from portico.http.coding import SLICE, decoded, encode_at_once, encoded
from portico.http.headers import Headers
from tests.harness.policy import Pieces, rest

LEVELS = {"gzip": (1, 2, 3, 4, 6), "br": (0, 4), "zstd": (1, 3)}
ENCODINGS = [(name, level) for name, levels in LEVELS.items() for level in levels]


def unbrotli(decompressor: brotli.Decompressor) -> Callable[[bytes], bytes]:
    """Return what feeds a decompressor, and asks it until it has no more to give."""

    def feed(data: bytes) -> bytes:
        pieces = [decompressor.process(data)]
        while pieces[-1] and not decompressor.is_finished():
            pieces.append(decompressor.process(b""))
        return b"".join(pieces)

    return feed


class Oracle:
    """Another decoder, of one stream, that gives what it can as soon as it can."""

    def __init__(self, name: str) -> None:
        if name == "gzip":
            self._feed = zlib.decompressobj(31).decompress
        elif name == "br":
            self._feed = unbrotli(brotli.Decompressor())
        else:
            self._feed = zstandard.ZstdDecompressor().decompressobj().decompress

    def __call__(self, data: bytes) -> bytes:
        return self._feed(data) if data else b""


BY_OTHERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


def split(content: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    return [content[begin:end] for begin, end in pairwise(edges)]


class Text(NamedTuple):
    """Content that is told in few words."""

    part: bytes
    times: int

    @property
    def content(self) -> bytes:
        return self.part * self.times


CONTENT = st.one_of(
    st.builds(Text, st.binary(max_size=500), st.just(1)),
    st.builds(Text, st.binary(min_size=1, max_size=40), st.integers(0, 9000)),
)
CUTS = st.lists(st.integers(0, 400_000), max_size=8)


@pytest.mark.parametrize(("name", "level"), ENCODINGS)
@given(text=CONTENT, cuts=CUTS, known=st.booleans())
@settings(max_examples=40, deadline=None)
def test_each_piece_is_decodable_as_soon_as_it_has_come(
    name: str, level: int, text: Text, cuts: list[int], known: bool
) -> None:
    content = text.content

    async def main() -> None:
        pieces = split(content, cuts)
        body = encoded(Body.stream(Pieces(pieces), len(content) if known else None), name, level)
        oracle = Oracle(name)
        assert body.length is None
        seen = b""
        for number in range(len(pieces)):
            due = b"".join(pieces[: number + 1])
            while len(seen) < len(due):  # large pieces come in slices
                seen += oracle(await body.chunk())
            assert seen == due
        assert seen + oracle(await rest(body)) == content
        assert await body.chunk() == b""

    asyncio.run(main())


@pytest.mark.parametrize(("name", "level"), ENCODINGS)
@pytest.mark.parametrize("size", [0, 1, 1000, SLICE, SLICE + 1, 5 * SLICE + 7])
def test_whole_content(name: str, level: int, size: int) -> None:
    content = random.Random(7).randbytes(300) * (size // 300 + 1)
    content = content[:size]
    assert Oracle(name)(encode_at_once(name, level)(content)) == content
    assert Oracle(name)(asyncio.run(rest(encoded(Body(content), name, level)))) == content


def test_large_content_is_worked_on_in_slices_between_which_others_run() -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(other())
            await rest(encoded(Body(b"x" * 20 * SLICE), "gzip", 2))
            assert turns >= 18
            turns = 0
            await rest(decoded(Body.stream(Pieces([gzip.compress(b"x" * 20 * SLICE)]), None), ["gzip"]))
            assert turns >= 18
            task.cancel()

    asyncio.run(main())


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_empty_members_give_nothing_but_others_run_between_them(name: str) -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        content = encode_at_once(name, 1)(b"") * 1000
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(other())
            for body in (Body(content), Body.stream(Pieces([content]), None)):
                turns = 0
                assert await rest(decoded(body, [name])) == b""
                assert turns >= 900
            task.cancel()

    asyncio.run(main())


def test_an_error_of_the_source_passes_through_and_never_looks_like_the_end() -> None:
    async def main() -> None:
        failing = Pieces([b"begun", BodyTruncated("gone")])
        body = encoded(Body.stream(failing, None), "gzip", 2)
        assert Oracle("gzip")(await body.chunk()) == b"begun"
        with pytest.raises(BodyTruncated, match="gone"):
            await body.chunk()
        source = body._source
        assert isinstance(source, coding._EncodedContent)
        assert source._encoder is None
        with pytest.raises(BodyTruncated):
            await body.chunk()
        body.close()
        assert failing.closed

    asyncio.run(main())


@pytest.mark.parametrize("length", [4, 6])
def test_content_of_another_length_than_it_says_is_no_whole_answer(length: int) -> None:
    async def main() -> None:
        body = encoded(Body.stream(Pieces([b"12345"]), length), "gzip", 2)
        with pytest.raises(BodyTruncated):
            await rest(body)

    asyncio.run(main())


def test_closing_early_closes_the_source() -> None:
    async def main() -> None:
        for make in (lambda body: encoded(body, "br", 4), lambda body: decoded(body, ["br"])):
            source = Pieces([brotli.compress(b"abc"), b"more"])
            body = make(Body.stream(source, None))
            await body.chunk()
            body.close()
            assert source.closed == 1
            with pytest.raises(BodyTruncated):
                await body.chunk()

    asyncio.run(main())


def test_trailers_pass_but_for_digests() -> None:
    async def main() -> None:
        trailers = [(b"Content-Digest", b"x"), (b"X-Count", b"3"), (b"Repr-Digest", b"x")]
        for content in (b"abc", b""):
            body = encoded(Body.stream(Pieces([content] if content else [], list(trailers)), None), "zstd", 3)
            assert Oracle("zstd")(await rest(body)) == content
            assert body.trailers() == [(b"X-Count", b"3")]
        body = decoded(Body.stream(Pieces([gzip.compress(b"abc")], list(trailers)), None), ["gzip"])
        assert await rest(body) == b"abc"
        assert body.trailers() == [(b"X-Count", b"3")]

    asyncio.run(main())


# Decoding


def bare_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


@pytest.mark.parametrize("name", [*BY_OTHERS, "bare deflate"])
@given(text=CONTENT, cuts=CUTS)
@settings(max_examples=60, deadline=None)
def test_what_others_have_encoded(name: str, text: Text, cuts: list[int]) -> None:
    content = text.content

    async def main() -> None:
        data = bare_deflate(content) if name == "bare deflate" else BY_OTHERS[name](content)
        names = [name.rpartition(" ")[2]]
        assert await rest(decoded(Body.stream(Pieces(split(data, cuts)), None), names)) == content
        assert await rest(decoded(Body(data), names)) == content

    asyncio.run(main())


@pytest.mark.parametrize("name", BY_OTHERS)
@pytest.mark.parametrize("more", range(-2, 3))
def test_output_that_just_fills_a_step(name: str, more: int) -> None:
    for size in (SLICE, 98_272, 98_280, 2 * SLICE, 3 * SLICE):
        data = BY_OTHERS[name](bytes(size + more))
        assert asyncio.run(rest(decoded(Body.stream(Pieces([data]), None), [name]))) == bytes(size + more)


def test_small_whole_content_stays_whole() -> None:
    assert decoded(Body(gzip.compress(b"abc")), ["gzip"]).whole == b"abc"
    assert decoded(Body(b""), ["gzip"]).whole == b""
    assert decoded(Body(gzip.compress(bytes(coding.AT_ONCE))), ["gzip"]).whole == bytes(coding.AT_ONCE)
    assert decoded(Body(gzip.compress(bytes(coding.AT_ONCE + 1))), ["gzip"]).whole is None


def test_several_codings_are_undone_from_the_last_to_the_first() -> None:
    data = brotli.compress(gzip.compress(b"abc" * 1000))
    assert decoded(Body(data), ["gzip", "br"]).whole == b"abc" * 1000
    body = decoded(Body.stream(Pieces([data[:7], data[7:]]), None), ["gzip", "br"])
    assert asyncio.run(rest(body)) == b"abc" * 1000


@pytest.mark.parametrize("name", ["gzip", "zstd"])
@given(parts=st.lists(st.binary(max_size=50), min_size=1, max_size=4), cuts=CUTS)
@settings(max_examples=40, deadline=None)
def test_streams_one_after_the_other(name: str, parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(BY_OTHERS[name], parts))
    assert asyncio.run(rest(decoded(Body.stream(Pieces(split(data, cuts)), None), [name]))) == b"".join(parts)
    assert decoded(Body(data), [name]).whole == b"".join(parts)


@pytest.mark.parametrize("name", BY_OTHERS)
@given(cut=st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_what_breaks_off(name: str, cut: int) -> None:
    data = BY_OTHERS[name](random.Random(3).randbytes(400))
    with pytest.raises(MalformedContent):
        asyncio.run(rest(decoded(Body.stream(Pieces([data[:-cut]]), None), [name])))
    with pytest.raises(MalformedContent):
        decoded(Body(data[:-cut]), [name])


@pytest.mark.parametrize("name", BY_OTHERS)
@pytest.mark.parametrize("garbage", [b"x", b"\0" * 20, b"plain text, not compressed at all, and long enough"])
def test_what_is_not_what_it_says(name: str, garbage: bytes) -> None:
    for data in (garbage, BY_OTHERS[name](b"abc") + garbage):
        for body in (Body(data), Body.stream(Pieces([data[:3], data[3:]]), None)):
            with pytest.raises(MalformedContent):
                asyncio.run(rest(decoded(body, [name])))


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_wrong_checksum_is_told(name: str) -> None:
    data = bytearray(BY_OTHERS[name](b"hello, world"))
    data[-5 if name == "gzip" else -1] ^= 1
    with pytest.raises(MalformedContent):
        decoded(Body(bytes(data)), [name])


@pytest.mark.parametrize("name", BY_OTHERS)
@given(data=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_no_bytes_do_worse_than_to_be_refused(name: str, data: bytes) -> None:
    for body in (Body(data), Body.stream(Pieces([data] if data else []), None)):
        with suppress(MalformedContent):
            asyncio.run(rest(decoded(body, [name])))


def test_an_answer_that_is_not_what_it_says_is_the_services_fault() -> None:
    body = Body.stream(Pieces([b"not gzip at all"]), None)
    body.of_answer = True
    made = decoded(body, ["gzip"])
    assert made.of_answer
    with pytest.raises(MalformedResponse):
        asyncio.run(rest(made))


def test_a_zstd_window_beyond_what_is_allowed_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=25)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(random.Random(1).randbytes(100)) + compressor.flush()
    with pytest.raises(MalformedContent):
        decoded(Body(data), ["zstd"])


GIB = 1 << 30


def zeros() -> Iterator[bytes]:
    piece = bytes(1 << 20)
    return (piece for _ in range(GIB >> 20))


def bomb(name: str) -> bytes:
    """Return a GiB of zeros, compressed."""
    if name == "br":
        compressor = brotli.Compressor(quality=1)
        return b"".join([*map(compressor.process, zeros()), compressor.finish()])
    if name == "zstd":
        zstd = zstandard.ZstdCompressor(level=1).compressobj(size=GIB)
        return b"".join([*map(zstd.compress, zeros()), zstd.flush()])
    # A block ends in a full flush and can be repeated, so that the bomb is quickly made.
    deflater = zlib.compressobj(1, wbits=-15)
    block = deflater.compress(bytes(16 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    end = deflater.flush(zlib.Z_FINISH)
    body = block * (GIB >> 24) + end
    if name == "deflate":
        return b"\x78\x01" + body + zlib.adler32(b"").to_bytes(4, "big")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + bytes(8)


@pytest.mark.parametrize("name", BY_OTHERS)
def test_a_bomb_of_one_gibibyte_does_no_harm(name: str) -> None:
    data = bomb(name)

    async def main() -> None:
        for body in (Body.stream(Pieces([data]), None), Body(data)):
            made = decoded(body, [name])
            made.restrict(10 << 20)
            with pytest.raises(BodyTooLarge):
                await rest_unkept(made)
        twice = decoded(Body(BY_OTHERS["gzip"](data)), [name, "gzip"])
        twice.restrict(10 << 20)
        with pytest.raises(BodyTooLarge):
            await rest_unkept(twice)

    tracemalloc.start()
    before = resident()
    asyncio.run(main())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(data) + (16 << 20)
    assert resident() - before < 3 * len(data) + (40 << 20)


async def rest_unkept(body: Body) -> None:
    while piece := await body.chunk():
        assert len(piece) <= 2 * SLICE  # brotli's buffer grows by doubling


def resident() -> int:
    """Return the most memory that this process ever had, in bytes."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def test_an_answer_that_becomes_too_large() -> None:
    body = Body.stream(Pieces([gzip.compress(bytes(1000))]), None)
    body.of_answer = True
    made = decoded(body, ["gzip"])
    made.restrict(999)
    with pytest.raises(AnswerTooLarge):
        asyncio.run(rest(made))


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("gzip", ["gzip"]),
        ("GZip , br", ["gzip", "br"]),
        ("x-gzip", ["gzip"]),
        ("identity", []),
        ("", []),
        ("identity, gzip,,", ["gzip"]),
        ("snappy", ["snappy"]),
    ],
)
def test_the_codings_of_content(value: str, names: list[str]) -> None:
    assert coding.codings_of(Headers([(b"Content-Encoding", value.encode())])) == names


def test_what_headers_said_of_the_content_before() -> None:
    headers = Headers([(b"Content-Length", b"5"), (b"ETag", b'"a"'), (b"Accept-Ranges", b"bytes"), (b"X", b"y")])
    for name in coding.DIGESTS:
        headers.add(name.title(), b"x")
    coding.recoded(headers)
    assert headers.pairs == [(b"X", b"y"), (b"ETag", b'W/"a"')]
    coding.recoded(headers)
    assert headers.get(b"etag") == b'W/"a"'
