"""Sends spans to a collector: by OTLP over HTTP, in batches, and never at the cost of a request.

What a collector does not take in time is lost, and counted; after that it is left alone for a while, longer each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import orjson

from portico.errors import PorticoError
from portico.exporters.posting import post
from portico.exporters.spans import Ended, payload
from portico.http.headers import Headers, Pair
from portico.http.message import Handler
from portico.state.slots import Counter

logger = logging.getLogger("portico.traces")

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds that a collector is left alone after a failure, the first time and at most."""
_SUCCESS: Final = range(200, 300)


class Collector:
    """Where the spans of one configuration go."""

    def __init__(
        self,
        handler: Handler,
        path: str,
        headers: Sequence[Pair],
        resource: Mapping[str, str],
        *,
        batch: int,
        queue: int,
        interval: float,
        timeout: float,
        begin: Callable[[Coroutine[Any, Any, None], str], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        exported: Counter,
        lost: Counter,
    ) -> None:
        """`begin` begins work that is to come to its end, which it does within `interval` and `timeout`."""
        self._handler = handler
        self._path = path
        self._headers = Headers([(b"Content-Type", b"application/json"), *headers])
        self._resource = resource
        self._batch = batch
        self._most = queue
        self._interval = interval
        self._timeout = timeout
        self._begin = begin
        self._clock = clock
        self._wall = wall
        self._exported = exported
        self._lost = lost
        self._queue: deque[Ended] = deque()
        self._sending = False
        self._full = asyncio.Event()
        self._pause = FIRST_PAUSE
        self._not_before = 0.0

    def add(self, ended: Ended) -> None:
        """Have the spans of an exchange sent, if there is room."""
        if len(self._queue) >= self._most:
            self._lost.add()
            return
        self._queue.append(ended)
        if len(self._queue) >= self._batch:
            self._full.set()
        if not self._sending and self._clock() >= self._not_before:
            self._sending = True
            self._begin(self._send_all(), "traces")

    def close(self) -> None:
        """Give up what waits still."""
        self._lost.add(len(self._queue))
        self._queue.clear()

    async def _send_all(self) -> None:
        """Send what there is, once some of it has come together, until nothing is left or the collector fails."""
        try:
            await self._gather()
            while self._queue:
                count = min(self._batch, len(self._queue))
                batch = [self._queue.popleft() for _ in range(count)]
                self._full.clear()
                if not await self._send(batch):
                    return
        finally:
            self._sending = False

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(self._interval):
                await self._full.wait()
        except TimeoutError:
            pass

    async def _send(self, batch: Sequence[Ended]) -> bool:
        """Send some; return whether there is a point in sending more."""
        trouble = ""
        try:
            async with asyncio.timeout(self._timeout):
                trouble = await self._post(batch)
        except TimeoutError:
            trouble = "no answer in time"
        except PorticoError as error:
            trouble = str(error) or type(error).__name__
        except BaseException:
            self._lost.add(len(batch))
            raise
        if not trouble:
            self._exported.add(len(batch))
            self._pause = FIRST_PAUSE
            return True
        self._lost.add(len(batch))
        logger.warning(
            "the traces of %d requests are lost: %s; the next ones are sent in %.0f s", len(batch), trouble, self._pause
        )
        self._not_before = self._clock() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return False

    async def _post(self, batch: Sequence[Ended]) -> str:
        """Return why the collector has not taken a batch; an empty text where it has."""
        content = orjson.dumps(payload(batch, self._resource, self._wall() - self._clock()))
        response = await post(self._handler, self._path, self._headers, content, self._clock() + self._timeout)
        problem = response.problem_value
        if problem is not None:
            return problem.title or problem.type
        return "" if response.status in _SUCCESS else f"status {response.status}"
