"""Tokens that the gateway itself signs, and the public halves of the keys that it signs them by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what it needs is large, and loaded where a configuration has keys
    from joserfc.jwk import Key


class TokenSigner:
    """Signs tokens by one key, and by the algorithm that this is for."""

    __slots__ = ("_algorithm", "_header", "_key")

    def __init__(self, key: Key) -> None:
        from portico.jose.material import algorithm_of

        self._key = key
        self._algorithm = algorithm_of(key)
        self._header = {} if key.key_type == "oct" else {"kid": key.thumbprint()}

    @classmethod
    def of_pem(cls, data: bytes) -> TokenSigner:
        """Return what signs by a private key that is written as PEM; raise UnusableKey."""
        from portico.jose.mint import private_key

        return cls(private_key(data))

    @classmethod
    def of_secret(cls, secret: str) -> TokenSigner:
        """Return what signs by a secret; raise UnusableKey."""
        from portico.jose.mint import secret_key

        return cls(secret_key(secret))

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a token that says `claims`; raise TypeError where JSON cannot have them."""
        from portico.jose.mint import sign

        return sign(claims, self._key, self._algorithm, **self._header)


def published_key(data: bytes) -> dict[str, Any]:
    """Return the JWK of the public half of a key that is written as PEM, private or public; raise UnusableKey."""
    from portico.jose.material import key_of_pem
    from portico.jose.mint import public_jwk

    return public_jwk(key_of_pem(data))
