from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from portico.config.resilience import Concurrency
from portico.errors import Overloaded, Source, UpstreamClosed
from portico.http.body import Body, Trailers
from portico.http.duplex import Duplex
from portico.http.message import Request, Response
from portico.observe.exchange import Exchange, Outcome
from portico.upstream.bulkhead import Bulkhead, Room
from tests.harness.loop import run_jumping, turns


class Endless:
    async def read(self) -> bytes:
        raise AssertionError

    def trailers(self) -> Trailers:
        return []

    def close(self) -> None:
        pass


class Rig:
    """A bulkhead, and a service that answers when the test says so."""

    def __init__(self, limit: int, queue: int = 0, wait: float = 1.0) -> None:
        self.room = Room()
        self.config = Concurrency(limit=limit, queue=queue, wait=wait)
        self.bulkhead = Bulkhead(self.room, self.config, self._serve)
        self.asked: dict[str, asyncio.Future[Response]] = {}

    async def _serve(self, request: Request) -> Response:
        answer = self.asked[request.path] = asyncio.get_running_loop().create_future()
        return await answer

    def ask(
        self, path: str, *, exchange: Exchange | None = None, deadline: float | None = None
    ) -> asyncio.Task[Response]:
        request = Request("GET", path, exchange=exchange)
        request.deadline = deadline

        async def asking() -> Response:
            return await self.bulkhead.handle(request)

        return asyncio.get_running_loop().create_task(asking())

    def answer(self, path: str, response: Response | None = None) -> None:
        self.asked[path].set_result(Response() if response is None else response)

    @property
    def counts(self) -> tuple[int, int]:
        return self.room.taken, self.room.waiting


