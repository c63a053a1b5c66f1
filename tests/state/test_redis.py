"""The store in a Redis: its script beside the arithmetic, and a server that dies, stands still, forgets, or says no."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from portico.errors import StoreUnavailable
from portico.state.board import Counter
from portico.state.holders import MOST
from portico.state.limits import FixedWindow, Limit, Limits, Rate, Total, Verdict
from portico.state.link import Address, Link
from portico.state.memory import MemorySpace
from portico.state.redis import SCRIPTS, RedisStore
from portico.state.sentinel import Sentinels
from tests.harness.certificates import Authority
from tests.harness.loop import DEADLINE, run, until
from tests.harness.valkey import Sentinel, ValkeyServer
from tests.state.stores import Wall, hold, take, valkey_store
from tests.state.test_holders import WORDS
from tests.state.test_limits import LIMITS as ANY_LIMITS

LIMITS = Limits([FixedWindow(1_000_000, 10**7)])
HOUR = 3600.0


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="module")
def one_for_all() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@asynccontextmanager
async def connected(server: ValkeyServer, **more: Any) -> AsyncIterator[RedisStore]:
    async with asyncio.TaskGroup() as tasks:
        store = valkey_store(server, tasks, **more)
        try:
            yield store
        finally:
            store.close()


def told(verdict: Verdict) -> tuple[object, ...]:
    return verdict.allowed, verdict.waits, verdict.left, verdict.resets, verdict.backlogs


STEPS = st.lists(
    st.tuples(
        st.integers(-2_000_000, 4_000_000), st.integers(0, 9), st.sampled_from([b"a", b"b"]), st.sampled_from([0, 0, 1])
    ),
    max_size=25,
)
"""Microseconds that pass, a cost, a key, and whether it is charged."""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY_LIMITS, STEPS)
@example([Rate(1, 0.5)], [(0, 0, b"a", 1), (-1, 0, b"a", 0)])
def test_the_script_comes_to_what_the_arithmetic_comes_to(
    one_for_all: ValkeyServer, limits: list[Limit], steps: list[tuple[int, int, bytes, int]]
) -> None:
    async def main() -> None:
        one_for_all.say("FLUSHALL")
        wall = Wall()
        here = MemorySpace(wall)
        together = Limits(limits)
        async with connected(one_for_all, wall=wall) as store:
            for step, cost, key, charged in steps:
                wall.now += step / 1_000_000
                there = store.volatile.charge if charged else store.volatile.take
                mine = here.charge if charged else here.take
                spent = cost - 4 if charged else cost  # what is charged may be given back
                assert told(await there(key, together, spent)) == told(mine(key, together, spent))

    run(main)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WORDS, st.sampled_from([0.5, 3.0, 6.0]))
def test_the_script_of_holders_comes_to_what_the_arithmetic_comes_to(
    one_for_all: ValkeyServer, words: list[tuple[int, bytes, int, int, int]], ttl: float
) -> None:
    async def main() -> None:
        one_for_all.say("FLUSHALL")
        wall = Wall()
        here = MemorySpace(wall)
        async with connected(one_for_all, wall=wall) as store:
            for passed, holder, count, wanted, most in words:
                wall.now += passed / 1_000_000
                said = (b"a", holder, count, wanted, most, ttl)
                assert await hold(store.volatile, *said) == await hold(here, *said)

    run(main)


def test_no_more_holders_are_kept_than_may_be(one_for_all: ValkeyServer) -> None:
    async def main() -> None:
        one_for_all.say("FLUSHALL")
        async with connected(one_for_all) as store:
            everyone = [hold(store.volatile, b"a", b"%08d" % number, 0, 1, 10**6) for number in range(MOST)]
            assert {each.granted for each in await asyncio.gather(*everyone)} == {1}
            assert (await hold(store.volatile, b"a", b"one-more", 3, 1, 10**6))[:2] == (0, MOST + 3)
            assert one_for_all.say("STRLEN", "portico:v:ha") == 24 * MOST

    run(main)


def test_a_record_of_holders_expires_with_the_last_of_them(server: ValkeyServer) -> None:
    async def main() -> None:
        async with connected(server) as store:
            await hold(store.volatile, b"a", b"12345678", 0, 1, 5, 2.0)
            assert 0 < server.say("PTTL", "portico:v:ha") <= 2000
            await hold(store.volatile, b"a", b"12345678", 0, 0, 5, 2.0)
            assert server.say("EXISTS", "portico:v:ha") == 0

    run(main)


def test_a_record_expires_when_it_can_be_forgotten(server: ValkeyServer) -> None:
    async def main() -> None:
        async with connected(server) as store:
            await take(store.volatile, b"a", Limits([Rate(10, 2.0)]))
            assert 0 < server.say("EVAL", "return redis.call('PTTL', redis.call('KEYS', '*')[1])", "0") <= 2000
            await store.volatile.put(b"v", b"x", HOUR)
            assert 3_500_000 < server.say("PTTL", "portico:v:vv") <= 3_600_000

    run(main)


def test_a_record_lives_as_long_as_what_was_charged_takes_to_come_back(server: ValkeyServer) -> None:
    async def main() -> None:
        async with connected(server) as store:
            lives = "return redis.call('PTTL', redis.call('KEYS', '*')[1])"
            await store.volatile.charge(b"a", Limits([Rate(10, 2.0), FixedWindow(1, 1.0)]), 100)
            assert 18_000 < server.say("EVAL", lives, "0") <= 20_000
            server.say("FLUSHALL")
            await store.durable.charge(b"a", Limits([Total(10, HOUR)]), 100)
            assert 3_590_000 < server.say("EVAL", lives, "0") <= 3_600_000

    run(main)


def test_a_record_that_would_outlive_all_times_is_kept(server: ValkeyServer) -> None:
    async def main() -> None:
        year = 366 * 86400.0
        async with connected(server) as store:
            assert (await take(store.volatile, b"a", Limits([Rate(1, year, 10**9)]))).left == (10**9 - 1,)
            owed = await store.volatile.charge(b"b", Limits([Rate(1, year)]), 10**12)
            assert (owed.allowed, owed.left) == (False, (0,))

    run(main)


def test_what_is_asked_in_one_turn_is_one_write(server: ValkeyServer) -> None:
    async def main() -> None:
        async with connected(server) as store:
            await store.volatile.get(b"a")
            before = _reads(server)
            await asyncio.gather(*(take(store.volatile, b"a", LIMITS) for _ in range(200)))
            assert _reads(server) - before <= 6  # it may come in pieces, and the questions are reads themselves

    run(main)


def _reads(server: ValkeyServer) -> int:
    (line,) = [line for line in server.say("INFO", "stats").splitlines() if line.startswith("total_reads_processed")]
    return int(line.partition(":")[2])


def test_a_server_that_is_killed_under_load_and_comes_back(
    server: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    failures = Counter.private()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        answers: list[bool] = []
        slowest = 0.0
        stopping = False

        async def client(store: RedisStore, key: bytes) -> None:
            nonlocal slowest
            while not stopping:
                began = loop.time()
                try:
                    assert (await take(store.volatile, key, LIMITS)).allowed
                except StoreUnavailable:
                    answers.append(False)
                    await asyncio.sleep(0.001)
                else:
                    answers.append(True)
                slowest = max(slowest, loop.time() - began)

        async with connected(server, timeout=0.5, failures=failures) as store, asyncio.TaskGroup() as clients:
            for number in range(50):
                clients.create_task(client(store, b"%d" % number))
            for _ in range(2):
                answers.clear()
                await until(lambda: answers.count(True) > 500, "answers")
                server.kill()
                await until(lambda: answers.count(False) > 100, "failures")
                server.start()
                answers.clear()
                await until(lambda: answers.count(True) > 500, "answers again")
            stopping = True
        assert slowest < 5.0

    run(main)
    assert failures.value > 200
    lost = [message for message in caplog.messages if "was lost" in message]
    assert len(lost) == 2
    assert len([message for message in caplog.messages if "answers again" in message]) == 2
    assert len(caplog.messages) == 4


def test_a_server_that_stands_still_fails_requests_in_time_and_is_given_up(
    server: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with connected(server, timeout=0.2) as store:
            await store.volatile.put(b"a", b"x", HOUR)
            server.stop()
            began = loop.time()
            with pytest.raises(StoreUnavailable, match=r"not answered within 0\.2 s"):
                await store.volatile.get(b"a")
            assert loop.time() - began < 2.0
            while not caplog.messages:
                await asyncio.sleep(0)
                with contextlib.suppress(StoreUnavailable):
                    await store.volatile.get(b"a")
            assert "it does not answer" in caplog.text
            server.go_on()
            assert await eventually(lambda: store.volatile.get(b"a")) == b"x"

    run(main)


async def eventually(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until the store answers."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await ask()
            except StoreUnavailable:
                await asyncio.sleep(0)


def test_answers_that_come_too_late_are_not_taken_for_others(server: ValkeyServer) -> None:
    async def main() -> None:
        async with connected(server, timeout=0.3) as store:
            await store.volatile.put(b"a", b"of a", HOUR)
            await store.volatile.put(b"b", b"of b", HOUR)
            server.stop()
            with pytest.raises(StoreUnavailable):
                await store.volatile.get(b"a")
            late = asyncio.ensure_future(store.volatile.get(b"b"))  # noqa: TID251
            await asyncio.sleep(0)
            server.go_on()
            assert await late == b"of b"

    run(main)


def test_while_nobody_listens_requests_fail_at_once(server: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    server.kill()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with connected(server, timeout=5.0) as store:
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                await store.volatile.get(b"a")  # the first of them waits for the first try to connect
            began = loop.time()
            for _ in range(1000):
                with pytest.raises(StoreUnavailable, match="cannot be reached"):
                    await store.volatile.get(b"a")
            assert loop.time() - began < 1.0
            server.start()
            assert await eventually(lambda: store.volatile.get(b"a")) is None
        assert len(caplog.messages) == 1

    run(main)


def test_a_server_that_has_forgotten_the_scripts_is_told_again(server: ValkeyServer) -> None:
    async def main() -> None:
        async with connected(server) as store:
            assert (await take(store.volatile, b"a", LIMITS)).allowed
            for _ in range(2):
                assert server.say("SCRIPT", "FLUSH") == "OK"
                verdicts = await asyncio.gather(*(take(store.volatile, b"a", LIMITS) for _ in range(10)))
                assert all(verdict.allowed for verdict in verdicts)
                assert server.say("SCRIPT", "FLUSH") == "OK"
                claim = await store.durable.claim(b"a", HOUR)
                assert claim.ours
                assert await store.durable.release(b"a", claim.token)
            assert (await take(store.volatile, b"a", LIMITS, 0)).left == (1_000_000 - 21,)

    run(main)


def test_what_a_server_says_no_to_is_the_stores_failure(server: ValkeyServer) -> None:
    async def main() -> None:
        async with connected(server) as store:
            server.say("LPUSH", "portico:v:va", "x")
            with pytest.raises(StoreUnavailable, match="refuses"):
                await store.volatile.get(b"a")
            with pytest.raises(StoreUnavailable, match="refuses"):
                await store.volatile.claim(b"a", HOUR)
            await store.volatile.put(b"a", b"x", HOUR)
            server.say("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(StoreUnavailable, match="OOM"):
                await store.volatile.put(b"b", b"x", HOUR)
            server.say("CONFIG", "SET", "maxmemory", "0")
            await store.volatile.put(b"b", b"x", HOUR)
            server.say("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(StoreUnavailable, match="READONLY"):
                await store.volatile.put(b"b", b"x", HOUR)
            server.say("REPLICAOF", "NO", "ONE")
            await eventually(lambda: store.volatile.put(b"b", b"x", HOUR))

    run(main)


@pytest.mark.parametrize(
    ("address", "works"),
    [
        ({"password": "sesame-123"}, True),
        ({"user": "default", "password": "sesame-123"}, True),
        ({"user": "ada", "password": "lovelace-456", "database": 3}, True),
        ({"password": "wrong-789"}, False),
        ({"user": "nobody", "password": "wrong-789"}, False),
        ({"password": "sesame-123", "database": 99}, False),
        ({}, False),
    ],
)
def test_who_is_let_in(address: dict[str, Any], works: bool, caplog: pytest.LogCaptureFixture) -> None:
    user = ("--user", "ada", "on", ">lovelace-456", "~*", "&*", "+@all")

    async def main() -> None:
        with ValkeyServer("--requirepass", "sesame-123", *user) as server:
            async with connected(server, address=address) as store:
                if works:
                    await store.volatile.put(b"a", b"x", HOUR)
                    assert await store.volatile.get(b"a") == b"x"
                else:
                    with pytest.raises(StoreUnavailable):
                        await store.volatile.get(b"a")

    run(main)
    assert len(caplog.messages) == (0 if works else 1)
    assert works or "does not let us in" in caplog.text
    for secret in ("sesame", "lovelace", "wrong"):
        assert secret not in caplog.text
    assert "sesame" not in repr(Address("a", 1, password="sesame-123"))


async def relay(server: ValkeyServer, context: ssl.SSLContext) -> asyncio.Server:
    """Speak TLS in front of a server that cannot."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)


