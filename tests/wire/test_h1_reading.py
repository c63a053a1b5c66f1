"""What bytes mean: each row is read whole, byte by byte, and in random pieces, and must mean the same each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.errors import (
    BodyTruncated,
    HeadTooLarge,
    MalformedRequest,
    MalformedResponse,
    NotImplementedByUs,
    PorticoError,
    TargetTooLong,
    VersionNotSupported,
)
from portico.wire.events import Data, RequestHead, ResponseHead
from portico.wire.framing import MAX_CHUNK_LINE, MAX_TRAILERS
from portico.wire.h1 import RequestReader, ResponseReader

HEAD_LIMIT = 512
MAX_FIELDS = 8
TARGET_LIMIT = 64

Pairs = list[tuple[bytes, bytes]]


class Message(NamedTuple):
    """One message as it was read: its start line, then what its head says of its framing, then its content."""

    start: tuple[object, ...]
    pairs: Pairs
    length: int | None
    keep_alive: bool
    expects: bool = False
    content: bytes = b""
    trailers: Pairs = []  # noqa: RUF012 - never changed


Read = list[Message | type[PorticoError] | bytes]
"""The messages, then either the error that ended the reading, or the bytes that were left."""


def _requests(pieces: Sequence[bytes]) -> Read:
    reader = RequestReader(HEAD_LIMIT, MAX_FIELDS, TARGET_LIMIT)

    def message(head: RequestHead | ResponseHead) -> Message:
        assert isinstance(head, RequestHead)
        start = (head.method, head.target, head.minor)
        return Message(start, head.headers.pairs, head.length, head.keep_alive, head.expects_continue)

    return _drive(reader, reader.next_head, message, pieces)


def _responses(method: str) -> Callable[[Sequence[bytes]], Read]:
    def read(pieces: Sequence[bytes]) -> Read:
        reader = ResponseReader(HEAD_LIMIT, MAX_FIELDS)

        def message(head: RequestHead | ResponseHead) -> Message:
            assert isinstance(head, ResponseHead)
            return Message((head.status,), head.headers.pairs, head.length, reader.keep_alive)

        return _drive(reader, lambda: reader.next_head(method), message, pieces)

    return read


def _drive(
    reader: RequestReader | ResponseReader,
    next_head: Callable[[], RequestHead | ResponseHead | None],
    message: Callable[[RequestHead | ResponseHead], Message],
    pieces: Sequence[bytes],
) -> Read:
    found: Read = []
    try:
        for piece in (*pieces, b""):
            reader.receive(piece)
            while True:
                if reader.done:
                    if not reader.pending:
                        break
                    head = next_head()
                    if head is None:
                        break
                    found.append(message(head))
                else:
                    event = reader.next_content()
                    if event is None:
                        break
                    last = found[-1]
                    assert isinstance(last, Message)
                    if isinstance(event, Data):
                        assert event.data or event.last
                        found[-1] = last._replace(content=last.content + event.data)
                    else:
                        assert reader.done
                        found[-1] = last._replace(trailers=event.trailers)
    except PorticoError as error:
        # How much of the content went by before the error depends on the pieces; the error does not.
        found = [
            part._replace(content=b"") if isinstance(part, Message) and part is found[-1] else part for part in found
        ]
        return [*found, type(error)]
    return [*found, reader.pending] if reader.pending else found


def _in_pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *cuts})
    return [data[start:end] for start, end in pairwise(bounds)]


def _check(read: Callable[[Sequence[bytes]], Read], data: bytes, expected: Read) -> None:
    assert read([data]) == expected
    assert read([data[at : at + 1] for at in range(len(data))]) == expected

    @settings(max_examples=15, deadline=None, database=None)
    @given(st.lists(st.integers(0, len(data)), max_size=12))
    def in_random_pieces(cuts: list[int]) -> None:
        assert read(_in_pieces(data, cuts)) == expected

    in_random_pieces()


def get(*pairs: tuple[bytes, bytes], target: bytes = b"/", minor: int = 1, keep_alive: bool = True) -> Message:
    return Message(("GET", target, minor), list(pairs), 0, keep_alive)


def post(*pairs: tuple[bytes, bytes], length: int | None, content: bytes, trailers: Pairs | None = None) -> Message:
    return Message(("POST", b"/", 1), list(pairs), length, keep_alive=True, content=content, trailers=trailers or [])


HOST = (b"Host", b"a")
CHUNKED = (b"Transfer-Encoding", b"chunked")
POST_CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
POST_FIVE = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"
FIVE = (b"Content-Length", b"5")


def chunked(content: bytes, trailers: Pairs | None = None) -> Message:
    return post(CHUNKED, length=None, content=content, trailers=trailers)


def cut_off(length: int | None, pair: tuple[bytes, bytes]) -> Message:
    """Return a POST of whose content only the head counts."""
    return post(pair, length=length, content=b"")


REQUESTS: dict[str, tuple[bytes, Read]] = {
    # Heads.
    "a request without fields": (b"GET / HTTP/1.1\r\n\r\n", [get()]),
    "a request with a field": (b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", [get(HOST, target=b"/a?b=c")]),
    "names keep their case, and order counts": (
        b"GET / HTTP/1.1\r\nb: 1\r\nA: 2\r\nB: 3\r\n\r\n",
        [get((b"b", b"1"), (b"A", b"2"), (b"B", b"3"))],
    ),
    "white space around a value is not the value's": (
        b"GET / HTTP/1.1\r\nA: \t b c \t \r\nB:d\r\nC:\r\n\r\n",
        [get((b"A", b"b c"), (b"B", b"d"), (b"C", b""))],
    ),
    "a value may have bytes beyond ASCII": (b"GET / HTTP/1.1\r\nA: \x80\xff\r\n\r\n", [get((b"A", b"\x80\xff"))]),
    "the asterisk form": (b"OPTIONS * HTTP/1.1\r\n\r\n", [Message(("OPTIONS", b"*", 1), [], 0, keep_alive=True)]),
    "the absolute form": (b"GET http://a/b HTTP/1.1\r\n\r\n", [get(target=b"http://a/b")]),
    "the authority form": (
        b"CONNECT a:443 HTTP/1.1\r\n\r\n",
        [Message(("CONNECT", b"a:443", 1), [], 0, keep_alive=True)],
    ),
    "a method of WebDAV": (b"PROPFIND / HTTP/1.1\r\n\r\n", [Message(("PROPFIND", b"/", 1), [], 0, keep_alive=True)]),
    "a request to upgrade is read as any other": (
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nA: b\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        [
            get((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"A", b"b")),
            get(target=b"/2"),
        ],
    ),
    "the content of a request to upgrade is content, not the next request": (
        (
            b"POST / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 22\r\n\r\n"
            b"GET /evil HTTP/1.1\r\n\r\n"
        ),
        [
            Message(
                ("POST", b"/", 1),
                [(b"Upgrade", b"h2c"), (b"Connection", b"Upgrade"), (b"Content-Length", b"22")],
                22,
                keep_alive=True,
                content=b"GET /evil HTTP/1.1\r\n\r\n",
            )
        ],
    ),
    "an empty line ahead of the request line": (b"\r\nGET / HTTP/1.1\r\n\r\n", [get()]),
    "two empty lines ahead of each of two requests": (
        b"\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        [get(), get()],
    ),
    "three empty lines": (b"\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", [MalformedRequest]),
    "a bare line feed ahead of the request line": (b"\nGET / HTTP/1.1\r\n\r\n", [MalformedRequest]),
    "an empty line that ends in a bare line feed": (b"\r\n\nGET / HTTP/1.1\r\n\r\n", [MalformedRequest]),
    "a head that is cut off": (b"GET / HTTP/1.1\r\nHost: a\r\n", [MalformedRequest]),
    "an empty connection": (b"", []),
    # Keeping the connection.
    "HTTP/1.0 closes": (b"GET / HTTP/1.0\r\n\r\n", [get(minor=0, keep_alive=False)]),
    "HTTP/1.0 stays on demand": (
        b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        [get((b"Connection", b"Keep-Alive"), minor=0)],
    ),
    "HTTP/1.1 stays": (b"GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n", [get((b"Connection", b"keep-alive"))]),
    "HTTP/1.1 closes on demand": (
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        [get((b"Connection", b"close"), keep_alive=False)],
    ),
    "close is found in a list, whatever its case": (
        b"GET / HTTP/1.1\r\nConnection: X-A ,\tCLOSE\r\n\r\n",
        [get((b"Connection", b"X-A ,\tCLOSE"), keep_alive=False)],
    ),
    "close is found in a second field": (
        b"GET / HTTP/1.1\r\nConnection: keep-alive\r\nconnection: close\r\n\r\n",
        [get((b"Connection", b"keep-alive"), (b"connection", b"close"), keep_alive=False)],
    ),
    "close beats keep-alive": (
        b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
        [get((b"Connection", b"keep-alive, close"), minor=0, keep_alive=False)],
    ),
    # Content of a known length.
    "content": (POST_FIVE + b"hello", [post(FIVE, length=5, content=b"hello")]),
    "no content, and said so": (
        b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        [post((b"Content-Length", b"0"), length=0, content=b"")],
    ),
    "a length with zeros ahead": (
        b"POST / HTTP/1.1\r\nContent-Length: 005\r\n\r\nhello",
        [post((b"Content-Length", b"005"), length=5, content=b"hello")],
    ),
    "a POST without content": (b"POST / HTTP/1.1\r\n\r\n", [post(length=0, content=b"")]),
    "a GET with content": (
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        [Message(("GET", b"/", 1), [FIVE], 5, keep_alive=True, content=b"hello")],
    ),
    "content that breaks off": (POST_FIVE + b"hell", [cut_off(5, FIVE), BodyTruncated]),
    "pipelined requests": (
        b"GET /1 HTTP/1.1\r\n\r\n"
        + POST_FIVE
        + b"hello"
        + POST_CHUNKED
        + b"3\r\nabc\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        [get(target=b"/1"), post(FIVE, length=5, content=b"hello"), chunked(b"abc"), get(target=b"/2")],
    ),
    "a pipelined request that is not HTTP": (
        POST_FIVE + b"helloworld\r\n\r\n",
        [post(FIVE, length=5, content=b""), MalformedRequest],
    ),
    # Chunked content (RFC 9112 section 7.1).
    "chunks": (POST_CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", [chunked(b"hello world")]),
    "no chunks": (POST_CHUNKED + b"0\r\n\r\n", [chunked(b"")]),
    "sizes in hexadecimal, either case, zeros ahead": (
        POST_CHUNKED + b"a\r\n0123456789\r\n0B\r\n0123456789a\r\n000\r\n\r\n",
        [chunked(b"01234567890123456789a")],
    ),
    "chunk extensions are passed over": (
        POST_CHUNKED + b'5;a\r\nhello\r\n1 ; b="c;d"\r\n!\r\n0;e=f\r\n\r\n',
        [chunked(b"hello!")],
    ),
    "chunks that hold line breaks": (POST_CHUNKED + b"4\r\n\r\n\r\n\r\n0\r\n\r\n", [chunked(b"\r\n\r\n")]),
    "trailers": (
        POST_CHUNKED + b"1\r\na\r\n0\r\nX-Sum:  1 2 \r\nY:\r\n\r\n",
        [chunked(b"a", [(b"X-Sum", b"1 2"), (b"Y", b"")])],
    ),
    "trailers that must not be trailers": (
        POST_CHUNKED
        + b"0\r\nHost: b\r\nContent-Length: 3\r\nX: y\r\nTransfer-Encoding: gzip\r\nAuthorization: z\r\n\r\n",
        [chunked(b"", [(b"X", b"y")])],
    ),
    "Transfer-Encoding in any case": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        [post((b"Transfer-Encoding", b"Chunked"), length=None, content=b"a")],
    ),
    "the longest chunk line": (
        POST_CHUNKED + b"1;" + b"x" * (MAX_CHUNK_LINE - 4) + b"\r\na\r\n0\r\n\r\n",
        [chunked(b"a")],
    ),
    "a longer chunk line": (
        POST_CHUNKED + b"1;" + b"x" * (MAX_CHUNK_LINE - 3) + b"\r\na\r\n0\r\n\r\n",
        [chunked(b""), MalformedRequest],
    ),
    "chunks that break off within one": (POST_CHUNKED + b"5\r\nhell", [chunked(b""), BodyTruncated]),
    "chunks that break off behind one": (POST_CHUNKED + b"5\r\nhello", [chunked(b""), BodyTruncated]),
    "chunks that break off before the last": (POST_CHUNKED + b"5\r\nhello\r\n", [chunked(b""), BodyTruncated]),
    "chunks that break off within the trailers": (POST_CHUNKED + b"0\r\nA: b\r\n", [chunked(b""), BodyTruncated]),
    "chunks that break off behind the last": (POST_CHUNKED + b"0\r\n", [chunked(b""), BodyTruncated]),
    "a chunk longer than its size": (POST_CHUNKED + b"4\r\nhello\r\n0\r\n\r\n", [chunked(b""), MalformedRequest]),
    "a chunk shorter than its size": (POST_CHUNKED + b"6\r\nhello\r\n0\r\n\r\n", [chunked(b""), MalformedRequest]),
    "a chunk that ends in a bare line feed": (POST_CHUNKED + b"1\r\na\n0\r\n\r\n", [chunked(b""), MalformedRequest]),
    "a chunk line that ends in a bare line feed": (
        POST_CHUNKED + b"1\na\r\n0\r\n\r\n",
        [chunked(b""), MalformedRequest],
    ),
    "a bare carriage return in a chunk extension": (
        POST_CHUNKED + b"1;a\rb\r\na\r\n0\r\n\r\n",
        [chunked(b""), MalformedRequest],
    ),
    "a chunk size with a sign": (POST_CHUNKED + b"+1\r\na\r\n0\r\n\r\n", [chunked(b""), MalformedRequest]),
    "a chunk size with 0x": (POST_CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", [chunked(b""), MalformedRequest]),
    "a chunk size with an underscore": (
        POST_CHUNKED + b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n",
        [chunked(b""), MalformedRequest],
    ),
    "a chunk size with a space ahead": (POST_CHUNKED + b" 1\r\na\r\n0\r\n\r\n", [chunked(b""), MalformedRequest]),
    "an empty chunk line": (POST_CHUNKED + b"\r\n1\r\na\r\n0\r\n\r\n", [chunked(b""), MalformedRequest]),
    "a chunk size beyond 64 bits": (POST_CHUNKED + b"1" + b"0" * 16 + b"\r\n", [chunked(b""), MalformedRequest]),
    "a trailer with a space before its colon": (
        POST_CHUNKED + b"0\r\nA : b\r\n\r\n",
        [chunked(b""), MalformedRequest],
    ),
    "a folded trailer": (POST_CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", [chunked(b""), MalformedRequest]),
    "a bare line feed in a trailer": (POST_CHUNKED + b"0\r\nA: b\nC: d\r\n\r\n", [chunked(b""), MalformedRequest]),
    # Whether the server must say that it waits.
    "Expect": (
        b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\na",
        [
            Message(
                ("POST", b"/", 1),
                [(b"Expect", b"100-Continue"), (b"Content-Length", b"1")],
                1,
                keep_alive=True,
                expects=True,
                content=b"a",
            )
        ],
    ),
    "HTTP/1.0 cannot expect": (
        b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
        [get((b"Expect", b"100-continue"), minor=0, keep_alive=False)],
    ),
    "what else is expected is passed over": (b"GET / HTTP/1.1\r\nExpect: x\r\n\r\n", [get((b"Expect", b"x"))]),
    # Limits.
    "the largest head": (
        b"GET / HTTP/1.1\r\nA: " + b"x" * (HEAD_LIMIT - 23) + b"\r\n\r\n",
        [get((b"A", b"x" * (HEAD_LIMIT - 23)))],
    ),
    "a larger head": (b"GET / HTTP/1.1\r\nA: " + b"x" * (HEAD_LIMIT - 22) + b"\r\n\r\n", [HeadTooLarge]),
    "a head without an end": (b"GET / HTTP/1.1\r\nA: " + b"x" * HEAD_LIMIT, [HeadTooLarge]),
    "the most fields": (
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * MAX_FIELDS + b"\r\n",
        [get(*[(b"A", b"b")] * MAX_FIELDS)],
    ),
    "more fields": (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n", [HeadTooLarge]),
    "the longest target": (
        b"GET /" + b"x" * (TARGET_LIMIT - 1) + b" HTTP/1.1\r\n\r\n",
        [get(target=b"/" + b"x" * (TARGET_LIMIT - 1))],
    ),
    "a longer target": (b"GET /" + b"x" * TARGET_LIMIT + b" HTTP/1.1\r\n\r\n", [TargetTooLong]),
    # What could be taken for one request by us and for another by a service.
    "Content-Length beside Transfer-Encoding": (
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        [MalformedRequest],
    ),
    "Transfer-Encoding beside Content-Length": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        [MalformedRequest],
    ),
    "Content-Length twice, different": (
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\nhello",
        [MalformedRequest],
    ),
    "Content-Length twice, alike": (
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\nhello",
        [MalformedRequest],
    ),
    "a list of lengths": (b"POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\nhello", [MalformedRequest]),
    "a length with a sign": (b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\nhello", [MalformedRequest]),
    "a negative length": (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\nhello", [MalformedRequest]),
    "an empty length": (b"POST / HTTP/1.1\r\nContent-Length:\r\n\r\nhello", [MalformedRequest]),
    "a length of words": (b"POST / HTTP/1.1\r\nContent-Length: five\r\n\r\nhello", [MalformedRequest]),
    "a length of nineteen digits": (
        b"POST / HTTP/1.1\r\nContent-Length: 1234567890123456789\r\n\r\n",
        [MalformedRequest],
    ),
    "a length beyond 64 bits": (
        b"POST / HTTP/1.1\r\nContent-Length: 123456789012345678901\r\n\r\n",
        [MalformedRequest],
    ),
    "Transfer-Encoding that does not end in chunked": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        [MalformedRequest],
    ),
    "Transfer-Encoding without chunked": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
        [MalformedRequest],
    ),
    "Transfer-Encoding in two fields that does not end in chunked": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        [MalformedRequest],
    ),
    "chunked twice": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", [MalformedRequest]),
    "what only looks like chunked": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        [MalformedRequest],
    ),
    "chunked behind a coding that is not known": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        [NotImplementedByUs],
    ),
    "Transfer-Encoding with HTTP/1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        [MalformedRequest],
    ),
    "a bare line feed behind the request line": (b"GET / HTTP/1.1\nA: b\r\n\r\n", [MalformedRequest]),
    "a bare line feed behind a field": (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", [MalformedRequest]),
    "a bare line feed at the end of the head": (b"GET / HTTP/1.1\r\nA: b\r\n\nC: d\r\n\r\n", [MalformedRequest]),
    "a bare carriage return in a value": (b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", [MalformedRequest]),
    "a folded field": (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", [MalformedRequest]),
    "a folded field without a field": (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", [MalformedRequest]),
    "a space before the colon": (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", [MalformedRequest]),
    "a field without a colon": (b"GET / HTTP/1.1\r\nA\r\n\r\n", [MalformedRequest]),
    "a field without a name": (b"GET / HTTP/1.1\r\n: b\r\n\r\n", [MalformedRequest]),
    "NUL in a value": (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", [MalformedRequest]),
    "NUL in a name": (b"GET / HTTP/1.1\r\nA\0: b\r\n\r\n", [MalformedRequest]),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\n\r\n", [MalformedRequest]),
    "DEL in a value": (b"GET / HTTP/1.1\r\nA: b\x7f\r\n\r\n", [MalformedRequest]),
    "a target beyond ASCII": (b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", [MalformedRequest]),
    "a target with a space": (b"GET /a b HTTP/1.1\r\n\r\n", [MalformedRequest]),
    "two spaces behind the method": (b"GET  / HTTP/1.1\r\n\r\n", [MalformedRequest]),
    "two spaces behind the target": (b"GET /  HTTP/1.1\r\n\r\n", [MalformedRequest]),
    "a space behind the version": (b"GET / HTTP/1.1 \r\n\r\n", [MalformedRequest]),
    "a tab behind the method": (b"GET\t/ HTTP/1.1\r\n\r\n", [MalformedRequest]),
    "a space ahead of the method": (b" GET / HTTP/1.1\r\n\r\n", [MalformedRequest]),
    # Other protocols.
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n\r\n", [VersionNotSupported]),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\n", [VersionNotSupported]),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n\r\n", [VersionNotSupported]),
    "HTTP/0.9, and said so": (b"GET / HTTP/0.9\r\n\r\n", [VersionNotSupported]),
    "HTTP/0.9": (b"GET /\r\n\r\n", [MalformedRequest]),
    "HTTP in lower case": (b"GET / http/1.1\r\n\r\n", [MalformedRequest]),
    "RTSP": (b"DESCRIBE / RTSP/1.0\r\n\r\n", [MalformedRequest]),
    "ICE": (b"SOURCE / ICE/1.0\r\n\r\n", [MalformedRequest]),
    "a method that nobody knows": (b"BREW / HTTP/1.1\r\n\r\n", [NotImplementedByUs]),
    "a method in lower case": (b"get / HTTP/1.1\r\n\r\n", [NotImplementedByUs]),
    "a method that is no token": (b"G@T / HTTP/1.1\r\n\r\n", [MalformedRequest]),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", [MalformedRequest]),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_means_the_same_however_it_comes(name: str) -> None:
    _check(_requests, *REQUESTS[name])


def test_the_trailer_section_has_a_limit() -> None:
    largest = b"X: " + b"y" * (MAX_TRAILERS - 5)
    trailer = (b"X", b"y" * (MAX_TRAILERS - 5))
    for data, expected in (
        (POST_CHUNKED + b"0\r\n" + largest + b"\r\n\r\n", [chunked(b"", [trailer])]),
        (POST_CHUNKED + b"0\r\n" + largest + b"y\r\n\r\n", [chunked(b""), MalformedRequest]),
        (POST_CHUNKED + b"0\r\n" + largest + b"yyyy", [chunked(b""), MalformedRequest]),
    ):
        assert _requests([data]) == expected
        for cut in range(1, 6):
            assert _requests([data[:-cut], data[-cut:]]) == expected


def answer(
    status: int, *pairs: tuple[bytes, bytes], length: int | None, content: bytes = b"", keep_alive: bool = True
) -> Message:
    return Message((status,), list(pairs), length, keep_alive, content=content)


RESPONSES: dict[str, tuple[str, bytes, Read]] = {
    "content": (
        "GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        [answer(200, FIVE, length=5, content=b"hello")],
    ),
    "no content": (
        "GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        [answer(200, (b"Content-Length", b"0"), length=0)],
    ),
    "bytes behind the content": (
        "GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloEVIL",
        [answer(200, FIVE, length=5, content=b"hello"), b"EVIL"],
    ),
    "an empty reason": ("GET", b"HTTP/1.1 204 \r\n\r\n", [answer(204, length=0)]),
    "a reason beyond ASCII": ("GET", b"HTTP/1.1 204 \xe4\r\n\r\n", [answer(204, length=0)]),
    "HEAD": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", [answer(200, FIVE, length=0)]),
    "HEAD of something chunked": (
        "HEAD",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        [answer(200, CHUNKED, length=0)],
    ),
    "HEAD without a length": ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n", [answer(200, length=0)]),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", [answer(204, length=0)]),
    "304 with the length that it would have": (
        "GET",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        [answer(304, FIVE, length=0)],
    ),
    "until the connection closes": (
        "GET",
        b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello\r\n\r\n",
        [answer(200, (b"A", b"b"), length=None, content=b"hello\r\n\r\n", keep_alive=False)],
    ),
    "nothing until the connection closes": (
        "GET",
        b"HTTP/1.0 200 OK\r\n\r\n",
        [answer(200, length=None, keep_alive=False)],
    ),
    "HTTP/1.0 stays on demand": (
        "GET",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        [answer(200, (b"Connection", b"keep-alive"), FIVE, length=5, content=b"hello")],
    ),
    "HTTP/1.0 closes": (
        "GET",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        [answer(200, FIVE, length=5, content=b"hello", keep_alive=False)],
    ),
    "Connection: close": (
        "GET",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        [answer(200, (b"Connection", b"close"), FIVE, length=5, content=b"hello", keep_alive=False)],
    ),
    "chunks and trailers": (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        [answer(200, CHUNKED, length=None, content=b"hello")._replace(trailers=[(b"X", b"y")])],
    ),
    "interim answers before the final one": (
        "GET",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        [answer(100, length=0), answer(103, (b"Link", b"x"), length=0), answer(204, length=0)],
    ),
    "101": (
        "GET",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        [answer(101, (b"Upgrade", b"x"), (b"Connection", b"Upgrade"), length=0)],
    ),
    "the last status that there is": ("GET", b"HTTP/1.1 599 X\r\nContent-Length: 0\r\n\r\n",
                                      [answer(599, (b"Content-Length", b"0"), length=0)]),
    "a status beyond 599": ("GET", b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n", [MalformedResponse]),
    "a status of 999": ("GET", b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", [MalformedResponse]),
    "a status below 100": ("GET", b"HTTP/1.1 099 X\r\n\r\n", [MalformedResponse]),
    "a status of two digits": ("GET", b"HTTP/1.1 20 X\r\n\r\n", [MalformedResponse]),
    "a status of four digits": ("GET", b"HTTP/1.1 2000 X\r\n\r\n", [MalformedResponse]),
    "content that breaks off": (
        "GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        [answer(200, FIVE, length=5), BodyTruncated],
    ),
    "chunks that break off": (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        [answer(200, CHUNKED, length=None), BodyTruncated],
    ),
    "chunks that are wrong": (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n",
        [answer(200, CHUNKED, length=None), MalformedResponse],
    ),
    "Content-Length twice": (
        "GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        [MalformedResponse],
    ),
    "Transfer-Encoding beside Content-Length": (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        [MalformedResponse],
    ),
    "Transfer-Encoding with HTTP/1.0": (
        "GET",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        [MalformedResponse],
    ),
    "a coding that is not known": (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        [MalformedResponse],
    ),
    "a bare line feed": ("GET", b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", [MalformedResponse]),
    "a folded field": ("GET", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", [MalformedResponse]),
    "an empty line ahead": ("GET", b"\r\nHTTP/1.1 204 OK\r\n\r\n", [MalformedResponse]),
    "HTTP/2.0": ("GET", b"HTTP/2.0 204 OK\r\n\r\n", [MalformedResponse]),
    "RTSP": ("GET", b"RTSP/1.0 204 OK\r\n\r\n", [MalformedResponse]),
    "garbage": ("GET", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", [MalformedResponse]),
    "the largest head": (
        "GET",
        b"HTTP/1.1 204 OK\r\nA: " + b"x" * (HEAD_LIMIT - 24) + b"\r\n\r\n",
        [answer(204, (b"A", b"x" * (HEAD_LIMIT - 24)), length=0)],
    ),
    "a larger head": ("GET", b"HTTP/1.1 204 OK\r\nA: " + b"x" * (HEAD_LIMIT - 23) + b"\r\n\r\n", [MalformedResponse]),
    "more fields": ("GET", b"HTTP/1.1 204 OK\r\n" + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n", [MalformedResponse]),
}  # fmt: skip


@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_means_the_same_however_it_comes(name: str) -> None:
    method, data, expected = RESPONSES[name]
    _check(_responses(method), data, expected)


def test_each_refusal_has_its_status() -> None:
    def status(data: bytes) -> int:
        (error,) = _requests([data])
        return getattr(error, "status", 0)

    assert status(REQUESTS["a larger head"][0]) == 431
    assert status(REQUESTS["more fields"][0]) == 431
    assert status(REQUESTS["a longer target"][0]) == 414
    assert status(REQUESTS["HTTP/2.0"][0]) == 505
    assert status(REQUESTS["a method that nobody knows"][0]) == 501
    assert status(REQUESTS["chunked behind a coding that is not known"][0]) == 501
    assert status(REQUESTS["garbage"][0]) == 400


def test_all_of_a_content_of_known_length_is_taken_at_once() -> None:
    reader = RequestReader(HEAD_LIMIT, MAX_FIELDS, TARGET_LIMIT)
    reader.receive(POST_FIVE + b"hell")
    assert reader.next_head() is not None
    assert reader.take_whole() is None
    assert not reader.done
    reader.receive(b"oGET")
    assert reader.take_whole() == b"hello"
    assert reader.done
    assert reader.pending == b"GET"
    assert not reader.idle


def test_what_is_chunked_is_not_taken_at_once() -> None:
    reader = RequestReader(HEAD_LIMIT, MAX_FIELDS, TARGET_LIMIT)
    reader.receive(POST_CHUNKED + b"0\r\n\r\n")
    assert reader.next_head() is not None
    assert reader.take_whole() is None


def test_what_follows_an_upgrade_is_kept() -> None:
    reader = ResponseReader(HEAD_LIMIT, MAX_FIELDS)
    reader.receive(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n\x81\x00")
    head = reader.next_head("GET")
    assert head is not None
    assert head.status == 101
    assert reader.pending == b"\x81\x00"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4), st.sampled_from(["request", "GET", "HEAD"]))
def test_no_bytes_do_anything_but_what_is_foreseen(data: bytes, cuts: list[int], role: str) -> None:
    start = b"POST / HTTP/1.1\r\n" if role == "request" else b"HTTP/1.1 200 OK\r\n"
    read = _requests if role == "request" else _responses(role)
    for whole in (data, start + data, start + b"Transfer-Encoding: chunked\r\n\r\n" + data):
        assert read(_in_pieces(whole, [cut for cut in cuts if cut < len(whole)])) == read([whole])
