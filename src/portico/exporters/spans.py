"""An exchange as spans, in the JSON of OTLP 1.x: one of the server, one for each step that took time, and one for each
try at a target. Attributes are named by OpenTelemetry's semantic conventions for HTTP (stable since 1.23).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from portico import __version__
from portico.http.redacted import redacted_query
from portico.observe.exchange import ANSWERED, Exchange, Outcome, Step, Try
from portico.observe.metrics import METHODS

Span = dict[str, Any]

_INTERNAL: Final = 1
_SERVER: Final = 2
_CLIENT: Final = 3
_ERROR: Final = 2
_IS_REMOTE_KNOWN: Final = 0x100
_IS_REMOTE: Final = 0x200
_NANO: Final = 10**9


class Ended(NamedTuple):
    """An exchange that is over, and what is to be told beside what it says itself."""

    exchange: Exchange
    route: str
    """The first path of its route, as the file has it; empty where it came to none."""
    path: str
    query: str | None
    host: str
    scheme: str
    client: str
    """The client's address; empty where it is not known."""
    peer: str
    """The address of whoever is connected: the client, or a proxy."""
    port: int
    """The port at which it came in; 0 where it is not known."""
    user_agent: str


def payload(ended: Iterable[Ended], resource: Mapping[str, str], ahead: float) -> dict[str, Any]:
    """Return what is sent of some exchanges; `ahead` is how far the time of day is ahead of the worker's clock."""
    spans = [span for each in ended for span in _spans(each, ahead)]
    scope = {"scope": {"name": "portico", "version": __version__}, "spans": spans}
    return {"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}]}


def _spans(ended: Ended, ahead: float) -> Iterator[Span]:
    exchange = ended.exchange
    yield _server(ended, ahead)
    for step in exchange.steps or ():
        yield _step(exchange, step, ahead)
    for number, each in enumerate(exchange.all_tries()):
        yield _try(exchange, each, number, ahead)


def _server(ended: Ended, ahead: float) -> Span:
    exchange = ended.exchange
    method = exchange.method if exchange.method in METHODS else "_OTHER"
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": ended.scheme,
        "url.path": ended.path,
        "portico.route": exchange.route,
    }
    if method != exchange.method:
        attributes["http.request.method_original"] = exchange.method
    if exchange.status:
        attributes["http.response.status_code"] = exchange.status
    if ended.query:
        attributes["url.query"] = redacted_query(ended.query)
    if ended.port:
        attributes["server.port"] = ended.port
    named = {
        "http.route": ended.route,
        "server.address": ended.host,
        "client.address": ended.client,
        "network.peer.address": ended.peer,
        "user_agent.original": ended.user_agent,
        "portico.service": exchange.service,
        "portico.stopped_by": exchange.stopped_by,
    }
    attributes.update({name: value for name, value in named.items() if value})
    attributes.update({f"portico.result.{result.policy}": result.result for result in exchange.results})
    for name, noted in (exchange.notes or {}).items():
        attributes[f"portico.{name}"] = noted if isinstance(noted, str | int) else str(noted)
    failed = _failure(exchange)
    if failed:
        attributes["error.type"] = failed
    trace = exchange.trace
    parent = "" if trace is None else trace.parent_id
    span = _span(
        exchange,
        exchange.span_id,
        parent,
        f"{method if method != '_OTHER' else 'HTTP'} {ended.route}".rstrip(),
        _SERVER,
        (exchange.started, exchange.ended),
        attributes,
        ahead,
    )
    span["flags"] |= _IS_REMOTE if parent else 0
    if failed and (exchange.status >= 500 or exchange.outcome is not Outcome.COMPLETE):
        span["status"] = {"code": _ERROR, "message": exchange.error}
    return span


def _failure(exchange: Exchange) -> str:
    """Return the type of what went wrong; a refusal is nothing that did (4xx is no error of a server's span)."""
    if exchange.outcome is not Outcome.COMPLETE and exchange.outcome is not None:
        return exchange.outcome.value
    if exchange.status < 500:
        return ""
    return exchange.try_outcome or str(exchange.status)


def _step(exchange: Exchange, step: Step, ahead: float) -> Span:
    attributes = {"portico.step": step.what} if step.what else {}
    times = (step.began, step.ended)
    return _span(exchange, os.urandom(8).hex(), exchange.span_id, step.name, _INTERNAL, times, attributes, ahead)


def _try(exchange: Exchange, each: Try, number: int, ahead: float) -> Span:
    host, _, port = each.target.rpartition(":")
    attributes: dict[str, str | int] = {
        "http.request.method": exchange.method,
        "server.address": (host or each.target).strip("[]"),
        "portico.service": each.service,
    }
    if port.isdigit():
        attributes["server.port"] = int(port)
    if number:
        attributes["http.request.resend_count"] = number
    status = each.outcome.removeprefix("status-")
    if status.isdigit():
        attributes["http.response.status_code"] = int(status)
    elif each.outcome == ANSWERED and not exchange.stopped_by and exchange.status:
        attributes["http.response.status_code"] = exchange.status
    failed = each.outcome != ANSWERED or exchange.status >= 400
    if failed:
        answered = each.outcome == ANSWERED
        attributes["error.type"] = str(exchange.status) if answered else status
    began = each.started or each.sent
    span = _span(
        exchange,
        each.span_id or os.urandom(8).hex(),
        exchange.span_id,
        exchange.method,
        _CLIENT,
        (began, each.ended),
        attributes,
        ahead,
    )
    if failed:
        span["status"] = {"code": _ERROR}
    moments = (("connected", each.connected), ("sent", each.sent), ("first byte", each.first_byte))
    span["events"] = [{"timeUnixNano": _nanos(at + ahead), "name": name} for name, at in moments if at]
    return span


def _span(
    exchange: Exchange,
    span_id: str,
    parent_id: str,
    name: str,
    kind: int,
    times: tuple[float, float],
    attributes: Mapping[str, str | int],
    ahead: float,
) -> Span:
    began, ended = times
    span: Span = {
        "traceId": exchange.trace_id,
        "spanId": span_id,
        "name": name,
        "kind": kind,
        "flags": _IS_REMOTE_KNOWN | (1 if exchange.trace is None else exchange.trace.flags),
        "startTimeUnixNano": _nanos(began + ahead),
        "endTimeUnixNano": _nanos(max(began, ended) + ahead),
        "attributes": _attributes(attributes),
    }
    if parent_id:
        span["parentSpanId"] = parent_id
    return span


def _nanos(seconds: float) -> str:
    return str(round(seconds * _NANO))


def _attributes(values: Mapping[str, str | int]) -> Sequence[dict[str, Any]]:
    return [
        {"key": key, "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}}
        for key, value in values.items()
    ]
