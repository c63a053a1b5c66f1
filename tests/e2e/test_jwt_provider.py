"""Tokens of a provider of OpenID Connect that is not ours, and a gateway that finds its keys by discovery."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.harness.gateway import Gateway, curl, problem_of, refusing_port, wait_for

provider_mock = pytest.importorskip("oidc_provider_mock")

BACK = "http://client.example/back"


def signed_in(issuer: str) -> str:
    """Return the ID token of someone who has signed in (OpenID Connect Core 1.0 section 3.1)."""
    with httpx.Client(base_url=issuer) as http:
        http.put("/users/ada", json={"email": "ada@x.example"}).raise_for_status()
        asked = {"client_id": "shop", "redirect_uri": BACK, "response_type": "code", "scope": "openid email"}
        location = http.post("/oauth2/authorize", params=asked, data={"sub": "ada"}).headers["location"]
        code = parse_qs(urlsplit(location).query)["code"][0]
        grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK}
        answer = http.post("/oauth2/token", data=grant, auth=("shop", "any")).raise_for_status()
        token: str = answer.json()["id_token"]
        return token


def config_of(issuer: str) -> str:
    return f"""
routes:
  - path: /orders
    respond: mine
    policies: [jwt: {{discovery_url: "{issuer}/.well-known/openid-configuration", audience: shop}}]
"""


def status_of(gateway: Gateway, token: str) -> int:
    return curl("-H", f"Authorization: Bearer {token}", f"{gateway.url}/orders").status


def test_its_tokens_are_taken_and_its_new_key_is_found(tmp_path: Path) -> None:
    with refusing_port() as port:
        pass
    issuer = f"http://localhost:{port}"
    with Gateway(tmp_path, config_of(issuer)) as gateway:
        with provider_mock.run_server_in_thread(port=port):
            token = signed_in(issuer)
            wait_for(lambda: status_of(gateway, token) == 200, "the first keys")
            header, payload, signature = token.split(".")
            forged = f"{header}.{payload}.{signature[:-8]}AAAAAAAA"
            problem_of(curl("-H", f"Authorization: Bearer {forged}", f"{gateway.url}/orders"), 401, "invalid-token")
        assert status_of(gateway, token) == 200  # while it is down
        with provider_mock.run_server_in_thread(port=port):  # it begins with a new key
            other = signed_in(issuer)
            wait_for(lambda: status_of(gateway, other) == 200, "the new key")
            assert status_of(gateway, token) == 401
        assert "answers 502; none are known" in gateway.log()


def test_a_provider_that_is_not_there(tmp_path: Path) -> None:
    with refusing_port() as port, Gateway(tmp_path, config_of(f"http://127.0.0.1:{port}")) as gateway:
        token = "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"
        answer = curl("-H", f"Authorization: Bearer {token}", f"{gateway.url}/orders")
        problem = problem_of(answer, 503, "authentication-unavailable")
        assert problem["title"] == "Authentication not available"
        problem_of(curl(f"{gateway.url}/orders"), 401, "authentication-required")
