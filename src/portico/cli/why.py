"""What `portico why` prints of a request: who answered it and why, and how long each part of that took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

WIDTH: Final = 40
"""Characters of the timeline."""

PLAIN: Final = str.maketrans(dict.fromkeys((*range(32), *range(127, 160)), "�"))
"""Takes control codes away: a client must not be able to write them to a terminal."""

_ANSWERED: Final = "answered"
_NOT_ASKED: Final = "not asked"


_ENDS: Final = {"no-route": "no route takes this path", "wrong-method": "the path has no route with this method"}


class Span(NamedTuple):
    """One row of the timeline, in seconds from the request's beginning."""

    label: str
    began: float
    ended: float


def why_text(told: Mapping[str, Any], wanted: str) -> str:
    """Return what is remembered of the requests with an id as text."""
    found = told["found"]
    if not found:
        silent = f", {told['silent']} of which did not answer" if told["silent"] else ""
        return (
            f"no request {wanted} is remembered by {told['asked']} workers{silent}: it is not over, it is too long "
            "ago, it was another gateway's, or the recorder is off"
        )
    return "\n\n".join("\n".join(line.translate(PLAIN) for line in _lines(record)) for record in found)


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield headline(record)
    yield f"  {verdict(record)}"
    after = following(record)
    if after:
        yield f"  next would have been: {after}"
    yield ""
    rows = {
        "id": f"{record['id']} (worker {record['worker']}, process {record['pid']})",
        "at": time_of(record["at"], "milliseconds"),
        "client": record["client"] + (f", user {record['user']}" if record["user"] else ""),
        "host": record["host"],
        "correlation": record["correlation_id"],
        "trace": record["trace_id"] + (" (recorded)" if record["sampled"] else "") if record["trace_id"] else "",
        "outcome": f"{record['outcome']}, {record['bytes_in']} bytes in, {record['bytes_out']} bytes out",
        "error": record["error"],
    }
    rows |= {f"header {name}": value for name, value in record["headers"].items()}
    rows |= {f"note {name}": str(value) for name, value in record["notes"].items()}
    yield from _pairs(rows)
    if record["route"]:
        yield ""
        yield "  ".join(each for each in (f"  route {record['route']}", record["path"], record["origin"]) if each)
        yield from _candidates(record["candidates"])
        yield from _chain(record)
    yield ""
    yield from timeline(spans_of(record), record["seconds"])


def headline(record: Mapping[str, Any]) -> str:
    """Return the request and its answer in one line."""
    what = f"{record['method']} {record['target']}".strip() or "what was no request"
    return f"{what}: {record['status'] or 'no answer'} after {milliseconds(record['seconds'])}"


def verdict(record: Mapping[str, Any]) -> str:
    """Return who answered, and why, as a sentence."""
    error = f": {record['error']}" if record["error"] else ""
    outcome, service = record["outcome"], record["service"]
    if outcome == "rejected":
        return f"it never became a request{error}"
    if outcome == "client-left":
        return f"the client left {_meanwhile(record)}"
    if outcome == "cancelled":
        return f"the worker was ended {_meanwhile(record)}"
    if outcome == "truncated":
        return f"the answer of service {service} broke off, and the connection to the client was cut{error}"
    if outcome == "failed" or (record["status"] == 500 and record["error"] == "internal-error"):
        return "a bug: the log has its trace"
    if record["stopped_by"]:
        said = next((each["result"] for each in record["policies"] if each["verdict"] == _ANSWERED), "")
        end = record["end"] or "the service"
        instead = f"after {end} was asked" if record["tries"] else f"and not {end}"
        return f"the policy {record['stopped_by']} answered{f' ({said})' if said else ''}, {instead}{error}"
    if service:
        tries = record["tries"]
        last = tries[-1] if tries else None
        if last is not None and last["outcome"] == _ANSWERED:
            count = f", at try {len(tries)}" if len(tries) > 1 else ""
            return f"service {service} answered, from {last['target']}{count}{error}"
        return f"the gateway answered for service {service}{error}"
    end = _ENDS.get(record["end"], f"the route answered ({record['end']})")
    return f"{end}{error if error[2:] != record['end'] else ''}"


