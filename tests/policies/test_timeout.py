from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from pydantic import ValidationError

from portico.plugin import Body, BodyTruncated, Request, Response
from portico.policies.timeout import TimeoutPolicy
from tests.harness.gateway import BROKEN_OFF, DEADLINE, Call, Gateway, Service, curl, problem_of, wait_for
from tests.harness.policy import answering, made, request, response, rest

SOON = 0.02


class Slow:
    """Content whose second piece does not come."""

    def __init__(self) -> None:
        self.closed = 0
        self.cancelled = 0
        self._reads = 0

    async def read(self) -> bytes:
        self._reads += 1
        if self._reads == 1:
            return b"begun"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b""

    def trailers(self) -> list[tuple[bytes, bytes]]:
        return [(b"X", b"y")]

    def close(self) -> None:
        self.closed += 1


def is_timeout(answer: Response) -> bool:
    problem = answer.problem_value
    return answer.status == 504 and problem is not None and problem.type == "timeout"


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE):
            await work()

    asyncio.run(main())


@pytest.mark.parametrize("total", [False, True])
def test_what_is_in_time_passes(total: bool) -> None:
    async def main() -> None:
        answer = response(201, b"x")
        policy = made(TimeoutPolicy, after=10, total=total)
        assert await policy.handle(request(), answering(answer)) is answer
        assert answer.body.whole == b"x"

    run(main)


@pytest.mark.parametrize("total", [False, True])
def test_what_is_not_in_time_is_cancelled(total: bool) -> None:
    async def main() -> None:
        ended: list[str] = []

        async def never(_: Request) -> Response:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            finally:
                ended.append("cleaned up")
            return Response()

        assert is_timeout(await made(TimeoutPolicy, after=SOON, total=total).handle(request(), never))
        assert ended == ["cancelled", "cleaned up"]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(main)


def test_a_client_that_leaves_is_no_timeout() -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def never(_: Request) -> Response:
            begun.set()
            await asyncio.Event().wait()
            return Response()

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(made(TimeoutPolicy, after=10).handle(request(), never))  # type: ignore[arg-type]
            await begun.wait()
            task.cancel()
        assert task.cancelled()

    run(main)


def test_a_timeout_of_somebody_else_is_no_timeout_of_ours() -> None:
    async def main() -> None:
        async def fails(_: Request) -> Response:
            raise TimeoutError("theirs")

        with pytest.raises(TimeoutError, match="theirs"):
            await made(TimeoutPolicy, after=10).handle(request(), fails)

    run(main)


@asynccontextmanager
async def begun(**settings: object) -> AsyncIterator[tuple[Slow, Response]]:
    source = Slow()
    answer = Response(200, None, Body.stream(source, None))
    policy = made(TimeoutPolicy, after=SOON, **settings)
    yield source, await policy.handle(request(), answering(answer))


def test_an_answer_that_has_begun_goes_on() -> None:
    async def main() -> None:
        async with begun() as (source, answer):
            assert await answer.body.chunk() == b"begun"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5 * SOON):
                    await answer.body.chunk()
            assert not source.closed

    run(main)


def test_in_total_it_is_cut_and_its_source_closed() -> None:
    async def main() -> None:
        async with begun(total=True) as (source, answer):
            assert answer.body.of_answer
            assert await answer.body.chunk() == b"begun"
            for _ in range(2):
                with pytest.raises(BodyTruncated):
                    await answer.body.chunk()
            assert source.cancelled == 1
            assert source.closed

    run(main)


def test_in_total_what_ends_in_time_is_whole() -> None:
    class Quick(Slow):
        async def read(self) -> bytes:
            self._reads += 1
            return b"piece" if self._reads <= 2 else b""

    async def main() -> None:
        source = Quick()
        answer = Response(200, None, Body.stream(source, 10))
        made_answer = await made(TimeoutPolicy, after=10, total=True).handle(request(), answering(answer))
        assert made_answer.body.length == 10
        assert await rest(made_answer.body) == b"piecepiece"
        assert made_answer.body.trailers() == [(b"X", b"y")]
        made_answer.body.close()
        assert source.closed

    run(main)


