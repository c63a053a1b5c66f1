"""h11 as the oracle: it reads the bytes too and must find the same meaning; `differences.py` says where it may not."""

from __future__ import annotations

from typing import NamedTuple

import h11

from fuzz.reading import Limits, Pairs, read_first
from portico.errors import PorticoError

WIDE = Limits(head=8192, fields=1000, target=8192)
"""Limits beyond what is fuzzed with: h11 has others, so limits have tests of their own."""


class Meaning(NamedTuple):
    """One message as both may understand it, and the bytes that come after it."""

    start: tuple[object, ...]
    fields: Pairs
    content: bytes
    trailers: Pairs
    keep_alive: bool
    rest: bytes
    framing: tuple[bytes, ...] = ()
    """What stands around the content as h11 cut it: the head, each chunk's line, the last chunk with the trailers."""


Verdict = Meaning | type[PorticoError] | str | None
"""A message; or our error or h11's words; or None from us where the other side sent no message at all."""


def ours(data: bytes, method: str | None) -> Verdict:
    """Return what we read first of `data`; `method` is that of the request which it answers, None for a client's."""
    first, error, rest = read_first(data, method, WIDE)
    if first is None:
        return error
    keep_alive = first.keep_alive or _is_interim(first.start)  # an interim answer ends nothing, whatever it says
    return Meaning(first.start, first.fields, first.content, first.trailers, keep_alive, rest)


def _is_interim(start: tuple[object, ...]) -> bool:
    return len(start) == 1 and isinstance(start[0], int) and start[0] < 200


def theirs(data: bytes, method: str | None) -> Verdict:
    """Return what h11 reads first of `data`."""
    connection = h11.Connection(h11.SERVER if method is None else h11.CLIENT, max_incomplete_event_size=1 << 20)
    if method is not None:
        asked = [("Host", "a"), ("Upgrade", "x"), ("Connection", "upgrade")]  # so that 101 is an answer
        connection.send(h11.Request(method=method, target="/", headers=asked))
        connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    try:
        return _read(connection, data)
    except h11.RemoteProtocolError as error:
        return str(error)


def _read(connection: h11.Connection, data: bytes) -> Verdict:
    head = connection.next_event()
    if isinstance(head, h11.ConnectionClosed):
        return None
    assert isinstance(head, h11.Request | h11.InformationalResponse | h11.Response), head
    fields = list(head.headers.raw_items())
    rest = connection.trailing_data[0]
    framing = [data[: len(data) - len(rest)]]
    if isinstance(head, h11.InformationalResponse):
        return Meaning((head.status_code,), fields, b"", [], keep_alive=True, rest=rest, framing=tuple(framing))
    content = b""
    while True:
        event = connection.next_event()
        before, rest = rest, connection.trailing_data[0]
        taken = before[: len(before) - len(rest)]
        if not isinstance(event, h11.Data):
            break
        content += bytes(event.data)
        framing.append(taken[: len(taken) - len(event.data)])
    assert isinstance(event, h11.EndOfMessage), event
    framing.append(taken)
    trailers = list(event.headers.raw_items())
    if isinstance(head, h11.Request):
        start: tuple[object, ...] = (head.method.decode(), head.target, int(head.http_version[2:]))
        connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))  # whatever it asked for
        keep_alive = connection.their_state is h11.DONE
    else:
        start = (head.status_code,)
        keep_alive = connection.their_state is h11.DONE and not _until_close(head, connection)
    return Meaning(start, fields, content, trailers, keep_alive, rest, tuple(framing))


def _until_close(head: h11.Response, connection: h11.Connection) -> bool:
    """Tell whether the end of the connection was the end of the content (RFC 9112 section 6.3)."""
    request = connection._request_method  # noqa: SLF001 - h11 keeps what it was told
    if request == b"HEAD" or head.status_code in (204, 304):
        return False
    return not any(name in (b"content-length", b"transfer-encoding") for name, _ in head.headers)


class Case(NamedTuple):
    """A message that was read differently."""

    data: bytes
    method: str | None
    ours: Verdict
    theirs: Verdict


def agree(mine: Verdict, other: Verdict) -> bool:
    """Tell whether two verdicts are the same: both refuse, or both mean the same."""
    if isinstance(mine, Meaning) and isinstance(other, Meaning):
        return mine._replace(framing=()) == other._replace(framing=())
    return not isinstance(mine, Meaning) and not isinstance(other, Meaning)


def disagreements(data: bytes, method: str | None) -> list[Case]:
    """Return the first message of `data` that is read differently, in a list, or nothing where all are read alike."""
    while True:
        mine, other = ours(data, method), theirs(data, method)
        if not agree(mine, other):
            return [Case(data, method, mine, other)]
        if not isinstance(mine, Meaning) or not mine.rest or mine.rest == data:
            return []
        if is_over(mine):
            return []
        data = mine.rest


def is_over(meaning: Meaning) -> bool:
    """Tell whether what comes behind a message is not read."""
    if len(meaning.start) == 1:
        (status,) = meaning.start
        return isinstance(status, int) and (status == 101 or status >= 200)
    return not meaning.keep_alive
