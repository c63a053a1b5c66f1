"""Requests that must not pass, by what is wrong with them; and a few that look so and are lawful.

Each stands for itself: the bytes that a client sends, and what it must be answered. `HEADS` are refused before a
service hears of them, `BODIES` when the service has the head already.
"""

from __future__ import annotations

from typing import NamedTuple

HEAD_LIMIT = 4096
TARGET_LIMIT = 1024
HEADER_COUNT = 20
BODY_LIMIT = 8192
CHUNK_LINE = 256
TRAILERS = 8192

LIMITS = f"""\
limits:
  request_head: {HEAD_LIMIT}
  request_target: {TARGET_LIMIT}
  header_count: {HEADER_COUNT}
  body: {BODY_LIMIT}
  head_timeout: 2s
  body_timeout: 2s
  keepalive_timeout: 2s
"""

MALFORMED = "malformed-request"
TOO_LARGE_HEAD = "request-header-fields-too-large"


class Refused(NamedTuple):
    """Bytes, and the refusal that they must get."""

    sent: bytes
    status: int = 400
    kind: str = MALFORMED


class Passed(NamedTuple):
    """Bytes, and the request lines and the last content that a service must get of them."""

    sent: bytes
    lines: list[bytes]
    content: bytes = b""


def request(line: bytes, *fields: bytes, content: bytes = b"") -> bytes:
    return b"\r\n".join((line, *fields, b"", content))


def get(*fields: bytes, target: bytes = b"/x") -> bytes:
    return request(b"GET " + target + b" HTTP/1.1", b"Host: a", *fields)


def hosted(*fields: bytes) -> bytes:
    return request(b"GET /x HTTP/1.1", *fields)


def post(*fields: bytes, content: bytes = b"") -> bytes:
    return request(b"POST /x HTTP/1.1", b"Host: a", *fields, content=content)


