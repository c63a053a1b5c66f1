"""Content codings (RFC 9110 section 8.4): the one place where content is compressed and decompressed.

Whatever streams is worked on in slices, and between two of them others have the loop. Nothing here holds more than a
slice of what goes in, a slice of what comes out, and what a codec keeps for itself: its window.
"""

from __future__ import annotations

import re
import sys
import types
import zlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Protocol

import brotli
from isal import igzip_lib, isal_zlib

from portico.errors import BodyTruncated, MalformedContent, MalformedResponse, PorticoError, Source
from portico.http.body import Body, Trailers
from portico.http.headers import Headers
from portico.http.negotiation import CODING_ALIASES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SLICE: Final = 64 * 1024
"""Bytes that go in, or come out, in one step: a quarter of a millisecond of work for gzip, two for brotli."""
AT_ONCE: Final = 256 * 1024
"""Bytes that small content may become, and still be decoded in one go."""
MEMBERS_AT_ONCE: Final = 64
"""Members that small content may consist of, and still be decoded in one go: empty ones cost time, and give nothing."""
MAX_CODINGS: Final = 3
"""Codings that content may have, one upon the other; nobody needs two."""
MAX_WINDOW_LOG: Final = 23
"""A sender may make a zstd decoder hold 8 MiB, and no more (RFC 9659)."""
_STREAM_WINDOW_LOG: Final = 19

DIGESTS: Final = (b"content-md5", b"digest", b"content-digest", b"repr-digest")
"""Fields that vouch for the bytes of content as they were coded (RFC 9530)."""


class Encoder(Protocol):
    """Compresses one stream."""

    def encode(self, data: bytes) -> bytes:
        """Take `data`, and return what is ready to go out, which may be nothing."""
        ...

    def flush(self) -> bytes:
        """Return what makes everything taken so far decodable."""
        ...

    def finish(self) -> bytes:
        """Return the rest."""
        ...


class Decoder(Protocol):
    """Decompresses one stream, by at most `max_length` bytes at a time; the standard library's own interface."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out without more going in."""
        ...

    @property
    def eof(self) -> bool:
        """Whether the end of the stream has been seen."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came after that end."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Take `data`, which must be empty unless `needs_input`, and return at most `max_length` bytes."""
        ...


class _Deflater:
    """gzip, by whichever library has the level: both have the interface of zlib."""

    __slots__ = ("_compressor",)

    def __init__(self, level: int) -> None:
        library: Any = isal_zlib if level <= _ISAL_LEVELS else zlib
        self._compressor = library.compressobj(level, wbits=31)

    def encode(self, data: bytes) -> bytes:
        taken: bytes = self._compressor.compress(data)
        return taken

    def flush(self) -> bytes:
        flushed: bytes = self._compressor.flush(zlib.Z_SYNC_FLUSH)
        return flushed

    def finish(self) -> bytes:
        rest: bytes = self._compressor.flush(zlib.Z_FINISH)
        return rest


_ISAL_LEVELS: Final = 3


class _Brotli:
    __slots__ = ("_compressor",)

    def __init__(self, level: int) -> None:
        self._compressor = brotli.Compressor(quality=level, lgwin=_STREAM_WINDOW_LOG)

    def encode(self, data: bytes) -> bytes:
        taken: bytes = self._compressor.process(data)
        return taken

    def flush(self) -> bytes:
        flushed: bytes = self._compressor.flush()
        return flushed

    def finish(self) -> bytes:
        rest: bytes = self._compressor.finish()
        return rest


class _Zstd:
    __slots__ = ("_compressor",)

    def __init__(self, level: int) -> None:
        parameter = zstd.CompressionParameter
        self._compressor = zstd.ZstdCompressor(
            options={parameter.compression_level: level, parameter.window_log: _STREAM_WINDOW_LOG}
        )

    def encode(self, data: bytes) -> bytes:
        return self._compressor.compress(data)

    def flush(self) -> bytes:
        return self._compressor.flush(zstd.ZstdCompressor.FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME)


