from __future__ import annotations

import asyncio
import gzip
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse

import brotli
import pytest
import zstandard
from pydantic import ValidationError

from portico.plugin import Body, Response
from portico.policies.compress import CompressPolicy
from tests.harness.gateway import BROKEN_OFF, DEADLINE, Call, Gateway, Service, curl
from tests.harness.policy import Pieces, fields, made, request, response, rest
from tests.http.test_coding import unbrotli

TEXT = b'{"hello": "world"}, ' * 200
JSON = "application/json"

DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


def compressed(answer: Response, accept: str | None = "gzip", method: str = "GET", **settings: object) -> Response:
    headers = {} if accept is None else {"Accept-Encoding": accept}
    asked = request(method, **headers)
    policy = made(CompressPolicy, **settings)
    assert policy.request(asked) is None
    asked.headers.remove(b"accept-encoding")  # as a policy further in may do, for the service
    return policy.response(asked, answer)


def content_of(answer: Response) -> bytes:
    return asyncio.run(rest(answer.body))


def untouched(answer: Response, **options: object) -> bool:
    before = answer.headers.copy()
    body = answer.body
    after = compressed(answer, **options)  # type: ignore[arg-type]
    return after is answer and after.headers == before and after.body is body


@pytest.mark.parametrize("coding", DECODERS)
@pytest.mark.parametrize("size", [1024, 4000, 65_536, 65_537, 1_000_000])
def test_what_is_compressed(coding: str, size: int) -> None:
    content = (TEXT * (size // len(TEXT) + 1))[:size]
    answer = compressed(response(200, content, Content_Type=JSON, Content_Length=str(size)), coding)
    assert answer.headers.text(b"content-encoding") == coding
    assert answer.headers.text(b"vary") == "Accept-Encoding"
    assert b"content-length" not in answer.headers
    assert answer.body.of_answer
    assert (answer.body.whole is not None) == (size <= 65_536)
    assert DECODERS[coding](content_of(answer)) == content


@pytest.mark.parametrize(("size", "wanted"), [(1023, False), (1024, True)])
def test_the_least_size(size: int, wanted: bool) -> None:
    assert (not untouched(response(200, b"x" * size, Content_Type=JSON))) == wanted
    streamed = Response(200, fields({"Content-Type": JSON}), Body.stream(Pieces([]), size))
    assert (not untouched(streamed)) == wanted


def test_nothing_is_not_compressed() -> None:
    assert untouched(response(200, b"", Content_Type=JSON), min_size=0)
    assert not untouched(response(200, b"x", Content_Type=JSON), min_size=0)


def test_an_unknown_length_is_compressed() -> None:
    answer = Response(200, fields({"Content-Type": JSON}), Body.stream(Pieces([b"a", b"b"]), None))
    assert gzip.decompress(content_of(compressed(answer))) == b"ab"


@pytest.mark.parametrize(
    "kind",
    [
        *("text/html", "text/plain; charset=utf-8", "TEXT/CSS", "text/csv;header=present", "application/json"),
        *("application/problem+json", "application/vnd.api+json; v=1", "application/hal+JSON", "application/xml"),
        *("application/atom+xml", "image/svg+xml", "application/javascript", "text/javascript", "application/wasm"),
        *("application/x-ndjson", "font/ttf", "image/bmp"),
    ],
)
def test_types_that_are_compressed(kind: str) -> None:
    assert not untouched(response(200, TEXT, Content_Type=kind))


@pytest.mark.parametrize(
    "kind",
    [
        *("image/png", "image/jpeg", "video/mp4", "application/zip", "application/octet-stream", "font/woff2"),
        *("application/pdf", "application/gzip", "text/event-stream", "Text/Event-Stream; charset=utf-8", "", "json"),
        *("application/jsonx", "multipart/byteranges; boundary=x"),
    ],
)
def test_types_that_are_not_compressed(kind: str) -> None:
    assert untouched(response(200, TEXT, Content_Type=kind))
    assert untouched(response(200, TEXT))


def test_types_of_ones_own() -> None:
    assert untouched(response(200, TEXT, Content_Type=JSON), types=["application/pdf"])
    assert not untouched(response(200, TEXT, Content_Type="application/PDF"), types=["Application/pdf"])
    assert not untouched(response(200, TEXT, Content_Type="x/y"), types=["*"])
    assert untouched(response(200, TEXT, Content_Type="text/event-stream"), types=["*"])


def test_kinds_that_are_remembered_are_bounded() -> None:
    policy = made(CompressPolicy)
    for number in range(1000):
        policy.response(request(), response(200, TEXT, Content_Type=f"text/x{number}"))
    assert len(policy._known_types) <= 256


def test_event_streams_when_asked_for() -> None:
    async def main() -> None:
        source = Pieces([b"data: 1\n\n", b"data: 2\n\n"])
        answer = Response(200, fields({"Content-Type": "text/event-stream"}), Body.stream(source, None))
        body = compressed(answer, event_streams=True).body
        decoder = zlib.decompressobj(31)
        assert decoder.decompress(await body.chunk()) == b"data: 1\n\n"
        assert source.left == [b"data: 2\n\n"]
        assert decoder.decompress(await body.chunk()) == b"data: 2\n\n"

    asyncio.run(main())


@pytest.mark.parametrize("status", [204, 205, 206, 304])
def test_statuses_that_stay_as_they_are(status: int) -> None:
    assert untouched(response(status, TEXT, Content_Type=JSON))


@pytest.mark.parametrize("status", [200, 201, 400, 404, 500, 503])
def test_other_statuses(status: int) -> None:
    assert not untouched(response(status, TEXT, Content_Type=JSON))


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "br"},
        {"Content-Encoding": "identity"},
        {"Content-Range": "bytes 0-1/2"},
        {"Cache-Control": "no-transform"},
        {"Cache-Control": "public, No-Transform, max-age=1"},
        {"Cache-Control": "max-age=1,no-transform"},
    ],
)
def test_answers_that_stay_as_they_are(headers: dict[str, str]) -> None:
    assert untouched(response(200, TEXT, Content_Type=JSON, **headers))


