"""Which part of `discover` is found out by what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from portico.config.balance import Discover
from portico.upstream.discovery import Discovery


def _dns(discover: Discover) -> Discovery:
    from portico.upstream.discovery.dns import Addresses  # an agent that asks no DNS does without dnspython

    return Addresses(discover)


def _srv(discover: Discover) -> Discovery:
    from portico.upstream.discovery.dns import Services

    return Services(discover)


def _file(discover: Discover) -> Discovery:
    from portico.upstream.discovery.file import Listed

    return Listed(discover)


KINDS: Final[Mapping[str, Callable[[Discover], Discovery]]] = {"dns": _dns, "srv": _srv, "file": _file}
"""What is made of a `discover`, by the key in it that says where to look."""


def discovery_of(discover: Discover, kinds: Mapping[str, Callable[[Discover], Discovery]] = KINDS) -> Discovery:
    """Return what finds out the targets that `discover` speaks of."""
    (made,) = (kinds[key] for key in kinds if getattr(discover, key) is not None)
    return made(discover)
