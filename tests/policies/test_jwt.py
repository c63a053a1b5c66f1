from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from portico.jose.mint import new_key, sign
from portico.jose.verifier import TokenVerifier
from portico.plugin import ConfigError, User
from portico.policies.jwt import Jwt, JwtPolicy
from tests.harness.gateway import Gateway, curl, portico_here, problem_of
from tests.harness.tokens import CLAIMS, NOW, SECRET, World, bearer, in_time, key, public, raw, show, token

INVALID = ("invalid-token", "Invalid token")
EXPIRED = ("token-expired", "Token expired")
MISSING = ("authentication-required", "Missing authentication")


def verdict(text: str, **configured: Any) -> tuple[int, str]:
    async def main(world: World) -> tuple[int, str]:
        found = await bearer(world.policy(**({"secret": SECRET} | configured)), text)
        return found.status, found.type

    return in_time(main)


GOOD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"exp": NOW - 59}, {}),
    ({"exp": NOW + 0.5}, {"leeway": 0}),
    ({"nbf": NOW + 60}, {}),
    ({"iat": NOW + 60}, {}),
    ({"iat": NOW - 100}, {"max_age": 50}),
    ({"iss": "a"}, {"issuer": "a"}),
    ({"iss": "b"}, {"issuer": ["a", "b"]}),
    ({"aud": "a"}, {"audience": "a"}),
    ({"aud": ["x", "b"]}, {"audience": ["a", "b"]}),
    ({"aud": []}, {}),
    ({"jti": "7"}, {"claims_required": ["exp", "jti"]}),
    ({"aud": "a"}, {"claims_required": []}),
]


@pytest.mark.parametrize(("claims", "configured"), GOOD)
def test_what_is_taken(claims: dict[str, Any], configured: dict[str, Any]) -> None:
    assert verdict(token({**CLAIMS, **claims}), **configured) == (204, "")


BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"exp": NOW - 60}, {}, "token-expired"),
    ({"exp": NOW}, {"leeway": 0}, "token-expired"),
    ({"exp": 0}, {}, "token-expired"),
    ({"exp": None}, {}, "invalid-token"),
    ({"exp": str(NOW + 600)}, {}, "invalid-token"),
    ({"exp": True}, {}, "invalid-token"),
    ({"exp": [NOW + 600]}, {}, "invalid-token"),
    ({"exp": -1}, {}, "invalid-token"),
    ({"exp": 1e300}, {}, "invalid-token"),
    ({"exp": 2**62}, {}, "invalid-token"),
    ({"nbf": NOW + 61}, {}, "invalid-token"),
    ({"nbf": "0"}, {}, "invalid-token"),
    ({"iat": NOW + 61}, {}, "invalid-token"),
    ({"iat": False}, {}, "invalid-token"),
    ({"iat": NOW - 120}, {"max_age": 60}, "token-expired"),
    ({}, {"max_age": 60}, "invalid-token"),
    ({"iss": "b"}, {"issuer": "a"}, "invalid-token"),
    ({"iss": ["a"]}, {"issuer": "a"}, "invalid-token"),
    ({}, {"issuer": "a"}, "invalid-token"),
    ({"aud": "b"}, {"audience": "a"}, "invalid-token"),
    ({"aud": "ab"}, {"audience": "a"}, "invalid-token"),
    ({"aud": ["a", 7]}, {"audience": "a"}, "invalid-token"),
    ({"aud": {"a": 1}}, {"audience": "a"}, "invalid-token"),
    ({"aud": 7}, {}, "invalid-token"),
    ({}, {"audience": "a"}, "invalid-token"),
    ({}, {"claims_required": ["jti"]}, "invalid-token"),
    ({"jti": ""}, {"claims_required": ["jti"]}, "invalid-token"),
    ({"sub": 7}, {}, "invalid-token"),
    ({"sub": None}, {}, "invalid-token"),
    ({"sub": ""}, {}, "invalid-token"),
    ({"sub": " "}, {}, "invalid-token"),
    ({"sub": "ada\r\nX-Role: admin"}, {}, "invalid-token"),
    ({}, {"user": "email"}, "invalid-token"),
]


