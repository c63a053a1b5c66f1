from __future__ import annotations

import asyncio

import pytest

from portico.oidc.cookies import MOST_LOGINS
from portico.oidc.login import LASTS, return_of
from portico.plugin import Request
from tests.harness.oidc import (
    ISSUER,
    PAGE,
    SHOP,
    Browser,
    Provider,
    policy,
    session_of,
)
from tests.harness.tokens import World, in_time

NAVIGATIONS: list[tuple[str, dict[str, str], int]] = [
    ("GET", PAGE, 302),
    ("HEAD", PAGE, 302),
    ("GET", {"Sec-Fetch-Mode": "navigate"}, 302),
    ("GET", {"Accept": "text/html"}, 302),
    ("GET", {"Accept": "application/json, TEXT/HTML;q=0.5"}, 302),
    ("GET", {"Accept": "application/xhtml+xml"}, 302),
    ("POST", PAGE, 401),
    ("PUT", {"Accept": "text/html"}, 401),
    ("OPTIONS", PAGE, 401),
    ("GET", {}, 401),
    ("GET", {"Accept": "*/*"}, 401),
    ("GET", {"Accept": "text/htmlx"}, 401),
    ("GET", {"Accept": "application/json"}, 401),
    ("GET", {**PAGE, "Sec-Fetch-Mode": "cors"}, 401),
    ("GET", {**PAGE, "Sec-Fetch-Mode": "websocket"}, 401),
    ("GET", {"Accept": "text/html", "X-Requested-With": "XMLHttpRequest"}, 401),
]


@pytest.mark.parametrize(("method", "headers", "status"), NAVIGATIONS)
def test_who_is_led_to_a_login(method: str, headers: dict[str, str], status: int) -> None:
    async def main(world: World) -> None:
        Provider(world)
        browser = Browser(policy(world))
        await browser.open("/")  # the provider is known by then
        answer = await browser.ask("/", method, **headers)
        assert answer.status == status
        if status == 401:
            assert answer.type == "authentication-required"
            assert answer.headers.get(b"www-authenticate") == b'Cookie realm="https://shop.example"'
            assert browser.set == []

    in_time(main)


TARGETS = [
    ("/", "/"),
    ("/a?b", "/a?b"),
    ("/a/?b=https://evil.example/", "/a/?b=https://evil.example/"),
    ("/a;b@evil.example", "/a;b@evil.example"),
    ("//evil.example", "/"),
    ("//evil.example/%2e", "/"),
    ("/\\evil.example", "/"),
    ("/a?\\", "/a"),
    ("/a\r\nSet-Cookie: x=y", "/"),
    ("/a?b\tc", "/a"),
    ("/é", "/"),
    ("https://evil.example/", "/"),
    ("*", "/"),
    ("/a?" + "b" * 2000, "/a"),
    ("/" + "a" * 2000, "/"),
]


@pytest.mark.parametrize(("target", "back"), TARGETS)
def test_a_login_never_leads_elsewhere(target: str, back: str) -> None:
    path, _, query = target.partition("?")
    assert return_of(Request("GET", path, query or None)) == back

    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        led = await browser.open(target)
        answer = await browser.open(provider.log_in(led.location))
        assert (answer.status, answer.location) == (303, SHOP + back)

    in_time(main)


def test_no_host_of_a_client_is_believed() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        led = await browser.open("/", Host="evil.example", X_Forwarded_Host="evil.example")
        assert "evil" not in led.location
        assert (await browser.open(provider.log_in(led.location), Host="evil.example")).location == f"{SHOP}/"

    in_time(main)


HOSTILE: list[tuple[str, int, str]] = [
    ("/oidc/callback", 400, "login-not-known"),
    ("/oidc/callback?", 400, "login-not-known"),
    ("/oidc/callback?code=c", 400, "login-not-known"),
    ("/oidc/callback?code={code}", 400, "login-not-known"),
    ("/oidc/callback?code={code}&state=", 400, "login-not-known"),
    ("/oidc/callback?code={code}&state=x", 400, "login-not-known"),
    ("/oidc/callback?code={code}&state={short}", 400, "login-not-known"),
    ("/oidc/callback?code={code}&state={other}", 400, "login-not-known"),
    ("/oidc/callback?code={code}&state={state}x", 400, "login-not-known"),
    ("/oidc/callback?code={code}&state={state}&state={state}", 400, "login-not-known"),
    ("/oidc/callback?code={code}&code={code}&state={state}", 400, "login-not-known"),
    ("/oidc/callback?code={code}&state={state}&" + "a=b&" * 40, 400, "login-not-known"),
    ("/oidc/callback?state={state}", 400, "login-not-known"),
    ("/oidc/callback?code=&state={state}", 400, "login-not-known"),
    ("/oidc/callback?code=wrong&state={state}", 400, "login-not-known"),
    ("/oidc/callback?code=%00%ff%0d%0a&state={state}", 400, "login-not-known"),
    ("/oidc/callback?code={code}&state={state}&iss=https://evil.example", 403, "login-refused"),
    ("/oidc/callback?error=access_denied&state={state}", 403, "login-refused"),
    ("/oidc/callback?error=&state={state}", 403, "login-refused"),
    ("/oidc/callback?error=a%0d%0ab&error_description=<script>&state={state}", 403, "login-refused"),
    ("/oidc/callback?error=access_denied&code={code}&state={state}", 403, "login-refused"),
    ("/oidc/callback?error=temporarily_unavailable&state={state}", 503, "authentication-unavailable"),
    ("/oidc/callback?error=access_denied", 400, "login-not-known"),
    ("/oidc/callback?error=access_denied&state=x", 400, "login-not-known"),
]


