"""What workers remember of requests, and what they see from now on, for those who ask at the agent's socket."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from portico.agent.workers import WorkerGone, WorkerLink, Workers
from portico.http.body import Trailers
from portico.runtime.protocol import Seek, Sought, Tail, Tailed, TailOver

SEEK_TIMEOUT: Final = 2.0
"""Seconds that a worker has to tell what it remembers."""
MOST_TAILS: Final = 16
"""How many may look on at a time, over all workers."""
WAITING: Final = 2000
"""Requests that wait for one who looks on to read of them; what would be more is counted, and not told."""
QUIET: Final = 10.0
"""Seconds after which one who looks on is sent an empty line, so that it can tell silence from the end."""

_NUMBERED: Final = re.compile(r"(\d{1,4})\.(\d{1,18})")
_STATUS: Final = re.compile(r"([1-5])xx|(\d{3})(?:-(\d{3}))?")
MOST_ID: Final = 256
"""Characters of an id that is looked for."""


class BadQuestion(Exception):
    """What is asked for makes no sense; the message says why."""


class Recalling:
    """Asks the workers of one gateway."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._tickets = itertools.count(1)
        self._tails: dict[int, Tailing] = {}

    async def why(self, wanted: str) -> dict[str, Any]:
        """Return what is remembered of the requests with an id, the newest first, and how many workers were asked.

        An id is a correlation id, that of a trace, or a worker's number, a full stop and the number of a request there.
        Raises BadQuestion.
        """
        if not wanted or len(wanted) > MOST_ID:
            raise BadQuestion("give an id: a correlation id, a trace id, or one such as 0.17 from portico tail")
        numbered = _NUMBERED.fullmatch(wanted)
        asked = [link for link in self._workers if numbered is None or link.slot == int(numbered[1])]
        sought = wanted if numbered is None else f"#{numbered[2]}"
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(link, sought), name="why") for link in asked]
        answers = [task.result() for task in tasks]
        found = [record for answer in answers for record in answer or ()]
        found.sort(key=lambda record: record["at"], reverse=True)
        return {"found": found, "asked": len(asked), "silent": answers.count(None)}

    async def _ask(self, link: WorkerLink, sought: str) -> list[dict[str, Any]] | None:
        """Return what one worker remembers; None where it does not answer."""
        ticket = next(self._tickets)
        try:
            said = await link.ask(
                Seek(ticket, sought), lambda said: isinstance(said, Sought) and said.ticket == ticket, SEEK_TIMEOUT
            )
        except (WorkerGone, TimeoutError):
            return None
        assert isinstance(said, Sought)
        return [_named(record, link) for record in said.found]

    def tail(self, query: str) -> Tailing:
        """Return what one who looks on reads, by a query such as `route=orders&status=5xx`. Raises BadQuestion."""
        if len(self._tails) >= MOST_TAILS:
            raise BadQuestion(f"{MOST_TAILS} look on already")
        order = _tail_of(next(self._tickets), query)
        tailing = self._tails[order.tail] = Tailing(order, self)
        for link in self._workers:
            link.tell(order)
        return tailing

    def over(self, order: Tail) -> None:
        """Have workers tell one of them no more."""
        if self._tails.pop(order.tail, None) is not None:
            for link in self._workers:
                link.tell(TailOver(order.tail))

    def greet(self, link: WorkerLink) -> None:
        """Have a worker that is new tell those who look on."""
        for tailing in self._tails.values():
            link.tell(tailing.order)

    def hear(self, link: WorkerLink, said: Any) -> None:
        """Take in what a worker says unasked."""
        if isinstance(said, Tailed):
            tailing = self._tails.get(said.tail)
            if tailing is not None:
                tailing.take([_named(record, link) for record in said.records], said.lost)

    def close(self) -> None:
        """End all of them."""
        for tailing in tuple(self._tails.values()):
            tailing.end()


class Tailing:
    """The content of an answer: a line of JSON for each request, and one with `lost` where there were more."""

    def __init__(self, order: Tail, recalling: Recalling) -> None:
        self.order = order
        self._recalling = recalling
        self._waiting: deque[dict[str, Any]] = deque()
        self._lost = 0
        self._news = asyncio.Event()
        self._over = False

    def take(self, records: list[dict[str, Any]], lost: int) -> None:
        """Have these read of, as far as there is room."""
        room = max(0, WAITING - len(self._waiting))
        self._waiting.extend(records[:room])
        self._lost += lost + len(records) - min(room, len(records))
        self._news.set()

    def end(self) -> None:
        """End it for whoever reads."""
        self._over = True
        self._news.set()

    async def read(self) -> bytes:
        """Return the next lines; an empty one after a while without any."""
        if not self._waiting and not self._lost and not self._over:
            self._news.clear()
            try:
                async with asyncio.timeout(QUIET):
                    await self._news.wait()
            except TimeoutError:
                return b"\n"
        if self._over:
            return b""
        lines = [orjson.dumps(record) for record in self._waiting]
        self._waiting.clear()
        if self._lost:
            lines.append(orjson.dumps({"lost": self._lost}))
            self._lost = 0
        return b"\n".join((*lines, b""))

    def trailers(self) -> Trailers:
        """Return none."""
        return []

    def close(self) -> None:
        """Look on no more."""
        self._recalling.over(self.order)


def _named(record: Mapping[str, Any], link: WorkerLink) -> dict[str, Any]:
    """Return what a worker says of a request, with a name that no other request of the gateway has."""
    return {"id": f"{link.slot}.{record['number']}", "worker": link.slot, "pid": link.pid, **record}


def _tail_of(tail: int, query: str) -> Tail:
    given = parse_qs(query, keep_blank_values=True)
    unknown = set(given) - {"route", "method", "status", "slow"}
    if unknown:
        raise BadQuestion(f"{min(unknown)} is nothing to choose by")
    try:
        slow = float(given.get("slow", ["0"])[0])
    except ValueError:
        raise BadQuestion("slow is a number of seconds") from None
    methods = [method.upper() for method in given.get("method", ())]
    return Tail(tail, given.get("route", []), methods, [_range(text) for text in given.get("status", ())], slow)


def _range(text: str) -> list[int]:
    """Return the lowest and the highest status that `5xx`, `404` or `400-499` stand for. Raises BadQuestion."""
    match = _STATUS.fullmatch(text)
    if match is None:
        raise BadQuestion(f"{text!r} is not a status: write 5xx, 404 or 400-499")
    if match[1]:
        return [int(match[1]) * 100, int(match[1]) * 100 + 99]
    return [int(match[2]), int(match[3] or match[2])]
