"""No task, socket or buffer outlives its exchange: they are counted after thousands of randomly broken exchanges.

PORTICO_SEED=n breaks them in other ways, PORTICO_EXCHANGES=n breaks as many; PORTICO_SOAK=1 is the long form.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import uvloop

from portico.http.body import Body
from portico.http.message import Request, Response
from portico.http.target import EncodedSlashes
from portico.net.client import AnswerContent
from portico.net.h1_client import H1Connection
from portico.net.h1_server import H1ServerConnection
from portico.net.listener import Listener
from portico.net.pool import Pool
from portico.net.server import Server, ServerLimits
from portico.net.server_stream import RequestContent
from portico.net.stream import Arrival, Outbox, Stream
from portico.observe.exchange import Exchange, Outcome
from portico.runtime.compile import Surroundings, compile_config
from portico.runtime.loading import Loaded, load
from portico.runtime.shared import Leases
from tests.harness.broken_peers import NOT_SOUND, Service, play
from tests.harness.broken_plans import Plan, draw
from tests.harness.gateway import memory_of, refusing_port

SEED = int(os.environ.get("PORTICO_SEED", "20"))
SOAK = bool(os.environ.get("PORTICO_SOAK"))
EXCHANGES = int(os.environ.get("PORTICO_EXCHANGES", "100000" if SOAK else "10000"))
WARMED_UP = EXCHANGES // 5
AT_ONCE = 150
GROWTH = 8 * 1024 * 1024
SETTLING = 30.0
"""Seconds in which all has to be at rest; a connection with something unsent may linger for 10."""

LIMITS = ServerLimits(head_timeout=0.5, body_timeout=0.5, write_timeout=0.5, keepalive_timeout=1.0, tunnel_timeout=0.5)
CONFIG = """
limits: {{body: 10MiB}}
services:
  sound: {{url: http://127.0.0.1:{port}, keepalive: {{idle: 1h}}, timeout: {{first_byte: 10s}}}}
  plain: {{url: http://127.0.0.1:{port}, keepalive: {{idle: 1h}}, timeout: {{first_byte: 300ms, idle: 300ms}}}}
  refused: {{url: http://127.0.0.1:{down}}}
  half: {{targets: [127.0.0.1:{down}, 127.0.0.1:{port}], timeout: {{first_byte: 300ms, idle: 300ms}}}}
  filled: {{url: http://127.0.0.1:{filled}, timeout: {{connect: 200ms}}}}
  few: {{url: http://127.0.0.1:{port}, max_connections: 2, timeout: {{first_byte: 300ms, idle: 300ms}}}}
  deaf: {{url: http://127.0.0.1:{deaf}, timeout: {{first_byte: 300ms, idle: 300ms}}}}
routes:
  - {{path: /warm, service: sound}}
  - {{path: /plain/*, service: plain}}
  - {{path: /tunnel/*, service: plain}}
  - {{path: /refused/*, service: refused}}
  - {{path: /half/*, service: half}}
  - {{path: /filled/*, service: filled}}
  - {{path: /few/*, service: few}}
  - {{path: /deaf/*, service: deaf}}
  - {{path: /respond/*, respond: at once}}
  - {{path: /small/*, service: plain, max_body: 1KiB}}
  - {{path: /rewritten/*, service: plain, strip_prefix: /rewritten, timeout: 250ms}}
"""

OF_EXCHANGES = (Exchange, Request, Response, Body, RequestContent, AnswerContent)
OF_CONNECTIONS = (H1ServerConnection, H1Connection, Stream, Arrival)


def descriptors() -> dict[str, str]:
    """Return what is open: descriptor and what it leads to."""
    found = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found[descriptor.name] = str(descriptor.readlink())
        except FileNotFoundError:
            continue  # that of the listing itself
    return found


def established(port: int) -> int:
    """Return how many connections the kernel has open to a port of this machine, seen from the side that connects."""
    far = f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2] == far and row[3] == "01" for row in rows)


def alive(there: frozenset[int], *kinds: type) -> Counter[str]:
    """Return how many instances there are of each class, without those that other tests in this process hold."""
    found = (thing for thing in gc.get_objects() if isinstance(thing, kinds))
    return Counter(type(thing).__name__ for thing in found if id(thing) not in there)


def already_there() -> frozenset[int]:
    gc.collect()
    return frozenset(id(thing) for thing in gc.get_objects() if isinstance(thing, (*OF_EXCHANGES, *OF_CONNECTIONS)))


def memory_in_use() -> int:
    """Return the memory of this process, without what the allocator could give back."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return memory_of(os.getpid(), "VmRSS")


@contextmanager
def filled_port() -> Iterator[int]:
    """A port whose queue of connections is full: whoever connects to it waits."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


class Books:
    """Every exchange that the gateway has begun, and how it ended."""

    def __init__(self) -> None:
        self.begun = 0
        self.ends: Counter[int] = Counter()
        """How often each numbered exchange has ended."""
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._open = 0

    def __call__(self, request: Request) -> None:
        exchange = request.exchange
        assert exchange is not None
        self.begun += 1
        self._open += 1
        number = request.path.rpartition("/")[2]
        times = 0

        def ended(exchange: Exchange) -> None:
            nonlocal times
            times += 1
            self._open -= times == 1
            if number.isdigit():
                self.ends[int(number)] += 1
            self.outcomes[str(exchange.outcome)] += 1
            sound = exchange.status > 0 or exchange.outcome is Outcome.CANCELLED
            if times > 1 or exchange.outcome in (None, Outcome.FAILED) or exchange.ended <= 0 or not sound:
                self.wrong.append(f"exchange {number}: {times} ends, {exchange.outcome}, {exchange.status}")

        exchange.on_end(ended)

    @property
    def open(self) -> int:
        return self._open


class Gateway:
    """All of a worker but its process: what a file describes, compiled, behind a listening socket."""

    def __init__(self, server: Server, pools: list[Pool], listener: asyncio.Server, books: Books) -> None:
        self.server = server
        self.pools = pools
        self.books = books
        self.port: int = listener.sockets[0].getsockname()[1]
        self._listener = listener

    async def stop(self, patience: float) -> None:
        """Take no more connections, and let those that there are end within `patience` seconds."""
        self._listener.close()
        await self.server.drain(self.server.loop.time() + patience)

    def cancel(self, client_port: int) -> None:
        """Cancel the task that serves a client."""
        for connection in tuple(self.server._connections):
            assert isinstance(connection, H1ServerConnection)
            if connection.client.port == client_port:
                connection.cancel()


@asynccontextmanager
async def gateway(loaded: Loaded) -> AsyncIterator[Gateway]:
    loop = asyncio.get_running_loop()
    assert loaded.config is not None
    books = Books()
    async with asyncio.TaskGroup() as tasks:
        outbox, leases = Outbox(loop), Leases()
        surroundings = Surroundings(loaded.registry, leases, tasks, outbox, loop.time)
        runtime = compile_config(loaded.config, surroundings).runtime

        async def handle(request: Request) -> Response:
            books(request)
            return await runtime.handle(request)

        server = Server(handle, LIMITS, EncodedSlashes.KEEP, tasks, outbox)
        listener = await loop.create_server(Listener(server).protocol, "127.0.0.1", 0, backlog=1024)
        pools = {
            id(target.pool): target.pool
            for service in runtime.services.values()
            for target in service.targets
            if isinstance(target.pool, Pool)
        }
        made = Gateway(server, list(pools.values()), listener, books)
        try:
            yield made
        finally:
            await made.stop(1.0)
            runtime.close()


async def until(condition: Callable[[], object], what: Callable[[], object]) -> None:
    end = time.monotonic() + SETTLING
    while not condition():
        assert time.monotonic() < end, f"seed {SEED}: {what()}"
        await asyncio.sleep(0.02)


class Run:
    """The exchanges, some of them at a time."""

    def __init__(self, gateway: Gateway, plans: dict[int, Plan]) -> None:
        self._gateway = gateway
        self._plans = plans
        self._next = 0
        self.wrong: list[str] = []

    async def up_to(self, number: int) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(AT_ONCE):
                clients.create_task(self._client(number))

    async def _client(self, end: int) -> None:
        while self._next < end:
            number = self._next
            self._next += 1
            plan = self._plans[number] = draw(SEED, number)
            try:
                async with asyncio.timeout(SETTLING):
                    wrong = await play(plan, self._gateway.port, self._has_ended, self._gateway.cancel)
            except ConnectionError:
                wrong = NOT_SOUND
            except TimeoutError:
                wrong = "it does not end"
            if wrong and not (wrong == NOT_SOUND and self._gateway.server.draining):
                self.wrong.append(f"exchange {number}: {wrong}")
            del self._plans[number]

    def _has_ended(self, number: int) -> bool:
        server = self._gateway.server
        return bool(self._gateway.books.ends[number]) or (server.draining and not server._connections)


class Complaints(logging.Handler):
    """What the gateway and asyncio complain of, as text: a record of the log may hold an error, and all its frames."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    def __enter__(self) -> Self:
        self._logger = logging.getLogger("portico")
        self._logger.propagate = False
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True

    def of_loop(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.texts.append(repr(context))


async def settle(gateway: Gateway, service: Service, tasks: set[asyncio.Task[Any]]) -> None:
    """Wait until nothing goes on but that targets' connections are kept."""
    await until(lambda: gateway.books.open == 0, lambda: f"{gateway.books.open} exchanges never end")
    await until(lambda: not gateway.server._connections, lambda: f"still served: {gateway.server._connections}")
    await until(lambda: asyncio.all_tasks() == tasks, lambda: f"tasks left: {asyncio.all_tasks() - tasks}")
    await until(
        lambda: all(pool.connections == len(pool._ready) for pool in gateway.pools),
        lambda: (
            f"connections neither used nor kept: {[(p._port, p.connections, len(p._ready)) for p in gateway.pools]}"
        ),
    )
    await until(
        lambda: sum(pool.connections for pool in gateway.pools) == len(service.open),
        lambda: f"{[pool.connections for pool in gateway.pools]} connections, the service has {len(service.open)}",
    )


def count(gateway: Gateway, ports: Sequence[int], there: frozenset[int]) -> None:
    """Hold what is there, once all is at rest, against what may be: the connections that targets' pools keep."""
    gc.collect()
    assert alive(there, *OF_EXCHANGES) == Counter(), f"seed {SEED}"
    kept = sum(pool.connections for pool in gateway.pools)
    assert alive(there, *OF_CONNECTIONS) == +Counter(H1Connection=kept, Stream=kept, Arrival=kept), f"seed {SEED}"
    for port in ports:
        of_port = [pool.connections for pool in gateway.pools if pool._port == port]
        assert established(port) == sum(of_port), f"seed {SEED}"


async def stop_amid(gateway: Gateway, run: Run) -> None:
    """Drain while exchanges are under way, with less patience than some of them take."""
    begun = gateway.books.begun
    async with asyncio.TaskGroup() as clients:
        clients.create_task(run.up_to(EXCHANGES + AT_ONCE * 2))
        await until(lambda: gateway.books.begun > begun + AT_ONCE // 2, lambda: "no exchange begins")
        await gateway.stop(0.2)
        await until(lambda: not gateway.server._connections, lambda: f"still served: {gateway.server._connections}")
    await until(lambda: not gateway.books.open, lambda: f"{gateway.books.open} exchanges never end")


async def broken(loaded: Loaded, service: Service, plans: dict[int, Plan], complaints: Complaints) -> dict[str, Any]:
    """Break exchanges, and count what is left of them twice: in between, and at the end."""
    figures: dict[str, Any] = {}
    tasks = asyncio.all_tasks()
    there = already_there()
    before = descriptors()
    async with gateway(loaded) as made:
        idle = len(descriptors())
        run = Run(made, plans)
        begun = time.monotonic()
        for number in (WARMED_UP, EXCHANGES):
            await run.up_to(number)
            await settle(made, service, tasks)
            await until(lambda: len(descriptors()) == idle + 2 * len(service.open), descriptors)
            figures[f"left to the collector at {number}"] = alive(there, *OF_EXCHANGES, *OF_CONNECTIONS)
            count(made, service.ports, there)
            figures[f"memory at {number}"] = memory_in_use()
        figures["seconds"] = round(time.monotonic() - begun, 1)
        figures["outcomes"] = made.books.outcomes
        figures["connections to the service"] = service.accepted
        figures["whole requests there"] = service.wholes
        await stop_amid(made, run)
        wrong = [*run.wrong, *made.books.wrong, *service.wrong, *complaints.texts]
        assert not wrong, f"seed {SEED}: {len(wrong)} wrong, such as {wrong[:20]}"
    await until(lambda: not service.open, lambda: "the pools' connections outlive them")
    await until(lambda: descriptors() == before, lambda: descriptors().items() ^ before.items())
    gc.collect()
    assert alive(there, *OF_CONNECTIONS) == Counter(), f"seed {SEED}"
    return figures


async def serve_and_break(loaded: Loaded, listening: list[socket.socket]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    plans: dict[int, Plan] = {}
    service = Service(plans, [sock.getsockname()[1] for sock in listening])
    servers = [await loop.create_server(service.end, sock=sock, backlog=1024) for sock in listening]
    try:
        with Complaints() as complaints:
            loop.set_exception_handler(complaints.of_loop)
            return await broken(loaded, service, plans, complaints)
    finally:
        for server in servers:
            server.close()
        for end in tuple(service.open):  # there are some where something is wrong
            end.leave(resets=True)
        await asyncio.sleep(0.01)  # transports close in the next turn


@pytest.mark.timeout(900 if SOAK else 120)
def test_nothing_outlives_its_exchange(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    with ExitStack() as stack:
        listening = []
        for buffer in (0, 4096):
            sock = stack.enter_context(socket.socket())
            if buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.bind(("127.0.0.1", 0))
            listening.append(sock)
        port, deaf = (sock.getsockname()[1] for sock in listening)
        down, filled = stack.enter_context(refusing_port()), stack.enter_context(filled_port())
        file = tmp_path / "portico.yaml"
        file.write_text(CONFIG.format(port=port, deaf=deaf, down=down, filled=filled))
        loaded = load(file)
        assert loaded.config is not None, loaded.findings
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(serve_and_break(loaded, listening))
    print(*figures.items(), sep="\n")
    grown = figures[f"memory at {EXCHANGES}"] - figures[f"memory at {WARMED_UP}"]
    assert grown < GROWTH, f"seed {SEED}: {grown} bytes more"
