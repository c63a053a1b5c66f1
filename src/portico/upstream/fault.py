"""Whose doing it is that a request to a service has come to nothing."""

from __future__ import annotations

from portico.errors import CircuitOpen, Overloaded, UpstreamError, UpstreamTimeout
from portico.http.message import Request


def is_of_service(error: UpstreamError, request: Request) -> bool:
    """Tell whether it is for the service that a request has come to nothing.

    Where the time was over while the client was still awaited to send its content, it is for the client; otherwise
    whoever sends slowly could have a service left alone. What the gateway has refused by itself says nothing either.
    """
    if isinstance(error, (Overloaded, CircuitOpen)):
        return False
    return not (isinstance(error, UpstreamTimeout) and request.body.whole is None and request.body.pending)
