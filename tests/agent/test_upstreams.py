"""Which services the agent attends to, and what workers are told of them."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, ClassVar

import pytest

from portico.agent.telling import Owed
from portico.agent.upstreams import Upstreams
from portico.config.balance import Discover, Target
from portico.config.upstream import Service
from portico.net.channel import Channel, Codec
from portico.runtime.feeds import Feeds
from portico.runtime.protocol import KINDS, Upstream, UpstreamOver
from portico.runtime.shared import Lease, Leases
from portico.upstream.discovery import Discovery, DiscoveryFailed, Found
from portico.upstream.feed import Feed
from tests.harness import gateway
from tests.harness.loop import run, run_jumping, turns, until


class Told(Discovery):
    """Finds what a test puts into its queue."""

    made: ClassVar[Counter[str]] = Counter()
    queues: ClassVar[Mapping[str, asyncio.Queue[list[str] | str]]] = {}

    def __init__(self, discover: Discover) -> None:
        self._source = discover.source
        Told.made[self._source] += 1

    async def look(self) -> Found:
        found = await Told.queues[self._source].get()
        if isinstance(found, str):
            raise DiscoveryFailed(found, again_in=0.0)
        return Found(tuple(Target.model_validate({"address": each}) for each in found), 0.0)


class Worker:
    """A worker that notes what it is told, and takes it in."""

    def __init__(self, lease: Lease) -> None:
        self.told: list[Upstream | UpstreamOver] = []
        self.feeds = Feeds()
        self.deaf: asyncio.Event | None = None
        """Until it is set, the worker takes nothing."""
        self.waits = 0
        self._lease = lease

    def tell(self, message: Any) -> None:
        self.told.append(message)
        (self.feeds.over if isinstance(message, UpstreamOver) else self.feeds.hear)(message)

    async def room(self) -> bool:
        self.waits += 1
        if self.deaf:
            await self.deaf.wait()
        return True

    def feed(self, service: str, source: str = "") -> Feed:
        return self.feeds.of(self._lease, service, source)


class World:
    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.workers = [Worker(Leases().lease())]
        self.upstreams = Upstreams(self.workers, tasks, Random(7), Told)
        self.queues = Told.queues = {name: asyncio.Queue() for name in ("dns a:80", "dns b:80")}
        Told.made.clear()

    def follow(self, **services: dict[str, Any]) -> None:
        self.upstreams.follow({name: Service.model_validate(each) for name, each in services.items()})


def play(main: Callable[[World], Awaitable[None]], run: Callable[..., None] = run_jumping) -> None:
    async def played() -> None:
        async with asyncio.TaskGroup() as tasks:
            world = World(tasks)
            try:
                await main(world)
            finally:
                world.upstreams.close()

    run(played)


def addresses(feed: Feed) -> list[str]:
    return [str(target) for target in feed.targets or ()]


def test_workers_are_told_what_is_found_out() -> None:
    async def main(world: World) -> None:
        world.follow(a={"discover": {"dns": "a:80"}}, plain={"url": "http://c:80"})
        (first,) = world.workers
        feed = first.feed("a", "dns a:80")
        world.queues["dns a:80"].put_nowait(["x:1", "y:1"])
        await until(lambda: feed.targets)
        assert addresses(feed) == ["x:1", "y:1"]
        world.queues["dns a:80"].put_nowait("it is gone")
        await until(lambda: feed.trouble)
        assert (addresses(feed), feed.trouble) == (["x:1", "y:1"], "it is gone")
        assert [len(each.targets) for each in first.told] == [2, 0]  # type: ignore[union-attr]
        second = Worker(Leases().lease())
        world.workers.append(second)
        world.upstreams.greet(second)
        await until(lambda: addresses(second.feed("a", "dns a:80")) == ["x:1", "y:1"])
        world.queues["dns a:80"].put_nowait(["y:1"])
        await until(lambda: addresses(second.feed("a", "dns a:80")) == ["y:1"])
        assert (addresses(feed), feed.trouble) == (["y:1"], "")
        assert list(world.upstreams) == ["a"]

    play(main, run)


def test_until_something_is_known_nothing_is_said() -> None:
    async def main(world: World) -> None:
        world.follow(a={"discover": {"dns": "a:80"}, "health": "/"}, b={"targets": ["b:80"], "health": "/"})
        world.upstreams.greet(world.workers[0])
        await turns()
        assert world.workers[0].told == []

    play(main)


def test_what_a_reload_leaves_alone_goes_on() -> None:
    async def main(world: World) -> None:
        world.follow(a={"discover": {"dns": "a:80"}}, b={"discover": {"dns": "b:80"}})
        (worker,) = world.workers
        world.queues["dns a:80"].put_nowait(["x:1"])
        feed = worker.feed("a", "dns a:80")
        await until(lambda: feed.targets)
        before = world.upstreams["a"]
        world.follow(a={"discover": {"dns": "a:80"}, "timeout": 3}, c={"discover": {"dns": "b:80", "interval": 2}})
        assert world.upstreams["a"] is before
        await turns()
        assert worker.told[-1] == UpstreamOver("b", "dns b:80")
        await until(lambda: Told.made["dns b:80"] == 2)
        assert Told.made["dns a:80"] == 1
        world.follow(a={"discover": {"dns": "b:80"}})
        await turns()
        assert worker.told[-2:] == [UpstreamOver("a", "dns a:80"), UpstreamOver("c", "dns b:80")]
        assert addresses(feed) == ["x:1"]  # requests under way may still go there
        world.follow()
        assert list(world.upstreams) == []

    play(main, run)


def refused(port: int) -> dict[str, Any]:
    return {"targets": [f"127.0.0.1:{port}"], "health": {"path": "/", "interval": 0.1}}


def test_verdicts_reach_workers_and_end_with_the_check() -> None:
    async def main(world: World) -> None:
        with gateway.Service() as service, gateway.refusing_port() as port:
            both = refused(port)
            both["targets"].append(f"127.0.0.1:{service.port}")
            world.follow(a=both)
            (worker,) = world.workers
            feed = worker.feed("a")
            await until(lambda: len(feed.verdicts) == 2)
            assert {each.why for each in feed.verdicts.values()} == {"connection refused", "status 200"}
            assert feed.targets is None
            world.follow(a=refused(service.port))
            again = worker.feed("a")
            assert again is feed
            await until(lambda: len(service.seen) > 3)
            assert set(world.upstreams["a"].verdicts) == {f"127.0.0.1:{service.port}"}
            world.follow(a={"targets": [f"127.0.0.1:{service.port}"]})
            assert list(world.upstreams) == []
            await until(lambda: isinstance(worker.told[-1], UpstreamOver))

    play(main, run)


def test_a_check_that_goes_takes_its_verdicts_along() -> None:
    async def main(world: World) -> None:
        with gateway.refusing_port() as port:
            checked = {"discover": {"dns": "a:80"}, "health": {"path": "/", "interval": 60}}
            world.follow(a=checked)
            feed = world.workers[0].feed("a", "dns a:80")
            world.queues["dns a:80"].put_nowait([f"127.0.0.1:{port}"])
            await until(lambda: feed.verdicts)
            world.follow(a={"discover": {"dns": "a:80"}})
            await until(lambda: not feed.verdicts)
            assert addresses(feed) == [f"127.0.0.1:{port}"]
            assert Told.made["dns a:80"] == 1

    play(main, run)


def test_an_agent_that_begins_anew_takes_nothing_away() -> None:
    async def main(world: World) -> None:
        (worker,) = world.workers
        with gateway.refusing_port() as port, gateway.refusing_port() as other:
            service = refused(port)
            service["targets"].append(f"127.0.0.1:{other}")
            world.follow(a=service)
            feed = worker.feed("a")
            await until(lambda: len(feed.verdicts) == 2)
            world.upstreams.close()
            worker.feeds.agent_gone()
            seen: list[int] = []
            feed.follow(lambda: seen.append(len(feed.verdicts)))
            async with asyncio.TaskGroup() as tasks:
                after = Upstreams(world.workers, tasks)
                after.greet(worker)
                after.follow({"a": Service.model_validate(service)})
                await until(lambda: seen)
                after.close()
            assert set(seen) == {2}

    play(main, run)


@pytest.mark.parametrize("count", [5000])
def test_thousands_of_targets_reach_a_worker_in_pieces(count: int) -> None:
    async def main(world: World) -> None:
        codec = Codec(KINDS)
        one, other = socket.socketpair()
        feeds = Feeds()
        feed = feeds.of(Leases().lease(), "a", "dns a:80")
        its = Channel(other, codec, lambda message, _: feeds.hear(message), lambda: None)
        ours = Channel(one, codec, lambda *_: None, lambda: None)
        world.workers.clear()
        world.follow(a={"discover": {"dns": "a:80"}})
        wanted = [f"10.1.{number // 250}.{number % 250}:8080" for number in range(count)]
        world.queues["dns a:80"].put_nowait(wanted)
        await until(lambda: world.upstreams["a"].targets)
        messages = list(world.upstreams["a"].messages(Owed(everything=True)))
        assert max(len(codec.encode(message)) for message in messages) < 64 * 1024
        for message in messages:
            ours.send(message)
        await until(lambda: feed.targets)
        assert addresses(feed) == wanted
        ours.close()
        its.close()

    play(main, run)


def test_a_worker_that_does_not_listen_is_told_what_is_so_once_it_does() -> None:
    async def main(world: World) -> None:
        (worker,) = world.workers
        worker.deaf = asyncio.Event()
        world.follow(a={"discover": {"dns": "a:80"}}, b={"discover": {"dns": "b:80"}})
        for count in range(2, 50):
            world.queues["dns a:80"].put_nowait([f"x:{number}" for number in range(1, count)])
        world.queues["dns b:80"].put_nowait(["y:1"])
        await until(lambda: len(world.upstreams["a"].targets) == 48)
        worker.deaf.set()
        feed = worker.feed("a", "dns a:80")
        await until(lambda: feed.targets is not None and len(feed.targets) == 48)
        assert addresses(worker.feed("b", "dns b:80")) == ["y:1"]
        assert len(worker.told) < 10

    play(main)


def test_large_targets_come_in_many_pieces() -> None:
    async def main(world: World) -> None:
        world.follow(a={"discover": {"dns": "a:80"}})
        world.queues["dns a:80"].put_nowait([f"x:{number}" for number in range(1, 200)])
        (worker,) = world.workers
        feed = worker.feed("a", "dns a:80")
        await until(lambda: feed.targets)
        known = world.upstreams["a"]
        assert known._discovering is not None
        metadata = {f"key{number}": "\N{PILE OF POO}" * 256 for number in range(32)}
        known._discovering.targets = tuple(each.model_copy(update={"metadata": metadata}) for each in known.targets)
        codec = Codec(KINDS)
        messages = list(known.messages(Owed(everything=True)))
        assert max(len(codec.encode(message)) for message in messages) < 1024 * 1024
        assert sum(len(message.targets) for message in messages) == 199
        assert [messages[0].begins, messages[0].ends, messages[-1].ends] == [True, False, True]

    play(main, run)


def test_a_service_that_cannot_be_told_of_keeps_no_other_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        (worker,) = world.workers
        world.follow(a={"discover": {"dns": "a:80"}}, b={"discover": {"dns": "b:80"}})
        monkeypatch.setattr(world.upstreams["a"], "messages", lambda _: 1 / 0)
        world.queues["dns a:80"].put_nowait(["x:1"])
        world.queues["dns b:80"].put_nowait(["y:1"])
        await until(lambda: addresses(worker.feed("b", "dns b:80")) == ["y:1"])

    play(main, run)


def test_a_target_that_leaves_takes_its_verdict_along() -> None:
    async def main(world: World) -> None:
        with gateway.refusing_port() as port, gateway.Service() as service:
            both = refused(port)
            both["targets"].append(f"127.0.0.1:{service.port}")
            world.follow(a=both)
            (worker,) = world.workers
            feed = worker.feed("a")
            await until(lambda: len(feed.verdicts) == 2)
            world.follow(a=refused(service.port))
            await until(lambda: set(feed.verdicts) == {f"127.0.0.1:{service.port}"})

    play(main, run)
