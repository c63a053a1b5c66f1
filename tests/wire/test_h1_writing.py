"""What we write: fields of one connection never pass, lengths are right, and h11 reads it as it was meant."""

from __future__ import annotations

from collections.abc import Sequence

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.http.headers import HOP_BY_HOP, HeaderBlock, Headers
from portico.wire import h1
from portico.wire.events import Data

TOKEN = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12).map(str.encode)
VALUE = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="".join(map(chr, range(0x7F, 0xA0)))),
    max_size=20,
).map(lambda text: text.strip().encode("latin-1"))
FIELDS = st.lists(st.tuples(TOKEN, VALUE), max_size=8)
CONTENT = st.lists(st.binary(min_size=1, max_size=50), max_size=4)

FRAMING = {b"content-length", b"transfer-encoding", b"connection", b"host", b"expect", b"date"}


def request(
    *pairs: tuple[bytes, bytes], method: str = "GET", length: int | None = 0, extra: Sequence[bytes] = ()
) -> list[bytes]:
    head = h1.request_head(method, "/p", b"svc:80", Headers(pairs), list(extra), length)
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def response(
    *pairs: tuple[bytes, bytes],
    status: int = 200,
    length: int | None = 0,
    method: str = "GET",
    minor: int = 1,
    keep_alive: bool = True,
    extra: bytes = b"",
) -> list[bytes]:
    headers = Headers(pairs)
    head = h1.response_head(status, headers, extra, length, method, minor, keep_alive)
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def test_a_request_is_written_for_the_service() -> None:
    lines = request((b"host", b"public.example"), (b"Accept", b"a"), (b"accept", b"b"), extra=[b"X-Forwarded-For: c"])
    assert lines == [b"GET /p HTTP/1.1", b"Host: svc:80", b"Accept: a", b"accept: b", b"X-Forwarded-For: c"]


def test_a_response_is_written_for_the_client() -> None:
    lines = response((b"Server", b"x"), (b"set-cookie", b"a"), (b"Set-Cookie", b"b"), extra=b"Date: c", length=7)
    assert lines[:4] == [b"HTTP/1.1 200 OK", b"Server: x", b"set-cookie: a", b"Set-Cookie: b"]
    assert sorted(lines[4:]) == [b"Content-Length: 7", b"Date: c"]


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_fields_of_one_connection_never_pass(name: bytes) -> None:
    for spelling in (name, name.title(), name.upper()):
        assert request((spelling, b"x"), (b"A", b"b")) == [b"GET /p HTTP/1.1", b"Host: svc:80", b"A: b"]
        assert response((spelling, b"x"), (b"A", b"b")) == [b"HTTP/1.1 200 OK", b"A: b", b"Content-Length: 0"]
        assert h1.interim_head(103, Headers([(spelling, b"x"), (b"A", b"b")])).split(b"\r\n")[1:] == [
            b"A: b",
            b"",
            b"",
        ]


@pytest.mark.parametrize(
    "connection",
    [
        [b"X-Secret"],
        [b"close, x-secret"],
        [b"x-other ,\tX-SECRET"],
        [b"close", b"x-secret"],
        [b"keep-alive", b"X-Secret"],
        [b"x-secret", b"keep-alive"],
        [b",x-secret,"],
    ],
)
def test_fields_that_connection_names_never_pass(connection: list[bytes]) -> None:
    pairs = [(b"X-Secret", b"1"), *((b"Connection", value) for value in connection), (b"x-secret", b"2"), (b"A", b"b")]
    fields = b"".join(name + b": " + value + b"\r\n" for name, value in pairs) + b"\r\n"
    requests = h1.RequestReader(4096, 100, 4096)
    requests.receive(b"GET /p HTTP/1.1\r\n" + fields)
    asked = requests.next_head()
    assert asked is not None
    asked.headers.set(b"X-Other", b"the gateway's")
    assert request(*asked.headers)[2:] == [b"A: b", b"X-Other: the gateway's"]
    responses = h1.ResponseReader(4096, 100)
    responses.receive(b"HTTP/1.1 200 OK\r\n" + fields)
    answered = responses.next_head("GET")
    assert answered is not None
    answered.headers.set(b"X-Secret", b"the gateway's")
    assert response(*answered.headers)[1:3] == [b"A: b", b"X-Secret: the gateway's"]


def test_a_client_cannot_take_the_gateways_own_lines_away() -> None:
    pairs = ((b"Connection", b"host, x-forwarded-for, content-length"), (b"Content-Length", b"9"))
    lines = request(*pairs, extra=[b"X-Forwarded-For: c"], method="POST", length=9)
    assert lines == [b"POST /p HTTP/1.1", b"Host: svc:80", b"X-Forwarded-For: c", b"Content-Length: 9"]


