from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey
from pydantic import ValidationError

from portico.plugin import USER, Body, ConfigError, TokenSigner, User
from portico.policies import internal_jwt
from portico.policies.internal_jwt import InternalJwt, InternalJwtPolicy, Tokens
from portico.testing import Gateway, Reply, ServiceRequest
from tests.harness.policies import is_freed_by_counting, request_of
from tests.harness.policy import Pieces, TestEnv

SECRET = "a secret of thirty-two bytes or more"
BASIC: dict[str, Any] = {"secret": SECRET, "issuer": "https://gateway.example", "audience": "internal"}
ADA = User(
    "ada",
    frozenset({"staff", "admin"}),
    frozenset({"write", "read", "a b", ""}),
    {"email": "a@b", "n": 7, "yes": False, "deep": {"a": [1]}, "none": None, "big": 10**40, "iss": "forged"},
    frozenset({"p"}),
    frozenset({"g"}),
    "key-auth",
    "ada",
)


class World:
    """A policy, and the time of day."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1000.5
        self.policy = InternalJwtPolicy(InternalJwt.model_validate(BASIC | settings))
        self.env = TestEnv()
        self.env.wall = lambda: self.now  # type: ignore[method-assign]
        self.shared: list[Tokens] = []
        self.env.share = self.share  # type: ignore[method-assign]
        self.policy.setup(self.env)

    def share(self, key: tuple[object, ...], make: Any) -> Any:
        self.shared.append(make())
        return self.shared[-1]

    def sent(self, user: User | None, *headers: tuple[str, str]) -> list[tuple[str, str]]:
        request = request_of("GET", *headers)
        if user is not None:
            request[USER] = user
        assert self.policy.request(request) is None
        return [(name.decode(), value.decode("latin-1")) for name, value in request.headers]

    def token(self, user: User) -> str:
        ((name, value),) = self.sent(user)
        assert (name, value[:7]) == ("Authorization", "Bearer ")
        return value[7:]


def read(token: str, key: Any = SECRET, algorithm: str = "HS256") -> dict[str, Any]:
    key = OctKey.import_key(key) if isinstance(key, str) else key
    return jwt.decode(token, key, algorithms=[algorithm]).claims


ALWAYS = {"iss": "https://gateway.example", "aud": "internal", "iat": 1000, "exp": 1060}
CASES: list[tuple[User, dict[str, Any], dict[str, Any]]] = [
    (
        ADA,
        {},
        {"sub": "ada", "roles": ["admin", "staff"], "scope": "read write", "permissions": ["p"], "groups": ["g"]},
    ),
    (User("bob"), {}, {"sub": "bob"}),
    (User("bob"), {"lifetime": "10m"}, {"sub": "bob", "exp": 1600}),
    (User("bob"), {"audience": ["a", "b"], "issuer": "i"}, {"sub": "bob", "aud": ["a", "b"], "iss": "i"}),
    (
        ADA,
        {"roles": "off", "scopes": False, "permissions": "may", "groups": "off", "consumer": "c", "kind": "k"},
        {"sub": "ada", "may": ["p"], "c": "ada", "k": "key-auth"},
    ),
    (
        ADA,
        {
            "roles": "off",
            "scopes": "off",
            "permissions": "off",
            "groups": "off",
            "claims": ["email", "n", "yes", "deep", "none", "big", "gone"],
        },
        {"sub": "ada", "email": "a@b", "n": 7, "yes": False, "deep": {"a": [1]}},
    ),
]


@pytest.mark.parametrize(("user", "settings", "expected"), CASES)
def test_what_is_said(user: User, settings: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read(World(**settings).token(user)) == ALWAYS | expected


KEYS = {
    "RS256": RSAKey.generate_key(2048),
    "ES256": ECKey.generate_key("P-256"),
    "ES384": ECKey.generate_key("P-384"),
    "EdDSA": OKPKey.generate_key("Ed25519"),
}


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_the_key_decides_the_algorithm(algorithm: str, tmp_path: Path) -> None:
    key = KEYS[algorithm]
    (tmp_path / "key.pem").write_bytes(key.as_pem(private=True))
    world = World(secret=None, key_file=str(tmp_path / "key.pem"))
    token = world.token(ADA)
    public = type(key).import_key(key.as_dict(private=False))
    assert read(token, public, algorithm)["sub"] == "ada"
    assert jwt.decode(token, public, algorithms=[algorithm]).header == {
        "alg": algorithm,
        "typ": "JWT",
        "kid": key.thumbprint(),
    }


@pytest.mark.parametrize("name", ["Authorization", "X-User-Token"])
@pytest.mark.parametrize("user", [None, ADA])
def test_a_client_cannot_say_so(user: User | None, name: str) -> None:
    world = World(header=name)
    names = [name, name.lower(), name.replace("-", "_"), name.upper().replace("-", "_", 1)]
    forged = [(each, "Bearer forged") for each in names]
    for headers in ([*forged, ("X-Other", "a")], [("X-Other", "a"), *forged * 2], [("X-Other", "a")]):
        left = world.sent(user, *headers)
        assert left[0] == ("X-Other", "a")
        assert [each for each, _ in left[1:]] == ([name] if user else [])
    if user is not None and name != "Authorization":
        assert read(world.sent(user)[0][1])["sub"] == "ada"  # without a scheme


def test_a_client_cannot_say_so_after_its_body() -> None:
    request = request_of("POST")
    request.body = Body.stream(Pieces([b"a"], [(b"AUTHORIZATION", b"Bearer forged"), (b"X", b"y")]), None)
    World().policy.request(request)
    assert request.body.trailers() == [(b"X", b"y")]


def test_a_token_is_sent_again_until_half_of_its_lifetime_is_over() -> None:
    world = World(lifetime="10s")
    first = world.token(ADA)
    twin = User(ADA.name, ADA.roles, ADA.scopes, {}, ADA.permissions, ADA.groups)  # as a consumer's, new each time
    for now, again in ((1000.5, True), (1004.9, True), (1005.0, False), (999.9, False)):
        world.now = now
        for user in (ADA, twin):
            assert (world.token(user) == first) is again, now
        world.now = 1000.5
        first = world.token(ADA)


@pytest.mark.parametrize(
    "other",
    [
        User("bob", ADA.roles, ADA.scopes, ADA.claims, ADA.permissions, ADA.groups),
        User("ada", frozenset({"staff"}), ADA.scopes, ADA.claims, ADA.permissions, ADA.groups),
        User("ada", ADA.roles, frozenset({"read"}), ADA.claims, ADA.permissions, ADA.groups),
        User("ada", ADA.roles, ADA.scopes, {"email": "else"}, ADA.permissions, ADA.groups),
        User("ada", ADA.roles, ADA.scopes, ADA.claims, ADA.groups, ADA.permissions),
    ],
)
def test_no_token_is_sent_for_another(other: User) -> None:
    world = World(claims="email")
    assert read(world.token(ADA)) != read(world.token(other))
    assert read(world.token(ADA))["roles"] == ["admin", "staff"]


def test_not_all_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internal_jwt, "REMEMBERED", 8)
    world = World()
    (tokens,) = world.shared
    first = world.token(User("user-0"))
    for number in range(100):
        world.now += 0.01
        assert read(world.token(User(f"user-{number}")))["sub"] == f"user-{number}"  # identities are used again
        assert world.token(User("user-0")) == first  # who comes often is kept
        assert len(tokens.by_user) <= 8
        assert len(tokens.by_facts) <= 8
    tokens.close()
    assert len(tokens.by_user) == len(tokens.by_facts) == 0


def test_routes_of_the_same_settings_share_tokens_and_others_do_not(tmp_path: Path) -> None:
    keys = []
    for settings in ({}, {}, {"secret": SECRET + "!"}, {"audience": "b"}):
        world = World()
        world.env.share = lambda key, make: keys.append(key) or make()  # type: ignore[method-assign,func-returns-value]
        policy = InternalJwtPolicy(InternalJwt.model_validate(BASIC | settings))
        policy.setup(world.env)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert SECRET not in repr(keys)


def test_it_leaves_no_cycle() -> None:
    def make() -> InternalJwtPolicy:
        policy = InternalJwtPolicy(InternalJwt.model_validate(BASIC))
        policy.setup(TestEnv())
        return policy

    assert is_freed_by_counting(make)


def test_another_key_is_another_configuration(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    settings = BASIC | {"secret": None, "key_file": str(file)}
    file.write_bytes(KEYS["ES256"].as_pem(private=True))
    before = InternalJwt.model_validate(settings)
    assert before == InternalJwt.model_validate(settings)
    file.write_bytes(KEYS["EdDSA"].as_pem(private=True))
    assert before != InternalJwt.model_validate(settings)
    assert b"PRIVATE" not in repr(before).encode() + str(before).encode() + before.model_dump_json().encode()


CONFIG = """
consumers: {ada: {keys: ada-has-a-long-key, roles: [admin]}}
services: {orders: http://orders, open: http://open}
policies:
  - key-auth
  - internal-jwt: {key_file: FOLDER/now.pem, issuer: gateway, audience: internal}
routes:
  - {path: /orders, service: orders}
  - {path: /open, service: open, policies: [{key-auth: off}]}
  - {path: /jwks.json, jwks: {key_files: [FOLDER/now.pem, FOLDER/next.pem]}, policies: [{key-auth: off}]}
"""


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_services_verify_it_by_what_is_published(tmp_path: Path) -> None:
    for name, kind in (("now", "ES256"), ("next", "EdDSA")):
        (tmp_path / f"{name}.pem").write_bytes(KEYS[kind].as_pem(private=True))

    def token_of(request: ServiceRequest) -> str:
        (value,) = request.headers.all("authorization")
        return value.removeprefix("Bearer ")

    plays = {"orders": Reply(), "open": Reply()}
    with Gateway(text=CONFIG.replace("FOLDER", str(tmp_path)), services=plays) as gateway:
        published = json.loads(gateway.get("/jwks.json").body)
        orders, open_ = gateway.services["orders"], gateway.services["open"]
        key = {"X-API-Key": "ada-has-a-long-key"}
        for _ in range(2):
            assert gateway.get("/orders", headers=key | {"Authorization": "Bearer mine"}).status == 200
        tokens = [token_of(request) for request in orders.requests]
        assert tokens[0] == tokens[1]
        assert jwt.decode(tokens[0], KeySet.import_key_set(published), algorithms=["ES256", "EdDSA"]).claims == {
            "iss": "gateway",
            "aud": "internal",
            "iat": int(gateway.clock.wall()),
            "exp": int(gateway.clock.wall()) + 60,
            "sub": "ada",
            "roles": ["admin"],
        }
        gateway.clock.advance(31)
        gateway.get("/orders", headers=key)
        assert token_of(orders.requests[-1]) != tokens[0]
        assert gateway.post("/open", body="a", headers={"Authorization": "Bearer mine"}).status == 200
        assert "authorization" not in open_.requests[0].headers


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no key of RSA"),
        (KEYS["ES256"].as_pem(private=False), "a public key, and a private one signs"),
        (ECKey.generate_key("secp256k1").as_pem(private=True), "no token is signed by its curve"),
    ],
)
def test_keys_that_cannot_sign(data: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        World(secret=None, key_file=str(file))
    with pytest.raises(ValueError, match="at least 32 bytes"):
        TokenSigner.of_secret("short")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"secret": None}, "there is nothing to sign with"),
    ({"key_file": __file__}, "a key_file and a secret"),
    ({"audience": []}, "at least 1 item"),
    ({"issuer": ""}, "at least 1 character"),
    ({"lifetime": "1s"}, "greater than or equal to 2"),
    ({"lifetime": "2d"}, "less than or equal to 86400"),
    ({"header": "Cookie"}, "has a meaning of its own"),
    ({"header": "X-" * 9 + "X"}, "more than 8 dashes"),
    ({"roles": "sub"}, "is said of every token"),
    ({"claims": ["email", "iss"]}, "is said of every token"),
    ({"claims": ["email", "roles"]}, "stands twice"),
    ({"kind": "roles"}, "stands twice"),
    ({"user": "x"}, "Extra inputs"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        InternalJwt.model_validate(BASIC | settings)
    assert any(message in error["msg"] for error in caught.value.errors()), caught.value
