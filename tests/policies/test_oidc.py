from __future__ import annotations

import asyncio
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from portico.jose.mint import encode
from portico.oidc.cookies import MOST_LOGINS, Cookies, TooLarge
from portico.oidc.login import LASTS, Login, return_of
from portico.oidc.seal import Seal
from portico.oidc.session import Present
from portico.plugin import (
    ADMITTED,
    Authenticator,
    AuthenticatorConfig,
    Found,
    Headers,
    Request,
    Response,
    unknown_user,
)
from portico.policies.anonymous import Anonymous, AnonymousPolicy
from portico.policies.authorize import Authorize, AuthorizePolicy
from portico.policies.oidc import Oidc
from portico.policy.authentication import Authentication, Part
from portico.testing import Gateway
from tests.harness.gateway import portico_here
from tests.harness.oidc import (
    CLIENT_SECRET,
    COOKIE_SECRET,
    ISSUER,
    PAGE,
    SETTINGS,
    SHOP,
    Browser,
    Provider,
    policy,
    session_of,
)
from tests.harness.tokens import SECRET, World, in_time, token


def test_a_login_leads_back_to_the_page() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        browser.cookies["theme"] = "dark"
        led = await browser.open("/orders/7?sort=up&x=%2F")
        assert led.status == 302
        assert led.headers.get(b"cache-control") == b"no-store"
        assert led.seen is None
        (line,) = browser.set
        assert line.startswith("__Host-portico-login-")
        assert line.endswith("; Max-Age=600; Path=/; HttpOnly; SameSite=Lax; Secure")
        back = await browser.open(provider.log_in(led.location))
        assert (back.status, back.location) == (303, f"{SHOP}/orders/7?sort=up&x=%2F")
        assert back.headers.get(b"cache-control") == b"no-store"
        assert list(browser.cookies) == ["theme", "__Host-portico"]
        assert any(line.startswith("__Host-portico=0") and "Max-Age=3600;" in line for line in browser.set)
        page = await browser.open("/orders/7?sort=up&x=%2F")
        assert (page.status, browser.set) == (204, [])
        assert page.user is not None
        assert (page.user.name, page.user.kind, page.user.roles) == ("ada", "oidc", {"buyer"})
        assert page.seen is not None
        assert page.seen.headers.get_all(b"cookie") == [b"theme=dark"]
        assert page.seen.headers.get(b"authorization") is None

    in_time(main)


def test_what_the_provider_is_shown() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        for settings_, shown, form in (
            ({}, "Basic c2hvcDp3aGF0K3RoZStwcm92aWRlcitrbm93cyt0aGUrc2hvcCtieSUyRiUzQSUyNQ==", {}),
            ({"client_auth": "post"}, "", {"client_id": "shop", "client_secret": CLIENT_SECRET}),
            ({"client_secret": None}, "", {"client_id": "shop"}),
        ):
            await Browser(policy(world, **settings_)).log_in(provider)
            assert provider.shown[-1] == shown
            extra = {name: value for name, value in provider.forms[-1].items() if name.startswith("client_")}
            assert extra == form

    in_time(main)


def test_what_a_login_asks() -> None:
    async def main(world: World) -> None:
        Provider(world)
        extra = {"prompt": "login", "x": "é"}
        browser = Browser(policy(world, scope=["email", "openid", "offline_access"], extra=extra))
        led = await browser.open("/")
        assert "&scope=openid%20email%20offline_access&" in led.location
        assert "&prompt=login&x=%C3%A9&" in led.location

    in_time(main)


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


class AdmitsAll(Authenticator[AuthenticatorConfig], name="admits-all"):
    def identify(self, request: Request) -> Found:
        return ADMITTED


def test_logins_of_guests_do_not_pile_up_either() -> None:
    async def main(world: World) -> None:
        Provider(world)

        async def needs_somebody(request: Request) -> Response:
            return unknown_user(request)

        for others in ((policy(world), anonymous()), (AdmitsAll(AuthenticatorConfig()), policy(world))):
            browser = Browser(*others, service=needs_somebody)
            for _ in range(3 * MOST_LOGINS):
                await asyncio.sleep(1)
                assert (await browser.open("/")).status == 302
                assert len(browser.cookies) <= MOST_LOGINS

    in_time(main)


def forged(**claims: Any) -> Callable[[Provider], None]:
    def play(provider: Provider) -> None:
        provider.claims = claims

    return play


def given_as(**said: Any) -> Callable[[Provider], None]:
    def play(provider: Provider) -> None:
        provider.tokens = said

    return play


