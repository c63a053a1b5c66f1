"""Rows of (role, state, bytes, event): what is read of what comes, and where in a message that leaves the reader.

A row says what must come of its bytes; `test_rows.py` reads it whole and in pieces, with the connection's end behind it
and without, and writes again what was read. The fuzzers begin with the same rows.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fuzz.reading import NARROW, Limits, Message, Pairs
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
from portico.wire.framing import MAX_CHUNK_LINE, MAX_TRAILERS

# Where the reader is when all bytes have come.
IDLE: Final = "between messages"
START_LINE: Final = "in a start line"
HEADERS: Final = "in the header lines"
LENGTH: Final = "in content of a known length"
CHUNK_LINE: Final = "in a chunk's line"
CHUNK_DATA: Final = "in a chunk"
CHUNK_END: Final = "behind a chunk"
TRAILERS: Final = "in the trailers"
UNTIL_CLOSE: Final = "in content that the connection's end will end"
OVER: Final = "behind the last message of the connection"
REFUSED: Final = "refused, before the connection's end"

STATES: Final = (
    IDLE, START_LINE, HEADERS, LENGTH, CHUNK_LINE, CHUNK_DATA, CHUNK_END, TRAILERS, UNTIL_CLOSE, OVER, REFUSED
)  # fmt: skip

Error = type[PorticoError] | None


class Row(NamedTuple):
    """What must come of `data`: `messages`, and then, where the connection ends there, `error`.

    `method` is that of the request which `data` answers, or None where `data` is a client's. `pending` is what was not
    read. Where `error` came of the last message, its content is what may be given of it at most.
    """

    name: str
    method: str | None
    data: bytes
    messages: list[Message]
    state: str
    error: Error = None
    pending: bytes = b""
    limits: Limits = NARROW


HOST = (b"Host", b"a")
CODED = (b"Transfer-Encoding", b"chunked")
NOTHING = (b"Content-Length", b"0")
FIVE = (b"Content-Length", b"5")
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
POST_FIVE = POST + b"Content-Length: 5\r\n\r\n"
POST_CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSE = b"Connection: close\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: X\r\n"
UPGRADES = ((b"Connection", b"Upgrade"), (b"Upgrade", b"X"))
OK = b"HTTP/1.1 200 OK\r\n"
NONE = b"Content-Length: 0\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n"
OK_FIVE = OK + b"Content-Length: 5\r\n\r\n"
OK_CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def get(*pairs: tuple[bytes, bytes], target: bytes = b"/", minor: int = 1, keep_alive: bool = True) -> Message:
    return Message(("GET", target, minor), [HOST, *pairs], 0, keep_alive)


def post(
    *pairs: tuple[bytes, bytes], content: bytes = b"", trailers: Pairs | None = None, complete: bool = True
) -> Message:
    """Return a POST whose framing is the last of `pairs`."""
    length = None if pairs[-1] == CODED else int(pairs[-1][1])
    return Message(
        ("POST", b"/", 1),
        [HOST, *pairs],
        length,
        keep_alive=True,
        content=content,
        trailers=trailers or [],
        complete=complete,
    )


def answer(
    *pairs: tuple[bytes, bytes],
    status: int = 200,
    length: int | None = 0,
    content: bytes = b"",
    trailers: Pairs | None = None,
    keep_alive: bool = True,
    complete: bool = True,
) -> Message:
    return Message(
        (status,), list(pairs), length, keep_alive, content=content, trailers=trailers or [], complete=complete
    )


def asked(name: str, data: bytes, *messages: Message, state: str = IDLE, pending: bytes = b"") -> Row:
    """Return a row of requests that are taken."""
    return Row(name, None, data, list(messages), state, pending=pending)


def cut(name: str, data: bytes, state: str, error: Error, *messages: Message, pending: bytes = b"") -> Row:
    """Return a row of requests whose connection ends within one."""
    return Row(name, None, data, list(messages), state, error, pending)


def bad(name: str, data: bytes, error: Error = MalformedRequest, *messages: Message) -> Row:
    """Return a row of requests that are refused."""
    return Row(name, None, data, list(messages), REFUSED, error)


def bad_field(name: str, line: bytes) -> Row:
    return bad(name, GET + line + b"\r\n\r\n")


def bad_framing(name: str, lines: bytes, error: Error = MalformedRequest) -> Row:
    return bad(name, POST + lines + b"\r\n\r\n0\r\n\r\n", error)


def bad_line(name: str, line: bytes, error: Error = MalformedRequest) -> Row:
    return bad(name, line + b"\r\nHost: a\r\n\r\n", error)


def bad_chunks(name: str, data: bytes, content: bytes = b"") -> Row:
    return bad(name, POST_CHUNKED + data, MalformedRequest, post(CODED, content=content, complete=False))


def chunks(name: str, data: bytes, content: bytes, trailers: Pairs | None = None) -> Row:
    return asked(name, POST_CHUNKED + data, post(CODED, content=content, trailers=trailers))


def cut_chunks(name: str, data: bytes, state: str, content: bytes = b"", pending: bytes = b"") -> Row:
    return cut(
        name,
        POST_CHUNKED + data,
        state,
        BodyTruncated,
        post(CODED, content=content, complete=False),
        pending=pending,
    )


BIG = b"x" * MAX_TRAILERS
ROOM = NARROW.head - len(GET) - len(b"A: \r\n\r\n")
ROOMY = Limits(head=4096, fields=64, target=2048)

REQUESTS: Final = (
    # The connection's end, in each state.
    asked("an end before anything", b""),
    asked("an end behind a request", GET + b"\r\n", get()),
    asked("an end behind an empty line", b"\r\n"),
    cut("an end within an empty line", b"\r", START_LINE, MalformedRequest, pending=b"\r"),
    cut("an end within a method", b"GE", START_LINE, MalformedRequest, pending=b"GE"),
    cut("an end within a version", b"GET / HTTP/1.", START_LINE, MalformedRequest, pending=b"GET / HTTP/1."),
    cut("an end within a field", GET + b"A: ", HEADERS, MalformedRequest, pending=GET + b"A: "),
    cut("an end behind the fields", GET + b"\r", HEADERS, MalformedRequest, pending=GET + b"\r"),
    cut("an end before content", POST_FIVE, LENGTH, BodyTruncated, post(FIVE, complete=False)),
    cut("an end within content", POST_FIVE + b"hell", LENGTH, BodyTruncated,
        post(FIVE, content=b"hell", complete=False)),
    cut_chunks("an end before chunks", b"", CHUNK_LINE),
    cut_chunks("an end within a chunk size", b"5", CHUNK_LINE, pending=b"5"),
    cut_chunks("an end within a chunk line's end", b"5;a\r", CHUNK_LINE, pending=b"5;a\r"),
    cut_chunks("an end within a chunk", b"5\r\nhel", CHUNK_DATA, b"hel"),
    cut_chunks("an end behind a chunk", b"5\r\nhello", CHUNK_END, b"hello"),
    cut_chunks("an end within a chunk's end", b"5\r\nhello\r", CHUNK_END, b"hello", pending=b"\r"),
    cut_chunks("an end between chunks", b"5\r\nhello\r\n", CHUNK_LINE, b"hello"),
    cut_chunks("an end within the last chunk", b"5\r\nhello\r\n0", CHUNK_LINE, b"hello", pending=b"0"),
    cut_chunks("an end behind the last chunk", b"0\r\n", TRAILERS, pending=b"0\r\n"),
    cut_chunks("an end within a trailer", b"0\r\nA: b", TRAILERS, pending=b"0\r\nA: b"),
    cut_chunks("an end behind a trailer", b"0\r\nA: b\r\n\r", TRAILERS, pending=b"0\r\nA: b\r\n\r"),
    cut("an end within a second request", GET + b"\r\nGET /", START_LINE, MalformedRequest, get(), pending=b"GET /"),
    # Requests.
    asked("several at once", GET + b"\r\n" + POST_FIVE + b"hello" + GET + b"\r\n",
          get(), post(FIVE, content=b"hello"), get()),
    asked("no length is no content", POST + b"\r\n" + GET + b"\r\n",
          Message(("POST", b"/", 1), [HOST], 0, keep_alive=True), get()),
    asked("two empty lines ahead of each request", b"\r\n\r\n" + GET + b"\r\n\r\n\r\n" + GET + b"\r\n", get(), get()),
    asked("the last of a connection", GET + CLOSE + b"\r\nGET /2",
          get((b"Connection", b"close"), keep_alive=False), state=OVER, pending=b"GET /2"),
    asked("HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\n\r\nGET", get(minor=0, keep_alive=False),
          state=OVER, pending=b"GET"),
    asked("fields that Connection names", GET + b"X: 1\r\nConnection: x, host\r\nx: 2\r\nY: 3\r\n\r\n",
          get((b"Connection", b"x, host"), (b"Y", b"3"))),
    asked("a refused Upgrade", GET + UPGRADE + b"\r\n" + GET + b"\r\n", get(*UPGRADES)._replace(upgrade=b"x"), get()),
    asked("a refused Upgrade with content", POST + UPGRADE + b"Content-Length: 5\r\n\r\nGET /" + GET + b"\r\n",
          post(*UPGRADES, FIVE, content=b"GET /"), get()),
    asked("a refused Upgrade with chunks", POST + UPGRADE + CHUNKS + b"\r\n5\r\nGET /\r\n0\r\n\r\n" + GET + b"\r\n",
          post(*UPGRADES, CODED, content=b"GET /"), get()),
    asked("the absolute form", b"GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", get(target=b"http://a/b?c")),
    asked("the asterisk form", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
          Message(("OPTIONS", b"*", 1), [HOST], 0, keep_alive=True)),
    asked("the authority form", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
          Message(("CONNECT", b"a:443", 1), [HOST], 0, keep_alive=True)),
    asked("bytes beyond ASCII and tabs in a value", GET + b"A: \x80\t\xff\r\n\r\n", get((b"A", b"\x80\t\xff"))),
    asked("every character of a name", GET + b"!#$%&'*+-.^_`|~09azAZ: b\r\n\r\n",
          get((b"!#$%&'*+-.^_`|~09azAZ", b"b"))),
    chunks("chunks, an extension, trailers",
           b"5;a=\"b c\"\r\nhello\r\n1 ;d\r\n!\r\n0;e\r\nA: b\r\nB:\t c \r\n\r\n",
           b"hello!", [(b"A", b"b"), (b"B", b"c")]),
    chunks("content that looks like an end", b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
    chunks("a chunk line at its limit", b"1;" + b"x" * (MAX_CHUNK_LINE - 4) + b"\r\na\r\n0\r\n\r\n", b"a"),
    chunks("trailers at their limit", b"0\r\nA: " + BIG[5:] + b"\r\n\r\n", b"", [(b"A", BIG[5:])]),
    chunks("trailers that must not be trailers",
           b"0\r\nContent-Length: 1\r\nHost: b\r\ntransfer-encoding: x\r\nAuthorization: b\r\nA: b\r\n\r\n",
           b"", [(b"A", b"b")]),
    asked("trailers that Connection names", POST + b"Connection: X-A\r\n" + CHUNKS + b"\r\n0\r\nx-a: b\r\nC: d\r\n\r\n",
          post((b"Connection", b"X-A"), CODED, trailers=[(b"C", b"d")])),
    # Framing (RFC 9112 section 6).
    bad_framing("Content-Length beside Transfer-Encoding", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    bad_framing("Transfer-Encoding beside Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
    bad_framing("an empty Transfer-Encoding beside Content-Length", b"Transfer-Encoding:\r\nContent-Length: 5"),
    bad_framing("two lengths", b"Content-Length: 5\r\nContent-Length: 6"),
    bad_framing("one length twice", b"Content-Length: 5\r\nA: b\r\nCONTENT-LENGTH: 5"),
    *(bad_framing(f"a length of {value!r}", b"Content-Length: " + value) for value in (
        b"", b"5, 5", b"5 5", b"+5", b"-5", b"0x5", b"5.0", b"5e0", b"five", b"1_0", b"\xb2", b"9" * 19,
        b"0" * 19, b"9" * 40)),
    *(bad_framing(f"a coding of {value!r}", b"Transfer-Encoding: " + value) for value in (
        b"", b"identity", b"gzip", b"chunked, gzip", b"chunked, identity", b"xchunked", b"chunkedx",
        b"chunked;a=b", b'"chunked"',
        b"chunked,", b"chunked, ", b"chunked chunked", b"chunked, chunked", b"\x0bchunked", b"chunked\x0b",
        b"chunked\0")),
    bad_framing("two codings in two fields, the last not chunked", CHUNKS + b"Transfer-Encoding: x"),
    bad_framing("chunked twice, in two fields", CHUNKS + b"Transfer-Encoding: chunked"),
    bad_framing("a coding that is not known", b"Transfer-Encoding: gzip, chunked", NotImplementedByUs),
    bad_framing("a coding that is not known, in two fields", b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
                NotImplementedByUs),
    bad("a coding with HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    # Chunks (RFC 9112 section 7.1).
    *(bad_chunks(f"a chunk size of {size!r}", size + b"\r\na\r\n0\r\n\r\n") for size in (
        b"", b"+1", b"-1", b"0x1", b"1h", b"1_", b" 1", b"1 ", b"1\t", b"1 a", b"1,", b"1\0", b"\xb9",
        b"0" * 15 + b"1", b"f" * 16)),
    *(bad_chunks(f"a chunk extension of {ext!r}", b"1;" + ext + b"\r\na\r\n0\r\n\r\n") for ext in (
        b"a\rb", b"a\nb", b"a\0b", b"a\x7f", b'a="\x1f"')),
    bad_chunks("a long chunk line", b"1;" + b"x" * (MAX_CHUNK_LINE - 3) + b"\r\n"),
    bad_chunks("a chunk line without an end", b"1" * MAX_CHUNK_LINE),
    bad_chunks("a second chunk line without an end", b"2\r\nok\r\n" + b";" * MAX_CHUNK_LINE, b"ok"),
    bad_chunks("a bare LF behind a chunk size", b"1\na\r\n0\r\n\r\n"),
    bad_chunks("a bare CR behind a chunk size", b"1\ra\r\n0\r\n\r\n"),
    bad_chunks("a bare LF behind a chunk", b"1\r\na\n0\r\n\r\n", b"a"),
    bad_chunks("a bare CR behind a chunk", b"1\r\na\r0\r\n\r\n", b"a"),
    bad_chunks("a chunk whose end is CR and another byte", b"1\r\na\rx0\r\n\r\n", b"a"),
    bad_chunks("a chunk that is longer than it says", b"4\r\nhello\r\n0\r\n\r\n", b"hell"),
    bad_chunks("a chunk that is shorter than it says", b"6\r\nhello\r\n0\r\n\r\n", b"hello\r"),
    *(bad_chunks(f"a trailer of {line!r}", b"0\r\n" + line + b"\r\n\r\n") for line in (
        b"A", b": b", b"A : b", b" A: b", b"A: b\r\n c", b"A: b\nC: d", b"A: b\rC: d", b"A: \0", b"A: \x7f",
        b"A\xff: b", b"A(: b")),
    bad_chunks("long trailers", b"0\r\nA: " + BIG[4:] + b"\r\n\r\n"),
    bad_chunks("trailers without an end", b"0\r\nA: " + BIG[1:]),
    cut_chunks("trailers at their limit, but for a byte", b"0\r\nA: " + BIG[5:] + b"\r\n\r", TRAILERS,
               pending=b"0\r\nA: " + BIG[5:] + b"\r\n\r"),
    # Lines and fields (RFC 9112 sections 2 to 5).
    bad("a bare LF behind the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    bad("a bare LF ahead of the request line", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("a bare CR ahead of the request line", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("three empty lines ahead", b"\r\n\r\n\r\n" + GET + b"\r\n"),
    *(bad_field(f"a field of {line!r}", line) for line in (
        b"A: b\nC: d", b"A: b\rC: d", b"A: b\r", b"A: b\n", b"A: b\r\n c", b"A: b\r\n\tc", b"A:\r\n c",
        b"A : b", b"A\t: b", b" A: b",
        b"A", b":", b": b", b"A b: c", b"A(: b", b"A@: b", b'"A": b', b"A\xe4: b", b"A\0: b", b"\0: b",
        b"A: \0", b"A: b\0",
        b"A: \x01", b"A: \x0b", b"A: \x0c", b"A: \x1f", b"A: \x7f", b"\x7f: b", b"GET / HTTP/1.1")),
    bad("a folded line ahead of the fields", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    *(bad_line(f"a request line of {line!r}", line) for line in (
        b"GET", b"GET /", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\0", b"GET /\0 HTTP/1.1", b"GET /\t HTTP/1.1",
        b"GET /\x7f HTTP/1.1", b"GET /\xe4 HTTP/1.1",
        b"GET /a b HTTP/1.1", b"GET /\r HTTP/1.1", b"G\0T / HTTP/1.1", b"G(T / HTTP/1.1", b"\xe4 / HTTP/1.1",
        b" / HTTP/1.1",
        b"GET / http/1.1", b"GET / HTTP/1,1", b"GET / HTTP/1", b"GET / HTTP/1.", b"GET / HTTP/1.10",
        b"GET / HTTP/01.1",
        b"GET / HTTP/11", b"GET / HTTP 1.1", b"GET / HTTPS/1.1", b"GET / RTSP/1.0", b"DESCRIBE / RTSP/1.0",
        b"SOURCE / ICE/1.0",
        b"PROPFIND /\xe4 HTTP/1.1", b"PROPFIND a HTTP/1.1", b"HTTP/1.1 200 OK", b"\x16\x03\x01\x02")),
    *(bad_line(f"version {version!r}", b"GET / HTTP/" + version, VersionNotSupported) for version in (
        b"0.9", b"1.2", b"1.9", b"2.0", b"3.0")),
    bad_line("the preface of HTTP/2", b"PRI * HTTP/2.0", VersionNotSupported),
    bad_line("another version with a method of nobody", b"BREW / HTTP/2.0", VersionNotSupported),
    *(bad_line(f"method {method!r}", method + b" / HTTP/1.1", NotImplementedByUs) for method in (
        b"BREW", b"get", b"GETS", b"GE", b"DESCRIBE", b"GET_PARAMETER", b"!#$%&'*+-.^_`|~09az")),
    # Limits.
    asked("a head at its limit", GET + b"A: " + b"x" * ROOM + b"\r\n\r\n", get((b"A", b"x" * ROOM))),
    bad("a head over its limit", GET + b"A: " + b"x" * ROOM + b"y" + b"\r\n\r\n", HeadTooLarge),
    bad("a head without an end", b"x" * 513, HeadTooLarge),
    cut("a head at its limit without an end", b"x" * 512, START_LINE, MalformedRequest, pending=b"x" * 512),
    asked("as many fields as may be", GET + b"A: b\r\n" * 7 + b"\r\n", get(*[(b"A", b"b")] * 7)),
    bad("one field too many", GET + b"A: b\r\n" * 8 + b"\r\n", HeadTooLarge),
    asked("a target at its limit", b"GET /" + b"x" * 63 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
          get(target=b"/" + b"x" * 63)),
    bad_line("a target over its limit", b"GET /" + b"x" * 64 + b" HTTP/1.1", TargetTooLong),
    bad_line("a target over its limit, of a method that is not usual",
             b"PROPFIND /" + b"x" * 64 + b" HTTP/1.1", TargetTooLong),
    Row("other limits", None, b"GET /" + b"x" * 2047 + b" HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 63 + b"\r\n",
        [get(*[(b"A", b"b")] * 63, target=b"/" + b"x" * 2047)], IDLE, limits=ROOMY),
)  # fmt: skip


def told(
    name: str, data: bytes, *messages: Message, method: str = "GET", state: str = OVER, pending: bytes = b""
) -> Row:
    """Return a row of answers that are taken."""
    return Row(name, method, data, list(messages), state, pending=pending)


def wrong(name: str, data: bytes, *messages: Message, method: str = "GET") -> Row:
    """Return a row of answers that are refused."""
    return Row(name, method, data, list(messages), REFUSED, MalformedResponse)


def short(name: str, data: bytes, state: str, message: Message, pending: bytes = b"") -> Row:
    """Return a row of answers whose connection ends within content."""
    return Row(name, "GET", data, [message], state, BodyTruncated, pending)


def _five(content: bytes) -> Message:
    return answer(FIVE, length=5, content=content, complete=False)


def _coded(content: bytes) -> Message:
    return answer(CODED, length=None, content=content, complete=False)


LENGTHS = b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n"
BOTH = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"

RESPONSES: Final = (
    # The connection's end, in each state; before the final head it is for the caller to say what that means.
    told("no answer", b"", state=IDLE),
    told("an end within a status line", b"HTTP/1.1 20", state=START_LINE, pending=b"HTTP/1.1 20"),
    told("an end within a field", OK + b"A: ", state=HEADERS, pending=OK + b"A: "),
    told("an end behind an interim answer", b"HTTP/1.1 103 X\r\n\r\n", answer(status=103), state=IDLE),
    short("an end before content", OK_FIVE, LENGTH, _five(b"")),
    short("an end within content", OK_FIVE + b"hell", LENGTH, _five(b"hell")),
    short("an end before chunks", OK_CHUNKED, CHUNK_LINE, _coded(b"")),
    short("an end within a chunk size", OK_CHUNKED + b"5", CHUNK_LINE, _coded(b""), b"5"),
    short("an end within a chunk", OK_CHUNKED + b"5\r\nhell", CHUNK_DATA, _coded(b"hell")),
    short("an end behind a chunk", OK_CHUNKED + b"5\r\nhello\r", CHUNK_END, _coded(b"hello"), b"\r"),
    short("an end between chunks", OK_CHUNKED + b"5\r\nhello\r\n", CHUNK_LINE, _coded(b"hello")),
    short("an end within the trailers", OK_CHUNKED + b"0\r\nA: b\r\n", TRAILERS, _coded(b""), b"0\r\nA: b\r\n"),
    told("content until the connection's end", OK + b"\r\nhello\r\n\r\n",
         answer(length=None, content=b"hello\r\n\r\n", keep_alive=False), state=UNTIL_CLOSE),
    told("no content until the connection's end", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n",
         answer((b"Connection", b"keep-alive"), length=None, keep_alive=False), state=UNTIL_CLOSE),
    # Answers.
    told("content", OK_FIVE + b"hello, too much", answer(FIVE, length=5, content=b"hello"), pending=b", too much"),
    told("no content", OK + b"Content-Length: 0\r\n\r\n", answer(NOTHING)),
    told("chunks and trailers", OK_CHUNKED + b"5;a\r\nhello\r\n0\r\nA: b\r\nSet-Cookie: c\r\n\r\nrest",
         answer(CODED, length=None, content=b"hello", trailers=[(b"A", b"b")]), pending=b"rest"),
    told("trailers that Connection names", OK + b"Connection: X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: 1\r\n\r\n",
         answer((b"Connection", b"X"), CODED, length=None)),
    told("interim answers", b"HTTP/1.1 100 X\r\n\r\nHTTP/1.1 103 X\r\nLink: b\r\n\r\n" + OK_FIVE + b"hello",
         answer(status=100), answer((b"Link", b"b"), status=103), answer(FIVE, length=5, content=b"hello")),
    told("another protocol", b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"\r\nHTTP",
         answer(*UPGRADES, status=101), pending=b"HTTP"),
    told("another protocol, in other words", b"HTTP/1.1 101 Web Socket Protocol Handshake\r\n" + UPGRADE + b"\r\n",
         answer(*UPGRADES, status=101)),
    told("another protocol, without a word", b"HTTP/1.1 101 \r\n" + UPGRADE + b"\r\n", answer(*UPGRADES, status=101)),
    told("HEAD with a length", OK_FIVE + b"HTTP/", answer(FIVE), method="HEAD", pending=b"HTTP/"),
    told("HEAD with chunks", OK_CHUNKED, answer(CODED), method="HEAD"),
    told("HEAD with an unknown coding", OK + b"Transfer-Encoding: gzip\r\n\r\n",
         answer((b"Transfer-Encoding", b"gzip")), method="HEAD"),
    told("HEAD without a length", OK + b"\r\n", answer(), method="HEAD"),
    told("204", b"HTTP/1.1 204 X\r\n\r\nrest", answer(status=204), pending=b"rest"),
    told("204 with a length", b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\nrest",
         answer(FIVE, status=204), pending=b"rest"),
    told("304 with a length", b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\nHTTP/",
         answer(FIVE, status=304), pending=b"HTTP/"),
    told("304 with chunks", b"HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n", answer(CODED, status=304)),
    told("an interim answer with a length", b"HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\n" + OK + NONE + b"\r\n",
         answer(FIVE, status=103), answer(NOTHING)),
    told("Connection: close", OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
         answer((b"Connection", b"close"), NOTHING, keep_alive=False)),
    told("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", answer(NOTHING, keep_alive=False)),
    told("HTTP/1.0 that stays", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
         answer((b"Connection", b"keep-alive"), NOTHING)),
    told("a reason of any text", b"HTTP/1.1 204 \t a\xe4\r\n\r\n", answer(status=204)),
    told("no reason", b"HTTP/1.1 204 \r\n\r\n", answer(status=204)),
    # Framing.
    *(wrong(f"{what} {status}, to {method}", b"HTTP/1.1 " + status.encode() + b" X\r\n" + lines, method=method)
      for what, lines in (("two lengths,", LENGTHS), ("both framings,", BOTH),
                          ("one length twice,", b"Content-Length: 5\r\nContent-length: 5\r\n\r\n"),
                          ("a malformed length,", b"Content-Length: 5, 5\r\n\r\n"),
                          ("a long length,", b"Content-Length: " + b"9" * 19 + b"\r\n\r\n"))
      for status, method in (("200", "GET"), ("200", "HEAD"), ("204", "GET"), ("304", "GET"), ("103", "GET"))),
    wrong("a coding with HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    *(wrong(f"a coding of {value!r}", OK + b"Transfer-Encoding: " + value + b"\r\n\r\n0\r\n\r\n") for value in (
        b"", b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked,", b"chunked, chunked",
        b"xchunked", b"chunked\0")),
    wrong("chunked twice, in two fields", OK + CHUNKS + CHUNKS + b"\r\n0\r\n\r\n"),
    wrong("a malformed chunk", OK_CHUNKED + b"2\r\nok\r\n 1\r\na\r\n0\r\n\r\n", _coded(b"ok")),
    wrong("a long chunk line", OK_CHUNKED + b"1" * MAX_CHUNK_LINE, _coded(b"")),
    wrong("long trailers", OK_CHUNKED + b"0\r\nA: " + BIG, _coded(b"")),
    # Lines and fields.
    *(wrong(f"a status line of {line!r}", line + b"\r\nContent-Length: 0\r\n\r\n") for line in (
        b"", b"\r\nHTTP/1.1 200 OK", b"\nHTTP/1.1 200 OK", b" HTTP/1.1 200 OK", b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200OK", b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK", b"HTTP/1.1 2x0 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 600 OK",
        b"HTTP/1.1 999 OK",
        b"HTTP/1.1\t200 OK", b"HTTP/1.1 200\tOK", b"HTTP/1.1 OK", b"HTTP/0.9 200 OK", b"HTTP/1.2 200 OK",
        b"HTTP/2.0 200 OK", b"HTTP/2 200 OK",
        b"http/1.1 200 OK", b"RTSP/1.0 200 OK", b"ICY 200 OK", b"SSH-2.0-x", b"GET / HTTP/1.1",
        b"HTTP/1.1 200 O\nK", b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 O\x01K", b"HTTP/1.1 200 O\x0bK", b"HTTP/1.1 200 \x7f",
        b"HTTP/1.1 200 OK\nA: b")),
    *(wrong(f"a field of {line!r}", OK + line + b"\r\nContent-Length: 0\r\n\r\n") for line in (
        b"A: b\nC: d", b"A: b\rC: d", b"A: b\r", b"A: b\n", b"A: b\r\n c", b"A : b", b" A: b", b"A", b": b",
        b"A b: c", b"A\xe4: b", b"A\0: b",
        b"A: \0", b"A: \x01", b"A: \x0b", b"A: \x7f")),
    # Limits.
    told("a head at its limit", OK + NONE + b"A: " + b"x" * 469 + b"\r\n\r\n", answer(NOTHING, (b"A", b"x" * 469))),
    wrong("a head over its limit", OK + NONE + b"A: " + b"x" * 470 + b"\r\n\r\n"),
    wrong("a head without an end", b"x" * 513),
    told("as many fields as may be", OK + NONE + b"A: b\r\n" * 7 + b"\r\n",
         answer(NOTHING, *[(b"A", b"b")] * 7)),
    wrong("one field too many", OK + NONE + b"A: b\r\n" * 8 + b"\r\n"),
)  # fmt: skip
