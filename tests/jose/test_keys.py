from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey
from joserfc.jws import JWSRegistry

from portico.jose.compact import NotTaken, decode
from portico.jose.keys import MAX_KEYS, KeySet, UnusableKey
from portico.jose.mint import encode, new_key, private_key, sign
from tests.harness.tokens import CLAIMS, KINDS, SECRET, key, public, token

ALL = [(kind, algorithm) for kind, algorithms in KINDS.items() for algorithm in algorithms]


def decoded(kind: str, algorithm: str, **header: Any) -> Any:
    return decode(sign(CLAIMS, key(kind), algorithm, **header).encode())


@pytest.mark.parametrize(("kind", "algorithm"), ALL)
def test_each_algorithm_against_each_kind_of_key(kind: str, algorithm: str) -> None:
    compact = decoded(kind, algorithm)._replace(kid=None)
    for other in KINDS:
        keys = KeySet.of_jwks([public(key(other))])
        assert keys.check(compact) is (True if other == kind else None)
    everything = KeySet.of_jwks([public(key(other)) for other in KINDS])
    assert everything.check(compact) is True
    assert everything.check(compact._replace(signature=compact.signature[::-1])) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("claimed", [algorithm for _, algorithm in ALL] + ["none", "None", "", "HS1", "ES256K", "RS1"])
def test_a_key_takes_no_algorithm_but_its_own(kind: str, claimed: str) -> None:
    """The signature is good for the key by its own algorithm, over a header that names another one."""
    own = KINDS[kind][0]
    if claimed == own or (kind == "Ed25519" and claimed == "Ed25519"):
        return
    signed = encode(json.dumps({"alg": claimed, "kid": "k"}).encode()) + "." + encode(json.dumps(CLAIMS).encode())
    signature = encode(JWSRegistry.algorithms[own].sign(signed.encode(), key(kind)))
    keys = KeySet.of_jwks([public(key(kind), kid="k")])
    forged = decode(f"{signed}.{signature}".encode())
    if claimed in KINDS[kind]:
        assert keys.check(forged) is False
    else:
        with pytest.raises(NotTaken, match="its key is not for its algorithm"):
            keys.check(forged)


def test_a_public_key_is_no_secret() -> None:
    """The classic: HS256 with what everybody knows of a key of RSA, in each form in which it may be written."""
    rsa = key("RSA")
    forms = [
        rsa.as_pem(private=False),
        rsa.as_pem(private=False).strip(),
        rsa.as_der(private=False),
        json.dumps(public(rsa)).encode(),
        encode(rsa.as_der(private=False)).encode(),
        public(rsa)["n"].encode(),
    ]
    sets = [KeySet.of_jwks([public(rsa)]), KeySet.of_pem(rsa.as_pem(private=False))]
    for form in forms:
        forger = OctKey(form, form)
        for header in ({}, {"kid": rsa.thumbprint()}):
            forged = decode(sign(CLAIMS, forger, "HS256", **header).encode())
            for keys in sets:
                with suppress(NotTaken):
                    assert keys.check(forged) is None
    with pytest.raises(UnusableKey, match="this is a public key"):
        KeySet.of_secret(rsa.as_pem(private=False).decode())


def test_the_named_algorithm_of_a_key_is_the_only_one() -> None:
    keys = KeySet.of_jwks([public(key("RSA"), alg="PS384")])
    assert keys.algorithms == {"PS384"}
    assert keys.check(decoded("RSA", "PS384")) is True
    with pytest.raises(NotTaken, match="not for its algorithm"):
        keys.check(decoded("RSA", "RS256"))


def test_a_key_is_found_by_its_name() -> None:
    other = ECKey.generate_key("P-256")
    keys = KeySet.of_jwks([public(key("P-256"), kid="a"), public(other, kid="b")])
    assert keys.check(decoded("P-256", "ES256", kid="a")) is True
    assert keys.check(decoded("P-256", "ES256", kid="b")) is False
    assert keys.check(decoded("P-256", "ES256", kid="c")) is None
    twins = KeySet.of_jwks([public(other, kid="a"), public(key("P-256"), kid="a")])
    assert twins.check(decoded("P-256", "ES256", kid="a")) is True
    nameless = {name: value for name, value in public(key("P-256")).items() if name != "kid"}
    assert KeySet.of_jwks([nameless]).check(decoded("P-256", "ES256", kid="z")) is True


