"""What the agent asks its workers of requests, and tells those who look on."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from portico.agent.page import control
from portico.agent.recalling import MOST_TAILS, WAITING, BadQuestion, Recalling, Tailing
from portico.agent.workers import WorkerLink, Workers
from portico.http.message import Request, Response
from portico.net.channel import Channel, Codec
from portico.runtime.protocol import KINDS, Seek, Sought, Tail, Tailed, TailOver
from portico.state.board import Board
from tests.harness.loop import run, until

CODEC = Codec(KINDS)


class Worker:
    """The other end of a link, which remembers what it was told."""

    def __init__(self, sock: socket.socket, remembers: list[dict[str, object]] | None) -> None:
        self.heard: list[Any] = []
        self._remembers = remembers
        self.channel = Channel(sock, CODEC, self._hear, lambda: None)

    def _hear(self, message: Any, _: tuple[int, ...]) -> None:
        self.heard.append(message)
        if isinstance(message, Seek) and self._remembers is not None:
            self.channel.send(Sought(message.ticket, self._remembers))


class World:
    def __init__(self, board: Board) -> None:
        self.workers = Workers(board, lambda _: None, self._said)
        self.recalling = Recalling(self.workers)
        self.others: list[Worker] = []

    def _said(self, link: WorkerLink, said: Any) -> None:
        self.recalling.hear(link, said)

    def meet(self, remembers: list[dict[str, object]] | None = None) -> Worker:
        here, there = socket.socketpair()
        slot = len(self.others)
        self.others.append(Worker(there, remembers))
        self.recalling.greet(self.workers.met(slot, 70 + slot, here))
        return self.others[-1]


@contextmanager
def world() -> Iterator[World]:
    file = Board.create(4)
    board = Board(file)
    made = World(board)
    try:
        yield made
    finally:
        made.workers.close()
        for each in made.others:
            each.channel.close()
        board.close()
        os.close(file)


def test_all_workers_are_asked_and_the_newest_comes_first() -> None:
    async def main() -> None:
        with world() as it:
            it.meet([{"number": 5, "at": 1.0}])
            it.meet([{"number": 9, "at": 2.0}])
            told = await it.recalling.why("an-id")
            assert [(each["id"], each["worker"], each["pid"]) for each in told["found"]] == [
                ("1.9", 1, 71), ("0.5", 0, 70)
            ]  # fmt: skip
            assert (told["asked"], told["silent"]) == (2, 0)
            assert [each.heard[0].wanted for each in it.others] == ["an-id", "an-id"]

    run(main)


def test_a_numbered_request_is_asked_of_its_worker_alone() -> None:
    async def main() -> None:
        with world() as it:
            it.meet([])
            it.meet([{"number": 17, "at": 1.0}])
            told = await it.recalling.why("1.17")
            assert [each["id"] for each in told["found"]] == ["1.17"]
            assert (it.others[0].heard, it.others[1].heard[0].wanted) == ([], "#17")

    run(main)


def test_a_worker_that_is_gone_hides_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.agent.recalling.SEEK_TIMEOUT", 0.05)

    async def main() -> None:
        with world() as it:
            it.meet([{"number": 5, "at": 1.0}])
            it.meet(None)  # it does not answer
            it.meet(None).channel.close()
            told = await it.recalling.why("an-id")
            assert [each["id"] for each in told["found"]] == ["0.5"]
            assert told["silent"] in (1, 2)  # the one that is gone may be none any more

    run(main)


@pytest.mark.parametrize("wanted", ["", "x" * 257])
def test_what_is_no_id_is_refused(wanted: str) -> None:
    async def main() -> None:
        with world() as it, pytest.raises(BadQuestion):
            await it.recalling.why(wanted)

    run(main)


def test_who_looks_on_reads_of_all_workers_also_those_that_come_later() -> None:
    async def main() -> None:
        with world() as it:
            first = it.meet()
            tailing = it.recalling.tail("route=a&status=5xx&status=404&status=200-299&method=get&slow=0.5")
            later = it.meet()
            await until(lambda: first.heard and later.heard)
            (order,) = first.heard
            assert order == Tail(order.tail, ["a"], ["GET"], [[500, 599], [404, 404], [200, 299]], 0.5)
            assert later.heard == [order]
            for each in (first, later):
                each.channel.send(Tailed(order.tail, [{"number": 1}], 0))
            seen: list[dict[str, Any]] = []
            while len(seen) < 2:
                seen += [json.loads(line) for line in (await tailing.read()).splitlines()]
            assert {each["id"] for each in seen} == {"0.1", "1.1"}
            tailing.close()
            await until(lambda: len(first.heard) == 2)
            assert first.heard[1] == TailOver(order.tail)
            first.channel.send(Tailed(order.tail, [{"number": 2}], 0))  # it had not heard yet
            await until(lambda: len(later.heard) == 2)

    run(main)


def test_who_reads_too_slowly_is_told_how_much_is_missing() -> None:
    async def main() -> None:
        with world() as it:
            it.meet()
            tailing = it.recalling.tail("")
            tailing.take([{"number": number} for number in range(WAITING - 1)], 3)
            tailing.take([{"number": number} for number in range(5)], 0)
            lines = (await tailing.read()).splitlines()
            assert len(lines) == WAITING + 1
            assert json.loads(lines[-1]) == {"lost": 3 + 4}

    run(main)


def test_silence_is_told_from_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.agent.recalling.QUIET", 0.01)

    async def main() -> None:
        with world() as it:
            tailing = it.recalling.tail("")
            assert await tailing.read() == b"\n"
            reading = asyncio.get_running_loop().create_task(tailing.read())
            it.recalling.close()
            assert await reading in (b"", b"\n")
            assert await tailing.read() == b""

    run(main)


@pytest.mark.parametrize("query", ["status=x", "status=6xx", "status=4", "slow=x", "colour=red"])
def test_what_nobody_can_choose_by_is_refused(query: str) -> None:
    async def main() -> None:
        with world() as it, pytest.raises(BadQuestion):
            it.recalling.tail(query)

    run(main)


def test_so_many_may_look_on_and_no_more() -> None:
    async def main() -> None:
        with world() as it:
            some: list[Tailing] = [it.recalling.tail("") for _ in range(MOST_TAILS)]
            with pytest.raises(BadQuestion):
                it.recalling.tail("")
            some[0].close()
            it.recalling.tail("")

    run(main)


def test_they_are_asked_over_http() -> None:
    async def main() -> None:
        with world() as it:
            it.meet([{"number": 5, "at": 1.0}])
            handler = control(None, None, None, None, None, it.recalling)  # type: ignore[arg-type]

            async def get(path: str, query: str | None) -> Response:
                return await handler(Request("GET", path, query))

            answer = await get("/why", "id=a%20b")
            assert json.loads(await answer.body.read(10_000))["found"][0]["id"] == "0.5"
            assert it.others[0].heard[0].wanted == "a b"
            assert (await get("/why", None)).status == 400
            assert (await get("/tail", "status=x")).status == 400
            answer = await get("/tail", None)
            assert (answer.status, answer.headers.get(b"content-type")) == (200, b"application/x-ndjson")
            answer.body.close()
            await until(lambda: isinstance(it.others[0].heard[-1], TailOver))

    run(main)