@pytest.mark.parametrize(("target", "status", "type_"), HOSTILE)
def test_hostile_ways_back(target: str, status: int, type_: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        led = await browser.open("/")
        back = provider.log_in(led.location)
        code, state = back.partition("code=")[2].split("&state=")
        other = state[:8] + "A" * 24
        answer = await browser.open(target.format(code=code, state=state, short=state[:8], other=other))
        assert (answer.status, answer.type, answer.location) == (status, type_, "")
        assert session_of(browser) == {}
        assert "\r\n" not in caplog.text
        assert "script" not in caplog.text

    in_time(main)


def test_a_way_back_is_gone_once() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser, thief = Browser(policy(world)), Browser(policy(world))
        led = await browser.open("/")
        thief.cookies = dict(browser.cookies)
        back = provider.log_in(led.location)
        assert (await browser.open(back)).status == 303
        kept = dict(browser.cookies)
        again = await browser.open(back)
        assert (again.status, again.type) == (400, "login-not-known")
        assert browser.cookies == kept
        stolen = await thief.open(back)  # with the cookie of the login, too: the provider takes no code twice
        assert (stolen.status, stolen.type) == (400, "login-not-known")
        assert session_of(thief) == {}

    in_time(main)


def test_nobody_is_logged_in_as_somebody_else() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        mallory, ada = Browser(policy(world)), Browser(policy(world))
        back = provider.log_in((await mallory.open("/")).location, "mallory")
        assert (await ada.open(back)).status == 400  # ada has begun no login
        led = await ada.open("/")
        state = provider.log_in(led.location).partition("state=")[2]
        code = back.partition("code=")[2].partition("&")[0]
        injected = await ada.open(f"/oidc/callback?code={code}&state={state}")  # another login's verifier
        assert (injected.status, injected.type) == (400, "login-not-known")
        assert session_of(ada) == {}

    in_time(main)


def test_a_login_takes_no_longer_than_ten_minutes() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        for wait, status in ((LASTS - 1, 303), (LASTS, 400)):
            browser = Browser(policy(world))
            back = provider.log_in((await browser.open("/")).location)
            await asyncio.sleep(wait)
            assert (await browser.open(back)).status == status

    in_time(main)


def test_several_tabs() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        led = [await browser.open(f"/{number}") for number in range(3)]
        for number in (1, 0, 2):
            answer = await browser.open(provider.log_in(led[number].location))
            assert (answer.status, answer.location) == (303, f"{SHOP}/{number}")
        assert list(browser.cookies) == ["__Host-portico"]

    in_time(main)


def test_logins_that_come_to_nothing_do_not_pile_up() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        browser.cookies = {f"__Host-portico-login-{number:08}": "rubbish" for number in range(50)}
        for _ in range(3 * MOST_LOGINS):
            await asyncio.sleep(1)
            led = await browser.open("/")
            assert len(browser.cookies) <= MOST_LOGINS
        assert not [value for value in browser.cookies.values() if value == "rubbish"]
        assert (await browser.open(provider.log_in(led.location))).status == 303

    in_time(main)


def test_a_provider_that_is_down_or_silent() -> None:
    async def main(world: World) -> None:
        browser = Browser(policy(world))
        answer = await browser.open("/")
        assert (answer.status, answer.type) == (503, "authentication-unavailable")
        assert (await browser.ask("/")).status == 401
        provider = Provider(world)
        await asyncio.sleep(61)
        led = await browser.open("/")
        world.slow = 60.0
        begun = world.clock()
        answer = await browser.open(provider.log_in(led.location))
        assert (answer.status, answer.type) == (503, "authentication-unavailable")
        assert world.clock() - begun == pytest.approx(10, abs=0.5)

    in_time(main)


def test_the_first_login_waits_for_the_provider() -> None:
    async def main(world: World) -> None:
        Provider(world)
        world.slow = 0.5
        assert (await Browser(policy(world)).open("/")).status == 302

    in_time(main)


def test_a_way_back_to_a_worker_that_has_just_begun() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        provider.description["authorization_response_iss_parameter_supported"] = True  # type: ignore[assignment]
        browser = Browser(policy(world))
        back = provider.log_in((await browser.open("/")).location)
        assert (await browser.open(back)).status == 403  # without the name of the provider, which it says it gives
        for down, status in ((True, 503), (False, 303)):
            provider.up()
            back = provider.log_in((await browser.open("/")).location) + f"&iss={ISSUER}"
            if down:
                provider.down()
            other = world.reloaded()
            other.shared, other.slow = {}, 0.5
            fresh = Browser(policy(other))
            fresh.cookies = browser.cookies
            assert (await fresh.open(back)).status == status
            other.close()

    in_time(main)


def test_endpoints_that_are_not_used() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        for url in ("http://login.example/authorize", "javascript:alert(1)", "https://login.example/a b", 7, None):
            other = World()
            provider.description["authorization_endpoint"] = url  # type: ignore[assignment]
            other.hosts = world.hosts
            answer = await Browser(policy(other)).open("/")
            assert (answer.status, answer.type) == (503, "authentication-unavailable")
            other.close()

    in_time(main)