@pytest.mark.parametrize(("claims", "configured", "type_"), BAD)
def test_what_is_not_taken(claims: dict[str, Any], configured: dict[str, Any], type_: str) -> None:
    assert verdict(token({**CLAIMS, **claims}), **configured) == (401, type_)


HEADER = '{"alg": "HS256"}'
HOSTILE = [
    raw(HEADER, '{"sub": "ada", "exp": 1800000600, "sub": "root"}'),
    raw(HEADER, '{"sub": "ada", "exp": 1800000600, "x": {"a": 1, "a": 2}}'),
    raw(HEADER, '{"sub": "ada"}'),
    raw(HEADER, '{"sub": "ada", "exp": NaN}'),
    raw(HEADER, '{"sub": "ada", "exp": Infinity}'),
    raw(HEADER, '{"sub": "ada", "exp": 1e999}'),
    raw(HEADER, '{"sub": "ada", "exp": ' + "9" * 4999 + "}"),
    raw(HEADER, '{"sub": "\\ud800", "exp": 1800000600}'),
    raw(HEADER, b'{"sub": "\xff", "exp": 1800000600}'),
    raw(HEADER, '{"sub": "ada", "exp": 1800000600}'.encode("utf-16")),
    raw(HEADER, '["ada"]'),
    raw(HEADER, "ada"),
    raw(HEADER, "[" * 3000),
    raw('{"alg": "none"}', json.dumps(CLAIMS)),
    raw('{"alg": "HS384"}', json.dumps(CLAIMS)),
    raw('{"alg": "HS256", "crit": ["exp"], "exp": 1}', json.dumps(CLAIMS)),
    raw('{"alg": "HS256", "b64": false, "crit": ["b64"]}', json.dumps(CLAIMS)),
    token({**CLAIMS, "x": "y" * 8000}),
    token() + "A",
    token() + "=",
    token()[:-1],
    " . . ",
    "",
    "eyJ",
    token().replace(".", ".."),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_tokens(text: str) -> None:
    assert verdict(text) == (401, "invalid-token")


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0", exclude_categories=["Cc"]), max_size=60))
def test_whatever_is_shown_is_answered(text: str) -> None:
    async def main(world: World) -> None:
        policy = world.policy(secret=SECRET, cookie="t", query="t")
        for found in (
            await show(policy, ("Authorization", text)),
            await bearer(policy, text),
            await show(policy, ("Cookie", f"t={text}")),
            await show(policy, query=f"t={text}"),
        ):
            assert found.status == 401

    in_time(main)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "roles", "scope", "scp", "groups", "a"]),
        st.recursive(
            st.none() | st.booleans() | st.integers(0, 2**64) | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=4,
        ),
    )
)
def test_whatever_a_token_says_is_answered(claims: dict[str, Any]) -> None:
    text = raw(HEADER, json.dumps({"sub": "ada", "exp": NOW + 9, **claims}).encode("utf-8", "surrogatepass"))
    status, type_ = verdict(text, audience="a", roles="a.b")
    assert status == 204 or (status == 401 and type_ in {"invalid-token", "token-expired"})


def test_the_three_answers() -> None:
    async def main(world: World) -> None:
        policy = world.policy(secret=SECRET, realm="shop")
        found = await show(policy)
        assert (found.type, found.title) == MISSING
        assert found.challenges == ['Bearer realm="shop"']
        found = await bearer(policy, "x")
        assert (found.type, found.title) == INVALID
        challenge = 'Bearer realm="shop", error="invalid_token", error_description='
        assert found.challenges == [f'{challenge}"The token is not valid here"']
        found = await bearer(policy, token({"sub": "ada", "exp": NOW - 100}))
        assert (found.type, found.title) == EXPIRED
        assert found.challenges == [f'{challenge}"The token has expired"']
        forged = token({"sub": "ada", "exp": NOW - 100})[:-4] + "AAAA"
        assert (await bearer(policy, forged)).type == "invalid-token"  # nothing is said of what nobody has signed

    in_time(main)


