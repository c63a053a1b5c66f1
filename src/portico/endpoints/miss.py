"""The two endpoints of requests that no route of the file takes; they are routes too, with the global policies around
them."""

from __future__ import annotations

from portico.plugin import ALLOWED_METHODS, Endpoint, PolicyConfig, Request, Response


class NoRouteEndpoint(Endpoint[PolicyConfig], name="no-route"):
    """Nothing stands at this path (404, RFC 9110 section 15.5.5)."""

    in_file = False

    async def handle(self, request: Request) -> Response:
        """Return the problem."""
        return Response.problem(404, "no-route", "Not found", "No route matches this request.")


class WrongMethodEndpoint(Endpoint[PolicyConfig], name="wrong-method"):
    """The path exists under other methods, which `Allow` names (405, RFC 9110 section 15.5.6)."""

    in_file = False

    async def handle(self, request: Request) -> Response:
        """Return the problem."""
        allowed = request[ALLOWED_METHODS]
        detail = f"This path does not take {request.method}."
        response = Response.problem(405, "method-not-allowed", detail=detail)
        response.headers.set(b"Allow", ", ".join(allowed).encode("ascii"))
        return response
