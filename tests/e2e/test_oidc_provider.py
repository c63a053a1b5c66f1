"""Browsers that log in at a provider of OpenID Connect that is not ours, by a real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.test_jwt_provider import provider
from tests.harness.gateway import Answer, Gateway, Service, curl, portico, problem_of, refusing_port, wait_for

pytestmark = pytest.mark.skipif(find_spec("oidc_provider_mock") is None, reason="needs oidc-provider-mock")

SECRET = "a-secret-of-the-gateway-for-its-cookies"


class Browser:
    """A browser with a cookie jar: curl."""

    def __init__(self, jar: Path, url: str) -> None:
        self.jar = jar
        self.url = url

    def window(self, name: str) -> Browser:
        """Return one that has the same cookies, and gets others by itself."""
        other = Browser(self.jar.with_name(name), self.url)
        other.jar.write_bytes(self.jar.read_bytes())
        return other

    def ask(self, target: str, *options: str) -> Answer:
        """Ask as a script does."""
        url = target if target.startswith("http") else self.url + target
        return curl("-b", str(self.jar), "-c", str(self.jar), *options, url)

    def open(self, target: str, *options: str) -> Answer:
        return self.ask(target, "-H", "Accept: text/html", *options)

    def come_back(self, target: str = "/") -> Answer:
        """Log in at the provider, and return what the gateway answers to that."""
        led = self.open(target)
        assert led.status == 302, led
        return self.open(curl("-d", "sub=ada", led.value("Location")).value("Location"))

    def log_in(self, target: str = "/") -> Answer:
        answer = self.come_back(target)
        assert answer.status == 303, answer
        return self.open(answer.value("Location"))


def shown(page: Answer) -> dict[str, str]:
    """Return the headers that the service has got, as it has answered them."""
    assert page.status == 200, page
    headers: list[list[str]] = page.json["headers"]
    return {name.lower(): value for name, value in headers}


class World(NamedTuple):
    """A gateway, and the provider that it leads browsers to."""

    issuer: str
    gateway: Gateway
    browser: Browser


def free_port() -> int:
    with refusing_port() as port:
        return port


@contextmanager
def world(folder: Path, port: int, workers: int = 1) -> Iterator[World]:
    own, issuer = free_port(), f"http://localhost:{port}"
    with Service() as service:
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
          cookie: {{secret: [{SECRET}]}}
          relay: access_token
      - user-headers
"""
        with Gateway(folder, config, listen=f"127.0.0.1:{own}", workers=workers) as gateway:
            yield World(issuer, gateway, Browser(folder / "jar", f"http://localhost:{own}"))


def test_a_login_a_logout_and_another_secret(tmp_path: Path) -> None:
    port = free_port()
    with provider(port), world(tmp_path, port) as here:
        browser = here.browser
        problem_of(browser.ask("/api"), 401, "authentication-required")
        page = browser.log_in("/deep/page?a=b&c=%2F")
        assert page.json["target"] == "/deep/page?a=b&c=%2F"
        seen = shown(page)
        assert seen["x-user-id"] == "ada"
        assert seen["authorization"].startswith("Bearer ")
        assert "cookie" not in seen
        assert shown(browser.ask("/api"))["x-user-id"] == "ada"

        kept = browser.jar.read_text()
        here.gateway.file.write_text(
            here.gateway.file.read_text().replace(f"[{SECRET}]", f"[another-{SECRET}, {SECRET}]")
        )
        assert portico("reload", here.gateway.file).code == 0
        assert shown(browser.ask("/api"))["x-user-id"] == "ada"

        browser.jar.write_text(kept)
        left = browser.ask("/oidc/logout", "-X", "POST")
        assert left.status == 303
        assert left.value("Location").startswith(f"{here.issuer}/oauth2/end_session?id_token_hint=")
        assert b"end_session" in curl(left.value("Location")).body
        assert browser.open("/").status == 302

        denied = curl("-d", "action=deny", browser.open("/").value("Location")).value("Location")
        answer = browser.ask(denied.replace("error=access_denied", "error=access_denied&a=b"))
        problem_of(answer, 400, "login-not-known")  # this provider sends no state back with an error
        assert SECRET not in here.gateway.log()


def test_sessions_outlive_their_provider_and_its_keys(tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as later, ExitStack() as first:
        first.enter_context(provider(port))
        here = later.enter_context(world(tmp_path, port))
        browser, other = here.browser, Browser(tmp_path / "other", here.browser.url)
        browser.log_in()
        back = curl("-d", "sub=bob", other.open("/").value("Location")).value("Location")
        first.close()
        assert shown(browser.open("/"))["x-user-id"] == "ada"
        problem_of(other.ask(back), 503, "authentication-unavailable")
        with provider(port):  # with another key
            assert shown(browser.open("/"))["x-user-id"] == "ada"
            wait_for(lambda: other.come_back().status == 303, "the new key")


def test_tokens_are_renewed_by_one_of_several_workers(tmp_path: Path) -> None:
    port = free_port()
    with provider(port, "--token-max-age", "8"), world(tmp_path, port, workers=2) as here:
        browser = here.browser
        first = shown(browser.log_in())["authorization"]
        with ThreadPoolExecutor(4) as threads:

            def renewed() -> bool:
                pages = list(threads.map(lambda name: browser.window(name).ask("/"), "abcd"))
                return shown(browser.ask("/"))["authorization"] != first and all(map(shown, pages))

            wait_for(renewed, "new tokens")
        browser.jar.unlink()
        browser.log_in()
        assert curl("-X", "POST", f"{here.issuer}/users/ada/revoke-tokens").status == 204
        wait_for(lambda: browser.open("/").status == 302, "the end of the session")