def chunked(content: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", content=content)


def old(*fields: bytes, content: bytes = b"") -> bytes:
    return request(b"POST /x HTTP/1.0", b"Host: a", *fields, content=content)


LENGTH = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"
CLOSE = b"Connection: close"
EMPTY_CHUNKS = b"0\r\n\r\n"
EVIL = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"

NOT_KNOWN = (501, "not-implemented")
NOT_SPOKEN = (505, "http-version-not-supported")
NOT_ALLOWED = (405, "method-not-allowed")
TOO_LONG = (414, "uri-too-long")
TOO_LARGE = (431, TOO_LARGE_HEAD)
TOO_MUCH = (413, "content-too-large")

FRAMING: dict[str, Refused] = {
    "length, then chunked": Refused(post(LENGTH, CHUNKED, content=EMPTY_CHUNKS + EVIL)),
    "chunked, then length": Refused(post(CHUNKED, LENGTH, content=EMPTY_CHUNKS + EVIL)),
    "length zero and chunked": Refused(post(b"Content-Length: 0", CHUNKED, content=EMPTY_CHUNKS)),
    "lower-case length and upper-case chunked": Refused(
        post(b"content-length: 5", b"TRANSFER-ENCODING: CHUNKED", content=EMPTY_CHUNKS)
    ),
    "length between two codings": Refused(post(CHUNKED, LENGTH, CHUNKED, content=EMPTY_CHUNKS)),
    "length and identity": Refused(post(LENGTH, b"Transfer-Encoding: identity", content=b"hello")),
    "length and an unknown coding": Refused(post(LENGTH, b"Transfer-Encoding: xchunked", content=b"hello")),
    "length and an empty coding": Refused(post(LENGTH, b"Transfer-Encoding:", content=b"hello")),
    "length and chunked in a GET": Refused(get(LENGTH, CHUNKED) + EMPTY_CHUNKS),
    "length and chunked with HTTP/1.0": Refused(old(LENGTH, CHUNKED, content=EMPTY_CHUNKS)),
    "two equal lengths": Refused(post(LENGTH, LENGTH, content=b"hello")),
    "two unequal lengths": Refused(post(LENGTH, b"Content-Length: 6", content=b"hello!")),
    "two lengths in two cases": Refused(post(LENGTH, b"content-length: 5", content=b"hello")),
    "two lengths apart": Refused(post(b"Content-Length: 0", b"X: y", b"Content-Length: 38", content=EVIL)),
    "equal lengths in a list": Refused(post(b"Content-Length: 5, 5", content=b"hello")),
    "unequal lengths in a list": Refused(post(b"Content-Length: 5,6", content=b"hello")),
    "length and nothing in a list": Refused(post(b"Content-Length: 5,", content=b"hello")),
    "length with a plus": Refused(post(b"Content-Length: +5", content=b"hello")),
    "length with a minus": Refused(post(b"Content-Length: -5", content=b"hello")),
    "length of minus zero": Refused(post(b"Content-Length: -0")),
    "length with a space within": Refused(post(b"Content-Length: 1 0", content=b"hello")),
    "length in hex": Refused(post(b"Content-Length: 0x5", content=b"hello")),
    "length with an underscore": Refused(post(b"Content-Length: 1_0", content=b"hellohello")),
    "length with a fraction": Refused(post(b"Content-Length: 5.0", content=b"hello")),
    "length with an exponent": Refused(post(b"Content-Length: 5e0", content=b"hello")),
    "length in letters": Refused(post(b"Content-Length: five", content=b"hello")),
    "length in quotes": Refused(post(b'Content-Length: "5"', content=b"hello")),
    "length in digits of another script": Refused(post("Content-Length: \u0665".encode(), content=b"hello")),
    "length in superscript": Refused(post(b"Content-Length: \xb2", content=b"he")),
    "length with a vertical tab": Refused(post(b"Content-Length: \x0b5", content=b"hello")),
    "length with a form feed": Refused(post(b"Content-Length: 5\x0c", content=b"hello")),
    "length with NUL": Refused(post(b"Content-Length: 5\0", content=b"hello")),
    "length over 64 bits": Refused(post(b"Content-Length: 18446744073709551617", content=b"h")),
    "length of many digits": Refused(post(b"Content-Length: " + b"9" * 100, content=b"h")),
    "length of many zeros": Refused(post(b"Content-Length: " + b"0" * 100 + b"5", content=b"hello")),
    "empty length": Refused(post(b"Content-Length:", content=b"")),
    "length with a space before the colon": Refused(post(b"Content-Length : 5", content=b"hello")),
    "length behind a fold": Refused(post(b"Content-Length:\r\n 5", content=b"hello")),
    "identity": Refused(post(b"Transfer-Encoding: identity", content=b"hello")),
    "gzip": Refused(post(b"Transfer-Encoding: gzip", content=b"hello")),
    "chunked, identity": Refused(post(b"Transfer-Encoding: chunked, identity", content=EMPTY_CHUNKS)),
    "chunked, gzip": Refused(post(b"Transfer-Encoding: chunked, gzip", content=EMPTY_CHUNKS)),
    "gzip, chunked": Refused(post(b"Transfer-Encoding: gzip, chunked", content=EMPTY_CHUNKS), *NOT_KNOWN),
    "chunked, chunked": Refused(post(b"Transfer-Encoding: chunked, chunked", content=EMPTY_CHUNKS)),
    "identity, chunked": Refused(post(b"Transfer-Encoding: identity, chunked", content=EMPTY_CHUNKS), *NOT_KNOWN),
    "nothing, chunked": Refused(post(b"Transfer-Encoding: , chunked", content=EMPTY_CHUNKS), *NOT_KNOWN),
    "chunked, nothing": Refused(post(b"Transfer-Encoding: chunked,", content=EMPTY_CHUNKS)),
    "chunked twice": Refused(post(CHUNKED, CHUNKED, content=EMPTY_CHUNKS)),
    "chunked twice, in two cases": Refused(post(CHUNKED, b"transfer-encoding: Chunked", content=EMPTY_CHUNKS)),
    "identity, and chunked in a second line": Refused(
        post(b"Transfer-Encoding: identity", CHUNKED, content=EMPTY_CHUNKS), *NOT_KNOWN
    ),
    "chunked, and identity in a second line": Refused(
        post(CHUNKED, b"Transfer-Encoding: identity", content=EMPTY_CHUNKS)
    ),
    "chunked, and an empty second line": Refused(post(CHUNKED, b"Transfer-Encoding:", content=EMPTY_CHUNKS)),
    "xchunked": Refused(post(b"Transfer-Encoding: xchunked", content=EMPTY_CHUNKS)),
    "chunkedx": Refused(post(b"Transfer-Encoding: chunkedx", content=EMPTY_CHUNKS)),
    "x chunked": Refused(post(b"Transfer-Encoding: x chunked", content=EMPTY_CHUNKS)),
    "chunk": Refused(post(b"Transfer-Encoding: chunk", content=EMPTY_CHUNKS)),
    "a parameter of chunked": Refused(post(b"Transfer-Encoding: chunked;a=b", content=EMPTY_CHUNKS)),
    "chunked in quotes": Refused(post(b'Transfer-Encoding: "chunked"', content=EMPTY_CHUNKS)),
    "chunked in single quotes": Refused(post(b"Transfer-Encoding: 'chunked'", content=EMPTY_CHUNKS)),
    "chunked behind a vertical tab": Refused(post(b"Transfer-Encoding: \x0bchunked", content=EMPTY_CHUNKS)),
    "chunked before a vertical tab": Refused(post(b"Transfer-Encoding: chunked\x0b", content=EMPTY_CHUNKS)),
    "chunked before a form feed": Refused(post(b"Transfer-Encoding: chunked\x0c", content=EMPTY_CHUNKS)),
    "chunked before a no-break space": Refused(post(b"Transfer-Encoding: chunked\xa0", content=EMPTY_CHUNKS)),
    "chunked before NUL": Refused(post(b"Transfer-Encoding: chunked\0", content=EMPTY_CHUNKS)),
    "chunked behind a fold": Refused(post(b"Transfer-Encoding:\r\n chunked", content=EMPTY_CHUNKS)),
    "a fold behind chunked": Refused(post(CHUNKED + b"\r\n , identity", content=EMPTY_CHUNKS)),
    "chunked behind a bare line feed": Refused(post(b"X: y\n" + CHUNKED, content=EMPTY_CHUNKS)),
    "chunked behind a bare carriage return": Refused(post(b"X: y\r" + CHUNKED, content=EMPTY_CHUNKS)),
    "a space before the colon of chunked": Refused(post(b"Transfer-Encoding : chunked", content=EMPTY_CHUNKS)),
    "a tab before the colon of chunked": Refused(post(b"Transfer-Encoding\t: chunked", content=EMPTY_CHUNKS)),
    "a space before the name of chunked": Refused(post(b"X: y\r\n " + CHUNKED, content=EMPTY_CHUNKS)),
    "a space in the name of chunked": Refused(post(b"Transfer Encoding: chunked", content=EMPTY_CHUNKS)),
    "NUL in the name of chunked": Refused(post(b"Transfer-Encoding\0: chunked", content=EMPTY_CHUNKS)),
    "chunked with HTTP/1.0": Refused(old(CHUNKED, content=EMPTY_CHUNKS)),
    "chunked with HTTP/1.0 that stays": Refused(old(b"Connection: keep-alive", CHUNKED, content=EMPTY_CHUNKS)),
}

LINES: dict[str, Refused] = {
    "bare line feeds": Refused(b"GET /x HTTP/1.1\nHost: a\n\n"),
    "a head that ends in two bare line feeds": Refused(b"GET /x HTTP/1.1\r\nHost: a\n\n"),
    "a bare line feed at the end of the request line": Refused(b"GET /x HTTP/1.1\nHost: a\r\n\r\n"),
    "a bare line feed at the end of a field": Refused(get(b"X: y\nZ: w")),
    "a bare line feed at the end of the head": Refused(b"GET /x HTTP/1.1\r\nHost: a\r\n\n"),
    "a bare line feed ahead of the request": Refused(b"\n" + get()),
    "an empty line, then a bare line feed": Refused(b"\r\n\n" + get()),
    "a bare carriage return ahead of the request": Refused(b"\r" + get()),
    "a bare carriage return at the end of the request line": Refused(b"GET /x HTTP/1.1\rHost: a\r\n\r\n"),
    "a bare carriage return in a value": Refused(get(b"X: y\rz")),
    "a bare carriage return before the line's end": Refused(get(b"X: y\r")),
    "a bare carriage return in a name": Refused(get(b"X\rY: z")),
    "carriage returns as line ends": Refused(b"GET /x HTTP/1.1\rHost: a\r\r" + b"\r\n\r\n"),
    "line feed, carriage return": Refused(b"GET /x HTTP/1.1\n\rHost: a\n\r\n\r"),
    "a folded value": Refused(get(b"X: y", b" z")),
    "a value folded with a tab": Refused(get(b"X: y", b"\tz")),
    "a folded empty line": Refused(get(b"X: y", b" ")),
    "white space before the first field": Refused(hosted(b" Host: a")),
    "a tab before the first field": Refused(hosted(b"\tX: y", b"Host: a")),
    "a line of white space before the first field": Refused(hosted(b" ", b"Host: a")),
    "a space before the colon": Refused(get(b"X : y")),
    "a tab before the colon": Refused(get(b"X\t: y")),
    "no name": Refused(get(b": y")),
    "a colon alone": Refused(get(b":")),
    "no colon": Refused(get(b"X")),
    "no colon in the last line": Refused(get(b"X: y", b"nonsense")),
    "three empty lines ahead": Refused(b"\r\n\r\n\r\n" + get()),
    "many empty lines ahead": Refused(b"\r\n" * 1000 + get()),
}

NAMES: dict[str, Refused] = {
    f"a name with {char!r}": Refused(get(b"X" + bytes((char,)) + b"Y: z"))
    for char in b' \t"(),/;<=>?@[\\]{}\0\x01\x0b\x1f\x7f\x80\xa0\xff'
}
VALUES: dict[str, Refused] = {
    f"a value with {char:#04x}": Refused(get(b"X: y" + bytes((char,)) + b"z"))
    for char in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x0E, 0x1B, 0x1F, 0x7F)
}
VALUES |= {
    "a value that is NUL": Refused(get(b"X: \0")),
    "a value that ends in NUL": Refused(get(b"X: y\0")),
    "a control character in a cookie": Refused(get(b"Cookie: a=\x01")),
}