def test_no_transform_in_the_second_line() -> None:
    answer = response(200, TEXT, Content_Type=JSON, Cache_Control="public")
    answer.headers.add(b"Cache-Control", b"no-transform")
    assert untouched(answer)
    assert not untouched(response(200, TEXT, Content_Type=JSON, Cache_Control="max-age=1, x-no-transform"))


@pytest.mark.parametrize("accept", [None, "", "identity", "deflate", "gzip;q=0", "*;q=0, identity"])
def test_a_client_that_takes_none_is_told_that_others_would(accept: str | None) -> None:
    answer = compressed(response(200, TEXT, Content_Type=JSON, ETag='"a"', Content_Length=str(len(TEXT))), accept)
    assert answer.body.whole == TEXT
    assert answer.headers.pairs[:3] == [
        (b"Content-Type", b"application/json"),
        (b"ETag", b'"a"'),
        (b"Content-Length", b"%d" % len(TEXT)),
    ]
    assert answer.headers.text(b"vary") == "Accept-Encoding"
    assert b"content-encoding" not in answer.headers


def test_what_the_headers_said_is_taken_back() -> None:
    before = {"Content-Type": JSON, "ETag": '"a"', "Accept-Ranges": "bytes", "Vary": "Origin", "Digest": "x"}
    before |= {"Content-MD5": "x", "Content-Digest": "x", "Repr-Digest": "x", "Last-Modified": "then"}
    answer = compressed(response(200, TEXT, **before))
    assert dict(answer.headers.pairs) == {
        b"Content-Type": JSON.encode(),
        b"Last-Modified": b"then",
        b"ETag": b'W/"a"',
        b"Vary": b"Origin, Accept-Encoding",
        b"Content-Encoding": b"gzip",
    }


