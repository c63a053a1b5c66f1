"""The targets of all services: found out and looked at here, once for the machine, and told to every worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from random import Random
from typing import Any, Final, Protocol

from portico.agent.checks import Checks
from portico.agent.discovering import Discovering
from portico.agent.looks import Looks
from portico.config.balance import Discover, Target
from portico.config.upstream import Service
from portico.runtime.certificates import CertificateWatch
from portico.runtime.feeds import PIECE, packed
from portico.runtime.protocol import Upstream, UpstreamOver
from portico.upstream.discovery import Discovery
from portico.upstream.discovery.kinds import discovery_of
from portico.upstream.feed import Verdict

logger = logging.getLogger("portico.agent")

LOOKS_AT_ONCE: Final = 512
"""How many targets of all services are looked at at the same time."""

GATHERING: Final = 0.05
"""Seconds for which changes are gathered until workers are told of them together."""


class Listener(Protocol):
    """A worker, as far as it is told something."""

    def tell(self, message: Any) -> None:
        """Send a message that needs no answer."""
        ...


class Known:
    """One service."""

    def __init__(self, owner: Upstreams, name: str, service: Service) -> None:
        self._owner = owner
        self._name = name
        self._service = service
        self._task: asyncio.Task[None] | None = None
        self._checks: Checks | None = None
        self._discovering: Discovering | None = None
        self._everything_new = True
        self._new: set[str] = set()
        """The targets of which something is known that workers were not told."""
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
        if (before.health, before.tls) != (service.health, service.tls):
            self._end_checks()
            self._begin_checks()
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
        self._end_checks()
        if self._task is not None:
            self._task.cancel()

    def everything(self) -> list[Upstream]:
        """Return the messages that tell all that is known; none where nothing is."""
        targets = self.targets if self.source else ()
        if not (self.verdicts or self.trouble or targets):
            return []
        return self._messages(targets, self.verdicts, everything=self._complete)

    def news(self) -> list[Upstream]:
        """Return the messages that tell what workers do not know yet, and take it for told."""
        everything = self._everything_new or self._complete != self._was_complete
        new, self._new = self._new, set()
        self._everything_new = False
        self._was_complete = self._complete
        if everything:
            return self.everything()
        verdicts = self.verdicts
        return self._messages((), {each: verdicts[each] for each in new if each in verdicts}, everything=False)

    def _messages(
        self, targets: Sequence[Target], verdicts: Mapping[str, Verdict], *, everything: bool
    ) -> list[Upstream]:
        target_pieces = list(_pieces(map(packed, targets)))
        verdict_pieces = list(_pieces((address, tuple(verdict)) for address, verdict in verdicts.items()))
        count = max(len(target_pieces), len(verdict_pieces), 1)
        return [
            Upstream(
                self._name,
                self.source,
                begins=at == 0,
                ends=at == count - 1,
                trouble=self.trouble,
                targets=target_pieces[at] if at < len(target_pieces) else [],
                verdicts=dict(verdict_pieces[at]) if at < len(verdict_pieces) else {},
                everything=everything,
            )
            for at in range(count)
        ]

    def _begin_checks(self) -> None:
        check = self._service.health
        if check is None:
            return
        owner = self._owner
        looks = Looks(check, self._service.tls, owner.certificates, owner.tasks)
        self._checks = Checks(self._name, check, looks.at, owner.tasks, owner.gate, self._judged, owner.rng)
        self._checks.follow(self.targets)

    def _end_checks(self) -> None:
        if self._checks is not None:
            self._checks.close()
            self._checks = None

    def _discovered(self) -> None:
        if self._followed is self.targets:  # there is trouble, or none any more
            self._owner.news_of(self._name)
            return
        self._followed = self.targets
        if self._checks is not None:
            self._checks.follow(self.targets)
        self._all_new()

    def _judged(self, target: str) -> None:
        self._new.add(target)
        self._owner.news_of(self._name)

    def _all_new(self) -> None:
        self._everything_new = True
        self._owner.news_of(self._name)


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
        self._known: dict[str, Known] = {}
        self._with_news: dict[str, None] = {}
        self._flush: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None
        self.tasks = tasks
        self.rng = rng or Random()  # noqa: S311 - it spreads looks over time
        self.discovery_of = make_discovery
        self.gate = asyncio.Semaphore(LOOKS_AT_ONCE)
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
                self._tell([UpstreamOver(name, known.source)])
        for name, service in wanted.items():
            if name not in self._known:
                self._known[name] = Known(self, name, service)

    def greet(self, worker: Listener) -> None:
        """Tell a worker that has just come all that is known."""
        for known in self._known.values():
            for message in known.everything():
                worker.tell(message)

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
        if self._flush is not None:
            self._flush.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _tell_news(self) -> None:
        self._flush = None
        names, self._with_news = self._with_news, {}
        for name in names:
            self._tell(self._known[name].news())

    def _tell(self, messages: Sequence[Any]) -> None:
        for worker in self._workers:
            for message in messages:
                worker.tell(message)


def _pieces(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield the items in lists that are not too long for a message."""
    rest = iter(items)
    while piece := list(islice(rest, PIECE)):
        yield piece