HOSTS: dict[str, Refused] = {
    "no Host": Refused(hosted()),
    "no Host, but X-Forwarded-Host": Refused(hosted(b"X-Forwarded-Host: a")),
    "no Host for the absolute form": Refused(request(b"GET http://a/x HTTP/1.1")),
    "an empty Host": Refused(hosted(b"Host:")),
    "an empty Host of white space": Refused(hosted(b"Host: \t ")),
    "Host twice": Refused(hosted(b"Host: a", b"Host: b")),
    "Host twice, equally": Refused(hosted(b"Host: a", b"Host: a")),
    "Host twice, in two cases": Refused(hosted(b"Host: a", b"X: y", b"hOST: b")),
    "Host twice, once empty": Refused(hosted(b"Host: a", b"Host:")),
    "Host with HTTP/1.0 twice": Refused(request(b"GET /x HTTP/1.0", b"Host: a", b"Host: b")),
    "Host with a space before the colon": Refused(hosted(b"Host : a")),
    "Host folded": Refused(hosted(b"Host:", b" a")),
}
HOSTS |= {
    f"Host {host!r}": Refused(hosted(b"Host: " + host))
    for host in (
        b"user@a", b"user:secret@a", b"a/x", b"a/", b"http://a", b"a?x", b"a#x", b"a\\x", b"a b", b"a,b", b"a;b",
        b"a:b", b"a:-1", b"a:+80", b"a:80:80", b"a:65536", b"a:99999", b"a:000000080", b"a: 80", b":80", b"a..b",
        b".a", b"..", b"[::1", b"::1", b"[::g]", b"[]", b"[::1]x", b"[1.2.3.4]", b"[fe80::1%25eth0]", b"[a]",
        b"a%62", b"\x80", b"*", b"a*", b'"a"', b"<a>", b"a\x7f", b"a\0b", b"a" * 254,
    )
}  # fmt: skip

