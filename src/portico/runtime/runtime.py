"""What answers requests: compiled from one Config, never changed, swapped whole."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Any

from portico.errors import RequestError, UpstreamError
from portico.http.error_shapes import ProblemWriter
from portico.http.message import Handler, Observer, Request, Response
from portico.policy.authentication import Authentication
from portico.policy.base import Component, Endpoint, Policy
from portico.policy.chain import Conditional, Scoped, assemble
from portico.routing.candidate import Candidate
from portico.routing.matcher import Matcher
from portico.runtime.blame import raised_by
from portico.runtime.life import Life
from portico.runtime.listeners import Entrance
from portico.runtime.shared import Lease
from portico.runtime.state import StateOf
from portico.runtime.tracer import Tracer
from portico.state.purges import Purges
from portico.upstream.stack import Service

logger = logging.getLogger("portico.runtime")


def _bad_status(response: Response) -> ValueError:
    """Return the error of a chain that has made no final answer (RFC 9110 section 15)."""
    return ValueError(f"a policy or an endpoint made an answer with status {response.status}")


async def _closed(request: Request) -> Response:
    """Stand in for the chain of a route that is closed: nothing can come here any more."""
    raise RuntimeError("a route was asked after its end")


class Route:
    """One route at work: `handle` is the edge at which problems become the answer that the client gets."""

    __slots__ = (
        "_parts",
        "_refusing",
        "chain",
        "components",
        "conditionals",
        "endpoint",
        "max_body",
        "name",
        "observer",
        "origin",
        "policies",
        "tracer",
        "write_problem",
    )

    def __init__(
        self,
        name: str,
        parts: Sequence[Policy[Any] | Conditional | Authentication],
        end: Handler,
        max_body: int,
        *,
        write_problem: ProblemWriter,
        policies: Sequence[Scoped],
        conditionals: Mapping[str, Conditional],
        endpoint: Endpoint[Any],
        components: Sequence[Component[Any]],
        origin: str,
        observer: Observer | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`parts` are the policies, the outermost first, and `end` is what they stand around."""
        self.name = name
        self.chain = assemble(parts, end, self.failed)
        self._parts = tuple(parts)
        self._refusing: Handler | None = None
        self.max_body = max_body
        self.policies = tuple(policies)
        """The chain in running order with each policy's origin, for `explain`."""
        self.conditionals = conditionals
        """Those of them that have a condition, by name."""
        self.endpoint = endpoint
        self.components = tuple(components)
        self.origin = origin
        """Where the file has it: `file:line:column`."""
        self.write_problem = write_problem
        """Writes problems in the route's error shape."""
        self.observer = observer
        """Who sees its exchanges; None where nobody does."""
        self.tracer = tracer
        """Gives its requests their place in a trace; None where nothing is traced."""

    async def handle(self, request: Request) -> Response:
        """Answer `request`."""
        exchange = request.exchange
        if exchange is not None:
            exchange.route = self.name
            if self.tracer is not None:
                self.tracer.begin(exchange, request)
        request.observer = self.observer
        body = request.body
        try:
            if (body.whole is None or body.whole) and not body.restrict(self.max_body):
                response = await self._refusal()(request)
            else:
                response = await self.chain(request)
            if not 200 <= response.status < 600 and response.duplex is None:
                raise _bad_status(response)  # noqa: TRY301 - a bug like any other that the chain may raise
        except Exception as error:  # noqa: BLE001 - what the outermost part of the chain has raised
            response = self.failed(request, error)
        problem = response.problem_value
        if problem is not None:
            if exchange is not None and not exchange.error:
                exchange.error = problem.type
            self.write_problem(problem, request, response)
        return response

    def _refusal(self) -> Handler:
        """Return the chain for a request that says that its body is over the limit: the same policies around a 413.

        It is made for the first of them, since most routes never have one.
        """
        if self._refusing is None:
            self._refusing = assemble(self._parts, self._too_large, self.failed)
        return self._refusing

    async def _too_large(self, request: Request) -> Response:
        return Response.problem(413, "content-too-large", detail=f"The limit is {self.max_body} bytes.")

    def failed(self, request: Request, error: Exception) -> Response:
        """Return the answer to a request over which a part of the route has raised `error`; a bug goes to the log."""
        if isinstance(error, RequestError):
            return Response.problem(error.status, error.type, detail=error.detail)
        if isinstance(error, UpstreamError):  # from an answer's content, which a policy has read
            return Response.problem(error.status, error.type, error.title)
        whose = raised_by(error, self)
        logger.error("route %s failed%s: %s %s", self.name, whose, request.method, request.path, exc_info=error)
        return Response.problem(500, "internal-error", detail="The gateway could not answer this request.")

    def close(self) -> None:
        """End what the route's policies and its endpoint began, and let go of them."""
        components, self.components = self.components, ()
        for component in components:
            try:
                component.close()
            except Exception:  # a plugin's mistake must not keep the others from closing
                logger.exception("%s of route %s could not be closed", component.name, self.name)
        self.chain = self._refusing = _closed
        self._parts = ()
        self.policies = ()
        self.conditionals = {}


