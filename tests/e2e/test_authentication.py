"""Keys, passwords and rights as curl sees them, with a real gateway; and no secret anywhere but where it was given."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import argon2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from portico.jose.mint import new_key
from tests.harness.gateway import Gateway, Service, curl, portico, problem_of, wait_for

KEY, OTHER, OWN = "the-secret-key-of-ada", "another-secret-key", "billing-secret-key-1"
PASSWORD = "swordfish:ä"
SECRETS = (KEY, OTHER, OWN, "swordfish")
CONFIG = """
consumers:
  ada: {keys: ["${ADA_KEY}", "${file:key}"], roles: [staff, admin], metadata: {email: ada@example.com}}
  bob: {password: 'HASH', roles: [staff]}
services:
  shop:
    url: http://127.0.0.1:PORT
    policies:
      - key-auth: {query: api_key, keys: {billing: "${OWN_KEY}"}}
      - basic-auth: {realm: shop}
      - user-headers: {claims: {email: X-User-Email}}
routes:
  - {path: /shop/**, service: shop}
  - {path: /admin/**, service: shop, policies: [{authorize: admin}]}
  - {path: /open/**, service: shop, policies: [{key-auth: off}, {basic-auth: off}]}
"""


@pytest.fixture(autouse=True)
def _state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no file of the store left in the machine's memory."""
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / "run"))


def test_workers_count_wrong_passwords_together(tmp_path: Path) -> None:
    hashed = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    config = f"""
consumers: {{bob: {{password: '{hashed}'}}}}
routes: [{{path: /**, respond: in, policies: [basic-auth: {{failures: 8, within: 1h}}]}}]
"""
    with Gateway(tmp_path, config, workers=2) as gateway:
        for _ in range(2):
            assert curl("-u", f"bob:{PASSWORD}", gateway.url).body == b"in"
        tried = [curl("-u", f"eve-{number}:wrong", gateway.url).status for number in range(12)]
        assert tried == [401] * 8 + [429] * 4


def test_keys_passwords_and_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADA_KEY", KEY)
    monkeypatch.setenv("OWN_KEY", OWN)
    (tmp_path / "key").write_text(OTHER + "\n")
    hashed = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    with Service() as shop:
        config = CONFIG.replace("PORT", str(shop.port)).replace("HASH", hashed)
        with Gateway(tmp_path, config) as gateway:
            url = gateway.url

            def user(*arguments: str) -> list[str]:
                answer = curl(*arguments)
                assert answer.status == 200, answer
                seen = shop.seen[-1]
                assert not {"authorization", "x-api-key", "x_user_id"} & seen.names
                assert not any(secret in f"{seen.target} {seen.headers}" for secret in SECRETS)
                names = ("X-User-ID", "X-User-Roles", "X-User-Email")
                return [",".join(seen.values(name)) for name in names]

            ada = ["ada", "admin,staff", "ada@example.com"]
            forged = ("-H", "X-User-ID: root", "-H", "X_User_ID: root", "-H", "X-User-Email: root")
            assert user("-H", f"X-API-Key: {KEY}", f"{url}/shop/a") == ada
            assert user("-H", f"X-API-Key: {OTHER}", *forged, f"{url}/admin/a") == ada
            assert user("-H", f"X-API-Key: {KEY}", "-H", "Connection: x-user-id, x-user-roles", f"{url}/shop/a") == ada
            assert user(f"{url}/shop/a?api_key={KEY}&b=1") == ada
            assert shop.seen[-1].target == "/shop/a?b=1"
            assert user("-H", f"X-API-Key: {OWN}", f"{url}/shop/a") == ["billing", "", ""]
            for _ in range(2):
                assert user("-u", f"bob:{PASSWORD}", f"{url}/shop/a") == ["bob", "staff", ""]
            assert user("-u", f"bob:{PASSWORD}", "-H", f"X-API-Key: {KEY}", f"{url}/shop/a") == ada
            assert user(*forged, f"{url}/open/a") == ["", "", ""]

            missing = curl(f"{url}/shop/a")
            assert problem_of(missing, 401, "authentication-required")["title"] == "Missing authentication"
            challenges = [value for name, value in missing.headers if name.lower() == "www-authenticate"]
            assert challenges == ['Key realm="api"', 'Basic realm="shop", charset="UTF-8"']
            refused = curl("-H", f"X-API-Key: {KEY}x", f"{url}/shop/a")
            assert problem_of(refused, 401, "invalid-api-key")["title"] == "Invalid API key"
            twice = curl("-H", f"X-API-Key: {KEY}", "-H", f"X-API-Key: {OTHER}", f"{url}/shop/a")
            problem_of(twice, 401, "duplicate-api-key")
            problem_of(curl("-u", "bob:wrong", f"{url}/shop/a"), 401, "invalid-credentials")
            problem_of(curl("-u", "eve:wrong", f"{url}/shop/a"), 401, "invalid-credentials")
            assert problem_of(curl("-u", f"bob:{PASSWORD}", f"{url}/admin/a"), 403, "forbidden")["title"] == "Forbidden"
            assert curl("-H", "X-API-Key: " + "k" * 40_000, f"{url}/shop/a").status == 431

            gateway.agent_answers()
            said = [portico(command, gateway.file).out for command in ("check", "explain", "status")]
            said += [portico("explain", gateway.file, "GET", "/shop/a").out]
            (tmp_path / "key").write_text("short\n")
            wrong = portico("check", gateway.file)
            assert "a key has 16 or more characters" in wrong.err
            said += [wrong.err, repr(portico("reload", gateway.file)), *map(str, missing.headers)]
            snapshots = [snapshot for pid in (gateway.popen.pid, gateway.agent_pid()) for snapshot in memory_files(pid)]
            assert any(b"ada@example.com" in each for each in snapshots)
            for secret in SECRETS:
                assert not any(secret in text for text in said)
                assert not any(secret.encode() in each for each in snapshots)
            log = wait_for(lambda: gateway.log() if "refused authorize" in gateway.log() else "", "the log")
            assert "refused authorize: roles, user bob, client 127.0.0.1, route admin" in log
            assert not any(secret in log for secret in SECRETS)


def memory_files(pid: int) -> list[bytes]:
    """Return what is in the files in memory that a process has open: the snapshots for workers are such."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed since
            found += [each.read_bytes()] if "memfd:" in str(each.readlink()) else []
    return found


INTERNAL = """
consumers: {ada: {keys: the-secret-key-of-ada, roles: [admin]}}
services: {shop: "http://127.0.0.1:PORT"}
policies: [key-auth, {internal-jwt: {key_file: internal.pem, issuer: portico, audience: shop}}]
routes:
  - {path: /shop/**, service: shop}
  - {path: /jwks.json, jwks: {key_files: [internal.pem, other.pem]}, policies: [{key-auth: off}]}
"""


def test_tokens_that_the_gateway_signs_and_another_key(tmp_path: Path) -> None:
    private, other = new_key()[0], new_key()[0]
    (tmp_path / "internal.pem").write_bytes(private)
    (tmp_path / "other.pem").write_bytes(other)
    with Service() as shop, Gateway(tmp_path, INTERNAL.replace("PORT", str(shop.port))) as gateway:

        def kid_of_the_token() -> str:
            """Return which key has signed what the service is sent, and verify it by what is published."""
            forged = ("-H", "Authorization: Bearer forged", "-H", "AUTHORIZATION: Bearer forged")
            assert curl("-H", f"X-API-Key: {KEY}", *forged, f"{gateway.url}/shop/a").status == 200
            (value,) = shop.seen[-1].values("Authorization")
            published = KeySet.import_key_set(json.loads(curl(f"{gateway.url}/jwks.json").body))
            token = jwt.decode(value.removeprefix("Bearer "), published, algorithms=["ES256"])
            assert (token.claims["sub"], token.claims["roles"], token.claims["aud"]) == ("ada", ["admin"], "shop")
            return token.header["kid"]

        first = kid_of_the_token()
        assert kid_of_the_token() == first
        (tmp_path / "internal.pem").write_bytes(other)
        (tmp_path / "other.pem").write_bytes(private)
        assert portico("reload", gateway.file).code == 0
        assert kid_of_the_token() != first
        said = portico("explain", gateway.file, "GET", "/shop/a", "-H", f"X-API-Key: {KEY}").out + gateway.log()
        for key in (private, other):
            assert key.decode().splitlines()[1] not in said
