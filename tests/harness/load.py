"""Steady load: clients that keep their connections and clients that make new ones, and what became of each request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from types import TracebackType
from typing import NamedTuple, Self

from tests.harness.gateway import DEADLINE, wait_for


class Took(NamedTuple):
    """One request: when it began, and what it took, in seconds."""

    at: float
    seconds: float


class Load:
    """Runs in a thread of its own while entered."""

    def __init__(
        self, port: int, path: str, *, method: str = "GET", kept: int = 8, fresh: int = 2, pause: float = 0.004
    ) -> None:
        self.took: list[Took] = []
        self.failures: list[str] = []
        self.answers: Counter[bytes] = Counter()
        """How often each body came."""
        self._port = port
        self._request = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n".encode()
        self.sent = 0
        """How many requests were begun; each has its number as `X-Id`."""
        self._kept, self._fresh, self._pause = kept, fresh, pause
        self._over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        self.some_more()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over = True
        self._thread.join(DEADLINE)

    def some_more(self, count: int = 200) -> None:
        """Wait until so many more requests were answered."""
        enough = len(self.took) + count
        wait_for(lambda: len(self.took) >= enough or self.failures, "more answers")

    def ended(self, count: int) -> None:
        """Wait until so many more requests have come to an end, whatever it was."""
        enough = len(self.took) + len(self.failures) + count
        wait_for(lambda: len(self.took) + len(self.failures) >= enough, "more requests to end")

    def quantile(self, share: float, begin: float, end: float) -> float:
        """Return what `share` of the requests that began between two times took at most."""
        seconds = sorted(took.seconds for took in self.took if begin <= took.at < end)
        return seconds[min(len(seconds) - 1, int(len(seconds) * share))]

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(self._kept):
                clients.create_task(self._client(b"\r\n", keep=True))
            for _ in range(self._fresh):
                clients.create_task(self._client(b"Connection: close\r\n\r\n", keep=False))

    async def _client(self, end: bytes, *, keep: bool) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._over:
            began = time.perf_counter()
            try:
                async with asyncio.timeout(DEADLINE):
                    connection = connection or await asyncio.open_connection("127.0.0.1", self._port)
                    self.sent += 1
                    connection[1].write(self._request + b"X-Id: %d\r\n" % self.sent + end)
                    goes_on = await self._answer(connection[0])
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self.failures.append(f"{type(error).__name__}: {error} ({'kept' if keep else 'new'} connection)")
                goes_on = False
            else:
                self.took.append(Took(began, time.perf_counter() - began))
            if not goes_on and connection is not None:
                connection[1].close()
                connection = None
            await asyncio.sleep(self._pause)
        if connection is not None:
            connection[1].close()

    async def _answer(self, reader: asyncio.StreamReader) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200 "):
            raise ValueError(head.split(b"\r\n")[0].decode())
        size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.answers[await reader.readexactly(size)] += 1
        return b"connection: close" not in head
