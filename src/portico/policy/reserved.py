"""Headers that services believe because nobody but the gateway can have said them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final

from portico.config.values import BadValue
from portico.http.headers import HOP_BY_HOP, spelled
from portico.http.message import Request

MOST_DASHES: Final = 8
"""In the name of a header: each can be written in two ways."""
_REFUSED: Final = HOP_BY_HOP | {b"host", b"content-length", b"content-type", b"content-encoding", b"expect", b"cookie"}


def check_reservable(name: str) -> str:
    """Return the name of a header if only the gateway may say it, or raise BadValue."""
    key = spelled(name.encode("ascii"))
    if key in _REFUSED:
        raise BadValue(f"{name} has a meaning of its own", "take one such as X-User-ID")
    if key.count(b"-") > MOST_DASHES:
        raise BadValue(f"{name} has more than {MOST_DASHES} dashes", "take a shorter name")
    return name


class ReservedHeaders:
    """Takes from requests what only the gateway may say, in all spellings: `x_user_id` is what many services read as
    `X-User-ID`, and some take what follows a body for headers as well."""

    __slots__ = ("_are_named", "_spellings")

    def __init__(self, names: Iterable[str]) -> None:
        """Reserve names, each of which `check_reservable` has found good."""
        own = frozenset(spelled(name.encode("ascii")) for name in names)
        self._are_named = own.__contains__
        self._spellings = frozenset(itertools.chain.from_iterable(map(_spellings, own)))

    def take_from(self, request: Request) -> None:
        """Take from a request whatever the client has sent under these names."""
        headers = request.headers
        if not self._spellings.isdisjoint(headers.index):
            for name in self._spellings.intersection(headers.index):
                headers.remove(name)
        request.body.refuse_trailers(self._are_named)


def _spellings(name: bytes) -> Iterator[bytes]:
    """Iterate over all ways to write a name that a service may read as this one."""
    pieces = re.split(rb"[-_]", name)
    for marks in itertools.product((b"-", b"_"), repeat=len(pieces) - 1):
        yield b"".join(itertools.chain.from_iterable(zip(pieces, (*marks, b""), strict=True)))
