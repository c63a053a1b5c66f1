"""Whose code it was: which policy or endpoint of a route has raised, or keeps the loop from turning.

Requests pay nothing for it. Only where something has gone wrong are frames looked at, and those of a plugin or a policy
are known by the modules that the classes of a route's parts come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Protocol

from portico.policy.base import Component
from portico.policy.chain import Scoped

PLUGIN_FILES = "portico_plugin_"
"""What the names of modules begin with that are plugin files."""

Frame = tuple[FrameType, int]
"""A frame, and the line that it is at."""


class Route(Protocol):
    """What has to be known of a route; the Route that does the work asks here, so it is not imported."""

    name: str
    policies: tuple[Scoped, ...]
    endpoint: Any
    components: tuple[Component[Any], ...]
    """The endpoint and the policies in the order of the chain, as far as they could be set up."""


class Culprit(NamedTuple):
    """The innermost frame that belongs to a plugin, a policy or an endpoint."""

    part: str
    """`policy geo-fence` or `endpoint card`; "" where the code runs for none that is known."""
    route: str
    """The name of the route, or ""."""
    file: str
    line: int
    function: str

    @property
    def place(self) -> str:
        """`file:line`, as editors take it."""
        return f"{self.file}:{self.line}"


def raised_by(error: BaseException, route: Route) -> str:
    """Return, for the log, which part of `route` has raised `error`: ` in policy NAME (FILE:LINE)`, or ""."""
    culprit = _culprit(reversed(list(_of_traceback(error.__traceback__))), (route,))
    return "" if culprit is None else f" in {culprit.part or 'a plugin'} ({culprit.place})"


def running(frame: FrameType, routes: Sequence[Route]) -> Culprit | None:
    """Return which part of `routes`, or which plugin, runs in `frame` and those around it; None where none does."""
    return _culprit(_around(frame), routes)


def _of_traceback(traceback: TracebackType | None) -> Iterator[Frame]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _around(frame: FrameType | None) -> Iterator[Frame]:
    while frame is not None:
        yield frame, frame.f_lineno
        frame = frame.f_back


def _culprit(innermost_first: Iterable[Frame], routes: Sequence[Route]) -> Culprit | None:
    parts = {id(part): (part, route) for route in routes for part in route.components}
    roots = {_root(type(part).__module__) for part, _ in parts.values()}
    found: Culprit | None = None
    for frame, line in innermost_first:
        module = str(frame.f_globals.get("__name__", ""))
        if found is None:
            if module.startswith("portico.upstream."):
                return None  # a policy has only asked a service; what goes wrong there is not its own
            if not (_root(module) in roots or module.startswith(PLUGIN_FILES)):
                continue
            code = frame.f_code
            found = Culprit("", "", code.co_filename, line, code.co_qualname)
        part, route = parts.get(id(frame.f_locals.get("self")), (None, None))
        if part is not None and route is not None:
            return found._replace(part=_called(part, route), route=route.name)
    return found


def _root(module: str) -> str:
    """Return what the modules of one plugin have in common; each of the gateway's own is by itself."""
    top = module.partition(".")[0]
    return module if top == "portico" else top


def _called(part: Component[Any], route: Route) -> str:
    """Return what the file calls a part of a route."""
    if part is route.endpoint:
        return f"endpoint {part.name}"
    policies = [each for each in route.components if each is not route.endpoint]
    if len(policies) == len(route.policies):  # each could be set up, as in every route that serves
        return f"policy {route.policies[policies.index(part)].use.name}"
    return f"policy {part.name}"
