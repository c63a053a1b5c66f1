"""Tries at the same time: whose answer is taken, and that nothing is left of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from portico.config.balance import Balance
from portico.errors import ConnectFailed, Source, UpstreamClosed
from portico.http.body import Body
from portico.http.headers import Headers
from portico.http.message import Request, Response
from portico.net.client import ClientStream, Connections, Patience
from portico.net.pool import Pool, PoolOptions
from portico.observe.exchange import Exchange, Outcome
from portico.upstream.hedge import Hedge
from portico.upstream.retry import Budget, RetryPolicy
from portico.upstream.stack import Service, Times
from portico.upstream.target import Target
from tests.harness.loop import run, run_jumping, turns, until
from tests.harness.peer import Service as Listening
from tests.harness.peer import service as listening
from tests.harness.upstream import service_of


class Content:
    """An answer's content that is still on its way."""

    def __init__(self) -> None:
        self.closed = 0

    async def read(self) -> bytes:
        return b""

    def trailers(self) -> list[tuple[bytes, bytes]]:
        return []

    def close(self) -> None:
        self.closed += 1


Step = tuple[float, Response | BaseException]
"""What a target answers, and after how many seconds."""


class Timed(Connections):
    """A target that answers as a test has it."""

    def __init__(self, name: str, steps: Sequence[Step], log: list[str]) -> None:
        self.name = name
        self.steps = list(steps)
        self.log = log
        self.deadlines: list[float | None] = []
        self.under_way = 0

    @property
    def busy(self) -> int:
        return self.under_way

    def take(self) -> ClientStream:
        return _TimedStream(self)

    async def connect(self, timeout: float, deadline: float | None) -> ClientStream:
        return _TimedStream(self)


class _TimedStream(ClientStream):
    def __init__(self, pool: Timed) -> None:
        self._pool = pool

    async def send(self, request: Request, target: str, authority: bytes, patience: Patience) -> Response:
        pool = self._pool
        pool.log.append(pool.name)
        pool.deadlines.append(request.deadline)
        seconds, outcome = pool.steps.pop(0)
        loop = asyncio.get_running_loop()
        sent = loop.time()
        pool.under_way += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            pool.log.append(f"{pool.name} is given up")
            raise
        finally:
            pool.under_way -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        if request.exchange is not None:
            request.exchange.sent, request.exchange.first_byte = sent, loop.time()
        return outcome


def closed() -> UpstreamClosed:
    return UpstreamClosed("closed before an answer", source=Source.RESPONSE)


def refused() -> ConnectFailed:
    return ConnectFailed("refused", source=Source.CONNECT, retryable=True)


def status(code: int, content: Content | None = None) -> Response:
    return Response(code, Headers(), b"" if content is None else Body.stream(content, 10))


def policy(floor: float = 100.0, share: float = 0.2, attempts: int = 1) -> RetryPolicy:
    return RetryPolicy(Budget(share, floor, asyncio.get_running_loop().time), attempts=attempts)


class Rig:
    """A service whose targets `a`, `b` and `c` answer as they are told to."""

    def __init__(
        self,
        *scripts: Sequence[Step],
        after: float = 1.0,
        most: int = 1,
        times: Times | None = None,
        retry: RetryPolicy | None = None,
        balance: Balance | None = None,
    ) -> None:
        self.log: list[str] = []
        self.pools = [Timed(name, script, self.log) for name, script in zip("abc", scripts, strict=False)]
        self.targets = [Target("http", f"{pool.name}:80", pool.name.encode(), "", pool) for pool in self.pools]
        retry = retry or policy()
        self.service = service_of(self.targets, times, retry, balance=balance)
        self.service.surround(lambda _: Hedge(self.service, retry, after, most).handle)

    async def ask(self, request: Request | None = None) -> Response:
        tasks = asyncio.all_tasks()
        try:
            return await self.service.handle(request or Request("GET", "/", exchange=Exchange(0.0)))
        finally:
            assert asyncio.all_tasks() == tasks
            assert not any(pool.under_way for pool in self.pools)


