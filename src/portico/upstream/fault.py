"""Whose doing it is that a request to a service has come to nothing."""

from __future__ import annotations

from typing import Final

from portico.errors import CircuitOpen, NoTarget, Overloaded, Source, UpstreamError, UpstreamTimeout
from portico.http.message import Request

TOLERANCE: Final = 0.005
"""Seconds by which a loop's timers may be early."""


def is_of_service(error: UpstreamError, request: Request) -> bool:
    """Tell whether it is for the service that a request has come to nothing.

    Where the time was over while the client was still awaited to send its content, it is for the client; otherwise
    whoever sends slowly could have a service left alone. What the gateway has refused by itself says nothing either:
    where none of the targets is well, that is known, and they are asked as soon as one is.
    """
    if isinstance(error, (Overloaded, CircuitOpen, NoTarget)):
        return False
    if not isinstance(error, UpstreamTimeout):
        return True
    if error.source is Source.GATEWAY or (error.source is Source.CONNECT and not error.retryable):
        return False  # the request had no time left
    return request.body.whole is not None or not request.body.pending


def ran_out(request: Request, now: float) -> bool:
    """Tell whether a request that is cancelled is so because it took too long, and not since the client has left."""
    return request.answer_by is not None and now >= request.answer_by - TOLERANCE
