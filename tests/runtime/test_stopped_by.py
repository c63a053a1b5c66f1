"""A request's record says which policy has answered instead of the service."""

from __future__ import annotations

import asyncio

import pytest

from portico.testing import Gateway

ROUTE = "routes: [{path: /a, respond: x}]\n"


@pytest.mark.parametrize(
    ("policy", "name", "status"),
    [
        ("ip-restriction: {deny: [127.0.0.0/8]}", "ip-restriction", 403),
        ("{ip-restriction: {deny: [127.0.0.0/8]}, name: inside}", "inside", 403),
        ("{timeout: 1s, name: late}", "", 200),
        ("key-auth: {keys: {ada: sixteen-letters-or-more}}", "key-auth", 401),
        ("{rate-limit: {limits: 1/h}, name: burst}", "burst", 429),
        ("idempotency-key: {methods: [POST], required: true}", "idempotency-key", 400),
    ],
)
def test_who_has_stopped_a_request_is_noted(policy: str, name: str, status: int) -> None:
    with Gateway(text=f"policies:\n  - {policy}\n  - security-headers\n{ROUTE}") as gateway:
        answers = [gateway.post("/a") for _ in range(2)]
        assert answers[-1].status == status
        assert answers[-1].exchange.stopped_by == name
        assert not any(answer.exchange.stopped_by for answer in answers if answer.status == 200)


async def forever(_: object) -> None:
    await asyncio.sleep(1000.0)


def test_a_timeout_stops_what_is_further_in() -> None:
    text = "policies: [{timeout: 1s}]\nservices: {s: http://s}\nroutes: [{path: /a, service: s}]\n"
    with Gateway(text=text) as gateway:
        gateway.services["s"].plays = forever
        answer = gateway.get("/a")
        assert (answer.status, answer.exchange.stopped_by) == (504, "timeout")


def test_what_passes_is_stopped_by_nobody() -> None:
    with Gateway(text=f"policies: [ip-restriction: {{allow: [127.0.0.0/8]}}]\n{ROUTE}") as gateway:
        assert gateway.get("/a").exchange.stopped_by == ""
        assert gateway.get("/nothing").exchange.stopped_by == ""