START_LINES: dict[str, Refused] = {
    f"the request line {line!r}": Refused(request(line, b"Host: a"), *answer)
    for line, *answer in (
        (b"GET /x",), (b"GET /x ",), (b"GET",), (b"GET HTTP/1.1",), (b"GET  HTTP/1.1",), (b"/x HTTP/1.1",),
        (b" /x HTTP/1.1",), (b" GET /x HTTP/1.1",), (b"GET  /x HTTP/1.1",), (b"GET /x  HTTP/1.1",),
        (b"GET /x HTTP/1.1 ",), (b"GET\t/x\tHTTP/1.1",), (b"GET\t/x HTTP/1.1",), (b"GET /x\tHTTP/1.1",),
        (b"GET\x0b/x HTTP/1.1",), (b"GET /x HTTP/1.1\t",), (b"GET /x y HTTP/1.1",), (b"GET /x HTTP/1.1 HTTP/1.1",),
        (b"GET /x HTTP/1.0 HTTP/1.1",), (b"GET /x http/1.1",), (b"GET /x Http/1.1",), (b"GET /x HTTP/1",),
        (b"GET /x HTTP/1.",), (b"GET /x HTTP/.1",), (b"GET /x HTTP/11",), (b"GET /x HTTP/1.10",),
        (b"GET /x HTTP/01.1",), (b"GET /x HTTP/1.1.1",), (b"GET /x HTTP/1,1",), (b"GET /x HTTP /1.1",),
        (b"GET /x HTTP/ 1.1",), (b"GET /x HTTP/+1.1",), (b"GET /x HTTP/-1.1",), (b"GET /x HTTP/one",),
        (b"GET /x HTTPS/1.1",), (b"GET /x HTP/1.1",), (b"GET /x RTSP/1.0",), (b"GET /x ICE/1.0",), (b"GET /x FTP/1.1",),
        (b"GET /x HTTP/3",), (b"GET /x HTTP/2",), (b"GET /x HTTP/1.1\0",), (b"GET /x\0 HTTP/1.1",),
        (b"GET\0 /x HTTP/1.1",), (b"\0GET /x HTTP/1.1",),
        (b"GET /x HTTP/0.9", *NOT_SPOKEN), (b"GET /x HTTP/1.2", *NOT_SPOKEN), (b"GET /x HTTP/1.9", *NOT_SPOKEN),
        (b"GET /x HTTP/2.0", *NOT_SPOKEN), (b"GET /x HTTP/3.0", *NOT_SPOKEN), (b"GET /x HTTP/9.9", *NOT_SPOKEN),
        (b"POST /x HTTP/0.0", *NOT_SPOKEN),
        (b"get /x HTTP/1.1", *NOT_KNOWN), (b"Get /x HTTP/1.1", *NOT_KNOWN), (b"BREW /x HTTP/1.1", *NOT_KNOWN),
        (b"GETX /x HTTP/1.1", *NOT_KNOWN), (b"GE /x HTTP/1.1", *NOT_KNOWN), (b"X /x HTTP/1.1", *NOT_KNOWN),
        (b"G!T /x HTTP/1.1", *NOT_KNOWN), (b"A" * 300 + b" /x HTTP/1.1", *NOT_KNOWN),
        (b"G(T /x HTTP/1.1",), (b'"GET" /x HTTP/1.1',), (b"G:T /x HTTP/1.1",), (b"G\x80T /x HTTP/1.1",),
        (b"GET, /x HTTP/1.1",), (b"{GET} /x HTTP/1.1",),
        (b"TRACE /x HTTP/1.1", *NOT_ALLOWED), (b"CONNECT a:443 HTTP/1.1", *NOT_ALLOWED),
        (b"CONNECT /x HTTP/1.1", *NOT_ALLOWED), (b"CONNECT http://a/ HTTP/1.1", *NOT_ALLOWED),
    )
}  # fmt: skip

