"""Which targets a service has, and what is known of them: what the file says, and what the agent has found out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from portico.config.balance import Target as TargetConfig
from portico.upstream.feed import Feed
from portico.upstream.roster import Roster
from portico.upstream.target import Target


class Membership:
    """Keeps a roster as a feed has it, until it is closed."""

    __slots__ = ("_checked", "_drop", "_feed", "_found", "_known", "_make", "_roster", "_targets")

    def __init__(
        self,
        roster: Roster,
        feed: Feed,
        make: Callable[[TargetConfig], Target],
        drop: Callable[[Target], None],
        *,
        targets: Sequence[Target],
        checked: bool,
    ) -> None:
        """Begin with `targets`; where the feed has a source, those that it finds take their place.

        `checked` says whether there is a health check.
        """
        self._roster = roster
        self._feed = feed
        self._make = make
        self._drop = drop
        self._checked = checked
        self._targets = {target.address: target for target in targets}
        for target in targets:
            target.checked = checked
        self._found: Sequence[TargetConfig] | None = None
        """The targets of the feed that the roster has."""
        self._known = asyncio.Event()
        feed.follow(self._changed)
        self._changed()

    @property
    def known(self) -> asyncio.Event:
        """Set once there are targets."""
        return self._known

    def close(self) -> None:
        """Follow the feed no more."""
        self._feed.leave(self._changed)

    def _changed(self) -> None:
        feed = self._feed
        gone: list[Target] = []
        found = feed.targets if feed.source else None
        others = found is not None and found is not self._found
        if found is not None and others:
            gone = self._change(found)
            self._found = found
            self._known.set()
        if self._checked:
            self._judge()
        if others:
            self._roster.change(tuple(self._targets.values()))
        else:
            self._roster.rebuild()
        for target in gone:
            self._drop(target)

    def _change(self, found: Sequence[TargetConfig]) -> list[Target]:
        """Have these targets; those that stay are the same as before. Return those that go."""
        before, self._targets = self._targets, {}
        for each in found:
            target = before.get(str(each))
            if target is None or not _is_same(target, each):
                target = self._make(each)
                target.pool.warm()
            else:
                del before[target.address]
            target.weight, target.priority, target.metadata = each.weight, each.priority, each.metadata
            target.checked = self._checked
            self._targets[target.address] = target
        return list(before.values())

    def _judge(self) -> None:
        verdicts = self._feed.verdicts
        for address, target in self._targets.items():
            verdict = verdicts.get(address)
            if verdict is None:
                if target.looked_at and self._feed.everything:  # what was known is known no more
                    self._roster.forget(target)
            else:
                self._roster.judge(target, well=verdict.well, since=verdict.since, why=verdict.why)


def _is_same(target: Target, config: TargetConfig) -> bool:
    """Tell whether a target is reached, and called, as `config` has it."""
    return target.scheme == config.scheme and target.name == config.server_name