def test_the_answer_to_head_is_as_that_to_get() -> None:
    def head(**headers: str) -> Response:
        return compressed(response(200, b"", Content_Type=JSON, ETag='"a"', **headers), method="HEAD")

    for answer in (head(Content_Length="5000"), head()):
        assert answer.body.length == 0
        assert answer.headers.text(b"content-encoding") == "gzip"
        assert answer.headers.text(b"etag") == 'W/"a"'
        assert answer.headers.text(b"vary") == "Accept-Encoding"
        assert b"content-length" not in answer.headers
    small = head(Content_Length="1023")
    assert small.headers.text(b"content-length") == "1023"
    assert b"content-encoding" not in small.headers
    whole = compressed(response(200, TEXT, Content_Type=JSON), method="HEAD")  # of an endpoint that does not care
    assert whole.body.length == 0


def test_an_answer_that_is_a_problem_has_nothing_to_compress_yet() -> None:
    assert untouched(Response.problem(403, "no"))


def test_the_order_of_codings_is_the_operators() -> None:
    answer = compressed(response(200, TEXT, Content_Type=JSON), "gzip, br, zstd", codings=["br", "gzip"])
    assert answer.headers.text(b"content-encoding") == "br"


def test_levels_make_a_difference() -> None:
    content = b"".join(b"%d, " % (number * 7919 % 10007) for number in range(9000))
    for coding, low, high in (("gzip", 1, 9), ("br", 0, 9), ("zstd", 1, 15)):
        sizes = [
            len(compressed(response(200, content, Content_Type=JSON), coding, levels={coding: level}).body.whole or b"")
            for level in (low, high)
        ]
        assert sizes[0] > sizes[1] > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"codings": []},
        {"codings": ["gzip", "gzip"]},
        {"codings": ["deflate"]},
        {"levels": {"gzip": 0}},
        {"levels": {"gzip": 10}},
        {"levels": {"br": 12}},
        {"levels": {"zstd": 20}},
        {"levels": {"deflate": 1}},
        {"types": []},
        {"types": ["text/html; charset=utf-8"]},
        {"types": ["(text"]},
        {"min_size": "huge"},
        {"min_length": 3},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        made(CompressPolicy, **settings)


# Through a gateway


def answer(call: Call) -> None:
    """Answer by what the path says."""
    call.note(b"".join(call.read_body()))
    kind = call.path.partition("?")[0].rpartition("/")[2]
    if kind == "whole":
        call.answer(200, TEXT, Content_Type=JSON, ETag='"v1"')
    elif kind == "large":
        call.answer(200, TEXT * 2500, Content_Type="text/plain")
    elif kind == "image":
        call.answer(200, TEXT, Content_Type="image/png")
    elif kind == "encoded":
        call.answer(200, gzip.compress(TEXT), Content_Type=JSON, Content_Encoding="gzip")
    elif kind == "none":
        call.send_response(304)
        call.send_header("ETag", '"v1"')
        call.end_headers()
    else:
        stream(call, kind)


def stream(call: Call, kind: str) -> None:
    call.send_response(200)
    for name, value in (("Content-Type", JSON), ("Transfer-Encoding", "chunked"), ("Trailer", "X-Count, Digest")):
        call.send_header(name, value)
    call.end_headers()
    for number in range(3):
        data = b'{"event": %d}\n' % number
        call.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if kind == "slow":
            assert call.server.service.go.acquire(timeout=DEADLINE)  # type: ignore[attr-defined]
        if kind == "broken" and number == 1:
            call.close_connection = True
            return
    call.wfile.write(b"0\r\nX-Count: 3\r\nDigest: x\r\n\r\n")


