"""What keys are made of. This alone needs the library, which is large, and loaded where a configuration has keys."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from portico.jose.keys import MIN_SECRET, UnusableKey, Verify, VerifyingKey

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_MIN_RSA: Final = 2048
_MAX_RSA: Final = 8192
"""Bits; a longer modulus would let whoever chose it keep the worker busy."""
_CURVES: Final = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA", "Ed25519")}
_HMAC: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_MAX_MEMBER: Final = 16384
"""Characters of a member of a JWK."""


def key_of_pem(data: bytes) -> Key:
    """Return the key that is written as PEM, public or private; raise UnusableKey."""
    for kind in (RSAKey, ECKey, OKPKey):
        try:
            return _quietly(partial(kind.import_key, data))
        except UnusableKey:
            continue
    raise UnusableKey("this is no key of RSA, of an elliptic curve, or Ed25519, written as PEM")


def key_of_secret(data: bytes) -> Key:
    """Return the key that a secret is; raise UnusableKey."""
    try:
        return _quietly(lambda: OctKey.import_key(data))
    except UnusableKey:
        raise UnusableKey("this is a public key, which everybody may know, and no secret") from None


def verifying(key: Key, kid: str | None = None, only: object = None) -> VerifyingKey:
    """Return what a key verifies, by the algorithm `only` where there is one; raise UnusableKey."""
    return VerifyingKey(kid, {name: _verifier(key, name) for name in _algorithms_of(key, only)})


def algorithm_of(key: Key) -> str:
    """Return what a key is used with where nothing else is said; raise UnusableKey."""
    return _algorithms_of(key, None)[0]


def key_of_jwk(item: object, *, published: bool) -> VerifyingKey:
    """Return what a JWK verifies; raise UnusableKey."""
    if not isinstance(item, dict):
        raise UnusableKey("it is no JSON object")
    kid, alg, use, operations = (item.get(name) for name in ("kid", "alg", "use", "key_ops"))
    if any(isinstance(value, str) and len(value) > _MAX_MEMBER for value in item.values()):
        raise UnusableKey("it is too large")
    if kid is not None and not isinstance(kid, str):
        raise UnusableKey("its name is no text")
    if use not in (None, "sig"):
        raise UnusableKey("it is not for signatures")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        raise UnusableKey("it is not for verifying")
    kinds: dict[object, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey, "oct": OctKey}
    kty = item.get("kty")
    kind = kinds.get(kty) if isinstance(kty, str) else None
    if kind is None:
        raise UnusableKey("it is of no known kind")
    if published and kind is OctKey:
        raise UnusableKey("it is a secret, and published")
    # Without what it may be used for, which was looked at, and without the private half of a key that has one.
    needed = {name for name, parameter in kind.value_registry.items() if kind is OctKey or not parameter.private}
    members = {name: value for name, value in item.items() if name in needed or name == "kty"}
    key = _quietly(lambda: kind.import_key(members))
    return verifying(key, kid, alg)


def _algorithms_of(key: Key, only: object) -> list[str]:
    """Return the algorithms that a key is for, `only` one of them where it says so; raise UnusableKey."""
    able: Iterable[str]
    if isinstance(key, OctKey):
        able = [name for name, size in _HMAC.items() if len(key.raw_value) >= size]
        if not able:
            raise UnusableKey(f"a secret has at least {MIN_SECRET} bytes")
    elif isinstance(key, RSAKey):
        if not _MIN_RSA <= key.public_key.key_size <= _MAX_RSA:
            raise UnusableKey(f"a key of RSA has from {_MIN_RSA} to {_MAX_RSA} bits")
        able = _RSA
    else:
        able = _CURVES.get(key.curve_name, ())
        if not able:
            raise UnusableKey("no token is signed by its curve")
    chosen = [name for name in able if only is None or name == only]
    if not chosen:
        raise UnusableKey("its algorithm is not one for it")
    return chosen


def _verifier(key: Key, algorithm: str) -> Verify:
    """Return what verifies by one key and one algorithm; whatever is wrong with a signature, it raises nothing."""
    model: Any = JWSRegistry.algorithms[algorithm]
    model.check_key(key)

    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            return bool(model.verify(signed, signature, key))
        except Exception:  # noqa: BLE001 - a signature that makes the library stumble is no good one
            return False

    return verify


def _quietly(load: Callable[[], Key]) -> Key:
    """Return a key; raise UnusableKey where the library raises anything. It warns of weak keys, which are refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return load()
        except Exception:  # noqa: BLE001 - of many kinds, whose messages may have parts of the key
            raise UnusableKey("it cannot be read") from None
