"""Where an HTTP/1 message's head ends, and its content (RFC 9112 sections 6 and 7)."""

from __future__ import annotations

import re
from typing import Final

from portico.errors import BodyTruncated, PorticoError
from portico.http.body import Trailers
from portico.http.headers import HOP_BY_HOP, Headers
from portico.wire.events import Data, End
from portico.wire.fields import FieldTable, MalformedFields, TooManyFields

MAX_CHUNK_LINE: Final = 256
"""Bytes of a chunk-size line, extensions included, unless told otherwise."""

MAX_TRAILERS: Final = 8192
"""Bytes of a trailer section, unless told otherwise."""

MAX_LENGTH_DIGITS: Final = 18
"""Digits of a Content-Length, so that it fits any peer's 64 bits."""

BARE_LINE_FEED: Final = re.compile(rb"(?<!\r)\n")

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")
_FORBIDDEN: Final[frozenset[bytes]] = HOP_BY_HOP | {
    # Framing, routing, authentication, and what says how to read the content (RFC 9110 section 6.5.1).
    b"age",
    b"authentication-info",
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"expect",
    b"expires",
    b"host",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"location",
    b"max-forwards",
    b"pragma",
    b"range",
    b"retry-after",
    b"set-cookie",
    b"vary",
    b"via",
    b"warning",
    b"www-authenticate",
    # What the gateway says of the client.
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-real-ip",
}
_FORBIDDEN_TRAILERS: Final[frozenset[bytes]] = _FORBIDDEN | {name.replace(b"-", b"_") for name in _FORBIDDEN}
"""Fields that do not pass as trailers, also as CGI and WSGI would spell them."""

# How the end of the content that is being read is told (RFC 9112 section 6.3). Plain integers: an enum's members cost
# a lookup through its metaclass at each use.
NONE: Final = 0
LENGTH: Final = 1
CHUNKED: Final = 2
UNTIL_CLOSE: Final = 3


