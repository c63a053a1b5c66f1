"""HTTP/1.1 and 1.0 (RFC 9112): heads, framing, and what may be said next on a connection. Both roles.

llhttp (through httptools) is used as a tokenizer of heads and nothing else. It is given start lines and header lines
of complete heads, in parsers that hold nothing of another message (`fields.py`); where the head ends, how long the body
is, and what the next byte means is decided here and in `framing.py`.

Reading goes `receive(bytes)`, then `next_head()` once and `next_content()` until the content's end; each returns None
where it needs more bytes. Writing is a function from a message to bytes.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from portico.errors import (
    HeadTooLarge,
    MalformedRequest,
    MalformedResponse,
    NotImplementedByUs,
    PorticoError,
    Source,
    TargetTooLong,
    VersionNotSupported,
)
from portico.http.body import Trailers
from portico.http.headers import HOP_BY_HOP, HeaderBlock, Headers
from portico.http.problem import reason
from portico.wire.events import KnownAnswer, KnownRequest, RequestHead, ResponseHead
from portico.wire.fields import MAX_BLOCK, FieldTable, Receiver, request_fields, response_fields
from portico.wire.framing import (
    BARE_LINE_FEED,
    CHUNKED,
    LENGTH,
    MAX_CHUNK_LINE,
    MAX_TRAILERS,
    NONE,
    UNTIL_CLOSE,
    Reader,
)

CR: Final = 13

MAX_EMPTY_LINES: Final = 4
"""Bytes of empty lines ahead of a request, which RFC 9112 section 2.2 wants ignored."""

_REQUEST_LINE: Final = re.compile(rb"(?P<method>[!#$%&'*+\-.^_`|~0-9A-Za-z]+) [!-~]+ HTTP/(?P<version>\d\.\d)")
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z/]+")
_METHOD_BYTES: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VISIBLE: Final = bytes(range(0x21, 0x7F))
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_RTSP: Final = frozenset(
    b"DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER REDIRECT RECORD FLUSH".split()
)
"""Methods that llhttp knows, but not in HTTP."""
_VERSIONS: Final = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
_METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_STATUS_LINES: Final = {status: f"HTTP/1.1 {status} {reason(status)}".encode() for status in range(100, 600)}
_STATUSES: Final = {line: (status, 1) for status, line in _STATUS_LINES.items()}
_KEEP_ALIVE: Final = {b"keep-alive": True, b"Keep-Alive": True, b"close": False, b"Close": False}
_NEVER_NAMED: Final[frozenset[bytes]] = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-real-ip",
}
"""Fields that Connection cannot take away: they have their own rules, the message falls apart without them, or a client
could strike what a proxy between us says of it."""


class RequestReader(Reader):
    """The incoming half of a server's connection."""

    __slots__ = ("_empty", "target_limit")

    def __init__(
        self,
        limit: int,
        max_fields: int,
        target_limit: int,
        table: FieldTable | None = None,
        max_chunk_line: int = MAX_CHUNK_LINE,
        max_trailers: int = MAX_TRAILERS,
    ) -> None:
        super().__init__(limit, request_fields(max_fields) if table is None else table, max_chunk_line, max_trailers)
        self.target_limit = target_limit
        self._empty = 0

    def _too_large(self) -> PorticoError:
        self._check_so_far(self._buffer[: self.limit], 0)  # however it came, it is refused for what is wrong first
        return HeadTooLarge("the request head is too large")

    def _too_many(self, head: bytes) -> PorticoError:
        self._check_so_far(head, 0)
        return HeadTooLarge("the request has too many headers")

    def _malformed(self, detail: str) -> PorticoError:
        return MalformedRequest(detail)

    @property
    def idle(self) -> bool:
        """True where nothing of a next request has come."""
        return not self._buffer

    def next_head(self) -> RequestHead | None:
        """Return the head of the next request, or None where it has not all come."""
        if len(self._buffer) <= MAX_BLOCK:
            known = self._table.requests.get(self._buffer)
            if known is not None:
                return self._known_head(known)
        if self._buffer and self._buffer[0] == CR:
            self._skip_empty_lines()
        scanned = self._scanned
        head = self._take_head()
        if head is None:
            if self._buffer:
                self._check_beginning(scanned)
            return None
        self._empty = 0
        start_line = head[: head.index(b"\r\n")]
        method, target, minor = self._request_line(start_line)
        if len(target) > self.target_limit:
            raise TargetTooLong("the request target is too long")
        headers = self._fields(head, start_line)
        index = headers.index
        if b"content-length" in index or b"transfer-encoding" in index:
            length = self._frame(headers, minor)
        else:
            length = 0
            self._framing = NONE
            self.done = True
        protocol = upgrade(headers) if b"upgrade" in index and minor == 1 and length == 0 else b""
        keep_alive = minor == 1 if b"connection" not in index else _keep_alive(headers, minor)
        index = headers.index  # another one, where Connection has struck some
        expects_continue = b"expect" in index and minor == 1 and index[b"expect"].lower() == b"100-continue"
        if length == 0 and not protocol and not expects_continue and self._table.comes_again(head):
            self._remember(head, KnownRequest(method, target, minor, headers.shared(), keep_alive))
        return RequestHead(method, target, minor, headers, length, keep_alive, expects_continue, protocol)

    def _remember(self, head: bytes, known: KnownRequest) -> None:
        """Remember a head, but for what may be secret in its query."""
        if b"?" not in known.target:
            self._table.remember_request(head, known)

    def _known_head(self, known: KnownRequest) -> RequestHead:
        """Return a head that has come before, and is all that has come now."""
        self._buffer = b""
        self._scanned = 0
        self._empty = 0
        self._framing = NONE
        self.done = True
        headers = known.headers.copy()
        return RequestHead(known.method, known.target, known.minor, headers, 0, known.keep_alive, False, b"", known)

    def _check_beginning(self, scanned: int) -> None:
        """Refuse what cannot become a request, whatever else comes; `scanned` bytes of it have been looked at."""
        if self._eof:
            raise MalformedRequest("the request head is cut off")
        self._check_so_far(self._buffer, scanned)

    def _check_so_far(self, buffer: bytes, scanned: int) -> None:
        """Refuse a beginning of a head for what is wrong with it, in the order in which that came."""
        if buffer[0] not in _METHOD_BYTES and buffer != b"\r":  # TLS, for one
            raise MalformedRequest("this is not the beginning of a request")
        end = buffer.find(b"\r\n")
        if end >= scanned:  # the line is whole since just now
            _, target, _ = self._request_line(buffer[:end])
            if len(target) > self.target_limit:
                raise TargetTooLong("the request target is too long")
        if BARE_LINE_FEED.search(buffer, scanned) is not None:
            raise MalformedRequest("a line ends in a bare line feed")

    def _request_line(self, line: bytes) -> tuple[str, bytes, int]:
        """Return the method, the target and the minor version of a request line (RFC 9112 section 3).

        It is exactly "method SP target SP HTTP/1.x"; llhttp reads those whose method is not one of the usual.
        """
        parts = line.split(b" ")
        if len(parts) == 3:
            usual = _METHODS.get(parts[0])
            minor = _VERSIONS.get(parts[2])
            if usual is not None and minor is not None and parts[1] and not parts[1].translate(None, _VISIBLE):
                return usual, parts[1], minor
        receiver = Receiver()
        parser = httptools.HttpRequestParser(receiver)
        try:
            parser.feed_data(line + b"\r\n\r\n")
        except httptools.HttpParserUpgrade:
            pass  # CONNECT
        except httptools.HttpParserInvalidMethodError as error:
            known = _REQUEST_LINE.fullmatch(line)
            if known is None or b"HTTP/" + known["version"] not in _VERSIONS:
                raise self._refusal(line) from error
            raise NotImplementedByUs("the request method is not known here") from error
        except httptools.HttpParserError as error:
            raise self._refusal(line) from error
        method: bytes = parser.get_method()
        minor = _VERSIONS.get(line[len(method) + len(receiver.url) + 2 :])
        if minor is None or line != b" ".join((method, receiver.url, parts[-1])):
            raise self._refusal(line)
        return method.decode("ascii"), receiver.url, minor

    def _skip_empty_lines(self) -> None:
        """Pass over empty lines ahead of a request; they count together, in however many pieces they come."""
        while self._buffer.startswith(b"\r\n"):
            self._buffer = self._buffer[2:]
            self._empty += 2
            if self._empty > MAX_EMPTY_LINES:
                raise MalformedRequest("too many empty lines ahead of the request")

    def _refusal(self, request_line: bytes) -> PorticoError:
        """Say why a request line is refused."""
        line = _REQUEST_LINE.fullmatch(request_line)
        if line is not None and line["version"] not in (b"1.0", b"1.1"):
            return VersionNotSupported("only HTTP/1.1 and HTTP/1.0 are spoken here")
        if line is not None and line["method"] in _RTSP:
            return NotImplementedByUs("the request method is not known here")
        return MalformedRequest("the request head is malformed")

    def _frame(self, headers: Headers, minor: int) -> int | None:
        """Decide where the content ends (RFC 9112 section 6.3); return its length, or None where it is chunked."""
        index = headers.index
        if b"transfer-encoding" in index:
            if b"content-length" in index:
                raise MalformedRequest("Content-Length and Transfer-Encoding stand in one request")
            if minor == 0:
                raise MalformedRequest("Transfer-Encoding came with HTTP/1.0")
            values = b",".join(headers.get_all(b"transfer-encoding")).lower().split(b",")
            codings = [coding.strip(b" \t") for coding in values]
            if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
                raise MalformedRequest("Transfer-Encoding does not end in chunked, or has it twice")
            if len(codings) > 1:
                raise NotImplementedByUs("only the transfer coding 'chunked' is known here")
            self._expect(CHUNKED, 0)
            self._named = _options(headers) if b"connection" in index else set()
            return None
        length = self._content_length(headers)
        self._expect(LENGTH, length)
        return length