def test_where_a_token_is_looked_for() -> None:
    async def main(world: World) -> None:
        plain, both = world.policy(secret=SECRET), world.policy(secret=SECRET, cookie="access_token", query="token")
        good = token()
        for scheme in ("Bearer", "bearer", "BEARER", "Bearer "):
            assert (await show(plain, ("Authorization", f"{scheme} {good}"))).status == 204
        for text in ("Basic YTpi", good, "", "Bearer2 x"):
            assert (await show(plain, ("Authorization", text))).type == "authentication-required"
        assert (await show(plain, ("Authorization", "Bearer"))).type == "invalid-token"
        assert (await show(plain, ("Cookie", f"access_token={good}"), query=f"token={good}")).status == 401
        assert (await show(both, ("Cookie", f"a=b; access_token={good}; c=d"))).status == 204
        assert (await show(both, ("Cookie", "a=b"), ("Cookie", f'access_token="{good}"'))).status == 204
        assert (await show(both, ("Cookie", f"xaccess_token={good}"))).status == 401
        assert (await show(both, query=f"a=b&token={good}")).status == 204
        assert (await show(both, query=f"tokens={good}")).status == 401
        assert (await show(both, ("Authorization", "Bearer x"), query=f"token={good}")).status == 401
        assert (await show(both, ("Authorization", "Basic YTpi"), query=f"token={good}")).status == 204
        for first, second in ((good, good), (good, "x"), ("x", good)):
            twice = [("Authorization", f"Bearer {each}") for each in (first, second)]
            assert (await show(both, *twice)).type == "invalid-token"

    in_time(main)


def user(claims: dict[str, Any], **configured: Any) -> User:
    async def main(world: World) -> User:
        found = await bearer(world.policy(secret=SECRET, **configured), token({**CLAIMS, **claims}))
        assert found.user is not None
        return found.user

    return in_time(main)


def test_what_claims_say_of_a_user() -> None:
    said = {
        "scope": "read write",
        "roles": ["admin", 7, ""],
        "permissions": ["orders:read"],
        "groups": "staff",
        "x": {"y": [1]},
    }
    found = user(said)
    assert (found.name, found.kind) == ("ada", "jwt")
    assert (found.roles, found.scopes) == ({"admin"}, {"read", "write"})
    assert (found.permissions, found.groups) == ({"orders:read"}, {"staff"})
    assert dict(found.claims) == {**CLAIMS, **said}
    assert user({"scp": ["a", "b"]}).scopes == {"a", "b"}
    assert user({"realm_access": {"roles": ["r"]}}, roles="realm_access.roles").roles == {"r"}
    assert user({"https://x.example/roles": ["r"]}, roles=["none", "https://x.example/roles"]).roles == {"r"}
    assert user({"roles": {"a": 1}, "realm_access": 7}, groups="realm_access.roles").roles == frozenset()
    assert user({"email": "ada@x.example"}, user="email").name == "ada@x.example"
    assert user({"id": 7}, user="id").name == "7"


# Tokens that are remembered


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    seen: list[bytes] = []
    verify = TokenVerifier.verify

    def verify_and_count(self: TokenVerifier, token: bytes, shown: bytes) -> Any:
        seen.append(token)
        return verify(self, token, shown)

    monkeypatch.setattr(TokenVerifier, "verify", verify_and_count)
    return seen


def test_a_token_is_verified_once_while_it_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = counted(monkeypatch)

    async def main(world: World) -> None:
        policy = world.policy(secret=SECRET)
        good = token({"sub": "ada", "exp": NOW + 100, "nbf": NOW - 10})
        for _ in range(3):
            assert (await bearer(policy, good)).status == 204
        assert len(seen) == 1
        world.jump = 159
        assert (await bearer(policy, good)).status == 204
        world.jump = 160
        assert (await bearer(policy, good)).type == "token-expired"
        world.jump = -71  # the clock was set back
        assert (await bearer(policy, good)).type == "invalid-token"
        world.jump = 0
        assert (await bearer(policy, good)).status == 204
        assert good.encode() not in b"".join(map(repr_of, world.shared.values()))

    in_time(main)


def repr_of(verifier: TokenVerifier) -> bytes:
    return repr([verifier._young, verifier._old]).encode()