TARGETS: dict[str, Refused] = {
    f"the target {target!r}": Refused(get(target=target))
    for target in (
        b"x", b"x/y", b"?x", b"./x", b"../x", b"#", b"/x#y", b"/#", b"/x?y#z", b"*", b"/x\x01", b"/x\x7f", b"/x\x80",
        b"/caf\xc3\xa9", b"/x?\x80", b"/x?\x7f", b"/%", b"/%4", b"/%zz", b"/%4g", b"/%%20", b"/%u0041", b"/x%",
        b"/%00", b"/x%00.png", b"/\\", b"/x\\y", b"\\x", b"/..\\x", b"/x/..%2fy", b"/x/..%2Fy", b"/%2e%2e%2fy",
        b"/..%2f..%2fetc/passwd", b"/x/..%5cy", b"/x/..;/y", b"/x/..;a=b/y", b"/x/%2e%2e%3b/y", b"/x/.;/y",
        b"a:443", b"a.example:443", b"http:", b"http:/", b"http:/a", b"http://", b"http:///x",
        b"http//a/x", b"://a/x", b"ftp://a/x", b"ws://a/x", b"file:///x", b"javascript:x", b"data:,x", b"xhttp://a/x",
        b"http://user@a/x", b"http://user:secret@a/x", b"http://a:b/x", b"http://a:99999/x", b"http://a,b/x",
        b"http://[::1/x", b"http://[::g]/x", b"http://a\\b/x", b"http://a/x#y", b"http://a#y", b"http://a/%zz",
        b"http://:80/x", b"http://?x", b"http://%61/x", b"http://a..b/x", b"http://*/x", b"http://\x80/x",
    )
}  # fmt: skip

