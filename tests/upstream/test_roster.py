"""Who may be asked: ejection, health checks, slow start, groups and panic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from portico.config.balance import Target as TargetConfig
from portico.http.message import Request
from portico.upstream.feed import Feed, Verdict
from portico.upstream.membership import Membership
from portico.upstream.roster import Ejecting, Roster
from portico.upstream.target import Target
from tests.harness.loop import run_jumping
from tests.harness.targets import a_target
from tests.harness.upstream import roster_of

EJECTING = Ejecting(3, 10.0, 25.0, 0.5)
REQUEST = Request("GET", "/")


def targets(count: int) -> list[Target]:
    return [a_target(f"{name}:80") for name in "abcdefghij"[:count]]


def asked(roster: Roster, picks: int = 40) -> dict[str, int]:
    """Return how many of so many requests each target gets, once what has happened is taken in."""
    roster.rebuild()
    counts: dict[str, int] = {}
    if roster.balancer is not None:
        for _ in range(picks):
            name = roster.balancer.pick(REQUEST).address[0]
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def runs(main: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        async def wrapped() -> None:
            await main()

        run_jumping(wrapped)

    test.__name__ = main.__name__  # type: ignore[attr-defined]
    return test


@runs
async def test_failures_in_a_row_eject() -> None:
    a, b, c = targets(3)
    roster = roster_of([a, b, c], ejecting=EJECTING)
    for _ in range(2):
        roster.failed(a, "status 500")
    a.failures = 0  # as an answer that is well does
    for _ in range(2):
        roster.failed(a, "status 500")
    assert asked(roster) == {"a": 14, "b": 13, "c": 13}
    roster.failed(a, "status 503")
    assert asked(roster) == {"b": 20, "c": 20}
    assert a.ejected_for == "3 failures in a row, the last: status 503"
    roster.close()


@runs
async def test_an_ejection_ends_and_the_next_one_lasts_longer() -> None:
    a, b, c = targets(3)
    roster = roster_of([a, b, c], ejecting=EJECTING)
    for seconds in (10.0, 20.0, 25.0, 25.0):
        assert roster.eject(a, "refused")
        await asyncio.sleep(seconds - 0.5)
        assert set(asked(roster)) == {"b", "c"}
        await asyncio.sleep(1.0)
        assert set(asked(roster)) == {"a", "b", "c"}
    await asyncio.sleep(60)  # long enough well for the past to be forgotten
    assert roster.eject(a, "refused")
    await asyncio.sleep(10.5)
    assert set(asked(roster)) == {"a", "b", "c"}
    roster.close()


@runs
async def test_only_so_many_may_be_out() -> None:
    for count, most in ((1, 0), (2, 1), (3, 1), (4, 2), (9, 4)):
        made = targets(count)
        roster = roster_of(made, ejecting=EJECTING)
        assert [roster.eject(target, "refused") for target in made].count(True) == most
        assert len(asked(roster)) == count - most
        roster.close()


@runs
async def test_the_last_one_that_is_well_is_never_ejected() -> None:
    a, b, c = targets(3)
    roster = roster_of([a, b, c], ejecting=Ejecting(1, 10.0, 10.0, 1.0))
    roster.judge(b, well=False, since=1.0, why="status 503")
    roster.rebuild()
    assert roster.eject(a, "refused")
    assert not roster.eject(c, "refused")
    assert asked(roster) == {"c": 40}
    roster.judge(c, well=False, since=1.0, why="status 503")
    roster.rebuild()
    assert asked(roster) == {"a": 40}  # it is out, and still the best that there is
    roster.close()


@runs
async def test_without_outliers_nobody_is_ejected() -> None:
    a, b = targets(2)
    roster = roster_of([a, b])
    for _ in range(100):
        roster.failed(a, "status 500")
    assert not roster.eject(a, "refused")
    assert asked(roster) == {"a": 20, "b": 20}


@runs
async def test_a_health_check_takes_out_and_brings_back() -> None:
    a, b = targets(2)
    roster = roster_of([a, b], ejecting=EJECTING)
    roster.eject(a, "refused")
    roster.judge(a, well=False, since=5.0, why="refused")
    roster.judge(b, well=False, since=6.0, why="refused")
    roster.rebuild()
    assert asked(roster) == {}
    roster.judge(a, well=True, since=7.0, why="status 200")
    roster.rebuild()
    assert asked(roster) == {"a": 40}  # and its ejection is over as well
    assert (a.well_since, a.why) == (7.0, "status 200")
    roster.close()


@runs
async def test_lower_priorities_come_first() -> None:
    a, b, c = targets(3)
    c.priority = b.priority = 1
    roster = roster_of([a, b, c], ejecting=EJECTING)
    assert asked(roster) == {"a": 40}
    roster.eject(a, "refused")
    assert asked(roster) == {"b": 20, "c": 20}
    await asyncio.sleep(10.5)
    assert asked(roster) == {"a": 40}
    roster.close()


@runs
async def test_a_group_that_is_well_is_better_than_a_panic() -> None:
    a, b, c = targets(3)
    c.priority = 1
    roster = roster_of([a, b, c], panic=0.5)
    for target in (a, b):
        roster.judge(target, well=False, since=1.0, why="refused")
    assert asked(roster) == {"c": 40}
    roster.judge(c, well=False, since=1.0, why="refused")
    assert asked(roster) == {"a": 20, "b": 20}


@runs
async def test_what_happens_in_one_turn_of_the_loop_is_taken_in_at_once() -> None:
    made = targets(10)
    roster = roster_of(made, ejecting=EJECTING)
    before = roster.balancer
    for target in made[:4]:
        assert roster.eject(target, "refused")
    assert roster.balancer is before
    await asyncio.sleep(0)
    assert roster.balancer is not before
    assert set(asked(roster)) == set("efghij")
    roster.close()
    assert roster.eject(made[4], "refused")  # by a request that came before its end
    await asyncio.sleep(100)  # and no timer is left


def test_panic(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "portico.upstream")

    async def main() -> None:
        made = targets(4)
        roster = roster_of(made, panic=0.5)
        for number, expected in ((0, "bcd"), (1, "cd"), (2, "abcd"), (3, "abcd")):
            roster.judge(made[number], well=False, since=1.0, why="refused")
            roster.rebuild()
            assert "".join(asked(roster)) == expected
        for target in made[:2]:
            roster.judge(target, well=True, since=1.0, why="status 200")
        roster.rebuild()
        assert "".join(asked(roster)) == "ab"

    run_jumping(main)
    assert caplog.messages == [
        "service svc: 1 of 4 targets are well; all are asked",
        "service svc: only targets that are well are asked again",
    ]


@runs
async def test_a_fresh_target_starts_slowly() -> None:
    a, b = targets(2)
    roster = roster_of([a], slow_start=10.0)
    assert a.share == 1.0  # who is there from the start need not
    roster.change([a, b])
    shares = []
    for _ in range(11):
        counts = asked(roster, 1100)
        shares.append(counts["b"] / counts["a"])
        await asyncio.sleep(1.0)
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0], rel=0.1)
    roster.judge(b, well=False, since=1.0, why="refused")
    roster.rebuild()
    assert asked(roster) == {"a": 40}
    roster.judge(b, well=True, since=1.0, why="status 200")
    roster.rebuild()
    counts = asked(roster, 1100)
    assert counts["b"] / counts["a"] == pytest.approx(0.1, rel=0.1)
    await asyncio.sleep(20.0)
    assert asked(roster) == {"a": 20, "b": 20}
    roster.close()


# What the agent has found out


class Found:
    """A service whose targets are found out."""

    def __init__(self, source: str = "dns svc:80", *, checked: bool = True) -> None:
        self.roster = roster_of([])
        self.feed = Feed("svc", source)
        self.dropped: list[str] = []
        self.members = Membership(
            self.roster,
            self.feed,
            self.made,
            lambda target: self.dropped.append(target.address),
            targets=[],
            checked=checked,
        )

    def made(self, config: TargetConfig) -> Target:
        target = a_target(str(config))
        target.scheme, target.name = config.scheme, config.server_name
        return target

    def find(self, *addresses: str, verdicts: dict[str, Verdict] | None = None, weight: int = 1) -> None:
        made = [TargetConfig(address=f"{address}:80", weight=weight) for address in addresses]  # type: ignore[arg-type]
        self.feed.take(made, verdicts or {}, "")


@runs
async def test_targets_come_and_go() -> None:
    found = Found()
    assert not found.members.known.is_set()
    assert asked(found.roster) == {}
    found.find("a", "b")
    assert found.members.known.is_set()
    first = found.roster.targets[0]
    found.find("a", "c", weight=3)
    assert asked(found.roster) == {"a": 20, "c": 20}
    assert found.roster.targets[0] is first  # with its connections, and what is known of it
    assert first.weight == 3
    assert found.dropped == ["b:80"]
    found.feed.take(None, {}, "dns: timeout")  # nothing is lost by that
    assert asked(found.roster) == {"a": 20, "c": 20}
    assert found.feed.trouble == "dns: timeout"
    found.members.close()
    found.find("d")
    assert asked(found.roster) == {"a": 20, "c": 20}


@runs
async def test_a_target_that_is_reached_another_way_is_another() -> None:
    found = Found()
    found.find("a", "b")
    plain = found.roster.targets
    found.find("https://a", "b")
    assert found.roster.targets[0] is not plain[0]
    assert found.roster.targets[1] is plain[1]
    assert found.dropped == ["a:80"]


@runs
async def test_verdicts_reach_the_targets_that_they_are_about() -> None:
    found = Found()
    found.find("a", "b", verdicts={"b:80": Verdict(False, 5.0, "status 503"), "gone:80": Verdict(False, 5.0, "x")})
    assert asked(found.roster) == {"a": 40}
    found.find("a", "b", verdicts={"b:80": Verdict(True, 9.0, "status 200")})
    assert asked(found.roster) == {"a": 20, "b": 20}


@runs
async def test_where_there_is_no_health_check_an_old_verdict_is_none() -> None:
    found = Found(checked=False)
    found.find("a", "b", verdicts={"b:80": Verdict(False, 5.0, "status 503")})
    assert asked(found.roster) == {"a": 20, "b": 20}


@runs
async def test_a_verdict_that_is_none_any_more_is_forgotten() -> None:
    found = Found("")
    target = a_target("a:80")
    found.members._targets["a:80"] = target
    found.roster.change([target])
    target.checked = True
    found.feed.take(None, {"a:80": Verdict(False, 5.0, "status 503")}, "")
    assert asked(found.roster) == {}
    found.feed.take(None, {}, "")  # an agent that has just begun
    assert asked(found.roster) == {}
    found.feed.take(None, {}, "", everything=True)
    assert (asked(found.roster), target.looked_at) == ({"a": 40}, False)


@runs
async def test_a_verdict_makes_no_other_targets() -> None:
    found = Found()
    found.find("a", "b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Roster, "change", lambda *_: pytest.fail("nothing has come or gone"))
        found.feed.take(None, {"b:80": Verdict(False, 5.0, "status 503")}, "")
    assert asked(found.roster) == {"a": 40}


@runs
async def test_a_target_that_is_well_again_is_one_that_can_be_reached() -> None:
    a, b = targets(2)
    roster = roster_of([a, b], ejecting=EJECTING)
    a.failing = b.failing = True
    roster.judge(a, well=False, since=1.0, why="connection refused")
    assert a.failing
    for each in (a, b):
        roster.judge(each, well=True, since=2.0, why="status 200")
    assert (a.failing, b.failing) == (False, True)  # of b nothing new was found
