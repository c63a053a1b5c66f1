from __future__ import annotations

import json
from typing import Any, get_args
from xml.etree import ElementTree

import pytest

from portico.config.errors import Errors
from portico.http.error_shapes import SHAPES, ErrorText, ErrorWriter, write_problem
from portico.http.headers import Headers
from portico.http.message import Request, Response

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
NO_ROUTE = (404, "no-route", "Not found", "No route matches this request.")
WRONG_METHOD = (405, "method-not-allowed", "", "This path does not take PUT.")
LIMITED = (429, "rate-limited", "", "")
UNREACHABLE = (502, "service-unreachable", "The service could not be reached")
OVERLOADED = (503, "service-overloaded")
TOO_LATE = (504, "service-timeout", "The service did not answer in time")
BUG = (500, "internal-error", "", "The gateway could not answer this request.")


def written(writer: ErrorWriter, problem: tuple[Any, ...], accept: str | None = None, path: str = "/x") -> Response:
    request = Request("GET", path, headers=Headers([] if accept is None else [(b"Accept", accept.encode())]))
    response = Response.problem(*problem)
    response.headers.set(b"Retry-After", b"7")
    assert response.problem_value is not None
    writer.write(response.problem_value, request, response)
    assert response.headers.get(b"retry-after") == b"7"
    return response


def content(response: Response) -> Any:
    assert response.body.whole is not None
    return json.loads(response.body.whole)


def type_of(response: Response) -> str | None:
    return response.headers.text(b"content-type")


def test_the_file_knows_every_shape() -> None:
    (names, _) = get_args(Errors.model_fields["shape"].annotation)
    assert set(get_args(names)) == set(SHAPES)


@pytest.mark.parametrize(
    ("shape", "problem", "body"),
    [
        ("simple", NO_ROUTE, {"error": "Not found"}),
        ("simple", LIMITED, {"error": "Rate limit exceeded"}),
        ("simple", (403, "forbidden"), {"error": "Forbidden"}),
        ("simple", (503, "x"), {"error": "Service unavailable"}),
        ("simple", UNREACHABLE, {"error": "The service could not be reached"}),
        ("fastapi", NO_ROUTE, {"detail": "Not Found"}),
        ("fastapi", WRONG_METHOD, {"detail": "Method Not Allowed"}),
        ("fastapi", LIMITED, {"detail": "Rate limit exceeded"}),
        ("fastapi", BUG, {"detail": "The gateway could not answer this request."}),
        ("fastapi", TOO_LATE, {"detail": "The service did not answer in time"}),
        ("aws", NO_ROUTE, {"message": "Missing Authentication Token"}),
        ("aws", LIMITED, {"message": "Too Many Requests"}),
        ("aws", (429, "quota-exceeded"), {"message": "Limit Exceeded"}),
        ("aws", (403, "ip-denied", "Not from here"), {"message": "Forbidden"}),
        ("aws", UNREACHABLE, {"message": "Network error communicating with endpoint"}),
        ("aws", TOO_LATE, {"message": "Endpoint request timed out"}),
        ("aws", BUG, {"message": "Internal server error"}),
        ("aws", (418, "teapot", "I am a teapot"), {"message": "I am a teapot"}),
    ],
)
def test_shapes_in_json(shape: str, problem: tuple[Any, ...], body: dict[str, str]) -> None:
    response = written(ErrorWriter(SHAPES[shape]), problem, "*/*")
    assert (type_of(response), content(response)) == ("application/json", body)
    assert response.status == problem[0]


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (NO_ROUTE, "no Route matched with those values"),
        (WRONG_METHOD, "no Route matched with those values"),
        (LIMITED, "API rate limit exceeded"),
        ((413, "content-too-large"), "Request size limit exceeded"),
        ((426, "https-required"), "Please use HTTPS protocol"),
        ((401, "token-missing", "No token"), "Unauthorized"),
        ((403, "not-a-member", "You cannot consume this service"), "You cannot consume this service"),
        (BUG, "An unexpected error occurred"),
        (UNREACHABLE, "An invalid response was received from the upstream server"),
        (OVERLOADED, "The upstream server is currently unavailable"),
        (TOO_LATE, "The upstream server is timing out"),
    ],
)
def test_kong_s_words(problem: tuple[Any, ...], words: str) -> None:
    response = written(ErrorWriter(SHAPES["kong"]), problem, "application/json")
    assert type_of(response) == "application/json; charset=utf-8"
    request_id = response.headers.text(b"x-kong-request-id")
    assert request_id is not None
    assert len(request_id) == 32
    assert content(response) == {"message": words, "request_id": request_id}


@pytest.mark.parametrize(
    ("accept", "problem", "media_type"),
    [
        (None, NO_ROUTE, "application/json"),
        (None, OVERLOADED, "text/plain"),
        (None, BUG, "text/plain"),
        ("*/*", OVERLOADED, "application/json"),
        ("text/plain", NO_ROUTE, "text/plain"),
        ("application/xml, text/plain;q=0.5", NO_ROUTE, "application/xml"),
        ("text/xml", NO_ROUTE, "application/xml"),
        (BROWSER, NO_ROUTE, "text/html"),
        ("text/*", NO_ROUTE, "text/html"),
        ("image/png", NO_ROUTE, "application/json"),
    ],
)
def test_kong_writes_what_accept_says(accept: str | None, problem: tuple[Any, ...], media_type: str) -> None:
    response = written(ErrorWriter(SHAPES["kong"]), problem, accept)
    assert type_of(response) == f"{media_type}; charset=utf-8"
    request_id = response.headers.get(b"x-kong-request-id")
    assert response.body.whole is not None
    assert request_id is not None
    assert request_id in response.body.whole


