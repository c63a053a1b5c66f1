"""Making tokens: those that the gateway signs itself, and others, with keys, for development and tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import orjson
from joserfc.jwk import ECKey, Key, OctKey
from joserfc.jws import JWSRegistry

from portico.jose.keys import MIN_SECRET, UnusableKey
from portico.jose.material import algorithm_of, key_of_pem, key_of_secret


def secret_key(secret: str) -> Key:
    """Return the key that a secret is; raise UnusableKey where it is too short."""
    if len(secret.encode()) < MIN_SECRET:
        raise UnusableKey(f"a secret has at least {MIN_SECRET} bytes")
    return key_of_secret(secret.encode())


def private_key(pem: bytes) -> Key:
    """Return the private key that is written as PEM; raise UnusableKey."""
    key = key_of_pem(pem)
    if not key.is_private:
        raise UnusableKey("this is a public key, and a private one signs")
    return key


def new_key() -> tuple[bytes, bytes]:
    """Return a new private key for ES256 as PEM, and the JWKS that has its public half."""
    key = ECKey.generate_key("P-256")
    return key.as_pem(private=True), json.dumps({"keys": [public_jwk(key)]}, indent=2).encode() + b"\n"


def public_jwk(key: Key) -> dict[str, Any]:
    """Return the JWK of a key's public half, called by its thumbprint as in tokens; raise UnusableKey."""
    return dict(key.as_dict(private=False), kid=key.thumbprint(), alg=algorithm_of(key), use="sig")


def sign(claims: Mapping[str, Any], key: Key, algorithm: str | None = None, **header: Any) -> str:
    """Return a token that says `claims`, by the algorithm that the key is for unless another one is given.

    The header names the key by its thumbprint (RFC 7638), unless it is a secret.
    """
    algorithm = algorithm or algorithm_of(key)
    said: dict[str, Any] = {"alg": algorithm, "typ": "JWT"}
    if not isinstance(key, OctKey) and "kid" not in header:
        said["kid"] = key.thumbprint()
    model: Any = JWSRegistry.algorithms[algorithm]
    signed = f"{encode(orjson.dumps(said | header))}.{encode(orjson.dumps(dict(claims)))}"
    return f"{signed}.{encode(model.sign(signed.encode(), key))}"


def encode(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