LIMITED: dict[str, Refused] = {
    "a target beyond the limit": Refused(get(target=b"/" + b"x" * TARGET_LIMIT), *TOO_LONG),
    "a query beyond the limit": Refused(get(target=b"/?" + b"x" * TARGET_LIMIT), *TOO_LONG),
    "a head beyond the limit": Refused(get(b"X: " + b"y" * HEAD_LIMIT), *TOO_LARGE),
    "a head beyond the limit that does not end": Refused(get(b"X: " + b"y" * HEAD_LIMIT)[:-4], *TOO_LARGE),
    "a request line beyond the head's limit that does not end": Refused(b"GET /" + b"x" * HEAD_LIMIT, *TOO_LARGE),
    "a name beyond the limit": Refused(get(b"X" * HEAD_LIMIT + b": y"), *TOO_LARGE),
    "too many headers": Refused(get(*[b"X: y"] * HEADER_COUNT), *TOO_LARGE),
    "too many different headers": Refused(get(*[b"X-%d: y" % number for number in range(HEADER_COUNT)]), *TOO_LARGE),
    "too many empty headers": Refused(get(*[b"X:"] * HEADER_COUNT), *TOO_LARGE),
    "a declared body beyond the limit": Refused(post(b"Content-Length: %d" % (BODY_LIMIT + 1)), *TOO_MUCH),
    "a declared body far beyond the limit": Refused(post(b"Content-Length: " + b"9" * 18), *TOO_MUCH),
    "a body beyond the limit that all came": Refused(
        post(CLOSE, b"Content-Length: %d" % (BODY_LIMIT + 1), content=b"x" * (BODY_LIMIT + 1)), *TOO_MUCH
    ),
    "a body beyond the limit that waits for 100": Refused(
        post(b"Content-Length: %d" % (BODY_LIMIT + 1), b"Expect: 100-continue"), *TOO_MUCH
    ),
}

