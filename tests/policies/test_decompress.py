from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection

import brotli
import pytest
import zstandard
from pydantic import ValidationError

from portico.plugin import Body, BodyTooLarge, MalformedContent, Request, Response, UpstreamError
from portico.policies.decompress import DecompressPolicy
from tests.harness.gateway import (
    BROKEN_OFF,
    DEADLINE,
    Call,
    Gateway,
    Service,
    curl,
    echo,
    memory_of,
    problem_of,
)
from tests.harness.policy import Pieces, fields, made, request, response, rest
from tests.http.test_coding import bomb

TEXT = b'{"hello": "world"}, ' * 200
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


def decompressed(asked: Request, **settings: object) -> Response | None:
    return made(DecompressPolicy, **settings).request(asked)


def posted(data: bytes, coding: str, *, streamed: bool = False, **headers: str) -> Request:
    body = Body.stream(Pieces([data[:5], data[5:]]), len(data)) if streamed else Body(data)
    return request("POST", "/", body, Content_Encoding=coding, **headers)


@pytest.mark.parametrize("coding", ENCODERS)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_client_has_compressed(coding: str, streamed: bool) -> None:
    data = ENCODERS[coding](TEXT)
    asked = posted(data, coding, streamed=streamed, Content_Length=str(len(data)), Content_MD5="x", X="y")
    assert decompressed(asked) is None
    assert asked.headers.pairs == [(b"X", b"y")]
    assert asked.body.length == (None if streamed else len(TEXT))
    assert asyncio.run(rest(asked.body)) == TEXT


def test_several_codings() -> None:
    asked = posted(brotli.compress(gzip.compress(TEXT)), "gzip, br")
    assert decompressed(asked) is None
    assert asked.body.whole == TEXT


def test_requests_that_are_not_compressed() -> None:
    asked = request("POST", "/", Body(TEXT), Content_Length="5")
    before = asked.headers.copy()
    assert decompressed(asked) is None
    assert asked.headers == before
    asked = posted(TEXT, "identity", Content_Length="5")
    assert decompressed(asked) is None
    assert asked.headers.pairs == [(b"Content-Length", b"5")]
    assert asked.body.whole == TEXT
    asked = request("GET", "/", Content_Encoding="gzip")
    assert decompressed(asked) is None
    assert asked.body.whole == b""


@pytest.mark.parametrize("coding", ["snappy", "gzip, snappy", "compress", "gzip, gzip, gzip, gzip", "aes128gcm"])
def test_other_codings_are_refused(coding: str) -> None:
    refused = decompressed(posted(TEXT, coding))
    assert refused is not None
    assert refused.status == 415
    assert refused.headers.text(b"accept-encoding") == "gzip, deflate, br, zstd"


def test_codings_of_ones_own() -> None:
    refused = decompressed(posted(TEXT, "br"), codings=["zstd", "gzip"])
    assert refused is not None
    assert refused.headers.text(b"accept-encoding") == "zstd, gzip"
    assert decompressed(posted(gzip.compress(TEXT), "gzip"), codings=["gzip"]) is None


@pytest.mark.parametrize("coding", ENCODERS)
def test_the_limit_is_to_the_byte(coding: str) -> None:
    data = ENCODERS[coding](TEXT)
    for streamed in (False, True):
        asked = posted(data, coding, streamed=streamed)
        assert decompressed(asked, max=len(TEXT)) is None
        assert asyncio.run(rest(asked.body)) == TEXT
    refused = decompressed(posted(data, coding), max=len(TEXT) - 1)
    assert refused is not None
    assert refused.status == 413
    asked = posted(data, coding, streamed=True)
    assert decompressed(asked, max=len(TEXT) - 1) is None
    with pytest.raises(BodyTooLarge):
        asyncio.run(rest(asked.body))


def test_broken_content_is_the_clients_fault() -> None:
    refused = decompressed(posted(b"not gzip", "gzip"))
    assert refused is not None
    assert refused.status == 400
    asked = posted(b"not gzip", "gzip", streamed=True)
    assert decompressed(asked) is None
    with pytest.raises(MalformedContent):
        asyncio.run(rest(asked.body))


@pytest.mark.parametrize("settings", [{"codings": []}, {"codings": ["lzma"]}, {"max": "lots"}, {"limit": 5}])
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        made(DecompressPolicy, **settings)


# Answers


def answered(answer: Response, accept: str | None, method: str = "GET", *, responses: bool = True) -> Response:
    policy = made(DecompressPolicy, responses=responses)
    asked = request(method, **({} if accept is None else {"Accept-Encoding": accept}))
    assert policy.request(asked) is None
    asked.headers.set(b"Accept-Encoding", b"gzip, br")  # what the service is told by a policy further in
    return policy.response(asked, answer)


def encoded_answer(coding: str = "gzip", status: int = 200, **headers: str) -> Response:
    return response(status, gzip.compress(TEXT), Content_Encoding=coding, ETag='"1"', Accept_Ranges="bytes", **headers)


@pytest.mark.parametrize("accept", [None, "", "br", "gzip;q=0", "identity"])
def test_an_answer_is_decoded_for_who_does_not_take_it(accept: str | None) -> None:
    answer = answered(encoded_answer(), accept)
    assert answer.body.whole == TEXT
    assert answer.body.of_answer
    assert answer.headers.pairs == [(b"Vary", b"Accept-Encoding"), (b"ETag", b'W/"1"')]


@pytest.mark.parametrize("accept", ["gzip", "br, x-gzip;q=0.1", "*"])
def test_an_answer_stays_for_who_takes_it(accept: str) -> None:
    answer = answered(encoded_answer(), accept)
    assert answer.headers.text(b"content-encoding") == "gzip"
    assert answer.headers.text(b"vary") == "Accept-Encoding"
    assert gzip.decompress(answer.body.whole or b"") == TEXT


