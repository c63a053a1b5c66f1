"""Lines of the access log: what is in them, and what never can be."""

from __future__ import annotations

import hmac
import json
import random
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.config.access_log import FIELDS, SECRET_WORDS
from portico.exporters.access_log import json_lines
from portico.exporters.access_log.facts import FROM_ERRORS, FROM_POLICIES, error_source_of
from portico.exporters.access_log.json_lines import JsonLines
from portico.exporters.access_log.log import BATCH, LINGER, Log
from portico.exporters.access_log.losses import PAUSE, Losses
from portico.exporters.access_log.record import LONGEST, LONGEST_URL, Lines, Record
from portico.exporters.access_log.recorder import Choice, Recorder
from portico.exporters.access_log.redaction import Redaction
from portico.exporters.access_log.text_lines import TextLines
from portico.http.correlation import CORRELATION_ID
from portico.http.headers import Headers
from portico.http.message import Client, Request
from portico.http.user import USER, User
from portico.observe.exchange import Exchange, Outcome, Result, ResultKind

REDACTION = Redaction(SECRET_WORDS)
WALL, NOW = 1_764_590_000.25, 1000.5
CLIENT = Client("203.0.113.7", 4711, 8000, "https")


def exchange_of(status: int = 200, outcome: Outcome = Outcome.COMPLETE, seconds: float = 0.25) -> Exchange:
    exchange = Exchange(NOW - seconds)
    exchange.method, exchange.status, exchange.route, exchange.service = "GET", status, "shop", "orders"
    exchange.target, exchange.tries, exchange.bytes_in, exchange.bytes_out = "10.0.0.1:9001", 1, 7, 12
    exchange.sent, exchange.first_byte = NOW - 0.2, NOW - 0.1
    exchange.end(outcome, NOW)
    return exchange


def request_of(
    exchange: Exchange, sent: bytes = b"/a?b=1", headers: list[tuple[bytes, bytes]] | None = None, user: str = ""
) -> Request:
    fields = Headers([(b"Host", b"shop.example:8443"), *(headers or ())])
    request = Request("GET", "/a", None, fields, None, "shop.example", CLIENT, exchange, None, sent)
    if user:
        request[USER] = User(user)
    return request


def record_of(exchange: Exchange, request: Request | None) -> Record:
    kept: list[Record] = []
    Recorder(kept.append).ended(exchange, request)
    (record,) = kept
    return record


def line_of(lines: Lines, exchange: Exchange, request: Request | None) -> str:
    (line,) = lines.render([record_of(exchange, request)], WALL, NOW)
    return line


def test_a_line_in_json_has_every_field() -> None:
    exchange = exchange_of(429)
    exchange.error, exchange.stopped_by, exchange.trace_id = "too-many-requests", "rate-limit", "ab" * 16
    exchange.results = (
        Result(ResultKind.LIMIT, "quota", "allowed"),
        Result(ResultKind.LIMIT, "rate-limit", "limited"),
        Result(ResultKind.LIMIT, "per-tenant", "dry-run"),
        Result(ResultKind.IDEMPOTENCY, "idempotency-key", "first"),
        Result(ResultKind.CACHE, "cache", "miss"),
    )
    exchange.note("age", 1.5)
    exchange.note("odd", float("nan"))
    headers = [(b"User-Agent", b"an agent"), (b"X-Shown", b"yes"), (b"X-Hashed", b"no")]
    request = request_of(exchange, headers=headers, user="ada")
    request[CORRELATION_ID] = b"one-two"
    lines = JsonLines(REDACTION, ["X-Shown", "X-Gone"], ["X-Hashed"], b"key")
    assert json.loads(line_of(lines, exchange, request)) == {
        "timestamp": "2025-12-01T11:53:20.250Z",
        "method": "GET",
        "url": "https://shop.example:8443/a?b=1",
        "status_code": 429,
        "duration_ms": 250.0,
        "user_id": "ada",
        "correlation_id": "one-two",
        "user_agent": "an agent",
        "ip_address": "203.0.113.7",
        "route": "shop",
        "service": "orders",
        "target": "10.0.0.1:9001",
        "tries": 1,
        "upstream_ms": 100.0,
        "bytes_in": 7,
        "bytes_out": 12,
        "outcome": "complete",
        "cache": "miss",
        "limit": "limited",
        "limit_policy": "rate-limit",
        "idempotency": "first",
        "stopped_by": "rate-limit",
        "error": "too-many-requests",
        "error_source": "policy",
        "trace_id": "ab" * 16,
        "notes": {"age": 1.5, "odd": None},
        "headers": {"x-shown": "yes", "x-hashed": f"hmac:{hmac.new(b'key', b'no', 'sha256').hexdigest()[:16]}"},
    }


