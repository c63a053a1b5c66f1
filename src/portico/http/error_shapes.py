"""How a problem is written for the client: the shapes that a file can choose among, and what chooses for one client.

A shape changes the words, and never the status: logs, metrics and caches see one and the same, whoever reads it.
"""

from __future__ import annotations

import html
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import orjson

from portico.http.accept import qualities
from portico.http.body import Body
from portico.http.message import Key, Request, Response
from portico.http.problem import PROBLEM_JSON, Problem, reason
from portico.http.template import Part, Template, escape_for

ProblemWriter = Callable[[Problem, Request, Response], None]
"""Writes a problem into an answer. What never became a request comes as one that is empty but for what is known."""

PROBLEM: Key[Problem] = Key("problem")
"""The problem that is being written, for the places of a template."""

_WITHOUT_CONTENT: Final = frozenset((204, 205, 304))
_JSON: Final = "application/json"
_HTML: Final = "text/html"


class Form(NamedTuple):
    """One media type in which a shape can be written."""

    names: tuple[str, ...]
    """What a client may call it in Accept."""
    content_type: bytes
    render: Callable[[Problem, Request, Response], str | bytes]


def _nothing(problem: Problem, response: Response) -> None:
    """Mark nothing."""


@dataclass(frozen=True)
class Shape:
    """One shape: its forms, the most usual first, and the headers that go with any of them."""

    about: str
    """What it is like, for the documentation."""
    forms: tuple[Form, ...]
    mark: Callable[[Problem, Response], None] = _nothing
    plain_unasked: frozenset[int] = frozenset()
    """The statuses for which a client that sends no Accept gets the last form."""


def _problem(problem: Problem, request: Request, response: Response) -> bytes:
    return problem.render(request.path)


def _title(problem: Problem) -> str:
    return problem.title or reason(problem.status)


_SHORT: Final = {429: "Rate limit exceeded", 503: "Service unavailable"}
"""Words that clients of such gateways look for, where the problem has no title of its own."""


def _simple(problem: Problem, request: Request, response: Response) -> bytes:
    return orjson.dumps({"error": problem.title or _SHORT.get(problem.status) or reason(problem.status)})


_FASTAPI: Final = {"no-route": "Not Found", "method-not-allowed": "Method Not Allowed"}


def _fastapi(problem: Problem, request: Request, response: Response) -> bytes:
    words = _FASTAPI.get(problem.type) or problem.detail or problem.title or _SHORT.get(problem.status)
    return orjson.dumps({"detail": words or reason(problem.status)})


# Kong

_KONG_BY_TYPE: Final = {
    "no-route": "no Route matched with those values",
    "method-not-allowed": "no Route matched with those values",
    "content-too-large": "Request size limit exceeded",
    "grpc-required": "Non-gRPC request matched gRPC route",
    "https-required": "Please use HTTPS protocol",
}
_KONG_BY_STATUS: Final = {
    400: "Bad request",
    401: "Unauthorized",
    408: "Request timeout",
    411: "Length required",
    413: "Request size limit exceeded",
    414: "URI too long",
    417: "Request size limit exceeded",
    426: "Please use HTTPS protocol",
    429: "API rate limit exceeded",
    431: "Request header or cookie too large",
    500: "An unexpected error occurred",
    502: "An invalid response was received from the upstream server",
    503: "The upstream server is currently unavailable",
    504: "The upstream server is timing out",
}
_KONG_ID: Final = b"x-kong-request-id"


def _kong_words(problem: Problem, response: Response) -> tuple[str, str]:
    """Return the message and the id of the request."""
    words = _KONG_BY_TYPE.get(problem.type) or _KONG_BY_STATUS.get(problem.status) or _title(problem)
    return words, response.headers.text(_KONG_ID) or ""


def _kong_mark(problem: Problem, response: Response) -> None:
    response.headers.set(b"X-Kong-Request-Id", uuid.uuid4().hex.encode("ascii"))


def _kong_json(problem: Problem, request: Request, response: Response) -> bytes:
    words, request_id = _kong_words(problem, response)
    return orjson.dumps({"message": words, "request_id": request_id})