@pytest.mark.parametrize("connection", [b"content-length", b"close, Content-Length", b"keep-alive"])
@pytest.mark.parametrize("declared", [[b"3"], [b"3", b"3"], [b"3", b"4"], [b"4"], [b"03"]])
def test_nobody_can_take_a_responses_length_away(connection: bytes, declared: list[bytes]) -> None:
    lengths = [(b"content-length", value) for value in declared]
    for pairs in ([(b"Connection", connection), *lengths], lengths):
        assert [line.lower() for line in response(*pairs, length=3)[1:]] == [b"content-length: 3"]
        assert [line.lower() for line in response(*pairs, length=None)[1:]] == [b"transfer-encoding: chunked"]


def test_expect_and_the_clients_framing_do_not_pass() -> None:
    lines = request((b"Expect", b"100-continue"), (b"Content-Length", b"7"), method="POST", length=3)
    assert lines[2:] == [b"Content-Length: 3"]


@pytest.mark.parametrize(
    ("method", "length", "framing"),
    [
        ("GET", 0, []),
        ("DELETE", 0, []),
        ("POST", 0, [b"Content-Length: 0"]),
        ("PUT", 0, [b"Content-Length: 0"]),
        ("PATCH", 0, [b"Content-Length: 0"]),
        ("GET", 3, [b"Content-Length: 3"]),
        ("POST", None, [b"Transfer-Encoding: chunked"]),
        ("GET", None, [b"Transfer-Encoding: chunked"]),
    ],
)
def test_the_framing_of_a_request(method: str, length: int | None, framing: list[bytes]) -> None:
    assert request(method=method, length=length)[2:] == framing


DECLARED = (b"content-length", b"42")


@pytest.mark.parametrize(
    ("status", "method", "minor", "keep_alive", "pairs", "length", "framing"),
    [
        (200, "GET", 1, True, [DECLARED], 3, [b"Content-Length: 3"]),
        (200, "GET", 1, True, [], 0, [b"Content-Length: 0"]),
        (200, "GET", 1, False, [], 3, [b"Content-Length: 3", b"Connection: close"]),
        (200, "GET", 0, True, [], 3, [b"Content-Length: 3", b"Connection: keep-alive"]),
        (200, "GET", 0, False, [], 3, [b"Content-Length: 3", b"Connection: close"]),
        (200, "GET", 1, True, [], None, [b"Transfer-Encoding: chunked"]),
        (200, "GET", 1, False, [], None, [b"Transfer-Encoding: chunked", b"Connection: close"]),
        (200, "GET", 0, False, [], None, [b"Connection: close"]),
        (200, "HEAD", 1, True, [DECLARED], 0, [b"Content-Length: 42"]),
        (200, "HEAD", 1, True, [], 3, [b"Content-Length: 3"]),
        (304, "GET", 1, True, [DECLARED], 0, [b"Content-Length: 42"]),
        (304, "GET", 1, True, [], 0, []),
        (204, "GET", 1, True, [DECLARED], 0, []),
        (204, "GET", 1, True, [], None, []),
        (304, "GET", 1, True, [], None, []),
    ],
)
def test_the_framing_of_a_response(
    status: int,
    method: str,
    minor: int,
    *,
    keep_alive: bool,
    pairs: list[tuple[bytes, bytes]],
    length: int | None,
    framing: list[bytes],
) -> None:
    lines = response(*pairs, status=status, method=method, minor=minor, keep_alive=keep_alive, length=length)
    assert [line.lower() for line in lines[1:]] == [line.lower() for line in framing]


def test_the_reason_is_the_standard_one() -> None:
    assert response(status=404)[0] == b"HTTP/1.1 404 Not Found"
    assert response(status=599)[0] == b"HTTP/1.1 599 Server Error"
    assert h1.interim_head(103, Headers([(b"Link", b"a")])) == b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"


@given(CONTENT, st.lists(st.tuples(TOKEN, VALUE), max_size=4), st.sampled_from([1, 7, 1000]))
def test_chunks_come_back_as_they_were(pieces: list[bytes], trailers: list[tuple[bytes, bytes]], size: int) -> None:
    trailers = [(name, value) for name, value in trailers if name.lower() not in HOP_BY_HOP | FRAMING]
    wire = b"".join(map(h1.chunk, pieces)) + h1.last_chunk(trailers)
    reader = h1.ResponseReader(1000, 10)
    reader.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert reader.next_head("GET") is not None
    content = b""
    for at in range(0, len(wire), size):
        assert not reader.done
        reader.receive(wire[at : at + size])
        while not reader.done and (event := reader.next_content()) is not None:
            if isinstance(event, Data):
                content += event.data
            else:
                assert event.trailers == trailers
    assert reader.done
    assert content == b"".join(pieces)


