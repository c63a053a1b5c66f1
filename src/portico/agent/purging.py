"""A purge, as the agent is asked for it: one worker carries it out, and the others know by the store and its stamps."""

from __future__ import annotations

import itertools
import logging
from functools import partial
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from portico.agent.workers import WorkerGone, WorkerLink, Workers
from portico.runtime.protocol import Purge, Purged
from portico.state.board import Vital

logger = logging.getLogger("portico.agent")

TIMEOUT: Final = 10.0
"""Seconds that a worker has; then another one is asked. To purge something twice does no harm."""

TRIES: Final = 3
"""Workers that are asked, at most."""

LARGEST: Final = 1024 * 1024
"""The most bytes of what is asked."""


class Wanted(BaseModel):
    """What is to be purged, as JSON says it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: list[str] = []
    tags: list[str] = []
    everything: bool = Field(default=False, alias="all")


class NotPurged(Exception):
    """Nothing was purged; the message says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        """As in HTTP."""


class Purging:
    """Has workers carry out purges."""

    def __init__(self, workers: Workers, timeout: float = TIMEOUT) -> None:
        self._workers = workers
        self._timeout = timeout
        self._tickets = itertools.count(1)

    async def purge(self, asked: bytes) -> Wanted:
        """Purge what a text of JSON asks for, and return what that was. Raises NotPurged."""
        try:
            wanted = Wanted.model_validate_json(asked)
        except ValidationError as error:
            whats = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}".lstrip(": ") for each in error.errors())
            raise NotPurged(400, "; ".join(whats)) from None
        told = await self._by_some_worker(wanted)
        if told.status != 200:
            raise NotPurged(told.status, told.why)
        what = "everything" if wanted.everything else f"{len(wanted.urls)} URLs, {len(wanted.tags)} tags"
        logger.info("purged: %s", what)
        return wanted

    async def _by_some_worker(self, wanted: Wanted) -> Purged:
        """Return what a worker has told, the liveliest first."""
        links: list[WorkerLink] = [link for link in self._workers if not link.draining]
        links.sort(key=lambda link: link.segment[Vital.BEAT], reverse=True)
        for link in links[:TRIES]:
            ticket = next(self._tickets)
            order = Purge(ticket, wanted.urls, wanted.tags, wanted.everything)
            try:
                told = await link.ask(order, partial(_is_about, ticket), self._timeout)
            except (WorkerGone, TimeoutError):
                continue
            assert isinstance(told, Purged)
            return told
        if not links:
            raise NotPurged(503, "no worker serves at the moment; try again")
        raise NotPurged(504, "no worker has answered in time, and so it may be purged or not; try again")


def _is_about(ticket: int, said: object) -> bool:
    return isinstance(said, Purged) and said.ticket == ticket