def test_a_print_is_the_same_for_the_same_value_and_key_alone() -> None:
    def print_of(value: bytes, key: bytes) -> str:
        exchange = exchange_of()
        line = line_of(
            JsonLines(REDACTION, (), ["X-A"], key), exchange, request_of(exchange, headers=[(b"X-A", value)])
        )
        made: str = json.loads(line)["headers"]["x-a"]
        assert re.fullmatch("hmac:[0-9a-f]{16}", made)
        return made

    assert print_of(b"a", b"k") == print_of(b"a", b"k")
    assert len({print_of(b"a", b"k"), print_of(b"b", b"k"), print_of(b"a", b"l")}) == 3


def test_what_never_became_a_request_has_a_line() -> None:
    exchange = Exchange(NOW)
    exchange.status, exchange.error = 400, "malformed-request: it makes no sense"
    exchange.note("client.address", "203.0.113.9")
    exchange.end(Outcome.REJECTED, NOW)
    line = json.loads(line_of(JsonLines(REDACTION), exchange, None))
    assert (line["method"], line["url"], line["ip_address"], line["outcome"]) == (None, "", "203.0.113.9", "rejected")
    assert line_of(TextLines("combined", REDACTION), exchange, None) == (
        '203.0.113.9 - - [01/Dec/2025:11:53:20 +0000] "- - -" 400 0 "-" "-"'
    )


def test_combined_is_as_nginx_writes_it() -> None:
    exchange = exchange_of()
    agent = 'a "b" \\ é'.encode() + b"\xff\t"
    headers = [(b"Referer", b"https://else.where/?token=x"), (b"User-Agent", agent)]
    line = line_of(TextLines("combined", REDACTION), exchange, request_of(exchange, headers=headers, user="a b"))
    assert line == (
        '203.0.113.7 - a_b [01/Dec/2025:11:53:20 +0000] "GET /a?b=1 HTTP/1.1" 200 12'
        ' "https://else.where/?token=[redacted]" "a \\x22b\\x22 \\x5C \\xC3\\xA9\\x5Cxff\\x09"'
    )


def test_a_template_has_all_places() -> None:
    template = "|".join(f"{name}={{{{ {name} }}}}" for name in sorted({*FIELDS, "headers.X-A", "notes.a.b"}))
    exchange = exchange_of(503)
    exchange.error, exchange.stopped_by, exchange.trace_id = "circuit-open: gateway: it is", "", "ab" * 16
    exchange.note("a.b", 5)
    request = request_of(exchange, headers=[(b"X-A", b"https://x/?key=5"), (b"Referer", b"r")], user="ada")
    told = dict(part.split("=", 1) for part in line_of(TextLines(template, REDACTION), exchange, request).split("|"))
    assert told.keys() == {*FIELDS, "headers.X-A", "notes.a.b"}
    empty = {name for name, value in told.items() if value == "-"}
    none = {"cache", "limit", "limit_policy", "idempotency"}
    assert empty == {*none, "stopped_by", "correlation_id", "user_agent"}
    assert told["headers.X-A"] == "https://x/?key=[redacted]"
    assert (told["host"], told["path"], told["protocol"]) == ("shop.example:8443", "/a", "HTTP/1.1")
    assert (told["url"], told["error_source"], told["notes.a.b"]) == ("https://shop.example:8443/a?b=1", "gateway", "5")