def _kong_html(problem: Problem, request: Request, response: Response) -> str:
    words, request_id = map(html.escape, _kong_words(problem, response))
    return (
        '<!doctype html>\n<html>\n  <head>\n    <meta charset="utf-8">\n    <title>Error</title>\n  </head>\n'
        f"  <body>\n    <h1>Error</h1>\n    <p>{words}.</p>\n    <p>request_id: {request_id}</p>\n  </body>\n</html>\n"
    )


def _kong_xml(problem: Problem, request: Request, response: Response) -> str:
    words, request_id = map(html.escape, _kong_words(problem, response))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<error>\n  <message>{words}</message>\n'
        f"  <requestid>{request_id}</requestid>\n</error>"
    )


def _kong_plain(problem: Problem, request: Request, response: Response) -> str:
    words, request_id = _kong_words(problem, response)
    return f"{words}\nrequest_id: {request_id}\n"


# AWS API Gateway

_AWS_BY_TYPE: Final = {
    "no-route": ("MissingAuthenticationTokenException", "Missing Authentication Token"),
    "method-not-allowed": ("MissingAuthenticationTokenException", "Missing Authentication Token"),
    "service-unreachable": ("InternalServerErrorException", "Network error communicating with endpoint"),
    "service-timeout": ("InternalServerErrorException", "Endpoint request timed out"),
    "quota-exceeded": ("LimitExceededException", "Limit Exceeded"),
}
_AWS_BY_STATUS: Final = {
    400: ("BadRequestException", "Bad Request"),
    401: ("UnauthorizedException", "Unauthorized"),
    403: ("ForbiddenException", "Forbidden"),
    404: ("NotFoundException", "Not Found"),
    413: ("RequestTooLargeException", "Request Too Long"),
    415: ("UnsupportedMediaTypeException", "Unsupported Media Type"),
    429: ("TooManyRequestsException", "Too Many Requests"),
    503: ("ServiceUnavailableException", "Service Unavailable"),
    504: ("InternalServerErrorException", "Endpoint request timed out"),
}
_AWS_OTHERS: Final = {4: "BadRequestException", 5: "InternalServerErrorException"}


