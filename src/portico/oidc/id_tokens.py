"""Whether the tokens of a provider are those of a login (OpenID Connect Core 1.0 sections 3.1.3.7 and 12.2)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from portico.http.user import User
from portico.jose.compact import decode
from portico.jose.rules import TokenRules
from portico.jose.verifier import Keys, TokenVerifier
from portico.oidc.provider import ProviderDown, Tokens, TokensRefused
from portico.oidc.session import claims_of

REQUIRED: Final = ("iss", "sub", "aud", "exp", "iat")
"""What every ID token says."""
_HASHES: Final = {"256": "sha256", "384": "sha384", "512": "sha512", "EdDSA": "sha512", "Ed25519": "sha512"}
"""What a token of each kind of signature has in at_hash."""


class IdTokens:
    """Verifies ID tokens."""

    def __init__(
        self,
        keys: Keys,
        rules: TokenRules,
        client_id: str,
        user_of: Callable[[Mapping[str, Any]], User],
        wall: Callable[[], float],
    ) -> None:
        self._client_id = client_id
        self._verifier = TokenVerifier(keys, rules, user_of, wall, capacity=2)  # each token is shown only once

    async def of_login(self, tokens: Tokens, nonce: str) -> None:
        """Raise ProviderDown or TokensRefused unless tokens are those of the login that has this nonce."""
        claims = await self._claims(tokens)
        said = claims.get("nonce")
        if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
            raise TokensRefused("the ID token is of another login")

    async def of_renewal(self, tokens: Tokens, before: str) -> None:
        """Raise ProviderDown or TokensRefused unless tokens are for whom the ID token `before` was."""
        claims, known = await self._claims(tokens), claims_of(before)
        for name in ("iss", "sub"):
            if claims.get(name) != known.get(name):
                raise TokensRefused(f"the new ID token has another {name}")
        if "nonce" in claims and claims["nonce"] != known.get("nonce"):
            raise TokensRefused("the new ID token is of another login")

    async def _claims(self, tokens: Tokens) -> Mapping[str, Any]:
        if not tokens.id_token:
            raise TokensRefused("the provider gives no ID token")
        token = tokens.id_token.encode()
        found = self._verifier.verify(token, token)
        if isinstance(found, Awaitable):
            found = await found
        if not isinstance(found, User):
            reason = getattr(found, "reason", "")
            if getattr(found, "status", 0) == 503:
                raise ProviderDown(reason)
            raise TokensRefused(f"the ID token is not taken: {reason}")
        claims = found.claims
        audience = claims.get("aud")
        alone = not isinstance(audience, list) or len(audience) == 1
        if claims.get("azp", self._client_id if alone else None) != self._client_id:
            raise TokensRefused("the ID token was given to another client")
        self._check_hash(claims, tokens)
        return claims

    def _check_hash(self, claims: Mapping[str, Any], tokens: Tokens) -> None:
        """Check that the access token is the one that the ID token was given with, where that says so."""
        said = claims.get("at_hash")
        if said is None:
            return
        algorithm = decode(tokens.id_token.encode()).algorithm
        name = _HASHES.get(algorithm) or _HASHES[algorithm[-3:]]
        digest = hashlib.new(name, tokens.access_token.encode()).digest()
        expected = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
        if not isinstance(said, str) or said.rstrip("=") != expected:
            raise TokensRefused("the access token is not the one that the ID token is of")
