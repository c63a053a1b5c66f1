"""A store in a cluster: keys that move, servers that end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from portico.errors import StoreUnavailable
from portico.state.cluster import ClusterLink, ClusterSpace, slot_of
from portico.state.limits import FixedWindow, Limits
from portico.state.link import Address
from portico.state.redis import SCRIPTS, RedisStore
from tests.harness.loop import DEADLINE, run
from tests.harness.valkey import Cluster, ValkeyServer
from tests.state.stores import cluster_store, take

LIMITS = Limits([FixedWindow(1000, 10**7)])
HOUR = 3600.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@asynccontextmanager
async def connected(cluster: Cluster, timeout: float = DEADLINE) -> AsyncIterator[RedisStore]:
    async with asyncio.TaskGroup() as tasks:
        store = cluster_store(cluster, tasks, timeout)
        try:
            yield store
        finally:
            store.close()


def test_a_slot_is_what_the_servers_take_it_for(cluster: Cluster) -> None:
    for key in ("", "a", "portico:v:{17}v127.0.0.1", "{}", "{a}b", "a{b}{c}", "a{", "}{a}", "x" * 999):
        assert cluster.servers[0].say("CLUSTER", "KEYSLOT", key) == slot_of(key.encode())


def test_keys_are_on_all_servers_and_are_found_where_they_have_moved_to(cluster: Cluster) -> None:
    async def main() -> None:
        async with connected(cluster) as store:
            for number in range(60):
                await store.volatile.put(b"%d" % number, b"%d" % number, HOUR)
            assert all(server.say("DBSIZE") > 5 for server in cluster.servers)
            for number in range(60):
                assert await store.volatile.get(b"%d" % number) == b"%d" % number
            space = store.durable
            assert isinstance(space, ClusterSpace)
            for number in range(30):
                key = b"moves %d" % number
                slot = slot_of(space.prefix_of(key))
                owner = next(server for server in cluster.servers if _has(server, slot))
                other = next(server for server in cluster.servers if server is not owner)
                owner.say("FLUSHALL")
                cluster.move(slot, owner, other)
                assert (await take(space, key, LIMITS)).left == (999,)
                claim = await space.claim(key, HOUR)
                assert await space.settle(key, claim.token, b"done", HOUR)
                assert await space.get(key) == b"done"

    run(main)


def _has(server: ValkeyServer, slot: int) -> bool:
    name = server.say("CLUSTER", "MYID")
    return any(
        first <= slot <= last and master[2] == name for first, last, master, *_ in server.say("CLUSTER", "SLOTS")
    )


def test_the_keys_of_a_server_that_has_ended_fail_and_those_of_others_do_not(cluster: Cluster) -> None:
    async def main() -> None:
        async with connected(cluster, timeout=1.0) as store:
            keys = [b"%d" % number for number in range(60)]
            for key in keys:
                assert await store.volatile.get(key) is None
            dead = cluster.servers[1]
            dead.kill()
            failed = 0
            for key in keys:
                try:
                    assert await store.volatile.get(key) is None
                except StoreUnavailable:
                    failed += 1
            assert 5 < failed < 55
            dead.start()
            left = set(keys)
            async with asyncio.timeout(DEADLINE):
                while left:
                    await asyncio.sleep(0)
                    for key in tuple(left):
                        try:
                            await store.volatile.get(key)
                        except StoreUnavailable:
                            break
                        left.remove(key)

    run(main)


def test_a_cluster_that_is_not_there_fails_requests_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            link = ClusterLink([Address("127.0.0.1", 1), Address("127.0.0.1", 2)], 0.2, SCRIPTS)
            store = RedisStore(link, tasks, space=ClusterSpace)
            began = loop.time()
            for _ in range(200):
                with pytest.raises(StoreUnavailable, match="no server of the cluster can be reached"):
                    await store.volatile.get(b"a")
            assert loop.time() - began < 2.0
            store.close()

    run(main)
    assert len(caplog.messages) == 1


def test_a_server_by_itself_is_no_cluster(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with ValkeyServer() as server:
            async with asyncio.TaskGroup() as tasks:
                link = ClusterLink([Address("127.0.0.1", server.port)], 5.0, SCRIPTS)
                store = RedisStore(link, tasks, space=ClusterSpace)
                with pytest.raises(StoreUnavailable):
                    await store.volatile.get(b"a")
                store.close()

    run(main)
    assert "cluster support disabled" in caplog.text
