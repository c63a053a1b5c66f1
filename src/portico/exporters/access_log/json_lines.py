"""Lines in JSON, put together by hand: a line has few texts that were not there before, and those alone are escaped."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from math import isfinite
from typing import Final

from mypy_extensions import i64

from portico.exporters.access_log.escaping import cut, decoded, json_text
from portico.exporters.access_log.facts import (
    FROM_ERRORS,
    FROM_POLICIES,
    address_of,
    correlation_of,
    iso_second,
    target_of,
    upstream_ms,
    url_of,
)
from portico.exporters.access_log.record import LONGEST, LONGEST_URL, SHORT, Record
from portico.exporters.access_log.redaction import Redaction
from portico.http.message import Client
from portico.http.user import User
from portico.observe.exchange import Exchange, Outcome, Result

REMEMBERED: Final = 2048
"""Texts that are not escaped again, of each kind."""
_LONGEST_REMEMBERED: Final = 512
_COMPLETE: Final = Outcome.COMPLETE
_PLAIN: Final = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.:/="
_THOUSAND: Final = tuple(f"{number:03}" for number in range(1000))


_SMALL: Final = tuple(str(number) for number in range(1000))


def _number(number: int) -> str:
    return _SMALL[number] if 0 <= number < 1000 else str(number)


def _ms(seconds: float) -> str:
    """Return a time, which is not negative, in milliseconds with three decimals; it costs less than formatting does."""
    thousandths = i64(seconds * 1e6 + 0.5)
    whole = thousandths // 1000
    return f"{_number(int(whole))}.{_THOUSAND[thousandths - whole * 1000]}"


class _Texts(dict[str, str]):
    """Texts as values of JSON; an empty one is `null`."""

    def __missing__(self, text: str) -> str:
        made = json_text(cut(text, LONGEST)) if text else "null"
        if len(text) <= _LONGEST_REMEMBERED:
            if len(self) >= REMEMBERED:
                self.clear()
            self[text] = made
        return made


class _Values(dict[bytes | None, str]):
    """The same of the values of headers."""

    def __missing__(self, raw: bytes | None) -> str:
        made = json_text(cut(decoded(raw), LONGEST)) if raw else "null"
        if raw is None or len(raw) <= _LONGEST_REMEMBERED:
            if len(self) >= REMEMBERED:
                self.clear()
            self[raw] = made
        return made


class _Origins(dict[bytes | None, str]):
    """Schemes and hosts as parts of texts of JSON."""

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self._scheme = scheme

    def __missing__(self, host: bytes | None) -> str:
        made = self._scheme + json_text(cut(decoded(host or b""), LONGEST))[1:-1]
        if len(self) >= REMEMBERED:
            self.clear()
        self[host] = made
        return made


class JsonLines:
    """The format `json`: one object in each line, by the names of spec 003 and some more."""

    def __init__(
        self,
        redaction: Redaction,
        headers: Sequence[str] = (),
        hashed: Sequence[str] = (),
        hash_key: bytes = b"",
    ) -> None:
        """Have these headers in each line, and of those that are to be hashed a print."""
        self._redaction = redaction
        self._headers = [(json_text(name.lower()), name.lower().encode("ascii")) for name in headers]
        self._hashed = [(json_text(name.lower()), name.lower().encode("ascii")) for name in hashed]
        self._hash_key = hash_key
        self._extra = bool(headers or hashed)
        self._texts = _Texts()
        self._values = _Values()
        self._targets: dict[bytes, str] = {}
        self._policies: dict[tuple[str, tuple[Result, ...]], str] = {}
        self._callers: dict[tuple[bytes | None, str], str] = {}
        self._ends: dict[tuple[str, str, str], str] = {}
        self._http = _Origins("http://")
        self._https = _Origins("https://")

    def render(self, records: list[Record], wall: float, now: float) -> list[str]:
        """Return a line for each record."""
        texts, targets, http, https = self._texts, self._targets, self._http, self._https
        callers, ends = self._callers, self._ends
        ahead, extra, second_text = wall - now, self._extra, ""
        known_second: i64 = 0
        lines: list[str] = []
        for record in records:
            exchange, sent, headers, correlation = record[0], record[2], record[3], record[5]
            client: Client | None = record[1]
            user: User | None = record[4]
            ended, status, rest = exchange.ended, exchange.status, ""
            thousandths = i64((ended + ahead) * 1000.0)
            second = thousandths // 1000
            ms = _THOUSAND[thousandths - second * 1000]
            if second != known_second:
                known_second, second_text = second, iso_second(int(second))
            if client is not None:
                target = targets.get(sent)
                if target is None:
                    target = self._target(sent)
                if target[0] == "/":
                    host = client.asked(headers.get(b"host"))
                    target = (https if client.scheme == "https" else http)[host] + target
                address = client.address
            else:
                target = json_text(cut(target_of(record), LONGEST_URL))[1:-1]
                address = address_of(record)
            known = correlation or headers.get(b"x-correlation-id")
            if not known:
                told = "null"
            elif len(known) < LONGEST and not known.translate(None, _PLAIN):
                told = f'"{known.decode()}"'
            else:
                told = json_text(cut(decoded(known), LONGEST))
            began = exchange.first_byte
            upstream = "null" if began <= 0.0 else _ms(began - exchange.sent)
            outcome = exchange.outcome
            if exchange.results or exchange.stopped_by:
                rest = self._policies.get((exchange.stopped_by, exchange.results)) or self._of_policies(exchange)
            if status >= 400 or outcome is not _COMPLETE or extra or exchange.notes is not None or exchange.error:
                rest += self._rest(record)
            trace = f',"trace_id":"{exchange.trace_id}"' if exchange.trace_id else ""  # digits, never the same again
            who = "null" if user is None else texts[user.name]
            agent = headers.get(b"user-agent")
            caller = callers.get((agent, address)) or self._caller(agent, address)
            end = ends.get((exchange.route, exchange.service, exchange.target)) or self._end(exchange)
            how = "complete" if outcome is _COMPLETE else str(outcome)
            lines.append(
                f'{{"timestamp":"{second_text}.{ms}Z","method":{texts[exchange.method]},"url":"{target}","status_code":'
                f'{_number(status)},"duration_ms":{_ms(ended - exchange.started)},"user_id":{who},'
                f'"correlation_id":{told}{caller}{end}{_number(exchange.tries)},"upstream_ms":{upstream},'
                f'"bytes_in":{_number(exchange.bytes_in)},"bytes_out":{_number(exchange.bytes_out)},"outcome":"{how}"{rest}{trace}}}'
            )
        return lines

    def shorten(self, record: Record, wall: float, now: float) -> str:
        """Return a line with the first few characters of each text, and without headers and notes."""
        exchange, _, _, headers, user, _ = record
        second, ms = divmod(int((exchange.ended + wall - now) * 1000), 1000)
        agent = headers.get(b"user-agent")
        upstream = upstream_ms(exchange)
        texts = {
            "method": exchange.method,
            "url": self._redaction.of_target(url_of(record)),
            "user_id": "" if user is None else user.name,
            "correlation_id": correlation_of(record),
            "user_agent": "" if agent is None else decoded(agent),
            "ip_address": address_of(record),
            "route": exchange.route,
            "service": exchange.service,
            "target": exchange.target,
            "outcome": str(exchange.outcome),
            "trace_id": exchange.trace_id,
        }
        for name, said in FROM_ERRORS + FROM_POLICIES:
            texts[name] = said(exchange)
        told = [f'"{name}":{json_text(cut(text, SHORT))}' for name, text in texts.items() if text]
        return (
            f'{{"timestamp":"{iso_second(second)}.{ms:03}Z",{",".join(told)},"status_code":{exchange.status},'
            f'"duration_ms":{(exchange.ended - exchange.started) * 1000:.3f},"tries":{exchange.tries},'
            f'"upstream_ms":{"null" if upstream is None else f"{upstream:.3f}"},"bytes_in":{exchange.bytes_in},'
            f'"bytes_out":{exchange.bytes_out},"shortened":true}}'
        )

    def _target(self, sent: bytes) -> str:
        """Return a request target, as a part of a text of JSON; one without a query is remembered."""
        made = json_text(cut(self._redaction.of_target(decoded(sent)), LONGEST_URL))[1:-1] or "/"
        if len(sent) <= _LONGEST_REMEMBERED and b"?" not in sent:
            if len(self._targets) >= REMEMBERED:
                self._targets.clear()
            self._targets[sent] = made
        return made

    def _caller(self, agent: bytes | None, address: str) -> str:
        """Return what a line says of who has asked, and remember it."""
        made = f',"user_agent":{self._values[agent]},"ip_address":{self._texts[address]}'
        if agent is None or len(agent) <= _LONGEST_REMEMBERED:
            if len(self._callers) >= REMEMBERED:
                self._callers.clear()
            self._callers[agent, address] = made
        return made

    def _end(self, exchange: Exchange) -> str:
        """Return what a line says of where a request has come to, up to the number of tries, and remember it."""
        route, service, target = exchange.route, exchange.service, exchange.target
        texts = self._texts
        made = f',"route":{texts[route]},"service":{texts[service]},"target":{texts[target]},"tries":'
        if len(self._ends) >= REMEMBERED:
            self._ends.clear()
        self._ends[route, service, target] = made
        return made

    def _of_policies(self, exchange: Exchange) -> str:
        """Return what policies have made of a request: few different texts, which are remembered."""
        fields = [(name, said(exchange)) for name, said in FROM_POLICIES]
        made = "".join([f',"{name}":{self._texts[text]}' for name, text in fields if text])
        if len(self._policies) >= REMEMBERED:
            self._policies.clear()
        self._policies[exchange.stopped_by, exchange.results] = made
        return made

    def _rest(self, record: Record) -> str:
        """Return what few lines have."""
        exchange, texts = record[0], self._texts
        notes = exchange.notes or {}
        fields = [(name, said(exchange)) for name, said in FROM_ERRORS]
        told = [f',"{name}":{texts[text]}' for name, text in fields if text]
        if notes:
            shown = ",".join(f"{json_text(cut(name, LONGEST))}:{_value(value)}" for name, value in notes.items())
            told.append(f',"notes":{{{shown}}}')
        if self._extra:
            told.append(f',"headers":{{{self._shown(record)}}}')
        return "".join(told)

    def _shown(self, record: Record) -> str:
        headers = record[3]
        told = []
        for name, key in self._headers:
            value = headers.get(key)
            if value is not None:
                text = decoded(value)
                told.append(f"{name}:{json_text(cut(self._redaction.of_target(text), LONGEST))}")
        for name, key in self._hashed:
            value = headers.get(key)
            if value is not None:
                told.append(f'{name}:"hmac:{hmac.digest(self._hash_key, value, "sha256").hex()[:16]}"')
        return ",".join(told)


def _value(value: str | int | float) -> str:
    if isinstance(value, str):
        return json_text(cut(value, LONGEST))
    return str(value) if isinstance(value, int) or isfinite(value) else "null"