P256 = public(key("P-256"))
UNUSABLE: list[tuple[Any, str]] = [
    (None, "no JSON object"),
    ("key", "no JSON object"),
    ({}, "no known kind"),
    ({"kty": ["RSA"]}, "no known kind"),
    ({"kty": "XYZ"}, "no known kind"),
    ({"kty": "RSA"}, "cannot be read"),
    ({"kty": "RSA", "n": 7, "e": "AQAB"}, "cannot be read"),
    ({"kty": "RSA", "n": "A" * 20000, "e": "AQAB"}, "too large"),
    ({"kty": "RSA", "n": "_" * 5000, "e": "AQAB"}, "2048 to 8192"),
    ({**public(key("RSA")), "e": "AQ"}, "cannot be read"),  # 1: every signature would be its own content
    ({**public(key("RSA")), "e": "Ag"}, "cannot be read"),
    (public(key("RSA-1024")), "2048 to 8192"),
    (public(key("secp256k1")), "no token is signed by its curve"),
    ({**P256, "y": P256["x"]}, "cannot be read"),  # not on the curve
    ({**P256, "crv": "P-384"}, "cannot be read"),
    ({"kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}, "its curve"),
    ({"kty": "oct", "k": ""}, "cannot be read"),
    ({"kty": "oct", "k": encode(b"x" * 31)}, "at least 32 bytes"),
    ({"kty": "oct", "k": encode(b"x" * 32), "alg": "HS512"}, "algorithm is not one for it"),
    ({**P256, "use": "enc"}, "not for signatures"),
    ({**P256, "use": ["sig"]}, "not for signatures"),
    ({**P256, "key_ops": ["sign"]}, "not for verifying"),
    ({**P256, "key_ops": "verify"}, "not for verifying"),
    ({**P256, "kid": 7}, "name is no text"),
    ({**P256, "alg": "RS256"}, "algorithm is not one for it"),
    ({**P256, "alg": "ECDH-ES"}, "algorithm is not one for it"),
    ({**P256, "alg": ["ES256"]}, "algorithm is not one for it"),
]


@pytest.mark.parametrize(("item", "why"), UNUSABLE)
def test_keys_that_cannot_be_used_are_left_out(item: Any, why: str) -> None:
    keys = KeySet.of_jwks([item, P256])
    assert len(keys.keys) == 1
    assert why in keys.unusable[0]
    assert keys.check(decoded("P-256", "ES256")) is True


def test_secrets_that_are_published_are_left_out() -> None:
    keys = KeySet.of_jwks([public(key("secret")), P256], published=True)
    assert keys.unusable == ("key 1: it is a secret, and published",)


def test_a_set_has_only_so_many() -> None:
    keys = KeySet.of_jwks([P256] * (MAX_KEYS + 5))
    assert len(keys.keys) == MAX_KEYS
    assert keys.unusable == ("5 more than 64",)


def test_private_keys_verify_by_their_public_half() -> None:
    jwk = dict(key("P-256").as_dict(private=True), key_ops=["sign", "verify"])
    assert KeySet.of_json(json.dumps(jwk).encode()).check(decoded("P-256", "ES256")) is True


def test_secrets() -> None:
    assert KeySet.of_secret("x" * 32).algorithms == {"HS256"}
    assert KeySet.of_secret("x" * 48).algorithms == {"HS256", "HS384"}
    assert KeySet.of_secret(SECRET).algorithms == {"HS256", "HS384", "HS512"}
    with pytest.raises(UnusableKey, match="at least 32 bytes"):
        KeySet.of_secret("x" * 31)


@pytest.mark.parametrize("kind", ["RSA", "P-256", "P-384", "P-521", "Ed25519"])
def test_pem(kind: str) -> None:
    keys = KeySet.of_pem(b"# ours\n" + key(kind).as_pem(private=False))
    assert keys.algorithms == set(KINDS[kind])
    assert keys.check(decode(token(kind=kind).encode())) is True
    with pytest.raises(UnusableKey, match="private key"):
        KeySet.of_pem(key(kind).as_pem(private=True))


@pytest.mark.parametrize("data", [b"", b"\xff", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_pem(data: bytes) -> None:
    with pytest.raises(UnusableKey):
        KeySet.of_pem(data)


def test_short_keys_are_refused_as_pem_too() -> None:
    with pytest.raises(UnusableKey, match="2048"):
        KeySet.of_pem(key("RSA-1024").as_pem(private=False))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": null}', b'{"a": 1, "a": 2}', b"\xff"])
def test_what_is_no_jwks(data: bytes) -> None:
    with pytest.raises(UnusableKey, match="no JWKS"):
        KeySet.of_json(data)


def test_a_new_key_signs_what_its_jwks_verifies() -> None:
    pem, jwks = new_key()
    assert "d" not in json.loads(jwks)["keys"][0]
    made = sign(CLAIMS, private_key(pem))
    assert KeySet.of_json(jwks, published=True).check(decode(made.encode())) is True