@pytest.mark.parametrize(
    "answer",
    [
        encoded_answer("snappy"),
        encoded_answer("identity"),
        encoded_answer(status=206),
        encoded_answer(status=304),
        encoded_answer(Content_Range="bytes 0-1/5"),
        encoded_answer(Cache_Control="no-transform"),
        response(200, TEXT),
    ],
)
def test_answers_that_stay_as_they_are(answer: Response) -> None:
    before, body = answer.headers.copy(), answer.body
    after = answered(answer, None)
    assert (after.headers, after.body) == (before, body)


def test_an_answer_that_is_not_what_it_says_is_the_services_fault() -> None:
    assert answered(response(200, b"not gzip", Content_Encoding="gzip"), None).status == 502
    streamed = Response(200, fields({"Content-Encoding": "gzip"}), Body.stream(Pieces([b"not gzip"]), None))
    with pytest.raises(UpstreamError):
        asyncio.run(rest(answered(streamed, None).body))


def test_answers_stay_unless_told_otherwise() -> None:
    assert answered(encoded_answer(), None, responses=False).headers.text(b"content-encoding") == "gzip"


def test_the_answer_to_head_is_as_that_to_get() -> None:
    head = response(200, b"", Content_Encoding="gzip", ETag='"1"', Content_Length="55")
    assert answered(head, None, "HEAD").headers.pairs == [(b"Vary", b"Accept-Encoding"), (b"ETag", b'W/"1"')]


# Through a gateway

CONFIG = """
services:
  echo: {{url: http://127.0.0.1:{port}}}
limits: {{body: 3MiB}}
policies: [decompress: {{responses: true}}]
routes:
  - {{path: /**, service: echo}}
"""


def answer(call: Call) -> None:
    if call.path == "/gzip":
        call.note(b"".join(call.read_body()))
        call.answer(200, gzip.compress(TEXT * 1000), Content_Encoding="gzip", Content_Type="text/plain")
    elif call.path == "/broken":
        call.answer(200, gzip.compress(TEXT * 1000)[:-9], Content_Encoding="gzip")
    elif call.path == "/wrong":
        call.answer(200, b"not gzip", Content_Encoding="gzip")
    else:
        echo(call)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(answer) as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("decompress"), CONFIG.format(port=service.port)) as gateway:
        yield gateway


@pytest.mark.parametrize("coding", ENCODERS)
@pytest.mark.parametrize("times", [1, 2000])
@pytest.mark.parametrize("how", ["-d", "chunked"])
def test_a_service_gets_it_decoded(gateway: Gateway, service: Service, coding: str, times: int, how: str) -> None:
    options = ["-H", "Transfer-Encoding: chunked"] if how == "chunked" else []
    data = ENCODERS[coding](TEXT * times)
    curl("-H", f"Content-Encoding: {coding}", *options, "--data-binary", "@-", f"{gateway.url}/in", stdin=data)
    assert service.last.body == TEXT * times
    assert "content-encoding" not in service.last.names


@pytest.mark.parametrize("coding", ENCODERS)
def test_a_bomb_costs_little(gateway: Gateway, service: Service, coding: str) -> None:
    (worker,) = gateway.worker_pids()
    before = memory_of(worker, "VmHWM")
    reply = curl("-H", f"Content-Encoding: {coding}", "--data-binary", "@-", f"{gateway.url}/in", stdin=bomb(coding))
    problem_of(reply, 413, "content-too-large")
    assert memory_of(worker, "VmHWM") - before < 40 << 20


def test_what_is_broken_or_not_known(gateway: Gateway) -> None:
    def post(coding: str, data: bytes) -> tuple[str, ...]:
        return ("-H", f"Content-Encoding: {coding}", "-H", "Expect:", "--data-binary", "@-", f"{gateway.url}/in")

    for coding in ENCODERS:
        problem_of(curl(*post(coding, b""), stdin=b"nothing of the kind"), 400, "malformed-content")
        large = ENCODERS[coding](bytes(range(256)) * 5000 + TEXT * 100)
        problem_of(curl(*post(coding, b""), stdin=large[:-20]), 400, "malformed-content")
    refused = curl(*post("lzma", b""), stdin=b"x")
    problem_of(refused, 415, "unknown-content-coding")
    assert refused.value("Accept-Encoding") == "gzip, deflate, br, zstd"


def test_the_gateway_goes_on(gateway: Gateway) -> None:
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)) as connection:
        for data, status in ((gzip.compress(TEXT), 200), (b"broken", 400), (gzip.compress(TEXT), 200)):
            connection.request("POST", "/in", data, {"Content-Encoding": "gzip"})
            reply = connection.getresponse()
            reply.read()
            assert reply.status == status


def test_answers_for_those_who_cannot(gateway: Gateway) -> None:
    reply = curl(f"{gateway.url}/gzip")
    assert reply.body == TEXT * 1000
    assert not reply.values("Content-Encoding")
    assert curl("-H", "Accept-Encoding: gzip", f"{gateway.url}/gzip").value("Content-Encoding") == "gzip"


def test_a_broken_answer_is_not_made_whole(gateway: Gateway) -> None:
    wrong = curl(f"{gateway.url}/wrong", codes=(0, *BROKEN_OFF))
    if wrong.status == 502:  # its head and its content came together
        problem_of(wrong, 502, "invalid-service-response")
    else:
        assert (wrong.status, wrong.body) == (200, b"")
    assert curl(f"{gateway.url}/broken", codes=BROKEN_OFF).status == 200  # that much had been sent
