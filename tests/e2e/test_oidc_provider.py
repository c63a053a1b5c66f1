"""Browsers that log in at a provider of OpenID Connect that is not ours, by a real gateway."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.cookiejar import CookieJar
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, ProxyHandler, build_opener
from urllib.request import Request as HttpRequest

import pytest

from tests.e2e.test_jwt_provider import provider
from tests.harness.gateway import DEADLINE, Answer, Gateway, Service, curl, portico, problem_of, refusing_port, wait_for

needs_mock = pytest.mark.skipif(find_spec("oidc_provider_mock") is None, reason="needs oidc-provider-mock")
NODE_MODULE = os.environ.get("OIDC_PROVIDER", "")
"""The folder of the npm package `oidc-provider`, where it is to be tried as well."""

SECRET = "a-secret-of-the-gateway-for-its-cookies"


class Stays(HTTPRedirectHandler):
    """Goes nowhere by itself."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Browser:
    """A browser with a cookie jar, as the standard library has it."""

    def __init__(self, url: str, jar: CookieJar | None = None) -> None:
        self.url = url
        self.jar = CookieJar() if jar is None else jar
        self.opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self.jar), Stays())

    def window(self) -> Browser:
        """Return one that has the same cookies, and gets others by itself."""
        jar = CookieJar()
        for cookie in self.jar:
            jar.set_cookie(cookie)
        return Browser(self.url, jar)

    def ask(self, target: str, form: str | None = None, **headers: str) -> Answer:
        """Ask as a script does."""
        url = target if target.startswith("http") else self.url + target
        request = HttpRequest(url, None if form is None else form.encode(), headers)
        try:
            answer = self.opener.open(request, timeout=DEADLINE)
        except HTTPError as error:
            answer = error
        with answer:
            return Answer(answer.status, answer.headers.items(), answer.read())

    def open(self, target: str, form: str | None = None) -> Answer:
        return self.ask(target, form, Accept="text/html")

    def follow(self, target: str, form: str | None = None) -> Answer:
        """Go wherever it leads."""
        answer = self.open(target, form)
        for _ in range(9):
            if answer.status not in (302, 303):
                break
            target = urljoin(target, answer.value("Location"))
            answer = self.open(target)
        return answer

    def come_back(self, target: str = "/") -> Answer:
        """Log in at the provider, and return what the gateway answers to that."""
        led = self.open(target)
        assert led.status == 302, led
        return self.open(self.open(led.value("Location"), "sub=ada").value("Location"))

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
def world(folder: Path, port: int, workers: int = 1, own: int = 0, more: str = "") -> Iterator[World]:
    own, issuer = own or free_port(), f"http://localhost:{port}"
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
          client_secret: "any secret:/%"
          external_url: http://localhost:{own}
          cookie: {{secret: [{SECRET}]}}
          relay: access_token
          {more}
      - user-headers
"""
        with Gateway(folder, config, listen=f"127.0.0.1:{own}", workers=workers) as gateway:
            yield World(issuer, gateway, Browser(f"http://localhost:{own}"))


@needs_mock
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

        written = here.gateway.file.read_text()
        here.gateway.file.write_text(written.replace(f"[{SECRET}]", f"[another-{SECRET}, {SECRET}]"))
        assert portico("reload", here.gateway.file).code == 0
        assert shown(browser.ask("/api"))["x-user-id"] == "ada"

        left = browser.ask("/oidc/logout", "")
        assert left.status == 303
        assert left.value("Location").startswith(f"{here.issuer}/oauth2/end_session?id_token_hint=")
        assert b"end_session" in browser.open(left.value("Location")).body
        assert browser.open("/").status == 302

        denied = browser.open(browser.open("/").value("Location"), "action=deny").value("Location")
        assert "error=access_denied" in denied
        problem_of(browser.ask(denied), 400, "login-not-known")  # this provider sends no state along with it
        assert SECRET not in here.gateway.log()


@needs_mock
def test_sessions_outlive_their_provider_and_its_keys(tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as later, ExitStack() as first:
        first.enter_context(provider(port))
        here = later.enter_context(world(tmp_path, port))
        browser, other = here.browser, Browser(here.browser.url)
        browser.log_in()
        back = other.open(other.open("/").value("Location"), "sub=bob").value("Location")
        first.close()
        assert shown(browser.open("/"))["x-user-id"] == "ada"
        problem_of(other.ask(back), 503, "authentication-unavailable")
        with provider(port):  # with another key
            assert shown(browser.open("/"))["x-user-id"] == "ada"
            wait_for(lambda: other.come_back().status == 303, "the new key")


@needs_mock
def test_tokens_are_renewed_by_one_of_several_workers(tmp_path: Path) -> None:
    port = free_port()
    with provider(port, "--token-max-age", "8"), world(tmp_path, port, workers=2) as here:
        browser = here.browser
        first = shown(browser.log_in())["authorization"]
        with ThreadPoolExecutor(4) as threads:

            def renewed() -> bool:
                pages = list(threads.map(lambda each: each.ask("/"), [browser.window() for _ in range(4)]))
                return shown(browser.ask("/"))["authorization"] != first and all(map(shown, pages))

            wait_for(renewed, "new tokens")
        browser.jar.clear()
        browser.log_in()
        assert curl("-X", "POST", f"{here.issuer}/users/ada/revoke-tokens").status == 204
        wait_for(lambda: browser.open("/").status == 302, "the end of the session")


@contextmanager
def certified_provider(port: int, own: int, seconds: int) -> Iterator[None]:
    command = ["node", str(Path(__file__).with_name("oidc_provider.mjs")), NODE_MODULE, str(port)]
    process = subprocess.Popen([*command, f"http://localhost:{own}", str(seconds)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: curl(f"http://localhost:{port}/jwks", codes=(0, 7)).status == 200, "the provider")
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE)


def test_a_certified_provider(tmp_path: Path) -> None:
    if not NODE_MODULE:
        pytest.skip("OIDC_PROVIDER names no folder of the npm package oidc-provider")
    port, own = free_port(), free_port()
    more = "scope: [email, offline_access]\n          extra: {prompt: consent}"
    with certified_provider(port, own, 8), world(tmp_path, port, workers=2, own=own, more=more) as here:
        browser = here.browser
        asks = browser.follow("/deep?a=b")
        asks = browser.follow(found(asks, 'action="([^"]+)"'), "prompt=login&login=ada&password=any")
        page = browser.follow(found(asks, 'action="([^"]+)"'), "prompt=consent")
        assert page.json["target"] == "/deep?a=b"
        first = shown(page)
        assert first["x-user-id"] == "ada"
        wait_for(lambda: shown(browser.ask("/"))["authorization"] != first["authorization"], "new tokens")

        copied = browser.window()
        left = browser.ask("/oidc/logout", "")
        assert browser.open("/").status == 302
        confirm = browser.open(left.value("Location"))
        secret = found(confirm, 'name="xsrf" value="([^"]+)"')
        back = browser.open(found(confirm, 'action="([^"]+)"'), f"logout=yes&xsrf={secret}")
        assert back.value("Location") == f"http://localhost:{own}/"
        wait_for(lambda: copied.open("/").status == 302, "the end of the session that was copied")
        assert "WARNING" not in here.gateway.log()


def found(page: Answer, pattern: str) -> str:
    match = re.search(pattern.encode(), page.body)
    assert match is not None, page
    return match[1].decode()
