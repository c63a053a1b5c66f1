"""Mistakes in what is written of services: what is said of them."""

from __future__ import annotations

import pytest

from tests.config.kinds import config_of, findings_of

SERVICE = "services:\n  a:\n    targets: [b:1, c:1]\n    {}\nroutes: [{{path: /, service: a}}]\n"


def said(line: str) -> str:
    return "\n".join(map(str, findings_of({"portico.yaml": SERVICE.format(line), "key": "hunter2"})))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("retry: {on: []}", "4:17: on: expected 1 or more items, not 0"),
        ("fallback: {headers: {Content-Length: '5'}}", "headers: Content-Length is for the gateway to say"),
        ("fallback: {headers: {transfer-encoding: chunked}}", "headers: transfer-encoding is for the gateway to say"),
        ("fallback: {headers: {Connection: close}}", "headers: Connection is for the gateway to say"),
        ("fallback: {status: 204, body: x}", "body: an answer with status 204 has no body"),
        ("health: {path: /x, headers: {Content-Length: '5'}}", "headers: Content-Length is for the gateway to say"),
        ("health: {path: /x, headers: {Host: x}}", "headers: Host has a key of its own"),
        ("timeout: {tell: Connection}", "tell: Connection is for the gateway to say"),
        ("balance: round_robin", "not 'round_robin' (hint: did you mean 'round-robin'?)"),
        ("concurrency: 1" + 15 * "0", "concurrency: the number is larger than anyone means"),
        ("targets: [{address: 'b:1', weight: 1" + 15 * "0" + "}]", "weight: the number is larger than anyone means"),
    ],
)
def test_mistakes_are_told(line: str, message: str) -> None:
    given = line if not line.startswith("targets") else f"retry: 3\n  b:\n    {line}"
    assert message in said(given)


def test_a_secret_is_not_told_where_there_may_be_one() -> None:
    assert "hunter2" not in said("balance: {sticky: hunter2}")
    assert "hunter2" not in said("balance: [hunter2]")
    assert "hunter2" not in said("balance: ${file:key}")


def test_tries_may_be_for_no_status() -> None:
    config = config_of({"portico.yaml": SERVICE.format("retry: {on: [failure]}")})
    retry = config.services["a"].retry
    assert retry is not None
    assert retry.on == ("failure",)
