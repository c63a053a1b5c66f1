"""What is under way while a session ends, logins that come to nothing, and what no log is told of either."""

from __future__ import annotations

import asyncio

import pytest

from portico.oidc.cookies import MOST_LOGINS, Cookies
from portico.oidc.login import Login
from portico.oidc.session import Present
from portico.plugin import ADMITTED, Authenticator, AuthenticatorConfig, Found, Headers, Request, Response, unknown_user
from tests.harness.oidc import Browser, Provider, anonymous, has_ended, policy
from tests.harness.tokens import World, in_time


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


def test_what_a_browser_has_is_in_no_repr() -> None:
    fields = Headers([(b"Cookie", b"a=0the-session; a-login-12345678=the-login; b=other")])
    shown = Cookies("a", secure=False).of(fields)
    assert shown is not None
    assert (shown.session, shown.others) == (b"the-session", b"b=other")
    assert repr(Present(shown, None)) == "Present(shown=<Shown [b'a']>, session=None)"
    login = Login("the-state", "the-nonce", "the-verifier", "/back?code=x", 0.0)
    assert repr(login) == "<Login>"
