"""What sees the end of each request of a route, and keeps a record of those that are to have a line."""

from __future__ import annotations

import random
from collections.abc import Callable

from portico.exporters.access_log.facts import went_wrong
from portico.exporters.access_log.record import Record
from portico.http.correlation import CORRELATION_ID
from portico.http.message import Observer, Request
from portico.http.user import USER
from portico.observe.exchange import Exchange

_NO_HEADERS: dict[bytes, bytes] = {}


class Recorder(Observer):
    """Keeps a record of every request."""

    __slots__ = ("_keep",)

    def __init__(self, keep: Callable[[Record], None]) -> None:
        self._keep = keep

    def ended(self, exchange: Exchange, request: Request | None) -> None:
        """Keep a record of it."""
        if request is None:
            self._keep((exchange, None, b"", _NO_HEADERS, None, None))
        elif request.has_slots:
            self._keep(
                (
                    exchange,
                    request.client,
                    request.sent,
                    request.headers.index,
                    request.get(USER),
                    request.get(CORRELATION_ID),
                )
            )
        else:
            self._keep((exchange, request.client, request.sent, request.headers.index, None, None))


class Choice(Observer):
    """Keeps records of some requests: of what went wrong, of what was slow, and of the others a share."""

    __slots__ = ("_all", "_rng", "_share", "_slow")

    def __init__(self, every: Recorder, share: float, slow: float, rng: random.Random) -> None:
        """`share` is of those that are neither; `slow` is in seconds."""
        self._all = every
        self._share = share
        self._slow = slow
        self._rng = rng

    def ended(self, exchange: Exchange, request: Request | None) -> None:
        """Keep a record of it, or do not."""
        if (
            went_wrong(exchange)
            or exchange.ended - exchange.started >= self._slow
            or (self._share > 0.0 and self._rng.random() < self._share)
        ):
            self._all.ended(exchange, request)
