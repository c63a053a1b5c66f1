"""Several workers in one process, each with a cache of its own, before the same store and the same service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from portico.errors import StoreUnavailable
from portico.plugin import Body, Client, Headers, Purges, Request, Response, Store
from portico.policies.cache import Cache, CachePolicy
from portico.state.memory import MemoryStore
from portico.state.stamps import Stamps
from tests.harness.policy import TestEnv


class Service:
    """Answers with the number of the request; each waits for `open`."""

    def __init__(self, headers: dict[str, str] | None = None, size: int = 0) -> None:
        self.headers = {"Cache-Control": "max-age=60"} if headers is None else headers
        self.size = size
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[Request] = []
        self.status = 200

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        number = len(self.asked)
        await self.open.wait()
        headers = Headers((name.encode(), value.encode()) for name, value in self.headers.items())
        tag = headers.get(b"etag")
        if tag is not None and request.headers.get(b"if-none-match") == tag:
            return Response(304, headers)
        return Response(self.status, headers, (b"%d" % number).ljust(self.size, b"."))

    async def reached(self, count: int) -> None:
        """Wait until it was asked so often."""
        while len(self.asked) < count:
            await asyncio.sleep(0.001)


class Times:
    """The time of day, and what has passed since it was made."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.set_by = 0.0
        """By how much the time of day was set otherwise."""

    def wall(self) -> float:
        return time.time() + self.ahead + self.set_by

    def clock(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


class Env(TestEnv):
    """The Env of one worker."""

    def __init__(self, store: Store, stamps: Stamps, times: Times, tasks: asyncio.TaskGroup) -> None:
        super().__init__()
        self.store = store  # type: ignore[assignment]
        self.purges = Purges(store, stamps, times.clock, times.wall)
        self.times = times
        self._tasks = tasks
        self.spawned: list[asyncio.Task[None]] = []

    def clock(self) -> float:
        return self.times.clock()

    def wall(self) -> float:
        return self.times.wall()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.spawned.append(self._tasks.create_task(work, name=name))


class Worker:
    """One worker."""

    def __init__(self, env: Env, service: Service, settings: dict[str, object]) -> None:
        self.env = env
        self.service = service
        self.policy = CachePolicy(Cache.model_validate(settings))
        self.port = 80
        self.policy.setup(env)  # type: ignore[arg-type]

    def ask(self, path: str = "/a", method: str = "GET", **headers: str) -> Awaitable[Response]:
        fields = Headers((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
        fields.set(b"Host", b"example.com")
        client = Client("127.0.0.1", 1, self.port, "http")
        request = Request(method, path, None, fields, Body(), "example.com", client)
        return self.policy.handle(request, self.service)

    async def content(self, path: str = "/a", **headers: str) -> bytes:
        """Ask, and return all of what was answered."""
        response = await self.ask(path, **headers)
        return await response.body.read(2**25)

    async def quiet(self) -> None:
        """Wait until nothing is being fetched, and all was written."""
        while running := [task for task in self.env.spawned if not task.done()]:
            await asyncio.wait(running)


def told(response: Response) -> str:
    return response.headers.text(b"cache-status") or ""


@asynccontextmanager
async def workers(
    store: Store, service: Service, count: int = 2, times: Times | None = None, **settings: object
) -> AsyncIterator[list[Worker]]:
    stamps, times = Stamps.private(), times or Times()
    async with asyncio.TaskGroup() as tasks:
        made = [Worker(Env(store, stamps, times, tasks), service, settings) for _ in range(count)]
        yield made
        for worker in made:
            worker.policy.close()
            await worker.quiet()
    stamps.close()


class Fragile(MemoryStore):
    """A store that fails where it is told to."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        super().__init__(wall)
        self.fails = False
        self.is_full = False
        self.asked = 0
        space = self.volatile
        for name in ("get", "put", "delete", "claim", "settle", "release"):
            setattr(space, name, self._failing(getattr(space, name)))

    def _failing(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            self.asked += 1
            if self.fails or (self.is_full and method.__name__ in ("put", "claim", "settle")):
                raise StoreUnavailable("the test has it fail")
            return await method(*arguments)

        return call
