"""A client, a gateway and a service in one loop, each pair of them speaking HTTP/1 or the codec of the tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from portico.config.document import read
from portico.config.load import validate
from portico.config.source import TextSource
from portico.http.body import Body, Trailers
from portico.http.headers import Headers
from portico.http.message import Request, Response
from portico.http.target import EncodedSlashes
from portico.net.client import Patience
from portico.net.listener import Listener, begin_h1
from portico.net.pool import Pool, PoolOptions, speak_h1
from portico.net.server import Server, ServerLimits
from portico.net.stream import Outbox
from portico.observe.exchange import Exchange, Outcome
from portico.runtime.compile import Surroundings, compile_config
from portico.runtime.plugins import load_registry
from portico.runtime.shared import Leases
from tests.harness.codec import Codec
from tests.harness.loop import until

Handle = Callable[[Request], Awaitable[Response]]
WINDOW = 16 * 1024
PIECE = bytes(range(256)) * 16
"""A quarter of the window."""
PATIENCE = Patience(10.0, 20.0)
PROTOCOLS = {
    "h1 to h1": (False, False),
    "h1 to codec": (False, True),
    "codec to h1": (True, False),
    "codec to codec": (True, True),
}
FILE = """
services:
  svc: {url: "http://127.0.0.1:9"}
