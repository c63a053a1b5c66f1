"""Browsers that log in at a provider of OpenID Connect that is not ours, by a real gateway."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.test_jwt_provider import provider, pytestmark
from tests.harness.gateway import Gateway, Service, curl, refusing_port

__all__ = ["pytestmark"]

SECRET = "a-secret-of-the-gateway-for-its-cookies"


def free_port() -> int:
    with refusing_port() as port:
        return port


def test_it(tmp_path: Path) -> None:
    port, own = free_port(), free_port()
    issuer = f"http://localhost:{port}"
    with Service() as service, provider(port):
        config = f"""
services: {{s: "http://127.0.0.1:{service.port}"}}
routes:
  - path: /**
    service: s
    policies:
      - oidc:
          discovery_url: {issuer}/.well-known/openid-configuration
          client_id: shop
          client_secret: any
          external_url: http://localhost:{own}
          cookie: {SECRET}
          relay: access_token
      - user-headers
"""
        with Gateway(tmp_path, config, listen=f"127.0.0.1:{own}") as gateway:
            jar = str(tmp_path / "jar")
            url = f"http://localhost:{own}"
            answer = curl("-b", jar, "-c", jar, "-H", "Accept: text/html", f"{url}/deep?a=b")
            print(answer)
            assert answer.status == 302
            location = answer.value("Location")
            back = curl("-d", "sub=ada", location).value("Location")
            print(back)
            answer = curl("-b", jar, "-c", jar, back)
            print(answer, gateway.log())
            assert answer.status == 303
            answer = curl("-b", jar, "-c", jar, answer.value("Location"))
            print(answer)
            assert answer.status == 200
            assert 0
