"""Bytes, read by us, and what must hold of the reading whatever the bytes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

from portico.errors import BodyTruncated, MalformedResponse, PorticoError, RequestError
from portico.http.body import Trailers
from portico.wire.events import Data
from portico.wire.fields import FieldTable, MalformedFields, TooManyFields, request_fields, response_fields
from portico.wire.framing import MAX_CHUNK_LINE, MAX_TRAILERS
from portico.wire.h1 import RequestReader, ResponseReader

Pairs = list[tuple[bytes, bytes]]


class Limits(NamedTuple):
    """What a reader takes: bytes of a head, fields, and bytes of a request target."""

    head: int = 512
    fields: int = 8
    target: int = 64


NARROW: Final = Limits()
"""Limits that few bytes are enough to reach."""


class Message(NamedTuple):
    """One message as it was read: its start line, what its head says, its content, and whether it came to its end."""

    start: tuple[object, ...]
    fields: Pairs
    length: int | None
    keep_alive: bool
    expects: bool = False
    upgrade: bytes = b""
    content: bytes = b""
    trailers: Trailers = []  # noqa: RUF012 - never changed
    complete: bool = True


class Outcome(NamedTuple):
    """What came of some bytes: messages, the error that ended the reading, and what was left unread."""

    messages: list[Message]
    error: type[PorticoError] | None = None
    pending: bytes = b""

    def without_partial_content(self) -> Outcome:
        """Return this without the content that went by before an error: how much that is depends on the pieces."""
        if self.error is None or not self.messages or self.messages[-1].complete:
            return self
        return self._replace(messages=[*self.messages[:-1], self.messages[-1]._replace(content=b"")])


Read = Callable[[Sequence[bytes]], Outcome]
Reader = RequestReader | ResponseReader
NextMessage = Callable[[], Message | None]

FORESEEN: Final = (RequestError, BodyTruncated, MalformedResponse)
"""What reading may raise; anything else is a bug."""


def read_requests(
    pieces: Sequence[bytes], limits: Limits = NARROW, *, eof: bool = True, table: FieldTable | None = None
) -> Outcome:
    """Return what a server reads: requests, up to the first that ends the connection."""
    reader = RequestReader(*limits, table)
    return drive(reader, partial(next_request, reader), pieces, limits.head, eof=eof)


def read_responses(
    pieces: Sequence[bytes],
    method: str,
    limits: Limits = NARROW,
    *,
    eof: bool = True,
    table: FieldTable | None = None,
) -> Outcome:
    """Return what a client reads in answer to one request with `method`: interim answers, and the final one."""
    reader = ResponseReader(limits.head, limits.fields, table)
    return drive(reader, partial(next_response, reader, method), pieces, limits.head, eof=eof)


def next_request(reader: RequestReader) -> Message | None:
    """Read the head of the next request."""
    head = reader.next_head()
    if head is None:
        return None
    start = (head.method, head.target, head.minor)
    return Message(start, head.headers.pairs, head.length, head.keep_alive, head.expects_continue, head.upgrade)


def next_response(reader: ResponseReader, method: str) -> Message | None:
    """Read the head of the next answer."""
    head = reader.next_head(method)
    return None if head is None else Message((head.status,), head.headers.pairs, head.length, reader.keep_alive)


def is_last(message: Message) -> bool:
    """Tell whether nothing more is read from the connection after `message`."""
    if len(message.start) == 1:
        (status,) = message.start
        return isinstance(status, int) and (status == 101 or status >= 200)
    return not message.keep_alive


def drive(reader: Reader, next_message: NextMessage, pieces: Sequence[bytes], limit: int, *, eof: bool) -> Outcome:
    """Give `pieces` to `reader` one by one, read all that can be read after each, and return what came of it.

    On the way: no piece of content is empty without being the last, and no more is held than the limits allow.
    """
    bound = max(limit, MAX_CHUNK_LINE + MAX_TRAILERS + 4)
    messages: list[Message] = []
    feeds = [*pieces, b""] if eof else list(pieces)
    for number, piece in enumerate(feeds, 1):
        reader.receive(piece)
        try:
            over = _drain(reader, next_message, messages, is_last)
        except FORESEEN as error:
            return Outcome(messages, type(error))
        if over:
            return Outcome(messages, None, reader.pending + b"".join(feeds[number:]))
        assert len(reader.pending) <= bound, "more is held than the limits allow"
    return Outcome(messages, None, reader.pending)


def read_first(
    data: bytes, method: str | None, limits: Limits
) -> tuple[Message | None, type[PorticoError] | None, bytes]:
    """Return the first message of `data`, the error in its stead, and what comes behind it.

    `method` is that of the request which `data` answers, or None where `data` is a client's.
    """
    messages: list[Message] = []
    reader: Reader
    next_message: NextMessage
    if method is None:
        reader = requests = RequestReader(*limits)
        next_message = partial(next_request, requests)
    else:
        reader = responses = ResponseReader(limits.head, limits.fields)
        next_message = partial(next_response, responses, method)
    reader.receive(data)
    reader.receive(b"")
    try:
        _drain(reader, next_message, messages, lambda _: True)
    except FORESEEN as error:
        return None, type(error), reader.pending
    return (messages[0] if messages else None), None, reader.pending


def _drain(
    reader: Reader, next_message: NextMessage, messages: list[Message], is_enough: Callable[[Message], bool]
) -> bool:
    """Read into `messages` all that has come; tell whether nothing more is to be read from the connection."""
    while True:
        if reader.done:
            if messages and is_enough(messages[-1]):
                return True
            message = next_message()
            if message is None:
                return False
            messages.append(message._replace(complete=reader.done))
            continue
        event = reader.next_content()
        if event is None:
            return False
        last = messages[-1]
        if isinstance(event, Data):
            assert event.data or event.last, "an empty piece of content"
            assert event.last == reader.done, "the last piece is not the end"
            last = last._replace(content=last.content + event.data, complete=event.last)
        else:
            assert reader.done, "the end is not the end"
            last = last._replace(trailers=event.trailers, complete=True)
        messages[-1] = last


def in_pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut `data` at each of `cuts`."""
    bounds = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
    return [data[start:end] for start, end in pairwise(bounds)]