class ResponseReader(Reader):
    """The incoming half of a client's connection."""

    __slots__ = ("keep_alive",)

    def __init__(
        self,
        limit: int,
        max_fields: int,
        table: FieldTable | None = None,
        max_chunk_line: int = MAX_CHUNK_LINE,
        max_trailers: int = MAX_TRAILERS,
    ) -> None:
        super().__init__(limit, response_fields(max_fields) if table is None else table, max_chunk_line, max_trailers)
        self.keep_alive = True
        """Whether the connection may be used again after this message."""

    def _too_large(self) -> PorticoError:
        return MalformedResponse("the response head is too large", source=Source.RESPONSE)

    def _too_many(self, head: bytes) -> PorticoError:
        return MalformedResponse("the response has too many headers", source=Source.RESPONSE)

    def _malformed(self, detail: str) -> PorticoError:
        return MalformedResponse(detail, source=Source.RESPONSE)

    def next_head(self, method: str) -> ResponseHead | None:
        """Return the head of the answer, interim or final, to a request with `method`, or None where it has not all
        come."""
        head = self._take_head()
        if head is None:
            return None
        if method != "HEAD" and len(head) <= MAX_BLOCK:
            known = self._table.answers.get(head)
            if known is not None:
                self.keep_alive = known.keep_alive
                self._expect(LENGTH, known.length)
                return ResponseHead(known.status, known.headers.copy(), known.length)
        start_line = head[: head.index(b"\r\n")]
        usual = _STATUSES.get(start_line)
        status, minor = self._status_line(start_line) if usual is None else usual
        headers = self._fields(head, start_line)
        self.keep_alive = _keep_alive(headers, minor)
        length = self._frame(headers, minor, status, method)
        if self._framing == LENGTH and length is not None and self._table.comes_again(head):
            self._table.remember_answer(head, KnownAnswer(status, headers.shared(), self.keep_alive, length))
        return ResponseHead(status, headers, length)

    def _status_line(self, line: bytes) -> tuple[int, int]:
        """Return the status and the minor version of a status line that is not one of the usual (RFC 9112 section 4).

        The status is one that HTTP knows (RFC 9110 section 15); the space behind it may be missing, as in practice.
        """
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise self._malformed("the status line is malformed")
        return int(match[2]), int(match[1])

    def _frame(self, headers: Headers, minor: int, status: int, method: str) -> int | None:
        """Decide where the content ends (RFC 9112 section 6.3); return its length, or None where its end will tell."""
        index = headers.index
        length = -1
        if b"transfer-encoding" in index:
            if minor == 0 or b"content-length" in index:
                raise self._malformed("the response has Transfer-Encoding beside Content-Length, or with HTTP/1.0")
        elif b"content-length" in index:
            length = self._content_length(headers)  # it goes to the client even where no content does
        if status < 200 or status == 204 or status == 304 or method == "HEAD":
            self._expect(NONE, 0)
            return 0
        if b"transfer-encoding" in index:
            if b",".join(headers.get_all(b"transfer-encoding")).lower().strip(b" \t") != b"chunked":
                raise self._malformed("the response has an unknown transfer coding")
            self._expect(CHUNKED, 0)
            self._named = _options(headers) if b"connection" in index else set()
            return None
        if length >= 0:
            self._expect(LENGTH, length)
            return length
        self.keep_alive = False
        self._expect(UNTIL_CLOSE, 0)
        return None


