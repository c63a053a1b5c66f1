"""What requests are told apart by, so that those of one key stay together."""

from __future__ import annotations

from collections.abc import Callable

from portico.config.balance import HashKey
from portico.http.message import Request
from portico.http.user import USER
from portico.policy.condition.names import PLACES


def key_of(config: HashKey) -> Callable[[Request], bytes | str | None]:
    """Return what reads the key of a request: nothing, or an empty one, where it has none."""
    if config.header is not None:
        return _header(config.header)
    if config.by is not None:
        return _BY[config.by]
    named = (("cookies", config.cookie), ("query", config.query), ("captures", config.capture))
    place, name = next((place, name) for place, name in named if name is not None)
    return PLACES[place].at(name)


def _header(name: str) -> Callable[[Request], bytes | None]:
    key = name.lower().encode("ascii")
    return lambda request: request.headers.index.get(key)


def _address(request: Request) -> str | None:
    return None if request.client is None else request.client.address


def _consumer(request: Request) -> str | None:
    user = request.get(USER)
    return None if user is None else user.name


_BY = {"address": _address, "consumer": _consumer}
