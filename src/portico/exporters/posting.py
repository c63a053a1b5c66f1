"""Sending something to a collector over HTTP."""

from __future__ import annotations

from typing import Final

from portico.http.body import Body
from portico.http.headers import Headers
from portico.http.message import Handler, Request, Response

LARGEST_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are read; it says nothing that matters here, but its connection is to be of use again."""


async def post(handler: Handler, path: str, headers: Headers, content: bytes, deadline: float) -> Response:
    """Send content by POST, and return the answer, whose own content is over and done with.

    It is a problem where there is none. Raises PorticoError where it breaks off, or has too much content.
    """
    request = Request("POST", path, None, headers.copy(), Body(content))
    request.deadline = deadline
    response = await handler(request)
    try:
        if response.problem_value is None:
            await response.body.read(LARGEST_ANSWER)
    finally:
        response.body.close()
    return response