def case(main: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    async def awaiting() -> None:
        await main()

    def test() -> None:
        run_jumping(awaiting)

    return test


@case
async def test_beyond_the_limit_and_the_queue_requests_are_refused_at_once() -> None:
    rig = Rig(2, queue=1)
    one, _, three = rig.ask("/1"), rig.ask("/2"), rig.ask("/3")
    await turns()
    with pytest.raises(Overloaded) as refused:
        await rig.ask("/4")
    assert (refused.value.source, refused.value.retryable) == (Source.GATEWAY, False)
    assert set(rig.asked) == {"/1", "/2"}
    assert rig.counts == (2, 1)
    rig.answer("/1")
    await turns()
    assert one.done()
    assert set(rig.asked) == {"/1", "/2", "/3"}
    assert rig.counts == (2, 0)
    rig.answer("/2")
    rig.answer("/3")
    await three
    assert rig.counts == (0, 0)


@case
async def test_the_first_to_come_is_the_first_to_go() -> None:
    rig = Rig(1, queue=5)
    tasks = [rig.ask(f"/{number}") for number in range(5)]
    for number in range(5):
        await turns()
        assert list(rig.asked) == [f"/{each}" for each in range(number + 1)]
        rig.answer(f"/{number}")
    await asyncio.gather(*tasks)
    assert rig.counts == (0, 0)


@case
async def test_who_waits_too_long_is_refused() -> None:
    rig = Rig(1, queue=2, wait=3.0)
    clock = asyncio.get_running_loop().time
    first, began = rig.ask("/1"), clock()
    waiting = rig.ask("/2")
    with pytest.raises(Overloaded) as over:
        await rig.ask("/3", deadline=began + 1.0)
    assert over.value.source is Source.GATEWAY
    assert clock() - began == pytest.approx(1.0, abs=0.3)
    assert rig.counts == (1, 1)
    with pytest.raises(Overloaded):
        await waiting
    assert clock() - began == pytest.approx(3.0, abs=0.3)
    assert rig.counts == (1, 0)
    rig.answer("/1")
    await first
    assert rig.counts == (0, 0)


@case
async def test_a_deadline_that_is_over_waits_no_turn_longer() -> None:
    rig = Rig(1, queue=1)
    first = rig.ask("/1")
    await turns()
    with pytest.raises(Overloaded):
        await rig.ask("/2", deadline=asyncio.get_running_loop().time() - 1.0)
    rig.answer("/1")
    await first
    assert rig.counts == (0, 0)


@case
async def test_a_client_that_leaves_while_it_waits_leaves_nothing() -> None:
    rig = Rig(1, queue=2)
    first, second, third = rig.ask("/1"), rig.ask("/2"), rig.ask("/3")
    await turns()
    second.cancel()
    await turns()
    assert second.cancelled()
    assert rig.counts == (1, 1)
    rig.answer("/1")
    await turns()
    rig.answer("/3")
    await asyncio.gather(first, third)
    assert set(rig.asked) == {"/1", "/3"}
    assert rig.counts == (0, 0)


@pytest.mark.parametrize("another", [False, True])
@pytest.mark.parametrize(
    "order", ["turn, client", "client, turn", "turn, time, client", "time, turn, client", "turn, time"]
)
def test_a_turn_that_comes_as_the_client_leaves_or_the_time_is_over(order: str, another: bool) -> None:
    async def main() -> None:
        rig = Rig(1, queue=2)
        rig.ask("/1")
        second = rig.ask("/2")
        third = rig.ask("/3") if another else None
        await turns()
        (future, *_) = rig.room._waiting
        for what in order.split(", "):  # all within one turn of the loop
            if what == "turn":
                rig.room.leave()
            elif what == "time":
                rig.room._give_up(future)
            else:
                second.cancel()
        await turns()
        if order == "turn, time":
            assert not second.done()
            assert rig.counts == (1, 1 if another else 0)
            rig.answer("/2")
            await turns()
        else:
            assert second.cancelled()
            assert "/2" not in rig.asked
        assert rig.counts == (1 if another else 0, 0)
        if third is not None:
            rig.answer("/3")
            await third
        assert rig.counts == (0, 0)

    run_jumping(main)


@case
async def test_a_failure_or_a_client_that_leaves_gives_room_back() -> None:
    rig = Rig(1)
    failed = rig.ask("/1")
    await turns()
    rig.asked["/1"].set_exception(UpstreamClosed("", source=Source.RESPONSE))
    with pytest.raises(UpstreamClosed):
        await failed
    left = rig.ask("/2")
    await turns()
    assert rig.counts == (1, 0)
    left.cancel()
    await turns()
    assert rig.counts == (0, 0)


def streaming() -> Response:
    return Response(200, None, Body.stream(Endless(), None))


def switching() -> Response:
    response = Response(101)
    response.duplex = Duplex.__new__(Duplex)
    return response


@pytest.mark.parametrize("make", [streaming, switching])
def test_an_answer_that_still_comes_has_its_room_until_the_exchange_ends(make: Callable[[], Response]) -> None:
    async def main() -> None:
        rig = Rig(1, queue=1)
        exchange = Exchange(0.0)
        task, waiting = rig.ask("/1", exchange=exchange), rig.ask("/2")
        await turns()
        rig.answer("/1", make())
        await task
        assert rig.counts == (1, 1)
        exchange.end(Outcome.CLIENT_LEFT, 1.0)
        exchange.end(Outcome.COMPLETE, 1.0)
        assert rig.counts == (1, 0)
        await turns()
        rig.answer("/2")
        await waiting
        assert rig.counts == (0, 0)

    run_jumping(main)


@case
async def test_whole_answers_and_those_of_no_exchange_or_of_one_that_is_over_have_none() -> None:
    rig = Rig(1)
    over = Exchange(0.0)
    over.end(Outcome.CLIENT_LEFT, 1.0)
    for exchange, response in ((Exchange(0.0), Response()), (None, streaming()), (over, streaming())):
        task = rig.ask("/1", exchange=exchange)
        await turns()
        rig.answer("/1", response)
        await task
        assert rig.counts == (0, 0)


@case
async def test_one_exchange_may_pass_several_times() -> None:
    rig, other = Rig(2), Rig(1)
    exchange = Exchange(0.0)
    for each in (rig, other, rig):
        task = each.ask("/1", exchange=exchange)
        await turns()
        each.answer("/1", streaming())
        await task
    assert (rig.room.taken, other.room.taken) == (2, 1)
    exchange.end(Outcome.COMPLETE, 1.0)
    assert (rig.room.taken, other.room.taken) == (0, 0)


@case
async def test_room_that_is_leased_is_the_same_after_a_reload() -> None:
    rig = Rig(1)
    task = rig.ask("/1")
    await turns()
    later = Bulkhead(rig.room, rig.config, rig._serve)
    rig.room.close()
    with pytest.raises(Overloaded):
        await later.handle(Request("GET", "/2"))
    rig.answer("/1")
    await task
