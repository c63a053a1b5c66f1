from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from portico.jose.mint import encode
from portico.plugin import Response
from tests.harness.oidc import (
    CLIENT_SECRET,
    ISSUER,
    Browser,
    Provider,
    forged,
    given_as,
    of_an_unknown_key,
    policy,
)
from tests.harness.tokens import World, in_time


def unsigned(provider: Provider) -> None:
    def made(name: str, nonce: str | None, access: str, **header: Any) -> str:
        claims = {"iss": ISSUER, "sub": name, "aud": "shop", "exp": 1_900_000_000, "iat": 1_800_000_000, "nonce": nonce}
        header = {"alg": "none"}
        return f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}."

    provider.id_token = made  # type: ignore[method-assign]


def of_a_secret(provider: Provider) -> None:
    provider.kind = "secret"


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