class Reader:
    """The incoming half of a connection, in either role: finds heads, takes content out of its framing."""

    __slots__ = (
        "_buffer",
        "_eof",
        "_framing",
        "_in_chunk",
        "_max_chunk_line",
        "_max_trailers",
        "_named",
        "_remaining",
        "_scanned",
        "_table",
        "done",
        "limit",
    )

    def __init__(
        self, limit: int, table: FieldTable, max_chunk_line: int = MAX_CHUNK_LINE, max_trailers: int = MAX_TRAILERS
    ) -> None:
        self._table = table
        self._max_chunk_line = max_chunk_line
        self._max_trailers = max_trailers
        self.limit = limit
        """Bytes that a head may have."""
        self.done = True
        """True when no content is left to be read of the current message."""
        self._buffer = b""
        self._scanned = 0
        self._eof = False
        self._framing = NONE
        self._remaining = 0
        self._in_chunk = False
        self._named: set[bytes] = set()

    def receive(self, data: bytes) -> None:
        """Take bytes from the wire; no bytes mean that the other side has sent all that it will."""
        if not data:
            self._eof = True
        elif self._buffer:
            self._buffer += data
        else:
            self._buffer = data

    @property
    def ended(self) -> bool:
        """True where the other side has sent all that it will."""
        return self._eof

    @property
    def pending(self) -> bytes:
        """What was received and not yet read as part of a message."""
        return self._buffer

    def take_pending(self) -> bytes:
        """Return what came behind a message after which the connection is no longer HTTP's, and forget it."""
        data, self._buffer = self._buffer, b""
        return data

    def _take_head(self) -> bytes | None:
        """Cut one complete head off the buffer, or return None where it has not all come."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", self._scanned)
        if end < 0:
            if len(buffer) > self.limit:
                raise self._too_large()
            self._scanned = max(0, len(buffer) - 3)
            return None
        end += 4
        if end > self.limit:
            raise self._too_large()
        self._scanned = 0
        if end == len(buffer):
            self._buffer = b""
            return buffer
        self._buffer = buffer[end:]
        return buffer[:end]

    def _too_large(self) -> PorticoError:
        raise NotImplementedError

    def _too_many(self, head: bytes) -> PorticoError:
        raise NotImplementedError

    def _expect(self, framing: int, length: int) -> None:
        """Make ready for the content of the head that was just read."""
        self._framing = framing
        self._remaining = length
        self._in_chunk = False
        self.done = framing == NONE or (framing == LENGTH and length == 0)

    def next_content(self) -> Data | End | None:
        """Return the next piece of content, or None where more bytes are needed.

        Raises BodyTruncated where the other side ended before its content did.
        """
        if self._framing == CHUNKED:
            return self._next_chunked()
        data = self._buffer
        if self._framing == UNTIL_CLOSE:
            if data:
                self._buffer = b""
                return Data(data, last=False)
            if not self._eof:
                return None
            self.done = True
            return End([])
        if not data:
            if self._eof:
                raise BodyTruncated(f"{self._remaining} bytes of the content are missing")
            return None
        if len(data) > self._remaining:
            self._buffer = data[self._remaining :]
            data = data[: self._remaining]
        else:
            self._buffer = b""
        self._remaining -= len(data)
        self.done = self._remaining == 0
        return Data(data, last=self.done)

    def take_whole(self) -> bytes | None:
        """Return the entire content where all of it has come already and its length is known, or None."""
        if self._framing != LENGTH or len(self._buffer) < self._remaining:
            return None
        length, self._remaining, self.done = self._remaining, 0, True
        data = self._buffer
        if len(data) == length:
            self._buffer = b""
            return data
        self._buffer = data[length:]
        return data[:length]

    def _next_chunked(self) -> Data | End | None:
        """Decode what has come of a chunked content (RFC 9112 section 7.1), as one piece."""
        pieces: list[bytes] = []
        buffer = self._buffer
        at = 0
        # Written back at the end: an error leaves the reader where it was, and whoever asks again gets it again.
        in_chunk, remaining = self._in_chunk, self._remaining
        while True:
            if in_chunk:
                piece = buffer[at : at + remaining]
                at += len(piece)
                remaining -= len(piece)
                if piece:
                    pieces.append(piece)
                if remaining or len(buffer) < at + 2:
                    break
                if buffer[at : at + 2] != b"\r\n":
                    raise self._malformed("a chunk is longer than its size says")
                at += 2
                in_chunk = False
            end = buffer.find(b"\r\n", at, at + self._max_chunk_line)
            if end < 0:
                if len(buffer) - at >= self._max_chunk_line:
                    raise self._malformed("a chunk-size line is too long")
                if buffer.find(b"\n", at) >= 0:
                    raise self._malformed("a chunk-size line ends in a bare line feed")
                break
            line = _CHUNK_LINE.fullmatch(buffer, at, end)
            if line is None:
                raise self._malformed("a chunk-size line is malformed")
            remaining = int(line[1], 16)
            if not remaining:
                break
            at = end + 2
            in_chunk = True
        self._buffer = buffer[at:]
        self._in_chunk, self._remaining = in_chunk, remaining
        if pieces:
            return Data(b"".join(pieces), last=False)
        return self._finish_chunked()

    def _finish_chunked(self) -> End | None:
        """Read the last chunk and the trailer section, or find that more has to come."""
        buffer = self._buffer
        line = buffer.find(b"\r\n")
        if not self._in_chunk and line >= 0:
            end = line if buffer.startswith(b"\r\n", line + 2) else buffer.find(b"\r\n\r\n", line)
            if end >= 0:
                section = buffer[line + 2 : end + 2]
                if len(section) > self._max_trailers:
                    raise self._malformed("the trailer section is too large")
                trailers = self._parse_trailers(section)
                self._buffer = buffer[end + 4 :]
                self.done = True
                return End(trailers)
            if BARE_LINE_FEED.search(buffer, line + 2) is not None:
                raise self._malformed("a trailer field ends in a bare line feed")
            if len(buffer) - line > self._max_trailers + 3:  # the section, if all but its very last byte has come
                raise self._malformed("the trailer section is too large")
        if self._eof:
            raise BodyTruncated("the last chunk is missing")
        return None

    def _parse_trailers(self, section: bytes) -> Trailers:
        """Parse trailer fields; those that must not stand in a trailer (RFC 9110 section 6.5.1) are left out."""
        trailers: Trailers = []
        for line in section.split(b"\r\n")[:-1]:
            match = _TRAILER.fullmatch(line)
            if match is None:
                raise self._malformed("a trailer field is malformed")
            name = match[1].lower()
            if name not in _FORBIDDEN_TRAILERS and name not in self._named:
                trailers.append((match[1], match[2].strip(b" \t")))
        return trailers

    def _malformed(self, detail: str) -> PorticoError:
        raise NotImplementedError

    def _fields(self, head: bytes, start_line: bytes) -> Headers:
        """Return the fields of a head."""
        try:
            return self._table.read(head[len(start_line) + 2 :])
        except TooManyFields as too_many:  # two names: compiled, a name has one type
            raise self._too_many(head) from too_many
        except MalformedFields as error:
            raise self._malformed("a header line is malformed") from error

    def _content_length(self, headers: Headers) -> int:
        """Return the value of the one Content-Length field (RFC 9110 section 8.6)."""
        value = headers.index[b"content-length"]
        if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
            raise self._malformed("Content-Length is malformed")
        if len(headers.index) != len(headers.pairs) and len(headers.get_all(b"content-length")) > 1:
            raise self._malformed("Content-Length is repeated")
        return int(value)