def case(main: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    async def awaiting() -> None:
        await main()

    def test() -> None:
        run_jumping(awaiting)

    return test


def now() -> float:
    return asyncio.get_running_loop().time()


@case
async def test_who_answers_in_time_is_the_only_one_asked() -> None:
    rig = Rig([(0.9, status(200))], [])
    assert (await rig.ask()).status == 200
    assert rig.log == ["a"]


@case
async def test_the_first_answer_wins_and_the_other_is_given_up() -> None:
    rig = Rig([(9, status(201))], [(1, status(202))])
    began = now()
    assert (await rig.ask()).status == 202
    assert 2 <= now() - began < 2.1
    assert rig.log == ["a", "b", "a is given up"]


@case
async def test_the_first_target_may_yet_be_the_one() -> None:
    rig = Rig([(1.5, status(201))], [(1, status(202))])
    assert (await rig.ask()).status == 201
    assert rig.log == ["a", "b", "b is given up"]


@case
async def test_more_are_asked_one_after_the_other() -> None:
    rig = Rig([(9, status(201))], [(9, status(202))], [(1, status(203))], most=2)
    began = now()
    assert (await rig.ask()).status == 203
    assert 3 <= now() - began < 3.1
    assert sorted(rig.log) == ["a", "a is given up", "b", "b is given up", "c"]


@pytest.mark.parametrize("algorithm", ["round-robin", "random", "least-request", "peak-ewma", "hash"])
def test_each_goes_to_another_target(algorithm: str) -> None:
    given = {"hash": {"header": "x"}} if algorithm == "hash" else {"algorithm": algorithm}

    async def main() -> None:
        rig = Rig(*[[(9.0, status(200))] * 20] * 3, most=2, balance=Balance.model_validate(given))
        for number in range(20):
            rig.log.clear()
            request = Request("GET", "/", headers=Headers([(b"x", b"%d" % number)]))
            await rig.ask(request)
            assert sorted(rig.log[:3]) == ["a", "b", "c"]

    run_jumping(main)


@case
async def test_a_lone_target_is_asked_again() -> None:
    rig = Rig([(9, status(201)), (1, status(202))])
    assert (await rig.ask()).status == 202
    assert rig.log == ["a", "a", "a is given up"]


@case
async def test_a_further_try_avoids_those_under_way() -> None:
    rig = Rig([(9, status(201))], [(1, closed())], [(1, status(203))], retry=policy(attempts=3))
    assert (await rig.ask()).status == 203
    assert rig.log == ["a", "b", "c", "a is given up"]


# Failures


@case
async def test_what_fails_ahead_of_time_is_told_at_once() -> None:
    rig = Rig([(0.5, closed())], [])
    with pytest.raises(UpstreamClosed):
        await rig.ask()
    assert rig.log == ["a"]


@pytest.mark.parametrize("failure", [closed, lambda: status(503)])
@pytest.mark.parametrize("fails", ["first", "second"])
def test_who_fails_does_not_win(failure: Callable[[], Response | Exception], fails: str) -> None:
    async def main() -> None:
        scripts: list[list[Step]] = [[(1.2, failure())], [(3, status(202))]]
        if fails == "second":
            scripts = [[(5, status(202))], [(1.2, failure())]]
        rig = Rig(*scripts)
        assert (await rig.ask()).status == 202
        assert rig.log == ["a", "b"]

    run_jumping(main)


@case
async def test_the_first_failure_is_told_where_all_fail() -> None:
    content = Content()
    rig = Rig([(5, status(503, content))], [(1, closed())])
    exchange = Exchange(0.0)
    with pytest.raises(UpstreamClosed):
        await rig.ask(Request("GET", "/", exchange=exchange))
    assert content.closed == 1
    assert (exchange.target, exchange.tries) == ("b:80", 2)


@case
async def test_an_answer_that_is_a_failure_is_better_than_none() -> None:
    content = Content()
    rig = Rig([(1.5, status(503, content))], [(1, closed())])
    assert (await rig.ask()).status == 503
    assert content.closed == 0


@case
async def test_an_answer_that_lost_at_the_same_moment_is_let_go() -> None:
    contents = [Content(), Content()]
    rig = Rig([], [])
    both = asyncio.get_running_loop().create_future()

    class Together(_TimedStream):
        async def send(self, request: Request, target: str, authority: bytes, patience: Patience) -> Response:
            self._pool.log.append(self._pool.name)
            await both
            return status(200, contents["ab".index(self._pool.name)])

    for pool in rig.pools:
        pool.take = lambda pool=pool: Together(pool)  # type: ignore[method-assign,misc]
    asyncio.get_running_loop().call_later(3, both.set_result, None)
    exchange = Exchange(0.0)
    await rig.ask(Request("GET", "/", exchange=exchange))
    assert rig.log == ["a", "b"]
    assert exchange.target == "a:80"
    assert [content.closed for content in contents] == [0, 1]


@case
async def test_an_answer_that_comes_although_given_up_is_let_go() -> None:
    content = Content()
    rig = Rig([], [(1, status(202))])

    class Stubborn(_TimedStream):
        async def send(self, request: Request, target: str, authority: bytes, patience: Patience) -> Response:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                return status(201, content)
            raise AssertionError

    rig.pools[0].take = lambda: Stubborn(rig.pools[0])  # type: ignore[method-assign]
    assert (await rig.ask()).status == 202
    assert content.closed == 1


@case
async def test_a_mistake_of_ours_is_raised_for_the_request_alone() -> None:
    rig = Rig([(1.2, ZeroDivisionError())], [(9, status(202))])
    with pytest.raises(ZeroDivisionError):
        await rig.ask()
    assert rig.log == ["a", "b", "b is given up"]


@case
async def test_a_try_that_cancels_itself_ends_the_others() -> None:
    rig = Rig([(1.2, asyncio.CancelledError())], [(9, status(202))])
    with pytest.raises(asyncio.CancelledError):
        await rig.ask()
    assert rig.log == ["a", "b", "b is given up"]


# The client


@pytest.mark.parametrize("after", [0.5, 1.5])
def test_a_client_that_leaves_ends_all_tries(after: float) -> None:
    async def main() -> None:
        rig = Rig([(9, status(201))], [(9, status(202))])
        exchange = Exchange(0.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(after):
                await rig.ask(Request("GET", "/", exchange=exchange))
        asked = ["a", "b"][: 1 if after < 1 else 2]
        assert sorted(rig.log) == sorted(asked + [f"{name} is given up" for name in asked])
        assert (exchange.target, exchange.tries) == ("a:80", len(asked))

    run_jumping(main)


@case
async def test_a_failure_that_was_kept_is_let_go_when_the_client_leaves() -> None:
    content = Content()
    rig = Rig([(1.2, status(503, content))], [(9, status(202))])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await rig.ask(Request("GET", "/"))
    assert content.closed == 1


# What may be sent twice


@pytest.mark.parametrize(
    "request_",
    [
        lambda: Request("POST", "/"),
        lambda: Request("PUT", "/", body=Body.stream(Content(), 10**9)),
        lambda: Request("PUT", "/", body=Body.stream(Content(), None)),
    ],
)
def test_what_may_not_be_repeated_is_sent_once(request_: Callable[[], Request]) -> None:
    async def main() -> None:
        rig = Rig([(9, status(201))], [])
        assert (await rig.ask(request_())).status == 201
        assert rig.log == ["a"]

    run_jumping(main)


@case
async def test_a_small_body_is_kept_for_both() -> None:
    class Pieces(Content):
        pieces = [b"ab", b"c", b""]  # noqa: RUF012

        async def read(self) -> bytes:
            return self.pieces.pop(0)

    rig = Rig([(9, status(201))], [(1, status(202))])
    request = Request("PUT", "/", body=Body.stream(Pieces(), 3))
    assert (await rig.ask(request)).status == 202
    assert request.body.whole == b"abc"


@case
async def test_a_budget_is_kept_to() -> None:
    retry = policy(floor=0, share=0.5)
    rig = Rig(*[[(2.5, status(200))] * 20] * 2, retry=retry)
    for _ in range(10):
        await rig.ask()
    assert len([each for each in rig.log if len(each) == 1]) == 10 + 5


@case
async def test_all_have_the_time_of_the_first() -> None:
    rig = Rig([(9, status(201))], [(1, status(202))], times=Times(total=5.0))
    end = now() + 5
    assert (await rig.ask()).status == 202
    assert [pool.deadlines for pool in rig.pools] == [[pytest.approx(end, abs=0.1)]] * 2
    assert rig.pools[0].deadlines == rig.pools[1].deadlines


# The record


@case
async def test_the_record_is_the_winners() -> None:
    rig = Rig([(3.5, status(201))], [(2, status(202))])
    exchange = Exchange(0.0)
    began = now()
    await rig.ask(Request("GET", "/", exchange=exchange))
    assert (exchange.service, exchange.target, exchange.tries) == ("svc", "b:80", 2)
    assert exchange.sent == pytest.approx(began + 1, abs=0.1)
    assert exchange.first_byte == pytest.approx(began + 3, abs=0.1)

    rig = Rig([(1.5, status(201))], [(2, status(202))])
    exchange = Exchange(0.0)
    began = now()
    await rig.ask(Request("GET", "/", exchange=exchange))
    assert (exchange.target, exchange.tries) == ("a:80", 2)  # although the other was sent to last
    assert exchange.sent == pytest.approx(began, abs=0.1)


@case
async def test_what_lost_is_known_to_be_slow() -> None:
    rig = Rig([(9, status(201))] * 2, [(0.5, status(202))] * 9, balance=Balance(algorithm="peak-ewma"))
    for _ in range(3):
        await rig.ask()
    slow, fast = rig.targets
    assert slow.latency > 1.4
    assert fast.latency < 0.6
    rig.log.clear()
    await rig.ask()
    assert rig.log == ["b"]


# Real sockets


@asynccontextmanager
async def hedged(*services: Listening, after: float = 0.05) -> AsyncIterator[tuple[Service, list[Pool]]]:
    async with asyncio.TaskGroup() as tasks:
        pools = [Pool("127.0.0.1", each.port, None, PoolOptions(8, 8, 60.0), tasks) for each in services]
        targets = [
            Target("http", f"127.0.0.1:{each.port}", b"x", "", pool) for each, pool in zip(services, pools, strict=True)
        ]
        retry = policy()
        made = service_of(targets, None, retry)
        made.surround(lambda _: Hedge(made, retry, after, 1).handle)
        yield made, pools
        made.close()
        for pool in pools:
            pool.close()


def begin(service: Service, request: Request) -> asyncio.Task[Response]:
    async def asking() -> Response:
        return await service.handle(request)

    return asyncio.get_running_loop().create_task(asking())


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


def test_the_connection_of_who_lost_is_closed() -> None:
    async def main() -> None:
        async with listening() as one, listening() as two, hedged(one, two) as (service, pools):
            tasks = asyncio.all_tasks()
            exchange = Exchange(0.0)
            asking = begin(service, Request("GET", "/", exchange=exchange))
            slow = await one.accept()
            await slow.head()
            quick = await two.accept()
            await quick.head()
            quick.send(OK + b"o")  # still on its way
            answer = await asking
            assert await slow.rest() == b""
            assert exchange.target == f"127.0.0.1:{two.port}"
            assert await answer.body.chunk() == b"o"
            quick.send(b"k")
            assert await answer.body.read(10) == b"k"
            await until(lambda: [pool.connections for pool in pools] == [0, 1])
            assert pools[1].busy == 0
            await turns()
            assert asyncio.all_tasks() - tasks <= {asyncio.current_task()}

    run(main)


def test_an_answer_that_nobody_reads_on_ends_with_the_exchange() -> None:
    async def main() -> None:
        async with listening() as one, listening() as two, hedged(one, two) as (service, pools):
            exchange = Exchange(0.0)
            asking = begin(service, Request("GET", "/", exchange=exchange))
            await (await one.accept()).head()
            quick = await two.accept()
            await quick.head()
            quick.send(OK)
            await asking
            exchange.end(Outcome.CLIENT_LEFT, now())
            assert await quick.rest() == b""
            assert [pool.connections for pool in pools] == [0, 0]

    run(main)


def test_a_client_that_leaves_closes_all_connections() -> None:
    async def main() -> None:
        async with listening() as one, listening() as two, hedged(one, two) as (service, pools):
            asking = begin(service, Request("GET", "/", exchange=Exchange(0.0)))
            peers = [await each.accept() for each in (one, two)]
            for peer in peers:
                await peer.head()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert [await peer.rest() for peer in peers] == [b"", b""]
            assert [pool.connections for pool in pools] == [0, 0]

    run(main)


def test_a_target_that_refuses_costs_no_hedge() -> None:
    async def main() -> None:
        async with listening() as one, listening() as two, hedged(one, two, after=30) as (service, _):
            pool = service.targets[0].pool
            assert isinstance(pool, Pool)
            pool._port = 1
            asking = begin(service, Request("GET", "/"))
            peer = await two.accept()
            await peer.head()
            peer.send(OK + b"ok")
            assert (await asking).status == 200

    run(main)
