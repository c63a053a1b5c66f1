"""The rows, read whole, byte by byte and in random pieces, with and without the connection's end, and written again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from random import Random

import pytest

from fuzz.reading import (
    Limits,
    Message,
    Outcome,
    Reader,
    check_history,
    check_splits,
    drive,
    is_last,
    next_request,
    next_response,
    read_requests,
    read_responses,
)
from fuzz.rewriting import plain, rewrite
from portico.wire import framing
from portico.wire.h1 import RequestReader, ResponseReader, has_content
from tests.wire import rows
from tests.wire.rows import REQUESTS, RESPONSES, Row

SPLITS = 24
ROWS = [pytest.param(row, id=f"{row.method or 'request'}: {row.name}") for row in (*REQUESTS, *RESPONSES)]


def random_splits(row: Row) -> list[list[int]]:
    random = Random(row.name)
    return [sorted(random.randrange(len(row.data) + 1) for _ in range(random.randint(1, 8))) for _ in range(SPLITS)]


def read(pieces: Sequence[bytes], row: Row, *, eof: bool = True) -> tuple[Outcome, Reader]:
    if row.method is None:
        requests = RequestReader(*row.limits)
        return drive(requests, partial(next_request, requests), pieces, row.limits.head, eof=eof), requests
    answers = ResponseReader(row.limits.head, row.limits.fields)
    return drive(answers, partial(next_response, answers, row.method), pieces, row.limits.head, eof=eof), answers


def state(outcome: Outcome, reader: Reader, row: Row) -> str:
    """Return the name of where in a message `reader` is."""
    if outcome.error is not None:
        return rows.REFUSED
    if reader.done:
        if outcome.messages and is_last(outcome.messages[-1]):
            return rows.OVER
        if not reader.pending:
            return rows.IDLE
        return rows.HEADERS if b"\r\n" in reader.pending else rows.START_LINE
    if reader._framing != framing.CHUNKED:
        return rows.LENGTH if reader._framing == framing.LENGTH else rows.UNTIL_CLOSE
    if reader._in_chunk:
        return rows.CHUNK_DATA if reader._remaining else rows.CHUNK_END
    return rows.TRAILERS if b"\r\n" in reader.pending else rows.CHUNK_LINE


@pytest.mark.parametrize("row", ROWS)
def test_bytes_mean_the_same_however_they_come(row: Row) -> None:
    outcome = check_splits(lambda pieces: read(pieces, row)[0], row.data, random_splits(row))
    assert outcome.messages == row.messages
    assert outcome.error is row.error
    if row.error is None:
        assert outcome.pending == row.pending


@pytest.mark.parametrize("row", ROWS)
def test_what_comes_leaves_the_reader_in_its_state(row: Row) -> None:
    outcome = check_splits(lambda pieces: read(pieces, row, eof=False)[0], row.data, random_splits(row))
    assert state(*read([row.data], row, eof=False), row) == row.state
    assert outcome.error is (row.error if row.state == rows.REFUSED else None)
    if row.state != rows.REFUSED:
        assert outcome.pending == row.pending
        until_close = row.state == rows.UNTIL_CLOSE
        assert outcome.messages == [
            message._replace(complete=message.complete and not until_close) for message in row.messages
        ]


@pytest.mark.parametrize("row", ROWS)
def test_what_came_before_on_other_connections_changes_nothing(row: Row) -> None:
    check_history(row.data, row.method, row.limits)


@pytest.mark.parametrize("row", [row for row in ROWS if row.values[0].messages])
def test_what_was_read_reads_alike_when_it_is_written(row: Row) -> None:
    written = 0
    for message in row.messages:
        if message.complete and message.start[0] != "CONNECT":
            check_written(message, row)
            written += 1
    assert written == len(row.messages) or row.error is not None or row.messages[0].start[0] == "CONNECT"


def check_written(message: Message, row: Row) -> None:
    wide = Limits(head=8192, fields=100, target=8192)
    wire = rewrite(message, row.method)

    def read_again(pieces: Sequence[bytes]) -> Outcome:
        if row.method is None:
            return read_requests(pieces, wide, eof=False)
        return read_responses(pieces, row.method, wide, eof=False)

    outcome = check_splits(read_again, wire, random_splits(row._replace(data=wire)))
    assert outcome.error is None
    assert not outcome.pending
    (again,) = outcome.messages
    assert again.complete
    assert again.start == (message.start if row.method is not None else (*message.start[:2], 1))
    assert plain(again.fields) == plain(message.fields)
    assert (again.length, again.content, again.trailers) == (message.length, message.content, message.trailers)
    if row.method is None:
        assert again.keep_alive
        assert not again.upgrade
        assert again.fields[0] == (b"Host", b"service:80")
    elif int(str(message.start[0])) >= 200:
        assert again.keep_alive == message.keep_alive
        if not has_content(int(str(message.start[0])), row.method) and message.start[0] != 204:
            lengths = [value for name, value in message.fields if name.lower() == b"content-length"]
            assert [value for name, value in again.fields if name.lower() == b"content-length"] == lengths
    assert rewrite(again, row.method) == wire


@pytest.mark.parametrize("method", [None, "GET"])
@pytest.mark.parametrize(
    ("chunks", "fits"),
    [
        (b"1;" + b"x" * 12 + b"\r\na\r\n0\r\n\r\n", True),
        (b"1;" + b"x" * 13 + b"\r\na\r\n0\r\n\r\n", False),
        (b"0\r\nA: " + b"x" * 27 + b"\r\n\r\n", True),
        (b"0\r\nA: " + b"x" * 28 + b"\r\n\r\n", False),
    ],
)
def test_the_limits_of_chunks_are_the_readers_own(method: str | None, chunks: bytes, fits: bool) -> None:
    def read_chunks(pieces: Sequence[bytes]) -> Outcome:
        if method is None:
            requests = RequestReader(512, 8, 64, None, 16, 32)
            return drive(requests, partial(next_request, requests), pieces, 512, eof=False)
        answers = ResponseReader(512, 8, None, 16, 32)
        return drive(answers, partial(next_response, answers, method), pieces, 512, eof=False)

    data = (rows.POST if method is None else rows.OK) + rows.CHUNKS + b"\r\n" + chunks
    (message,), error, pending = check_splits(read_chunks, data, [[len(data) - cut] for cut in range(1, 9)])
    assert message.complete == fits
    assert (error is None) == fits
    assert not pending


def test_each_state_has_its_rows() -> None:
    requests = {row.state for row in REQUESTS}
    responses = {row.state for row in RESPONSES}
    assert requests == set(rows.STATES) - {rows.UNTIL_CLOSE}  # a request's content never ends so
    assert responses == set(rows.STATES)


def test_no_row_stands_twice() -> None:
    for table in (REQUESTS, RESPONSES):
        names = Counter((row.name, row.method) for row in table)
        bytes_ = Counter((row.data, row.method) for row in table)
        assert [name for name, count in names.items() if count > 1] == []
        assert [data for data, count in bytes_.items() if count > 1] == []