def results(*told: tuple[ResultKind, str, str]) -> tuple[Result, ...]:
    return tuple(Result(*each) for each in told)


LIMIT, CACHE, ONCE = ResultKind.LIMIT, ResultKind.CACHE, ResultKind.IDEMPOTENCY


@pytest.mark.parametrize(
    ("met", "told"),
    [
        ((), "- - - -"),
        (((CACHE, "cache", "hit"),), "hit - - -"),
        (((CACHE, "outer", "miss"), (CACHE, "inner", "stale")), "stale - - -"),
        (((LIMIT, "rate-limit", "allowed"), (LIMIT, "quota", "allowed")), "- allowed rate-limit -"),
        (((LIMIT, "rate-limit", "dry-run"), (LIMIT, "quota", "limited")), "- limited quota -"),
        (((LIMIT, "a", "allowed"), (LIMIT, "b", "unchecked"), (LIMIT, "c", "dry-run")), "- unchecked b -"),
        (((LIMIT, "own", "of a plugin"), (LIMIT, "b", "dry-run")), "- dry-run b -"),
        (((ONCE, "idempotency-key", "replayed"),), "- - - replayed"),
    ],
)
def test_what_policies_have_made_of_a_request_is_told_alike_in_all_formats(
    met: tuple[tuple[ResultKind, str, str], ...], told: str
) -> None:
    exchange = exchange_of()
    exchange.results = results(*met)
    names = ("cache", "limit", "limit_policy", "idempotency")
    template = " ".join(f"{{{{ {name} }}}}" for name in names)
    assert line_of(TextLines(template, REDACTION), exchange, request_of(exchange)) == told
    lines = JsonLines(REDACTION)
    for _ in range(2):  # the second from memory
        line = json.loads(line_of(lines, exchange, request_of(exchange)))
        assert " ".join(line.get(name, "-") for name in names) == told
        assert "stopped_by" not in line
    exchange.stopped_by = "cache"
    assert json.loads(line_of(lines, exchange, request_of(exchange)))["stopped_by"] == "cache"


@pytest.mark.parametrize(
    ("status", "error", "outcome", "source"),
    [
        (403, "country-not-allowed", Outcome.COMPLETE, "policy"),
        (500, "internal-error", Outcome.COMPLETE, "policy"),
        (200, "", Outcome.CANCELLED, "gateway"),
        (404, "", Outcome.CANCELLED, "gateway"),
    ],
)
def test_what_goes_wrong_after_a_hit_is_not_the_fault_of_the_service(
    status: int, error: str, outcome: Outcome, source: str
) -> None:
    exchange = exchange_of(status, outcome)
    exchange.stopped_by, exchange.results, exchange.error = "cache", results((CACHE, "cache", "hit")), error
    assert error_source_of(exchange) == source


def test_every_line_says_the_same_of_policies_and_errors() -> None:
    exchange = exchange_of(429)
    exchange.error, exchange.stopped_by = "too-many-requests", "rate-limit"
    exchange.results = results(
        (CACHE, "cache", "miss"), (LIMIT, "rate-limit", "limited"), (ResultKind.IDEMPOTENCY, "once", "first")
    )
    expected = {
        "cache": "miss",
        "limit": "limited",
        "limit_policy": "rate-limit",
        "idempotency": "first",
        "stopped_by": "rate-limit",
        "error": "too-many-requests",
        "error_source": "policy",
    }
    record, lines = record_of(exchange, request_of(exchange)), JsonLines(REDACTION)
    text = TextLines(" ".join(f"{{{{ {name} }}}}" for name in expected), REDACTION)
    assert set(expected) == {name for name, _ in FROM_POLICIES + FROM_ERRORS}
    for line in (*lines.render([record], WALL, NOW), lines.shorten(record, WALL, NOW)):
        assert {name: json.loads(line).get(name) for name in expected} == expected
    for line in (*text.render([record], WALL, NOW), text.shorten(record, WALL, NOW)):
        assert line.split(" ") == list(expected.values())


