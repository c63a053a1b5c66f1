"""What a line says of a request, where that has to be found out."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from portico.exporters.access_log.escaping import decoded
from portico.exporters.access_log.record import Record
from portico.observe.exchange import AGAIN, Exchange, Outcome, Result, ResultKind

CLIENT_ADDRESS: Final = "client.address"
"""The note that says where something came from that never became a request."""
CLIENT_PATH: Final = "client.path"
"""The note that says what that has asked for."""

_NO_RESULT: Final = Result(ResultKind.LIMIT, "", "")
_WEIGHTS: Final = MappingProxyType({"": 0, "allowed": 1, "dry-run": 2, "unchecked": 3, "limited": 4})
"""How much the results of limits say, beside each other."""
_WAYS: Final = frozenset(("gateway", "connect", "response"))


def address_of(record: Record) -> str:
    """Return the client's address."""
    exchange, client = record[0], record[1]
    if client is not None:
        return client.address
    return "" if exchange.notes is None else str(exchange.notes.get(CLIENT_ADDRESS, ""))


def origin_of(record: Record) -> str:
    """Return the scheme and the host that the client asked for, such as `https://shop.example:8443`."""
    client = record[1]
    if client is None:
        return ""
    host = client.asked(record[3].get(b"host"))
    return f"{client.scheme}://{'' if host is None else decoded(host)}"


def target_of(record: Record) -> str:
    """Return the request target as it was sent."""
    exchange, sent = record[0], record[2]
    if sent or exchange.notes is None:
        return decoded(sent)
    return str(exchange.notes.get(CLIENT_PATH, ""))


def url_of(record: Record) -> str:
    """Return the URL that was asked for, as far as that is known."""
    target = target_of(record)
    return origin_of(record) + target if target.startswith("/") else target


def correlation_of(record: Record) -> str:
    """Return the id that client, gateway and service share; where the policy is not there, the client's own."""
    known = record[5] or record[3].get(b"x-correlation-id")
    return "" if known is None else decoded(known)


def result_of(exchange: Exchange, kind: ResultKind) -> str:
    """Return what came of it at the innermost policy of a kind that it has met; empty where it has met none."""
    for result in reversed(exchange.results):
        if result.kind is kind:
            return result.result
    return ""


@lru_cache(1024)  # there are few different ones, as they are made at load
def limit_of(results: tuple[Result, ...]) -> Result:
    """Return what came of it at the limit that says most: the one that has refused it, or was not known, or would have
    refused it; else the outermost. Its texts are empty where it has met none."""
    limits = [result for result in results if result.kind is ResultKind.LIMIT]
    return max(limits, key=lambda result: _WEIGHTS.get(result.result, 1), default=_NO_RESULT)


def error_source_of(exchange: Exchange) -> str:
    """Return where it went wrong: at the `client`, a `policy`, the `gateway`, on the way to the service (`connect`), in
    its answer (`response`), or by the answer of the `service` itself; empty where nothing has."""
    outcome, error = exchange.outcome, exchange.error
    if outcome is Outcome.CLIENT_LEFT or outcome is Outcome.REJECTED:
        return "client"
    way = error.split(": ", 2)[1] if ": " in error else ""
    if way in _WAYS:
        return way
    if outcome is Outcome.TRUNCATED:
        return "response"
    if exchange.stopped_by and (exchange.status >= 400 or outcome is not Outcome.COMPLETE):
        if exchange.error or not any(result.result in AGAIN for result in exchange.results):
            return "policy"  # what is given again is the service's own, and never a problem
        if outcome is Outcome.COMPLETE:
            return "service"
    if outcome is not Outcome.COMPLETE:
        return "gateway"
    if exchange.status < 400:
        return ""
    if not error:
        return "service" if exchange.tries else "gateway"
    return "gateway" if exchange.status >= 500 else "client"


def went_wrong(exchange: Exchange) -> bool:
    """Return whether an exchange is one of those that are logged in any case."""
    return exchange.status >= 400 or exchange.outcome is not Outcome.COMPLETE


def upstream_ms(exchange: Exchange) -> float | None:
    """Return how long the last target took, from the head sent to the head of its answer; None where none came."""
    return (exchange.first_byte - exchange.sent) * 1000 if exchange.first_byte > 0.0 else None


FROM_POLICIES: Final[tuple[tuple[str, Callable[[Exchange], str]], ...]] = (
    ("cache", lambda exchange: result_of(exchange, ResultKind.CACHE)),
    ("limit", lambda exchange: limit_of(exchange.results).result),
    ("limit_policy", lambda exchange: limit_of(exchange.results).policy),
    ("idempotency", lambda exchange: result_of(exchange, ResultKind.IDEMPOTENCY)),
    ("stopped_by", lambda exchange: exchange.stopped_by),
)
"""What a line says of policies, by name, in the order of a line; a text is empty where there is nothing to say."""

FROM_ERRORS: Final[tuple[tuple[str, Callable[[Exchange], str]], ...]] = (
    ("error", lambda exchange: exchange.error),
    ("error_source", error_source_of),
)
"""The same of what went wrong."""


def iso_second(second: int) -> str:
    """Return a second since the epoch as RFC 3339 has it, in UTC, without its end."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
