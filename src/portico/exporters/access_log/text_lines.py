"""Lines of text: the format `combined` of Apache and nginx, and templates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from portico.config.access_log import PLACE
from portico.exporters.access_log.escaping import cut, decoded, plain_text
from portico.exporters.access_log.facts import (
    FROM_ERRORS,
    FROM_POLICIES,
    address_of,
    correlation_of,
    iso_second,
    origin_of,
    target_of,
    upstream_ms,
    url_of,
)
from portico.exporters.access_log.record import LONGEST, LONGEST_URL, SHORT, Record
from portico.exporters.access_log.redaction import Redaction
from portico.observe.exchange import Exchange

Field = Callable[[Record, float], str]
"""What a place shows of a record, given what the time of day is ahead of the record's clock; not escaped yet."""

NOTHING: Final = "-"
"""What stands for a field that a request has not."""

COMBINED: Final = (
    '{{ ip_address }} - {{ user_id }} [{{ local_time }}] "{{ method }} {{ target_sent }} {{ protocol }}"'
    ' {{ status_code }} {{ bytes_out }} "{{ referer }}" "{{ user_agent }}"'
)


def _timestamp(record: Record, ahead: float) -> str:
    second, ms = divmod(int((record[0].ended + ahead) * 1000), 1000)
    return f"{iso_second(second)}.{ms:03}Z"


def _local_time(record: Record, ahead: float) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(int(record[0].ended + ahead)))


def _header(name: str) -> Field:
    key = name.lower().encode("ascii")

    def shown(record: Record, _: float) -> str:
        value = record[3].get(key)
        return "" if value is None else decoded(value)

    return shown


def _note(name: str) -> Field:
    def shown(record: Record, _: float) -> str:
        notes = record[0].notes
        return "" if notes is None else str(notes.get(name, ""))

    return shown


def _of_exchange(said: Callable[[Exchange], str]) -> Field:
    return lambda record, _: said(record[0])


def _protocol(record: Record, _: float) -> str:
    return "" if record[1] is None else f"HTTP/1.{record[1].minor}"


def _upstream(record: Record, _: float) -> str:
    took = upstream_ms(record[0])
    return "" if took is None else f"{took:.3f}"


_SIMPLE: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "timestamp": _timestamp,
        "method": lambda record, _: record[0].method,
        "status_code": lambda record, _: f"{record[0].status:03}",
        "duration_ms": lambda record, _: f"{(record[0].ended - record[0].started) * 1000:.3f}",
        "user_id": lambda record, _: "" if record[4] is None else record[4].name,
        "correlation_id": lambda record, _: correlation_of(record),
        "user_agent": _header("user-agent"),
        "ip_address": lambda record, _: address_of(record),
        "route": lambda record, _: record[0].route,
        "service": lambda record, _: record[0].service,
        "target": lambda record, _: record[0].target,
        "tries": lambda record, _: str(record[0].tries),
        "upstream_ms": _upstream,
        "bytes_in": lambda record, _: str(record[0].bytes_in),
        "bytes_out": lambda record, _: str(record[0].bytes_out),
        "outcome": lambda record, _: str(record[0].outcome),
        **{name: _of_exchange(said) for name, said in FROM_POLICIES + FROM_ERRORS},
        "trace_id": lambda record, _: record[0].trace_id,
        "protocol": _protocol,
        "host": lambda record, _: origin_of(record).partition("://")[2],
        "path": lambda record, _: target_of(record).partition("?")[0],
    }
)
_INNER: Final[Mapping[str, Field]] = MappingProxyType({"local_time": _local_time})


class TextLines:
    """A text with places; what fills them is escaped as nginx does it, and `-` where there is nothing."""

    def __init__(self, template: str, redaction: Redaction) -> None:
        """Compile a template whose places were checked, or `combined`."""
        self._redaction = redaction
        self._parts: list[str | tuple[Field, int]] = []
        self._spaced = template == "combined"  # its user stands between spaces, and may have none itself
        text = COMBINED if self._spaced else template
        at = 0
        for match in PLACE.finditer(text):
            self._parts += [text[at : match.start()], self._field(match[1])]
            at = match.end()
        self._parts.append(text[at:])

    def render(self, records: list[Record], wall: float, now: float) -> list[str]:
        """Return a line for each record."""
        ahead = wall - now
        return [self._line(record, ahead, LONGEST_URL) for record in records]

    def shorten(self, record: Record, wall: float, now: float) -> str:
        """Return a line with the first few characters of each text."""
        return self._line(record, wall - now, SHORT)

    def _line(self, record: Record, ahead: float, longest: int) -> str:
        return "".join(
            [
                part
                if isinstance(part, str)
                else plain_text(cut(part[0](record, ahead), min(longest, part[1]))) or NOTHING
                for part in self._parts
            ]
        )

    def _field(self, name: str) -> tuple[Field, int]:
        redacted = self._redaction.of_target
        if name == "url":
            return lambda record, _: redacted(url_of(record)), LONGEST_URL
        if name == "target_sent":
            return lambda record, _: redacted(target_of(record)), LONGEST_URL
        if name == "referer":
            referer = _header("referer")
            return lambda record, ahead: redacted(referer(record, ahead)), LONGEST
        if name == "user_id" and self._spaced:
            return lambda record, _: "" if record[4] is None else record[4].name.replace(" ", "_"), LONGEST
        if name.startswith("headers."):
            header = _header(name.removeprefix("headers."))
            return lambda record, ahead: redacted(header(record, ahead)), LONGEST
        if name.startswith("notes."):
            return _note(name.removeprefix("notes.")), LONGEST
        return _SIMPLE.get(name) or _INNER[name], LONGEST_URL if name == "path" else LONGEST
