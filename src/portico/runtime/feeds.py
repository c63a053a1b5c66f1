"""What the agent tells a worker of targets, handed to those who send requests there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from portico.config.addresses import Url
from portico.config.balance import NamedTarget, Target
from portico.runtime.protocol import Upstream, UpstreamOver
from portico.runtime.shared import Lease
from portico.upstream.feed import Feed, Verdict

Key = tuple[str, str]
"""The name of a service, and where its targets are from."""


@dataclass(slots=True)
class _Pieces:
    """What has come so far of what is told in several messages."""

    targets: list[Target] = field(default_factory=list)
    addresses: set[str] = field(default_factory=set)
    verdicts: dict[str, Verdict] = field(default_factory=dict)


class Feeds:
    """The feeds of one worker: one for each service, as long as a runtime has it, or the agent speaks of it."""

    def __init__(self) -> None:
        self._feeds: dict[Key, Feed] = {}
        self._leased: set[Key] = set()
        self._told: set[Key] = set()
        """Of which the agent that is there has spoken: whoever is compiled next finds what it said."""
        self._pieces: dict[Key, _Pieces] = {}

    def of(self, lease: Lease, service: str, source: str) -> Feed:
        """Return what is known of a service, for as long as `lease` holds it; `source` is its `Discover.source`."""
        key = service, source
        return lease.share(("feed", *key), lambda: _Held(self, key)).feed

    def hear(self, said: Upstream) -> None:
        """Take in what the agent says, once it is whole."""
        key = said.service, said.source
        self._told.add(key)
        pieces = self._pieces.get(key)
        if pieces is None or said.begins:
            pieces = self._pieces[key] = _Pieces()
        targets = list(map(target_of, said.targets))
        pieces.targets += targets
        pieces.addresses.update(map(str, targets))
        for address, (well, since, why) in said.verdicts.items():
            pieces.verdicts[address] = Verdict(well, since, why)
        if not said.ends:
            return
        del self._pieces[key]
        feed = self._feed(key)
        verdicts = pieces.verdicts if said.everything else {**feed.verdicts, **pieces.verdicts}
        if pieces.targets and not said.everything:
            verdicts = {each: verdict for each, verdict in verdicts.items() if each in pieces.addresses}
        feed.take(tuple(pieces.targets) or None, verdicts, said.trouble, everything=said.everything)

    def over(self, said: UpstreamOver) -> None:
        """Take in that nothing more will be said of a service."""
        key = said.service, said.source
        self._told.discard(key)
        self._pieces.pop(key, None)
        self._prune(key)

    def agent_gone(self) -> None:
        """Wait for another agent: what is known stays with those who use it."""
        told, self._told = self._told, set()
        self._pieces.clear()
        for key in told:
            self._prune(key)

    def __len__(self) -> int:
        return len(self._feeds)

    def _feed(self, key: Key) -> Feed:
        if key not in self._feeds:
            self._feeds[key] = Feed(*key)
        return self._feeds[key]

    def lend(self, key: Key) -> Feed:
        """Return a feed that stays until `take_back`."""
        self._leased.add(key)
        return self._feed(key)

    def take_back(self, key: Key) -> None:
        """Let a feed go that no runtime has any more."""
        self._leased.discard(key)
        self._prune(key)

    def _prune(self, key: Key) -> None:
        if key not in self._leased and key not in self._told:
            self._feeds.pop(key, None)


class _Held:
    """A feed that is leased."""

    def __init__(self, feeds: Feeds, key: Key) -> None:
        self._feeds = feeds
        self._key = key
        self.feed = feeds.lend(key)

    def close(self) -> None:
        """Let it go."""
        self._feeds.take_back(self._key)


PIECE: Final = 100
"""Targets, or verdicts, in one message: taking it in keeps a worker's loop for about a millisecond."""

PIECE_SIZE: Final = 64 * 1024
"""Characters, more or less, of the targets or verdicts in one message."""


def packed(target: Target) -> list[Any]:
    """Return a target as plain values."""
    name = target.name if isinstance(target, NamedTarget) else ""
    return [target.scheme, target.host, target.port, target.weight, target.priority, target.metadata, name]


def target_of(values: list[Any]) -> Target:
    """Return what `packed` was given, which the agent has validated."""
    scheme, host, port, weight, priority, metadata, name = values
    said = {"address": Url(scheme, host, port), "weight": weight, "priority": priority, "metadata": metadata}
    return _NAMED.model_copy(update={**said, "name": name}) if name else _PLAIN.model_copy(update=said)


_PLAIN: Final = Target(address=Url("http", "", 0))
_NAMED: Final = NamedTarget(address=Url("http", "", 0), name="")
"""A copy with other values costs a third of what validating them again would."""
