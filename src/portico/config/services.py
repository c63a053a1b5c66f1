"""The services of a file, and the references to them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from portico.config.addresses import parse_target_address, parse_url
from portico.config.findings import Place
from portico.config.nearest import did_you_mean
from portico.config.upstream import Service
from portico.config.values import BadValue

HINTS = 100
"""For how many unknown names the nearest is looked for, which takes long among thousands of services."""

_IS_PLACE = re.compile(r".*://.*|.*:\d+")


class References:
    """Resolves the names of services that endpoints and policies use, while they are validated.

    A name that is no service but says where one is (`host:port` or a URL) makes a service of that name.
    """

    def __init__(self, declared: Collection[str]) -> None:
        self.implicit: dict[str, Service] = {}
        """The services that were made so."""
        self._declared = declared
        self._unknown = 0
        self._place = Place("")
        self._used: list[str] = []

    def begin(self, place: Place) -> None:
        """Start with what stands at `place`."""
        self._place = place
        self._used = []

    @property
    def used(self) -> list[str]:
        """The services that were referred to since the last `begin`."""
        return self._used

    def refer(self, name: str) -> None:
        """Note that `name` is used, or raise BadValue where there is no such service."""
        if name not in self._declared and name not in self.implicit:
            self.implicit[name] = self._service_at(name)
        self._used.append(name)

    def _service_at(self, name: str) -> Service:
        if _IS_PLACE.fullmatch(name) is None:
            raise BadValue(f"there is no service {name!r}", self._hint(name))
        url = parse_url(name) if "://" in name else parse_target_address(name)
        return Service(url=url, origin=str(self._place))

    def _hint(self, name: str) -> str:
        self._unknown += 1
        near = did_you_mean(name, self._declared) if self._unknown <= HINTS else ""
        return near or "declare it under services:, or write its host:port"


def going_round(services: Mapping[str, Service]) -> Iterator[str]:
    """Yield the services whose requests would come back to them, by splits, fallbacks and mirrors."""
    for name, service in services.items():
        if name in led_to(services, service.others):
            yield name


def led_to(services: Mapping[str, Service], names: Iterable[str]) -> set[str]:
    """Return the services of these names, and all that their requests may go on to."""
    found: set[str] = set()
    ahead = list(names)
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += services[name].others if name in services else ()
    return found