def test_the_deadline_shrinks_and_never_grows() -> None:
    async def main() -> None:
        now = asyncio.get_running_loop().time()
        seen: list[float | None] = []

        async def look(asked: Request) -> Response:
            seen.append(asked.deadline)
            return Response()

        async def through(deadline: float | None, **settings: object) -> float | None:
            asked = request()
            asked.deadline = deadline
            await made(TimeoutPolicy, **settings).handle(asked, look)
            return seen.pop()

        assert await through(None, after=5) is None
        assert await through(now + 3, after=5) == now + 3
        assert await through(now + 3, after=5, total=True) == now + 3
        for given in (None, now + 30):
            shrunk = await through(given, after=5, total=True)
            assert shrunk is not None
            assert now + 5 <= shrunk < now + 6

    run(main)


def test_a_service_that_keeps_to_the_deadline_is_told_as_ours() -> None:
    async def main() -> None:
        async def at_the_deadline(asked: Request) -> Response:
            while asyncio.get_running_loop().time() < (asked.deadline or 0):
                pass  # the loop is busy, so that no timer can be first
            return Response.problem(504, "service-timeout")

        assert is_timeout(await made(TimeoutPolicy, after=SOON, total=True).handle(request(), at_the_deadline))
        early = await made(TimeoutPolicy, after=10, total=True).handle(
            request(), answering(Response.problem(504, "service-timeout"))
        )
        assert not is_timeout(early)

    run(main)


@pytest.mark.parametrize("settings", [{}, {"after": 0}, {"after": "soon"}, {"after": -1}, {"after": 1, "idle": 2}])
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        made(TimeoutPolicy, **settings)


# Through a gateway

CONFIG = """
services:
  slow: {{url: http://127.0.0.1:{port}}}
policies: [correlation-id]
routes:
  - {{path: /begin/**, service: slow, policies: [timeout: 300ms]}}
  - {{path: /total/**, service: slow, policies: [timeout: {{after: 300ms, total: true}}]}}
"""


class Doors:
    """What the service waits for, and what it has seen."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.gone = threading.Semaphore(0)

    def answer(self, call: Call) -> None:
        call.note()
        if call.path.endswith("/quick"):
            call.answer(200, b"quick")
            return
        if call.path.endswith("/streamed"):
            call.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")
            assert self.go.wait(DEADLINE)
            call.wfile.write(b"5\r\nended\r\n0\r\n\r\n")
            return
        call.connection.settimeout(DEADLINE)
        with suppress(ConnectionError):
            while call.connection.recv(1000):  # until the gateway lets go
                pass
        self.gone.release()
        call.close_connection = True


@pytest.fixture(scope="module")
def doors() -> Doors:
    return Doors()


@pytest.fixture(scope="module")
def service(doors: Doors) -> Iterator[Service]:
    with Service(doors.answer) as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("timeout"), CONFIG.format(port=service.port)) as gateway:
        yield gateway


@pytest.mark.parametrize("route", ["begin", "total"])
def test_a_service_that_does_not_answer(gateway: Gateway, doors: Doors, route: str) -> None:
    began = time.monotonic()
    reply = curl(f"{gateway.url}/{route}/never")
    problem_of(reply, 504, "timeout")
    assert 0.25 < time.monotonic() - began < 5
    assert reply.values("X-Correlation-ID")
    assert doors.gone.acquire(timeout=DEADLINE), "the service was not let go"
    assert curl(f"{gateway.url}/{route}/quick").body == b"quick"


def test_an_upload_under_way_is_given_up(gateway: Gateway, doors: Doors) -> None:
    with gateway.connect() as connection:
        connection.sendall(b"POST /begin/never HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")
        reply = connection.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 504 ")
    assert b"urn:portico:problem:timeout" in reply
    assert doors.gone.acquire(timeout=DEADLINE), "the service was not let go"


def test_a_stream_that_has_begun(gateway: Gateway, doors: Doors) -> None:
    cut = curl(f"{gateway.url}/total/streamed", codes=BROKEN_OFF)
    assert (cut.status, cut.body) == (200, b"begun")
    doors.go.clear()
    with gateway.connect() as connection:
        connection.sendall(b"GET /begin/streamed HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        seen = b""
        while b"begun" not in seen:
            seen += connection.recv(1000)
        over = time.monotonic() + 0.5
        wait_for(lambda: time.monotonic() > over)
        doors.go.set()
        while data := connection.recv(1000):
            seen += data
    assert b"ended" in seen
    assert seen.endswith(b"0\r\n\r\n")