def unsigned(provider: Provider) -> None:
    def made(name: str, nonce: str | None, access: str, **header: Any) -> str:
        claims = {"iss": ISSUER, "sub": name, "aud": "shop", "exp": 1_900_000_000, "iat": 1_800_000_000, "nonce": nonce}
        header = {"alg": "none"}
        return f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}."

    provider.id_token = made  # type: ignore[method-assign]


def of_a_secret(provider: Provider) -> None:
    provider.kind = "secret"


def of_an_unknown_key(provider: Provider) -> None:
    provider.kind = "P-256"


def test_tokens_that_end_at_once_are_no_endless_logins() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        provider.lifetime = 1
        browser = Browser(policy(world))
        answer = await browser.open(provider.log_in((await browser.open("/")).location))
        assert (answer.status, answer.type) == (403, "login-refused")
        provider.lifetime = 0  # what some write who mean that it has no end
        assert (await browser.log_in(provider)).status == 204

    in_time(main)


BAD: list[tuple[Callable[[Provider], None], int]] = [
    (forged(nonce="x"), 403),
    (forged(nonce=None), 403),
    (forged(nonce=7), 403),
    (forged(iss="https://evil.example"), 403),
    (forged(aud="other"), 403),
    (forged(aud=["shop", "other"]), 403),
    (forged(aud=["shop", "other"], azp="other"), 403),
    (forged(azp="other"), 403),
    (forged(exp=1_799_999_000), 403),
    (forged(exp=None), 403),
    (forged(iat=None), 403),
    (forged(iat=1_800_009_000), 403),
    (forged(sub=None), 403),
    (forged(sub=""), 403),
    (forged(at_hash="AAAA"), 403),
    (forged(at_hash=7), 403),
    (unsigned, 403),
    (of_a_secret, 403),
    (of_an_unknown_key, 403),
    (given_as(id_token=None), 403),
    (given_as(id_token=7), 403),
    (given_as(id_token="a.b.c"), 403),
    (given_as(access_token=None), 403),
    (given_as(access_token="a\r\nb"), 403),
    (given_as(token_type="mac"), 403),
    (given_as(token_type=None), 403),
    (given_as(refresh_token="x" * 9000), 403),
]


@pytest.mark.parametrize(("play", "status"), BAD)
def test_tokens_that_are_not_taken(play: Callable[[Provider], None], status: int) -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        play(provider)
        browser = Browser(policy(world))
        answer = await browser.open(provider.log_in((await browser.open("/")).location))
        assert (answer.status, answer.type) == (status, "login-refused")
        assert browser.cookies == {}

    in_time(main)


GOOD: list[Callable[[Provider], None]] = [
    forged(aud=["shop"]),
    forged(aud=["shop", "other"], azp="shop"),
    forged(at_hash=None),
    given_as(expires_in="300"),
    given_as(expires_in=None),
    given_as(expires_in=True),
    given_as(token_type="bearer"),
    lambda provider: setattr(provider, "kind", "P-521"),
]


@pytest.mark.parametrize("play", GOOD)
def test_tokens_that_are_taken(play: Callable[[Provider], None]) -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        play(provider)
        assert (await Browser(policy(world)).log_in(provider)).status == 204

    in_time(main)


ANSWERS = [
    (Response(500), 503, "authentication-unavailable"),
    (Response(429), 503, "authentication-unavailable"),
    (Response(200, None, b"[]"), 403, "login-refused"),
    (Response(200, None, b"x" * 100_000), 503, "authentication-unavailable"),
    (Response(302), 403, "login-refused"),
    (Response(401, None, b'{"error": "invalid_client"}'), 502, "login-failed"),
    (Response(400, None, b'{"error": "in\\u0000valid"}'), 403, "login-refused"),
]


@pytest.mark.parametrize(("said", "status", "type_"), ANSWERS)
def test_what_else_a_provider_answers(said: Response, status: int, type_: str) -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        led = await browser.open("/")
        provider.answer = said
        answer = await browser.open(provider.log_in(led.location))
        assert (answer.status, answer.type) == (status, type_)
        assert browser.cookies == {}

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


async def has_ended(browser: Browser, target: str = "/") -> bool:
    answer = await browser.open(target)
    assert answer.status in (204, 302)
    return answer.status == 302


def test_a_session_ends() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        provider.gives_refresh = False
        made = policy(world, session={"idle": "10m", "max": "1h"})
        idle, busy = Browser(made), Browser(made)
        await idle.log_in(provider)
        await busy.log_in(provider)
        old = dict(busy.cookies)
        await asyncio.sleep(599)
        assert not await has_ended(idle)
        assert idle.set  # it goes on from now on
        await asyncio.sleep(600)
        assert await has_ended(idle)
        busy.cookies = old
        assert await has_ended(busy)
        await busy.log_in(provider)
        for _ in range(11):
            await asyncio.sleep(299)
            assert not await has_ended(busy)
        await asyncio.sleep(311)
        assert await has_ended(busy)

    in_time(main)


