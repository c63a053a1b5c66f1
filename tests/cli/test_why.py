"""What `portico why` and `portico tail` print, word for word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from portico.cli.tail import tail_lines
from portico.cli.why import why_text
from tests.harness.golden import check_golden

GOLDEN = Path(__file__).parent / "golden"


def a_try(target: str, outcome: str, **times: float) -> dict[str, Any]:
    moments = dict.fromkeys(("connecting", "connected", "tls", "sent", "first_byte", "ended"))
    return {"service": "orders", "target": target, "outcome": outcome, "span_id": "", **moments, **times}


def policy(name: str, verdict: str, when: str = "", result: str = "") -> dict[str, Any]:
    return {
        "name": name, "kind": name, "scope": "global", "origin": "portico.yaml:5:12", "when": when, "verdict": verdict,
        "result": result,
    }  # fmt: skip


def record(**given: Any) -> dict[str, Any]:
    return {
        "id": "0.17", "worker": 0, "pid": 4242, "number": 17, "at": 1_767_225_600.25, "method": "GET",
        "target": "/orders/7?token=…", "host": "api.example.com", "client": "192.0.2.7", "user": "",
        "correlation_id": "an-id", "trace_id": "", "route": "orders", "service": "orders", "upstream": "10.0.0.8:8080",
        "status": 200, "outcome": "complete", "seconds": 0.062, "error": "", "stopped_by": "", "span_id": "",
        "sampled": False, "bytes_in": 0, "bytes_out": 335, "headers": {}, "origin": "portico.yaml:8:5",
        "path": "/orders/**", "end": "service orders", "notes": {}, "steps": [],
        "policies": [policy("correlation-id", "passed"), policy("jwt", "passed", "method == 'POST'")],
        "candidates": [{"route": "orders", "path": "/orders/**", "origin": "portico.yaml:8:5", "why": "chosen"}],
        "tries": [],
    } | given  # fmt: skip


UNREACHABLE = a_try("10.0.0.7:8080", "service-unreachable", connecting=0.001, ended=0.022)
ANSWERED = a_try(
    "10.0.0.8:8080", "answered", connecting=0.022, connected=0.03, tls=0.005, sent=0.03, first_byte=0.05, ended=0.062
)

RECORDS: dict[str, dict[str, Any]] = {
    "retried": record(
        tries=[UNREACHABLE, ANSWERED],
        user="ada",
        trace_id="12345678901234567890123456789012",
        sampled=True,
        headers={"User-Agent": "curl/8"},
        notes={"geo.country": "CH"},
    ),
    "from_cache": record(
        service="",
        stopped_by="cache",
        policies=[
            policy("rate-limit", "passed", result="dry-run"),
            policy("cache", "answered", result="hit"),
            policy("headers", "not asked"),
        ],
        steps=[{"name": "cache", "what": "asked the store", "began": 0.001, "ended": 0.003}],
    ),
    "stood_in": record(
        stopped_by="cache",
        error="service-unreachable: connect: no",
        policies=[policy("cache", "answered", result="stale"), policy("headers", "passed")],
        tries=[UNREACHABLE],
    ),
    "refused": record(
        status=403,
        stopped_by="ip-restriction",
        error="address-not-allowed",
        service="",
        policies=[
            policy("correlation-id", "passed"),
            policy("ip-restriction", "answered"),
            policy("rate-limit", "not asked"),
        ],
        candidates=[
            {"route": "all", "path": "/**", "origin": "portico.yaml:9:5", "why": "takes it, too"},
            {"route": "orders", "path": "/orders/**", "origin": "portico.yaml:8:5", "why": "chosen"},
        ],
    ),
    "left": record(
        status=499, outcome="client-left", tries=[a_try("10.0.0.7:8080", "answered", sent=0.002, ended=0.062)]
    ),
    "left_during_answer": record(outcome="client-left", tries=[ANSWERED]),
    "left_connecting": record(
        status=499, outcome="client-left", tries=[a_try("10.0.0.7:8080", "answered", connecting=0.002, ended=0.062)]
    ),
    "left_early": record(status=499, outcome="client-left", service=""),
    "unreachable": record(
        status=503, error="service-unreachable: no", tries=[UNREACHABLE], steps=[
            {"name": "forward-auth", "what": "asked auth", "began": 0.0, "ended": 0.001}
        ],
    ),
    "rejected": record(
        method="", target="", status=400, outcome="rejected", error="malformed-request: no", route="", service="",
        end="", path="", origin="", policies=[], candidates=[], seconds=0.0, host="", correlation_id="",
    ),
    "no_route": record(status=404, route="portico:no-route", error="no-route", service="", end="no-route", path=""),
    "truncated": record(outcome="truncated", tries=[ANSWERED], error="BodyTruncated: shorter"),
    "failed": record(status=500, error="internal-error", service=""),
    "own_answer": record(service="", end="respond"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_a_request_is_told_in_words(name: str) -> None:
    check_golden(GOLDEN / f"why_{name}.txt", why_text({"found": [RECORDS[name]], "asked": 2, "silent": 0}, "x") + "\n")


def test_where_nothing_is_remembered_it_says_why_that_may_be() -> None:
    text = why_text({"found": [], "asked": 2, "silent": 1}, "an-id")
    assert text.startswith("no request an-id is remembered by 2 workers, 1 of which did not answer: it is not over")


def lines(*records: dict[str, Any]) -> list[bytes]:
    return [json.dumps(each).encode() + b"\n" for each in records]


def printed(*records: dict[str, Any], colours: bool = False) -> list[str]:
    shown = [{**each, "tries": len(each["tries"])} if "tries" in each else each for each in records]
    return list(tail_lines(iter([*lines(*shown), b"\n"]), as_json=False, colours=colours))


def test_requests_are_shown_in_a_line_each() -> None:
    kept = [RECORDS[name] for name in ("retried", "refused", "left", "unreachable", "rejected", "no_route")]
    check_golden(GOLDEN / "tail.txt", "\n".join([*printed(*kept, {"lost": 7}, {"lost": 1}), ""]))


def test_colours_follow_the_status() -> None:
    for status, colour in ((200, 32), (304, 36), (404, 33), (503, 31), (0, 31)):
        (line,) = printed(record(status=status), colours=True)
        assert f"\x1b[{colour}m{status or '---'}\x1b[0m" in line


def test_a_client_writes_no_control_codes_to_the_terminal() -> None:
    (line,) = printed(record(target="/\x1b[2J\x9b", error="\x1b]0;x\x07"))
    assert not [sign for sign in line if not sign.isprintable()]
    text = why_text(
        {"found": [record(target="/\x1b[2J", headers={"User-Agent": "\x9b2J"})], "asked": 1, "silent": 0}, "x"
    )
    assert not [sign for sign in text if not sign.isprintable() and sign != "\n"]


def test_as_json_each_line_is_what_came() -> None:
    come = lines(record(), {"lost": 3})
    assert list(tail_lines(iter([*come, b"\n"]), as_json=True, colours=True)) == [
        line.decode().rstrip("\n") for line in come
    ]
