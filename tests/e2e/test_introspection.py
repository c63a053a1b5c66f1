"""Tokens of an authorization server that is not ours, which says what they are good for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests.harness.gateway import DEADLINE, Answer, Gateway, curl, problem_of, refusing_port, wait_for

pytestmark = pytest.mark.skipif(find_spec("authlib") is None or find_spec("flask") is None, reason="needs authlib")

SERVER = Path(__file__).parents[1] / "harness" / "authorization_server.py"
CLIENT, SECRET = "portico:ä", "%41&=very-secret"
DESCRIPTION = "/.well-known/oauth-authorization-server"


@contextmanager
def server(port: int) -> Iterator[str]:
    command = [sys.executable, "-W", "ignore", str(SERVER), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: curl(url + DESCRIPTION, codes=(0, 7)).status == 200, "the authorization server")
        yield url
    finally:
        process.terminate()
        process.wait(DEADLINE)


def asked(url: str, **form: str) -> Answer:
    return curl("-u", f"{quote(CLIENT)}:{quote(SECRET)}", "-d", urlencode(form), url)


def test_its_tokens_are_taken_until_they_are_revoked(tmp_path: Path) -> None:
    with refusing_port() as port:
        pass
    issuer = f"http://127.0.0.1:{port}"
    config = f"""
routes:
  - path: /basic
    respond: mine
    policies:
      - oauth2-introspection:
          {{url: "{issuer}/introspection", client_id: "{CLIENT}", client_secret: "{SECRET}", cache: 0s}}
      - authorize: {{scopes: read}}
  - path: /post
    respond: mine
    policies:
      - oauth2-introspection:
          discovery_url: {issuer}{DESCRIPTION}
          client_id: "{CLIENT}"
          client_secret: "{SECRET}"
          client_auth: post
          cache: 10m
  - path: /wrong
    respond: mine
    policies:
      - oauth2-introspection: {{url: "{issuer}/introspection", client_id: "{CLIENT}", client_secret: other}}
"""
    with Gateway(tmp_path, config) as gateway:

        def ask(path: str, token: str) -> Answer:
            return curl("-H", f"Authorization: Bearer {token}", gateway.url + path)

        problem_of(ask("/post", "any"), 503, "authentication-unavailable")  # the server is not there yet
        with server(port) as url:
            grant = {"grant_type": "client_credentials"}
            token, lacking = (
                str(asked(f"{url}/token", scope=scope, **grant).json["access_token"]) for scope in ("read", "write")
            )
            wait_for(lambda: ask("/post", token).status == 200, "the description")
            assert ask("/basic", token).body == b"mine"
            answer = ask("/basic", lacking)
            problem_of(answer, 403, "forbidden")
            assert answer.value("WWW-Authenticate") == 'Bearer error="insufficient_scope"'
            assert problem_of(ask("/basic", "made-up"), 401, "invalid-token")["title"] == "Invalid token"
            problem_of(ask("/wrong", token), 503, "authentication-unavailable")
            assert asked(f"{url}/revocation", token=token).status == 200
            problem_of(ask("/basic", token), 401, "invalid-token")
            assert ask("/post", token).status == 200  # for as long as it is remembered
        problem_of(ask("/basic", lacking), 503, "authentication-unavailable")
        assert ask("/post", token).status == 200
        log = gateway.log()
        for secret in (token, lacking, "very-secret"):
            assert secret not in log