def test_memory_is_bounded_and_keeps_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.jose.verifier.REMEMBERED", 8)
    seen = counted(monkeypatch)

    async def main(world: World) -> None:
        policy = world.policy(secret=SECRET)
        (verifier,) = world.shared.values()
        verifier._half = 4
        often = token({**CLAIMS, "jti": "often"})
        for number in range(50):
            assert (await bearer(policy, token({**CLAIMS, "jti": str(number)}))).status == 204
            assert (await bearer(policy, often)).status == 204
            assert len(verifier._young) + len(verifier._old) <= 8
        assert seen.count(often.encode()) == 1
        verifier.close()

    in_time(main)


def test_routes_and_reloads_share_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = counted(monkeypatch)

    async def main(world: World) -> None:
        for configured in ({}, {"required": True}):
            assert (await bearer(world.policy(secret=SECRET, **configured), token())).status == 204
        assert len(seen) == 1
        assert (await bearer(world.policy(secret=SECRET, audience="a"), token())).status == 401
        assert (await bearer(world.policy(secret=SECRET[::-1]), token())).status == 401
        assert not [key for key in world.shared if SECRET in repr(key)]

    in_time(main)


# Keys from files, and bad settings


def test_keys_from_files(tmp_path: Path) -> None:
    jwks, pem = tmp_path / "keys.json", tmp_path / "key.pem"
    jwks.write_text(json.dumps({"keys": [public(key("P-256")), {"kty": "?"}]}))
    pem.write_bytes(key("Ed25519").as_pem(private=False))

    async def main(world: World) -> None:
        policy = world.policy(jwks_file=str(jwks))
        assert (await bearer(policy, token(kind="P-256"))).status == 204
        assert (await bearer(policy, token(kind="P-384"))).status == 401
        assert (await bearer(world.policy(public_key_file=str(pem)), token(kind="Ed25519"))).status == 204
        assert (await bearer(world.policy(keys=[public(key("RSA"))]), token(kind="RSA"))).status == 204
        limited = world.policy(keys=[public(key("RSA"))], algorithms="PS256")
        assert (await bearer(limited, token(kind="RSA"))).status == 401
        assert (await bearer(limited, sign(CLAIMS, key("RSA"), "PS256"))).status == 204
        jwks.write_text(json.dumps({"keys": [public(key("P-384"))]}))  # and a reload
        assert (await bearer(world.policy(jwks_file=str(jwks)), token(kind="P-256"))).status == 401

    in_time(main)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "there are no keys; give one of discovery_url, jwks_url, jwks_file, public_key_file, keys, secret"),
    ({"secret": SECRET, "jwks_url": "https://a.example/"}, "the keys are in jwks_url and in secret"),
    ({"secret": SECRET, "algorithms": "none"}, "Input should be 'HS256'"),
    ({"secret": SECRET, "algorithms": ["HS256", "hs256"]}, "Input should be 'HS256'"),
    ({"secret": SECRET, "leeway": "soon"}, "not a duration"),
    ({"secret": SECRET, "realm": 'a"b'}, "match pattern"),
    ({"secret": SECRET, "cookie": "a b"}, "match pattern"),
    ({"secret": SECRET, "ca": __file__}, "nobody is asked for keys"),
    ({"jwks_url": "issuer.example/keys"}, "not a URL of http"),
    ({"jwks_url": "https://a.example/?a#b"}, "is not a URL"),
    ({"jwks_url": "file:///etc/passwd"}, "not a URL of http"),
    ({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}, "give a secret as secret"),
    ({"keys": [{"kty": "EC", "d": "c2VjcmV0"}]}, "give a secret as secret"),
    ({"secret": SECRET, "alg": "HS256"}, "Extra inputs"),
]