def test_texts_of_policies_that_are_remembered_are_bounded() -> None:
    lines = JsonLines(REDACTION)
    for number in range(json_lines.REMEMBERED + 1):
        exchange = exchange_of()
        exchange.results = results((LIMIT, f"limit-{number}", "allowed"))
        assert json.loads(line_of(lines, exchange, request_of(exchange)))["limit_policy"] == f"limit-{number}"
    assert len(lines._policies) == 1


@pytest.mark.parametrize(
    ("status", "stopped_by", "result", "source"),
    [
        (404, "cache", "hit", "service"),
        (500, "idempotency-key", "replayed", "service"),
        (504, "cache", "miss", "policy"),
        (429, "rate-limit", "limited", "policy"),
        (200, "cache", "hit", ""),
        (204, "cors", "", ""),
    ],
)
def test_what_is_given_again_went_wrong_where_it_did_first(
    status: int, stopped_by: str, result: str, source: str
) -> None:
    exchange = exchange_of(status)
    exchange.stopped_by = stopped_by
    exchange.results = results((CACHE, stopped_by, result)) if result else ()
    assert error_source_of(exchange) == source


TEXT = st.text(max_size=60) | st.sampled_from(
    [
        '"',
        "\\",
        "a\nb",
        "\r",
        "\x7f",
        "\x85",
        "\u2028",
        "\u2029",
        "\ud800",
        "\u202e",
        "\x1b[2J",
        '","status_code":1,"x":"',
    ]
)
RAW = st.binary(max_size=60) | TEXT.map(lambda text: text.encode("utf-8", "surrogatepass"))


@given(
    sent=RAW,
    agent=RAW,
    host=RAW,
    correlation=RAW,
    other=RAW,
    user=TEXT,
    error=TEXT,
    note=TEXT,
    route=TEXT,
    known=st.booleans(),
)
def test_no_input_makes_two_lines_or_what_is_no_json(
    sent: bytes,
    agent: bytes,
    host: bytes,
    correlation: bytes,
    other: bytes,
    user: str,
    error: str,
    note: str,
    route: str,
    known: bool,
) -> None:
    exchange = exchange_of(500)
    exchange.error = exchange.method = exchange.target = error
    exchange.route = exchange.service = exchange.stopped_by = route
    exchange.note("note", note)
    exchange.note("client.address", note)
    headers = {
        b"host": host,
        b"user-agent": agent,
        b"x-other": other,
        b"referer": other,
        b"x-correlation-id": correlation,
    }
    record: Record = (
        (exchange, CLIENT, sent, headers, User(user or "-"), correlation)
        if known
        else (exchange, None, b"", {}, None, None)
    )
    as_json = JsonLines(REDACTION, ["X-Other"], ["Referer"], b"k")
    template = (
        "{{ url }} {{ user_id }} {{ error }} {{ headers.X-Other }} {{ notes.note }} {{ route }} {{ target }}"
        " {{ correlation_id }}"
    )
    for lines in (as_json, TextLines("combined", REDACTION), TextLines(template, REDACTION)):
        rendered = [*lines.render([record, record], WALL, NOW), lines.shorten(record, WALL, NOW)]
        assert len(rendered) == 3
        for line in rendered:
            assert len(line.splitlines()) == 1
            assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e]", line)
            line.encode()
            if lines is as_json:
                told = json.loads(line)
                assert told["status_code"] == 500
                assert told["bytes_out"] == 12
            else:
                assert line.isascii()


