"""Which worker is asked to purge something, and what becomes of one that does not answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from portico.agent.purging import TRIES, NotPurged, Purging
from portico.agent.workers import CODEC, Workers
from portico.net.channel import Channel
from portico.runtime.protocol import Purge, Purged
from portico.state.board import Board, Vital
from tests.harness.loop import run_jumping

Answer = Callable[[Purge], Purged | None]


def well(order: Purge) -> Purged:
    return Purged(order.ticket, 200, "")


def silent(_: Purge) -> None:
    return None


class World:
    """Workers, each with an answer to what it is asked; the one of the first was seen alive last."""

    def __init__(self, board: Board, answers: tuple[Answer, ...]) -> None:
        self.asked: list[int] = []
        self.orders: list[Purge] = []
        self.channels: list[Channel] = []
        self.board = board
        self.workers = Workers(board, lambda _: None)
        for slot, answer in enumerate(answers):
            ours, theirs = socket.socketpair()
            board.segment(1 + slot)[Vital.BEAT] = 1000 - slot
            self.workers.met(slot, 70 + slot, ours)
            self.channels.append(Channel(theirs, CODEC, self._hears(slot, answer), lambda: None))

    def _hears(self, slot: int, answer: Answer) -> Callable[[object, tuple[int, ...]], None]:
        def heard(order: object, descriptors: tuple[int, ...]) -> None:
            assert isinstance(order, Purge)
            self.asked.append(slot)
            self.orders.append(order)
            said = answer(order)
            if said is not None:
                self.channels[slot].send(said)

        return heard


@contextmanager
def a_world(*answers: Answer) -> Iterator[World]:
    file = Board.create(8)
    board = Board(file)
    world = World(board, answers)
    try:
        yield world
    finally:
        world.workers.close()
        for channel in world.channels:
            channel.close()
        board.close()
        os.close(file)


def within(*answers: Answer) -> Callable[[Callable[[World, Purging], Awaitable[None]]], None]:
    """Run a test among workers, on a loop whose clock jumps."""

    def decorated(test: Callable[[World, Purging], Awaitable[None]]) -> None:
        async def main() -> None:
            with a_world(*answers) as world:
                await test(world, Purging(world.workers))

        run_jumping(main)

    return decorated


def test_one_worker_is_asked_the_liveliest() -> None:
    @within(well, well)
    async def test(world: World, purging: Purging) -> None:
        wanted = await purging.purge(b'{"urls": ["http://a/"], "tags": ["b"]}')
        assert (wanted.urls, wanted.tags, wanted.everything) == (["http://a/"], ["b"], False)
        world.board.segment(2)[Vital.BEAT] = 2000
        await purging.purge(b'{"all": true}')
        assert world.asked == [0, 1]
        first, second = world.orders
        assert (first.urls, first.tags, first.everything) == (["http://a/"], ["b"], False)
        assert (second.urls, second.tags, second.everything) == ([], [], True)


def test_who_is_silent_is_not_waited_for_and_who_drains_is_not_asked() -> None:
    @within(silent, silent, well)
    async def test(world: World, purging: Purging) -> None:
        await purging.purge(b'{"all": true}')
        assert world.asked == [0, 1, 2]
        world.board.segment(1)[Vital.DRAINING] = world.board.segment(2)[Vital.DRAINING] = 1
        await purging.purge(b'{"all": true}')
        assert world.asked == [0, 1, 2, 2]


def test_who_ends_meanwhile_is_followed_by_another() -> None:
    @within(silent, well)
    async def test(world: World, purging: Purging) -> None:
        world.channels[0].close()
        await purging.purge(b'{"all": true}')
        assert world.asked[-1:] == [1]


def test_so_many_are_asked_and_no_more() -> None:
    @within(*[silent] * (TRIES + 1))
    async def test(world: World, purging: Purging) -> None:
        with pytest.raises(NotPurged, match="no worker has answered in time") as failed:
            await purging.purge(b'{"all": true}')
        assert (failed.value.status, world.asked) == (504, [0, 1, 2])


def test_what_a_worker_refuses_is_refused() -> None:
    @within(lambda order: Purged(order.ticket, 503, "it is down"), well)
    async def test(world: World, purging: Purging) -> None:
        with pytest.raises(NotPurged, match="it is down") as failed:
            await purging.purge(b'{"all": true}')
        assert (failed.value.status, world.asked) == (503, [0])


def test_an_answer_to_something_else_is_none() -> None:
    @within(lambda order: Purged(order.ticket - 1, 200, ""), well)
    async def test(world: World, purging: Purging) -> None:
        await purging.purge(b'{"all": true}')
        assert world.asked == [0, 1]


def test_where_there_is_no_worker() -> None:
    @within()
    async def test(world: World, purging: Purging) -> None:
        with pytest.raises(NotPurged, match="no worker serves") as failed:
            await purging.purge(b'{"all": true}')
        assert failed.value.status == 503