NO_HTTP: dict[str, Refused] = {
    # What cannot become a request is refused when that is certain, not when the time for a head has passed.
    "HTTP/0.9": Refused(b"GET /x\r\n"),
    "HTTP/0.9 with an empty line": Refused(b"GET /x\r\n\r\n"),
    "the preface of HTTP/2": Refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", *NOT_SPOKEN),
    "a ClientHello": Refused(
        b"\x16\x03\x01\x00\x45\x01\x00\x00\x41\x03\x03" + bytes(range(128, 160)) + b"\x00\x00\x04\x13\x01\x13\x02"
        b"\x01\x00\x00\x14\x00\x00\x00\x06\x00\x04\x00\x00\x01a\x00\x2b\x00\x03\x02\x03\x04"
    ),
    "a ClientHello of SSL 2": Refused(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80" + b"\x07" * 32),
    "the banner of SSH": Refused(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "a mail client": Refused(b"EHLO a.example\r\n"),
    "a Redis client": Refused(b"*1\r\n$4\r\nPING\r\n"),
    "a DNS query": Refused(
        b"\x00\x1d\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x01\x00\x01"
    ),
    "a response": Refused(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "a PROXY header": Refused(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + get()),
    "a PROXY header of an unknown peer": Refused(b"PROXY UNKNOWN\r\n" + get()),
    "a PROXY header of version 2": Refused(
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x01\x00\x02" + get()
    ),
    "a byte order mark": Refused(b"\xef\xbb\xbf" + get()),
    "binary nonsense": Refused(bytes(range(255, 0, -1))),
    "NUL bytes": Refused(bytes(64)),
    "text": Refused(b"Hello, is anybody there?\r\n\r\n"),
    "a field for a request line": Refused(b"Host: a\r\n\r\n"),
    "JSON": Refused(b'{"jsonrpc": "2.0"}\r\n\r\n'),
}

HEADS = FRAMING | LINES | NAMES | VALUES | HOSTS | START_LINES | TARGETS | LIMITED | NO_HTTP

BODIES: dict[str, Refused] = {
    f"the chunk size {line!r}": Refused(chunked(line + b"\r\nhello\r\n" + EMPTY_CHUNKS))
    for line in (
        b"", b" ", b"-5", b"+5", b"0x5", b"0X5", b"x5", b"5h", b"5x", b"g", b" 5", b"\t5", b"5 ", b"5\t", b"5 5",
        b"5_0", b"5,5", b"5.0", b"'5'", b"5\0", b"5\x0b", b"\xb2", b"5 a", b"5 =a", b"10000000000000005",
        b"FFFFFFFFFFFFFFFF", b"0" * 16 + b"5", b"-0", b";a=b", b"5;a=\0", b"5;a=\x01", b"5;a=\x7f", b"5;a\nb",
        b"5;a\rb", b"5;\n", b"5\n", b"5\r", b"\n5", b"5;" + b"a" * CHUNK_LINE, b'5;a="' + b"b" * CHUNK_LINE + b'"',
    )
}  # fmt: skip
BODIES |= {
    "no line end behind a chunk": Refused(chunked(b"5\r\nhello0\r\n\r\n")),
    "a bare line feed behind a chunk": Refused(chunked(b"5\r\nhello\n0\r\n\r\n")),
    "a bare carriage return behind a chunk": Refused(chunked(b"5\r\nhello\r0\r\n\r\n")),
    "a space behind a chunk": Refused(chunked(b"5\r\nhello \r\n0\r\n\r\n")),
    "bare line feeds in chunks": Refused(chunked(b"5\nhello\n0\n\n")),
    "a bare line feed behind the last chunk's size": Refused(chunked(b"5\r\nhello\r\n0\n\n")),
    "a bare line feed at the end of all": Refused(chunked(b"5\r\nhello\r\n0\r\n\n")),
    "a chunk longer than its size": Refused(chunked(b"3\r\nhello\r\n0\r\n\r\n")),
    "a chunk shorter than its size": Refused(chunked(b"9\r\nhello\r\n0\r\n\r\n")),
    "a request in the place of a chunk": Refused(chunked(b"5\r\nhello\r\n" + EVIL)),
    "a trailer without a colon": Refused(chunked(b"0\r\nnonsense\r\n\r\n")),
    "a trailer without a name": Refused(chunked(b"0\r\n: y\r\n\r\n")),
    "a trailer with a space before the colon": Refused(chunked(b"0\r\nX : y\r\n\r\n")),
    "a trailer with a space in its name": Refused(chunked(b"0\r\nX Y: z\r\n\r\n")),
    "a folded trailer": Refused(chunked(b"0\r\nX: y\r\n z\r\n\r\n")),
    "a trailer section that begins with white space": Refused(chunked(b"0\r\n X: y\r\n\r\n")),
    "a trailer with NUL": Refused(chunked(b"0\r\nX: y\0\r\n\r\n")),
    "a trailer with a control character": Refused(chunked(b"0\r\nX: \x01\r\n\r\n")),
    "a trailer with a bare carriage return": Refused(chunked(b"0\r\nX: y\rz\r\n\r\n")),
    "a trailer with a bare line feed": Refused(chunked(b"0\r\nX: y\nZ: w\r\n\r\n")),
    "a trailer that ends in a bare line feed": Refused(chunked(b"0\r\nX: y\n\r\n")),
    "a request in the place of a trailer": Refused(chunked(b"0\r\n" + EVIL)),
    "trailers that are too long": Refused(chunked(b"0\r\nX: " + b"y" * TRAILERS + b"\r\n\r\n")),
    "trailers that do not end": Refused(chunked(b"0\r\n" + b"X: y\r\n" * (TRAILERS // 6 + 1))),
    "chunks beyond the limit": Refused(
        post(CLOSE, CHUNKED, content=b"1000\r\n" + b"x" * 4096 + b"\r\n1001\r\n" + b"x" * 4097 + b"\r\n0\r\n\r\n"),
        *TOO_MUCH,
    ),
    "one chunk beyond the limit": Refused(
        post(CLOSE, CHUNKED, content=b"2001\r\n" + b"x" * 8193 + b"\r\n0\r\n\r\n"), *TOO_MUCH
    ),
    "a chunk of a size beyond everything": Refused(chunked(b"FFFFFFFFFFFFFFF\r\n" + b"x" * 8193), *TOO_MUCH),
}

BROKEN_OFF: dict[str, bytes] = {
    # The client ends its direction here: nothing is left to answer, and nothing may pass for whole.
    "a body without its last byte": post(LENGTH, content=b"hell"),
    "no body at all": post(LENGTH),
    "chunks without an end": chunked(b"5\r\nhello\r\n"),
    "a chunk without its last byte": chunked(b"5\r\nhell"),
    "a chunk's size alone": chunked(b"5\r\n"),
    "the last chunk alone": chunked(b"5\r\nhello\r\n0\r\n"),
    "the last chunk without its line's end": chunked(b"5\r\nhello\r\n0"),
    "a trailer section without an end": chunked(b"5\r\nhello\r\n0\r\nX: y\r\n"),
    "no chunks at all": chunked(b""),
}

PASSED: dict[str, Passed] = {
    "an absolute form that disagrees with Host": Passed(get(target=b"http://b.example/x"), [b"GET /x HTTP/1.1"]),
    "an absolute form in upper case": Passed(get(target=b"HTTP://A/x"), [b"GET /x HTTP/1.1"]),
    "an absolute form without a path": Passed(get(target=b"http://a"), [b"GET / HTTP/1.1"]),
    "an absolute form with a query alone": Passed(get(target=b"http://a?x"), [b"GET /?x HTTP/1.1"]),
    "dot segments that would climb out of the root": Passed(get(target=b"/../../x"), [b"GET /x HTTP/1.1"]),
    "encoded dot segments that would": Passed(get(target=b"/%2e%2E/x"), [b"GET /x HTTP/1.1"]),
    "slashes in a row": Passed(get(target=b"//x///y"), [b"GET /x/y HTTP/1.1"]),
    "two empty lines ahead": Passed(b"\r\n\r\n" + get(), [b"GET /x HTTP/1.1"]),
    "a Host with a port and no digits": Passed(hosted(b"Host: a:"), [b"GET /x HTTP/1.1"]),
    "a Host of IPv6": Passed(hosted(b"Host: [::1]:80"), [b"GET /x HTTP/1.1"]),
    "no Host with HTTP/1.0": Passed(request(b"GET /x HTTP/1.0"), [b"GET /x HTTP/1.1"]),
    "white space around values": Passed(get(b"X: \t y \t ", b"Y:z", b"Z:"), [b"GET /x HTTP/1.1"]),
    "a length with zeros ahead": Passed(
        post(b"Content-Length: 005", content=b"hello"), [b"POST /x HTTP/1.1"], b"hello"
    ),
    "a coding in odd case, between tabs": Passed(
        post(b"TrAnSfEr-EnCoDiNg:\tChUnKeD \t", content=b"5\r\nhello\r\n0\r\n\r\n"), [b"POST /x HTTP/1.1"], b"hello"
    ),
    "chunk extensions, and zeros ahead of sizes": Passed(
        chunked(b'00005 ; a = b;c="d;e"\r\nhello\r\n0000;last\r\nX: y\r\n\r\n'), [b"POST /x HTTP/1.1"], b"hello"
    ),
    "a GET with a body": Passed(get(LENGTH) + b"hello", [b"GET /x HTTP/1.1"], b"hello"),
    "a connection that names Content-Length": Passed(
        post(b"Connection: Content-Length", LENGTH, content=b"hello"), [b"POST /x HTTP/1.1"], b"hello"
    ),
    "an upgrade to HTTP/2 with a request in its body": Passed(
        post(
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
            b"Content-Length: %d" % len(EVIL),
            content=EVIL,
        ),
        [b"POST /x HTTP/1.1"],
        EVIL,
    ),
    "an upgrade to a WebSocket, refused, with a request in its body": Passed(
        post(
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Content-Length: %d" % len(EVIL),
            content=EVIL,
        ),
        [b"POST /x HTTP/1.1"],
        EVIL,
    ),
}
