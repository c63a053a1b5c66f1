"""What one worker is still to be told of targets: which services, not in which words, and no faster than it listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from portico.runtime.protocol import UpstreamOver

logger = logging.getLogger("portico.agent")


class Listener(Protocol):
    """A worker, as far as it is told something."""

    def tell(self, message: Any) -> None:
        """Send a message that needs no answer."""
        ...

    async def room(self) -> bool:
        """Wait until little is left of what it was told before; tell whether it is still there."""
        ...


@dataclass(slots=True)
class Owed:
    """What a worker does not know yet of a service."""

    everything: bool = False
    verdicts: set[str] = field(default_factory=set)
    """The targets of which something new is known; of no meaning where everything is new."""

    def add(self, other: Owed) -> None:
        """Owe that as well."""
        self.everything = self.everything or other.everything
        self.verdicts |= other.verdicts


class Subject(Protocol):
    """A service that workers are told of."""

    name: str
    closed: bool
    """Whether nobody attends to it any more."""

    def messages(self, owed: Owed) -> Iterator[Any]:
        """Yield what is to be said."""
        ...


class Telling:
    """Tells one worker. What is new of a service while the worker does not listen is told once, as it is by then."""

    def __init__(self, worker: Listener, tasks: asyncio.TaskGroup) -> None:
        self._worker = worker
        self._tasks = tasks
        self._owed: dict[Subject | UpstreamOver, Owed] = {}
        self._task: asyncio.Task[None] | None = None

    def owe(self, subject: Subject, owed: Owed) -> None:
        """Tell of a service, after what is to be told already."""
        self._owed.setdefault(subject, Owed()).add(owed)
        self._begin()

    def over(self, subject: Subject, said: UpstreamOver) -> None:
        """Tell that nothing more will be said of a service."""
        self._owed.pop(subject, None)
        self._owed[said] = Owed()
        self._begin()

    def close(self) -> None:
        """Tell nothing any more."""
        self._owed.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _begin(self) -> None:
        if self._task is None:
            self._task = self._tasks.create_task(self._run(), name="telling")

    async def _run(self) -> None:
        try:
            while self._owed:
                subject = next(iter(self._owed))
                owed = self._owed.pop(subject)
                if isinstance(subject, UpstreamOver):
                    await self._tell(subject)
                else:
                    await self._tell_of(subject, owed)
        except ConnectionError:
            self._owed.clear()  # a worker that is met again is told everything
        finally:
            self._task = None

    async def _tell_of(self, subject: Subject, owed: Owed) -> None:
        try:
            for message in subject.messages(owed):
                await self._tell(message)
                if subject.closed:
                    return
        except ConnectionError:
            raise
        except Exception:  # a task of the agent's: what is to be said of other services is not lost
            logger.exception("service %s: a worker cannot be told of its targets", subject.name)

    async def _tell(self, message: Any) -> None:
        if not await self._worker.room():
            raise ConnectionAbortedError
        self._worker.tell(message)
        await asyncio.sleep(0)  # packing many targets must not keep the loop