def test_a_cookie_is_made_anew_from_time_to_time() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        provider.gives_refresh = False
        kept = {"Cache-Control": "public, max-age=600", "Expires": "x", "Set-Cookie": "a=b"}
        service = Response(200, Headers((name.encode(), value.encode()) for name, value in kept.items()))
        browser = Browser(policy(world, session={"idle": "10m", "max": "15m"}), service=service)
        await browser.log_in(provider)
        before = dict(browser.cookies)
        await asyncio.sleep(59)
        page = await browser.ask("/")
        assert browser.set == ["a=b"]
        assert page.headers.get(b"cache-control") == b"public, max-age=600"
        await asyncio.sleep(1)
        page = await browser.ask("/")
        assert page.headers.get_all(b"cache-control") == [b"no-store"]
        assert page.headers.get(b"expires") is None
        assert len(browser.set) == 2
        assert session_of(browser)["__Host-portico"] != before["__Host-portico"]
        assert "Max-Age=600;" in browser.set[1]

    in_time(main)


def test_answers_of_others_get_the_cookie_as_well() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        provider.gives_refresh = False
        browser = Browser(policy(world, session={"idle": "10m"}))
        await browser.log_in(provider)
        browser.service = Response.problem(502, "service-unreachable")
        await asyncio.sleep(60)
        assert (await browser.ask("/")).status == 502
        assert len(browser.set) == 1

    in_time(main)


def test_tokens_are_renewed_before_they_end() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world, relay="access_token"))
        page = await browser.log_in(provider)
        assert page.seen is not None
        assert page.seen.headers.get(b"authorization") == b"Bearer access-ada-1"
        for turn in range(2, 6):
            await asyncio.sleep(239)
            assert not await has_ended(browser)
            assert len(provider.forms) == turn - 1
            await asyncio.sleep(60)
            page = await browser.ask("/")
            assert page.seen is not None
            assert page.seen.headers.get(b"authorization") == f"Bearer access-ada-{turn}".encode()
            assert provider.forms[-1]["grant_type"] == "refresh_token"

    in_time(main)


def test_many_requests_renew_once() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        await browser.log_in(provider)
        await asyncio.sleep(299)
        world.slow = 1.0
        cookies = dict(browser.cookies)
        others = [Browser(*browser.policies) for _ in range(20)]
        for other in others:
            other.cookies = dict(cookies)
        answers = await asyncio.gather(*(other.ask("/") for other in others))
        assert [answer.status for answer in answers] == [204] * 20
        assert all(other.cookies != cookies for other in others)
        assert len(provider.forms) == 2
        browser.cookies = dict(cookies)  # on its way while the answers were
        assert not await has_ended(browser)
        assert browser.cookies != cookies
        assert len(provider.forms) == 2

    in_time(main)


def test_who_leaves_does_not_end_a_renewal() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        await browser.log_in(provider)
        await asyncio.sleep(299)
        world.slow = 1.0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await browser.ask("/")
        await asyncio.sleep(5)
        assert not await has_ended(browser)
        assert len(provider.forms) == 2

    in_time(main)


def test_a_renewal_that_its_configuration_has_taken_along() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        await browser.log_in(provider)
        await asyncio.sleep(299)
        world.spawn = lambda work, name: work.close()  # type: ignore[method-assign]
        browser.policies = (policy(world),)
        assert (await browser.ask("/")).status == 204
        after = world.reloaded()
        browser.policies = (policy(after),)
        await asyncio.sleep(0.5)
        assert (await browser.ask("/")).status == 503
        await asyncio.sleep(10)
        assert (await browser.ask("/")).status == 204
        after.close()

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


def test_a_provider_that_is_slow_holds_up_nobody_whose_tokens_are_good() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        provider.lifetime = 3600
        browser = Browser(policy(world))
        await browser.log_in(provider)
        await asyncio.sleep(3575)
        world.slow = 5.0
        begun = world.clock()
        assert (await browser.ask("/")).status == 204
        assert world.clock() - begun == pytest.approx(2, abs=0.1)
        await asyncio.sleep(4)
        world.slow = 0.0
        assert (await browser.ask("/")).status == 204
        assert len(provider.forms) == 2
        assert browser.set

    in_time(main)


