from __future__ import annotations

import asyncio

import pytest

from portico.plugin import Headers, Response
from tests.harness.oidc import (
    COOKIE_SECRET,
    ISSUER,
    Browser,
    Provider,
    forged,
    has_ended,
    of_an_unknown_key,
    policy,
    session_of,
)
from tests.harness.tokens import World, in_time


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
