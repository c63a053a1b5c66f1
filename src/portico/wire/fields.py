"""Header lines, each read once: most of them repeat from one message to the next, which HPACK (RFC 7541) lives on too.

llhttp reads a line when it is first seen; a table then remembers what it says, for all connections that share the
table, and so it does with whole header blocks that are made of known lines. A header line means the same wherever it
stands: what depends on several of them, such as framing, is decided elsewhere, on the fields.
"""

from __future__ import annotations

from typing import Any, Final

import httptools

from portico.http.headers import Headers, Pair
from portico.wire.events import KnownAnswer, KnownRequest

MAX_LINES: Final = 1024
"""Lines that a table remembers; one more, and it starts over."""

MAX_LINE: Final = 128
"""Bytes of a line that is worth remembering."""

MAX_BLOCKS: Final = 128
MAX_BLOCK: Final = 1024
"""Whole header blocks, and heads, that a table remembers, and bytes of one; made of remembered lines, none holds a
secret."""

_SECRET: Final = frozenset(
    (b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"x-api-key", b"x-auth-token", b"x-csrf-token")
)
"""Fields whose values are not kept beyond their message."""

_FRAMING: Final = (b"content-length", b"transfer-encoding")
"""The fields of framing, which llhttp does not get to see: it judges several of them together, so that what it says of
a line would depend on which others are remembered. `framing.py` and `h1.py` judge them, always."""
_NEVER_AGAIN: Final = (b"traceparent", b"x-request-id", b"x-correlation-id", b"b3", b"x-b3-traceid", b"x-b3-spanid")
"""Fields whose values are others in each message: remembering them would drive out what comes again."""
_READ_HERE: Final = _SECRET.union(_FRAMING, _NEVER_AGAIN)
"""Lines that are read here: those of framing, and those that would need llhttp for every message."""
_NOT_KEPT: Final = _SECRET.union(_NEVER_AGAIN)
_CONTROLS: Final = bytes((*range(0x09), *range(0x0A, 0x20), 0x7F))
"""What no value may have (RFC 9110 section 5.5); llhttp refuses it, too."""


class MalformedFields(Exception):
    """A line is none that a header may have (RFC 9112 section 5)."""


class TooManyFields(Exception):
    """A head has more fields than the table takes."""


class Receiver:
    """What llhttp calls back for one head."""

    __slots__ = ("pairs", "url")

    def __init__(self) -> None:
        self.url = b""
        self.pairs: list[Pair] = []

    def on_url(self, url: bytes) -> None:
        """Take the target, or a piece of it."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field; llhttp leaves the optional white space behind its value (RFC 9110 section 5.5)."""
        self.pairs.append((name, value.rstrip()))


class _Field:
    """What one line says."""

    __slots__ = ("key", "pair", "value")

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.key = pair[0].lower()
        self.value = pair[1]


