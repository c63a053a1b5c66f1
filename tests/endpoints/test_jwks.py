from __future__ import annotations

import json
from pathlib import Path

import pytest
from joserfc.jwk import ECKey, Key, OctKey, RSAKey

from portico.jose.keys import KeySet
from portico.testing import ConfigError, Gateway

NOW, NEXT, RSA = ECKey.generate_key("P-256"), ECKey.generate_key("P-384"), RSAKey.generate_key(2048)
TEXT = "routes: [{path: /keys, jwks: SETTINGS}]"


def written(folder: Path, **keys: Key) -> str:
    for name, key in keys.items():
        (folder / f"{name}.pem").write_bytes(key.as_pem(private=name != "public"))
    return str(folder)


def gateway(folder: str, settings: str) -> Gateway:
    return Gateway(text=TEXT.replace("SETTINGS", settings.replace("F/", f"{folder}/")))


def test_the_public_halves_are_published(tmp_path: Path) -> None:
    folder = written(tmp_path, now=NOW, next=NEXT, public=RSA)
    with gateway(folder, "{key_files: [F/now.pem, F/next.pem, F/public.pem, F/now.pem], max_age: 1h}") as running:
        answer = running.get("/keys")
        assert running.head("/keys").status == 200
    assert (answer.status, answer.headers["content-type"]) == (200, "application/jwk-set+json")
    assert answer.headers["cache-control"] == "public, max-age=3600"
    keys = json.loads(answer.body)["keys"]
    told = [(key["kid"], key["alg"], key["use"]) for key in keys]
    assert told == [(key.thumbprint(), alg, "sig") for key, alg in ((NOW, "ES256"), (NEXT, "ES384"), (RSA, "RS256"))]
    for key in keys:
        assert not set(key) & {"d", "p", "q", "dp", "dq", "qi", "k"}
    assert len(KeySet.of_json(answer.body, published=True).keys) == 3


def test_one_file_is_enough(tmp_path: Path) -> None:
    with gateway(written(tmp_path, now=NOW), "F/now.pem") as running:
        answer = running.get("/keys")
    assert [key["kid"] for key in json.loads(answer.body)["keys"]] == [NOW.thumbprint()]
    assert answer.headers["cache-control"] == "public, max-age=300"


def test_what_is_no_key_is_not_published(tmp_path: Path) -> None:
    (tmp_path / "secret.pem").write_bytes(OctKey.generate_key(256).raw_value)
    written(tmp_path, odd=ECKey.generate_key("secp256k1"))
    for name, message in (("secret", "no key of RSA"), ("odd", "no token is signed by its curve")):
        with pytest.raises(ConfigError, match=rf"{name}\.pem: .*{message}"), gateway(str(tmp_path), f"F/{name}.pem"):
            pass


def test_at_least_one() -> None:
    with pytest.raises(ConfigError, match="1 or more items"):
        gateway("", "{key_files: []}")
