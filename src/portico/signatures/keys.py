"""The keys that verify signatures: a key decides by which algorithm, and never the signature.

The algorithms are those of tokens under other names (RFC 9421 section 3.3), so their keys and their strictness are too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from portico.jose.keys import KeySet, UnusableKey, Verify

SignatureAlgorithm = Literal[
    "hmac-sha256",
    "ed25519",
    "ecdsa-p256-sha256",
    "ecdsa-p384-sha384",
    "rsa-pss-sha512",
    "rsa-v1_5-sha256",
]
"""How a request may be signed (RFC 9421 section 6.2)."""

_OF_TOKENS: Final[Mapping[str, str]] = {
    "HS256": "hmac-sha256",
    "EdDSA": "ed25519",
    "Ed25519": "ed25519",
    "ES256": "ecdsa-p256-sha256",
    "ES384": "ecdsa-p384-sha384",
    "PS512": "rsa-pss-sha512",
    "RS256": "rsa-v1_5-sha256",
}
"""What those of tokens are called here; the first that a key is for is the one that it is used with."""


class SignatureKey(NamedTuple):
    """One key, and the one algorithm that it is for."""

    algorithm: str
    verify: Verify

    @classmethod
    def of(cls, keys: KeySet, algorithm: SignatureAlgorithm | None = None) -> SignatureKey:
        """Return the one key of a set; raise UnusableKey where it is none, or none for `algorithm`.

        Of the two that one of RSA is for, it is for `rsa-pss-sha512` unless it says otherwise itself.
        """
        if len(keys.keys) != 1:
            raise UnusableKey("; ".join(keys.unusable) or "there is not one key")
        able = keys.keys[0].algorithms
        known = {name: able[token] for token, name in _OF_TOKENS.items() if token in able}
        chosen: str | None = algorithm or next(iter(known), None)
        if chosen is None:
            raise UnusableKey("no algorithm for signatures of requests is one of this key")
        if chosen not in known:
            raise UnusableKey(f"the key is not for {chosen}; it is for {' or '.join(known) or 'none that is known'}")
        return cls(chosen, known[chosen])