routes:
  - {path: /**, service: svc}
"""
REGISTRY = load_registry(())
CONFIG = validate(read(TextSource(FILE)), policies=REGISTRY.policy_kinds, endpoints=REGISTRY.endpoint_kinds).config


class Source:
    """Content that a test pushes piece by piece; b"" is its end."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.queue: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self.push(*pieces)
        self.given = 0
        self.closed = False

    def push(self, *pieces: bytes | Exception) -> None:
        for piece in pieces:
            self.queue.put_nowait(piece)

    async def read(self) -> bytes:
        piece = await self.queue.get()
        if isinstance(piece, Exception):
            raise piece
        self.given += len(piece)
        return piece

    def trailers(self) -> Trailers:
        return [(b"X-Sum", b"42")]

    def close(self) -> None:
        self.closed = True


class Endless(Source):
    """Content of which there is always more."""

    async def read(self) -> bytes:
        self.given += len(PIECE)
        return PIECE


class Side:
    """A server, and the exchanges of the requests that it was given."""

    def __init__(self, handler: Handle, tasks: asyncio.TaskGroup, limits: ServerLimits | None) -> None:
        self.exchanges: list[Exchange] = []
        self.port = 0

        async def handle(request: Request) -> Response:
            assert request.exchange is not None
            self.exchanges.append(request.exchange)
            return await handler(request)

        self.server = Server(handle, limits or ServerLimits(), EncodedSlashes.KEEP, tasks)

    def outcomes(self) -> list[tuple[int, Outcome | None]]:
        return [(exchange.status, exchange.outcome) for exchange in self.exchanges]


@asynccontextmanager
async def serving(
    handler: Handle, codec: Codec | None, tasks: asyncio.TaskGroup, limits: ServerLimits | None = None
) -> AsyncIterator[Side]:
    side = Side(handler, tasks, limits)
    loop = asyncio.get_running_loop()
    begin = begin_h1 if codec is None else codec.begin
    listener = await loop.create_server(Listener(side.server, begin=begin).protocol, "127.0.0.1", 0)
    side.port = listener.sockets[0].getsockname()[1]
    try:
        yield side
    finally:
        listener.close()
        await side.server.drain(loop.time() + 1)
        await until(lambda: not side.server._connections, "the server to forget its connections")


@contextmanager
def pool_to(port: int, codec: Codec | None, tasks: asyncio.TaskGroup, **options: Any) -> Iterator[Pool]:
    known = PoolOptions(**({"max_connections": 10, "max_idle": 10, "idle_timeout": 60.0} | options))
    pool = Pool("127.0.0.1", port, None, known, tasks, speak=speak_h1 if codec is None else codec.speak)
    try:
        yield pool
    finally:
        pool.close()


class Caller:
    """A client with its pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.interims: list[tuple[int, bytes | None]] = []

    def _interim(self, status: int, headers: Headers) -> None:
        self.interims.append((status, headers.get(b"link")))

    def request(self, method: str = "GET", path: str = "/", body: Body | None = None, *, owned: bool = True) -> Request:
        exchange = Exchange(0.0) if owned else None
        return Request(method, path, None, Headers([(b"X-A", b"b")]), body, exchange=exchange, interim=self._interim)

    async def send(self, request: Request, authority: bytes = b"gateway") -> Response:
        stream = self.pool.take() or await self.pool.connect(5.0, None)
        return await stream.send(request, request.target, authority, PATIENCE)

    async def ask(self, method: str = "GET", path: str = "/", body: Body | None = None) -> Response:
        return await self.send(self.request(method, path, body))

    def begin(self, method: str = "GET", path: str = "/", body: Body | None = None) -> asyncio.Task[Response]:
        return asyncio.get_running_loop().create_task(self.ask(method, path, body))


class World:
    """A client, a gateway and a service."""

    def __init__(self, caller: Caller, gateway: Side, service: Side, pool: Pool) -> None:
        self.caller = caller
        self.gateway = gateway
        self.service = service
        self.pool = pool

    def connections(self) -> tuple[int, int]:
        return self.caller.pool.connections, self.pool.connections


@asynccontextmanager
async def world(
    handler: Handle, front: Codec | None, back: Codec | None, limits: ServerLimits | None = None, **options: Any
) -> AsyncIterator[World]:
    """Have `handler` be the service; the client speaks `front` and the service `back`, or HTTP/1.

    When it is left, nothing may be left of it.
    """
    before = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        assert CONFIG is not None
        runtime = compile_config(CONFIG, Surroundings(REGISTRY, Leases(), tasks, Outbox(loop), loop.time)).runtime
        async with serving(handler, back, tasks) as service:
            with pool_to(service.port, back, tasks, **options) as pool:
                runtime.services["svc"].targets[0].pool = pool
                async with serving(runtime.handle, front, tasks, limits) as gateway:
                    with pool_to(gateway.port, front, tasks, **options) as clients:
                        made = World(Caller(clients), gateway, service, pool)
                        yield made
        await until(lambda: made.connections() == (0, 0), "the pools to be empty")
        runtime.close()
    assert asyncio.all_tasks() <= before
    assert all(exchange.outcome for side in (gateway, service) for exchange in side.exchanges)


@asynccontextmanager
async def direct(
    handler: Handle, codec: Codec, limits: ServerLimits | None = None, **options: Any
) -> AsyncIterator[tuple[Caller, Side]]:
    """A client and a server, with nothing between them."""
    async with asyncio.TaskGroup() as tasks, serving(handler, codec, tasks, limits) as side:
        with pool_to(side.port, codec, tasks, **options) as pool:
            yield Caller(pool), side
        await until(lambda: pool.connections == 0, "the pool to be empty")


class Desk:
    """A service whose answers a test gives one by one."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[Response]] = {}
        self.cancelled: list[str] = []

    async def handle(self, request: Request) -> Response:
        if request.path == "/now":
            return Response(200, None, b"now")
        self.waiting[request.path] = asyncio.get_running_loop().create_future()
        try:
            return await self.waiting[request.path]
        except asyncio.CancelledError:
            self.cancelled.append(request.path)
            raise

    async def has(self, *paths: str) -> None:
        await until(lambda: set(paths) <= set(self.waiting), "the request to reach the service")

    def give(self, path: str, response: Response | Exception) -> None:
        if isinstance(response, Exception):
            self.waiting[path].set_exception(response)
        else:
            self.waiting[path].set_result(response)


class Pieces:
    """Content known before."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [*pieces, b""]

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return self._pieces.pop(0)

    def trailers(self) -> Trailers:
        return [(b"X-Sum", b"42")]

    def close(self) -> None:
        pass
