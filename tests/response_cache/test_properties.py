"""What is at hand is what the store would have given, whatever clients ask and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from portico.plugin import Headers, Request, Response
from portico.response_cache.fetching import HIT_FOR_MISS
from portico.state.memory import MemoryStore
from portico.testing.clock import FakeTimeLoop
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


@settings(max_examples=60, deadline=None)
@given(STEPS, SAYS, st.sampled_from(["", "Accept", "Accept, Cookie"]))
def test_what_is_at_hand_is_what_the_store_would_have_given(
    steps: list[tuple[str, object]], said: str, vary: str
) -> None:
    async def both() -> tuple[list[object], list[object]]:
        return await answers(steps, said, vary, 2**20), await answers(steps, said, vary, 0)

    at_hand, stored = asyncio.run(both())
    assert at_hand == stored
    assert HIT_FOR_MISS > 100  # or what is remembered of it would make a difference


# Nothing that was changed is given afterwards.

ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 3),  # seconds since the one before, in tenths
        st.sampled_from(["GET", "GET", "GET", "RELOAD", "HEAD", "POST"]),
        st.integers(0, 1),  # the worker
        st.integers(0, 4),  # what it takes the service, in tenths
        st.booleans(),  # whether it reads its version at the end of that
    ),
    max_size=30,
)


class Slow(Service):
    """Takes its time, and reads its version at the beginning or at the end of it."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 0

    async def __call__(self, request: Request) -> Response:
        takes, late = int(request.headers.get(b"x-takes") or b"0"), b"x-late" in request.headers
        if request.method == "POST":
            await asyncio.sleep(takes / 10)
            self.version += 1
            version = self.version
            await asyncio.sleep(takes / 10)
            return Response(200, None, b"%d" % version)
        version = self.version
        await asyncio.sleep(takes / 10)
        version = self.version if late else version
        headers = Headers([(b"Cache-Control", b"max-age=60"), (b"ETag", b'"%d"' % version)])
        if request.headers.get(b"if-none-match") == b'"%d"' % version:
            return Response(304, headers)
        return Response(200, headers, b"" if request.method == "HEAD" else b"%d" % version)


async def play(actions: Sequence[tuple[int, str, int, int, bool]], users: str) -> None:
    service, times, changed = Slow(), Times(), 0
    loop = asyncio.get_running_loop()
    times.wall = lambda: T0 + loop.time()  # type: ignore[method-assign]

    async def act(worker: Worker, method: str, takes: int, late: bool) -> None:
        nonlocal changed
        before = changed
        headers = {"X-Takes": str(takes)} | ({"X-Late": "1"} if late else {})
        if method in ("RELOAD", "HEAD"):
            headers["Cache-Control"] = "no-cache"
        response = await worker.ask(method=method.replace("RELOAD", "GET"), **headers)
        content = await response.body.read(100)
        version = int(content or (response.headers.get(b"etag") or b"").strip(b'"'))
        if method == "POST":
            changed = max(changed, version)
        else:
            assert version >= before, f"{version} was given after {before} had been answered"

    async with workers(MemoryStore(times.wall), service, 2, times, users=users) as made, asyncio.TaskGroup() as clients:
        for seconds, method, worker, takes, late in actions:
            await asyncio.sleep(seconds / 10 + 0.001)
            clients.create_task(act(made[worker], method, takes, late))


@settings(max_examples=100, deadline=None)
@given(ACTIONS, st.sampled_from(["heed", "apart"]))
def test_nothing_is_given_that_was_changed_before_it_was_asked_for(
    actions: list[tuple[int, str, int, int, bool]], users: str
) -> None:
    """What was changed is told by stamps alone, or where there are several places by a time in the store as well."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        runner.run(play(actions, users))
