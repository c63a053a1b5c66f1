"""The targets of all services: found out and looked at here, once for the machine, and told to every worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from random import Random
from typing import Any, Final

from portico.agent.checks import Checks
from portico.agent.discovering import Discovering
from portico.agent.gates import Gates
from portico.agent.looks import Looks
from portico.agent.telling import Listener, Owed, Telling
from portico.config.balance import Discover, Target
from portico.config.upstream import Service
from portico.runtime.certificates import CertificateWatch
from portico.runtime.feeds import PIECE, PIECE_SIZE, packed
from portico.runtime.protocol import Upstream, UpstreamOver
from portico.upstream.discovery import Discovery
from portico.upstream.discovery.kinds import discovery_of
from portico.upstream.feed import Verdict

LOOKS_AT_ONCE: Final = 512
"""How many targets of all services are looked at at the same time."""

GATHERING: Final = 0.05
"""Seconds for which changes are gathered until workers are told of them together."""


class Known:
    """One service."""

    def __init__(self, owner: Upstreams, name: str, service: Service) -> None:
        self._owner = owner
        self.name = name
        self.closed = False
        self._service = service
        self._task: asyncio.Task[None] | None = None
        self._checks: Checks | None = None
        self._discovering: Discovering | None = None
        self._new = Owed(everything=True)
        """What workers were not told yet."""
        self._was_complete = False
        self._followed: tuple[Target, ...] = ()
        discover = service.discover
        self.source = "" if discover is None else discover.source
        if discover is not None:
            self._discovering = Discovering(name, self.source, owner.discovery_of(discover), self._discovered)
            self._task = owner.tasks.create_task(self._discovering.run(), name="discovery")
        self._begin_checks()

    def follows(self, service: Service) -> bool:
        """Go on with what is said of the service now, where its targets are from the same place; tell whether."""
        before = self._service
        if before.discover != service.discover:
            return False
        self._service = service
        if before.targets != service.targets:  # of one that has gone, and may come back, nothing is known
            self._all_new()
        if (before.health, before.tls) != (service.health, service.tls):
            before_it = self._checks
            self._begin_checks()
            if before_it is not None:
                if self._checks is not None:
                    self._checks.succeed(before_it)
                before_it.close()
            self._all_new()
        elif self._checks is not None:
            self._checks.follow(self.targets)
        return True

    @property
    def targets(self) -> tuple[Target, ...]:
        """Its targets, as far as they are known."""
        return self._service.targets if self._discovering is None else self._discovering.targets

    @property
    def trouble(self) -> str:
        """Why they cannot be found out now."""
        return "" if self._discovering is None else self._discovering.trouble

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """What is known of them."""
        return {} if self._checks is None else self._checks.verdicts

    @property
    def checked(self) -> bool:
        """Whether they are looked at."""
        return self._checks is not None

    @property
    def _complete(self) -> bool:
        return self._checks is None or self._checks.complete

    def close(self) -> None:
        """End everything that was begun for it."""
        self.closed = True
        self._end_checks()
        if self._task is not None and self._discovering is not None:
            self._discovering.close()
            self._task.cancel()

    @property
    def speaks(self) -> bool:
        """Whether there is anything to tell; that nothing is known of targets is, once they all were looked at."""
        checked = self._checks is not None and self._checks.complete
        return bool(self.verdicts or self.trouble or checked or (self.source and self.targets))

    def news(self) -> Owed:
        """Return what workers do not know yet, and take it for told."""
        new, self._new = self._new, Owed()
        new.everything = new.everything or self._complete != self._was_complete
        self._was_complete = self._complete
        return new

    def messages(self, owed: Owed) -> Iterator[Upstream]:
        """Yield what tells it; nothing where nothing is known."""
        verdicts = self.verdicts
        if not owed.everything:
            told = {each: verdicts[each] for each in owed.verdicts if each in verdicts}
            yield from self._messages((), told, everything=False)
        elif self.speaks:
            yield from self._messages(self.targets if self.source else (), dict(verdicts), everything=self._complete)

    def _messages(
        self, targets: Iterable[Target], verdicts: Mapping[str, Verdict], *, everything: bool
    ) -> Iterator[Upstream]:
        target_pieces = _pieces(map(packed, targets), _size_of_target)
        verdict_pieces = _pieces(((each, tuple(verdict)) for each, verdict in verdicts.items()), _size_of_verdict)
        begins, trouble = True, self.trouble
        some, judged = next(target_pieces, None), next(verdict_pieces, None)
        while True:
            more, further = next(target_pieces, None), next(verdict_pieces, None)
            yield Upstream(
                self.name,
                self.source,
                begins=begins,
                ends=more is None and further is None,
                trouble=trouble,
                targets=some or [],
                verdicts=dict(judged or ()),
                everything=everything,
            )
            if more is None and further is None:
                return
            begins, some, judged = False, more, further

    def _begin_checks(self) -> None:
        self._checks, check = None, self._service.health
        if check is None:
            return
        owner = self._owner
        looks = Looks(check, self._service.tls, owner.certificates, owner.tasks)
        self._checks = Checks(self.name, check, looks.at, owner.tasks, owner.gates.gate(), self._judged, owner.rng)
        self._checks.follow(self.targets)

    def _end_checks(self) -> None:
        if self._checks is not None:
            self._checks.close()
            self._checks = None

    def _discovered(self) -> None:
        if self._followed is self.targets:  # there is trouble, or none any more
            self._owner.news_of(self.name)
            return
        self._followed = self.targets
        if self._checks is not None:
            self._checks.follow(self.targets)
        self._all_new()

    def _judged(self, target: str) -> None:
        self._new.verdicts.add(target)
        self._owner.news_of(self.name)

    def _all_new(self) -> None:
        self._new.everything = True
        self._owner.news_of(self.name)


class Upstreams:
    """All services whose targets are found out, or looked at."""

    def __init__(
        self,
        workers: Iterable[Listener],
        tasks: asyncio.TaskGroup,
        rng: Random | None = None,
        make_discovery: Callable[[Discover], Discovery] = discovery_of,
    ) -> None:
        self._workers = workers
        self._tellings: dict[Listener, Telling] = {}
        self._known: dict[str, Known] = {}
        self._with_news: dict[str, None] = {}
        self._flush: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None
        self.tasks = tasks
        self.rng = rng or Random()  # noqa: S311 - it spreads looks over time
        self.discovery_of = make_discovery
        self.gates = Gates(LOOKS_AT_ONCE)
        self.certificates = CertificateWatch()

    def follow(self, services: Mapping[str, Service]) -> None:
        """Attend to these services from now on; what is the same as before goes on undisturbed."""
        if self._watching is None:
            self._watching = self.tasks.create_task(self.certificates.run(), name="certificates")
        wanted = {name: each for name, each in services.items() if each.discover is not None or each.health is not None}
        for name, known in tuple(self._known.items()):
            if name not in wanted or not known.follows(wanted[name]):
                del self._known[name]
                self._with_news.pop(name, None)
                known.close()
                for telling in self._telling():
                    telling.over(known, UpstreamOver(name, known.source))
        for name, service in wanted.items():
            if name not in self._known:
                self._known[name] = Known(self, name, service)

    def greet(self, worker: Listener) -> None:
        """Tell a worker that has just come all that is known."""
        telling = self._tellings.setdefault(worker, Telling(worker, self.tasks))
        for known in self._known.values():
            telling.owe(known, Owed(everything=True))

    def news_of(self, service: str) -> None:
        """Have the workers told what is new of a service, soon."""
        self._with_news[service] = None
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(GATHERING, self._tell_news)

    def __getitem__(self, service: str) -> Known:
        return self._known[service]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def close(self) -> None:
        """End all of it."""
        for known in self._known.values():
            known.close()
        self._known.clear()
        for telling in self._tellings.values():
            telling.close()
        self._tellings.clear()
        if self._flush is not None:
            self._flush.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _tell_news(self) -> None:
        self._flush = None
        names, self._with_news = self._with_news, {}
        for name in names:
            known = self._known.get(name)
            if known is None:
                continue
            owed = known.news()
            for telling in self._telling():
                telling.owe(known, owed)

    def _telling(self) -> list[Telling]:
        """Return what tells each worker that is there."""
        workers = list(self._workers)
        for worker in self._tellings.keys() - workers:
            self._tellings.pop(worker).close()
        return [self._tellings.setdefault(worker, Telling(worker, self.tasks)) for worker in workers]


def _pieces(items: Iterable[Any], size: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Yield the items in lists that are not too long, nor too large, for a message."""
    piece: list[Any] = []
    room = PIECE_SIZE
    for item in items:
        room -= size(item)
        if piece and (room < 0 or len(piece) == PIECE):
            yield piece
            piece, room = [], PIECE_SIZE - size(item)
        piece.append(item)
    if piece:
        yield piece


def _size_of_target(packed: list[Any]) -> int:
    return 100 + sum(len(key) + len(value) for key, value in packed[5].items())


def _size_of_verdict(item: tuple[str, Any]) -> int:
    return 100 + len(item[1][2])