def by_byte(data: bytes) -> list[bytes]:
    """Cut `data` into single bytes."""
    return [data[at : at + 1] for at in range(len(data))]


def check_splits(read: Read, data: bytes, splits: Sequence[Sequence[int]]) -> Outcome:
    """Return what `data` means; it must mean the same whole, byte by byte, and cut at each of `splits`.

    Where reading ends in an error, no way of cutting gives content that byte by byte does not.
    """
    slow = read(by_byte(data))
    for pieces in ([data], *(in_pieces(data, cuts) for cuts in splits)):
        outcome = read(pieces)
        assert outcome.without_partial_content() == slow.without_partial_content(), "pieces change the meaning"
        for fast_message, slow_message in zip(outcome.messages, slow.messages, strict=True):
            assert slow_message.content.startswith(fast_message.content), "content from nowhere"
    return slow


def _lines(data: bytes) -> Iterator[bytes]:
    for line in data.split(b"\r\n"):
        if line:
            yield line


def warm(table: FieldTable, data: bytes) -> FieldTable:
    """Return `table` after it has seen each line of `data` by itself, as if others had sent them."""
    for line in _lines(data):
        try:
            table.read(line + b"\r\n\r\n")
        except (MalformedFields, TooManyFields):
            continue
    return table


def check_history(data: bytes, method: str | None, limits: Limits = NARROW) -> None:
    """What other connections have sent changes nothing: a table that knows each line of `data` reads it alike.

    `method` is that of the request which `data` answers, or None where `data` is a client's.
    """
    if method is None:
        cold = read_requests([data], limits)
        known = read_requests([data], limits, table=warm(request_fields(limits.fields), data))
    else:
        cold = read_responses([data], method, limits)
        known = read_responses([data], method, limits, table=warm(response_fields(limits.fields), data))
    assert cold == known, "what came before changes the meaning"
