from __future__ import annotations

import asyncio

from portico.config.resilience import Breaker as BreakerConfig
from portico.net.client import ClientStream, Connections
from portico.state.records import Record
from portico.upstream.breaker import Breaker
from portico.upstream.health import ANSWER_IN, FRESH_FOR, PROBE_TIMEOUT, PROBES, HealthReport
from portico.upstream.split import Part, Split
from portico.upstream.stack import Service
from portico.upstream.target import Target
from tests.harness.calls import Asked, Call
from tests.harness.loop import run, run_jumping, turns
from tests.harness.upstream import service_of


class Probed(Connections):
    """A pool that counts probes, and accepts them when it is let to."""

    def __init__(self, *, up: bool = True, hangs: bool = False) -> None:
        self.up = up
        self.probes = 0
        self.gate = asyncio.Event()
        if not hangs:
            self.gate.set()

    def take(self) -> ClientStream | None:
        raise AssertionError

    async def connect(self, timeout: float, deadline: float | None) -> ClientStream:
        raise AssertionError

    async def probe(self) -> None:
        self.probes += 1
        await self.gate.wait()
        if not self.up:
            raise ConnectionRefusedError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def a_service(name: str, **pools: Probed) -> Service:
    return service_of([Target("http", address, b"", "", pool) for address, pool in pools.items()], name=name)


async def wells(report: HealthReport) -> dict[str, bool]:
    return {name: each.well for name, each in (await report.states()).items()}


def test_a_service_can_be_reached_while_one_of_its_targets_can() -> None:
    async def main() -> None:
        up, down = Probed(), Probed(up=False)
        services = {
            "all": a_service("all", a=up),
            "some": a_service("some", a=up, b=down),
            "none": a_service("none", b=down),
        }
        async with asyncio.TaskGroup() as tasks:
            report = HealthReport(services, tasks, Clock())
            assert await wells(report) == {"all": True, "some": True, "none": False}
        assert (up.probes, down.probes) == (1, 1)  # one for each address, not for each service

    run(main)


def test_nothing_is_probed_until_somebody_asks() -> None:
    async def main() -> None:
        pool = Probed()
        async with asyncio.TaskGroup() as tasks:
            HealthReport({"s": a_service("s", a=pool)}, tasks, Clock())
            await turns()
        assert pool.probes == 0

    run(main)


def test_one_flight_serves_all_who_ask() -> None:
    async def main() -> None:
        pool = Probed(hangs=True)
        async with asyncio.TaskGroup() as tasks:
            report = HealthReport({"s": a_service("s", a=pool)}, tasks, Clock())
            asking = [tasks.create_task(wells(report)) for _ in range(50)]
            await turns()
            asking[0].cancel()  # a waiter that leaves takes the flight with it for nobody
            await turns()
            assert not asking[1].done()
            pool.gate.set()
            assert [await waiter for waiter in asking[1:]] == [{"s": True}] * 49
        assert pool.probes == 1

    run(main)


def test_an_answer_is_good_for_a_while() -> None:
    async def main() -> None:
        pool, clock = Probed(), Clock()
        async with asyncio.TaskGroup() as tasks:
            report = HealthReport({"s": a_service("s", a=pool)}, tasks, clock)
            assert await wells(report) == {"s": True}
            pool.up = False
            clock.now += FRESH_FOR
            assert await wells(report) == {"s": True}
            clock.now += 0.1
            assert await wells(report) == {"s": False}
            assert pool.probes == 2

    run(main)


def test_a_target_that_does_not_answer_in_time_cannot_be_reached() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            begin = asyncio.get_running_loop().time()
            report = HealthReport({"s": a_service("s", a=Probed(hangs=True))}, tasks, Clock())
            assert await wells(report) == {"s": False}
            assert PROBE_TIMEOUT - 0.1 < asyncio.get_running_loop().time() - begin < PROBE_TIMEOUT + 1

    run_jumping(main)


def test_thousands_of_silent_targets_keep_nobody_waiting() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pools = [[Probed(hangs=True) for _ in range(50)] for _ in range(200)]
        services = {
            f"s{number}": a_service(f"s{number}", **{f"t{each}": pool for each, pool in enumerate(group)})
            for number, group in enumerate(pools)
        }
        async with asyncio.TaskGroup() as tasks:
            report = HealthReport(services, tasks, Clock())
            begin = loop.time()
            await report.states()
            assert loop.time() - begin < ANSWER_IN + 0.5
            await asyncio.sleep(60)
            assert not any((await wells(report)).values())
        assert max(sum(pool.probes for pool in group) for group in pools) == PROBES

    run_jumping(main)


def test_one_target_that_accepts_is_enough_and_asked_first_after_that() -> None:
    async def main() -> None:
        clock, pools = Clock(), [Probed(up=False) for _ in range(20)]
        pools[13].up = True
        async with asyncio.TaskGroup() as tasks:
            named = {f"t{number}": pool for number, pool in enumerate(pools)}
            report = HealthReport({"s": a_service("s", **named)}, tasks, clock)
            for _ in range(20):
                clock.now += FRESH_FOR + 1
                if (await wells(report))["s"]:
                    break
            before = sum(pool.probes for pool in pools)
            clock.now += FRESH_FOR + 1
            assert (await wells(report))["s"]
            assert sum(pool.probes for pool in pools) == before + 1


def test_a_service_whose_breaker_is_open_cannot_be_asked() -> None:
    async def main() -> None:
        clock = Clock()
        service = a_service("s", a=Probed())
        inner = Asked()
        service.breaker = Breaker("s", BreakerConfig(failures=1, open_for=5.0), Record.private(), clock, inner.handle)
        others = {"split": Split("split", [Part(service, 1)]), "other": a_service("other", b=Probed())}
        async with asyncio.TaskGroup() as tasks:
            report = HealthReport({"s": service, **others}, tasks, clock)
            breaker = (await report.states())["s"].breaker
            assert breaker is not None
            assert breaker == ("closed", 0.0, "")
            Call(service.breaker.handle).answer(500)
            states = await report.states()
            assert {name: each.well for name, each in states.items()} == {"s": False, "split": False, "other": True}
            breaker = states["s"].breaker
            assert breaker is not None
            assert (breaker.name, breaker.why) == ("open", "1 failure in a row, the last: status 500")
            assert (states["split"].breaker, states["other"].breaker) == (None, None)
            clock.now += 5.0
            assert (await report.states())["s"].well  # it is half open: the next one who asks tries

    run(main)
