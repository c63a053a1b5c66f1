"""The workers, as the agent sees them: a channel to each, and answers to what it is asked."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from portico.net.channel import Channel, Codec, close_all
from portico.runtime.protocol import KINDS, Report, Reported
from portico.state.board import Board, Segment, Vital

logger = logging.getLogger("portico.agent")

CODEC: Final = Codec(KINDS)

REPORT_TIMEOUT: Final = 1.0
"""Seconds that a worker has to tell how it is."""


class WorkerGone(Exception):
    """A worker has ended, or stopped listening, before it answered."""


def _nothing(link: WorkerLink, said: Any) -> None:
    """Do nothing with what nobody waits for."""


class WorkerLink:
    """One worker."""

    def __init__(
        self,
        slot: int,
        pid: int,
        sock: socket.socket,
        segment: Segment,
        on_lost: Callable[[WorkerLink], None],
        on_said: Callable[[WorkerLink, Any], None] = _nothing,
    ) -> None:
        """Call `on_lost` where the channel ends that nobody here has closed, and `on_said` with what nobody waits
        for."""
        self._on_lost = on_lost
        self._on_said = on_said
        self.slot = slot
        self.pid = pid
        self.segment = segment
        self._channel = Channel(sock, CODEC, self._heard, self._cut)
        self._waiting: list[tuple[Callable[[Any], bool], asyncio.Future[Any]]] = []
        self._tickets = itertools.count(1)

    @property
    def revision(self) -> int:
        """The revision of the configuration that it serves."""
        return self.segment[Vital.REVISION]

    @property
    def draining(self) -> bool:
        """Whether it takes no more clients, nor orders."""
        return self.segment[Vital.DRAINING] != 0

    def tell(self, message: Any) -> None:
        """Send a message that needs no answer."""
        self._channel.send(message)

    async def room(self) -> bool:
        """Wait until little is left of what it was told before; tell whether it is still there."""
        return await self._channel.room()

    async def ask(
        self, message: Any, answers: Callable[[Any], bool], within: float, descriptors: Sequence[int] = ()
    ) -> Any:
        """Send a message, and return the first one for which `answers` is true. Raises WorkerGone and TimeoutError."""
        if self._channel.closed:
            raise WorkerGone(f"worker {self.slot} is gone")
        waiting = (answers, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            self._channel.send(message, descriptors)
            async with asyncio.timeout(within):
                return await waiting[1]
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    async def report(self) -> dict[str, object]:
        """Return what it tells of itself; nothing where it does not answer in time."""
        ticket = next(self._tickets)
        try:
            answer = await self.ask(
                Report(ticket), lambda said: isinstance(said, Reported) and said.ticket == ticket, REPORT_TIMEOUT
            )
        except (WorkerGone, TimeoutError):
            return {}
        assert isinstance(answer, Reported)
        return answer.state

    def lost(self) -> None:
        """End everything that waits for an answer."""
        self._channel.close()
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(WorkerGone(f"worker {self.slot} is gone"))

    def _cut(self) -> None:
        self.lost()
        self._on_lost(self)

    def _heard(self, message: Any, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)
        for waiting in self._waiting:
            answers, future = waiting
            if not future.done() and answers(message):
                self._waiting.remove(waiting)
                future.set_result(message)
                return
        self._on_said(self, message)


class Workers:
    """Those that serve, by slot."""

    def __init__(
        self,
        board: Board,
        on_cut: Callable[[WorkerLink], None],
        on_said: Callable[[WorkerLink, Any], None] = _nothing,
    ) -> None:
        """Call `on_cut` with a worker that is not heard any more, and may not have ended; and `on_said` with what a
        worker says unasked."""
        self._board = board
        self._on_said = on_said
        self._on_cut = on_cut
        self._links: dict[int, WorkerLink] = {}

    def __iter__(self) -> Any:
        return iter(tuple(self._links.values()))

    def __len__(self) -> int:
        return len(self._links)

    def met(self, slot: int, pid: int, sock: socket.socket) -> WorkerLink:
        """Take in a worker that serves."""
        self.gone(slot)
        link = self._links[slot] = WorkerLink(slot, pid, sock, self._board.segment(1 + slot), self._lost, self._on_said)
        return link

    def gone(self, slot: int) -> None:
        """Strike a worker that has ended."""
        link = self._links.pop(slot, None)
        if link is not None:
            link.lost()

    def _lost(self, link: WorkerLink) -> None:
        if self._links.get(link.slot) is link:
            del self._links[link.slot]
            self._on_cut(link)

    def close(self) -> None:
        """Hear none of them any more."""
        for slot in tuple(self._links):
            self.gone(slot)