CONFIG = """
services:
  api: {{url: http://127.0.0.1:{port}}}
policies: [compress]
routes:
  - {{path: /api/**, service: api}}
  - {{path: /respond, respond: {{json: {{text: {text}}}}}}}
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(answer) as service:
        service.go = threading.Semaphore(0)  # type: ignore[attr-defined]
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("compress"), CONFIG.format(port=service.port, text="x" * 3000)) as gateway:
        yield gateway


@pytest.mark.parametrize("kind", ["whole", "large", "stream", "image", "encoded"])
def test_curl_reads_it(gateway: Gateway, kind: str) -> None:
    plain = curl(f"{gateway.url}/api/{kind}")
    through = curl("--compressed", f"{gateway.url}/api/{kind}")
    wanted = gzip.decompress(plain.body) if kind == "encoded" else plain.body
    if kind == "stream":  # curl shows the trailers behind the content; a digest does not outlive the change
        wanted = wanted.replace(b"Digest: x\r\n", b"")
    assert through.body == wanted
    compressible = kind in {"whole", "large", "stream"}
    assert through.values("Vary") == plain.values("Vary") == (["Accept-Encoding"] if compressible else [])
    assert bool(through.values("Content-Encoding")) == (kind != "image")


def test_it_is_smaller_on_the_wire(gateway: Gateway) -> None:
    for coding in DECODERS:
        for kind in ("whole", "large"):
            reply = curl("-H", f"Accept-Encoding: {coding}", f"{gateway.url}/api/{kind}")
            assert reply.value("Content-Encoding") == coding
            assert len(reply.body) < (2000 if kind == "whole" else 100_000)
            assert DECODERS[coding](reply.body).startswith(TEXT)
        assert reply.values("Content-Length") == []
    assert curl("-H", "Accept-Encoding: gzip", f"{gateway.url}/api/whole").value("ETag") == 'W/"v1"'
    assert curl(f"{gateway.url}/api/whole").value("ETag") == '"v1"'


def test_head_and_304(gateway: Gateway) -> None:
    head = curl("-I", "-H", "Accept-Encoding: gzip", f"{gateway.url}/api/whole")
    get = curl("-H", "Accept-Encoding: gzip", f"{gateway.url}/api/whole")
    for name in ("Content-Encoding", "ETag", "Vary", "Content-Type"):
        assert head.value(name) == get.value(name)
    assert head.values("Content-Length") == []
    none = curl("-H", "Accept-Encoding: gzip", f"{gateway.url}/api/none")
    assert (none.status, none.value("ETag"), none.values("Vary")) == (304, '"v1"', [])


def test_what_the_gateway_answers_itself(gateway: Gateway) -> None:
    reply = curl("--compressed", f"{gateway.url}/respond")
    assert reply.value("Content-Encoding") in DECODERS
    assert reply.json == {"text": "x" * 3000}


ONE_BY_ONE: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
    "gzip": lambda: zlib.decompressobj(31).decompress,
    "br": lambda: unbrotli(brotli.Decompressor()),
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
}


@pytest.mark.parametrize("coding", ONE_BY_ONE)
def test_a_slow_stream_arrives_piece_by_piece(gateway: Gateway, service: Service, coding: str) -> None:
    decode = ONE_BY_ONE[coding]()
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        connection.request("GET", "/api/slow", headers={"Accept-Encoding": coding})
        reply: HTTPResponse = connection.getresponse()
        assert reply.headers["Content-Encoding"] == coding
        for number in range(3):
            seen = b""
            while not seen.endswith(b"\n"):  # the service waits: without a flush this would never end
                seen += decode(reply.read1())
            assert seen == b'{"event": %d}\n' % number
            service.go.release()  # type: ignore[attr-defined]
        rest_of_it = reply.read()
        assert decode(rest_of_it) == b""


def test_trailers_arrive(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        connection.sendall(
            b"GET /api/stream HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nTE: trailers\r\nConnection: close\r\n\r\n"
        )
        reply = connection.makefile("rb").read()
    assert b"\r\nContent-Encoding: gzip\r\n" in reply
    assert reply.endswith(b"\r\n0\r\nX-Count: 3\r\n\r\n")


def test_an_answer_that_breaks_off_is_not_made_whole(gateway: Gateway) -> None:
    reply = curl("-H", "Accept-Encoding: gzip", f"{gateway.url}/api/broken", codes=BROKEN_OFF)
    assert zlib.decompressobj(31).decompress(reply.body) == b'{"event": 0}\n{"event": 1}\n'


def test_a_client_that_leaves_lets_go_of_the_service(gateway: Gateway, service: Service) -> None:
    with gateway.connect() as connection:
        connection.sendall(b"GET /api/slow HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br\r\n\r\n")
        assert connection.recv(10) == b"HTTP/1.1 2"
    for _ in range(3):
        service.go.release()  # type: ignore[attr-defined]
    assert curl(f"{gateway.url}/api/whole").status == 200
