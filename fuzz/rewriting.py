"""What was read is written again, as for the next hop, and must be one message there, with the same meaning."""

from __future__ import annotations

from typing import Final

from fuzz.oracle import Meaning, theirs
from fuzz.reading import NARROW, Limits, Message, Pairs, read_requests, read_responses
from portico.http.headers import Headers
from portico.wire import h1

AUTHORITY: Final = b"service:80"
NEXT: Final = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
"""What is sent behind a request: the reader must find it right there."""


def plain(fields: Pairs) -> Pairs:
    """Return the fields that mean the same on any connection, with any framing."""
    return [pair for pair in fields if pair[0].lower() not in h1.REQUEST_DROP]


def rewrite(message: Message, method: str | None) -> bytes:
    """Return `message` as we write it; `method` is that of the request which it answers, None for a request."""
    headers = Headers()
    for name, value in message.fields:
        headers.put_parsed(name, value)
    if method is None:
        head = _request_head(message, headers)
    else:
        (status,) = message.start
        assert isinstance(status, int)
        if status == 101:
            return h1.switching_head(headers, headers.get(b"upgrade") or b"x")
        if status < 200:
            return h1.interim_head(status, headers)
        head = h1.response_head(status, headers, b"", message.length, method, 1, message.keep_alive)
        if not h1.has_content(status, method):
            return head
    if message.length is not None:
        return head + message.content
    middle = len(message.content) // 2
    parts = (message.content[:middle], message.content[middle:])
    return head + b"".join(h1.chunk(part) for part in parts if part) + h1.last_chunk(message.trailers)


def _request_head(message: Message, headers: Headers) -> bytes:
    method, target, _ = message.start
    assert isinstance(method, str)
    assert isinstance(target, bytes)
    return h1.request_head(method, target.decode("ascii"), AUTHORITY, headers, [], message.length)


def check_rewritten(data: bytes, method: str | None, limits: Limits = NARROW) -> int:
    """Write each whole message of `data` again, have h11 read it, and return how many there were.

    However the message came, what leaves is exactly one message: what is sent behind it stays behind it.
    """
    outcome = read_requests([data], limits) if method is None else read_responses([data], method, limits)
    whole = [message for message in outcome.messages if message.complete and message.start[0] != "CONNECT"]
    for message in whole:
        if method is None:
            _check_request(message)
        else:
            _check_response(message, method)
    return len(whole)


def _check_request(message: Message) -> None:
    meaning = theirs(rewrite(message, None) + NEXT, None)
    assert isinstance(meaning, Meaning), f"h11 refuses what we write: {meaning}"
    assert meaning.rest == NEXT, "what we write is not one message"
    assert meaning.start == (*message.start[:2], 1)
    assert meaning.fields[0] == (b"Host", AUTHORITY)
    _check_alike(message, meaning)


def _check_response(message: Message, method: str) -> None:
    meaning = theirs(rewrite(message, method) + b"next", method)
    assert isinstance(meaning, Meaning), f"h11 refuses what we write: {meaning}"
    assert meaning.rest == b"next", "what we write is not one message"
    assert meaning.start == message.start
    _check_alike(message, meaning)


def _check_alike(message: Message, meaning: Meaning) -> None:
    assert plain(meaning.fields) == plain(message.fields)
    assert meaning.content == message.content
    assert meaning.trailers == message.trailers
