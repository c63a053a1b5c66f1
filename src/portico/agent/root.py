"""The agent's side of the conversation with the supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from portico.agent.workers import CODEC
from portico.net.channel import Channel, close_all
from portico.runtime.protocol import (
    Plan,
    ReloadWanted,
    Remembered,
    SlotSockets,
    WantSockets,
    WorkerGone,
    WorkerReady,
)

logger = logging.getLogger("portico.agent")

TIMEOUT = 10.0
"""Seconds that the supervisor has for an answer."""


class Supervisor:
    """The supervisor: what it says is handed on, what it is asked is answered."""

    plan: Plan
    snapshot: int

    def __init__(
        self,
        control: socket.socket,
        *,
        on_worker: Callable[[WorkerReady, socket.socket], None],
        on_gone: Callable[[WorkerGone], None],
        on_reload: Callable[[ReloadWanted], None],
        on_lost: Callable[[], None],
        speak: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """`speak` has this process log in a format and from a level on."""
        self._speak = speak
        self._on_worker = on_worker
        self._on_gone = on_gone
        self._on_reload = on_reload
        self._on_lost = on_lost
        self._channel = Channel(control, CODEC, self._heard, on_lost)
        self._asked: tuple[tuple[type, ...], asyncio.Future[Any]] | None = None
        self._turn = asyncio.Lock()
        self._sockets: dict[int, dict[int, int]] = {}
        self.remembered = ""
        """What the agent before this one has left."""
        self.standing = asyncio.Event()
        """Set once it is known what stands."""

    def tell(self, message: Any) -> None:
        """Send a message that needs no answer."""
        self._channel.send(message)

    async def ask(self, message: Any, answers: tuple[type, ...], descriptors: Sequence[int] = ()) -> Any:
        """Send a message, and return the answer that is of one of these kinds. Raises TimeoutError.

        A supervisor that did not answer in time is taken for lost: its answer would be taken for that to the next
        question, and what stands is not known any more.
        """
        async with self._turn:
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._asked = answers, future
            try:
                self._channel.send(message, descriptors)
                async with asyncio.timeout(TIMEOUT):
                    return await future
            except TimeoutError:
                self._on_lost()
                raise
            finally:
                self._asked = None

    async def sockets_of(self, slot: int) -> dict[int, int]:
        """Return the descriptors of all sockets of a worker, by door; they are the caller's to close."""
        await self.ask(WantSockets(slot), (SlotSockets,))
        return self._sockets.pop(slot, {})

    def take_sockets(self) -> dict[int, dict[int, int]]:
        """Return the descriptors that came since the last time, by slot and door; they are the caller's to close."""
        sockets, self._sockets = self._sockets, {}
        return sockets

    def adopted(self, plan: Plan, snapshot: int) -> None:
        """Note what stands now."""
        os.close(self.snapshot)
        self.plan, self.snapshot = plan, snapshot
        self._speak(*plan.log)

    def close(self) -> None:
        """Hear nothing any more."""
        self._channel.close()
        for sockets in self.take_sockets().values():
            close_all(sockets.values())

    def _heard(self, message: Any, descriptors: tuple[int, ...]) -> None:
        match message:
            case Plan() if len(descriptors) == 1:
                self.plan, self.snapshot = message, descriptors[0]
                self._speak(*message.log)
                self.standing.set()
                return
            case WorkerReady() if len(descriptors) == 1:
                self._on_worker(message, socket.socket(fileno=descriptors[0]))
                return
            case SlotSockets():
                close_all(self._sockets.get(message.slot, {}).values())
                self._sockets[message.slot] = dict(zip(message.doors, descriptors, strict=True))
                descriptors = ()
            case WorkerGone():
                self._on_gone(message)
            case ReloadWanted():
                self._on_reload(message)
            case Remembered():
                self.remembered = message.text
            case _:
                pass
        close_all(descriptors)
        if self._asked is not None and isinstance(message, self._asked[0]) and not self._asked[1].done():
            self._asked[1].set_result(message)