@pytest.mark.parametrize(("configured", "message"), WRONG)
def test_bad_settings(configured: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Jwt.model_validate(configured)
    assert any(message in error["msg"] for error in caught.value.errors()), caught.value


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        ({"secret": "hunter2"}, "a secret has at least 32 bytes, and this one has 7"),
        ({"keys": []}, "no key verifies a token: there is none"),
        ({"keys": [{"kty": "RSA"}]}, "no key verifies a token: key 1: it cannot be read"),
        ({"keys": [public(key("P-256"))], "algorithms": "HS256"}, "they are for ES256"),
        ({"jwks_file": __file__}, "this is no JWKS"),
        ({"public_key_file": __file__}, "this is"),
        ({"discovery_url": "https://a.example/"}, "give the issuer as well"),
    ],
)
def test_settings_that_cannot_work(configured: dict[str, Any], message: str) -> None:
    async def main(world: World) -> None:
        with pytest.raises(ConfigError, match=message):
            world.policy(**configured)

    in_time(main)


def test_the_secret_is_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "portico.yaml"
    secret = "correct horse battery staple, and more of it"
    file.write_text(f"policies: [{{jwt: {{secret: '{secret}', audience: 7}}}}]\nroutes: [respond: a]\n")
    done = portico_here("check", str(file))
    file.write_text(f"policies: [{{jwt: {{secret: '{secret}'}}}}]\nroutes: [respond: a]\n")
    explained = portico_here("explain", str(file), "GET", "/")
    as_json = portico_here("explain", "--json", str(file), "GET", "/")
    file.write_text("policies: [{jwt: {secret: horse}}]\nroutes: [respond: a]\n")
    short = portico_here("check", str(file))
    assert explained.code == 0
    assert short.code == 1
    assert "portico.yaml:1:13: jwt: a secret has at least 32 bytes" in short.err + short.out
    for each in (done, explained, as_json, short):
        assert "horse" not in each.out + each.err
    assert secret not in repr(Jwt(secret=secret))  # type: ignore[arg-type]
    assert secret not in repr(JwtPolicy(Jwt(secret=secret)).config.model_dump())  # type: ignore[arg-type]


# A gateway at work


def test_a_gateway(tmp_path: Path) -> None:
    pem, jwks = new_key()
    (tmp_path / "keys.json").write_bytes(jwks)
    (tmp_path / "dev.pem").write_bytes(pem)
    config = """
routes:
  - {path: /open, respond: open}
  - path: /orders
    respond: mine
    policies: [jwt: {jwks_file: keys.json, issuer: dev, cookie: access_token}]
"""

    def minted(*arguments: str) -> str:
        done = portico_here("token", "--key", str(tmp_path / "dev.pem"), *arguments)
        assert done.code == 0
        return done.out.strip()

    with Gateway(tmp_path, config) as gateway:
        url = gateway.url + "/orders"
        good = minted("--issuer", "dev", "--sub", "ada", "--roles", "admin")
        assert curl(gateway.url + "/open").body == b"open"
        for _ in range(2):
            assert curl("-H", f"Authorization: Bearer {good}", url).body == b"mine"
        assert curl("-b", f"access_token={good}", url).status == 200
        assert problem_of(curl(url), 401, "authentication-required")["title"] == "Missing authentication"
        foreign = curl("-H", f"Authorization: Bearer {minted('--issuer', 'other')}", url)
        assert problem_of(foreign, 401, "invalid-token")["title"] == "Invalid token"
        assert foreign.value("WWW-Authenticate").startswith('Bearer realm="api", error="invalid_token"')
        old = minted("--issuer", "dev", "--claim", "exp=1000")
        expired = curl("-H", f"Authorization: Bearer {old}", url)
        assert problem_of(expired, 401, "token-expired")["title"] == "Token expired"
        header, payload, _ = good.split(".")
        unsigned = f"{header}.{payload}."
        problem_of(curl("-H", f"Authorization: Bearer {unsigned}", url), 401, "invalid-token")
        log = gateway.log()
        assert "refused jwt: it is from another issuer" in log
        for text in (good, payload):
            assert text not in log


def test_another_content_of_the_file_is_another_configuration(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text('{"keys": []}')
    one, same = (Jwt.model_validate({"jwks_file": str(file)}) for _ in range(2))
    assert one == same
    file.write_text('{"keys": [] }')
    other = Jwt.model_validate({"jwks_file": str(file)})
    assert other != one
    assert pickle.loads(pickle.dumps(other)) == other
    assert pickle.loads(pickle.dumps(one)) != other