def test_texts_are_cut_and_a_short_line_is_short() -> None:
    exchange = exchange_of()
    headers = [(b"User-Agent", b"a" * 5000), (b"X-Correlation-ID", b"c" * 5000), (b"X-A", b"\x80" * 5000)]
    request = request_of(exchange, b"/" + b"\x80" * 5000, headers, "\u0001" * 5000)
    line = json.loads(line_of(JsonLines(REDACTION, ["X-A"]), exchange, request))
    assert len(line["user_agent"]) == len(line["user_id"]) == len(line["correlation_id"]) == LONGEST + 1
    assert len(line["url"]) <= len("https://shop.example:8443") + LONGEST_URL + 1
    assert line["user_agent"].endswith("…")
    record = record_of(exchange, request)
    for lines in (JsonLines(REDACTION, ["X-A"]), TextLines("combined", REDACTION)):
        assert len(lines.shorten(record, WALL, NOW).encode()) < 4096
    assert json.loads(JsonLines(REDACTION).shorten(record, WALL, NOW))["shortened"] is True


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("token=1&page=2", "token=[redacted]&page=2"),
        ("access_token=1", "access_token=[redacted]"),
        ("accessToken=1", "accessToken=[redacted]"),
        ("ACCESS-TOKEN=1", "ACCESS-TOKEN=[redacted]"),
        ("user[password]=1", "user[password]=[redacted]"),
        ("apikey=1&api-key=2&apiKey=3&key=4", "apikey=[redacted]&api-key=[redacted]&apiKey=[redacted]&key=[redacted]"),
        ("X-Amz-Signature=1&X-Amz-Credential=2", "X-Amz-Signature=[redacted]&X-Amz-Credential=[redacted]"),
        ("%74oken=1", "%74oken=[redacted]"),
        ("%2574oken=1", "%2574oken=[redacted]"),
        ("a=1;secret=2;b=3", "a=1;secret=[redacted];b=3"),
        ("mysecretvalue=1", "mysecretvalue=[redacted]"),
        ("code=1&state=2", "code=[redacted]&state=2"),
        ("token=a=b", "token=[redacted]"),
        ("monkey=1&zipcode=2&author=3&design=4", "monkey=1&zipcode=2&author=3&design=4"),
        ("token", "token"),
        ("token=", "token="),
        ("=token", "=token"),
        ("q=my+token", "q=my+token"),
        ("page=2", "page=2"),
    ],
)
def test_what_is_secret_in_a_query_is_not_shown(query: str, shown: str) -> None:
    assert REDACTION.of_query(query) == shown
    assert REDACTION.of_query(query) == shown  # once its names are known
    assert REDACTION.of_target(f"https://a/b?{query}") == f"https://a/b?{shown}"


def test_which_words_say_so_can_be_chosen() -> None:
    assert Redaction(["Page"]).of_query("token=1&page=2") == "token=1&page=[redacted]"
    assert Redaction([]).of_query("token=1") == "token=1"


@pytest.mark.parametrize(
    ("status", "outcome", "error", "stopped_by", "tries", "source"),
    [
        (200, Outcome.COMPLETE, "", "", 1, ""),
        (499, Outcome.CLIENT_LEFT, "", "", 1, "client"),
        (408, Outcome.REJECTED, "request-timeout: x", "", 0, "client"),
        (502, Outcome.COMPLETE, "service-unreachable: connect: it refuses", "", 0, "connect"),
        (504, Outcome.COMPLETE, "service-timeout: response: it is slow", "", 1, "response"),
        (503, Outcome.COMPLETE, "circuit-open: gateway: it is", "", 0, "gateway"),
        (200, Outcome.TRUNCATED, "BodyTruncated: it broke off", "", 1, "response"),
        (401, Outcome.COMPLETE, "no-credentials", "jwt", 0, "policy"),
        (0, Outcome.CANCELLED, "", "", 1, "gateway"),
        (404, Outcome.COMPLETE, "", "", 1, "service"),
        (500, Outcome.COMPLETE, "", "", 1, "service"),
        (404, Outcome.COMPLETE, "no-route", "", 0, "client"),
        (500, Outcome.COMPLETE, "internal-error", "", 0, "gateway"),
    ],
)
def test_where_it_went_wrong(
    status: int, outcome: Outcome, error: str, stopped_by: str, tries: int, source: str
) -> None:
    exchange = exchange_of(status, outcome)
    exchange.error, exchange.stopped_by, exchange.tries = error, stopped_by, tries
    assert error_source_of(exchange) == source


