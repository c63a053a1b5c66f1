"""Tokens of a provider of OpenID Connect that is not ours, and a gateway that finds its keys by discovery."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from portico.jose.mint import secret_key, sign
from tests.harness.gateway import DEADLINE, Gateway, curl, problem_of, refusing_port, wait_for

pytestmark = pytest.mark.skipif(find_spec("oidc_provider_mock") is None, reason="needs oidc-provider-mock")

BACK = "http://client.example/back"


@contextmanager
def provider(port: int, *options: str) -> Iterator[None]:
    """Run a provider, which begins with a new key."""
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: curl(f"http://localhost:{port}/jwks", codes=(0, 7)).status == 200, "the provider")
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE)


def signed_in(issuer: str) -> str:
    """Return the ID token of someone who has signed in (OpenID Connect Core 1.0 section 3.1)."""
    user = curl("-X", "PUT", "--json", '{"email": "ada@x.example"}', f"{issuer}/users/ada")
    assert user.status == 204
    asked = {"client_id": "shop", "redirect_uri": BACK, "response_type": "code", "scope": "openid email"}
    location = curl("-d", "sub=ada", f"{issuer}/oauth2/authorize?{urlencode(asked)}").value("Location")
    code = parse_qs(urlsplit(location).query)["code"][0]
    grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK}
    token: str = curl("-u", "shop:any", "-d", urlencode(grant), f"{issuer}/oauth2/token").json["id_token"]
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
        with provider(port):
            token = signed_in(issuer)
            wait_for(lambda: status_of(gateway, token) == 200, "the first keys")
            header, payload, signature = token.split(".")
            forged = f"{header}.{payload}.{signature[:-8]}AAAAAAAA"
            problem_of(curl("-H", f"Authorization: Bearer {forged}", f"{gateway.url}/orders"), 401, "invalid-token")
        assert status_of(gateway, token) == 200  # while it is down
        with provider(port):
            other = signed_in(issuer)
            wait_for(lambda: status_of(gateway, other) == 200, "the new key")
            assert status_of(gateway, token) == 401
        assert "answers 502; none are known" in gateway.log()


def test_a_provider_that_is_not_there(tmp_path: Path) -> None:
    with refusing_port() as port, Gateway(tmp_path, config_of(f"http://127.0.0.1:{port}")) as gateway:
        claims = {"iss": f"http://127.0.0.1:{port}", "aud": "shop", "sub": "ada", "exp": int(time.time()) + 60}
        token = sign(claims, secret_key("any-secret-for-the-keys-are-not-known"), kid="unknown")
        answer = curl("-H", f"Authorization: Bearer {token}", f"{gateway.url}/orders")
        problem = problem_of(answer, 503, "authentication-unavailable")
        assert problem["title"] == "Authentication not available"
        problem_of(curl(f"{gateway.url}/orders"), 401, "authentication-required")