def test_sessions_go_on_while_the_provider_is_down() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        await browser.log_in(provider)
        provider.down()
        await asyncio.sleep(295)
        assert not await has_ended(browser)
        await asyncio.sleep(6)
        for ask in (browser.ask, browser.open):
            answer = await ask("/")
            assert (answer.status, answer.type) == (503, "authentication-unavailable")
        provider.up()
        await asyncio.sleep(3)
        assert not await has_ended(browser)

    in_time(main)


def test_a_session_ends_that_the_provider_has_ended() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        await browser.log_in(provider)
        provider.fresh.clear()
        await asyncio.sleep(299)
        assert not await has_ended(browser)  # its tokens are good yet
        await asyncio.sleep(2)
        assert (await browser.ask("/")).status == 401
        assert await has_ended(browser)
        assert len(provider.forms) == 2

    in_time(main)


def test_two_workers_and_a_refresh_token_that_is_good_once() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        other = world.reloaded()
        other.shared = {}
        one, two = policy(world), policy(other)
        browser = Browser(one)
        await browser.log_in(provider)
        before = dict(browser.cookies)
        await asyncio.sleep(299)
        assert not await has_ended(browser)
        late = Browser(two)
        late.cookies = before  # it was on its way to the other worker
        assert not await has_ended(late)
        assert late.set == []  # so that it does not put its cookie in the place of the new one
        assert [form["grant_type"] for form in provider.forms[1:]] == ["refresh_token"] * 2
        await asyncio.sleep(2)
        assert await has_ended(late)
        browser.policies = (two,)
        assert not await has_ended(browser)
        await asyncio.sleep(290)
        assert not await has_ended(browser)
        other.close()

    in_time(main)


def test_a_refresh_token_that_stays_the_same() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        provider.rotates = False
        browser = Browser(policy(world))
        await browser.log_in(provider)
        provider.gives_refresh = False
        provider.tokens = {"id_token": None}
        for turn in range(2, 5):
            await asyncio.sleep(299)
            assert not await has_ended(browser)
            assert len(provider.forms) == turn
        assert len({form["refresh_token"] for form in provider.forms[1:]}) == 1

    in_time(main)


def test_tokens_of_somebody_else_are_no_renewal() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        for play in (forged(sub="mallory"), forged(iss="https://evil.example"), forged(nonce="x"), of_an_unknown_key):
            provider.claims, provider.kind = {}, "RSA"
            browser = Browser(policy(world))
            await browser.log_in(provider)
            play(provider)
            await asyncio.sleep(299)
            page = await browser.ask("/")
            assert page.user is not None
            assert page.user.name == "ada"
            await asyncio.sleep(2)
            assert (await browser.ask("/")).status == 401

    in_time(main)


def test_sessions_without_a_refresh_token() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        provider.gives_refresh = False
        plain, relayed = Browser(policy(world)), Browser(policy(world, relay="id_token"))
        await plain.log_in(provider)
        page = await relayed.log_in(provider)
        assert page.seen is not None
        shown = page.seen.headers.text(b"authorization") or ""
        assert shown.startswith("Bearer ey")
        await asyncio.sleep(301)
        assert not await has_ended(plain)
        assert await has_ended(relayed)

    in_time(main)


def test_a_service_is_shown_a_token_only_of_a_session() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world, relay="access_token"), world.policy(secret=SECRET))
        await browser.log_in(provider)
        page = await browser.ask("/", Authorization="Bearer of-the-client")
        assert page.seen is not None
        assert page.seen.headers.get_all(b"authorization") == [b"Bearer access-ada-1"]
        browser.cookies.clear()
        shown = f"Bearer {token()}"
        page = await browser.ask("/", Authorization=shown)
        assert page.seen is not None
        assert page.seen.headers.get_all(b"authorization") == [shown.encode()]

    in_time(main)


def test_beside_other_policies() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        oidc, jwt = policy(world), world.policy(secret=SECRET)
        both = Browser(oidc, jwt)
        assert (await both.open("/")).status == 302
        assert (await both.ask("/", Authorization=f"Bearer {token()}")).status == 204
        wrong = await both.open("/", Authorization="Bearer x")
        assert (wrong.status, wrong.type) == (401, "invalid-token")
        assert (await Browser(jwt, oidc).log_in(provider)).status == 204
        guests = Browser(oidc, anonymous())
        page = await guests.open("/")
        assert page.user is not None
        assert page.user.name == "guest"
        back = provider.log_in((await both.open("/")).location)
        assert (await both.open(back, Authorization=f"Bearer {token()}")).status == 303

    in_time(main)


