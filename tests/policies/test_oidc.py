from __future__ import annotations

import asyncio
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from portico.plugin import Body, Headers, Request, Response
from portico.policies.authorize import Authorize, AuthorizePolicy
from portico.policies.oidc import Oidc
from portico.policy.authentication import Authentication, Part
from portico.testing import Gateway
from tests.harness.gateway import portico_here
from tests.harness.oidc import (
    CLIENT_SECRET,
    COOKIE_SECRET,
    ISSUER,
    SETTINGS,
    SHOP,
    Browser,
    Provider,
    anonymous,
    has_ended,
    policy,
    session_of,
)
from tests.harness.policy import Pieces
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


def test_a_service_is_shown_a_token_only_of_a_session() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world, relay="access_token"), world.policy(secret=SECRET))
        await browser.log_in(provider)
        page = await browser.ask("/", Authorization="Bearer of-the-client")
        assert page.seen is not None
        assert page.seen.headers.get_all(b"authorization") == [b"Bearer access-ada-1"]
        browser.body = Body.stream(Pieces([], [(b"AUTHORIZATION", b"Bearer x"), (b"X-Sum", b"1")]), None)
        page = await browser.ask("/", "POST")
        assert page.seen is not None
        assert page.seen.body.trailers() == [(b"X-Sum", b"1")]
        browser.cookies.clear()
        shown = f"Bearer {token()}"
        page = await browser.ask("/", Authorization=shown)
        assert page.seen is not None
        assert page.seen.headers.get_all(b"authorization") == [shown.encode()]

    in_time(main)


def test_a_session_of_a_route_that_relays_nothing_has_no_token_to_show() -> None:
    async def main(world: World) -> None:
        provider = Provider(world)
        browser = Browser(policy(world))
        await browser.log_in(provider)
        browser.policies = (policy(world, relay="access_token"),)
        page = await browser.ask("/", Authorization="Bearer of-the-client")
        assert page.seen is not None
        assert page.seen.headers.get(b"authorization") is None

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