def following(record: Mapping[str, Any]) -> str:
    """Return what would have come after the policy that answered; an empty text where nothing would, or all has."""
    if record["tries"]:
        return ""
    after = [policy["name"] for policy in record["policies"] if policy["verdict"] == _NOT_ASKED]
    stopped = any(policy["verdict"] == _ANSWERED for policy in record["policies"])
    return ", then ".join([*after, record["end"]]) if stopped and record["end"] else ""


def _meanwhile(record: Mapping[str, Any]) -> str:
    if not record["tries"]:
        return "before a service was asked"
    last = record["tries"][-1]
    if last["first_byte"] is not None:
        return f"while the answer of service {last['service']} was on its way, from {last['target']}"
    if last["sent"] is None:
        return f"while the gateway connected to service {last['service']} at {last['target']}"
    waited = milliseconds(record["seconds"] - last["sent"])
    return f"while service {last['service']} at {last['target']} had not answered for {waited}"


def _candidates(candidates: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for candidate in candidates:
        if candidate["why"] != "chosen":
            yield f"    also on this path: {candidate['route']}, which {candidate['why']}  {candidate['origin']}"


def _chain(record: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for policy in record["policies"]:
        when = f"when {policy['when']}" if policy["when"] else ""
        said = ": ".join(text for text in (policy["verdict"], policy["result"]) if text)
        rows.append((said, policy["name"], policy["scope"], policy["origin"], when))
    if rows:
        yield from (f"    {row}" for row in _table(rows))
    if record["end"] in _ENDS:
        return
    asked = record["tries"] or (record["end"] and not record["stopped_by"] and not record["service"])
    yield f"    {'asked' if asked else 'not asked'}: {record['end']}"


def spans_of(record: Mapping[str, Any]) -> list[Span]:
    """Return the rows of the timeline, in the order in which they began."""
    spans = [Span(f"{step['name']}: {step['what']}", step["began"], step["ended"]) for step in record["steps"]]
    for number, each in enumerate(record["tries"], 1):
        began = each["sent"] if each["connecting"] is None else each["connecting"]
        spans.append(Span(f"try {number}: {each['target']}, {each['outcome']}", began, each["ended"]))
        spans += _phases(each)
    spans.sort(key=lambda span: span.began)
    first = min((each.began for each in spans), default=record["seconds"])
    ahead = [Span("before anything was waited for", 0.0, first)] if spans else []
    return [*ahead, *spans]


def _phases(each: Mapping[str, Any]) -> Iterator[Span]:
    connecting, connected, tls = each["connecting"], each["connected"], each["tls"] or 0.0
    sent, first_byte, ended = each["sent"], each["first_byte"], each["ended"]
    if connecting is not None:
        up = ended if connected is None else connected - tls
        yield Span("  connecting", connecting, up)
        if tls:
            yield Span("  TLS", up, connected)
    if sent is not None:
        yield Span("  waiting for the answer", sent, ended if first_byte is None else first_byte)
    if first_byte is not None:
        yield Span("  the answer's content", first_byte, ended)


def timeline(spans: Sequence[Span], seconds: float) -> Iterator[str]:
    """Yield a line for each row: when it began, how long it took, and where that lies in the whole."""
    whole = max([seconds, *(span.ended for span in spans)], default=0.0) or 1e-9
    rows = [Span("all of it", 0.0, seconds), *spans]
    width = max(len(span.label) for span in rows)
    for span in rows:
        start = min(WIDTH - 1, int(span.began / whole * WIDTH))
        length = max(1, round((span.ended - span.began) / whole * WIDTH))
        bar = (" " * start + "=" * min(length, WIDTH - start)).ljust(WIDTH)
        took = milliseconds(span.ended - span.began)
        yield f"  {milliseconds(span.began):>8}  {took:>8}  |{bar}|  {span.label.ljust(width)}".rstrip()


def milliseconds(seconds: float) -> str:
    """Return a time for people, as exact as the clock is by which it was taken: `31 ms`, `3.10 s`."""
    return f"{seconds:.2f} s" if seconds >= 1.0 else f"{seconds * 1e3:.0f} ms"


def time_of(at: float, spec: str = "seconds") -> str:
    """Return a time of day, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(" ", spec).replace("+00:00", "Z")


def _pairs(rows: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, rows))
    yield from (f"  {name.ljust(width)}  {value}" for name, value in rows.items() if value)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