def upgrade(headers: Headers) -> bytes:
    """Return the protocol that Upgrade asks for, in lower case; empty where it offers several, or none (RFC 9110
    section 7.8), or where Connection does not name it: then it is not meant for this connection."""
    if b"upgrade" not in _options(headers):
        return b""
    protocols = headers.get_all(b"upgrade")
    return protocols[0].lower() if len(protocols) == 1 and _TOKEN.fullmatch(protocols[0]) is not None else b""


def _options(headers: Headers) -> set[bytes]:
    """Return what Connection lists (RFC 9110 section 7.6.1)."""
    return {option.strip(b" \t").lower() for option in b",".join(headers.get_all(b"connection")).split(b",")}


def _keep_alive(headers: Headers, minor: int) -> bool:
    """Tell whether the connection goes on after this message (RFC 9112 section 9.3).

    The fields that Connection names go no further (RFC 9110 section 7.6.1). They are removed here, when the message
    comes: later the Connection of one side could name what the gateway itself has set.
    """
    value = headers.index.get(b"connection")
    if value is None:
        return minor == 1
    known = _KEEP_ALIVE.get(value)
    if known is not None and len(headers.index) == len(headers.pairs):
        return known
    options = _options(headers)
    for option in options - _NEVER_NAMED:
        headers.remove(option)
    return b"close" not in options and (minor == 1 or b"keep-alive" in options)