class FieldTable:
    """Remembers header lines and reads new ones, in heads that begin as `start_line` does."""

    __slots__ = ("_blocks", "_known", "_max_fields", "_once", "_parser", "_seen", "_start_line", "answers", "requests")

    def __init__(self, parser: Any, start_line: bytes, max_fields: int) -> None:
        self._max_fields = max_fields
        self._parser = parser
        self._start_line = start_line
        self._known: dict[bytes, _Field] = {}
        self._blocks: dict[bytes, Headers] = {}
        self._seen = False
        self._once: set[int] = set()
        self.requests: dict[bytes, KnownRequest] = {}
        self.answers: dict[bytes, KnownAnswer] = {}
        """Heads that have come before, as a whole."""

    def __contains__(self, line: bytes) -> bool:
        return line in self._known

    def __len__(self) -> int:
        return len(self._known)

    def read(self, block: bytes) -> Headers:
        """Return the fields of a head's header block: all that follows its start line, the empty line included.

        Raises MalformedFields and TooManyFields.
        """
        seen = self._blocks.get(block)
        if seen is not None:
            self._seen = True
            return seen.copy()
        self._seen = False
        headers = Headers()
        pairs = headers.pairs
        index = headers.index
        known = self._known
        lines = block.split(b"\r\n")
        end = len(lines) - 2
        if end > self._max_fields:
            raise TooManyFields
        at = 0
        while at < end:
            field = known.get(lines[at])
            if field is None:
                return self._read_new(lines[:end])
            pairs.append(field.pair)
            index.setdefault(field.key, field.value)
            at += 1
        if len(block) <= MAX_BLOCK:  # every line of it has come before: it is likely to come again as a whole
            if len(self._blocks) >= MAX_BLOCKS:
                self._blocks.clear()
            headers = self._blocks[block] = headers.shared()
            return headers.copy()
        return headers

    def comes_again(self, head: bytes) -> bool:
        """Tell whether a whole head, whose block was just read, is worth remembering: it must have come before."""
        if not self._seen or len(head) > MAX_BLOCK:
            return False
        number = hash(head)  # a collision costs a place in the memory, and no more
        if number in self._once:
            return True
        if len(self._once) >= MAX_LINES:
            self._once.clear()
        self._once.add(number)
        return False

    def remember_request(self, head: bytes, known: KnownRequest) -> None:
        """Remember a whole head."""
        if len(self.requests) >= MAX_BLOCKS:
            self.requests.clear()
        self.requests[head] = known

    def remember_answer(self, head: bytes, known: KnownAnswer) -> None:
        """Remember a whole head."""
        if len(self.answers) >= MAX_BLOCKS:
            self.answers.clear()
        self.answers[head] = known

    def _read_new(self, lines: list[bytes]) -> Headers:
        """Read what is not known of `lines`, and remember what may come again."""
        known = self._known
        fields = [known.get(line) or self._read_plain(line) for line in lines]
        unknown = [line for line, field in zip(lines, fields, strict=True) if field is None]
        fresh = iter(self._tokenize(unknown) if unknown else [])
        headers = Headers()
        for field in fields:
            pair = next(fresh) if field is None else field.pair
            headers.put_parsed(pair[0], pair[1])
        return headers

    def _read_plain(self, line: bytes) -> _Field | None:
        """Read a line of framing, with a secret, or that never comes again; return None where it is none."""
        name, colon, value = line.partition(b":")
        if not colon or name.lower() not in _READ_HERE or len(value.translate(None, _CONTROLS)) != len(value):
            return None  # deleting is several times as quick as a regular expression over a long token
        return self._remember(line, (name, value.strip(b" \t")))

    def _tokenize(self, lines: list[bytes]) -> list[Pair]:
        """Have llhttp read `lines`; each must come out as one field, which catches folding and the like for certain."""
        receiver = Receiver()
        try:
            self._parser(receiver).feed_data(b"\r\n".join((self._start_line, *lines, b"", b"")))
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise MalformedFields(str(error)) from error
        pairs = receiver.pairs
        if len(pairs) != len(lines):
            raise MalformedFields("not every line is one field")
        for line, pair in zip(lines, pairs, strict=True):
            if not line.startswith(pair[0] + b":"):
                raise MalformedFields("a field is not its line's")
            self._remember(line, pair)
        return pairs

    def _remember(self, line: bytes, pair: Pair) -> _Field:
        """Return what a line says, and keep it in mind unless it is long or has a secret."""
        field = _Field(pair)
        if len(line) <= MAX_LINE and field.key not in _NOT_KEPT:
            if len(self._known) >= MAX_LINES:
                self._known.clear()
            self._known[line] = field
        return field


def request_fields(max_fields: int) -> FieldTable:
    """Return a table for the lines of requests, which may have `max_fields` each."""
    return FieldTable(httptools.HttpRequestParser, b"GET / HTTP/1.1", max_fields)


def response_fields(max_fields: int) -> FieldTable:
    """Return a table for the lines of responses, which may have `max_fields` each."""
    return FieldTable(httptools.HttpResponseParser, b"HTTP/1.1 200 OK", max_fields)