def test_kong_s_markup_is_well_formed_whatever_a_title_says() -> None:
    for accept in ("application/xml", "text/html"):
        response = written(ErrorWriter(SHAPES["kong"]), (403, "x", "<script>&\"'"), accept)
        assert response.body.whole is not None
        assert b"<script>" not in response.body.whole
        if accept == "application/xml":
            assert ElementTree.fromstring(response.body.whole).findtext("message") == "<script>&\"'"


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (NO_ROUTE, "MissingAuthenticationTokenException"),
        ((401, "x"), "UnauthorizedException"),
        ((403, "x"), "ForbiddenException"),
        (LIMITED, "TooManyRequestsException"),
        ((409, "x"), "BadRequestException"),
        (UNREACHABLE, "InternalServerErrorException"),
    ],
)
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_aws_names_the_kind_of_error_in_a_header(problem: tuple[Any, ...], kind: str, accept: str) -> None:
    response = written(ErrorWriter(SHAPES["aws"]), problem, accept)
    assert response.headers.text(b"x-amzn-errortype") == kind


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (None, False),
        ("*/*", False),
        (BROWSER, True),
        ("text/html", True),
        ("text/html, application/json", False),
        ("text/html;q=0.5, application/json;q=0.6", False),
        ("text/html;q=0.6, application/json;q=0.5", True),
        ("text/html;q=0", False),
    ],
)
def test_browsers_get_a_page_in_every_shape(shape: str, accept: str | None, html: bool) -> None:
    response = written(ErrorWriter(SHAPES[shape]), NO_ROUTE, accept)
    assert (type_of(response) == "text/html; charset=utf-8") is html
    assert response.headers.get_all(b"vary") == [b"Accept"]
    without = written(ErrorWriter(SHAPES[shape], html=False), NO_ROUTE, accept)
    assert "html" not in (type_of(without) or "")


def test_a_page_shows_what_a_client_sent_as_text_and_runs_nothing() -> None:
    evil = (400, "bad", "<img src=x onerror=alert(1)>", "\"'><script>alert(2)</script>")
    response = written(ErrorWriter(SHAPES["problem"]), evil, "text/html", path="/<b>")
    assert response.body.whole is not None
    page = response.body.whole.decode()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    for elsewhere in ("http:", "https:", "src=", "href="):
        assert elsewhere not in page.replace("&lt;img src=x", "")


def test_a_text_for_a_status_goes_before_one_for_a_hundred_and_that_before_the_shape() -> None:
    texts = {404: ErrorText("gone: {{ path }} {{status}} {{ title }}", "text/plain"), 4: ErrorText("four", "text/css")}
    writer = ErrorWriter(SHAPES["simple"], texts=texts)
    exact = written(writer, NO_ROUTE, "text/html", path="/a%20b")
    assert (type_of(exact), exact.body.whole) == ("text/plain; charset=utf-8", b"gone: /a%20b 404 Not found")
    assert b"vary" not in exact.headers
    assert written(writer, LIMITED).body.whole == b"four"
    assert content(written(writer, OVERLOADED)) == {"error": "Service unavailable"}


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("application/json", '{"e": "\\"<&\\n"}'),
        ("application/vnd.x+json", '{"e": "\\"<&\\n"}'),
        ("text/html", '{"e": "&quot;&lt;&amp;\n"}'),
        ("image/svg+xml", '{"e": "&quot;&lt;&amp;\n"}'),
        ("text/plain", '{"e": ""<&\n"}'),
    ],
)
def test_values_in_a_text_are_made_safe_for_its_media_type(media_type: str, expected: str) -> None:
    text = ErrorText('{"e": "{{ detail }}"}', media_type)
    response = written(ErrorWriter(SHAPES["simple"], texts={4: text}), (400, "x", "", '"<&\n'))
    assert response.body.whole == expected.encode()


@pytest.mark.parametrize("status", [204, 205, 304])
def test_what_has_no_content_gets_none(status: int) -> None:
    response = written(ErrorWriter(SHAPES["kong"]), (status, "x"))
    assert response.body.whole == b""
    assert b"content-type" not in response.headers


def test_what_is_not_a_request_yet_is_written_without_one() -> None:
    response = Response.problem(400, "malformed-request", detail="No.")
    assert response.problem_value is not None
    write_problem(response.problem_value, Request("GET", ""), response)
    assert content(response) == {
        "type": "urn:portico:problem:malformed-request",
        "title": "Bad Request",
        "status": 400,
        "detail": "No.",
    }


def test_vary_is_added_to_what_is_there() -> None:
    response = Response.problem(*NO_ROUTE)
    response.headers.set(b"Vary", b"Origin")
    assert response.problem_value is not None
    write_problem(response.problem_value, Request("GET", "/"), response)
    assert response.headers.get_all(b"vary") == [b"Origin", b"Accept"]