def _add_fields(lines: list[bytes], headers: Headers, drop: frozenset[bytes]) -> None:
    """Append the header lines of a message without those in `drop`, which must hold HOP_BY_HOP."""
    index = headers.index
    pairs = headers.pairs
    begin = headers.base if headers.block is None else headers.block
    if begin is not None:
        known = begin.lines(drop)
        if known:
            lines.append(known)
        if headers.block is None:
            for name, value in pairs[len(begin.pairs) :]:
                if name.lower() not in drop:
                    lines.append(name + b": " + value)
        return
    if len(index) == len(pairs):
        at = 0  # an index, where zip would read better: compiled, it costs half
        for key in index:
            if key not in drop:
                name, value = pairs[at]
                lines.append(name + b": " + value)
            at += 1  # noqa: SIM113
    else:
        for name, value in pairs:
            if name.lower() not in drop:
                lines.append(name + b": " + value)


REQUEST_DROP: Final[frozenset[bytes]] = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
"""Request fields that are written anew for the next connection, or do not pass."""

RESPONSE_DROP: Final[frozenset[bytes]] = HOP_BY_HOP | {b"content-length"}
"""Response fields that are written anew for the next connection, or do not pass."""

_METHODS_WITH_CONTENT: Final = frozenset(("POST", "PUT", "PATCH"))


def request_head(
    method: str,
    target: str,
    authority: bytes,
    headers: Headers,
    extra: list[bytes],
    length: int | None,
    drop: frozenset[bytes] = REQUEST_DROP,
    content: bytes = b"",
) -> bytes:
    """Return the head of a request to a service, with its `content` where that is in memory.

    `extra` are ready header lines; `drop`, which holds REQUEST_DROP, names the fields to leave out. With a `length` of
    None the content is sent chunked.
    """
    lines: list[bytes] = [f"{method} {target} HTTP/1.1".encode("ascii"), b"Host: " + authority]
    _add_fields(lines, headers, drop)
    lines.extend(extra)
    if length is None:
        lines.append(b"Transfer-Encoding: chunked")
    elif length or method in _METHODS_WITH_CONTENT:
        lines.append(b"Content-Length: %d" % length)
    lines.append(b"")
    lines.append(content)
    return b"\r\n".join(lines)


