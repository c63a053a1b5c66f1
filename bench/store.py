"""What the store costs by itself: `python -m bench.store`.

A check of one key with two limits, in microseconds: by one process, by two at once that are after the same lock, and by
200 tasks that ask one server of Valkey. CPU is that of the gateway's process alone. Shown are the median of many short
batches, and the least, which is what the machine can do while nobody else is at work on it.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from portico.state.limits import FixedWindow, Limits, Rate
from portico.state.link import Address, Link
from portico.state.lmdb import VolatileSpace, open_volatile
from portico.state.redis import SCRIPTS, RedisStore
from tests.harness.valkey import ValkeyServer

LIMITS = Limits([Rate(10**6, 1.0, 10**8), FixedWindow(10**9, 86400.0)])
SIZE = 32 * 1024 * 1024
BATCH = 100
SECONDS = 4.0
TASKS = 200


def batches(check: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Return the microseconds of each of many batches, by the clock and of CPU."""
    walls, cpus = [], []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        for _ in range(BATCH):
            check()
        cpus.append((time.thread_time_ns() - cpu) / BATCH / 1000)
        walls.append((time.perf_counter_ns() - wall) / BATCH / 1000)
    return walls, cpus


def told(what: str, walls: list[float], cpus: list[float]) -> str:
    return (
        f"{what:34} median {statistics.median(walls):5.2f} us, {statistics.median(cpus):5.2f} us of CPU;"
        f" least {min(walls):5.2f} us"
    )


def alone(space: VolatileSpace, what: str = "LMDB, one process") -> str:
    return told(what, *batches(lambda: space.take(b"192.0.2.7", LIMITS)))


def contend(folder: Path) -> list[str]:
    """Have two processes check the same key at once."""
    command = [sys.executable, "-m", "bench.store", str(folder)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for each in both:
        assert each.stdout is not None
        each.stdout.readline()
    for each in both:
        assert each.stdin is not None
        each.stdin.close()
    return [each.stdout.read().rstrip() for each in both if each.stdout is not None and each.wait() == 0]


async def valkey(server: ValkeyServer) -> str:
    loop = asyncio.get_running_loop()
    done = 0
    stopping = False
    async with asyncio.TaskGroup() as tasks:
        store = RedisStore(Link(Address("127.0.0.1", server.port), 10.0, SCRIPTS), tasks)
        await store.volatile.get(b"connected by now")

        async def client(key: bytes) -> None:
            nonlocal done
            while not stopping:
                await store.volatile.take(key, LIMITS)
                done += 1

        cpus, rates = [], []
        async with asyncio.TaskGroup() as clients:
            for number in range(TASKS):
                clients.create_task(client(b"192.0.2.%d" % number))
            end = loop.time() + SECONDS
            while loop.time() < end:
                cpu, wall, before = time.process_time_ns(), time.perf_counter(), done
                await asyncio.sleep(0.1)
                count = max(done - before, 1)
                cpus.append((time.process_time_ns() - cpu) / count / 1000)
                rates.append(count / (time.perf_counter() - wall))
            stopping = True
        store.close()
    return (
        f"{'Valkey, 200 tasks':34} median {statistics.median(cpus):5.2f} us of CPU, least {min(cpus):5.2f} us;"
        f" {statistics.median(rates):.0f} checks a second"
    )


def main() -> None:
    if len(sys.argv) > 1:
        space = open_volatile(Path(sys.argv[1]), SIZE)
        print("here", flush=True)
        sys.stdin.read()
        print(alone(space, "LMDB, one of two at once"))
        space.close()
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        space = open_volatile(Path(folder), SIZE)
        print(alone(space))
        space.close()
        print(*contend(Path(folder)), sep="\n")
    with ValkeyServer() as server:
        print(uvloop.run(valkey(server)))


if __name__ == "__main__":
    main()