def test_a_service_sees_no_session_of_whoever_is_known_otherwise() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(world.policy(secret=SECRET), policy(world, relay="access_token"))
        await browser.log_in(provider)
        browser.cookies["theme"] = "dark"
        shown = f"Bearer {token()}"
        page = await browser.ask("/", Authorization=shown)
        assert page.user is not None
        assert page.user.kind == "jwt"
        assert page.seen is not None
        assert page.seen.headers.get_all(b"cookie") == [b"theme=dark"]
        assert page.seen.headers.get_all(b"authorization") == [shown.encode()]

    in_time(main)


def anonymous() -> AnonymousPolicy:
    made = AnonymousPolicy(Anonymous.model_validate({"name": "guest"}))
    made.setup(World())  # type: ignore[arg-type]
    return made


def test_a_guest_is_led_to_a_login_where_more_is_needed() -> None:
    async def main(world: World) -> None:
        Provider(world)
        oidc, authorize = policy(world), AuthorizePolicy(Authorize.model_validate({"roles": "buyer"}))
        authorize.setup(world)  # type: ignore[arg-type]
        browser = Browser(oidc, anonymous())
        await browser.open("/")
        asked = Request("GET", "/", headers=Headers([(b"Accept", b"text/html")]))

        async def authorized(request: Request) -> Response:
            return authorize.request(request) or Response(204)

        parts = [Part(oidc, None), Part(anonymous(), None)]
        answer = await Authentication(parts).handle(asked, authorized)
        assert answer.status == 302
        asked = Request("POST", "/")
        answer = await Authentication(parts).handle(asked, authorized)
        assert answer.status == 401

    in_time(main)


def test_cookies_that_are_none_of_ours() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        await browser.log_in(provider)
        (name, good), *_ = session_of(browser).items()
        other = Browser(policy(world, client_id="other"), policy(world, cookie=COOKIE_SECRET[::-1]))
        led = await browser.open("/oidc/callback")
        assert led.status == 400
        await Browser(policy(world)).open("/")
        login = Browser(policy(world))
        await login.open("/")
        (text,) = login.cookies.values()
        shorter = (good[1:], good[:-1], good[:40], "", "0")
        changed = (good[:-2] + "AA", "1" + good[1:], "9" + good[1:], good + "=", good.replace(good[50], "*"))
        for bad in (*shorter, *changed, "0" + text, "0" * 4000, "\xff" * 40):
            browser.cookies = {name: bad}
            assert await has_ended(browser), bad
        other.cookies = {name: good}
        assert await has_ended(other)

    in_time(main)


ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 500), st.integers(1, 63))
def test_nothing_of_a_session_can_be_changed(place: int, by: int) -> None:
    seal = Seal(("secret" * 6,), ("a", "b"))
    text = seal.seal(b"session", b"some content")
    assert seal.open(b"session", text) == b"some content"
    at = place % len(text)
    other = ALPHABET[(ALPHABET.index(text[at]) + by) % 64]
    assert seal.open(b"session", bytes((*text[:at], other, *text[at + 1 :]))) is None


def test_what_is_sealed_is_for_one_thing() -> None:
    seal = Seal(("secret" * 6,), ("a", "b"))
    text = seal.seal(b"session", b"some content")
    assert seal.open(b"login", text) is None
    assert Seal(("secret" * 6,), ("ab", "")).open(b"session", text) is None
    assert Seal(("secret" * 7, "secret" * 6), ("a", "b")).open(b"session", text) == b"some content"


def test_no_two_texts_are_alike() -> None:
    seal = Seal(("secret" * 6,), ())
    assert len({seal.seal(b"session", b"content") for _ in range(100)}) == 100


def test_another_secret() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        provider.gives_refresh = False
        new = "the second secret for the cookies of a test"
        browser = Browser(policy(world))
        await browser.log_in(provider)
        browser.policies = (policy(world, cookie={"secret": [new, COOKIE_SECRET]}),)
        assert not await has_ended(browser)
        before = dict(browser.cookies)
        await asyncio.sleep(361)
        assert not await has_ended(browser)
        browser.policies = (policy(world, cookie=new),)
        assert not await has_ended(browser)
        browser.cookies = before
        assert await has_ended(browser)

    in_time(main)