class _Unbrotli:
    """Gives brotli's decompressor the interface that the others have."""

    __slots__ = ("_decompressor", "_has_more", "unused_data")

    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()
        self._has_more = False
        self.unused_data = b""  # what follows the end is an error of the decompressor's own

    @property
    def needs_input(self) -> bool:
        # It would take more as soon as it has consumed all input, even while it still has output to give; and it gives
        # that in pieces that may be smaller than the limit. Only an empty one says that there is no more.
        return not self._has_more and bool(self._decompressor.can_accept_more_data())

    @property
    def eof(self) -> bool:
        return bool(self._decompressor.is_finished())

    def decompress(self, data: bytes, max_length: int) -> bytes:
        output: bytes = self._decompressor.process(data, output_buffer_limit=max_length)
        self._has_more = bool(output)
        return output


class _Inflater:
    """`deflate`: the zlib format, or as many senders have understood it, the bare one (RFC 9110 section 8.4.1.2)."""

    __slots__ = ("_begun", "_decompressor")

    def __init__(self) -> None:
        self._decompressor: Decoder | None = None
        self._begun = b""

    @property
    def needs_input(self) -> bool:
        return self._decompressor is None or self._decompressor.needs_input

    @property
    def eof(self) -> bool:
        return self._decompressor is not None and self._decompressor.eof

    @property
    def unused_data(self) -> bytes:
        return b"" if self._decompressor is None else self._decompressor.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._decompressor is None:
            data = self._begun + data
            if len(data) < 2:
                self._begun = data
                return b""
            # The header of the zlib format (RFC 1950 section 2.2); bare deflate cannot begin so by any usual encoder.
            has_header = data[0] & 15 == 8 and (data[0] * 256 + data[1]) % 31 == 0
            self._decompressor = igzip_lib.IgzipDecompressor(
                igzip_lib.DECOMP_ZLIB if has_header else igzip_lib.DECOMP_DEFLATE
            )
        return self._decompressor.decompress(data, max_length)


def _gunzip() -> Decoder:
    return igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)


def _unzstd() -> Decoder:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG})


_ENCODERS: Final[dict[str, Callable[[int], Encoder]]] = {"gzip": _Deflater, "br": _Brotli, "zstd": _Zstd}
_DECODERS: Final[dict[str, Callable[[], Decoder]]] = {
    "gzip": _gunzip,
    "deflate": _Inflater,
    "br": _Unbrotli,
    "zstd": _unzstd,
}
_AS_IT_IS: Final = frozenset((204, 205, 206, 304))
_NO_TRANSFORM: Final = re.compile(rb"(?:^|[ \t,])no-transform(?:$|[ \t,])", re.IGNORECASE)
_MEMBERS: Final = frozenset(("gzip", "zstd"))
"""Codings whose streams may follow each other, and count as one."""
_BROKEN: Final[Any] = (
    zlib.error,
    brotli.error,
    zstd.ZstdError,
    igzip_lib.error,
    isal_zlib.error,
)

DECODABLE: Final = tuple(_DECODERS)
"""The codings that can be undone."""


@types.coroutine
def _let_others_run() -> Generator[None, None, None]:
    """Wait until the next turn of the loop, as `asyncio.sleep(0)` does."""
    yield


def encode_at_once(coding: str, level: int) -> Callable[[bytes], bytes]:
    """Return what compresses small content, all of it in one call."""
    if coding == "gzip":
        library: Any = isal_zlib if level <= _ISAL_LEVELS else zlib
        return lambda content: library.compress(content, level, wbits=31)
    if coding == "br":
        return lambda content: brotli.compress(content, quality=level, lgwin=_STREAM_WINDOW_LOG)
    compressor = zstd.ZstdCompressor(level)  # to make one costs as much as to compress a kilobyte
    return lambda content: compressor.compress(content, zstd.ZstdCompressor.FLUSH_FRAME)


def encoded(body: Body, coding: str, level: int) -> Body:
    """Return `body` with a coding upon it. Whatever comes in leaves with the next read: nothing waits for more."""
    return _successor(body, _EncodedContent(body, _ENCODERS[coding](level)))


