from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from joserfc.jwk import ECKey, Key

from portico.jose.mint import sign
from portico.jose.provider import MAX_ANSWER
from portico.plugin import Headers, Response
from portico.policies.jwt import JwtPolicy
from tests.harness.tokens import CLAIMS, NOW, World, bearer, in_time, key, public, token

URL = "https://issuer.example/keys"
ISSUER = "https://issuer.example"
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"
A, B = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")


def jwks(*keys: Any) -> dict[str, Any]:
    return {"keys": [public(each) if isinstance(each, ECKey) else each for each in keys]}


async def status(policy: JwtPolicy, key: Key, **header: Any) -> int:
    return (await bearer(policy, sign({**CLAIMS, "exp": NOW + 10**6}, key, **header))).status


def test_keys_are_fetched_before_anyone_asks_and_before_they_are_old() -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = jwks(A, {"kty": "?"})
        policies = [world.policy(jwks_url=URL), world.policy(jwks_url=URL, audience="a"), world.policy(jwks_url=URL)]
        await asyncio.sleep(1)
        assert world.asked == [URL]
        assert await status(policies[0], A) == 204
        assert await status(policies[2], A) == 204
        await asyncio.sleep(600)
        assert len(world.asked) == 2
        await asyncio.sleep(3600)
        assert 8 <= len(world.asked) <= 10
        assert len(world.tasks) == 1

    in_time(main)


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Cache-Control": "public, max-age=3600"}, 2700, 3240),
        ({"Cache-Control": 'max-age="3600"', "Age": "1600"}, 1500, 1800),
        ({"Cache-Control": "max-age=1"}, 45, 54),
        ({"Cache-Control": "max-age=0, must-revalidate"}, 45, 54),
        ({"Cache-Control": "no-store"}, 45, 54),
        ({"Cache-Control": "max-age=99999999999999"}, 64800, 77760),
        ({"Cache-Control": "s-maxage=7"}, 450, 540),
        ({"Cache-Control": "max-age=x", "Age": "\xb2"}, 450, 540),
        ({}, 450, 540),
    ],
)
def test_how_long_keys_are_fresh(headers: dict[str, str], least: int, most: int) -> None:
    import json

    async def main(world: World) -> None:
        fields = Headers((name.encode(), value.encode("latin-1")) for name, value in headers.items())
        world.hosts[URL] = lambda _: Response(200, fields, json.dumps(jwks(A)).encode())
        world.policy(jwks_url=URL)
        await asyncio.sleep(least - 1)
        assert len(world.asked) == 1
        await asyncio.sleep(most - least + 2)
        assert len(world.asked) == 2

    in_time(main)


def test_a_key_is_replaced_while_serving() -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = jwks(A)
        policy = world.policy(jwks_url=URL)
        assert await status(policy, A) == 204
        assert await status(policy, B) == 401  # just fetched
        await asyncio.sleep(10)
        world.hosts[URL] = jwks(A, B)
        assert [await status(policy, each) for each in (B, A, B)] == [204, 204, 204]
        assert len(world.asked) == 2
        await asyncio.sleep(10)
        world.hosts[URL] = jwks(B)
        assert await status(policy, A) == 204  # nobody knows yet
        assert await status(policy, ECKey.generate_key("P-256")) == 401
        assert await status(policy, A) == 401  # what was remembered of it is gone with it
        assert await status(policy, B) == 204

    in_time(main)


def test_unknown_keys_have_a_provider_asked_once_in_a_while() -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = jwks(A)
        policy = world.policy(jwks_url=URL)
        await asyncio.sleep(20)
        world.slow = 0.5
        answers = await asyncio.gather(*(status(policy, B, kid=f"{number}") for number in range(50)))
        assert set(answers) == {401}
        assert len(world.asked) == 2
        for _ in range(20):
            await asyncio.sleep(1)
            assert await status(policy, B) == 401
        assert len(world.asked) == 4

    in_time(main)


def test_a_request_waits_for_the_first_keys() -> None:
    async def main(world: World) -> None:
        world.slow = 1.0
        world.hosts[URL] = jwks(A)
        policy = world.policy(jwks_url=URL)
        before = world.clock()
        assert await asyncio.gather(*(status(policy, each) for each in (A, A, B))) == [204, 204, 401]
        assert world.clock() - before == pytest.approx(1.0, abs=0.01)
        assert len(world.asked) == 1

    in_time(main)