def test_a_large_session_has_several_cookies() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        provider.gives_refresh = False
        browser = Browser(policy(world))
        provider.claims = {"groups": [f"group-{number}" for number in range(400)]}
        page = await browser.log_in(provider)
        names = list(session_of(browser))
        assert names == ["__Host-portico", "__Host-portico.1", "__Host-portico.2"]
        assert all(len(name) + len(value) <= 4000 for name, value in browser.cookies.items())
        assert page.user is not None
        assert len(page.user.groups) == 400
        assert page.seen is not None
        assert page.seen.headers.get(b"cookie") is None
        missing = Browser(*browser.policies)
        missing.cookies = {name: value for name, value in browser.cookies.items() if not name.endswith(".1")}
        assert await has_ended(missing)
        provider.claims = {}
        missing.cookies["__Host-portico.2"] = "left over"
        await missing.log_in(provider)
        assert list(session_of(missing)) == ["__Host-portico"]

    in_time(main)


def test_a_session_that_is_too_large() -> None:
    cookies = Cookies("portico", secure=True)
    with pytest.raises(TooLarge):
        cookies.keep(b"x" * 16_000, 60)
    lines = cookies.keep(b"x" * 15_000, 60)
    fields = Headers([(b"Cookie", b"; ".join(line.partition(b";")[0] for line in lines))])
    shown = cookies.of(fields)
    assert shown is not None
    assert shown.session == b"x" * 15_000

    async def main(world: World) -> None:
        provider = Provider(world)
        provider.tokens = {"access_token": "a" * 8000, "refresh_token": "r" * 8000}
        provider.claims = {"at_hash": None}
        browser = Browser(policy(world, relay="access_token"))
        answer = await browser.open(provider.log_in((await browser.open("/")).location))
        assert (answer.status, answer.type) == (502, "login-failed")

    in_time(main)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["__Host-portico", "__Host-portico.1", "__Host-portico-login-AAAAAAAA", "a"]), max_size=6),
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0", exclude_categories=["Cc"]), max_size=40),
)
def test_whatever_is_shown_is_answered(names: list[str], text: str) -> None:
    async def main(world: World) -> None:
        Provider(world)
        browser = Browser(policy(world))
        line = "; ".join(f"{name}={text}" for name in names)
        for target in ("/", "/oidc/callback?code=c&state=" + "A" * 32, f"/oidc/callback?{text}", "/oidc/logout"):
            for ask in (browser.ask, browser.open):
                browser.cookies.clear()
                answer = await ask(target, Cookie=line)
                assert answer.status in (200, 302, 303, 400, 401)

    in_time(main)


LOGOUTS: list[tuple[str, dict[str, str], bool]] = [
    ("POST", {"Sec-Fetch-Site": "same-origin"}, True),
    ("POST", {"Sec-Fetch-Site": "same-site"}, False),
    ("POST", {"Sec-Fetch-Site": "cross-site"}, False),
    ("POST", {"Origin": "https://shop.example"}, True),
    ("POST", {"Origin": "https://shop.example:443"}, True),
    ("POST", {"Origin": "http://shop.example"}, False),
    ("POST", {"Origin": "https://evil.example"}, False),
    ("POST", {"Origin": "null"}, False),
    ("POST", {}, True),
    ("GET", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"}, True),
    ("GET", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, True),
    ("GET", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Purpose": "prefetch"}, False),
    ("GET", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"}, False),
    ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, False),
    ("GET", {}, False),
    ("HEAD", {}, False),
]


@pytest.mark.parametrize(("method", "headers", "ends"), LOGOUTS)
def test_who_can_end_a_session(method: str, headers: dict[str, str], ends: bool) -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        await browser.log_in(provider)
        answer = await browser.ask("/oidc/logout", method, **headers)
        assert answer.status == (303 if ends else 200)
        assert answer.seen is None
        assert (session_of(browser) == {}) is ends
        assert answer.headers.get(b"cache-control") == b"no-store"
        if not ends:
            assert browser.set == []
            assert b"frame-ancestors 'none'" in (answer.headers.get(b"content-security-policy") or b"")

    in_time(main)


def test_a_logout_is_one_at_the_provider_as_well() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world, after_logout="/bye"))
        await browser.log_in(provider)
        copied = dict(browser.cookies)
        (fresh,) = provider.fresh
        answer = await browser.ask("/oidc/logout", "POST")
        assert answer.location.startswith(f"{ISSUER}/logout?id_token_hint=ey")
        assert answer.location.endswith("&client_id=shop&post_logout_redirect_uri=https%3A%2F%2Fshop.example%2Fbye")
        assert await has_ended(browser)
        await asyncio.sleep(1)
        assert provider.revoked == [fresh]
        browser.cookies = copied
        await asyncio.sleep(300)
        assert await has_ended(browser)
        answer = await browser.ask("/oidc/logout", "POST")
        assert answer.status == 303
        nobody = await Browser(*browser.policies).ask("/oidc/logout", "POST")
        assert (nobody.status, nobody.location) == (303, f"{SHOP}/bye")
        assert (await browser.ask("/oidc/logout", "DELETE")).status == 405
        assert (await browser.ask("/oidc/callback", "POST")).status == 405

    in_time(main)


