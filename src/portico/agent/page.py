"""What the agent answers over HTTP: `/status`, `/metrics` and `/livez` to everyone who can reach it; on its own socket
`POST /reload`, `POST /purge`, `GET /why` and `GET /tail` as well, but no `/livez`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from portico.agent.purging import LARGEST, NotPurged, Wanted
from portico.agent.recalling import BadQuestion, Recalling
from portico.agent.reload import Result
from portico.errors import BodyTooLarge
from portico.http.body import Body, BodySource
from portico.http.headers import Headers
from portico.http.message import Handler, Request, Response
from portico.http.scraped import scraped

_PAGES: Final = frozenset(("/", "/status", "/metrics", "/livez"))
"""What the status listener has."""


def _json(content: object, status: int = 200) -> Response:
    headers = Headers([(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")])
    return Response(status, headers, orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")


def page(state: Callable[[], Awaitable[dict[str, Any]]], scrape: Callable[[bool], BodySource]) -> Handler:
    """Return the Handler of the status listener, which anyone on this machine may ask.

    A browser on this machine is made to ask by any web page: so nothing is changed here, and what was not asked for
    by a loopback name is not answered, since a page could have had its own name lead here (DNS rebinding).
    """

    async def handle(request: Request) -> Response:
        if not _is_loopback(request.host):
            return _json({"error": "ask by a loopback address, or localhost"}, 403)
        if request.path not in _PAGES:
            return _json({"error": f"there is no {request.path} here, but {', '.join(sorted(_PAGES))}"}, 404)
        if request.method not in ("GET", "HEAD"):
            return _not_allowed(b"GET, HEAD")
        if request.path == "/metrics":
            return scraped(request, scrape)
        return _json({"status": "alive"} if request.path == "/livez" else await state())

    return handle


def control(
    state: Callable[[], Awaitable[dict[str, Any]]],
    reload: Callable[[str], Awaitable[Result]],
    try_out: Callable[[str], Awaitable[Result]],
    purge: Callable[[bytes], Awaitable[Wanted]],
    scrape: Callable[[bool], BodySource],
    recalling: Recalling,
) -> Handler:
    """Return the Handler of the agent's own socket, which only the gateway's user can reach."""

    async def handle(request: Request) -> Response:
        if request.method in ("GET", "HEAD") and request.path in ("/metrics", "/why", "/tail"):
            return scraped(request, scrape) if request.path == "/metrics" else await _recalled(request, recalling)
        if request.path not in ("/reload", "/purge"):
            return await _status(request, state)
        if request.method != "POST":
            return _not_allowed(b"POST")
        if request.path == "/purge":
            return await _purge(request, purge)
        result = await (try_out if request.query == "dry_run" else reload)("portico reload")
        return _json(asdict(result))

    return handle


async def _recalled(request: Request, recalling: Recalling) -> Response:
    """Tell of the requests with an id (`/why?id=...`), or of all that end from now on (`/tail?status=5xx`)."""
    query = request.query or ""
    try:
        if request.path == "/why":
            return _json(await recalling.why(parse_qs(query).get("id", [""])[0]))
        lines = recalling.tail(query)
    except BadQuestion as error:
        return _json({"error": str(error)}, 400)
    return Response(200, Headers([(b"Content-Type", b"application/x-ndjson")]), Body.stream(lines, None))


async def _purge(request: Request, purge: Callable[[bytes], Awaitable[Wanted]]) -> Response:
    """Purge what a body like `{"urls": ["https://example.com/a"], "tags": ["b"]}`, or `{"all": true}`, says."""
    try:
        wanted = await purge(await request.body.read(LARGEST))
    except NotPurged as error:
        return _json({"error": str(error)}, error.status)
    except BodyTooLarge as error:
        return _json({"error": str(error)}, error.status)
    return _json({"purged": wanted.model_dump(by_alias=True)})


async def _status(request: Request, state: Callable[[], Awaitable[dict[str, Any]]]) -> Response:
    if request.path not in ("/", "/status"):
        return _json({"error": "there is /status, and beside it /metrics"}, 404)
    if request.method not in ("GET", "HEAD"):
        return _not_allowed(b"GET, HEAD")
    return _json(await state())


def _not_allowed(methods: bytes) -> Response:
    response = _json({"error": f"ask by {methods.decode()}"}, 405)
    response.headers.set(b"Allow", methods)
    return response


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