def test_a_request_does_not_wait_for_long(caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        world.slow = 60.0
        world.hosts[URL] = jwks(A)
        policy = world.policy(jwks_url=URL)
        before = world.clock()
        found = await bearer(policy, sign(CLAIMS, A))
        assert (found.status, found.type) == (503, "authentication-unavailable")
        assert found.title == "Authentication not available"
        assert found.challenges == []
        assert world.clock() - before == pytest.approx(2.0, abs=0.01)
        assert (await bearer(policy, "x")).status == 401  # for which nobody has to be asked
        await asyncio.sleep(30)
        world.slow = 0.0
        await asyncio.sleep(30)
        assert await status(policy, A) == 204

    in_time(main)
    assert "does not answer; none are known" in caplog.text


@pytest.mark.parametrize(
    "claims",
    [{"iss": "https://another.example"}, {"aud": "another"}, {"exp": NOW - 3600}, {"exp": None}, {"nbf": NOW + 3600}],
)
def test_nobody_waits_for_keys_that_can_do_no_good(claims: dict[str, Any]) -> None:
    async def main(world: World) -> None:
        world.slow = 60.0
        policy = world.policy(jwks_url=URL, issuer=ISSUER, audience="a")
        good = {**CLAIMS, "iss": ISSUER, "aud": "a", "exp": NOW + 10**6}
        began = world.clock()
        verdict = await bearer(policy, sign({**good, **claims}, A))
        assert (verdict.status, verdict.type) == (401, "invalid-token")
        assert world.clock() == began
        assert (await bearer(policy, sign(good, A))).status == 503
        assert world.clock() > began

    in_time(main)


def test_a_provider_that_is_down_and_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "portico.jose")

    async def main(world: World) -> None:
        policy = world.policy(jwks_url=f"{URL}?key=hunter2")
        assert await status(policy, A) == 503
        await asyncio.sleep(600)
        assert await status(policy, A) == 503
        world.hosts[f"{URL}?key=hunter2"] = jwks(A)
        await asyncio.sleep(60)
        assert await status(policy, A) == 204
        world.hosts.clear()
        await asyncio.sleep(7200)
        assert await status(policy, A) == 204
        world.hosts[f"{URL}?key=hunter2"] = jwks(B)
        await asyncio.sleep(61)
        assert await status(policy, A) == 401

    in_time(main)
    said = [record.getMessage() for record in caplog.records if record.name == "portico.jose"]
    assert said == [
        f"the keys of {URL} could not be fetched: {URL} answers 502; none are known",
        f"the keys of {URL} could be fetched again",
        f"the keys of {URL} could not be fetched: {URL} answers 502; those known go on serving",
        f"the keys of {URL} could be fetched again",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        b" " * (MAX_ANSWER + 1),
        b'{"keys": ' + b"[" * 9999,
    ],
)
def test_what_is_no_jwks_changes_nothing(answer: bytes) -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = jwks(A)
        policy = world.policy(jwks_url=URL)
        assert await status(policy, A) == 204
        world.hosts[URL] = lambda _: Response(200, None, answer)
        await asyncio.sleep(560)
        assert len(world.asked) > 1
        assert await status(policy, A) == 204

    in_time(main)


def test_a_set_without_keys_takes_no_token(caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = jwks(public(key("secret")))
        assert (await bearer(world.policy(jwks_url=URL), token())).status == 401

    in_time(main)
    assert "no token is taken: key 1: it is a secret, and published" in caplog.text


def test_a_reload_keeps_the_keys_and_goes_on_with_them() -> None:
    async def main(world: World) -> None:
        world.hosts[URL] = jwks(A)
        old = world.policy(jwks_url=URL)
        assert await status(old, A) == 204
        newer = world.reloaded()
        new = newer.policy(jwks_url=URL, audience="other")
        same = newer.policy(jwks_url=URL)
        await asyncio.sleep(0)
        world.close()
        world.hosts.clear()
        assert await status(same, A) == 204
        assert await status(new, A) == 401
        world.hosts[URL] = jwks(B)
        await asyncio.sleep(600)
        assert await status(same, B) == 204
        given_up = newer.reloaded()  # a reload that comes to nothing
        given_up.policy(jwks_url=URL)
        given_up.close()
        world.hosts[URL] = jwks(A)
        await asyncio.sleep(600)
        assert await status(same, B) == 401
        newer.close()

    in_time(main)


def test_who_fetches_may_be_ended_meanwhile() -> None:
    async def main(world: World) -> None:
        world.slow = 1.0
        world.hosts[URL] = jwks(A)
        world.policy(jwks_url=URL)
        newer = world.reloaded()
        policy = newer.policy(jwks_url=URL)
        await asyncio.sleep(0.5)
        world.close()
        assert await status(policy, A) == 204
        assert len(world.asked) == 2
        newer.close()

    in_time(main)


# Discovery


def described(**said: Any) -> dict[str, Any]:
    return {"issuer": ISSUER, "jwks_uri": "https://keys.example/jwks?p=1", **said}


def test_a_provider_says_where_its_keys_are() -> None:
    async def main(world: World) -> None:
        world.hosts = {DISCOVERY: described(), "https://keys.example/jwks?p=1": jwks(A)}
        policy = world.policy(discovery_url=DISCOVERY)
        good = sign({**CLAIMS, "iss": ISSUER}, A)
        assert (await bearer(policy, good)).status == 204
        assert (await bearer(policy, sign({**CLAIMS, "iss": "https://other.example"}, A))).status == 401
        assert (await bearer(policy, sign(CLAIMS, A))).status == 401

    in_time(main)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"issuer": "https://evil.example"}, "another issuer"),
        ({"issuer": [ISSUER]}, "another issuer"),
        ({"issuer": None}, "another issuer"),
        ({"jwks_uri": None}, "does not say where"),
        ({"jwks_uri": "http://keys.example/jwks?p=1"}, "jwks_uri is not a URL of https"),
        ({"jwks_uri": "https://"}, "jwks_uri is no URL"),
        ({"jwks_uri": "https://a b/"}, "jwks_uri is no URL"),
    ],
)
def test_a_description_that_is_not_believed(said: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        world.hosts = {DISCOVERY: described(**said), "https://keys.example/jwks?p=1": jwks(A)}
        policy = world.policy(discovery_url=DISCOVERY)
        assert (await bearer(policy, sign({**CLAIMS, "iss": ISSUER}, A))).status == 503

    in_time(main)
    assert why in caplog.text
