"""What Portico forwards is parsed alike by h11, aiohttp, Node and nginx: no two of them see different requests.

The exact bytes that a service gets are given to each of them, with one more request behind. All must find the same
requests in them, and then that one. What they may tell differently is in TOLERATED, each with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2e.malformed import BODIES, BROKEN_OFF, EVIL, LIMITS, PASSED
from tests.e2e.parsers.reading import MARKER, Read, Server, Unread, parsers, with_h11
from tests.e2e.parsers.recorder import Recorder
from tests.harness.gateway import Gateway, wait_for

CONFIG = """\
services:
  kept: {{url: 'http://127.0.0.1:{port}'}}
routes:
  - {{path: /**, service: kept}}
  - {{path: /named/**, service: kept, preserve_host: true}}
"""
EXAMPLES = 200
FIN = b"GET /fin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Difference(NamedTuple):
    """What one parser may tell otherwise than h11, and why that is no desync: from h11's reading to its own."""

    why: str
    apply: Callable[[Read], Read]


def _without(read: Read, unwanted: Callable[[str], bool]) -> Read:
    return read._replace(headers=[(name, value) for name, value in read.headers if not unwanted(name)])


def _reframed(read: Read) -> Read:
    chunked = "transfer-encoding" in dict(read.headers)
    plain = _without(read, lambda name: name in ("transfer-encoding", "connection"))
    return plain._replace(headers=[*plain.headers, ("content-length", str(len(read.body)))]) if chunked else plain


def _by_name(read: Read) -> Read:
    return read._replace(headers=sorted(read.headers, key=lambda field: field[0]))


_PLAIN_NAME = re.compile(r"[A-Za-z0-9-]+")

_NO_TRAILERS = Difference(
    "it reads over the trailer section and tells nobody; the next request is found",
    lambda read: read._replace(trailers=None),
)

TOLERATED: dict[str, dict[str, Difference]] = {
    "aiohttp": {"trailers": _NO_TRAILERS},
    "aiohttp in Python": {"trailers": _NO_TRAILERS},
    "Node": {},
    "nginx": {
        "trailers": _NO_TRAILERS,
        "framing": Difference(
            "it buffers the content and hands it on with its length, and speaks for its own connection; the content"
            " itself is compared",
            _reframed,
        ),
        "names": Difference(
            "it ignores fields whose names have more than letters, digits and hyphens (ignore_invalid_headers,"
            " underscores_in_headers); no such field frames or routes a message",
            lambda read: _without(read, lambda name: _PLAIN_NAME.fullmatch(name) is None),
        ),
        "order": Difference(
            "it writes Host and Content-Length first; fields of one name keep their order, which is all that counts"
            " (RFC 9110 section 5.3)",
            _by_name,
        ),
    },
}


ONCE: dict[str, frozenset[str]] = {
    "aiohttp": frozenset(("content-type",)),
    "aiohttp in Python": frozenset(("content-type",)),
    "Node": frozenset(),
    "nginx": frozenset(("authorization",)),
}
"""Fields of which a parser takes no two: it answers 400 and closes, so that nothing is read out of step. The others go
by the first, the last, or the list, which is the service's own affair: no such field frames or routes a message."""


def _refused(name: str, requests: list[Read]) -> bool:
    """Tell whether a parser may refuse one of `requests`."""
    found = ([field for field, _ in read.headers] for read in requests)
    return any(fields.count(field) > 1 for fields in found for field in ONCE[name])


@pytest.fixture(scope="module")
def service() -> Iterator[Recorder]:
    with Recorder() as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Recorder) -> Iterator[Gateway]:
    config = LIMITS.replace("header_count: 20", "header_count: 100") + CONFIG.format(port=service.port)
    with Gateway(tmp_path_factory.mktemp("smuggling"), config) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    with parsers(tmp_path_factory.mktemp("parsers")) as others:
        assert others.keys() == TOLERATED.keys()
        yield others


class Through:
    """What came of bytes: the statuses that the client got, and the bytes that the service got, by connection."""

    def __init__(self, gateway: Gateway, service: Recorder, sent: bytes) -> None:
        mark = service.mark()
        with gateway.connect() as client, client.makefile("rb") as answers:
            client.sendall(sent)
            self.statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers.read())]
        self.forwarded = service.since(mark)


def read_alike(others: dict[str, Server], forwarded: bytes) -> list[Read]:
    """Return the requests that all parsers find in `forwarded`."""
    *reference, end = with_h11(forwarded + MARKER)
    assert end.target == "/the-end"
    for name, parse in others.items():
        if _refused(name, reference):
            with pytest.raises(Unread, match="400 Bad Request"):
                parse(forwarded + MARKER)
            continue
        *found, end = [_by_name(read) if name == "nginx" else read for read in parse(forwarded + MARKER)]
        assert (end.method, end.target, end.body) == ("GET", "/the-end", b""), name
        expected = reference
        for difference in TOLERATED[name].values():
            expected = [difference.apply(read) for read in expected]
        assert found == expected, name
    return reference


class Ask(NamedTuple):
    """A request to send: with content of a declared length, or in chunks of `sizes` where there are any."""

    method: str = "GET"
    target: bytes = b"/x"
    fields: tuple[bytes, ...] = ()
    content: bytes = b""
    sizes: tuple[int, ...] = ()
    extension: bytes = b""
    trailers: tuple[bytes, ...] = ()
    version: bytes = b"HTTP/1.1"

    def data(self) -> bytes:
        head = [self.method.encode() + b" " + self.target + b" " + self.version, b"Host: a.example", *self.fields]
        if not self.sizes:
            if self.content or self.method in ("POST", "PUT", "PATCH"):
                head.append(b"Content-Length: %d" % len(self.content))
            return b"\r\n".join((*head, b"", self.content))
        pieces, at = [], 0
        for size in (*self.sizes, len(self.content)):
            if piece := self.content[at : at + size]:
                pieces.append(b"%x%b\r\n%b\r\n" % (len(piece), self.extension, piece))
                at += size
        last = b"\r\n".join((b"0" + self.extension, *self.trailers, b"", b""))
        return b"\r\n".join((*head, b"Transfer-Encoding: chunked", b"", b"")) + b"".join(pieces) + last


def post(*fields: bytes, content: bytes = b"hello", sizes: tuple[int, ...] = ()) -> Ask:
    return Ask("POST", b"/x", fields, content, sizes)


METHODS = (
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE",
    "LOCK", "UNLOCK", "REPORT", "SEARCH", "M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PURGE", "LINK", "UNLINK",
    "MERGE", "CHECKOUT", "MKACTIVITY", "MKCALENDAR", "ACL", "BIND", "REBIND", "UNBIND", "SOURCE",
)  # fmt: skip
TARGETS = (
    b"/", b"/?", b"/?a", b"/x?a=b&c=%20", b"/x?a?b?c", b"/x?//../", b"/x?http://b/", b"/a;b=c/d,e", b"/a:b@c",
    b"/a%2Fb", b"/a%2f%2Fb", b"/%41%7e", b"/%E2%82%AC", b"/%0A%0D", b"/%0d%0aHost:%20evil", b"/x%20HTTP/1.1%0d%0aX:y",
    b"/a|b", b"/a^b`c{d}", b"/a[b]", b'/"a"', b"/<a>", b"/a//b///c", b"/./a/../b", b"/../../a", b"/a/.", b"/a/..",
    b"/...", b"/.a", b"/a.", b"/*", b"/~a", b"/!$&'()*+,;=:@", b"http://b.example/x", b"http://b.example",
    b"http://b.example?x", b"HTTP://B.EXAMPLE:81/x", b"https://b.example/x", b"/x?%zz", b"/x?[]{}|^`\"<>\\",
    b"/named/x", b"http://b.example/named/x", b"/x?" + b"a" * 900,
)  # fmt: skip
FIELDS: dict[str, tuple[bytes, ...]] = {
    "many of one name": tuple(b"X-Many: %d" % number for number in range(50)),
    "one name in many cases": (b"X-Case: 1", b"x-case: 2", b"X-CASE: 3"),
    "empty values": (b"X-Empty:", b"X-Blank: ", b"X-Tabs: \t\t"),
    "white space around and within": (b"X-Space: \t a  b \t c \t", b"X-None:d"),
    "every character of a name": (b"!#$%&'*+-.^_`|~0123456789aZ: y",),
    "every visible character of a value": (b"X-Visible: " + bytes(range(0x21, 0x7F)),),
    "every character beyond ASCII": (b"X-Beyond: " + bytes(range(0x80, 0x100)),),
    "values that look like lines": (b"X-Line: GET /evil HTTP/1.1", b"X-Length: Content-Length: 5", b"X-Colon: :::"),
    "underscores": (b"X_Under: 1", b"Content_Length: 5", b"Transfer_Encoding: chunked", b"_: y", b"Host_: evil"),
    "lookalikes of framing": (b"X-Content-Length: 5", b"Content-Lengths: 5", b"Transfer-Encodings: x", b"XHost: b"),
    "names of digits and dots": (b"1: y", b"1.2: y", b"a.b: y", b"~: y", b"'a': y"),
    "two types": (b"Content-Type: a/b", b"Content-Type: c/d"),
    "two authorizations": (b"Authorization: x", b"Authorization: y"),
    "cookies": (b"Cookie: a=b", b"Cookie: c=d; e=f"),
    "conditions": (b"If-None-Match: \"a\"", b"Range: bytes=0-1", b"If-Range: \"a\""),
    "what clients say of themselves": (b"X-Forwarded-For: 6.6.6.6", b"X_Forwarded_For: 6.6.6.6", b"Forwarded: for=e"),
    "hop by hop": (b"TE: trailers, deflate", b"Keep-Alive: 5", b"Proxy-Connection: keep-alive", b"Trailer: X-Sum"),
    "an upgrade that is not known": (b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAA"),
    "100": (b"Expect: 100-continue",),
    "another expectation": (b"Expect: 200-ok",),
    "a compressed content": (b"Content-Encoding: gzip",),
    "a long value": (b"X-Long: " + b"a" * 3000,),
}  # fmt: skip
FIELDS |= {
    f"Connection names {name.decode()}": (b"Connection: " + name, b"X-Forwarded-For: 6.6.6.6", b"X-Private: y")
    for name in (
        b"Content-Length", b"Transfer-Encoding", b"Host", b"X-Forwarded-For", b"X-Forwarded-Host", b"Connection", b"TE",
        b"close, Content-Length", b"keep-alive, X-Private", b"X-Private,,Host, ", b"content-length , HOST", b"\"Host\"",
        b"Cookie", b"Content-Type", b"GET /evil HTTP/1.1", b"",
    )
}  # fmt: skip
INSIDE: dict[str, bytes] = {
    "a request": EVIL,
    "many requests": EVIL * 20,
    "a chunked end": b"0\r\n\r\n" + EVIL,
    "chunks": b"5\r\nhello\r\n0\r\n\r\n" + EVIL,
    "line ends": b"\r\n\r\n\r\n\r\n",
    "a response": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "every byte": bytes(range(256)),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "nothing": b"",
}

CORPUS: dict[str, list[Ask]] = {f"{method}": [Ask(method)] for method in METHODS}
CORPUS |= {f"{method} with content": [Ask(method, content=EVIL)] for method in METHODS}
CORPUS |= {f"{method} with chunks": [Ask(method, content=EVIL, sizes=(1, 7))] for method in METHODS}
CORPUS |= {f"the target {target!r}": [Ask(target=target), Ask("POST", target, (), EVIL)] for target in TARGETS}
CORPUS |= {
    f"{name}, {framed}": [Ask("POST", b"/x", fields, b"hello", sizes), Ask("GET", b"/named/x", fields)]
    for name, fields in FIELDS.items()
    for framed, sizes in (("declared", ()), ("chunked", (2,)))
    if not name.startswith("Connection names close")
}
CORPUS |= {f"inside: {name}": [post(content=content)] for name, content in INSIDE.items()}
CORPUS |= {f"inside chunks: {name}": [post(content=content, sizes=(1, 2, 3))] for name, content in INSIDE.items()}
CORPUS |= {
    "chunk extensions": [Ask("POST", b"/x", (), b"hello", (2,), b' ; a = "b;c";d')],
    "trailers": [Ask("POST", b"/x", (), b"hello", (2,), trailers=(b"X-Sum: 1", b"x-sum: 2", b"X-Empty:", b"X_U: y"))],
    "trailers that must not be": [
        Ask(
            "POST", b"/x", (), b"hello", (5,),
            trailers=(b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Host: evil", b"Connection: X", b"X: y"),
        )
    ],
    "trailers that look like a request": [Ask("POST", b"/x", (), b"a", (1,), trailers=(b"GET: /evil HTTP/1.1",))],
    "a pipeline of all framings": [Ask(), post(), post(sizes=(3,)), Ask("HEAD"), post(content=b""), Ask("DELETE")],
    "a pipeline of chunks": [post(content=EVIL * 3, sizes=(number,)) for number in range(1, 12)],
}  # fmt: skip

ALONE: dict[str, Ask] = {
    # After these the connection is closed: nothing may stand behind them.
    "HTTP/1.0": Ask(version=b"HTTP/1.0"),
    "HTTP/1.0 with content": Ask("POST", content=EVIL, version=b"HTTP/1.0"),
    "HTTP/1.0 with an expectation": Ask("POST", fields=(b"Expect: 100-continue",), content=EVIL, version=b"HTTP/1.0"),
    "close": Ask(fields=(b"Connection: close",)),
    "close, Content-Length": post(b"Connection: close, Content-Length", content=EVIL),
    "CLOSE, Transfer-Encoding": post(b"Connection: CLOSE, Transfer-Encoding", content=EVIL, sizes=(4,)),
}


def seen(asked: Sequence[Ask]) -> list[tuple[str, bytes]]:
    return [(ask.method, ask.content) for ask in asked]


def check(gateway: Gateway, service: Recorder, others: dict[str, Server], asked: list[Ask]) -> None:
    through = Through(gateway, service, b"".join(ask.data() for ask in asked) + FIN)
    assert [status for status in through.statuses if status >= 200] == [200] * (len(asked) + 1)
    found = [read for forwarded in through.forwarded for read in read_alike(others, forwarded)]
    assert [(read.method, read.body) for read in found] == [*seen(asked), ("GET", b"")]
    assert found[-1].target == "/fin"


@pytest.mark.parametrize("name", CORPUS)
def test_what_is_forwarded_is_read_alike(
    gateway: Gateway, service: Recorder, others: dict[str, Server], name: str
) -> None:
    check(gateway, service, others, CORPUS[name])


@pytest.mark.parametrize("name", ALONE)
def test_the_last_request_of_a_connection(
    gateway: Gateway, service: Recorder, others: dict[str, Server], name: str
) -> None:
    through = Through(gateway, service, ALONE[name].data() + FIN)
    assert [status for status in through.statuses if status >= 200] == [200]
    (forwarded,) = through.forwarded
    assert [(read.method, read.body) for read in read_alike(others, forwarded)] == seen([ALONE[name]])


@pytest.mark.parametrize("name", PASSED)
def test_what_looks_malformed_is_forwarded_plainly(
    gateway: Gateway, service: Recorder, others: dict[str, Server], name: str
) -> None:
    old = b"HTTP/1.0\r\n" in PASSED[name].sent
    through = Through(gateway, service, PASSED[name].sent + FIN)
    found = [read for forwarded in through.forwarded for read in read_alike(others, forwarded)]
    assert [read.target for read in found[1:]] == ([] if old else ["/fin"])
    assert f"{found[0].method} {found[0].target} HTTP/1.1".encode() == PASSED[name].lines[0]
    assert found[0].body == PASSED[name].content


@pytest.mark.parametrize("name", BODIES | BROKEN_OFF)
def test_nobody_takes_what_is_forwarded_of_a_refused_body_for_a_request(
    gateway: Gateway, service: Recorder, others: dict[str, Server], name: str
) -> None:
    mark = service.mark()
    with gateway.connect() as client, client.makefile("rb") as answers:
        client.sendall(BODIES[name].sent if name in BODIES else BROKEN_OFF[name])
        if name in BROKEN_OFF:
            wait_for(lambda: service.since(mark), "the head to reach the service")
        else:
            assert answers.readline().startswith(b"HTTP/1.1 4")
    wait_for(lambda: all(c.closed for c in service.connections if c.left_over), "the way to the service to be cut")
    for forwarded in service.since(mark):
        assert with_h11(forwarded) == []
        for parser, parse in others.items():
            assert parse.whole_requests(forwarded) == [], parser


TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
OWN = {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"}
"""Names that the requests below have in their own places only."""

texts = st.text(st.characters(max_codepoint=0xFF, exclude_characters="\x7f", min_codepoint=0x20), max_size=20)
names = st.one_of(
    st.text(TOKEN, min_size=1, max_size=12),
    st.sampled_from(
        ("X-Forwarded-For", "X_Forwarded_For", "Forwarded", "TE", "Trailer", "Via", "Cookie", "Keep-Alive")
    ),
).filter(lambda name: name.lower() not in OWN)
values = st.one_of(texts, st.sampled_from(("", " ", "\t", "chunked", "0", "close", "GET / HTTP/1.1", "a, b")))
fields = st.tuples(names, values).map(lambda field: f"{field[0]}: {field[1]}".encode("latin-1"))
connections = st.lists(
    st.sampled_from(("keep-alive", "Content-Length", "Transfer-Encoding", "host", "X-Forwarded-For", "X-A", "", " ")),
    max_size=3,
).map(lambda options: (b"Connection: " + ",".join(options).encode(),) if options else ())
segments = st.text("abz019.-_~!$&'()*+,;=:@|^<>\"{}[]`", max_size=6).filter(lambda text: not text.startswith("."))
targets = st.builds(
    lambda path, query: ("/" + "/".join(path) + query).encode(),
    st.lists(segments, max_size=4),
    st.one_of(st.just(""), st.text(TOKEN.replace("#", "") + '?/\\"<>[]{}', max_size=10).map(lambda query: "?" + query)),
)
contents = st.one_of(st.binary(max_size=80), st.sampled_from(tuple(INSIDE.values())))
asks = st.builds(
    Ask,
    st.sampled_from(METHODS),
    targets,
    st.tuples(st.lists(fields, max_size=8), connections).map(lambda both: (*both[0], *both[1])),
    contents,
    st.lists(st.integers(1, 9), max_size=5).map(tuple),
    st.sampled_from((b"", b";a", b";a=b", b' ; a="b\\c"')),
    st.lists(
        st.tuples(st.text(TOKEN, min_size=1, max_size=8), texts).map(lambda pair: ": ".join(pair).encode("latin-1")),
        max_size=2,
    ).map(tuple),
    version=st.just(b"HTTP/1.1"),
)


def test_whatever_is_sent_is_read_alike(gateway: Gateway, service: Recorder, others: dict[str, Server]) -> None:
    @settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None)
    @given(st.lists(asks, min_size=1, max_size=4))
    def holds(asked: list[Ask]) -> None:
        check(gateway, service, others, asked)

    holds()
