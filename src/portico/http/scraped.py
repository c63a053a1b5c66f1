"""The answer to who scrapes metrics."""

from __future__ import annotations

from collections.abc import Callable

from portico.http.accept import qualities
from portico.http.body import Body, BodySource
from portico.http.headers import Headers
from portico.http.message import Request, Response
from portico.observe.exposition import OPENMETRICS, PROMETHEUS


def scraped(request: Request, scrape: Callable[[bool], BodySource]) -> Response:
    """Return the metrics in the format that is wanted: OpenMetrics where that is named, and no less wanted."""
    accept = request.headers.text(b"accept") or ""
    openmetrics, plain = qualities(accept, ("application/openmetrics-text", "text/plain"))
    wanted = "openmetrics-text" in accept.lower() and openmetrics > 0 and openmetrics >= plain
    headers = Headers([(b"Content-Type", OPENMETRICS if wanted else PROMETHEUS), (b"Cache-Control", b"no-store")])
    return Response(200, headers, Body.stream(scrape(wanted), None))
