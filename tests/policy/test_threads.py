from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from portico.plugin import Threads, TooManyCalls


def test_so_many_at_once_and_so_many_that_wait() -> None:
    async def main() -> None:
        threads, loop = Threads(2, 1, "test"), asyncio.get_running_loop()
        begun, go_on = threading.Semaphore(0), threading.Event()

        def work(number: int) -> tuple[int, str]:
            begun.release()
            assert go_on.wait(30)
            return number, threading.current_thread().name

        calls = [loop.run_in_executor(threads, work, number) for number in range(3)]
        for _ in range(2):
            assert begun.acquire(timeout=30)
        assert not begun.acquire(blocking=False)  # the third waits
        with pytest.raises(TooManyCalls):
            loop.run_in_executor(threads, work, 3)
        go_on.set()
        found = await asyncio.gather(*calls)
        assert [number for number, _ in found] == [0, 1, 2]
        assert {name for _, name in found} <= {"test-1", "test-2"}
        assert (await loop.run_in_executor(threads, work, 4))[0] == 4
        threads.close()
        with pytest.raises(TooManyCalls):
            loop.run_in_executor(threads, work, 5)

    asyncio.run(main())


def test_a_machine_that_has_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        threads, loop = Threads(1, 1, "test"), asyncio.get_running_loop()
        for _ in range(5):
            with monkeypatch.context() as fault:
                fault.setattr(threading.Thread, "start", fails)
                with pytest.raises(TooManyCalls):
                    loop.run_in_executor(threads, int)
        assert await asyncio.wait_for(loop.run_in_executor(threads, int), 30) == 0
        threads.close()

    asyncio.run(main())


def test_who_leaves_makes_room_unless_it_has_begun() -> None:
    async def main() -> None:
        threads, loop = Threads(1, 1, "test"), asyncio.get_running_loop()
        begun, go_on, made = threading.Event(), threading.Event(), []

        def work(number: int) -> None:
            made.append(number)
            begun.set()
            assert go_on.wait(30)

        first = loop.run_in_executor(threads, work, 1)
        assert begun.wait(30)
        loop.run_in_executor(threads, work, 2).cancel()
        await asyncio.sleep(0)
        last = loop.run_in_executor(threads, work, 3)
        first.cancel()
        await asyncio.sleep(0)
        with pytest.raises(TooManyCalls):
            loop.run_in_executor(threads, work, 4)
        go_on.set()
        await last
        assert made == [1, 3]
        threads.close()

    asyncio.run(main())


def test_what_is_raised_is_for_who_waits() -> None:
    def fails(error: type[BaseException]) -> None:
        raise error

    async def main() -> None:
        threads, loop = Threads(1, 1, "test"), asyncio.get_running_loop()
        for error in (ZeroDivisionError, SystemExit):
            with pytest.raises(error):
                await asyncio.wrap_future(threads.submit(fails, error))
        same: Callable[[], int] = threading.get_ident
        assert await loop.run_in_executor(threads, same) == await loop.run_in_executor(threads, same)
        threads.close()

    asyncio.run(main())


def test_what_hangs_keeps_no_process_from_its_end() -> None:
    code = "import threading; from portico.plugin import Threads; Threads(1, 1, 'a').submit(threading.Event().wait)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