def test_tls_is_spoken_and_the_certificate_is_looked_at(
    server: ValkeyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", "localhost"))

    async def main() -> None:
        front = await relay(server, context)
        port = front.sockets[0].getsockname()[1]
        for host, good in (("localhost", True), ("127.0.0.1", False)):
            async with asyncio.TaskGroup() as tasks:
                address = Address(host, port, tls=authority.client())
                store = RedisStore(Link(address, DEADLINE, SCRIPTS), tasks)
                try:
                    if good:
                        await store.volatile.put(b"a", b"x", HOUR)
                        assert (await take(store.volatile, b"a", LIMITS)).allowed
                    else:
                        with pytest.raises(StoreUnavailable):
                            await store.volatile.get(b"a")
                finally:
                    store.close()
        front.close()

    run(main)
    assert "certificate" in caplog.text.lower()


def test_what_is_no_redis_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
            writer.close()

        other = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = Address("127.0.0.1", other.sockets[0].getsockname()[1])
        async with asyncio.TaskGroup() as tasks:
            store = RedisStore(Link(address, DEADLINE, SCRIPTS), tasks)
            with pytest.raises(StoreUnavailable):
                await store.volatile.get(b"a")
            store.close()
        other.close()

    run(main)
    assert len(caplog.messages) == 1


def test_only_so_much_is_under_way(server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.state.link.WAITING", 20)

    async def main() -> None:
        async with connected(server) as store:
            await store.volatile.get(b"a")
            results = await asyncio.gather(*(store.volatile.get(b"a") for _ in range(30)), return_exceptions=True)
            assert [type(each) for each in results] == [type(None)] * 20 + [StoreUnavailable] * 10
            assert await store.volatile.get(b"a") is None

    run(main)


def test_only_so_many_bytes_are_under_way(server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.state.link.WAITING_BYTES", 1_000_000)

    async def main() -> None:
        async with connected(server) as store:
            for _ in range(2):  # before there is a connection, and over it
                puts = (store.volatile.put(b"%d" % number, b"x" * 100_000, HOUR) for number in range(30))
                results = await asyncio.gather(*puts, return_exceptions=True)
                assert [type(each) for each in results] == [type(None)] * 10 + [StoreUnavailable] * 20
                assert await store.volatile.get(b"9") == b"x" * 100_000

    run(main)


def test_tokens_of_a_server_that_has_lost_everything_are_new(server: ValkeyServer) -> None:
    async def main() -> None:
        async with connected(server) as store:
            first = await store.volatile.claim(b"a", HOUR)
            server.say("FLUSHALL")
            second = await store.volatile.claim(b"a", HOUR)
            assert second.token > first.token
            assert not await store.volatile.settle(b"a", first.token, b"x", HOUR)

    run(main)


def test_sentinels_say_which_server_it_is_and_after_a_failover_which_it_is_then(
    server: ValkeyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replica = ValkeyServer("--replicaof", "127.0.0.1", str(server.port), "--repl-diskless-sync-delay", "0")
    sentinel = Sentinel(tmp_path / "sentinel.conf", server)

    async def main() -> None:
        nobody = ("127.0.0.1", 1)
        found = Sentinels([nobody, ("127.0.0.1", sentinel.port)], None, Address("", 0), "mymaster")
        async with asyncio.TaskGroup() as tasks:
            store = RedisStore(Link(found.find, DEADLINE, SCRIPTS), tasks)
            try:
                assert (await take(store.durable, b"a", LIMITS)).allowed
                assert (await found.find()).port == server.port
                await until(lambda: "master_link_status:up" in replica.say("INFO", "replication"), "the replica")
                await until(lambda: "slaves=1" in sentinel.say("INFO", "sentinel"), "the Sentinel to know the replica")
                server.kill()
                assert (await eventually(lambda: take(store.durable, b"a", LIMITS))).allowed
                assert (await found.find()).port == replica.port
                assert (await take(store.durable, b"a", LIMITS, 0)).left[0] <= 1_000_000 - 1
            finally:
                store.close()

    with replica, sentinel:
        run(main)


def test_sentinels_that_know_nothing_are_told_of(tmp_path: Path, server: ValkeyServer) -> None:
    async def main() -> None:
        with Sentinel(tmp_path / "sentinel.conf", server) as sentinel:
            other = Sentinels([("127.0.0.1", sentinel.port)], None, Address("", 0), "another")
            with pytest.raises(StoreUnavailable, match="knows of another"):
                await other.find()
        with pytest.raises(StoreUnavailable, match="no Sentinel"):
            await other.find()

    run(main)
