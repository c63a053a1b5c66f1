"""What is at hand is what the store would have given, whatever clients ask and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from portico.plugin import Headers, Request, Response
from portico.response_cache.fetching import HIT_FOR_MISS
from portico.state.memory import MemoryStore
from tests.harness.caching import T0
from tests.response_cache.workers import Service, Times, Worker, workers

HEADERS = st.sampled_from(
    [
        {},
        {"Accept": "a"},
        {"Accept": "b"},
        {"Accept": "a", "Cookie": "x=y"},
        {"Accept": "a", "Authorization": "x"},
        {"Cache-Control": "no-cache"},
        {"Cache-Control": "max-age=3"},
        {"Cache-Control": "only-if-cached, max-stale=5"},
        {"If-None-Match": '"1"'},
        {"Range": "bytes=0-0"},
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["GET", "GET", "GET", "HEAD"]), HEADERS),
        st.tuples(st.just("POST"), st.just({})),
        st.tuples(st.just("pass"), st.integers(1, 12)),
        st.tuples(st.just("change"), st.just({})),
        st.tuples(st.just("purge"), st.just({})),
    ),
    max_size=25,
)
SAYS = st.sampled_from(
    [
        "max-age=10",
        "max-age=10, stale-while-revalidate=5",
        "max-age=10, stale-if-error=9",
        "public, max-age=4",
        "no-cache",
        "no-store",
        "",
    ]
)


class Versions(Service):
    """Answers with its version, which a change makes another."""

    def __init__(self, said: str, vary: str) -> None:
        super().__init__()
        self.said, self.vary = said, vary
        self.version = 1

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        await asyncio.sleep(0)
        headers = Headers([(b"ETag", b'"%d"' % self.version)])
        for name, value in ((b"Cache-Control", self.said), (b"Vary", self.vary)):
            if value:
                headers.add(name, value.encode())
        if request.method == "POST":
            return Response(204)
        if request.headers.get(b"if-none-match") == headers.get(b"etag"):
            return Response(304, headers)
        return Response(200, headers, b"%d %b" % (self.version, request.headers.get(b"accept") or b"-"))


async def answers(steps: Sequence[tuple[str, object]], said: str, vary: str, memory: int) -> list[object]:
    service, times, found = Versions(said, vary), Times(), []
    times.wall = lambda: T0 + times.ahead  # type: ignore[method-assign]
    times.clock = lambda: 1000.0 + times.ahead  # type: ignore[method-assign]
    async with workers(MemoryStore(times.wall), service, 1, times, memory=memory, ttl=7) as (worker,):
        for what, how in steps:
            times.ahead += 0.001
            found.append(await step(worker, service, times, what, how))
            await worker.quiet()
    return [*found, len(service.asked)]


async def step(worker: Worker, service: Versions, times: Times, what: str, how: object) -> object:
    if what == "pass":
        assert isinstance(how, int)
        times.ahead += how
    elif what == "change":
        service.version += 1
    elif what == "purge":
        await worker.env.purges.purge([b"portico.purge:*"])
    else:
        assert isinstance(how, dict)
        response = await worker.ask(method=what, **how)
        content = await response.body.read(1000)
        return response.status, sorted(response.headers.pairs), content
    return None


@settings(max_examples=150, deadline=None)
@given(STEPS, SAYS, st.sampled_from(["", "Accept", "Accept, Cookie"]))
def test_what_is_at_hand_is_what_the_store_would_have_given(
    steps: list[tuple[str, object]], said: str, vary: str
) -> None:
    async def both() -> tuple[list[object], list[object]]:
        return await answers(steps, said, vary, 2**20), await answers(steps, said, vary, 0)

    at_hand, stored = asyncio.run(both())
    assert at_hand == stored
    assert HIT_FOR_MISS > 100  # or what is remembered of it would make a difference