def has_content(status: int, method: str) -> bool:
    """Tell whether a final response may have content at all (RFC 9110 section 6.4.1)."""
    return method != "HEAD" and status != 204 and status != 304


def response_head(
    status: int,
    headers: Headers,
    extra: bytes,
    length: int | None,
    method: str,
    minor: int,
    keep_alive: bool,
    content: bytes = b"",
) -> bytes:
    """Return the head of a final response to a request with `method` and minor version `minor`, with its `content`
    where that is in memory.

    `extra` is a ready header line, or empty. With a `length` of None the content is sent chunked, or to HTTP/1.0,
    which does not know chunks, until the connection closes; then `keep_alive` must be false.
    """
    if headers.block is not None and length is not None and has_content(status, method):
        lines = [_known_start(headers.block, status, length)]
    else:
        lines, content = _start(status, headers, length, method, minor, content)
    if extra:
        lines.append(extra)
    if not keep_alive:
        lines.append(b"Connection: close")
    elif not minor:
        lines.append(b"Connection: keep-alive")
    lines.append(b"")
    lines.append(content)
    return b"\r\n".join(lines)


def _known_start(block: HeaderBlock, status: int, length: int) -> bytes:
    """Return what an answer begins with that has the fields of a block and no other: mostly what the last one had."""
    start_of = block.start_of
    if start_of[0] != status or start_of[1] != length:
        lines = [_STATUS_LINES[status], block.lines(RESPONSE_DROP), b"Content-Length: %d" % length]
        block.start = b"\r\n".join([line for line in lines if line])
        block.start_of = (status, length)
    return block.start


def _start(
    status: int, headers: Headers, length: int | None, method: str, minor: int, content: bytes
) -> tuple[list[bytes], bytes]:
    """Return the lines that an answer begins with, and its content, which some have none of."""
    lines: list[bytes] = [_STATUS_LINES[status]]
    declared = headers.index.get(b"content-length")
    if not has_content(status, method):
        content = b""
        _add_fields(lines, headers, HOP_BY_HOP if status != 204 else RESPONSE_DROP)
        if method == "HEAD" and declared is None and length:
            lines.append(b"Content-Length: %d" % length)  # as the answer to GET would have it
    elif (
        declared is not None
        and length is not None
        and declared == b"%d" % length
        and len(headers.index) == len(headers.pairs)
    ):
        _add_fields(lines, headers, HOP_BY_HOP)
    else:
        _add_fields(lines, headers, RESPONSE_DROP)
        if length is not None:
            lines.append(b"Content-Length: %d" % length)
        elif minor:
            lines.append(b"Transfer-Encoding: chunked")
    return lines, content


def interim_head(status: int, headers: Headers) -> bytes:
    """Return an interim (1xx) response, which is a head and nothing else (RFC 9110 section 15.2)."""
    lines: list[bytes] = [_STATUS_LINES[status]]
    _add_fields(lines, headers, RESPONSE_DROP)
    lines += (b"", b"")
    return b"\r\n".join(lines)


def switching_head(headers: Headers, protocol: bytes) -> bytes:
    """Return a 101, after which the connection speaks `protocol` (RFC 9110 section 15.2.2)."""
    lines: list[bytes] = [_STATUS_LINES[101]]
    _add_fields(lines, headers, RESPONSE_DROP)
    lines += (b"Connection: Upgrade", b"Upgrade: " + protocol, b"", b"")
    return b"\r\n".join(lines)


def upgrade_lines(protocol: bytes) -> bytes:
    """Return the header lines by which a request asks to speak `protocol`."""
    return b"Connection: Upgrade\r\nUpgrade: " + protocol


def chunk(data: bytes) -> bytes:
    """Return one chunk; `data` must not be empty, since that would end the content."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Trailers) -> bytes:
    """Return the end of chunked content, with its trailer section."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n" + b"".join([name + b": " + value + b"\r\n" for name, value in trailers]) + b"\r\n"