def _h11_events(connection: h11.Connection, wire: bytes) -> tuple[h11.Request | h11.Response, bytes, list[object]]:
    """Return what h11 makes of `wire`: the head, the content, and the trailers."""
    connection.receive_data(wire)
    connection.receive_data(b"")
    head = connection.next_event()
    assert isinstance(head, h11.Request | h11.Response)
    content = b""
    while isinstance(event := connection.next_event(), h11.Data):
        content += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data[0] == b""
    return head, content, list(event.headers.raw_items())


def _wire_content(pieces: list[bytes], *, chunked: bool) -> bytes:
    return b"".join(map(h1.chunk, pieces)) + h1.last_chunk([(b"X-Sum", b"1")]) if chunked else b"".join(pieces)


def _plain(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in fields if name.lower() not in HOP_BY_HOP | FRAMING]


@settings(max_examples=200)
@given(
    fields=FIELDS, pieces=CONTENT, method=st.sampled_from(["GET", "POST", "DELETE", "PROPFIND"]), chunked=st.booleans()
)
def test_h11_reads_the_requests_that_we_write(
    fields: list[tuple[bytes, bytes]], pieces: list[bytes], method: str, *, chunked: bool
) -> None:
    length = None if chunked else sum(map(len, pieces))
    head = h1.request_head(method, "/a%20b?c", b"svc:80", Headers(fields), [b"X-Forwarded-For: d"], length)
    read, content, trailers = _h11_events(h11.Connection(h11.SERVER), head + _wire_content(pieces, chunked=chunked))
    assert isinstance(read, h11.Request)
    assert (read.method, read.target, read.http_version) == (method.encode(), b"/a%20b?c", b"1.1")
    assert content == b"".join(pieces)
    raw = read.headers.raw_items()
    assert raw[0] == (b"Host", b"svc:80")
    assert (b"X-Forwarded-For", b"d") in raw
    known = [pair for pair in raw[1:] if pair != (b"X-Forwarded-For", b"d")]
    assert _plain(known) == _plain(fields)
    assert trailers == ([(b"X-Sum", b"1")] if chunked else [])


@settings(max_examples=200)
@given(
    fields=FIELDS,
    pieces=CONTENT,
    status=st.sampled_from([200, 204, 304, 404, 500, 599]),
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    minor=st.sampled_from([0, 1]),
    streamed=st.booleans(),
    keep_alive=st.booleans(),
    in_block=st.booleans(),
)
def test_h11_reads_the_responses_that_we_write(
    fields: list[tuple[bytes, bytes]],
    pieces: list[bytes],
    status: int,
    method: str,
    minor: int,
    *,
    streamed: bool,
    keep_alive: bool,
    in_block: bool,
) -> None:
    keep_alive = keep_alive and not (streamed and minor == 0)
    length = None if streamed else sum(map(len, pieces))
    chunked = streamed and minor == 1
    headers = Headers(fields)
    if in_block:
        headers = Headers()
        headers.set_block(HeaderBlock.of(Headers(fields)))
    wire = h1.response_head(status, headers, b"", length, method, minor, keep_alive=keep_alive)
    sent = h1.has_content(status, method)
    if sent:
        wire += _wire_content(pieces, chunked=chunked)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    read, content, trailers = _h11_events(client, wire)
    assert isinstance(read, h11.Response)
    assert read.status_code == status
    assert content == (b"".join(pieces) if sent else b"")
    assert _plain(read.headers.raw_items()) == _plain(fields)
    assert trailers == ([(b"X-Sum", b"1")] if chunked and sent else [])
    assert (client.their_state is h11.MUST_CLOSE or client.their_state is h11.CLOSED) or keep_alive


@settings(max_examples=200)
@given(fields=FIELDS, pieces=CONTENT, chunked=st.booleans())
def test_we_read_the_requests_that_h11_writes(
    fields: list[tuple[bytes, bytes]], pieces: list[bytes], *, chunked: bool
) -> None:
    framing = [("Transfer-Encoding", "chunked")] if chunked else [("Content-Length", str(sum(map(len, pieces))))]
    client = h11.Connection(h11.CLIENT)
    wire = client.send(
        h11.Request(method="PUT", target="/a", headers=[("Host", "b"), *_plain(fields), *framing])
    ) + b"".join(client.send(h11.Data(data=piece)) for piece in pieces)
    wire += client.send(h11.EndOfMessage())
    reader = h1.RequestReader(10_000, 100, 100)
    reader.receive(wire)
    head = reader.next_head()
    assert head is not None
    assert (head.method, head.target, head.minor) == ("PUT", b"/a", 1)
    assert _plain(head.headers.pairs) == _plain(fields)
    content = b""
    while not reader.done:
        event = reader.next_content()
        assert event is not None
        if isinstance(event, Data):
            content += event.data
    assert content == b"".join(pieces)
    assert reader.idle