def test_errors_and_slow_requests_are_kept_and_of_others_a_share() -> None:
    kept: list[Record] = []
    choice = Choice(Recorder(kept.append), 0.25, 1.0, random.Random(7))
    wanted = [exchange_of(404), exchange_of(200, Outcome.TRUNCATED), exchange_of(seconds=1.0)]
    for exchange in wanted:
        choice.ended(exchange, None)
    assert [record[0] for record in kept] == wanted
    kept.clear()
    for _ in range(1000):
        choice.ended(exchange_of(seconds=0.9), None)
    assert 200 < len(kept) < 300


class Way:
    """A way that takes so many lines."""

    def __init__(self, longest: int = 65536, room: int = 10**6) -> None:
        self.longest, self.room, self.over = longest, room, False
        self.sent: list[list[str]] = []

    def send(self, lines: list[str]) -> int:
        taken, self.room = min(len(lines), self.room), max(0, self.room - len(lines))
        self.sent.append(lines[:taken])
        return len(lines) - taken

    def reopen(self) -> None:
        self.sent.append(["reopened"])

    def close(self) -> None:
        self.sent.append(["closed"])

    def finish(self, seconds: float) -> int:
        return 3


class Timers:
    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> Any:
        entry = (seconds, call)
        self.due.append(entry)
        due = self.due

        class Timer:
            def cancel(self) -> None:
                if entry in due:
                    due.remove(entry)

        return Timer()


class Tally:
    count = 0

    def add(self, amount: int = 1) -> None:
        self.count += amount


def log_with(way: Way, timers: Timers, tally: Tally, clock: Callable[[], float] = lambda: NOW) -> Log:
    lines = JsonLines(REDACTION)
    return Log(lines, way, Losses(tally, clock), clock=lambda: NOW, wall=lambda: WALL, later=timers.later)


def test_records_wait_for_others_but_not_for_long() -> None:
    way, timers = Way(), Timers()
    log = log_with(way, timers, Tally())
    record = record_of(exchange := exchange_of(), request_of(exchange))
    for _ in range(3):
        log.keep(record)
    assert [seconds for seconds, _ in timers.due] == [LINGER]
    assert not way.sent
    timers.due[0][1]()
    assert [len(lines) for lines in way.sent] == [3]
    for _ in range(BATCH):
        log.keep(record)
    assert [len(lines) for lines in way.sent] == [3, BATCH]
    assert not timers.due
    log.keep(record)
    log.reopen()
    log.keep(record)
    log.close()
    assert [len(lines) for lines in way.sent[2:]] == [1, 1, 1, 1]
    assert (way.sent[3], way.sent[5]) == (["reopened"], ["closed"])


def test_a_line_that_is_too_long_for_its_way_is_shortened() -> None:
    way = Way(longest=1000)
    log = log_with(way, Timers(), Tally())
    for size in (10, 900):
        exchange = exchange_of()
        log.keep(record_of(exchange, request_of(exchange, b"/" + b"x" * size)))
    log.flush()
    short, shortened = (json.loads(line) for line in way.sent[0])
    assert "shortened" not in short
    assert shortened["shortened"]
    assert all(len(line) < 1000 for line in way.sent[0])


def test_lines_that_are_lost_are_counted_and_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    way, tally = Way(room=2), Tally()
    log = log_with(way, Timers(), tally, lambda: now[0])
    losses = log._losses
    for number in range(3):
        for _ in range(3):
            log.keep(record_of(exchange_of(), None))
        log.flush()
        now[0] += 1.0
        assert tally.count == 1 + 3 * number
    assert [record.getMessage() for record in caplog.records] == [
        "1 line(s) of the access log were lost: they are not taken as fast as they come"
    ]
    now[0] = PAUSE
    losses.look()
    log.finish(0.0)
    losses.tell()
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == ["1", "6", "3"]


def test_the_wall_clock_may_jump() -> None:
    lines = JsonLines(REDACTION)
    for wall, year in ((WALL, 2025), (WALL + 10**8, 2029), (WALL, 2025)):
        (line,) = lines.render([record_of(exchange_of(), None)], wall, NOW)
        assert json.loads(line)["timestamp"].startswith(f"{year}-")
    assert time.gmtime(WALL).tm_year == 2025
