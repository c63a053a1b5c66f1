"""What was remembered of a request, as plain data: which route and policies it came to, each try, and how long all of
it took. Times are seconds from when its head had come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from portico.http.redacted import redacted_target
from portico.observe.exchange import Exchange, Try
from portico.runtime.observing import Stand
from portico.runtime.recorder import Record

PASSED: Final = "passed"
ANSWERED: Final = "answered"
NOT_ASKED: Final = "not asked"


def summary_of(record: Record, ahead: float) -> dict[str, Any]:
    """Return what is told of a request in one line; `ahead` is how far the time of day is ahead of the clock."""
    exchange = record.exchange
    return {
        "number": record.number,
        "at": exchange.started + ahead,
        "method": exchange.method,
        "target": redacted_target(record.target.decode("latin-1")),
        "host": record.host,
        "client": record.address,
        "user": record.user,
        "correlation_id": record.correlation_id.decode("ascii", "replace"),
        "trace_id": exchange.trace_id,
        "route": exchange.route,
        "service": exchange.service,
        "upstream": exchange.target,
        "status": exchange.status,
        "outcome": "" if exchange.outcome is None else exchange.outcome.value,
        "seconds": exchange.ended - exchange.started,
        "error": exchange.error,
        "stopped_by": exchange.stopped_by,
        "tries": len(exchange.all_tries()),
    }


def trail_of(record: Record, ahead: float) -> dict[str, Any]:
    """Return all that is known of a request."""
    exchange = record.exchange
    watched = record.routes.get(exchange.route)
    stands: Sequence[Stand] = () if watched is None else watched.policies
    return {
        **summary_of(record, ahead),
        "span_id": exchange.span_id,
        "sampled": exchange.sampled,
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "headers": {name: value.decode("latin-1") for name, value in record.headers or ()},
        "origin": "" if watched is None else watched.origin,
        "path": "" if watched is None else watched.path,
        "end": "" if watched is None else watched.end,
        "notes": dict(exchange.notes or {}),
        "policies": _verdicts(stands, exchange),
        "steps": [
            {
                "name": step.name,
                "what": step.what,
                "began": step.began - exchange.started,
                "ended": step.ended - exchange.started,
            }
            for step in exchange.steps or ()
        ],
        "tries": [_try(each, exchange) for each in exchange.all_tries()],
    }


def _verdicts(stands: Sequence[Stand], exchange: Exchange) -> list[dict[str, Any]]:
    """Return what each policy of the chain has done, and what came of that in the words of its metric, if it has one:
    where one has answered, those further in were not asked, unless they have made something of it all the same, or a
    target was: then it has answered after them."""
    names = [stand.name for stand in stands]
    kinds = [stand.kind for stand in stands]
    results = {each.policy: each.result for each in exchange.results}
    by = exchange.stopped_by
    stopped = names.index(by) if by in names else kinds.index(by) if by in kinds else len(stands)
    met = (at for at, name in enumerate(names) if name in results)
    last = len(stands) if exchange.all_tries() else max(met, default=0)
    return [
        {
            **stand._asdict(),
            "verdict": ANSWERED if at == stopped else PASSED if at <= max(stopped, last) else NOT_ASKED,
            "result": results.get(stand.name, ""),
        }
        for at, stand in enumerate(stands)
    ]


def _try(each: Try, exchange: Exchange) -> dict[str, Any]:
    def since(moment: float) -> float | None:
        return moment - exchange.started if moment else None

    return {
        "service": each.service,
        "target": each.target,
        "outcome": each.outcome,
        "span_id": each.span_id,
        "connecting": since(each.started),
        "connected": since(each.connected),
        "tls": each.tls or None,
        "sent": since(each.sent),
        "first_byte": since(each.first_byte),
        "ended": since(each.ended),
    }
