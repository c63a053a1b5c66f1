"""Policies by themselves: set up from settings as a file has them, with whatever further in a test wants."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from portico.config.consumers import Consumers
from portico.http.body import Trailers
from portico.plugin import Body, Handler, Headers, Policy, Request, Response, RouteInfo, ServiceHealth
from portico.state.board import Counter, counter_name
from portico.state.memory import MemoryStore
from portico.state.purges import Purges
from portico.state.stamps import Stamps

P = TypeVar("P", bound=Policy[Any])


class TestEnv:
    """The Env of a policy under test."""

    __test__ = False
    logger = logging.getLogger("portico.route.test")
    place = "route:test:policy"

    def __init__(self, captures: Iterable[str] = ()) -> None:
        self.counters: dict[str, Counter] = {}
        self.consumers: Consumers[Any] = Consumers()
        self.store = MemoryStore()
        self.purges = Purges(self.store, Stamps.private(), time.monotonic, self.wall)
        self.route = RouteInfo("test", ("/**",), {"/**": frozenset(captures)})

    def route_print(self) -> bytes:
        return b""

    def counter(self, name: str, **labels: str) -> Counter:
        return self.counters.setdefault(counter_name(name, labels), Counter.private())

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return time.time()

    def service(self, name: str) -> Handler:
        raise NotImplementedError

    def web(self, url: str, ca: str | None = None) -> Handler:
        raise NotImplementedError

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        raise NotImplementedError

    def see_through(self, work: Coroutine[Any, Any, None], name: str) -> None:
        raise NotImplementedError

    async def health(self) -> Mapping[str, ServiceHealth]:
        return {}

    def share(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        return make()


def made(kind: type[P], captures: Iterable[str] = (), **settings: object) -> P:
    """Return a policy, ready for requests."""
    policy = kind(kind.config_class.model_validate(settings))
    policy.setup(TestEnv(captures))
    return policy


class Pieces:
    """A source of pieces, with a record of what was asked of it; an exception among the pieces is raised."""

    def __init__(self, pieces: Iterable[bytes | Exception], trailers: Trailers | None = None) -> None:
        self.left = list(pieces)
        self.closed = 0
        self._trailers = trailers or []

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        piece = self.left.pop(0) if self.left else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def trailers(self) -> Trailers:
        return self._trailers

    def close(self) -> None:
        self.closed += 1


async def rest(body: Body) -> bytes:
    """Return all content of a body, by whatever way it comes."""
    if body.whole is not None:
        return body.whole
    content = b""
    while piece := await body.chunk():
        content += piece
    return content


def request(method: str = "GET", path: str = "/", body: Body | None = None, **headers: str) -> Request:
    """Return a request; in the names of headers `_` stands for `-`."""
    return Request(method, path, headers=fields(headers), body=body)


def response(status: int = 200, body: Body | bytes = b"", **headers: str) -> Response:
    """Return an answer."""
    return Response(status, fields(headers), body)


def fields(headers: Mapping[str, str]) -> Headers:
    return Headers((name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items())


def answering(answer: Response) -> Callable[[Request], Awaitable[Response]]:
    """Return a Handler that gives one answer."""

    async def handle(_: Request) -> Response:
        return answer

    return handle