def test_a_logout_ends_what_has_come_of_the_session_meanwhile() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        await browser.log_in(provider)
        before = dict(browser.cookies)
        await asyncio.sleep(299)
        assert not await has_ended(browser)
        renewed = dict(browser.cookies)
        (fresh,) = provider.fresh
        browser.cookies = before  # what it had when it asked for the logout
        await browser.ask("/oidc/logout", "POST")
        await asyncio.sleep(1)
        assert fresh in provider.revoked
        browser.cookies = renewed
        await asyncio.sleep(300)
        assert await has_ended(browser)

    in_time(main)


def test_a_logout_while_tokens_are_renewed() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        await browser.log_in(provider)
        other = Browser(*browser.policies)
        other.cookies = dict(browser.cookies)
        await asyncio.sleep(299)
        world.slow = 1.0
        asking = asyncio.get_running_loop().create_task(other.ask("/"))
        await asyncio.sleep(0.5)
        await browser.ask("/oidc/logout", "POST")
        assert (await asking).status == 401
        assert other.set == []
        await asyncio.sleep(5)
        assert provider.fresh == {}
        assert await has_ended(other)

    in_time(main)


@pytest.mark.parametrize("refresh", [True, False])
def test_no_answer_that_is_late_brings_a_session_back(*, refresh: bool) -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        provider.gives_refresh, provider.lifetime = refresh, 3600
        browser = Browser(policy(world))
        await browser.log_in(provider)
        late = Browser(*browser.policies)
        late.cookies = dict(browser.cookies)
        await asyncio.sleep(400)  # its cookie is to be made anew

        async def logs_out_meanwhile(_: Request) -> Response:
            assert (await browser.ask("/oidc/logout", "POST")).status == 303
            return Response(204)

        late.service = logs_out_meanwhile
        assert (await late.ask("/")).status == 204
        assert late.set == []
        assert await has_ended(late)

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


def test_settings_are_shared_and_secrets_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def main(world: World) -> None:
        provider = Provider(world)
        one, two = policy(world), policy(world)
        browser = Browser(one)
        await browser.log_in(provider)
        browser.policies = (two,)
        assert not await has_ended(browser)
        assert len([key for key in world.shared if key[0] == "oidc"]) == 1
        shown = (
            repr((one.config, vars(one), vars(one._party), world.shared, vars(one._party._sessions)))
            + one.config.model_dump_json()
            + str(one.config)
        )
        for secret in (COOKIE_SECRET, CLIENT_SECRET, *browser.cookies.values()):
            assert secret not in shown
            assert secret not in caplog.text
        for text in ("refresh-", "access-ada"):
            assert text not in caplog.text
        assert pickle.loads(pickle.dumps(one.config)) == one.config

    in_time(main)


def test_what_a_browser_has_is_in_no_repr() -> None:
    fields = Headers([(b"Cookie", b"a=0the-session; a-login-12345678=the-login; b=other")])
    shown = Cookies("a", secure=False).of(fields)
    assert shown is not None
    assert (shown.session, shown.others) == (b"the-session", b"b=other")
    assert repr(Present(shown, None)) == "Present(shown=<Shown [b'a']>, session=None)"
    login = Login("the-state", "the-nonce", "the-verifier", "/back?code=x", 0.0)
    assert repr(login) == "<Login>"


def test_a_session_outlives_a_reload_and_new_keys() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        await browser.log_in(provider)
        after = world.reloaded()
        browser.policies = (policy(after),)
        world.close()
        provider.kind = "P-521"
        world.hosts[f"{ISSUER}/keys"] = {"keys": []}
        assert not await has_ended(browser)
        provider.up()
        await asyncio.sleep(299)
        assert not await has_ended(browser)
        assert len(provider.forms) == 2
        after.close()

    in_time(main)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"discovery_url": None}, "discovery_url"),
    ({"client_id": ""}, "client_id"),
    ({"client_auth": "none"}, "leave one of them out"),
    ({"client_auth": "post", "client_secret": None}, "give it as client_secret"),
    ({"external_url": "shop.example"}, "is not a URL"),
    ({"external_url": "https://shop.example/app"}, "only scheme, host and port"),
    ({"cookie": "short"}, "at least 32 characters"),
    ({"cookie": {"secret": []}}, "give one"),
    ({"cookie": {"secret": [COOKIE_SECRET] * 9}}, "while they change"),
    ({"cookie": {"secret": COOKIE_SECRET, "name": "a b"}}, "name"),
    ({"callback": "oidc"}, "callback"),
    ({"callback": "//evil"}, "callback"),
    ({"callback": "/a/../b"}, "callback"),
    ({"callback": "/oidc/logout"}, "three paths"),
    ({"callback": "/"}, "three paths"),
    ({"scopes": ["openid", "email"]}, "write what is asked for as scope"),
    ({"extra": {"state": "x"}}, "for the gateway to say"),
    ({"session": {"idle": "2d"}}, "idle is longer than max"),
    ({"session": {"idle": 0}}, "idle"),
    ({"relay": "refresh_token"}, "relay"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG)
