"""What the agent says of targets, until it is with those who send requests there."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from portico.config.balance import NamedTarget, Target
from portico.net.channel import Channel, Codec
from portico.runtime.feeds import Feeds, packed, target_of
from portico.runtime.link import Links
from portico.runtime.protocol import KINDS, Meet, Upstream, UpstreamOver
from portico.runtime.recording import Recording
from portico.runtime.shared import Leases
from portico.upstream.feed import Feed, Verdict
from tests.harness.loop import run, until

A = Target.model_validate({"address": "10.0.0.1:80", "weight": 3, "priority": 1, "metadata": {"zone": "a"}})
B = NamedTarget.model_validate({"address": "https://[::1]:443", "name": "b.test"})
WELL, UNWELL = (True, 5.0, "status 200"), (False, 6.0, "status 503")
KEY = ("orders", "dns orders:80")


def said(**values: Any) -> Upstream:
    targets = [packed(each) for each in values.pop("targets", ())]
    return Upstream(*KEY, **{"begins": True, "ends": True, "trouble": "", "targets": targets, **values})


@pytest.mark.parametrize("target", [A, B])
def test_a_target_arrives_as_it_was(target: Target) -> None:
    codec = Codec(KINDS)
    (arrived,) = codec.decode(codec.encode(said(targets=[target]))[8:]).targets
    assert target_of(arrived) == target
    assert target_of(arrived).authority == target.authority


def test_a_feed_is_told_what_is_known_and_what_changes() -> None:
    feeds, lease = Feeds(), Leases().lease()
    feed = feeds.of(lease, *KEY)
    assert (feed.targets, feed.verdicts, feed.trouble) == (None, {}, "")
    told: list[int] = []
    feed.follow(lambda: told.append(1))
    feeds.hear(said(targets=[A, B], trouble="no", verdicts={str(A): WELL}, everything=True))
    assert (feed.targets, feed.verdicts, feed.trouble) == ((A, B), {str(A): Verdict(*WELL)}, "no")
    feeds.hear(said(verdicts={str(B): UNWELL}))
    assert feed.targets == (A, B)
    assert (feed.verdicts, feed.trouble) == ({str(A): Verdict(*WELL), str(B): Verdict(*UNWELL)}, "")
    feeds.hear(said(targets=[B]))
    assert feed.verdicts == {str(B): Verdict(*UNWELL)}
    feeds.hear(said(everything=True))
    assert (feed.targets, feed.verdicts, len(told)) == ((B,), {}, 4)


def test_pieces_are_taken_together() -> None:
    feeds, lease = Feeds(), Leases().lease()
    feed = feeds.of(lease, *KEY)
    feeds.hear(said(targets=[B], ends=False))
    feeds.hear(said(targets=[A], ends=False))  # the one before was never whole
    feeds.hear(said(targets=[B], begins=False, ends=False, verdicts={str(A): WELL}))
    assert feed.targets is None
    feeds.hear(said(begins=False, verdicts={str(B): UNWELL}))
    assert feed.targets == (A, B)
    assert set(feed.verdicts) == {str(A), str(B)}


def test_what_came_before_anyone_asked_is_not_lost() -> None:
    feeds, leases = Feeds(), Leases()
    feeds.hear(said(targets=[A]))
    first, second = leases.lease(), leases.lease()
    feed = feeds.of(first, *KEY)
    assert feed.targets == (A,)
    assert feeds.of(second, *KEY) is feed
    assert feeds.of(second, KEY[0], "") is not feed
    first.close()
    second.close()
    assert len(feeds) == 1  # the agent still speaks of it
    feeds.over(UpstreamOver(*KEY))
    assert len(feeds) == 0


def test_what_was_said_stays_as_long_as_it_is_used() -> None:
    feeds, lease = Feeds(), Leases().lease()
    feed = feeds.of(lease, *KEY)
    feeds.hear(said(targets=[A, B], verdicts={str(A): UNWELL}, everything=True))
    feeds.hear(Upstream("other", "", begins=True, ends=True, trouble=""))
    feeds.hear(said(targets=[B], ends=False))
    feeds.agent_gone()
    assert len(feeds) == 1
    assert feed.targets == (A, B)
    feeds.hear(said(verdicts={str(B): WELL}))  # another agent knows of one so far
    assert feed.targets == (A, B)
    assert feed.verdicts == {str(A): Verdict(*UNWELL), str(B): Verdict(*WELL)}
    feeds.over(UpstreamOver(*KEY))
    assert feed.targets == (A, B)
    lease.close()
    assert len(feeds) == 0


class Serving:
    """What is served, as far as the links of a worker need it."""


def test_a_worker_hears_its_agent_and_keeps_what_it_said_when_it_is_gone() -> None:
    async def main() -> None:
        feeds, lease = Feeds(), Leases().lease()
        feed: Feed = feeds.of(lease, *KEY)
        codec = Codec(KINDS)
        control, supervisor = socket.socketpair()
        async with asyncio.TaskGroup() as tasks:
            recording = Recording(asyncio.get_running_loop())
            links = Links(control, Serving(), feeds, tasks, lambda: None, recording)  # type: ignore[arg-type]
            root = Channel(supervisor, codec, lambda *_: None, lambda: None)

            def agent() -> Channel:
                one, other = socket.socketpair()
                with one:
                    root.send(Meet(), [one.fileno()])
                return Channel(other, codec, lambda *_: None, lambda: None)

            first = agent()
            first.send(said(targets=[A, B]))
            first.send(Upstream("gone", "", begins=True, ends=True, trouble=""))
            await until(lambda: len(feeds) == 2)
            assert feed.targets == (A, B)
            first.close()
            await until(lambda: len(feeds) == 1)
            assert feed.targets == (A, B)
            second = agent()
            second.send(said(trouble="no answer"))
            await until(lambda: feed.trouble)
            assert feed.targets == (A, B)
            second.send(said(targets=[B]))
            await until(lambda: feed.targets == (B,))
            third = agent()  # while the one before still seems to be there
            third.send(UpstreamOver(*KEY))
            third.send(said(verdicts={str(B): WELL}))
            await until(lambda: feed.verdicts)
            for each in (second, third, root):
                each.close()
            links.close()

    run(main)
