"""Lines to a collector over HTTP."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from portico.errors import PorticoError
from portico.exporters.access_log.files import LONGEST_LINE
from portico.exporters.posting import post
from portico.http.headers import Headers
from portico.http.message import Handler

TRIES: Final = 3
"""How often lines are sent that the collector does not take."""
PAUSE: Final = 0.5
"""Seconds before they are sent again; twice as many the next time."""
LARGEST: Final = 1024 * 1024
"""Bytes of lines that are sent at once."""

_AGAIN: Final = frozenset((408, 425, 429))
"""Statuses below 500 after which the same may be taken later."""


class CollectorWay:
    """Sends lines by POST, one request after the other, while there are any.

    The work begins with the first line and ends with the last, so whoever waits for it at the end waits for all lines.
    """

    def __init__(
        self,
        handler: Handler,
        path: str,
        headers: Headers,
        *,
        batch: int,
        linger: float,
        timeout: float,
        most: int,
        clock: Callable[[], float],
        begin: Callable[[Coroutine[Any, Any, None]], None],
        ended: Callable[[], None],
        lost: Callable[[int, str], None],
    ) -> None:
        """`most` bytes of lines may wait; `begin` does work that is to come to its end, and `ended` is told when
        there will be no more of it."""
        self.longest = LONGEST_LINE
        self._handler = handler
        self._path = path
        self._headers = headers
        self._batch = batch
        self._linger = linger
        self._timeout = timeout
        self._most = most
        self._clock = clock
        self._begin = begin
        self._ended = ended
        self._lost = lost
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._at_work = False
        self._enough = asyncio.Event()
        self._closed = False

    def send(self, lines: list[str]) -> int:
        """Take lines."""
        refused = 0
        for line in lines:
            data = f"{line}\n".encode("utf-8", "backslashreplace")
            if self._bytes + len(data) > self._most or self._closed:
                refused += 1
            else:
                self._waiting.append(data)
                self._bytes += len(data)
        if len(self._waiting) >= self._batch:
            self._enough.set()
        if self._waiting and not self._at_work:
            self._at_work = True
            self._begin(self._work())
        return refused

    def reopen(self) -> None:
        """Do nothing: there is no file."""

    def close(self) -> None:
        """Take no more lines."""
        self._closed = True
        self._enough.set()
        if not self._at_work:
            self._ended()

    @property
    def over(self) -> bool:
        """Whether all is sent, after `close`."""
        return not self._at_work

    def finish(self, seconds: float) -> int:
        """Return how many lines were not sent."""
        left = len(self._waiting)
        self._waiting.clear()
        return left

    async def _work(self) -> None:
        try:
            while self._waiting:
                if len(self._waiting) < self._batch and not self._closed:
                    self._enough.clear()
                    try:
                        async with asyncio.timeout(self._linger):
                            await self._enough.wait()
                    except TimeoutError:
                        pass
                await self._send_some()
        finally:
            self._at_work = False
            if self._closed:
                self._ended()

    async def _send_some(self) -> None:
        """Send what is at the head of the queue, which it leaves only when that is over."""
        lines, size = 0, 0
        for line in self._waiting:
            if lines == self._batch or (lines and size + len(line) > LARGEST):
                break
            lines += 1
            size += len(line)
        content = b"".join([self._waiting[at] for at in range(lines)])
        why = await self._delivered(content)
        for _ in range(min(lines, len(self._waiting))):
            self._bytes -= len(self._waiting.popleft())
        if why:
            self._lost(lines, why)

    async def _delivered(self, content: bytes) -> str:
        """Send some lines, again where that may help; return an empty text, or why they were not taken."""
        why = ""
        for number in range(TRIES):
            if number:
                await asyncio.sleep(PAUSE * 2 ** (number - 1))
            try:
                async with asyncio.timeout(self._timeout):
                    deadline = self._clock() + self._timeout
                    status = (await post(self._handler, self._path, self._headers, content, deadline)).status
            except TimeoutError:
                why = "the collector does not answer"
            except PorticoError as error:
                why = f"the collector does not answer: {error}"
            else:
                if 200 <= status < 300:
                    return ""
                why = f"the collector answers {status}"
                if status < 500 and status not in _AGAIN:
                    break
        return why
