"""What a policy's limits come to while the store is down, and when it is back."""

from __future__ import annotations

import asyncio
import logging

import pytest

from portico.plugin import FixedWindow, LimitCheck, Limits, OnStoreFailure, StoreUnavailable, Verdict
from portico.state.memory import MemoryStore
from portico.state.store import Space
from tests.harness.loop import run, until
from tests.harness.valkey import ValkeyServer
from tests.state.stores import valkey_store

LIMITS = Limits([FixedWindow(3, 10**7)])
LOGGER = logging.getLogger("portico.route.test")


async def passed(check: LimitCheck, key: bytes, times: int = 5) -> list[bool]:
    return [(await verdict(check, key)).allowed for _ in range(times)]


async def verdict(check: LimitCheck, key: bytes = b"a") -> Verdict:
    found = check.take(key)
    return found if isinstance(found, Verdict) else await found


@pytest.mark.parametrize(
    ("on_failure", "without"),
    [
        ("allow", [True] * 5),
        ("deny", [False] * 5),
        ("local", [True, True, True, False, False]),
    ],
)
def test_what_a_store_that_is_down_comes_to(
    on_failure: OnStoreFailure, without: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)

    async def main() -> None:
        with ValkeyServer() as server:
            async with asyncio.TaskGroup() as tasks:
                store = valkey_store(server, tasks)
                check = LimitCheck(store.volatile, LIMITS, on_failure, LOGGER)
                try:
                    assert await passed(check, b"a") == [True, True, True, False, False]
                    assert (await verdict(check)).known
                    server.kill()
                    assert await passed(check, b"a") == without
                    assert (await verdict(check)).known == (on_failure == "local")
                    assert check.failures == 6
                    server.start()
                    await until_well(store.volatile)
                    assert await passed(check, b"a") == [True, True, True, False, False]
                    assert check.failures == 6
                finally:
                    store.close()

    run(main)
    said = [record.message for record in caplog.records if record.name == LOGGER.name]
    assert len(said) == 2
    assert said[0].endswith(f"until it answers, on_store_failure is {on_failure}")
    assert said[1] == "the store answers again; 6 requests so far were not counted by it"


async def until_well(space: Space) -> None:
    well = False
    while not well:
        await asyncio.sleep(0)
        try:
            await space.get(b"x")
        except StoreUnavailable:
            continue
        well = True


def test_a_store_that_knows_at_once_is_not_waited_for() -> None:
    check = LimitCheck(MemoryStore().volatile, LIMITS, "deny", LOGGER)
    assert isinstance(check.take(b"a", 2), Verdict)
    found = check.take(b"a", 2)
    assert isinstance(found, Verdict)
    assert not found.allowed
    assert check.failures == 0


def test_what_was_used_already_is_charged_where_it_can_be() -> None:
    async def main() -> None:
        check = LimitCheck(MemoryStore().volatile, LIMITS, "deny", LOGGER)
        charged = check.charge(b"a", 5)
        assert isinstance(charged, Verdict)
        assert not charged.allowed
        assert not (await verdict(check)).allowed
        with ValkeyServer() as server:
            async with asyncio.TaskGroup() as tasks:
                store = valkey_store(server, tasks)
                try:
                    for on_failure, allowed in (("allow", True), ("deny", False), ("local", False)):
                        check = LimitCheck(store.volatile, LIMITS, on_failure, LOGGER)  # type: ignore[arg-type]
                        server.kill()
                        charged = check.charge(b"a", 5)
                        assert not isinstance(charged, Verdict)
                        assert (await charged).allowed is allowed
                        assert (await verdict(check)).allowed is allowed
                        assert check.failures == 2
                        server.start()
                        await until_well(store.volatile)
                        await check.charge(b"a", 2)  # type: ignore[misc]
                        assert [each.left for each in [await verdict(check)]] == [(0,)]
                        assert not (await verdict(check)).allowed
                finally:
                    store.close()

    run(main)


def test_who_stops_waiting_is_no_failure_of_the_store() -> None:
    async def main() -> None:
        with ValkeyServer() as server:
            async with asyncio.TaskGroup() as tasks:
                store = valkey_store(server, tasks)
                check = LimitCheck(store.volatile, LIMITS, "allow", LOGGER)
                await verdict(check)
                server.stop()
                waiting = tasks.create_task(verdict(check))
                await asyncio.sleep(0)
                waiting.cancel()
                await until(waiting.done)
                assert waiting.cancelled()
                server.go_on()
                assert (await verdict(check)).allowed
                assert check.failures == 0
                store.close()

    run(main)
