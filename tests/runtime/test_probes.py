"""Routes for probes, where the whole file asks who is calling."""

from __future__ import annotations

import pytest

from portico.testing import Gateway

KEYS = "policies:\n  - key-auth: {keys: {ada: sixteen-letters-or-more}}\n  - security-headers\n"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_probes_need_no_credentials(path: str) -> None:
    with Gateway(text=KEYS + "routes: [{path: /a, respond: x}]\n") as gateway:
        answer = gateway.get(path)
        assert answer.status == 200
        assert answer.headers["X-Content-Type-Options"] == "nosniff"  # the other policies are there


def test_all_else_does() -> None:
    with Gateway(text=KEYS + "routes: [{path: /a, respond: x}, {path: /status, health: {}}]\n") as gateway:
        for path in ("/a", "/status", "/nothing"):
            assert gateway.get(path).status == 401
        assert gateway.get("/a", headers={"X-API-Key": "sixteen-letters-or-more"}).status == 200


def test_other_policies_stay_wherever_they_stand() -> None:
    text = "policies: [{ip-restriction: {deny: [127.0.0.0/8]}, stage: authorize}]\nroutes: []\n"
    with Gateway(text=text) as gateway:
        assert gateway.get("/livez").status == 403