class Runtime:
    """A compiled Config. `handle` is the Handler of everything that it serves."""

    __slots__ = (
        "__weakref__",
        "_lease",
        "_life",
        "_matcher",
        "_state",
        "entrances",
        "observer",
        "revision",
        "routes",
        "services",
        "write_problem",
    )

    def __init__(
        self,
        revision: int,
        matcher: Matcher[Route],
        routes: Sequence[Route],
        services: dict[str, Service],
        entrances: Sequence[Entrance],
        lease: Lease,
        write_problem: ProblemWriter,
        life: Life,
        state: StateOf,
        observer: Observer | None = None,
    ) -> None:
        """`write_problem` writes what fails before there is a route, and `observer` sees it; `life` has the work that
        belongs to no request."""
        self._life = life
        self.observer = observer
        self.revision = revision
        self.routes = tuple(routes)
        self.services = services
        self.entrances = tuple(entrances)
        self.write_problem = write_problem
        self._matcher = matcher
        self._lease = lease
        self._state = state

    @property
    def purges(self) -> Purges | None:
        """By what its routes know what was purged; None where none has asked, and so none keeps answers."""
        return self._state.known_purges

    def report_of_store(self) -> dict[str, object] | None:
        """Return how the store is as plain data, or None where nothing has asked for it."""
        return self._state.report()

    def route_of(self, request: Request) -> Route:
        """Return the route that matches `request`; its captures are set."""
        return self._matcher.match(request)

    def candidates(self, host: str, path: str) -> Iterator[Candidate[Route]]:
        """Yield the routes that take a path, whatever else they ask for, in the order of preference."""
        return self._matcher.on_path(host, path)

    def handle(self, request: Request) -> Awaitable[Response]:
        """Answer `request` by the route that matches it."""
        return self._matcher.match(request).handle(request)

    def begin(self) -> None:
        """Have connections opened ahead of requests, where the file asks for that."""
        for service in self.services.values():
            for target in service.targets:
                target.pool.warm()

    async def settled(self) -> None:
        """Wait until the work is over that is to come to its end, though its requests are."""
        await self._life.settled()

    def stop(self) -> None:
        """End all work that belongs to no request."""
        self._life.stop()

    def close(self) -> None:
        """End what the policies and endpoints began, and give back what was leased."""
        for _ in self.closing():
            pass

    def closing(self) -> Iterator[None]:
        """Close in small steps, between which others may have the loop; what has no other owner is free after each."""
        yield from self._matcher.dismantle()
        routes = list(self.routes)
        self.routes = ()
        while routes:
            routes.pop().close()
            yield
        self._life.close()
        for service in self.services.values():
            service.close()
            yield
        self._lease.close()