def _aws_words(problem: Problem) -> tuple[str, str]:
    """Return the type of the error and the message."""
    known = _AWS_BY_TYPE.get(problem.type) or _AWS_BY_STATUS.get(problem.status)
    if known is not None:
        return known
    words = "Internal server error" if problem.status >= 500 else _title(problem)
    return _AWS_OTHERS.get(problem.status // 100, "BadRequestException"), words


def _aws_mark(problem: Problem, response: Response) -> None:
    response.headers.set(b"x-amzn-ErrorType", _aws_words(problem)[0].encode("ascii"))


def _aws(problem: Problem, request: Request, response: Response) -> bytes:
    return orjson.dumps({"message": _aws_words(problem)[1]})


# Browsers

_STYLE: Final = (
    "body{font:1.1rem/1.5 system-ui,sans-serif;margin:15vh auto;max-width:34rem;padding:0 1.5rem;color:#222;"
    "background:#fff}h1{font-size:1.5rem}small{color:#777}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}}"
)


def page(problem: Problem, request: Request, response: Response) -> str:
    """Return a page for people: nothing in it is loaded from elsewhere, or runs."""
    title, detail = html.escape(_title(problem)), html.escape(problem.detail)
    more = f"<p>{detail}</p>\n" if detail else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{problem.status} {title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{more}<p><small>{problem.status}</small></p>\n</body>\n</html>\n"
    )


_PAGE: Final = Form((_HTML, "application/xhtml+xml"), b"text/html; charset=utf-8", page)


def _as_json(about: str, render: Callable[[Problem, Request, Response], bytes]) -> Shape:
    return Shape(about, (Form((_JSON,), b"application/json", render), _PAGE))


SHAPES: Final[Mapping[str, Shape]] = {
    "problem": Shape(
        "RFC 9457: for programs the `type`, for people the `title` and the `detail`.",
        (Form((PROBLEM_JSON.decode("ascii"), _JSON), PROBLEM_JSON, _problem), _PAGE),
    ),
    "simple": _as_json("One text, the problem's title.", _simple),
    "fastapi": _as_json("As FastAPI writes its own: the detail, or the title where there is none.", _fastapi),
    "kong": Shape(
        "As Kong writes them, in its words; JSON, HTML, XML or plain text, as `Accept` has it. Without `Accept`, a"
        " failure (500, 502, 503 or 504) is plain text. The id is repeated as `X-Kong-Request-Id`. Kong answers 404"
        " where the path takes other methods (405 here, in the same words), 494 where the head is too large (431 here),"
        " and 503 where the name of a service is not known (502 here).",
        (
            Form((_JSON,), b"application/json; charset=utf-8", _kong_json),
            Form((_HTML,), b"text/html; charset=utf-8", _kong_html),
            Form(("application/xml", "text/xml"), b"application/xml; charset=utf-8", _kong_xml),
            Form(("text/plain",), b"text/plain; charset=utf-8", _kong_plain),
        ),
        _kong_mark,
        frozenset((500, 502, 503, 504)),
    ),
    "aws": replace(
        _as_json(
            "As Amazon API Gateway writes them, with the kind of error in `x-amzn-ErrorType`. Amazon answers 403 where"
            " there is no route, or none for the method (404 and 405 here, in the same words), and 504 where a service"
            " cannot be reached (502 here).",
            _aws,
        ),
        mark=_aws_mark,
    ),
}
"""Every shape, by its name in the file."""

PLACES: Final[Mapping[str, Part]] = {
    "status": lambda request: str(request[PROBLEM].status),
    "title": lambda request: _title(request[PROBLEM]),
    "detail": lambda request: request[PROBLEM].detail,
    "type": lambda request: request[PROBLEM].type,
}
"""What the template of an error can have beside the places of every template."""


class ErrorText:
    """The template of an answer: its values are made safe for its media type."""

    __slots__ = ("_template", "content_type")

    def __init__(self, body: str, content_type: str) -> None:
        """Raise ValueError where a place of `body` is not known."""
        self._template = Template(body, escape_for(content_type), places=PLACES)
        is_text = content_type.startswith("text/") and "charset" not in content_type
        self.content_type = f"{content_type}; charset=utf-8".encode("latin-1") if is_text else content_type.encode()

    def fill(self, problem: Problem, request: Request) -> bytes:
        """Return the text for one problem."""
        request[PROBLEM] = problem
        return self._template.fill(request).encode("utf-8", "replace")


class ErrorWriter:
    """Writes problems in one shape; `texts` are for single statuses, or for the hundred that a key of 4 or 5 means."""

    __slots__ = ("_forms", "_shape", "_texts")

    def __init__(self, shape: Shape, *, html: bool = True, texts: Mapping[int, ErrorText] | None = None) -> None:
        """With `html` a browser gets a page."""
        self._shape = shape
        self._forms = shape.forms if html else tuple(form for form in shape.forms if _HTML not in form.names)
        self._texts = texts or {}

    def write(self, problem: Problem, request: Request, response: Response) -> None:
        """Write `problem` into `response`, whose other headers stay."""
        status = response.status
        if status in _WITHOUT_CONTENT:
            return
        shape, headers = self._shape, response.headers
        shape.mark(problem, response)
        text = self._texts.get(status) or self._texts.get(status // 100)
        if text is not None:
            headers.set(b"Content-Type", text.content_type)
            response.body = Body(text.fill(problem, request))
            return
        form = self._form(request, status)
        content = form.render(problem, request, response)
        headers.set(b"Content-Type", form.content_type)
        if len(self._forms) > 1:
            headers.add(b"Vary", b"Accept")  # or a cache would show a program the page, and people the JSON
        response.body = Body(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))

    def _form(self, request: Request, status: int) -> Form:
        """Return the form that the client would rather have; the usual one where it has no preference."""
        forms = self._forms
        accept = request.headers.get_all(b"accept")
        if not accept:
            return forms[-1] if status in self._shape.plain_unasked else forms[0]
        names = [name for form in forms for name in form.names]
        wanted = dict(zip(names, qualities(b",".join(accept).decode("latin-1"), names), strict=True))
        return max(forms, key=lambda form: max(wanted[name] for name in form.names))


write_problem: Final[ProblemWriter] = ErrorWriter(SHAPES["problem"]).write
"""Writes problems as they are unless a file chooses otherwise."""
