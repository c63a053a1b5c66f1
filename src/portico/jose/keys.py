"""The keys that verify tokens: a key decides which algorithms it is for, and never the token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from portico.jose.compact import Compact, NotTaken, json_object

Algorithm = Literal[
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
]
"""How a token may be signed (RFC 7518 section 3.1, RFC 8037, RFC 9864)."""

Verify: TypeAlias = Callable[[bytes, bytes], bool]
"""Tells whether a signature, the second, is one of the first."""

MAX_KEYS: Final = 64
"""The most keys of a set; what is beyond is left out."""
MIN_SECRET: Final = 32
"""Bytes of a secret: as many as the hash has (RFC 7518 section 3.2)."""

_MAX_TRIES: Final = 8
"""Keys that are tried for one token that names none."""


class UnusableKey(ValueError):
    """A key verifies no token; the message says why, and has no part of the key."""


class VerifyingKey(NamedTuple):
    """One key, with how it verifies by each algorithm that it is for."""

    kid: str | None
    """What tokens call it; where it has no name, it may be meant by any."""
    algorithms: Mapping[str, Verify]


class KeySet:
    """Keys that verify tokens; it never changes, so that whoever holds it knows what was verified by it."""

    __slots__ = ("_by_kid", "_nameless", "keys", "unusable")

    def __init__(self, keys: Sequence[VerifyingKey], unusable: Sequence[str] = ()) -> None:
        self.keys = tuple(keys)
        self.unusable = tuple(unusable)
        """Why others of the set were left out."""
        self._nameless = [key for key in self.keys if key.kid is None]
        self._by_kid: dict[str, list[VerifyingKey]] = {}
        for key in self.keys:
            if key.kid is not None:
                self._by_kid.setdefault(key.kid, []).append(key)

    @classmethod
    def of_secret(cls, secret: str | bytes) -> KeySet:
        """Return the set of one secret; raise UnusableKey."""
        data = secret.encode() if isinstance(secret, str) else secret
        if len(data) < MIN_SECRET:
            raise UnusableKey(f"a secret has at least {MIN_SECRET} bytes, and this one has {len(data)}")
        from portico.jose.material import key_of_secret, verifying

        return cls([verifying(key_of_secret(data))])

    @classmethod
    def of_pem(cls, data: bytes) -> KeySet:
        """Return the set of one public key, or the one of a certificate, written as PEM; raise UnusableKey."""
        if b"PRIVATE KEY" in data:
            raise UnusableKey("this is a private key; only who signs needs it, and here the public one belongs")
        if b"-----BEGIN" not in data:
            raise UnusableKey("this is not PEM: there is no -----BEGIN PUBLIC KEY-----")
        from portico.jose.material import key_of_pem, verifying

        return cls([verifying(key_of_pem(data))])

    @classmethod
    def of_json(cls, data: bytes, *, published: bool = False) -> KeySet:
        """Return the keys of a JWKS (RFC 7517 section 5) or of one JWK; raise UnusableKey where it is none."""
        try:
            document = json_object(data, "text")
        except NotTaken as error:
            raise UnusableKey(f"this is no JWKS: {error}") from None
        return cls.of_jwks(document.get("keys", [document] if "kty" in document else None), published=published)

    @classmethod
    def of_jwks(cls, items: object, *, published: bool = False) -> KeySet:
        """Return those of a list of JWKs that verify tokens. Others are left out, as the RFC has it.

        Where the set is `published`, secrets are left out as well: everybody knows them.
        """
        if not isinstance(items, list | tuple):
            raise UnusableKey('this is no JWKS, which is written {"keys": [...]}')
        from portico.jose.material import key_of_jwk

        keys, unusable = [], []
        for place, item in enumerate(items[:MAX_KEYS]):
            try:
                keys.append(key_of_jwk(item, published=published))
            except UnusableKey as error:
                unusable.append(f"key {place + 1}: {error}")
        if len(items) > MAX_KEYS:
            unusable.append(f"{len(items) - MAX_KEYS} more than {MAX_KEYS}")
        return cls(keys, unusable)

    @property
    def algorithms(self) -> frozenset[str]:
        """The algorithms by which a token may be signed."""
        return frozenset(name for key in self.keys for name in key.algorithms)

    def check(self, token: Compact) -> bool | None:
        """Return whether a token is signed by one of the keys; None where it is by a key that is not among them.

        Raises NotTaken where the key that it names is not for its algorithm.
        """
        kid, algorithm = token.kid, token.algorithm
        if kid is None:
            keys: Sequence[VerifyingKey] = self.keys
        else:
            keys = self._by_kid.get(kid) or self._nameless
            if not keys:
                return None
        tries = [key.algorithms[algorithm] for key in keys if algorithm in key.algorithms]
        for verify in tries[:_MAX_TRIES]:
            if verify(token.signed, token.signature):
                return True
        if kid is None or kid not in self._by_kid:
            return None
        if not tries:
            raise NotTaken("its key is not for its algorithm")
        return False
