from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.oidc.cookies import Cookies, TooLarge
from portico.oidc.seal import Seal
from portico.plugin import Headers
from tests.harness.oidc import (
    COOKIE_SECRET,
    Browser,
    Provider,
    has_ended,
    policy,
    session_of,
)
from tests.harness.tokens import World, in_time


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