def codings_of(headers: Headers) -> list[str]:
    """Return the codings of content, in the order in which they were applied; names are in lower case."""
    values = b",".join(headers.get_all(b"content-encoding")).decode("latin-1").lower().split(",")
    names = [CODING_ALIASES.get(name, name) for name in map(str.strip, values)]
    return [name for name in names if name and name != "identity"]


def decoded(body: Body, codings: Sequence[str]) -> Body:
    """Return `body` without `codings`, all of them DECODABLE, the one undone first being the last.

    Whoever reads it gets MalformedContent, for an answer MalformedResponse, where the content is not what it says. How
    large it may become is for `Body.restrict` to say.
    """
    whole = body.whole
    if whole is not None:
        content = _decode_at_once(whole, codings, body) if len(whole) <= SLICE else None
        if content is not None:
            return Body(content)
    for coding in reversed(codings):
        body = _successor(body, _DecodedContent(body, coding))
    return body


def may_be_recoded(status: int, headers: Headers) -> bool:
    """Whether an answer may go on with other codings: it is a whole one, with content, and its service allows it.

    The service may forbid any change by `no-transform` (RFC 9111 section 5.2.2.6).
    """
    if status < 200 or status in _AS_IT_IS or b"content-range" in headers.index:
        return False
    if b"cache-control" not in headers.index:
        return True
    return all(_NO_TRANSFORM.search(value) is None for value in headers.get_all(b"cache-control"))


def recoded(headers: Headers) -> None:
    """Take back what the headers said of content whose coding is another now: length, digests, ranges, strong ETag."""
    for name in (b"content-length", b"accept-ranges", *DIGESTS):
        if name in headers.index:
            headers.remove(name)
    etag = headers.index.get(b"etag")
    if etag is not None and not etag.startswith(b"W/"):  # other bytes, same meaning (RFC 9110 section 8.8.3)
        headers.set(b"ETag", b"W/" + etag)


def _successor(body: Body, source: _EncodedContent | _DecodedContent) -> Body:
    other = Body.stream(source, None)
    other.of_answer = body.of_answer
    return other


def _decode_at_once(content: bytes, codings: Sequence[str], body: Body) -> bytes | None:
    """Return small content without its codings, or None where it is too much to be decoded in one go."""
    for coding in reversed(codings):
        if not content:
            break
        steps = _Steps(coding)
        try:
            steps.feed(content)
            pieces = []
            left = AT_ONCE
            while (piece := steps.step()) is not None:
                left -= len(piece)
                if left < 0 or steps.members > MEMBERS_AT_ONCE:
                    return None
                pieces.append(piece)
            steps.check_end()
        except _BROKEN as error:
            raise _not_what_it_says(body, coding) from error
        content = b"".join(pieces)
    return content


def _not_what_it_says(body: Body, coding: str) -> PorticoError:
    if body.of_answer:
        return MalformedResponse(f"the content is not valid {coding}", source=Source.RESPONSE)
    return MalformedContent(f"The content is not valid {coding}.")


class _Steps:
    """Decodes step by step, over the members of which some codings' streams are made."""

    __slots__ = ("_coding", "_decoder", "_fresh", "_input", "members")

    def __init__(self, coding: str) -> None:
        self.members = 1
        self._coding = coding
        self._decoder = _DECODERS[coding]()
        self._fresh = True
        self._input = b""

    def feed(self, data: bytes) -> None:
        """Take more input; only once `step` has returned None."""
        self._input = data

    def step(self) -> bytes | None:
        """Return up to SLICE bytes, perhaps none; or None where more input is needed."""
        decoder = self._decoder
        if decoder.eof:
            # What is left over of the last input begins another member.
            self._input = decoder.unused_data + self._input
            if not self._input:
                return None
            if self._coding not in _MEMBERS:
                raise zlib.error("there is more after the end")
            decoder = self._decoder = _DECODERS[self._coding]()
            self._fresh = True
            self.members += 1
        data = b""
        if decoder.needs_input:
            if not self._input:
                return None
            data, self._input = self._input, b""
            self._fresh = False
        return decoder.decompress(data, SLICE)

    def check_end(self) -> None:
        """Raise where the input has ended before the stream has."""
        if not self._decoder.eof and not self._fresh:
            raise zlib.error("it breaks off")