def test_what_is_wrong(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Oidc.model_validate({name: value for name, value in {**SETTINGS, **changed}.items() if value is not None})
    assert message in str(caught.value)
    assert COOKIE_SECRET not in str(caught.value)


USE = (
    f"{{oidc: {{discovery_url: {ISSUER}/.well-known/openid-configuration, client_id: shop, "
    f"external_url: http://localhost:8000, cookie: {COOKIE_SECRET}}}}}"
)
AWAY = ["/oidc/callback is for oidc of route app, and leads to no route", "/oidc/logout is for oidc of route app"]


@pytest.mark.parametrize(
    ("paths", "whole", "route", "led"),
    [
        ("/**", "", USE, []),
        ("[/app/**, /oidc/*]", "", USE, []),
        ("/app/**", USE, "", []),
        ("/app/**", "", USE, AWAY),
        ("[/app/**, /oidc/callback]", "", USE, AWAY[1:]),
    ],
)
def test_a_way_back_that_leads_elsewhere(tmp_path: Path, paths: str, whole: str, route: str, led: list[str]) -> None:
    file = tmp_path / "portico.yaml"
    app = f"{{name: app, path: {paths}, respond: app, policies: [{route}]}}"
    other = "{path: /else/**, respond: open, policies: [%s]}" % ("oidc: off" if whole else "")
    file.write_text(f"listen: :0\npolicies: [{whole}]\nroutes: [{app}, {other}]\n")
    done = portico_here("check", str(file))
    assert done.code == 0
    warnings = [line for line in (done.out + done.err).splitlines() if "is for oidc of route" in line]
    assert len(warnings) == len(led)
    for line, part in zip(warnings, led, strict=True):
        assert part in line


def test_a_way_back_for_which_a_condition_does_not_hold() -> None:
    for condition, names in (
        ("path.startsWith('/app')", ["/oidc/callback", "/oidc/logout"]),
        ("path.startsWith('/app') || path == '/oidc/callback'", ["/oidc/logout"]),
        ("headers['sec-fetch-mode'] == 'navigate'", []),
        ("!('authorization' in headers)", []),
    ):
        use = USE.replace("{oidc:", f'{{when: "{condition}", oidc:')
        with Gateway(text=f"routes: [{{path: /**, name: app, respond: app, policies: [{use}]}}]") as gateway:
            said = [finding.message for finding in gateway.findings if "does not hold" in finding.message]
            where = [f"http://localhost:8000{name} is for oidc of route app" for name in names]
            assert said == [f"{each}, and its condition does not hold there" for each in where]


def test_a_session_in_the_clear(tmp_path: Path) -> None:
    file = tmp_path / "portico.yaml"
    for host, warned in (("shop.example", True), ("localhost:8000", False)):
        use = USE.replace("localhost:8000", host)
        file.write_text(f"listen: :0\nroutes: [{{path: /**, respond: app, policies: [{use}]}}]\n")
        done = portico_here("check", str(file))
        assert done.code == 0
        assert ("can take the session" in done.out + done.err) is warned


def test_a_policy_of_the_whole_file_answers_where_no_route_is() -> None:
    text = f"""
policies: [{USE.replace(ISSUER, "http://127.0.0.1:1")}]
routes: [{{path: /app/**, respond: app}}, {{path: /oidc/logout, methods: PUT, respond: app}}]
"""
    with Gateway(text=text) as gateway:
        assert not [finding for finding in gateway.findings if "is for oidc" in finding.message]
        back = gateway.get("/oidc/callback?code=x&state=" + "A" * 32)
        assert (back.status, back.json()["type"]) == (400, "urn:portico:problem:login-not-known")
        assert gateway.post("/oidc/logout").headers["location"] == "http://localhost:8000/"
        for target in ("/app", "/nothing"):
            assert gateway.get(target, headers={"Accept": "text/html"}).status == 503
            assert gateway.get(target).status == 401
        assert gateway.get("/livez").status == 200