class _DecodedContent:
    """Content without its last coding."""

    __slots__ = ("_body", "_coding", "_complete", "_pieces", "_steps")

    def __init__(self, body: Body, coding: str) -> None:
        self._body = body
        self._coding = coding
        self._complete = False
        self._steps: _Steps | None = _Steps(coding)
        self._pieces = _Pieces(body)

    async def read(self) -> bytes:
        """Return the next piece, or b"" at the end."""
        steps = self._steps
        if steps is None:
            return _end(self._complete)
        self._steps = None  # whatever goes wrong, nobody takes what has come for the whole
        while True:
            try:
                piece = steps.step()
                if piece is not None:
                    await _let_others_run()  # after an empty one, too: thousands of empty members fit into a slice
                    if piece:
                        self._steps = steps
                        return piece
                else:
                    data = await self._pieces.next()
                    if not data:
                        steps.check_end()
                        self._complete = True
                        return b""
                    steps.feed(data)
            except _BROKEN as error:
                raise _not_what_it_says(self._body, self._coding) from error

    def trailers(self) -> Trailers:
        """Return the trailer fields."""
        return _without_digests(self._body.trailers())

    def close(self) -> None:
        """Give up the rest, and free the decoder."""
        self._steps = None
        self._body.close()


class _EncodedContent:
    """Content with a coding upon it."""

    __slots__ = ("_body", "_complete", "_encoder", "_left", "_pieces")

    def __init__(self, body: Body, encoder: Encoder) -> None:
        self._body = body
        self._complete = False
        self._encoder: Encoder | None = encoder
        self._left = body.length
        self._pieces = _Pieces(body)

    async def read(self) -> bytes:
        """Return the next piece, or b"" at the end."""
        encoder = self._encoder
        if encoder is None:
            return _end(self._complete)
        self._encoder = None  # whatever goes wrong, nobody takes what has come for the whole
        while True:
            data = await self._pieces.next()
            if self._left is not None:
                self._left -= len(data)
                if self._left < 0 or (self._left and not data):
                    raise BodyTruncated("the answer has not the length that it says")
            if not data or self._left == 0:
                self._complete = True
                return (encoder.encode(data) if data else b"") + encoder.finish()
            out = encoder.encode(data)
            if not self._pieces.at_hand:
                out += encoder.flush()
            if out:
                self._encoder = encoder
                return out

    def trailers(self) -> Trailers:
        """Return the trailer fields."""
        return _without_digests(self._body.trailers())

    def close(self) -> None:
        """Give up the rest, and free the encoder."""
        self._encoder = None
        self._body.close()


def _end(complete: bool) -> bytes:
    """Return the end of content, unless it was given up before."""
    if not complete:
        raise BodyTruncated("the content was given up")
    return b""


class _Pieces:
    """A body in slices of bounded size; between those of one piece, others have the loop."""

    __slots__ = ("_body", "_given", "_piece")

    def __init__(self, body: Body) -> None:
        self._body = body
        self._piece = body.whole or b""
        self._given = 0

    @property
    def at_hand(self) -> bool:
        """Whether the next slice is there already."""
        return self._given < len(self._piece)

    async def next(self) -> bytes:
        """Return the next slice, or b"" at the end."""
        if not self.at_hand:
            if self._body.whole is not None:
                self._piece = b""
                return b""
            self._piece = await self._body.chunk()
            self._given = 0
        elif self._given:
            await _let_others_run()
        if not self._given and len(self._piece) <= SLICE:
            self._given = len(self._piece)
            return self._piece
        begin = self._given
        self._given += SLICE
        return self._piece[begin : begin + SLICE]


def _without_digests(trailers: Trailers) -> Trailers:
    return [(name, value) for name, value in trailers if name.lower() not in DIGESTS]
